"""The training loop on small problems, and pre-training on a small data set."""

import copy
import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from cimp_core import training
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError
from cimp_core.pretrain import PROFILES, CropSampler, PretrainConfig, Validation, half_is_enough, pretrain
from cimp_core.training import TrainConfig, fit, for_this_device, learning_rate, load_checkpoint, make_config

QUICK = TrainConfig(
    samples=320, batch_size=16, peak_rate=1e-2, warmup=64, precision="32-true", log_every=64, validate_every=160,
    checkpoint_every=96,
)  # fmt: skip


def line_problem(seed=0):
    """A small regression with dropout, so that random numbers of the loop count as well."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 1))

    def batches(step):
        generator = torch.Generator().manual_seed(1000 + step)
        x = torch.randn(16, 3, generator=generator)
        return x, x.sum(1, keepdim=True)

    def loss(m, x, y):
        error = m(x) - y
        return error.square().mean(), {"worst": error.detach().abs().max()}

    return model, batches, loss


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def without_times(path):
    return [{k: v for k, v in json.loads(line).items() if k != "per_second"} for line in path.read_text().splitlines()]


def test_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(QUICK, s) for s in range(QUICK.steps)]
    assert rates[0] == pytest.approx(QUICK.peak_rate * 16 / 64)
    assert max(rates) == pytest.approx(QUICK.peak_rate) and rates.index(max(rates)) == 3
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert all(a > b for a, b in zip(rates[3:-1], rates[4:], strict=True))


def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole, batches, loss = line_problem()
    fit(whole, batches, loss, QUICK, tmp_path / "whole", validate=lambda m: {"val": weights_of(m).sum().item()})
    for stop in (5, 11):
        parts, batches, loss = line_problem()
        fit(parts, batches, loss, QUICK, tmp_path / f"{stop}", stop=stop)
        # A fresh process would begin from other weights: everything must come from the checkpoint.
        again, batches, loss = line_problem(seed=99)
        fit(again, batches, loss, QUICK, tmp_path / f"{stop}", validate=lambda m: {"val": weights_of(m).sum().item()})
        assert torch.equal(weights_of(whole), weights_of(again))
        full, resumed = without_times(tmp_path / "whole/log.jsonl"), without_times(tmp_path / f"{stop}/log.jsonl")
        assert full[-1] == resumed[-1]


def test_killed_run_resumes_from_its_last_checkpoint_with_the_same_log(tmp_path):
    whole, batches, loss = line_problem()
    fit(whole, batches, loss, QUICK, tmp_path / "whole")

    def dying(step):
        if step == 15:
            raise KeyboardInterrupt
        return batches(step)

    killed, _, _ = line_problem()
    with pytest.raises(KeyboardInterrupt):
        fit(killed, dying, loss, QUICK, tmp_path / "killed")
    again, _, _ = line_problem(seed=5)
    fit(again, batches, loss, QUICK, tmp_path / "killed")
    assert torch.equal(weights_of(whole), weights_of(again))
    assert without_times(tmp_path / "whole/log.jsonl") == without_times(tmp_path / "killed/log.jsonl")
    assert not list(tmp_path.glob("**/.*"))  # no temporary file is left


def test_same_seed_same_run_other_seed_other_run(tmp_path):
    ends = []
    for seed in (0, 0, 1):
        model, batches, loss = line_problem()
        fit(model, batches, loss, dataclasses.replace(QUICK, seed=seed))
        ends.append(weights_of(model))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


EMA = dataclasses.replace(QUICK, ema_half_life=50)


def test_mean_of_the_weights_is_the_sum_by_hand_and_is_what_is_validated_and_returned(tmp_path):
    model, batches, loss = line_problem()
    after, validated = [], []

    def validate(m):
        assert not m.training
        validated.append(weights_of(m).clone())
        return {"val": 0.0}

    # Called at the end of each step, when the model in training still has its own weights.
    fit(model, batches, loss, EMA, tmp_path, validate=validate, on_step=lambda seen: after.append(weights_of(model)))
    for steps, mean in ((10, validated[0]), (20, validated[1]), (20, weights_of(model))):
        share = np.array([0.5 ** ((steps - 1 - k) * 16 / 50) for k in range(steps)])
        expected = share / share.sum() @ np.stack([w.numpy() for w in after[:steps]]).astype(float)
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after[-1], weights_of(model), atol=1e-4)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert torch.equal(state["mean"]["0.weight"], model[0].weight)
    assert not torch.equal(state["model"]["0.weight"], model[0].weight)


def test_mean_of_the_weights_includes_the_statistics_of_batch_norms_and_leaves_the_training_alone():
    ends = {}
    for half_life in (0, 1, 100):
        model, batches, loss = line_problem()
        model.insert(1, nn.BatchNorm1d(16))
        last = {}
        config = dataclasses.replace(QUICK, ema_half_life=half_life)
        fit(model, batches, loss, config, on_step=lambda seen, m=model, x=last: x.update(copy.deepcopy(m.state_dict())))
        ends[half_life] = model.state_dict(), last
    for name, value in ends[0][0].items():
        assert torch.equal(value, ends[0][1][name]) and torch.equal(value, ends[100][1][name]), name
        # Of a half-life of one sample, 2**-16 of the weights before the last step is left.
        torch.testing.assert_close(ends[1][0][name], value, rtol=1e-4, atol=1e-6)
    mean = ends[100][0]
    assert not torch.equal(mean["1.running_mean"], ends[0][0]["1.running_mean"])
    assert mean["1.num_batches_tracked"] == QUICK.steps


def test_resumed_mean_of_the_weights_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole, batches, loss = line_problem()
    fit(whole, batches, loss, EMA, tmp_path / "whole")
    parts, batches, loss = line_problem()
    fit(parts, batches, loss, EMA, tmp_path / "parts", stop=7)
    again, batches, loss = line_problem(seed=99)
    fit(again, batches, loss, EMA, tmp_path / "parts")
    assert torch.equal(weights_of(whole), weights_of(again))
    finals = [load_checkpoint(tmp_path / n / "checkpoint.pt") for n in ("whole", "parts")]
    for name, value in finals[0]["model"].items():
        assert torch.equal(value, finals[1]["model"][name]), name


def test_log_is_one_json_object_a_line_and_the_loss_falls(tmp_path):
    model, batches, loss = line_problem()
    seen = []
    config = dataclasses.replace(QUICK, samples=1600, validate_every=800)
    log = fit(model, batches, loss, config, tmp_path, validate=lambda m: {"val": 1.0}, on_log=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == log == seen
    assert [e["samples"] for e in log if "val" in e] == [800, 1600]
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert {"samples", "loss", "worst", "gradient", "rate", "per_second"} <= set(log[0])
    assert not model.training


def test_checkpoint_holds_no_pickled_class(tmp_path):
    model, batches, loss = line_problem()
    fit(model, batches, loss, QUICK, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == QUICK.steps and state["config"] == dataclasses.asdict(QUICK)


def test_nan_stops_with_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    model, batches, loss = line_problem()

    def broken(step):
        x, y = batches(step)
        return (x * math.nan, y) if step == 13 else (x, y)

    with pytest.raises(CimpError, match=r"step 13: loss nan.*last good state"):
        fit(model, broken, loss, QUICK, tmp_path)
    assert torch.isfinite(weights_of(model)).all()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 12


def test_checkpoint_of_other_settings_or_damaged_is_refused(tmp_path):
    model, batches, loss = line_problem()
    fit(model, batches, loss, QUICK, tmp_path, stop=2)
    with pytest.raises(SchemaError, match=r"peak_rate 0.01 -> 0.5"):
        fit(model, batches, loss, dataclasses.replace(QUICK, peak_rate=0.5), tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnreadableFileError, match="not a readable checkpoint"):
        fit(model, batches, loss, QUICK, tmp_path)
    with pytest.raises(UnreadableFileError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")


def test_decay_spares_norms_biases_and_scalars():
    model, _, _ = line_problem()
    decayed, spared = training.decay_groups(model, 0.1)
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim <= 1 for p in spared["params"])
    assert len(decayed["params"]) == len(spared["params"]) == 2 and spared["weight_decay"] == 0


def test_unknown_setting_is_named():
    with pytest.raises(OutOfRangeError, match=r"unknown setting lr; PretrainConfig has samples"):
        make_config(PretrainConfig, {"lr": 1.0})


def pairs(count, size, seed=0):
    """Images whose level, contrast, grain and stripes follow four of the parameters; the others are constant."""
    rng = np.random.default_rng(seed)
    raw = np.tile([20e-12, 2e-6, 21.4e-3, 50e-12, 35.0, -1.2, 60e-3], (count, 1))
    z = rng.uniform(-1, 1, (count, 4))
    raw[:, 0] *= 2 ** z[:, 0]
    raw[:, 1] *= 4 ** z[:, 1]
    raw[:, 4] += 5 * z[:, 2]
    raw[:, 5] += 0.5 * z[:, 3]
    x = np.arange(size)
    stripes = np.sin(2 * np.pi * x / (8 * 2 ** z[:, :1]))[:, None, :]
    grain = rng.standard_normal((count, size, size)) * 0.3 / 2 ** z[:, 1, None, None]
    images = 20000 + 10000 * z[:, 3, None, None] + 2000 * 2 ** z[:, 2, None, None] * (stripes + grain)
    return images.clip(0, 65535).astype(np.uint16), raw


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    images, raw = pairs(96, 72)
    raw[5, 3] = np.nan
    folder = tmp_path_factory.mktemp("data")
    return open_dataset(write_dataset(folder / "d.h5", images, raw, [f"s{i // 4}/{i}.emd" for i in range(96)]))


TINY = dataclasses.replace(
    PROFILES["smoke"], samples=256, batch_size=32, checkpoint_every=96, crop_size=48, smallest_crop=48
)


def test_sampler_is_a_function_of_the_step_and_goes_through_epochs(data):
    config = dataclasses.replace(TINY, batch_size=36)
    sampler = CropSampler(data, config)
    for a, b in zip(sampler(3), CropSampler(data, config)(3), strict=True):
        assert torch.equal(a, b) or torch.equal(a.isnan(), b.isnan())
    assert not torch.equal(sampler(3)[0], sampler(4)[0])
    stream = np.concatenate([sampler.order(36 * s, 36) for s in range(8)])
    for epoch in range(3):
        assert sorted(stream[96 * epoch : 96 * (epoch + 1)]) == list(range(96))
    assert not np.array_equal(stream[:96], stream[96:192])


def test_sampler_crops_are_crops_of_their_images_with_their_metadata(data):
    config = dataclasses.replace(TINY, mask_metadata=0.0, mask_absolute=0.0)
    crops, metadata, absolute, group = CropSampler(data, config)(0)
    assert crops.shape == (32, 48, 48) and absolute.all()
    for i, crop, row, g in zip(CropSampler(data, config).order(0, 32), crops.numpy(), metadata, group, strict=True):
        image = data.image(i)
        turned = [np.rot90(c, k) for c in (crop, crop[::-1]) for k in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(image, (48, 48))
        assert any((windows[..., 0, :] == t[0]).all(-1).any() for t in turned)
        np.testing.assert_allclose(row, data.metadata[i], rtol=1e-5)
        assert g == data.groups[i]


def test_sampler_masks_at_the_stated_rates_and_reads_lazily_the_same(data):
    config = dataclasses.replace(TINY, batch_size=500, mask_metadata=0.2, mask_absolute=0.3)
    crops, metadata, absolute, _ = CropSampler(data, config)(0)
    assert metadata.isnan().float().mean() == pytest.approx(0.2, abs=0.03)
    assert absolute.float().mean() == pytest.approx(0.7, abs=0.07)
    lazy = CropSampler(data, dataclasses.replace(config, memory=0.0))
    assert lazy.reader.storage == "mapped"
    assert torch.equal(lazy(0)[0], crops)


def test_a_part_of_a_batch_is_these_rows_of_it_and_reads_no_others(data, monkeypatch):
    sampler = CropSampler(data, TINY)
    whole, read = sampler(3), []
    crops = sampler.reader.crops
    monkeypatch.setattr(
        sampler.reader, "crops", lambda indices, *rest: read.append(len(indices)) or crops(indices, *rest)
    )
    for rows in (slice(0, 16), slice(16, 32), slice(8, 11)):
        for a, b in zip(sampler.part(3, rows), whole, strict=True):
            assert torch.equal(a.nan_to_num(-9.0), b[rows].nan_to_num(-9.0))
    assert read == [16, 16, 3]


def test_crop_larger_than_an_image_is_refused(data):
    with pytest.raises(OutOfRangeError, match=r"72 x 72 pixels, smaller than the smallest crop, 96"):
        CropSampler(data, dataclasses.replace(TINY, crop_size=96, smallest_crop=96))


def test_every_step_draws_the_size_of_its_crops_up_to_the_smallest_image(data):
    sampler = CropSampler(data, dataclasses.replace(TINY, smallest_crop=32, crop_size=256))
    assert sampler.edges.tolist() == [32, 64]  # the images have 72 pixels a side
    assert {sampler(step)[0].shape for step in range(12)} == {(32, 32, 32), (32, 64, 64)}


def test_flips_keep_the_fast_scan_axis_unless_turns_are_asked_for(data, monkeypatch):
    """A picture that changes along the fast axis only: quarter turns would stand it upright."""
    stripes = np.tile(np.arange(72, dtype=np.uint16), (72, 1))
    for turns in (False, True):
        sampler = CropSampler(data, dataclasses.replace(TINY, turns=turns))
        crops = lambda indices, tops, lefts, size: np.tile(stripes[:size, :size], (len(indices), 1, 1))  # noqa: E731
        monkeypatch.setattr(sampler.reader, "crops", crops)
        got = sampler(0)[0]
        upright = (got.diff(dim=1) != 0).any((1, 2))
        assert upright.any() == turns
        assert len({tuple(c.flatten().tolist()) for c in got}) == (4 if turns else 2)


@pytest.mark.parametrize("changes", [{"loss": "sigmoid"}, {"learn_scale": False}, {"width": 0}, {"absolute": False}])
def test_settings_of_the_method_reach_the_model(data, changes):
    config = dataclasses.replace(TINY, samples=96, **changes)
    history = []
    model = pretrain(data, None, config, on_log=history.append)
    assert np.isfinite(history[-1]["loss"])
    assert ("excess" in history[-1]) == (config.loss == "info_nce")
    start = 10 if config.loss == "sigmoid" else 1 / 0.07
    assert (abs(model.scale - start) < 1e-4) == (not config.learn_scale)
    assert (model.image_encoder.pixels is None) == (config.width == 0)
    assert model.config.absolute == config.absolute


def test_sixteen_pairs_are_learnt_by_heart(data):
    config = dataclasses.replace(
        TINY,
        samples=16 * 60,
        batch_size=16,
        warmup=64,
        peak_rate=3e-3,
        mask_absolute=0.0,
        mask_metadata=0.0,
        dropout=0.0,
    )
    few = data.view(range(16))
    log = []
    model = pretrain(few, None, config, on_log=log.append)
    # Chance starts at log 16.
    assert log[0]["loss"] > 1.0 and log[-1]["loss"] < 0.25
    assert Validation(few, 48)(model)["val_top1"] >= 0.9


def test_training_beats_chance_on_images_never_seen(tmp_path, data):
    config = dataclasses.replace(TINY, samples=3200, peak_rate=3e-3)
    train, val, _ = data.split("session", val=0.2, test=0.1)
    log = []
    pretrain(train, val, config, tmp_path, on_log=log.append)
    candidates = log[-1]["val_candidates"]
    assert log[-1]["val_top5"] > 3 * 5 / candidates
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    assert json.loads((tmp_path / "config.json").read_text())["samples"] == 3200


def test_pretraining_resumes_bit_for_bit(tmp_path, data):
    train, val, _ = data.split("session", val=0.2, test=0.1)
    whole = pretrain(train, val, TINY, tmp_path / "a")

    class Stop(Exception):
        pass

    def stop(entry):
        if entry["samples"] == 256 // 2 + 64:
            raise Stop

    shutil.rmtree(tmp_path / "b", ignore_errors=True)
    with pytest.raises(Stop):
        pretrain(train, val, dataclasses.replace(TINY, log_every=64), tmp_path / "c", on_log=stop)
    resumed = pretrain(train, val, dataclasses.replace(TINY, log_every=64), tmp_path / "c")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_bf16_trains_on_a_cpu(data):
    config = dataclasses.replace(TINY, samples=64, precision="bf16-mixed")
    model = pretrain(data, None, config)
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in model.parameters())


def test_the_precision_that_suits_a_device_is_settled_once():
    settled = for_this_device(dataclasses.replace(TINY, precision="auto"))
    assert settled.precision in ("bf16-mixed", "32-true") and for_this_device(settled) is settled
    assert for_this_device(dataclasses.replace(TINY, precision="bf16-mixed")).precision == "bf16-mixed"


def test_half_precision_is_refused_where_scores_change(data):
    model = pretrain(data, None, TINY)
    validation = Validation(data, 48)
    late = ("image_encoder.pixels.", "image_encoder.spectrum.", "image_encoder.head.")
    assert half_is_enough(model, validation) in (("",), late, ())
    last = model.metadata_encoder.mlp[-1]
    with torch.no_grad():  # the length of a row does not matter, but weights this small vanish in float16
        last.weight.mul_(1e-9)
        last.bias.zero_()
    assert half_is_enough(model, validation) in (late, ())
