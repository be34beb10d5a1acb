"""Libraries: what is in them, kept, resumed, refused; and the command that makes them."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

import cimp_core as cimp
from cimp_core import structures as st
from cimp_core.cli import app
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError

NAMES = ["Si", "SrTiO3", "graphene", "TiO2"]


@pytest.fixture(scope="module")
def made():
    return st.library(NAMES, zones=2, thickness=[10e-9, 30e-9])


def same(a, b):
    fields = ("owner", "zones", "thickness", "means", "offsets", "frequencies", "coefficients")
    return a.version == b.version and all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)


def test_every_structure_zone_and_thickness_is_an_entry(made):
    cubic = 6  # <100>, <110>, <111>, <210>, <211>, <221>
    assert (made.table.structure == "Si").sum() == (made.table.structure == "SrTiO3").sum() == 2 * cubic
    assert made.table[made.table.structure == "graphene"].thickness.tolist() == pytest.approx([3.35e-10])
    assert len(made) == len(list(made)) == len(made.table)
    i = made.table.index[(made.table.structure == "SrTiO3") & (made.table.zone == (1, 1, 0))][1]
    entry = made[int(i)]
    view = st.project(entry.structure, (1, 1, 0))
    alone = st.pattern(view, made.settings.optics, 60e-3, 0.2, 300.0)
    assert np.array_equal(entry.pattern.coefficients, alone.coefficients)
    assert np.array_equal(entry.pattern.frequencies, alone.frequencies)
    assert entry.pattern.mean == pytest.approx(alone.mean)
    assert entry.describe() == "SrTiO3 (SrTiO3, Pm-3m), [110], 30 nm"
    with pytest.raises(IndexError):
        made[len(made)]
    assert made[-1].structure.name == "TiO2"


def test_a_subset_holds_the_same_entries_in_the_order_asked_for(made):
    which = [40, 3, 12]
    part = made.subset(which)
    for mine, i in zip(part, which, strict=True):
        assert mine.describe() == made[i].describe()
        assert np.array_equal(mine.pattern.coefficients, made[i].pattern.coefficients)
    assert len(part.structures) == len({made[i].structure.name for i in which})
    assert {e.structure.formula for e in made.subset(made.table.formula == "Si")} == {"Si"}
    assert len(made.subset([])) == 0


def test_the_shots_own_settings_are_used_and_the_rest_is_said():
    shot = cimp.Acquisition(convergence_angle=19e-3, inner_collection_angle=80e-3)
    own = st.library("Au", zones=[(1, 0, 0)], acquisition=shot, outer_collection_angle=0.15).settings
    assert (own.convergence_angle, own.inner_collection_angle, own.outer_collection_angle) == (19e-3, 80e-3, 0.15)
    assert set(own.assumed) == {"voltage", "source_size"}
    assert "300000 V" in own.assumed["voltage"]
    wide = st.library("Au", zones=[(1, 0, 0)], acquisition=cimp.Acquisition(inner_collection_angle=0.25)).settings
    assert wide.outer_collection_angle == 0.5 and "0.5" in wide.assumed["outer_collection_angle"]
    with pytest.raises(OutOfRangeError, match="no dark field"):
        st.library("Au", acquisition=cimp.Acquisition(convergence_angle=30e-3, inner_collection_angle=20e-3))
    with pytest.raises(OutOfRangeError, match="thickness"):
        st.library("Au", thickness=20.0)  # nanometres are not metres
    with pytest.raises(OutOfRangeError, match="zone axis"):
        st.library("Au", zones=[(0, 0, 0)])


def test_a_library_of_a_stated_instrument_differs(made):
    other = st.library(NAMES, zones=2, thickness=[10e-9, 30e-9], voltage=200e3)
    assert other.version != made.version and other.means[0] != made.means[0]


def test_what_was_made_is_kept_and_not_made_again(tmp_path, monkeypatch):
    from cimp_core.structures import library as front  # the function, whose module is the next line's

    module, calls = sys.modules[front.__module__], []
    simulate = module.simulate

    def counted(structure, settings):
        calls.append(structure.name)
        if structure.name == "TiO2" and calls.count("TiO2") == 1:
            raise KeyboardInterrupt
        return simulate(structure, settings)

    monkeypatch.setattr(module, "simulate", counted)
    with pytest.raises(KeyboardInterrupt):
        st.library(NAMES, folder=tmp_path / "kept")
    resumed = st.library(NAMES, folder=tmp_path / "kept")
    assert calls == [*NAMES, "TiO2"]
    grown = st.library(["Au", *NAMES], folder=tmp_path / "kept")
    assert calls[5:] == ["Au"]
    assert same(grown.subset(grown.table.structure != "Au"), resumed)
    st.library(NAMES, folder=tmp_path / "kept", thickness=40e-9)
    assert calls[6:] == NAMES  # other settings are another library
    assert same(resumed, st.library(NAMES))


def test_dask_workers_make_the_same(made):
    assert same(st.library(NAMES, zones=2, thickness=[10e-9, 30e-9], workers=2), made)


def test_a_file_gives_back_what_was_written(made, tmp_path):
    path = st.save_library(made, tmp_path / "a.h5")
    back = st.open_library(path)
    assert same(back, made) and back.settings == made.settings and back.settings.assumed == made.settings.assumed
    assert back.structures[1].space_group_symbol == "Pm-3m"
    assert np.array_equal(back.structures[1].rotations, made.structures[1].rotations)
    with pytest.raises(CimpError, match="exists"):
        st.save_library(made, path)
    st.save_library(made.subset([0]), path, force=True)
    assert len(st.open_library(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_an_opened_library_needs_no_pymatgen(made, tmp_path):
    path = st.save_library(made, tmp_path / "a.h5")
    code = f"import cimp_core as c, sys; print(len(c.structures.open_library({str(path)!r}))); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, modules = done.stdout.split("\n")[:2]
    assert int(first) == len(made) and not {"pymatgen", "spglib", "torch"} & set(modules.split())


def test_other_and_damaged_files_are_refused(made, tmp_path):
    path = st.save_library(made, tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["image_model"] = 1
    with pytest.raises(SchemaError, match="version 1 of the image model"):
        st.open_library(path)
    st.save_library(made, path, force=True)
    with h5py.File(path, "r+") as file:
        file["thickness"][3] = 5e-9
    with pytest.raises(SchemaError, match="damaged"):
        st.open_library(path)
    with h5py.File(path, "r+") as file:
        del file["offsets"]
    with pytest.raises(SchemaError, match="offsets"):
        st.open_library(path)
    (tmp_path / "b.h5").write_text("no", encoding="utf-8")
    with pytest.raises(UnreadableFileError):
        st.open_library(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w"):
        pass
    with pytest.raises(SchemaError, match="no library of structures"):
        st.open_library(tmp_path / "c.h5")


def cimp_structures(*arguments):
    return CliRunner().invoke(app, ["structures", *map(str, arguments)])


def test_the_command_makes_and_shows_a_library(tmp_path):
    out = tmp_path / "lib.h5"
    done = cimp_structures("library", "Au", "Si", "--out", out, "--set", "convergence_angle=21e-3", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["entries"] == 6 and summary["convergence_angle"] == 21e-3
    assert set(summary["assumed"]) == {
        "voltage",
        "inner_collection_angle",
        "outer_collection_angle",
        "source_size",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["lib.h5"]
    shown = cimp_structures("show", out, "--structure", "Au")
    assert shown.stdout.splitlines()[0] == "Au (Au, Fm-3m), [110], 20 nm"
    command = [sys.executable, "-m", "cimp_core.cli", "structures", "library", "Au", "--out", str(out)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr.splitlines() == [f"cimp: {out} exists: --force to overwrite it"]
    for wrong in (["library", "Xx", "--out", tmp_path / "x.h5"], ["show", out, "--structure", "Pu"]):
        assert isinstance(cimp_structures(*wrong).exception, OutOfRangeError)


def test_the_command_matches_a_file(tmp_path):
    from hyperspy.signals import Signal2D

    known = st.library(["Au", "Si"])
    st.save_library(known, tmp_path / "lib.h5")
    (number,) = known.table.index[(known.table.formula == "Au") & (known.table.zone == (1, 0, 0))]
    fraction = st.collected(known[int(number)].pattern, st.View(0.2, 160, 160, angle=0.4))
    axes = [{"name": name, "size": 160, "scale": 0.02, "units": "nm"} for name in "yx"]
    Signal2D(st.recorded(fraction, 80, np.random.default_rng(0)), axes=axes).save(tmp_path / "frame.hspy")
    asked = "match", tmp_path / "frame.hspy", "--library", tmp_path / "lib.h5", "--pixel-size-error", "0.01"
    done = cimp_structures(*asked, "--json")
    assert done.exit_code == 0, done.output
    first = json.loads(done.stdout)["candidates"][0]
    assert (first["formula"], first["zone"]) == ("Au", [1, 0, 0]) and abs(first["scale_error"]) < 0.01
    assert "[100]" in cimp_structures(*asked, "-k", "1", "--grains", "1").stdout
    wide = cimp_structures(*asked, "--json", "--set", "pixel_size=40e-12")
    assert json.loads(wide.stdout)["candidates"][-1]["structure"] == "none of these"
    assert isinstance(cimp_structures(*asked, "--region", "1:2").exception, OutOfRangeError)
