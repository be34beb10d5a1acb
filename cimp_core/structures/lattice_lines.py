"""The reflections that a micrograph shows: how far from the origin, how strong, and what stands in line with them.

None of this depends on where the crystal lies nor on how it is turned, and all of it is the same for every zone axis
that shows the reflection: in an incoherent image the amplitude at g is the crystal's structure factor over that of
g = 0. Where columns guide the probe, contrast differs from axis to axis, but less so the ratios within a row of
reflections, which is what two zone axes of a crystal share: so amplitudes at 2 g, 3 g and g / 2 are told with each.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

__all__ = ["FIELDS", "LINES", "RANGE", "RATIO_FLOOR", "ROW", "lattice_lines"]

LINES = 64
"""Reflections that are kept of an image, the strongest of one of each pair g, -g."""

ROW = 2.0, 3.0, 0.5
"""Places in the row of a reflection, in units of its g, at which amplitudes are told."""

FIELDS = ("log |g|", "log amplitude over mean", "log power over noise", *(f"log ratio at {k:g} g" for k in ROW))
"""Of each reflection; g in 1/angstrom. The ratio is that of the amplitude there to that at g, plus `RATIO_FLOOR`."""

RATIO_FLOOR = 0.1
"""So that where nothing stands is not told from where next to nothing does."""

RANGE = 0.06, 1.5
"""|g| that counts [1/angstrom]."""

NOISE_NEAR = 2.0
"""Mean over that of one place, about, of the largest of nine powers of noise, which are not independent."""

LEAST = 12.0
"""Power over that of the noise: of 8,000 places of an image, noise alone exceeds it at one in 20 images."""


def lattice_lines(
    power: np.ndarray, rows: int, columns: int, mean: float, noise: float, pixel_size: float
) -> np.ndarray:
    """Reflections (`LINES`, 3) float32, strongest first, of `FIELDS`; rows of ``nan`` where there are no more.

    Places are refined by a parabola through the logarithms of the power, along either axis; amplitudes, over the mean
    of the image and so ``nan`` where that is not positive, are corrected for the window.

    Parameters
    ----------
    power : (rows, columns // 2 + 1) array
        As of `spectrum_map.power_spectrum`.
    noise : float
        Power of the noise.
    pixel_size : float
        [angstrom]
    """
    found = np.full((LINES, len(FIELDS)), np.nan, np.float32)
    # The other half mirrors this one: columns left of the first are needed to tell whether it holds a maximum.
    mirrored = np.roll(power[::-1], 1, axis=0)[:, 1:2]
    p = np.concatenate([mirrored, power[:, : columns // 2]], 1)
    above, below = np.roll(p, 1, 0), np.roll(p, -1, 0)
    column = np.maximum(np.maximum(above, below), p)
    middle = p[:, 1:-1]
    peak = (
        (middle >= np.maximum(column[:, :-2], column[:, 2:])) & (middle >= column[:, 1:-1]) & (middle > LEAST * noise)
    )
    y, x = np.nonzero(peak)
    fy = fft.fftfreq(rows)[y]
    keep = (x > 0) | (fy > 0)  # of the first column half is the other half's mirror image
    y, x, fy = y[keep], x[keep], fy[keep]
    log = np.log(np.maximum(p, 1e-30))
    here = log[y, x + 1]
    down, up_y = _vertex(log[y - 1, x + 1], here, log[(y + 1) % rows, x + 1])
    right, up_x = _vertex(log[y, x], here, log[y, x + 2])
    g = np.hypot((fy + down / rows), (x + right) / columns) / pixel_size
    strength = np.exp(here + up_y + up_x) - noise
    inside = np.flatnonzero((g > RANGE[0]) & (g < RANGE[1]) & (strength > 0))
    order = inside[np.argsort(-strength[inside], kind="stable")[:LINES]]
    g, strength = g[order], strength[order]
    # Power of a wave 2 A cos under a window of unit mean square is A^2 (mean of the window)^2 times the pixels: 2/3 of
    # a Hann window along each axis.
    amplitude = np.sqrt(strength / (rows * columns)) * 1.5
    relative = np.log(amplitude / mean) if mean > 0 else np.full(len(g), math.nan)
    place = np.stack([(fy + down / rows), (x + right) / columns])[:, order]
    ratios = [
        np.log(np.sqrt(_power_near(power, rows, columns, k * place, noise) / strength) + RATIO_FLOOR) for k in ROW
    ]
    found[: len(g)] = np.stack([np.log(g), relative, np.log(strength / noise), *ratios], 1)
    return found


def _power_near(power: np.ndarray, rows: int, columns: int, place: np.ndarray, noise: float) -> np.ndarray:
    """Largest power within a pixel of places (2, n) [cycles per pixel], above what noise has there; 0 beyond the image.

    Parameters
    ----------
    place : (2, n) array
        Along rows, from -0.5 to 0.5, and along columns, not negative.
    """
    inside = (np.abs(place) < 0.49).all(0)
    middle_y, middle_x = np.rint(place * np.array([[rows], [columns]])).astype(int)
    best = np.zeros(place.shape[1])
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            y, x = middle_y + dy, middle_x + dx
            y = np.where(x < 0, -y, y) % rows  # the other half mirrors this one
            best = np.maximum(best, power[y, np.minimum(np.abs(x), columns // 2)])
    return np.where(inside, np.maximum(best - NOISE_NEAR * noise, 0), 0.0)


def _vertex(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the parabola through three equidistant values is largest, within half a step, and by how much higher."""
    slope, bend = (after - before) / 2, before - 2 * here + after
    place = np.clip(-slope / np.minimum(bend, -1e-9), -0.5, 0.5)
    return place, slope * place + bend / 2 * place**2
