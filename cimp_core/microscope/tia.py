"""FEI TIA: .emi files with the settings, .ser files with the images; one .emi NAME.emi has NAME_1.ser, NAME_2.ser ...

The .emi has no published layout. The settings of an image are an XML element ObjectInfo (known from RosettaSciIO);
before it stand the name of the .ser file and the title of the display, as seen in files of TIA 4.5 to 4.11.

TIA records dwell time (to the microsecond), voltage and camera length. The detector stands only in the title of the
display on the screen ("Acquire HAADF"), which is a label; convergence, current, gain, offset and angles nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..errors import UnreadableFileError
from .record import Evidence, Loaded, RawValue, Sighting, lookup
from .ser import TYPES, survey

__all__ = ["NUMBERED", "load_emi", "load_ser", "look_up", "recognises"]

_LONGEST_XML = 2**20  # [bytes]; 6 kB in every file met
NUMBERED = re.compile(r"(.+)_([1-9]\d{0,5})\.ser", re.IGNORECASE | re.DOTALL)
"""Name of a .ser file that may belong to an .emi file: that file's name, and the number of the image."""
_NOWHERE = "TIA does not record it"
_IN_EMI = "kept in the .emi file, not in the .ser"


def load_emi(path: Path, lazy: bool, with_hyperspy: Callable) -> Loaded:
    """Images of all .ser files of an .emi file; `with_hyperspy` reads a file by the HyperSpy reader of a name."""
    settings = _settings(path)
    files = {}
    for file in sorted(path.parent.iterdir()):
        name = NUMBERED.fullmatch(file.name)
        if name and name[1] == path.stem:
            files[int(name[2])] = file
    if not files:
        raise UnreadableFileError(
            f"{path}: its images are in .ser files beside it, and {path.stem}_{min(settings)}.ser is missing; "
            "copy it to the same folder"
        )
    signals, others, damaged = [], [], []
    for n in sorted(settings.keys() | files.keys()):
        if n not in files:
            # Not always lost: a single spectrum is kept within the .emi.
            others.append(Sighting(f"{path.stem}_{n}.ser", (), "missing: if it is an image, copy it beside the .emi"))
            continue
        try:
            found = _read(files[n], settings.get(n), lazy, with_hyperspy)
        except UnreadableFileError as error:
            damaged.append(error)
            others.append(Sighting(files[n].name, (), "unreadable" + str(error).removeprefix(str(files[n]))))
            continue
        (others if isinstance(found, Sighting) else signals).append(found)
    if damaged and len(damaged) == len(files):
        raise UnreadableFileError(f"{path}: {damaged[0]}")
    notes = [f"{s.title}: {s.why}" for s in others if s.why.startswith(("missing", "unreadable"))]
    notes += [f"{files[n].name}: the .emi file has no settings for it" for n in sorted(files.keys() - settings.keys())]
    return Loaded(signals, tuple(others), tuple(notes))


def load_ser(path: Path, lazy: bool, with_hyperspy: Callable) -> Loaded:
    """Image of one .ser file, with its settings where the .emi file it belongs to lies beside it."""
    name = NUMBERED.fullmatch(path.name)
    settings, notes = {}, []
    beside = [path.with_name(name[1] + suffix) for suffix in (".emi", ".EMI", ".Emi")] if name else []
    emi = next((file for file in beside if file.is_file()), None)
    if emi is not None:
        try:
            settings = _settings(emi)
        except UnreadableFileError as error:
            notes.append(f"without settings, for the .emi file beside it cannot be read ({error})")
    elif name:
        notes.append(f"without settings, for {name[1]}.emi is not beside it")
    else:
        notes.append("without settings: TIA names an image NAME_1.ser, and keeps its settings beside it in NAME.emi")
    own = settings.get(int(name[2])) if name else None
    if settings and own is None:
        notes.append(f"without settings, for {emi.name} beside it has none for this image")
    found = _read(path, own, lazy, with_hyperspy)
    return Loaded([], (found,)) if isinstance(found, Sighting) else Loaded([found], (), tuple(notes))


