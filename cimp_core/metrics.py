"""Scores and their intervals: pure functions of NumPy arrays.

Retrieval counts a tie against the model: a wrong candidate with the same score as the right one comes first. A model
that answers the same for everything is then last, not first. ``nan`` scores count as the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .errors import OutOfRangeError

__all__ = [
    "PoolHits",
    "bootstrap_interval",
    "cosine_gaps",
    "mean_interval",
    "median_relative_error",
    "partial_r2",
    "pool_hits",
    "pool_topk",
    "positive_ranks",
    "r2",
    "topk",
]


def positive_ranks(scores: np.ndarray, query_groups: np.ndarray, candidate_groups: np.ndarray) -> np.ndarray:
    """Rank of the best right candidate of each query, from 1; other right candidates take no place.

    Parameters
    ----------
    scores : (q, c) array
        The higher, the more alike.
    query_groups, candidate_groups : (q,), (c,) int arrays
        A candidate is right where the groups are equal.

    Returns
    -------
    (q,) float array
        One more than the number of wrong candidates that score at least as high; ``nan`` where none is right.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    right = np.asarray(query_groups)[:, None] == np.asarray(candidate_groups)
    best = np.where(right, scores, -np.inf).max(axis=1)
    ranks = 1.0 + ((scores >= best[:, None]) & ~right).sum(axis=1)
    return np.where(right.any(axis=1), ranks, np.nan)


