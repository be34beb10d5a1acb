"""How certain a share is: of trials with a method preferred, the left side chosen, or a catch trial answered right.

Two kinds of interval. `independent` takes every trial for a new person and a new picture, as most reports do, and is
too narrow wherever raters or images differ. `two_way` is for other raters and other images: it adds the variance
between raters to that between images. `cimp_core.study.blind_coverage` measures how often each contains the truth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special, stats

__all__ = ["Share", "independent", "two_way", "two_way_many"]

LEVEL = 0.95
"""Of every interval."""


class Share(NamedTuple):
    """A share with its interval; ``low``, ``high`` and ``p`` are ``None`` where `reason` says why there is none."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None  # against a share of one half, two-sided
    df: float | None  # degrees of freedom of the t distribution
    reason: str | None = None


def independent(count: int, trials: int) -> dict:
    """Intervals and test that treat trials as independent of each other.

    Returns
    -------
    dict
        ``wilson`` and ``exact`` (Clopper-Pearson), each ``[low, high]``; ``p_exact``, of the exact binomial test
        against one half, two-sided.
    """
    from statsmodels.stats.proportion import proportion_confint

    if trials == 0:
        return {"wilson": None, "exact": None, "p_exact": None}
    wilson, exact = (
        [float(end) for end in proportion_confint(count, trials, alpha=1 - LEVEL, method=name)]
        for name in ("wilson", "beta")
    )
    return {"wilson": wilson, "exact": exact, "p_exact": float(stats.binomtest(count, trials).pvalue)}


def two_way(yes: np.ndarray, raters: np.ndarray, images: np.ndarray) -> Share:
    """Share with an interval for other raters and other images; see `two_way_many`.

    Parameters
    ----------
    yes : (n,) bool
        Of each trial.
    raters, images : (n,) arrays
        Whose trial it was, and of what.
    """
    yes = np.asarray(yes, float)
    if not yes.size:
        return Share(None, None, None, None, None, "no trials")
    count, seen = len(np.unique(raters)), len(np.unique(images))
    if min(count, seen) < 2:
        what = "rater" if count < 2 else "image"
        return Share(float(yes.mean()), None, None, None, None, f"one {what} tells nothing of other {what}s")
    found = two_way_many(yes[None], raters, images)
    return Share(*(float(part[0]) for part in found))


def two_way_many(yes: np.ndarray, raters: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Shares of many studies of one design, with t intervals on the scale of log-odds.

    The variance of the share is the sum of its cluster-robust variances over raters and over images (each with the
    factor k / (k - 1) for k clusters), at least that of independent trials. The sum counts the variance of single
    trials twice; without the usual subtraction the interval is a little wide where raters and images differ little, and
    in return not too narrow with five raters. Degrees of freedom are Satterthwaite's for the sum of two variances with
    raters - 1 and images - 1. Where all answers are alike nothing tells how raters differ: then it is the exact
    interval of as many trials as there are raters, or images if these are fewer.

    Parameters
    ----------
    yes : (s, n) float array
        1 or 0, of s studies.
    raters, images : (n,) arrays

    Returns
    -------
    value, low, high, p, df : (s,) arrays
    """
    (who, r), (what, i) = (np.unique(groups, return_inverse=True) for groups in (raters, images))
    studies, n = yes.shape
    value = yes.mean(axis=1)
    rest = yes - value[:, None]
    of_raters, of_images = (_cluster_variance(rest, index, len(names)) for names, index in ((who, r), (what, i)))
    alone = value * (1 - value) / max(n - 1, 1)
    both = of_raters + of_images
    with np.errstate(divide="ignore", invalid="ignore"):
        df = both**2 / (of_raters**2 / (len(who) - 1) + of_images**2 / (len(what) - 1))
        df = np.where(both > 0, df, min(len(who), len(what)) - 1)
        error = np.sqrt(np.maximum(both, alone)) / (value * (1 - value))
        middle = special.logit(value)
        reach = stats.t.ppf((1 + LEVEL) / 2, df) * error
        low, high = special.expit(middle - reach), special.expit(middle + reach)
        p = 2 * stats.t.sf(np.abs(middle) / error, df)
    same = (value == 0) | (value == 1)
    fewest = min(len(who), len(what))
    edge = ((1 - LEVEL) / 2) ** (1 / fewest)  # exact interval of a share of 0 or 1
    low = np.where(same, np.where(value == 1, edge, 0.0), low)
    high = np.where(same, np.where(value == 1, 1.0, 1 - edge), high)
    p = np.where(same, min(1.0, 2 * 0.5**fewest), p)
    return value, low, high, p, np.where(same, fewest - 1, df)


def _cluster_variance(rest: np.ndarray, index: np.ndarray, clusters: int) -> np.ndarray:
    """Variance of the mean over trials, (s,), from deviations (s, n) summed within clusters."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(clusters))
    sums = np.add.reduceat(rest[:, order], starts, axis=1)
    return (sums**2).sum(axis=1) / rest.shape[1] ** 2 * clusters / (clusters - 1)