def _read(path: Path, settings: dict | None, lazy: bool, with_hyperspy: Callable) -> Any:
    """Signal of one .ser file, or the sighting of what it holds if that is no image or series of frames."""
    seen = survey(path)
    if seen.why:
        return seen
    (signal,) = with_hyperspy(path, lazy, "TIA")
    signal.metadata.General.title = path.stem
    signal.original_metadata.add_dictionary(settings or {})
    return signal


def _settings(path: Path) -> dict[int, dict]:
    """Settings of an .emi file as RosettaSciIO would lay them out, by the number of the .ser file they belong to."""
    data = path.read_bytes()
    starts = [m.start() for m in re.finditer(b"<ObjectInfo>", data)]
    ends = [m.end() for m in re.finditer(b"</ObjectInfo>", data)]
    # Were one mark of a pair lost, the settings of one image would be taken for those of another.
    if not starts or len(starts) != len(ends):
        raise UnreadableFileError(
            f"{path}: damaged, truncated or not an .emi file (settings begin {len(starts)} times and end {len(ends)} "
            "times); the pixels may still be read from its .ser files"
        )
    found: dict[int, dict] = {}
    before = 0
    for n, (start, end) in enumerate(zip(starts, ends), 1):
        head, text = data[before:start], data[start:end]
        if len(text) > _LONGEST_XML:
            raise UnreadableFileError(f"{path}: damaged (settings of {len(text)} bytes)")
        named = re.findall(rb"_([1-9]\d{0,5})\.ser", head[-400:], re.IGNORECASE)
        title = re.findall(rb"\0([ -~]{1,80}) Scanning Display", head)
        try:
            tree = _branch(ElementTree.fromstring(text.decode("utf-8", "replace")))
        except (ElementTree.ParseError, RecursionError) as error:
            raise UnreadableFileError(f"{path}: damaged settings ({error})") from error
        number_of_file = int(named[-1]) if named else n
        if number_of_file in found:
            raise UnreadableFileError(f"{path}: damaged (two images for {path.stem}_{number_of_file}.ser)")
        found[number_of_file] = {"ObjectInfo": tree} | ({"display_title": title[-1].decode()} if title else {})
        before = end
    return found


def _branch(element: Any) -> Any:
    """Dict of an XML element; its text where it has no children. Descriptions become {"label_unit": value}."""
    if element.tag != "ExperimentalDescription":
        return {child.tag: _branch(child) for child in element} if len(element) else element.text or ""
    entries = {}
    for entry in element.iter("Data"):
        label, value, unit = (entry.findtext(tag) or "" for tag in ("Label", "Value", "Unit"))
        entries[f"{label}_{unit}" if unit else label] = value
    return entries


def recognises(tree: Any) -> bool:
    """Whether `tree`, an ``original_metadata`` dict, is of a .ser file."""
    return isinstance(lookup(tree, "ser_header_parameters"), Mapping)


