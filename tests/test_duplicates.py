"""The same recording twice among many: what comparing every pair finds, by a search that does not."""

import numpy as np
import pytest

from cimp_core.auditing import duplicates
from cimp_core.auditing.duplicates import SAME_NOISE, find_duplicates
from cimp_core.auditing.measuring import FINGERPRINT, Measured

NONE = np.zeros(0, np.float32)


def measured(number, mark, shape=(64, 64)):
    return Measured(shape, True, False, NONE, NONE, 0.0, 0.0, str(number), mark, NONE)


def marks(count, share=1.0, seed=0):
    """Noise of images, zero but in a share of the points; every tenth is that of an earlier one, more or less."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, FINGERPRINT)) * (rng.random((count, FINGERPRINT)) < share)
    for k in range(5, count, 10):
        first, c = rows[rng.integers(k)], rng.uniform(SAME_NOISE - 0.03, 1)
        rows[k] = c * first + np.sqrt(1 - c**2) * rng.standard_normal(FINGERPRINT) * (first != 0)
    rows[-1] = rows[-2] = rows[3]  # three of one kind: the first is named for both
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.02], ids=["all points", "a third", "hardly any"])
def test_the_search_among_many_finds_what_comparing_every_pair_finds(monkeypatch, share):
    images = [measured(i, mark) for i, mark in enumerate(marks(700, share))]
    monkeypatch.setattr(duplicates, "EXHAUSTIVE", 10_000)
    expected = find_duplicates(images)
    monkeypatch.setattr(duplicates, "EXHAUSTIVE", 0)
    found = find_duplicates(images)
    assert 30 < len(expected) < 100 and [d[:2] for d in found] == [d[:2] for d in expected]
    np.testing.assert_allclose([d.correlation for d in found], [d.correlation for d in expected], atol=1e-5)
    assert [d.first for d in found if d.index >= 698] == [3, 3]


def test_few_pairs_are_compared_among_many(monkeypatch):
    """Of noise without copies next to no pair is compared; the count would be half of the square otherwise."""
    rows = np.random.default_rng(1).standard_normal((3000, FINGERPRINT)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    monkeypatch.setattr(duplicates, "_every_pair", None)
    compared, einsum = [], np.einsum
    monkeypatch.setattr(np, "einsum", lambda form, a, b: compared.append(len(a)) or einsum(form, a, b))
    assert duplicates._alike_in_signs(rows) == {}
    assert 0 < sum(compared) < 1000


def test_only_images_of_one_size_are_compared(monkeypatch):
    monkeypatch.setattr(duplicates, "EXHAUSTIVE", 0)
    mark = marks(10)[0]
    assert find_duplicates([measured(0, mark), measured(1, mark, (64, 65))]) == []
    assert len(find_duplicates([measured(0, mark), measured(1, mark)])) == 1
