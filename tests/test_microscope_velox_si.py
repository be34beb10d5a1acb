"""Velox files with spectra: every frame of the images beside them, each acquisition with its own optics."""

import json
import zipfile

import h5py
import numpy as np
import pytest
from velox_files import IMAGE, SETTINGS

from cimp_core.microscope import inspect, read
from cimp_core.microscope.velox_writer import write_velox

REAL = "data/hyperspy+rosettasciio/rsciio/tests/data/emd/velox_EELS_EDS.zip"


def images(path):
    """Data (frames, y, x) and metadata of every image, straight from the file."""
    with h5py.File(path) as file:
        for group in file["Data/Image"].values():
            tree = json.loads(group["Metadata"][:, 0].tobytes().rstrip(b"\0"))
            yield np.moveaxis(group["Data"][()], -1, 0), tree


@pytest.fixture(scope="module")
def velox(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("velox")
    with zipfile.ZipFile(shared / REAL) as file:
        return file.extract(file.namelist()[0], folder)


def test_the_images_are_those_in_the_file(velox):
    shots = read(velox, detector="DF-S")
    raw = [(data, tree) for data, tree in images(velox) if tree["BinaryResult"].get("DetectorIndex")]
    assert len(raw) == len(shots) == 2
    for data, tree in raw:
        (shot,) = (s for s in shots if s.image.data.shape == data.shape[1:])
        assert (shot.image.data == data[0]).all()
        assert shot.acquisition.dwell_time == float(tree["Scan"]["DwellTime"])
        assert shot.instrument.camera_length == float(tree["Optics"]["CameraLength"])
        detector = tree["Detectors"][f"Detector-{tree['BinaryResult']['DetectorIndex']}"]
        assert shot.acquisition.inner_collection_angle == float(detector["CollectionAngleRange"]["begin"])
        assert shot.acquisition.pixel_size == float(tree["BinaryResult"]["PixelSize"]["width"])


def test_two_acquisitions_in_one_file_keep_their_own_optics(velox):
    shots = {s.image.data.shape: s for s in read(velox, detector="DF-S")}
    overview, scan = shots[128, 128], shots[16, 20]
    assert overview.acquisition.dwell_time == pytest.approx(5.6e-5)
    assert scan.acquisition.dwell_time == pytest.approx(9.0837e-3, rel=1e-4)
    assert overview.instrument.camera_length == pytest.approx(0.0877, rel=1e-3)
    assert scan.instrument.camera_length == pytest.approx(0.4349, rel=1e-3)
    assert "no probe current" in overview.acquisition.missing["beam_current"]
    assert scan.acquisition.beam_current == pytest.approx(2.009e-10, rel=1e-3)


def test_maps_and_spectra_are_named_and_not_taken_for_images(velox):
    why = [s.why for s in inspect(velox)]
    assert sum(w.startswith("a map of") for w in why) == 6
    assert {s.title for s in inspect(velox)} >= {"EDS spectrum", "EDS spectrum stream", "EELS spectrum image"}


def test_saved_as_hspy_each_says_the_same(velox, tmp_path):
    for n, shot in enumerate(read(velox, detector="DF-S")):
        shot.image.save(tmp_path / f"{n}.hspy")
        (again,) = read(tmp_path / f"{n}.hspy", detector="DF-S")
        assert again.acquisition == shot.acquisition and again.instrument == shot.instrument
        assert (again.image.data == shot.image.data).all()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("kind", ["SpectrumImage", "EelsSpectrumImage", "SpectrumStream"])
def test_all_frames_beside_a_spectrum_image_are_kept(tmp_path, count, lazy, kind):
    frames = (IMAGE[None] // np.arange(1, count + 1)[:, None, None]).astype(np.uint16)
    path = write_velox(tmp_path / "a.emd", frames, SETTINGS)
    with h5py.File(path, "r+") as file:
        # What makes HyperSpy take the file for a spectrum image.
        file.create_group(f"Data/{kind}/0")
        file.create_group("Presentation/Displays/ImageDisplay")
    ((raw, tree),) = images(path)
    (shot,) = read(path, lazy=lazy)
    held = shot.image.axes_manager
    assert held.navigation_shape == ((count,) if count > 1 else ())
    assert (np.asarray(shot.image.data).reshape(raw.shape) == raw).all() and (raw == frames).all()
    assert shot.acquisition.dwell_time == float(tree["Scan"]["DwellTime"]) == SETTINGS.dwell_time
    if count > 1:
        axis = held.navigation_axes[0]
        assert axis.size == count and axis.units == "ms"
        assert axis.scale * 1e-3 >= SETTINGS.dwell_time * IMAGE.size  # a frame takes longer than its pixels
