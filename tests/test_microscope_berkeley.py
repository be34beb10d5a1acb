"""Berkeley .emd: which way up the image is, the settings in their stated units, and files of other writers."""

import h5py
import hyperspy.api as hs
import numpy as np
import pytest

from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.microscope import Micrograph, inspect, read
from cimp_core.microscope.worker import KillableReader

REAL = "data/ercius+openNCEM/ncempy/data/Acquisition_18.emd"
IMAGE = np.arange(12, dtype=np.uint16).reshape(3, 4)


def made(path, data=IMAGE, names=("Y", "X"), units="[n_m]", step=0.02, microscope=None, where="data/scan", start=1):
    """A file as Berkeley's own programs write it."""
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group(where)
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for n, (name, size) in enumerate(zip(names, data.shape), start):
            dim = group.create_dataset(f"dim{n}", data=step * np.arange(size, dtype=np.float32))
            dim.attrs["name"], dim.attrs["units"] = name, np.bytes_(units)
        if microscope is not None:
            file.create_group("microscope").attrs.update(microscope)
    return path


def only(path, **options):
    (shot,) = read(path, **options)
    return shot


def test_the_real_file_has_its_rows_as_rows_and_its_settings(shared):
    shot = only(shared / REAL)
    with h5py.File(shared / REAL) as file:
        raw, said = file["data/single/data"][()], dict(file["microscope"].attrs)
        step = float(np.diff(file["data/single/dim2"][()].astype(float)).mean())
    assert (shot.image.data == raw).all() and (raw != raw.T).any()
    assert [axis.name for axis in shot.image.axes_manager.signal_axes] == ["X", "Y"]
    assert shot.acquisition.pixel_size == pytest.approx(step * 1e-9, rel=1e-6) == pytest.approx(1.2247e-11, rel=1e-3)
    assert shot.acquisition.dwell_time == said["dwell time"] == 1e-6
    assert shot.acquisition.convergence_angle == said["convergence angle"]
    held = shot.instrument
    assert (held.voltage, held.camera_length, held.microscope) == (200e3, 0.085, "TEAM 0.5")
    assert held.date == "2019-10-04T19:25:41+00:00" and held.detector is None
    assert set(shot.acquisition.missing) == {
        "beam_current", "detector_gain", "detector_offset", "inner_collection_angle"
    }  # fmt: skip
    assert (shot.intensity, shot.provenance["dwell_time"]) == ("unknown", "file")
    assert any("does not name the detector" in note for note in shot.notes)


@pytest.mark.parametrize("lazy", [False, True])
def test_saved_as_hspy_it_says_the_same(shared, tmp_path, lazy):
    shot = only(shared / REAL, lazy=lazy)
    shot.image.save(tmp_path / "a.hspy")
    again = only(tmp_path / "a.hspy")
    assert again.acquisition == shot.acquisition and again.instrument == shot.instrument
    assert again.raw == shot.raw and (again.image.data == np.asarray(shot.image.data)).all()


def test_a_lazy_image_is_read_when_it_is_used(tmp_path):
    shot = only(made(tmp_path / "a.emd"), lazy=True)
    assert shot.image._lazy
    assert (shot.image.data.compute() == IMAGE).all()


@pytest.mark.parametrize("names", [("Y", "X"), ("X", "Y"), ("t", "y", "x"), ("x", "y", "t"), ("", ""), ("", "", "")])
def test_axes_are_known_by_their_names(tmp_path, names):
    image = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)[: len(names) - 1]
    image = image[0] if len(names) == 2 else image
    turned = names[0].lower() == "x"
    shot = only(made(tmp_path / "a.emd", image.T if turned else image, names))
    assert (shot.image.data == image).all()
    assert shot.image.axes_manager.navigation_dimension == len(names) - 2


@pytest.mark.parametrize(
    ("key", "value", "unit", "parameter", "expected"),
    [
        ("dwell time", 2.5, "us", "dwell_time", 2.5e-6),
        ("dwell time", 2.5, "[µs]", "dwell_time", 2.5e-6),
        ("dwell time", 2.5e-6, "s", "dwell_time", 2.5e-6),
        ("dwell_time", 2.5e-6, None, "dwell_time", 2.5e-6),
        ("convergence angle", 25.0, "mrad", "convergence_angle", 0.025),
        ("convergence angle", 25.0, "[m_rad]", "convergence_angle", 0.025),
        ("convergence angle", 0.025, "rad", "convergence_angle", 0.025),
        ("Convergence Angle", 0.025, None, "convergence_angle", 0.025),
        ("convergence angle", "0.025", None, "convergence_angle", 0.025),
        ("beam current", 50.0, "pA", "beam_current", 5e-11),
        ("inner collection angle", 60.0, "mrad", "inner_collection_angle", 0.06),
    ],
)
@pytest.mark.parametrize("layout", ["attribute", "data set"])
def test_a_unit_beside_a_value_is_honoured(tmp_path, key, value, unit, parameter, expected, layout):
    path = made(tmp_path / "a.emd")
    with h5py.File(path, "r+") as file:
        branch = file.create_group("microscope")
        if layout == "attribute":
            branch.attrs[key] = value
            if unit:
                branch.attrs[f"{key} units"] = unit
        else:
            branch[key] = value
            if unit:
                branch[key].attrs["units"] = unit
    shot = only(path)
    assert getattr(shot.acquisition, parameter) == pytest.approx(expected, rel=1e-9)
    assert shot.raw[parameter].key == f"microscope.{key}"


