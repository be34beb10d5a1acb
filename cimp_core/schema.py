"""The published HDF5 schema of a data set: reading its table, and naming every way in which a file departs from it."""

from __future__ import annotations

from itertools import islice
from pathlib import PurePosixPath

import h5py
import numpy as np

from .metadata import LABELS, PARAMETERS, UNITS, Normalizer

__all__ = [
    "IMAGES",
    "group_ids",
    "image_faults",
    "image_key",
    "read_table",
    "session_ids",
    "session_name",
    "value_faults",
]

IMAGES = "full_res"
"""Group that holds the images."""

_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)  # h5py's, on a damaged object
_WIDTH = len(PARAMETERS)
_COLUMNS = {  # name: (shape after the first axis n, or the whole shape), kinds of type, published type
    "metadata_raw": (("n", _WIDTH), "f", "float32"),
    "metadata": (("n", _WIDTH), "f", "float32"),
    "stats_mean": ((_WIDTH,), "f", "float32"),
    "stats_std": ((_WIDTH,), "f", "float32"),
    "log_indices": (("k",), "iu", "int32"),
    "filepaths": (("n",), "OS", "string"),
    "frame_indices": (("n",), "iu", "int32"),
    "total_frames": (("n",), "iu", "int32"),
    "materials": (("n",), "OS", "string"),
    "missing": (("n", _WIDTH), "b", "bool"),
    "intensity": (("n",), "OS", "string"),
}
_OPTIONAL = ("materials", "missing", "intensity")


def image_key(i: int) -> str:
    """Name of image `i` in the file."""
    return f"{IMAGES}/{i:06d}"


def session_ids(filepaths: list[str]) -> np.ndarray:
    """Number of the directory of each path, or of the file where there is no directory: (n,) int64."""
    return np.unique([session_name(p) for p in filepaths], return_inverse=True)[1].astype(np.int64)


def session_name(filepath: str) -> str:
    """Directory of a path, with a slash at its end, or the file where there is no directory."""
    path = PurePosixPath(filepath.replace("\\", "/"))
    return str(path) if str(path.parent) == "." else f"{path.parent}/"


def group_ids(raw: np.ndarray) -> np.ndarray:
    """Equal integers for identical rows of `raw` (n, 7), ``nan`` equal to ``nan``, in order of first appearance.

    Compares bits. A distance with a tolerance loses true pairs in float32 and cannot compare ``nan``.
    """
    rows = np.array(raw) + 0.0  # -0.0 becomes 0.0
    rows[np.isnan(rows)] = np.nan  # one bit pattern for every nan
    bits = np.ascontiguousarray(rows).view(f"u{rows.itemsize}")
    _, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def read_table(file: h5py.File, listing: bool = True) -> tuple[dict, list[str]]:
    """Everything but the images, and the faults for which the file cannot be used (then the table may be partial).

    `listing` looks up the name of every image. The names lie scattered between the images: on a server that costs
    about a request each, so there only the first and the last are looked up.
    """
    faults: list[str] = []
    count = _count(file)
    table = {name: _column(file, name, count, faults) for name in _COLUMNS}
    table["attributes"] = attributes = _attributes(file, faults)
    labels = attributes.get("metadata_labels")
    if labels is not None and labels != list(LABELS):
        faults.append(f"attribute metadata_labels: {labels}, expected {list(LABELS)} in this order")
    faults += _row_faults(file, count) if listing else _end_faults(file, count)
    faults += _series_faults(file)
    if all(table[name] is not None for name in ("metadata_raw", "metadata", "stats_mean", "stats_std", "log_indices")):
        found = _statistics_faults(table) or _consistency_faults(table)
        faults += found
        if not found:
            indices = tuple(int(i) for i in table["log_indices"])
            table["normalizer"] = Normalizer(indices, table["stats_mean"], table["stats_std"])
    if not faults:
        table["sessions"] = session_ids(table["filepaths"])
        table["groups"] = group_ids(table["metadata_raw"])
    return table, faults


def _count(file: h5py.File) -> int | None:
    """Number of images: the rows of ``metadata_raw``, else the images themselves."""
    try:
        raw = file.get("metadata_raw")
        if isinstance(raw, h5py.Dataset) and raw.ndim:
            return raw.shape[0]
    except _DAMAGE:  # reported with the column itself
        return None
    names = _image_names(file)
    return None if names is None else len(names)


