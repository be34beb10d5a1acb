"""Berkeley (NCEM) .emd: images by h5py, the settings of the microscope where the file has a group of that name.

HDF5 groups marked ``emd_group_type`` hold "data" and one "dim" for each of its axes. Axes come in either order: they
are known by their names, X and Y, and HyperSpy, which writes x first, turns every image over when it reads one.
Settings have been seen in SI; a unit that stands beside a value comes before that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnreadableFileError
from .record import LENGTHS, Evidence, Loaded, RawValue, Sighting, check_claim, lookup, number

__all__ = ["load_berkeley", "look_up", "recognises"]

_BRANCHES = ("microscope", "sample", "user", "comments", "stage")
_KEYS = {
    "dwell_time": ("dwell time", "pixel dwell time"),
    "convergence_angle": ("convergence angle", "convergence semiangle", "convergence semi-angle"),
    "beam_current": ("beam current", "probe current"),
    "inner_collection_angle": ("inner collection angle", "detector inner angle"),
    "outer_collection_angle": ("outer collection angle", "detector outer angle"),
    "voltage": ("high tension", "voltage", "accelerating voltage", "acceleration voltage"),
    "camera_length": ("camera length",),
}
_UNITS = {
    "dwell_time": ("s", {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}),
    "beam_current": ("A", {"a": 1.0, "ma": 1e-3, "ua": 1e-6, "µa": 1e-6, "na": 1e-9, "pa": 1e-12}),
    "voltage": ("V", {"v": 1.0, "kv": 1e3}),
    "camera_length": ("m", LENGTHS | {"cm": 1e-2}),
}
_ANGLES = ("rad", {"rad": 1.0, "radian": 1.0, "radians": 1.0, "mrad": 1e-3, "deg": math.pi / 180, "°": math.pi / 180})
_NOWHERE = "no such entry in the group microscope of the file"


def load_berkeley(path: Path, lazy: bool) -> Loaded:
    """Images and stacks of a Berkeley .emd file, and what else it holds."""
    import h5py

    signals, others, held = [], [], False
    file = h5py.File(path, "r")
    try:
        if "4DSTEM_simulation" in file:
            raise UnreadableFileError(f"{path}: this is a simulation by Prismatic, not a micrograph")
        tree = _tree(file)
        for group in _groups(file):
            found = _read(path, group, tree, lazy)
            (others if isinstance(found, Sighting) else signals).append(found)
        if not signals and not others:
            inside = ", ".join(map(repr, sorted(file)[:5])) or "nothing"
            raise UnreadableFileError(
                f"{path}: neither an .emd file of Velox nor of Berkeley (no group in it is marked as data; it holds "
                f"{inside}); if HyperSpy can read it, use Micrograph.from_signal"
            )
        held = lazy and bool(signals)  # lazy data are read from the open file
    finally:
        if not held:
            file.close()
    return Loaded(signals, tuple(others))


def _groups(file: Any) -> Iterator[Any]:
    """Groups marked as data that hold a data set named "data"."""
    import h5py

    found = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and "emd_group_type" in item.attrs and "data" in item:
            found.extend([item] if isinstance(item["data"], h5py.Dataset) else [])

    file.visititems(visit)
    yield from found


def _tree(file: Any) -> dict:
    """Settings of the file as an ``original_metadata`` dict; values are attributes, or data sets with a unit."""
    import h5py

    version = [str(_plain(file.attrs.get(f"version_{part}", ""))) for part in ("major", "minor")]
    tree: dict[str, Any] = {"EMD_version": ".".join(version).strip(".")}
    for name in _BRANCHES:
        branch = file.get(name)
        if not isinstance(branch, h5py.Group):
            continue
        tree[name] = {key: _plain(value) for key, value in branch.attrs.items()}
        for key, item in branch.items():
            if isinstance(item, h5py.Dataset) and item.size == 1:
                tree[name][key] = _plain(np.ravel(item[()])[0])
                tree[name] |= {f"{key} units": _plain(v) for k, v in item.attrs.items() if k.lower() in _UNIT_MARKS}
    return tree


_UNIT_MARKS = ("unit", "units")


def _plain(value: Any) -> Any:
    """A value of h5py as text, number or list."""
    if isinstance(value, np.ndarray):
        return _plain(value.ravel()[0]) if value.size == 1 else [_plain(v) for v in value.ravel()[:100]]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _read(path: Path, group: Any, tree: dict, lazy: bool) -> Any:
    """Signal of one group, or the sighting of what it holds if that is no image or stack."""
    import hyperspy.api as hs

    data, title = group["data"], group.name.rsplit("/", 1)[-1]
    if data.dtype.kind not in "uifcb" or not 2 <= data.ndim <= 3:
        kinds = {1: "a spectrum or a profile", 4: "a map of images (4D data)"}
        text = data.dtype.kind not in "uifcb"
        return Sighting(title, tuple(data.shape), "no numbers" if text else kinds.get(data.ndim, f"{data.ndim}D data"))
    check_claim(path, data.size * data.dtype.itemsize)
    first = 0 if "dim0" in group else 1
    axes = [_axis(group.get(f"dim{n + first}"), size) for n, size in enumerate(data.shape)]
    order = _order([axis["name"] for axis in axes], "signals" in group.name.split("/")[:-1])
    if lazy:
        import dask.array as da

        pixels = da.from_array(data).transpose(order)
    else:
        pixels = np.ascontiguousarray(data[()].transpose(order))
    axes = [axes[n] | {"navigate": place < len(order) - 2} for place, n in enumerate(order)]
    x = {"name": f"dim{order[-1] + first}", "scale": axes[-1]["scale"], "units": axes[-1]["units"]}
    times = group.get("acquisition times")
    when = {"acquisition_time": float(np.ravel(times[()])[0])} if times is not None and times.size else {}
    signal = hs.signals.Signal2D(
        pixels, axes=axes, metadata={"General": {"title": title}}, original_metadata=tree | {"x_axis": x} | when
    )
    return signal.as_lazy() if lazy else signal


def _axis(dim: Any, size: int) -> dict:
    """HyperSpy's description of one axis; without unit where the file gives no regular one."""
    axis = {"name": "", "size": size, "scale": 1.0, "offset": 0.0, "units": ""}
    if dim is None or dim.ndim != 1 or dim.dtype.kind not in "uif":
        return axis
    axis["name"] = str(_plain(dim.attrs.get("name", "")))
    values = dim[()].astype(np.float64)
    if len(values) not in (2, size) or size < 2 or not np.isfinite(values).all():  # two where only the step is told
        return axis
    scale = (values[-1] - values[0]) / (len(values) - 1)
    if scale and np.ptp(np.diff(values) - scale) <= 0.05 * abs(scale):
        axis |= {"scale": float(scale), "offset": float(values[0]), "units": _unit(dim.attrs.get("units", ""))}
    return axis


