"""Linear probes: what of each acquisition parameter can be read from a frozen embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .errors import OutOfRangeError
from .metadata import PARAMETERS, Normalizer
from .metrics import bootstrap_interval, median_relative_error, partial_r2, r2

if TYPE_CHECKING:
    from .dataset import Dataset

__all__ = ["Probe", "fit_ridge", "ridge_probe"]

ALPHAS = tuple(10.0 ** np.arange(-4, 4.5, 0.5))
"""Penalties tried, relative to the number of training rows."""


@dataclass(frozen=True)
class Probe:
    """A ridge regression: standardised features, one linear map, the penalty that did best on validation."""

    center: np.ndarray  # (d,)
    spread: np.ndarray  # (d,)
    weights: np.ndarray  # (d,)
    intercept: float
    alpha: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(n, d) features -> (n,) predictions."""
        return (features - self.center) / self.spread @ self.weights + self.intercept


def fit_ridge(features: np.ndarray, target: np.ndarray, val_features: np.ndarray, val_target: np.ndarray) -> Probe:
    """Ridge regression whose penalty is chosen on validation; rows with ``nan`` target are left out.

    Parameters
    ----------
    features, val_features : (n, d), (m, d) arrays
    target, val_target : (n,), (m,) arrays

    Raises
    ------
    OutOfRangeError
        Fewer than two usable rows in either part.
    """
    use, val_use = np.isfinite(target), np.isfinite(val_target)
    if use.sum() < 2 or val_use.sum() < 2:
        raise OutOfRangeError("a probe needs at least two known values in the training and in the validation part")
    x, y = np.asarray(features, float)[use], target[use]
    center, spread = x.mean(0), x.std(0)
    spread[spread < 1e-12] = 1.0
    x = (x - center) / spread
    xv, yv = (np.asarray(val_features, float)[val_use] - center) / spread, val_target[val_use]
    mean = y.mean()
    # One eigendecomposition serves every penalty.
    values, vectors = np.linalg.eigh(x.T @ x)
    projected = vectors.T @ (x.T @ (y - mean))
    best: tuple[float, float, np.ndarray] | None = None
    for alpha in ALPHAS:
        w = vectors @ (projected / (values.clip(0) + alpha * len(x)))
        error = float(np.mean((xv @ w + mean - yv) ** 2))
        if best is None or error < best[0]:
            best = error, alpha, w
    return Probe(center, spread, best[2], float(mean), best[1])


def ridge_probe(
    features: Sequence[np.ndarray], views: Sequence[Dataset], *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Score a probe of each parameter on test images, with intervals over sessions.

    Parameters
    ----------
    features : three (n, d) arrays
        Frozen embeddings of the training, validation and test images.
    views : three Dataset views
        The images' settings and sessions.
    draws : int
        Bootstrap draws.

    Returns
    -------
    DataFrame
        One row a parameter. ``r2`` of the normalised value; ``others_r2``, that of the other six parameters
        without an image; ``partial_r2``, the share of what those six leave unexplained that the features
        explain; ``median_error``, the median of abs(predicted / true - 1) in SI; each with ``_low`` and
        ``_high`` (95 %, sessions resampled). ``alpha`` and ``n``, the test images whose value is known. All but
        ``n`` are ``nan`` where a part has fewer than two known values.
    """
    targets = [np.asarray(v.metadata, float) for v in views]
    sessions, normalizer, rows = views[2].sessions, views[2].normalizer, []
    for j, name in enumerate(PARAMETERS):
        if min(np.isfinite(t[:, j]).sum() for t in targets) < 2:
            rows.append({"parameter": name, "n": int(np.isfinite(targets[2][:, j]).sum())})
            continue
        # A missing one of the other six is set to its mean, which is zero.
        others = [np.nan_to_num(np.delete(t, j, axis=1)) for t in targets]
        joint = [np.concatenate([f, o], 1) for f, o in zip(features, others, strict=True)]
        probes = [fit_ridge(x[0], targets[0][:, j], x[1], targets[1][:, j]) for x in (features, others, joint)]
        image, six, both = (p.predict(x[2]) for p, x in zip(probes, (features, others, joint), strict=True))
        truth = targets[2][:, j]
        known = int(np.isfinite(truth).sum())
        row = {"parameter": name, "alpha": probes[0].alpha, "n": known}
        for score, function, columns in (
            ("r2", r2, (truth, image)),
            ("others_r2", r2, (truth, six)),
            ("partial_r2", partial_r2, (truth, both, six)),
            ("median_error", median_relative_error, _in_si(normalizer, j, truth, image)),
        ):
            low, high = bootstrap_interval(function, sessions, *columns, draws=draws, seed=seed)
            row |= {score: function(*columns), f"{score}_low": low, f"{score}_high": high}
        rows.append(row)
    return pd.DataFrame(rows).set_index("parameter")


def _in_si(normalizer: Normalizer, column: int, *values: np.ndarray) -> list[np.ndarray]:
    """Values (n,) of one normalised parameter, each in SI."""
    vectors = np.zeros((len(values), len(values[0]), len(PARAMETERS)))
    vectors[:, :, column] = values
    return list(normalizer.restore(vectors)[:, :, column])
