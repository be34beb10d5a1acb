"""The direct route: shapes and scales, what steers it, its training, and whether settings are believed."""

import dataclasses

import numpy as np
import pytest
import torch

import cimp_core as cimp
from cimp_core.denoising import trust
from cimp_core.denoising.direct import Direct
from cimp_core.denoising.pairs import low_dose, prepare_scans
from cimp_core.denoising.training import PROFILES, DoseSampler, dose_loss, train_direct
from cimp_core.digital_twin import scan_of
from cimp_core.models import denoiser
from cimp_core.models.candidates import CANDIDATES, WIDTHS
from cimp_core.models.denoiser import CONDITION, DoseNet, DoseNetConfig

NOTHING = cimp.Acquisition()
SMOKE = PROFILES["smoke"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    data = cimp.twin(60, 96)
    return prepare_scans(data.view(np.arange(12)), tmp_path_factory.mktemp("scans"), workers=1)


@pytest.fixture(scope="module")
def encoder():
    return cimp.load("cimp-twin-s")


def steered(seed: int = 0) -> DoseNet:
    """A network whose zero-initialised layers are not zero, as after training."""
    torch.manual_seed(seed)
    net = DoseNet(DoseNetConfig(width=8, deep=8, blocks=1)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


def frame(scans, i: int = 0, electrons: float = 8.0):
    shot, fraction = scans[i]
    settings, counts = low_dose(shot, fraction, electrons, 5e-6, np.random.default_rng(0))
    return counts.astype(np.float32), settings


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (96, 90)])
def test_any_size_any_scale(encoder, shape):
    direct = Direct(steered(), encoder, "cpu")
    counts = np.random.default_rng(0).poisson(20, shape).astype(np.float32) * 300
    image, deviation = direct(counts, NOTHING, 16)
    assert image.shape == deviation.shape == shape and image.dtype == np.float32
    assert (deviation > 0).all()
    # Sum and mean readout, gain and black level: the picture follows any affine change of the counts.
    other, other_deviation = direct(0.01 * counts + 500, NOTHING, 16)
    assert np.abs((other - 500) / 0.01 - image).max() < 0.02 * image.std() + 1
    assert np.allclose(other_deviation / 0.01, deviation, rtol=0.05)


def test_means_over_regions_are_those_of_the_recording(scans, encoder):
    counts, settings = frame(scans)
    image, _ = Direct(steered(), encoder, "cpu")(counts, settings, 16)
    assert abs(image.mean() - counts.mean()) < 0.01 * counts.std()


def leaning(channel: int, weight: float) -> DoseNet:
    """An untrained network whose output has one of its maps raised everywhere."""
    net = DoseNet(DoseNetConfig(width=8, deep=8, blocks=1)).eval()
    with torch.no_grad():
        net.head.bias[4 * channel : 4 * channel + 4] = weight
    return net


@pytest.mark.parametrize("training", [True, False])
def test_a_correction_does_not_move_means_over_regions(scans, training):
    counts, _ = frame(scans)
    net = leaning(CANDIDATES, 20.0).train(training)
    with torch.no_grad():
        out = net(torch.from_numpy(np.stack([counts] * 2)), torch.zeros(2, CONDITION), torch.full((2,), 16.0))
    raised = (out.image[0] * out.spread[0] + out.mean[0]).numpy()
    for part in (np.s_[:48, :48], np.s_[48:, 48:]):
        assert abs(raised[part].mean() - counts[part].mean()) < 0.1 * counts.std()


@pytest.mark.parametrize("training", [True, False])
def test_a_lattice_that_the_network_takes_away_is_put_back(training, monkeypatch):
    y, x = np.mgrid[:256, :256]
    lattice = np.cos(2 * np.pi * x / 7.3) * np.cos(2 * np.pi * y / 9.1)
    noisy = 1000 * (lattice + 2 * np.random.default_rng(0).normal(size=lattice.shape)) + 9000
    net, counts = leaning(1 + len(WIDTHS), 30.0), torch.from_numpy(np.stack([noisy, noisy])).float()  # widest Gaussian
    net.train(training)

    def kept() -> float:
        with torch.no_grad():
            out = net(counts, torch.zeros(2, CONDITION), torch.full((2,), 16.0))
        picture = (out.image[0] * out.spread[0] + out.mean[0]).numpy()
        return float((picture * lattice).mean() / (lattice**2).mean() / 1000)

    assert kept() > 0.7
    monkeypatch.setattr(denoiser, "STANDS_OUT", 1e9)
    assert kept() < 0.1


def test_settings_steer_it_and_hidden_ones_do_not(scans, encoder):
    counts, settings = frame(scans)
    direct = Direct(steered(), encoder, "cpu")
    told, untold = direct(counts, settings, 16)[0], direct(counts, NOTHING, 16)[0]
    assert np.abs(told - untold).max() > 1e-3 * counts.std()
    assert not direct.settings(NOTHING).any()
    blind = steered()
    blind_net = DoseNet(dataclasses.replace(blind.config, conditioned=False)).eval()
    blind = Direct(blind_net, encoder, "cpu")
    assert np.array_equal(blind(counts, settings, 16)[0], blind(counts, NOTHING, 16)[0])


