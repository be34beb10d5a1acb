"""Several frames of one area as one: registered, brought to one scale, weighted by their dose.

Frames are moved in Fourier space, which keeps white noise as it is; interpolation between pixels would smooth it, and a
frame would look better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..denoising.classical import Wiener
from ..denoising.register import Shift, find_shift, overlap, prepared
from ..errors import OutOfRangeError

__all__ = ["Combination", "Combined", "Part", "combine"]

_PAD = 16
_ALIKE = 0.3  # of filtered copies; those of noise agree by less


class Part(NamedTuple):
    """How one frame takes part: ``(counts - mean) * factor``, moved, with a weight."""

    index: int
    mean: float
    factor: float
    weight: float  # all sum to 1
    down: float  # px
    right: float


@dataclass(frozen=True)
class Combination:
    """How frames are put together, which can be done with other pictures of the same frames too."""

    parts: tuple[Part, ...]
    mean: float
    window: tuple[slice, slice]  # what all share, on the frame that the others are moved onto

    def of(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """The weighted mean of what all frames show, (h, w) float64, in counts of the frame moved onto."""
        total = 0.0
        for part in self.parts:
            values = (np.asarray(frames[part.index], float) - part.mean) * (part.factor * part.weight)
            total = total + moved(values, part.down, part.right)[self.window]
        return total + self.mean


class Combined(NamedTuple):
    """Frames put together."""

    frame: np.ndarray  # (h, w)
    how: Combination
    left_out: tuple[int, ...]  # frames that do not show the same, or too little to tell

    @property
    def used(self) -> int:
        """Number of frames in it."""
        return len(self.how.parts)


def combine(
    frames: Sequence[np.ndarray], scales: Sequence[float] | None = None, doses: Sequence[float] | None = None
) -> Combined:
    """Put frames of one area together.

    Parameters
    ----------
    frames : sequence of (h, w) arrays
        Of one shape.
    scales : sequence of float, optional
        Counts of each that stand for the same signal; by default the counts of all are alike.
    doses : sequence of float, optional
        Of each, in any unit: their weights; by default all are equal.

    Raises
    ------
    OutOfRangeError
        No frame, or frames of different shapes.
    """
    if not frames or len({np.shape(f) for f in frames}) != 1:
        raise OutOfRangeError("frames to combine must be one at least, and of one shape")
    data = [np.asarray(f, float) for f in frames]
    scales = [1.0] * len(data) if scales is None else list(scales)
    doses = [1.0] * len(data) if doses is None else list(doses)
    first = int(np.argmax(doses))
    shape = data[first].shape
    shifts: dict[int, Shift] = {first: Shift(0.0, 0.0, 1.0, True)}
    for j in range(len(data)):
        if j != first and (found := _shift(data[first], data[j])) is not None:
            shifts[j] = found
    total = sum(doses[j] for j in shifts)
    parts = tuple(
        Part(j, float(data[j].mean()), scales[first] / scales[j], doses[j] / total, s.down, s.right)
        for j, s in sorted(shifts.items())
    )
    how = Combination(parts, float(data[first].mean()), _shared(shape, list(shifts.values())))
    left_out = tuple(j for j in range(len(data)) if j not in shifts)
    return Combined(how.of(data), how, left_out)


def _shift(still: np.ndarray, frame: np.ndarray) -> Shift | None:
    """Shift that brings a frame onto another; ``None`` where they do not show the same, or not enough to tell.

    A lattice of a few pixels a period does not survive the blur that `prepared` makes. Where nothing coarser is seen, a
    filter that keeps what stands out of the spectrum is tried.
    """
    found = find_shift(prepared(still), prepared(frame))
    if found.trusted:
        return found
    copies = [np.asarray(Wiener()(f.astype(np.float32))[0]) for f in (still, frame)]
    found = find_shift(*((copy - copy.mean(), 1) for copy in copies))
    return found if found.alike > _ALIKE else None


def _shared(shape: tuple[int, int], shifts: list[Shift]) -> tuple[slice, slice]:
    """What all moved frames cover; at least a quarter of each side, for `find_shift` trusts no smaller overlap."""
    sides = []
    for n, moves in zip(shape, ([s.down for s in shifts], [s.right for s in shifts])):
        low, high = max(0, math.ceil(max(moves))), n + min(0, math.floor(min(moves)))
        sides.append(slice(low, max(high, low + n // 4)))
    return tuple(sides)


def moved(frame: np.ndarray, down: float, right: float) -> np.ndarray:
    """The frame with its content moved, (h, w); what comes in from beyond the edge is mirrored, and no measurement."""
    if down == right == 0:
        return frame
    whole = np.rint((down, right)).astype(int)
    rest = np.array((down, right)) - whole
    if np.abs(rest).max() > 0.02:
        padded = np.pad(frame, _PAD, mode="reflect")
        fy, fx = np.fft.fftfreq(padded.shape[0])[:, None], np.fft.rfftfreq(padded.shape[1])
        turn = np.exp(-2j * np.pi * (fy * rest[0] + fx * rest[1]))
        frame = np.fft.irfft2(np.fft.rfft2(padded) * turn, s=padded.shape)[_PAD:-_PAD, _PAD:-_PAD]
    if not whole.any():
        return frame
    out = np.full_like(frame, frame.mean())
    here, there = overlap(frame.shape, whole) or ((slice(0, 0),) * 2, (slice(0, 0),) * 2)
    out[here] = frame[there]
    return out
