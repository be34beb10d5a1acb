"""A few frames instead of one: settings out, frames in, until the goal is reached or cannot be.

``exposures`` is an iterator over settings. Whatever drives the microscope takes each of them, exposes, and gives the
frame back::

    loop = exposures("snr 10", limits, start=quick)
    for settings in loop:
        loop.give(microscope.expose(settings))
    print(loop.outcome)

Frames add up: each is registered and put to those before it, so that a quick frame is not wasted and the last one may
be short. Every path ends: in the goal, or in an `Outcome` that says why not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import OutOfRangeError
from ..metadata import Acquisition
from .combine import Combined
from .estimate import Estimate, check_frame, estimate
from .gathered import Gathered
from .goal import Goal, parse_goal
from .limits import Limits, Range, read_limits
from .outcome import End, Outcome, differing
from .predict import Calibration, Quality, dose_of, predict
from .search import least_dose

__all__ = ["Exposures", "exposures"]


_LEAST = 0.08
"""Of the goal's power is what a further frame brings at least, so that there are few."""


def exposures(
    goal: str | Goal,
    limits: Limits | str | None = None,
    *,
    start: Acquisition,
    max_frames: int = 6,
    calibration: Calibration | None = None,
) -> Exposures:
    """Settings to expose with, one after another; see `Exposures`.

    Parameters
    ----------
    goal : str or Goal
        "snr 10" or "column precision 5 pm": of all frames together.
    limits : Limits or path, optional
        What the instrument allows; its `max_dose` is that of all frames.
    start : Acquisition
        Of the first, quick frame: as little dose as shows the specimen.
    max_frames : int
        Frames at most, bad ones not counted.
    """
    allowed = limits if isinstance(limits, Limits) else Limits() if limits is None else read_limits(limits)
    return Exposures(parse_goal(goal), allowed, start, max_frames, calibration or Calibration.shipped())


