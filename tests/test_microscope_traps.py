"""The fifteen ways in which real files mislead a reader, one test each, on a real file where one shows it.

The rules behind them are tested on made files in test_microscope_rules.py; every number of every real file stands in
test_microscope_every_file.py.
"""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from velox_files import IMAGE, SETTINGS, edited

import cimp_core as cimp
from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.microscope import inspect, read
from cimp_core.microscope.velox_writer import write_velox

RSCIIO = "hyperspy+rosettasciio/rsciio/tests/data"
DM = f"{RSCIIO}/digitalmicrograph"
TIA = f"{RSCIIO}/tia/old"
SCIFI = "pycroscopy+SciFiDatasets/data/microscopy/em/tem"
NCEM = "ercius+openNCEM/ncempy/data"
SPECTROSCOPY = f"{RSCIIO}/emd/velox_EELS_EDS.zip"  # Velox file version 13: EDS, EELS, two STEM acquisitions
DPC = f"{RSCIIO}/emd/fei_example_dpc_titles.emd"
MICROPROBE = f"{NCEM}/STEM HAADF Diffraction Micro.emd"
OLD_VELOX = f"{SCIFI}/EMDReader_Image_FEI.emd"  # Velox 1.6, file version 4
HPAI = "HPAI-BSC+AtomDetection_ACSTEM/data/tif_data/{}_HAADF_15nm_Sample_PtNC_21Oct20.tif"


@pytest.fixture
def get(shared):
    """The images of a real file."""
    return lambda name, **options: read(shared / "data" / name, **options)


@pytest.fixture
def velox(tmp_path):
    return write_velox(tmp_path / "a.emd", IMAGE, SETTINGS, camera_length=0.091, outer_collection_angle=0.2)


def tags(shot, *keys):
    tree = shot.image.original_metadata.as_dictionary()
    for key in keys:
        tree = tree[key]
    return tree


def test_01_the_detector_of_an_image_is_found_by_its_index(get):
    for shot in get(SPECTROSCOPY, detector="DF-S"):
        # HyperSpy goes by the title, which is a display label from file version 11 on, and loses the detector.
        assert not shot.image.original_metadata.get_item("DetectorMetadata")
        index = tags(shot, "BinaryResult", "DetectorIndex")
        assert shot.raw["detector_gain"].key == f"Detectors.Detector-{index}.Gain"
        assert shot.raw["detector_gain"].value == pytest.approx(27.3063, rel=1e-3)


def test_02_hyperspys_gain_factor_is_the_detectors_gain_in_no_format(get):
    (stack,) = get(f"{DM}/test_stackbuilder_imagestack.dm3")  # gain_factor 0.157, gain_offset 2.2e6: of the counts
    model = stack.image.metadata.Signal.Noise_properties.Variance_linear_model
    assert model.gain_offset == pytest.approx(2.2e6, rel=0.05)
    assert stack.acquisition.detector_gain is None and stack.acquisition.detector_offset is None
    assert "detector_gain" not in stack.raw and "detector_offset" not in stack.raw


def test_03_a_title_is_not_a_detector_and_an_fft_is_not_an_image(get):
    (shot,) = get(f"{RSCIIO}/emd/FFTComplexEven.emd")
    assert shot.instrument.detector == "HAADF"
    assert [(s.title, s.detector) for s in shot.skipped] == [("Half FFT", "HAADF")]  # named like the image it is of
    assert "complex data (an FFT" in shot.skipped[0].why
    assert {s.image.metadata.General.title for s in get(SPECTROSCOPY, detector="DF-S")} >= {"a"}
    with pytest.raises(NotHAADFError, match="'a' .*: an image of the detector DF-S"):
        get(SPECTROSCOPY)


def test_04_a_convergence_angle_may_be_negative_tiny_or_absent(get):
    (microprobe,), (old,) = get(MICROPROBE), get(OLD_VELOX)
    assert microprobe.raw["convergence_angle"].value == pytest.approx(-0.028762, rel=1e-3)
    assert "microprobe" in microprobe.acquisition.missing["convergence_angle"]
    assert get(DPC, detector="DF4")[0].acquisition.convergence_angle == pytest.approx(0.001046, rel=1e-3)
    for name in ("convergence_angle", "detector_gain", "detector_offset", "inner_collection_angle"):
        assert name not in old.raw and getattr(old.acquisition, name) is None, name


