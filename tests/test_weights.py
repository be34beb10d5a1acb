"""Weights files: what is saved comes back, what is damaged or foreign is refused."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cimp_core import weights
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError
from cimp_core.metadata import Normalizer
from cimp_core.models import Cimp, CimpConfig, Translator, TranslatorConfig

RAW = np.array([[20e-12, 2e-6, 0.02, 5e-11, 35.0, -1.2, 0.06], [40e-12, 9e-6, 0.01, 1e-10, 40.0, -0.5, 0.04]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = CimpConfig(width=8, dim=16, hidden=32, crop_size=64).with_normalizer(Normalizer.fit(RAW))
    model = Cimp(config)
    model.image_encoder(torch.rand(8, 64, 64) * 60000)  # batch norms have seen something
    return model.eval()


IMAGES = np.random.default_rng(0).integers(0, 65535, (3, 64, 64)).astype(np.uint16)


def test_round_trip_is_exact_and_keeps_config_and_record(tmp_path, model):
    path = tmp_path / "w.safetensors"
    digest = weights.save(model, path, {"seed": 3, "val_top1": 0.5})
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256(path)
    for i in range(5):
        assert weights.save(model, tmp_path / f"{i}/w.safetensors", {"val_top1": 0.5, "seed": 3}) == digest
    again = weights.load(path)
    assert again.config == model.config and not again.training
    np.testing.assert_array_equal(again.embed_images(IMAGES), model.embed_images(IMAGES))
    np.testing.assert_array_equal(again.embed_metadata(RAW), model.embed_metadata(RAW))
    assert weights.info(path)["seed"] == 3 and weights.info(path)["model"]["width"] == 8
    card = (tmp_path / "w.md").read_text()
    assert digest in card and "learnt from simulation" in card and "`0.5`" in card
    assert sorted(p.name for p in (tmp_path / "0").iterdir()) == ["w.md", "w.safetensors"]


def test_half_precision_is_half_the_size_and_nearly_the_same(tmp_path, model):
    weights.save(model, tmp_path / "full.safetensors", {})
    weights.save(model, tmp_path / "half.safetensors", {}, half=("",))
    full, half = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.6 * full
    again = weights.load(tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in again.parameters())
    np.testing.assert_allclose(again.embed_images(IMAGES), model.embed_images(IMAGES), atol=5e-3)


def test_never_overwrites_without_force(tmp_path, model):
    path = tmp_path / "w.safetensors"
    first = weights.save(model, path, {"n": 1})
    with pytest.raises(CimpError, match="exists"):
        weights.save(model, path, {"n": 2})
    assert weights.sha256(path) == first
    assert weights.save(model, path, {"n": 2}, force=True) != first
    with pytest.raises(OutOfRangeError, match="safetensors"):
        weights.save(model, tmp_path / "w.pt", {})


def test_shipped_file_that_differs_from_its_checksum_is_refused(tmp_path, model, monkeypatch):
    path = tmp_path / "w.safetensors"
    digest = weights.save(model, path, {})
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    monkeypatch.setitem(weights.WEIGHTS, "mine", weights.Shipped("w.safetensors", digest))
    assert weights.load("mine").config == model.config
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match="sha256 is .* expected"):
        weights.load("mine")
    path.unlink()
    with pytest.raises(UnreadableFileError, match="absent"):
        weights.load("mine")


def test_every_shipped_file_is_there_small_and_as_its_checksum_says():
    for name, shipped in weights.WEIGHTS.items():
        path = weights.FOLDER / shipped.file
        assert weights.sha256(path) == shipped.sha256, name
        assert path.stat().st_size <= 8e6
        assert shipped.sha256 in path.with_suffix(".md").read_text()
        kind = weights.info(name)["kind"]
        loaded = weights.load(name, kind)
        assert all(torch.isfinite(p).all() for p in loaded.parameters()), name
        assert kind != "cimp" or np.isfinite(loaded.embed_images(IMAGES)).all()


def test_foreign_and_damaged_files_are_refused(tmp_path, model):
    with pytest.raises(UnreadableFileError, match="neither a weights file nor a shipped name"):
        weights.load("no-such-weights")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(SchemaError, match="not a CIMP model"):
        weights.load(tmp_path / "other.safetensors")
    path = tmp_path / "w.safetensors"
    weights.save(model, path, {})
    data = path.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableFileError, match="not a readable safetensors"):
        weights.load(tmp_path / "short.safetensors")


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path, model):
    path = tmp_path / "w.safetensors"
    weights.save(model, path, {})
    header, tensors = weights._read(path)
    header = {**header, "config": {**model.config.__dict__, "dim": 32}}
    save_file(tensors, path, {"cimp": json.dumps(header)})
    with pytest.raises(SchemaError, match="do not fit their own config"):
        weights.load(path)


def test_each_kind_of_model_comes_back_as_itself_and_not_as_another(tmp_path, model):
    translator = Translator(TranslatorConfig(condition=8, channels=8, blocks=1, hidden=16)).eval()
    for parameter in translator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    style, cimp = tmp_path / "style.safetensors", tmp_path / "cimp.safetensors"
    digest = weights.save(translator, style, {"seed": 1})
    weights.save(model, cimp, {})
    again = weights.load(style, "style")
    assert type(again) is Translator and again.config == translator.config and not again.training
    for ours, theirs in zip(translator.state_dict().items(), again.state_dict().items(), strict=True):
        assert ours[0] == theirs[0] and torch.equal(ours[1], theirs[1])
    assert weights.info(style)["kind"] == "style" and weights.info(cimp)["kind"] == "cimp"
    card = style.with_suffix(".md").read_text()
    assert digest in card and "translator" in card and "temperature" not in card
    with pytest.raises(SchemaError, match="'style', not 'cimp'"):
        weights.load(style)
    with pytest.raises(SchemaError, match="'cimp', not 'style'"):
        weights.load(cimp, "style")
    with pytest.raises(SchemaError, match="Linear is no model"):
        weights.save(torch.nn.Linear(1, 1), tmp_path / "linear.safetensors", {})


def test_a_file_that_states_no_kind_is_a_cimp_and_an_unknown_kind_is_refused(tmp_path, model):
    path = tmp_path / "w.safetensors"
    weights.save(model, path, {})
    header, tensors = weights._read(path)
    save_file(tensors, path, {"cimp": json.dumps({k: v for k, v in header.items() if k != "kind"})})
    assert weights.load(path).config == model.config
    save_file(tensors, path, {"cimp": json.dumps({**header, "kind": "oracle"})})
    with pytest.raises(SchemaError, match="of the kind 'oracle'; this version has cimp, style"):
        weights.load(path)