def _image_names(file: h5py.File) -> list[str] | None:
    """Names in the group of images; ``None`` where there is no such group or it is damaged."""
    try:
        group = file.get(IMAGES)
        return [str(name) for name in group] if isinstance(group, h5py.Group) else None
    except _DAMAGE:
        return None


def _column(file: h5py.File, name: str, count: int | None, faults: list[str]):
    shape, kinds, published = _COLUMNS[name]
    expected = ", ".join(str(count if s == "n" else s) for s in shape)
    try:
        item = file.get(name)
        if item is None:
            if name not in _OPTIONAL:
                faults.append(f"{name}: absent or damaged, expected ({expected}) {published}")
            return None
        if not isinstance(item, h5py.Dataset):
            faults.append(f"{name}: a group, expected a data set ({expected}) {published}")
            return None
        if len(item.shape) != len(shape) or any(
            s != (count if want == "n" else want) for s, want in zip(item.shape, shape, strict=True) if want != "k"
        ):
            faults.append(f"{name}: shape {item.shape}, expected ({expected})")
            return None
        text = kinds == "OS"
        if item.dtype.kind not in kinds or (text and h5py.check_string_dtype(item.dtype) is None):
            faults.append(f"{name}: type {item.dtype}, expected {published}")
            return None
        if text:
            return [str(entry) for entry in item.asstr()[()]]
        return item[()].astype({"f": np.float64, "b": bool}.get(kinds, np.int64))
    except _DAMAGE as error:
        faults.append(f"{name}: damaged, cannot be read ({error})")
        return None


def _attributes(file: h5py.File, faults: list[str]) -> dict:
    try:
        names = [str(name) for name in file.attrs]
    except _DAMAGE as error:
        faults.append(f"attributes: damaged, cannot be read ({error})")
        return {}
    found = {}
    for name in sorted({*names, "dose_threshold", "metadata_labels", "num_samples", "num_source_files"}):
        if name not in names:
            faults.append(f"attribute {name}: absent")
            continue
        try:
            value = file.attrs[name]
        except _DAMAGE as error:
            faults.append(f"attribute {name}: damaged, cannot be read ({error})")
            continue
        if isinstance(value, np.ndarray):
            value = [v.decode() if isinstance(v, bytes) else v for v in value.tolist()]
        elif isinstance(value, np.generic):
            value = value.item()
        found[name] = value
    return found


def _row_faults(file: h5py.File, count: int | None) -> list[str]:
    """Whether there is one image a row of metadata."""
    names = _image_names(file)
    if names is None:
        return [f"{IMAGES}: absent or damaged, expected a group of images"]
    if count is None:
        return []
    own = {name for name in names if len(name) == 6 and name.isdecimal() and int(name) < count}
    faults = []
    if len(own) < count:
        lacking = (name for i in range(count) if (name := f"{i:06d}") not in own)
        faults.append(f"{IMAGES}: {count - len(own)} of {count} images absent: {_some(list(islice(lacking, 6)))}")
    if surplus := sorted(set(names) - own):
        faults.append(f"{IMAGES}: {len(surplus)} without a row of metadata: {_some(surplus)}")
    return faults


def _end_faults(file: h5py.File, count: int | None) -> list[str]:
    """Whether the first and the last row have their image."""
    keys = [image_key(i) for i in sorted({0, count - 1})] if count else []
    try:
        return [f"{key}: absent or damaged, expected an image" for key in keys if key not in file]
    except _DAMAGE as error:
        return [f"{IMAGES}: damaged, cannot be read ({error})"]


def _series_faults(file: h5py.File) -> list[str]:
    """Whether an entry is a whole series; then a row of metadata would stand for several images."""
    try:
        shape = file[image_key(0)].shape
    except (*_DAMAGE, AttributeError):  # reported elsewhere
        return []
    if len(shape) == 2:
        return []
    what = f"a stack of shape {shape}, expected one 2-D image a row; frames of a series belong in rows of their own"
    return [f"{image_key(0)}: {what}, numbered by frame_indices"]