def test_05_a_screen_that_sees_no_beam_is_not_the_probe_current(get):
    for name in (MICROPROBE, f"{RSCIIO}/emd/FFTComplexEven.emd"):  # 2.3e-14 and 2.3e-13 A
        (shot,) = get(name)
        assert 0 < shot.raw["beam_current"].value < 1e-12 and "beam off" in shot.acquisition.missing["beam_current"]
    raised = get(DPC, detector="DF4")[0]
    assert float(tags(raised, "Optics", "ScreenCurrent")) == 0
    assert raised.acquisition.beam_current == pytest.approx(4.186e-10, rel=1e-3)
    (gatan,) = get(f"{DM}/2D/test_STEM_image.dm3")
    assert gatan.raw["beam_current"].value == 0 and gatan.acquisition.beam_current is None


def test_06_zero_gain_and_a_range_of_0_to_0_are_no_settings(get, velox):
    (segment, *_) = get(DPC, detector="DF4")
    assert segment.raw["detector_gain"].value == 0 and "gain 0" in segment.acquisition.missing["detector_gain"]
    assert "offset 0 beside gain 0" in segment.acquisition.missing["detector_offset"]
    retracted = {"CollectionAngleRange": {"begin": "0", "end": "0"}}
    shot = edited(velox, lambda tree: tree["Detectors"]["Detector-1"].update(retracted))
    assert "0..0" in shot.acquisition.missing["inner_collection_angle"]
    assert shot.instrument.outer_collection_angle is None


# One microscope's settings never differ by 1e3 between formats; a wrong unit does.
CREDIBLE = {
    "pixel_size": (1e-12, 1e-6),
    "dwell_time": (1e-7, 0.1),
    "convergence_angle": (1e-4, 0.1),
    "inner_collection_angle": (1e-4, 0.2),
    "voltage": (30e3, 300e3),
    "camera_length": (1e-3, 10.0),
}


@pytest.mark.parametrize("name, detector", [
    (f"{RSCIIO}/emd/FFTComplexEven.emd", None), (DPC, "DF4"), (f"{DM}/2D/test_STEM_image.dm3", None),
    ("MaterialEyes+ingrained/CdTe_110_CdTe_110_tilt/HAADF149.dm3", None), (f"{NCEM}/16_STOimage.emi", None),
    (f"{NCEM}/Acquisition_18.emd", None), (f"{RSCIIO}/mrc/HAADFscan.mrc", None),
], ids=lambda name: str(name).rsplit("/", 1)[-1])  # fmt: skip
def test_07_every_format_ends_in_si_units(get, name, detector):
    for shot in get(name, detector=detector) if detector else get(name):
        values = {n: r.value for n, r in shot.raw.items() if n in CREDIBLE}
        assert values
        for parameter, value in values.items():
            low, high = CREDIBLE[parameter]
            assert low <= value <= high, parameter