def test_what_cannot_be_believed_is_missing_and_says_why(tmp_path):
    told = {"dwell time": 3.0, "dwell time units": "furlong", "convergence angle": 25.0, "beam current": 0.0}
    missing = only(made(tmp_path / "a.emd", microscope=told)).acquisition.missing
    assert "'furlong' is not known" in missing["dwell_time"]
    assert "another unit" in missing["convergence_angle"]  # 25 rad
    assert "not measured" in missing["beam_current"]


def test_voltage_in_kv_and_camera_length_in_mm(tmp_path):
    told = {"voltage": 300.0, "voltage units": "kV", "camera length": 91.0, "camera length units": "mm"}
    held = only(made(tmp_path / "a.emd", microscope=told)).instrument
    assert (held.voltage, held.camera_length) == pytest.approx((300e3, 0.091))


@pytest.mark.parametrize("units", ["[n_m]", "n_m", "nm"])
def test_without_a_microscope_group_there_is_the_pixel_size_alone(tmp_path, units):
    shot = only(made(tmp_path / "a.emd", units=units))
    assert shot.acquisition.pixel_size == pytest.approx(2e-11, rel=1e-5)
    assert len(shot.acquisition.missing) == 6
    assert "no group microscope" in shot.acquisition.missing["dwell_time"]
    assert any("does not say that this is a STEM image" in note for note in shot.notes)


@pytest.mark.parametrize("fault", ["no dims", "no unit", "uneven", "short"])
def test_an_axis_that_gives_no_step_gives_no_pixel_size(tmp_path, fault):
    path = made(tmp_path / "a.emd", units="" if fault == "no unit" else "[n_m]")
    with h5py.File(path, "r+") as file:
        group = file["data/scan"]
        if fault == "no dims":
            del group["dim1"], group["dim2"]
        elif fault in ("uneven", "short"):
            for n, size in ((1, 3), (2, 4)):
                attributes = dict(group[f"dim{n}"].attrs)
                del group[f"dim{n}"]
                group[f"dim{n}"] = np.arange(size) ** 2.0 if fault == "uneven" else np.arange(7.0)
                group[f"dim{n}"].attrs.update(attributes)
    shot = only(path)
    assert shot.acquisition.pixel_size is None and shot.acquisition.missing["pixel_size"]


def test_a_file_that_hyperspy_wrote_is_not_turned_over(tmp_path):
    signal = hs.signals.Signal2D(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    for axis, name, scale in zip(signal.axes_manager._axes, ("time", "y", "x"), (1, 0.02, 0.02)):
        axis.name, axis.scale, axis.units = name, scale, "nm" if name != "time" else "s"
    for image in (signal, signal.inav[0]):
        image.save(tmp_path / "a.emd", overwrite=True)
        shot = only(tmp_path / "a.emd")
        assert (shot.image.data == image.data).all()
        assert shot.acquisition.pixel_size == pytest.approx(2e-11)
    for axis in signal.axes_manager._axes:
        axis.name = ""
    signal.inav[0].save(tmp_path / "b.emd")
    assert (only(tmp_path / "b.emd").image.data == signal.data[0]).all()


def test_what_hyperspy_loaded_goes_by_the_same_rules(shared):
    signal = hs.load(shared / REAL, file_format="EMD")
    shot, read_here = Micrograph.from_signal(signal), only(shared / REAL)
    assert shot.acquisition.dwell_time == 1e-6
    assert shot.acquisition.pixel_size == pytest.approx(read_here.acquisition.pixel_size, rel=1e-4)


def test_what_is_no_image_is_named(tmp_path):
    path = made(tmp_path / "a.emd", np.zeros((2, 2, 3, 4), np.uint16), "abyx")
    with pytest.raises(NotHAADFError, match="4D"):
        read(path)
    with pytest.raises(NotHAADFError, match="spectrum"):
        read(made(tmp_path / "b.emd", np.zeros(5), ("E",)))
    with pytest.raises(NotHAADFError, match="axes in n.?m\\^-1"):
        read(made(tmp_path / "c.emd", units="[n_m^-1]"))
    assert inspect(path)[0].shape == (2, 2, 3, 4)


def test_a_file_of_neither_kind_says_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.emd", "w") as file:
        file["counts"] = IMAGE
    with pytest.raises(UnreadableFileError, match="neither .* Velox nor of Berkeley.*'counts'"):
        read(tmp_path / "a.emd")
    with h5py.File(tmp_path / "b.emd", "w") as file:
        file.create_group("4DSTEM_simulation")
    with pytest.raises(UnreadableFileError, match="simulation"):
        read(tmp_path / "b.emd")


def test_a_claim_of_more_pixels_than_the_file_can_hold_is_refused(tmp_path):
    path = made(tmp_path / "a.emd")
    with h5py.File(path, "r+") as file:
        del file["data/scan/data"]
        file["data/scan"].create_dataset("data", (40000, 40000), np.uint16, chunks=(100, 100))
    with pytest.raises(UnreadableFileError, match="claims"):
        read(path)


def test_the_killable_reader_gives_the_same(shared):
    with KillableReader(timeout=60) as reader:
        (shot,) = reader.read(shared / REAL)
    assert shot.acquisition == only(shared / REAL).acquisition
