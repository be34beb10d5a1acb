"""``cimp audit`` over files: a bad file costs one line, a killed run goes on, the page holds whatever names do."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cimp_core as cimp
from cimp_core.auditing.example import write_faulty_drive
from cimp_core.auditing.report import FILES
from cimp_core.cli import app
from cimp_core.microscope.velox_writer import write_velox

HOSTILE = "<img src=x onerror=alert(1)> {{script}} \"'&.emd"


@pytest.fixture(scope="module")
def data():
    return cimp.twin(60, 96, 0)


@pytest.fixture(scope="module")
def drive(tmp_path_factory, data):
    """Five sound files, one in the wrong unit, a copy, one cut off, a text, and a hostile name."""
    folder = tmp_path_factory.mktemp("audited") / "drive"
    folder.mkdir()
    rows = [0, 9, 18, 27, 36]
    for i in rows:
        write_velox(folder / f"{i:02d}.emd", data.image(i), data.acquisition(i))
    settings = data.acquisition(54)
    write_velox(folder / HOSTILE, data.image(54), settings.replace(dwell_time=settings.dwell_time * 1000))
    shutil.copy(folder / "09.emd", folder / "copy.emd")
    (folder / "cut.emd").write_bytes((folder / "00.emd").read_bytes()[:5000])
    (folder / "notes.txt").write_text("hello")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, ["audit", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def report(drive):
    out = drive.parent / "report"
    done = invoke(drive, "--out", out, "--workers", "1", "--json")
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


def test_every_file_has_its_line_and_a_bad_one_stops_nothing(report):
    out, said = report
    assert len(said["images"]) == 7 and {n.rpartition("/")[2] for n in said["failed"]} == {"cut.emd", "notes.txt"}
    by_name = {line["file"].rpartition("/")[2]: line for line in said["images"]}
    assert by_name[HOSTILE]["verdict"] == "disagrees" and by_name[HOSTILE]["doubted"] == ["dwell_time"]
    assert by_name["copy.emd"]["checks"]["duplicate"]["verdict"] == "disagrees"
    assert "09.emd" in by_name["copy.emd"]["reasons"][0] and "another" not in by_name["copy.emd"]["reasons"][0]
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES) and not (out.parent / "report.work").exists()


def test_table_and_json_say_the_same(report):
    import pandas as pd

    out, said = report
    table = pd.read_csv(out / "audit.csv")
    stored = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert {k: v for k, v in said.items() if k != "out"} == stored
    assert list(table["file"]) == [line["file"] for line in stored["images"]]
    assert list(table["verdict"]) == [line["verdict"] for line in stored["images"]]
    gains = [line["settings"]["detector_gain"]["recorded"] for line in stored["images"]]
    np.testing.assert_allclose(table["detector_gain.recorded"], gains)
    residuals = [line["settings"]["dwell_time"]["residual"] for line in stored["images"]]
    np.testing.assert_allclose(table["dwell_time.residual"], residuals)


def test_the_page_needs_nothing_else_and_holds_hostile_names_as_text(report):
    page = (report[0] / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:image/png;base64,)", page) and "http://" not in page
    assert "https://" not in page and page.count("data:image/png;base64,") == 7
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt; {{script}}" in page
    assert page.count("<script>") == 1 and "simulated images" in page


def test_nothing_is_overwritten_unasked_and_bad_input_is_one_line(report, drive, tmp_path):
    done = invoke(drive, "--out", report[0])
    assert done.exit_code == 1 and "exists already" in str(done.exception)
    for arguments in ([tmp_path / "none"], [drive, "--level", "2"], [drive, "--calibrate", tmp_path / "no.h5"]):
        done = invoke(*arguments, "--out", tmp_path / "r")
        assert done.exit_code == 1 and isinstance(done.exception, cimp.CimpError)
        assert not (tmp_path / "r").exists() and "\n" not in str(done.exception).strip()


def test_a_data_set_is_audited_too_and_calibrated_on_ones_own(data, tmp_path):
    done = invoke(data.path, "--out", tmp_path / "r", "--calibrate", data.path)
    assert done.exit_code == 0, done.output
    sessions = len(np.unique(data.sessions))
    assert f"{sessions} sessions" in done.output and "no p-value below" in done.output and "60 images" in done.output
    assert "simulated images" not in done.output


def test_a_killed_run_goes_on_and_measures_nothing_twice(tmp_path):
    (tmp_path / "drive").mkdir()
    for i in range(30):
        (tmp_path / f"drive/{i:03d}.emd").write_bytes(b"x")
    program = [sys.executable, str(Path(__file__).parent / "killed_build.py"), str(tmp_path / "log")]
    command = [*program, "audit", "drive", "--out", "report", "--workers", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL)
    parts = tmp_path / "report.work" / "parts"
    while process.poll() is None and len(list(parts.glob("*/*.json"))) < 5:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("*/*.json")}
    assert 5 <= len(kept) < 30 and not (tmp_path / "report").exists()
    before = len((tmp_path / "log").read_text().split())
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "log").read_text().split()) == before + 30 - len(kept)
    assert len(json.loads((tmp_path / "report" / "audit.json").read_text())["images"]) == 30


def test_the_faulty_drive_names_its_faults_as_the_audit_names_files(data, tmp_path):
    planted = write_faulty_drive(tmp_path / "drive", data, 9)
    report = cimp.audit(str(tmp_path / "drive"), workers=1)
    assert set(planted) < {image.file for image in report} and {"a copy", "pixel size"} <= set(planted.values())
    assert all(any("as day_01/000.emd" in r for r in i.reasons) == (planted.get(i.file) == "a copy") for i in report)
