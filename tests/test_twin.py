"""The twin as a data set: the same bytes, the published schema, and the truth behind each image."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cimp_core import Acquisition, CimpError, OutOfRangeError, SchemaError, digital_twin, open_dataset, twin_version
from cimp_core.dataset import check_dataset, write_dataset
from cimp_core.digital_twin import TWIN_VERSION, make_twin, reacquire, twin
from cimp_core.simulate.detector import FULL_SCALE
from cimp_core.simulate.instruments import Shot
from cimp_core.simulate.scan import Scan
from cimp_core.twin_freeze import SMALL, small_reference, twin_digest


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_dataset(make_twin(tmp_path_factory.mktemp("twin") / "twin.h5", images=60, size=64, seed=3, workers=1))


def _shot(data, i):
    return Shot.from_dict(json.loads(data.file["twin/settings"][data.indices[i]]))


def test_same_bytes_whatever_the_number_of_workers(data, tmp_path):
    again = make_twin(tmp_path / "two.h5", images=60, size=64, seed=3, workers=2)
    assert again.read_bytes() == data.path.read_bytes()
    other = make_twin(tmp_path / "other.h5", images=60, size=64, seed=4, workers=2)
    assert other.read_bytes() != data.path.read_bytes()


def test_a_smaller_twin_is_the_beginning_of_a_larger_one(data, tmp_path):
    few = open_dataset(make_twin(tmp_path / "few.h5", images=17, size=64, seed=3, workers=1))
    assert few.filepaths == data.filepaths[:17]
    np.testing.assert_array_equal(few.metadata_raw, data.metadata_raw[:17])
    assert all(np.array_equal(few.image(i), data.image(i)) for i in range(17))


def test_it_follows_the_schema_in_sessions_of_one_material(data):
    assert check_dataset(data.path) == []
    assert len(data) == 60 and data.image(0).dtype == np.uint16 and data.image(0).shape == (64, 64)
    assert data.attributes["twin_version"] == TWIN_VERSION
    assert 3 <= len(set(data.sessions)) <= 30
    for session in set(data.sessions):
        assert len({m for m, s in zip(data.materials, data.sessions) if s == session}) == 1
    assert data.filepaths[0].startswith("session_0000/0000000_") and len(set(data.filepaths)) == 60
    assert len({data.image(i).tobytes() for i in range(60)}) == 60  # a repeated frame is another recording


def test_progress_counts_every_image_and_nothing_is_left_behind(tmp_path):
    counts = []
    make_twin(tmp_path / "a.h5", images=20, size=32, seed=0, workers=1, progress=counts.append)
    assert sum(counts) == 20 and len(counts) > 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("name", ["images", "size", "seed", "workers"])
def test_impossible_sizes_are_refused(tmp_path, name):
    values = {"images": 2, "size": 32, "seed": 0, "workers": 1, name: -1}
    with pytest.raises(OutOfRangeError, match=name):
        make_twin(tmp_path / "a.h5", **values)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("precious")
    with pytest.raises(CimpError, match="exists already"):
        make_twin(path, images=2, size=32, seed=0, workers=1)
    assert path.read_text() == "precious"
    make_twin(path, images=2, size=32, seed=0, workers=1, force=True)
    assert len(open_dataset(path)) == 2
    with pytest.raises(CimpError, match="does not exist"):
        make_twin(tmp_path / "no" / "a.h5", images=2, size=32, seed=0)


def test_a_disk_that_is_too_small_and_a_worker_that_dies_are_said(tmp_path, monkeypatch):
    with pytest.raises(CimpError, match="GB needed"):
        make_twin(tmp_path / "a.h5", images=10**9, size=4096, seed=0, workers=1)
    monkeypatch.setattr(digital_twin, "record", lambda *_: os._exit(1))  # forked workers inherit it
    if sys.platform == "linux":
        with pytest.raises(CimpError, match="worker process died"):
            make_twin(tmp_path / "a.h5", images=20, size=32, seed=0, workers=2)
    assert not list(tmp_path.iterdir())


def test_reacquiring_with_the_same_settings_gives_the_stored_image(data):
    view = data.view(range(40, 60))
    for i in range(0, 20, 3):
        np.testing.assert_array_equal(reacquire(view, i, view.acquisition(i)), data.image(40 + i))
        assert not np.array_equal(reacquire(view, i, view.acquisition(i), seed=1), data.image(40 + i))


def test_the_expectation_is_the_mean_of_which_the_stored_image_is_a_draw(data):
    scores = []
    for i in range(len(data)):
        expected, shot = reacquire(data, i, data.acquisition(i), noise=False), _shot(data, i)
        settings, one = shot.acquisition, shot.detector
        assert expected.dtype == np.float64
        # Variance of a count: electrons with their pulse heights, less what after-glow averages, and read noise.
        per_electron = one.slope_at(settings.detector_gain) * 1.602176634e-19 / settings.dwell_time * 1e12
        signal = np.maximum(expected - one.black_at(settings.detector_offset), 0)
        read = one.read_noise**2 * 1e-6 / settings.dwell_time
        deviation = np.sqrt(signal * per_electron * (1 + one.pulse_height_spread**2) + read + 1 / 12)
        inside = (expected > 5 * deviation) & (expected < FULL_SCALE - 5 * deviation)
        if inside.sum() > 500:
            score = ((data.image(i) - expected) / deviation)[inside]
            # Neighbours that share their light have smaller noise each, but the mean of n still scatters as 1/sqrt(n).
            assert abs(score.mean()) < 5 / np.sqrt(inside.sum()), i
            assert 0.3 < score.std() < 1.05, i
            scores.append(score.std())
    assert len(scores) > 30 and max(scores) > 0.9


def test_drift_and_fly_back_act_in_the_time_of_the_scan(data, monkeypatch):
    seen, ramp = {}, np.tile(np.arange(64.0), (64, 1))
    monkeypatch.setattr(digital_twin, "expectation", lambda *a: ramp + 0 * seen.setdefault("rows", a[-1])[:, :1])
    shot = dataclasses.replace(_shot(data, 0), scan=Scan(drift=(0.0, 1e-9), lag=0.05, lag_time=30e-6))
    image = digital_twin._scanned(3, 0, shot, 64, data.materials[0], np.random.default_rng(0))
    dwell_time = shot.acquisition.dwell_time
    np.testing.assert_allclose(np.diff(seen["rows"], axis=0), [[-1e-9 * (64 * dwell_time + 1e-3), 0.0]] * 63)
    shift = 0.05 * 64 * np.exp(-dwell_time * np.arange(64) / 30e-6)
    np.testing.assert_allclose((image - ramp)[:, 2:50], np.tile(shift[2:50], (64, 1)), atol=1e-3)


def test_more_dose_comes_closer_to_the_expectation(data):
    at = data.acquisition(2).replace(detector_gain=25.0)
    error = {}
    for factor in (1, 16):
        long = at.replace(dwell_time=factor * 1e-6)
        recorded, expected = (reacquire(data, 2, long, noise=n).astype(float) for n in (True, False))
        error[factor] = np.std(recorded - expected)
    assert error[16] < 0.5 * error[1]


def test_each_setting_does_what_it_should(data):
    i = next(i for i in range(len(data)) if data.acquisition(i).inner_collection_angle > 45e-3)
    at, shot = data.acquisition(i), _shot(data, i)

    def expected(**changes):
        return reacquire(data, i, at.replace(**changes), noise=False)

    base, black = expected(), shot.detector.black_at(at.detector_offset)
    shift = expected(detector_offset=at.detector_offset + 0.1) - base
    np.testing.assert_allclose(shift, 0.1 * shot.detector.black_per_offset, rtol=1e-9)
    ratio = shot.detector.slope_at(at.detector_gain + 2) / shot.detector.slope_at(at.detector_gain)
    louder = expected(detector_gain=at.detector_gain + 2)
    np.testing.assert_allclose(louder - black, ratio * (base - black), rtol=1e-9)
    assert expected(inner_collection_angle=0.8 * at.inner_collection_angle).mean() > base.mean()
    blurred = expected(beam_current=30 * at.beam_current)
    assert blurred.std() / (blurred.mean() - black) < base.std() / (base.mean() - black)
    total = reacquire(data, i, at, noise=False, readout="sum")
    np.testing.assert_allclose(total, base * at.dwell_time / 1e-6)


def test_what_cannot_be_recorded_again_is_refused(data, tmp_path):
    at = data.acquisition(0)
    with pytest.raises(OutOfRangeError, match="field of view"):
        reacquire(data, 0, at.replace(pixel_size=2 * at.pixel_size))
    with pytest.raises(OutOfRangeError, match="beam_current"):
        reacquire(data, 0, at.replace(beam_current=None))
    path = write_dataset(tmp_path / "real.h5", [np.zeros((8, 8), np.uint16)], np.ones((1, 7)), ["a/b.emd"])
    with pytest.raises(SchemaError, match="not a twin"):
        reacquire(open_dataset(path), 0, Acquisition(*[1.0] * 7))
    path = write_dataset(
        tmp_path / "old.h5",
        [np.zeros((8, 8), np.uint16)],
        np.ones((1, 7)),
        ["a/b.emd"],
        attributes={"twin_version": "0"},
    )
    with pytest.raises(SchemaError, match="version 0"):
        reacquire(open_dataset(path), 0, Acquisition(*[1.0] * 7))


def test_the_twin_is_made_once_and_kept_by_version(tmp_path, monkeypatch):
    monkeypatch.setenv("CIMP_CACHE", str(tmp_path / "cache"))
    first = twin(images=4, size=32, seed=1, workers=1)
    written = first.path.stat().st_mtime_ns
    assert TWIN_VERSION in first.path.name and first.path.parent == tmp_path / "cache"
    assert twin(images=4, size=32, seed=1).path.stat().st_mtime_ns == written
    assert twin(images=5, size=32, seed=1, workers=1).path != first.path


def test_the_twin_is_the_frozen_one():
    """The digest on the machine that froze it; elsewhere the expectation, since a sine may differ in its last bit."""
    if twin_digest(*SMALL) != twin_version.SMALL_DIGEST:
        np.testing.assert_allclose(small_reference(), twin_version.SMALL_REFERENCE, rtol=1e-4)


def test_command_line_makes_a_twin(tmp_path):
    out = tmp_path / "cli.h5"
    call = [
        sys.executable,
        "-c",
        "from cimp_core.cli import main; main()",
        "simulate",
        "--images",
        "5",
        "--size",
        "32",
        "--seed",
        "2",
    ]
    run = subprocess.run([*call, "--workers", "1", "--json", str(out)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)
    assert summary["images"] == 5 == len(open_dataset(out)) and summary["twin_version"] == TWIN_VERSION
    again = subprocess.run([*call, str(out)], capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr.count("\n") == 1 and "exists already" in again.stderr
