"""The lab: settings as people use them, and physically possible ones."""

import json
import math

import numpy as np
import pytest

from cimp_core import PARAMETERS, OutOfRangeError
from cimp_core.simulate.instruments import INSTRUMENTS, Shot
from cimp_core.simulate.lab import DWELL_TIMES, draw_acquisition, draw_session, set_detector


def _sessions(count, start=0):
    for k in range(start, start + count):
        rng = np.random.default_rng([5, k])
        session = draw_session(rng, ("a", "b", "c"))
        shots, shot = [], None
        for _ in range(session.images):
            shot = draw_acquisition(session, rng, shot)
            # A specimen of the right size of signal: hardly any at high angles, more when thick or heavy.
            inner = shot.acquisition.inner_collection_angle
            field = 0.08 * math.exp(0.8 * rng.standard_normal()) * (0.06 / inner) ** 1.5 * rng.random((32, 32))
            shot = set_detector(shot, session, field, rng)
            shots.append((shot, field))
        yield session, shots


@pytest.fixture(scope="module")
def sessions():
    return list(_sessions(400))


@pytest.fixture(scope="module")
def shots(sessions):
    return [shot for _, taken in sessions for shot, _ in taken]


def test_as_many_images_as_the_published_set_make_a_thousand_sessions():
    lengths = [draw_session(np.random.default_rng([6, k]), ("a",)).images for k in range(3000)]
    assert np.mean(lengths) == pytest.approx(6.8, abs=0.3) and min(lengths) >= 2
    assert 7330 / np.mean(lengths) > 1000


def test_settings_stay_in_the_published_ranges(shots):
    raw = np.array([shot.acquisition.vector() for shot in shots])
    low = [6e-12, 0.2e-6, 5e-3, 10e-12, 23, -1.85, 18e-3]
    high = [4.0e-9, 20e-6, 30e-3, 1.1e-9, 50, 0.0, 140e-3]
    assert not np.isnan(raw).any()
    for j, name in enumerate(PARAMETERS):
        assert low[j] * (1 - 1e-6 * np.sign(low[j])) <= raw[:, j].min(), name
        assert raw[:, j].max() <= high[j] * (1 + 1e-6) + 1e-6 * (high[j] == 0), name
        # A range is of no use if nobody works at most of it.
        used = np.log(raw[:, j]) if low[j] > 0 else raw[:, j]
        ends = (math.log(low[j]), math.log(high[j])) if low[j] > 0 else (low[j], high[j])
        assert np.ptp(used) > 0.7 * (ends[1] - ends[0]), name
    assert np.mean(raw[:, 0] < 0.3e-9) > 0.6
    assert np.isin(raw[:, 1], DWELL_TIMES.astype(np.float32)).all()


def test_the_direct_beam_passes_the_hole_of_the_detector(shots):
    for shot in shots:
        inner = shot.acquisition.inner_collection_angle
        assert inner > 1.1 * shot.acquisition.convergence_angle
        assert shot.outer_collection_angle > 1.1 * inner
        assert shot.camera_length * inner == pytest.approx(shot.instrument.camera_constant, rel=1e-6)
        assert 5e-3 < shot.camera_length * inner < 8e-3


def test_current_is_paid_for_in_source_size(shots):
    for shot in shots:
        current, angle = shot.acquisition.beam_current, shot.acquisition.convergence_angle
        source = shot.instrument.brightness * math.pi**2 * angle**2 * shot.optics.source_size**2 / 4
        assert source == pytest.approx(current, rel=1e-6)


def test_sessions_share_what_people_leave_alone(sessions):
    def distinct(name):
        return np.mean([len({getattr(s.acquisition, name) for s, _ in taken}) / len(taken) for _, taken in sessions])

    alone = np.mean([1 / len(taken) for _, taken in sessions])
    for name in ("convergence_angle", "inner_collection_angle", "detector_offset"):
        assert distinct(name) < 1.35 * alone, name
    assert distinct("pixel_size") > 0.4
    for session, taken in sessions:
        assert {shot.instrument for shot, _ in taken} == {session.instrument}


def test_identical_settings_recur_but_seldom(shots):
    vectors = {tuple(shot.acquisition.vector()) for shot in shots}
    repeated = sum(shot.frame > 0 for shot in shots) / len(shots)
    assert 0.75 < len(vectors) / len(shots) < 0.95
    assert 0.08 < repeated < 0.25


def test_operators_keep_most_images_on_scale_and_visible(sessions):
    high, visible = [], []
    for _, taken in sessions:
        for shot, field in taken:
            current = shot.acquisition.beam_current * 1e12
            slope = shot.detector.slope_at(shot.acquisition.detector_gain)
            black = shot.detector.black_at(shot.acquisition.detector_offset)
            high.append(black + slope * current * np.quantile(field, 0.99) > 65535)
            visible.append(slope * current * np.ptp(field) > 0.05 * 65535)
    assert 0.005 < np.mean(high) < 0.2
    assert 0.8 < np.mean(visible) < 1


def test_instruments_differ_and_are_physical():
    assert len(INSTRUMENTS) >= 3 and sum(i.share for i in INSTRUMENTS) == pytest.approx(1)
    assert len({i.detector.slope_exponent for i in INSTRUMENTS}) == len(INSTRUMENTS)
    for instrument in INSTRUMENTS:
        assert 1e12 < instrument.brightness < 1e14
        assert 30e-9 <= instrument.detector.decay_time <= 1e-6
        assert 0.3 <= instrument.detector.pulse_height_spread <= 0.8


def test_a_shot_survives_storage(shots):
    for shot in shots[:50]:
        assert Shot.from_dict(json.loads(json.dumps(shot.to_dict()))) == shot


def test_the_same_settings_give_the_same_shot(shots):
    for shot in shots[:50]:
        assert shot.at(shot.acquisition) == shot


def test_other_settings_change_what_depends_on_them(shots):
    shot = next(s for s in shots if s.acquisition.inner_collection_angle > 50e-3)
    old = shot.acquisition
    hot = shot.at(old.replace(beam_current=4 * old.beam_current))
    assert hot.optics.source_size == pytest.approx(2 * shot.optics.source_size)
    narrow = shot.at(old.replace(convergence_angle=old.convergence_angle / 2))
    assert narrow.optics.source_size == pytest.approx(2 * shot.optics.source_size)
    assert narrow.optics.convergence_angle == pytest.approx(old.convergence_angle / 2)
    longer = shot.at(old.replace(inner_collection_angle=0.8 * old.inner_collection_angle))
    assert longer.camera_length == pytest.approx(shot.camera_length / 0.8)
    assert shot.at(old, readout="sum").detector.readout == "sum"


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"pixel_size": 1e-9}, "field of view"),
        ({"inner_collection_angle": 4e-3}, "bright field"),
        ({"dwell_time": None}, "dwell_time"),
    ],
)
def test_impossible_settings_are_refused_with_the_reason(shots, changes, reason):
    with pytest.raises(OutOfRangeError, match=reason):
        shots[0].at(shots[0].acquisition.replace(**changes))