@dataclass(eq=False)
class Exposures(Iterator[Acquisition]):
    """An iterator over settings that wants a frame for each.

    After ``next`` comes `give`, with the frame, or `refuse`; `send` is `give` and ``next`` in one, as of a generator.
    The iterator ends when `outcome` is set.

    Attributes
    ----------
    outcome : Outcome or None
        ``None`` as long as it runs.
    """

    goal: Goal
    limits: Limits
    start: Acquisition
    max_frames: int
    calibration: Calibration
    patience: int = 3  # of one kind of trouble in a row
    outcome: Outcome | None = None
    _given: int = 0
    _asked: Acquisition | None = None
    _waiting: bool = False
    _refused: list[float] = field(default_factory=list)
    _trouble: dict[End, int] = field(default_factory=dict)
    _spent: list[Acquisition] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.start.dwell_time is None:
            raise OutOfRangeError(f"start: dwell_time is not known ({self.start.missing['dwell_time']}); give it")
        if self.goal.quantity == "column precision" and self.start.pixel_size is None:
            raise OutOfRangeError("start: pixel_size is not known; a column precision needs it")
        if self.limits.max_dose is not None and dose_of(self.start) is None:
            raise OutOfRangeError("start: a largest dose needs beam_current and pixel_size")
        if outside := self.limits.allows(self.start):
            raise OutOfRangeError(f"start: {', '.join(outside)} outside of the limits")
        if self.max_frames < 1:
            raise OutOfRangeError(f"max_frames is {self.max_frames}: at least one is needed")
        self._asked = self.start
        self._good = Gathered(self.goal, self.limits, self.calibration)

    @property
    def combined(self) -> Combined | None:
        """The good frames together."""
        return self._good.combined

    @property
    def known(self) -> Estimate | None:
        """What they tell."""
        return self._good.known

    @property
    def numbers(self) -> list[int]:
        """Which of the frames that were given are the good ones, counted from 0."""
        return self._good.numbers

    def __next__(self) -> Acquisition:
        if self._waiting and self.outcome is None:
            self._troubled(End.NO_FRAME, "settings were asked for again, and no frame was given for the last ones")
        if self.outcome is not None:
            raise StopIteration(self.outcome)
        self._waiting = True
        return self._asked

    def send(self, frame: Any) -> Acquisition:
        """`give` the frame and return the next settings; raises `StopIteration` with the outcome at the end."""
        if frame is not None:
            self.give(frame)
        return next(self)

    def give(self, frame: Any, acquisition: Acquisition | None = None) -> None:
        """Take the frame that was exposed.

        Parameters
        ----------
        frame : (h, w) array or Micrograph
            A frame that cannot be used is not an error here: it is asked for again, a few times.
        acquisition : Acquisition, optional
            What it was really taken with, if that is known, as a micrograph knows it: a frame of other settings than
            those asked for comes too late, and is asked for again.
        """
        if self.outcome is not None:
            return
        self._waiting = False
        self._given += 1
        if hasattr(frame, "acquisition"):
            acquisition = frame.acquisition if acquisition is None else acquisition
            frame = frame.image.data
        if acquisition is not None and (others := differing(acquisition, self._asked)):
            self._spent.append(self._asked.replace(**{n: getattr(acquisition, n) for n in others}))
            self._troubled(End.LATE_FRAMES, f"a frame with another {', '.join(others)} than asked for")
            return
        self._spent.append(self._asked)
        try:
            data = np.asarray(frame)
            check_frame(data)
            if self._good.frames and data.shape != self._good.frames[0].shape:
                raise OutOfRangeError(f"frame of shape {data.shape} after {self._good.frames[0].shape}")
            found = estimate(data, self._asked, on_scale=data.dtype == np.uint16)
        except OutOfRangeError as error:
            self._bad(np.asarray(frame), str(error))
            return
        self._trouble.clear()
        self._add(data, found)

    def refuse(self, reason: str = "") -> None:
        """Say that the instrument did not take the settings; others are proposed, a few times."""
        if self.outcome is not None:
            return
        self._waiting = False
        self._refused.append(self._asked.dwell_time)
        self._troubled(End.REFUSED, "the instrument refused the settings" + (f": {reason}" if reason else ""))
        if self.outcome is not None:
            return
        if self.known is None:
            self._ask_longer(1.5, End.REFUSED)
        else:
            self._plan()

    def stop(self, reason: str = "stopped by hand") -> None:
        """End the loop."""
        if self.outcome is None:
            self._end(End.STOPPED, reason)

    @property
    def dose(self) -> float | None:
        """That the specimen has got so far [e/m^2]."""
        doses = [dose_of(settings) for settings in self._spent]
        return None if None in doses else float(sum(doses))

    def _end(self, state: End, reason: str) -> None:
        known = self.known
        quality = None if known is None else predict(known, known.settings, self.limits, self.calibration)
        used = 0 if self.combined is None else self.combined.used
        self.outcome = Outcome(state, reason, quality, self.dose, used)

    def _troubled(self, kind: End, reason: str) -> None:
        """Count trouble of a kind; end when it lasts."""
        self._trouble[kind] = self._trouble.get(kind, 0) + 1
        if self._trouble[kind] >= self.patience:
            self._end(kind, f"{reason} ({self.patience} times)")

    def _bad(self, frame: np.ndarray, reason: str) -> None:
        """A frame that cannot be used: again, with another gain or offset if it was clipped."""
        blank = frame.ndim == 2 and frame.size and frame.dtype.kind in "uif" and frame.min() == frame.max()
        if blank and self._good.frames:
            self._end(End.LOST, f"a blank frame after {len(self._good.frames)} good ones: {reason}")
            return
        self._troubled(End.BAD_FRAMES, reason)
        asked = self._asked
        if self.outcome is None and frame.dtype == np.uint16 and "full scale" in reason and asked.detector_gain:
            high = float(np.mean(frame == 65535)) > float(np.mean(frame == 0))
            name, step = ("detector_gain", -3.0) if high else ("detector_offset", 0.3)
            changed = asked.replace(**{name: getattr(asked, name) + step})
            self._asked = asked if self.limits.allows(changed) else changed

    def _add(self, data: np.ndarray, found: Estimate) -> None:
        """Put a good frame to the others, and decide what comes next."""
        expected = None
        if self.known is not None and self.known.seen:
            expected = predict(self.known, found.settings, self.limits, self.calibration)
        if not self._good.add(data, found, self._given - 1) and expected is not None and self._lost(found, expected):
            self._good.drop_last()
            return
        self._good.accept()
        self._plan()

    def _lost(self, found: Estimate, expected: Quality) -> bool:
        """Whether a frame that lies on no other shows that the specimen is gone; ends the loop if so."""
        if not found.seen and found.snr < 0.4 * expected.snr.low:
            reason = f"snr {found.snr:.2g} where {expected.snr.low:.2g} or more was expected: nothing is left to see"
        elif found.seen and found.snr > 0.25 and self.known.snr > 0.25:
            reason = "the frame does not show the area of the frames before"
        else:
            return False
        self._end(End.LOST, reason)
        return True

    def _plan(self) -> None:
        """Decide whether the goal is reached, and what to ask for if not."""
        known = self.known
        quality = predict(known, known.settings, self.limits, self.calibration)
        if quality.surely(self.goal):
            self._end(End.REACHED, f"{self.goal} is reached by {self.combined.used} frames")
            return
        left = self.max_frames - len(self._good.frames)
        if left <= 0:
            self._end(
                End.OUT_OF_REACH, f"{self.goal} is not reached by {len(self._good.frames)} frames, the most allowed"
            )
            return
        now = quality.of(self.goal)
        if now is None or not known.seen:
            self._ask_longer(4.0, End.NOTHING_SEEN)
            return
        have = self.goal.power_of(now.value)
        # What will be known of all frames together will not be exact either: its worse end has to reach the goal.
        spread = self.calibration.snr_now if self.goal.quantity == "snr" else self.calibration.columns_now
        aim = max(self.goal.power * math.exp(2 * 1.645 * spread), have + _LEAST * self.goal.power)
        left_limits, said = self._left(), []
        if left_limits is None:
            self._end(End.OUT_OF_REACH, f"the largest dose is spent, and {self.goal.text(now.value)} is what it gave")
            return

        def enough(next_one: Quality) -> bool:
            return have + self.goal.power_of(next_one.of(self.goal).value) >= aim

        settings, best, reached = least_dose(
            known, self.goal, left_limits, self.calibration, said, enough=enough, refused=self._refused
        )
        if not reached and left_limits.allows(settings):
            self._end(End.OUT_OF_REACH, "; ".join(said) or "no settings are allowed")
            return
        several = left if self.limits.max_dose is None else 1
        one = best.of(self.goal)
        most = have + several * self.goal.power_of(one.high if self.goal.quantity == "snr" else one.low)
        if not reached and most < self.goal.power:
            value = self.goal.value * (most / self.goal.power) ** (0.5 if self.goal.quantity == "snr" else -0.5)
            self._end(End.OUT_OF_REACH, f"at most {self.goal.text(value)} within the limits, {self.goal} was asked for")
            return
        self._asked = settings

    def _left(self) -> Limits | None:
        """The limits with the dose that is left; ``None`` if it is not enough for the shortest dwell time."""
        if self.limits.max_dose is None:
            return self.limits
        left = self.limits.max_dose - self.dose
        times = self.limits.dwell_time
        shortest = times.low if isinstance(times, Range) else min(times)
        if left <= 0 or dose_of(self._asked.replace(dwell_time=shortest)) > left:
            return None
        return self.limits.model_copy(update={"max_dose": left})

    def _ask_longer(self, factor: float, otherwise: End) -> None:
        """The next frame with a longer dwell time; end where that is not allowed."""
        times, before = self.limits.dwell_time, self._asked.dwell_time
        wanted = factor * before
        if isinstance(times, Range):
            dwell_time = min(wanted, times.high)
        else:
            dwell_time = next((t for t in sorted(times) if t >= wanted), max(times))
        asked = self._asked.replace(dwell_time=dwell_time)
        dose, left = dose_of(asked), None if self.limits.max_dose is None else self.limits.max_dose - (self.dose or 0)
        long = (
            self.limits.max_frame_time is not None
            and self._good.frames
            and (dwell_time * self._good.frames[0].size > self.limits.max_frame_time)
        )
        if not dwell_time > before * 1.01 or (left is not None and dose > left) or long:
            what = "columns" if self.known is not None and self.known.seen else "anything but noise"
            shown = f"no frame within the limits shows {what}"
            self._end(otherwise, shown if otherwise is End.NOTHING_SEEN else "refused, and no other settings are left")
            return
        self._asked = asked
