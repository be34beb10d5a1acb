"""Recordings at any dose: the electrons asked for, the truth behind them, scans kept on disk."""

import numpy as np
import pytest
from scipy.constants import elementary_charge

import cimp_core as cimp
from cimp_core.denoising.pairs import bright_electrons, low_dose, prepare_scans, virtual_truth, with_readout
from cimp_core.digital_twin import reacquire, scan_of
from cimp_core.simulate.detector import expected_counts, record


@pytest.fixture(scope="module")
def data():
    return cimp.twin(60, 96)


def test_a_scan_is_what_the_stored_image_was_made_from(data):
    shot, fraction = scan_of(data, 3)
    assert np.array_equal(
        expected_counts(fraction, shot.acquisition, shot.detector),
        reacquire(data, 3, data.acquisition(3), noise=False),
    )
    wider = data.acquisition(3).replace(beam_current=2 * data.acquisition(3).beam_current)
    assert scan_of(data, 3, wider)[0].optics.source_size > shot.optics.source_size


@pytest.mark.parametrize("electrons", [0.5, 16.0, 500.0])
def test_electrons_asked_for_are_those_detected(data, electrons):
    shot, fraction = scan_of(data, 5)
    settings, _ = low_dose(shot, fraction, electrons, 2e-6, np.random.default_rng(0))
    assert bright_electrons(fraction, settings) == pytest.approx(electrons)
    by_hand = np.quantile(fraction, 0.995) * settings.beam_current * 2e-6 / elementary_charge
    assert by_hand == pytest.approx(electrons)
    assert settings.pixel_size == shot.acquisition.pixel_size


def test_noise_is_that_of_the_electrons(data):
    """Relative variance of a flat field: (1 + spread^2) / electrons, spill and read noise left out by a long dwell."""
    shot, _ = scan_of(data, 0)
    flat = np.full((128, 128), 0.1, np.float32)
    settings, counts = low_dose(shot, flat, 25.0, 2e-5, np.random.default_rng(1), level=0.3)
    black = shot.detector.black_at(settings.detector_offset)
    signal = counts.astype(float) - black
    dark = shot.detector.dark_current * 2e-5 / elementary_charge
    expected = (1 + shot.detector.pulse_height_spread**2) / (25 + dark)
    assert signal.var() / signal.mean() ** 2 == pytest.approx(expected, rel=0.08)


def test_mean_of_many_recordings_is_the_truth_at_the_same_dwell_time(data):
    shot, fraction = scan_of(data, 2)
    settings, _ = low_dose(shot, fraction, 8.0, 1e-6, np.random.default_rng(0), level=0.2)
    rng = np.random.default_rng(2)
    mean = np.mean([record(fraction, settings, shot.detector, rng).astype(float) for _ in range(200)], axis=0)
    truth = virtual_truth(shot, fraction, settings, 1.0)
    assert abs(mean.mean() / truth.mean() - 1) < 0.003


def test_truth_of_a_longer_dwell_time_has_less_glow_and_the_same_scale(data):
    slow = next(i for i in range(len(data)) if scan_of(data, i)[0].detector.decay_time > 2e-7)
    shot, fraction = scan_of(data, slow)
    fraction = np.zeros_like(fraction)
    fraction[:, 40] = 0.2
    settings, _ = low_dose(shot, np.maximum(fraction, 0.01), 8.0, 2e-7, np.random.default_rng(0))
    short, long = (virtual_truth(shot, fraction, settings, factor) for factor in (1.0, 64.0))
    assert long[0, 40] > 1.2 * short[0, 40]
    assert long[0, 41] < short[0, 41]
    # The edge keeps some glow of the field; the sum over a row is that of the electrons in both.
    assert long.sum() == pytest.approx(short.sum(), rel=2e-3)


def test_sum_readout_is_brought_back_to_the_recorded_scale(data):
    shot, fraction = scan_of(data, 1)
    summed = with_readout(shot, "sum")
    settings, counts = low_dose(summed, fraction, 8.0, 5e-6, np.random.default_rng(0), gain=30.0)
    truth = virtual_truth(summed, fraction, settings, 16.0)
    assert truth.mean() == pytest.approx(counts.mean(), rel=0.03)


def test_scans_are_kept_and_made_again_when_others_are_asked_for(data, tmp_path):
    view = data.view(np.array([4, 7, 9]))
    scans = prepare_scans(view, tmp_path, workers=1)
    shot, fraction = scans[1]
    wanted_shot, wanted = scan_of(data, 7)
    assert shot == wanted_shot
    assert np.abs(fraction - wanted).max() <= wanted.max() / 65_535
    assert scans.materials == [str(data.materials[i]) for i in (4, 7, 9)]
    before = (tmp_path / "fractions.raw").stat().st_mtime_ns
    prepare_scans(view, tmp_path, workers=1)
    assert (tmp_path / "fractions.raw").stat().st_mtime_ns == before
    assert len(prepare_scans(data.view(np.array([1, 2])), tmp_path, workers=1)) == 2
    (tmp_path / "scans.json").unlink()
    with pytest.raises(cimp.SchemaError, match="prepare_scans"):
        type(scans)(tmp_path)


def test_no_image_no_scans(data, tmp_path):
    with pytest.raises(cimp.OutOfRangeError, match="no image"):
        prepare_scans(data.view(np.array([], int)), tmp_path)
