"""Statistics of blind studies against published worked examples, against the libraries, and by simulated studies."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cimp_core.blind_study import agreement, mixed
from cimp_core.blind_study.agreement import alpha_interval, alpha_of, consistency, rater_agreement
from cimp_core.blind_study.bootstrap import share_interval
from cimp_core.blind_study.bradley_terry import bradley_terry
from cimp_core.blind_study.mixed import fit_mixed
from cimp_core.blind_study.population import average_share, crossed_design, draw_choices, log_odds_of
from cimp_core.blind_study.power import compatible_counts, independent_trials, plan
from cimp_core.blind_study.shares import independent, two_way
from cimp_core.errors import OutOfRangeError
from cimp_core.results import row_faults
from cimp_core.study import blind_coverage

NEWCOMBE = {  # Newcombe, Stat. Med. 17, 857 (1998), table I: Wilson's score interval, exact interval
    (81, 263): ((0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148): ((0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20): ((0.0000, 0.1611), (0.0000, 0.1684)),
    (1, 29): ((0.0061, 0.1718), (0.0009, 0.1776)),
}


@pytest.mark.parametrize("count, trials", NEWCOMBE)
def test_intervals_of_independent_trials_as_published(count, trials):
    wilson, exact = NEWCOMBE[count, trials]
    found = independent(count, trials)
    assert found["wilson"] == pytest.approx(wilson, abs=5e-5) and found["exact"] == pytest.approx(exact, abs=5e-5)


def test_exact_test():
    assert independent(8, 10)["p_exact"] == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert independent(0, 0) == {"wilson": None, "exact": None, "p_exact": None}


def test_two_way_interval_is_made_of_statsmodels_cluster_robust_variances():
    import statsmodels.api as sm
    from scipy import stats
    from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

    rng = np.random.default_rng(0)
    design = crossed_design(7, 15, 15, rng)
    keep = rng.random(len(design.raters)) < 0.8  # not every trial was answered
    who, what = design.raters[keep], design.images[keep]
    yes = draw_choices(design, 0.7, 1.0, 1.0, 1, rng)[0][keep]
    fit = sm.GLM(yes, np.ones((len(yes), 1)), family=sm.families.Binomial()).fit()
    both, first, second = (part.item() for part in cov_cluster_2groups(fit, who, what))
    total = first + second
    assert total > both  # the usual two-way variance is smaller: it subtracts that of single trials
    df = total**2 / (first**2 / 6 + second**2 / 14)
    reach = stats.t.ppf(0.975, df) * np.sqrt(total)
    found = two_way(yes, np.array(list("abcdefg"))[who], what)
    assert found.df == pytest.approx(df, rel=1e-3)
    assert (found.low, found.high) == pytest.approx(expit(fit.params[0] + np.array([-reach, reach])), rel=2e-3)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(fit.params[0]) / np.sqrt(total), df), rel=0.02)


def test_two_way_interval_where_there_is_little_to_tell():
    who, what = np.repeat(range(5), 20), np.tile(range(20), 5)
    found = two_way(np.ones(100), who, what)
    assert (found.value, found.high) == (1, 1) and found.low == pytest.approx(0.025**0.2)  # exact, of five trials
    assert found.p == pytest.approx(2 / 32)
    even = two_way((who + what) % 2 == 0, who, what)  # every image and nearly every rater has the same share
    assert even.low < independent(50, 100)["wilson"][0] + 0.01 and np.isfinite([even.low, even.high, even.p]).all()
    assert two_way(np.ones(9), np.zeros(9), np.arange(9)).reason == "one rater tells nothing of other raters"
    assert two_way(np.ones(9), np.arange(9), np.zeros(9)).reason == "one image tells nothing of other images"
    assert two_way([], [], []).reason == "no trials"


def test_bootstrap_sees_raters_and_images():
    who, what = np.repeat(range(6), 20), np.tile(range(20), 6)

    def width(yes):
        low, high = share_interval(yes, who, what, seed=1)
        return high - low

    by_rater, by_image, by_neither = who < 3, what < 10, np.random.default_rng(0).random(120) < 0.5
    assert width(by_rater) > 0.7 and width(by_image) > 0.35 and width(by_neither) < 0.4
    assert width(by_rater) == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(5), rel=0.15)  # 3 of 6: the sd of five drawn
    assert share_interval(by_rater, who, what, seed=1) == share_interval(by_rater, who, what, seed=1)
    assert share_interval(np.ones(9), np.zeros(9), np.arange(9)) is None


def test_population_share_is_the_average_over_normal_log_odds():
    odds = 0.9 + 1.2 * np.random.default_rng(0).standard_normal(400_000)
    assert average_share(0.9, 1.2) == pytest.approx(expit(odds).mean(), abs=1e-3)
    assert average_share(log_odds_of(0.9, 1.4), 1.4) == pytest.approx(0.9)


def test_mixed_model_has_statsmodels_posterior():
    """The joint density on which the approximation rests is the library's, and its mode has no slope there."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    rng = np.random.default_rng(1)
    design = crossed_design(5, 8, 8, rng)
    yes, side = draw_choices(design, 0.7, 1.0, 0.7, 1, rng)[0], np.where(design.a_left, 1.0, -1.0)
    effects = np.concatenate([np.eye(5)[design.raters], np.eye(8)[design.images]], axis=1)
    fixed, ident = np.stack([np.ones(40), side], axis=1), np.repeat([0, 1], [5, 8])
    theirs = BinomialBayesMixedGLM(yes, fixed, effects, ident, vcp_p=mixed.LOG_SD, fe_p=mixed.FIXED_SD)
    points = np.array([[0.5, -1.0, 0.2], [1.5, 0.3, -0.7], [0.9, 1.0, 1.0]])
    ours = mixed.Laplace(yes, side, design.raters, design.images).at(points[:, 0], points[:, 1:])
    vectors = [
        np.concatenate([[point[0], first[0]], point[1:], first[1:], images])
        for point, first, images in zip(points, ours["first"], ours["images"])
    ]
    expected = [theirs.logposterior(vector) for vector in vectors]
    assert np.diff(ours["joint"]) == pytest.approx(np.diff(expected), abs=1e-6)  # both but for a constant
    for vector in vectors:
        slope = theirs.logposterior_grad(vector)
        assert np.abs(np.delete(slope, [0, 2, 3])).max() < 1e-3  # intercept and deviations are not at the mode


