"""Signals without vendor tags, as HyperSpy stores them: calibrated axes and HyperSpy's own ``metadata``.

A .hspy file saved from a Velox or DigitalMicrograph signal keeps that file's tags and goes by their rules.
HyperSpy's metadata also holds what a user filled in by hand, so it is the last resort for any vendor.
Its units are fixed by HyperSpy: mrad, nA, mm, kV, s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .record import LENGTHS, Evidence, RawValue, lookup

__all__ = ["axis_fault", "axis_pixel_size", "fill_from_metadata", "image_fault", "look_up"]

_TEM = "Acquisition_instrument.TEM."


def look_up(signal: Any) -> Evidence:
    """Evidence on a 2D signal of unknown origin from its axes and HyperSpy's ``metadata``."""
    found = Evidence("other")
    size = axis_pixel_size(signal)
    if size is not None:
        found.raw["pixel_size"] = size
        if size.value in LENGTHS.values():
            found.doubts["pixel_size"] = "the axis scale is exactly 1, the default of an axis that was never calibrated"
    metadata = signal.metadata.as_dictionary()
    mode = lookup(metadata, f"{_TEM}acquisition_mode")
    if isinstance(mode, str) and mode and "STEM" not in mode.upper():
        found.refusal = f"an image taken in {mode} mode"
    elif not mode:
        found.notes.append("nothing in the file says that this is a STEM image; nothing says otherwise")
    name = lookup(metadata, f"{_TEM}microscope")
    found.microscope = name if isinstance(name, str) and name else None
    return found


def fill_from_metadata(found: Evidence, metadata: Mapping) -> None:
    """Add to `found`, in place, what only HyperSpy's ``metadata`` has."""
    keys = {
        "dwell_time": ("dwell_time", "s", 1.0),
        "convergence_angle": ("convergence_angle", "rad", 1e-3),
        "beam_current": ("beam_current", "A", 1e-9),
        "voltage": ("beam_energy", "V", 1e3),
        "camera_length": ("camera_length", "m", 1e-3),
    }
    for name, (key, unit, factor) in keys.items():
        if name not in found.raw:
            found.add(name, metadata, f"{_TEM}{key}", unit, factor)
    if found.date is None:
        date, time = lookup(metadata, "General.date"), lookup(metadata, "General.time")
        if isinstance(date, str) and date:
            found.date = f"{date}T{time}" if isinstance(time, str) and time else date


def axis_pixel_size(signal: Any) -> RawValue | None:
    """Scale of the x axis [m], or as it stands, with an empty unit, where the axis names no length."""
    axis = signal.axes_manager.signal_axes[0]
    if not axis.is_uniform:
        return None
    metres = LENGTHS.get(_unit(axis))
    return RawValue(float(axis.scale) * (metres or 1.0), "axes_manager.signal_axes[0].scale", "m" if metres else "")


def axis_fault(signal: Any) -> str | None:
    """Why the axes of an image cannot give one pixel size, else ``None``."""
    x, y = signal.axes_manager.signal_axes
    if not (x.is_uniform and y.is_uniform):
        return "the axes are not uniform"
    across, along = (axis.scale * LENGTHS.get(_unit(axis), 1.0) for axis in (x, y))
    if not abs(along - across) <= 0.01 * abs(across):
        return f"pixels are not square: {across:.4g} by {along:.4g} m"
    return None


def image_fault(signal: Any) -> str | None:
    """What a signal is if it can be no real-space image or series of images, else ``None``."""
    manager = signal.axes_manager
    if manager.signal_dimension != 2:
        return "a spectrum" if manager.signal_dimension == 1 else f"{manager.signal_dimension}-dimensional data"
    if manager.navigation_dimension > 1:
        return "a map of images (4D data)"
    if signal.data.dtype.kind == "c":
        return "complex data (an FFT or a DPC vector image)"
    if signal.data.dtype.kind not in "uif":
        return f"data of type {signal.data.dtype} (a colour picture?)"
    if min(signal.data.shape, default=0) == 0:
        return "an empty image"
    for axis in manager.signal_axes:
        unit = _unit(axis)
        if unit and unit not in LENGTHS and unit not in ("px", "pixel", "pixels"):
            return f"an image with axes in {axis.units} (a diffraction pattern, an FFT or a spectrum)"
    return None


def _unit(axis: Any) -> str:
    unit = axis.units
    return unit.strip().lower().replace("μ", "µ") if isinstance(unit, str) and unit != "<undefined>" else ""
