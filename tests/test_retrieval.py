"""Retrieval, probes and the commands that use them, against data whose answer is known."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cimp_core import weights
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import PARAMETERS, Acquisition, Normalizer
from cimp_core.models import Cimp, CimpConfig
from cimp_core.probe import fit_ridge, ridge_probe
from cimp_core.retrieval import describe_difference, embed_dataset, evaluate, prepare_dataset, rank_metadata
from cimp_core.study import embedder
from cimp_core.study.embedder import Embedder
from cimp_core.study.rows import print_rows

SETTINGS = Acquisition(20e-12, 2e-6, 21.4e-3, 50e-12, 35.0, -1.2, 60e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 images in 20 sessions of 3; the first two of a session share their settings."""
    rng = np.random.default_rng(0)
    raw = np.repeat(np.tile(SETTINGS.vector(), (40, 1)) * rng.uniform(0.5, 1.5, (40, 7)), [2, 1] * 20, axis=0)
    images = rng.integers(0, 65535, (60, 48, 48)).astype(np.uint16)
    paths = [f"session{i // 3}/{i}.emd" for i in range(60)]
    return open_dataset(write_dataset(tmp_path_factory.mktemp("r") / "d.h5", images, raw, paths))


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    model = Cimp(CimpConfig(width=8, dim=16, hidden=32, crop_size=48).with_normalizer(data.normalizer))
    model.image_encoder(torch.from_numpy(np.stack([data.image(i) for i in range(16)]).astype(np.float32)))
    return model.eval()


def one_hot(ids):
    return np.eye(ids.max() + 1)[ids]


def test_perfect_embeddings_are_always_right_and_equal_ones_are_chance(model, data):
    perfect = one_hot(data.groups)
    table = evaluate(model, data, pool=20, draws=20, embeddings=(perfect, perfect))
    assert (table[["top1", "top5", "top10", "top1_low"]] == 1).all(axis=None)
    same = np.ones((60, 4))
    table = evaluate(model, data, pool=20, draws=20, embeddings=(same, same))
    # All candidates tie, which counts against.
    assert (table[["top1", "top5", "top10"]] == 0).all(axis=None)


def test_directions_are_told_apart(model, data):
    rng = np.random.default_rng(2)
    images, settings = rng.standard_normal((2, 60, 8))
    settings[0] *= 100  # the nearest of all, or the farthest, to every image
    table = evaluate(model, data, pool=40, draws=3, embeddings=(images, settings))
    back = evaluate(model, data, pool=40, draws=3, embeddings=(settings, images))
    assert table.loc["image_to_metadata", "top10"] == back.loc["metadata_to_image", "top10"]
    assert table.loc["image_to_metadata", "top10"] != table.loc["metadata_to_image", "top10"]
    assert (table["pool"] == 40).all() and (table["sessions"] == 20).all()
    with pytest.raises(OutOfRangeError, match="there are 40"):
        evaluate(model, data, pool=41, draws=1, embeddings=(images, settings))


def test_rivals_of_the_own_session_can_be_left_out(model, data):
    """Embeddings that know the session and nothing else are right half the time, or always without its rivals."""
    rng = np.random.default_rng(3)
    session = one_hot(data.sessions)
    noisy = tuple(session + 0.01 * rng.standard_normal((2, 60, session.shape[1])))
    with_rivals = evaluate(model, data, pool=30, draws=20, embeddings=noisy)
    without = evaluate(model, data, pool=30, draws=20, embeddings=noisy, exclude_same_session=True)
    assert (without["top1"] == 1).all()
    assert (with_rivals["top1"] < 0.85).all() and (with_rivals["top5"] == 1).all()


def test_evaluate_embeds_images_and_settings_itself(model, data):
    rows = embed_dataset(model, data, crops=1), model.embed_metadata(data.metadata_raw)
    mine = evaluate(model, data, pool=20, draws=5, crops=1)
    np.testing.assert_allclose(mine["top10"], evaluate(model, data, pool=20, draws=5, embeddings=rows)["top10"])
    assert (mine["crops"] == 1).all()


def test_embed_dataset_is_embed_images_in_chunks(model, data):
    images = [data.image(i) for i in range(60)]
    np.testing.assert_allclose(embed_dataset(model, data, chunk=7), model.embed_images(images), atol=1e-6)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize(("crops", "size"), [(1, 48), (4, 64), (4, None), (None, None)])
