"""Strengths of several methods from comparisons of two at a time, by Bradley and Terry's model.

The log-odds that the left picture is chosen are the strength of its method minus that of the right one, plus a term for
the left side. That is a logistic regression on differences of indicator variables, fitted by statsmodels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize, sparse, special, stats

from .bootstrap import cell_sums, draw_weights, percentiles
from .shares import LEVEL

__all__ = ["bradley_terry"]

_INFINITE = 12.0  # log-odds beyond which a resampled strength has no bound


def bradley_terry(trials: pd.DataFrame, methods: Sequence[str], *, draws: int = 2000, seed: int = 0) -> dict:
    """Strengths relative to the first method, and the side bias beside them.

    Parameters
    ----------
    trials : DataFrame
        Columns ``rater``, ``image``, ``left``, ``right`` (methods) and ``choice`` ("left" or "right").
    methods : sequence of str
        The first is the one that others are compared with.
    draws, seed : int
        Of the bootstrap over raters and images.

    Returns
    -------
    dict
        ``strengths``: for each method ``{method, log_worth, low, high, bootstrap, worth}``, log-odds against the first
        method with its two-way cluster-robust t interval, and e to the power of it; ``side``: ``{log_odds, low,
        high}``; ``statement``: why there are no strengths, else ``None``.
    """
    rows, wins, design = _patterns(trials, methods)
    if statement := _separated(trials, methods, rows, wins, design):
        return {"strengths": None, "side": None, "statement": statement}
    import statsmodels.api as sm
    from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

    chosen = (trials["choice"] == "left").to_numpy(float)
    fit = sm.GLM(chosen, design[rows], family=sm.families.Binomial()).fit()
    r, i = (pd.factorize(trials[name])[0] for name in ("rater", "image"))
    counts = [int(index.max()) + 1 for index in (r, i)]
    spread, resampled = None, None
    if min(counts) >= 2:
        # The sum, as for shares: the difference that statsmodels returns first is too small with few raters.
        of_raters, of_images = (np.diag(part) for part in cov_cluster_2groups(fit, r, i)[1:])
        df = (of_raters + of_images) ** 2 / (of_raters**2 / (counts[0] - 1) + of_images**2 / (counts[1] - 1))
        spread = stats.t.ppf((1 + LEVEL) / 2, df) * np.sqrt(
            np.maximum(of_raters + of_images, np.diag(fit.cov_params()))
        )
        resampled = _resampled(rows, chosen, r, i, design, draws, seed)
    side = _with_interval(fit.params, spread, 0)
    strengths = [{"method": methods[0], "log_worth": 0.0, "low": None, "high": None, "bootstrap": None, "worth": 1.0}]
    for k, name in enumerate(methods[1:], start=1):
        low_high = None if resampled is None else percentiles(resampled[:, k])
        bounded = low_high is not None and np.isfinite(low_high).all()
        found = _with_interval(fit.params, spread, k)
        found = {"log_worth": found.pop("log_odds"), **found, "bootstrap": list(low_high) if bounded else None}
        strengths.append({"method": name, **found, "worth": float(np.exp(found["log_worth"]))})
    return {"strengths": strengths, "side": side, "statement": None}


def _with_interval(values: np.ndarray, spread: np.ndarray | None, k: int) -> dict:
    low, high = (None, None) if spread is None else (float(values[k] - spread[k]), float(values[k] + spread[k]))
    return {"log_odds": float(values[k]), "low": low, "high": high}


def _patterns(trials: pd.DataFrame, methods: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kind of every trial, (n,); how often left and right were chosen of each kind, (k, 2); its variables, (k, m).

    A kind is an ordered pair of methods. Variables are 1 for the left side, and for every method but the first 1 where
    it is on the left and -1 where it is on the right.
    """
    index = {name: k for k, name in enumerate(methods)}
    left, right = (trials[side].map(index).to_numpy() for side in ("left", "right"))
    kinds, rows = np.unique(np.stack([left, right], axis=1), axis=0, return_inverse=True)
    rows = rows.ravel()
    chosen = (trials["choice"] == "left").to_numpy()
    wins = np.stack([np.bincount(rows[chosen == way], minlength=len(kinds)) for way in (True, False)], axis=1)
    design = np.zeros((len(kinds), len(methods)))
    every = np.arange(len(kinds))
    design[every, kinds[:, 0]] += 1
    design[every, kinds[:, 1]] -= 1
    design[:, 0] = 1  # the first method's own column is not needed: its strength is 0
    return rows, wins, design


