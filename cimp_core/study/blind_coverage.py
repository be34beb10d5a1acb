"""How often the intervals of a blind study hold the truth, by simulated studies from populations that are known.

A 95 % interval should hold the true value in 95 % of studies, each with new raters and new images. Studies are
simulated at several sizes and shares, without any difference between raters and images, with differences of a usual
size and with large ones; what counts as usual is an assumption. The intervals are those that `cimp study analyse`
reports, made by the same functions; those that take trials for independent are measured beside them.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from ..blind_study.agreement import alpha_interval
from ..blind_study.bootstrap import share_interval
from ..blind_study.bradley_terry import bradley_terry
from ..blind_study.mixed import fit_mixed
from ..blind_study.population import average_share, crossed_design, draw_choices, log_odds_of
from ..blind_study.shares import two_way_many
from ..results import PROFILES, update_results
from .rows import print_rows, row

__all__ = ["EFFECTS", "SHARES", "SIZES", "coverage_rows", "preference_cover", "quality_cover", "strength_cover"]

SIZES = ((5, 20, 20), (10, 40, 40), (30, 60, 60), (10, 40, 20))
"""Raters, images, trials of a rater; in the last, each rater sees half the images."""
SHARES = (0.5, 0.7, 0.9)
EFFECTS = {"none": (0.0, 0.0), "usual": (0.5, 0.8), "large": (1.0, 1.0)}
"""Standard deviations of the effects of raters and of images [log-odds]."""
STUDIES = {"smoke": (200, 50, 20), "book": (2000, 400, 100), "full": (4000, 1000, 200)}
"""Simulated studies: for intervals by formula, by bootstrap, and by models; of more than 400 trials, fewer."""
DRAWS = 500

Interval = tuple[np.ndarray, np.ndarray]
Measured = dict[str, tuple[float, Interval]]  # true value; lower and upper ends over studies


def preference_cover(
    size: tuple[int, int, int], share: float, effects: tuple[float, float], studies: Sequence[int], seed: int = 0
) -> Measured:
    """Intervals of a share of preference.

    Parameters
    ----------
    size : raters, images, trials of a rater
    share : float
        The true one, over all raters and images.
    effects : standard deviations of the effects of raters and images [log-odds]
    studies : as `STUDIES`

    Returns
    -------
    dict
        ``two_way``, ``wilson``, ``exact``, ``bootstrap``, ``mixed``: true value, and both ends.
    """
    from statsmodels.stats.proportion import proportion_confint

    rng = np.random.default_rng(np.random.SeedSequence([seed, *size, round(1000 * share)]))
    design = crossed_design(*size, rng)
    chosen = draw_choices(design, share, *effects, max(studies), rng)
    who, what, count = design.raters, design.images, chosen.sum(axis=1)
    found = {"two_way": two_way_many(chosen[: studies[0]], who, what)[1:3]}
    for name, method in (("wilson", "wilson"), ("exact", "beta")):
        found[name] = proportion_confint(count[: studies[0]], len(who), method=method)
    fewer = 400 / max(400, len(who))  # where one study takes long
    slow, slowest = (max(2, int(count * fewer)) for count in studies[1:])
    drawn = [share_interval(one, who, what, draws=DRAWS, seed=k) for k, one in enumerate(chosen[:slow])]
    fitted = [fit_mixed(one, who, what, design.a_left) for one in chosen[:slowest]]
    found["bootstrap"] = tuple(np.array(drawn).T)
    found["mixed"] = np.array([one.low for one in fitted]), np.array([one.high for one in fitted])
    return {name: (share, ends) for name, ends in found.items()}


def quality_cover(size: tuple[int, int, int], studies: Sequence[int], seed: int = 0) -> Measured:
    """Intervals of what tells the quality of answers, all with usual effects of raters and images.

    Returns
    -------
    dict
        ``left_side`` (truth 0.55, sd between raters 0.3), ``repeats`` (ten a rater), ``catch`` (five a rater, truth
        0.95, sd between raters 1), ``alpha`` and ``alpha_share90`` (for the raters of each study; truth over all
        images; of a preference of 0.7 and 0.9).
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, *size]))
    raters, images, _ = size
    found = {}
    for name, trials, share, sds in (("left_side", size[2], 0.55, (0.3, 0.0)), ("catch", 5, 0.95, (1.0, 0.0))):
        design = crossed_design(raters, images, trials, rng)
        answers = draw_choices(design, share, *sds, studies[0], rng)
        found[name] = share, two_way_many(answers, design.raters, design.images)[1:3]
    found["repeats"] = _repeats(raters, images, studies[0], rng)
    for name, share in (("alpha", 0.7), ("alpha_share90", 0.9)) if size[2] == images else ():
        found[name] = _alphas(raters, images, share, studies[1], rng)
    return found


