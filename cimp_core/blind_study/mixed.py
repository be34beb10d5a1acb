"""A logistic model with random intercepts of raters and images, and what it says of the share in the population.

The model and its kind of priors are statsmodels' `BinomialBayesMixedGLM`: normal ones for fixed effects, log-normal
ones about 1 for the standard deviations of random effects. Its own fits do not serve here: variational Bayes takes
fixed effects for independent of random ones, and the interval is then nearly as narrow as if trials were; the joint
mode has no random effects at all. So the posterior of the intercept and of both standard deviations is found on a grid,
with all else integrated out at each point by Laplace's approximation (Tierney and Kadane, J. Am. Stat. Assoc. 81, 82,
1986).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import interpolate, sparse, special, stats

from .population import average_share
from .shares import LEVEL

__all__ = ["FIXED_SD", "Mixed", "fit_mixed"]

FIXED_SD, LOG_SD = 4.0, 1.0
"""Standard deviations of the priors: of fixed effects, of logarithms of standard deviations of random effects."""

_RANGE = np.log(0.05), np.log(4.0)  # of the standard deviations of the random effects
_WIDE = 4.5  # reach of the grid of intercepts [approximate standard errors]
_KNOTS, _FINE = (6, 6, 9), (18, 18, 61)  # of both standard deviations and the intercept: computed, interpolated


class Mixed(NamedTuple):
    """Posterior medians and equal-tailed intervals."""

    share: float  # averaged over the population of raters and images, and over both sides
    low: float
    high: float
    rater_sd: float  # of the random intercepts [log-odds]
    image_sd: float
    side: float  # log-odds by which the left side is favoured
    side_low: float
    side_high: float


def fit_mixed(yes: np.ndarray, raters: np.ndarray, images: np.ndarray, a_left: np.ndarray) -> Mixed | None:
    """Fit the model to the trials of one pair of methods; ``None`` with fewer than two raters or images.

    Parameters
    ----------
    yes : (n,) bool
        Whether A was chosen.
    raters, images : (n,) arrays
    a_left : (n,) bool
        Whether A was on the left.
    """
    (who, r), (what, i) = (np.unique(groups, return_inverse=True) for groups in (raters, images))
    if min(len(who), len(what)) < 2:
        return None
    y = np.asarray(yes, float)
    model = Laplace(y, np.where(a_left, 1.0, -1.0), r, i)
    share = (y.sum() + 0.5) / (len(y) + 1)

    def place(axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Intercept and both log standard deviations on a grid, and the step of the intercept; each (p, q, t)."""
        a, b, t = np.meshgrid(*axes, indexing="ij")
        of_raters, of_images = np.exp(2 * a), np.exp(2 * b)
        # The share pins down the average log-odds; the intercept lies further from zero the more there is to average.
        stretch = np.sqrt(1 + 0.35 * (of_raters + of_images))
        scale = np.hypot(
            1 / np.sqrt(len(y) * share * (1 - share)), np.sqrt(of_raters / len(who) + of_images / len(what))
        )
        return stretch * special.logit(share) + t * scale, np.stack([a, b], axis=-1), scale

    ends = (*(_RANGE,) * 2, (-_WIDE, _WIDE))
    knots, fine = ([np.linspace(*end, n) for end, n in zip(ends, count)] for count in (_KNOTS, _FINE))
    intercept, log_sds, _ = place(knots)
    found = model.at(intercept.ravel(), log_sds.reshape(-1, 2))
    density, side, error = (_smooth(found[name].reshape(_KNOTS), knots, fine) for name in ("density", "side", "error"))
    intercept, log_sds, scale = place(fine)
    weight = np.exp(density - density.max()) * scale
    keep = weight > 1e-4 * weight.max()
    weight, intercept, side, error = weight[keep] / weight[keep].sum(), intercept[keep], side[keep], error[keep]
    sds = np.exp(log_sds[keep])
    sd = np.hypot(*sds.T)
    shares = (average_share(intercept + side, sd) + average_share(intercept - side, sd)) / 2
    low, middle, high = _quantiles(shares, weight)
    z = stats.norm.ppf((np.arange(15) + 0.5) / 15)
    sides = _quantiles((side[:, None] + error[:, None] * z).ravel(), np.repeat(weight / len(z), len(z)))
    of_rater, of_image = (_quantiles(column, weight)[1] for column in sds.T)
    return Mixed(middle, low, high, of_rater, of_image, sides[1], sides[0], sides[2])


