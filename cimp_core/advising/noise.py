"""Noise of one recording, from its spectrum: how much there is, and how after-glow ties the pixels of a row together.

The noise of a row does not see the next row, so its power depends on the frequency along the row alone. Structure fills
low frequencies, and a lattice a few spots; at the highest frequencies down the columns the median over many of them is
noise. After-glow of decay time tau takes power from high frequencies along the row: a factor of known shape, and the
white power below it is that of the electrons.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from ..errors import OutOfRangeError
from ..simulate.detector import spill

__all__ = ["SMALLEST", "FrameNoise", "black_level", "frame_noise", "glow_kept", "glow_power"]

SMALLEST = 32
"""Least side of a frame [px]."""

_MEDIAN = 0.45494  # of a chi-squared of one degree of freedom, whose mean is 1
_UPPER = 0.75  # noise is read from the frequencies down the columns above this part of the highest
_TAUS = np.concatenate([[0.0], np.geomspace(0.08, 12, 60)])  # decay times tried, in dwell times


class FrameNoise(NamedTuple):
    """Noise of a frame."""

    white: float  # variance of a pixel without after-glow [counts^2]
    white_error: float  # relative standard error of it
    glow: float  # decay time over dwell time; 0 where none is seen
    glow_error: float  # standard error of its logarithm; 0 where none is seen
    misfit: float  # mean deviation of the spectrum from this form, over that which chance makes
    uneven: float  # change of its logarithm over the highest frequencies down the columns, where that of rows has none
    spectrum: np.ndarray  # (w,) power at each frequency of a cosine transform along the row [counts^2]

    @property
    def variance(self) -> float:
        """Of a pixel, the mean over the frame [counts^2]."""
        return float(self.spectrum.mean())


def glow_power(glow: float, frequency: np.ndarray) -> np.ndarray:
    """Part of the power that after-glow leaves at frequencies along the row [cycles/px].

    The filter is that of `cimp_core.simulate.detector.after_glow`: a pixel keeps 1 - f of its light, the next gets
    f (1 - r), the one after r times that, with f = glow (1 - exp(-1 / glow)) and r = exp(-1 / glow).
    """
    if glow <= 0:
        return np.ones_like(np.asarray(frequency, float))
    f, r = spill(glow, 1.0), math.exp(-1 / glow)
    turn = np.exp(-2j * np.pi * np.asarray(frequency, float))
    return np.abs((1 - f + (f - r) * turn) / (1 - r * turn)) ** 2


def glow_kept(glow: float, size: int = 512) -> float:
    """Part of the variance of white noise that after-glow leaves in a pixel."""
    return float(glow_power(glow, (np.arange(size) + 0.5) / (2 * size)).mean())


def frame_noise(frame: np.ndarray) -> FrameNoise:
    """Noise of (h, w) counts.

    Raises
    ------
    OutOfRangeError
        The frame is smaller than 32 pixels a side, or has no noise at all.
    """
    frame = np.asarray(frame, float)
    if frame.ndim != 2 or min(frame.shape) < SMALLEST:
        raise OutOfRangeError(f"frame of shape {frame.shape}: noise needs an image of at least {SMALLEST} px a side")
    height, width = frame.shape
    # The cosine transform mirrors the frame at its edges, so these make no cross in the spectrum.
    power = fft.dctn(frame - frame.mean(), norm="ortho") ** 2
    high = power[int(_UPPER * height) :]
    level = np.median(high, axis=0) / _MEDIAN
    if not np.median(level) > 0:
        raise OutOfRangeError("the frame has no noise: it is constant, computed, or was smoothed; give one as recorded")
    # A median of n squares of normal numbers has this relative error.
    error = 2.33 / math.sqrt(len(high))
    frequency = np.arange(width) / (2 * width)
    use = np.arange(width) >= 2  # the first are levels of whole rows: fly-back, drifting current
    white, glow, curvature, misfit = _fit(level[use], frequency[use], error)
    spectrum = white * glow_power(glow, frequency)
    bands = [np.median(band / np.maximum(spectrum, 1e-30)) for band in np.array_split(high, 2)]
    uneven = abs(math.log(max(bands[1], 1e-30) / max(bands[0], 1e-30)))
    share = int(use.sum())
    return FrameNoise(white, max(error / math.sqrt(share), curvature[0]), glow, curvature[1], misfit, uneven, spectrum)


def _fit(level: np.ndarray, frequency: np.ndarray, error: float) -> tuple:
    """White power and glow by least absolute deviations of logarithms; their standard errors; the misfit."""
    seen = np.log(np.maximum(level, 1e-12 * level.max()))
    shapes = np.log(np.stack([glow_power(g, frequency) for g in _TAUS]))
    offsets = np.median(seen - shapes, axis=1)
    losses = np.abs(seen - shapes - offsets[:, None]).mean(axis=1)
    best = int(np.argmin(losses))
    # No glow unless it fits better by more than chance: a mean absolute deviation scatters by 0.6 / sqrt(n) of one.
    if best and losses[0] - losses[best] < 0.35 * error / math.sqrt(len(level)):
        best = 0
    white, glow = float(np.exp(offsets[best])), float(_TAUS[best])
    misfit = float(losses[best]) / (0.8 * error)
    if not best:
        return white, 0.0, (0.0, 0.0), misfit
    # Linear model at the best fit: the two columns are the constant and the change of the shape with log glow.
    step = 0.02
    slope = (np.log(glow_power(glow * (1 + step), frequency)) - np.log(glow_power(glow / (1 + step), frequency))) / (
        2 * np.log1p(step)
    )
    design = np.stack([np.ones_like(slope), slope], axis=1)
    scatter = max(error, 1.2533 * float(losses[best])) * 1.2533  # a fit of medians is less sure than one of means
    covariance = scatter**2 * np.linalg.inv(design.T @ design + 1e-9 * np.eye(2))
    return white, glow, (math.sqrt(covariance[0, 0]), math.sqrt(covariance[1, 1])), misfit


def black_level(frame: np.ndarray, picture: np.ndarray) -> float | None:
    """Counts at which shot noise would vanish, from where in the frame there is more of it; ``None`` if it is even.

    What is left of the frame at the highest frequencies down the columns is noise, and its local power a line in the
    expected counts.

    Parameters
    ----------
    picture : (h, w) array
        The expected counts, as far as a filter tells.
    """
    height = frame.shape[0]
    kept = np.zeros(height)
    kept[int(_UPPER * height) :] = 1.0
    noise = fft.idct(fft.dct(frame, axis=0, norm="ortho") * kept[:, None], axis=0, norm="ortho")
    # The noise of a few rows meets in one: so does their level.
    middle = np.zeros(height)
    middle[height // 2] = 1.0
    reach = min(12, height // 2 - 1)
    near = slice(height // 2 - reach, height // 2 + reach + 1)
    weights = fft.idct(fft.dct(middle, norm="ortho") * kept, norm="ortho")[near] ** 2
    level = ndimage.convolve1d(np.asarray(picture, float), weights / weights.sum(), axis=0, mode="reflect").ravel()
    power, weight = noise.ravel() ** 2, np.ones(level.size)
    for _ in range(3):
        mean_level, mean_power = np.average(level, weights=weight), np.average(power, weights=weight)
        away = weight * (level - mean_level)
        spread = float(np.sum(away * (level - mean_level)))
        if not spread > 0:
            return None
        slope = float(np.sum(away * (power - mean_power))) / spread
        fitted = np.maximum(mean_power + slope * (level - mean_level), 0.1 * mean_power)
        weight = 1 / fitted**2  # a square of a normal number scatters by its mean
    # A square scatters by 1.4 of its mean; a quarter of the frequencies is as good as a quarter of the pixels.
    error = math.sqrt(2 / (1 - _UPPER) * float(np.sum((away * fitted) ** 2))) / spread
    return mean_level - mean_power / slope if slope > 3 * error else None
