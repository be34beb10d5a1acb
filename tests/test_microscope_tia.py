"""FEI TIA: every value of the real files, the .emi and .ser that belong together, and what is refused."""

import pickle
import shutil
import struct

import numpy as np
import pytest
import typer
from tia_files import IMAGE, SERIES, settings, write_emi, write_ser
from typer.testing import CliRunner

import cimp_core as cimp
from cimp_core.cli.info import info
from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.microscope import inspect, read
from cimp_core.microscope.ser import survey

TIA = "hyperspy+rosettasciio/rsciio/tests/data/tia"
STO = "ercius+openNCEM/ncempy/data/16_STOimage"
ACQUIRE, PREVIEW = f"{TIA}/old/16x16_STEM_BF_DF_acquire", f"{TIA}/old/16x16x5_STEM_BF_DF_preview"
TECNAI = "Tecnai 200 kV D2267 SuperTwin"
# Pixel size, dwell time, voltage, camera length; shape; microscope and date; titles of the displays.
POSITIVE = {
    STO: (
        (1.0012704e-11, 2.9e-5, 80e3, 0.116), (1024, 1024),
        ("TitanCubed D3147 S-Twin", "2011-10-18T18:18:46"), ["Acquire HAADF"],
    ),
    ACQUIRE: (
        (2.1510044e-8, 4.8e-5, 200e3, 0.04), (16, 16),
        (TECNAI, "2016-02-21T17:53:06"), ["Acquire BF", "Acquire DF4"],
    ),
    PREVIEW: (
        (2.1510044e-8, 1.6e-5, 200e3, 0.04), (5, 16, 16),
        (TECNAI, "2016-02-21T17:52:51"), ["Preview BF", "Preview DF4"],
    ),
}  # fmt: skip
NEGATIVE = {
    f"{TIA}/old/64x64x5_TEM_preview": "(5 x 64 x 64): an image of the camera WA-Orius, taken in TEM uP SA Zoom Image",
    f"{TIA}/new/128x128-TEM_search": "(128 x 128): an image of the camera BM-Ceta, taken in TEM uP SA Zoom Image mode",
}
NOWHERE = ("convergence_angle", "beam_current", "detector_gain", "detector_offset", "inner_collection_angle")


def short(name):
    return name.rsplit("/", 1)[-1]


def one(path, **options):
    (shot,) = read(path, **options)
    return shot


def said(shot, text):
    return any(text in note for note in shot.notes)


# Real files


@pytest.mark.parametrize("by", ["emi", "ser"])
@pytest.mark.parametrize("name", POSITIVE, ids=short)
def test_every_value_of_every_image(shared, name, by):
    values, shape, (microscope, date), titles = POSITIVE[name]
    path = shared / "data" / name
    files = [path.with_name(f"{path.name}_{n}.ser") for n in range(1, len(titles) + 1)]
    # A .ser beside its .emi is read with its settings, but alone.
    shots = read(f"{path}.emi") if by == "emi" else [one(file) for file in files]
    assert [s.image.metadata.General.title for s in shots] == [file.stem for file in files]
    for shot, title in zip(shots, titles, strict=True):
        raw = [shot.raw[n].value for n in ("pixel_size", "dwell_time", "voltage", "camera_length")]
        assert raw == pytest.approx(values, rel=1e-6)
        assert (shot.acquisition.pixel_size, shot.acquisition.dwell_time) == tuple(raw[:2])
        assert (shot.instrument.voltage, shot.instrument.camera_length) == tuple(raw[2:])
        assert (shot.instrument.microscope, shot.instrument.date) == (microscope, date)
        assert shot.raw["dwell_time"].key == "ObjectInfo.AcquireInfo.DwellTimePath"
        assert shot.raw["pixel_size"].key == "ser_header_parameters.CalibrationDeltaX"
        assert {n: r.unit for n, r in shot.raw.items()} == {
            "pixel_size": "m", "dwell_time": "s", "voltage": "V", "camera_length": "m",
        }  # fmt: skip
        assert shot.acquisition.missing == dict.fromkeys(NOWHERE, "TIA does not record it")
        assert shot.image.data.shape == shape and shot.image.data.dtype == np.uint16
        assert shot.image.axes_manager.navigation_shape == shape[:-2]
        assert (shot.intensity, shot.readout, shot.skipped) == ("unknown", None, [])
        # A title is a label: it is told, and decides nothing.
        assert shot.instrument.detector is None and said(shot, "check that this is a HAADF image")
        assert said(shot, f"under the title {title!r}")


