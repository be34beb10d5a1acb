"""What one frame tells, what is predicted from it, and which settings are advised."""

import json
from dataclasses import replace

import numpy as np
import pytest
from advise_frames import DETECTOR, SETTINGS, Bench, glowing, lattice
from scipy.constants import elementary_charge

import cimp_core as cimp
from cimp_core.advising import Goal, Limits, Range, estimate, parse_goal, predict, read_limits
from cimp_core.advising.columns import fit_columns, obtained_error, response
from cimp_core.advising.combine import combine, moved
from cimp_core.advising.goal import parse_dose
from cimp_core.advising.noise import frame_noise, glow_kept, glow_power
from cimp_core.advising.predict import Calibration, dose_of
from cimp_core.advising.simulated import obtained_snr
from cimp_core.errors import OutOfRangeError, SchemaError, UnreadableFileError
from cimp_core.simulate.detector import after_glow
from cimp_core.simulate.optics import FWHM, source_size

SURE = Calibration(snr=0.0, columns=0.0, snr_now=0.0, columns_now=0.0, bright=0.0)


@pytest.mark.parametrize(
    ("text", "quantity", "value"),
    [
        ("snr 10", "snr", 10.0),
        ("SNR = 2.5", "snr", 2.5),
        ("column precision 5 pm", "column precision", 5e-12),
        ("Column  precision 0.05 A", "column precision", 5e-12),
        ("column precision 5e-3nm", "column precision", 5e-12),
    ],
)
def test_goals_are_read(text, quantity, value):
    goal = parse_goal(text)
    assert goal.quantity == quantity and goal.value == pytest.approx(value)
    assert parse_goal(str(goal)).value == pytest.approx(value, rel=1e-2) and parse_goal(goal) is goal


@pytest.mark.parametrize("text", ["", "snr", "snr -3", "snr ten", "column precision 5", "contrast 3", "precision 5 pm"])
def test_other_goals_are_refused_with_examples(text):
    with pytest.raises(OutOfRangeError, match='"snr 10", "column precision 5 pm"'):
        parse_goal(text)
    with pytest.raises(OutOfRangeError, match="above zero"):
        Goal("snr", 0.0)


def test_doses_are_read():
    assert parse_dose("500 e/A2") == pytest.approx(500e20) and parse_dose("5e4 e-/nm^2") == pytest.approx(5e22)
    assert parse_dose(3.0) == 3.0 and parse_dose(None) is None
    for bad in ("500", "500 A", "500 e/m", -1.0, "0 e/A2"):
        with pytest.raises(OutOfRangeError, match="dose"):
            parse_dose(bad)


def test_a_file_of_limits(tmp_path):
    file = tmp_path / "titan.yml"
    file.write_text("dwell_time: {from: 5e-7, to: 4e-5}\nbeam_current: [50e-12, 1e-10]\nmax_dose: 500 e/A2\n")
    limits = read_limits(file)
    assert limits.dwell_time == Range(low=5e-7, high=4e-5) and limits.max_dose == pytest.approx(5e22)
    assert limits.allows(SETTINGS) == ["beam_current"] and not limits.allows(SETTINGS.replace(beam_current=50e-12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dwel_time: [1e-6]", "dwel_time is no setting"),
        ("dwell_time: []", "dwell_time is an empty list"),
        ("dwell_time: {from: 2e-6, to: 1e-6}", "must not be above the second"),
        ("dwell_time: {from: 0, to: 1e-6}", "must be above zero"),
        ("dwell_time: [yes]", "dwell_time: give a list of values, or from and to"),
        ("max_dose: 3 apples", "is not understood"),
        ("brightness: -1", "brightness"),
        ("- 1", "holds no settings"),
    ],
)
def test_faults_of_limits_are_named(tmp_path, text, message):
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(SchemaError, match=message):
        read_limits(tmp_path / "a.yml")


def test_limits_that_are_not_there(tmp_path):
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        read_limits(tmp_path / "none.yml")


