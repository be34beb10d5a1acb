"""An image made ready for fits, and its products with waves: what laying a pattern on it and fitting it need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from . import polar
from .polar import prepared
from .projection import Pattern

__all__ = ["Products", "Query", "power_at", "prepare", "terms", "waves"]

PIXEL = 0.3
"""Images are binned to pixels of at most this size [angstrom]: their sampling then still shows |g| of 1.6."""
LARGEST = 256
"""Pixels along an edge, after binning, of the middle part that is compared."""
TERMS = 48
"""Coefficients of a pattern that take part: the strongest ones."""


@dataclass(frozen=True, eq=False)
class Query:
    """An image made ready for fits.

    Attributes
    ----------
    image : (rows, columns) float32 array
        Binned, its slow changes taken off; of unit mean square.
    pixel_size : float
        After binning [angstrom].
    binned : int
        Pixels along the edge that make one.
    peaks : (2 rows, 2 columns) float32 array
        Power spectrum above the noise, centred, of the windowed image padded to twice its size.
    noise : float
        Share of noise in the mean square, 0 to 1.
    """

    image: np.ndarray
    pixel_size: float
    binned: int
    peaks: np.ndarray
    noise: float

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """x of columns and y of rows from the middle [angstrom]."""
        rows, columns = self.image.shape
        x = (np.arange(columns) - (columns - 1) / 2) * self.pixel_size
        return x, (np.arange(rows) - (rows - 1) / 2) * self.pixel_size


def prepare(image: np.ndarray, pixel_size: float) -> Query:
    """Bin, crop to the middle, take off slow changes, and measure noise and peaks.

    Parameters
    ----------
    image : (rows, columns) array
    pixel_size : float
        [angstrom]
    """
    image = np.asarray(image, float)
    by = max(1, int(PIXEL / pixel_size + 1e-6))
    rows, columns = (n // by * by for n in image.shape)
    small = image[:rows, :columns].reshape(rows // by, by, columns // by, by).mean((1, 3))
    top, left = (max(0, (n - LARGEST) // 2) for n in small.shape)
    small = small[top : top + LARGEST, left : left + LARGEST]
    small = small - _slow(small)
    windowed = prepared(small)
    spectrum = np.abs(np.fft.fft2(windowed)) ** 2 / windowed.size
    floor = polar.floor_of(np.fft.fftshift(spectrum))
    # White noise is what is left where the probe carries nothing; elsewhere a floor is partly crystal.
    white = float(floor[polar.corner(*small.shape)].mean())
    size = float((small**2).mean())
    padded = np.abs(np.fft.fft2(windowed, [2 * n for n in small.shape])) ** 2 / windowed.size
    peaks = np.fft.fftshift(np.maximum(padded - 2 * white, 0)).astype(np.float32)
    small = (small / math.sqrt(size)).astype(np.float32)
    return Query(small, pixel_size * by, by, peaks / np.float32(size), min(white / size, 0.999))


def _slow(image: np.ndarray) -> np.ndarray:
    """Best polynomial of second order."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1).reshape(-1, 6)
    found, *_ = np.linalg.lstsq(terms, image.ravel(), rcond=None)
    return (terms @ found).reshape(image.shape)


def terms(query: Query, pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (m, 2) and coefficients (m,) that the image can show, the strongest; binning dims them."""
    g = np.asarray(pattern.frequencies, float)
    x, y = query.axes
    size = np.hypot(*g.T)
    seen = (size * query.pixel_size < 0.46) & (size * min(np.ptp(x), np.ptp(y)) > 1.0)
    g = g[seen][:TERMS]
    c = np.asarray(pattern.coefficients, complex)[seen][:TERMS]
    fine = query.pixel_size / query.binned
    dim = np.sinc(np.hypot(*g.T) * query.pixel_size) / np.sinc(np.hypot(*g.T) * fine)
    return g, c * dim


def power_at(query: Query, g: np.ndarray) -> np.ndarray:
    """Power above noise at frequencies (..., 2)."""
    rows, columns = query.peaks.shape
    at = np.stack(
        [g[..., 1] * query.pixel_size * rows + rows // 2, g[..., 0] * query.pixel_size * columns + columns // 2]
    )
    found = ndimage.map_coordinates(query.peaks, at.reshape(2, -1), order=1, mode="constant")
    return found.reshape(g.shape[:-1])


def _transform(query: Query, g: np.ndarray) -> np.ndarray:
    """Mean over the pixels of the image times exp(-2 pi i g . r): (m,)."""
    x, y = query.axes
    down = np.exp(-2j * np.pi * np.outer(g[:, 1], y)).astype(np.complex64)
    along = np.exp(-2j * np.pi * np.outer(g[:, 0], x)).astype(np.complex64)
    both = np.concatenate([down.real, down.imag]) @ query.image
    return ((both[: len(g)] + 1j * both[len(g) :]) * along).sum(1) / query.image.size


def _grams(query: Query, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the pixels of exp(2 pi i (g_j - g_i) . r) and exp(2 pi i (g_j + g_i) . r): (m, m) each, real."""
    rows, columns = query.image.shape

    def dirichlet(f, n):
        f = f * query.pixel_size
        below = np.sin(np.pi * f)
        return np.where(np.abs(below) < 1e-9, 1.0, np.sin(np.pi * n * f) / (n * np.where(below == 0, 1, below)))

    def window(v):
        return dirichlet(v[..., 0], columns) * dirichlet(v[..., 1], rows)

    return window(at[None] - at[:, None]), window(at[None] + at[:, None])


@dataclass(frozen=True, eq=False)
class Products:
    """The image's Fourier sums at some frequencies, and the products of these waves with one another."""

    seen: np.ndarray
    gram: np.ndarray
    opposite: np.ndarray

    @classmethod
    def of(cls, query: Query, at: np.ndarray) -> Products:
        return cls(_transform(query, at), *_grams(query, at))


def waves(query: Query, at: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """2 Re sum_m amplitudes[k, m] exp(2 pi i at[m] . r) at each pixel: (k, rows, columns) float32."""
    x, y = query.axes
    down = np.exp(2j * np.pi * np.outer(y, at[:, 1])).astype(np.complex64)
    along = np.exp(2j * np.pi * np.outer(at[:, 0], x)).astype(np.complex64)
    k, rows = len(amplitudes), len(y)
    left = (down[None] * (2 * amplitudes[:, None]).astype(np.complex64)).reshape(k * rows, -1)
    # Real part of a product of complex matrices, by real ones.
    return (left.real @ along.real - left.imag @ along.imag).reshape(k, rows, len(x))
