"""Detector and scan: the statistics of the counts against closed forms and against an independent simulation."""

import numpy as np
import pytest
from scipy.constants import elementary_charge

from cimp_core import Acquisition, OutOfRangeError
from cimp_core.simulate.detector import FULL_SCALE, Detector, after_glow, expected_counts, record, spill
from cimp_core.simulate.scan import Scan, lag, row_displacements

SETTINGS = Acquisition(20e-12, 2e-6, 20e-3, 50e-12, 32.0, -1.0, 60e-3)
IDEAL = Detector(
    slope=1000, slope_exponent=0.2, black_level=5000, black_per_offset=2000, decay_time=0, read_noise=0,
    pulse_height_spread=0.5,
)  # fmt: skip


def detector(**changes):
    return Detector(**{**IDEAL.__dict__, **changes})


@pytest.mark.parametrize("electrons", [5, 50, 500, 5000])
@pytest.mark.parametrize("spread", [0.0, 0.5, 0.8])
def test_variance_grows_as_the_dose_over_three_decades(electrons, spread):
    fraction = np.full((256, 256), 0.1)
    current = electrons / 0.1 * elementary_charge / SETTINGS.dwell_time
    scale = 40 / (elementary_charge / SETTINGS.dwell_time * 1e12)  # 40 counts an electron, at any dose
    if electrons == 5000:
        scale /= 10
    one = detector(pulse_height_spread=spread, slope=scale)
    image = record(fraction, SETTINGS.replace(beam_current=current), one, np.random.default_rng(1)).astype(float)
    per_electron = scale * elementary_charge / SETTINGS.dwell_time * 1e12
    detected = (image - one.black_at(SETTINGS.detector_offset)) / per_electron
    assert detected.mean() == pytest.approx(electrons, rel=0.01)
    assert detected.var() - 1 / 12 / per_electron**2 == pytest.approx(electrons * (1 + spread**2), rel=0.03)


def test_expected_counts_are_affine_in_the_fraction_and_the_mean_of_recordings():
    rng = np.random.default_rng(2)
    fraction = rng.random((32, 48)) * 0.2
    one = detector(decay_time=1e-6, dark_current=1e-13, read_noise=50.0)
    base, unit = (expected_counts(np.full_like(fraction, c), SETTINGS, one) for c in (0.0, 1.0))
    assert np.ptp(base) < 1e-6 and np.ptp(unit) < 1e-6  # a flat field is flat, after-glow and fly-back included
    counts = expected_counts(fraction, SETTINGS, one)
    mixed = expected_counts(0.7 * fraction + 0.25, SETTINGS, one)
    np.testing.assert_allclose(mixed, 0.7 * counts + 0.25 * unit + 0.05 * base, rtol=1e-12)
    recordings = np.mean([record(fraction, SETTINGS, one, rng) for _ in range(400)], axis=0)
    error = (recordings - counts) / (np.std([record(fraction, SETTINGS, one, rng) for _ in range(40)], axis=0) / 20)
    assert abs(error.mean()) < 0.12 and error.std() == pytest.approx(1, abs=0.15)


def test_expectation_is_not_clipped_and_recording_is():
    bright, dark = SETTINGS.replace(detector_gain=60.0), SETTINGS.replace(detector_offset=-5.0)
    field = np.full((8, 8), 0.5)
    assert expected_counts(field, bright, IDEAL).min() > FULL_SCALE
    assert (record(field, bright, IDEAL, np.random.default_rng(0)) == FULL_SCALE).all()
    assert expected_counts(0 * field, dark, IDEAL).max() < 0
    image = record(0 * field, dark, IDEAL, np.random.default_rng(0))
    assert image.dtype == np.uint16 and (image == 0).all()


def test_slope_is_monotone_in_the_gain_and_black_level_affine_in_the_offset():
    slopes = [IDEAL.slope_at(gain) for gain in np.linspace(20, 50, 31)]
    assert np.all(np.diff(slopes) > 0)
    assert IDEAL.gain_for(IDEAL.slope_at(41.5)) == pytest.approx(41.5)
    blacks = [
        expected_counts(np.zeros((2, 2)), SETTINGS.replace(detector_offset=o), IDEAL)[0, 0] for o in (-1.8, -0.9, 0)
    ]
    np.testing.assert_allclose(blacks, [1400, 3200, 5000])


