"""``cimp info`` as a user runs it."""

import json

import pytest
import typer
from typer.testing import CliRunner
from velox_files import IMAGE, SETTINGS

from cimp_core.cli.info import human, info, parse_settings
from cimp_core.errors import OutOfRangeError
from cimp_core.microscope.velox_writer import write_velox


@pytest.fixture
def cimp():
    app = typer.Typer()
    app.command()(info)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


@pytest.fixture
def file(tmp_path):
    return write_velox(tmp_path / "a.emd", IMAGE, SETTINGS.replace(beam_current=2e-14), camera_length=0.091)


def test_table_shows_values_reasons_and_the_instrument(cimp, file):
    result = cimp(file)
    assert result.exit_code == 0
    for text in (
        "20 pm", "10 µs", "25 mrad", "20 fA", "2e-14 A is no probe current", "60 mrad", "Detectors.Detector-1.Gain",
        "300 kV", "camera length 91 mm", "velox16 (mean over the dwell)", "detector HAADF",
    ):  # fmt: skip
        assert text in result.stdout, text


def test_json_holds_everything_in_si(cimp, file):
    (record,) = json.loads(cimp(file, "--json").stdout)
    assert record["acquisition"]["pixel_size"] == 2e-11 and record["acquisition"]["beam_current"] is None
    assert "no probe current" in record["missing"]["beam_current"]
    assert record["raw"]["beam_current"] == {"value": 2e-14, "unit": "A", "key": "Optics.LastMeasuredScreenCurrent"}
    assert record["instrument"]["voltage"] == 300e3 and record["shape"] == [20, 30]


def test_set_gives_what_the_file_lacks(cimp, file):
    (record,) = json.loads(cimp(file, "--json", "--set", "beam_current=50e-12").stdout)
    assert record["acquisition"]["beam_current"] == 50e-12 and record["provenance"]["beam_current"] == "user"


def test_a_bad_file_gets_one_line_and_the_others_are_shown(cimp, file, tmp_path):
    bad = tmp_path / "bad.dm3"
    bad.write_bytes(b"\0" * 100)
    result = cimp(bad, file, tmp_path / "absent.emd")
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2 and "bad.dm3" in lines[0] and "no such file" in lines[1]
    assert "20 pm" in result.stdout
    records = json.loads(cimp(bad, file, "--json").stdout)
    assert records[0]["error"] == "UnreadableFileError" and records[1]["acquisition"]["dwell_time"] == 1e-5


@pytest.mark.parametrize("setting", ["beam=1e-12", "beam_current", "beam_current=much", "convergence_angle=25"])
def test_an_impossible_setting_is_refused_before_any_file_is_read(cimp, file, setting):
    result = cimp(file, "--set", setting)
    assert result.exit_code == 2 and result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1 and setting.split("=")[0] in result.stderr
    with pytest.raises(OutOfRangeError):
        parse_settings([setting])


HUMAN = [
    (2.5e-11, "m", "25 pm"),
    (9.9999e-10, "m", "1000 pm"),
    (1e-9, "m", "1 nm"),
    (1e-5, "s", "10 µs"),
    (0.03, "s", "30 ms"),
    (0.025, "rad", "25 mrad"),
    (5e-11, "A", "50 pA"),
    (0.0, "A", "0 A"),
    (2e5, "V", "200 kV"),
    (-1.23456, "", "-1.235"),
    (None, "m", "-"),
]


@pytest.mark.parametrize("value, unit, text", HUMAN)
def test_human_units(value, unit, text):
    assert human(value, unit) == text
