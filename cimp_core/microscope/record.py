"""What a file says about one signal, and the rules that turn it into an `Acquisition`.

The vendor modules only look values up: `Evidence` holds them as they stand, in SI, with the key each
came from. Whether a value is credible is decided here, once for all vendors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutOfRangeError, UnreadableFileError
from ..metadata import PARAMETERS, UNITS, Acquisition

__all__ = [
    "LENGTHS",
    "Evidence",
    "Instrument",
    "Loaded",
    "RawValue",
    "Sighting",
    "accept",
    "check_claim",
    "lookup",
    "number",
]

LENGTHS = {"m": 1.0, "mm": 1e-3, "µm": 1e-6, "um": 1e-6, "nm": 1e-9, "pm": 1e-12, "å": 1e-10, "a": 1e-10, "n_m": 1e-9}
"""Metres in one unit of an axis; keys are lower case, with the micro sign U+00B5. "n_m" is Berkeley EMD's nm."""

# Above these a number is damaged or in another unit (25 for 25 mrad); far outside any electron microscope.
_LARGEST = {
    "pixel_size": 1e-3,
    "dwell_time": 100.0,
    "convergence_angle": 0.5,
    "beam_current": 1e-6,
    "detector_gain": 1e6,
    "detector_offset": 1e6,
    "inner_collection_angle": 1.0,
}
_NO_PROBE = 1e-12  # [A]; screens read 1e-14 to 7e-13 A with the beam off or blanked
_WORDS = {
    "pixel_size": "pixel size",
    "dwell_time": "dwell time",
    "convergence_angle": "convergence semi-angle",
    "beam_current": "probe current",
    "detector_gain": "detector gain",
    "detector_offset": "detector offset",
    "inner_collection_angle": "inner collection angle",
}


@dataclass(frozen=True)
class RawValue:
    """One value exactly as the file has it, in SI.

    Parameters
    ----------
    value : float
        The number, converted to `unit`; ``nan`` where the file holds text that is no number.
    key : str
        Path in the file's own metadata, dots between levels.
    unit : str
        SI unit of `value`; empty for a quantity without unit or an axis that names none.
    """

    value: float
    key: str
    unit: str = ""


@dataclass(frozen=True)
class Instrument:
    """What is known of the instrument beside the seven parameters; ``None`` where the file does not say.

    Parameters
    ----------
    voltage : float or None
        Acceleration voltage [V].
    camera_length : float or None
        Camera length [m].
    outer_collection_angle : float or None
        Outer angle of the annular detector [rad].
    detector, microscope : str or None
        Names as the file gives them.
    date : str or None
        Start of the acquisition, ISO 8601; with time zone only where the file knows it.
    """

    voltage: float | None = None
    camera_length: float | None = None
    outer_collection_angle: float | None = None
    detector: str | None = None
    microscope: str | None = None
    date: str | None = None


@dataclass(frozen=True)
class Sighting:
    """What one signal of a file is, whether or not it is a HAADF-STEM image.

    Parameters
    ----------
    title : str
        Title of the signal; free text, never used to recognise a detector.
    shape : tuple of int
        Shape of the data, (rows, columns) or (frames, rows, columns) for images.
    why : str
        Empty for a HAADF-STEM image, else what the signal is instead.
    detector : str or None
        Detector as the file names it.
    raw : dict of str to RawValue
        The values found, in SI.
    """

    title: str
    shape: tuple[int, ...]
    why: str
    detector: str | None = None
    raw: dict[str, RawValue] = field(default_factory=dict)

    def __str__(self) -> str:
        size = f" ({' x '.join(map(str, self.shape))})" if self.shape else ""
        return f"{self.title!r}{size}: {self.why or 'a HAADF-STEM image'}"


@dataclass(frozen=True)
class Loaded:
    """What a vendor module gets out of one file: HyperSpy signals, what else is in it, what to tell the user."""

    signals: list[Any]
    others: tuple[Sighting, ...] = ()
    notes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()  # of each signal, where they come from several files


@dataclass
class Evidence:
    """All that a vendor module finds out about one signal.

    `raw` maps a parameter, or voltage, camera_length, outer_collection_angle, to its `RawValue`;
    `absent` tells why a parameter is not in `raw`, `doubts` why one that is there is not believed;
    `refusal` says what the signal is if it is no STEM image; `vendor` is "velox", "gatan", "tia",
    "berkeley", "mrc", "nion" or "other";
    `trusted_camera_length` is false where the value is a default.
    """

    vendor: str
    raw: dict[str, RawValue] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    detector: str | None = None
    microscope: str | None = None
    date: str | None = None
    refusal: str | None = None
    trusted_camera_length: bool = True

    def add(self, name: str, tree: Any, key: str, unit: str = "", factor: float = 1.0, prefix: str = "") -> None:
        """Put the number at `key` of the nested dict `tree`, times `factor`, into `raw`, if there is one."""
        value = number(lookup(tree, key))
        if value is not None:
            self.raw[name] = RawValue(value * factor, prefix + key, unit)


