"""Nion Swift .ndata, .h5 and the .tif files it exports: pixels, and the properties that stand beside them as JSON.

Swift copies what its devices report into every image, under names that changed over the years: the electron optics
are a branch ``ImageScanned`` of the instrument, the hardware source or the scan. Angles are in rad, the voltage in V.
The emission current of the gun is recorded, the probe current and the detector offset are not.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnreadableFileError
from .record import LENGTHS, Evidence, Loaded, RawValue, Sighting, check_claim, lookup, number

__all__ = ["load_h5", "load_ndata", "look_up", "recognises", "to_signal"]

# Where the optics have been seen, the most specific first. "properties" is the hardware source in exported files.
_HOLDERS = (
    "metadata.instrument",
    "metadata.instrument.autostem",
    "metadata.hardware_source.autostem",
    "metadata.hardware_source",
    "metadata.scan_detector.autostem",
    "metadata.scan.scan_device_properties",
    "metadata.scan.scan_device_parameters",
    "properties.autostem",
    "properties",
)
# What the scan did comes before what was asked of it.
_DWELL_TIMES = (
    "metadata.hardware_source.pixel_time_us",
    "properties.pixel_time_us",
    "metadata.scan.scan_device_properties.pixel_time_us",
    "metadata.scan.scan_device_parameters.pixel_time_us",
)
_GAINS = {"HAADF": "PMTDF_gain", "BF": "PMTBF_gain"}  # the photomultiplier behind each channel
_CAMERA = ("sensor_dimensions_hw", "camera_processing_parameters", "binning", "sensor_readout_area_tlbr")
_NOWHERE = "Nion Swift does not record it"


def load_ndata(path: Path, lazy: bool) -> Loaded:
    """Signal of an .ndata file: a zip of data.npy and metadata.json."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if "data.npy" not in names:
            raise UnreadableFileError(f"{path}: a zip without data.npy, so no .ndata file of Nion Swift")
        properties = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
        with archive.open("data.npy") as source:
            version = np.lib.format.read_magic(source)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[version](source)
            check_claim(path, math.prod(shape) * dtype.itemsize)
        with archive.open("data.npy") as source:
            data = np.load(source, allow_pickle=False)
    return to_signal(data, properties, lazy)


def load_h5(path: Path, lazy: bool) -> Loaded:
    """Signal of an .h5 file of Nion Swift: a data set "data" with an attribute "properties"."""
    import h5py

    file = h5py.File(path, "r")
    try:
        data = file.get("data")
        if not isinstance(data, h5py.Dataset) or "properties" not in data.attrs:
            raise UnreadableFileError(f"{path}: {_other_h5(file)}")
        properties = json.loads(data.attrs["properties"])
        check_claim(path, data.size * data.dtype.itemsize)
        # A map of spectra or patterns can be larger than any memory, and will be refused unread.
        lazy = lazy or data.ndim > 3 or _dimensions(_root(properties)[1], data.ndim)[1] > 0
        loaded = to_signal(data if lazy else data[()], properties, lazy)
    except BaseException:
        file.close()
        raise
    if not lazy:  # lazy data are read from the open file
        file.close()
    return loaded


def _other_h5(file: Any) -> str:
    """What an HDF5 file that Nion Swift did not write seems to be."""
    names = set(file)
    if "full_res" in names:
        return "this is a data set of many images, not one micrograph: open it with cimp_core.open_dataset"
    if {"haadf", "projection"} <= names:
        return "this is a simulation (image and structure in one file), not a micrograph"
    if "Experiments" in names:
        return "this is a file of HyperSpy: give it the ending .hspy"
    if {"Data", "Version"} <= names:
        return "this is a file of Velox: give it the ending .emd"
    held = ", ".join(map(repr, sorted(names)[:5])) or "nothing"
    return f'not an .h5 file of Nion Swift, which has "data" with "properties"; this one holds {held}'