def test_mixed_model_finds_share_spread_and_side():
    rng = np.random.default_rng(2)
    design = crossed_design(40, 60, 60, rng)
    yes = draw_choices(design, 0.8, 1.0, 0.5, 1, rng, side=0.6)[0]
    found = fit_mixed(yes, design.raters, design.images, design.a_left)
    assert found.low < 0.8 < found.high and found.share == pytest.approx(yes.mean(), abs=0.01)
    assert found.rater_sd == pytest.approx(1.0, abs=0.3) and found.image_sd == pytest.approx(0.5, abs=0.2)
    assert found.side_low < 0.6 < found.side_high and found.side_low > 0.3
    assert fit_mixed(np.ones(9), np.zeros(9), np.arange(9), np.ones(9)) is None


def test_mixed_model_against_sampling():
    """Median and ends of the share, against Markov chains on statsmodels' own density."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    yes, who, what = np.tile([1.0, 1, 1, 0, 1, 1], 4), np.repeat(range(4), 6), np.tile(range(6), 4)
    yes[[0, 7, 10, 20]] = 0
    left = (who + what) % 2 == 0
    effects = np.concatenate([np.eye(4)[who], np.eye(6)[what]], axis=1)
    fixed = np.stack([np.ones(24), np.where(left, 1.0, -1.0)], axis=1)
    ident = np.repeat([0, 1], [4, 6])
    model = BinomialBayesMixedGLM(yes, fixed, effects, ident, vcp_p=mixed.LOG_SD, fe_p=mixed.FIXED_SD)
    rng = np.random.default_rng(0)
    at, kept = np.zeros(14), []
    step = np.repeat([0.6, 0.7, 0.7], [2, 2, 10])
    density = model.logposterior(at)
    for k in range(24_000):
        chosen = rng.random(14) < 0.3
        to = at + step * rng.standard_normal(14) * chosen
        new = model.logposterior(to)
        if np.log(rng.random()) < new - density:
            at, density = to, new
        if k >= 2000 and k % 5 == 0:
            kept.append(at)
    intercept, side, a, b = np.array(kept)[:, :4].T
    sd = np.hypot(np.exp(a), np.exp(b))
    expected = np.quantile(
        (average_share(intercept + side, sd) + average_share(intercept - side, sd)) / 2, [0.025, 0.5, 0.975]
    )
    found = fit_mixed(yes, who, what, left)
    assert (found.low, found.share, found.high) == pytest.approx(expected, abs=0.04)


def test_the_librarys_own_fit_is_too_narrow_to_be_shown():
    """Why the posterior is integrated here: variational Bayes leaves out that raters and images are few."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    rng = np.random.default_rng(1)
    design = crossed_design(5, 20, 20, rng)
    yes = draw_choices(design, 0.7, 1.0, 1.0, 1, rng)[0]
    effects = np.concatenate([np.eye(5)[design.raters], np.eye(20)[design.images]], axis=1)
    own = BinomialBayesMixedGLM(
        yes, np.ones((100, 1)), effects, np.repeat([0, 1], [5, 20]), fe_p=mixed.FIXED_SD
    ).fit_vb()
    found = fit_mixed(yes, design.raters, design.images, design.a_left)
    slope = 0.7 * 0.3 / np.sqrt(1 + 0.35 * (found.rater_sd**2 + found.image_sd**2))
    assert 2 * 1.96 * own.fe_sd[0] * slope < 0.6 * (found.high - found.low)


