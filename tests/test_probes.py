"""Probes of every kind, intervals over seeds, and the endpoints, against data whose answer is known."""

import dataclasses
import functools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import OutOfRangeError, SchemaError, UnreadableFileError
from cimp_core.metadata import PARAMETERS, Normalizer
from cimp_core.metrics import bootstrap_interval, mean_interval, r2
from cimp_core.models import Cimp, CimpConfig
from cimp_core.pretrain import PROFILES
from cimp_core.probe import Predictions, nearest, predict, probe_table
from cimp_core.results import row_faults
from cimp_core.study import endpoints, probes
from cimp_core.study.control import boost, control_estimates
from cimp_core.study.endpoints import TARGETS, endpoint_rows, endpoint_table, few_of_each
from cimp_core.study.probe_rows import below_rows, probe_rows, within_estimate, within_rows
from cimp_core.study.seeds import over_seeds, two_way_interval
from cimp_core.study.shipped import model_rows
from cimp_core.study.statistics_file import of_parts, stored_statistics
from cimp_core.study.supervised import load_supervised, train_supervised

COMMON = {"split": "session", "profile": "smoke", "seeds": [0], "twin_version": None, "command": "a test"}
PLAIN = np.array([2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05])
TINY = CimpConfig(width=8, spectrum=8, dim=16, hidden=16, crop_size=32)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    """A thousand bootstrap draws of every number would take minutes."""
    few = functools.partial(over_seeds, draws=25)
    for module in ("probe_rows", "shipped", "endpoints"):
        monkeypatch.setattr(f"cimp_core.study.{module}.over_seeds", few)
    monkeypatch.setattr("cimp_core.study.control.TREES", 20)


def mean(x):
    return float(np.mean(x))


def test_one_seed_is_the_plain_bootstrap_draw_for_draw():
    rng = np.random.default_rng(0)
    sessions, x = rng.integers(0, 20, 200), rng.normal(size=200)
    assert two_way_interval(mean, sessions, [(x,)], draws=200, seed=3) == bootstrap_interval(
        mean, sessions, x, draws=200, seed=3
    )
    assert two_way_interval(mean, sessions, [(x,)], seed=3) == pytest.approx(mean_interval(sessions, x, seed=3))


def test_equal_seeds_add_nothing_and_unequal_ones_their_own_spread():
    rng = np.random.default_rng(1)
    sessions, x = np.arange(400) // 4, 0.01 * rng.normal(size=400)
    one = two_way_interval(mean, sessions, [(x,)], draws=300)
    assert two_way_interval(mean, sessions, [(x,)] * 3, draws=300) == pytest.approx(one)
    # Three seeds at 0, 1 and 2: the mean of three draws has a standard deviation of sqrt(2/3/3) = 0.47.
    low, high = two_way_interval(mean, sessions, [(x + s,) for s in range(3)], draws=2000)
    assert low == pytest.approx(1 - 1, abs=0.35) and high == pytest.approx(1 + 1, abs=0.35)
    # One draw in 27 takes the first three times, and three in 27 twice with the second: a tenth lies at 1/3.
    tenth, _ = two_way_interval(mean, sessions, [(x + s,) for s in range(3)], draws=2000, level=0.8)
    assert tenth == pytest.approx(1 / 3, abs=0.05)
    value, *interval = over_seeds(mean, sessions, [(x + s,) for s in range(3)], draws=2000)
    assert value == pytest.approx(1, abs=0.01) and tuple(interval) == (low, high)


def test_seeds_share_the_sessions_that_were_drawn():
    """Two seeds whose errors cancel image by image: the sum does not vary, however sessions are drawn."""
    rng = np.random.default_rng(2)
    sessions, x = np.arange(100) // 5, rng.normal(size=100)
    both = two_way_interval(lambda a, b: mean(a) + mean(b), sessions, [(x, -x), (x, -x)], draws=100)
    assert both == pytest.approx((0, 0), abs=1e-12)
    pair = two_way_interval(mean, sessions, [(x,), (-x,)], draws=400)
    alone = two_way_interval(mean, sessions, [(x,)], draws=400)
    assert pair[1] - pair[0] < 0.9 * (alone[1] - alone[0])  # half of the draws take one of each, and these are zero


