"""The ablation study: equal budgets, scores on the validation part only, intervals over seeds, and runs that go on."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.metadata import PARAMETERS
from cimp_core.metrics import bootstrap_interval
from cimp_core.pretrain import PretrainConfig
from cimp_core.results import row_faults
from cimp_core.study import ablation
from cimp_core.study.ablation import curve_runs, scores_of, some_sessions, study, variant_run
from cimp_core.study.seeds import two_way_interval

SMALL = PretrainConfig(
    batch_size=16,
    width=8,
    dim=8,
    hidden=16,
    spectrum=8,
    crop_size=32,
    smallest_crop=32,
    tile=32,
    precision="32-true",
    log_every=32,
    peak_rate=3e-3,
)
COMMON = {
    "split": "session, validation part",
    "profile": "smoke",
    "seeds": [0, 1],
    "twin_version": "t",
    "command": "c",
}
TWO = {"reference": {}, "no_statistics": {"statistics": False}}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Offset is the black level, dwell time the dose; the other five settings are nowhere; current is never known."""
    rng = np.random.default_rng(0)
    count, sessions = 300, 60
    session = np.sort(rng.integers(0, sessions, count))
    plain = np.array([2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05])
    raw = plain * np.exp(0.5 * rng.normal(size=(sessions, 7)))[session] * np.exp(0.2 * rng.normal(size=(count, 7)))
    images = [(20000 + 15000 * row[5] + rng.poisson(row[1] * 5e7, (40, 40))).clip(0).astype(np.uint16) for row in raw]
    raw[:, 3] = np.nan
    path = tmp_path_factory.mktemp("lab") / "lab.h5"
    names = [f"s{s}/{i}.emd" for i, s in enumerate(session)]
    write_dataset(path, images, raw, names, attributes={"twin_version": "t"})
    return open_dataset(path)


@pytest.fixture(scope="module")
def parts(lab):
    return lab.split("session", seed=0)


@pytest.fixture(scope="module")
def found(lab, tmp_path_factory):
    """A whole study of two variants and both curves: its rows by name, its folder, and what it said."""
    work, said = tmp_path_factory.mktemp("work"), []
    options = {"samples": 128, "seeds": [0, 1], "curves": True, "common": COMMON, "say": said.append}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "VARIANTS", TWO)
        patch.setattr(ablation, "DRAWS", 50)
        rows = study(lab, work, SMALL, **options)
    return {r["name"]: r for r in rows}, work, said, options


def test_a_row_for_every_score_with_its_split_and_pool(found, parts):
    rows, _, said, _ = found
    assert [fault for r in rows.values() for fault in row_faults(r)] == []
    sessions, distinct = len(np.unique(parts[0].sessions)), len(np.unique(parts[1].groups))
    names = {f"ablation.top{k}.{v}" for k in (1, 5, 10) for v in TWO}
    names |= {f"ablation.r2.{p}.{v}" for p in PARAMETERS for v in TWO}
    names |= {f"ablation.change.top{k}.no_statistics" for k in (1, 5, 10)}
    names |= {f"ablation.change.r2.{p}.no_statistics" for p in PARAMETERS}
    names |= {f"curve.crops.{n:06d}.top{k}" for n in (16, 32, 64, 128) for k in (1, 5, 10)}
    names |= {f"curve.sessions.{sessions // n:04d}.top{k}" for n in (1, 2, 4, 8) for k in (1, 5, 10)}
    assert set(rows) == names
    for name, r in rows.items():
        assert r["split"] == "session, validation part" and r["seeds"] == [0, 1] and r["twin_version"] == "t"
        assert r["pool"] == (None if ".r2." in name else distinct) and distinct < 450  # fewer: all of them
        if "beam_current" in name:  # never known
            assert r["value"] is None and r["low"] is None
        else:
            assert r["low"] <= r["value"] <= r["high"], r
    assert len(said) == 2 + 8 and all(f"in a pool of {distinct} of the validation part" in line for line in said)


def test_what_is_in_the_image_is_read_and_nothing_else(found):
    rows = found[0]
    assert rows["ablation.r2.detector_offset.reference"]["value"] > 0.5
    assert rows["ablation.r2.inner_collection_angle.reference"]["value"] < 0.3
    assert rows["ablation.top10.reference"]["value"] > rows["ablation.top1.reference"]["value"]


