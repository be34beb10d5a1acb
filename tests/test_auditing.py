"""The audit: p-values that hold what they promise, blame for what is wrong, and silence where nothing is told."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch

import cimp_core as cimp
from cimp_core.auditing import calibrate, measuring
from cimp_core.auditing.blame import Case
from cimp_core.auditing.calibration import (
    Calibration,
    Calibrations,
    load_calibrations,
    one_image_each,
    p_value,
    save_calibrations,
    sessions_needed,
)
from cimp_core.auditing.duplicates import find_duplicates
from cimp_core.auditing.evidence import KINDS, Gaussians, conditional, residuals
from cimp_core.auditing.judging import judge
from cimp_core.auditing.lab import shipped
from cimp_core.auditing.measuring import measure
from cimp_core.auditing.spoiled import resampled, rescaled
from cimp_core.digital_twin import reacquire
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import PARAMETERS
from cimp_core.models.settings_reader import SettingsReader, SettingsReaderConfig, negative_log_likelihood
from cimp_core.study.auditing import area_under_curve
from cimp_core.twin_sessions import last_of_sessions, make_sessions

N = len(PARAMETERS)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Sessions of a seed that nothing was fitted to."""
    path = make_sessions(tmp_path_factory.mktemp("sessions") / "s.h5", 40, 128, seed=77, workers=1)
    return cimp.open_dataset(path)


def test_p_values_of_exchangeable_scores_are_uniform_whatever_the_scores():
    rng = np.random.default_rng(0)
    for draw in (rng.standard_normal, rng.standard_cauchy, lambda n: rng.integers(0, 3, n).astype(float)):
        p = np.array([p_value(*np.split(draw(100), [1])) for _ in range(4000)]).ravel()
        for level in (0.01, 0.05, 0.2):
            assert np.mean(p <= level + 1e-12) <= level + 3 * math.sqrt(level / 4000)
    p = np.array([p_value(*np.split(rng.standard_normal(100), [1])) for _ in range(4000)]).ravel()
    assert abs(np.mean(p <= 0.05 + 1e-12) - 0.05) < 0.012  # no lower than asked, either
    assert p_value(9.0, np.arange(9.0)) == 0.1 and p_value(-1.0, np.arange(9.0)) == 1.0
    assert np.isnan(p_value(np.nan, np.arange(3.0))) and p_value(5.0, np.array([np.nan, 1.0])) == 0.5


@pytest.mark.parametrize("sessions", [98, 99, 100, 199, 1399])
def test_the_threshold_is_where_p_reaches_the_level(sessions):
    scores = np.random.default_rng(sessions).random((sessions, len(KINDS)))
    part = Calibration(scores, np.ones(sessions))
    threshold = part.threshold(0.01)
    if sessions < sessions_needed(0.01):
        assert sessions == 98 and threshold == math.inf and part.smallest_p > 0.01
        return
    assert p_value(threshold, part.overall) <= 0.01 + 1e-12
    assert p_value(np.nextafter(threshold, 0), part.overall) > 0.01 - 1e-12
    assert np.mean(part.overall >= threshold) < 0.01


def test_one_image_of_each_session_is_drawn_and_not_always_the_first():
    names = np.repeat(["a", "b", "c"], [5, 1, 9])
    drawn = [one_image_each(names, seed) for seed in range(60)]
    assert all(list(names[rows]) == ["a", "b", "c"] for rows in drawn)
    assert {int(rows[0]) for rows in drawn} == set(range(5)) and {int(rows[2]) for rows in drawn} == set(range(6, 15))
    np.testing.assert_array_equal(one_image_each(names, 3), drawn[3])


def random_gaussian(seed=0):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((N, N))
    return rng.standard_normal(N), root @ root.T + 0.1 * np.eye(N)


