"""Polar maps: the lattice peaks of an image on a logarithmic axis of absolute |g| and an axis of direction.

The same map is made of an image of known pixel size and of the Fourier coefficients of a `Pattern`. A shift of the
image leaves it as it is; a rotation rolls it along the direction; an error of the pixel size moves it along log |g|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from ..errors import OutOfRangeError
from .projection import Pattern

__all__ = [
    "ANGLES",
    "RADII",
    "Overlap",
    "PolarMap",
    "correlate",
    "levelled",
    "moved",
    "of_image",
    "of_pattern",
    "overlaps",
    "prepared",
]

LOWEST, OCTAVES, PER_OCTAVE, DIRECTIONS = 0.08, 5, 16, 96
RADII = LOWEST * 2.0 ** ((np.arange(OCTAVES * PER_OCTAVE) + 0.5) / PER_OCTAVE)
"""|g| at the middle of each bin [1/angstrom]: (80,), 4.4 % apart, from 0.08 to 2.56."""
ANGLES = np.arange(DIRECTIONS) * math.pi / DIRECTIONS
"""Direction of g against the fast axis, towards the rows below, at the middle of each bin [rad]: (96,), half a turn."""

POWER = 0.25
"""Exponent of the energy in a cell: one half makes amplitudes, the other brings up weak peaks against strong ones."""
FLOOR_QUANTILE, ABOVE_FLOOR = 0.25, 3.0
BLUR = 0.6
"""Standard deviation of a Hann window's peak in the power spectrum, times the window's length: its main lobe."""
CROWDED = 24.0
"""In smaller fields of view [angstrom] peaks fill the rings, and only the corners of the spectrum show the noise."""
FIELDS_BELOW = 1.5
"""Peaks nearer to the origin than this over the field of view are part of the mean's own peak."""


@dataclass(frozen=True, eq=False)
class PolarMap:
    """Attributes
    ----------
    values : (80, 96) float32 array
        At `RADII` and `ANGLES`, not negative; of unit length over the known radii.
    known : (80,) bool array
        False where the image says nothing: beyond its sampling, or below its field of view.
    field : float
        Field of view, which sets the width of peaks [angstrom].
    strength : float
        Energy above the noise over energy of the noise, within the known radii; infinite without noise.
    """

    values: np.ndarray
    known: np.ndarray
    field: float
    strength: float


@dataclass(frozen=True)
class Overlap:
    """How a map lies best on another.

    Attributes
    ----------
    score : float
        1 for alike maps.
    angle : float
        Rotation of the other, after mirroring, onto this one, 0 to pi [rad].
    scale : float
        Spatial frequencies of this one over those of the other.
    mirrored : bool
        The other is seen from behind: its directions are reversed.
    """

    score: float
    angle: float
    scale: float
    mirrored: bool


def levelled(image: np.ndarray) -> np.ndarray:
    """The image less its best plane: (rows, columns) float64.

    Raises
    ------
    OutOfRangeError
        The image is not two-dimensional, smaller than 16 pixels, has values that are not finite, or is constant.
    """
    image = np.asarray(image, float)
    if image.ndim != 2 or min(image.shape) < 16:
        raise OutOfRangeError(f"an image of shape {image.shape}: two axes of at least 16 pixels are needed")
    if not np.isfinite(image).all():
        raise OutOfRangeError("the image has values that are not finite; crop them away or fill them")
    if np.ptp(image) == 0:
        raise OutOfRangeError("the image is constant: there is nothing to match")
    y, x = (np.linspace(-1, 1, n) for n in image.shape)
    flat = image - image.mean()
    flat -= (flat @ x).mean() / (x @ x) * x + ((y @ flat).mean() / (y @ y) * y)[:, None]
    return flat


def prepared(image: np.ndarray) -> np.ndarray:
    """The image less its best plane, times a Hann window of unit mean square; see `levelled`."""
    flat = levelled(image)
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in flat.shape))
    flat -= (flat * window).sum() / window.sum()
    return flat * window / math.sqrt((window**2).mean())