def to_signal(data: Any, properties: Any, lazy: bool = False) -> Loaded:
    """Calibrated HyperSpy signal of one array and its properties, which become the ``original_metadata``."""
    import hyperspy.api as hs

    properties = properties if isinstance(properties, Mapping) else {}
    root = _root(properties)[1]
    title = properties.get("title") or root.get("title")
    title = title if isinstance(title, str) else ""
    sequence, collection, datum = _dimensions(root, data.ndim)
    calibrations = _calibrations(root)[1]
    colour = data.dtype == np.uint8 and data.ndim > 2 and data.shape[-1] in (3, 4)
    if colour and data.ndim == sequence + collection + datum + 1:
        return Loaded([], (Sighting(title, tuple(data.shape), "a colour picture"),))
    axes = []
    for n, size in enumerate(data.shape):
        given = calibrations[n] if len(calibrations) == data.ndim else {}
        scale, unit = number(lookup(given, "scale")), lookup(given, "units")
        # A scan shown in seconds, or an axis that was never calibrated, is still an image: it only has no size.
        known = scale is not None and math.isfinite(scale) and scale != 0 and isinstance(unit, str) and unit != "s"
        axes.append(
            {
                "size": size,
                "scale": scale if known else 1.0,
                "offset": _finite(number(lookup(given, "offset"))) if known else 0.0,
                "units": unit if known else "",
                "name": "xyzt"[data.ndim - 1 - n] if data.ndim <= 4 else f"axis {n}",
                "navigate": n < data.ndim - (datum if datum in (1, 2) else data.ndim),
            }
        )
    if lazy:
        import dask.array as da

        data = da.from_array(data)
    kind = {1: hs.signals.Signal1D, 2: hs.signals.Signal2D}.get(datum, hs.signals.BaseSignal)
    signal = kind(data, axes=axes, metadata={"General": {"title": title}}, original_metadata=dict(properties))
    return Loaded([signal.as_lazy() if lazy else signal])


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0


def recognises(tree: Any) -> bool:
    """Whether `tree`, an ``original_metadata`` dict, holds properties of Nion Swift."""
    root = _root(tree)[1]
    return bool(_calibrations(root)[1]) or any(
        isinstance(lookup(root, f"metadata.{branch}"), Mapping) for branch in ("hardware_source", "scan")
    )


def look_up(tree: Mapping) -> Evidence:
    """Evidence on one image of Nion Swift from its properties."""
    found = Evidence("nion")
    prefix, root = _root(tree)

    def first(name: str, keys: Sequence[str], unit: str, factor: float = 1.0) -> None:
        for key in keys:
            if name not in found.raw:
                found.add(name, root, key, unit, factor, prefix)

    channel = found.detector = next((c for c in _texts(root, "channel_name") if c), None)
    source = "metadata.hardware_source"
    first("dwell_time", _DWELL_TIMES, "s", 1e-6)
    first("convergence_angle", [*_optics("probe_ha"), f"{source}.convergence_angle_rad"], "rad")
    # A place that Swift reserves for the probe current, if a site fills it; what the gun emits is no probe current.
    first("beam_current", [f"{source}.beam_current_a"], "A")
    first("voltage", [*_optics("EHT"), "metadata.instrument.high_tension", f"{source}.autostem.high_tension_v"], "V")
    gain = _GAINS.get((channel or "").upper())
    if gain:
        first("detector_gain", _optics(gain), "")
    if gain and channel.upper() == "HAADF":
        first("inner_collection_angle", _optics("HAADF_Inner_ha"), "rad")
        first("outer_collection_angle", _optics("HAADF_Outer_ha"), "rad")
    _pixel_size(root, prefix, found)

    found.absent |= {
        "dwell_time": "no pixel_time_us: not a scanned image?",
        "convergence_angle": "the properties have no probe_ha",
        "beam_current": f"{_NOWHERE} (the emission current of the gun is no probe current)",
        "detector_gain": f"the properties have no {gain}" if gain else "the gain of this channel is not known",
        "detector_offset": _NOWHERE,
        "inner_collection_angle": "the properties have no HAADF_Inner_ha",
    }
    if "detector_gain" in found.raw:
        found.notes.append(f"the gain is {gain} of a photomultiplier, not on the scale of Velox's gain")
    scale, offset = (number(lookup(root, f"intensity_calibration.{k}")) for k in ("scale", "offset"))
    if scale not in (None, 1.0) or offset not in (None, 0.0):
        found.notes.append(f"the data are as stored; the file calibrates them by scale {scale} and offset {offset}")
    found.microscope = next(
        (n for k in ("session_metadata", "session") if isinstance(n := lookup(tree, f"{k}.instrument"), str) and n),
        None,
    )
    found.date = _date(root, tree)
    found.refusal = _refusal(root, found)
    return found


