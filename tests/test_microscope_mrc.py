"""MRC: FEI's extended header where there is one, the pixel size alone where not, and what is no image."""

import re

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import get_ext_header_dtype

from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.microscope import read

REAL = "data/hyperspy+rosettasciio/rsciio/tests/data/mrc/HAADFscan.mrc"
IMAGE = np.arange(12, dtype=np.uint16).reshape(3, 4)
# A frame of a STEM image: every field, and the bits that mark it as set.
STEM = {
    "HT": 200e3, "Pixel size X": 2e-11, "Pixel size Y": 2e-11, "Instrument mode": 2, "Camera length": 0.1,
    "Convergence angle": 0.02, "STEM Detector name": b"HAADF", "Gain": 30.0, "Offset": -1.0, "Dwell time": 1e-6,
    "Bitmask 1": 1 << 5 | 1 << 14 | 1 << 15 | 1 << 25, "Bitmask 2": 1 << 0 | 1 << 4,
    "Bitmask 3": 1 << 7 | 1 << 8 | 1 << 9 | 1 << 15,
}  # fmt: skip
SEVEN = (2e-11, 1e-6, 0.02, None, 30.0, -1.0, None)


def made(path, data=IMAGE, voxel=0.2, fei=None, kind="FEI2", frames=(), volume=False):
    """An .mrc file; `fei` are the fields of every frame, `frames` what each frame has beside them."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        if data.ndim == 3 and not volume:
            file.set_image_stack()
        file.voxel_size = voxel
        if fei is not None:
            dtype = get_ext_header_dtype(kind.encode(), "<")
            header = np.zeros(len(data) if data.ndim == 3 else 1, dtype)
            header["Metadata size"] = dtype.itemsize
            for n, frame in enumerate([fei | extra for extra in frames] or [fei] * len(header)):
                for name, value in frame.items():
                    header[name][n] = value
            file.header.exttyp = kind
            file.set_extended_header(header)
    return path


def only(path, **options):
    (shot,) = read(path, **options)
    return shot


def seven(shot):
    return tuple(getattr(shot.acquisition, n) for n in shot.acquisition.__dataclass_fields__ if n != "missing")


def test_the_real_file(shared):
    shot = only(shared / REAL)
    with mrcfile.open(shared / REAL) as file:
        assert (shot.image.data == file.data).all()
        fei = file.indexed_extended_header[0]
        assert shot.acquisition.detector_gain == fei["Gain"] and shot.acquisition.detector_offset == fei["Offset"]
    a = shot.acquisition
    assert (a.pixel_size, a.dwell_time, a.convergence_angle) == pytest.approx((5.6791e-9, 0.01, 0.014327), rel=1e-4)
    assert set(a.missing) == {"beam_current", "inner_collection_angle"}
    held = shot.instrument
    assert (held.voltage, held.camera_length) == pytest.approx((300e3, 0.0911))
    assert (held.detector, held.microscope, held.date) == ("HAADF", "Spectra #3814", "2022-12-05T12:13:07")
    assert any("no unit for the convergence angle" in note for note in shot.notes)
    assert [axis.units for axis in shot.image.axes_manager.signal_axes] == ["nm", "nm"]


@pytest.mark.parametrize("lazy", [False, True])
def test_saved_as_hspy_it_says_the_same(shared, tmp_path, lazy):
    shot = only(shared / REAL, lazy=lazy)
    assert shot.image._lazy == lazy
    shot.image.save(tmp_path / "a.hspy")
    again = only(tmp_path / "a.hspy")
    assert again.acquisition == shot.acquisition and again.instrument == shot.instrument and again.raw == shot.raw
    assert (again.image.data == np.asarray(shot.image.data)).all()


@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
@pytest.mark.parametrize("lazy", [False, True])
def test_both_kinds_of_feis_header(tmp_path, kind, lazy):
    shot = only(made(tmp_path / "a.mrc", fei=STEM, kind=kind), lazy=lazy)
    assert seven(shot) == pytest.approx(SEVEN)
    assert (np.asarray(shot.image.data) == IMAGE).all() and shot.instrument.detector == "HAADF"


def test_a_field_that_is_not_marked_as_set_is_missing(tmp_path):
    unset = STEM | {"Bitmask 3": STEM["Bitmask 3"] & ~(1 << 8) & ~(1 << 15)}
    shot = only(made(tmp_path / "a.mrc", fei=unset))
    assert shot.acquisition.detector_gain is None and shot.acquisition.dwell_time is None
    assert "does not mark 'Gain' as set" in shot.acquisition.missing["detector_gain"]
    assert shot.acquisition.detector_offset == -1.0
    assert "mark 'Dwell time'" in shot.acquisition.missing["dwell_time"]


@pytest.mark.parametrize(
    "change",
    [
        {"Instrument mode": 1},
        {"Camera name": b"BM-Ceta", "Bitmask 1": 1 << 14, "Bitmask 2": 1 << 19, "Bitmask 3": 0},
    ],
)
def test_an_image_of_a_camera_is_refused(tmp_path, change):
    with pytest.raises(NotHAADFError, match="camera .*TEM"):
        read(made(tmp_path / "a.mrc", fei=STEM | change))


def test_a_camera_that_is_named_beside_a_stem_detector_took_no_part(tmp_path):
    named = STEM | {"Camera name": b"BM-Ceta", "Bitmask 2": STEM["Bitmask 2"] | 1 << 19}
    assert only(made(tmp_path / "a.mrc", fei=named)).instrument.detector == "HAADF"


def test_another_detector_is_read_on_request(tmp_path):
    path = made(tmp_path / "a.mrc", fei=STEM | {"STEM Detector name": b"BF-S"})
    with pytest.raises(NotHAADFError, match="BF-S"):
        read(path)
    assert only(path, detector="BF-S").acquisition.detector_gain == 30.0


def test_frames_are_kept_and_what_changes_between_them_is_not_believed(tmp_path):
    stack = np.stack([IMAGE, IMAGE + 1])
    path = made(tmp_path / "a.mrc", stack, fei=STEM, frames=[{}, {"Dwell time": 2e-6, "Alpha tilt": 5.0}])
    for lazy in (False, True):
        shot = only(path, lazy=lazy)
        assert (np.asarray(shot.image.data) == stack).all() and shot.image.axes_manager.navigation_shape == (2,)
        assert shot.acquisition.dwell_time is None and "differ" in shot.acquisition.missing["dwell_time"]
        assert shot.acquisition.detector_gain == 30.0 and any("Alpha tilt" in note for note in shot.notes)


def test_a_file_without_feis_header_has_its_pixel_size_alone(tmp_path):
    shot = only(made(tmp_path / "a.mrc", voxel=2.5))
    assert seven(shot) == (pytest.approx(2.5e-10), *[None] * 6)
    assert "no header of FEI" in shot.acquisition.missing["dwell_time"]
    assert any("most .mrc files are of TEM" in note for note in shot.notes)


@pytest.mark.parametrize(("voxel", "why"), [(0, "0 stands for unknown|not calibrated"), (1.0, "exactly 1 Å")])
def test_an_unknown_cell_is_no_pixel_size(tmp_path, voxel, why):
    shot = only(made(tmp_path / "a.mrc", voxel=voxel))
    assert shot.acquisition.pixel_size is None
    assert re.search(why, shot.acquisition.missing["pixel_size"])


def test_a_pixel_size_in_feis_header_alone_is_taken(tmp_path):
    assert only(made(tmp_path / "a.mrc", voxel=0, fei=STEM)).acquisition.pixel_size == 2e-11


def test_a_header_that_says_fei_and_is_none_gives_the_pixel_size(tmp_path):
    path = made(tmp_path / "a.mrc", fei=STEM)
    data = bytearray(path.read_bytes())
    data[1024:1028] = b"\0\0\0\0"  # the size of its entries
    path.write_bytes(data)
    assert seven(only(path)) == (pytest.approx(2e-11), *[None] * 6)


def test_volumes_sections_and_ffts_are_no_images(tmp_path):
    with pytest.raises(NotHAADFError, match="volume"):
        read(made(tmp_path / "a.mrc", np.zeros((5, 3, 4), np.float32), volume=True))
    with pytest.raises(NotHAADFError, match="complex"):
        read(made(tmp_path / "b.mrc", np.zeros((3, 4), np.complex64)))
    path = made(tmp_path / "c.mrc")
    with mrcfile.open(path, "r+") as file:
        file.header.mapc, file.header.maps = 3, 1
    with pytest.raises(NotHAADFError, match="section"):
        read(path)


@pytest.mark.parametrize(
    ("place", "value"), [(0, 2**30), (4, -3), (8, 0), (92, 2**31 - 1), (92, -1), (12, 77), (208, 0), (212, 0)]
)
def test_absurd_headers_are_refused_before_anything_is_read(tmp_path, place, value):
    path = made(tmp_path / "a.mrc", fei=STEM)
    data = bytearray(path.read_bytes())
    data[place : place + 4] = int(value).to_bytes(4, "little", signed=True)
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match="a.mrc: (damaged|truncated)"):
        read(path)


def test_cut_files_are_refused(shared, tmp_path):
    data = (shared / REAL).read_bytes()
    for keep in (10, 1023, 1024, 5000, len(data) - 1):
        (tmp_path / "a.mrc").write_bytes(data[:keep])
        with pytest.raises(UnreadableFileError, match="truncated"):
            read(tmp_path / "a.mrc")


def test_the_other_byte_order(tmp_path):
    path = tmp_path / "a.mrc"
    made(path)
    with mrcfile.open(path, "r+") as file:
        data = file.data.astype(">u2")
        file.set_data(data)
        file.voxel_size = 0.3
    for lazy in (False, True):
        shot = only(path, lazy=lazy)
        assert (np.asarray(shot.image.data) == IMAGE).all()
        assert shot.acquisition.pixel_size == pytest.approx(3e-11)