BASEBALL = {  # home wins and losses, American League East 1987: Agresti, Categorical Data Analysis (2002), table 10.10
    "Milwaukee": "43 42 43 61 42 60",
    "Detroit": "33 42 43 60 61 43",
    "Toronto": "25 43 24 43 42 60",
    "New York": "33 51 25 43 42 61",
    "Boston": "51 25 33 42 52 60",
    "Cleveland": "25 33 34 43 42 24",
    "Baltimore": "25 15 16 24 16 34",
}


def baseball():
    rows = []
    for home, games in BASEBALL.items():
        for away, (won, lost) in zip([team for team in BASEBALL if team != home], games.split(), strict=True):
            rows += [(home, away, "left")] * int(won) + [(home, away, "right")] * int(lost)
    table = pd.DataFrame(rows, columns=["left", "right", "choice"])
    return table.assign(rater=np.arange(len(rows)) % 9, image=np.arange(len(rows)) % 13)


def test_bradley_terry_on_baseball_as_published():
    """Agresti's table 10.11: the model with home advantage, which is our side; his worths add up to 1."""
    found = bradley_terry(baseball(), ["Baltimore", *[team for team in BASEBALL if team != "Baltimore"]], draws=300)
    worth = np.array([one["worth"] for one in found["strengths"]])
    assert np.sort(worth / worth.sum()) == pytest.approx([0.044, 0.088, 0.137, 0.157, 0.164, 0.190, 0.220], abs=6e-4)
    assert found["side"]["log_odds"] == pytest.approx(0.302, abs=5e-4)
    best = max(found["strengths"], key=lambda one: one["worth"])
    assert best["method"] == "Milwaukee" and 0 < best["low"] < best["log_worth"] < best["high"]
    assert best["bootstrap"][0] < best["log_worth"] < best["bootstrap"][1]


def comparisons(counts):
    """Trials from {(winner, loser): times}, each side in turn."""
    rows = []
    for (winner, loser), times in counts.items():
        for k in range(times):
            rows.append((winner, loser, "left") if k % 2 else (loser, winner, "right"))
    table = pd.DataFrame(rows, columns=["left", "right", "choice"])
    return table.assign(rater=np.arange(len(rows)) % 4, image=np.arange(len(rows)) % 5)


