"""Retrieval curves and splits compared: what is known is found, ties are lost, siblings are siblings."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.metadata import PARAMETERS, Acquisition
from cimp_core.metrics import bootstrap_interval, cosine_gaps, pool_topk
from cimp_core.models import Cimp, CimpConfig
from cimp_core.pretrain import PROFILES
from cimp_core.results import row_faults
from cimp_core.retrieval import describe_difference
from cimp_core.study import control, retrieval_curves, splits_compared
from cimp_core.study.retrieval_curves import curve_rows, first_answers, gap_rows, pool_rows, setting_differs, wrong_rows
from cimp_core.study.splits_compared import sibling_parts, sibling_rows, split_rows

SETTINGS = Acquisition(20e-12, 2e-6, 21.4e-3, 50e-12, 35.0, -1.2, 60e-3)
COMMON = {"split": "session", "profile": "smoke", "seeds": [0], "twin_version": None, "command": "x"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """120 images in 40 sessions of 3; the first two of a session share their settings; the first 5 lack the current."""
    rng = np.random.default_rng(0)
    raw = np.repeat(np.tile(SETTINGS.vector(), (80, 1)) * rng.uniform(0.5, 1.5, (80, 7)), [2, 1] * 40, axis=0)
    raw[:5, 3] = np.nan
    images = rng.integers(0, 65535, (120, 64, 64)).astype(np.uint16)
    paths = [f"session{i // 3}/{i}.emd" for i in range(120)]
    labels = [f"material {i // 12}" for i in range(120)]
    file = tmp_path_factory.mktemp("c") / "d.h5"
    return open_dataset(write_dataset(file, images, raw, paths, materials=labels))


class Fixed:
    """A model that knows the settings up to noise; with `noise` of None it answers the same for everything."""

    config = CimpConfig(width=8)  # sees pixels

    def __init__(self, data, noise, seed=0):
        self.data, self.noise, self.seed = data, noise, seed
        self.asked, self.place = [], {data.image(i).tobytes(): i for i in range(len(data))}

    def embed_metadata(self, raw):
        if self.noise is None:
            return np.full((len(raw), 4), 0.5, np.float32)
        z = np.nan_to_num(self.data.normalizer.normalize(np.asarray(raw, float)))
        z = np.column_stack([z, np.full(len(z), 0.1)])
        return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)

    def embed_images(self, images, *, crops=4, size=None, absolute=None, features=False):
        self.asked.append((crops, size))
        rows = [self.place[np.asarray(image).tobytes()] for image in images]
        z = self.embed_metadata(self.data.metadata_raw[rows])
        if self.noise:
            draws = [np.random.default_rng((self.seed, i)).normal(size=z.shape[1]) for i in rows]
            z = z + self.noise / np.sqrt((crops or 1) * (size or 500) / 64) * np.array(draws)
        return z / np.linalg.norm(z, axis=1, keepdims=True)


def by_name(rows):
    assert len({made["name"] for made in rows}) == len(rows)
    assert [fault for made in rows for fault in row_faults(made)] == []
    return {made["name"]: made for made in rows}


OPTIONS = {"pools": (4, 450, None), "crops": (1,), "sizes": (48, 65), "pool": 8, "draws": 30, "profile": "smoke"}


def test_every_row_of_a_model_that_knows_and_of_one_that_answers_always_the_same(data):
    known = by_name(curve_rows([Fixed(data, 0.0)], data, **OPTIONS))
    equal = by_name(curve_rows([Fixed(data, None)], data, **OPTIONS))
    assert set(known) == set(equal)
    tops = [name for name in known if ".top" in name]
    assert len(tops) == (2 + 1 + 1) * 2 * 2 * 3 + 1  # images are 64 pixels: none of 65
    assert all(known[name]["value"] == 1 and known[name]["low"] == 1 for name in tops)
    # constant embeddings tie with everything: they are last, however large the pool
    assert all(equal[name]["value"] == 0 for name in tops if "top1." in name or name.endswith("top1"))
    assert equal["retrieval.curve.pool_0004.top5.image_to_metadata"]["value"] == 1  # four are among the first five
    assert equal["retrieval.curve.gap"]["value"] == pytest.approx(0, abs=1e-6)
    distinct = len(np.unique(data.split("session", seed=0)[2].groups))
    assert known["retrieval.curve.pool_all.top1.image_to_metadata"]["pool"] == distinct
    assert "retrieval.curve.pool_0450.top1.image_to_metadata" not in known


def test_curves_are_those_of_the_embeddings_asked_for(data):
    models = [Fixed(data, 3.0, seed) for seed in (1, 2)]
    rows = by_name(
        curve_rows(models, data, seeds=[5, 9], **{**OPTIONS, "pools": (4, 8), "crops": (1, None), "sizes": (32, 64)})
    )
    assert models[0].asked == [(4, None), (1, 128), (None, None), (1, 32), (1, 64)]  # once each
    part = data.split("session", seed=0)[2]
    name = "retrieval.curve.{}.top1.metadata_to_image.other_sessions"
    asked = (("pool_0004", 4, None, 4), ("crops_01", 1, 128, 8), ("crops_whole", None, None, 8), ("size_032", 1, 32, 8))
    for label, crops, size, pool in asked:
        expected = []
        for model in models:
            images = model.embed_images([part.image(i) for i in range(len(part))], crops=crops, size=size)
            cosine = model.embed_metadata(part.metadata_raw) @ images.T
            options = {"pool": pool, "draws": 30, "exclude_same_session": True}
            expected.append(pool_topk(cosine, part.groups, part.sessions, **options)["top1"]["value"])
        made = rows[name.format(label)]
        assert made["value"] == pytest.approx(np.mean(expected), abs=1e-6)
        assert made["pool"] == pool and made["seeds"] == [5, 9] and made["low"] <= made["value"] <= made["high"]
    one = rows["retrieval.curve.crops_01.top1.image_to_metadata"]["value"]
    assert one < rows["retrieval.curve.crops_whole.top1.image_to_metadata"]["value"]
    sizes = [rows[f"retrieval.curve.size_{n}.top1.image_to_metadata"]["value"] for n in ("032", "064")]
    assert sizes[0] < sizes[1] < one
    falling = [rows[f"retrieval.curve.pool_{p}.top1.image_to_metadata"]["value"] for p in ("0004", "0008")]
    assert falling[0] > falling[1]


def test_seeds_that_differ_widen_the_interval(data):
    rng = np.random.default_rng(3)
    settings = rng.normal(size=(len(data), 8))
    settings = settings[data.groups % len(settings)]
    pairs = [(settings + noise * rng.normal(size=settings.shape), settings) for noise in (0.2, 3.0)]
    both, same = (by_name(pool_rows("a.b", p, data, COMMON, pool=40, draws=10)) for p in (pairs, [pairs[1]] * 2))
    name = "a.b.top1.image_to_metadata"
    assert both[name]["high"] - both[name]["low"] > 1.5 * (same[name]["high"] - same[name]["low"])
    single = by_name(pool_rows("a.b", pairs[1:], data, COMMON, pool=40, draws=10))
    assert same[name]["value"] == single[name]["value"]


def test_gap_has_the_interval_over_sessions(data):
    rng = np.random.default_rng(4)
    image, metadata = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in rng.normal(size=(2, len(data), 5)))
    image = np.where(data.sessions[:, None] % 2, metadata, -image)  # sessions are all right or by chance
    made = gap_rows([(image, metadata)], data, COMMON)[0]
    gaps = cosine_gaps(image, metadata, data.groups)
    assert made["value"] == pytest.approx(gaps.mean(), abs=1e-6)
    low, high = bootstrap_interval(np.mean, data.sessions, gaps)
    assert (made["low"], made["high"]) == pytest.approx((low, high), abs=0.025) and low < high
    low, high = bootstrap_interval(np.mean, np.arange(len(gaps)), gaps)
    assert made["high"] - made["low"] > 1.3 * (high - low)


def test_first_answer_takes_a_wrong_one_of_equals():
    groups = np.array([0, 0, 1, 2])
    scores = np.array([[3, 3, 1, 0], [3, 0, 3, 0], [np.nan] * 4, [0, 0, 0, 1.0]])
    answer = first_answers(scores, groups)
    assert groups[answer].tolist() == [0, 1, 0, 2]


def test_differences_follow_the_rule_of_the_words():
    rng = np.random.default_rng(5)
    own = np.tile(SETTINGS.vector(), (200, 1))
    own[rng.random(own.shape) < 0.2] = np.nan
    other = np.tile(SETTINGS.vector(), (200, 1)) * rng.choice([1, 1.005, 1.02, 0.98], (200, 7))
    for row, a, b in zip(setting_differs(own, other), own, other, strict=True):
        words = describe_difference(a, b)
        assert [name.replace("_", " ") + " " in words for name in PARAMETERS] == row.tolist()


class Asked:
    """Three sessions; settings of the first two differ in dwell time only, the third in everything."""

    sessions = np.array([0, 0, 0, 1, 2])
    groups = np.array([0, 0, 1, 2, 3])
    slower = SETTINGS.replace(dwell_time=4e-6).vector()
    metadata_raw = np.array([SETTINGS.vector()] * 3 + [slower, 2 * SETTINGS.vector()])


def test_wrong_answers_are_counted_by_question_and_by_parameter():
    asked = Asked()
    asked.metadata_raw = asked.metadata_raw.copy()
    asked.metadata_raw[2, 4] *= 2
    # image 0 is right, its twin 1 and image 3 name each other's dwell time, 2 is right, 4 answers 3
    answer = np.array([0, 3, 2, 0, 3])
    rows = by_name(wrong_rows([(np.eye(5)[answer], np.eye(5))], asked, COMMON))
    assert rows["retrieval.questions.top1"]["value"] == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert rows["retrieval.questions.top1"]["pool"] == 4
    # two and a half questions are wrong, all of them in the dwell time or in all but it
    assert rows["retrieval.wrong.only.dwell_time"]["value"] == pytest.approx(1.5 / 2.5)
    assert rows["retrieval.wrong.differs.beam_current"]["value"] == pytest.approx(1 / 2.5)
    assert rows["retrieval.wrong.only.beam_current"]["value"] == 0
    asked.metadata_raw[:, 3] = np.nan
    rows = by_name(wrong_rows([(np.eye(5)[answer], np.eye(5))], asked, COMMON))
    assert rows["retrieval.wrong.differs.beam_current"]["value"] is None


def test_siblings_replace_as_many_and_come_from_the_sessions_asked(data):
    strangers, siblings, questions = sibling_parts(data)
    assert len(strangers) == len(siblings) and len(set(siblings.indices)) == len(siblings)
    asked = set(questions.indices.tolist())
    assert not asked & set(strangers.indices.tolist()) and not asked & set(siblings.indices.tolist())
    assert not set(questions.sessions) & set(strangers.sessions)
    assert set(questions.sessions) <= set(siblings.sessions)
    _, val, test = data.split("session", seed=0)
    assert asked < set(test.indices.tolist()) and not set(val.indices) & set(siblings.indices)
    # of a view, the indices are still those of the file
    view = data.view(range(len(data) - 1, 11, -1))
    of_view = sibling_parts(view)[2]
    assert set(of_view.indices.tolist()) <= set(view.split("session", seed=0)[2].indices.tolist())


TINY = replace(
    PROFILES["smoke"], samples=64, batch_size=32, warmup=32, dim=8, hidden=8, crop_size=32, smallest_crop=32, tile=32
)


def test_split_rows_train_alike_and_say_what_was_known(data, tmp_path, monkeypatch):
    seen = []

    def spy(train, val, config, out=None):
        seen.append((len(train), val, config, out))
        return real(train, val, config, out)

    real = splits_compared.pretrain
    monkeypatch.setattr(splits_compared, "pretrain", spy)
    monkeypatch.setattr(control, "TREES", 2)
    rng = np.random.default_rng(0)
    options = {"pool": 6, "draws": 5, "crops": 1, "seeds": (0, 1), "profile": "smoke"}
    rows = by_name(split_rows(data, TINY, statistics=rng.normal(size=(120, 3)), work=tmp_path, **options))
    assert [config for _, _, config, _ in seen] == [replace(TINY, seed=seed) for _ in range(3) for seed in (0, 1)]
    assert all(val is None for _, val, _, _ in seen) and (tmp_path / "image.seed1" / "checkpoint.pt").exists()
    for kind in ("image", "session", "material"):
        for model in ("", "control."):
            made = rows[f"split.{kind}.{model}retrieval.top1.image_to_metadata.other_sessions"]
            assert made["split"] == kind and made["pool"] == 6 and made["profile"] == "smoke"
    assert rows["split.image.known.session"]["value"] > 0.5
    assert rows["split.session.known.session"]["value"] == 0 == rows["split.material.known.session"]["value"]
    assert rows["split.image.known.settings"]["value"] > 0 == rows["split.session.known.settings"]["value"]


def test_sibling_gain_is_the_difference_on_the_same_questions(data, monkeypatch):
    found = iter([Fixed(data, 2.0), Fixed(data, 0.0)])
    monkeypatch.setattr(splits_compared, "pretrain", lambda *_: next(found))
    rows = by_name(sibling_rows(data, TINY, pool=6, draws=20, profile="smoke"))
    for k in (1, 5):
        name = f"top{k}.image_to_metadata"
        before, after = (rows[f"split.{who}.retrieval.{name}"]["value"] for who in ("strangers", "siblings"))
        assert rows[f"split.siblings.gain.{name}"]["value"] == pytest.approx(after - before, abs=2e-6)
    assert rows["split.siblings.gain.top1.image_to_metadata"]["low"] > 0


def test_command_line_of_the_curves(data, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    model = Cimp(CimpConfig(width=8, dim=8, hidden=8, crop_size=32).with_normalizer(data.normalizer)).eval()
    named = []
    monkeypatch.setattr(retrieval_curves, "load", lambda name: named.append(name) or model)
    out = tmp_path / "r.json"
    monkeypatch.setattr(retrieval_curves, "curve_rows", partial(curve_rows, pools=(4,), crops=(), sizes=(), pool=4))
    line = f"c {data.path} --weights a --weights b --seeds 3 4 --profile smoke --draws 3 --out {out}"
    monkeypatch.setattr("sys.argv", line.split())
    retrieval_curves.main()
    rows = json.loads(out.read_text())
    assert named == ["a", "b"] and all(made["seeds"] == [3, 4] for made in rows)
    assert "retrieval.curve.gap" in capsys.readouterr().out
