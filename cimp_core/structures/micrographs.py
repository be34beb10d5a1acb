"""Micrographs of a crystal as they may come from a microscope: settings, dose and orientation drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..simulate.optics import Optics
from .projection import Projection, pattern
from .views import View, collected, recorded

__all__ = ["MICROSCOPE", "THESIS", "TRAINING", "Conditions", "draw_micrograph"]


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

TRAINING = Conditions(electrons=(10.0, 1000.0), distortion=0.0, convergence=(21e-3, 27e-3), source=(0.6, 1.0))
"""Wider: what is learnt is to serve other microscopes as well. Errors of lengths are added to what is seen."""


def draw_micrograph(
    projection: Projection, conditions: Conditions, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A recorded image (size, size) float32 of a projected crystal, and the pixel size that is told [angstrom]."""
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
    return recorded(collected(seen, view), _between(rng, conditions.electrons), rng), told


def _between(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Drawn uniformly on a logarithmic scale."""
    return float(math.exp(rng.uniform(math.log(ends[0]), math.log(ends[1]))))