@pytest.mark.parametrize("ending", [".emi", "_1.ser"])
@pytest.mark.parametrize("name", NEGATIVE, ids=short)
def test_camera_images_are_refused_and_say_what_they_are(shared, name, ending):
    with pytest.raises(NotHAADFError) as refusal:
        read(shared / "data" / f"{name}{ending}")
    assert NEGATIVE[name] in str(refusal.value) and short(name) in str(refusal.value)


def test_pixels_are_those_of_the_bytes(shared):
    images = [shot.image.data for shot in read(shared / "data" / f"{ACQUIRE}.emi")]
    for number, image in enumerate(images, 1):
        stored = np.fromfile(shared / "data" / f"{ACQUIRE}_{number}.ser", "<u2", 256, offset=126).reshape(16, 16)
        assert (image == stored[::-1]).all() and np.ptp(image) > 0
    assert (images[0] != images[1]).any()


def test_a_ser_file_alone_knows_the_pixel_size_only(shared, tmp_path):
    shot = one(shutil.copy(shared / "data" / f"{STO}_1.ser", tmp_path))
    assert shot.acquisition.pixel_size == pytest.approx(1.0012704e-11, rel=1e-6)
    assert set(shot.raw) == {"pixel_size"} and set(shot.acquisition.missing) == {"dwell_time", *NOWHERE}
    assert ".emi" in shot.acquisition.missing["dwell_time"]
    assert said(shot, "16_STOimage.emi is not beside it") and said(shot, "STEM image (its numbers are of type u2)")
    # The time in a .ser is in UTC; the .emi of the same image says 18:18:46, in California.
    assert shot.instrument.date == "2011-10-19T01:18:46+00:00"
    assert shot.instrument.voltage is shot.instrument.camera_length is None
    renamed = one(shutil.copy(tmp_path / "16_STOimage_1.ser", tmp_path / "best.ser"))
    assert said(renamed, "NAME.emi") and set(renamed.raw) == {"pixel_size"}


def test_info_shows_it(shared):
    app = typer.Typer()
    app.command()(info)
    path = shared / "data" / f"{PREVIEW}.emi"
    table = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "160"})  # in a process that can be killed
    assert table.exit_code == 0
    for text in (
        "preview.emi [2 of 2]", "21.51 nm", "16 µs", "TIA does not record it", "200 kV", "camera length 40 mm", TECNAI,
        "5 x 16 x 16 uint16, unknown", "detector not named",
    ):  # fmt: skip
        assert text in table.stdout, text


# Which .ser belongs to which settings


@pytest.fixture
def emi(tmp_path):
    """Two images of one scan; the .emi holds the second one first."""
    write_ser(tmp_path / "a_1.ser", IMAGE, delta=2e-11)
    write_ser(tmp_path / "a_2.ser", SERIES, delta=3e-11, version=0x0220)
    objects = settings("0.000020", High_tension_kV="200"), settings("0.000010", Camera_length_m="0.090")
    return write_emi(tmp_path / "a.emi", *objects, numbers=(2, 1))


def test_each_image_has_its_own_settings_wherever_they_stand(emi):
    first, series = read(emi)
    assert (first.acquisition.dwell_time, first.instrument.voltage, first.instrument.camera_length) == (1e-5, 3e5, 0.09)
    assert (series.acquisition.dwell_time, series.instrument.voltage) == (2e-5, 2e5)
    assert (first.acquisition.pixel_size, series.acquisition.pixel_size) == pytest.approx((2e-11, 3e-11))
    assert said(first, "'Acquire BF'") and said(series, "'Acquire DF4'")
    assert (first.image.data == IMAGE).all() and (series.image.data == SERIES).all()
    assert first.instrument.microscope == "Titan 300 kV D3000 S-Twin" and first.instrument.date == "2016-02-21T17:53:06"
    alone = one(emi.with_name("a_2.ser"))
    assert alone.acquisition == series.acquisition and (alone.image.data == SERIES).all()


