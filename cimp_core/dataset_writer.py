"""Writing a data set in the published HDF5 schema: one image in memory at a time, the same bytes for the same data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from .errors import CimpError, SchemaError
from .metadata import LABELS, PARAMETERS, Normalizer
from .schema import image_key

__all__ = ["write_dataset"]


def write_dataset(
    path: str | os.PathLike,
    images: Iterable[np.ndarray],
    metadata_raw: np.ndarray,
    filepaths: Sequence[str],
    *,
    log_indices: Sequence[int] = (0, 1, 3, 6),
    frame_indices: Sequence[int] | None = None,
    total_frames: Sequence[int] | None = None,
    materials: Sequence[str] | None = None,
    intensity: Sequence[str] | None = None,
    dose_threshold: float = 0.0,
    attributes: Mapping[str, object] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
    force: bool = False,
) -> Path:
    """Write a data set, one image in memory at a time. Same arguments, same bytes.

    The table is read after the last image: `metadata_raw`, `filepaths`, `materials`, `intensity` and `extra` must have
    their length from the start, but may be filled while the images are drawn.

    Parameters
    ----------
    path : path
        File to write; it appears only once it is complete.
    images : iterable of (h, w) arrays, uint16 or float32
        As many as `metadata_raw` has rows.
    metadata_raw : (n, 7) array
        SI units, ``nan`` where missing. Stored as float32.
    filepaths : sequence of str
        Source file of each image; its directory is the session.
    log_indices : sequence of int
        Columns that are log-transformed before the z-score.
    frame_indices, total_frames : sequence of int, optional
        Place in a series; single frames by default.
    materials : sequence of str, optional
        Label of each image.
    intensity : sequence of str, optional
        Scale of each image's counts, as `Micrograph.intensity` names it.
    dose_threshold : float
        Electrons per pixel below which images were left out; 0 if none were.
    attributes : mapping, optional
        Further attributes of the file.
    extra : mapping of str to array, optional
        Further data sets, such as ``"twin/seed"``.
    force : bool
        Replace an existing file.

    Raises
    ------
    CimpError
        The file exists and `force` is false.
    SchemaError
        Lengths, shapes or types do not fit.
    """
    path = Path(path)
    if path.exists() and not force:
        raise CimpError(f"{path}: exists already; choose another name, or replace it with force=True (--force)")
    shape = np.shape(metadata_raw)
    columns = {
        "filepaths": filepaths,
        "materials": materials,
        "intensity": intensity,
        "frame_indices": frame_indices,
        "total_frames": total_frames,
    }
    wrong = [f"{name} has {len(c)} entries" for name, c in columns.items() if c is not None and len(c) != shape[0]]
    if len(shape) != 2 or shape[1] != len(PARAMETERS) or not shape[0]:
        wrong.append(f"metadata_raw has shape {shape}, not (n, 7) with n above 0")
    if wrong:
        raise SchemaError(f"{path}: metadata_raw has {shape[0]} rows; {'; '.join(wrong)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(temporary, "w") as file:
            _write_images(file, images, shape[0], path)
            raw = np.array(metadata_raw, dtype=np.float32)
            _write_table(file, raw, log_indices, columns)
            for name, value in (extra or {}).items():
                _write(file, name, value)
            labels = np.array(LABELS, dtype=h5py.string_dtype())
            own = {"dose_threshold": float(dose_threshold), "metadata_labels": labels}
            own |= {"num_samples": len(raw), "num_source_files": len(set(filepaths))}
            file.attrs.update({**(attributes or {}), **own})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write_images(file: h5py.File, images: Iterable[np.ndarray], count: int, path: Path) -> None:
    written = 0
    for image in images:
        image = np.asarray(image)
        if image.ndim != 2 or image.dtype not in (np.uint16, np.float32) or not image.size or written == count:
            what = f"{image.dtype} of shape {image.shape}" if written < count else f"one image more than {count} rows"
            raise SchemaError(f"{path}: image {written} is {what}; expected a 2-D uint16 or float32 image a row")
        # Contiguous: counts with shot noise hardly compress, and a crop then reads only its own rows.
        _write(file, image_key(written), image)
        written += 1
    if written != count:
        raise SchemaError(f"{path}: {written} images for {count} rows of metadata")


def _write_table(file: h5py.File, raw: np.ndarray, log_indices: Sequence[int], columns: Mapping) -> None:
    fitted = Normalizer.fit(raw, log_indices)
    mean, std = fitted.mean.astype(np.float32), fitted.std.astype(np.float32)
    stored = Normalizer(fitted.log_indices, mean.astype(float), std.astype(float))
    count = len(raw)
    table = {"metadata": stored.normalize(raw).astype(np.float32), "metadata_raw": raw}
    table |= {"stats_mean": mean, "stats_std": std, "log_indices": np.array(fitted.log_indices, dtype=np.int32)}
    for name, value in (("frame_indices", 0), ("total_frames", 1)):
        given = columns[name]
        table[name] = np.full(count, value, np.int32) if given is None else np.asarray(given, dtype=np.int32)
    if np.isnan(raw).any():
        table["missing"] = np.isnan(raw)
    for name in ("filepaths", "materials", "intensity"):
        if columns[name] is not None:
            table[name] = [str(entry) for entry in columns[name]]
    for name, value in table.items():
        _write(file, name, value)


def _write(file: h5py.File, name: str, value) -> None:
    value = np.asarray(value)
    if value.dtype.kind in "UO":
        value = np.array(value, dtype=h5py.string_dtype())
    file.create_dataset(name, data=value, track_times=False)  # a time would make equal data differ in bytes
