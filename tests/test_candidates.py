"""Plain estimates: the glow's transfer, the noise read from one image, and what smoothing keeps."""

import numpy as np
import pytest
import torch

from cimp_core.models.candidates import (
    BLOCKS,
    CANDIDATES,
    WIDTHS,
    blocks,
    candidates,
    gaussian,
    glow_transfer,
    local_noise,
    noise_spectrum,
)
from cimp_core.simulate.detector import after_glow


@pytest.mark.parametrize("ratio", [0.1, 0.7, 3.0])
def test_transfer_is_that_of_the_detector(ratio):
    impulse = np.zeros((1, 512))
    impulse[0, 0] = 1
    response = after_glow(impulse, 1.0, ratio)
    frequency = torch.fft.rfftfreq(512, dtype=torch.float64)
    ours = glow_transfer(torch.tensor([ratio], dtype=torch.float64), frequency)[0].numpy()
    # The tail beyond 512 pixels is cut off on one side only.
    assert np.abs(np.fft.rfft(response[0]) - ours).max() < 1e-10


def glowing(ratio: float, seed: int = 0, n: int = 192) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(n, n + 64))
    return after_glow(noise, 1.0, ratio)[:, 64:] if ratio else noise[:, 64:]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 2.0])
def test_decay_and_level_are_read_from_noise(ratio):
    z = torch.from_numpy(np.stack([glowing(ratio, k) for k in range(4)])).float()
    level, found, _ = noise_spectrum(z)
    assert np.abs(np.log(found.numpy() / ratio)).max() < 0.4
    assert np.abs(level.numpy() - 1).max() < (0.3 if ratio < 0.5 else 0.2)  # the decay is known in steps


def test_white_noise_has_no_glow():
    z = torch.from_numpy(np.stack([glowing(0, k) for k in range(4)])).float()
    level, found, _ = noise_spectrum(z)
    assert found.min() > 5
    assert np.abs(level.numpy() - 1).max() < 0.1


def test_a_told_decay_is_used():
    z = torch.from_numpy(glowing(0.5)[None]).float()
    assert noise_spectrum(z, torch.tensor([2.0]))[1].tolist() == [2.0]


def test_glow_is_undone():
    """A bright column leaks into the next ones; at many times the dwell time it would not."""
    signal = np.full((128, 192), 100.0)
    signal[:, 60] = 1000
    rng = np.random.default_rng(0)
    noisy = after_glow(rng.poisson(signal).astype(float), 1.0, 0.5, signal[:, :1])
    seen = candidates(torch.from_numpy(noisy)[None], torch.tensor([1e3]))
    clear = (seen.images[0, 1] * seen.spread[0] + seen.mean[0]).numpy()
    leak = (noisy[:, 61] - 100).mean(), (clear[:, 61] - 100).mean()
    assert leak[0] > 150
    assert abs(leak[1]) < 0.4 * leak[0]
    assert clear.mean() == pytest.approx(noisy.mean(), rel=1e-3)


@pytest.mark.parametrize("shape", [(32, 32), (97, 130), (128, 256)])
def test_every_estimate_has_the_size_of_the_image_and_keeps_its_mean(shape):
    counts = torch.from_numpy(np.random.default_rng(0).poisson(50, (2, *shape)).astype(np.float32))
    seen = candidates(counts, torch.full((2,), 16.0))
    assert seen.images.shape == (2, CANDIDATES, *shape)
    assert len(WIDTHS) + len(BLOCKS) + 2 == CANDIDATES
    assert seen.images.mean((2, 3)).abs().max() < 0.05
    assert torch.isfinite(seen.images).all() and torch.isfinite(seen.globals).all()


def test_blocks_keep_a_lattice_and_remove_noise():
    y, x = np.mgrid[:128, :128]
    lattice = np.cos(2 * np.pi * x / 7.3) * np.cos(2 * np.pi * y / 9.1)
    noisy = lattice + np.random.default_rng(0).normal(size=lattice.shape)
    seen = candidates(torch.from_numpy(1000 * noisy + 5000)[None], torch.tensor([16.0]))
    truth = (1000 * lattice + 5000 - float(seen.mean)) / float(seen.spread)
    error = (seen.images[0].numpy() - truth).reshape(CANDIDATES, -1).var(1)
    assert error[-1] < 0.05 * error[0]
    assert error[-1] < 0.3 * error[2 : 2 + len(WIDTHS)].min()


def test_constant_and_clipped_images_stay_finite():
    counts = torch.zeros(2, 64, 64)
    counts[1, 20:30, 20:30] = 65535
    seen = candidates(counts, torch.full((2,), 16.0))
    assert torch.isfinite(seen.images).all() and torch.isfinite(seen.globals).all()


def test_gaussian_against_scipy():
    from scipy.ndimage import gaussian_filter

    z = np.random.default_rng(0).normal(size=(1, 60, 70))
    ours = gaussian(torch.from_numpy(z), 2.4).numpy()[0]
    assert np.abs(ours - gaussian_filter(z[0], 2.4, mode="mirror", radius=7)).max() < 1e-10


def test_local_noise_follows_the_brightness():
    rng = np.random.default_rng(0)
    bright = np.r_[np.full(128, 4.0), np.full(128, 36.0)]
    scale = local_noise(torch.from_numpy(rng.poisson(np.tile(bright, (256, 1))).astype(np.float32))[None])[0].numpy()
    assert (scale[:, 192:].mean() / scale[:, :64].mean()) == pytest.approx(3, rel=0.05)
    assert (scale**2).mean() == pytest.approx(1, rel=0.01)


def test_a_faint_lattice_in_the_dark_is_kept_beside_a_bright_part():
    """Noise of the bright half would hide it, if the whole field had one threshold."""
    y, x = np.mgrid[:256, :256]
    lattice = np.cos(2 * np.pi * x / 7.3) * np.cos(2 * np.pi * y / 9.1) * (x < 128)
    expected = np.where(x < 128, 4 + 0.6 * lattice, 150.0)
    counts = np.random.default_rng(0).poisson(expected).astype(np.float32)
    seen = candidates(torch.from_numpy(counts)[None], torch.tensor([16.0]))
    field = (seen.images[0, -1] * seen.spread[0]).numpy()  # the widest blocks, the highest threshold
    assert (field * lattice).sum() / (lattice**2).sum() > 0.5 * 0.6
    one = blocks(seen.images[:, 1], seen.noise.square(), seen.ratio, torch.tensor([16.0]), 256, BLOCKS[-1][1])
    assert (one[0].numpy() * float(seen.spread[0]) * lattice).sum() / (lattice**2).sum() < 0.15 * 0.6


def test_blocks_keep_a_level_that_is_far_below_the_noise():
    level = 0.2
    z = level + torch.from_numpy(np.random.default_rng(0).normal(size=(1, 128, 128))).float()
    one, none = torch.ones(1), torch.full((1,), 100.0)
    kept = blocks(z, one, none, torch.full((1,), 16.0), 16, 4.0)
    # The window lets part of a level leak into the lowest waves, which are taken for noise.
    assert float(kept.mean()) > 0.5 * float(z.mean())
    assert float(kept.std()) < 0.3