def test_an_embedder_gives_every_model_what_it_gives_alone(data, monkeypatch, crops, size, features):
    """Two models without convolutions share one preparation; one with them is embedded from pixels, as always."""
    torch.manual_seed(0)
    one, two, seeing = (Cimp(CimpConfig(width=w, dim=16, hidden=16, spectrum=4, crop_size=80)) for w in (0, 0, 8))
    few, embed, made = data.view(range(9)), Embedder(), []
    monkeypatch.setattr(embedder, "prepare_dataset", lambda *a, **k: made.append(k) or prepare_dataset(*a, **k))
    for model in (one, two, seeing):
        rows = embed(model, few, crops=crops, size=size, features=features)
        alone = embed_dataset(model, few, crops=crops, size=size, features=features)
        np.testing.assert_allclose(rows, alone, atol=2e-5)
    assert len(made) == 1
    with pytest.raises(OutOfRangeError, match="width 8 sees pixels"):
        seeing.embed_prepared(prepare_dataset(few))


def test_an_embedder_keeps_crops_of_other_images_and_sizes_apart(data):
    torch.manual_seed(0)
    model, embed = Cimp(CimpConfig(width=0, dim=16, hidden=16, spectrum=4)), Embedder()
    for few in (data.view(range(3)), data.view(range(3, 6))):
        for options in ({"crops": 1, "size": 40}, {"crops": 1, "size": 56}, {"crops": 4, "size": 40}):
            expected = embed_dataset(model, few, **options)
            np.testing.assert_allclose(embed(model, few, **options), expected, atol=2e-5)


def test_an_embedder_gives_no_rows_for_no_images(data):
    model = Cimp(CimpConfig(width=0, dim=16, hidden=16, spectrum=4))
    assert Embedder()(model, data.view([])).shape == (0, 16)


def test_rows_are_printed_whole_and_an_unknown_number_as_nan(capsys):
    print_rows([{"name": "a", "value": 0.5, "low": None, "high": 1}, {"name": "bcd", "value": 2, "low": 1, "high": 3}])
    assert capsys.readouterr().out == "a   0.500 [nan, 1.000]\nbcd 2.000 [1.000, 3.000]\n"


def test_what_is_prepared_keeps_the_order_of_mixed_sizes(monkeypatch):
    """Three shapes, two of them off the scale, through chunks of two: each row is its own image's."""
    torch.manual_seed(0)
    model, rng = Cimp(CimpConfig(width=0, dim=16, hidden=16, spectrum=4)), np.random.default_rng(0)
    images = [rng.integers(0, 60000, s).astype(np.uint16) for s in [(40, 40), (64, 48), (64, 48), (40, 40), (33, 70)]]

    class Few:
        path = "few.h5"

        def __len__(self):
            return len(images)

        def image(self, i):
            return images[i]

        def on_scale(self, i):
            return i not in (1, 3)

    with pytest.warns(UserWarning, match="2 of 5 images embedded without absolute intensity"):
        prepared = prepare_dataset(Few(), chunk=2)
    expected = model.embed_images(images, absolute=[True, False, True, False, True])
    np.testing.assert_allclose(model.embed_prepared(prepared, batch=2), expected, atol=1e-5)


def test_rank_metadata_sorts_by_cosine_and_says_what_differs(model, data):
    candidates = [data.acquisition(i) for i in range(0, 60, 3)]
    ranked = rank_metadata(model, data.image(4), candidates)
    assert (np.diff(ranked["cosine"]) <= 0).all()
    expected = model.embed_metadata(candidates) @ model.embed_images([data.image(4)])[0]
    np.testing.assert_allclose(ranked["cosine"], expected[ranked["candidate"]], atol=1e-6)
    np.testing.assert_allclose(ranked[list(PARAMETERS)], data.metadata_raw[::3][ranked["candidate"]])
    assert set(ranked["differs"]) == {"no known setting"}


def test_differences_are_namedwith_units_and_prefixes():
    own = SETTINGS.vector()
    other = SETTINGS.replace(beam_current=100e-12, detector_offset=-0.6, dwell_time=2.01e-6).vector()
    assert describe_difference(own, other) == "beam current 50 pA -> 100 pA, detector offset -1.2 -> -0.6"
    assert describe_difference(own, own) == "nothing"
    assert describe_difference(SETTINGS.replace(beam_current=None).vector(), other) == "detector offset -1.2 -> -0.6"
    assert "convergence angle 21.4 mrad -> 10 mrad" in describe_difference(
        own, SETTINGS.replace(convergence_angle=0.01).vector()
    )


