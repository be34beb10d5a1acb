"""Gain and offset with which a frame uses the 16 bits and is not clipped."""

from __future__ import annotations

import numpy as np

from ..analytic import AnalyticModel
from ..metadata import Acquisition
from ..simulate.detector import FULL_SCALE
from .estimate import Estimate
from .limits import Limits, Range
from .predict import Calibration, counts_range

__all__ = ["DARK", "TOP", "with_detector"]

TOP = 0.97
"""All but a thousandth of the pixels stay below this part of the full scale, with what is not sure of the gain."""

DARK = 0.003
"""And above this."""

_USED = 0.12  # a picture that spans less of the scale is turned up


def with_detector(known: Estimate, settings: Acquisition, limits: Limits, calibration: Calibration) -> Acquisition:
    """The settings with gain and offset for their dwell time and current.

    They are left alone where the frame neither clips with them nor leaves most of the scale unused: each turn costs
    knowledge, for what a unit of gain or offset does differs between instruments.
    """
    if not known.on_scale or None in (settings.detector_gain, settings.detector_offset):
        return settings
    low, high = counts_range(known, settings, limits, calibration)
    fits = low >= DARK * FULL_SCALE and high <= TOP * FULL_SCALE
    outside = {"detector_gain", "detector_offset"} & set(limits.allows(settings))
    if fits and high - low >= _USED * FULL_SCALE and not outside:
        return settings
    best, least = settings, np.inf
    for offset in _offsets(known, settings, limits):
        for gain in _gains(known, settings, limits):
            tried = settings.replace(detector_gain=gain, detector_offset=offset)
            low, high = counts_range(known, tried, limits, calibration)
            over = max(high / FULL_SCALE - TOP, 0) + max(DARK - low / FULL_SCALE, 0)
            # Nothing clipped first; then a third of the scale used; then small turns of the knobs.
            turned = abs(gain - settings.detector_gain) + 4 * abs(offset - settings.detector_offset)
            cost = 100 * over + max(0.3 - (high - low) / FULL_SCALE, 0) + 0.01 * turned
            if cost < least:
                best, least = tried, cost
    return best


def _gains(known: Estimate, settings: Acquisition, limits: Limits) -> list[float]:
    own = settings.detector_gain
    if limits.detector_gain is None:
        return [round(20 * max(own + step, 0.05)) / 20 for step in np.arange(-16, 16.1, 0.5)]
    return _listed(limits.detector_gain, own, 0.5)


def _offsets(known: Estimate, settings: Acquisition, limits: Limits) -> list[float]:
    own = settings.detector_offset
    if limits.detector_offset is not None:
        return _listed(limits.detector_offset, own, 0.05)
    per_offset = limits.black_per_offset or AnalyticModel.shipped().black_per_offset
    wanted = [own, *(own + (share * FULL_SCALE - known.black) / per_offset for share in (0.03, 0.06, 0.1, 0.15))]
    return sorted({round(value, 2) for value in wanted})


def _listed(allowed: list[float] | Range, own: float, step: float) -> list[float]:
    """Values of a list, or of a range at its steps, with the present one if it is allowed."""
    if not isinstance(allowed, Range):
        return sorted(allowed)
    step = max(allowed.step or step, (allowed.high - allowed.low) / 80)
    values = list(np.arange(allowed.low, allowed.high + 1e-9, step))
    return values + [own] if allowed.low <= own <= allowed.high else values
