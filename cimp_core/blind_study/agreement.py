"""How alike raters judge, and how alike one rater judges the same pair twice."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .bootstrap import percentiles
from .shares import two_way

__all__ = ["alpha_interval", "alpha_of", "consistency", "rater_agreement"]


def rater_agreement(trials: pd.DataFrame, *, draws: int = 2000, seed: int = 0) -> dict:
    """Krippendorff's alpha, nominal, of the trials of one pair of methods: images are its units, raters its coders.

    The interval is for other images and these raters: drawing raters with replacement would make them agree with
    themselves. Of a rater who saw an image twice, the first answer counts.

    Parameters
    ----------
    trials : DataFrame
        Columns ``rater``, ``image``, ``a_chosen`` (bool).
    draws, seed : int
        Of the bootstrap over images.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``units`` (images with two answers or more) and ``reason``, why there is no value.
    """
    first = trials.drop_duplicates(["rater", "image"])
    counts = first.groupby("image")["a_chosen"].agg(["sum", "count"]).to_numpy(float)
    counts = np.stack([counts[:, 0], counts[:, 1] - counts[:, 0]], axis=1)
    counts = counts[counts.sum(axis=1) >= 2]
    empty = {"value": None, "low": None, "high": None, "units": len(counts)}
    if not len(counts):
        return empty | {"reason": "no image was judged by two raters"}
    if (counts.sum(axis=0) == 0).any():
        return empty | {"reason": "all answers are alike, so that agreement and chance cannot be told apart"}
    low, high = alpha_interval(counts, draws=draws, seed=seed) or (None, None)
    return empty | {"value": alpha_of(counts), "low": low, "high": high, "reason": None}


def alpha_of(counts: np.ndarray) -> float:
    """Krippendorff's alpha for nominal values, from the number of coders that gave each value to each unit, (u, v)."""
    import krippendorff

    return float(krippendorff.alpha(value_counts=counts.astype(int), level_of_measurement="nominal"))


def alpha_interval(counts: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float] | None:
    """Bootstrap-t interval of alpha over units (Efron and Tibshirani, An introduction to the bootstrap, 1993, 12.5).

    Percentiles of alpha itself are too narrow with few units, for its error is skewed and goes with its value.

    Parameters
    ----------
    counts : (u, v) array
        As `alpha_of`.
    draws, seed : int

    Returns
    -------
    low, high : float
        ``None`` with fewer than two units, or where nothing varies between them.
    """
    units = len(counts)
    if units < 2:
        return None
    (value,), (error,) = _alphas(counts, np.ones((1, units)))
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    values, errors = _alphas(counts, rng.multinomial(units, np.full(units, 1 / units), size=draws).astype(float))
    found = percentiles((values - value)[errors > 0], errors[errors > 0])
    if found is None or not error > 0:
        return None
    return max(-1.0, float(value - found[1] * error)), min(1.0, float(value - found[0] * error))


def _alphas(counts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Alpha with unit u counted ``weights[d, u]`` times, (d,): the library's formula for many draws at once; and its
    standard error by the infinitesimal jackknife, from the slope of alpha in the weight of each unit.
    """
    size = counts.sum(axis=1)
    differ = (size**2 - (counts**2).sum(axis=1)) / (size - 1)
    observed, values, total = (weights @ part for part in (differ, counts, size))
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = total**2 - (values**2).sum(axis=1)
        ratio = observed * (total - 1) / chance
        slope = (size * observed[:, None] + differ * (total - 1)[:, None]) / chance[:, None]
        slope -= (ratio / chance)[:, None] * 2 * (size * total[:, None] - values @ counts.T)
        return 1 - ratio, np.sqrt((weights * slope**2).sum(axis=1) * len(counts) / (len(counts) - 1))


def consistency(answers: pd.DataFrame) -> dict:
    """Repeats against their first showing, which had the sides swapped.

    Parameters
    ----------
    answers : DataFrame
        All answers: columns ``rater``, ``image``, ``trial``, ``repeats``, ``left``, ``right``, ``chosen``.

    Returns
    -------
    dict
        ``count`` of ``repeats`` with the same method chosen, ``share`` with ``low`` and ``high`` (two-way), and
        Cohen's ``kappa``, which is 0 where answers are no more alike than chance has it. As sides are swapped, a rater
        who presses one key throughout agrees with himself never.
    """
    both = answers[answers["repeats"].notna()].merge(
        answers[["rater", "trial", "chosen"]],
        left_on=["rater", "repeats"],
        right_on=["rater", "trial"],
        suffixes=("", "_first"),
    )
    same = (both["chosen"] == both["chosen_first"]).to_numpy()
    found = two_way(same, both["rater"].to_numpy(), both["image"].to_numpy())
    summary = {
        "repeats": len(both),
        "count": int(same.sum()),
        "share": found.value,
        "low": found.low,
        "high": found.high,
    }
    return summary | {"kappa": _kappa(both), "reason": found.reason}


def _kappa(both: pd.DataFrame) -> float | None:
    """Cohen's kappa of the choice between the two methods of a pair, named in the order of the alphabet."""
    from statsmodels.stats.inter_rater import cohens_kappa

    earlier = both[["left", "right"]].min(axis=1)
    first, second = ((both[name] == earlier).to_numpy(int) for name in ("chosen_first", "chosen"))
    table = np.bincount(2 * first + second, minlength=4).reshape(2, 2)
    # Chance agreement is 1 where only one answer was given, and kappa 0 / 0.
    if len({*first, *second}) < 2:
        return None
    return float(cohens_kappa(table, return_results=False))