def test_no_strengths_are_made_up_where_none_exist():
    always = comparisons({("a", "b"): 6, ("a", "c"): 6, ("b", "c"): 4, ("c", "b"): 4})
    found = bradley_terry(always, ["a", "b", "c"], draws=100)
    assert found["strengths"] is None and "a won all 12 trials against b and c" in found["statement"]
    some = comparisons({("a", "b"): 6, ("b", "a"): 2, ("a", "c"): 6, ("c", "a"): 2, ("b", "c"): 4, ("c", "b"): 4})
    assert bradley_terry(some, ["a", "b", "c"], draws=100)["statement"] is None
    apart = comparisons({("a", "b"): 4, ("b", "a"): 4, ("c", "d"): 4, ("d", "c"): 4})
    assert "not every method was compared" in bradley_terry(apart, ["a", "b", "c", "d"], draws=100)["statement"]
    left = some.assign(choice="left")
    assert "side alone" in bradley_terry(left, ["a", "b", "c"], draws=100)["statement"]


KRIPPENDORFF = [  # Krippendorff, Computing Krippendorff's alpha-reliability (2011), section C: 4 observers, 12 units
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_alpha_as_published():
    counts = np.array([[column.count(value) for value in range(1, 6)] for column in zip(*KRIPPENDORFF)])
    assert alpha_of(counts) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_preferences():
    rng = np.random.default_rng(0)
    counts = rng.binomial(6, rng.beta(1, 1, size=30)).astype(float)
    counts = np.stack([counts, 6 - counts], axis=1)
    value, error = (part[0] for part in agreement._alphas(counts, np.ones((1, 30))))
    assert value == pytest.approx(alpha_of(counts))  # the formula for many draws is the library's
    without = np.array([alpha_of(np.delete(counts, k, axis=0)) for k in range(30)])
    assert error == pytest.approx(np.sqrt(29 / 30 * ((without - without.mean()) ** 2).sum()), rel=0.1)
    low, high = alpha_interval(counts)
    assert low < value - error < value + error < high
    table = pd.DataFrame(
        {"rater": [0, 1, 0, 1, 0], "image": [0, 0, 1, 1, 1], "a_chosen": [True, True, False, False, True]}
    )
    found = rater_agreement(table, draws=100)  # the second answer to image 1 does not count
    assert found["value"] == pytest.approx(1) and found["units"] == 2
    assert "alike" in rater_agreement(table.assign(a_chosen=True), draws=100)["reason"]
    assert "two raters" in rater_agreement(table[table["rater"] == 0], draws=100)["reason"]


def test_consistency_counts_methods_not_sides():
    first = pd.DataFrame(
        {"trial": range(8), "rater": np.arange(8) % 2, "image": np.arange(8) % 4, "left": "a", "right": "b"}
    )
    first = first.assign(repeats=None, chosen=list("abababab"))
    again = first.assign(repeats=first["trial"], trial=first["trial"] + 8, left="b", right="a")
    same = consistency(pd.concat([first, again]))
    assert (same["count"], same["repeats"], same["share"], same["kappa"]) == (8, 8, 1, 1)
    again["chosen"] = first["chosen"].map({"a": "b", "b": "a"})  # the same side again
    found = consistency(pd.concat([first, again]))
    assert found["count"] == 0 and found["kappa"] == pytest.approx(-1)
    again["chosen"] = list("aabbaabb")
    assert consistency(pd.concat([first, again]))["kappa"] == pytest.approx(0)
    assert consistency(first)["repeats"] == 0


def test_numbers_of_trials_compatible_with_a_published_share():
    found = compatible_counts(0.702, 3, 300)
    assert list(found["trials"][:5]) == [47, 57, 84, 94, 104] and list(found["count"][:2]) == [33, 40]
    brute = [(n, k) for n in range(1, 301) for k in range(n + 1) if f"{k / n:.3f}" == "0.702"]
    assert list(zip(found["trials"], found["count"])) == brute
    smallest = found.iloc[0]
    assert (smallest["wilson_low"], smallest["wilson_high"]) == pytest.approx((0.5602, 0.8135), abs=5e-5)
    every = set(compatible_counts(0.702, 3, 1100)["trials"])
    assert set(range(1000, 1101)) <= every
    with pytest.raises(OutOfRangeError):
        compatible_counts(70.2)


def test_plan_needs_raters_and_images_not_only_trials():
    table = plan(0.7, 0.05, raters=(5, 40), trials=(20, 150), studies=100, seed=1).set_index(["raters", "trials"])
    width = table["half_width"]
    assert width[5, 150] > width[40, 150] and width[40, 20] > width[40, 150]
    assert list(table["enough"]) == [False, False, False, True] and (table["covers"] > 0.9).all()
    same = plan(0.7, 0.05, raters=(40,), trials=(150,), images=20, studies=60)  # seven showings of few images
    assert same["half_width"][0] > 1.5 * width[40, 150]
    calm = plan(0.7, 0.05, raters=(20,), trials=(40,), rater_sd=0, image_sd=0, studies=60)["half_width"][0]
    wild = plan(0.7, 0.05, raters=(20,), trials=(40,), rater_sd=1.5, image_sd=0, studies=60)["half_width"][0]
    assert wild > 2 * calm
    n = independent_trials(0.7, 0.05)
    assert 1.96 * np.sqrt(0.21 / n) <= 0.05 < 1.96 * np.sqrt(0.21 / (n - 1))
    for bad in (
        {"share": 1.0, "half_width": 0.1},
        {"share": 0.7, "half_width": 5},
        {"share": 0.7, "half_width": 0.1, "raters": (1,)},
    ):
        with pytest.raises(OutOfRangeError):
            plan(**bad)


def held(measured, name):
    truth, (low, high) = measured[name]
    return np.mean((low <= truth) & (truth <= high))


def test_coverage_at_five_raters_and_twenty_images():
    """The interval of the summary holds; those of independent trials do not, and this would see it."""
    for share in (0.5, 0.7, 0.9):
        found = blind_coverage.preference_cover((5, 20, 20), share, (0.5, 0.8), (1500, 150, 25))
        assert held(found, "two_way") > 0.94
        assert held(found, "wilson") < 0.9 and held(found, "exact") < 0.93
        assert held(found, "bootstrap") > 0.9 and held(found, "mixed") > 0.8
    # Where raters differ most, the number of raters is what counts: a normal quantile would not do.
    found = blind_coverage.preference_cover((5, 20, 20), 0.7, (2.0, 0.0), (4000, 2, 2))
    assert held(found, "two_way") > 0.935


def test_coverage_without_any_effects_is_not_too_low_for_anything():
    found = blind_coverage.preference_cover((5, 20, 20), 0.7, (0.0, 0.0), (1500, 100, 30))
    assert min(held(found, name) for name in ("two_way", "wilson", "exact", "bootstrap")) > 0.92


def test_coverage_of_the_other_intervals():
    found = blind_coverage.quality_cover((5, 20, 20), (1500, 150, 10))
    assert held(found, "left_side") > 0.93 and held(found, "repeats") > 0.93 and held(found, "catch") > 0.9
    assert held(found, "alpha") > 0.9
    found = blind_coverage.strength_cover((5, 20, 20), (0.5, 0.8), 40)
    assert held(found, "bradley_terry") > 0.82 and held(found, "bradley_terry_bootstrap") > 0.82


def test_rows_of_the_coverage_fit_the_results_file(monkeypatch):
    monkeypatch.setitem(blind_coverage.STUDIES, "smoke", (20, 3, 2))
    monkeypatch.setattr(blind_coverage, "SHARES", (0.7,))
    rows = [
        made
        for case in blind_coverage.coverage_rows(sizes=((5, 20, 20), (5, 20, 10)), profile="smoke")
        for made in case
    ]
    assert [row_faults(made) for made in rows if row_faults(made)] == []
    names = {made["name"] for made in rows}
    assert len(names) == len(rows) and "blind.coverage.two_way.5x20.share70.usual" in names
    assert "blind.coverage.mixed.5x20.10_trials.share70.large" in names
    assert "blind.coverage.bradley_terry.5x20.usual" in names and "blind.coverage.wilson.5x20.share70.none" in names