def _repeats(raters: int, images: int, studies: int, rng: np.random.Generator) -> tuple[float, Interval]:
    """Whether two answers to one pair are alike: with chance p each, p^2 + (1 - p)^2 of the time."""
    sds, design = EFFECTS["usual"], crossed_design(raters, images, 10, rng)
    middle = log_odds_of(0.7, float(np.hypot(*sds)))

    def alike(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        chance = expit(middle + sds[0] * u + sds[1] * v)
        return chance**2 + (1 - chance) ** 2

    truth = float(alike(*np.random.default_rng(0).standard_normal((2, 1_000_000))).mean())
    u, v = rng.standard_normal((studies, raters)), rng.standard_normal((studies, images))
    same = rng.random((studies, len(design.raters))) < alike(u[:, design.raters], v[:, design.images])
    return truth, two_way_many(same.astype(float), design.raters, design.images)[1:3]


def _alphas(raters: int, images: int, share: float, studies: int, rng: np.random.Generator) -> tuple[float, Interval]:
    """Alpha minus its true value for the raters of that study, so that the true value is 0."""
    sds = EFFECTS["usual"]
    middle, many = log_odds_of(share, float(np.hypot(*sds))), rng.standard_normal(4000)
    lows, highs = [], []
    for k in range(studies):
        own = middle + sds[0] * rng.standard_normal(raters)
        chance = expit(own[:, None] + sds[1] * many)  # of all images
        total, squares, mean = chance.sum(axis=0), (chance**2).sum(axis=0), chance.mean()
        differ = 2 * np.mean((raters - 1) * total - total**2 + squares) / (raters * (raters - 1))
        truth = 1 - differ / (2 * mean * (1 - mean))
        yes = (rng.random((raters, images)) < expit(own[:, None] + sds[1] * rng.standard_normal(images))).sum(axis=0)
        ends = alpha_interval(np.stack([yes, raters - yes], axis=1).astype(float), draws=DRAWS, seed=k)
        lows.append(ends[0] - truth if ends else np.nan)
        highs.append(ends[1] - truth if ends else np.nan)
    return 0.0, (np.array(lows), np.array(highs))


def strength_cover(size: tuple[int, int, int], effects: tuple[float, float], studies: int, seed: int = 0) -> Measured:
    """Intervals of the log worth of the third of three methods over the first.

    True is what Bradley and Terry's model fits to the shares of the whole population: averaged over raters and images,
    its strengths are nearer to each other than those of a typical rater and image.

    Returns
    -------
    dict
        ``bradley_terry`` (two-way) and ``bradley_terry_bootstrap``.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, *size]))
    raters, images, _ = size
    r, i = (part.ravel() for part in np.meshgrid(range(raters), range(images), indexing="ij"))
    pairs, methods, strength = np.array([(0, 1), (0, 2), (1, 2)]), ["a", "b", "c"], np.array([0.0, 0.5, 1.2])
    pair = pairs[(r + i) % 3]
    swap = (r + i // 3) % 2 == 1
    left, right = np.where(swap, pair[:, 1], pair[:, 0]), np.where(swap, pair[:, 0], pair[:, 1])
    shares = average_share(strength[pairs[:, 0]] - strength[pairs[:, 1]], np.hypot(*effects))
    truth = _fitted_strength(pairs, shares)
    ends = {name: ([], []) for name in ("bradley_terry", "bradley_terry_bootstrap")}
    table = pd.DataFrame({"rater": r, "image": i, "left": np.take(methods, left), "right": np.take(methods, right)})
    for k in range(studies):
        u, v = (
            sd * np.sqrt(0.5) * rng.standard_normal((n, 3)) for sd, n in zip(effects, (raters, images), strict=True)
        )
        worth = strength + u[r] + v[i]
        odds = np.take_along_axis(worth, left[:, None], 1) - np.take_along_axis(worth, right[:, None], 1)
        choice = np.where(rng.random(len(r)) < expit(odds[:, 0]), "left", "right")
        found = bradley_terry(table.assign(choice=choice), methods, draws=DRAWS, seed=k)
        last = (found["strengths"] or [{"low": -np.inf, "high": np.inf, "bootstrap": None}])[-1]
        for name, (low, high) in zip(
            ends, ((last["low"], last["high"]), last["bootstrap"] or (-np.inf, np.inf)), strict=True
        ):
            ends[name][0].append(low)
            ends[name][1].append(high)
    return {name: (truth, (np.array(low), np.array(high))) for name, (low, high) in ends.items()}


def _fitted_strength(pairs: np.ndarray, shares: np.ndarray) -> float:
    import statsmodels.api as sm

    design = np.zeros((len(pairs), 3))
    design[range(len(pairs)), pairs[:, 0]] += 1
    design[range(len(pairs)), pairs[:, 1]] -= 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three shares may fit exactly, which it takes for separation
        return float(sm.GLM(shares, design[:, 1:], family=sm.families.Binomial()).fit().params[-1])


def _measured_rows(measured: Measured, ending: str, common: dict) -> list[dict]:
    """Rows of the coverage, with its own binomial interval."""
    from statsmodels.stats.proportion import proportion_confint

    rows = []
    for name, (truth, (low, high)) in measured.items():
        known = ~(np.isnan(low) | np.isnan(high))
        held = (low <= truth) & (truth <= high) & known
        ends = proportion_confint(held.sum(), known.sum(), method="wilson")
        rows.append(row(f"blind.coverage.{name}.{ending}", held.sum() / known.sum(), *ends, common, int(known.sum())))
    return rows


def coverage_rows(
    *,
    sizes: Sequence[tuple[int, int, int]] = SIZES,
    seed: int = 0,
    profile: str = "full",
    command: str = "python -m cimp_core.study.blind_coverage",
) -> Iterator[list[dict]]:
    """Rows ``blind.coverage.METHOD.RATERSxIMAGES...``, case by case; ``pool`` is the number of simulated studies, the
    interval of a coverage is Wilson's.
    """
    common = {
        "split": "simulated studies",
        "profile": profile,
        "seeds": [seed],
        "twin_version": None,
        "command": command,
    }
    studies = STUDIES[profile]
    for size in sizes:
        ending = f"{size[0]}x{size[1]}" + (f".{size[2]}_trials" if size[2] != size[1] else "")
        yield _measured_rows(quality_cover(size, studies, seed), f"{ending}.usual", common)
        for name, effects in EFFECTS.items():
            if size[1] == size[2]:
                measured = strength_cover(size, effects, studies[2], seed)
                yield _measured_rows(measured, f"{ending}.{name}", common)
        for share, (name, effects) in product(SHARES, EFFECTS.items()):
            measured = preference_cover(size, share, effects, studies, seed)
            yield _measured_rows(measured, f"{ending}.share{round(100 * share)}.{name}", common)


def main() -> None:
    """``python -m cimp_core.study.blind_coverage --out FILE.json``."""
    parser = argparse.ArgumentParser(description="How often the intervals of a blind study hold the truth.")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--profile", default="full", choices=PROFILES)
    arguments = parser.parse_args()
    for rows in coverage_rows(profile=arguments.profile):
        update_results(arguments.out, rows)
        print_rows(rows)


if __name__ == "__main__":
    main()
