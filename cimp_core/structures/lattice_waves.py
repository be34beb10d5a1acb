"""Waves of one lattice fitted to a micrograph: the lattice's periods and each wave's amplitude, by least squares.

The whole image counts, its borders too, which a window would hide: for frequencies they matter most. Periods are so
found several times more exactly than from the peaks of a windowed spectrum. Positions are counted from the middle of
the image, where a change of the periods does not turn the phases.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .lattice_peaks import RANGE

__all__ = ["Waves", "fit_waves", "transform"]

STEPS = 5
LEAST = 10.0
"""Power of a wave over that of the noise, from which it is fitted: the lattice says where to look, at few places."""
MOST = 64
"""Waves that are fitted, the strongest."""
BESIDE = 1.5
"""How near to another wave none is looked for [places of the spectrum]."""


class Waves(NamedTuple):
    """Level + 2 Re sum_j amplitudes[j] exp(2 pi i places[j] . r) + residual, r from the middle of the image.

    The first places are ``indices @ basis``, the others stand by themselves.
    """

    basis: np.ndarray  # (2, 2): rows are periods along rows and columns [cycles per pixel]
    indices: np.ndarray  # (n, 2) int, strongest first, one of each pair h, -h
    places: np.ndarray  # (n + m, 2) [cycles per pixel]
    amplitudes: np.ndarray  # (n + m,) complex64
    errors: np.ndarray  # (n + m,): standard deviation of a place along an axis [cycles per pixel]
    residual: np.ndarray  # (rows, columns) float32


def fit_waves(
    image: np.ndarray, indices: np.ndarray, basis: np.ndarray, others: np.ndarray, noise: float, pixel_size: float
) -> Waves:
    """Fit first the waves of some indices, then all of the lattice that are seen, and others beside them.

    Parameters
    ----------
    image : (rows, columns) float32 array
        Less its mean.
    indices : (n, 2) int array
        Of peaks.
    basis : (2, 2) array
        Near to what is sought: the phases at the borders must be right to a quarter of a turn.
    others : (m, 2) array
        Of peaks that do not lie on the lattice [cycles per pixel]; unfitted, they would spill over it.
    noise : float
        Variance of a pixel by noise.
    pixel_size : float
        [angstrom]
    """
    size, start = np.array(image.shape), (indices, basis, others)
    indices, basis, others, amplitudes, residual = _fitted(image, *start)
    places = _places(basis, pixel_size, image.shape)
    power = np.abs(_known(places, indices, amplitudes[: len(indices)]) + transform(residual, places @ basis)) ** 2
    apart = np.abs(((places @ basis)[:, None] - others) * size).max(2, initial=0) > BESIDE
    seen = np.flatnonzero((power > LEAST * noise / image.size) & apart.all(1))
    seen = seen[np.argsort(-power[seen], kind="stable")[:MOST]]
    if len(seen):
        indices, basis, others, amplitudes, residual = _fitted(image, places[seen], basis, others)
    moved = np.concatenate([basis - start[1], others - start[2]])
    if not np.abs(moved * size).max() < 1:  # ran away: two waves in one place, or a lattice that is none
        indices, basis, others, amplitudes, residual = _fitted(image, *start, moving=False)
    each = max(float(residual.var()), noise) / (_information(image.size) * image.size)
    count, weight = len(indices), np.abs(amplitudes) ** 2
    inverse = np.linalg.inv(_normal(indices.astype(float), amplitudes[:count]))
    square = np.concatenate(
        [np.einsum("ni,ij,nj->n", indices, inverse, indices), 1 / np.maximum(weight[count:], 1e-30)]
    )
    place = np.concatenate([indices @ basis, others])
    return Waves(basis, indices, place, amplitudes, np.sqrt(square * each), residual)


def _fitted(
    image: np.ndarray, indices: np.ndarray, basis: np.ndarray, others: np.ndarray, moving: bool = True
) -> tuple:
    """All of it after some steps of Gauss and Newton, waves being nearly orthogonal, with amplitudes and residual."""
    h, count = indices.astype(float), len(indices)
    amplitudes = np.zeros(count + len(others), np.complex64)
    per_axis = np.array(image.shape) ** 2 * _information(image.size)
    for step in range(STEPS + 1):
        down, along, y, x = _oscillations(image.shape, np.concatenate([h @ basis, others]))
        left = down.conj().T * (2 * amplitudes)
        residual = image - (left.real @ along.conj().T.real - left.imag @ along.conj().T.imag)
        if step == STEPS:
            break
        half = residual @ along
        if step and moving:
            by_y = np.einsum("mr,rm->m", down * y, half)
            by_x = np.einsum("mr,rm->m", down, residual @ (along * x[:, None]))
            # The slope of the sum of squares against each wave's frequency.
            slopes = 2 * (2j * math.pi * amplitudes[:, None] * np.stack([by_y, by_x], 1).conj()).real / per_axis
            basis = basis + np.linalg.solve(_normal(h, amplitudes[:count]), h.T @ slopes[:count])
            others = others + slopes[count:] / np.maximum(np.abs(amplitudes[count:, None]) ** 2, 1e-30)
        amplitudes = amplitudes + np.einsum("mr,rm->m", down, half) / image.size
    return indices, basis, others, amplitudes, residual


def _information(pixels: int) -> float:
    """What an image says of the frequency of a wave of amplitude 1, over the square of its edge [1/pixel^2]."""
    return 2 * (2 * math.pi) ** 2 * pixels / 12


def _normal(h: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Of the basis; a period that no wave has is held."""
    normal = (h * (np.abs(amplitudes) ** 2)[:, None]).T.astype(float) @ h
    return normal + (1e-6 * np.trace(normal) + 1e-30) * np.eye(2)


def _oscillations(shape: tuple[int, int], g: np.ndarray) -> tuple[np.ndarray, ...]:
    """exp(-2 pi i g . r) as factors (n, rows) and (columns, n) complex64, and the places of rows and columns."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    down = np.exp(-2j * math.pi * np.outer(g[:, 0], y)).astype(np.complex64)
    along = np.exp(-2j * math.pi * np.outer(x, g[:, 1])).astype(np.complex64)
    return down, along, y.astype(np.float32), x.astype(np.float32)


def transform(image: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Mean of image exp(-2 pi i g . r) at frequencies (n, 2) along rows and columns [cycles per pixel]: complex."""
    down, along, _, _ = _oscillations(image.shape, g)
    return np.einsum("mr,rm->m", down, image @ along) / image.size


def _places(basis: np.ndarray, pixel_size: float, shape: tuple[int, int]) -> np.ndarray:
    """Indices (n, 2) of a lattice with |g| in `RANGE` and within the sampling, one of each pair."""
    reach = np.ceil(RANGE[1] * pixel_size * np.hypot(*np.linalg.inv(basis))).astype(int)
    # Nearer than a place no two waves can be told apart.
    reach = np.minimum(reach, max(shape))
    h = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 2)
    g = h @ basis
    size = np.hypot(*g.T) / pixel_size
    keep = (h[:, 0] > 0) | ((h[:, 0] == 0) & (h[:, 1] > 0))
    return h[keep & (size > RANGE[0]) & (size < RANGE[1]) & (np.abs(g) < 0.49).all(1)]


def _known(places: np.ndarray, indices: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Amplitudes at places of which some, or their opposites, are among the indices; 0 elsewhere."""
    same = (places[:, None] == indices).all(2) @ amplitudes
    return same + ((places[:, None] == -indices).all(2) & (indices != 0).any(1)) @ amplitudes.conj()