@pytest.mark.parametrize("glow", [0.0, 0.1, 0.5, 2.0])
def test_glow_is_the_filter_of_the_detector(glow):
    impulse = np.zeros((1, 4096))
    impulse[0, 0] = 1.0
    spread = after_glow(impulse, glow, 1.0) if glow else impulse
    frequency = np.fft.rfftfreq(4096)
    np.testing.assert_allclose(glow_power(glow, frequency), np.abs(np.fft.rfft(spread[0])) ** 2, rtol=1e-6)
    assert glow_kept(glow) == pytest.approx(float((spread**2).sum()), rel=1e-3)


@pytest.mark.parametrize("decay_time", [0.0, 0.3e-6, 1.5e-6])
@pytest.mark.parametrize("flat", [True, False])
def test_noise_is_read_in_spite_of_a_lattice_and_after_glow(decay_time, flat):
    bench = Bench(np.full((192, 192), 0.05) if flat else None, glowing(decay_time))
    frame, expected = bench.expose(SETTINGS), bench.expected(SETTINGS)
    noise = frame_noise(frame)
    assert noise.variance == pytest.approx(np.mean((frame - expected) ** 2), rel=0.06)
    per_electron = DETECTOR.slope_at(32.0) * elementary_charge / 1e-6 * 1e12
    shot = per_electron * 1.25 * (expected.mean() - DETECTOR.black_at(-1.2))
    assert noise.white == pytest.approx(shot, rel=0.06)
    assert noise.glow == pytest.approx(decay_time / 1e-6, rel=0.12, abs=0.09)
    assert noise.misfit < 1.6


def test_what_was_filtered_is_refused():
    from scipy.ndimage import gaussian_filter

    frame = Bench().expose(SETTINGS)
    with pytest.raises(OutOfRangeError, match="filtering or resampling"):
        estimate(gaussian_filter(frame.astype(float), 1.0), SETTINGS)
    with pytest.raises(OutOfRangeError, match="noise is not that of a recording"):
        estimate(lattice() * 1e4, SETTINGS)


def test_fit_of_columns_is_exact_without_noise_and_as_unsure_as_predicted_with():
    y, x = np.mgrid[:40, :40].astype(float)
    image = 50 + 20 * np.exp(-((y - 20.3) ** 2 + (x - 18.8) ** 2) / (2 * 2.5**2))
    points, height, background = fit_columns(image, np.array([[20.0, 19.0]]), 14.0, 2.5)
    np.testing.assert_allclose(points, [[20.3, 18.8]], atol=1e-6)
    assert height[0] == pytest.approx(20) and background[0] == pytest.approx(50)
    rng, made = np.random.default_rng(0), response(2.5, 14.0, 0.0)
    found = [
        fit_columns(image + rng.standard_normal(image.shape), np.array([[20.3, 18.8]]), 14.0, 2.5)[0][0]
        for _ in range(800)
    ]
    assert np.var(found, axis=0) * 400 == pytest.approx([made.down, made.along], rel=0.15)
    # Without a background or an edge of the window, the bound is 2 v / (pi A^2) whatever the width (in pixels).
    assert made.down == pytest.approx(2 / np.pi, rel=0.15)


def test_glow_makes_columns_less_sure_along_the_row():
    made = response(2.5, 14.0, 1.5)
    plain = response(2.5, 14.0, 0.0)
    assert made.along > 1.05 * plain.along and made.width > 2.5 and made.height < 1
    assert made.down > 0.95 * plain.down  # with less height and less noise


@pytest.mark.parametrize("decay_time", [0.0, 0.8e-6])
def test_predictions_hold_at_sixteen_times_the_dose(decay_time):
    """At other dwell times and gains: the closed form of the twin's detector against what is read from one frame."""
    bench = Bench(detector=glowing(decay_time))
    known = estimate(bench.expose(SETTINGS), SETTINGS)
    assert known.columns.count == pytest.approx(16**2 - 60, abs=60) and known.columns.spacing == pytest.approx(
        12, abs=0.2
    )
    for change in ({"dwell_time": 4e-6}, {"dwell_time": 16e-6}, {"dwell_time": 16e-6, "detector_gain": 33.0}):
        later = SETTINGS.replace(**change)
        quality = predict(known, later, calibration=SURE)
        frames, expected = [bench.expose(later) for _ in range(3)], bench.expected(later)
        assert quality.snr.value == pytest.approx(obtained_snr(frames[0], expected), rel=0.06)
        precision = obtained_error(frames, expected) * SETTINGS.pixel_size
        assert quality.column_precision.value == pytest.approx(precision, rel=0.15)
        assert quality.snr.low < quality.snr.value < quality.snr.high


