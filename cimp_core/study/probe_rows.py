"""Rows of probes for the results file: scores of every parameter, and of the pixel size where atoms are resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..dataset import Dataset
from ..metadata import PARAMETERS
from ..metrics import median_relative_error, r2
from ..probe import Predictions, Regression, in_si, ridge, scores_of
from .rows import row
from .seeds import over_seeds

__all__ = ["BELOW", "below_rows", "probe_rows", "within_estimate", "within_rows"]

BELOW = 40e-12
"""Pixel sizes below this resolve atoms [m]; there a lattice, if there is one, tells the pixel size."""


def probe_rows(name: str, predictions: Sequence[Predictions], view: Dataset, common: Mapping, seed: int = 0) -> list:
    """Rows ``NAME.r2.PARAMETER``, ``NAME.partial_r2...``, ``NAME.median_error...``, and those of `below_rows`.

    Parameters
    ----------
    name : str
        How the rows' names begin, such as "probe.knn".
    predictions : list of Predictions
        One a seed, of the images of `view`.
    common : mapping
        As of `cimp_core.study.rows.row`.
    seed : int
        Of the bootstrap.
    """
    rows = []
    for j, parameter in enumerate(PARAMETERS):
        by_seed = [list(scores_of(p, view.normalizer, j)) for p in predictions]
        for scores in zip(*by_seed, strict=True):
            score, function, _ = scores[0]
            if score != "others_r2":  # without an image: the same for every probe, and in the control's rows
                columns = [c for _, _, c in scores]
                rows.append(row(f"{name}.{score}.{parameter}", *_over(function, view.sessions, columns, seed), common))
    return rows + below_rows(name, [p.image[:, 0] for p in predictions], view, common, seed)


def below_rows(name: str, pixel_sizes: Sequence[np.ndarray], view: Dataset, common: Mapping, seed: int = 0) -> list:
    """``NAME.r2.pixel_size_below_40pm`` and ``NAME.median_error.pixel_size_below_40pm``.

    Both are over the test images whose true pixel size is below 40 pm, with the probe that was trained on all training
    images. The variance is that within the subset: a regression that knows no more than that atoms are resolved is at
    zero or below it here, though it explains much of the variance over all images. This is harder than the R2 over all:
    nobody told the probe that the image is of this range. A probe that was told is scored by `within_rows`.

    Parameters
    ----------
    pixel_sizes : list of (n,) arrays
        Predicted normalised pixel size of the images of `view`, one a seed.
    """
    return _range_rows(name, "below", pixel_sizes, view, common, seed)


def within_rows(
    name: str,
    features: Sequence[Sequence[np.ndarray]],
    parts: Sequence[Dataset],
    common: Mapping,
    seed: int = 0,
    regression: Regression = ridge,
) -> list:
    """``NAME.r2.pixel_size_within_40pm`` and ``NAME.median_error.pixel_size_within_40pm``, by `within_estimate`.

    The same images as in `below_rows`, and the same variance. But this probe has only ever seen images below 40 pm, so
    it is told that atoms are resolved and has to read how finely: by the lattice.

    Parameters
    ----------
    features : list of three (n, d) arrays
        Of the training, validation and test images; one a seed.
    parts : three Dataset views
    """
    found = [within_estimate(f, parts, regression) for f in features]
    return _range_rows(name, "within", found, parts[2], common, seed)


def within_estimate(
    features: Sequence[np.ndarray], parts: Sequence[Dataset], regression: Regression = ridge
) -> np.ndarray:
    """Normalised pixel size (n_test,) of the test images below 40 pm, by a probe of the others below 40 pm alone.

    ``nan`` for all other images, and throughout where a part has fewer than two such images.
    """
    use = [part.metadata_raw[:, 0] < BELOW for part in parts]
    found = np.full(len(parts[2]), np.nan)
    if min(u.sum() for u in use) >= 2:
        few = [f[u] for f, u in zip(features, use, strict=True)]
        target = [part.metadata[u, 0] for part, u in zip(parts[:2], use[:2], strict=True)]
        found[use[2]] = regression(few, target)
    return found


def _range_rows(
    name: str, word: str, pixel_sizes: Sequence[np.ndarray], view: Dataset, common: Mapping, seed: int
) -> list:
    use = view.metadata_raw[:, 0] < BELOW
    columns = [(view.metadata[use, 0], predicted[use]) for predicted in pixel_sizes]
    metres = [in_si(view.normalizer, 0, *pair) for pair in columns]
    rows = []
    for score, function, pairs in (("r2", r2, columns), ("median_error", median_relative_error, metres)):
        numbers = _over(function, view.sessions[use], pairs, seed)
        rows.append(row(f"{name}.{score}.pixel_size_{word}_40pm", *numbers, common))
    return rows


def _over(
    function: Callable[..., float], sessions: np.ndarray, columns: Sequence, seed: int
) -> tuple[float, float, float]:
    """`over_seeds`; three ``nan`` where the statistic of the whole is ``nan``."""
    if any(np.isnan(function(*c)) for c in columns):
        return (float("nan"),) * 3
    return over_seeds(function, sessions, columns, seed=seed)