def _root(tree: Any) -> tuple[str, Mapping]:
    """Key prefix and branch that describe the data; older files put them one level down."""
    sources = lookup(tree, "data_sources")
    if isinstance(sources, Sequence) and sources and isinstance(sources[0], Mapping):
        return "data_sources[0].", sources[0]
    source = lookup(tree, "data_source")
    if isinstance(source, Mapping):
        return "data_source.", source
    return "", tree if isinstance(tree, Mapping) else {}


def _optics(name: str) -> list[str]:
    branches = [f"{holder}.ImageScanned{mark}{name}" for holder in _HOLDERS for mark in ".:"]
    return branches + [f"{holder}.{name}" for holder in _HOLDERS]


def _texts(root: Mapping, key: str) -> list[str]:
    found = (lookup(root, f"{branch}.{key}") for branch in ("metadata.hardware_source", "properties"))
    return [text.strip() for text in found if isinstance(text, str)]


def _calibrations(root: Mapping) -> tuple[str, list]:
    for key in ("dimensional_calibrations", "spatial_calibrations"):
        given = lookup(root, key)
        if isinstance(given, (list, tuple)) and given:
            return key, list(given)
    return "", []


def _dimensions(root: Mapping, ndim: int) -> tuple[int, int, int]:
    """How many axes are a sequence, a collection, and the data proper; a stack that does not say is a sequence."""
    collection, datum = (lookup(root, f"{k}_dimension_count") for k in ("collection", "datum"))
    if isinstance(collection, int) and isinstance(datum, int) and 0 <= collection <= ndim and 0 <= datum <= ndim:
        if datum == 0:  # values on a scan grid are its image
            collection, datum = 0, collection
        return int(bool(lookup(root, "is_sequence"))), collection, datum
    return (1 if ndim == 3 else 0), 0, min(ndim, 2)


def _pixel_size(root: Mapping, prefix: str, found: Evidence) -> None:
    key, calibrations = _calibrations(root)
    scale = number(lookup(calibrations[-1], "scale")) if calibrations else None
    if scale is None:
        found.absent["pixel_size"] = "the axes have no calibration"
        return
    counts = [lookup(root, f"{k}_dimension_count") for k in ("collection", "datum")]
    if all(isinstance(c, int) for c in counts) and sum(counts, bool(lookup(root, "is_sequence"))) != len(calibrations):
        found.absent["pixel_size"] = "the calibrations do not fit the axes"
        return
    unit = lookup(calibrations[-1], "units")
    said = unit if isinstance(unit, str) else ""
    metres = LENGTHS.get(said.strip().lower().replace("μ", "µ"))
    key = f"{prefix}{key}[{len(calibrations) - 1}].scale"
    found.raw["pixel_size"] = RawValue(scale, key, said) if metres is None else RawValue(scale * metres, key, "m")


def _refusal(root: Mapping, found: Evidence) -> str | None:
    name = next(iter([*_texts(root, "hardware_source_name"), *_texts(root, "hardware_source_id")]), None)
    kind = next(iter(_texts(root, "signal_type")), "")
    camera = kind or any(
        lookup(root, f"{b}.{k}") is not None for b in ("metadata.hardware_source", "properties") for k in _CAMERA
    )
    if camera and found.detector is None:
        return f"an image of the camera {name or kind or 'of this microscope'}, not a scanned image"
    collection = number(lookup(root, "collection_dimension_count"))
    datum = number(lookup(root, "datum_dimension_count"))
    if collection and datum:
        return "a map of images" if datum == 2 else "a map of spectra"
    if found.detector is None and "dwell_time" not in found.raw:
        if name:
            return f"an image of {name}, which is no scan"
        found.notes.append("the file does not say that this is a STEM image; nothing in it says otherwise")
    rows, valid = lookup(root, "data_shape"), number(lookup(root, "metadata.hardware_source.valid_rows"))
    if valid and isinstance(rows, (list, tuple)) and len(rows) == 2 and valid < (number(rows[0]) or 0):
        found.notes.append(f"only {valid:.0f} of {rows[0]} rows were scanned")
    return None


def _date(root: Mapping, tree: Mapping) -> str | None:
    """Swift writes "created" in UTC, without saying so; exported files have seconds since 1970."""
    for text in (lookup(root, "created"), lookup(tree, "created")):
        try:
            when = datetime.fromisoformat(text)
            return when.replace(tzinfo=when.tzinfo or UTC).isoformat(timespec="seconds")
        except (TypeError, ValueError):
            continue
    seconds = number(lookup(root, "timestamp"))
    if not seconds or not 0 < seconds < 4e9:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")