def test_predicted_clipping_follows_the_gain():
    bench = Bench()
    known = estimate(bench.expose(SETTINGS), SETTINGS)
    limits = Limits(gain_exponent=DETECTOR.slope_exponent, black_per_offset=DETECTOR.black_per_offset)
    shares = []
    for gain in (32.0, 37.5, 39.5):
        later = SETTINGS.replace(detector_gain=gain)
        clipped = float(np.mean(bench.expose(later) == 65535))
        shares.append(clipped)
        found = predict(known, later, limits, SURE).clipped
        assert found.value == pytest.approx(clipped, abs=0.005, rel=0.5)  # a share of a few per cent, from one frame
    assert shares[0] < 0.01 < shares[1] < shares[2]


def test_another_current_is_predicted_with_the_brightness_only():
    known = estimate(Bench().expose(SETTINGS), SETTINGS)
    brighter = SETTINGS.replace(beam_current=240e-12)
    with pytest.raises(OutOfRangeError, match="brightness"):
        predict(known, brighter)
    plain = predict(known, SETTINGS.replace(dwell_time=4e-6), calibration=SURE)
    sharp = predict(known, brighter, Limits(brightness=1e16), SURE)  # the source is a point
    assert sharp.snr.value == pytest.approx(plain.snr.value, rel=0.05)
    wide = predict(known, brighter, Limits(brightness=4e12), SURE)
    assert wide.snr.value < 0.9 * sharp.snr.value
    assert wide.column_precision.value > 1.1 * sharp.column_precision.value
    added = source_size(240e-12, 0.021, 4e12) ** 2 - source_size(60e-12, 0.021, 4e12) ** 2
    assert added / FWHM**2 > (0.5 * SETTINGS.pixel_size) ** 2  # else the test would say nothing


def test_least_dose_is_the_least():
    shot = Bench().expose(SETTINGS)
    advice = cimp.advise(shot, "snr 8", acquisition=SETTINGS)
    assert advice.reached and advice.quality.snr.low >= 8
    known = advice.known
    shorter = advice.settings.replace(dwell_time=advice.settings.dwell_time / 1.07)
    assert predict(known, shorter).snr.low < 8
    assert advice.dose == pytest.approx(dose_of(advice.settings))
    assert advice.dose == pytest.approx(60e-12 * advice.settings.dwell_time / elementary_charge / 4e-22)
    obtained = obtained_snr(Bench(seed=5).expose(advice.settings), Bench().expected(advice.settings))
    assert 8 <= obtained < 9.5
    assert "snr 8: reached with dwell time" in str(advice) and json.dumps(advice.to_dict())


def test_the_instrument_bounds_the_advice():
    shot = Bench().expose(SETTINGS)
    limits = Limits(dwell_time=[1e-6, 2e-6, 3e-6, 20e-6, 40e-6])
    advice = cimp.advise(shot, "column precision 2 pm", limits=limits, acquisition=SETTINGS)
    assert advice.reached and advice.settings.dwell_time in limits.dwell_time
    assert advice.quality.column_precision.high <= 2e-12
    few = cimp.advise(shot, "snr 50", limits=limits, acquisition=SETTINGS)
    assert not few.reached and few.settings.dwell_time == 40e-6 and "nearest" in str(few)
    dose = 1.01 * dose_of(SETTINGS.replace(dwell_time=3e-6))
    short = cimp.advise(shot, "snr 50", limits=limits, max_dose=dose, acquisition=SETTINGS)
    assert not short.reached and short.settings.dwell_time == 3e-6
    none = cimp.advise(shot, "snr 50", limits=limits, max_dose="1e-3 e/A2", acquisition=SETTINGS)
    assert not none.reached and any("allow none" in note for note in none.notes)


