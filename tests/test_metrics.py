"""Scores against plain loops and closed forms."""

import numpy as np
import pytest

from cimp_core.errors import OutOfRangeError
from cimp_core.metrics import (
    bootstrap_interval,
    cosine_gaps,
    mean_interval,
    median_relative_error,
    partial_r2,
    pool_topk,
    positive_ranks,
    r2,
    topk,
)


def loop_rank(scores, group, groups):
    """Rank of the best right candidate, walking down a list in which wrong ones come first among equals."""
    listed = sorted(range(len(groups)), key=lambda j: (-scores[j], groups[j] == group))
    rank = 1
    for j in listed:
        if groups[j] == group:
            return rank
        rank += 1
    return np.nan


def test_ranks_against_a_loop_with_ties_and_several_positives():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (40, 30)).astype(float)
    queries, candidates = rng.integers(0, 12, 40), rng.integers(0, 10, 30)
    expected = [loop_rank(row, g, candidates) for row, g in zip(scores, queries, strict=True)]
    found = positive_ranks(scores, queries, candidates)
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found).any() and len(np.unique(found[~np.isnan(found)])) > 4
    known = [r for r in expected if not np.isnan(r)]
    assert topk(found, (1, 3)) == {
        "top1": sum(r <= 1 for r in known) / len(known),
        "top3": sum(r <= 3 for r in known) / len(known),
    }


def test_a_constant_model_is_last_and_nan_never_wins():
    groups = np.arange(6)
    assert positive_ranks(np.ones((6, 6)), groups, groups).tolist() == [6.0] * 6
    assert positive_ranks(np.full((6, 6), np.nan), groups, groups).tolist() == [6.0] * 6
    scores = np.where(np.eye(6, dtype=bool), 0.5, np.nan)
    assert positive_ranks(scores, groups, groups).tolist() == [1.0] * 6


