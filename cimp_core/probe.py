"""Probes: what of each acquisition parameter can be read from a frozen embedding, or from any other features.

The usual probe is linear (ridge regression). `nearest` is another regression for the same scores, and any function
with the arguments of `ridge` will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from .errors import OutOfRangeError
from .metadata import PARAMETERS, Normalizer
from .metrics import bootstrap_interval, median_relative_error, partial_r2, r2

if TYPE_CHECKING:
    from .dataset import Dataset

__all__ = [
    "NEIGHBOURS",
    "Predictions",
    "Probe",
    "fit_ridge",
    "in_si",
    "nearest",
    "predict",
    "probe_table",
    "ridge",
    "ridge_probe",
    "scores_of",
]

ALPHAS = tuple(10.0 ** np.arange(-8, 4.5, 0.5))
"""Penalties tried, relative to the number of training rows."""
NEIGHBOURS = 5
"""Training images that `nearest` averages."""

Regression = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]


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


def ridge(features: Sequence[np.ndarray], target: Sequence[np.ndarray]) -> np.ndarray:
    """Predict one parameter of the test images by `fit_ridge`.

    Parameters
    ----------
    features : three (n, d) arrays
        Of the training, validation and test images.
    target : two (n,) arrays
        Of the training and validation images; ``nan`` where not known.

    Returns
    -------
    (n_test,) array
    """
    return fit_ridge(features[0], target[0], features[1], target[1]).predict(np.asarray(features[2], float))


def nearest(features: Sequence[np.ndarray], target: Sequence[np.ndarray], k: int = NEIGHBOURS) -> np.ndarray:
    """Predict one parameter as the mean over the `k` nearest training images; arguments as of `ridge`.

    The distance is Euclidean, which puts unit rows in the order of their cosines. Nothing is chosen on validation.
    """
    from sklearn.neighbors import KNeighborsRegressor

    known = np.isfinite(target[0])
    model = KNeighborsRegressor(min(k, int(known.sum()))).fit(features[0][known], target[0][known])
    return model.predict(features[2])


class Predictions(NamedTuple):
    """Normalised parameters of the test images, (n, 7) each; ``nan`` throughout where there is nothing to probe."""

    truth: np.ndarray  # as the data set has them, nan where missing
    image: np.ndarray  # from the features
    others: np.ndarray  # from the other six parameters, without an image
    joint: np.ndarray  # from both


def predict(features: Sequence[np.ndarray], views: Sequence[Dataset], regression: Regression = ridge) -> Predictions:
    """Predict each parameter of the test images from features, from the other six parameters, and from both.

    Parameters
    ----------
    features : three (n, d) arrays
        Of the training, validation and test images.
    views : three Dataset views
        The same images' settings.
    regression : callable
        `ridge`, `nearest`, or another function with their first two arguments.
    """
    targets = [np.asarray(v.metadata, float) for v in views]
    image, others, joint = (np.full(targets[2].shape, np.nan) for _ in range(3))
    for j in range(len(PARAMETERS)):
        if min(np.isfinite(t[:, j]).sum() for t in targets) < 2:
            continue
        target = [t[:, j] for t in targets[:2]]
        # A missing one of the six is set to its mean, zero. Where distances count, the six weigh as much as a unit row.
        six = [np.nan_to_num(np.delete(t, j, axis=1)) / math.sqrt(len(PARAMETERS) - 1) for t in targets]
        both = [np.concatenate([f, s], 1) for f, s in zip(features, six, strict=True)]
        for out, inputs in ((image, features), (others, six), (joint, both)):
            out[:, j] = regression(inputs, target)
    return Predictions(targets[2], image, others, joint)


def scores_of(
    predictions: Predictions, normalizer: Normalizer, column: int
) -> Iterator[tuple[str, Callable[..., float], tuple[np.ndarray, ...]]]:
    """Name, function and arguments of each score of one parameter: ``r2``, ``others_r2``, ``partial_r2`` and
    ``median_error``, as `probe_table` has them.
    """
    truth, image, others, joint = (values[:, column] for values in predictions)
    yield "r2", r2, (truth, image)
    yield "others_r2", r2, (truth, others)
    yield "partial_r2", partial_r2, (truth, joint, others)
    yield "median_error", median_relative_error, in_si(normalizer, column, truth, image)


def probe_table(predictions: Predictions, view: Dataset, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Scores of predicted parameters, with intervals over sessions.

    Parameters
    ----------
    predictions : Predictions
    view : Dataset
        The test images.
    draws : int
        Bootstrap draws.

    Returns
    -------
    DataFrame
        One row a parameter. ``r2`` of the normalised value; ``others_r2``, that of the other six parameters
        without an image; ``partial_r2``, the share of what those six leave unexplained that the features
        explain; ``median_error``, the median of abs(predicted / true - 1) in SI; each with ``_low`` and
        ``_high`` (95 %, sessions resampled). ``n``, the test images whose value is known. All but ``n`` are
        ``nan`` where a part has fewer than two known values.
    """
    rows = []
    for j, name in enumerate(PARAMETERS):
        row = {"parameter": name, "n": int(np.isfinite(predictions.truth[:, j]).sum())}
        for score, function, columns in scores_of(predictions, view.normalizer, j):
            low = high = float("nan")
            if np.isfinite(predictions.image[:, j]).any():
                low, high = bootstrap_interval(function, view.sessions, *columns, draws=draws, seed=seed)
            row |= {score: function(*columns), f"{score}_low": low, f"{score}_high": high}
        rows.append(row)
    return pd.DataFrame(rows).set_index("parameter")


def ridge_probe(
    features: Sequence[np.ndarray], views: Sequence[Dataset], *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """`probe_table` of the linear probe: `predict` by `ridge` from features, three (n, d) arrays, of `views`."""
    return probe_table(predict(features, views), views[2], draws=draws, seed=seed)


def in_si(normalizer: Normalizer, column: int, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Values (n,) of one normalised parameter, each in SI."""
    vectors = np.zeros((len(values), len(values[0]), len(PARAMETERS)))
    vectors[:, :, column] = values
    return tuple(normalizer.restore(vectors)[:, :, column])
