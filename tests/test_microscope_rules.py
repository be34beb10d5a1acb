"""From raw values to the acquisition: rules, traps, overrides and refusals, on Velox-like files made here."""

import pickle

import h5py
import numpy as np
import pytest
from velox_files import IMAGE, SETTINGS, edit, edited

from cimp_core.errors import NotHAADFError, OutOfRangeError, UnreadableFileError
from cimp_core.microscope import inspect, read
from cimp_core.microscope.velox_writer import write_velox


@pytest.fixture
def velox(tmp_path):
    return write_velox(tmp_path / "a.emd", IMAGE, SETTINGS, camera_length=0.091, outer_collection_angle=0.2)


# Rules from raw values to the acquisition

RULES = [
    ("beam_current", "Optics.LastMeasuredScreenCurrent", "1.6e-14", "1.6e-14 A is no probe current (beam off?)"),
    ("beam_current", "Optics.LastMeasuredScreenCurrent", "9.9e-13", "9.9e-13 A is no probe current (beam off?)"),
    ("beam_current", "Optics.LastMeasuredScreenCurrent", "0", "0 A: the current was not measured"),
    ("beam_current", "Optics.LastMeasuredScreenCurrent", "50", "no credible probe current"),
    ("convergence_angle", "Optics.BeamConvergence", "-0.0288", "-0.029 rad is no convergence semi-angle"),
    ("convergence_angle", "Optics.BeamConvergence", "0", "0 rad is no convergence semi-angle"),
    ("convergence_angle", "Optics.BeamConvergence", "25", "another unit"),
    ("convergence_angle", "Optics.BeamConvergence", "2.5e-0x", "not a number"),
    ("convergence_angle", "Optics.BeamConvergence", "inf", "not a number"),
    ("detector_gain", "Detectors.Detector-1.Gain", "0", "gain 0"),
    ("dwell_time", "Scan.DwellTime", "0", "0 s is no dwell time"),
    ("pixel_size", "BinaryResult.PixelSize.height", "4e-11", "not square"),
]


@pytest.mark.parametrize("name, key, text, reason", RULES, ids=[f"{r[0]}={r[2]}" for r in RULES])
def test_a_value_that_is_not_credible_is_none_with_its_reason(velox, name, key, text, reason):
    def change(tree):
        *branch, leaf = key.split(".")
        for part in branch:
            tree = tree[part]
        tree[leaf] = text

    shot = edited(velox, change)
    assert getattr(shot.acquisition, name) is None
    assert reason in shot.acquisition.missing[name]
    assert name not in shot.provenance
    assert name in shot.raw  # what the file says stays visible


def test_one_picoampere_is_a_current(velox):
    shot = edited(velox, lambda tree: tree["Optics"].update(LastMeasuredScreenCurrent="1e-12"))
    assert shot.acquisition.beam_current == 1e-12


def test_raised_screen_is_not_the_current(velox):
    shot = edited(velox, lambda tree: tree["Optics"].update(ScreenCurrent="7e-9"))
    assert shot.acquisition.beam_current == 5e-11
    shot = edited(velox, lambda tree: tree["Optics"].pop("LastMeasuredScreenCurrent"))
    assert shot.acquisition.beam_current is None


@pytest.mark.parametrize("begin, end, reason", [("0", "0", "retracted"), ("0.1", "0.05", "no range")])
def test_retracted_detector_has_no_angles(velox, begin, end, reason):
    angles = {"begin": begin, "end": end}
    shot = edited(velox, lambda tree: tree["Detectors"]["Detector-1"].update(CollectionAngleRange=angles))
    assert shot.acquisition.inner_collection_angle is None
    assert reason in shot.acquisition.missing["inner_collection_angle"]


def test_offset_zero_is_a_value_unless_the_gain_is_zero_too(velox):
    shot = edited(velox, lambda tree: tree["Detectors"]["Detector-1"].update(Offset="0"))
    assert shot.acquisition.detector_offset == 0
    shot = edited(velox, lambda tree: tree["Detectors"]["Detector-1"].update(Gain="0"))
    assert shot.acquisition.detector_offset is None


def test_detector_is_found_by_index_not_by_name_or_title(velox):
    def change(tree):
        # File version 11 and later: labels do not match, and another detector may bear the name.
        tree["Detectors"]["Detector-7"] = tree["Detectors"].pop("Detector-1") | {"DetectorName": "Panther 3"}
        tree["Detectors"]["Detector-0"] |= {"DetectorName": "HAADF", "Gain": "99"}
        tree["BinaryResult"]["DetectorIndex"] = "7"

    with h5py.File(velox, "r+") as file:
        del file["Operations"]
    assert edited(velox, change).acquisition == SETTINGS