def test_ridge_equals_the_normal_equations_and_chooses_on_validation():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((80, 5)), np.array([1.0, -2, 0, 0.5, 0])
    y = x @ w + 3 + 0.01 * rng.standard_normal(80)
    probe = fit_ridge(x[:60], y[:60], x[60:], y[60:])
    z = (x[:60] - x[:60].mean(0)) / x[:60].std(0)
    expected = np.linalg.solve(z.T @ z + probe.alpha * 60 * np.eye(5), z.T @ (y[:60] - y[:60].mean()))
    np.testing.assert_allclose(probe.weights, expected, rtol=1e-8)
    np.testing.assert_allclose(probe.predict(x[60:]), y[60:], atol=0.05)
    # On pure noise the largest penalty wins, on a clean line a small one.
    noise = fit_ridge(x[:60], rng.standard_normal(60), x[60:], rng.standard_normal(20))
    assert probe.alpha < 1e-2 < noise.alpha
    with pytest.raises(OutOfRangeError, match="at least two known"):
        fit_ridge(x, np.full(80, np.nan), x, y)


class View:
    def __init__(self, metadata, sessions):
        self.metadata, self.sessions = metadata, sessions
        self.normalizer = Normalizer((0, 1, 3, 6), np.array([-24.0, -13, 0.02, -23, 35, -1, -3]), np.full(7, 0.5))


def test_probe_finds_what_is_there_and_partial_r2_only_what_the_others_lack():
    rng = np.random.default_rng(0)
    sessions = np.arange(400) // 4
    targets = rng.standard_normal((400, 7))
    targets[:, 1] = targets[:, 0]  # the second follows from the first
    own = rng.standard_normal(400)
    targets[:, 3] = targets[:, 5] + own  # half of the fourth follows from the sixth, half is its own
    targets[7, 4] = np.nan
    features = np.concatenate(
        [targets[:, [0, 2]], own[:, None], rng.standard_normal((400, 2))], 1
    ) + 0.1 * rng.standard_normal((400, 5))
    parts = [slice(0, 200), slice(200, 300), slice(300, 400)]
    table = ridge_probe([features[p] for p in parts], [View(targets[p], sessions[p]) for p in parts], draws=100)
    assert list(table.index) == list(PARAMETERS)
    found = table.loc[["pixel_size", "dwell_time", "convergence_angle"]]
    assert (found.r2 > 0.95).all() and (found.r2_low > 0.9).all() and (found.r2_high <= 1).all()
    assert (table.r2.iloc[4:] < 0.1).all()
    assert table.others_r2["dwell_time"] > 0.99 and table.partial_r2["dwell_time"] < 0.2
    assert table.others_r2["convergence_angle"] < 0.1 and table.partial_r2["convergence_angle"] > 0.95
    # What the image adds to the others is all that they leave, though alone it explains but half.
    assert 0.3 < table.r2["beam_current"] < 0.7 and 0.3 < table.others_r2["beam_current"] < 0.7
    assert table.partial_r2["beam_current"] > 0.9
    # 0.1 standard deviations of 0.5 in the logarithm are 5 %; the median of its size is 0.67 of that.
    assert table.median_error["pixel_size"] == pytest.approx(0.034, abs=0.012)


@pytest.fixture(scope="module")
def files(tmp_path_factory, data, model):
    from cimp_core.microscope.velox_writer import write_velox

    folder = tmp_path_factory.mktemp("files")
    write_velox(folder / "a.emd", data.image(0), data.acquisition(0), camera_length=0.1, outer_collection_angle=0.4)
    (folder / "broken.emd").write_bytes(b"no such thing")
    weights.save(model, folder / "w.safetensors", {})
    return folder


def cimp(*arguments):
    from cimp_core.cli import app

    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_embed_command_writes_rows_and_names_what_fails(files, data, model, tmp_path):
    out = tmp_path / "z.npz"
    done = cimp(
        "embed", files / "a.emd", files / "broken.emd", "--out", out, "--weights", files / "w.safetensors", "--json"
    )
    summary = json.loads(done.stdout)
    assert done.exit_code == 1 and list(summary["failed"]) == [str(files / "broken.emd")]
    with np.load(out, allow_pickle=False) as z:
        np.testing.assert_allclose(z["image"], model.embed_images([data.image(0)]), atol=1e-6)
        np.testing.assert_allclose(z["raw"][0], data.metadata_raw[0], rtol=1e-3)
    again = cimp("embed", files / "a.emd", "--out", out, "--weights", files / "w.safetensors")
    assert again.exit_code != 0 and "--force" in str(again.exception)
    table = tmp_path / "z.csv"
    assert cimp("embed", files / "a.emd", "--out", table, "--weights", files / "w.safetensors").exit_code == 0
    assert table.read_text().startswith("file,pixel_size,dwell_time,") and len(table.read_text().splitlines()) == 2


