"""TIFF: what counts as a pixel size and what does not, series, pictures, packed and damaged files."""

import struct

import hyperspy.api as hs
import numpy as np
import pytest
import tifffile
from PIL import Image
from test_microscope_damage import attack
from velox_files import IMAGE, SETTINGS

import cimp_core as cimp
from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.microscope import read
from cimp_core.microscope.velox_writer import write_velox
from cimp_core.microscope.worker import KillableReader

HPAI = "data/HPAI-BSC+AtomDetection_ACSTEM/data/tif_data/047_HAADF_15nm_Sample_PtNC_21Oct20.tif"
COLOUR = "data/MaterialEyes+ingrained/examples/clean_templates/gb/Ni_001_M3B2_001/HAADF91.tif"


def one(path, **options):
    (shot,) = read(path, **options)
    return shot


@pytest.fixture
def made(tmp_path):
    """Micrograph of a TIFF file that tifffile writes with these settings."""

    def make(data=IMAGE, **settings):
        tifffile.imwrite(tmp_path / "a.tif", data, **settings)
        return one(tmp_path / "a.tif")

    return make


def test_a_real_file_keeps_its_counts_date_and_pixel_size_and_nothing_else_is_made_up(shared):
    shot = one(shared / HPAI)
    assert shot.acquisition.pixel_size == pytest.approx(2.9296875e-11, rel=1e-9)  # the tag, not ImageJ's fraction
    assert shot.image.data.dtype == np.uint32 and shot.image.data.shape == (512, 512)
    assert (shot.image.data == tifffile.imread(shared / HPAI)).all()
    assert shot.instrument.date == "2020-10-21T15:55:41"
    assert set(shot.acquisition.missing) == set(cimp.PARAMETERS) - {"pixel_size"}
    assert (shot.intensity, shot.readout) == ("unknown", None)
    assert any("nothing in the file says that this is a STEM image" in note for note in shot.notes)
    assert shot.image.metadata.General.title == (shared / HPAI).stem


# Pixel sizes


@pytest.mark.parametrize("unit, metres", [("nm", 1e-9), ("micron", 1e-6), ("um", 1e-6), ("\\u00B5m", 1e-6),
                                          ("angstrom", 1e-10), ("\\u00C5", 1e-10), ("pm", 1e-12)])  # fmt: skip
def test_imagej_calibrates_by_its_own_unit(made, unit, metres):
    shot = made(imagej=True, resolution=(50, 50), metadata={"unit": unit})
    assert shot.acquisition.pixel_size == pytest.approx(metres / 50)


@pytest.mark.parametrize("unit", ["inch", "cm", "pixel", ""])
def test_a_page_or_a_count_of_pixels_is_no_unit(made, unit):
    shot = made(imagej=True, resolution=(72, 72), metadata={"unit": unit} if unit else {})
    assert shot.acquisition.pixel_size is None and "calibrated" in shot.acquisition.missing["pixel_size"]


@pytest.mark.parametrize("unit", ["INCH", "CENTIMETER", "NONE", "MILLIMETER", "MICROMETER"])
@pytest.mark.parametrize("imagej", [True, False])
def test_dots_an_inch_are_no_pixel_size(made, unit, imagej):
    shot = made(imagej=imagej, resolution=(300, 300), resolutionunit=unit)
    assert shot.acquisition.pixel_size is None


def test_reciprocal_axes_are_no_image(made):
    with pytest.raises(NotHAADFError, match="axes in 1/nm"):
        made(imagej=True, resolution=(50, 50), metadata={"unit": "1/nm"})


def dm_tags(x=0.02, y=0.02, unit="nm"):
    return [
        (65003, "s", 0, unit, True),
        (65004, "s", 0, unit, True),
        (65009, "d", 1, x, True),
        (65010, "d", 1, y, True),
    ]


@pytest.mark.parametrize("unit, metres", [("nm", 1e-9), ("µm", 1e-6), ("pm", 1e-12)])
def test_tags_of_digitalmicrograph(made, unit, metres):
    shot = made(extratags=dm_tags(unit=unit.encode("latin-1")))
    assert shot.acquisition.pixel_size == pytest.approx(0.02 * metres, rel=1e-12)


def test_tags_that_calibrate_nothing(made):
    for tags in (dm_tags(1.0, 1.0, ""), dm_tags(0.0, 0.0), dm_tags(float("nan"), 0.02), dm_tags()[2:]):
        assert made(extratags=tags).acquisition.pixel_size is None
    assert "not square" in made(extratags=dm_tags(y=0.03)).acquisition.missing["pixel_size"]


