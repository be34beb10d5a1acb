"""Views: crops prepared once give the model what crops taken on the spot give, and are never mixed up."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import cimp_core as cimp
from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.models.encoders import Prepared
from cimp_core.pretrain import PROFILES, CropSampler, pretrain
from cimp_core.views import prepare_views

CONFIG = dataclasses.replace(
    PROFILES["smoke"], samples=128, batch_size=32, checkpoint_every=32, crop_size=64, smallest_crop=64, tile=64, views=2
)


@pytest.fixture(scope="module")
def data():
    return cimp.twin(images=60, size=96, seed=0).view(range(0, 60, 2))


def test_a_prepared_crop_is_embedded_as_the_crop_itself(data, tmp_path):
    """Crops as large as a tile: tile and prepared values must give what the image gives."""
    torch.manual_seed(0)
    model = cimp.models.Cimp(cimp.models.CimpConfig(width=8, dim=16, spectrum=4, tile=64, crop_size=64)).eval()
    tile, _, _, _, *prepared = CropSampler(data, dataclasses.replace(CONFIG, mask_absolute=0.0), tmp_path)(0)
    with torch.no_grad():
        kept = model.image_encoder(tile, None, Prepared(*prepared))
        torch.testing.assert_close(kept, model.image_encoder(tile), atol=2e-3, rtol=0)  # the grid is half precision


def test_without_convolutions_no_pixels_are_kept(data, tmp_path):
    """A model without convolutions embeds what is kept as it embeds the crop; one with them refuses the folder."""
    config = dataclasses.replace(CONFIG, width=0, mask_absolute=0.0)
    tile, _, _, _, *prepared = CropSampler(data, config, tmp_path)(0)
    assert tile.shape == (32, 1, 1)
    torch.manual_seed(0)
    model = cimp.models.Cimp(cimp.models.CimpConfig(width=0, dim=16, spectrum=4, crop_size=64)).eval()
    whole = CropSampler(data, dataclasses.replace(CONFIG, mask_absolute=0.0), tmp_path / "whole")(0)
    with torch.no_grad():
        kept = model.image_encoder(tile, None, Prepared(*prepared))
        torch.testing.assert_close(kept, model.image_encoder(whole[0]), atol=2e-3, rtol=0)
    with pytest.raises(SchemaError, match="kept_tile"):
        CropSampler(data, CONFIG, tmp_path)


def test_views_are_crops_of_their_image(data, tmp_path):
    config = dataclasses.replace(CONFIG, crop_size=96, tile=96, smallest_crop=96, flips=False)
    views = prepare_views(CropSampler(data, dataclasses.replace(config, views=0)), tmp_path, 2)
    for i in (0, 7, 29):  # a crop as large as the image is the image
        for row in (2 * i, 2 * i + 1):
            np.testing.assert_array_equal(views.tile[row], data.image(i))
            assert views.prepared[0][row, 0] == pytest.approx(data.image(i).mean(), rel=1e-5)
            assert views.prepared[1][row] == 96


def test_two_samplers_share_them_and_the_seed_of_the_run_does_not_matter(data, tmp_path):
    first = CropSampler(data, CONFIG, tmp_path).views
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    again = CropSampler(data, dataclasses.replace(CONFIG, seed=5), tmp_path).views
    np.testing.assert_array_equal(first.tile, again.tile)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} and len(before) == 6


def test_an_interrupted_preparation_goes_on_and_ends_the_same(data, tmp_path, monkeypatch):
    whole = CropSampler(data, dataclasses.replace(CONFIG, views=5), tmp_path / "whole").views
    monkeypatch.setattr("cimp_core.views.NOTE_EVERY", 1)
    made, make = [], cimp.views._make

    def dies(sampler, rows, count, tile):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(rows)
        return make(sampler, rows, count, tile)

    monkeypatch.setattr("cimp_core.views._make", dies)
    with pytest.raises(KeyboardInterrupt):
        CropSampler(data, dataclasses.replace(CONFIG, views=5), tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / "views.json").read_text())["done"] == 128
    monkeypatch.setattr("cimp_core.views._make", make)
    parts = CropSampler(data, dataclasses.replace(CONFIG, views=5), tmp_path / "parts").views
    for a, b in zip((whole.tile, *whole.prepared), (parts.tile, *parts.prepared), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change", [{"views": 3}, {"smallest_crop": 32}, {"flips": False}, {"turns": True}])
def test_views_of_something_else_are_refused(data, tmp_path, change):
    CropSampler(data, CONFIG, tmp_path)
    with pytest.raises(SchemaError, match="name another folder"):
        CropSampler(data, dataclasses.replace(CONFIG, **change), tmp_path)
    with pytest.raises(SchemaError, match="images differ"):
        CropSampler(data.view(range(1, len(data))), CONFIG, tmp_path)


def test_no_folder_no_views(data):
    with pytest.raises(OutOfRangeError, match="views is 2: name a folder"):
        CropSampler(data, CONFIG)


def test_training_on_views_learns_and_resumes(data, tmp_path):
    history = []
    config = dataclasses.replace(CONFIG, samples=960, warmup=96, log_every=96)
    model = pretrain(data, None, config, tmp_path / "run", on_log=history.append)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert (tmp_path / "run" / "views" / "views.json").exists()
    other = pretrain(data, None, config, tmp_path / "other", views=tmp_path / "run" / "views")
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