def look_up(tree: Mapping) -> Evidence:
    """Evidence on one TIA image from its ``original_metadata`` dict."""
    found = Evidence("tia")
    described, acquired = "ObjectInfo.ExperimentalDescription.", "ObjectInfo.AcquireInfo."
    found.add("dwell_time", tree, f"{acquired}DwellTimePath", "s")
    found.add("voltage", tree, f"{described}High tension_kV", "V", 1e3)
    if "voltage" not in found.raw:
        found.add("voltage", tree, "ObjectInfo.ExperimentalConditions.MicroscopeConditions.AcceleratingVoltage", "V")
    found.add("camera_length", tree, f"{described}Camera length_m", "m")
    _pixel_size(tree, found)
    for name in ("convergence_angle", "beam_current", "detector_gain", "detector_offset", "inner_collection_angle"):
        found.absent[name] = _NOWHERE
    found.date = _date(tree, found)

    kind = TYPES.get(int(_numbers(tree, "DataType")[0]), "unknown") if _numbers(tree, "DataType").size else "unknown"
    if not isinstance(lookup(tree, "ObjectInfo"), Mapping):
        found.absent["dwell_time"] = _IN_EMI
        found.notes.append(f"nothing in a .ser says that this is a STEM image (its numbers are of type {kind})")
    else:
        found.absent["dwell_time"] = "no DwellTimePath in the .emi file: not a scanned image?"
        _mode(tree, found, lookup(tree, f"{described}Mode"), lookup(tree, f"{acquired}CameraNamePath"))
    name = lookup(tree, f"{described}Microscope")
    found.microscope = (name.removeprefix("Microscope ").strip() or None) if isinstance(name, str) else None

    dwell, title = found.raw.get("dwell_time"), lookup(tree, "display_title")
    if dwell is not None and dwell.value == 0:
        found.doubts["dwell_time"] = "0 s: below the microsecond to which TIA rounds it, or not recorded"
    elif dwell is not None and dwell.value < 9.5e-6:
        found.notes.append(f"TIA rounds the dwell time to 1 µs, here to within {5e-7 / dwell.value:.0%}")
    if isinstance(title, str) and title:
        found.notes.append(f"TIA showed it under the title {title!r}: a label, not a record of the detector")
    total, valid = (_numbers(tree, f"{which}NumberElements") for which in ("Total", "Valid"))
    if total.size and valid.size and valid[0] < total[0]:
        found.notes.append(f"stopped early: {valid[0]:.0f} of {total[0]:.0f} frames were recorded")
    return found


def _numbers(tree: Mapping, name: str) -> np.ndarray:
    """Values of one header field, one a frame; empty where there are none."""
    value = lookup(tree, f"ser_header_parameters.{name}")
    try:
        values = np.ravel(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        return np.empty(0)
    return values[np.isfinite(values)]


def _pixel_size(tree: Mapping, found: Evidence) -> None:
    deltas = _numbers(tree, "CalibrationDeltaX")
    if not deltas.size:
        found.absent["pixel_size"] = "no CalibrationDeltaX in the .ser file"
        return
    found.raw["pixel_size"] = RawValue(float(deltas[0]), "ser_header_parameters.CalibrationDeltaX", "m")
    if deltas[0] == 1:
        found.doubts["pixel_size"] = "exactly 1 m, which stands for an axis that was never calibrated"
    elif np.ptp(deltas) > 1e-3 * abs(deltas[0]):
        found.doubts["pixel_size"] = "the frames of the series differ in pixel size"


def _mode(tree: Mapping, found: Evidence, mode: Any, camera: Any) -> None:
    """Refuse in place what the .emi file says is no STEM image, and say what it leaves open."""
    mode = mode.strip() if isinstance(mode, str) else ""
    taken = f"taken in {mode} mode" if mode else ""
    if isinstance(camera, str) and camera:
        found.refusal = f"an image of the camera {camera}" + (f", {taken}" if taken else "")
    elif mode and "STEM" not in mode.upper():
        found.refusal = f"an image {taken}"
    elif not mode:
        found.notes.append("the file does not say that this is a STEM image")
    length = found.raw.get("camera_length")
    if length is None or not length.value > 0:
        said = "no camera length" if length is None else f"camera length {length.value:g} m"
        found.notes.append(f"{said} in the file: TIA knows it with the projector in diffraction mode only ({mode})")


def _date(tree: Mapping, found: Evidence) -> str | None:
    """Local time of the .emi file, else the time in UTC of the first frame in the .ser; a note where they disagree."""
    times = _numbers(tree, "Time")
    times = times[times > 0]
    text = lookup(tree, "ObjectInfo.AcquireDate")
    try:
        local = datetime.strptime(text, "%a %b %d %H:%M:%S %Y")
    except (TypeError, ValueError):
        return datetime.fromtimestamp(times[0], UTC).isoformat() if times.size else None
    seconds = local.replace(tzinfo=UTC).timestamp()
    # Time zones reach from -12 to +14 hours.
    if times.size and not times.min() - 13 * 3600 < seconds < times.max() + 15 * 3600:
        found.notes.append(
            f"the .ser was recorded {datetime.fromtimestamp(times[0], UTC):%Y-%m-%d}, the .emi says "
            f"{local:%Y-%m-%d}: do they belong together?"
        )
    return local.isoformat()