def test_08_frames_beside_a_spectrum_image_are_all_read_at_their_own_dwell_time(tmp_path):
    # HyperSpy alone gives the first frame of such a file only.
    frames = np.stack([IMAGE, IMAGE // 2, IMAGE // 3])
    path = write_velox(tmp_path / "a.emd", frames, SETTINGS)
    with h5py.File(path, "r+") as file:
        for name in ("Data/SpectrumImage/1", "Data/SpectrumStream/1", "Presentation/Displays/ImageDisplay"):
            file.create_group(name)
    (shot,) = read(path)
    assert (shot.image.data == frames).all() and shot.image.axes_manager.navigation_shape == (3,)
    assert shot.acquisition.dwell_time == SETTINGS.dwell_time  # of one frame, not of three
    assert [s.title for s in shot.skipped] == ["EDS spectrum stream", "EDS spectrum image"]


def test_09_two_acquisitions_of_one_file_keep_their_own_optics(get):
    overview, map_ = sorted(get(SPECTROSCOPY, detector="DF-S"), key=lambda shot: -shot.image.data.shape[-1])
    one = {"pixel_size": 1.5866e-7, "dwell_time": 5.6e-5, "convergence_angle": 0.021434, "beam_current": 7.315e-13}
    one |= {"detector_gain": 27.3063, "detector_offset": 0, "inner_collection_angle": 0.018493, "camera_length": 0.0877}
    other = {"dwell_time": 9.0837e-3, "camera_length": 0.4349, "inner_collection_angle": 0.0036648}
    for shot, expected in ((overview, one), (map_, other)):
        assert {n: shot.raw[n].value for n in expected} == pytest.approx(expected, rel=1e-3)
    assert overview.acquisition.beam_current is None and overview.acquisition.detector_offset == 0
    assert any("inside the convergence angle" in note for note in overview.notes)


def test_10_packages_that_some_files_need_are_required_and_named_where_absent(get, monkeypatch):
    # Packed TIFF pixels: see test_microscope_tiff.py.
    root = Path(cimp.__file__).parents[1]
    required = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {"sparse", "tifffile"} <= {re.match(r"[\w-]+", line)[0] for line in required}
    assert len(get(SPECTROSCOPY, detector="DF-S")) >= 2  # there are spectrum streams beside them
    monkeypatch.setitem(sys.modules, "sparse", None)
    with pytest.raises(UnreadableFileError, match="package that is not installed.*sparse"):
        get(SPECTROSCOPY, detector="DF-S")


def test_11_a_ser_file_alone_has_a_pixel_size_and_tia_names_no_detector(get, shared, tmp_path):
    alone = shutil.copy(shared / "data" / NCEM / "16_STOimage_1.ser", tmp_path)
    (shot,) = read(alone)
    assert shot.acquisition.pixel_size == pytest.approx(1.00127e-11, rel=1e-3)
    assert set(shot.acquisition.missing) == set(cimp.PARAMETERS) - {"pixel_size"}
    for name in (
        f"{NCEM}/16_STOimage.emi",
        f"{TIA}/16x16_STEM_BF_DF_acquire.emi",
        f"{TIA}/16x16x5_STEM_BF_DF_preview.emi",
    ):
        for shot in get(name):
            assert shot.instrument.detector is None
            assert any("does not name the detector" in note for note in shot.notes)
            # Some modes leave a camera length of 0.
            assert shot.instrument.camera_length is None or shot.instrument.camera_length > 0


def test_12_stackbuilder_moves_its_tags_and_an_axis_without_unit_has_no_scale(get):
    (stack,) = get(f"{DM}/test_stackbuilder_imagestack.dm3")
    assert "source.Tags at creation" in stack.raw["dwell_time"].key
    assert stack.image.axes_manager.navigation_shape == (3,)
    (survey,) = get(f"{SCIFI}/DMReader_Image_SI-Survey.dm3")
    assert survey.raw["pixel_size"].unit == "" and survey.acquisition.pixel_size is None
    assert "not calibrated" in survey.acquisition.missing["pixel_size"]


def test_13_berkeley_writes_nanometres_as_n_m(get, shared):
    (shot,) = get(f"{NCEM}/Acquisition_18.emd")
    with h5py.File(shared / "data" / NCEM / "Acquisition_18.emd", "r") as file:
        rows, columns = (file[f"data/single/dim{n}"].attrs for n in (1, 2))
        assert [("Y" in str(d["name"]), "n_m" in str(d["units"])) for d in (rows, columns)] == [(1, 1), (0, 1)]
        assert (shot.image.data == file["data/single/data"][()]).all()  # rows stay rows
    assert shot.acquisition.pixel_size == pytest.approx(1.2247e-11, rel=1e-3)
    assert shot.raw["pixel_size"].unit == "m"


def test_14_counts_of_digitalmicrograph_are_sums_over_the_dwell_time(get):
    (short,), (long,) = get(HPAI.format("047")), get(HPAI.format("048"))
    dark = [np.percentile(shot.image.data, 0.1) for shot in (short, long)]
    assert dark[1] > 3 * dark[0]  # one area, longer dwell: even the dark level grows with it
    assert (short.intensity, short.readout) == ("unknown", None)  # a TIFF does not tell, so nothing is assumed
    (kept,) = get(f"{DM}/2D/test_STEM_image.dm3")
    assert kept.image.data.dtype == np.uint32 and (kept.intensity, kept.readout) == ("dm_counts", "sum")
    (velox,) = get(f"{RSCIIO}/emd/FFTComplexEven.emd")
    assert (velox.intensity, velox.readout) == ("velox16", "mean")


def test_15_the_frame_time_is_not_the_dwell_time_of_its_pixels(get, velox):
    (shot,) = get(f"{RSCIIO}/emd/FFTComplexEven.emd")
    frame = float(tags(shot, "Scan", "FrameTime"))
    assert shot.acquisition.dwell_time * shot.image.data.size < 0.99 * frame  # the beam flies back after every line
    assert shot.raw["dwell_time"].key == "Scan.DwellTime"
    without = edited(velox, lambda tree: tree["Scan"].pop("DwellTime"))
    assert without.acquisition.dwell_time is None and float(tags(without, "Scan", "FrameTime")) > 0


def test_the_signals_that_are_no_images_can_still_be_looked_at(shared):
    titles = {s.title: s for s in inspect(shared / "data" / SPECTROSCOPY)}
    assert titles["a"].why and not any(s.why == "" for s in titles.values())
