"""Pictures of a crystal's pattern: any pixel size, direction, place and distortion of the scan; their noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .projection import Pattern

__all__ = ["View", "collected", "recorded", "rotation"]


@dataclass(frozen=True)
class View:
    """How a pattern lies in an image.

    Parameters
    ----------
    pixel_size : float
        [angstrom]
    rows, columns : int
    angle : float
        Of the pattern's x axis against the fast scan axis [rad].
    shift : (float, float)
        Where the pattern's origin lies, from the middle of the image [angstrom].
    distortion : 2 x 2 floats
        The scan's departure from a square one: positions (x, y) are multiplied by one plus this.
    jitter : tuple of floats
        Displacement of each row along the fast axis [angstrom]; none by default.
    """

    pixel_size: float
    rows: int
    columns: int
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    distortion: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    jitter: tuple[float, ...] | None = None


def rotation(angle: float) -> np.ndarray:
    """(2, 2): turns columns (x, y) by `angle` [rad]."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def collected(pattern: Pattern, view: View) -> np.ndarray:
    """Collected fraction at each pixel, (rows, columns) float32; rows along y, columns along x, the fast scan axis.

    The beam stands still at each pixel, so a coarse scan aliases the pattern as a microscope does.
    """
    x = (np.arange(view.columns) - (view.columns - 1) / 2) * view.pixel_size
    y = (np.arange(view.rows) - (view.rows - 1) / 2) * view.pixel_size
    dx = np.zeros(view.rows) if view.jitter is None else np.asarray(view.jitter, float)
    straight = np.eye(2) + np.asarray(view.distortion, float)
    # Frequencies in the image's axes: the pattern at R^-1 (D r - shift).
    g = pattern.frequencies.astype(float) @ rotation(view.angle).T
    phase = -2 * math.pi * (g @ np.asarray(view.shift, float))
    g = g @ straight
    amplitude = 2 * pattern.coefficients * np.exp(1j * phase)
    along = np.exp(2j * math.pi * np.outer(g[:, 0], x)).astype(np.complex64)
    down = np.exp(2j * math.pi * (np.outer(y, g[:, 1]) + np.outer(dx, g[:, 0]))).astype(np.complex64)
    image = ((down * amplitude.astype(np.complex64)) @ along).real
    return np.maximum(image + np.float32(pattern.mean), 0).astype(np.float32)


def recorded(fraction: np.ndarray, electrons: float, rng: np.random.Generator, spread: float = 0.5) -> np.ndarray:
    """Counts of an image at a dose, (rows, columns) float32: one for each detected electron but for pulse heights.

    Parameters
    ----------
    fraction : (rows, columns) array
        Collected fraction, of any scale.
    electrons : float
        Detected electrons in a dwell time at the brightest pixel (its 99.5th percentile).
    spread : float
        Standard deviation over mean of the pulse heights of single electrons.
    """
    bright = float(np.percentile(fraction, 99.5))
    expected = np.asarray(fraction, float) * (electrons / max(bright, 1e-12))
    counts = rng.poisson(expected)
    # The sum of n gamma-distributed pulses of shape k is gamma-distributed with shape n k.
    shape = 1 / spread**2
    return np.where(counts > 0, rng.gamma(np.maximum(counts, 1) * shape, 1 / shape), 0.0).astype(np.float32)
