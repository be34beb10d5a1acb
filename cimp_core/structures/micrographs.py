"""Micrographs of a crystal as they may come from a microscope: settings, dose and orientation drawn at random.

To learn from, their power spectra are enough. These are made several times faster without the image: each reflection
is a copy of the window's transform, and counting noise is white.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..simulate.optics import Optics
from .projection import Pattern, Projection, pattern
from .views import View, collected, recorded, rotation

__all__ = ["MICROSCOPE", "THESIS", "TRAINING", "Conditions", "draw_micrograph", "draw_power", "power_of"]

PULSES = 0.5
"""Standard deviation over mean of the pulse heights of single electrons, as of `views.recorded`."""
BRIGHT, LOBE = 24, 3
"""Places along each axis at which the brightest pixel is looked for; reach of a window's transform [grid steps]."""


@dataclass(frozen=True)
class Conditions:
    """Ranges from which a micrograph's settings are drawn; pairs are lowest and highest."""

    size: int = 128  # side of the image [pixels]
    pixel_size: tuple[float, float] = (0.15, 0.25)  # [angstrom], logarithmic
    pixel_size_error: float = 0.0  # the pixel size that is told is wrong by up to this part
    electrons: tuple[float, float] = (10.0, 500.0)  # at the bright pixel, logarithmic
    thickness: tuple[float, float] = (50.0, 200.0)  # [angstrom], logarithmic
    tilt: float = 3e-3  # standard deviation along each axis [rad]
    distortion: float = 3e-3  # standard deviation of each component of the scan's distortion
    voltage: float = 300e3  # [V]
    convergence: tuple[float, float] = (24e-3, 24e-3)  # [rad]
    source: tuple[float, float] = (0.8, 0.8)  # diameter of the source image [angstrom]
    inner: float = 60e-3  # [rad]
    outer: float = 200e-3  # [rad]


THESIS = Conditions(pixel_size=(0.2, 0.2), electrons=(20.0, 500.0), thickness=(100.0, 100.0), tilt=0.0, distortion=0.0)
"""As in the thesis: one microscope, one thickness, noise. Unlike there, in-plane rotation and shift are drawn."""

MICROSCOPE = Conditions()
"""What varies from image to image on one microscope."""

TRAINING = Conditions(electrons=(10.0, 1000.0), distortion=5e-3, convergence=(21e-3, 27e-3), source=(0.6, 1.0))
"""Wider: what is learnt is to serve other microscopes as well."""


class _Drawn(NamedTuple):
    pattern: Pattern
    view: View
    electrons: float
    told: float  # pixel size [angstrom]


def _draw(projection: Projection, conditions: Conditions, rng: np.random.Generator) -> _Drawn:
    optics = Optics(
        voltage=conditions.voltage,
        convergence_angle=float(rng.uniform(*conditions.convergence)),
        source_size=float(rng.uniform(*conditions.source)) * 1e-10,
    )
    tilt, thickness = tuple(rng.normal(0, conditions.tilt, 2)), _between(rng, conditions.thickness)
    pixel_size = _between(rng, conditions.pixel_size)
    view = View(
        pixel_size,
        conditions.size,
        conditions.size,
        angle=float(rng.uniform(0, 2 * math.pi)),
        shift=tuple(rng.uniform(-50, 50, 2)),
        distortion=tuple(map(tuple, rng.normal(0, conditions.distortion, (2, 2)))),
    )
    told = pixel_size * (1 + rng.uniform(-1, 1) * conditions.pixel_size_error)
    seen = pattern(projection, optics, conditions.inner, conditions.outer, thickness, tilt)
    return _Drawn(seen, view, _between(rng, conditions.electrons), told)


def draw_micrograph(
    projection: Projection, conditions: Conditions, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A recorded image (size, size) float32 of a projected crystal, and the pixel size that is told [angstrom]."""
    drawn = _draw(projection, conditions, rng)
    return recorded(collected(drawn.pattern, drawn.view), drawn.electrons, rng), drawn.told


def draw_power(
    projection: Projection, conditions: Conditions, rng: np.random.Generator
) -> tuple[np.ndarray, float, float]:
    """Power spectrum of such an image as `spectrum_map.power_spectrum` gives it, the image's mean, and the pixel size.

    Left out are that no less than nothing is collected, where a series of waves falls below zero, and the trend of an
    image, which a crystal has not.
    """
    drawn = _draw(projection, conditions, rng)
    return *power_of(drawn.pattern, drawn.view, drawn.electrons, rng), drawn.told


def power_of(seen: Pattern, view: View, electrons: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Power spectrum and mean of the square image of a pattern at a dose, as of `draw_power`."""
    n = view.rows
    g = seen.frequencies.astype(float) @ rotation(view.angle).T
    amplitude = seen.coefficients * np.exp(-2j * math.pi * (g @ np.asarray(view.shift)))
    g = g @ (np.eye(2) + np.asarray(view.distortion)) * view.pixel_size
    # The brightest pixel, of some that are spread over the image.
    places = np.linspace(0, n - 1, BRIGHT) - (n - 1) / 2
    down, along = (np.exp(2j * math.pi * np.outer(places, g[:, i])) for i in (1, 0))
    some = seen.mean + 2 * ((down * amplitude) @ along.T).real
    counts = electrons / max(float(np.percentile(some, 99.5)), 1e-12)
    amplitude = amplitude * np.exp(-1j * math.pi * (n - 1) * g.sum(1))  # the first pixel is the origin of a transform
    g, amplitude = np.concatenate([g, -g]), np.concatenate([amplitude, amplitude.conj()])
    near = np.rint(g * n).astype(int)[:, :, None] + np.arange(-LOBE, LOBE + 1)
    x, y = (_window_transform(near[:, i] / n - g[:, i, None], n) for i in (0, 1))
    waves = amplitude[:, None, None] * y[:, :, None] * x[:, None, :]
    place = (near[:, 1, :, None] % n) * n + near[:, 0, None, :] % n
    total = [np.bincount(place.ravel(), part.ravel(), n * n) for part in (waves.real, waves.imag)]
    spectrum = counts * (total[0] + 1j * total[1]).reshape(n, n)[:, : n // 2 + 1]
    mean = counts * seen.mean
    noise = math.sqrt(mean * (1 + PULSES**2) / 2) * n
    spectrum = spectrum + noise * (rng.normal(size=spectrum.shape) + 1j * rng.normal(size=spectrum.shape))
    return (spectrum.real**2 + spectrum.imag**2) / n**2, mean


def _window_transform(f: np.ndarray, n: int) -> np.ndarray:
    """Fourier transform at `f` [cycles/pixel] of the Hann window of `polar.prepared` along an axis of n pixels."""

    def ones(f):
        bottom = np.sin(math.pi * f)
        ratio = np.where(np.abs(bottom) < 1e-9, n, np.sin(math.pi * f * n) / np.where(bottom == 0, 1, bottom))
        return np.exp(-1j * math.pi * f * (n - 1)) * ratio

    step = 1 / (n + 1)
    turn = np.exp(2j * math.pi * step)
    window = np.hanning(n + 2)[1:-1]
    whole = 0.5 * ones(f) - 0.25 * (turn * ones(f - step) + ones(f + step) / turn)
    return whole / math.sqrt((window**2).mean())


def _between(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Drawn uniformly on a logarithmic scale."""
    return float(math.exp(rng.uniform(math.log(ends[0]), math.log(ends[1]))))
