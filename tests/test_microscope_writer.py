"""The Velox-like files that the package writes: everything comes back, through HyperSpy too."""

import hyperspy.api as hs
import numpy as np
import pytest
from velox_files import IMAGE, SETTINGS

import cimp_core as cimp
from cimp_core.errors import CimpError, OutOfRangeError
from cimp_core.metadata import PARAMETERS
from cimp_core.microscope import read
from cimp_core.microscope.velox_writer import write_velox


@pytest.fixture
def velox(tmp_path):
    return write_velox(tmp_path / "a.emd", IMAGE, SETTINGS, camera_length=0.091, outer_collection_angle=0.2)


@pytest.mark.parametrize("shape", [(20, 30), (3, 20, 30)])
def test_all_seven_and_the_instrument_come_back(tmp_path, shape):
    image = np.random.default_rng(1).integers(2**16, size=shape).astype(np.uint16)
    path = write_velox(
        tmp_path / "a.emd",
        image,
        SETTINGS,
        voltage=200e3,
        camera_length=0.091,
        outer_collection_angle=0.19,
        microscope="Themis",
        date="2025-03-04T05:06:07",
    )
    (shot,) = cimp.read(path)
    assert shot.acquisition == SETTINGS and not shot.acquisition.missing
    assert shot.provenance == dict.fromkeys(PARAMETERS, "file")
    assert (shot.image.data == image).all() and shot.image.data.dtype == np.uint16
    assert shot.image.axes_manager.navigation_dimension == len(shape) - 2
    assert (shot.intensity, shot.readout) == ("velox16", "mean")
    instrument = shot.instrument
    assert (instrument.voltage, instrument.camera_length, instrument.outer_collection_angle) == (200e3, 0.091, 0.19)
    assert (instrument.detector, instrument.microscope) == ("HAADF", "Themis")
    assert instrument.date == "2025-03-04T05:06:07+00:00"
    assert shot.notes == [] and shot.skipped == []


def test_hyperspy_alone_reads_the_file(velox):
    signal = hs.load(str(velox))
    axis = signal.axes_manager["x"]
    assert (signal.data == IMAGE).all() and signal.metadata.General.title == "HAADF"
    assert axis.scale == pytest.approx(20) and axis.units == "pm"
    assert signal.metadata.Signal.Noise_properties.Variance_linear_model.gain_factor == 30.0


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_is_missing_when_written_is_missing_when_read(tmp_path, name):
    (shot,) = read(write_velox(tmp_path / "a.emd", IMAGE, SETTINGS.replace(**{name: None})))
    assert getattr(shot.acquisition, name) is None and shot.acquisition.missing[name] != "not given"
    assert list(shot.acquisition.missing) == [name]


def test_same_arguments_same_bytes(tmp_path):
    a, b = (write_velox(tmp_path / name, IMAGE, SETTINGS).read_bytes() for name in ("a.emd", "b.emd"))
    assert a == b


def test_the_writer_keeps_what_exists_and_refuses_what_is_no_velox_image(tmp_path, velox):
    before = velox.read_bytes()
    with pytest.raises(CimpError, match="force=True"):
        write_velox(velox, IMAGE * 0, SETTINGS)
    assert velox.read_bytes() == before
    write_velox(velox, IMAGE * 0, SETTINGS, force=True)
    assert read(velox)[0].image.data.max() == 0
    with pytest.raises(OutOfRangeError, match="uint16"):
        write_velox(tmp_path / "float.emd", IMAGE.astype(float), SETTINGS)
    with pytest.raises(OutOfRangeError, match="outer angle"):
        write_velox(tmp_path / "angles.emd", IMAGE, SETTINGS, outer_collection_angle=0.05)
    with pytest.raises(OutOfRangeError, match="dwell"):
        write_velox(tmp_path / "series.emd", IMAGE[None], SETTINGS.replace(dwell_time=None))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.emd"]  # no half-written file stays behind
