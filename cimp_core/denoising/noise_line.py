"""How the noise of a recording grows with its signal, from the recording alone, and the transform that evens it out.

An electron adds its pulse height, so the variance of a pixel is a line in its mean, v = slope * s + floor. Rows do
not see each other's after-glow, so noise is taken from differences of pixels above one another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

__all__ = ["NoiseLine", "noise_line"]

_BLOCK = 8  # pixels a side, of which one value of signal and noise is taken
_BINS = 12


class NoiseLine(NamedTuple):
    """Variance of a pixel [counts^2] of expected signal s [counts]: ``slope * s + floor``, never below `least`."""

    slope: float
    floor: float
    least: float

    def variance(self, signal: np.ndarray) -> np.ndarray:
        """Variance of the noise at `signal`."""
        return np.maximum(self.slope * signal + self.floor, self.least)

    def stabilise(self, frame: np.ndarray) -> np.ndarray:
        """Counts as a quantity whose noise has a standard deviation near 1 (generalised Anscombe transform).

        Anscombe 1948, with the read noise of Murtagh, Starck and Bijaoui 1995: 2/k sqrt(k x + floor + 3/8 k^2).
        """
        if self.slope <= 0:
            return frame / np.sqrt(self.least)
        inside = self.slope * frame + self.floor + 0.375 * self.slope**2
        return 2 / self.slope * np.sqrt(np.maximum(inside, 0))

    def restore(self, steady: np.ndarray) -> np.ndarray:
        """Algebraic inverse of `stabilise`; what the mean of a root lacks has to be given back by `keep_level`."""
        if self.slope <= 0:
            return steady * np.sqrt(self.least)
        inside = (0.5 * self.slope * np.maximum(steady, 0)) ** 2
        return (inside - self.floor) / self.slope - 0.375 * self.slope


def noise_line(frame: np.ndarray) -> NoiseLine | None:
    """Noise of a recording against its signal; ``None`` of an image without noise.

    Parameters
    ----------
    frame : (h, w) array
        Counts, at least 32 pixels a side.

    Notes
    -----
    In each block of 8 x 8 the mean, and the variance of second differences down the columns; in each of twelve
    classes of equal mean, the median of the variances. A line is fitted with relative weights, twice.
    A lattice of a few pixels a period is taken for noise in part: this is a default for plain filters, no measurement.
    """
    frame = np.asarray(frame, float)
    height, width = (n // _BLOCK * _BLOCK for n in frame.shape)
    rough = ndimage.convolve1d(frame, np.array([1, -2, 1]) / np.sqrt(6), axis=0, mode="reflect")

    def blocks(values: np.ndarray) -> np.ndarray:
        cut = values[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
        return cut.mean(axis=(1, 3)).ravel()

    level, variance = blocks(frame), blocks(rough**2)
    if not variance.mean() > 1e-12 * max(1.0, float(np.abs(frame).max())) ** 2:
        return None
    classes = np.array_split(np.argsort(level, kind="stable"), _BINS)
    means = np.array([level[part].mean() for part in classes])
    noise = np.array([variance[part].mean() for part in classes])
    least = max(0.02 * float(noise.mean()), 1e-3 * float(variance.mean()))
    fitted, (slope, floor) = np.maximum(noise, least), (0.0, float(noise.mean()))
    for _ in range(2):
        if np.ptp(means) > 1e-6 * max(1.0, float(np.abs(means).max())):
            slope, floor = np.polyfit(means, noise, 1, w=1 / fitted)
        if slope <= 0:  # no growth is seen: even noise
            return NoiseLine(0.0, float(noise.mean()), float(max(noise.mean(), least)))
        fitted = np.maximum(slope * means + floor, least)
    return NoiseLine(float(slope), float(floor), least)