def test_a_change_is_the_variant_minus_the_reference(found):
    rows = found[0]
    for score in ("top1", "top10", "r2.dwell_time", "r2.detector_offset"):
        own, reference = (rows[f"ablation.{score}.{v}"]["value"] for v in ("no_statistics", "reference"))
        assert rows[f"ablation.change.{score}.no_statistics"]["value"] == pytest.approx(own - reference, abs=3e-6)


def test_the_curves_end_in_the_reference(found, parts):
    rows = found[0]
    sessions = len(np.unique(parts[0].sessions))
    for k in (1, 5, 10):
        own = rows[f"ablation.top{k}.reference"]
        for name in (f"curve.crops.000128.top{k}", f"curve.sessions.{sessions:04d}.top{k}"):
            assert {**rows[name], "name": own["name"]} == own


def test_finished_runs_are_not_trained_again(lab, found, monkeypatch):
    rows, work, _, options = found
    monkeypatch.setattr(ablation, "VARIANTS", TWO)
    monkeypatch.setattr(ablation, "DRAWS", 50)
    monkeypatch.setattr(ablation, "pretrain", lambda *a, **k: pytest.fail("trained again"))
    assert {r["name"]: r for r in study(lab, work, SMALL, **options)} == rows


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_the_same(parts, tmp_path, monkeypatch):
    train, val, _ = parts
    run = variant_run("reference", {}, SMALL, 256, 0)
    whole = scores_of(run, train, val, tmp_path / "whole")
    trained, steps = ablation.pretrain, []

    def dying(*arguments, **options):
        def on_step(seen):
            steps.append(seen)
            if seen == 144:
                raise KeyboardInterrupt

        return trained(*arguments, **options, on_step=on_step)

    monkeypatch.setattr(ablation, "pretrain", dying)
    with pytest.raises(KeyboardInterrupt):
        scores_of(run, train, val, tmp_path / "killed")
    assert not (tmp_path / "killed/reference.seed0/scores.json").exists()
    with pytest.raises(KeyboardInterrupt):  # what follows the checkpoint is done again
        scores_of(run, train, val, tmp_path / "killed")
    assert steps == [*range(16, 145, 16), 144]
    monkeypatch.setattr(ablation, "pretrain", trained)
    again = scores_of(run, train, val, tmp_path / "killed")
    np.testing.assert_array_equal(whole["shares"], again["shares"])
    np.testing.assert_array_equal(whole["predicted"], again["predicted"])
    assert not list(tmp_path.glob("**/.*"))  # no temporary file is left


def test_scores_of_other_settings_are_refused(parts, found):
    train, val, _ = parts
    work = found[1]
    with pytest.raises(SchemaError, match="other settings .config.; use another folder"):
        scores_of(variant_run("reference", {"dropout": 0.1}, SMALL, 128, 0), train, val, work)
    with pytest.raises(SchemaError, match="other settings .draws"):
        scores_of(variant_run("reference", {}, SMALL, 128, 0), train, val, work, draws=10)


def test_the_test_part_is_not_looked_at(lab, parts, tmp_path, monkeypatch):
    seen = []
    trained = ablation.pretrain

    class Watched(ablation.Embedder):
        def __call__(self, model, data, **options):
            seen.append(data.indices)
            return super().__call__(model, data, **options)

    monkeypatch.setattr(ablation, "VARIANTS", {"reference": {}})
    monkeypatch.setattr(ablation, "DRAWS", 50)
    monkeypatch.setattr(ablation, "Embedder", Watched)
    monkeypatch.setattr(ablation, "pretrain", lambda t, *a, **k: seen.append(t.indices) or trained(t, *a, **k))
    study(lab, tmp_path, SMALL, samples=16, seeds=[0], common=COMMON, say=lambda text: None)
    used = np.unique(np.concatenate(seen))
    assert np.array_equal(used, np.union1d(parts[0].indices, parts[1].indices))
    assert not np.isin(parts[2].indices, used).any()


def test_probes_do_not_know_the_settings_of_the_validation_part(parts):
    train, val, _ = parts
    torch.manual_seed(0)
    model = ablation.pretrain(train, None, dataclasses.replace(SMALL, samples=64))
    before = ablation.score(model, train, val, pool=20, draws=2)["predicted"]
    shuffled = val.view(np.arange(len(val)))
    shuffled.metadata = val.metadata[::-1] * 3
    after = ablation.score(model, train, shuffled, pool=20, draws=2)["predicted"]
    np.testing.assert_array_equal(after, before)  # nan where a setting was never known