def test_residuals_are_those_of_the_gaussian_with_missing_values_left_out():
    mean, covariance = random_gaussian()
    values = mean + np.random.default_rng(1).standard_normal(N)
    values[[2, 5]] = np.nan
    told = Gaussians(mean[None], covariance[None])
    used = np.ones(N, bool)
    used[0] = False
    alone, given = residuals(told, values[None], used)
    known = [1, 3, 4, 6]
    for j in known:
        centre, spread = conditional(mean, covariance, values, j, known)
        assert given[0, j] == pytest.approx((values[j] - centre) / spread, rel=1e-5)
        assert alone[0, j] == pytest.approx((values[j] - mean[j]) / math.sqrt(covariance[j, j]))
    assert np.isnan(alone[0, [0, 2, 5]]).all() and np.isnan(given[0, [0, 2, 5]]).all()


def case(mean, covariance, values, threshold=4.0):
    told = Gaussians(np.array(mean, float)[None], np.array(covariance, float)[None])
    values = np.array(values, float)
    return Case(told, values, np.isfinite(values), np.zeros(2), np.ones(len(KINDS)), threshold)


def test_blame_falls_on_the_one_wrong_value_though_it_disturbs_all():
    rng = np.random.default_rng(2)
    covariance = 0.9 * np.ones((N, N)) + 0.1 * np.eye(N)
    for j in range(N):
        values = rng.multivariate_normal(np.zeros(N), covariance)
        values[j] += 5
        found = case(np.zeros(N), covariance, values)
        assert np.sum(np.abs(found.residuals()[1]) > 2) > 1  # others look odd beside it
        assert found.blame() == ([j], [])
    assert case(np.zeros(N), covariance, np.zeros(N)).blame() == ([], [])


def test_of_two_values_that_contradict_each_other_neither_is_blamed():
    covariance = np.eye(N)
    covariance[3, 4] = covariance[4, 3] = 0.99
    values = np.full(N, np.nan)
    values[[3, 4]] = 1.0, -1.0
    assert case(np.zeros(N), covariance, values).blame() == ([], [3, 4])
    values[3] = 6.0  # now the picture alone speaks against one of them
    assert case(np.zeros(N), covariance, values).blame() == ([3], [])


def test_the_network_gives_a_precision_and_its_loss_prefers_the_true_covariance():
    torch.manual_seed(0)
    net = SettingsReader(SettingsReaderConfig(relative=4, texture=2, hidden=16)).eval()
    with torch.no_grad():
        mean, root = net(10 * torch.randn(20, 512))
    assert mean.shape == (20, N) and np.linalg.eigvalsh((root.double() @ root.double().mT).numpy()).min() > 0
    assert torch.equal(root, root.tril())
    true = 0.5 * np.eye(N) + 0.5
    truth = torch.tensor(np.random.default_rng(0).multivariate_normal(np.zeros(N), true, 3000))

    def loss(covariance):
        precision = torch.tensor(np.linalg.cholesky(np.linalg.inv(covariance)))
        return float(negative_log_likelihood(torch.zeros(3000, N), precision.expand(3000, N, N), truth, 1e6).mean())

    others = (np.eye(N), 0.9 * np.eye(N) + 0.1, 0.2 * np.eye(N) + 0.8, 2 * true, true / 2)
    assert all(loss(true) < loss(other) - 0.05 for other in others)


def test_obtained_false_alarms_are_those_asked_for_over_unseen_sessions(sessions):
    report = cimp.audit(last_of_sessions(sessions))
    p = np.array([1.0 if image.p is None else image.p for image in report])
    assert len(p) == 40
    # Binomial: of 40 images, more than 9 at 10 % or more than 15 at 20 % happens once in a hundred times.
    assert np.sum(p <= 0.1) <= 9 and 1 <= np.sum(p <= 0.2) <= 16
    assert report.counts["disagrees"] <= 3