def _smooth(values: np.ndarray, knots: list[np.ndarray], fine: list[np.ndarray]) -> np.ndarray:
    """Values at the knots, at the points of the fine grid, by cubic splines along one axis after the other."""
    for axis, (coarse, points) in enumerate(zip(knots, fine, strict=True)):
        values = interpolate.make_interp_spline(coarse, values, k=3, axis=axis)(points)
    return values


def _quantiles(values: np.ndarray, weight: np.ndarray) -> list[float]:
    """Lower end, median and upper end of weighted points."""
    distinct, index = np.unique(values, return_inverse=True)
    each = np.bincount(index, weights=weight)
    tail = (1 - LEVEL) / 2
    return [float(v) for v in np.interp([tail, 0.5, 1 - tail], np.cumsum(each) - each / 2, distinct)]


class Laplace:
    """The log posterior at many intercepts and pairs of standard deviations at once, all else integrated out.

    What is integrated out are the side and the effects of raters (together: "first") and those of images. As every
    trial has one image, the curvature within images is diagonal, and images are eliminated before anything is solved.
    """

    def __init__(self, y: np.ndarray, side: np.ndarray, r: np.ndarray, i: np.ndarray) -> None:
        n, self.raters, self.images = len(y), int(r.max()) + 1, int(i.max()) + 1
        self.y, self.m, trial = y, 1 + self.raters, np.arange(n)
        columns = np.stack([np.zeros(n, int), 1 + r], axis=1)
        values = np.stack([side, np.ones(n)], axis=1)
        self.first = _sparse(np.repeat(trial, 2), columns, values, (n, self.m))
        self.of_image = _sparse(trial, i, np.ones(n), (n, self.images))
        pairs, products = columns[:, :, None] * self.m + columns[:, None, :], values[:, :, None] * values[:, None, :]
        self.within = _sparse(np.repeat(trial, 4), pairs, products, (n, self.m**2)).T.tocsr()
        cells = columns * self.images + i[:, None]
        self.across = _sparse(np.repeat(trial, 2), cells, values, (n, self.m * self.images)).T.tocsr()

    def at(self, intercept: np.ndarray, log_sds: np.ndarray) -> dict[str, np.ndarray]:
        """Log posterior density, up to a constant, at intercepts (k,) and log standard deviations (k, 2), of raters and
        of images; and, given these, the most probable effects with the joint density there.
        """
        k, precision = len(intercept), np.exp(-2 * log_sds)
        of_first = np.full((k, self.m), FIXED_SD**-2.0)
        of_first[:, 1:] = precision[:, :1]
        of_images = np.repeat(precision[:, 1:], self.images, axis=1)
        first, images = np.zeros((k, self.m)), np.zeros((k, self.images))
        for _ in range(50):
            chance = special.expit(intercept + self.first @ first.T + self.of_image @ images.T)  # (n, k)
            rest, weight = self.y[:, None] - chance, chance * (1 - chance)
            slope = (self.first.T @ rest).T - of_first * first
            slope_images = (self.of_image.T @ rest).T - of_images * images
            within = (self.within @ weight).T.reshape(k, self.m, self.m)
            within[:, range(self.m), range(self.m)] += of_first
            across = (self.across @ weight).T.reshape(k, self.m, self.images)
            diagonal = (self.of_image.T @ weight).T + of_images
            shrunk = across / diagonal[:, None]
            reduced = within - shrunk @ across.transpose(0, 2, 1)
            towards = slope - (shrunk @ slope_images[..., None])[..., 0]
            step = np.linalg.solve(reduced, towards[..., None])[..., 0]
            step_images = slope_images / diagonal - (step[:, None] @ shrunk)[:, 0]
            size = max(np.abs(step).max(), np.abs(step_images).max())
            first, images = first + step * min(1, 5 / size), images + step_images * min(1, 5 / size)
            if size < 1e-3:  # the error of the next step is of its square
                break
        odds = intercept + self.first @ first.T + self.of_image @ images.T
        joint = (self.y[:, None] * odds - np.logaddexp(0, odds)).sum(axis=0) - intercept**2 / (2 * FIXED_SD**2)
        joint -= ((of_first * first**2).sum(axis=1) + (of_images * images**2).sum(axis=1)) / 2
        joint -= log_sds @ [self.raters, self.images] + (log_sds**2).sum(axis=1) / (2 * LOG_SD**2)
        curvature = np.linalg.slogdet(reduced)[1] + np.log(diagonal).sum(axis=1)
        found = {"density": joint - curvature / 2, "joint": joint, "first": first, "images": images}
        return found | {"side": first[:, 0], "error": np.sqrt(np.linalg.inv(reduced)[:, 0, 0])}


def _sparse(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((values.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
