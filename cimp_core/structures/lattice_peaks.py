"""Peaks of a micrograph's power spectrum: where they are, to a part of a place, how strong, and how surely."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import fft

from .polar import prepared

__all__ = ["LEAST", "RANGE", "Peaks", "find_peaks", "noise_power", "power_spectrum"]

QUANTILE = 0.25
"""Of the power spectrum, from which the noise is told, as lattice peaks fill little of it."""

RANGE = 0.06, 1.5
"""|g| that counts [1/angstrom]."""

LEAST = 12.0
"""Power over that of the noise: of 8,000 places of an image, noise alone exceeds it at one in 20 images."""

MOST = 64
"""Peaks that are looked at, the strongest."""

SPREAD, FLOOR = 0.61, 0.004
"""Standard deviation of a peak's place along an axis [places]: the first over the root of the power over the noise, by
the errors of the two neighbours, of which a Hann window correlates each with the next by 2/3; and what is left of it
without noise, as the window is not sampled where `prepared` ends it."""


class Peaks(NamedTuple):
    """Maxima of a power spectrum, strongest first, one of each pair g, -g."""

    place: np.ndarray  # (n, 2) [places of the spectrum]: along rows, of either sign, and along columns
    power: np.ndarray  # (n,): over that of the noise, of the wave at its place
    error: np.ndarray  # (n,): standard deviation of the place along an axis [places]


def power_spectrum(image: np.ndarray) -> np.ndarray:
    """Power of the windowed image at the frequencies of `scipy.fft.rfft2`; that of white noise is its variance."""
    spectrum = fft.rfft2(prepared(image).astype(np.float32), workers=1)
    return (spectrum.real**2 + spectrum.imag**2) / np.size(image)


def noise_power(power: np.ndarray) -> float:
    """Power of white noise, which is exponentially distributed, in a spectrum of which most is noise."""
    floor = np.partition(power, int(power.size * QUANTILE), axis=None)[int(power.size * QUANTILE)]
    return max(float(floor) / -math.log(1 - QUANTILE), 1e-30)


def find_peaks(power: np.ndarray, noise: float, rows: int, columns: int, pixel_size: float) -> Peaks:
    """The strongest peaks of a `power_spectrum` of rows x columns pixels, at |g| within `RANGE`.

    Of a Hann window W, W(1 - d) - W(1 + d) is 6 d / (4 - d^2) times W(d), from which a peak's place follows exactly.

    Parameters
    ----------
    pixel_size : float
        [angstrom]
    """
    # The other half mirrors this one: columns left of the first are needed to tell whether it holds a maximum.
    mirrored = np.roll(power[::-1], 1, axis=0)[:, 1:2]
    p = np.concatenate([mirrored, power[:, : columns // 2]], 1)
    column = np.maximum(np.maximum(np.roll(p, 1, 0), np.roll(p, -1, 0)), p)
    middle = p[:, 1:-1]
    highest = (middle >= np.maximum(column[:, :-2], column[:, 2:])) & (middle >= column[:, 1:-1])
    y, x = np.nonzero(highest & (middle > LEAST * noise))
    fy = fft.fftfreq(rows)[y] * rows
    keep = (x > 0) | (fy > 0)  # of the first column half is the other half's mirror image
    y, x, fy = y[keep], x[keep], fy[keep]
    root = np.sqrt(np.maximum(p - noise, 0))
    here = root[y, x + 1]
    down = _between(root[y - 1, x + 1], here, root[(y + 1) % rows, x + 1])
    right = _between(root[y, x], here, root[y, x + 2])
    place = np.stack([fy + down, x + right], 1)
    over = (here / (_lobe(down) * _lobe(right))) ** 2 / noise
    g = np.hypot(*(place / [rows, columns]).T) / pixel_size
    inside = np.flatnonzero((g > RANGE[0]) & (g < RANGE[1]))
    order = inside[np.argsort(-over[inside], kind="stable")[:MOST]]
    return Peaks(place[order], over[order], np.sqrt(SPREAD**2 / over[order] + FLOOR**2))


def _between(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where the peak of a Hann window is, from the amplitudes at a maximum and beside it [places]."""
    u = (after - before) / here
    return np.clip(4 * u / (3 + np.sqrt(9 + 4 * u**2)), -0.6, 0.6)


def _lobe(d: np.ndarray) -> np.ndarray:
    """Transform of a Hann window over that at its middle, `d` places beside it, |d| < 1."""
    return np.sinc(d) / (1 - d**2)
