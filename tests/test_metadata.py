"""The seven parameters: what a record accepts, and a normalisation that can be undone."""

import math
import pickle

import numpy as np
import pytest

from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.metadata import LABELS, PARAMETERS, UNITS, Acquisition, Normalizer

VALUES = (2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05)


def test_names_labels_and_units_are_the_published_seven():
    assert PARAMETERS[0] == "pixel_size" and PARAMETERS[-1] == "inner_collection_angle" and len(PARAMETERS) == 7
    assert LABELS[2] == "convergence angle" and LABELS[4:6] == ("gain", "offset") and len(LABELS) == 7
    assert [UNITS[p] for p in PARAMETERS] == ["m", "s", "rad", "A", "", "", "rad"]


def test_vector_and_back():
    shot = Acquisition(*VALUES)
    np.testing.assert_array_equal(shot.vector(), VALUES)
    assert Acquisition.from_vector(shot.vector()) == shot and shot.missing == {}
    gap = np.array(VALUES)
    gap[3] = np.nan
    shot = Acquisition.from_vector(gap, {"beam_current": "beam off"})
    assert shot.beam_current is None and shot.missing == {"beam_current": "beam off"}
    np.testing.assert_array_equal(shot.vector(), gap)


def test_each_missing_value_has_a_reason():
    shot = Acquisition(pixel_size=1e-11, missing={"dwell_time": "not in the file"})
    assert set(shot.missing) == set(PARAMETERS) - {"pixel_size"}
    assert shot.missing["dwell_time"] == "not in the file" and shot.missing["detector_gain"] == "not given"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_size": 0}, "pixel_size is 0 m: it must be above zero"),
        ({"beam_current": -1e-12}, "beam_current is -1e-12 A"),
        ({"dwell_time": math.nan}, "dwell_time is nan"),
        ({"detector_offset": math.inf}, "detector_offset is inf"),
        ({"missing": {"dwell": "typo"}}, "unknown parameter 'dwell'"),
        ({"dwell_time": 1e-6, "missing": {"dwell_time": "lost"}}, "has a value and a reason for being missing"),
    ],
)
def test_values_that_are_no_settings_are_refused(arguments, message):
    with pytest.raises(OutOfRangeError, match=message):
        Acquisition(**arguments)


def test_offset_may_be_zero_or_negative():
    assert Acquisition(detector_offset=0).detector_offset == 0
    assert Acquisition(detector_offset=-2).detector_offset == -2


def test_replace_changes_only_what_is_named():
    shot = Acquisition(*VALUES[:6], missing={"inner_collection_angle": "uncalibrated"})
    other = shot.replace(dwell_time=2e-6, beam_current=None)
    assert other.dwell_time == 2e-6 and other.pixel_size == shot.pixel_size and shot.dwell_time == 1e-6
    assert other.missing == {"inner_collection_angle": "uncalibrated", "beam_current": "not given"}
    assert shot.replace(inner_collection_angle=0.06).missing == {}
    with pytest.raises(OutOfRangeError, match="unknown parameter"):
        shot.replace(dwell=1e-6)


def test_record_is_immutable_and_survives_pickling():
    shot = Acquisition(*VALUES[:6], missing={"inner_collection_angle": "uncalibrated"})
    with pytest.raises(AttributeError):
        shot.dwell_time = 1.0
    with pytest.raises(TypeError):
        shot.missing["dwell_time"] = "x"
    copy = pickle.loads(pickle.dumps(shot))
    assert copy == shot and copy.missing == shot.missing


def test_wrong_number_of_values():
    with pytest.raises(SchemaError, match=r"expected 7 values.*\(6,\)"):
        Acquisition.from_vector(VALUES[:6])


def raw(count=200):
    rng = np.random.default_rng(0)
    table = np.array(VALUES) * np.exp(rng.normal(size=(count, 7)))
    table[3, 3] = table[7, 5] = np.nan
    return table


def test_normalised_columns_have_mean_zero_and_spread_one():
    table = raw()
    normal = Normalizer.fit(table)
    z = normal.normalize(table)
    np.testing.assert_allclose(np.nanmean(z, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(z, axis=0), 1, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(z), np.isnan(table))
    np.testing.assert_allclose(normal.restore(z), table, rtol=1e-12)
    expected = (np.log(table[:, 1]) - np.log(table[:, 1]).mean()) / np.log(table[:, 1]).std()
    np.testing.assert_allclose(z[:, 1], expected, rtol=1e-9)
    expected = (table[:, 2] - table[:, 2].mean()) / table[:, 2].std()
    np.testing.assert_allclose(z[:, 2], expected, rtol=1e-9)


def test_equal_factors_are_equal_steps_in_a_logged_column():
    normal = Normalizer.fit(raw())
    steps = np.diff(normal.normalize(np.outer([1, 2, 4], VALUES))[:, [0, 1, 3, 6]], axis=0)
    np.testing.assert_allclose(steps[0], steps[1])


def test_normalising_leaves_its_input_alone():
    table = raw()
    before = table.copy()
    Normalizer.fit(table).normalize(table)
    np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize("value", [33.0, 1e-11, 0.1])
def test_constant_column_has_spread_one(value):
    table = raw()
    table[:, 4] = value
    normal = Normalizer.fit(table, log_indices=(0, 1, 3, 4, 6))
    assert normal.std[4] == 1
    np.testing.assert_allclose(normal.normalize(table)[:, 4], 0, atol=1e-9)


def test_column_without_any_value():
    table = raw()
    table[:, 6] = np.nan
    normal = Normalizer.fit(table)
    assert normal.mean[6] == 0 and normal.std[6] == 1 and np.isnan(normal.normalize(table)[:, 6]).all()


def test_zero_in_a_logged_column_is_named():
    table = raw()
    table[5, 3] = 0
    with pytest.raises(OutOfRangeError, match="beam_current is log-transformed but holds 0"):
        Normalizer.fit(table)
