"""Areas recorded again: settings that are asked for, recordings that are the truth, batches that show one area."""

import dataclasses

import numpy as np
import pytest
import torch

import cimp_core as cimp
from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.metadata import Acquisition, Normalizer
from cimp_core.models import Cimp, CimpConfig
from cimp_core.study.restyling_cases import truth_of
from cimp_core.style import PROFILES, StyleSampler, StyleValidation, train_style
from cimp_core.style_pairs import Pairs, _record_some, draw_settings, prepare_pairs
from cimp_core.style_players import Players, Told

QUICK = dataclasses.replace(PROFILES["smoke"], samples=8, warmup=4, log_every=4, checkpoint_every=4, ema_half_life=8)


@pytest.fixture(scope="module")
def train():
    return cimp.twin(60, 96).split("material", val=0.2, test=0.2, seed=0)[0]


@pytest.fixture(scope="module")
def folder(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    prepare_pairs(train, folder, 12, workers=1)
    return folder


@pytest.fixture(scope="module")
def encoder(train):
    torch.manual_seed(0)
    model = Cimp(CimpConfig(dim=16, hidden=32, spectrum=8).with_normalizer(train.normalizer))
    model.image_encoder(torch.from_numpy(np.stack([train.image(i) for i in range(24)]).astype(np.float32)))
    return model.eval()


def test_settings_are_drawn_in_three_ways_whatever_the_image_shows(train):
    raw, rng = np.asarray(train.metadata_raw, float), np.random.default_rng(0)
    normalizer, own = Normalizer.fit(raw), raw[3]
    drawn = np.array([draw_settings(own, raw, normalizer, rng) for _ in range(600)])
    assert (drawn[:, 0] == own[0]).all() and (drawn[:, 6] > drawn[:, 2]).all()
    assert (drawn[:, 2] >= raw[:, 2].min()).all()
    changed = (drawn[:, 1:] != own[1:]).sum(1)
    others = {tuple(r[1:]) for r in raw}
    whole = np.mean([tuple(d[1:]) in others for d in drawn])
    assert 0.2 < np.mean(changed == 1) < 0.5 and 0.25 < whole < 0.45
    alone = normalizer.normalize(drawn)[changed == 1, 1]
    assert alone.min() < -2 and alone.max() > 2 and np.abs(alone).max() <= 3.001


def test_recordings_are_draws_of_the_truth_and_are_kept(train, folder):
    pairs = Pairs(folder)
    assert len(pairs) == 12 and pairs.recordings.shape == (12, 96, 96)
    for k in range(4):
        i, wanted = int(pairs.images[k]), Acquisition.from_vector(pairs.settings[k])
        expected, recording = truth_of(train, i, wanted)
        noise = (recording - expected).std() + 1
        assert abs((pairs.recordings[k] - expected).mean()) < 0.1 * noise
        assert (pairs.recordings[k] - expected).std() + 1 == pytest.approx(noise, rel=0.15)
    written = (folder / "recordings.raw").stat().st_mtime_ns
    again = prepare_pairs(train, folder, 12, workers=1)
    assert (folder / "recordings.raw").stat().st_mtime_ns == written
    np.testing.assert_array_equal(again.recordings, pairs.recordings)


def test_the_beam_stays_where_it_was_in_the_image(train):
    i = int(np.argmin(train.metadata_raw[:, 0]))  # where pixels are fine, rows jitter by several of them
    longer = train.acquisition(i).replace(dwell_time=30 * train.acquisition(i).dwell_time)
    (made,) = _record_some((str(train.path), train.indices[[i]], longer.vector()[None]))
    expected, recording = truth_of(train, i, longer)
    again = cimp.reacquire(train, i, longer)
    away = [np.std(picture.astype(float) - expected) for picture in (made, recording, again)]
    assert away[0] < 1.05 * away[1] and away[0] < 0.8 * away[2]


def test_other_pairs_are_made_again_and_half_made_ones_refused(train, tmp_path):
    first = prepare_pairs(train, tmp_path, 2, workers=1).settings.copy()
    assert not np.array_equal(prepare_pairs(train, tmp_path, 2, seed=1, workers=1).settings, first)
    (tmp_path / "pairs.json").unlink()
    with pytest.raises(SchemaError, match="not complete; call prepare_pairs"):
        Pairs(tmp_path)
    with pytest.raises(OutOfRangeError, match="one or more"):
        prepare_pairs(train, tmp_path, 0)
    with pytest.raises(OutOfRangeError, match="one or more"):
        prepare_pairs(train.view(np.array([], int)), tmp_path, 3)


def test_a_batch_of_pairs_shows_one_area_twice(train, folder, encoder):
    pairs, normalizer = Pairs(folder), encoder.config.normalizer
    config = dataclasses.replace(QUICK, mask_metadata=0.0, batch_size=16)
    sampler = StyleSampler(train, config, normalizer, pairs=pairs)
    batch = sampler(0)
    assert torch.equal(batch.image, sampler(0).image) and torch.equal(batch.target, batch.real_settings)
    known = {tuple(np.round(normalizer.normalize(s[None])[0], 4)): k for k, s in enumerate(pairs.settings)}
    for image, target, real in zip(batch.image, batch.target, batch.real, strict=True):
        k = known[tuple(np.round(target.numpy().astype(float), 4))]
        places = []
        for picture, whole in ((image, train.image(int(pairs.images[k]))), (real, pairs.recordings[k])):
            for turns in range(0, 4, 2):
                for flip in (False, True):
                    square = np.rot90(picture.numpy(), -turns)
                    square = square[:, ::-1] if flip else square
                    windows = np.lib.stride_tricks.sliding_window_view(whole.astype(np.float32), square.shape)
                    found = np.argwhere((windows[:, :, :2] == square[:2]).all((2, 3)))
                    places.append({(turns, flip, *place) for place in found.tolist()})
        assert set.union(*places[:4]) & set.union(*places[4:])


def test_pairs_add_two_terms_and_their_run_goes_on_where_it_stopped(train, folder, encoder, tmp_path):
    pairs, log = Pairs(folder), []
    check = StyleValidation(train, QUICK, encoder, pairs=pairs, batches=1)
    whole = train_style(train, QUICK, encoder=encoder, pairs=pairs, validate=check, on_log=log.append)
    assert {"truth", "noise", "val_truth", "val_noise"} <= set(log[-1])
    train_style(train, QUICK, tmp_path, encoder=encoder, pairs=pairs, stop=1)
    parts = train_style(train, QUICK, tmp_path, encoder=encoder, pairs=pairs)
    for ours, theirs in zip(whole.translator.parameters(), parts.translator.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    log = []
    train_style(
        train, dataclasses.replace(QUICK, truth=0.0, noise=0.0), encoder=encoder, pairs=pairs, on_log=log.append
    )
    assert not {"truth", "noise"} & set(log[-1])


def test_the_critic_may_be_shown_real_images_beside_other_settings(train, folder, encoder):
    config = dataclasses.replace(QUICK, mask_metadata=0.0)
    players = Players.new(dataclasses.replace(config, mismatched=0.4), encoder, paired=True)
    batch = StyleSampler(train, config, encoder.config.normalizer, pairs=Pairs(folder))(0)
    told = Told(*(players.conditioner(s) for s in (batch.source, batch.target, batch.real_settings)))
    with torch.no_grad():
        real, made, wrong = (
            players.critic(image, settings)
            for image, settings in ((batch.real, told.real), (batch.image, told.target), (batch.real, told.source))
        )
        by_hand = 0.5 * ((real - 1).square().mean() + 0.6 * made.square().mean() + 0.4 * wrong.square().mean())
        assert players.critic_loss(batch.image, batch, told).item() == pytest.approx(by_hand.item(), rel=1e-5)
