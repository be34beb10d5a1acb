"""Of the settings that an instrument allows, those of least dose that are good enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..metadata import Acquisition
from .detector_range import with_detector
from .estimate import Estimate
from .goal import Goal
from .limits import Limits, Range
from .predict import Calibration, Quality, dose_of, predict, relative_dose

__all__ = ["least_dose"]

_STEP = 1.03  # between the dwell times of a range that are tried


def least_dose(
    known: Estimate,
    goal: Goal,
    limits: Limits,
    calibration: Calibration,
    said: list[str],
    *,
    enough: Callable[[Quality], bool] | None = None,
    refused: Sequence[float] = (),
) -> tuple[Acquisition, Quality, bool]:
    """Settings of least dose whose quality is enough; else those of the best quality within the limits, and false.

    Parameters
    ----------
    said : list of str
        Gets what limited the choice.
    enough : callable, optional
        By default, that the quality surely reaches the goal.
    refused : sequence of float
        Dwell times that the instrument would not take [s].
    """
    enough = enough or (lambda quality: quality.surely(goal))
    best: tuple[float, Acquisition, Quality] | None = None
    chosen: tuple[float, Acquisition, Quality] | None = None
    for current in _currents(known, limits, said):
        times = [t for t in _dwell_times(known, current, limits) if not np.isclose(t, refused, rtol=0.01).any()]
        if not times:
            continue

        def tried(time: float, current: float | None = current) -> tuple[Acquisition, Quality]:
            settings = known.settings.replace(dwell_time=time, beam_current=current)
            settings = with_detector(known, settings, limits, calibration)
            return settings, predict(known, settings, limits, calibration)

        settings, quality = tried(times[-1])
        value = _worse(quality, goal)
        if best is None or value > best[0]:
            best = value, settings, quality
        if not enough(quality):
            continue
        low, high = -1, len(times) - 1  # the last one is enough
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(tried(times[middle])[1]) else (middle, high)
        settings, quality = tried(times[high])
        dose = relative_dose(settings, known.settings)
        if chosen is None or dose < chosen[0]:
            chosen = dose, settings, quality
    if chosen is not None:
        return chosen[1], chosen[2], True
    if best is None:
        said.append("the limits on dose or time, or refusals, allow none of the dwell times")
        shortest = known.settings.replace(dwell_time=_values(limits.dwell_time)[0])
        settings = with_detector(known, shortest, limits, calibration)
        return settings, predict(known, settings, limits, calibration), False
    return best[1], best[2], False


def _worse(quality: Quality, goal: Goal) -> float:
    """Power at the worse end of the interval; none where it is not known."""
    found = quality.of(goal)
    if found is None:
        return 0.0
    return goal.power_of(found.low if goal.quantity == "snr" else found.high)


def _currents(known: Estimate, limits: Limits, said: list[str]) -> list[float | None]:
    """Currents that can be predicted, the frame's own first."""
    own = known.settings.beam_current
    if limits.beam_current is None:
        return [own]
    if own is None:
        said.append("the frame's beam current is not known: its change cannot be advised, it is taken as kept")
        return [own]
    others = [c for c in _values(limits.beam_current, 1.25) if not math.isclose(c, own, rel_tol=1e-3)]
    kept = [own] if "beam_current" not in limits.allows(known.settings) else []
    if others and (limits.brightness is None or known.settings.convergence_angle is None):
        said.append("other currents change the probe: without brightness and convergence angle they are left out")
        return kept or [own]
    return kept + others


def _dwell_times(known: Estimate, current: float | None, limits: Limits) -> list[float]:
    """Allowed ones within the limits of dose and time, in rising order."""
    times = _values(limits.dwell_time, _STEP)
    if limits.max_dose is not None:
        one = dose_of(known.settings.replace(dwell_time=1.0, beam_current=current))
        times = [t for t in times if t * one <= limits.max_dose * (1 + 1e-9)]
    if limits.max_frame_time is not None:
        times = [t for t in times if t * known.shape[0] * known.shape[1] <= limits.max_frame_time * (1 + 1e-9)]
    return times


def _values(allowed: list[float] | Range, step: float = _STEP) -> list[float]:
    """The values of a list or range in rising order; a range without steps in factors of `step`, to three digits."""
    if not isinstance(allowed, Range):
        return sorted(allowed)
    if allowed.step is not None:
        count = int((allowed.high - allowed.low) / allowed.step + 1e-6)
        return [allowed.low + k * allowed.step for k in range(count + 1)]
    count = max(1, math.ceil(math.log(allowed.high / allowed.low) / math.log(step)))
    values = np.geomspace(allowed.low, allowed.high, count + 1)
    return sorted({allowed.low, *(float(f"{v:.3g}") for v in values[1:-1]), allowed.high})