def lab(sessions=30, each=8, seed=0):
    """Groups that recur within and across sessions."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), each)
    groups = np.where(rng.random(session.size) < 0.3, rng.integers(0, 20, session.size), 100 + np.arange(session.size))
    return groups, session


def test_pools_of_everything_are_the_plain_ranks():
    groups, session = lab()
    rng = np.random.default_rng(1)
    bonus = rng.integers(0, 60, groups.size) * (groups[:, None] == groups)
    scores = rng.integers(0, 60, (groups.size, groups.size)) + bonus  # whole numbers, so that ties occur
    distinct, first = np.unique(groups, return_index=True)
    best = np.stack([scores[:, groups == g].max(axis=1) for g in distinct], axis=1)
    ranks = positive_ranks(best, groups, distinct)
    found = pool_topk(scores, groups, session, pool=distinct.size, draws=3)
    for k in (1, 5, 10):
        assert found[f"top{k}"]["value"] == pytest.approx(np.mean(ranks <= k), abs=1e-12)
    assert 0 < found["top1"]["value"] < found["top10"]["value"] < 1
    assert found["queries"] == groups.size and found["distinct"] == distinct.size


def test_excluding_the_session_against_a_loop():
    groups, session = lab(12, 6)
    scores = np.random.default_rng(2).normal(size=(72, 72)) + 1.5 * (groups[:, None] == groups)
    pool = np.unique(groups).size  # all vectors: the order of the draw does not matter
    hits = []
    for q in range(72):
        mates = set(groups[session == session[q]])
        right = max(scores[q, j] for j in range(72) if groups[j] == groups[q])
        wrong = {groups[j] for j in range(72) if groups[j] not in mates and scores[q, j] >= right}
        hits.append(1 + len(wrong) <= 5)
    found = pool_topk(scores, groups, session, pool=pool, draws=2, exclude_same_session=True)
    assert found["top5"]["value"] == pytest.approx(np.mean(hits), abs=1e-12)
    assert found["smallest_pool"] < pool


@pytest.mark.parametrize("exclude", [False, True])
def test_chance_is_one_in_the_pool_whatever_the_number_of_images(exclude):
    session = np.repeat(np.arange(100), 6)
    groups = np.arange(600)
    scores = np.random.default_rng(3).normal(size=(600, 600))
    for pool in (20, 80):
        found = pool_topk(scores, groups, session, pool=pool, draws=60, ks=(1, 10), exclude_same_session=exclude)
        assert found["smallest_pool"] == pool
        assert found["top10"]["value"] == pytest.approx(10 / pool, rel=0.12)
        assert found["top10"]["low"] < 10 / pool < found["top10"]["high"]


def test_knowing_only_the_session_gives_one_in_the_session():
    session = np.repeat(np.arange(40), 5)
    scores = (session[:, None] == session) + 0.01 * np.random.default_rng(4).random((200, 200))
    with_mates = pool_topk(scores, np.arange(200), session, pool=100, draws=100)
    without = pool_topk(scores, np.arange(200), session, pool=100, draws=100, exclude_same_session=True)
    assert with_mates["top1"]["value"] == pytest.approx(0.2, abs=0.06) and with_mates["top5"]["value"] == 1
    assert without["top1"]["value"] == 1


def test_pools_repeat_with_the_seed_and_refuse_too_few_vectors():
    groups, session = lab()
    scores = np.random.default_rng(5).normal(size=(240, 240))
    one, two, three = (pool_topk(scores, groups, session, pool=50, draws=20, seed=s) for s in (0, 0, 1))
    assert one == two != three
    with pytest.raises(OutOfRangeError, match="hold out more"):
        pool_topk(scores, groups, session, pool=450)


def test_r2_closed_forms():
    truth = np.array([1.0, 2.0, 3.0, np.nan])
    assert r2(truth, np.array([1.0, 2.0, 3.0, 9.0])) == 1
    assert r2(truth, np.full(4, 2.0)) == 0
    assert r2(truth, np.array([3.0, 2.0, 1.0, 0.0])) == pytest.approx(-3)
    assert np.isnan(r2(np.ones(3), np.ones(3))) and np.isnan(r2([], []))


def test_partial_r2_credits_only_what_is_added():
    rng = np.random.default_rng(6)
    other, image = rng.normal(size=(2, 20000))
    truth = other + image + rng.normal(size=20000)
    assert partial_r2(truth, other + image, other) == pytest.approx(0.5, abs=0.02)
    assert partial_r2(truth, other, other) == 0
    assert r2(truth, other) > 0.3


def test_median_relative_error():
    truth = np.array([1.0, -2.0, 4.0, 0.0, np.nan])
    assert median_relative_error(truth, np.array([1.3, -2.4, 4.0, 5.0, 1.0])) == pytest.approx(0.2)


def test_cosine_gaps_against_a_loop():
    rng = np.random.default_rng(7)
    image, metadata = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 20, 5)))
    groups = rng.integers(0, 6, 20)
    metadata = metadata[groups]
    expected = [
        image[i] @ metadata[i] - np.mean([image[i] @ metadata[j] for j in range(20) if groups[j] != groups[i]])
        for i in range(20)
    ]
    np.testing.assert_allclose(cosine_gaps(image, metadata, groups), expected)
    assert np.isnan(cosine_gaps(image, metadata, np.zeros(20))).all()


def test_interval_covers_the_truth_when_clusters_vary():
    rng = np.random.default_rng(8)
    covered, naive, repeats = 0, 0, 80
    for trial in range(repeats):
        clusters = np.repeat(np.arange(25), 10)
        values = rng.normal(size=25)[clusters] + 0.3 * rng.normal(size=250)
        low, high = mean_interval(clusters, values, draws=200, seed=trial)
        covered += low <= 0 <= high
        low, high = mean_interval(np.arange(250), values, draws=200, seed=trial)
        naive += low <= 0 <= high
    assert 0.85 < covered / repeats <= 0.99
    assert naive / repeats < 0.75  # drawing images one by one would be far too sure


def test_interval_of_a_statistic_of_two_columns():
    rng = np.random.default_rng(9)
    truth = rng.normal(size=400)
    predicted = truth + rng.normal(size=400) * 0.5
    clusters = rng.integers(0, 60, 400)
    low, high = bootstrap_interval(r2, clusters, truth, predicted)
    assert low < r2(truth, predicted) < high and high - low < 0.2
    assert (low, high) == bootstrap_interval(r2, clusters, truth, predicted)
    assert np.isnan(bootstrap_interval(np.mean, np.zeros(5), np.ones(5))).all()


def test_fast_interval_of_a_mean_is_the_general_one():
    rng = np.random.default_rng(10)
    clusters, values = rng.integers(0, 30, 300), rng.normal(size=300)
    fast, general = mean_interval(clusters, values, seed=4), bootstrap_interval(np.mean, clusters, values, seed=4)
    np.testing.assert_allclose(fast, general, rtol=1e-9)
    assert np.isnan(mean_interval(np.zeros(5), np.ones(5))).all()
