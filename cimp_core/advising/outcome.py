"""How a loop over frames may end, and what makes a frame another one than was asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from ..metadata import Acquisition
from .predict import Quality

__all__ = ["End", "Outcome", "differing"]

_SLACK = {
    "dwell_time": (0.02, 0.0),
    "beam_current": (0.1, 0.0),
    "detector_gain": (0.0, 0.3),
    "detector_offset": (0.0, 0.05),
}
"""By how much a frame's settings may differ from those asked for: relative, absolute."""


class End(StrEnum):
    """How a loop ends."""

    REACHED = "reached"
    OUT_OF_REACH = "out of reach"  # no allowed settings, or not within the dose or the number of frames
    NOTHING_SEEN = "nothing seen"  # no picture, or no columns, at the largest dose allowed
    LOST = "specimen lost"  # blank, or another area
    BAD_FRAMES = "bad frames"
    LATE_FRAMES = "late frames"  # not of the settings that were asked for
    NO_FRAME = "no frame"
    REFUSED = "refused"  # by the instrument
    STOPPED = "stopped"


@dataclass(frozen=True)
class Outcome:
    """What became of a loop.

    Attributes
    ----------
    state : End
    reason : str
        In one sentence.
    quality : Quality or None
        Of all good frames together; ``None`` if there is none.
    dose : float or None
        That the specimen got, bad frames included [e/m^2]; ``None`` where current or pixel size is not known.
    frames : int
        Frames that were put together.
    """

    state: End
    reason: str
    quality: Quality | None
    dose: float | None
    frames: int

    def __str__(self) -> str:
        from .text import outcome_text

        return outcome_text(self)


def differing(given: Acquisition, asked: Acquisition) -> list[str]:
    """Settings of a frame that are not those asked for."""
    out = []
    for name, (relative, absolute) in _SLACK.items():
        a, b = getattr(given, name), getattr(asked, name)
        if None not in (a, b) and not math.isclose(a, b, rel_tol=relative, abs_tol=absolute):
            out.append(name)
    return out