def test_retrieve_command_ranks_the_distinct_settings(files, data):
    options = ["--against", data.path, "--weights", files / "w.safetensors", "--top", 3]
    done = cimp("retrieve", files / "a.emd", *options, "--json")
    assert done.exit_code == 0, done.output
    (answer,) = json.loads(done.stdout)
    assert answer["candidates"] == 40 and len(answer["ranked"]) == 3 and answer["absolute_intensity"]
    cosines = [row["cosine"] for row in answer["ranked"]]
    assert cosines == sorted(cosines, reverse=True)
    for row in answer["ranked"]:
        np.testing.assert_allclose([row[n] for n in PARAMETERS], data.metadata_raw[row["image"]], rtol=1e-6)
    assert "40 distinct settings" in cimp("retrieve", files / "a.emd", *options).stdout


def test_pretrain_command_trains_resumes_and_ships(data, tmp_path):
    out = tmp_path / "run"
    options = ["--profile", "smoke", "--set", "samples=128", "--set", "batch_size=32"]
    options += ["--set", "crop_size=48", "--set", "smallest_crop=48", "--set", "tile=48"]
    done = cimp("pretrain", data.path, "--out", out, *options, "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert weights.sha256(answer["weights"]) == answer["sha256"]
    assert weights.info(answer["weights"])["settings"]["samples"] == 128
    assert {p.name for p in out.iterdir()} == {
        "checkpoint.pt", "log.jsonl", "config.json", "weights.safetensors", "weights.md"
    }  # fmt: skip
    refused = cimp("pretrain", data.path, "--out", out, *options)
    assert refused.exit_code != 0 and "--resume" in str(refused.exception)
    resumed = cimp("pretrain", data.path, "--out", out, *options, "--resume", "--json")
    assert json.loads(resumed.stdout)["sha256"] == answer["sha256"]
    small = ["--set", "smallest_crop=4096"]
    none = cimp("pretrain", data.path, "--out", tmp_path / "none", "--set", "crop_size=4096", *small)
    assert none.exit_code != 0 and "no images as large as 4096 px" in str(none.exception)
    wrong = cimp("pretrain", data.path, "--out", tmp_path / "other", "--set", "lr=1")
    assert wrong.exit_code != 0 and "peak_rate" in str(wrong.exception)


def test_the_prefix_is_chosen_after_rounding():
    from cimp_core.retrieval import with_unit

    assert with_unit(0.9999e-6, "s") == "1 µs" and with_unit(1e-6, "s") == "1 µs"
    assert with_unit(999e-9, "s") == "999 ns" and with_unit(2.5e-11, "A") == "25 pA"
    assert with_unit(1e-9, "m") == "1 nm" and with_unit(0.0, "m") == "0 m"


def test_an_index_of_settings_answers_as_the_data_set_does(files, data, tmp_path, monkeypatch):
    with_weights = ["--weights", files / "w.safetensors"]
    folder = tmp_path / "mine.index"
    made = cimp("index", data.path, "--out", folder, *with_weights, "--json")
    assert made.exit_code == 0, made.output
    summary = json.loads(made.stdout)
    assert summary["rows"] == 40 and summary["kind"] == "exact" and summary["memory_bytes"] == 40 * 16 * 4
    ask = ["retrieve", files / "a.emd", *with_weights, "--json", "--against"]
    (plain,), (indexed,) = (json.loads(cimp(*ask, against).stdout) for against in (data.path, folder))
    monkeypatch.setattr("cimp_core.cli.retrieve.MANY", 39)
    (many,) = json.loads(cimp(*ask, data.path).stdout)
    assert "search" not in plain and indexed["search"]["memory_bytes"] == many["search"]["memory_bytes"] == 2560
    for answer in (indexed, many):
        assert [r["image"] for r in answer["ranked"]] == [r["image"] for r in plain["ranked"]]
        assert [r["differs"] for r in answer["ranked"]] == [r["differs"] for r in plain["ranked"]]
        assert answer["candidates"] == 40
    shown = cimp("retrieve", files / "a.emd", *with_weights, "--against", folder).stdout
    assert "exact search (as saved), 0.0 MB of embeddings" in shown
    again = cimp("index", data.path, "--out", folder, *with_weights)
    assert again.exit_code != 0 and "--force" in str(again.exception)
    other = cimp("retrieve", files / "a.emd", "--against", folder)
    assert other.exit_code != 0 and "made with weights" in str(other.exception)


def test_an_index_of_images_finds_the_image_itself(files, data, tmp_path):
    options = ["--weights", files / "w.safetensors"]
    made = cimp("index", data.path, "--out", tmp_path / "i", "--of", "images", "--kind", "ivf", *options)
    assert made.exit_code == 0 and "60 images, ivf search (asked for)" in made.stdout, made.output
    done = cimp("retrieve", files / "a.emd", "--against", tmp_path / "i", "--top", 1, *options, "--json")
    (answer,) = json.loads(done.stdout)
    (best,) = answer["ranked"]
    assert best["image"] == 0 and best["cosine"] > 0.9999 and answer["search"]["of"] == "images"
