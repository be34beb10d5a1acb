"""MRC files: an image or a stack with its pixel size, and, where Velox or TIA exported it, FEI's extended header.

FEI's header (types FEI1 and FEI2) marks in bit masks which of its fields are set; a field that is not marked holds
a meaningless 0, or the last camera's settings. It declares no units: lengths, times and the voltage are in SI, and
the convergence angle is taken for rad as in Velox's own files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnreadableFileError
from .record import Evidence, Loaded, RawValue, Sighting, lookup, number

__all__ = ["load_mrc", "look_up", "recognises"]

_HEADER = 1024  # [bytes]
_FEI = "fei_header"
# Field: bit mask and bit that tell whether it is set (extended header of Thermo Fisher's EPU and Velox).
_BITS = {
    "Timestamp": (1, 0),
    "HT": (1, 5),
    "Pixel size X": (1, 14),
    "Instrument mode": (1, 25),
    "Camera length": (2, 0),
    "Convergence angle": (2, 4),
    "Camera name": (2, 19),
    "STEM Detector name": (3, 7),
    "Gain": (3, 8),
    "Offset": (3, 9),
    "Dwell time": (3, 15),
}
_TEM, _STEM = 1, 2  # "Instrument mode"
_NOWHERE = "FEI's header has no field for it"


def load_mrc(path: Path, lazy: bool) -> Loaded:
    """Image or stack of an .mrc file; mrcfile reads it once the sizes in its header are known to be true."""
    import hyperspy.api as hs
    from mrcfile.mrcfile import MrcFile
    from mrcfile.utils import data_dtype_from_header

    shape, why = _survey(path)
    if why:
        return Loaded([], (Sighting(path.stem, shape, why),))
    with warnings.catch_warnings(record=True), MrcFile(path, permissive=False, header_only=lazy) as file:
        tree = {"mrc_header": _header(file.header)}
        if bytes(file.header.exttyp) in (b"FEI1", b"FEI2"):
            tree |= _fei(file.indexed_extended_header)
        data, dtype, start = file.data, data_dtype_from_header(file.header), _HEADER + int(file.header.nsymbt)
    if lazy:
        import dask.array as da

        data = da.from_array(np.memmap(path, dtype, "r", start, shape))
    data = data.reshape(shape)
    sizes = tree["mrc_header"]["pixel_size_x"], tree["mrc_header"]["pixel_size_y"]
    axes = [{"name": "frame", "size": len(data), "navigate": True}] if data.ndim == 3 else []
    for name, size, count in zip("yx", sizes[::-1], data.shape[-2:]):
        known = {"scale": size * 1e9, "units": "nm"} if size > 0 else {"scale": 1.0, "units": ""}
        axes.append({"name": name, "size": count, "navigate": False} | known)
    signal = hs.signals.Signal2D(data, axes=axes, metadata={"General": {"title": path.stem}}, original_metadata=tree)
    return Loaded([signal.as_lazy() if lazy else signal])


def _survey(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape of the data, and what they are if no image or stack; raises where the file cannot hold them."""
    from mrcfile import utils
    from mrcfile.dtypes import HEADER_DTYPE

    with path.open("rb") as file:
        text = file.read(_HEADER)
    if len(text) < _HEADER or text[208:211] != b"MAP":
        raise UnreadableFileError(f"{path}: damaged, truncated or not an .mrc file (no mark MAP in its header)")
    header = np.frombuffer(text, HEADER_DTYPE)[0]
    order = utils.byte_order_from_machine_stamp(header["machst"])
    header = np.frombuffer(text, HEADER_DTYPE.newbyteorder(order))[0]
    nx, ny, nz, mz, extra = (int(header[n]) for n in ("nx", "ny", "nz", "mz", "nsymbt"))
    dtype = utils.data_dtype_from_header(np.rec.array(header))
    shape = (nz, ny, nx) if nz != 1 else (ny, nx)
    held = path.stat().st_size - _HEADER
    if min(nx, ny, nz) < 1 or extra < 0 or extra + nx * ny * nz * dtype.itemsize > held:
        raise UnreadableFileError(
            f"{path}: truncated or damaged; its header tells of {nx} x {ny} x {nz} pixels and {extra} more bytes, "
            f"and {held} bytes follow it"
        )
    if header["ispg"] != 0 and nz > 1:
        return shape, f"a volume ({nz} sections), not an image or a series of images"
    if [int(header[n]) for n in ("mapc", "mapr", "maps")] not in ([1, 2, 3], [0, 0, 0]):
        return shape, "a section of a volume (its axes are not x and y in this order)"
    if dtype.kind == "c":
        return shape, "complex data (an FFT)"
    return shape, ""


def _header(header: Any) -> dict:
    """What the header of 1024 bytes says of the image; pixel sizes in m, 0 where unknown."""

    def size(cell: Any, count: Any) -> float:
        value = float(cell) / int(count) * 1e-10 if int(count) > 0 else 0.0
        return value if math.isfinite(value) and value > 0 else 0.0

    return {
        "pixel_size_x": size(header.cella.x, header.mx),
        "pixel_size_y": size(header.cella.y, header.my),
        "mode": int(header.mode),
        "sections": int(header.nz),
        "space_group": int(header.ispg),
        "extended_header_type": _text(header.exttyp),
        "labels": [
            bytes(label).decode("ascii", "replace").strip("\0 ") for label in header.label[: max(header.nlabl, 0)]
        ],
    }


