"""Denoised files on disk: written at once, with a record beside them by which a later run knows what is done."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CimpError
from .denoised import NODE, Denoised

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

__all__ = ["FORMATS", "RECORD", "kept", "output_names", "write_all"]

FORMATS = ("hspy", "tif")

RECORD = ".denoised.json"
"""Ending of the record that is written beside the images of one file, last of all."""

_IMAGEJ = ("uint8", "uint16", "float32")


def output_names(paths: Iterable[str]) -> dict[str, str]:
    """For each file the stem of what is written of it, relative to the output folder, with forward slashes.

    Folders below the deepest common one are kept. Files that differ by their suffix only keep it: ``a_emd``, ``a_tif``.
    """
    paths = list(paths)
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    parts = {path: os.path.splitext(os.path.relpath(path, root)) for path in paths}
    stems = [stem for stem, _ in parts.values()]
    names = {
        p: stem if stems.count(stem) == 1 else stem + suffix.replace(".", "_") for p, (stem, suffix) in parts.items()
    }
    return {path: name.replace(os.sep, "/") for path, name in names.items()}


def kept(stem: Path, made_by: str) -> dict[str, Any] | None:
    """Record of what an earlier run made of the same file with the same options; ``None`` where not all is there."""
    try:
        record = json.loads(_beside(stem).read_text(encoding="utf-8"))
        whole = all((stem.parent / name).stat().st_size == size for name, size in record["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return record if whole and record.get("made_by") == made_by else None


def write_all(stem: Path, made: list[Denoised], format_: str, made_by: str, force: bool) -> dict[str, Any]:
    """Write the images of one file, their uncertainties and the record; nothing is left where one cannot be written.

    Parameters
    ----------
    stem : Path
        ``STEM.hspy`` and ``STEM_uncertainty.hspy`` are written, or ``STEM_1.hspy``, ``STEM_2.hspy`` ... of several.
    made : list of Denoised
    format_ : {"hspy", "tif"}
    made_by : str
        What `kept` compares.
    force : bool
        Overwrite.

    Raises
    ------
    CimpError
        A file exists and `force` is false, or the folder cannot be written to.
    """
    signals = {}
    for number, one in enumerate(made, 1):
        name = stem.name + (f"_{number}" if len(made) > 1 else "")
        signals[f"{name}.{format_}"] = one.image
        if one.uncertainty is not None:
            signals[f"{name}_uncertainty.{format_}"] = one.uncertainty
    targets = [stem.parent / name for name in signals] + [_beside(stem)]
    there = [path for path in targets if path.exists()]
    if there and not force:
        raise CimpError(f"{there[0]} exists, not made by this command with these options: --force to overwrite it")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        _beside(stem).unlink(missing_ok=True)  # what it says is true no longer
        writer = _write_hspy if format_ == "hspy" else _write_tif
        for name, signal in signals.items():
            _at_once(stem.parent / name, lambda path, signal=signal: writer(path, signal))
        sizes = {name: (stem.parent / name).stat().st_size for name in signals}
        record = {"made_by": made_by, "files": sizes, "images": [one.provenance for one in made]}
        text = json.dumps(record, indent=1, ensure_ascii=False)
        _at_once(_beside(stem), lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise CimpError(f"{stem.parent}: cannot be written ({error.strerror or error})") from error
    return record


def _beside(stem: Path) -> Path:
    return stem.with_name(stem.name + RECORD)


def _at_once(path: Path, write: Callable[[Path], object]) -> None:
    """Write under another name, then rename, so that a file of the right name is a whole one."""
    part = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_hspy(path: Path, signal: Signal2D) -> None:
    signal.save(path, overwrite=True)


def _write_tif(path: Path, signal: Signal2D) -> None:
    """TIFF with its scale for ImageJ and for DigitalMicrograph: in 8 or 16 bit or float32, other types as float32."""
    import tifffile

    data = signal.data if signal.data.dtype.name in _IMAGEJ else signal.data.astype(np.float32)
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    x, y = signal.axes_manager.signal_axes
    unit = x.units if x.is_uniform and isinstance(x.units, str) and x.units != "<undefined>" else ""
    metadata = {"axes": "TYX" if data.ndim == 3 else "YX", "Info": json.dumps(_record(signal))}
    scaled: dict[str, Any] = {}
    if unit:
        unit = unit.replace("μ", "µ")
        metadata["unit"] = {"µm": "micron", "Å": "angstrom"}.get(unit, unit)  # ImageJ's text has 7 bits
        scaled["resolution"] = tuple(_ratio(1 / axis.scale) for axis in (x, y))
        scaled["resolutionunit"] = "NONE"
        # DigitalMicrograph's tags hold the scale exactly; ImageJ's resolution is a fraction.
        text = unit.encode("latin-1", "replace")
        scaled["extratags"] = [(65003, "s", 0, text, True), (65004, "s", 0, text, True)]
        scaled["extratags"] += [(65009, "d", 1, float(x.scale), True), (65010, "d", 1, float(y.scale), True)]
    tifffile.imwrite(path, data, imagej=True, metadata=metadata, **scaled)


def _ratio(value: float) -> tuple[int, int]:
    """The nearest fraction of 32-bit numbers."""
    from fractions import Fraction

    near = Fraction(value).limit_denominator(10**6 if value < 4000 else 1000)
    return near.numerator, near.denominator


def _record(signal: Signal2D) -> Mapping[str, Any]:
    return signal.metadata.get_item(NODE).as_dictionary()
