"""Frame series: each frame with the help of the frames before and after it that show the same.

The neighbours of a frame are brought onto it (`register`) and averaged with it. Where a neighbour differs by more than
the noise explains, it has no weight there, so that what happens in one frame stays in that frame. The method then gets
the average with the dose that it has. Where hardly any neighbour could be used, it gets the frame alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import OutOfRangeError
from ..metadata import Acquisition
from .job import Job, fit, usable
from .register import Shift, find_shift, prepared
from .tiles import cast, denoise_frame, read_rows

__all__ = ["REACH", "denoise_series", "fuse", "weights_of"]

REACH = 8
"""Frames used on either side of a frame."""

_SCALES = (1.5, 5.0)  # px; differences are looked for at the size of a column and of a small particle
_SAFE, _CERTAIN = 2.5, 4.0  # standard deviations: below, a difference is noise; above, a change
_HELP = 0.1  # of the frame; a neighbour with weight in less was of no use
_DOUBTFUL = 2.0  # the typical difference in units of the expected one, above which frames do not belong together


def denoise_series(
    job: Job, used: Acquisition, out: np.ndarray, record: dict, progress: Callable[[int, int], object] | None
) -> np.ndarray | None:
    """Denoise every frame of a series into `out`; return the deviation, if the method gives one.

    `used` are the settings to believe; `record` is told which frames helped each other.
    In memory at a time: about twelve float32 frames, and small copies of ``2 * REACH + 1`` of them.
    """
    frames, deviation = job.frames, None
    count, told, method = len(frames), [], None
    alive = [usable(job, read_rows(frame), f"{job.name}, frame {i}") for i, frame in enumerate(frames)]
    if not any(alive):
        raise OutOfRangeError(f"{job.name}: every frame is constant: there is nothing to denoise")
    shifts = _Shifts(frames, alive)
    for i in range(count):
        frame = _load(frames[i])
        if not alive[i]:
            job.warned.add(f"{job.name}: frame {i} is constant; it is left as it is")
            out[i] = cast(frame, out.dtype)
            told.append({"used": 0, "dose": 0.0})
            continue
        neighbours = {j: s for j, s in shifts.of(i).items() if s.trusted}
        fused, dose, helped = fuse(frame, ((_load(frames[j]), s) for j, s in neighbours.items()))
        gain = float(np.median(dose))
        told.append({"used": helped, "dose": round(gain, 2)})
        if method is None:  # one that trains itself does so once for the series
            method = fit(job.method, read_rows(fused), frame.shape)
        part = _one(job, method, used, frame, fused, dose, out[i])
        if part is not None:
            deviation = np.zeros(out.shape, np.float32) if deviation is None else deviation
            deviation[i] = part
        if progress is not None:
            progress(i + 1, count)
    record["frames"] = told
    alone = [i for i, t in enumerate(told) if alive[i] and not t["used"]]
    if alone:
        which = ", ".join(map(str, alone[:10])) + (", ..." if len(alone) > 10 else "")
        job.warned.add(f"{job.name}: no other frame shows what these show, each was denoised alone: {which}")
    return deviation


def _load(frame: Any) -> np.ndarray:
    return np.asarray(frame).astype(np.float32)


class _Shifts:
    """Shifts of the neighbours of a frame, each pair found once, with the copies of a window of frames."""

    def __init__(self, frames: Any, alive: list[bool]) -> None:
        self.frames, self.alive = frames, alive
        self._copies: dict[int, tuple[np.ndarray, int]] = {}
        self._found: dict[tuple[int, int], Shift] = {}

    def of(self, i: int) -> dict[int, Shift]:
        """Shift of every neighbour onto frame `i`, the nearest first."""
        near = [j for j in range(i - REACH, i + REACH + 1) if 0 <= j < len(self.frames) and j != i and self.alive[j]]
        self._copies = {j: copy for j, copy in self._copies.items() if j in near or j == i}
        self._found = {pair: shift for pair, shift in self._found.items() if max(pair) >= i}
        return {j: self._between(i, j) for j in sorted(near, key=lambda j: abs(j - i))}

    def _between(self, i: int, j: int) -> Shift:
        first, last = min(i, j), max(i, j)
        if (first, last) not in self._found:
            self._found[first, last] = find_shift(self._copy(first), self._copy(last))
        shift = self._found[first, last]
        return shift if i == first else shift._replace(down=-shift.down, right=-shift.right)

    def _copy(self, i: int) -> tuple[np.ndarray, int]:
        if i not in self._copies:
            self._copies[i] = prepared(_load(self.frames[i]))
        return self._copies[i]


def fuse(frame: np.ndarray, neighbours: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Weighted mean of a frame and its neighbours, and the dose it has in units of one frame.

    Parameters
    ----------
    frame : (h, w) float32 array
    neighbours : iterable of ((h, w) float32 array, Shift)
        Each with the shift that brings it onto `frame`.

    Returns
    -------
    fused, dose : (h, w) float32 arrays
        `dose` is (sum of weights)^2 / (sum of squared weights): 1 where no neighbour was used.
    helped : int
        Neighbours with weight in a tenth of the frame at least.
    """
    total, weight, square, helped = frame.copy(), np.ones_like(frame), np.ones_like(frame), 0
    for other, shift in neighbours:
        w = _inside(frame.shape, shift)
        # A cubic spline keeps the noise nearly as it is; linear interpolation would blur.
        other = ndimage.shift(other, (shift.down, shift.right), order=3, mode="nearest")
        w *= weights_of(frame, other, w > 0)
        total += w * other
        weight += w
        square += w * w
        helped += bool(w.mean() > _HELP)
    return total / weight, weight * weight / square, helped