def _text(value: Any) -> str:
    return bytes(value).decode("ascii", "replace").strip("\0 ")


def _fei(frames: Any) -> dict:
    """Fields of FEI's header of the first frame, and those by which its frames differ."""
    if frames is None or not len(frames):
        return {}
    first = {}
    for name in frames.dtype.names:
        value = frames[name][0]
        first[name] = _text(value) if isinstance(value, bytes) else value.item()
    differ = [
        n for n in (*_BITS, "Alpha tilt") if n in first and n != "Timestamp" and (frames[n] != frames[n][0]).any()
    ]
    return {_FEI: first, "frames_differ_in": differ}


def recognises(tree: Any) -> bool:
    """Whether `tree`, an ``original_metadata`` dict, is of an .mrc file read here."""
    return isinstance(lookup(tree, "mrc_header"), Mapping)


def look_up(tree: Mapping) -> Evidence:
    """Evidence on one image of an .mrc file from its ``original_metadata`` dict."""
    found = Evidence("mrc")
    fei = lookup(tree, _FEI)
    if isinstance(fei, Mapping):
        _fei_settings(found, tree, fei)
    else:
        kind = lookup(tree, "mrc_header.extended_header_type")
        reason = f"the file has no header of FEI (its extended header is {kind or 'of no type'})"
        for name in ("dwell_time", "convergence_angle", "beam_current", "detector_gain", "detector_offset"):
            found.absent[name] = reason
        found.absent["inner_collection_angle"] = reason
        found.notes.append("the file does not say that this is a STEM image; most .mrc files are of TEM")
    size = number(lookup(tree, "mrc_header.pixel_size_x"))
    if "pixel_size" not in found.raw and size:
        found.raw["pixel_size"] = RawValue(size, "mrc_header.pixel_size_x", "m")
        if math.isclose(size, 1e-10, rel_tol=1e-6):
            found.doubts["pixel_size"] = "exactly 1 Å, what programs write that do not know it"
    found.absent.setdefault("pixel_size", "the header has no cell size (0 stands for unknown)")
    return found


def _fei_settings(found: Evidence, tree: Mapping, fei: Mapping) -> None:
    """Put what FEI's header says into `found`: only fields that it marks as set."""

    def is_set(field: str) -> bool:
        mask, bit = _BITS[field]
        bits = number(fei.get(f"Bitmask {mask}"))  # numpy's integers after a .hspy file
        return bits is not None and 0 <= bits < 2**32 and bool(int(bits) >> bit & 1)

    for name, field, unit in (
        ("pixel_size", "Pixel size X", "m"),
        ("dwell_time", "Dwell time", "s"),
        ("convergence_angle", "Convergence angle", "rad"),
        ("detector_gain", "Gain", ""),
        ("detector_offset", "Offset", ""),
        ("voltage", "HT", "V"),
        ("camera_length", "Camera length", "m"),
    ):
        if is_set(field):
            found.add(name, tree, f"{_FEI}.{field}", unit)
        else:
            found.absent[name] = f"FEI's header does not mark {field!r} as set"
    found.absent |= dict.fromkeys(("beam_current", "inner_collection_angle"), _NOWHERE)
    if "convergence_angle" in found.raw:
        found.notes.append("FEI's header declares no unit for the convergence angle: taken for rad, as Velox writes it")

    detector = fei.get("STEM Detector name") if is_set("STEM Detector name") else None
    found.detector = detector if isinstance(detector, str) and detector else None
    mode = fei.get("Instrument mode") if is_set("Instrument mode") else None
    camera = fei.get("Camera name") if is_set("Camera name") else None
    if mode == _TEM or (camera and found.detector is None and mode != _STEM):
        found.refusal = f"an image of the camera {camera or '(not named)'}, taken in TEM mode"
    elif mode != _STEM and found.detector is None:
        found.notes.append("the file does not say that this is a STEM image")
    words = [fei.get("Microscope type"), f"#{fei['D-Number']}" if fei.get("D-Number") else None]
    found.microscope = " ".join(w for w in words if isinstance(w, str) and w) or None
    days = number(fei.get("Timestamp")) if is_set("Timestamp") else None
    if days and 20000 < days < 80000:  # days since the last of 1899; the time zone is not told
        found.date = (datetime(1899, 12, 30) + timedelta(days=days)).isoformat(timespec="seconds")
    _frames(found, lookup(tree, "frames_differ_in"))


def _frames(found: Evidence, differ: Any) -> None:
    """Do not believe for the whole series what only holds for its first frame."""
    fields = {
        "Pixel size X": "pixel_size",
        "Dwell time": "dwell_time",
        "Convergence angle": "convergence_angle",
        "Gain": "detector_gain",
        "Offset": "detector_offset",
    }
    for field in differ if isinstance(differ, (list, tuple)) else ():
        if field in fields:
            found.doubts[fields[field]] = f"the frames of the series differ in {field!r}"
        else:
            found.notes.append(f"the frames of the series differ in {field!r}")
