"""Pictures that are not what a HAADF detector recorded: what the checks of a picture learn from, and are tested on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..dataset import Dataset
from ..digital_twin import scan_of
from ..simulate.detector import FULL_SCALE, record

__all__ = ["bright_field", "random_resampling", "resampled", "rescaled", "rotated"]


def resampled(image: np.ndarray, factor: float, order: int) -> np.ndarray:
    """`factor` times as many pixels a side, by splines of an order (0: nearest, 1: linear, 3: cubic), in 16 bit."""
    return _whole(ndimage.zoom(image.astype(np.float64), factor, order=order, mode="nearest", grid_mode=True))


def rotated(image: np.ndarray, degrees: float, order: int = 3) -> np.ndarray:
    """Turned, and cut such that no empty corner shows."""
    turned = ndimage.rotate(image.astype(np.float64), degrees, reshape=False, order=order, mode="reflect")
    return _whole(turned)


def rescaled(image: np.ndarray, levels: int = 256, gamma: float = 1.0) -> np.ndarray:
    """Stretched from its least to its greatest value over `levels` values, then over all of 16 bit."""
    low, high = float(image.min()), float(image.max())
    share = ((image.astype(np.float64) - low) / max(high - low, 1.0)) ** gamma
    return _whole(np.rint(share * (levels - 1)) / (levels - 1) * FULL_SCALE)


def random_resampling(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the above with settings drawn at random."""
    kind = rng.integers(4)
    if kind == 0:
        return resampled(image, float(np.exp(rng.uniform(np.log(1.05), np.log(2.5)))), int(rng.choice([0, 1, 3])))
    if kind == 1:
        return resampled(image, float(rng.uniform(0.5, 0.95)), int(rng.choice([0, 1, 3])))
    if kind == 2:
        return rotated(image, float(rng.uniform(2, 45)), int(rng.choice([1, 3])))
    return rescaled(image, int(rng.choice([256, 1024, 4096])), float(rng.choice([1.0, 1.0, 0.5, 0.8, 1.5])))


def bright_field(data: Dataset, index: int, seed: int = 0) -> np.ndarray:
    """Image `index` of a twin as a detector on the axis would record it: what HAADF loses, in 16 bit.

    The fraction on it is 1 - that on the annular detector (incoherent bright field, without phase contrast). Its
    amplifier is such that at the recorded gain the bright parts reach the level they reach in the HAADF image: the
    recorded numbers do not give it away.
    """
    shot, fraction = scan_of(data, index)
    other = np.clip(1 - fraction, 0, 1)
    ratio = float(np.quantile(fraction, 0.995)) / max(float(np.quantile(other, 0.995)), 1e-6)
    detector = replace(shot.detector, slope=shot.detector.slope * ratio)
    return record(
        other, shot.acquisition, detector, np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    )


def _whole(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, FULL_SCALE).astype(np.uint16)