def test_refuses_what_it_cannot_do(encoder):
    direct = Direct(steered(), encoder, "cpu")
    with pytest.raises(cimp.OutOfRangeError, match="32 x 32"):
        direct(np.zeros((20, 64), np.float32), NOTHING, 16)
    with pytest.raises(cimp.OutOfRangeError, match="more than 1"):
        direct(np.zeros((64, 64), np.float32), NOTHING, 1)


def test_batches_are_a_function_of_the_step(scans, encoder):
    sampler = DoseSampler(scans, encoder, SMOKE)
    for a, b in zip(sampler(3), DoseSampler(scans, encoder, SMOKE)(3), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(sampler(3)[0], sampler(4)[0])
    counts, truth, settings, factor = sampler(0)
    size = SMOKE.crop_size
    assert counts.shape == truth.shape == (SMOKE.batch_size, size, size)
    assert settings.shape == (SMOKE.batch_size, CONDITION) and factor.min() > 1
    hidden = np.mean([float((sampler(step)[2] == 0).all(1).float().mean()) for step in range(6)])
    assert 0.1 < hidden < 0.6


def test_loss_is_minus_the_logarithm_of_the_gain():
    net = DoseNet(DoseNetConfig(width=8, deep=8, blocks=1)).eval()
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(rng.poisson(30, (2, 64, 64)).astype(np.float32))
    truth = torch.full((2, 64, 64), 30.0)
    told, factor = torch.zeros(2, CONDITION), torch.full((2,), 16.0)
    _, scalars = dose_loss(net, counts, truth, told, factor)
    with torch.no_grad():
        out = net(counts, told, factor)
    image = out.image * out.spread[:, None, None] + out.mean[:, None, None]
    gain = ((counts - truth) ** 2).mean((1, 2)) / ((image - truth) ** 2).mean((1, 2))
    assert float(scalars["log_gain"]) == pytest.approx(float(gain.log().mean()), abs=0.05)


@pytest.mark.parametrize("bias", [-60.0, -8.0, 20.0])
def test_a_deviation_that_is_far_off_is_pulled_back(bias):
    net = leaning(CANDIDATES + 1, bias).train()
    counts = torch.from_numpy(np.random.default_rng(0).poisson(30, (2, 64, 64)).astype(np.float32))
    truth, factor = torch.full((2, 64, 64), 30.0), torch.full((2,), 16.0)
    dose_loss(net, counts, truth, torch.zeros(2, CONDITION), factor)[0].backward()
    pull = net.head.bias.grad[4 * (CANDIDATES + 1) :]
    assert (pull * np.sign(bias) > 1e-3).all()


def test_training_overfits_a_batch_and_resumes(scans, encoder, tmp_path):
    config = dataclasses.replace(SMOKE, samples=80, checkpoint_every=16)

    class Same(DoseSampler):
        def __call__(self, step):
            return super().__call__(0)

    from cimp_core.denoising import training

    torch.manual_seed(0)
    net = DoseNet(DoseNetConfig(width=8, deep=8, blocks=1))
    log = training.fit(net, Same(scans, encoder, config), dose_loss, dataclasses.replace(config, samples=320))
    assert log[-1]["log_gain"] > log[0]["log_gain"] + 0.3

    whole = train_direct(scans, None, encoder, config, tmp_path / "a")
    torch.manual_seed(config.seed)
    net = DoseNet(DoseNetConfig(width=8, deep=8, blocks=1))
    training.fit(net, DoseSampler(scans, encoder, config), dose_loss, config, tmp_path / "b", stop=4)
    resumed = train_direct(scans, None, encoder, config, tmp_path / "b")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_trust(encoder):
    data = cimp.twin(60, 256)  # the size for which the limit was set: one right pair in fifty is doubted
    believed, doubted = [], []
    for i in range(0, 60, 3):
        shot, fraction = scan_of(data, i)
        settings, counts = low_dose(shot, fraction, 8.0, shot.acquisition.dwell_time, np.random.default_rng(i))
        right = trust.check(counts, settings, absolute=True, model=encoder)
        believed.append(right.verdict == "agree")
        wrong = settings.replace(dwell_time=settings.dwell_time * 1e3, detector_gain=73.0 - settings.detector_gain)
        found = trust.check(counts, wrong, absolute=True, model=encoder)
        doubted.append(found.verdict == "disagree")
        assert found.verdict == "agree" or set(found.doubted) <= set(found.acquisition.missing)
    assert np.mean(believed) > 0.9
    assert np.mean(doubted) > 0.9


def test_trust_with_nothing_to_compare(encoder):
    found = trust.check(
        np.zeros((64, 64), np.float32), cimp.Acquisition(dwell_time=1e-6), absolute=False, model=encoder
    )
    assert found.verdict == "missing" and "no settings" in str(found)