def test_wrong_units_are_found_named_and_corrected(sessions):
    net, calibrations = shipped()
    found = 0
    for i in range(0, len(sessions), 12):
        settings, seen = sessions.acquisition(i), measure(sessions.image(i), absolute=True)
        wrong = settings.replace(dwell_time=settings.dwell_time * 1000)
        audit = judge(seen, wrong, net, calibrations)
        dwell = audit.settings["dwell_time"]
        if audit.doubted == ("dwell_time",):
            found += 1
            assert audit.verdict == "disagrees" and dwell.verdict == "disagrees" and dwell.residual > 5
            assert dwell.p_family <= 0.01 and any("dwell time: recorded" in text for text in audit.reasons)
            assert dwell.likely[1] < settings.dwell_time * 4 and dwell.likely[2] > settings.dwell_time / 4
    assert found >= 0.8 * len(range(0, len(sessions), 12))


def test_settings_of_another_image_are_doubted_together_not_one_by_one(sessions):
    net, calibrations = shipped()
    names, whole = sessions.sessions, 0
    for i in range(0, len(sessions), 9):
        others = np.flatnonzero(names != names[i])
        seen = measure(sessions.image(i), absolute=True)
        audit = judge(seen, sessions.acquisition(int(others[7 * i % len(others)])), net, calibrations)
        together = [n for n, s in audit.settings.items() if s.why.startswith("the settings together")]
        if together:
            whole += 1
            assert audit.verdict == "disagrees" and audit.doubted == PARAMETERS
            named = [n for n, s in audit.settings.items() if s.verdict == "disagrees"]
            assert set(named) | set(together) == set(PARAMETERS)
            for name in named:  # the picture alone speaks against these
                s = audit.settings[name]
                assert not s.predicted[1] <= s.recorded <= s.predicted[2]
    assert whole >= 2


def test_what_cannot_be_told_is_never_called_fine(sessions):
    image, settings = sessions.image(0), sessions.acquisition(0)
    net, calibrations = shipped()
    flat = judge(measure(np.full((128, 128), 7, np.uint16), absolute=True), settings, net, calibrations)
    small = judge(measure(image[:48, :48], absolute=True), settings, net, calibrations)
    holes = np.where(np.arange(128) == 5, np.nan, image.astype(np.float32))
    broken = judge(measure(holes, absolute=False), settings, net, calibrations)
    for audit, why in ((flat, "no picture"), (small, "smaller than 64"), (broken, "no picture")):
        assert audit.verdict == "cannot tell" and audit.p is None and why in audit.reasons[0]
        assert {s.verdict for s in audit.settings.values()} == {"cannot tell"} and not audit.doubted
    noise = np.random.default_rng(0).normal(20000, 300, (128, 128)).astype(np.uint16)
    empty = judge(measure(noise, absolute=True), settings, net, calibrations)
    assert empty.settings["pixel_size"].verdict != "agrees"


def test_without_a_known_scale_gain_offset_and_current_are_masked(sessions):
    settings = sessions.acquisition(0).replace(detector_gain=1e4, detector_offset=50.0, beam_current=1.0)
    net, calibrations = shipped()
    audit = judge(measure(sessions.image(0), absolute=False), settings, net, calibrations)
    for name in ("detector_gain", "detector_offset", "beam_current"):
        assert audit.settings[name].verdict == "cannot tell" and "scale" in audit.settings[name].why
    assert not set(audit.doubted) & {"detector_gain", "detector_offset", "beam_current"}
    seen = judge(measure(sessions.image(0), absolute=True), settings, net, calibrations)
    assert "detector_gain" in seen.doubted


def test_missing_settings_are_missing_and_get_a_likely_value(sessions):
    net, calibrations = shipped()
    inside, widths = [], []
    for i in range(0, len(sessions), 6):
        settings = sessions.acquisition(i).replace(detector_gain=None)
        audit = judge(measure(sessions.image(i), absolute=True), settings, net, calibrations)
        gain, true = audit.settings["detector_gain"], sessions.acquisition(i).detector_gain
        assert gain.verdict == "missing" and gain.why == "not given" and gain.p is None and gain.residual is None
        if gain.likely is not None:
            inside.append(gain.likely[1] < true < gain.likely[2])
            widths.append(gain.likely[2] - gain.likely[1])
    assert len(inside) > 30 and np.mean(inside) > 0.85 and np.median(widths) < 10  # of gains from 23 to 50


