"""Checks of a denoiser without a truth: each sees what it is for, and passes an image that has lost its noise alone."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cimp_core.study.residuals import residual

SLOPE = 40.0


@pytest.fixture(scope="module")
def pair():
    """A crystal of ten pixels a period with the shot noise of few electrons, and its expectation."""
    y, x = np.mgrid[:192, :192] * 2 * np.pi / 10
    truth = 2000 + 600 * np.cos(x) * np.cos(y)
    return SLOPE * np.random.default_rng(0).poisson(truth / SLOPE).astype(float), truth


def test_the_truth_passes(pair):
    frame, truth = pair
    found = residual(frame, truth, np.sqrt(SLOPE * truth / 16))
    assert found.taken == pytest.approx(1, abs=0.1) and found.level == pytest.approx(1, abs=0.2)
    assert abs(found.down) < 0.02 and found.spot < 10
    assert found.claimed == pytest.approx(16, rel=0.1)
    assert np.isnan(residual(frame, truth).claimed)


def test_noise_that_was_left_is_missing(pair):
    frame, truth = pair
    assert residual(frame, frame).taken == 0
    assert residual(frame, 0.5 * (frame + truth)).taken == pytest.approx(0.25, abs=0.05)


def test_a_lattice_that_was_blurred_away_is_found(pair):
    frame, _ = pair
    found = residual(frame, gaussian_filter(frame, 5.0))
    assert found.spot > 30 and found.taken > 1.3 and found.down > 0.2
    mild = residual(frame, gaussian_filter(frame, 1.5))
    assert mild.spot > 10 and mild.taken < found.taken


def test_a_level_that_was_moved_is_found(pair):
    frame, truth = pair
    assert residual(frame, truth + 60).level > 2
    half = truth.copy()
    half[:, :96] += 60
    assert residual(frame, half).level > 1.5


def test_without_noise_there_is_nothing_to_check(pair):
    _, truth = pair
    assert all(np.isnan(residual(np.full_like(truth, 5.0), truth)))