@pytest.mark.parametrize("pixel_size", [2e-11, 3.3333e-11, 2.5e-9])
@pytest.mark.parametrize("unit", [None, "µm"])
def test_a_velox_signal_that_hyperspy_saves_as_tiff_keeps_its_pixel_size(tmp_path, pixel_size, unit):
    settings = SETTINGS.replace(pixel_size=pixel_size)
    signal = one(write_velox(tmp_path / "a.emd", IMAGE, settings)).image
    if unit:  # in micrometres HyperSpy rounds the fraction for ImageJ to 4 digits; its tags stay exact
        signal.axes_manager.convert_units("signal", [unit, unit])
    signal.save(tmp_path / "a.tif")
    again = one(tmp_path / "a.tif")
    assert again.acquisition.pixel_size == pytest.approx(pixel_size, rel=1e-9)
    assert (again.image.data == IMAGE).all()
    again.image.save(tmp_path / "again.hspy")
    assert one(tmp_path / "again.hspy").acquisition == again.acquisition


# What is in the file


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "f4", "f8", ">u2"])
def test_counts_are_kept_as_they_are(made, kind):
    data = (IMAGE // 300).astype(kind)
    shot = made(data)
    assert (shot.image.data == data).all() and shot.image.data.dtype.kind == np.dtype(kind).kind
    assert shot.image.data.dtype.itemsize == np.dtype(kind).itemsize
    assert shot.intensity == ("float" if "f" in kind else "unknown")


@pytest.mark.parametrize("settings", [
    {}, {"imagej": True}, {"imagej": True, "metadata": {"axes": "TYX"}}, {"bigtiff": True}, {"metadata": None},
    {"tile": (16, 16)},
], ids=str)  # fmt: skip
def test_pages_are_the_frames_of_a_series(made, tmp_path, settings):
    frames = np.stack([IMAGE, IMAGE // 2, IMAGE // 3])
    shot = made(frames, photometric="minisblack", **settings)
    assert shot.image.axes_manager.navigation_shape == (3,) and (shot.image.data == frames).all()
    # tifffile, and so many a script, writes a stack for ImageJ as channels, which may be of one detector or not.
    assert any("calls its frames channels" in note for note in shot.notes) == (settings == {"imagej": True})
    late = one(tmp_path / "a.tif", lazy=True)
    assert late.image._lazy and (late.image.data.compute() == frames).all()


def test_a_small_copy_beside_the_image_is_skipped(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(IMAGE, metadata=None)
        file.write(IMAGE[:7, :11].copy(), subfiletype=1, metadata=None)
    shot = one(tmp_path / "a.tif")
    assert (shot.image.data == IMAGE).all() and "small copy" in shot.skipped[0].why


def test_pictures_and_channels_are_refused_by_what_they_are(shared, made, tmp_path):
    with pytest.raises(NotHAADFError, match=r"'HAADF91' \(1024 x 1024\): a colour picture"):
        read(shared / COLOUR)
    with pytest.raises(NotHAADFError, match="colour picture"):
        made(np.zeros((20, 30, 4), np.uint8), photometric="rgb")
    with pytest.raises(NotHAADFError, match="colour picture"):
        made(np.zeros((20, 30, 2), np.uint8), photometric="minisblack", planarconfig="contig", extrasamples=[2])
    with pytest.raises(NotHAADFError, match="4D data"):
        made(np.zeros((2, 3, 20, 30), np.uint8), imagej=True, metadata={"axes": "TCYX"})
    Image.fromarray(np.zeros((20, 30), np.uint8)).convert("P").save(tmp_path / "palette.tif")
    with pytest.raises(NotHAADFError, match="colour picture"):
        read(tmp_path / "palette.tif")


@pytest.mark.parametrize("tag, text, refused", [
    (34682, "[Detectors]\nName=ETD\n[Scan]\nPixelWidth=1e-9\nPixelHeight=1e-9\n", "ETD"),
    (34682, "[Detectors]\nName=STEM 3+\n[Scan]\nPixelWidth=2e-9\nPixelHeight=2e-9\n", ""),
    (34118, "\r\nDP_DETECTOR_TYPE\r\nDetector = InLens\r\nAP_MAG\r\nMag = 10 X\r\n", "InLens"),
])  # fmt: skip
def test_an_sem_image_is_refused_unless_a_stem_detector_took_it(made, tag, text, refused):
    if not refused:
        assert made(extratags=[(tag, "s", 0, text, True)]).acquisition.pixel_size == pytest.approx(2e-9)
        return
    with pytest.raises(NotHAADFError, match=f"scanning electron microscope .detector {refused}"):
        made(extratags=[(tag, "s", 0, text, True)])


def test_a_tem_camera_is_refused_and_inverted_counts_are_told(made):
    with pytest.raises(NotHAADFError, match="an image of a camera"):
        made(extratags=[(33560, "B", 64, bytes(64), True)])  # Olympus
    assert any("0 as white" in note for note in made(photometric="miniswhite").notes)


def test_the_current_in_a_jeol_file_is_that_of_the_gun(made):
    parts = {
        "Eos": {"EosMode": "eosASID"},
        "IlluminationSystem": {"ImageField": "xxx BF"},
        "ImageFormingSystem": {
            "ScanningImageFormingMode": "xxx MAG", "ImageFormingMode": "xxx MAG", "SelectorString": "x1M",
            "ModeString": "MAG", "SelectorValue": "1000000",
        },
        "ElectronGun": {"AccelerationVoltage": "200000", "BeamCurrent": "150.0"},
        "Instruments": "JEM-ARM200F",
    }  # fmt: skip
    text = "".join(_xml(name, value) for name, value in parts.items())
    tags = [(271, "s", 0, "JEOL Ltd.", True)]
    shot = made(description=f"<TemReporter>{text}</TemReporter>", metadata=None, extratags=tags, resolutionunit="INCH")
    assert shot.instrument.voltage == 200e3 and shot.instrument.microscope == "JEM-ARM200F"
    assert shot.acquisition.beam_current is None and "beam_current" not in shot.raw


def _xml(name, value):
    inner = "".join(_xml(*item) for item in value.items()) if isinstance(value, dict) else value
    return f"<{name}>{inner}</{name}>"


def test_packed_pixels_are_read_or_the_missing_package_is_named(made, tmp_path):
    assert (made(compression="zlib").image.data == IMAGE).all()
    picture = (IMAGE >> 8).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with pytest.raises(UnreadableFileError, match="lzw.tif: the pixels are packed with LZW.*imagecodecs"):
            read(tmp_path / "lzw.tif")
    else:
        assert (one(tmp_path / "lzw.tif").image.data == picture).all()


# Damage


def test_damaged_headers_cost_no_memory(tmp_path):
    for name, settings in (("small", {}), ("big", {"bigtiff": True}), ("packed", {"compression": "zlib"})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, IMAGE, metadata=None, **settings)
        with tifffile.TiffFile(path) as file:
            where = {code: file.pages[0].tags[code].valueoffset for code in (256, 257, 273)}
        data = bytearray(path.read_bytes())
        for code in (256, 257):  # width and length
            data[where[code] : where[code] + 4] = struct.pack("<I", 10**5)
        (tmp_path / "wide.tif").write_bytes(data)
        with pytest.raises(UnreadableFileError, match="claims 2e[+]10 bytes of pixels"):
            read(tmp_path / "wide.tif")
    assert (one(tmp_path / "big.tif").image.data == IMAGE).all()


@pytest.mark.parametrize("settings", [{}, {"rowsperstrip": 4}, {"compression": "zlib", "rowsperstrip": 4}])
def test_a_file_cut_off_in_its_pixels_is_never_filled_up(tmp_path, settings):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, metadata=None, **settings)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableFileError, match="not in the file"):
        read(path)


@pytest.mark.parametrize("count, packed", [(0, None), (30, None), (0, "zlib")])
def test_a_strip_that_is_missing_or_short_is_not_filled_with_zeros(tmp_path, count, packed):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, metadata=None, rowsperstrip=10, compression=packed)
    with tifffile.TiffFile(path) as file:
        where = file.pages[0].tags["StripByteCounts"].valueoffset
        kind = file.pages[0].tags["StripByteCounts"].dtype
    data = bytearray(path.read_bytes())
    struct.pack_into("<H" if kind == 3 else "<I", data, where, count)
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match="not in the file"):
        read(path)