def lookup(tree: Any, key: str, default: Any = None) -> Any:
    """Value at a dotted path of nested dicts, or `default`; damaged trees may hold anything at any level."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return default
        tree = tree[part]
    return tree


def number(value: Any) -> float | None:
    """Float of a number or of its text; ``nan`` for other text, ``None`` for nothing at all."""
    if value is None or isinstance(value, (Mapping, list, tuple)) or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def check_claim(path: Path, size: int) -> None:
    """Raise `UnreadableFileError` where a file claims `size` bytes of pixels and cannot hold them however packed."""
    held = path.stat().st_size
    if not 0 <= size <= 1100 * held:  # deflate packs at most 1032 times
        raise UnreadableFileError(f"{path}: damaged; it claims {size:.3g} bytes of pixels and has {held:.3g} in all")


def accept(
    evidence: Evidence, override: Mapping[str, float | None] | None = None
) -> tuple[Acquisition, dict[str, str]]:
    """Acquisition of one image and the provenance ("file" or "user") of each value it holds.

    Parameters
    ----------
    evidence : Evidence
        The values as found.
    override : mapping, optional
        Values in SI that take the place of the file's; ``None`` withholds one.

    Raises
    ------
    OutOfRangeError
        `override` names an unknown parameter or gives a value that no microscope has.
    """
    values: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    provenance: dict[str, str] = {}
    for name in PARAMETERS:
        if name not in evidence.raw:
            missing[name] = evidence.absent.get(name, "not in the file")
            continue
        reason = evidence.doubts.get(name) or _fault(name, evidence.raw[name].value, evidence)
        if reason:
            missing[name] = reason
        else:
            values[name], provenance[name] = evidence.raw[name].value, "file"
    for name, value in (override or {}).items():
        if name not in PARAMETERS:
            raise OutOfRangeError(f"unknown parameter {name!r} in override; the seven are {', '.join(PARAMETERS)}")
        if value is None:
            values.pop(name, None)
            provenance.pop(name, None)
            missing[name] = "withheld by the user"
            continue
        reason = _limits(name, float(value))
        if reason:
            raise OutOfRangeError(
                f"{name}={value} given by hand: {reason}. Values are in SI (25 mrad is 0.025, 50 pA is 5e-11)"
            )
        if name in values and not math.isclose(values[name], value, rel_tol=1e-6):
            evidence.notes.append(
                f"{name} {value:.4g} {UNITS[name]} given by hand replaces the file's {values[name]:.4g}".replace(
                    "  ", " "
                )
            )
        values[name], provenance[name] = float(value), "user"
        missing.pop(name, None)
    return Acquisition(**values, missing=missing), provenance


def _limits(name: str, value: float) -> str | None:
    """Reason why `value` [SI] can be no `name`, whatever the file; ``None`` if it can."""
    said = f"{value:.2g} {UNITS[name]}".strip()
    if not math.isfinite(value):
        return f"the {_WORDS[name]} is not a number"
    if name == "beam_current" and value < _NO_PROBE:
        return "0 A: the current was not measured" if value == 0 else f"{said} is no probe current (beam off?)"
    if name == "convergence_angle" and value < 0:
        return f"{said} is no convergence semi-angle (microprobe or parallel illumination?)"
    if value <= 0 and name != "detector_offset":
        return f"{said} is no {_WORDS[name]}"
    if abs(value) > _LARGEST[name]:
        return f"{said} is no credible {_WORDS[name]} (another unit, or damaged?)"
    return None


def _fault(name: str, value: float, evidence: Evidence) -> str | None:
    """Reason why the value found is not credible, from the value itself and from what stands around it."""
    if name == "pixel_size" and evidence.raw[name].unit != "m":
        return "the axis is not calibrated (it has no unit of length)"
    if name == "detector_gain" and value == 0:
        return "gain 0: the detector is not in use or its settings were not recorded"
    gain = evidence.raw.get("detector_gain")
    if name == "detector_offset" and value == 0 and gain is not None and gain.value == 0:
        return "offset 0 beside gain 0: the detector settings were not recorded"
    if name == "inner_collection_angle":
        outer = evidence.raw.get("outer_collection_angle")
        if outer is not None and value == 0 and outer.value == 0:
            return "collection range 0..0: the detector was retracted or its angles were not recorded"
        if outer is not None and not outer.value > value:
            return f"collection range {value:.2g}..{outer.value:.2g} rad is no range"
    return _limits(name, value)