def test_interval_over_seeds_refuses_what_does_not_fit():
    sessions = np.arange(10)
    with pytest.raises(OutOfRangeError, match=r"\[9\] rows, but there are 10"):
        two_way_interval(mean, sessions, [(np.zeros(9),)])
    with pytest.raises(OutOfRangeError, match="no rows"):
        two_way_interval(mean, sessions, [])
    assert np.isnan(two_way_interval(mean, np.zeros(10), [(np.zeros(10),)])).all()


def test_nearest_is_the_mean_of_the_five_with_the_largest_cosine():
    rng = np.random.default_rng(3)
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rng.normal(size=(n, 6)) for n in (50, 8)))
    target = rng.normal(size=50)
    target[:10] = np.nan
    found = nearest([train, train[:0], test], [target, target[:0]])
    for i, row in enumerate(test):
        order = np.argsort(-(train[10:] @ row))[:5]
        assert found[i] == pytest.approx(target[10:][order].mean())
    assert nearest([train[:12], train, test], [target[:12], target]) == pytest.approx(np.full(8, target[10:12].mean()))


class View:
    def __init__(self, metadata, sessions, raw=None):
        self.metadata, self.sessions = metadata, sessions
        self.normalizer = Normalizer((0, 1, 3, 6), np.array([-24.0, -13, 0.02, -23, 35, -1, -3]), np.full(7, 0.5))
        self.metadata_raw = self.normalizer.restore(metadata) if raw is None else raw

    def __len__(self):
        return len(self.metadata)

    def view(self, count):
        return View(self.metadata[:count], self.sessions[:count], self.metadata_raw[:count])