def _unit(text: Any) -> str:
    """Unit as HyperSpy writes it: Berkeley's own way is brackets, and a low line between the letters ("[n_m]")."""
    return str(_plain(text)).strip().strip("[]").replace("_", "")


def _order(names: list[str], by_hyperspy: bool) -> list[int]:
    """Axes of the data in the order (frames, y, x), from their names, else from who wrote the file."""
    low = [name.strip().lower() for name in names]
    if low.count("x") == low.count("y") == 1:
        rest = [n for n, name in enumerate(low) if name not in ("x", "y")]
        return [*rest, low.index("y"), low.index("x")]
    return list(range(len(names)))[:: -1 if by_hyperspy else 1]


def recognises(tree: Any) -> bool:
    """Whether `tree`, an ``original_metadata`` dict, is of a Berkeley .emd file."""
    return "EMD_version" in tree if isinstance(tree, Mapping) else False


def look_up(tree: Mapping) -> Evidence:
    """Evidence on one image of a Berkeley .emd file from its ``original_metadata`` dict."""
    found = Evidence("berkeley")
    branch = lookup(tree, "microscope")
    branch = branch if isinstance(branch, Mapping) else {}
    settings = {str(key).strip().lower().replace("_", " "): key for key in branch}
    for name, spellings in _KEYS.items():
        for key in (settings[s] for s in spellings if s in settings):
            _setting(found, name, branch, key, settings)
            break
    scale = number(lookup(tree, "x_axis.scale"))
    if scale is not None:
        unit = str(lookup(tree, "x_axis.units", ""))
        metres = LENGTHS.get(unit.lower().replace("μ", "µ"))
        found.raw["pixel_size"] = RawValue(scale * (metres or 1.0), "x_axis.scale", "m" if metres else unit)

    names = ("dwell_time", "convergence_angle", "beam_current", "inner_collection_angle")
    reason = _NOWHERE if branch else "the file has no group microscope, or an empty one"
    found.absent |= dict.fromkeys(names, reason)
    found.absent |= dict.fromkeys(("detector_gain", "detector_offset"), "Berkeley EMD has no place for it")
    if "dwell_time" not in found.raw:
        found.notes.append("the file does not say that this is a STEM image; nothing in it says otherwise")
    name = branch.get(settings.get("name", "name"))
    found.microscope = name.strip() or None if isinstance(name, str) else None
    seconds = number(lookup(tree, "acquisition_time"))
    if seconds and 0 < seconds < 4e9:  # nan fails the comparison
        found.date = datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")
    return found


def _setting(found: Evidence, name: str, branch: Mapping, key: str, settings: Mapping) -> None:
    """Put one setting into `found`, in SI; a unit that is not known makes it not believed."""
    unit, factors = _UNITS.get(name, _ANGLES)
    plain = key.strip().lower().replace("_", " ")
    beside = next((settings[s] for s in (f"{plain} units", f"{plain} unit") if s in settings), None)
    said = _unit(branch[beside]).lower().replace("μ", "µ") if beside is not None else ""
    found.add(name, {"microscope": {key: branch[key]}}, f"microscope.{key}", unit, factors.get(said, 1.0))
    if said and said not in factors and name in found.raw:
        found.doubts[name] = f"its unit {branch[beside]!r} is not known"