def test_more_than_nine_images_and_names_that_look_alike(tmp_path):
    for number in range(1, 13):
        write_ser(tmp_path / f"a [1]_{number}.ser", IMAGE // number)
        write_ser(tmp_path / f"a [1]_2_{number}.ser", IMAGE)  # of another .emi
    emi = write_emi(tmp_path / "a [1].emi", *(settings(f"0.0000{n:02}") for n in range(1, 13)))
    shots = read(emi)
    assert [s.acquisition.dwell_time for s in shots] == pytest.approx(np.arange(1, 13) * 1e-6)
    assert all((s.image.data == IMAGE // n).all() for n, s in enumerate(shots, 1))


def test_endings_in_capitals(emi):
    for path in (emi, emi.with_name("a_1.ser")):
        path.rename(path.with_suffix(path.suffix.upper()))
    assert one(emi.with_name("a_1.SER")).acquisition.dwell_time == 1e-5
    assert len(read(emi.with_name("a.EMI"))) == 2


def test_a_missing_ser_file_is_named(emi):
    emi.with_name("a_2.ser").unlink()
    shot = one(emi)
    assert said(shot, "a_2.ser: missing") and [s.title for s in shot.skipped] == ["a_2.ser"]
    emi.with_name("a_1.ser").unlink()
    with pytest.raises(UnreadableFileError, match=r"a\.emi: .*a_1\.ser is missing; copy it to the same folder"):
        read(emi)


def test_a_damaged_ser_file_costs_its_own_image_only(emi):
    emi.with_name("a_2.ser").write_bytes(b"")
    shot = one(emi)
    assert (shot.image.data == IMAGE).all() and said(shot, "a_2.ser: unreadable: damaged")
    emi.with_name("a_1.ser").write_bytes(b"II" * 100)
    with pytest.raises(UnreadableFileError, match=r"a\.emi: .*a_1\.ser: damaged"):
        read(emi)


def test_an_image_without_settings_in_the_emi_says_so(emi):
    write_ser(emi.with_name("a_3.ser"))
    shot = read(emi)[2]
    assert said(shot, "a_3.ser: the .emi file has no settings for it") and shot.acquisition.dwell_time is None
    assert said(one(emi.with_name("a_3.ser")), "a.emi beside it has none for this image")


EMI_DAMAGE = {
    "an end lost": (b"</ObjectInfo>", b"</ObjectInfp>"),
    "a beginning lost": (b"<ObjectInfo>", b"<ObjectInfp>"),
    "a tag lost": (b"</AcquireDate>", b"</AcquireDatf>"),
    "cut within the last": (b"<DwellTimePath>0.000010", None),
    "two images of one number": (b"a_1.ser", b"a_2.ser"),
    "too long": (b"<Uuid>0", b"<Uuid>" + b"0" * 2**20),
    "cut before all": (b"a_2.ser", None),
}


@pytest.mark.parametrize("old, new", EMI_DAMAGE.values(), ids=EMI_DAMAGE)
def test_damaged_settings_are_refused_but_leave_the_pixels_readable(emi, old, new):
    data = emi.read_bytes()
    emi.write_bytes(data[: data.rindex(old)] if new is None else data.replace(old, new, 1))
    with pytest.raises(UnreadableFileError, match=r"a\.emi: damaged"):
        read(emi)
    shot = one(emi.with_name("a_1.ser"))
    assert said(shot, "the .emi file beside it cannot be read") and set(shot.raw) == {"pixel_size"}


# What the settings say


def with_settings(tmp_path, *arguments, **changes):
    write_ser(tmp_path / "b_1.ser")
    return one(write_emi(tmp_path / "b.emi", settings(*arguments, **changes)))


@pytest.mark.parametrize("length, note", [("0.000", "camera length 0 m in"), (None, "no camera length in the file")])
def test_no_camera_length_outside_diffraction_mode(tmp_path, length, note):
    shot = with_settings(tmp_path, Camera_length_m=length, Mode=" STEM nP SA Zoom Image")
    assert shot.instrument.camera_length is None and said(shot, note)
    assert ("camera_length" in shot.raw) == (length is not None)


@pytest.mark.parametrize(
    "text, reason",
    [("0.000000", "below the microsecond"), ("0.00x", "not a number"), (None, "no DwellTimePath"), ("-1", "no dwell")],
)
def test_a_dwell_time_that_cannot_be_is_missing(tmp_path, text, reason):
    assert reason in with_settings(tmp_path, text).acquisition.missing["dwell_time"]


def test_a_short_dwell_time_is_known_roughly(tmp_path):
    assert said(with_settings(tmp_path, "0.000002"), "rounds the dwell time to 1 µs, here to within 25%")
    assert not said(with_settings(tmp_path, "0.000010"), "rounds")


def test_a_camera_in_a_scanning_microscope_takes_no_stem_image(tmp_path):
    with pytest.raises(NotHAADFError, match="the camera Orius, taken in STEM nP SA Zoom Diffraction mode"):
        with_settings(tmp_path, camera="Orius")
    with pytest.raises(NotHAADFError, match="an image taken in TEM SA mode"):
        with_settings(tmp_path, Mode=" TEM SA")
    assert said(with_settings(tmp_path, Mode=None), "does not say that this is a STEM image")


def test_settings_of_another_day_are_doubted(tmp_path):
    assert said(with_settings(tmp_path, date="Sat Feb 20 00:00:00 2016"), "do they belong together?")
    for date in ("Sun Feb 21 05:00:00 2016", "Mon Feb 22 06:00:00 2016"):  # Hawaii, Kiribati
        assert not said(with_settings(tmp_path, date=date), "together")
    assert with_settings(tmp_path, date="Sun Fxx").instrument.date == "2016-02-21T16:53:06+00:00"


def test_voltage_has_a_second_source(tmp_path):
    volts = "<MicroscopeConditions><AcceleratingVoltage>80000.0</AcceleratingVoltage></MicroscopeConditions>"
    text = settings(High_tension_kV=None).replace(
        "<Uuid>0</Uuid>", f"<ExperimentalConditions>{volts}</ExperimentalConditions>"
    )
    write_ser(tmp_path / "b_1.ser")
    assert one(write_emi(tmp_path / "b.emi", text)).instrument.voltage == 80e3


def test_pixel_size_of_an_axis_never_calibrated(tmp_path):
    shot = one(write_ser(tmp_path / "b_1.ser", delta=1.0))
    assert shot.acquisition.pixel_size is None and "never calibrated" in shot.acquisition.missing["pixel_size"]


def test_frames_of_several_magnifications_have_no_pixel_size(tmp_path):
    path = write_ser(tmp_path / "b_1.ser", SERIES)
    data = bytearray(path.read_bytes())
    struct.pack_into("<d", data, 1374, 4e-11)  # the second frame
    path.write_bytes(data)
    assert "differ in pixel size" in one(path).acquisition.missing["pixel_size"]


# What is and is not an image


NO_IMAGE = {
    "a spectrum": ({"data": np.ones((3, 50), "u4"), "kind": 0x4120}, "spectr"),
    "a map": ({"data": np.ones((6, 4, 5), "i4"), "sizes": [3, 2]}, "a map of images"),
    "a line in metres": ({"data": SERIES, "unit": b"meters"}, "along a line"),
    "a line by its positions": ({"data": SERIES, "tag": 0x4142}, "along a line"),
    "a diffraction pattern": ({"delta": 5e7}, "axes in 1/m"),
    "complex": ({"data": IMAGE.astype("c8")}, "complex data"),
    "stopped before the first": ({"valid": 0}, "stopped before the first"),
}


@pytest.mark.parametrize("written, why", NO_IMAGE.values(), ids=NO_IMAGE)
def test_what_is_no_image_is_refused(tmp_path, written, why):
    path = write_ser(tmp_path / "b_1.ser", **written)
    with pytest.raises(NotHAADFError, match=why):
        read(path)
    assert why in str(inspect(path)[0])


def test_a_series_that_was_stopped_has_the_frames_recorded(tmp_path):
    shot = one(write_ser(tmp_path / "b_1.ser", SERIES, valid=3))
    assert (shot.image.data == SERIES[:3]).all() and said(shot, "3 of 5 frames")
    shot = one(write_ser(tmp_path / "c_1.ser", SERIES, valid=1))
    assert (shot.image.data == SERIES[0]).all() and shot.image.axes_manager.navigation_shape == ()


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "i4", "f4"])
@pytest.mark.parametrize("version", [0x0210, 0x0220])
def test_types_and_versions(tmp_path, kind, version):
    shot = one(write_ser(tmp_path / "b_1.ser", (SERIES // 256).astype(kind), version=version))
    assert shot.image.data.dtype == kind and (shot.image.data == SERIES // 256).all()
    assert shot.intensity == ("float" if kind == "f4" else "unknown")


def test_lazy_gives_the_same(emi):
    for lazy, eager in zip(read(emi, lazy=True), read(emi), strict=True):
        assert lazy.image._lazy and lazy.acquisition == eager.acquisition
        assert (lazy.image.data.compute() == eager.image.data).all()


def test_settings_survive_in_hspy_and_across_processes(emi):
    shot = read(emi)[1]
    shot.image.save(emi.with_suffix(".hspy"))
    again = one(emi.with_suffix(".hspy"))
    assert again.acquisition == shot.acquisition and again.instrument == shot.instrument
    other = pickle.loads(pickle.dumps(shot))
    assert other.acquisition == shot.acquisition and (other.image.data == SERIES).all()


# The structure of a .ser file is checked before any reader sees it. Fields as in `write_ser`, five frames of 20 x 30.

U4 = "<I"
SER_DAMAGE = {
    "byte order": (0, "<H", 0x4D4D, "byte order 0x4d4d"),
    "series": (2, "<H", 0x198, "series 0x198"),
    "version": (4, "<H", 0x0200, "version 0x200"),
    "data type": (6, U4, 0x4121, "data type 0x4121"),
    "tag type": (10, U4, 0x4153, "tag type 0x4153"),
    "total": (14, U4, 2**31, "5 of 2147483648 images in 6398 bytes"),
    "total beside sizes": (14, U4, 6, "for 6 images"),
    "valid above total": (18, U4, 6, "6 of 5 images"),
    "offset of the offsets": (22, U4, 2**32 - 1, "5 of 5 images in 6398 bytes"),
    "dimensions": (26, U4, 2**31, "2147483648 dimensions"),
    "no dimension": (26, U4, 0, "0 dimensions"),
    "size of a dimension": (30, U4, 2**31, "for 5 images"),
    "step of a dimension": (42, "<d", float("nan"), "its dimensions make no sense"),
    "length of a text": (54, U4, 2**31, "it ends too early"),
    "length of a unit": (64, U4, 2**31, "its dimensions make no sense"),
    "an offset outside": (72, U4, 2**31, "an image begins outside"),
    "an offset inside the header": (72, U4, 0, "an image begins outside"),
    "an offset inside another image": (72, U4, 400, "5 images of 20 x 30 of type u2 in 6398 bytes"),
    "an offset of the last image": (84, U4, 6300, "5 images of 20 x 30"),
    "calibration": (116, "<d", float("inf"), "numbers that are none"),
    "calibration of a later frame": (1374, "<d", float("nan"), "numbers that are none"),
    "type": (148, "<H", 77, "of type 77"),
    "larger type": (148, "<H", 8, "of type f8 in 6398 bytes"),
    "no width": (150, U4, 0, "an image of 20 x 0"),
    "width": (150, U4, 2**31, "5 images of 20 x 2147483648"),
    "height": (154, U4, 2**31, "5 images of 2147483648 x 30"),
    "other size in a later frame": (1412, U4, 10, "differ in size or type"),
}


@pytest.mark.parametrize("at, layout, value, reason", SER_DAMAGE.values(), ids=SER_DAMAGE)
def test_a_structure_that_cannot_be_true_never_reaches_hyperspy(tmp_path, monkeypatch, at, layout, value, reason):
    path = write_ser(tmp_path / "b_1.ser", SERIES)
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, at, value)
    path.write_bytes(data)
    monkeypatch.setattr("cimp_core.microscope.files.with_hyperspy", lambda *a: pytest.fail("reached HyperSpy"))
    with pytest.raises(UnreadableFileError, match=rf"b_1\.ser: damaged, truncated or not a \.ser file \(.*{reason}"):
        read(path)


@pytest.mark.parametrize("version", [0x0210, 0x0220])
def test_a_file_cut_anywhere_is_refused(tmp_path, version):
    path = write_ser(tmp_path / "b_1.ser", SERIES[:, :3, :4], version=version)
    data = path.read_bytes()
    assert survey(path).shape == (5, 3, 4) and survey(path).why == ""
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableFileError):
            survey(path)


def test_seven_parameters_are_all_accounted_for(emi):
    for shot in read(emi):
        for name in cimp.PARAMETERS:
            assert (getattr(shot.acquisition, name) is None) == (name in shot.acquisition.missing)