@pytest.mark.parametrize("decay_time", [30e-9, 100e-9, 300e-9, 1e-6])
@pytest.mark.parametrize("dwell_time", [100e-9, 1e-6])
def test_after_glow_spills_as_the_closed_form(decay_time, dwell_time):
    impulse = np.zeros((1, 200))
    impulse[0, 0] = 1
    light = after_glow(impulse, decay_time, dwell_time)[0]
    assert light[1:].sum() == pytest.approx(decay_time / dwell_time * (1 - np.exp(-dwell_time / decay_time)), rel=1e-6)
    assert light.sum() == pytest.approx(1)
    # An independent look at the process: electrons arrive evenly, their light decays exponentially.
    rng = np.random.default_rng(3)
    times = rng.uniform(0, dwell_time, 200_000) + rng.exponential(decay_time, 200_000)
    share = np.bincount((times / dwell_time).astype(int), minlength=4)[:4] / len(times)
    np.testing.assert_allclose(light[:4], share, atol=0.005)


def test_spill_has_the_published_size():
    # Read off the closed form for decay times of scintillators at 100 ns and 1 us.
    table = {30e-9: (0.29, 0.03), 100e-9: (0.63, 0.10), 300e-9: (0.85, 0.29), 1e-6: (0.95, 0.63)}
    for decay_time, (fast, slow) in table.items():
        assert spill(decay_time, 100e-9) == pytest.approx(fast, abs=0.006)
        assert spill(decay_time, 1e-6) == pytest.approx(slow, abs=0.006)
    assert spill(0.0, 1e-6) == 0


def test_after_glow_streaks_along_rows_only():
    fast = SETTINGS.replace(dwell_time=0.2e-6, beam_current=200e-12)
    image = record(np.full((256, 256), 0.1), fast, detector(decay_time=300e-9), np.random.default_rng(4)).astype(float)
    image -= image.mean()
    along = (image[:, 1:] * image[:, :-1]).mean() / image.var()
    across = (image[1:] * image[:-1]).mean() / image.var()
    kernel = after_glow(np.eye(1, 100), 300e-9, 0.2e-6)[0]
    assert along == pytest.approx((kernel[1:] * kernel[:-1]).sum() / (kernel**2).sum(), abs=0.02)
    assert abs(across) < 0.02
    assert image[:, 0].var() == pytest.approx(image[:, 128:].var(), rel=0.3)  # the fly-back's glow has noise too


def test_rows_begin_in_the_glow_of_the_waiting_beam():
    field, rng = np.full((4000, 2), 0.2), np.random.default_rng(10)
    one = detector(decay_time=1e-6)
    image = record(field, SETTINGS.replace(dwell_time=0.5e-6), one, rng).astype(float)
    expected = expected_counts(field, SETTINGS.replace(dwell_time=0.5e-6), one)
    np.testing.assert_allclose(image.mean(axis=0) - 3000, expected.mean(axis=0) - 3000, rtol=0.01)


def test_sum_readout_grows_with_the_dwell_time_and_mean_does_not():
    field = np.full((64, 64), 0.05)
    for dwell_time in (0.5e-6, 4e-6):
        at = SETTINGS.replace(dwell_time=dwell_time)
        mean, total = (expected_counts(field, at, detector(readout=r, decay_time=50e-9)) for r in ("mean", "sum"))
        np.testing.assert_allclose(total, mean * dwell_time / 1e-6)
        np.testing.assert_allclose(mean, expected_counts(field, SETTINGS, detector()), rtol=1e-9)
        noisy = [
            record(field, at, detector(readout=r), np.random.default_rng(5)).std()
            / expected_counts(field, at, d).mean()
            for r, d in (("mean", detector()), ("sum", detector(readout="sum")))
        ]
        assert noisy[0] == pytest.approx(noisy[1], rel=0.02)  # the same electrons


@pytest.mark.parametrize("readout, exponent", [("mean", -0.5), ("sum", 0.5)])
def test_read_noise_follows_the_dwell_time(readout, exponent):
    one = detector(readout=readout, read_noise=200.0)
    dark = np.zeros((128, 128))
    noise = [record(dark, SETTINGS.replace(dwell_time=t), one, np.random.default_rng(6)).std() for t in (1e-6, 4e-6)]
    assert noise[0] == pytest.approx(200, rel=0.03)
    assert noise[1] / noise[0] == pytest.approx(4**exponent, rel=0.03)