def _separated(
    trials: pd.DataFrame, methods: Sequence[str], rows: np.ndarray, wins: np.ndarray, design: np.ndarray
) -> str | None:
    """Why no finite strengths fit best, in words; ``None`` where they exist.

    They exist if, and only if, no combination of variables puts all answers of one kind on one side of zero
    (Albert and Anderson, Biometrika 71, 1, 1984); whether there is one is a linear programme.
    """
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return "no strengths: not every method was compared with every other, directly or through others, on both sides"
    lines = np.concatenate([design[wins[:, 0] > 0], -design[wins[:, 1] > 0]])
    found = optimize.linprog(-lines.sum(axis=0), A_ub=-lines, b_ub=np.zeros(len(lines)), bounds=(-1, 1))
    if -found.fun < 1e-9:
        return None
    left = trials["choice"] == "left"
    winner, loser = trials["left"].where(left, trials["right"]), trials["right"].where(left, trials["left"])
    beaten = np.array([[int(((winner == a) & (loser == b)).sum()) for b in methods] for a in methods])
    count, group = sparse.csgraph.connected_components(sparse.csr_array(beaten), connection="strong")
    said = []
    for g in range(count):
        mine, others = group == g, group != g
        won, lost = beaten[np.ix_(mine, others)], beaten[np.ix_(others, mine)]
        if won.sum() and not lost.sum():
            names = [[n for n, inside in zip(methods, which, strict=True) if inside] for which in (mine, others)]
            said.append(f"{' and '.join(names[0])} won all {won.sum()} trials against {' and '.join(names[1])}")
    if not said:
        return "no strengths: the side alone explains the answers of some pairs, so methods cannot be told from sides"
    return f"no finite strengths: {'; '.join(said)}, so its strength has no upper bound; see the shares of pairs"


def _resampled(
    rows: np.ndarray, chosen: np.ndarray, r: np.ndarray, i: np.ndarray, design: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """Parameters with raters and images drawn anew, (draws, m); infinite where a draw has no finite ones."""
    of_raters, of_images = draw_weights(int(r.max()) + 1, int(i.max()) + 1, draws, seed)
    wins, total = np.zeros((2, draws, len(design)))
    shape = len(of_raters[0]), len(of_images[0])
    for k in range(len(design)):
        here = (rows == k).astype(float)
        for target, values in ((wins, here * chosen), (total, here)):
            cells = cell_sums(values, r, i).reshape(shape)
            target[:, k] = ((of_raters @ cells) * of_images).sum(axis=1)
    values = np.zeros((draws, design.shape[1]))
    products = design[:, :, None] * design[:, None, :]
    for _ in range(60):  # Newton's steps for all draws at once; a little ridge keeps those without a solution going
        chance = special.expit(values @ design.T)
        slope = (wins - total * chance) @ design - 1e-6 * values
        curve = np.tensordot(total * chance * (1 - chance), products, axes=1) + 1e-6 * np.eye(design.shape[1])
        step = np.clip(np.linalg.solve(curve, slope[..., None])[..., 0], -2, 2)
        values = values + step
        if np.abs(step[np.abs(values).max(axis=1) < _INFINITE]).max(initial=0) < 1e-6:
            break
    values = np.where(np.abs(values) < _INFINITE, values, np.copysign(np.inf, values))
    return np.where((total.sum(axis=1) > 0)[:, None], values, np.nan)
