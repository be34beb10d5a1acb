"""Average precision with several right answers, against plain loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cimp_core.metrics_ranking import average_precision, structure_precisions, wrong_ahead


def plain(scores, right, wrong):
    """Walk down the ranking, wrong before right where scores are equal, and average the precision at right ones."""
    entries = [(-s, i in right, i) for i, s in enumerate(scores) if i in right or i in wrong]
    hits, precisions = 0, []
    for total, (_, good, _) in enumerate(sorted(entries), 1):
        if good:
            hits += 1
            precisions.append(hits / total)
    return sum(precisions) / len(precisions)


def cases():
    rng = np.random.default_rng(5)
    structure = np.repeat(np.arange(6), 8)
    view = structure * 4 + np.tile(np.repeat(np.arange(4), 2), 6)
    prototype = structure // 2
    scores = np.round(rng.normal(size=(48, 48)) + (structure[:, None] == structure) * 0.7, 1)  # many equal scores
    return scores, structure, view, prototype


def test_each_precision_is_that_of_a_walk_down_the_ranking():
    scores, structure, view, prototype = cases()
    query = np.arange(0, 48, 5)
    found = structure_precisions(scores[query], query, structure, view, prototype)
    for i, q in enumerate(query):
        mine = {j for j in range(48) if structure[j] == structure[q] and j != q}
        same = {j for j in mine if view[j] == view[q]}
        others = {j for j in range(48) if structure[j] != structure[q]}
        far = {j for j in others if prototype[j] != prototype[q]}
        assert found["all"][i] == pytest.approx(plain(scores[q], mine, others))
        assert found["same_view"][i] == pytest.approx(plain(scores[q], same, others))
        assert found["other_view"][i] == pytest.approx(plain(scores[q], mine - same, others))
        assert found["other_prototypes"][i] == pytest.approx(plain(scores[q], mine, far))


def test_without_equal_scores_it_is_scikit_learns():
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, right = rng.normal(size=30), rng.random(30) < 0.3
        right[0] = True
        ahead = wrong_ahead(scores, np.flatnonzero(right), ~right)
        assert average_precision(ahead) == pytest.approx(average_precision_score(right, scores))


def test_closed_forms():
    assert average_precision(np.zeros(23, int)) == 1
    assert average_precision(np.array([3])) == 0.25
    assert average_precision(np.array([1, 0])) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(average_precision(np.array([], int)))
    # Equal scores everywhere: everything wrong comes first.
    assert wrong_ahead(np.zeros(5), np.array([0, 1]), np.array([False, False, True, True, True])).tolist() == [3, 3]
