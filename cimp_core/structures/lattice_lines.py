"""The reflections that a micrograph shows: how far from the origin, how strong, and what stands in line with them.

None of this depends on where the crystal lies nor on how it is turned, and all of it is the same for every zone axis
that shows the reflection: in an incoherent image the amplitude at g is the crystal's structure factor over that of
g = 0. Where columns guide the probe, contrast differs from axis to axis, but less so the ratios within a row of
reflections, which is what two zone axes of a crystal share: so amplitudes at 2 g, 3 g and g / 2 are told with each.

Lengths tell crystals apart, the better the more exactly they are known: all waves of an image are those of one lattice,
whose periods are fitted to all of the image at once; a wave that does not lie on it is fitted by itself.
"""

from __future__ import annotations

import math

import numpy as np

from .lattice_fit import find_lattice
from .lattice_peaks import RANGE, find_peaks
from .lattice_waves import Waves, fit_waves, transform
from .polar import levelled

__all__ = ["FIELDS", "LINES", "RANGE", "RATIO_FLOOR", "ROW", "lattice_lines"]

LINES = 64
"""Reflections that are kept of an image, the strongest of one of each pair g, -g."""

ROW = 2.0, 3.0, 0.5
"""Places in the row of a reflection, in units of its g, at which amplitudes are told."""

FIELDS = (
    "log |g|",
    "log amplitude over mean",
    "log power over noise",
    *(f"log ratio at {k:g} g" for k in ROW),
    "log relative error of |g|",
)
"""Of each reflection; g in 1/angstrom. The ratio is that of the amplitude there to that at g, plus `RATIO_FLOOR`."""

RATIO_FLOOR = 0.1
"""So that where nothing stands is not told from where next to nothing does."""


def lattice_lines(image: np.ndarray, power: np.ndarray, noise: float, pixel_size: float) -> np.ndarray:
    """Reflections (`LINES`, 7) float32, strongest first, of `FIELDS`; rows of ``nan`` where there are no more.

    Amplitudes are over the mean of the image, and so ``nan`` where that is not positive.

    Parameters
    ----------
    image : (rows, columns) array
    power : (rows, columns // 2 + 1) array
        Its `power_spectrum`.
    noise : float
        Power of the noise in it.
    pixel_size : float
        [angstrom]
    """
    mean = float(np.mean(image))
    flat = levelled(image).astype(np.float32)
    peaks, size = find_peaks(power, noise, *flat.shape, pixel_size), np.array(flat.shape)
    lattice, lines = find_lattice(peaks), np.full((LINES, len(FIELDS)), np.nan, np.float32)
    if lattice is None:
        return lines
    indices = np.unique(lattice.indices[lattice.member], axis=0)
    waves = fit_waves(flat, indices, lattice.basis / size, peaks.place[~lattice.member] / size, noise, pixel_size)
    g, over = np.hypot(*waves.places.T), np.abs(waves.amplitudes) ** 2 * flat.size / noise
    keep = np.flatnonzero((g > RANGE[0] * pixel_size) & (g < RANGE[1] * pixel_size))
    order = keep[np.argsort(-over[keep], kind="stable")[:LINES]]
    place, error, over, g = waves.places[order], waves.errors[order], over[order], g[order]
    amplitude = np.abs(waves.amplitudes[order])
    relative = np.log(amplitude / mean) if mean > 0 else np.full(len(g), math.nan)
    ratios = [np.log(np.sqrt(_power_at(k * place, waves, noise)) / amplitude + RATIO_FLOOR) for k in ROW]
    lines[: len(g)] = np.stack([np.log(g / pixel_size), relative, np.log(over), *ratios, np.log(error / g)], 1)
    return lines


def _power_at(place: np.ndarray, waves: Waves, noise: float) -> np.ndarray:
    """|amplitude|^2 at places (n, 2) [cycles per pixel], less what noise has there; 0 beyond the image's sampling."""
    h = place @ np.linalg.inv(waves.basis)
    # A place of the lattice is one to rounding, or at least a third of a period beside it.
    near = (np.abs(h[:, None] - sign * waves.indices).max(2) < 0.1 for sign in (1, -1))
    amplitudes = waves.amplitudes[: len(waves.indices)]
    seen = transform(waves.residual, place) + next(near) @ amplitudes + next(near) @ amplitudes.conj()
    inside = (np.abs(place) < 0.49).all(1)
    return np.where(inside, np.maximum(np.abs(seen) ** 2 - noise / waves.residual.size, 0), 0.0)