def test_budgets_are_equal_and_only_what_is_named_differs():
    runs = [variant_run(name, TWO[name], SMALL, 4096, 3) for name in TWO]
    one, two = (dataclasses.asdict(run.config) for run in runs)
    assert {k for k in one if one[k] != two[k]} == {"statistics"}
    assert one["samples"] == 4096 and one["seed"] == 3 and 16 <= one["warmup"] < 512
    with pytest.raises(OutOfRangeError, match="unknown setting colour"):
        variant_run("a", {"colour": 1}, SMALL, 256, 0)


def test_every_variant_is_a_setting_that_exists_and_changes_something():
    reference = variant_run("reference", {}, PretrainConfig(), 4096, 0).config
    for name, changed in ablation.VARIANTS.items():
        config = variant_run(name, changed, PretrainConfig(), 4096, 0).config
        assert (config == reference) == (name == "reference"), name


def test_points_of_the_curves():
    runs = curve_runs(SMALL, 4096, 80, seed=2)
    crops = [run.config.samples for name, run in runs.items() if name.startswith("curve.crops")]
    sessions = [run.sessions for name, run in runs.items() if name.startswith("curve.sessions")]
    assert crops == [512, 1024, 2048, 4096] and sessions == [10, 20, 40, None]
    assert runs["curve.crops.000512"].config.warmup == 512 // 12  # a schedule of its own
    assert runs["curve.sessions.0010"].config == runs["curve.crops.004096"].config
    assert len({run.name for run in runs.values()}) == 7


def test_fewer_sessions_are_whole_nested_and_drawn_by_the_seed(parts):
    train = parts[0]
    few, more, other = (some_sessions(train, n, seed) for n, seed in ((5, 0), (10, 0), (5, 1)))
    assert len(np.unique(few.sessions)) == 5 and len(np.unique(more.sessions)) == 10
    assert set(few.indices) < set(more.indices) < set(train.indices) and set(few.indices) != set(other.indices)
    assert np.isin(train.sessions, few.sessions).sum() == len(few)
    assert some_sessions(train, None, 0) is train


def test_an_unknown_variant_is_refused_before_anything_is_trained(lab, tmp_path):
    with pytest.raises(OutOfRangeError, match="no such variant: no_noise; there are reference"):
        study(lab, tmp_path / "work", SMALL, samples=64, seeds=[0], only=["no_noise"], common=COMMON)
    assert not (tmp_path / "work").exists()


def test_interval_over_seeds_and_sessions():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(40), 5)
    value = rng.normal(size=40)[clusters] + rng.normal(size=200)
    one = two_way_interval(np.mean, clusters, [(value,)])
    assert one == pytest.approx(bootstrap_interval(np.mean, clusters, value), abs=0.05)
    assert two_way_interval(np.mean, clusters, [(value,)] * 3) == pytest.approx(one, abs=0.05)
    # Seeds that differ by much more than sessions: of three, all three draws may fall on the lowest.
    low, high = two_way_interval(np.mean, clusters, [(0 * value + s,) for s in (0.0, 1.0, 2.0)], draws=5000)
    assert low == 0 and high == 2
    assert np.isnan(two_way_interval(np.mean, np.zeros(200), [(value,)])).all()


def test_command_line(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "VARIANTS", TWO)
    monkeypatch.setattr(ablation, "DRAWS", 50)
    monkeypatch.setattr(ablation, "PROFILES", {"smoke": SMALL})
    out = tmp_path / "results.json"
    words = f"ablation {lab.path} --work {tmp_path}/work --out {out} --samples 32 --only no_statistics --profile smoke"
    monkeypatch.setattr("sys.argv", words.split())
    ablation.main()
    rows = json.loads(out.read_text())
    assert {r["name"].rsplit(".", 1)[1] for r in rows} == {"no_statistics"} and len(rows) == 10
    assert rows[0]["command"] == "python -m cimp_core.study.ablation DATASET --samples 32 --seeds 0"
    assert "ablation.top1.no_statistics" in capsys.readouterr().out
