"""The traits of the detector are what its recordings show, and the study tells settings from them."""

import numpy as np
import pytest
from scipy.constants import elementary_charge

import cimp_core as cimp
from cimp_core.digital_twin import shot_of
from cimp_core.results import row_faults
from cimp_core.simulate.detector import record
from cimp_core.study.control import boost
from cimp_core.study.detector_ceiling import detector_rows, detector_traits, noise_bound, traits_as_read


@pytest.fixture(scope="module")
def data():
    return cimp.twin(images=240, size=96, seed=0)


def test_traits_are_those_of_recordings_of_an_even_specimen(data):
    """Record an even field twice, bright and dark, with each image's own detector, and measure the four."""
    traits = detector_traits(data.view(range(12)))
    for i in range(12):
        shot, rng = shot_of(data, i), np.random.default_rng(i)
        full = 3e4 / shot.detector.slope_at(shot.acquisition.detector_gain) * 1e-12  # [A] that gives 30,000 counts
        bright = np.full((400, 400), min(1.0, full / shot.acquisition.beam_current))
        # A black level below zero clips; the traits are of what is not clipped.
        black = shot.detector.black_at(shot.acquisition.detector_offset)
        raised = shot.acquisition.replace(
            detector_offset=shot.acquisition.detector_offset + (3e4 - black) / shot.detector.black_per_offset
        )
        dark = record(0 * bright, raised, shot.detector, rng).astype(float)
        light = record(bright, raised, shot.detector, rng).astype(float)
        counts, level, neighbours, noise = traits[i]
        assert dark.mean() - (3e4 - black) == pytest.approx(level, abs=max(30, 5 * dark.std() / 400))
        gain = shot.detector.slope_at(shot.acquisition.detector_gain)
        electron = gain * elementary_charge / shot.acquisition.dwell_time * 1e12
        assert np.exp(counts) == pytest.approx(electron * (1 + shot.detector.pulse_height_spread**2), rel=1e-6)
        z = light - light.mean()
        if light.max() < 65535 and shot.detector.read_noise**2 * 20 < z.var():
            assert np.mean(z[:, 1:] * z[:, :-1]) / z.var() == pytest.approx(neighbours, abs=0.02)
        if dark.min() > 0 and dark.max() < 65535 and neighbours < 0.05:
            assert dark.var() == pytest.approx(np.exp(noise), rel=0.15)


def test_errors_are_drawn_only_where_asked_for_and_are_small(data):
    exact, again, drawn = detector_traits(data), detector_traits(data), detector_traits(data, seed=1)
    np.testing.assert_array_equal(exact, again)
    np.testing.assert_array_equal(drawn, detector_traits(data, seed=1))
    assert (drawn != exact).all()
    assert np.std(drawn[:, 0] - exact[:, 0]) == pytest.approx((2 / 256**2) ** 0.5, rel=0.2)
    assert np.std(drawn[:, 2] - exact[:, 2]) == pytest.approx(1 / 256, rel=0.2)


def test_rows_are_sound_and_without_vacuum_two_traits_are_left(data, monkeypatch):
    widths = []

    def watched(features, *rest):
        widths.append(features[0].shape[1])
        return boost(features, *rest)

    monkeypatch.setattr("cimp_core.study.detector_ceiling.boost", watched)
    rows = detector_rows(data, profile="smoke")
    assert widths == [4] * 6 + [2] * 3 + [4] * 3
    assert [fault for made in rows for fault in row_faults(made)] == []
    assert len({made["name"] for made in rows}) == 12


def test_no_reader_of_the_noise_is_better_than_the_bound_and_one_reaches_it():
    """Normal noise about a known ramp, of variance k (s - b) + r: one step of Fisher scoring scatters as the bound."""
    counts, black, read = 40.0, 3000.0, 90.0**2
    signal = np.linspace(3050, 15000, 20000)
    variance = counts * (signal - black) + read
    covariance = noise_bound(signal, counts, black - read / counts)
    rng, step = np.random.default_rng(0), 1e-6
    # The slopes of log v by log k and by z, by differences: a change of b by the change of z, r kept.
    slopes = np.stack(
        [
            (np.log(counts * (1 + step) * (signal - black + read / counts)) - np.log(variance)) / step,
            (np.log(counts * (signal - black - 1e-3) + read) - np.log(variance)) / 1e-3,
        ]
    )
    squares = rng.normal(size=(400, signal.size)) ** 2 - 1
    found = np.linalg.solve(0.5 * slopes @ slopes.T, 0.5 * slopes @ squares.T)
    np.testing.assert_allclose(np.cov(found), covariance, rtol=0.25)


def test_a_field_without_dark_pixels_hardly_shows_where_the_noise_vanishes():
    dark, bright = (noise_bound(np.linspace(a, 20000, 10000), 40.0, 3000.0)[1, 1] for a in (3010, 15000))
    assert bright > 100 * dark
    clipped = noise_bound(np.array([-5.0, 0.0, 65535.0, 7e4]), 40.0, 3000.0)
    np.testing.assert_allclose(clipped, np.diag([9, 1e8]), rtol=1e-6)


def test_read_noise_lifts_the_line_so_that_it_meets_zero_below_the_black_level(data, monkeypatch):
    monkeypatch.setattr("cimp_core.study.detector_ceiling.noise_bound", lambda *arguments: np.zeros((2, 2)))
    few = data.view(range(5))
    for i, read in enumerate(traits_as_read(few, seed=0)):
        shot = shot_of(few, i)
        black = shot.detector.black_at(shot.acquisition.detector_offset)
        noise = shot.detector.read_noise**2 * 1e-6 / shot.acquisition.dwell_time
        assert np.exp(read[0]) * (black - read[1]) == pytest.approx(noise, rel=1e-6)


def test_traits_as_read_are_the_traits_with_each_image_s_own_errors(data):
    few = data.view(range(40))
    exact, read = detector_traits(few), traits_as_read(few, seed=0)
    np.testing.assert_array_equal(read, traits_as_read(few, seed=0))
    error = np.abs(read[:, [0, 2]] - exact[:, [0, 2]])
    assert np.isfinite(read).all() and (error > 0).all()
    assert np.median(error[:, 0]) < 0.2  # some percent, where 96 x 96 pixels have signal
    # Noise would vanish below the black level, where the read noise has been taken off; some signal is always above.
    assert (np.median(read[:, 1]) < np.median(exact[:, 1])) and (read[:, 3] > exact[:, 1] - 1).all()
