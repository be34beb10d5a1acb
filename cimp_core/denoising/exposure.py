"""How many electrons a picture was made with, judged from its noise alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .noise_line import noise_line

__all__ = ["Exposure", "exposure"]

BRIGHT = 99.5
"""Percentile that stands for the bright pixel."""


class Exposure(NamedTuple):
    """Noise of a picture read as shot noise: variance = counts per electron x (signal - zero)."""

    electrons: float | None  # detected at the bright pixel in one dwell time; None where the noise does not tell
    counts_per_electron: float | None  # times 1 + (spread of the pulse heights)^2
    zero: float | None  # counts at which there would be no noise
    noise: float  # standard deviation of neighbouring pixels [counts]


def exposure(frame: np.ndarray) -> Exposure:
    """Estimate the exposure of a frame, (h, w) counts with h, w >= 32.

    The noise is that of `noise_line`. Fine structure looks like noise to it, so it says too few electrons rather than
    too many where a lattice is sampled coarsely; after-glow, which smooths the noise, works the other way.
    """
    x = np.asarray(frame, np.float32)
    line = noise_line(x)
    if line is None:
        return Exposure(None, None, None, 0.0)
    mean = float(x.mean())
    noise = float(np.sqrt(line.variance(np.array(mean))))
    # Even noise is no shot noise, or that of a picture without contrast.
    if not line.slope * float(np.ptp(np.percentile(x, (5, 95)))) > 0.1 * noise**2:
        return Exposure(None, None, None, noise)
    black = -line.floor / line.slope
    return Exposure(max(0.0, _bright(x, line.slope, black) - black) / line.slope, line.slope, black, noise)


def _bright(x: np.ndarray, slope: float, black: float) -> float:
    """Percentile of the expected counts: that of means of 3 x 3 pixels, less what their noise adds to it."""
    from scipy.ndimage import uniform_filter

    middle, top = np.percentile(uniform_filter(x, 3), (50, BRIGHT))
    noise = 2.58 * np.sqrt(max(0.0, slope * (top - black)) / 9)  # 99.5 % of a normal number lie below 2.58 deviations
    return float(middle + np.sqrt(max(0.0, (top - middle) ** 2 - noise**2)))
