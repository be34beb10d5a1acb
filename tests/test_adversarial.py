"""The five terms of the translator's training against NumPy, and the way of the gradient through the frozen encoder."""

import numpy as np
import pytest
import torch

from cimp_core.losses.adversarial import (
    TERMS,
    cycle,
    embedding,
    identity,
    lsgan_discriminator,
    lsgan_generator,
    noise,
    truth,
)
from cimp_core.models import Cimp, CimpConfig

rng = np.random.default_rng(0)
REAL, FAKE = rng.normal(0.8, 0.5, (3, 5, 4)), rng.normal(0.1, 0.7, (3, 6, 7))
IMAGE, OTHER = rng.normal(9000, 2000, (3, 8, 6)), rng.normal(9500, 2500, (3, 8, 6))
SPREAD = np.array([1500.0, 2000.0, 4000.0])
tensor = torch.from_numpy


def test_there_are_five_terms_by_name():
    import cimp_core.losses.adversarial as module

    assert len(TERMS) == 5 and all(callable(getattr(module, name)) for name in TERMS)


def test_least_squares_of_critic_and_generator():
    expected = 0.5 * np.mean((REAL - 1) ** 2) + 0.5 * np.mean(FAKE**2)
    assert lsgan_discriminator(tensor(REAL), tensor(FAKE)).item() == pytest.approx(expected, rel=1e-6)
    assert lsgan_generator(tensor(FAKE)).item() == pytest.approx(0.5 * np.mean((FAKE - 1) ** 2), rel=1e-6)
    ones, zeros = torch.ones(2, 3, 3), torch.zeros(2, 3, 3)
    assert lsgan_discriminator(ones, zeros) == 0 and lsgan_generator(ones) == 0
    assert lsgan_discriminator(zeros, ones) == 1 and lsgan_generator(zeros) == 0.5


@pytest.mark.parametrize("term", [cycle, identity], ids=["cycle", "identity"])
def test_differences_count_in_units_of_each_images_spread(term):
    expected = np.mean([np.abs(a - b).mean() / s for a, b, s in zip(IMAGE, OTHER, SPREAD, strict=True)])
    assert term(tensor(IMAGE), tensor(OTHER), tensor(SPREAD)).item() == pytest.approx(expected, rel=1e-6)
    assert term(tensor(IMAGE), tensor(IMAGE), tensor(SPREAD)) == 0
    scaled = term(tensor(7 * IMAGE), tensor(7 * OTHER), tensor(7 * SPREAD))
    assert scaled.item() == pytest.approx(expected, rel=1e-6)


def test_over_squares_only_their_means_are_compared():
    made = IMAGE + rng.normal(0, 500, IMAGE.shape)
    means = [x.reshape(3, 4, 2, 3, 2).mean((2, 4)) for x in (IMAGE, made)]
    expected = np.mean([np.abs(a - b).mean() / s for a, b, s in zip(*means, SPREAD, strict=True)])
    assert cycle(tensor(IMAGE), tensor(made), tensor(SPREAD), 2).item() == pytest.approx(expected, rel=1e-5)
    assert truth(tensor(made), tensor(IMAGE), tensor(SPREAD), 2).item() == pytest.approx(expected, rel=1e-5)
    checkers = 300.0 * (-1) ** np.add.outer(np.arange(8), np.arange(6))
    assert truth(tensor(IMAGE + checkers), tensor(IMAGE), tensor(SPREAD), 2).item() == pytest.approx(0, abs=1e-6)


def test_noise_term_is_the_logarithm_of_the_ratio_of_variances():
    ramp = np.add.outer(100.0 * np.arange(258), np.zeros(256))  # no second difference
    a, b = (tensor(ramp + s * rng.normal(size=(2, 258, 256))) for s in (30.0, 90.0))
    assert noise(a, b, 128).item() == pytest.approx(np.log(8200 / 1000), rel=0.03)
    assert noise(b, a, 128) == noise(a, b, 128) and noise(a, a, 16) == 0
    streaks = 500.0 * (-1) ** np.arange(256)  # along the fast axis neither picture nor after-glow counts
    assert noise(a + tensor(streaks), b, 128).item() == pytest.approx(noise(a, b, 128).item(), rel=1e-6)
    flat = tensor(np.tile(ramp, (2, 1, 1)))
    assert noise(a, flat, 128).item() == pytest.approx(np.log(900 / 100 + 1), rel=0.02)  # ten counts are no noise


def test_embedding_term_is_one_minus_the_cosine():
    a, b = rng.normal(size=(4, 16)), rng.normal(size=(4, 16))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert embedding(tensor(a), tensor(b)).item() == pytest.approx(1 - cosine.mean(), rel=1e-6)
    assert embedding(tensor(a), tensor(3 * a)).item() == pytest.approx(0, abs=1e-6)
    assert embedding(tensor(a), tensor(-a)).item() == pytest.approx(2, rel=1e-6)


def frozen_encoder():
    torch.manual_seed(0)
    model = Cimp(CimpConfig(dim=16, hidden=32, spectrum=8))
    images = 25_000 + 3000 * torch.randn(24, 48, 48).cumsum(2).div(7)
    model.image_encoder(images)  # batch norms have seen something
    return model.eval().requires_grad_(False), images[:2]


def test_gradient_of_the_embedding_term_reaches_the_pixels_and_is_that_of_finite_differences():
    model, images = frozen_encoder()
    wanted = model.metadata_encoder(torch.randn(2, 7))
    images = images.clone().requires_grad_(True)
    embedding(model.image_encoder(images), wanted).backward()
    gradient = images.grad.clone()
    assert all(p.grad is None for p in model.parameters())
    assert (gradient != 0).float().mean() > 0.9

    def value(x):
        with torch.no_grad():
            return embedding(model.image_encoder(x), wanted).item()

    # Along the level and the contrast the term is smooth. Along noise it is rough, as medians and sorted blocks are in
    # it, and only a small step agrees.
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    base = images.detach()
    for direction, size, rel in (
        (torch.ones_like(base), 30, 0.02),
        (base - base.mean((1, 2), keepdim=True), 30, 0.02),
        (noise, 0.3, 0.1),
    ):
        step = size * direction / direction.square().mean().sqrt()
        measured = (value(base + step) - value(base - step)) / 2
        assert measured == pytest.approx((gradient * step).sum().item(), rel=rel)
