"""Velox .emd (Thermo Fisher): where one image's settings are in its ``original_metadata``.

Every value is a text, in SI. Seen in file versions 4 to 13; version 4 (2017) has no convergence angle, gain,
offset or collection angles. Two images of one file may have been taken with different optics, so all values
come from the image's own metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .record import LENGTHS, Evidence, RawValue, Sighting, lookup, number

__all__ = ["is_velox", "look_up", "recognises", "survey"]

_OLD = "Velox did not record it"


def recognises(tree: Any) -> bool:
    """Whether `tree`, an ``original_metadata`` dict, was written by Velox."""
    return isinstance(lookup(tree, "BinaryResult"), Mapping) and isinstance(lookup(tree, "Optics"), Mapping)


def look_up(tree: Mapping) -> Evidence:
    """Evidence on one Velox image from its ``original_metadata`` dict."""
    found = Evidence("velox")
    found.add("dwell_time", tree, "Scan.DwellTime", "s")
    found.add("convergence_angle", tree, "Optics.BeamConvergence", "rad")
    # Optics.ScreenCurrent is 0 as soon as the screen is lifted, that is, for every image.
    found.add("beam_current", tree, "Optics.LastMeasuredScreenCurrent", "A")
    found.add("voltage", tree, "Optics.AccelerationVoltage", "V")
    found.add("camera_length", tree, "Optics.CameraLength", "m")

    where, detector = _detector(tree)
    if detector is not None:
        found.add("detector_gain", detector, "Gain", prefix=where)
        found.add("detector_offset", detector, "Offset", prefix=where)
        found.add("inner_collection_angle", detector, "CollectionAngleRange.begin", "rad", prefix=where)
        found.add("outer_collection_angle", detector, "CollectionAngleRange.end", "rad", prefix=where)
    name = lookup(tree, "BinaryResult.Detector") or lookup(detector, "DetectorName")
    found.detector = name if isinstance(name, str) and name else None

    _pixel_size(tree, found)
    found.absent |= {
        n: f"{_OLD} (no Optics.{k})"
        for n, k in (("convergence_angle", "BeamConvergence"), ("beam_current", "LastMeasuredScreenCurrent"))
        if n not in found.raw
    }
    for n in ("detector_gain", "detector_offset", "inner_collection_angle"):
        if n not in found.raw:
            found.absent[n] = f"{_OLD} (not in {where[:-1]})" if detector is not None else "the image names no detector"
    found.absent.setdefault("dwell_time", "no Scan.DwellTime: not a scanned image?")

    model = [lookup(tree, f"Instrument.{k}") for k in ("InstrumentClass", "InstrumentModel")]
    serial = lookup(tree, "Instrument.InstrumentId")
    words = [m for m in dict.fromkeys(model) if isinstance(m, str) and m] + (
        [f"#{serial}"] if isinstance(serial, str) and serial else []
    )
    found.microscope = " ".join(words) or None
    found.date = _date(number(lookup(tree, "Acquisition.AcquisitionStartDatetime.DateTime")))
    found.refusal = _refusal(tree, found, detector)
    return found


def _detector(tree: Mapping) -> tuple[str, Mapping | None]:
    """Key prefix and entry of the detector that recorded the image.

    The index is the only sure link: from version 11 on the title is a display label, and HyperSpy's
    ``DetectorMetadata``, found through it, is empty.
    """
    index = lookup(tree, "BinaryResult.DetectorIndex")
    entry = lookup(tree, f"Detectors.Detector-{index}")
    if index is not None and isinstance(entry, Mapping):
        return f"Detectors.Detector-{index}.", entry
    return "", None


def _pixel_size(tree: Mapping, found: Evidence) -> None:
    key = "BinaryResult.PixelSize.width"
    width, unit = number(lookup(tree, key)), lookup(tree, "BinaryResult.PixelUnitX")
    if width is None:
        found.absent["pixel_size"] = f"{_OLD} (no {key})"
        return
    metres = LENGTHS.get(unit.lower()) if isinstance(unit, str) else None
    said = unit if isinstance(unit, str) else ""
    found.raw["pixel_size"] = RawValue(width, key, said) if metres is None else RawValue(width * metres, key, "m")


def _refusal(tree: Mapping, found: Evidence, detector: Mapping | None) -> str | None:
    kind = lookup(detector, "DetectorType")
    if kind == "ImagingDetector" or lookup(tree, "BinaryResult.AcquisitionUnit") == "CameraImage":
        return f"an image of the camera {found.detector}, not a scanned image"
    if kind == "AnalyticalDetector":
        return f"a map of the spectrometer {found.detector}"
    if detector is None and found.detector and "HAADF" not in found.detector.upper():
        return f"a map of {found.detector}"  # element maps name their detector but give no index
    if "dwell_time" not in found.raw and kind != "ScanningDetector":
        return "not a scanned image (it has no dwell time)"
    return None


def _date(seconds: float | None) -> str | None:
    if not seconds or not 0 < seconds < 4e9:  # zero where not recorded, and nan fails the comparison
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")


def is_velox(path: Path) -> bool:
    """Whether an .emd file was written by Velox; the other kind, Berkeley's, bears the same ending."""
    import h5py

    with h5py.File(path, "r") as file:
        return "Version" in file and "Data" in file


def survey(path: Path) -> tuple[Sighting, ...]:
    """List what a Velox .emd file holds beside images, without reading any."""
    import h5py

    with h5py.File(path, "r") as file:
        kinds = {
            "Spectrum": "EDS spectrum",
            "SpectrumStream": "EDS spectrum stream",
            "SpectrumImage": "EDS spectrum image",
            "EelsSpectrumImage": "EELS spectrum image",
        }
        counts = {what: len(file.get(f"Data/{group}") or ()) for group, what in kinds.items()}
    return tuple(Sighting(what, (), f"{count} in the file") for what, count in counts.items() if count)