def test_an_unlike_picture_is_not_judged(sessions):
    net, calibrations = shipped()
    y, x = np.mgrid[:128, :128]
    stripes = (30000 + 20000 * np.sign(np.sin(x * 0.9))).astype(np.uint16)
    audit = judge(measure(stripes, absolute=True), sessions.acquisition(0), net, calibrations)
    assert audit.verdict == "cannot tell" or audit.checks["levels"].verdict == "disagrees"
    assert audit.checks["like"].verdict == "cannot tell" and not audit.doubted


def test_clipping_and_stretching_are_facts(sessions):
    image = sessions.image(0)
    net, calibrations = shipped()

    def checks(pixels, absolute=True):
        return judge(measure(pixels, absolute=absolute), sessions.acquisition(0), net, calibrations).checks

    assert checks(image)["clipped"].verdict == checks(image)["levels"].verdict == "agrees"
    cut = np.minimum(image, np.quantile(image, 0.95).astype(np.uint16))
    assert re.search(r"(4.9\d|5.0\d)% of the pixels stand at the brightest", checks(cut)["clipped"].why)
    dark = np.maximum(image, np.quantile(image, 0.03).astype(np.uint16))
    assert "darkest" in checks(dark)["clipped"].why
    grey = rescaled(image, 256)
    assert checks(grey)["levels"].verdict == "disagrees" and "do not occur" in checks(grey)["levels"].why
    assert (
        checks((grey // 257).astype(np.uint8), absolute=False)["levels"].verdict == "agrees"
    )  # plain 8 bit has no gap


def test_resampling_raises_the_logit_and_after_glow_does_not(sessions):
    net, _ = shipped()
    pictures = [sessions.image(i) for i in range(0, 40, 4)]
    plain = [measure(p, absolute=True).statistics for p in pictures]
    larger = [measure(resampled(p, 1.5, 3)[:128, :128], absolute=True).statistics for p in pictures]
    with torch.no_grad():
        logits = [net.check(torch.from_numpy(np.array(rows)))[:, 0].numpy() for rows in (plain, larger)]
    assert area_under_curve(*logits) > 0.95
    glowing = [i for i in range(len(sessions)) if sessions.metadata_raw[i, 1] < 4e-7][:20]
    audits = [cimp.audit(sessions.view([i]))[0] for i in glowing]
    assert len(glowing) > 5 and np.mean([a.checks["resampled"].verdict == "disagrees" for a in audits]) < 0.2


def test_copies_are_found_in_any_type_and_repeats_are_none(sessions):
    i = int(np.argmax(sessions.metadata_raw[:, 1]))  # little noise: the hardest to tell from a repeat
    image = sessions.image(i)
    low, high = int(image.min()), int(image.max())
    grey = np.rint((image.astype(float) - low) / (high - low) * 255).astype(np.uint8)
    again = reacquire(sessions, i, sessions.acquisition(i), seed=1)
    pictures = [image, again, image.astype(np.float64), image.astype(">u2"), image.astype(np.int32), grey]
    found = find_duplicates([measure(p, absolute=False) for p in pictures])
    assert [(d.index, d.first, d.exact) for d in found] == [(2, 0, True), (3, 0, True), (4, 0, True), (5, 0, False)]
    # A sharp lattice with little noise, recorded twice, is much alike, and still no copy.
    y, x = np.mgrid[:128, :128]
    lattice, rng = 20000 + 10000 * np.sin(x * np.pi / 3) * np.sin(y * np.pi / 3), np.random.default_rng(0)
    twice = [measure(lattice + rng.normal(0, 350, lattice.shape), absolute=False) for _ in range(2)]
    alike = float(twice[0].fingerprint.astype(float) @ twice[1].fingerprint.astype(float))
    assert 0.7 < alike < 0.95 and find_duplicates(twice) == []
    flat = [measure(np.zeros((64, 64)), absolute=False)] * 2
    assert find_duplicates(flat) == []


def test_what_was_measured_survives_json(sessions):
    one = measure(sessions.image(3), absolute=True)
    values, arrays = one.to_parts()
    back = measuring.Measured.from_parts(json.loads(json.dumps(values)), [np.array(a) for a in arrays])
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(back, field.name))


def test_a_calibration_of_ones_own_counts_sessions_and_says_when_they_are_too_few(sessions):
    own = calibrate(sessions)
    used = own.about["sessions"]  # 40, less those of which a flat image was drawn
    assert 35 < used <= 40 and own.parts[128, True].sessions == used and not own.of_twin and len(own.parts) == 1
    report = cimp.audit(sessions.view([0, 1]), calibrate=own)
    assert all(image.verdict == "cannot tell" and "too few" in image.reasons[0] for image in report)
    assert f"{used} sessions" in report.about["warnings"][0] and "99 sessions are needed" in report.about["warnings"][0]
    loose = cimp.audit(sessions.view(range(30)), calibrate=own, level=0.2)
    assert not loose.about["warnings"] and loose.counts["disagrees"] < 15
    assert "simulated" in cimp.audit(sessions.view([0])).about["warnings"][0]


def test_calibrations_survive_their_file(tmp_path):
    rng = np.random.default_rng(0)
    scores = np.round(rng.random((5, len(KINDS))), 2)
    scores[0, 3] = np.nan
    made = Calibrations(
        {(64, True): Calibration(scores, rng.random(5))}, {(64, True): rng.random(len(KINDS))}, {"a": 1}
    )
    save_calibrations(tmp_path / "c.safetensors", made)
    back = load_calibrations(tmp_path / "c.safetensors")
    np.testing.assert_allclose(back.parts[64, True].scores, scores, atol=1e-3)
    np.testing.assert_array_equal(back.scales[64, True], made.scales[64, True])
    assert back.about == {"a": 1} and back.key(63, True) is None and back.key(900, True) == (64, True)
    (tmp_path / "d.safetensors").write_bytes(b"no")
    with pytest.raises(cimp.UnreadableFileError):
        load_calibrations(tmp_path / "d.safetensors")


def test_the_shipped_calibration_is_of_enough_sessions_of_this_twin():
    _, calibrations = shipped()
    assert calibrations.about["twin_version"] == cimp.digital_twin.TWIN_VERSION
    assert set(calibrations.parts) == {(side, known) for side in (64, 128, 256) for known in (True, False)}
    assert all(part.sessions >= 1000 for part in calibrations.parts.values())


def test_sessions_up_to_a_drawn_image_are_the_twins_own(sessions, tmp_path):
    lasts = last_of_sessions(sessions)
    assert len(lasts) == len(np.unique(sessions.sessions)) == 40
    twin = cimp.open_dataset(cimp.digital_twin.make_twin(tmp_path / "t.h5", 8, 128, 77, workers=1))
    first = np.flatnonzero(sessions.sessions == sessions.sessions[0])
    for i in first[: np.sum(twin.sessions == twin.sessions[0])]:
        np.testing.assert_array_equal(sessions.image(int(i)), twin.image(int(i)))
    with pytest.raises(OutOfRangeError, match="sessions is 0"):
        make_sessions(tmp_path / "x.h5", 0, 64, 0)


def test_impossible_questions_are_refused(sessions):
    with pytest.raises(OutOfRangeError, match="level is 0"):
        cimp.audit(sessions, level=0)
    with pytest.raises(OutOfRangeError, match="no recorded settings"):
        cimp.audit(np.zeros((64, 64)))
    with pytest.raises(OutOfRangeError, match="give an image"):
        measure(np.zeros(5), absolute=True)
