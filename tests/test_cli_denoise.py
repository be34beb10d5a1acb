"""``cimp denoise`` as a user runs it."""

import json
import os
import warnings

import hyperspy.api as hs
import numpy as np
import pytest
import rsciio.tiff
import tifffile
import typer
from denoise_methods import Blur
from typer.testing import CliRunner
from velox_files import SETTINGS

import cimp_core as cimp
from cimp_core.cli import denoise as command
from cimp_core.denoising import files as written
from cimp_core.denoising import methods
from cimp_core.denoising.many import denoise_files
from cimp_core.inputs import list_inputs
from cimp_core.microscope.velox_writer import write_velox

COUNTS = np.random.default_rng(0).poisson(30, (40, 52)).astype(np.uint16) * 20


@pytest.fixture
def made(monkeypatch):
    """The method that every name stands for, so that no test waits for a network."""
    method = Blur()
    monkeypatch.setattr(methods, "resolve", lambda name, seed: method)
    return method


class NoProcess:
    """Reads here: a process of its own takes seconds to start. The tests of bad and real files use the true one."""

    timeout = 0.0

    def __init__(self, **_):
        pass

    def start(self):
        pass

    def close(self):
        pass

    def read(self, path, override, detector):
        return cimp.read(path, override=override, detector=detector)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("cimp_core.jobs.KillableReader", NoProcess)


@pytest.fixture
def cimp_denoise(made):
    app = typer.Typer()
    app.command()(command.denoise)

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in ("--settings", "trust", *arguments)], env={"COLUMNS": "200"})

    return run


@pytest.fixture
def velox(tmp_path):
    folder = tmp_path / "drive"
    folder.mkdir()
    return write_velox(folder / "a.emd", COUNTS, SETTINGS)


def summary(result):
    return json.loads(result.stdout)


def test_a_file_becomes_two_hyperspy_files_and_a_record(at_once, cimp_denoise, velox, tmp_path):
    out = tmp_path / "out"
    result = cimp_denoise(velox, "--out", out, "--dose-factor", 32)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == ["a.denoised.json", "a.hspy", "a_uncertainty.hspy"]
    image = hs.load(out / "a.hspy")
    assert image.data.dtype == np.uint16 and image.data.shape == COUNTS.shape
    assert image.axes_manager[0].scale == pytest.approx(cimp.read(velox)[0].image.axes_manager[0].scale)
    assert image.metadata.CIMP.denoise.dose_factor == 32 and image.metadata.CIMP.denoise.input == str(velox)
    deviation = hs.load(out / "a_uncertainty.hspy")
    assert deviation.data.dtype == np.float32 and np.all(deviation.data == 3)
    record = json.loads((out / "a.denoised.json").read_text())
    assert record["images"][0]["settings"]["used"]["beam_current"] == SETTINGS.beam_current
    assert "a.hspy, a_uncertainty.hspy" in result.stdout and "1 files denoised" in result.stdout


@pytest.mark.parametrize(
    "units, scale", [("nm", 0.0293), ("µm", 1.234e-4), ("Å", 0.1), ("pm", 12.5)], ids=["nm", "um", "angstrom", "pm"]
)
@pytest.mark.parametrize("dtype, frames", [("uint16", 0), ("float32", 3), ("uint32", 0)])
def test_tiff_is_read_back_with_its_scale(tmp_path, units, scale, dtype, frames):
    shape = (frames, 40, 52) if frames else (40, 52)
    signal = hs.signals.Signal2D(np.random.default_rng(1).poisson(30, shape).astype(dtype))
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = scale, units
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        out = cimp.denoise(signal, method=Blur())
    written.write_all(tmp_path / "a", [out], "tif", "x", force=False)
    (read,) = rsciio.tiff.file_reader(str(tmp_path / "a.tif"))
    assert read["data"].dtype == (np.float32 if dtype == "uint32" else dtype)
    np.testing.assert_array_equal(read["data"], out.image.data)
    again = cimp.read(tmp_path / "a.tif")[0]
    metres = {"nm": 1e-9, "µm": 1e-6, "Å": 1e-10, "pm": 1e-12}[units]
    assert again.acquisition.pixel_size == pytest.approx(scale * metres, rel=1e-6)
    across = read["axes"][-1]
    if units != "Å":  # which RosettaSciIO calls angstrom
        assert across["units"].replace("μ", "µ") == units and across["scale"] == pytest.approx(scale, rel=1e-6)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej and json.loads(file.imagej_metadata["Info"])["method"] == "blur"


