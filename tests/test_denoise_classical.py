"""Classical filters take noise away at any scale of intensity, leave what has none, and are what they say they are."""

import numpy as np
import pytest
from scipy import ndimage

from cimp_core.denoising.classical import Gaussian, NonLocalMeans, TotalVariation, Wavelet, Wiener, _haar
from cimp_core.denoising.noise_line import noise_line
from cimp_core.denoising.oracle import OracleGaussian, OracleTotalVariation
from cimp_core.errors import OutOfRangeError
from cimp_core.metrics_denoising import affine_error

METHODS = [Gaussian(), TotalVariation(), NonLocalMeans(), Wavelet(), Wiener()]
named = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@pytest.fixture(scope="module")
def scene():
    """Columns beside vacuum at 12 electrons, in counts: truth and recording, 40 counts an electron above 900."""
    y, x = np.mgrid[:96, :128]
    electrons = 1 + 11 * (np.sin(2 * np.pi * x / 22) * np.sin(2 * np.pi * y / 26)) ** 2 * (x > 40)
    counts = np.random.default_rng(3).poisson(electrons)
    return 900 + 40.0 * electrons, (900 + 40.0 * counts).astype(np.float32)


@named
def test_noise_goes_and_the_image_stays(method, scene):
    truth, frame = scene
    image, deviation = method(frame, None, 16)
    assert image.dtype == np.float32 and image.shape == frame.shape and deviation is None
    assert affine_error(image, truth) < 0.5 * affine_error(frame, truth)
    # In counts, and without an offset: regions keep their means.
    assert np.mean((image - truth) ** 2) < 0.6 * np.mean((frame - truth) ** 2)
    for part in (np.s_[:, :32], np.s_[:, 56:]):
        assert image[part].mean() == pytest.approx(frame[part].mean(), rel=0.004)


@named
@pytest.mark.parametrize("scale, shift", [(1e-4, 0.0), (37.0, -20000.0)], ids=["tiny", "shifted"])
def test_any_scale_of_intensity_gives_the_same_image(method, scene, scale, shift):
    frame = scene[1]
    expected = scale * method(frame, None, 16)[0].astype(float) + shift
    found = method((scale * frame + shift).astype(np.float32), None, 16)[0]
    np.testing.assert_allclose(found, expected, atol=2e-3 * scale * np.ptp(frame))


@named
def test_a_constant_image_survives(method):
    for level in (0.0, 3.5, 40000.0):
        image, _ = method(np.full((33, 47), level, np.float32), None, 16)
        np.testing.assert_allclose(image, level, rtol=1e-6, atol=1e-6)


@named
def test_a_frame_too_small_or_broken_is_refused(method):
    with pytest.raises(OutOfRangeError, match="32 pixels"):
        method(np.zeros((31, 64), np.float32), None, 16)
    with pytest.raises(OutOfRangeError, match="nan"):
        method(np.full((64, 64), np.nan, np.float32), None, 16)


@named
def test_a_margin_is_all_a_tile_needs_to_know(method, scene):
    """What lies further away changes the estimate of the noise at most; of Wiener's filter, the spectrum."""
    truth, frame = (np.tile(v, (1, 3)) for v in scene)
    whole, tile = (method(part, None, 16)[0][:, :128] for part in (frame, frame[:, : 128 + method.margin]))
    assert np.sqrt(np.mean((whole - tile) ** 2)) < 0.25 * np.sqrt(np.mean((frame - truth) ** 2))


@pytest.mark.parametrize("electrons, read", [(2.0, 0.0), (30.0, 0.0), (30.0, 200.0)])
def test_the_line_of_the_noise_is_found(electrons, read):
    rng = np.random.default_rng(0)
    expected = np.linspace(0.1, 1, 256) * electrons + np.zeros((256, 1))
    frame = 500 + 40 * rng.poisson(expected) + read * rng.standard_normal(expected.shape)
    line = noise_line(frame)
    truth = 40**2 * expected + read**2
    np.testing.assert_allclose(line.variance(500 + 40 * expected), truth, rtol=0.12, atol=0.08 * truth.mean())
    steady = line.stabilise(frame)
    left, right = steady[:, 64:128].std(), steady[:, -64:].std()
    assert right == pytest.approx(1, abs=0.15) and (electrons == 2.0 or left == pytest.approx(1, abs=0.15))
    np.testing.assert_allclose(line.restore(steady), frame, atol=1e-6 * np.ptp(frame))


def test_no_noise_no_line():
    assert noise_line(np.full((64, 64), 7.0)) is None


def test_haar_of_all_shifts_comes_back_where_nothing_is_cut_and_leaves_little_noise():
    rng = np.random.default_rng(1)
    strong = 1e6 * rng.standard_normal((64, 64))  # thresholds of noise 1 are nothing to it
    np.testing.assert_allclose(_haar(strong, 4), strong, atol=50)
    noise = rng.standard_normal((128, 128))
    assert _haar(noise, 4).std() < 0.1


def test_the_blind_width_is_near_the_best_one_where_noise_is_correlated_along_rows():
    """After-glow makes neighbours alike: who takes the noise for white smooths far too little."""
    rng = np.random.default_rng(5)
    truth = 800 * ndimage.gaussian_filter(rng.standard_normal((128, 128)), 6)
    noise = 30 * rng.standard_normal((128, 131))
    frame = (truth + (noise[:, 3:] + noise[:, 2:-1] + noise[:, 1:-2] + noise[:, :-3]) / 2).astype(np.float32)
    blind = affine_error(Gaussian()(frame, None, 16)[0], truth)
    best = affine_error(OracleGaussian().tuned(frame, truth), truth)
    assert blind < 1.1 * best and best < 0.4 * affine_error(frame, truth)


def test_wiener_keeps_a_lattice_in_noise_that_glows():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:128, :128]
    truth = 100 + 10 * np.sin(2 * np.pi * (x * 0.13 + y * 0.07)) + 10 * np.sin(2 * np.pi * (y * 0.11 - x * 0.05))
    noise = 20 * rng.standard_normal((128, 131))
    frame = (truth + (noise[:, 3:] + noise[:, 2:-1] + noise[:, 1:-2] + noise[:, :-3]) / 2).astype(np.float32)
    image = Wiener()(frame, None, 16)[0]
    assert np.mean((image - truth) ** 2) < 0.1 * np.mean((frame - truth) ** 2)


@pytest.mark.parametrize("oracle", [OracleGaussian(), OracleTotalVariation()], ids=lambda oracle: oracle.name)
def test_an_oracle_is_never_worse_than_any_setting(oracle, scene):
    truth, frame = scene
    best = affine_error(oracle.tuned(frame, truth), truth)
    others = [Gaussian(s) for s in (0.5, 1, 2, 4)] if "gaussian" in oracle.name else []
    others = others or [TotalVariation(w) for w in (0.5, 1, 2, 4, 8)]
    assert all(best <= 1.02 * affine_error(other(frame, None, 16)[0], truth) for other in others)