@pytest.fixture(scope="module")
def three():
    """Features that hold the first parameter; the third is the first; the sixth is known nowhere."""
    rng = np.random.default_rng(4)
    metadata = rng.normal(size=(900, 7))
    metadata[:, 2] = metadata[:, 0] + 0.3 * rng.normal(size=900)
    metadata[:, 5] = np.nan
    metadata[::9, 1] = np.nan
    features = np.concatenate([metadata[:, :1], rng.normal(size=(900, 3))], 1) + 0.05 * rng.normal(size=(900, 4))
    cut = [slice(0, 600), slice(600, 700), slice(700, 900)]
    return [features[c] for c in cut], [View(metadata[c], np.arange(900)[c] // 5) for c in cut]


@pytest.mark.parametrize(
    "regression", [None, nearest, lambda f, t: boost(list(f), list(t))[0]], ids=["ridge", "nearest", "boosted"]
)
def test_every_regression_answers_in_the_same_table(three, regression):
    features, views = three
    predictions = predict(features, views) if regression is None else predict(features, views, regression)
    table = probe_table(predictions, views[2], draws=50)
    assert table.r2["pixel_size"] > 0.7 and table.others_r2["pixel_size"] > 0.6
    assert table.r2["dwell_time"] < 0.1 and table.n["dwell_time"] < 200
    assert table.partial_r2["convergence_angle"] < 0.35  # the features know the first only, which the others give away
    assert table.loc["detector_offset", ["r2", "r2_low", "partial_r2", "median_error"]].isna().all()
    rows = probe_rows("probe.x", [predictions, predictions], views[2], COMMON)
    assert [fault for row in rows for fault in row_faults(row)] == []
    found = {row["name"]: row for row in rows}
    assert len(found) == len(rows) == 3 * 7 + 2  # two below 40 pm
    for name in ("r2", "partial_r2", "median_error"):
        assert found[f"probe.x.{name}.pixel_size"]["value"] == pytest.approx(table[name]["pixel_size"], abs=1e-6)
    assert found["probe.x.r2.detector_offset"]["value"] is None


def test_below_40_pm_is_scored_within_that_range():
    """A probe that knows only whether atoms are resolved explains much over all images and nothing within the range."""
    rng = np.random.default_rng(5)
    raw = np.tile(PLAIN, (400, 1))
    raw[:, 0] = np.where(np.arange(400) % 2, 1e-9, 20e-12) * np.exp(0.3 * rng.normal(size=400))
    normalizer = Normalizer.fit(raw)
    view = View(normalizer.normalize(raw), np.arange(400) // 8, raw)
    view.normalizer = normalizer
    fine = raw[:, 0] < 40e-12
    group = np.where(fine, view.metadata[fine, 0].mean(), view.metadata[~fine, 0].mean())
    assert r2(view.metadata[:, 0], group) > 0.9
    known = view.metadata[:, 0] + 0.01 * rng.normal(size=400)
    by_group, by_lattice = (below_rows("probe", [p], view, COMMON) for p in (group, known))
    assert by_group[0]["value"] == pytest.approx(0, abs=1e-6) and by_lattice[0]["value"] > 0.99
    assert by_group[0]["name"] == "probe.r2.pixel_size_below_40pm"
    assert by_group[1]["value"] == pytest.approx(0.3 * 0.674, abs=0.05)  # of a spread of 0.3 in the logarithm
    two = below_rows("probe", [group, known], view, COMMON)
    assert two[0]["value"] == pytest.approx((by_group[0]["value"] + by_lattice[0]["value"]) / 2, abs=1e-5)


def test_a_probe_that_is_told_the_range_is_fitted_on_that_range_alone():
    """A feature that rises with the pixel size below 40 pm falls above: a probe of all cannot use it, one told can."""
    rng = np.random.default_rng(6)
    raw = np.tile(PLAIN, (900, 1))
    raw[:, 0] = np.where(np.arange(900) % 5 == 0, 20e-12, 1e-9) * np.exp(0.2 * rng.normal(size=900))
    raw[7, 0] = np.nan
    normalizer = Normalizer.fit(raw)
    metadata = normalizer.normalize(raw)
    fine = raw[:, 0] < 40e-12
    middle = np.where(fine, np.log(20e-12), np.log(1e-9))
    rise = np.where(fine, 1, -1) * (np.log(raw[:, 0]) - middle)
    features = np.nan_to_num(np.stack([rise, rng.normal(size=900)], 1))
    cut = [slice(0, 500), slice(500, 600), slice(600, 900)]
    parts = [View(metadata[c], np.arange(900)[c] // 8, raw[c]) for c in cut]
    for part in parts:
        part.normalizer = normalizer
    split = [features[c] for c in cut]
    told = within_rows("probe", [split], parts, COMMON)
    assert [made["name"] for made in told] == [
        "probe.r2.pixel_size_within_40pm", "probe.median_error.pixel_size_within_40pm"
    ]  # fmt: skip
    assert told[0]["value"] > 0.99 and told[1]["value"] < 0.02 and not any(row_faults(made) for made in told)
    not_told = below_rows("probe", [predict(split, parts).image[:, 0]], parts[2], COMMON)
    assert not_told[0]["value"] < 0
    estimate = within_estimate(split, parts)
    assert np.array_equal(np.isfinite(estimate), fine[600:])
    # What lies outside the range, training images included, has no part in it.
    for part, block in zip(parts, split, strict=True):
        block[~(part.metadata_raw[:, 0] < 40e-12)] = 1e6
    np.testing.assert_array_equal(within_estimate(split, parts), estimate)
    few = [parts[0].view(5), parts[1].view(5), parts[2]]  # one such image each
    assert np.isnan(within_estimate([split[0][:5], split[1][:5], split[2]], few)).all()
    assert within_rows("probe", [[split[0][:5], split[1][:5], split[2]]], few, COMMON)[0]["value"] is None


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Sessions whose offset is the black level and whose pixel size the period of stripes; the others are nowhere."""
    rng = np.random.default_rng(0)
    count, sessions = 240, 60
    session = np.sort(rng.integers(0, sessions, count))
    raw = PLAIN * np.exp(0.4 * rng.normal(size=(sessions, 7)))[session] * np.exp(0.1 * rng.normal(size=(count, 7)))
    raw[3, 3] = raw[50, 6] = np.nan

    def images():
        for row in raw:
            stripes = 1 + np.cos(np.arange(48) * row[0] * 3e10)
            yield (4000 - 6000 * row[5] + 1000 * stripes + rng.poisson(30, (48, 48))).astype(np.uint16)

    path = tmp_path_factory.mktemp("lab") / "lab.h5"
    names = [f"s{s}/{i}.emd" for i, s in enumerate(session)]
    write_dataset(path, images(), raw, names, attributes={"twin_version": "t"})
    return open_dataset(path)


@pytest.fixture(scope="module")
def measured(lab, tmp_path_factory):
    path = tmp_path_factory.mktemp("statistics") / "lab.npz"
    return path, stored_statistics(lab, path, workers=1)


def test_statistics_are_measured_once_and_only_for_their_own_data_set(lab, measured, monkeypatch, tmp_path):
    path, values = measured

    def never(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr("cimp_core.study.statistics_file.dataset_statistics", never)
    np.testing.assert_array_equal(stored_statistics(lab, path), values)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(SchemaError, match="statistics of lab.h5"):
        stored_statistics(lab.view(range(1, 240)), path)
    with pytest.raises(SchemaError):
        stored_statistics(lab.view([1, 0, *range(2, 240)]), path)
    (tmp_path / "a.npz").write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnreadableFileError, match=r"a\.npz"):
        stored_statistics(lab, tmp_path / "a.npz")
    parts = lab.split("session", seed=0)
    for part, rows in zip(parts, of_parts(values, lab, parts), strict=True):
        np.testing.assert_array_equal(rows, values[part.indices])


def test_untrained_encoder_has_settled_norms_and_gives_the_same_rows_again(lab):
    one, two = (probes.untrained(TINY, lab, seed=1) for _ in range(2))
    other = probes.untrained(TINY, lab, seed=2)
    z, again, different = (m.embed_images([lab.image(0), lab.image(9)], crops=1) for m in (one, two, other))
    np.testing.assert_array_equal(z, again)
    assert not np.allclose(z, different) and not one.training
    norm = one.image_encoder.stem[1] if hasattr(one.image_encoder, "stem") else None
    assert norm is None or (not torch.equal(norm.running_mean, torch.zeros(TINY.width)) and norm.momentum == 0.1)


@pytest.fixture(scope="module")
def models():
    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        made.append(Cimp(TINY).eval())
    return made


def test_model_rows_over_seeds_are_means_and_keep_their_names(lab, models):
    options = {"pool": 12, "draws": 10, "profile": "smoke"}
    one, two = (model_rows([m], lab, **options) for m in models)
    both = model_rows(models, lab, seeds=[0, 1], **options)
    assert [fault for row in both for fault in row_faults(row)] == []
    assert [r["name"] for r in one] == [r["name"] for r in both] and len(both) == 12 + 1 + 2 * (3 * 7 + 4)
    for a, b, made in zip(one, two, both, strict=True):
        assert made["seeds"] == [0, 1] and a["seeds"] == [0]
        if a["value"] is not None:
            assert made["value"] == pytest.approx((a["value"] + b["value"]) / 2, abs=2e-6), made["name"]


class Knowing:
    """A model that knows every setting up to a small error: its embeddings are the settings themselves."""

    def __init__(self, data, error, seed):
        rng = np.random.default_rng(seed)
        self.data, self.config = data, dataclasses.replace(TINY, dim=8)
        self.rows = self.unit(data.metadata + error * rng.normal(size=data.metadata.shape))

    def unit(self, metadata):
        metadata = np.nan_to_num(metadata)
        z = np.concatenate([metadata, np.sqrt((100 - (metadata**2).sum(1, keepdims=True)).clip(0))], 1)
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    def embed_metadata(self, raw):
        return self.unit(self.data.normalizer.normalize(raw))


def test_endpoints_of_a_model_that_knows_and_of_one_that_guesses(lab, measured, monkeypatch):
    def embed(model, parts, **_):
        return [model.rows[part.indices] for part in parts]

    monkeypatch.setattr(endpoints, "embed_parts", embed)
    options = {"pool": 20, "draws": 20, "profile": "smoke"}
    knowing = [Knowing(lab, 0.02, seed) for seed in (0, 1)]
    rows = endpoint_rows(knowing, lab, measured[1], seeds=[0, 1], **options)
    assert [fault for row in rows for fault in row_faults(row)] == []
    table = endpoint_table(rows)
    assert list(table.index[:8]) == [name.removeprefix("endpoint.") for name in TARGETS] and len(table) == 4 + 2 * 7 + 2
    # In a pool this small the control is too good to be beaten twofold.
    assert (table["met"][1:8] == "yes").all() and table.low["top1_over_control"] > 1.2
    assert (table["met"][8:] == "").all() and (table["seeds"] == 2).all()
    assert table.value["top1_over_ceiling"] < table.value["top1_over_ceiling.sd020"]
    guessing = endpoint_table(endpoint_rows([Knowing(lab, 30.0, 0)], lab, measured[1], **options))
    # Where the control knows nothing either, which of two guesses is better is chance.
    readable = [
        "top1_over_control",
        "top1_over_ceiling",
        "r2_minus_control.detector_offset",
        "r2.pixel_size_within_40pm",
        "r2.pixel_size_below_40pm",
    ]
    assert (guessing["met"][readable] == "no").all() and guessing.value["top1_over_control"] < 1
    # The ratio is that of the two Top-1, and the difference that of the two R2.
    parts = lab.split("session", seed=0)
    estimate, _ = control_estimates(of_parts(measured[1], lab, parts), [p.metadata for p in parts[:2]])
    truth, ours = parts[2].metadata[:, 5], predict(embed(knowing[0], parts), parts).image[:, 5]
    second = predict(embed(knowing[1], parts), parts).image[:, 5]
    expected = (r2(truth, ours) + r2(truth, second)) / 2 - r2(truth, estimate[:, 5])
    assert table.value["r2_minus_control.detector_offset"] == pytest.approx(expected, abs=1e-5)


def test_a_control_that_learnt_from_more_is_harder_to_beat(lab, measured, monkeypatch):
    """Given the test images themselves, which no control is, it knows their offset better, and finds more of them."""
    monkeypatch.setattr(endpoints, "embed_parts", lambda model, parts, **_: [model.rows[p.indices] for p in parts])
    options = {"pool": 20, "draws": 20, "profile": "smoke"}
    knowing = [Knowing(lab, 0.02, 0)]
    without, given = (
        endpoint_table(endpoint_rows(knowing, lab, measured[1], more=more, **options)).value
        for more in (None, (measured[1], lab.metadata_raw))
    )
    names = ["top1_over_control", "r2_minus_control.detector_offset"]
    assert (given[names] < without[names] - 0.01).all()
    assert given["top1_over_ceiling"] == without["top1_over_ceiling"]  # the model is the same


def test_few_of_each_session_are_its_first_images(lab):
    few = few_of_each(lab, 2)
    assert set(few.sessions) == set(lab.sessions)
    for session in np.unique(lab.sessions):
        expected = lab.indices[lab.sessions == session][:2]
        np.testing.assert_array_equal(few.indices[few.sessions == session], expected)


def test_a_target_is_met_by_the_lower_end_and_zero_has_to_be_exceeded():
    def line(name, value, low, high):
        return {"name": name, "value": value, "low": low, "high": high, "seeds": [0]}

    rows = [
        line("endpoint.top1_over_control", 3.0, 2.0, 4.0),
        line("endpoint.top1_over_ceiling", 0.9, 0.4999, 1.0),
        line("endpoint.r2_minus_control.dwell_time", 0.1, 0.0, 0.2),
        line("endpoint.r2_minus_control.pixel_size", 0.1, 1e-6, 0.2),
        line("endpoint.r2.pixel_size_below_40pm", None, None, None),
        line("endpoint.top1_over_ceiling.sd010", 0.7, 0.6, 0.8),
        line("probe.r2.pixel_size", 0.7, 0.6, 0.8),
    ]
    table = endpoint_table(rows)
    assert table["met"].to_dict() == {
        "top1_over_control": "yes", "top1_over_ceiling": "no", "r2_minus_control.dwell_time": "no",
        "r2_minus_control.pixel_size": "yes", "r2.pixel_size_below_40pm": "not measured", "top1_over_ceiling.sd010": "",
    }  # fmt: skip
    assert table["target"].tolist() == ["≥ 2", "≥ 0.5", "> 0", "> 0", "≥ 0.5", ""]
    with pytest.raises(SchemaError, match="occur twice"):
        endpoint_table([rows[0], rows[0]])
    assert isinstance(endpoint_table([]), pd.DataFrame) and endpoint_table([]).empty


QUICK = dataclasses.replace(
    PROFILES["smoke"], samples=64 * 80, batch_size=64, warmup=640, peak_rate=1e-2, weight_decay=0.0, width=8, dim=32,
    crop_size=48, smallest_crop=48, tile=48, dropout=0.0, log_every=640, validate_every=1_280, checkpoint_every=640,
    mask_absolute=0.0, flips=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def network(lab, tmp_path_factory):
    """Overfitted on purpose: 64 images, seen eighty times."""
    folder = tmp_path_factory.mktemp("supervised")
    few = lab.view(range(64))
    return few, folder, train_supervised(few, lab.view(range(64, 100)), QUICK, folder)


def test_supervised_network_learns_a_tiny_set_by_heart(network):
    few, folder, model = network
    predicted, truth = model.predict(few, crops=1), few.metadata
    for j, name in enumerate(PARAMETERS):
        assert r2(truth[:, j], predicted[:, j]) > 0.8, name
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.2 * log[0]["loss"] and "val_error" in log[-1]
    # Loaded weights lie otherwise in memory, so sums are taken in another order.
    np.testing.assert_allclose(load_supervised(folder).predict(few, crops=1), predicted, atol=1e-5)
    assert load_supervised(folder).seed == 0


def test_supervised_training_resumes_bit_for_bit_and_an_unfinished_one_is_refused(network, lab, tmp_path):
    few = network[0]
    short = dataclasses.replace(QUICK, samples=64 * 12)
    whole = train_supervised(few, None, short)
    train_supervised(few, None, short, tmp_path, stop=7)
    with pytest.raises(SchemaError, match="448 of 768 crops"):
        load_supervised(tmp_path)
    resumed = train_supervised(few, None, short, tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    other = train_supervised(few, None, dataclasses.replace(short, seed=1))
    assert not torch.equal(other.head.weight, whole.head.weight)
    with pytest.raises(UnreadableFileError, match="train one first"):
        load_supervised(tmp_path / "nothing")


def test_missing_targets_leave_no_mark(network):
    from cimp_core.study.supervised import _loss

    model = network[2]
    x = torch.rand(4, 48, 48) * 1000
    target = torch.zeros(4, 7)
    target[1, 2] = float("nan")
    moved = target.clone()
    moved[0, 0] = 1.0
    absolute = torch.ones(4, dtype=torch.bool)
    with torch.no_grad():
        output = model(x, absolute)
        expected = (output.square().sum() - output[1, 2] ** 2) / 27
        assert _loss(model, x, target, absolute, None)[0] == pytest.approx(expected.item(), rel=1e-5)
    loss = _loss(model, x, torch.full((4, 7), float("nan")), absolute, None)[0]
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss == 0 and gradients and all(torch.isfinite(g).all() for g in gradients)


def test_crops_prepared_once_are_read_as_they_are(network, tmp_path):
    from cimp_core.models.encoders import prepare
    from cimp_core.study.supervised import _loss

    few, _, model = network
    x, y = torch.rand(2, 4, 48, 48) * 1000
    rest = torch.zeros(4, 7), torch.ones(4, dtype=torch.bool), None
    with torch.no_grad():
        own = _loss(model, x, *rest)[0]
        assert _loss(model, x, *rest, *prepare(x))[0] == pytest.approx(own.item(), rel=1e-5)
        assert _loss(model, x, *rest, *prepare(y))[0] != pytest.approx(own.item(), rel=1e-3)
    short = dataclasses.replace(QUICK, samples=128, views=2)
    train_supervised(few, None, short, tmp_path / "a", views=tmp_path / "views")
    assert json.loads((tmp_path / "views/views.json").read_text())["done"] == 128
    again = train_supervised(few, None, short, tmp_path / "b", views=tmp_path / "views")
    assert torch.equal(again.head.weight, load_supervised(tmp_path / "a").head.weight)
    train_supervised(few, None, short, tmp_path / "c")
    assert (tmp_path / "c/views/views.json").exists()


def test_supervised_predictions_are_its_own_outputs(network, lab, models):
    model = network[2]
    parts = lab.split("session", seed=0)
    found = probes.supervised_predictions(model, parts)
    np.testing.assert_allclose(found.image, model.predict(parts[2]), rtol=1e-6)
    assert isinstance(found, Predictions) and not np.isnan(found.joint).any()


def test_study_makes_every_kind_of_row(network, lab, models, measured):
    rows = probes.study_rows(
        lab, models, seeds=[0, 1], statistics=measured[1], supervised=[network[2]], profile="smoke"
    )
    assert [fault for row in rows for fault in row_faults(row)] == []
    kinds = {row["name"].split(".")[1]: row["seeds"] for row in rows}
    assert kinds == {"knn": [0, 1], "untrained": [0, 1], "statistics": [0], "supervised": [0]}
    assert len({row["name"] for row in rows}) == len(rows) == 3 * (3 * 7 + 4) + (3 * 7 + 2)
    found = {row["name"]: row["value"] for row in rows}
    assert found["probe.statistics.r2.detector_offset"] > 0.9