def topk(ranks: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Share of the ranks up to each k, as ``{"top1": ..., ...}``; queries with nothing to find are left out."""
    known = np.asarray(ranks)[~np.isnan(ranks)]
    return {f"top{k}": float(np.mean(known <= k)) if known.size else float("nan") for k in ks}


def pool_topk(
    scores: np.ndarray,
    groups: np.ndarray,
    sessions: np.ndarray,
    *,
    pool: int = 450,
    draws: int = 200,
    ks: Sequence[int] = (1, 5, 10),
    exclude_same_session: bool = False,
    seed: int = 0,
) -> dict:
    """Top-k retrieval within pools of a fixed number of distinct metadata vectors, as `pool_hits` draws them.

    Parameters
    ----------
    scores, groups, sessions, pool, draws, ks, exclude_same_session, seed
        As in `pool_hits`; `seed` is also that of the intervals.

    Returns
    -------
    dict
        ``top1`` ... each ``{"value", "low", "high"}``: mean over images of the share of draws in which the image was
        answered, with a 95 % bootstrap interval over sessions; and ``pool``, ``draws``, ``queries``, ``sessions``,
        ``distinct`` (vectors in all), ``smallest_pool`` (below `pool` where there were too few other sessions).

    Raises
    ------
    OutOfRangeError
        There are fewer distinct vectors than `pool`.
    """
    hits = pool_hits(
        scores, groups, sessions, pool=pool, draws=draws, ks=ks, exclude_same_session=exclude_same_session, seed=seed
    )
    _, session = np.unique(np.asarray(sessions), return_inverse=True)
    seen = ~np.isnan(hits.shares[0])
    result = {"pool": pool, "draws": draws, "queries": int(seen.sum()), "sessions": int(session.max()) + 1}
    result |= {"distinct": len(np.unique(groups)), "smallest_pool": hits.smallest_pool}
    for k, share in zip(ks, hits.shares[:, seen], strict=True):
        low, high = mean_interval(session[seen], share, seed=seed)
        result[f"top{k}"] = {"value": float(share.mean()), "low": low, "high": high}
    return result


class PoolHits(NamedTuple):
    """What `pool_hits` counts, image by image, so that models and seeds can be compared on the same pools."""

    shares: np.ndarray  # (len(ks), n): share of the draws in which image i was answered; nan where it was never asked
    smallest_pool: int  # below the pool asked for where there were too few other sessions


def pool_hits(
    scores: np.ndarray,
    groups: np.ndarray,
    sessions: np.ndarray,
    *,
    pool: int = 450,
    draws: int = 200,
    ks: Sequence[int] = (1, 5, 10),
    exclude_same_session: bool = False,
    seed: int = 0,
) -> PoolHits:
    """How often each image is answered within pools of a fixed number of distinct metadata vectors.

    A Top-k without the size of its pool says nothing: it falls as the pool grows. Each draw puts the sessions in random
    order and takes whole sessions until their images hold `pool` distinct vectors (of the last session, only as many as
    are needed). Each image of the drawn sessions is a query among those vectors; a vector scores as its best image.
    Images of one session share many settings, so finding the session may be half of the task. With
    `exclude_same_session` a query's wrong candidates from its own session are replaced by vectors of further sessions.

    Parameters
    ----------
    scores : (n, n) array
        Query i against candidate j, of the same n images. Image to metadata; transposed, metadata to image.
    groups, sessions : (n,) int arrays
        Metadata vector and session of each image.
    pool, draws : int
        Distinct vectors a pool, and number of pools.
    ks : sequence of int
        Ranks that count as found.
    exclude_same_session : bool
        Whether candidates of the query's own session are left out.
    seed : int
        Of the draws; the pools do not depend on the scores.

    Raises
    ------
    OutOfRangeError
        There are fewer distinct vectors than `pool`.
    """
    names, vector = np.unique(np.asarray(groups), return_inverse=True)
    _, session = np.unique(np.asarray(sessions), return_inverse=True)
    if len(names) < pool:
        raise OutOfRangeError(f"a pool of {pool} distinct metadata vectors, but there are {len(names)}: hold out more")
    beats = _wins(scores, vector, len(names))
    own = np.zeros((session.max() + 1, len(names)), dtype=bool)  # vectors that occur in each session
    own[session, vector] = True
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    hits, asked, smallest = np.zeros((len(ks), len(vector))), np.zeros(len(vector)), pool
    for _ in range(draws):
        order, used = _draw(rng.permutation(len(own)), own, pool)
        queries = np.flatnonzero(np.isin(session, used) & np.isin(vector, order[:pool]))
        if exclude_same_session:
            others = ~own[session[queries]][:, order]
            chosen = others & (others.cumsum(axis=1) < pool)  # pool - 1 wrong ones and the right one
            smallest = min(smallest, 1 + int(chosen.sum(axis=1).min()))
            ranks = 1 + (beats[queries][:, order] & chosen).sum(axis=1)
        else:
            ranks = 1 + beats[np.ix_(queries, order[:pool])].sum(axis=1)
        asked[queries] += 1
        hits[:, queries] += ranks <= np.asarray(ks)[:, None]
    with np.errstate(invalid="ignore"):
        return PoolHits(hits / asked, smallest)


def _wins(scores: np.ndarray, vector: np.ndarray, count: int) -> np.ndarray:
    """(n, count) bool: the wrong vectors that score at least as high as the right one, for each query."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    best = np.full((len(scores), count), -np.inf)
    for j in range(scores.shape[1]):  # of equal vectors the best candidate counts
        np.maximum(best[:, vector[j]], scores[:, j], out=best[:, vector[j]])
    rows = np.arange(len(scores))
    wins = best >= best[rows, vector][:, None]
    wins[rows, vector] = False
    return wins


def _draw(sessions: np.ndarray, own: np.ndarray, pool: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in the order in which `sessions` bring them, and the sessions needed for the first `pool` of them."""
    first = np.where(own[sessions].any(axis=0), own[sessions].argmax(axis=0), len(sessions))
    order = np.argsort(first, kind="stable")
    return order, sessions[: first[order[pool - 1]] + 1]


def r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the variance of `truth` (n,) that `predicted` (n,) explains; below zero if worse than the mean.

    Pairs with ``nan`` are left out. ``nan`` if `truth` does not vary.
    """
    truth, predicted = _known(truth, predicted)
    spread = np.sum((truth - truth.mean()) ** 2) if truth.size else 0.0
    return float(1 - np.sum((truth - predicted) ** 2) / spread) if spread > 0 else float("nan")


def partial_r2(truth: np.ndarray, full: np.ndarray, reduced: np.ndarray) -> float:
    """What `full` adds to `reduced`: the share of the squared error of `reduced` that `full` removes.

    Given the other six parameters, `reduced` is predicted from those alone, `full` from those and the image. A plain R2
    also credits what the other settings already give away.
    """
    truth, full, reduced = _known(truth, full, reduced)
    left = np.sum((truth - reduced) ** 2)
    return float(1 - np.sum((truth - full) ** 2) / left) if left > 0 else float("nan")


def median_relative_error(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Median of ``|predicted - truth| / |truth|``; pairs with ``nan`` or a truth of zero are left out."""
    truth, predicted = _known(truth, predicted)
    use = truth != 0
    return float(np.median(np.abs(predicted[use] / truth[use] - 1))) if use.any() else float("nan")


def cosine_gaps(image: np.ndarray, metadata: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Matched minus mismatched cosine of each image, (n,): its own settings against the mean of all other groups'.

    Parameters
    ----------
    image, metadata : (n, d) arrays
        Unit rows.
    groups : (n,) int array
        Metadata vector of each row. An image with no other group has ``nan``.
    """
    cosine = np.asarray(image, float) @ np.asarray(metadata, float).T
    other = np.asarray(groups)[:, None] != np.asarray(groups)
    count = other.sum(axis=1)
    mismatched = np.where(other, cosine, 0).sum(axis=1) / np.where(count, count, np.nan)
    return np.diagonal(cosine) - mismatched


def bootstrap_interval(
    statistic: Callable[..., float],
    clusters: np.ndarray,
    *columns: np.ndarray,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of ``statistic(*columns)`` when whole clusters are drawn with replacement.

    Images of one session share specimen and settings; drawing images one by one would give intervals far too narrow.

    Parameters
    ----------
    statistic : callable
        Takes as many arrays as there are `columns`; a draw for which it is ``nan`` is left out.
    clusters : (n,) array
        Session (or material) of each row.
    *columns : (n, ...) arrays
        What is drawn together.
    draws, level, seed
        Number of draws, width of the interval, and seed.

    Returns
    -------
    low, high : float
        ``nan`` with fewer than two clusters, which tell nothing about their spread.
    """
    _, which = np.unique(np.asarray(clusters), return_inverse=True)
    count = which.max() + 1 if which.size else 0
    if count < 2:
        return float("nan"), float("nan")
    order = np.argsort(which, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(which))[:-1])
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[c] for c in rng.integers(count, size=count)])
        values.append(statistic(*(column[rows] for column in columns)))
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(
    clusters: np.ndarray, values: np.ndarray, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """`bootstrap_interval` of the mean of `values` (n,), a hundred times faster: sums of clusters are enough."""
    _, which = np.unique(np.asarray(clusters), return_inverse=True)
    counts, sums = np.bincount(which), np.bincount(which, weights=values)
    if len(counts) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    drawn = rng.integers(len(counts), size=(draws, len(counts)))
    tail = (1 - level) / 2
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def _known(*columns: np.ndarray) -> list[np.ndarray]:
    columns = [np.asarray(column, float) for column in columns]
    use = ~np.any([np.isnan(column) for column in columns], axis=0)
    return [column[use] for column in columns]