def _statistics_faults(table: dict) -> list[str]:
    faults = []
    logs, mean, std, raw = (table[k] for k in ("log_indices", "stats_mean", "stats_std", "metadata_raw"))
    if len(set(logs.tolist())) != len(logs) or np.any((logs < 0) | (logs >= _WIDTH)):
        faults.append(f"log_indices: {logs.tolist()}, expected different columns from 0 to {_WIDTH - 1}")
    for i, label in enumerate(LABELS):
        if not np.isfinite(mean[i]):
            faults.append(f"stats_mean of '{label}': {mean[i]}, expected a finite number")
        if not np.isfinite(std[i]) or std[i] <= 0:
            known = raw[~np.isnan(raw[:, i]), i]
            same = known.size and np.ptp(known) == 0
            constant = f" (the column is constant at {known[0]:g}; its std must then be 1)" if same else ""
            faults.append(f"stats_std of '{label}': {std[i]}, expected a finite number above zero{constant}")
    return faults


def _consistency_faults(table: dict) -> list[str]:
    """Whether ``metadata`` is what the file's own statistics make of ``metadata_raw``."""
    faults = []
    raw, normalized, missing = table["metadata_raw"], table["metadata"], table["missing"]
    for i, label in enumerate(LABELS):
        column, stored = raw[:, i], normalized[:, i]
        if np.isinf(column).any():
            faults.append(f"metadata_raw of '{label}': infinite in {_rows(np.isinf(column))}")
            continue
        logged = i in table["log_indices"]
        if logged and (column <= 0).any():
            faults.append(f"metadata_raw of '{label}': log-transformed but not above zero in {_rows(column <= 0)}")
            continue
        z = ((np.log(column) if logged else column) - table["stats_mean"][i]) / table["stats_std"][i]
        # Half a unit in the sixth place of float32 statistics is far below this; another transform is far above.
        wrong = ~np.isclose(z, stored, rtol=1e-3, atol=2e-3, equal_nan=True)
        if wrong.any():
            what = "(ln(metadata_raw) - mean) / std" if logged else "(metadata_raw - mean) / std"
            faults.append(f"metadata of '{label}': not {what} of this file in {_rows(wrong)}")
    if missing is not None and (wrong := missing != np.isnan(raw)).any():
        faults.append(f"missing: does not mark exactly the nan of metadata_raw in {_rows(wrong.any(axis=1))}")
    return faults


def value_faults(file: h5py.File) -> list[str]:
    """Faults that do not keep a data set from being used: values that are no settings, counts that do not add up."""
    table, _ = read_table(file, listing=False)
    faults, raw, attributes = [], table["metadata_raw"], table["attributes"]
    for i, (name, label) in enumerate(zip(PARAMETERS, LABELS, strict=True)):
        if raw is not None and name != "detector_offset" and (wrong := raw[:, i] <= 0).any():
            lowest = f"{np.nanmin(raw[:, i]):g} {UNITS[name]}".strip()
            faults.append(f"metadata_raw of '{label}': {lowest} is no setting, use nan, in {_rows(wrong)}")
    first, total = table["frame_indices"], table["total_frames"]
    if first is not None and total is not None and (wrong := (first < 0) | (first >= total)).any():
        faults.append(f"frame_indices: not from 0 to total_frames - 1 in {_rows(wrong)}")
    for name, rows in (("num_samples", raw), ("num_source_files", table["filepaths"] and set(table["filepaths"]))):
        if rows is not None and name in attributes and attributes[name] != len(rows):
            faults.append(f"attribute {name}: {attributes[name]}, but the file has {len(rows)}")
    return faults


def image_faults(file: h5py.File, listing: bool = True) -> list[str]:
    """Images that are not a readable 2-D uint16 or float32 data set; without `listing` of the first and last only."""
    faults = []
    last = (_count(file) or 1) - 1
    for name in (_image_names(file) or ()) if listing else sorted({f"{0:06d}", f"{last:06d}"}):
        try:
            image = file[IMAGES][name]
            if not isinstance(image, h5py.Dataset):
                faults.append(f"{IMAGES}/{name}: not a data set")
            elif image.ndim != 2 or 0 in image.shape or image.dtype not in (np.uint16, np.float32):
                faults.append(f"{IMAGES}/{name}: {image.dtype} of shape {image.shape}, expected 2-D uint16 or float32")
            else:
                image[-1, -1]
        except _DAMAGE as error:
            faults.append(f"{IMAGES}/{name}: damaged, cannot be read ({error})")
    return faults


def _rows(wrong: np.ndarray) -> str:
    rows = np.flatnonzero(wrong)
    return f"{len(rows)} of {len(wrong)} images: {_some(rows.tolist())}"


def _some(items: list, most: int = 5) -> str:
    return ", ".join(str(item) for item in items[:most]) + (", ..." if len(items) > most else "")
