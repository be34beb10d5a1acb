"""Re-rendering where nobody knows the truth: what is asked for, by which route, and what a reader makes of it."""

import numpy as np
import pytest
from real_schema_files import settings, write_real

import cimp_core as cimp
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import Acquisition, Normalizer
from cimp_core.study.restyling import evaluate, read_back, rendered, routes
from cimp_core.study.restyling_cases import CHANGED, Case, cases_of, joint
from cimp_core.study.restyling_scores import Reader


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Train and test part of a file without truth: one aperture, no offset, the current of some images unknown."""
    raw = settings(8)
    raw[::5, 3], raw[:, 5] = np.nan, np.nan
    path = write_real(tmp_path_factory.mktemp("real") / "a.h5", raw=raw, edges=(64, 48))
    return cimp.open_dataset(path).split("session", val=0.25, test=0.25, seed=0)


def test_a_file_without_truth_is_asked_for_what_can_be_changed(real, renderer, capsys):
    train, _, test = real
    known = np.isfinite(test.metadata_raw[:, 3])
    indices = [int(np.flatnonzero(known)[0]), int(np.flatnonzero(~known)[0])]
    cases = list(cases_of(test, indices, train, joints=1))
    assert all(case.expected is None and case.recording is None for case in cases)
    for i, current in zip(indices, (True, False), strict=True):
        changed = {c.change[:-2] for c in cases if c.index == i and c.change != "joint"}
        # One aperture in the whole file, and no offset: no steps of these.
        assert changed == {"dwell_time", "detector_gain", "inner_collection_angle"} | (
            {"beam_current"} if current else set()
        )
    joint_cases = [c for c in cases if c.change == "joint"]
    for case in joint_cases:
        assert case.target.missing.keys() == case.source.missing.keys() and "detector_offset" in case.target.missing
        assert case.target.inner_collection_angle > case.target.convergence_angle
    images = rendered(joint_cases, routes(renderer))
    said = capsys.readouterr().out
    assert set(images) == {"unchanged", "generator", "rerender"}
    assert "analytic: left out, detector_offset" in said and "recording: left out" in said
    assert all(image.dtype == np.uint16 for made in images.values() for image in made)
    np.testing.assert_array_equal(images["unchanged"][0], joint_cases[0].frame)
    with pytest.raises(OutOfRangeError, match="nobody knows the truth"):
        evaluate(joint_cases, {"unchanged": routes(renderer)["unchanged"]})


def test_a_joint_change_keeps_what_is_not_known_and_no_detector_begins_in_the_beam():
    own = np.array([2e-11, 1e-6, 0.03, np.nan, 40.0, -0.2, 0.05])
    other = np.array([2e-11, 2e-6, np.nan, 5e-11, np.nan, -0.1, 0.06])
    wanted = joint(own, other[None], np.random.default_rng(0))
    np.testing.assert_array_equal(wanted, [2e-11, 2e-6, 0.03, np.nan, 40.0, -0.1, 0.06])
    other[6] = 0.025  # of a beam that nobody wrote down; in this one, it would be bright field
    wanted = joint(own, other[None], np.random.default_rng(0))
    np.testing.assert_array_equal(wanted[[2, 6]], own[[2, 6]])


def test_read_back_is_the_mean_error_of_each_route():
    class Told(Reader):
        """Reads the brightness as the normalised gain, nothing else."""

        def __init__(self):
            self.normalizer = Normalizer((), np.zeros(7), np.ones(7))

        def __call__(self, rows):
            read = np.full((len(rows), 7), np.nan)
            read[:, 4] = rows
            return read

        @staticmethod
        def look(image):
            return float(image.mean())

    wanted = [Acquisition(detector_gain=g) for g in (10.0, 20.0)]
    cases = [Case(i, "joint", None, None, a, None, None) for i, a in enumerate(wanted)]
    images = {"right": [np.full((4, 4), g) for g in (10, 20)], "wrong": [np.full((4, 4), g) for g in (13, 25)]}
    found = read_back(images, cases, Told())
    assert list(found.columns) == ["right", "wrong"] and list(found.index) == list(CHANGED)
    assert list(found.loc["detector_gain"]) == [0, 4] and found.drop("detector_gain").isna().all(axis=None)