@pytest.mark.parametrize("gain", [22.0, 32.0, 37.5])
def test_the_range_of_the_detector_is_used_without_clipping(gain):
    bench = Bench()
    advice = cimp.advise(
        bench.expose(SETTINGS.replace(detector_gain=gain)), "snr 6", acquisition=SETTINGS.replace(detector_gain=gain)
    )
    frame = bench.expose(advice.settings)
    assert np.mean((frame == 0) | (frame == 65535)) < 1e-3
    assert np.ptp(np.quantile(frame, (0.01, 0.999))) > 0.1 * 65535
    if gain == 32.0:
        assert (advice.settings.detector_gain, advice.settings.detector_offset) == (32.0, -1.2)  # nothing is turned


def test_what_is_not_known_is_said():
    bench = Bench()
    shot = bench.expose(SETTINGS)
    with pytest.raises(OutOfRangeError, match="dwell_time is not known"):
        cimp.advise(shot, "snr 5", acquisition=SETTINGS.replace(dwell_time=None))
    with pytest.raises(OutOfRangeError, match="pixel_size is not known"):
        cimp.advise(shot, "column precision 5 pm", acquisition=SETTINGS.replace(pixel_size=None))
    dark = SETTINGS.replace(beam_current=None)
    with pytest.raises(OutOfRangeError, match="beam_current is not known"):
        cimp.advise(shot, "snr 5", max_dose="500 e/A2", acquisition=dark)
    advice = cimp.advise(shot, "snr 8", acquisition=dark)
    assert advice.dose is None and advice.dose_factor > 1 and "dose not known" in str(advice)
    counts = cimp.advise(shot.astype(np.float32), "snr 8", acquisition=SETTINGS)
    assert counts.quality.clipped is None and any("16-bit" in note for note in counts.notes)
    assert counts.settings.detector_gain == SETTINGS.detector_gain


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.full((64, 64), 7, np.uint16), "blank"),
        (np.full((64, 64), np.nan), "nan"),
        (np.zeros((16, 64), np.uint16), "32 px"),
        (np.zeros((3, 4, 64, 64), np.uint16), "one image"),
        (np.where(np.random.default_rng(0).random((64, 64)) < 0.5, 65535, 3000).astype(np.uint16), "full scale"),
    ],
)
def test_bad_frames_are_refused_in_one_sentence(frame, message):
    with pytest.raises(OutOfRangeError, match=message):
        cimp.advise(frame, "snr 5", acquisition=SETTINGS)


def test_nothing_but_noise_is_said():
    advice = cimp.advise(Bench(np.full((96, 96), 0.05)).expose(SETTINGS), "snr 5", acquisition=SETTINGS)
    assert not advice.known.seen and not advice.reached and any("nothing but noise" in n for n in advice.notes)


def test_frames_are_put_together_where_they_belong():
    rng, bench = np.random.default_rng(1), Bench()
    scene = bench.fraction + 0.05 * np.exp(-((np.mgrid[:192, :192] - 90) ** 2).sum(0) / 800)
    shifted = moved(scene, -3.4, 5.6)
    frames = [Bench(f, seed=k).expose(SETTINGS) for k, f in enumerate((scene, shifted))]
    together = combine([*frames, rng.poisson(30, (192, 192)) * 100.0], doses=[2.0, 1.0, 1.0])
    assert together.left_out == (2,) and together.used == 2
    assert (together.how.parts[1].down, together.how.parts[1].right) == pytest.approx((3.4, -5.6), abs=0.2)
    assert [p.weight for p in together.how.parts] == pytest.approx([2 / 3, 1 / 3])
    noise = rng.standard_normal((128, 128))
    assert moved(noise, 0.5, 0.5).var() == pytest.approx(noise.var(), rel=0.03)  # interpolation would halve it


def test_two_frames_are_twice_the_dose():
    bench = Bench()
    twice = combine([bench.expose(SETTINGS) for _ in range(2)])
    found = estimate(twice.frame, SETTINGS.replace(dwell_time=2e-6), on_scale=False)
    single = estimate(bench.expose(SETTINGS), SETTINGS)
    assert found.snr == pytest.approx(2**0.5 * single.snr, rel=0.06)
    assert predict(found, found.settings).column_precision.value == pytest.approx(
        predict(single, found.settings).column_precision.value, rel=0.1
    )


def test_the_shipped_calibration_was_measured():
    found = Calibration.shipped()
    assert found.images >= 100 and 0 < found.snr_now <= found.snr < 0.2 and 0 < found.columns < 0.3
    assert replace(found, images=0) != found
