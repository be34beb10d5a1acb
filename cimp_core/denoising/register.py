"""Shifts between frames of a series, also where single electrons are counted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

__all__ = ["Shift", "find_shift", "overlap", "prepared"]

LARGEST = 1024
"""Longest side of the copies that shifts are found on [px]; larger frames are binned."""

_BLUR = 2.0  # px of the copy
_UPSAMPLE = 10
_LEAST_OVERLAP = 0.25
_CHANCE = 1.5


class Shift(NamedTuple):
    """By how much a frame's content is moved to lie on another's, (down, right) [px], and how alike they are then."""

    down: float
    right: float
    alike: float  # correlation coefficient of the blurred overlap
    trusted: bool  # more alike than frames without anything in common, and overlapping by a quarter at least


def prepared(frame: np.ndarray) -> tuple[np.ndarray, int]:
    """A blurred copy of mean 0, binned to at most 1024 px a side, and the binning."""
    step = max(1, -(-max(frame.shape) // LARGEST))
    h, w = (n // step for n in frame.shape)
    copy = frame[: h * step, : w * step].reshape(h, step, w, step).mean((1, 3)) if step > 1 else frame
    copy = ndimage.gaussian_filter(copy.astype(np.float32), _BLUR)
    return copy - copy.mean(), step


def find_shift(still: tuple[np.ndarray, int], moved: tuple[np.ndarray, int]) -> Shift:
    """Shift that brings `moved` onto `still`, both as `prepared` gives them.

    Correlation of windowed copies finds it roughly, for the window draws it towards zero; correlation of the parts
    that overlap then finds what is left, to a tenth of a (binned) pixel.
    """
    a, step = still
    b = moved[0]
    rough = np.rint(_correlate(a, b, 1)).astype(int)
    parts = overlap(a.shape, rough)
    if parts is None:
        return Shift(float(rough[0] * step), float(rough[1] * step), 0.0, False)
    here, there = parts
    rest = _correlate(a[here], b[there], _UPSAMPLE)
    # What is left is below a pixel, or a jump to another unit cell.
    shift = rough + rest if np.abs(rest).max() <= 2 else rough
    alike = _alike(a[here], b[there])
    # The best of n independent places agrees by chance about so well; a blurred copy has fewer than pixels.
    places = max(4.0, a[here].size / (4 * np.pi * _BLUR**2))
    trusted = alike > _CHANCE * np.sqrt(2 * np.log(places) / places)
    return Shift(float(shift[0] * step), float(shift[1] * step), alike, bool(trusted))


def overlap(shape: tuple[int, int], shift: np.ndarray) -> tuple[tuple, tuple] | None:
    """Slices of what two frames share when the second is moved by whole pixels; ``None`` if less than a quarter."""
    here, there = [], []
    for n, s in zip(shape, shift):
        here.append(slice(max(0, s), min(n, n + s)))
        there.append(slice(max(0, -s), min(n, n - s)))
    sides = [max(0, part.stop - part.start) for part in here]
    if sides[0] * sides[1] < _LEAST_OVERLAP * shape[0] * shape[1]:
        return None
    return tuple(here), tuple(there)


def _correlate(a: np.ndarray, b: np.ndarray, upsample: int) -> np.ndarray:
    from skimage.registration import phase_cross_correlation

    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in a.shape)).astype(np.float32)
    # Without phase normalisation: at low dose most frequencies hold noise alone.
    return phase_cross_correlation(
        (a - a.mean()) * window, (b - b.mean()) * window, upsample_factor=upsample, normalization=None
    )[0]


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0
