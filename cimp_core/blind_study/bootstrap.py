"""Intervals by drawing raters and images anew, both at once.

A trial of rater r on image i counts as often as r was drawn times as often as i was drawn. From R raters, R - 1 are
drawn, and one image fewer than there are: so the variance between few raters comes out whole, not (R - 1) / R of it.
The variance of single trials counts up to three times, so the interval is wide where raters and images hardly differ.
"""

from __future__ import annotations

import numpy as np

from .shares import LEVEL

__all__ = ["cell_sums", "draw_weights", "percentiles", "share_interval"]


def draw_weights(raters: int, images: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each is drawn: (draws, raters) and (draws, images), rows adding up to raters - 1 and images - 1."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    return tuple(rng.multinomial(k - 1, np.full(k, 1 / k), size=draws).astype(float) for k in (raters, images))


def cell_sums(values: np.ndarray, raters: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Sums of the values of each rater's trials on each image, (raters, images); both indexed from 0."""
    shape = int(raters.max()) + 1, int(images.max()) + 1
    return np.bincount(raters * shape[1] + images, weights=values, minlength=shape[0] * shape[1]).reshape(shape)


def share_interval(
    yes: np.ndarray, raters: np.ndarray, images: np.ndarray, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of a share; ``None`` with fewer than two raters or images.

    Parameters
    ----------
    yes : (n,) bool
    raters, images : (n,) arrays
    draws, seed : int
    """
    (who, r), (what, i) = (np.unique(groups, return_inverse=True) for groups in (raters, images))
    if min(len(who), len(what)) < 2:
        return None
    of_raters, of_images = draw_weights(len(who), len(what), draws, seed)
    wins, trials = (cell_sums(v, r, i) for v in (np.asarray(yes, float), np.ones(len(r))))
    return percentiles(_weighted(wins, of_raters, of_images), _weighted(trials, of_raters, of_images))


def _weighted(cells: np.ndarray, of_raters: np.ndarray, of_images: np.ndarray) -> np.ndarray:
    return ((of_raters @ cells) * of_images).sum(axis=1)


def percentiles(numerator: np.ndarray, denominator: np.ndarray | float = 1.0) -> tuple[float, float] | None:
    """The middle of the draws; draws without a trial are left out, and infinite values count as such."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(numerator / denominator, float)
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