def of_image(image: np.ndarray, pixel_size: float) -> PolarMap:
    """Polar map of an image, its noise floor taken off.

    Parameters
    ----------
    image : (rows, columns) array
        Of any unit and offset.
    pixel_size : float
        [angstrom]

    Raises
    ------
    OutOfRangeError
        As of `prepared`; or the pixel size is not a positive number, or so coarse or fine that no radius is known.
    """
    if not (math.isfinite(pixel_size) and pixel_size > 0):
        raise OutOfRangeError(f"pixel size {pixel_size:g} angstrom: matching needs absolute spacings; give it")
    windowed = prepared(image)
    rows, columns = windowed.shape
    field = math.sqrt(rows * columns) * pixel_size
    known = _known(pixel_size, min(rows, columns) * pixel_size)
    if known.sum() < PER_OCTAVE // 2:
        raise OutOfRangeError(
            f"{columns} x {rows} pixels of {pixel_size:g} angstrom show no lattice: use finer pixels or a larger field"
        )
    power = np.fft.fftshift(np.abs(np.fft.fft2(windowed)) ** 2) / (rows * columns)
    floor = floor_of(power)
    if field < CROWDED:
        floor = np.full_like(floor, floor[corner(rows, columns)].mean())
    excess = np.maximum(power - ABOVE_FLOOR * floor, 0).astype(np.float32)
    sampled, area = _samples(rows, columns, pixel_size)
    cells = ndimage.map_coordinates(excess, sampled, order=1, mode="constant").reshape(len(RADII), 4, DIRECTIONS, 4)
    energy = cells.mean((1, 3)) * area[:, None]
    noise = float((area[known] * DIRECTIONS).sum() * np.median(floor))
    strength = float(energy[known].sum()) / max(noise, 1e-300)
    return PolarMap(_finished(energy, known), known, field, strength)


def of_pattern(pattern: Pattern, field: float, pixel_size: float | None = None, angle: float = 0.0) -> PolarMap:
    """The map that an image of a pattern has without noise.

    Parameters
    ----------
    field : float
        Field of view of the image [angstrom].
    pixel_size : float, optional
        Of the image: radii beyond its sampling are unknown [angstrom].
    angle : float
        Rotation of the pattern in the image [rad].
    """
    g = np.asarray(pattern.frequencies, float)
    size, direction = np.hypot(*g.T), np.arctan2(g[:, 1], g[:, 0]) + angle
    position = np.log2(np.maximum(size, 1e-9) / LOWEST) * PER_OCTAVE - 0.5
    inside = (position > -1) & (position < len(RADII))
    position, size, direction = position[inside], size[inside], direction[inside]
    energy = np.abs(np.asarray(pattern.coefficients)[inside]).astype(float) ** 2
    spread = BLUR / field / size
    # Peaks are as wide along as across; each is spread over cells, whose own size counts as well.
    radial = np.hypot(spread * PER_OCTAVE / math.log(2), math.sqrt(1 / 12))
    across = np.hypot(spread * DIRECTIONS / math.pi, math.sqrt(1 / 12))
    along = np.exp(-0.5 * ((np.arange(len(RADII))[:, None] - position) / radial) ** 2) / radial
    away = np.arange(DIRECTIONS)[:, None] - direction * DIRECTIONS / math.pi
    away = (away + DIRECTIONS / 2) % DIRECTIONS - DIRECTIONS / 2
    around = np.exp(-0.5 * (away / across) ** 2) / across
    total = (along * energy) @ around.T
    known = _known(pixel_size or 1e-3, field)
    return PolarMap(_finished(total, known), known, field, math.inf)


def correlate(query: PolarMap, other: PolarMap, stretch: float = 0.05, mirror: bool = True) -> Overlap:
    """The best overlap of two maps over rotation, a change of scale of at most `stretch`, and view from behind.

    The overlap is that of unit vectors over the radii that both know; -1 if there is none.
    """
    return next(iter(overlaps(query, other, stretch, mirror, 1)), Overlap(-1.0, 0.0, 1.0, False))


