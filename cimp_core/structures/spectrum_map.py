"""What the learnt embedding sees of an image: its power spectrum above the noise, on an axis of absolute |g| and one of
direction.

Finer in |g| than the maps that candidates are matched with (`polar`), for the spacings that two zone axes of a crystal
share are what tells it from its like; and equally fine everywhere, as the peaks of one image are equally wide. The
contrast, in which the black level of the detector counts, stands apart: it can be left out where that is not known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..errors import OutOfRangeError
from .lattice_lines import lattice_lines
from .lattice_peaks import noise_power, power_spectrum

__all__ = [
    "FIELD",
    "RINGS",
    "SECTORS",
    "SpectrumMap",
    "regions",
    "spectrum_map",
]

LOWEST, HIGHEST, COUNT = 0.06, 1.32, 64
RINGS = np.linspace(LOWEST, HIGHEST, COUNT)
"""|g| [1/angstrom]: (64,), 0.02 apart."""
SECTORS = np.arange(64) * math.pi / 64
"""Direction of g against the fast axis, towards the rows below [rad]: (64,), half a turn."""

FIELD = 32.0
"""Largest field of view that is looked at as a whole [angstrom]: wider ones would have narrower peaks."""


class SpectrumMap(NamedTuple):
    """The map of an image."""

    values: np.ndarray  # (64, 64) float32: log(1 + power / noise) at RINGS and SECTORS, 0 beyond the sampling
    energy: float  # logarithm of the power above noise in all peaks, over the noise
    contrast: float  # logarithm of the same over the square of the mean; nan where the mean is not positive
    field: float  # shorter side of the field of view [angstrom]
    lines: np.ndarray  # (64, 7) float32: `lattice_lines`


def spectrum_map(image: np.ndarray, pixel_size: float) -> SpectrumMap:
    """Map of a (rows, columns) image of any unit and offset, with pixels of `pixel_size` [angstrom].

    Raises
    ------
    OutOfRangeError
        As of `polar.prepared`; or the pixel size is no positive number.
    """
    if not (math.isfinite(pixel_size) and pixel_size > 0):
        raise OutOfRangeError(f"pixel size {pixel_size:g} angstrom: a structure needs absolute spacings; give it")
    power = power_spectrum(image)
    (rows, columns), mean, noise = np.shape(image), float(np.mean(image)), noise_power(power)
    excess = 2 * float(np.maximum(power - 4 * noise, 0).sum())
    gy, gx = RINGS[:, None] * np.sin(SECTORS), RINGS[:, None] * np.cos(SECTORS)
    sampled = _bilinear(power, gy * rows * pixel_size, gx * columns * pixel_size)
    sampled[RINGS * pixel_size > 0.48] = 0
    return SpectrumMap(
        np.log1p(sampled / noise).astype(np.float32),
        math.log1p(excess / noise),
        math.log(excess / (rows * columns * mean**2) + 1e-6) if mean > 0 else math.nan,
        min(rows, columns) * pixel_size,
        lattice_lines(image, power, noise, pixel_size),
    )


def _bilinear(power: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A half spectrum (rows, columns // 2 + 1) between its places: y of either sign and x, counted from zero."""
    back = x < 0
    y, x = np.where(back, -y, y), np.abs(x)  # the other half mirrors it
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = y - top, x - left
    rows, last = power.shape[0], power.shape[1] - 1
    near, far = np.minimum(left, last), np.minimum(left + 1, last)
    first, second = top % rows, (top + 1) % rows
    return (1 - down) * ((1 - right) * power[first, near] + right * power[first, far]) + down * (
        (1 - right) * power[second, near] + right * power[second, far]
    )


def regions(rows: int, columns: int, pixel_size: float, most: int = 9) -> list[tuple[slice, slice]]:
    """Squares of at most `FIELD` that cover an image, or `most` of them spread over it."""
    edge = min(rows, columns, max(16, int(FIELD / pixel_size)))
    across = math.isqrt(most)
    places = []
    for length in (rows, columns):
        count = min(across, math.ceil(length / edge))
        places.append([round(i * (length - edge) / max(1, count - 1)) for i in range(count)])
        if count == 1:
            places[-1] = [(length - edge) // 2]
    return [(slice(y, y + edge), slice(x, x + edge)) for y in places[0] for x in places[1]]
