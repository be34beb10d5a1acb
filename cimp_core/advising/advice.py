"""`advise`: the settings of least dose for the next frame of an area, from one that was taken quickly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutOfRangeError
from ..metadata import PARAMETERS, Acquisition
from .detector_range import with_detector
from .estimate import Estimate, estimate
from .goal import Goal, parse_dose, parse_goal
from .limits import Limits, Range, read_limits
from .predict import LEVEL, Calibration, Interval, Quality, dose_of, predict, relative_dose

if TYPE_CHECKING:
    from ..microscope import Micrograph

__all__ = ["Advice", "advise", "advise_from", "least_dose"]

_STEP = 1.03  # between the dwell times of a range that are tried


@dataclass(frozen=True)
class Advice:
    """What to do next.

    Attributes
    ----------
    goal : Goal
    reached : bool
        Whether `settings` reach it: 19 of 20 times, for the worse end of the interval does.
    settings : Acquisition
        Of the next frame; if the goal is not reached, those that come nearest within the limits.
    quality : Quality
        Predicted, with intervals.
    dose : float or None
        Of that frame [e/m^2]; ``None`` where current or pixel size is not known.
    dose_factor : float
        Its dose over that of the quick frame.
    known : Estimate
        What the quick frame told.
    notes : tuple of str
        What limits the advice, and what it cannot know.
    """

    goal: Goal
    reached: bool
    settings: Acquisition
    quality: Quality
    dose: float | None
    dose_factor: float
    known: Estimate
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        from .text import advice_text

        return advice_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, SI units, for JSON."""

        def plain(found: Interval | None) -> dict[str, float] | None:
            return None if found is None else found._asdict()

        return {
            "goal": str(self.goal),
            "reached": self.reached,
            "settings": {n: getattr(self.settings, n) for n in PARAMETERS},
            "missing": dict(self.settings.missing),
            "predicted": {
                "level": LEVEL,
                "snr": plain(self.quality.snr),
                "column_precision": plain(self.quality.column_precision),
                "clipped": plain(self.quality.clipped),
            },
            "dose": self.dose,
            "dose_factor": self.dose_factor,
            "quick_frame": {
                "snr": self.known.snr,
                "seen": self.known.seen,
                "columns": None if self.known.columns is None else self.known.columns.count,
                "decay_time": self.known.decay_time,
                "black": self.known.black,
                "clipped": list(self.known.clipped),
            },
            "notes": list(self.notes),
        }


def advise(
    shot: Micrograph | np.ndarray,
    goal: str | Goal,
    *,
    max_dose: str | float | None = None,
    limits: Limits | str | None = None,
    acquisition: Acquisition | None = None,
    calibration: Calibration | None = None,
) -> Advice:
    """Which dwell time, current, gain and offset next: the least dose that reaches a goal.

    From one quick frame of low dose its signal, noise, after-glow, black level, clipping and columns are estimated, and
    from these the quality of a frame of the same area at other settings, with intervals. Of the settings that the
    instrument allows those of least dose are returned whose interval reaches the goal at its worse end, or, if none
    does, those that come nearest.

    Parameters
    ----------
    shot : Micrograph or array
        The quick frame; of a series its frames are combined. An array (h, w) of counts needs `acquisition`; uint16 is
        taken for Velox's 16-bit scale.
    goal : str or Goal
        "snr 10" or "column precision 5 pm"; see `Goal` for what they mean.
    max_dose : str or float, optional
        Of the next frame: "500 e/A2", or a number in e/m^2.
    limits : Limits or path, optional
        What the instrument allows; see `Limits`. By default dwell times of 0.1 to 100 us at the present current.
    acquisition : Acquisition, optional
        What the frame was taken with, if it is not the micrograph's own.
    calibration : Calibration, optional
        How far predictions can be trusted; by default as measured on simulated materials.

    Returns
    -------
    Advice
        ``str(advice)`` is a short text.

    Raises
    ------
    OutOfRangeError
        The goal or dose is not understood; the frame is blank, clipped, too small or not finite; its dwell time, or
        what the goal needs beside it, is not known.

    Notes
    -----
    It does not know how much dose the specimen bears, how far it will drift, whether focus and tilt are good, or what
    the rest of the specimen looks like.
    """
    goal = parse_goal(goal)
    allowed = limits if isinstance(limits, Limits) else Limits() if limits is None else read_limits(limits)
    if max_dose is not None:
        allowed = allowed.model_copy(update={"max_dose": parse_dose(max_dose)})
    frame, settings, on_scale, notes = _take(shot, acquisition)
    _needed(settings, goal, allowed)
    return advise_from(estimate(frame, settings, on_scale=on_scale), goal, allowed, calibration, notes=notes)


def advise_from(
    known: Estimate,
    goal: Goal,
    limits: Limits,
    calibration: Calibration | None = None,
    *,
    notes: tuple[str, ...] = (),
) -> Advice:
    """`advise` of what is estimated already."""
    calibration = calibration or Calibration.shipped()
    said = [*notes]
    if not known.seen:
        said.append("the frame shows nothing but noise: no area can be told from blank; take one with more dose first")
    if goal.quantity == "column precision" and known.columns is None:
        said.append("the frame shows no columns: none are there, or it needs more dose, or finer pixels, to show them")
    settings, quality, reached = least_dose(known, goal, limits, calibration, said)
    if not known.on_scale:
        said.append("counts are not on Velox's 16-bit scale: gain and offset are left alone, clipping is not told")
    return Advice(
        goal, reached, settings, quality, dose_of(settings), relative_dose(settings, known.settings), known, tuple(said)
    )  # fmt: skip


def _take(shot: Any, acquisition: Acquisition | None) -> tuple[np.ndarray, Acquisition, bool, tuple[str, ...]]:
    """Frame, settings, whether it is on the 16-bit scale, and what to say of it."""
    if not hasattr(shot, "acquisition"):
        data = np.asarray(shot)
        if acquisition is None:
            raise OutOfRangeError("acquisition is missing: say what the frame was taken with, unknown values as None")
        return data, acquisition, data.dtype == np.uint16, ()
    data, notes = np.asarray(shot.image.data), []
    settings = shot.acquisition if acquisition is None else acquisition
    if shot.intensity == "float":
        notes.append("the file holds processed values: if they were filtered, noise and advice are wrong")
    if data.ndim == 3:
        from .combine import combine

        together = combine(list(data[:16]))
        notes.append(f"a series: {together.used} of {len(data)} frames combined")
        if settings.dwell_time is not None:
            settings = settings.replace(dwell_time=settings.dwell_time * together.used)
        data = together.frame
    return data, settings, shot.intensity == "velox16", tuple(notes)


def _needed(settings: Acquisition, goal: Goal, limits: Limits) -> None:
    """Raise where a setting is missing that the advice cannot do without."""
    missing = ["dwell_time"] if settings.dwell_time is None else []
    if goal.quantity == "column precision" and settings.pixel_size is None:
        missing.append("pixel_size")
    if limits.max_dose is not None:
        missing += [n for n in ("beam_current", "pixel_size") if getattr(settings, n) is None and n not in missing]
    if missing:
        why = "; ".join(f"{n} is not known ({settings.missing[n]})" for n in missing)
        raise OutOfRangeError(f"{why}: no advice without; give it by hand, for example --set {missing[0]}=...")


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
