"""`Micrograph`: one HAADF-STEM image, or series of frames, with the settings it was taken with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..errors import NotHAADFError
from ..metadata import Acquisition
from . import berkeley, gatan, hspy, mrc, nion, tia, velox
from .record import Evidence, Instrument, RawValue, Sighting, accept

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

__all__ = ["Micrograph", "judge", "sight"]

# Each knows its own ``original_metadata``, so a .hspy saved from a vendor's file goes by that vendor's rules.
_VENDORS = (velox, gatan, nion, tia, berkeley, mrc)


@dataclass(frozen=True, eq=False)
class Micrograph:
    """One HAADF-STEM image or series.

    Parameters
    ----------
    image : hyperspy.signals.Signal2D
        The data as recorded; a series of frames has one navigation axis. Lazy if it was read so.
    acquisition : Acquisition
        The credible ones of the seven parameters, and why the others are missing.
    raw : dict of str to RawValue
        Every value the file holds, credible or not, in SI, with its key; also `voltage`,
        `camera_length` and `outer_collection_angle`.
    instrument : Instrument
        Voltage, camera length, outer angle, detector, microscope and date.
    intensity : str
        Scale of the counts: "velox16", "dm_counts", "float" or "unknown".
    readout : str or None
        Whether the detector signal was averaged ("mean") or summed ("sum") over the dwell time.
    path : str or None
        File it came from.
    provenance : dict of str to str
        "file" or "user" for each parameter that has a value.
    notes : list of str
        What a careful user should know about this image.
    skipped : list of Sighting
        The other signals of the file.
    """

    image: Signal2D
    acquisition: Acquisition
    raw: dict[str, RawValue]
    instrument: Instrument
    intensity: str
    readout: str | None = None
    path: str | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: list[Sighting] = field(default_factory=list)

    @classmethod
    def from_signal(
        cls, signal: Signal2D, override: Mapping[str, float | None] | None = None, **others: Any
    ) -> Micrograph:
        """Micrograph of a signal that is already in memory, by the same rules as `read`.

        Parameters
        ----------
        signal : hyperspy.signals.Signal2D
            An image or a series of images with one navigation axis, from any source.
        override : mapping, optional
            Values in SI for what the signal lacks, e.g. ``{"beam_current": 50e-12}``.
        **others
            `path`, `skipped` and a list of first `notes`, as `read` fills them in.

        Raises
        ------
        NotHAADFError
            The signal is something else; the message says what.
        OutOfRangeError
            `override` names an unknown parameter or an impossible value.
        """
        evidence, sighting = sight(signal)
        if sighting.why:
            raise NotHAADFError(f"the signal is no HAADF-STEM image. {sighting}")
        return judge(signal, evidence, override, **others)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image.data.shape))
        return f"<Micrograph {shape} {self.instrument.detector or 'detector not named'}, {self.path or 'in memory'}>"

    def __reduce__(self):
        # HyperSpy signals do not pickle; their parts do, and a micrograph must cross process borders.
        image = {
            "data": self.image.data,
            "axes": [axis.get_axis_dictionary() for axis in self.image.axes_manager._axes],
            "metadata": self.image.metadata.as_dictionary(),
            "original_metadata": self.image.original_metadata.as_dictionary(),
        }
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "image"}
        return (_rebuild, (image, self.image._lazy, rest))


def _rebuild(image: dict, lazy: bool, rest: dict) -> Micrograph:
    from hyperspy.signals import Signal2D

    signal = Signal2D(**image)
    return Micrograph(image=signal.as_lazy() if lazy else signal, **rest)


def sight(signal: Any, detector: str | None = None) -> tuple[Evidence | None, Sighting]:
    """Look one HyperSpy signal up, and say what it is.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal
        Any signal.
    detector : str, optional
        Name of the detector whose images are wanted; by default every detector named HAADF.
    """
    tree = signal.original_metadata.as_dictionary()
    fault = hspy.image_fault(signal)
    evidence = None
    vendor = next((v for v in _VENDORS if v.recognises(tree)), None)
    if vendor is not None:
        evidence = vendor.look_up(tree)
    elif not fault:
        evidence = hspy.look_up(signal)
    if evidence is not None:
        hspy.fill_from_metadata(evidence, signal.metadata.as_dictionary())
        fault = fault or evidence.refusal or _other_detector(evidence, detector, signal.data.dtype.kind == "f")
    name = evidence.detector if evidence else None
    raw = evidence.raw if evidence else {}
    return evidence, Sighting(str(signal.metadata.General.title), tuple(signal.data.shape), fault or "", name, raw)


def _other_detector(evidence: Evidence, wanted: str | None, computed: bool) -> str | None:
    name = evidence.detector
    if name is None or ("HAADF" in name.upper() if wanted is None else name.upper() == wanted.upper() == "HAADF"):
        return None
    if computed and evidence.vendor == "velox":
        return f"an image computed from the detector {name}"  # iDPC, sums and differences of segments
    if wanted is not None and name.upper() == wanted.upper():
        return None
    inner, outer = (evidence.raw.get(n) for n in ("inner_collection_angle", "outer_collection_angle"))
    angles = f" ({inner.value * 1e3:.3g} to {outer.value * 1e3:.3g} mrad)" if inner and outer else ""
    return f"an image of the detector {name}{angles}"


def judge(
    signal: Signal2D,
    evidence: Evidence,
    override: Mapping[str, float | None] | None = None,
    *,
    path: str | None = None,
    skipped: Sequence[Sighting] = (),
    notes: Sequence[str] = (),
) -> Micrograph:
    """Micrograph of a signal that `sight` found to be one."""
    _use_axis(signal, evidence)
    acquisition, provenance = accept(evidence, override)
    kind = signal.data.dtype
    intensity = "float" if kind.kind == "f" else "dm_counts" if evidence.vendor == "gatan" else "unknown"
    readout = None
    if evidence.vendor == "velox" and kind == "uint16":
        intensity, readout = "velox16", "mean"
    elif evidence.vendor == "gatan" and kind == "uint32":
        readout = "sum"
    if intensity == "float" and evidence.vendor not in ("nion", "berkeley", "mrc", "other"):
        evidence.notes.append("the data are floating point: processed since they were recorded")
    if evidence.detector is None:
        evidence.notes.append("the file does not name the detector: check that this is a HAADF image")
    elif "HAADF" not in evidence.detector.upper():
        evidence.notes.append(f"taken with {evidence.detector}, not with a detector named HAADF, as asked")
    inner, convergence = acquisition.inner_collection_angle, acquisition.convergence_angle
    if inner is not None and convergence is not None and inner <= convergence:
        evidence.notes.append(
            f"the detector starts at {inner * 1e3:.3g} mrad, inside the convergence angle of "
            f"{convergence * 1e3:.3g} mrad: the image is not pure high-angle dark field"
        )
    raw = evidence.raw
    known = {n: _positive(raw.get(n)) for n in ("voltage", "camera_length", "outer_collection_angle")}
    if not evidence.trusted_camera_length:
        known["camera_length"] = None
    instrument = Instrument(**known, detector=evidence.detector, microscope=evidence.microscope, date=evidence.date)
    notes = [*notes, *evidence.notes]
    return Micrograph(signal, acquisition, raw, instrument, intensity, readout, path, provenance, notes, list(skipped))


def _use_axis(signal: Signal2D, evidence: Evidence) -> None:
    """The axis is true where it differs from the tags: the signal was rebinned or recalibrated since."""
    axis, tag, fault = hspy.axis_pixel_size(signal), evidence.raw.get("pixel_size"), hspy.axis_fault(signal)
    if fault:
        evidence.doubts["pixel_size"] = fault
    if axis is None or axis.unit != "m":
        return
    if tag is None or tag.unit != "m" or not math.isclose(axis.value, tag.value, rel_tol=1e-3):
        evidence.raw["pixel_size"] = axis
        was = f"{tag.value:.4g} {tag.unit}".strip() if tag else "none"
        evidence.notes.append(
            f"pixel size {axis.value:.4g} m is the axis's; the original tag says {was} (rebinned or recalibrated?)"
        )


def _positive(raw: RawValue | None) -> float | None:
    return raw.value if raw is not None and math.isfinite(raw.value) and raw.value > 0 else None