def test_a_detector_range_that_begins_in_the_bright_field_is_noted(velox):
    shot = edited(velox, lambda tree: tree["Optics"].update(BeamConvergence="0.07"))
    assert any("inside the convergence angle" in note for note in shot.notes)
    assert shot.acquisition.inner_collection_angle == 0.06


# What is and is not an image


def test_another_detector_is_refused_unless_asked_for(tmp_path):
    path = write_velox(tmp_path / "a.emd", IMAGE, SETTINGS, detector="DF-S")
    with pytest.raises(NotHAADFError, match=r"'DF-S' \(20 x 30\): an image of the detector DF-S \(60 to 200 mrad\)"):
        read(path)
    (shot,) = read(path, detector="DF-S")
    assert shot.acquisition == SETTINGS and any("DF-S" in note for note in shot.notes)
    assert inspect(path)[0].raw["detector_gain"].value == 30.0
    with pytest.raises(NotHAADFError, match="an image of the detector HAADF"):
        read(write_velox(tmp_path / "b.emd", IMAGE, SETTINGS), detector="DF-S")


def test_scanned_image_without_a_detector_name_is_returned_and_says_so(velox):
    def change(tree):
        del tree["BinaryResult"]["Detector"], tree["BinaryResult"]["DetectorIndex"], tree["Detectors"]["Detector-0"]

    with h5py.File(velox, "r+") as file:
        del file["Operations"]
    edit(velox, change)
    (shot,) = read(velox)
    assert shot.instrument.detector is None and shot.acquisition.detector_gain is None
    assert any("does not name the detector" in note for note in shot.notes)


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    (shot,) = read(write_velox(tmp_path / "area [1] *.emd", IMAGE, SETTINGS))
    assert shot.acquisition == SETTINGS


def test_a_camera_is_not_a_scan_whatever_its_name(velox):
    edit(velox, lambda tree: tree["Detectors"]["Detector-1"].update(DetectorType="ImagingDetector"))
    with pytest.raises(NotHAADFError, match="camera HAADF"):
        read(velox)


# Values given by hand


def test_override_fills_replaces_and_withholds(velox):
    edit(velox, lambda tree: tree["Optics"].pop("LastMeasuredScreenCurrent"))
    (shot,) = read(velox, override={"beam_current": 7e-11, "dwell_time": 2e-5, "detector_gain": None})
    assert shot.acquisition.beam_current == 7e-11 and "beam_current" not in shot.acquisition.missing
    assert shot.acquisition.dwell_time == 2e-5 and shot.raw["dwell_time"].value == 1e-5
    assert shot.acquisition.missing["detector_gain"] == "withheld by the user"
    assert {n for n, p in shot.provenance.items() if p == "user"} == {"beam_current", "dwell_time"}
    assert [note for note in shot.notes if "replaces" in note] == [
        "dwell_time 2e-05 s given by hand replaces the file's 1e-05"
    ]


@pytest.mark.parametrize("override", [{"beam_curent": 1e-10}, {"convergence_angle": 25.0}, {"beam_current": 0.0}])
def test_override_that_cannot_be_is_refused(velox, override):
    with pytest.raises(OutOfRangeError, match=next(iter(override))):
        read(velox, override=override)


# Files that are no files of ours


def test_unreadable_files_say_why(tmp_path, velox):
    (tmp_path / "empty.dm3").touch()
    (tmp_path / "noise.dm4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "short.emd").write_bytes(velox.read_bytes()[:3000])
    (tmp_path / "text.hspy").write_text("not HDF5")
    (tmp_path / "image.xyz").write_bytes(b"1")
    for name, why in {
        "absent.emd": "no such file",
        "empty.dm3": "is empty",
        "noise.dm4": "damaged, truncated or not a .dm4 file",
        "short.emd": "damaged, truncated",
        "text.hspy": "damaged, truncated",
        "image.xyz": "cannot be read; these can: .emd, .dm3, .dm4, .hspy",
        ".": "folder",
    }.items():
        with pytest.raises(UnreadableFileError, match=why):
            read(tmp_path / name)


def test_micrographs_pickle(velox):
    (shot,) = read(velox)
    again = pickle.loads(pickle.dumps(shot))
    assert (again.image.data == IMAGE).all()
    assert again.acquisition == shot.acquisition and repr(again) == repr(shot)


def test_readers_say_nothing_on_the_screen(velox, capfd, recwarn):
    edit(velox, lambda tree: tree["BinaryResult"].update(PixelUnitX="no unit"))
    with pytest.raises(UnreadableFileError):
        read(velox)
    read(write_velox(velox, IMAGE, SETTINGS, force=True))
    assert capfd.readouterr() == ("", "") and not recwarn.list
