"""What each kind of split promises."""

import numpy as np
import pytest

from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.splits import KINDS, split_indices

MATERIALS = ("gold", "silicon", "iron", "platinum", "carbon", "vacuum", "SrTiO3", "GaAs", "MoS2", "TiO2", "CeO2", "ZnO")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four hundred images of series of 1 to 4 frames in some seventy sessions."""
    rng = np.random.default_rng(0)
    paths, materials = [], []
    while len(paths) < 400:
        session, frames = rng.integers(70), rng.integers(1, 5)
        paths += [f"session {session}/{len(paths)}.emd"] * frames
        materials += [MATERIALS[rng.integers(12)]] * frames
    count = len(paths)
    raw = np.array([2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05]) * rng.choice([1.0, 1.5, 2.0], (count, 7))
    images = (np.zeros((8, 8), np.uint16) for _ in paths)
    path = tmp_path_factory.mktemp("split") / "set.h5"
    return open_dataset(write_dataset(path, images, raw, paths, materials=materials))


def labels(data, kind):
    return {"image": data.filepaths, "session": data.sessions.tolist(), "material": data.materials}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_every_image_once_and_no_unit_straddles(data, kind, seed):
    parts = data.split(kind, val=0.15, test=0.2, seed=seed)
    assert sorted(np.concatenate([p.indices for p in parts])) == list(range(len(data)))
    units = [set(labels(p, kind)) for p in parts]
    assert all(units) and not (units[0] & units[1] or units[0] & units[2] or units[1] & units[2])
    files = [set(p.filepaths) for p in parts]
    if kind != "material":
        assert not (files[0] & files[1] or files[0] & files[2] or files[1] & files[2])


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_met_to_half_a_unit(data, kind):
    largest = max(np.unique(labels(data, kind), return_counts=True)[1])
    for seed in range(10):
        _, val, test = data.split(kind, val=0.1, test=0.3, seed=seed)
        assert abs(len(val) - 0.1 * len(data)) <= largest / 2 + 0.5
        assert abs(len(test) - 0.3 * len(data)) <= largest / 2 + 0.5


def test_image_split_spreads_a_session_over_the_parts(data):
    train, _, test = data.split("image", seed=0)
    assert set(train.sessions) & set(test.sessions)


def test_equal_vectors_may_be_on_both_sides(data):
    train, _, test = data.split("session", seed=0)
    assert set(train.groups) & set(test.groups)


def test_same_seed_same_split_and_another_seed_another(data):
    one, two, three = (data.split("session", seed=s)[2].indices for s in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)


def test_order_of_the_images_does_not_matter():
    units = np.repeat([f"s{i}" for i in range(40)], 5)
    shuffled = np.random.default_rng(0).permutation(200)
    straight = set(units[split_indices("session", units, seed=3)[2]])
    assert straight == set(units[shuffled][split_indices("session", units[shuffled], seed=3)[2]])


def test_units_are_drawn_evenly():
    units = np.repeat(np.arange(50), 4)
    times = np.zeros(50)
    for seed in range(300):
        times[np.unique(units[split_indices("session", units, test=0.1, seed=seed)[2]])] += 1
    assert times.sum() == 300 * 5 and times.min() > 10 and times.max() < 55


def test_parts_may_be_empty_on_request(data):
    train, val, test = data.split("session", val=0, test=0.2)
    assert len(val) == 0 and len(train) + len(test) == len(data)


def test_what_cannot_be_split_is_refused(data, tmp_path):
    for shares in ({"val": 0.5, "test": 0.5}, {"val": -0.1}, {"test": 1.0}):
        with pytest.raises(OutOfRangeError, match="leave something"):
            data.split("session", **shares)
    with pytest.raises(OutOfRangeError, match="unknown split 'sessions'"):
        data.split("sessions")
    with pytest.raises(OutOfRangeError, match="into 3 parts"):
        data.view(np.flatnonzero(data.sessions == data.sessions[0])).split("session")
    raw = [[2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05]]
    bare = open_dataset(write_dataset(tmp_path / "bare.h5", [np.zeros((4, 4), np.uint16)], raw, ["a"]))
    with pytest.raises(SchemaError, match="cannot be split by material"):
        bare.split("material")


def test_three_units_give_three_parts():
    parts = split_indices("material", ["a"] * 50 + ["b"] * 30 + ["c"] * 20, val=0.1, test=0.1)
    assert sorted(len(p) for p in parts) == [20, 30, 50] and all(len(p) for p in parts)


def test_large_shares_still_leave_something_to_train_on():
    for seed in range(6):
        parts = split_indices("session", ["a", "b", "c"], val=0.3, test=0.6, seed=seed)
        assert [len(p) for p in parts] == [1, 1, 1]