def overlaps(query: PolarMap, other: PolarMap, stretch: float = 0.05, mirror: bool = True, count: int = 3):
    """The `count` best overlaps (`correlate`) that are peaks of their own along the rotation, best first: a list."""
    reach = steps_within(stretch)
    curves, steps = [], range(-reach, reach + 1)
    first = np.fft.rfft(query.values, axis=1)
    for by in steps:
        shifted, known = moved(other.values, by), moved(other.known, by) & query.known
        length = float(np.linalg.norm(query.values[known]) * np.linalg.norm(shifted[known]))
        second = np.fft.rfft(shifted[known], axis=1)
        products = [(first[known] * second.conj()).sum(0)] + [(first[known] * second).sum(0)] * mirror
        curves.append(
            np.fft.irfft(products, DIRECTIONS, axis=1) / length if length else np.full((1 + mirror, 96), -1.0)
        )
    curves = np.stack(curves)  # scale, mirrored, rotation
    best_scale, over = curves.argmax(0), curves.max(0)
    peaks = (over >= np.roll(over, 1, 1)) & (over >= np.roll(over, -1, 1)) & (over > 0)
    found = [(float(over[i, j]), int(i), int(j)) for i, j in zip(*np.nonzero(peaks), strict=True)]
    found.sort(key=lambda f: -f[0])
    return [
        Overlap(score, at * math.pi / DIRECTIONS, 2.0 ** (steps[best_scale[side, at]] / PER_OCTAVE), bool(side))
        for score, side, at in found[:count]
    ]


def steps_within(stretch: float) -> int:
    """Bins of log |g| that a change of scale moves a map; less than a quarter of one is none."""
    return max(0, math.ceil(math.log2(1 + stretch) * PER_OCTAVE - 0.25))


def moved(values: np.ndarray, by: int) -> np.ndarray:
    """A map, or what is known of it, `by` bins further out, with zeros where nothing comes from."""
    out = np.zeros_like(values)
    if by >= 0:
        out[by:] = values[: len(values) - by]
    else:
        out[:by] = values[-by:]
    return out


def _known(pixel_size: float, field: float) -> np.ndarray:
    return (field * RADII > FIELDS_BELOW) & (pixel_size * RADII < 0.48)


def _finished(energy: np.ndarray, known: np.ndarray) -> np.ndarray:
    values = np.where(known[:, None], np.maximum(energy, 0) ** POWER, 0)
    return (values / max(float(np.linalg.norm(values)), 1e-300)).astype(np.float32)


def floor_of(power: np.ndarray) -> np.ndarray:
    """Noise at each place of a centred power spectrum: a low quantile of each ring, as peaks fill little of it."""
    ring, order, starts = _rings(*power.shape)
    exponential = -math.log(1 - FLOOR_QUANTILE)  # quantile of an exponential distribution over its mean
    parts = np.split(power.ravel()[order], starts)
    levels = np.array([np.quantile(p, FLOOR_QUANTILE) / exponential if len(p) > 7 else np.nan for p in parts])
    good = np.isfinite(levels)
    levels = np.interp(np.arange(len(levels)), np.flatnonzero(good), levels[good])
    return ndimage.uniform_filter1d(levels, 3, mode="nearest")[ring]


@lru_cache(maxsize=8)
def _rings(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of the ring of each place of a centred spectrum, of 32 up to the corner; places in order of it; starts."""
    fy, fx = (np.fft.fftshift(np.fft.fftfreq(n)) for n in (rows, columns))
    size = np.hypot(fy[:, None], fx[None, :])
    ring = np.minimum((size / size.max() * 32).astype(int), 31)
    order = np.argsort(ring.ravel(), kind="stable")
    return ring, order, np.searchsorted(ring.ravel()[order], np.arange(1, 32))


@lru_cache(maxsize=8)
def corner(rows: int, columns: int) -> np.ndarray:
    """Places of a centred spectrum in its outer third, where a probe carries little: (rows, columns) bool."""
    return _rings(rows, columns)[0] >= 21


@lru_cache(maxsize=8)
def _samples(rows: int, columns: int, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Places in a centred spectrum of 4 x 4 points in each polar cell, and each cell's area in places of it."""
    fine = (np.arange(4) - 1.5) / 4
    radii = LOWEST * 2.0 ** ((np.arange(len(RADII))[:, None] + 0.5 + fine) / PER_OCTAVE)
    angles = (np.arange(DIRECTIONS)[:, None] + fine) * math.pi / DIRECTIONS
    gx = radii[:, :, None, None] * np.cos(angles)
    gy = radii[:, :, None, None] * np.sin(angles)
    place = np.stack([gy * rows * pixel_size + rows // 2, gx * columns * pixel_size + columns // 2])
    area = RADII**2 * math.log(2) / PER_OCTAVE * math.pi / DIRECTIONS * rows * columns * pixel_size**2
    return place.reshape(2, -1).astype(np.float32), area
