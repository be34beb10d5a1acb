"""The good frames of a loop: each put to those before it, if they add up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from ..metadata import Acquisition
from .combine import Combined, combine
from .estimate import Estimate, estimate
from .goal import Goal
from .limits import Limits
from .predict import Calibration, predict, relative_dose

__all__ = ["Gathered"]

_ADDED = 0.8
"""Of the sum of what two parts have is what they have together at least, or they do not lie on each other."""


@dataclass(eq=False)
class Gathered:
    """Frames of one area, and what they tell together.

    Attributes
    ----------
    frames : list of (h, w) arrays
    numbers : list of int
        Which of all frames that were exposed these are.
    combined : Combined or None
        What was accepted, put together.
    known : Estimate or None
        Of it.
    """

    goal: Goal
    limits: Limits
    calibration: Calibration
    frames: list[np.ndarray] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    combined: Combined | None = None
    known: Estimate | None = None
    _taken: list[Acquisition] = field(default_factory=list)
    _single: list[Estimate] = field(default_factory=list)
    _next: tuple[Combined, Estimate] | None = None

    def add(self, frame: np.ndarray, found: Estimate, number: int) -> bool:
        """Put a frame to the others, until `accept` or `drop_last`; false if it lies on none of them."""
        self.frames.append(frame)
        self.numbers.append(number)
        self._taken.append(found.settings)
        self._single.append(found)
        newest = len(self.frames) - 1
        before = [] if self.combined is None else [part.index for part in self.combined.how.parts]
        self._next = self._together([*before, newest])
        used = {part.index for part in self._next[0].how.parts}
        return newest == 0 or (newest in used and used != {newest})

    def drop_last(self) -> None:
        """Forget the frame that was put there last."""
        for kept in (self.frames, self.numbers, self._taken, self._single):
            kept.pop()
        self._next = None

    def accept(self) -> None:
        """Keep the last frame, or what is better: the frames before it, or it alone."""
        combined, known = self._next
        if self.known is not None and combined.used > 1:
            apart = [(self.combined, self.known), self._together([len(self.frames) - 1])]
            # Frames add up if they were brought to lie on each other. If not, they blur, and the better part is taken.
            if self._power(known) < _ADDED * sum(self._power(one) for _, one in apart):
                combined, known = max([(combined, known), *apart], key=lambda pair: self._power(pair[1]))
        self.combined, self.known, self._next = combined, known, None

    def _together(self, which: list[int]) -> tuple[Combined, Estimate]:
        """Some of the frames put together, and what they tell."""
        doses = [relative_dose(self._taken[k], self._taken[0]) for k in which]
        made = combine([self.frames[k] for k in which], [self._scale(k) for k in which], doses)
        parts = tuple(part._replace(index=which[part.index]) for part in made.how.parts)
        left_out = set(range(len(self.frames))) - {part.index for part in parts}
        made = Combined(made.frame, replace(made.how, parts=parts), tuple(sorted(left_out)))
        settings = self._taken[which[int(np.argmax(doses))]]
        total = sum(relative_dose(self._taken[part.index], settings) for part in parts)
        whole = settings.replace(dwell_time=settings.dwell_time * total)
        # Where after-glow is strongest it is read best.
        decay = max((self._single[p.index].noise.glow, self._single[p.index].decay_time) for p in parts)[1]
        on_scale = self._single[which[0]].on_scale
        return made, estimate(made.frame, whole, on_scale=on_scale, decay_time=decay, recorded=False)

    def _power(self, known: Estimate) -> float:
        """What frames put together have reached; see `Goal.power`. By the snr alone where no columns are seen."""
        now = predict(known, known.settings, self.limits, self.calibration)
        found = now.of(self.goal)
        return now.snr.value**2 * 1e-30 if found is None else self.goal.power_of(found.value)

    def _scale(self, k: int) -> float:
        """Counts of frame `k` that stand for the same signal as one count of the first frame."""
        one, first = self._single[k], self._single[0]
        same = one.settings.detector_gain == first.settings.detector_gain
        if not same and one.seen and first.seen:
            return math.sqrt(one.signal_variance / first.signal_variance)
        return relative_dose(one.settings.replace(dwell_time=first.settings.dwell_time), first.settings)