def test_a_signal_without_calibration_gets_none_in_tiff(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        out = cimp.denoise(COUNTS, method=Blur(deviation=False))
    written.write_all(tmp_path / "a", [out], "tif", "x", force=False)
    assert cimp.read(tmp_path / "a.tif")[0].acquisition.pixel_size is None


def test_what_is_done_is_kept_and_nothing_is_overwritten(at_once, cimp_denoise, made, velox, tmp_path):
    out = tmp_path / "out"
    assert cimp_denoise(velox, "--out", out).exit_code == 0
    before, calls = (out / "a.hspy").stat().st_mtime_ns, len(made.calls)
    again = cimp_denoise(velox, "--out", out, "--json")
    assert again.exit_code == 0 and summary(again)["kept"] == 1 and len(made.calls) == calls
    other = cimp_denoise(velox, "--out", out, "--json", "--dose-factor", 4)
    assert other.exit_code == 1 and "--force" in summary(other)["files"][0]["reason"]
    assert (out / "a.hspy").stat().st_mtime_ns == before
    forced = cimp_denoise(velox, "--out", out, "--json", "--dose-factor", 4, "--force")
    assert forced.exit_code == 0 and summary(forced)["denoised"] == 1
    assert hs.load(out / "a.hspy").metadata.CIMP.denoise.dose_factor == 4


@pytest.mark.parametrize("damage", ["no record", "a file is gone", "a file is cut", "the input changed"])
def test_half_done_is_not_done(at_once, cimp_denoise, velox, tmp_path, damage):
    out = tmp_path / "out"
    cimp_denoise(velox, "--out", out)
    if damage == "no record":
        (out / "a.denoised.json").unlink()
    elif damage == "a file is gone":
        (out / "a_uncertainty.hspy").unlink()
    elif damage == "a file is cut":
        os.truncate(out / "a.hspy", 100)
    else:
        os.utime(velox, ns=(1, 1))
    assert summary(cimp_denoise(velox, "--out", out, "--json"))["kept"] == 0
    assert summary(cimp_denoise(velox, "--out", out, "--json", "--force"))["denoised"] == 1
    assert len(hs.load(out / "a.hspy").data) == 40


def test_a_bad_file_stops_nothing(cimp_denoise, velox, tmp_path):
    cut = velox.with_name("cut.emd")
    cut.write_bytes(velox.read_bytes()[:3000])
    write_velox(velox.with_name("bf.emd"), COUNTS, SETTINGS, detector="BF-S")
    hs.signals.Signal2D(np.full((40, 40), 3.0)).save(velox.with_name("flat.hspy"))
    velox.with_name("notes.txt").write_text("notes")
    result = cimp_denoise(velox.parent, tmp_path / "absent.emd", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1
    found = {os.path.basename(f["file"]): f for f in summary(result)["files"]}
    assert {n: f["status"] for n, f in found.items()} == {
        "a.emd": "denoised", "cut.emd": "failed", "bf.emd": "failed", "flat.hspy": "failed", "absent.emd": "failed",
    }  # fmt: skip
    assert "BF-S" in found["bf.emd"]["reason"] and "same value" in found["flat.hspy"]["reason"]
    assert all("\n" not in f["reason"] for f in found.values())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.denoised.json", "a.hspy", "a_uncertainty.hspy"]


def test_an_error_of_a_method_costs_one_file(at_once, cimp_denoise, velox, tmp_path, monkeypatch):
    write_velox(velox.with_name("b.emd"), COUNTS[:, :40], SETTINGS)
    whole = Blur.__call__

    def broken(self, frame, *rest):
        if frame.shape[1] == 40:
            raise ZeroDivisionError("oh")
        return whole(self, frame, *rest)

    monkeypatch.setattr(Blur, "__call__", broken)
    result = cimp_denoise(velox.parent, "--out", tmp_path / "out", "--json")
    assert [f["status"] for f in summary(result)["files"]] == ["denoised", "failed"]
    assert "please report" in summary(result)["files"][1]["reason"]


def test_names_keep_folders_and_never_collide(at_once, cimp_denoise, velox, tmp_path):
    other = velox.parent / "day 2"
    other.mkdir()
    write_velox(other / "a.emd", COUNTS, SETTINGS)
    hs.signals.Signal2D(COUNTS).save(velox.with_name("a.hspy"))
    out = tmp_path / "out"
    result = cimp_denoise(velox.parent, "--out", out, "--format", "tif", "--json")
    assert result.exit_code == 0, result.stdout
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.tif") if "uncertainty" not in p.name)
    assert names == ["a_emd.tif", "a_hspy.tif", "day 2/a.tif"]


def test_several_images_of_one_file_are_numbered(at_once, cimp_denoise, shared, tmp_path, monkeypatch):
    monkeypatch.setattr("cimp_core.denoising.checks.SMALLEST", 16)
    file = shared / "data/hyperspy+rosettasciio/rsciio/tests/data/tia/old/16x16_STEM_BF_DF_acquire.emi"
    monkeypatch.setattr(Blur, "__call__", lambda self, frame, *rest: (frame, None))
    result = cimp_denoise(file, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stdout
    names = sorted(p.name for p in (tmp_path / "out").glob("*.hspy"))
    assert names == ["16x16_STEM_BF_DF_acquire_1.hspy", "16x16_STEM_BF_DF_acquire_2.hspy"]


def test_real_files_of_several_makers(cimp_denoise, shared, tmp_path):
    data = shared / "data"
    files = [
        data / "pycroscopy+SciFiDatasets/data/microscopy/em/tem/EMDReader_Image_FEI.emd",
        data / "hyperspy+rosettasciio/rsciio/tests/data/emd/FFTComplexEven.emd",
        data / "AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4",
        data / "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/2D/test_diffraction_pattern.dm3",
    ]
    result = cimp_denoise(*files, "--out", tmp_path, "--json", "--set", "convergence_angle=0.02")
    found = {os.path.basename(f["file"]): f for f in summary(result)["files"]}
    assert [f["status"] for f in found.values()] == ["denoised", "denoised", "denoised", "failed"], found
    assert result.exit_code == 1 and "1/nm" in found["test_diffraction_pattern.dm3"]["reason"]
    image = hs.load(next(tmp_path.rglob("BTO_crystal_1.hspy")))
    assert image.data.shape == (413, 469) and image.data.dtype == np.float32
    assert image.metadata.CIMP.denoise.settings.used.convergence_angle == 0.02


@pytest.mark.parametrize(
    "options", [("--dose-factor", 1), ("--set", "beam=1"), ("--dose-factor", 5000)], ids=["1", "set", "5000"]
)
def test_impossible_options_are_refused_before_any_file_is_read(cimp_denoise, velox, tmp_path, options):
    result = cimp_denoise(velox, "--out", tmp_path / "out", *options)
    assert result.exit_code != 0 and isinstance(result.exception, cimp.OutOfRangeError)
    assert not (tmp_path / "out").exists()


def test_an_unknown_method_is_one_line(tmp_path, velox):
    app = typer.Typer()
    app.command()(command.denoise)
    result = CliRunner().invoke(app, [str(velox), "--out", str(tmp_path / "out"), "--method", "magic"])
    assert isinstance(result.exception, cimp.OutOfRangeError) and "magic" in str(result.exception)


@pytest.mark.parametrize("workers", [None, 2])
def test_progress_grows_within_a_file_and_never_falls(at_once, made, tmp_path, workers):
    drive, seen = tmp_path / "drive", []
    drive.mkdir()
    for name, rows in (("a", 1100), ("b", 600)):  # 3 and 2 rows of tiles
        write_velox(drive / f"{name}.emd", np.resize(COUNTS, (rows, 40)), SETTINGS)
    (drive / "c.emd").write_bytes(b"no image")
    options = {"factor": 16, "method": "x", "settings": "trust", "seed": 0, "anyway": False, "keep_dtype": True}
    options |= {"format": "hspy", "override": {}, "detector": None}
    sources = list_inputs(str(drive)).sources
    done = denoise_files(
        sources, tmp_path / "out", tmp_path / "work", options, workers=workers, progress=lambda *a: seen.append(a)
    )
    assert [o.status for o in done] == ["denoised", "denoised", "failed"]
    assert seen == sorted(seen) and seen[-1] == (3, 3) and {total for _, total in seen} == {3}
    steps = np.array([n for n, _ in seen])
    assert len(np.unique(steps.round(6))) >= 5 and np.diff(steps).max() < 1.01
    if workers is None:
        assert {round(n % 1, 3) for n in steps} == {0, 0.333, 0.667, 0.5}
