"""Numbers of a method that was trained several times: the mean over its seeds, and an interval over seeds and sessions.

One trained model tells nothing about how far the next one would be from it. So a number is the mean over models trained
alike from different seeds, and its interval allows for other sessions and for other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import OutOfRangeError

__all__ = ["over_seeds", "two_way_interval"]

Columns = Sequence[Sequence[np.ndarray]]


def over_seeds(
    statistic: Callable[..., float],
    clusters: np.ndarray,
    columns_by_seed: Columns,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of the statistic over seeds, then its `two_way_interval`: value, low, high; arguments as there."""
    value = float(np.mean([statistic(*columns) for columns in columns_by_seed]))
    return value, *two_way_interval(statistic, clusters, columns_by_seed, draws=draws, level=level, seed=seed)


def two_way_interval(
    statistic: Callable[..., float],
    clusters: np.ndarray,
    columns_by_seed: Columns,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean over seeds of a statistic, seeds and whole clusters drawn with replacement.

    Every draw takes as many seeds as there are, with replacement, and one set of clusters for all of them: the seeds
    were tested on the same images. With one seed this is `cimp_core.metrics.bootstrap_interval`, draw for draw. Of
    three seeds the bootstrap sees two thirds of their variance (n - 1 of n), so an interval that rests on few seeds is
    still a little narrow.

    Parameters
    ----------
    statistic : callable
        ``statistic(*columns)`` -> float; a draw for which it is ``nan`` is left out.
    clusters : (n,) array
        Session (or material) of each image.
    columns_by_seed : list over seeds of tuples of (n, ...) arrays
        What each seed's statistic is computed from; the rows are the same n images for every seed.
    draws, level, seed
        Number of draws, width of the interval, and seed of the draws.

    Returns
    -------
    low, high : float
        ``nan`` with fewer than two clusters.

    Raises
    ------
    OutOfRangeError
        No seed, or a column that has not one row for each image.
    """
    clusters = np.asarray(clusters)
    lengths = {len(column) for columns in columns_by_seed for column in columns}
    if lengths != {len(clusters)}:
        raise OutOfRangeError(f"columns have {sorted(lengths) or 'no'} rows, but there are {len(clusters)} images")
    _, which = np.unique(clusters, return_inverse=True)
    count, models = int(which.max()) + 1 if which.size else 0, len(columns_by_seed)
    if count < 2:
        return float("nan"), float("nan")
    members = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    # Two generators, so that the sessions drawn do not depend on the number of seeds.
    of_sessions = np.random.default_rng(np.random.SeedSequence(seed))
    of_seeds = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[c] for c in of_sessions.integers(count, size=count)])
        chosen, times = np.unique(of_seeds.integers(models, size=models), return_counts=True)
        each = [statistic(*(column[rows] for column in columns_by_seed[s])) for s in chosen]
        values.append(np.average(each, weights=times))
    if np.isnan(values).all():
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)
