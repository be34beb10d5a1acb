"""How large a study has to be, and what a published share leaves open.

The half-width of an interval does not go to zero with the number of trials: five raters stay five raters. So the number
of raters and of images is asked for, with the variance between them as an assumption that is stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd

from ..errors import OutOfRangeError
from .population import crossed_design, draw_choices
from .shares import independent, two_way_many

__all__ = ["IMAGE_SD", "RATERS", "RATER_SD", "TRIALS", "compatible_counts", "independent_trials", "plan"]

RATER_SD, IMAGE_SD = 0.5, 0.8
"""Standard deviations assumed of the effects of raters and of images [log-odds]; assumptions, not measurements."""

RATERS, TRIALS = (5, 10, 20, 30, 50), (20, 40, 60, 100, 200)


def plan(
    share: float,
    half_width: float,
    *,
    raters: Sequence[int] = RATERS,
    trials: Sequence[int] = TRIALS,
    images: int | None = None,
    rater_sd: float = RATER_SD,
    image_sd: float = IMAGE_SD,
    studies: int = 400,
    seed: int = 0,
) -> pd.DataFrame:
    """Half-widths of the two-way interval, by simulated studies.

    Parameters
    ----------
    share : float
        Expected share of trials in which the better method is preferred.
    half_width : float
        Of the 95 % interval that is wanted.
    raters, trials : sequences of int
        Numbers to try; trials are those of one rater.
    images : int, optional
        Different images; by default one for every trial of a rater.
    rater_sd, image_sd : float
        See `RATER_SD`, `IMAGE_SD`.
    studies, seed : int
        Simulated studies for each line.

    Returns
    -------
    DataFrame
        Columns ``raters``, ``images``, ``trials`` (of one rater), ``half_width`` (median over studies), ``reached``
        (share of studies with an interval no wider than wanted), ``excludes_half`` (share whose interval is all above,
        or all below, one half), ``covers`` (share whose interval contains the true share), ``enough`` (half the studies
        or more reach the half-width).
    """
    if not 0 < share < 1:
        raise OutOfRangeError(f"share {share:g} does not lie between 0 and 1")
    if not 0 < half_width < 0.5:
        raise OutOfRangeError(
            f"half-width {half_width:g} does not lie between 0 and 0.5; 0.05 is five percentage points"
        )
    if min(raters, default=0) < 2 or min(trials, default=0) < 2 or (images is not None and images < 2):
        raise OutOfRangeError("at least two raters, two trials and two images are needed for an interval")
    if not (0 <= rater_sd <= 10 and 0 <= image_sd <= 10) or studies < 1:
        raise OutOfRangeError("standard deviations lie between 0 and 10 log-odds, and at least one study is simulated")
    rows = []
    for r in raters:
        for t in trials:
            rng = np.random.default_rng(np.random.SeedSequence([seed, r, t]))
            rows.append({"raters": r, "images": images or t, "trials": t} | _line(
                share, half_width, r, images or t, t, rater_sd, image_sd, studies, rng
            ))  # fmt: skip
    return pd.DataFrame(rows)


def _line(
    share: float,
    wanted: float,
    raters: int,
    images: int,
    trials: int,
    rater_sd: float,
    image_sd: float,
    studies: int,
    rng,
) -> dict:
    design = crossed_design(raters, images, trials, rng)
    at_once = max(1, 2_000_000 // len(design.raters))  # as many studies as fit into memory easily
    lows, highs = [], []
    for start in range(0, studies, at_once):
        chosen = draw_choices(design, share, rater_sd, image_sd, min(at_once, studies - start), rng)
        _, low, high, _, _ = two_way_many(chosen, design.raters, design.images)
        lows.append(low)
        highs.append(high)
    low, high = np.concatenate(lows), np.concatenate(highs)
    half = (high - low) / 2
    return {
        "half_width": float(np.median(half)),
        "reached": float(np.mean(half <= wanted)),
        "excludes_half": float(np.mean((low > 0.5) | (high < 0.5))),
        "covers": float(np.mean((low <= share) & (share <= high))),
        "enough": bool(np.mean(half <= wanted) >= 0.5),
    }


def independent_trials(share: float, half_width: float) -> int:
    """Trials for the half-width if each were by another rater on another image: what no study has."""
    from statsmodels.stats.proportion import samplesize_confint_proportion

    return math.ceil(samplesize_confint_proportion(share, half_width))


def compatible_counts(share: float = 0.702, decimals: int = 3, most: int = 500) -> pd.DataFrame:
    """Every number of trials, up to `most`, of which some whole number rounds to the published share.

    Parameters
    ----------
    share : float
        As published; 0.702 is "70.2 %".
    decimals : int
        Of the share, not of the percentage.
    most : int
        Largest number of trials; from ``10 ** decimals`` on every number is compatible.

    Returns
    -------
    DataFrame
        Columns ``trials``, ``count``, ``share`` (unrounded), ``wilson_low``, ``wilson_high``, ``exact_low``,
        ``exact_high`` and ``p_exact`` (against one half), all as if trials were independent. A share exactly between
        two rounded ones goes with both, for programs differ in how they round it.
    """
    if not 0 <= share <= 1 or decimals < 1 or most < 1:
        raise OutOfRangeError("a share between 0 and 1, one decimal or more and one trial or more are needed")
    middle = Fraction(round(share * 10**decimals), 10**decimals)  # whole numbers: 0.7025 must not become 0.70249999
    slack = Fraction(1, 2 * 10**decimals)
    rows = []
    for n in range(1, most + 1):
        for count in range(max(0, math.ceil((middle - slack) * n)), min(n, math.floor((middle + slack) * n)) + 1):
            found = independent(count, n)
            wilson, exact = found["wilson"], found["exact"]
            rows.append((n, count, count / n, *wilson, *exact, found["p_exact"]))
    names = ["trials", "count", "share", "wilson_low", "wilson_high", "exact_low", "exact_high", "p_exact"]
    return pd.DataFrame(rows, columns=names)
