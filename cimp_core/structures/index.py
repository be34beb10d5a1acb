"""The first look in a library: a description of each pattern that does not change as the image turns, and its search.

The harmonics along the direction of a polar map change only their phase when the map rolls; their magnitudes at each
radius are compared, over the radii that the image knows and at a few positions along log |g|. What is near by that is
compared by the rolled maps themselves (`polar.correlate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import OutOfRangeError
from . import polar
from .polar import PolarMap
from .projection import Pattern

__all__ = ["FIELDS", "Index", "clear_map", "strong"]

HARMONICS = 8
"""Of half a turn, from 0: four- and six-fold views differ in the second and third."""
RINGS = slice(4, 74)
"""Radii that are compared: 0.1 to 1.9 1/angstrom."""
FIELDS = (12.0, 17.0, 24.0, 34.0, 60.0)
"""Fields of view for which an index may be made [angstrom]: the nearest to an image's own is best."""


WEAK = 0.15
"""Part of the strongest value of a map that is taken off, with all that is less: peaks that noise hides, or a probe
wider than the library's. Without it what boundaries, streaks and thickness add would weigh as much as peaks."""


def clear_map(pattern: Pattern, field: float) -> PolarMap:
    """`strong` polar map of a pattern; coefficients that it would not show are not asked for."""
    size = np.abs(pattern.coefficients)
    keep = size > 0.5 * WEAK**2 * size.max(initial=0.0)
    mapped = polar.of_pattern(Pattern(pattern.mean, pattern.frequencies[keep], pattern.coefficients[keep]), field)
    return replace(mapped, values=strong(mapped.values))


def strong(values: np.ndarray) -> np.ndarray:
    """Maps (..., 80, 96) without what is weak."""
    return np.maximum(values - WEAK * values.max((-2, -1), keepdims=True), 0)


def describe(values: np.ndarray) -> np.ndarray:
    """(..., radii, harmonics) float32 magnitudes of maps (..., 80, 96)."""
    return np.abs(np.fft.rfft(values[..., RINGS, :], axis=-1)[..., :HARMONICS]).astype(np.float32)


class Index:
    """Descriptions of patterns as images of one field of view show them.

    Parameters
    ----------
    patterns : sequence of Pattern
    field : float
        [angstrom]
    """

    def __init__(self, patterns: Sequence[Pattern], field: float) -> None:
        if not len(patterns):
            raise OutOfRangeError("a library without patterns cannot be searched; give it structures")
        self.field = float(field)
        found = [describe(clear_map(p, field).values) for p in patterns]
        self.rows = np.stack(found).reshape(len(found), -1)
        self.squares = (self.rows**2).reshape(len(found), -1, HARMONICS).sum(2)

    @classmethod
    def of_rows(cls, rows: np.ndarray, field: float) -> Index:
        """From what `rows` of another were."""
        index = cls.__new__(cls)
        index.field, index.rows = float(field), np.ascontiguousarray(rows, np.float32)
        index.squares = (index.rows**2).reshape(len(rows), -1, HARMONICS).sum(2)
        return index

    def __len__(self) -> int:
        return len(self.rows)

    def similar(self, query: PolarMap, stretch: float = 0.05) -> np.ndarray:
        """Cosine of each row to a map, at the best of the scales within `stretch`: (n,) float32."""
        reach = polar.steps_within(stretch)
        vectors, masks, values = [], [], strong(query.values)
        for by in range(-reach, reach + 1):
            known = polar.moved(query.known, -by)
            vectors.append(describe(polar.moved(values, -by) * known[:, None]).ravel())
            masks.append(known[RINGS].astype(np.float32))
        vectors, masks = np.stack(vectors, 1), np.stack(masks, 1)
        lengths = np.linalg.norm(vectors, axis=0)
        cosines = self.rows @ (vectors / np.where(lengths > 0, lengths, 1))
        cosines /= np.sqrt(np.maximum(self.squares @ masks, 1e-12))
        return cosines.max(1)

    def nearest(self, query: PolarMap, count: int, stretch: float = 0.05) -> np.ndarray:
        """Numbers of the `count` most similar rows, best first."""
        cosines = self.similar(query, stretch)
        count = min(count, len(cosines))
        best = np.argpartition(-cosines, count - 1)[:count]
        return best[np.argsort(-cosines[best], kind="stable")]
