"""Features and settings of many images of a twin, for training and calibration: computed once, kept as .npz."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..dataset import Dataset
from .measuring import look
from .spoiled import bright_field, random_resampling

__all__ = ["SIDES", "Samples", "read_samples", "spoiled_statistics"]

SIDES = (256, 128, 64)
"""Sides of square images [px] that the audit is trained and calibrated at."""


class Samples(NamedTuple):
    """Of n images at one side: with and without intensity scale, and what they were taken with."""

    absolute: np.ndarray  # (n, 512) features
    relative: np.ndarray  # (n, 512) features, the intensity scale hidden
    statistics: np.ndarray  # (n, m)
    settings: np.ndarray  # (n, 7) in SI
    sessions: np.ndarray  # (n,)


def read_samples(data: Dataset, side: int, cache: Path | None = None, seed: int = 0) -> Samples:
    """Of every image of `data`, a square of `side` pixels: the image itself or a place in it drawn at random."""
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            return Samples(*(stored[name] for name in Samples._fields))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(side,)))
    rows = [look([_square(data.image(i), side, rng)], (True, False)) for i in range(len(data))]
    both = [np.concatenate(values) for values in zip(*(features for features, _ in rows), strict=True)]
    made = Samples(*both, np.concatenate([s for _, s in rows]), data.metadata_raw.astype(float), data.sessions)
    if cache is not None:
        np.savez(cache, **made._asdict())
    return made


def spoiled_statistics(data: Dataset, indices: Sequence[int], sides: Sequence[int], seed: int = 0) -> Iterator[tuple]:
    """``(side, check, statistics)`` of some images, resampled at random and in bright field."""
    for i in indices:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, int(i))))
        bright = bright_field(data, int(i), seed)
        for side in sides:
            spoiled = random_resampling(_square(data.image(int(i)), min(side * 2, 256), rng), rng)
            if min(spoiled.shape) >= side:
                yield side, "resampled", look([_square(spoiled, side, rng)], ())[1][0]
            yield side, "contrast", look([_square(bright, side, rng)], ())[1][0]


def _square(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape
    top, left = rng.integers(max(height - side, 0) + 1), rng.integers(max(width - side, 0) + 1)
    return image[top : top + side, left : left + side]