def test_same_generator_same_image():
    field = np.full((16, 16), 0.1)
    first, again, other = (record(field, SETTINGS, detector(), np.random.default_rng(s)) for s in (7, 7, 8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_impossible_detectors_and_incomplete_settings_are_refused():
    with pytest.raises(OutOfRangeError, match="readout"):
        detector(readout="median")
    with pytest.raises(OutOfRangeError, match="slope"):
        detector(slope=0)
    with pytest.raises(OutOfRangeError, match="negative"):
        detector(decay_time=-1e-9)
    for name in ("dwell_time", "beam_current", "detector_gain", "detector_offset"):
        with pytest.raises(OutOfRangeError, match=name):
            expected_counts(np.zeros((2, 2)), SETTINGS.replace(**{name: None}), IDEAL)


def _rows(scan, dwell_time=1e-6, rows=64, columns=80, seed=0):
    return row_displacements(scan, dwell_time, rows, columns, np.random.default_rng(seed)).T


def test_a_perfect_scan_changes_nothing():
    image = np.random.default_rng(9).random((40, 50)).astype(np.float32)
    np.testing.assert_array_equal(lag(image, Scan(), 1e-6), image)
    assert not np.any(_rows(Scan()))


def test_drift_shears_by_velocity_and_time():
    right, down = _rows(Scan(flyback_time=1e-3, drift=(4e-12, -8e-12)), dwell_time=100e-6)
    row_time = 80 * 100e-6 + 1e-3
    # The specimen moves down, so the beam finds what lay further up.
    np.testing.assert_allclose(np.diff(down), -4e-12 * row_time)
    np.testing.assert_allclose(np.diff(right), 8e-12 * row_time)
    assert abs(down.mean()) < 1e-15


def test_row_jitter_is_correlated_in_time():
    for dwell_time in (1e-6, 20e-6):
        scan = Scan(jitter=20e-12, jitter_time=5e-3, flyback_time=1e-3)
        right, down = _rows(scan, dwell_time, rows=20000)
        assert right.std() == pytest.approx(20e-12, rel=0.05) and down.std() == pytest.approx(10e-12, rel=0.05)
        correlation = np.corrcoef(right[1:], right[:-1])[0, 1]
        assert correlation == pytest.approx(np.exp(-(80 * dwell_time + 1e-3) / 5e-3), abs=0.02)
        assert abs(np.corrcoef(right, down)[0, 1]) < 0.1


def test_row_jitter_is_as_large_in_the_first_row():
    scan = Scan(jitter=20e-12, jitter_time=50e-3)
    first = [_rows(scan, rows=2, seed=s)[0, 0] for s in range(1000)]
    assert np.std(first) == pytest.approx(20e-12, rel=0.1)


def test_fly_back_bends_the_start_of_rows_for_a_time_not_a_distance():
    scan, ramp = Scan(lag=0.02, lag_time=20e-6), np.tile(np.arange(200.0), (4, 1))
    fast, slow = (lag(ramp, scan, dwell_time)[2] - ramp[2] for dwell_time in (1e-6, 10e-6))
    assert fast[10] == pytest.approx(0.02 * 200 * np.exp(-0.5), abs=1e-3)
    assert fast[40] == pytest.approx(0.02 * 200 * np.exp(-2), abs=1e-3)
    assert slow[10] == pytest.approx(0.02 * 200 * np.exp(-5), abs=1e-3) and abs(slow[40]) < 1e-4


def test_mains_hum_has_its_frequency():
    right, down = _rows(Scan(hum=20e-12, flyback_time=1e-3), rows=2000)
    spectrum = np.abs(np.fft.rfft(right - right.mean()))
    assert np.fft.rfftfreq(2000, 80e-6 + 1e-3)[spectrum.argmax()] == pytest.approx(50, abs=0.5)
    assert np.ptp(right) == pytest.approx(40e-12, rel=0.01) and not down.any()


def test_the_scan_is_deterministic_and_a_fraction_never_negative():
    scan = Scan(jitter=10e-12, hum=5e-12, lag=0.01)
    assert np.array_equal(_rows(scan, seed=3), _rows(scan, seed=3))
    assert not np.array_equal(_rows(scan, seed=3), _rows(scan, seed=4))
    image = (np.random.default_rng(1).random((32, 32)) > 0.9).astype(float)
    assert lag(image, scan, 1e-6).min() >= 0
    np.testing.assert_allclose(lag(np.full((4, 50), 0.3), scan, 1e-6), 0.3, rtol=1e-6)
