"""The results file: rows that can be read, replaced one by one, never half written."""

import json
import math

import pytest

from cimp_core.errors import SchemaError, UnreadableFileError
from cimp_core.results import FIELDS, compare, read_results, row_faults, update_results, write_results


def row(name="probe.r2.dwell_time", value=0.5, **changes):
    made = dict.fromkeys(FIELDS)
    made |= {"name": name, "value": value, "low": value - 0.1, "high": value + 0.1, "unit": "", "split": "session"}
    made |= {"pool": None, "profile": "book", "seeds": [0], "twin_version": "abc", "command": "make results"}
    return made | changes


def test_rows_come_back_in_order(tmp_path):
    path = tmp_path / "results.json"
    assert read_results(path) == []
    rows = [row("probe.r2.b"), row("probe.r2.a", profile="full"), row("probe.r2.a")]
    write_results(path, rows)
    assert read_results(path) == [rows[2], rows[1], rows[0]]
    before = path.read_bytes()
    write_results(path, read_results(path))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_update_replaces_only_the_same_name_and_profile(tmp_path):
    path = tmp_path / "results.json"
    update_results(path, [row(value=0.1), row(value=0.2, profile="full"), row("style.gap", 0.3)])
    rows = update_results(path, [row(value=0.9), row("style.new", 0.4)])
    found = {(r["name"], r["profile"]): r["value"] for r in rows}
    assert found == {
        ("probe.r2.dwell_time", "book"): 0.9,
        ("probe.r2.dwell_time", "full"): 0.2,
        ("style.gap", "book"): 0.3,
        ("style.new", "book"): 0.4,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": math.nan}, "value is nan, not a finite number"),
        ({"value": "0.5"}, "value is '0.5'"),
        ({"value": True}, "value is True"),
        ({"high": None}, "one end of an interval"),
        ({"low": 0.7, "high": 0.2}, "interval runs from 0.7 to 0.2"),
        ({"name": "Top-1"}, "not dotted lower case"),
        ({"name": "top1"}, "not dotted lower case"),
        ({"profile": "huge"}, "profile is 'huge'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"pool": 450.0}, "pool is 450.0"),
        ({"unit": None}, "unit is None"),
        ({"split": 3}, "split is 3"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_faulty_rows_are_named_and_nothing_is_written(tmp_path, changes, message):
    path = tmp_path / "results.json"
    write_results(path, [row("style.gap")])
    before = path.read_bytes()
    for store in (write_results, update_results):
        with pytest.raises(SchemaError, match="row 0"):
            store(path, [row() | changes])
    assert any(message in fault for fault in row_faults(row() | changes))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_value_that_could_not_be_measured_is_null(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [row(value=0.5) | {"value": None, "low": None, "high": None}])
    assert read_results(path)[0]["value"] is None and "null" in path.read_text()


def test_twice_the_same_row_is_a_fault(tmp_path):
    with pytest.raises(SchemaError, match="profile book occurs twice"):
        write_results(tmp_path / "results.json", [row(), row()])


def test_lacking_field_is_named(tmp_path):
    short = row()
    del short["command"]
    with pytest.raises(SchemaError, match="lacks command"):
        write_results(tmp_path / "results.json", [short])


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [row()])
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UnreadableFileError, match="not a results file"):
        read_results(path)
    with pytest.raises(UnreadableFileError):
        update_results(path, [row()])
    path.write_text(json.dumps({"rows": []}))
    with pytest.raises(SchemaError, match="expected a list of rows"):
        read_results(path)


def test_compare_within_the_longest_fitting_tolerance():
    old = [row("probe.r2.gain", 0.5), row("probe.r2.offset", 0.5), row("style.gap", 0.5)]
    new = [row("probe.r2.gain", 0.55), row("probe.r2.offset", 0.55), row("style.gap", 0.5)]
    assert compare(old, new, {"probe": 0.06}) == []
    assert compare(old, new, {"probe": 0.06, "probe.r2.offset": 0.01}) == [
        "probe.r2.offset (book): was 0.5, is 0.55, tolerance 0.01"
    ]
    assert len(compare(old, new, {})) == 2
    assert compare(old, new[:1], {"probe": 0.06}) == []  # what was not made again is no difference


def test_compare_names_what_makes_numbers_incomparable():
    lines = compare([row()], [row(twin_version="new", pool=450)], {})
    assert len(lines) == 2 and "pool was None, is 450" in lines[0] and "twin_version was 'abc', is 'new'" in lines[1]
    assert "new, 0.5" in compare([], [row()], {})[0]
    assert "profile" not in compare([row(profile="full")], [row()], {})[0]
    assert compare([row(value=0.5) | {"value": None}], [row()], {}, default=9.0)
