"""The study of matching: its queries, its numbers from outcomes, and the weights that it fits."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from cimp_core.structures import probability
from cimp_core.structures.library import library
from cimp_core.study import structures_match as study
from cimp_core.study.structures_cases import EASY, equal_zones, picture, projected


@pytest.fixture(scope="module")
def known():
    return library(["crystals"], zones=1)


def line(rng, right, present=True, explained=0.9):
    """An outcome with one candidate that explains so much, and one that does not; `right` is the first."""
    features = rng.normal(0, 0.1, (2, probability.CANDIDATE))
    features[:, 7] = explained, 0.1
    told = {"present": present, "right": [right, False], "polar_right": not right, "embedding_right": right}
    return told | {"features": features.tolist(), "whole": [1.0, 0.0, 0.0]}


def test_an_entry_projected_as_it_is_is_the_entry_and_thicker_or_tilted_another(known):
    number = int(np.argmax(known.table.formula == "SrTiO3"))
    rng = np.random.default_rng(0)
    same = projected(known, number, 0.0, rng)
    np.testing.assert_allclose(same.coefficients, known[number].pattern.coefficients, rtol=1e-4, atol=1e-7)
    thick = projected(known, number, 0.0, rng, 800.0)
    assert (
        thick.mean > 2 * same.mean and abs(thick.coefficients[0]) / thick.mean < abs(same.coefficients[0]) / same.mean
    )
    leant = projected(known, number, math.radians(2), rng)
    assert np.abs(leant.coefficients).sum() < 0.9 * np.abs(same.coefficients).sum()
    np.testing.assert_allclose(leant.mean, same.mean, rtol=1e-6)


def test_queries_are_those_of_their_number_and_seeds_take_turns(known):
    case = study.Case("moderate", 4, thirds=(0, 1, 2))
    first, again = (
        list(study.queries(case, known)),
        list(study.queries(study.Case("moderate", 3, thirds=(0, 1, 2)), known)),
    )
    for (number, truth, query), (_, same, copy) in zip(first, again):
        assert truth == same and np.array_equal(query.image, copy.image)
        rng = np.random.default_rng([study.SEEDS[number % 3], *b"moderate", number])
        assert truth == rng.choice(np.flatnonzero(np.isin(known.owner % 3, (0, 1, 2))))
        assert np.array_equal(picture(known[truth].pattern, rng, EASY).image, query.image)
    held_out = study.Case("moderate", 20, thirds=(1, 2))
    assert all(known.owner[truth] % 3 for _, truth, _ in study.queries(held_out, known))


def test_a_query_is_judged_right_by_structure_and_axis_and_never_when_left_out(known):
    for number, truth, query in study.queries(study.Case("moderate", 2, thirds=(0, 1, 2)), known):
        nearest = np.arange(len(known)) == truth
        found = study.outcome(
            study.Case("moderate", 2), known, truth, query, lambda _query, _error, scores=nearest: scores
        )
        assert found["embedding_right"]
        best = int(np.argmax(found["explained"]))
        assert found["right"][best] and found["present"], number
        for entry, right in zip(found["numbers"], found["right"], strict=True):
            own = known.owner[entry] == known.owner[truth]
            axes = (tuple(known.zones[n].tolist()) for n in (truth, entry))
            if own and equal_zones(known.structures[known.owner[truth]], *axes):
                assert right
        out = study.outcome(study.Case("out", 2, left_out=True), known, truth, query)
        assert not any(out["right"]) and not out["present"] and not out["polar_right"]
        assert all(known.owner[n] != known.owner[truth] for n in out["numbers"])


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 24), (240, 240)])
def test_intervals_of_shares_are_statsmodels(right, count):
    np.testing.assert_allclose(study.wilson(right, count), proportion_confint(right, count, method="wilson"), atol=1e-3)


def test_weights_are_fitted_so_that_right_answers_are_probable():
    rng = np.random.default_rng(1)
    lines = [line(rng, True) for _ in range(10)] + [line(rng, False, False, 0.15) for _ in range(10)]
    weights = study.fit_weights(lines)
    chances = np.array([study.chances(one, weights) for one in lines])
    np.testing.assert_allclose(chances.sum(1), 1)
    assert chances[:10, 0].min() > 0.8 and chances[10:, 2].min() > 0.8


def test_rows_are_shares_and_areas_of_the_outcomes():
    rng = np.random.default_rng(2)
    weights = np.zeros(probability.CANDIDATE + 3)
    weights[7], weights[probability.CANDIDATE] = 8.0, 4.0  # what is explained, against none
    inside = [line(rng, i % 4 > 0, explained=rng.uniform(0.3, 1)) for i in range(16)]
    outside = [line(rng, False, False, rng.uniform(0, 0.6)) for _ in range(12)]
    rows = {r["name"]: r for r in study.rows({"moderate": inside, "out": outside, "calibrate_x": inside}, weights)}
    names = [f"{m}.moderate" for m in ("top1", "polar_top1", "embedding_top1")] + ["none_auroc.left_out"]
    assert set(rows) == {f"structures.match.{name}" for name in names}
    ours = rows["structures.match.top1.moderate"]
    assert ours["value"] == 0.75 and ours["pool"] == 16
    assert rows["structures.match.polar_top1.moderate"]["value"] == 0.25
    assert rows["structures.match.embedding_top1.moderate"]["value"] == 0.75
    none = [study.chances(one, weights)[-1] for one in inside + outside]
    area = rows["structures.match.none_auroc.left_out"]
    assert area["value"] == pytest.approx(roc_auc_score([0] * 16 + [1] * 12, none), abs=1e-6)
    assert area["low"] <= area["value"] <= area["high"] and area["seeds"] == list(study.SEEDS)
