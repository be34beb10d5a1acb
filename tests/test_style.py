"""Training of the translator: who learns when, what a batch holds, and that a resumed run is the whole run."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import cimp_core as cimp
from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.metadata import PARAMETERS, Acquisition
from cimp_core.models import Cimp, CimpConfig
from cimp_core.renderer import Conditioner, Renderer
from cimp_core.style import PROFILES, StyleRoute, StyleSampler, StyleValidation, _Loop, train_style
from cimp_core.style_players import Players, Told
from cimp_core.training import load_checkpoint

QUICK = dataclasses.replace(PROFILES["smoke"], samples=24, warmup=8, log_every=8, checkpoint_every=8, ema_half_life=8)


@pytest.fixture(scope="module")
def train():
    return cimp.twin(60, 96).split("material", val=0.2, test=0.2, seed=0)[0]


@pytest.fixture(scope="module")
def encoder(train):
    torch.manual_seed(0)
    model = Cimp(CimpConfig(dim=16, hidden=32, spectrum=8).with_normalizer(train.normalizer))
    images = torch.from_numpy(np.stack([train.image(i) for i in range(24)]).astype(np.float32))
    model.image_encoder(images)  # batch norms have seen something
    return model.eval()


def flat(module):
    return torch.cat([p.detach().flatten().clone() for p in module.state_dict().values()])


def test_batches_keep_the_pixel_size_and_are_a_function_of_the_step(train, encoder):
    sampler = StyleSampler(train, dataclasses.replace(QUICK, mask_metadata=0.0), encoder.config.normalizer)
    again = StyleSampler(train, dataclasses.replace(QUICK, mask_metadata=0.0), encoder.config.normalizer)
    for step in (0, 7, 3):
        batch = sampler(step)
        for ours, theirs in zip(batch, again(step), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(batch.source[:, 0], batch.target[:, 0])
        assert not torch.equal(batch.source, batch.target)
        raw = encoder.config.normalizer.restore(batch.target.numpy().astype(float))
        assert (raw[:, 6] > raw[:, 2]).all()  # no direct beam on the detector
        assert batch.image.shape == batch.real.shape and not torch.equal(batch.image, batch.real)
    assert not torch.equal(sampler(0).image, sampler(1).image)


def test_wanted_settings_are_those_of_the_real_images_or_mixed_with_the_own(train, encoder):
    config = dataclasses.replace(QUICK, batch_size=64, mask_metadata=0.0)
    for few, mixed in ((0.0, False), (1.0, True)):
        batch = StyleSampler(train, dataclasses.replace(config, few=few), encoder.config.normalizer)(0)
        same = torch.isclose(batch.target[:, 1:], batch.real_settings[:, 1:], atol=1e-5)
        own = torch.isclose(batch.target[:, 1:], batch.source[:, 1:], atol=1e-5)
        assert (same | own).all() and same.all() != mixed


def test_real_images_have_nearly_the_pixel_size_of_the_source(train, encoder):
    config = dataclasses.replace(QUICK, batch_size=32, mask_metadata=0.0)
    batch = StyleSampler(train, config, encoder.config.normalizer, alike=6)(0)
    anyone = StyleSampler(train, config, encoder.config.normalizer, alike=1000)(0)
    apart = [(b.source[:, 0] - b.real_settings[:, 0]).abs().mean() for b in (batch, anyone)]
    assert apart[0] < 0.5 * apart[1]


def a_loop(train, encoder, config=QUICK):
    torch.manual_seed(config.seed)
    players = Players.new(config, encoder)
    loop = _Loop(players, config, None)
    return loop, StyleSampler(train, config, encoder.config.normalizer)


def test_a_step_of_one_player_leaves_the_other_and_the_encoder_untouched(train, encoder):
    loop, batches = a_loop(train, encoder)
    seen = {}
    methods = {name: getattr(loop, name) for name in ("critic_step", "generator_step")}
    for name in methods:

        def spied(*args, name=name, step=methods[name]):
            models = {**loop.both, "encoder": loop.players.conditioner.encoder}
            before = {k: flat(m) for k, m in models.items()}
            result = step(*args)
            seen[name] = {k for k, m in models.items() if not torch.equal(before[k], flat(m))}
            return result

        setattr(loop, name, spied)
    loop.step(0, batches(0))
    assert seen == {"critic_step": {"critic"}, "generator_step": {"translator"}}


def test_losses_of_both_players_are_the_terms_by_hand(train, encoder):
    loop, batches = a_loop(train, encoder, dataclasses.replace(QUICK, mask_metadata=0.0, mismatched=0.0))
    players, batch = loop.players, batches(0)
    told = Told(*(players.conditioner(s) for s in (batch.source, batch.target, batch.real_settings)))
    made, noise = 1.1 * batch.image, torch.zeros(2, *batch.image.shape)
    made.requires_grad_(True)
    loss = players.critic_loss(made, batch, told)
    real, fake = players.critic(batch.real, told.real), players.critic(made, told.target)
    by_hand = 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    loss.backward()
    assert made.grad is None  # the critic's loss does not reach the generator
    terms = players.generator_terms(made, batch, told, noise)
    assert set(terms) == {"adversarial", "embedding", "cycle", "identity"}
    assert terms["adversarial"].item() == pytest.approx((0.5 * (fake - 1).square().mean()).item(), rel=1e-5)
    wanted = players.conditioner.encoder.metadata_encoder(batch.target)
    cosine = (players.conditioner.encoder.image_encoder(made) * wanted).sum(1).mean()
    assert terms["embedding"].item() == pytest.approx(1 - cosine.item(), rel=1e-4)
    # Untrained, what comes back is what went there: a tenth brighter than the image.
    half = batch.image[: len(made) // 2]
    away = (0.1 * half).mean((1, 2)) / half.flatten(1).std(1).clamp_min(500)
    assert terms["cycle"].item() == pytest.approx(away.mean().item(), rel=1e-3)
    assert terms["identity"].item() == pytest.approx(0, abs=1e-5)


def test_every_term_is_logged_and_one_without_weight_is_left_out(train, encoder, tmp_path):
    log = []
    train_style(train, dataclasses.replace(QUICK, samples=8), encoder=encoder, on_log=log.append)
    assert {"critic", "adversarial", "cycle", "embedding", "identity"} <= set(log[-1])
    for term in ("adversarial", "cycle", "embedding", "identity"):
        config = dataclasses.replace(QUICK, samples=4, **{term: 0.0})
        train_style(train, config, encoder=encoder, on_log=log.append)
        left_out = {term} | ({"critic"} if term == "adversarial" else set())
        assert not left_out & set(log[-1]) and np.isfinite(log[-1]["loss"])


def test_validation_is_the_same_at_every_call_and_zero_where_nothing_is_changed(train, encoder):
    validation = StyleValidation(train, QUICK, encoder, batches=1)
    renderer = train_style(train, dataclasses.replace(QUICK, samples=4, ema_half_life=0), encoder=encoder)
    scored = validation(renderer)
    assert scored == validation(renderer) and set(scored) == {"val_embedding", "val_cycle", "val_identity"}
    for parameter in renderer.translator.parameters():
        torch.nn.init.zeros_(parameter)
    renderer.translator.head.bias.data[len(renderer.translator.head.bias) // 2 :] = -1.0  # no noise
    untouched = validation(renderer)
    assert untouched["val_cycle"] < 1e-5 < scored["val_cycle"]
    assert untouched["val_identity"] < 1e-5 and scored["val_identity"] < 1e-5  # there is no other way in this network
    log = []
    config = dataclasses.replace(QUICK, samples=8, validate_every=4)
    train_style(train, config, encoder=encoder, validate=validation, on_log=log.append)
    assert "val_embedding" in log[-1]


def without_times(path):
    return [{k: v for k, v in json.loads(line).items() if k != "per_second"} for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(train, encoder, tmp_path_factory):
    """An uninterrupted run, and the folder that it was made in."""
    folder = tmp_path_factory.mktemp("whole")
    return train_style(train, QUICK, folder, encoder=encoder), folder


def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(train, encoder, whole, tmp_path):
    whole, folder = whole
    train_style(train, QUICK, tmp_path / "parts", encoder=encoder, stop=2)
    parts = train_style(train, QUICK, tmp_path / "parts", encoder=encoder)
    assert torch.equal(flat(whole.translator), flat(parts.translator))
    ours, theirs = (load_checkpoint(f / "checkpoint.pt") for f in (folder, tmp_path / "parts"))
    assert all(torch.equal(v, theirs["model"][k]) for k, v in ours["model"].items())  # the critic among them
    assert without_times(folder / "log.jsonl") == without_times(tmp_path / "parts/log.jsonl")
    with pytest.raises(SchemaError, match="cycle"):
        train_style(train, dataclasses.replace(QUICK, cycle=2.0), tmp_path / "parts", encoder=encoder)


def test_the_mean_of_the_weights_is_what_is_returned(train, encoder, whole):
    mean, folder = whole
    last = train_style(train, dataclasses.replace(QUICK, ema_half_life=0), encoder=encoder)
    state = load_checkpoint(folder / "checkpoint.pt")
    own = torch.cat([v.flatten() for k, v in state["model"].items() if k.startswith("translator.")])
    assert torch.equal(own, flat(last.translator))  # the mean does not change what is learnt
    assert torch.equal(torch.cat([v.flatten() for v in state["mean"].values()]), flat(mean.translator))
    assert not torch.equal(own, flat(mean.translator))


def test_images_that_are_clipped_everywhere_do_not_stop_a_run(train, encoder):
    loop, batches = a_loop(train, encoder)
    batch = batches(0)
    batch = batch._replace(image=torch.full_like(batch.image, 65535.0))
    loop.step(0, batch)
    assert torch.isfinite(flat(loop.both["translator"])).all()


@pytest.mark.parametrize("kind", ["embedding", "raw", "none"])
def test_conditions_mask_what_is_missing(encoder, kind):
    told = Conditioner(kind, encoder)
    full = Acquisition(20e-12, 2e-6, 0.02, 5e-11, 35.0, -1.2, 0.06)
    rows = told.of(full), told.of(full.replace(beam_current=None)), told.of(full.replace(beam_current=9e-11))
    assert all(torch.isfinite(r).all() and r.shape == (1, told.size) for r in rows)
    assert kind == "none" or not torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


def test_an_unknown_condition_is_refused(encoder):
    with pytest.raises(OutOfRangeError, match="unknown condition 'text'; there are embedding, raw, none"):
        Conditioner("text", encoder)


def stirred(train, encoder, **changes):
    config = dataclasses.replace(QUICK, samples=4, **changes)
    renderer = train_style(train, config, encoder=encoder)
    for parameter in renderer.translator.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(parameter.numel()))
    return renderer


def test_renderer_cuts_into_bands_without_a_seam_and_is_seeded(train, encoder, monkeypatch):
    renderer, own = stirred(train, encoder), train.acquisition(0)
    frame = np.tile(train.image(0), (2, 1))[:150, :70]
    target = own.replace(dwell_time=own.dwell_time * 3)
    whole = renderer(frame, own, target, seed=4)
    monkeypatch.setattr("cimp_core.renderer.BAND", 40)
    np.testing.assert_allclose(renderer(frame, own, target, seed=4), whole, atol=0.05)
    assert np.abs(renderer(frame, own, target, seed=5) - whole).max() > 1
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 65535
    with pytest.raises(OutOfRangeError, match="at least 32"):
        renderer(frame[:20], own, target)


def test_route_asks_for_a_longer_dwell_time(train, encoder):
    renderer, own = stirred(train, encoder), train.acquisition(0)
    route, frame = StyleRoute(renderer), train.image(0).astype(np.float32)
    image, deviation = route(frame, own, 8.0)
    np.testing.assert_array_equal(image, renderer(frame, own, own.replace(dwell_time=own.dwell_time * 8)))
    assert deviation is None and route.name == "style" and route.margin == renderer.translator.margin
    with pytest.raises(OutOfRangeError, match="dwell time is missing"):
        route(frame, Acquisition(), 8.0)


def test_profiles_differ_in_sizes_and_lengths_only():
    method = ("condition", "adversarial", "cycle", "embedding", "identity", "few")
    assert len({tuple(getattr(p, name) for name in method) for p in PROFILES.values()}) == 1
    assert set(PROFILES) == {"smoke", "book", "full"} and len(PARAMETERS) == 7
    assert isinstance(Renderer, type)
