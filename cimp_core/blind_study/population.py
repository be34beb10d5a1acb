"""The population that raters and images are drawn from, as the simulations assume it.

A rater prefers A to B on an image with log-odds ``b + u + v``, ``u`` normal over raters and ``v`` over images. What a
study estimates is the share averaged over all raters and images, which is nearer to one half than ``expit(b)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

__all__ = ["Design", "average_share", "crossed_design", "draw_choices", "log_odds_of"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def average_share(log_odds: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Share over a population whose log-odds are normal; mean and standard deviation broadcast."""
    log_odds, sd = np.broadcast_arrays(np.asarray(log_odds, float), np.asarray(sd, float))
    total = np.zeros(log_odds.shape)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):  # one node at a time: grids of posteriors are large
        total += weight * expit(log_odds + sd * node)
    return total


def log_odds_of(share: float, sd: float) -> float:
    """Mean log-odds at which the average share is `share`."""
    return float(brentq(lambda b: average_share(b, sd) - share, -50, 50))


class Design(NamedTuple):
    """Who judges what: one entry a trial."""

    raters: np.ndarray  # (n,) int, from 0
    images: np.ndarray  # (n,) int, from 0
    a_left: np.ndarray  # (n,) bool, whether A is on the left


def crossed_design(raters: int, images: int, trials: int, rng: np.random.Generator) -> Design:
    """Every rater judges `trials` pairs; all images about equally often, sides even, a rater's images all different
    as long as there are enough.
    """
    turns = [np.concatenate([rng.permutation(images) for _ in range(-(-trials // images))])[:trials]]
    if trials % images == 0:
        shown = np.concatenate([turns[0]] * raters)
    else:  # a ring, so that images stay even between raters too
        shown = (np.arange(raters * trials)) % images
        shown = rng.permutation(images)[shown]
    who = np.repeat(np.arange(raters), trials)
    return Design(who, shown, (np.arange(raters * trials) + who) % 2 == 0)


def draw_choices(
    design: Design,
    share: float,
    rater_sd: float,
    image_sd: float,
    studies: int,
    rng: np.random.Generator,
    side: float = 0.0,
) -> np.ndarray:
    """Simulated studies of one design, each with new raters and new images.

    Parameters
    ----------
    design : Design
    share : float
        Of trials in which A is preferred, over the population.
    rater_sd, image_sd : float
        Standard deviations of the effects of raters and of images [log-odds].
    studies : int
    side : float
        Log-odds by which the left side is favoured.

    Returns
    -------
    (studies, n) float array
        1 where A was chosen, else 0.
    """
    middle = log_odds_of(share, float(np.hypot(rater_sd, image_sd)))
    u = rater_sd * rng.standard_normal((studies, design.raters.max() + 1))
    v = image_sd * rng.standard_normal((studies, design.images.max() + 1))
    odds = middle + u[:, design.raters] + v[:, design.images] + side * np.where(design.a_left, 1.0, -1.0)
    return (rng.random(odds.shape) < expit(odds)).astype(float)