def test_a_directory_that_points_at_itself_ends(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, metadata=None)
    data = bytearray(path.read_bytes())
    start = struct.unpack("<I", data[4:8])[0]
    end = start + 2 + 12 * struct.unpack("<H", data[start : start + 2])[0]
    data[end : end + 4] = struct.pack("<I", start)
    path.write_bytes(data)
    with KillableReader(timeout=20.0) as reader:
        try:
            (shot,) = reader.read(path)
            assert (shot.image.data == IMAGE).all()
        except UnreadableFileError as error:
            assert "longer than" not in str(error)


def test_readers_of_tiff_say_nothing_on_the_screen(tmp_path, capfd):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"\xff" * 200)
    with pytest.raises(UnreadableFileError, match="a.tif"):
        read(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".TIF", ".tiff"])
def test_other_spellings_of_the_ending(tmp_path, suffix):
    hs.signals.Signal2D(IMAGE).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / f"b{suffix}")
    assert (one(tmp_path / f"b{suffix}").image.data == IMAGE).all()


def test_damaged_copies_of_a_real_file(shared, tmp_path, request, record_property):
    original = (shared / HPAI).read_bytes()
    with KillableReader(timeout=10.0) as reader:
        reader.start()
        outcomes = attack(reader, original, ".tif", tmp_path, request.config.getoption("--fuzz"), seed=len(original))
    record_property("outcomes", dict(outcomes))
    print(f"\nHPAI 047: {dict(outcomes)}")
    assert outcomes["unreadable"] > 0 and outcomes["read"] > 0
