"""Measures of a restored image against closed forms and plain double loops."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cimp_core.errors import OutOfRangeError
from cimp_core.metrics_denoising import (
    affine_error,
    affine_match,
    coverage,
    dose_gain,
    frc,
    frc_resolution,
    psnr,
    region_bias,
    ssim,
)
from cimp_core.metrics_structure import (
    column_score,
    false_spot,
    find_columns,
    fringe_kept,
    match_points,
    power_left,
    true_columns,
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def dots(height=96, width=112, spacing=10.0, sigma=1.8, moved=None, left_out=()):
    """Gaussian columns on a hexagonal net, with a displacement of each; their positions."""
    points = [
        (r * spacing * 0.866 + 6.3, c * spacing + (r % 2) * spacing / 2 + 5.4) for r in range(40) for c in range(40)
    ]
    points = np.array([p for p in points if p[0] < height - 4 and p[1] < width - 4])
    points = np.delete(points, list(left_out), axis=0)
    if moved is not None:
        points = points + moved[: len(points)]
    y, x = np.mgrid[:height, :width]
    image = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * sigma**2)) for a, b in points)
    return 300 + 1000 * image, points


def test_affine_match_is_that_of_least_squares(rng):
    truth = rng.standard_normal((20, 30))
    image = 3 - 0.2 * truth + 0.1 * rng.standard_normal((20, 30))
    columns = np.stack([np.ones(600), image.ravel()], axis=1)
    fitted = columns @ np.linalg.lstsq(columns, truth.ravel(), rcond=None)[0]
    np.testing.assert_allclose(affine_match(image, truth).ravel(), fitted, atol=1e-12)
    assert affine_error(image, truth) == pytest.approx(np.mean((fitted - truth.ravel()) ** 2))
    assert affine_error(50 * truth - 7, truth) == pytest.approx(0, abs=1e-20)
    assert affine_error(np.full((20, 30), 5.0), truth) == pytest.approx(truth.var())
    with pytest.raises(OutOfRangeError, match="shape"):
        affine_error(image[1:], truth)


def test_psnr_and_ssim_by_their_definitions(rng):
    truth = rng.uniform(100, 300, (40, 40))
    image = truth + 4
    assert psnr(image, truth) == pytest.approx(20 * np.log10(np.ptp(truth) / 4))
    assert psnr(image, truth, data_range=255) == pytest.approx(20 * np.log10(255 / 4))
    assert psnr(truth, truth) == np.inf and np.isnan(psnr(image, np.zeros((40, 40))))
    assert ssim(truth, truth) == pytest.approx(1) and np.isnan(ssim(image, np.zeros((40, 40))))
    assert ssim(truth + 100 * rng.standard_normal(truth.shape), truth) < 0.7


@pytest.mark.parametrize("shape", [(24, 24), (25, 31), (30, 20)], ids=str)
def test_fourier_rings_by_a_double_loop(rng, shape):
    image, truth = rng.standard_normal((2, *shape))
    truth = truth + image
    frequency, correlation = frc(image, truth)
    window = np.hanning(shape[0])[:, None] * np.hanning(shape[1])
    f, t = (np.fft.fft2((v - v.mean()) * window) for v in (image, truth))
    count = min(shape) // 2
    for ring in range(1, count + 1):
        shared = a = b = 0.0
        for i, j in itertools.product(*map(range, shape)):
            if round(float(np.hypot(np.fft.fftfreq(shape[0])[i], np.fft.fftfreq(shape[1])[j])) * 2 * count) == ring:
                shared += (f[i, j] * np.conj(t[i, j])).real
                a, b = a + abs(f[i, j]) ** 2, b + abs(t[i, j]) ** 2
        assert correlation[ring - 1] == pytest.approx(shared / np.sqrt(a * b), abs=1e-9)
    assert frequency[-1] == 0.5 and len(frequency) == count
    np.testing.assert_allclose(frc(3 * image + 5, image)[1], 1, atol=1e-9)


def test_resolution_is_where_the_curve_crosses():
    f = np.array([0.1, 0.2, 0.3, 0.4])
    assert frc_resolution(f, np.array([1, 0.8, 0.4, 0.9])) == pytest.approx(0.275)
    assert frc_resolution(f, np.array([1, 0.8, 0.4, 0.1]), 1 / 7) == pytest.approx(0.3 + 0.1 * (0.4 - 1 / 7) / 0.3)
    assert frc_resolution(f, np.ones(4)) == 0.4 and frc_resolution(f, np.zeros(4)) == 0.0
    twice = np.array([1, 0.4, 0.9, 0.1])
    assert frc_resolution(f, twice) == pytest.approx(0.1 + 0.1 * 0.5 / 0.6)
    assert frc_resolution(f, twice, last=True) == pytest.approx(0.35)
    assert frc_resolution(f, twice[::-1], last=True) == 0.4 and frc_resolution(f, twice[::-1]) == 0.0
    assert frc_resolution(f, np.zeros(4), last=True) == 0.0


def test_dose_gain_of_shot_noise_is_the_factor_itself(rng):
    factors = 2.0 ** np.arange(11)
    ladder = 7.3 / factors
    for k in (1.0, 3.7, 100.0, 1024.0):
        assert dose_gain(7.3 / k, ladder, factors).factor == pytest.approx(k)
    assert dose_gain(8.0, ladder, factors) == (1.0, "worse than raw")
    assert dose_gain(1e-9, ladder, factors) == (1024.0, "better than all")
    assert np.isnan(dose_gain(np.nan, ladder, factors).factor)
    assert np.isnan(dose_gain(1.0, np.zeros(11), factors).factor)
    # An error that rises with the dose by chance is passed over.
    bumpy = ladder.copy()
    bumpy[3] *= 4  # at 8 it counts as what it was at 4, so from 8 to 16 it falls fourfold
    assert dose_gain(1.2 * ladder[4], bumpy, factors).factor == pytest.approx(8 * 2 ** (np.log(4 / 1.2) / np.log(4)))


def test_regions_by_a_double_loop():
    truth = np.full((40, 64), 700.0)
    image = truth.copy()
    image[:32, :32] *= 1.02  # of the signal above 500, that is 7 %
    electrons = np.where(np.arange(64) < 48, 1e4, 10.0) + np.zeros((40, 1))
    bias = region_bias(image, truth, 500.0, electrons, spread=0.5, shot_error=0.003)
    errors = []
    for rows, columns in ((8, 8), (16, 16), (32, 32), (40, 64)):
        for i, j in itertools.product(range(40 // rows), range(64 // columns)):
            block = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            if np.sqrt(1.25 / electrons[block].sum()) < 0.003:
                errors.append(abs((image[block].mean() - 500) / (truth[block].mean() - 500) - 1))
    assert bias.regions == len(errors) and bias.median == pytest.approx(np.median(errors))
    assert bias.largest == pytest.approx(0.07) and bias.within == pytest.approx(np.mean(np.array(errors) < 0.01))
    assert region_bias(image, truth, 500.0, 0.1 * np.ones_like(truth)).regions == 0


def test_coverage_of_normal_errors_is_the_level(rng):
    truth, deviation = np.zeros((300, 300)), rng.uniform(1, 9, (300, 300))
    image = deviation * rng.standard_normal((300, 300))
    for level in (0.68, 0.95):
        assert coverage(image, deviation, truth, level) == pytest.approx(level, abs=0.01)
        assert coverage(image, deviation / 2, truth, level) < level - 0.2


def test_columns_are_found_where_they_are(rng):
    truth, points = dots(moved=rng.uniform(-0.5, 0.5, (500, 2)))
    columns = true_columns(truth)
    a, b = match_points(columns.positions, points, 3)
    assert columns.spacing == pytest.approx(10, rel=0.1) and len(columns.positions) == len(a)
    inner = np.all((points[b] > 8) & (points[b] < np.array([88, 104])), axis=1)
    assert inner.sum() > 60
    assert np.abs(columns.positions[a] - points[b])[inner].max() < 0.25
    assert len(find_columns(truth, columns)) == len(columns.positions)


def test_nothing_is_a_column_of_speckle_noise_or_a_flat_field(rng):
    from scipy import ndimage

    for width in (1.5, 3.0):
        assert true_columns(ndimage.gaussian_filter(rng.standard_normal((160, 160)), width)) is None
    assert true_columns(np.full((64, 64), 3.0)) is None
    assert true_columns(np.linspace(0, 1, 64) + np.zeros((64, 1))) is None


def test_a_moved_a_lost_and_an_invented_column_are_each_counted():
    truth, points = dots()
    columns = true_columns(truth)
    assert column_score(truth, truth, columns)[:4] == pytest.approx((1, 1, 1, 0), abs=0.005)
    middle = int(np.argmin(np.hypot(*(points - (48, 56)).T)))
    lost, _ = dots(left_out=[middle])
    score = column_score(lost, truth, columns)
    assert score.precision == 1 and score.recall == pytest.approx(1 - 1 / score.count)
    back = column_score(truth, lost, true_columns(lost))
    assert back.recall == 1 and back.precision == pytest.approx(1 - 1 / score.count)
    shifted, _ = dots(moved=np.full((500, 2), 0.3))
    assert column_score(shifted, truth, columns).error == pytest.approx(0.3, rel=0.1)
    # A score does not depend on contrast and brightness, and nothing is found in a flat image.
    assert column_score(5 * shifted - 90, truth, columns).f1 == 1
    assert column_score(np.ones_like(truth), truth, columns)[:3] == (0, 0, 0)


def test_matching_is_that_of_the_full_assignment(rng):
    for _ in range(5):
        found, truth = rng.uniform(0, 20, (30, 2)), rng.uniform(0, 20, (25, 2))
        distance = np.hypot(*(found[:, None] - truth).transpose(2, 0, 1))
        cost = np.where(distance <= 1.5, distance**2, 1e6)
        rows, columns = linear_sum_assignment(cost)
        kept = cost[rows, columns] < 1e6
        a, b = match_points(found, truth, 1.5)
        assert len(a) == kept.sum() and (distance[a, b] <= 1.5).all()
        assert (distance[a, b] ** 2).sum() == pytest.approx(cost[rows, columns][kept].sum())
        assert len(set(a.tolist())) == len(a) and len(set(b.tolist())) == len(b)
    assert [len(part) for part in match_points(np.zeros((0, 2)), truth, 1)] == [0, 0]


def test_fringe_kept_is_the_factor_of_a_faint_lattice(rng):
    y, x = np.mgrid[:128, :128]
    strong, faint = (np.sin(2 * np.pi * (fx * x + fy * y)) for fx, fy in ((0.2, 0.1), (0.3, -0.15)))
    noise = 20 * rng.standard_normal((128, 128))
    window = np.hanning(128)[:, None] * np.hanning(128)
    # A sine of amplitude A has the power (A sum(w) / 2)^2 in its spot, noise sum(w^2) variance.
    level = 20 * np.sqrt(np.sum(window**2)) * 2 / window.sum()
    truth = 100 + 30 * level * strong + 2 * level * faint
    for part in (1.0, 0.6, 0.0):
        image = 100 + 30 * level * strong + part * 2 * level * faint
        kept, spots = fringe_kept(image, truth, truth + noise)
        assert spots == 1 and kept == pytest.approx(part, abs=0.01)
    assert fringe_kept(truth + noise, truth, truth + noise)[0] == pytest.approx(1, abs=1.2)
    assert fringe_kept(truth, 100 + 30 * level * strong, truth + noise)[1] == 0
    # Speckle is as strong as noise, but it is no lattice.
    speckle = 100 + 25 * rng.standard_normal((128, 128))
    assert fringe_kept(speckle, speckle, speckle + noise)[1] <= 2


def test_a_false_spot_is_one_of_the_power_of_noise(rng):
    y, x = np.mgrid[:128, :128]
    truth, noise = np.full((128, 128), 700.0), 20 * rng.standard_normal((128, 128))
    assert 1 < false_spot(truth + noise, truth, truth + noise) < 10
    window = np.hanning(128)[:, None] * np.hanning(128)
    wave = 20 * np.sqrt(np.sum(window**2)) * 2 / window.sum() * np.sin(2 * np.pi * (26 * x + 13 * y) / 128)
    smooth = 0.01 * noise
    assert false_spot(truth + wave + smooth, truth, truth + noise) > 100
    assert false_spot(truth + 0.2 * wave + smooth, truth, truth + noise) == 0  # a twenty-fifth of its power
    assert false_spot(truth, truth, truth + noise) == false_spot(truth, truth, truth) == 0


def test_power_left_of_half_the_noise_is_a_quarter(rng):
    truth, noise = np.full((50, 50), 9.0), rng.standard_normal((50, 50))
    assert power_left(truth + 0.5 * noise, truth, truth + noise) == pytest.approx(0.25)
    assert np.isnan(power_left(truth, truth, truth))
