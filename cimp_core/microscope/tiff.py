"""TIFF files: the image, its pixel size where a program wrote one, and the date; TIFF has no place for the rest.

Pixel sizes are taken from the tags of DigitalMicrograph (also written by HyperSpy) and from ImageJ's description
beside those that RosettaSciIO finds (FEI, Zeiss, Olympus, JEOL). The resolution of a printer (dots per inch) is none.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from ..errors import UnreadableFileError
from .nion import to_signal
from .record import Loaded, Sighting, check_claim, number

__all__ = ["load_tiff"]

_NION = re.compile(r"^nion\.1=(\{.*)$", re.MULTILINE)
# ImageJ spells units out, and writes what is not ASCII as an escape.
_UNITS = {"micron": "µm", "microns": "µm", "micrometer": "µm", "nanometer": "nm", "angstrom": "Å", "picometer": "pm"}


def load_tiff(path: Path, lazy: bool, with_hyperspy: Any) -> Loaded:
    """Images and stacks of a TIFF file; `with_hyperspy` reads a file by the HyperSpy reader of a name."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        # Told apart before any pixel is read: damaged sizes and packed data would cost memory or a riddle.
        kinds = list(file.series)
        faults = [_survey(path, file, series) for series in kinds]
        properties = _nion_properties(file)
        try:
            if properties is not None:
                return to_signal(kinds[0].asarray(), properties, lazy)
            signals = with_hyperspy(path, lazy, "TIFF")
        except Exception as error:
            if "imagecodecs" in str(error):
                packed = getattr(file.pages[0].compression, "name", "an unknown method")
                raise UnreadableFileError(
                    f"{path}: the pixels are packed with {packed}, which needs the package imagecodecs "
                    "(pip install imagecodecs), or save the image again without compression"
                ) from error
            raise
    images, others, notes = [], [], []
    if any("C" in series.axes for series in kinds):  # how many programs write any stack for ImageJ
        notes.append("the file calls its frames channels: check that they are frames of one detector")
    if any(series.keyframe.photometric.name == "MINISWHITE" for series in kinds):
        notes.append("the file shows 0 as white: check that its counts grow with the intensity")
    for signal, why in zip(signals, faults, strict=True):
        signal.metadata.General.title = signal.metadata.General.title or path.stem
        if why:
            others.append(Sighting(str(signal.metadata.General.title), tuple(signal.data.shape), why))
        else:
            _calibrate(signal)
            images.append(signal)
    return Loaded(images, tuple(others), tuple(notes))


def _survey(path: Path, file: Any, series: Any) -> str | None:
    """What a series of pages is if it is no grey image or stack; raises where its pixels cannot be in the file."""
    check_claim(path, math.prod(series.shape) * series.dtype.itemsize)
    size, page = path.stat().st_size, series.keyframe
    for p in filter(None, series.pages):
        counts = p.databytecounts
        ends = [offset + count for offset, count in zip(p.dataoffsets, counts)]
        # tifffile fills with zeros what is not there.
        short = not ends or min(counts) <= 0 or (page.compression == 1 and sum(counts) < page.nbytes)
        if short or max(ends) > size:
            raise UnreadableFileError(f"{path}: truncated or damaged; some of its pixels are not in the file")
    if page.photometric.name in ("RGB", "PALETTE", "YCBCR", "CMYK", "CIELAB") or "S" in series.axes:
        return "a colour picture, not the counts of a detector"
    if file.is_tvips or page.is_sis:
        return "an image of a camera, not a scanned image"
    if page.is_reduced:
        return "a small copy of another image of the file"
    if not series.axes.endswith("YX"):
        return f"data with the axes {series.axes}, not an image"
    detector = _sem_detector(file)
    return f"an image of a scanning electron microscope (detector {detector})" if detector else None


def _sem_detector(file: Any) -> str | None:
    """Detector of a file by the SEM programs of FEI and Zeiss; a STEM detector in an SEM bears that in its name."""
    if file.is_fei:
        name = ((file.fei_metadata or {}).get("Detectors") or {}).get("Name") or "not named"
    elif file.is_sem:
        name = str((file.sem_metadata or {}).get("dp_detector_type", ("", "not named"))[-1])
    else:
        return None
    return None if re.search("STEM|HAADF", str(name), re.IGNORECASE) else str(name)


def _nion_properties(file: Any) -> dict | None:
    """Properties of Nion Swift in the description of the first page: a line of ImageJ's text, or a JSON text."""
    for tag in file.pages[0].tags.getall(270, ()):
        text = tag.value
        if not isinstance(text, str) or "nion.1" not in text:
            continue
        line = _NION.search(text)
        held = json.loads(line[1]) if line else json.loads(text).get("nion.1")
        return json.loads(held) if isinstance(held, str) else held
    return None


def _calibrate(signal: Any) -> None:
    """Set the axes in place from the tags, where these say more than RosettaSciIO does."""
    tags = signal.original_metadata.as_dictionary()
    description = tags.get("ImageDescription")
    imagej = dict(re.findall(r"^(\w+)=(.*)$", description, re.MULTILINE)) if isinstance(description, str) else {}
    for axis, which in zip(signal.axes_manager.signal_axes, ("X", "Y")):
        scale, unit = number(tags.get("65009" if which == "X" else "65010")), tags.get("65003")
        if scale is not None:  # exact, while the resolution beside it is a rounded fraction
            unit = tags.get("65004", unit) if which == "Y" else unit
        elif "ImageJ" in imagej and "unit" in imagej:
            # ImageJ's resolution counts pixels a unit of its own, whatever the tag ResolutionUnit says.
            scale, unit = _ratio(tags.get(f"{which}Resolution")), imagej["unit"]
        elif not axis.units or str(axis.units) == "<undefined>":
            scale, unit = None, None
        else:
            continue
        unit = _unit(unit)
        good = unit is not None and scale is not None and math.isfinite(scale) and scale > 0
        axis.scale, axis.units = (scale, unit) if good else (1.0, "")
    # The one current in these files is that of the gun.
    if signal.metadata.has_item("Acquisition_instrument.TEM.beam_current"):
        del signal.metadata.Acquisition_instrument.TEM.beam_current


def _ratio(resolution: Any) -> float | None:
    try:
        pixels, units = resolution
        return units / pixels
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _unit(text: Any) -> str | None:
    """Unit of length as axes spell it, or of another kind as it stands; ``None`` where it is a page's or none."""
    if not isinstance(text, str):
        return None
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text).strip()
    text = _UNITS.get(text.lower(), text).replace("μ", "µ")
    if text.lower() in ("", "inch", "inches", "in", "cm", "pixel", "pixels", "px"):
        return None
    return text
