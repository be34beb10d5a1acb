"""``cimp advise`` as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from advise_frames import SETTINGS, Bench
from typer.testing import CliRunner

import cimp_core as cimp
from cimp_core.cli import advise as command
from cimp_core.errors import CimpError
from cimp_core.microscope.velox_writer import write_velox


class NoProcess:
    """Reads here: a process of its own takes seconds to start. The tests of real files use the true one."""

    def __init__(self, timeout):
        assert timeout == 60.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, path, override, detector):
        return cimp.read(path, override=override, detector=detector)


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr("cimp_core.microscope.worker.KillableReader", NoProcess)
    app = typer.Typer()
    app.command()(command.advise)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def velox(tmp_path_factory):
    return write_velox(tmp_path_factory.mktemp("drive") / "quick.emd", Bench().expose(SETTINGS), SETTINGS)


def test_a_velox_file_gets_settings_dose_and_intervals(run, velox):
    done = run(velox, "--goal", "snr 8", "--max-dose", "1e6 e/A2")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("quick.emd\nsnr 8: reached with dwell time") and "e/Å²" in done.stdout
    (told,) = json.loads(run(velox, "--goal", "snr 8", "--json").stdout)
    assert told["reached"] and told["settings"]["beam_current"] == pytest.approx(60e-12)
    assert told["predicted"]["snr"]["low"] >= 8 and told["dose"] > 0 and told["notes"] == []


def test_the_limits_come_from_a_file(run, velox, tmp_path):
    file = tmp_path / "titan.yml"
    file.write_text("dwell_time: [2.0e-6, 64.0e-6]\n")
    (told,) = json.loads(run(velox, "--goal", "snr 8", "--instrument", file, "--json").stdout)
    assert told["settings"]["dwell_time"] == 64e-6
    done = run(velox, "--goal", "snr 80", "--instrument", file)
    assert done.exit_code == 0 and "no allowed settings surely reach it" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--goal", "sharp"], "say, for example"),
        (["--goal", "snr 5", "--max-dose", "much"], "dose 'much'"),
        (["--goal", "snr 5", "--set", "current=1"], "the name must be one of"),
        (["--goal", "snr 5", "--instrument", "none.yml"], "none.yml: cannot be read"),
    ],
)
def test_bad_input_is_named_before_the_file_is_read(run, velox, arguments, message):
    done = run(velox, *arguments)
    assert isinstance(done.exception, CimpError) and message in str(done.exception)


def test_a_frame_that_allows_no_advice_is_one_line(run, tmp_path):
    path = write_velox(tmp_path / "blank.emd", np.full((64, 64), 9, np.uint16), SETTINGS)
    done = run(path, "--goal", "snr 5")
    assert done.exit_code == 1 and done.stderr.startswith("cimp: blank.emd: every pixel is 9") and not done.stdout
    (told,) = json.loads(run(path, "--goal", "snr 5", "--json").stdout)
    assert "blank" in told["error"]


def test_help_is_light():
    code = "import sys; from cimp_core.cli import advise; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"hyperspy", "torch", "scipy", "pydantic"} & set(loaded)


REAL = {  # file -> exit status, and a part of what is said
    "pycroscopy+SciFiDatasets/data/microscopy/em/tem/EMDReader_Image_FEI.emd": (0, "reached with dwell time"),
    "AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4": (1, "--set dwell_time="),
    "ercius+openNCEM/ncempy/data/16_STOimage.emi": (0, "16-bit scale"),
    "ercius+openNCEM/ncempy/data/Acquisition_18.emd": (0, "column precision"),
    "HPAI-BSC+AtomDetection_ACSTEM/data/tif_data/025_HAADF_15nm_Sample_PtNC_21Oct20.tif": (1, "--set dwell_time="),
    "hyperspy+rosettasciio/rsciio/tests/data/tia/old/16x16_STEM_BF_DF_acquire.emi": (1, "32 px a side"),
    "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/1D/test-EELS_spectrum.dm3": (
        1,
        "no signal of this file",
    ),
}


def test_real_files_get_advice_or_one_clear_line(shared):
    program = [sys.executable, "-m", "cimp_core.cli", "advise"]
    for name, (status, said) in REAL.items():
        done = subprocess.run(
            [*program, str(shared / "data" / name), "--goal", "snr 10"], capture_output=True, text=True
        )
        assert done.returncode == status and said in done.stdout + done.stderr, (name, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
