"""Filters that are told the truth: the best setting of a Gaussian and of total variation for each single image.

Nobody can use them. A method that does not beat them owes its lead to their tuning, which most comparisons leave out.
They have ``tuned(frame, truth) -> image`` instead of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..metrics_denoising import affine_error
from .classical import TotalVariation, checked
from .noise_line import noise_line

__all__ = ["OracleGaussian", "OracleTotalVariation"]


def _best(make: Callable[[float], np.ndarray], values: np.ndarray, truth: np.ndarray, rounds: int) -> np.ndarray:
    """Image of least affine error over ascending `values`, then `rounds` times between the best and its neighbours."""
    tried = {float(v): make(float(v)) for v in values}
    errors = {v: affine_error(image, truth) for v, image in tried.items()}
    for _ in range(rounds):
        order = sorted(errors)
        k = order.index(min(errors, key=errors.get))
        for other in (k - 1, k + 1):
            if 0 <= other < len(order):
                between = float(np.sqrt(order[k] * order[other]))
                tried[between] = make(between)
                errors[between] = affine_error(tried[between], truth)
    return tried[min(errors, key=errors.get)]


@dataclass(frozen=True)
class OracleGaussian:
    """Gaussian filter of the best width between 0.3 and 24 px."""

    name: str = "oracle_gaussian"
    margin: int = 64

    def tuned(self, frame: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The image nearest to `truth` after an affine match."""
        frame = checked(frame)
        widths = np.geomspace(0.3, 24, 12)
        return _best(lambda sigma: ndimage.gaussian_filter(frame, sigma, mode="reflect"), widths, truth, 2)


@dataclass(frozen=True)
class OracleTotalVariation:
    """Total variation of the stabilised image with the best weight between 0.4 and 12 standard deviations."""

    name: str = "oracle_total_variation"
    margin: int = 32

    def tuned(self, frame: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The image nearest to `truth` after an affine match."""
        frame = checked(frame)
        line = noise_line(frame)
        return _best(lambda w: TotalVariation(w).with_noise(frame, line), np.geomspace(0.4, 12, 5), truth, 1)
