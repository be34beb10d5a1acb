"""Nion Swift: values from every place they have been seen in, what is refused, and files that are not Nion's."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from nion_files import FILES, IMAGE, OPTICS, calibrations, properties, write
from test_microscope_damage import attack

from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.microscope import Micrograph, inspect, nion, read
from cimp_core.microscope.record import check_claim
from cimp_core.microscope.worker import KillableReader

EXPECTED = {
    "pixel_size": 2e-11,
    "dwell_time": 1.6e-5,
    "convergence_angle": 0.031,
    "beam_current": None,
    "detector_gain": 0.42,
    "detector_offset": None,
    "inner_collection_angle": 0.085,
}


def one(path, **options):
    (shot,) = read(path, **options)
    return shot


@pytest.fixture
def made(tmp_path):
    """Micrograph of an .ndata file with these changes to its properties."""
    return lambda data=IMAGE, **changes: one(write(tmp_path / "a.ndata", data, properties(shape=data.shape, **changes)))


def refusal(tmp_path, data=IMAGE, **changes) -> str:
    with pytest.raises(NotHAADFError) as error:
        read(write(tmp_path / "a.ndata", data, properties(shape=data.shape, **changes)))
    return str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_values_of_every_kind_of_file(tmp_path, name):
    shot = one(write(tmp_path / name))
    assert {n: getattr(shot.acquisition, n) for n in EXPECTED} == {
        n: v and pytest.approx(v) for n, v in EXPECTED.items()
    }
    assert "emission current of the gun is no probe current" in shot.acquisition.missing["beam_current"]
    assert "does not record it" in shot.acquisition.missing["detector_offset"]
    assert (shot.image.data == IMAGE).all() and shot.image.data.dtype == np.float32
    assert [(a.name, a.units, round(a.scale, 6)) for a in shot.image.axes_manager.signal_axes] == [
        ("x", "nm", 0.02),
        ("y", "nm", 0.02),
    ]
    known = shot.instrument
    assert (known.voltage, known.outer_collection_angle, known.detector) == (100e3, 0.195, "HAADF")
    assert known.camera_length is None and known.date == "2019-08-13T14:09:41+00:00"
    assert shot.intensity == "float" and shot.readout is None
    assert not any("processed" in note for note in shot.notes)  # Swift's scans are floating point as recorded
    assert any("not on the scale of Velox" in note for note in shot.notes)


@pytest.mark.parametrize("where", [
    "instrument", "instrument.autostem", "hardware_source.autostem", "hardware_source", "scan_detector.autostem",
    "scan.scan_device_properties", "scan.scan_device_parameters",
])  # fmt: skip
@pytest.mark.parametrize("mark", [None, "ImageScanned:", ""], ids=["branch", "colon", "bare"])
def test_optics_are_found_wherever_swift_has_put_them(made, where, mark):
    shot = made(where=where, mark=mark)
    assert (shot.acquisition.convergence_angle, shot.acquisition.detector_gain) == (0.031, 0.42)
    assert (shot.acquisition.inner_collection_angle, shot.instrument.outer_collection_angle) == (0.085, 0.195)
    assert shot.raw["convergence_angle"].key.startswith(f"metadata.{where}.")
    assert shot.instrument.voltage == 100e3


def test_the_optics_of_the_scanned_image_come_before_a_bare_value_and_the_ronchigram_counts_for_nothing(made):
    assert made(optics={}).acquisition.convergence_angle is None
    held = properties(where="scan_detector.autostem")
    held["metadata"]["hardware_source"]["probe_ha"] = 0.001
    held["metadata"]["instrument"]["ImageRonchigram"] = {"probe_ha": 0.002, "EHT": 60e3}
    found = nion.look_up(held).raw
    assert found["convergence_angle"].value == 0.031 and found["voltage"].value == 100e3


def test_dwell_time_is_what_the_scan_did_then_what_was_asked(made):
    assert made().raw["dwell_time"].key == "metadata.hardware_source.pixel_time_us"
    held = properties()
    del held["metadata"]["hardware_source"]["pixel_time_us"]
    assert nion.look_up(held).raw["dwell_time"].value == pytest.approx(2e-5)
    held["metadata"]["scan"]["scan_device_properties"] = {"pixel_time_us": 18.0}
    assert nion.look_up(held).raw["dwell_time"].value == pytest.approx(1.8e-5)


def test_voltage_without_optics_and_a_probe_current_where_swift_reserves_a_place(made):
    assert made(optics={}).instrument.voltage == 99e3
    held = properties()
    held["metadata"]["hardware_source"]["beam_current_a"] = 4e-11
    assert nion.look_up(held).raw["beam_current"].value == 4e-11


@pytest.mark.parametrize("layout", ["data_source", "data_sources"])
def test_older_files_keep_the_description_one_level_down(tmp_path, layout):
    held = properties()
    source = {k: held.pop(k) for k in ("dimensional_calibrations", "metadata", "collection_dimension_count",
                                       "datum_dimension_count", "intensity_calibration")}  # fmt: skip
    held[layout] = [source] if layout == "data_sources" else source
    shot = one(write(tmp_path / "a.ndata", IMAGE, held))
    assert shot.acquisition.pixel_size == pytest.approx(2e-11) and shot.acquisition.detector_gain == 0.42
    assert shot.raw["detector_gain"].key.startswith(layout) and shot.instrument.date.startswith("2019-08-13")


# Which detector


@pytest.mark.parametrize("channel", ["MAADF", "BF", "ABF", "SE", "EELS"])
def test_another_detector_is_refused_and_can_be_asked_for(tmp_path, channel):
    path = write(tmp_path / "a.h5", IMAGE, properties(channel))
    with pytest.raises(NotHAADFError, match=f"an image of the detector {channel}.*detector='{channel}'"):
        read(path)
    shot = one(path, detector=channel)
    assert shot.acquisition.detector_gain == (0.37 if channel == "BF" else None)
    assert shot.acquisition.inner_collection_angle is None  # the angles in the file are those of the HAADF detector


def test_a_channel_without_a_name_is_returned_and_says_so(made):
    shot = made(channel="")
    assert shot.instrument.detector is None and any("does not name the detector" in note for note in shot.notes)
    assert shot.acquisition.detector_gain is None  # which photomultiplier is not known
    assert shot.image.metadata.General.title == "Image 7"


def camera(kind="ronchigram", **more):
    source = {"hardware_source_name": "Ronchigram camera", "exposure": 0.1, "signal_type": kind, "binning": 1}
    return {"metadata": {"hardware_source": source, "instrument": {"ImageScanned": OPTICS}}} | more


def test_cameras_spectra_and_maps_are_refused_by_what_they_are(tmp_path):
    assert "camera Ronchigram camera" in refusal(tmp_path, **camera())
    assert "axes in rad" in refusal(tmp_path, units=("rad", "rad"), **camera())
    assert "a spectrum" in refusal(
        tmp_path, np.ones(50, np.float32), units=("eV",), datum_dimension_count=1, **camera()
    )
    cube = {"collection_dimension_count": 2, "is_sequence": False}
    assert "a spectrum" in refusal(
        tmp_path, np.ones((4, 5, 6), np.float32), units=("nm", "nm", "eV"), datum_dimension_count=1, **cube
    )
    assert "4D data" in refusal(tmp_path, np.ones((2, 3, 4, 5), np.float32), units=("nm", "nm", "rad", "rad"), **cube)
    line = {"collection_dimension_count": 1, "is_sequence": False}
    assert "a map of images" in refusal(tmp_path, np.ones((3, 4, 5), np.float32), units=("nm",) * 3, **line)
    assert "colour picture" in refusal(tmp_path, np.ones((4, 5, 3), np.uint8), units=("nm", "nm"), is_sequence=False)
    assert "complex data" in refusal(tmp_path, IMAGE.astype(complex))


def test_values_on_a_grid_of_the_scan_are_an_image(made):
    shot = made(collection_dimension_count=2, datum_dimension_count=0)
    assert type(shot.image).__name__ == "Signal2D" and shot.image.axes_manager.signal_shape == (30, 20)


def test_an_export_that_lost_its_metadata_is_returned_with_a_note_but_a_device_that_is_no_scan_is_not(made, tmp_path):
    shot = made(metadata={})
    assert any("does not say that this is a STEM image" in note for note in shot.notes)
    other = {"metadata": {"hardware_source": {"hardware_source_name": "Video"}}}
    assert "an image of Video, which is no scan" in refusal(tmp_path, **other)


# Pixel size, series, other facts


@pytest.mark.parametrize("units", [("", ""), ("s", "s"), ("px", "px"), ("nm",), ("nm",) * 3, ()], ids=str)
def test_axes_that_are_no_lengths_or_too_few_give_no_pixel_size(made, units):
    # A scan may be shown in seconds: the image is one all the same.
    assert "calibrat" in made(units=units).acquisition.missing["pixel_size"]


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), "0.02x", None])
def test_a_scale_that_is_no_number_gives_no_pixel_size(made, scale):
    shot = made(dimensional_calibrations=calibrations("nm", "nm", scale=scale))
    assert shot.acquisition.pixel_size is None
    assert [(a.scale, a.units) for a in shot.image.axes_manager.signal_axes] == [(1.0, "")] * 2


def test_pixels_that_are_not_square_have_no_one_size(made):
    oblong = calibrations("nm", "nm")
    oblong[0]["scale"] = 0.03
    assert "not square" in made(dimensional_calibrations=oblong).acquisition.missing["pixel_size"]


@pytest.mark.parametrize("name", FILES)
def test_a_sequence_is_a_series_of_frames_and_lazy_stays_lazy(tmp_path, name):
    frames = np.stack([IMAGE, IMAGE + 1, IMAGE + 2])
    path = write(tmp_path / name, frames, properties(shape=frames.shape, units=("", "nm", "nm")))
    shot = one(path)
    assert shot.image.axes_manager.navigation_shape == (3,) and (shot.image.data == frames).all()
    assert shot.acquisition.pixel_size == pytest.approx(2e-11)
    late = one(path, lazy=True)
    assert late.image._lazy and (late.image.data.compute() == frames).all()


def test_partial_scans_and_an_intensity_calibration_are_told(made):
    held = properties()["metadata"]
    held["hardware_source"]["valid_rows"] = 7
    assert any("only 7 of 20 rows" in note for note in made(metadata=held).notes)
    shot = made(intensity_calibration={"offset": 1.5, "scale": 2.0, "units": "e"})
    assert any("scale 2.0 and offset 1.5" in note for note in shot.notes) and (shot.image.data == IMAGE).all()


@pytest.mark.parametrize("name", FILES)
def test_hspy_saved_from_a_nion_signal_goes_by_the_same_rules(tmp_path, name):
    shot = one(write(tmp_path / name))
    shot.image.save(tmp_path / "saved.hspy")
    again = one(tmp_path / "saved.hspy")
    assert again.acquisition == shot.acquisition and again.instrument == shot.instrument
    assert dict(again.acquisition.missing) == dict(shot.acquisition.missing)
    assert again.raw == shot.raw and again.notes == shot.notes
    assert Micrograph.from_signal(shot.image).acquisition == shot.acquisition


def test_inspect_shows_the_values_of_a_refused_image(tmp_path):
    (row,) = inspect(write(tmp_path / "a.ndata", IMAGE, properties("MAADF")))
    assert row.detector == "MAADF" and row.raw["dwell_time"].value == pytest.approx(1.6e-5)


# Files that are not Nion's, or damaged


def h5(path, *groups, **datasets):
    with h5py.File(path, "w") as file:
        for name in groups:
            file.create_group(name)
        for name, data in datasets.items():
            file[name] = data
    return path


def test_an_h5_file_of_another_program_says_what_it_seems_to_be(shared, tmp_path):
    real = shared / "data/MaterialEyes+atomagined/general/h5/020790.000001.h5"
    for path, why in {
        real: "this is a simulation",
        h5(tmp_path / "1.h5", "full_res", metadata_raw=[1.0]): "data set of many images.*cimp_core.open_dataset",
        h5(tmp_path / "2.h5", "Experiments"): "ending .hspy",
        h5(tmp_path / "3.h5", "Data", Version=[1]): "ending .emd",
        h5(tmp_path / "4.h5", data=IMAGE): "not an .h5 file of Nion Swift.*'data'",
        h5(tmp_path / "5.h5", "data"): "not an .h5 file of Nion Swift",
        h5(tmp_path / "6.h5"): "this one holds nothing",
    }.items():
        with pytest.raises(UnreadableFileError, match=why):
            read(path)


def zipped(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def npy(data=IMAGE, **header):
    stored = io.BytesIO()
    np.save(stored, data)
    if header:
        stored = io.BytesIO()
        np.lib.format.write_array_header_1_0(stored, {"descr": "<f4", "fortran_order": False} | header)
    return stored.getvalue()


def test_ndata_files_are_checked_before_they_are_believed(tmp_path):
    held = json.dumps(properties())
    good = npy()
    flipped = bytearray(write(tmp_path / "flip.ndata").read_bytes())
    flipped[500] ^= 1
    (tmp_path / "flip.ndata").write_bytes(flipped)
    for path, why in {
        zipped(tmp_path / "1.ndata", metadata_json=held): "without data.npy",
        zipped(tmp_path / "2.ndata", data_npy=npy(shape=(10**6, 10**6))): "claims 4e[+]12 bytes",
        zipped(tmp_path / "3.ndata", data_npy=good, metadata_json="{"): "damaged",
        zipped(tmp_path / "4.ndata", data_npy=npy(np.array([{}], object))): "damaged.*allow_pickle",
        zipped(tmp_path / "5.ndata", data_npy=good[:-10]): "damaged",
        tmp_path / "flip.ndata": "CRC",
    }.items():
        with pytest.raises(UnreadableFileError, match=why):
            read(path)
    assert one(zipped(tmp_path / "6.ndata", data_npy=good)).acquisition.pixel_size is None


def test_the_best_that_deflate_can_do_is_believed(tmp_path):
    nothing = np.zeros((2000, 2000), np.float32)
    path = zipped(tmp_path / "a.ndata", data_npy=npy(nothing))
    assert nothing.nbytes > 900 * path.stat().st_size and one(path).image.data.shape == nothing.shape
    with pytest.raises(UnreadableFileError, match="claims"):
        check_claim(path, 1101 * path.stat().st_size)


def test_a_map_that_will_be_refused_is_not_read(tmp_path, monkeypatch):
    held = properties(shape=(2, 3, 4, 5), units=("nm", "nm", "rad", "rad"), collection_dimension_count=2)
    path = write(tmp_path / "a.h5", np.ones((2, 3, 4, 5), np.float32), held | {"is_sequence": False})
    get = h5py.Dataset.__getitem__

    def nothing(data, key):
        assert np.size(get(data, key)) == 0  # an empty slice tells the type
        return get(data, key)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", nothing)
    with pytest.raises(NotHAADFError, match="4D data"):
        read(path)


def test_an_h5_file_cannot_claim_more_than_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", (10**5, 10**5), "f4", chunks=(100, 100))
        data.attrs["properties"] = json.dumps(properties())
    with pytest.raises(UnreadableFileError, match="claims 4e[+]10 bytes"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize("text", ["[]", "null", '{"metadata": [1]}', '{"dimensional_calibrations": [1, {}]}',
                                  '{"data_sources": [3], "metadata": {"scan": 2}}', '{"title": {"a": 1}}'])  # fmt: skip
def test_properties_may_be_any_json(tmp_path, text):
    path = zipped(tmp_path / "a.ndata", data_npy=npy(), metadata_json=text)
    assert one(path).acquisition.missing["pixel_size"]


@pytest.mark.parametrize("name", FILES)
def test_damaged_copies(tmp_path, name, request, record_property):
    original = write(tmp_path / name).read_bytes()
    with KillableReader(timeout=10.0) as reader:
        reader.start()
        outcomes = attack(reader, original, f".{name[2:]}", tmp_path, request.config.getoption("--fuzz"), seed=7)
    record_property("outcomes", dict(outcomes))
    print(f"\n{name}: {dict(outcomes)}")
    assert outcomes["unreadable"] > 0 and outcomes["read"] > 0