def _inside(shape: tuple[int, int], shift: Shift) -> np.ndarray:
    """1 where a moved frame has pixels, 0 where it would have to be continued."""
    sides = []
    for n, s in zip(shape, (shift.down, shift.right)):
        at = np.arange(n) - s
        sides.append(((at >= 0) & (at <= n - 1)).astype(np.float32))
    return np.outer(*sides)


def weights_of(frame: np.ndarray, other: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Weight of each pixel of `other`, moved onto `frame`: 1 where they differ by noise alone, 0 where one changed.

    The difference is averaged over the size of a column and over a larger one, and compared with the noise of such
    averages. That is taken from the difference itself: how its variance grows with the signal from neighbouring pixels,
    and its size from the median over the frame, for after-glow and interpolation correlate it.

    A change is found where it exceeds some three standard deviations of the averaged difference; what is fainter is
    averaged away, as noise is.
    """
    difference = np.where(inside, other - frame, 0).astype(np.float32)
    expected = np.sqrt(_variance((frame + other) / 2, difference, inside))
    worst = np.zeros_like(frame)
    share = inside.astype(np.float32)
    for scale in _SCALES:
        norm = np.maximum(ndimage.gaussian_filter(share, scale), 1e-3)
        mean = ndimage.gaussian_filter(difference / expected, scale) / norm
        # White noise of variance 1 has this deviation after averaging, and less weight at the border.
        mean *= 2 * np.sqrt(np.pi) * scale * np.sqrt(norm)
        typical = float(np.median(np.abs(mean[inside]))) / 0.6745 if inside.any() else np.inf
        if typical > _DOUBTFUL * _correlated(difference, inside):
            return np.zeros_like(frame)
        worst = np.maximum(worst, np.abs(mean) / max(typical, 1e-6))
    fall = np.clip((worst - _SAFE) / (_CERTAIN - _SAFE), 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * fall)).astype(np.float32) * inside


def _variance(signal: np.ndarray, difference: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Variance of the difference against the signal: a line through levels of equal size, never below a tenth of it."""
    level = ndimage.gaussian_filter(signal, 2.0)
    rough = (difference[2:] - 2 * difference[1:-1] + difference[:-2]) ** 2 / 6
    at, good = level[1:-1], inside[2:] & inside[1:-1] & inside[:-2]
    x, y = at[good], rough[good]
    if not x.size:
        return np.full_like(signal, max(float(difference.var()), 1e-12))
    order = np.array_split(np.argsort(x), 12)
    # The square of a normal number has the median 0.455, and a change in few pixels does not move it.
    means, medians = (np.array([f(v[part]) for part in order]) for f, v in ((np.mean, x), (np.median, y)))
    heights = medians / 0.455
    slope, floor = np.polyfit(means, heights, 1) if np.ptp(means) > 0 else (0.0, heights.mean())
    if slope < 0:
        slope, floor = 0.0, heights.mean()
    return np.maximum(slope * level + floor, max(0.1 * float(heights.mean()), 1e-12)).astype(np.float32)


def _correlated(difference: np.ndarray, inside: np.ndarray) -> float:
    """By how much neighbours along the fast axis raise the deviation of an average, at least 1."""
    d = difference - np.median(difference[inside]) if inside.any() else difference
    # High-pass along the slow axis, in which a change of the specimen fades and after-glow does not.
    d = np.diff(d, axis=0)
    power = float((d * d).mean()) or 1.0
    lags = [float((d[:, k:] * d[:, :-k]).mean()) / power for k in range(1, 9)]
    return float(np.sqrt(max(1.0, 1 + 2 * sum(max(0.0, lag) for lag in lags))))


def _one(
    job: Job,
    method: Callable,
    used: Acquisition,
    frame: np.ndarray,
    fused: np.ndarray,
    dose: np.ndarray,
    out: np.ndarray,
) -> np.ndarray | None:
    """Denoise the average and, where it has hardly more dose than the frame, the frame alone; join them smoothly."""
    gain = float(np.median(dose))
    share = np.ones_like(dose) if gain < 1.05 else np.clip((dose - 1) / (gain - 1), 0, 1)
    share = ndimage.gaussian_filter(share, 1.0)
    picture = np.empty(out.shape, np.float32)
    deviation = _apply(job, method, _raised(used, gain), fused, picture)
    if gain >= 1.05 and share.min() < 0.5:
        alone = np.empty(out.shape, np.float32)
        other = _apply(job, method, used, frame, alone)
        picture += (1 - share) * (alone - picture)
        if deviation is not None:
            deviation += (1 - share) * (other - deviation)
    out[...] = cast(picture, out.dtype)
    return deviation


def _apply(job: Job, method: Callable, used: Acquisition, frame: np.ndarray, out: np.ndarray) -> np.ndarray | None:
    rows = read_rows(frame)
    return denoise_frame(rows, _again(method, frame), used, job.factor, out, tile=job.tile)


def _again(method: Callable, frame: np.ndarray) -> Callable:
    """A method that was fitted to the series, at the level and noise of this frame."""
    return method.for_frame(frame) if hasattr(method, "for_frame") else method


def _raised(used: Acquisition, gain: float) -> Acquisition:
    """Settings with the dose of an average: as more current, for after-glow stays that of the recorded dwell time."""
    return used if used.beam_current is None else used.replace(beam_current=used.beam_current * gain)
