"""``cimp embed`` as a user runs it: a drive, named files, files that cannot be read, the same numbers as by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from velox_files import SETTINGS

import cimp_core as cimp
from cimp_core import embedding
from cimp_core.cli import app
from cimp_core.inputs import list_inputs
from cimp_core.microscope.velox_writer import write_velox


class Here:
    """Reads in this process: one of its own takes seconds to start."""

    def __init__(self, **_):
        self.timeout = None

    def start(self):
        pass

    def close(self):
        pass

    def read(self, path, override=None, detector=None):
        return cimp.read(path, override=override, detector=detector)


@pytest.fixture
def drive(tmp_path, monkeypatch):
    monkeypatch.setattr("cimp_core.jobs.KillableReader", Here)
    (tmp_path / "drive").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        write_velox(tmp_path / f"drive/{i}.emd", rng.poisson(30, (64, 64)).astype(np.uint16) * 20, SETTINGS)
    (tmp_path / "drive/notes.txt").write_text("no image")
    (tmp_path / "drive/cut.emd").write_bytes((tmp_path / "drive/0.emd").read_bytes()[:500])
    return tmp_path / "drive"


def embed(*arguments):
    return CliRunner().invoke(app, ["embed", *map(str, arguments), "--json"])


def test_a_drive_gives_what_each_file_gives_by_hand(drive, tmp_path):
    result = embed(drive, "--out", tmp_path / "a.npz")
    said = json.loads(result.stdout)
    assert result.exit_code == 1 and said["images"] == 4  # one file is damaged, and named
    assert [Path(name).name for name in said["failed"]] == ["cut.emd"]
    found = np.load(tmp_path / "a.npz")
    assert [Path(name).name for name in found["files"]] == [f"{i}.emd" for i in range(4)]
    shots = [cimp.read(drive / f"{i}.emd")[0] for i in range(4)]
    model = cimp.load("cimp-twin-s")
    np.testing.assert_allclose(found["image"], model.embed_images(shots), atol=1e-5)
    np.testing.assert_allclose(found["metadata"], model.embed_metadata([s.acquisition for s in shots]), atol=1e-6)
    assert not list(tmp_path.glob("*.work"))


def test_a_stopped_run_goes_on_and_a_named_file_keeps_its_name(drive, tmp_path, monkeypatch):
    files, read, whole = [drive / f"{i}.emd" for i in range(4)], [], Here.read
    monkeypatch.setattr(Here, "read", lambda self, path, *rest: (read.append(Path(path).name), whole(self, path))[1])
    listed = list_inputs(files[:3]).sources
    embedding.embed_files(listed, tmp_path / "a.csv.work", workers=1)  # as far as a stopped run came
    assert sorted(read) == ["0.emd", "1.emd", "2.emd"]
    result = embed(*files, "--out", tmp_path / "a.csv", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.csv").read_text().splitlines()[4].startswith(str(files[3]))
    assert sorted(read) == ["0.emd", "1.emd", "2.emd", "3.emd"]
