"""`advise`: the settings of least dose for the next frame of an area, from one that was taken quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutOfRangeError
from ..metadata import PARAMETERS, Acquisition
from .estimate import Estimate, estimate
from .goal import Goal, parse_dose, parse_goal
from .limits import Limits, read_limits
from .predict import LEVEL, Calibration, Interval, Quality, dose_of, relative_dose
from .search import least_dose

if TYPE_CHECKING:
    from ..microscope import Micrograph

__all__ = ["Advice", "advise", "advise_from"]


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
