"""From files to a data set: what is written comes back, what cannot be taken is named, and nothing is half done."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from drive_files import check_rows, make_drive
from typer.testing import CliRunner
from velox_files import SETTINGS

import cimp_core as cimp
from cimp_core import build, inputs, jobs
from cimp_core.build_images import take_images
from cimp_core.dataset import check_dataset
from cimp_core.errors import CimpError, OutOfRangeError
from cimp_core.inputs import list_inputs
from cimp_core.microscope.velox_writer import write_velox

RNG = np.random.default_rng(3)


class Here:
    """Reads in this process: for healthy files, and fast."""

    def __init__(self, *_, **__):
        self.timeout = None

    def start(self):
        pass

    def close(self):
        pass

    def read(self, path, override, detector, then):
        return then(cimp.read(path, override=override, detector=detector))


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(jobs, "KillableReader", Here)


def picture(frames=None, side=32):
    return RNG.integers(1, 60000, (side, side) if frames is None else (frames, side, side)).astype(np.uint16)


@pytest.fixture
def drive(tmp_path):
    """Two sessions of two files, one a series, and no micrograph."""
    for day, number in ((1, 1), (1, 2), (2, 3), (2, 4)):
        folder = tmp_path / f"drive/2024-03-0{day} Ann"
        folder.mkdir(parents=True, exist_ok=True)
        image = picture(3 if number == 3 else None)
        settings = SETTINGS.replace(dwell_time=1e-6 * number, beam_current=None if number == 2 else 5e-11)
        write_velox(folder / f"{number}.emd", image, settings, microscope="Titan 3791", date="2024-03-01T10:00:00")
    (tmp_path / "drive/notes.txt").write_text("x")
    return tmp_path / "drive"


def build_here(drive, out="mine.h5", **options):
    return cimp.build_dataset(drive, drive.parent / out, **{"workers": 1, **options})


# The whole way


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A thousand files of every format, and what became of them."""
    folder = tmp_path_factory.mktemp("big")
    written = make_drive(folder, 1000)
    report = cimp.build_dataset(str(folder / "drive/**/*"), folder / "mine.h5", workers=2)
    return SimpleNamespace(folder=folder, written=written, report=report)


def test_every_row_of_a_thousand_files_is_what_was_written(big):
    check_rows(big.report.path, big.written, big.folder / "drive")
    assert check_dataset(big.report.path) == []
    data = cimp.open_dataset(big.report.path)
    folders = {w.path.parent for w in big.written if w.rows}
    assert len(np.unique(data.sessions)) == len(folders) > 40
    assert not (big.folder / "mine.h5.work").exists()


def test_every_file_left_out_has_its_reason(big):
    table = big.report.table
    reasons = dict(zip(table["file"], zip(table["status"], table["reason"])))
    assert set(reasons) == {w.path.relative_to(big.folder / "drive").as_posix() for w in big.written}
    for file in big.written:
        status, reason = reasons[file.path.relative_to(big.folder / "drive").as_posix()]
        assert bool(file.rows) == (status == "taken"), (file.path, status, reason)
        assert re.search(file.reason, reason), (file.path, reason)
        assert file.reason.startswith("duplicate") == (status == "duplicate")
    kinds = table["status"].value_counts()
    assert kinds["taken"] > 700 and kinds["duplicate"] > 60 and kinds["left out"] > 100


def test_the_report_is_one_page_with_headers_that_needs_nothing_else(big):
    page = big.report.html.read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|<img|https?://|url\(", page)
    assert page.count("<caption>") == page.count("<table>") == 4
    assert 'lang="en"' in page and "color-scheme: light dark" in page and '<th scope="col">' in page
    assert "day 00/0001.emd" in page and "not a microscope file" in page and "pixel size [pm]" in page
    lines = big.report.csv.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("file,image,status,reason,row")
    rows = big.report.table["row"].dropna()
    assert rows.is_monotonic_increasing and "duplicates" in repr(big.report) and "mine.h5" in repr(big.report)


def test_the_number_of_workers_changes_no_byte(here, tmp_path):
    make_drive(tmp_path, 60)
    one = build_here(tmp_path / "drive", "one.h5").path.read_bytes()
    assert build_here(tmp_path / "drive", "four.h5", workers=4).path.read_bytes() == one
    shutil.copytree(tmp_path / "drive", tmp_path / "elsewhere/drive")
    assert build_here(tmp_path / "elsewhere/drive", "one.h5").path.read_bytes() == one


def test_a_crash_costs_one_file(tmp_path, monkeypatch, drive):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(jobs.KillableReader, "_module", "rigged_worker")
    shutil.copy(drive / "2024-03-01 Ann/1.emd", drive / "crash.emd")
    table = build_here(drive).table.set_index("file")
    assert "crashed its reader" in table.loc["drive/crash.emd", "reason"]
    assert (table["status"] == "taken").sum() == 4


# What is taken, and as what


def test_a_series_becomes_frames_a_mean_or_its_first(here, drive):
    frames = cimp.read(drive / "2024-03-02 Ann/3.emd")[0].image.data
    data = cimp.open_dataset(build_here(drive).path)
    assert data.frame_indices.tolist() == [0, 0, 0, 1, 2, 0] and data.total_frames.tolist() == [1, 1, 3, 3, 3, 1]
    assert all((data.image(2 + i) == frames[i]).all() for i in range(3))
    report = build_here(drive, "mean.h5", series="mean")
    data = cimp.open_dataset(report.path)
    assert data.image(2).dtype == np.float32 and data.total_frames.tolist() == [1] * 4
    np.testing.assert_allclose(data.image(2), frames.mean(axis=0), rtol=1e-6)
    assert data.metadata_raw[2, 1] == pytest.approx(9e-6)  # 3 frames of 3 µs: the detector averages
    assert data.intensity[2] == "velox16" and data.on_scale(2)
    assert "the mean of 3 frames, with the dwell time of all" in report.table["notes"][2]
    data = cimp.open_dataset(build_here(drive, "first.h5", series="first").path)
    assert (data.image(2) == frames[0]).all() and data.total_frames[2] == 3 and len(data) == 4


def taken(data, **shot):
    from hyperspy.signals import Signal2D

    made = cimp.Micrograph.from_signal(Signal2D(data), {"dwell_time": 1e-6})
    for name, value in shot.items():
        object.__setattr__(made, name, value)
    series = "mean" if data.ndim == 3 else "frames"
    document, arrays = take_images([made], series)
    json.dumps(document)
    return document["images"][0], arrays


def test_the_dwell_time_of_a_mean_of_sums_is_that_of_a_frame():
    assert taken(picture(4), readout="sum")[0]["values"][1] == 1e-6
    assert taken(picture(4), readout="mean")[0]["values"][1] == pytest.approx(4e-6)
    assert "that of one" in taken(picture(4), readout=None)[0]["notes"][-1]


@pytest.mark.parametrize(
    "pixels, kind",
    [
        (np.array([[0, 65535]], ">u2"), "uint16"),
        (np.array([[0, 255]], np.uint8), "uint16"),
        (np.array([[0, 9]], np.int16), "uint16"),
        (np.array([[-1, 9]], np.int16), "float32"),
        (np.array([[-1, 9]], np.int8), "float32"),
        (np.array([[1, 2**24]], np.uint32), "float32"),
        (np.array([[1.5, -2.0]], np.float32), "float32"),
        (np.array([[1.5, -2.0]], ">f8"), "float32"),
    ],
)
def test_types_change_only_where_that_is_exact(pixels, kind):
    record, (stored,) = taken(pixels)
    assert stored.dtype == kind and (stored[0] == pixels).all()
    assert not any("rounded" in note for note in record["notes"])


@pytest.mark.parametrize("pixels", [np.array([[1, 2**24 + 1]], np.uint32), np.array([[1.0, 0.1]])])
def test_rounding_is_said(pixels):
    record, _ = taken(pixels)
    assert f"1 of 2 pixels were rounded from {pixels.dtype} to float32" in record["notes"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_are_no_numbers_leave_an_image_out(value):
    record, arrays = taken(np.array([[1.0, value]]))
    assert "finite" in record["fault"] or "too large" in record["fault"]
    assert not arrays and record["digest"] is None


def test_a_copy_as_floating_point_is_still_a_copy(here, drive):
    import tifffile

    source = drive / "2024-03-01 Ann/1.emd"
    pixels = cimp.read(source)[0].image.data
    tifffile.imwrite(drive / "2024-03-01 Ann/0.tif", pixels.astype(np.float32))
    write_velox(drive / "2024-03-02 Ann/0.emd", pixels, SETTINGS.replace(detector_gain=None))
    write_velox(drive / "2024-03-02 Ann/9.emd", pixels.reshape(16, 64), SETTINGS)
    table = build_here(drive).table.set_index("file")
    assert table["status"].to_dict()["2024-03-01 Ann/1.emd"] == "taken"
    for copy in ("2024-03-01 Ann/0.tif", "2024-03-02 Ann/0.emd"):
        assert table.loc[copy, "reason"] == "duplicate of 2024-03-01 Ann/1.emd"
    assert table.loc["2024-03-02 Ann/9.emd", "status"] == "taken"  # the same bytes in another shape


def test_images_known_to_be_faint_are_left_out(here, drive):
    dose = 5e-11 * 1e-6 / 1.602176634e-19
    report = build_here(drive, min_dose=2 * dose)
    table = report.table[report.table["image"].notna()]
    assert table["status"].tolist() == ["left out", "taken", "taken", "taken"]  # of the second no current is known
    assert re.search(r"312 electrons per pixel, fewer than 624", table["reason"].iloc[0])
    assert cimp.open_dataset(report.path).attributes["dose_threshold"] == pytest.approx(2 * dose)


def test_override_and_detector_reach_every_file(here, drive):
    data = cimp.open_dataset(build_here(drive, override={"beam_current": 3e-11}).path)
    np.testing.assert_allclose(data.metadata_raw[:, 3], 3e-11, rtol=1e-6)
    with pytest.raises(CimpError, match="no image could be taken"):
        build_here(drive, "bf.h5", detector="BF")


def test_columns_that_nobody_has_and_that_are_all_alike(here, tmp_path):
    import tifffile

    (tmp_path / "drive").mkdir()
    for i in range(3):
        metadata = {"imagej": True, "resolution": (50, 50), "metadata": {"unit": "nm"}}
        tifffile.imwrite(tmp_path / f"drive/{i}.tif", picture(), **metadata)
    path = build_here(tmp_path / "drive").path
    data = cimp.open_dataset(path)
    assert check_dataset(path) == [] and (data.normalizer.std == 1).all()
    assert np.abs(data.metadata[:, 0]).max() < 1e-5 and np.isnan(data.metadata[:, 1:]).all()
    assert data.intensity == ["unknown"] * 3


def test_anonymised_files_tell_nothing(here, drive):
    report = build_here(drive, anonymise=True)
    content = report.path.read_bytes()
    for word in (b"2024", b"03-01", b"Ann", b"Titan", b"3791", b"drive", os.fsencode(drive.parent.name)):
        assert word not in content, word
    data = cimp.open_dataset(report.path)
    assert data.filepaths == [
        "session_0001/000001.emd",
        "session_0001/000002.emd",
        *["session_0002/000003.emd"] * 3,
        "session_0002/000004.emd",
    ]
    assert len(set(data.sessions)) == 2
    assert "Keep it private" in report.html.read_text(encoding="utf-8")
    assert dict(zip(report.table["name"], report.table["file"]))["session_0001/000002.emd"] == "2024-03-01 Ann/2.emd"
    named = build_here(drive, "named.h5")
    assert b"Ann" in named.path.read_bytes() and "private" not in named.html.read_text(encoding="utf-8")


# Refusals, before and after


def test_what_exists_is_refused_before_any_work(here, monkeypatch, drive):
    out = drive.parent / "mine.h5"
    out.write_bytes(b"precious")
    with monkeypatch.context() as patch, pytest.raises(CimpError, match="exists already"):
        patch.setattr(build, "list_inputs", None)
        build_here(drive)
    assert out.read_bytes() == b"precious"
    build_here(drive, force=True)
    assert len(cimp.open_dataset(out)) == 6
    out.rename(drive.parent / "moved.h5")
    with pytest.raises(CimpError, match="report of another build exists"):
        build_here(drive)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"series": "all"}, "frames, mean, first"),
        ({"min_dose": -1}, "min_dose"),
        ({"min_dose": float("nan")}, "min_dose"),
        ({"override": {"dwell": 1}}, "dwell"),
        ({"timeout": -1}, "timeout"),
        ({"out": "mine.csv"}, "written as .h5"),
        ({"out": "absent/mine.h5"}, "no such folder"),
    ],
)
def test_impossible_options_leave_nothing_behind(here, drive, options, said):
    with pytest.raises(CimpError, match=said):
        build_here(drive, **options)
    assert sorted(p.name for p in drive.parent.iterdir()) == ["drive"]


def test_a_folder_or_a_place_that_cannot_be_written_is_said_before_any_work(here, drive):
    (drive.parent / "folder.h5").mkdir()
    with pytest.raises(CimpError, match="this is a folder"):
        build_here(drive, "folder.h5", force=True)
    (drive.parent / "mine.h5.work").write_bytes(b"")
    with pytest.raises(CimpError, match=r"mine\.h5\.work: cannot be made"):
        build_here(drive)


def test_where_nothing_can_be_taken_the_report_says_why(here, tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive/<b>&.emd").write_bytes(b"")
    with pytest.raises(CimpError, match=r"mine.report.html says why"):
        build_here(tmp_path / "drive")
    page = (tmp_path / "mine.report.html").read_text(encoding="utf-8")
    assert "the file is empty" in page and "&lt;b&gt;&amp;.emd" in page and "<b>" not in page
    assert not (tmp_path / "mine.h5").exists()


def test_names_are_escaped_in_every_cell(here, drive):
    source = next(drive.glob("*/1.emd"))
    shutil.copy(source, source.with_name("0<b>.emd"))
    report = build_here(drive)
    assert "duplicate of 2024-03-01 Ann/0<b>.emd" in report.table["reason"].tolist()
    assert "<b>" not in report.html.read_text(encoding="utf-8")


def test_a_full_disk_stops_before_the_data_set_and_keeps_what_was_read(here, monkeypatch, drive):
    with monkeypatch.context() as patch, pytest.raises(CimpError, match="make room"):
        patch.setattr(build.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        build_here(drive)
    assert not (drive.parent / "mine.h5").exists()
    monkeypatch.setattr(Here, "read", None)  # nothing is read again
    assert len(cimp.open_dataset(build_here(drive).path)) == 6


def test_stored_pixels_that_changed_are_not_used(here, monkeypatch, drive):
    with monkeypatch.context() as patch, pytest.raises(CimpError, match="make room"):
        patch.setattr(build.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        build_here(drive)
    part = next((drive.parent / "mine.h5.work").glob("parts/*/*.npy"))
    part.write_bytes(part.read_bytes()[:-2] + b"xx")
    with pytest.raises(CimpError, match="stored pixels are damaged"):
        build_here(drive)
    assert not (drive.parent / "mine.h5").exists()


MEMORY = """
import resource, sys
import numpy as np, cimp_core as cimp
from cimp_core import jobs
from types import SimpleNamespace
from test_build import Here

title = SimpleNamespace(General=SimpleNamespace(title=""))

def read(self, path, override, detector, then):
    image = SimpleNamespace(data=np.full((384, 384), int(path[-8:-4]), np.uint16), metadata=title)
    blank = {"acquisition": cimp.Acquisition(), "readout": None, "intensity": "unknown", "notes": []}
    return then([SimpleNamespace(image=image, **blank)])

Here.read, jobs.KillableReader = read, Here
report = cimp.build_dataset(sys.argv[1], sys.argv[2], workers=2)
print(len(report.table), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    peaks = {}
    for count in (200, 1000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            (folder / f"{i:04d}.emd").write_bytes(b"x")
        command = [sys.executable, "-c", MEMORY, str(folder), str(tmp_path / f"{count}.h5")]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        found, peaks[count] = done.stdout.split()
        assert int(found) == count
    # The pixels of 800 more files are 225 MiB.
    assert float(peaks[1000]) - float(peaks[200]) < 75


# Which files


def test_inputs_are_what_a_person_means_and_never_what_was_written(drive):
    own = drive / "mine.h5"
    for name in (".hidden.emd", "._1.emd", "mine.h5", "mine.h5.work/parts/1.tif", "2024-03-01 Ann/.git/x.emd"):
        (drive / name).parent.mkdir(parents=True, exist_ok=True)
        (drive / name).write_bytes(b"x")
    (drive / "2024-03-02 Ann/link.emd").symlink_to(drive / "2024-03-01 Ann/1.emd")
    (drive / "2024-03-02 Ann/gone.emd").symlink_to(drive / "absent.emd")
    (drive / "2024-03-02 Ann/loop").symlink_to(drive)
    found = list_inputs(drive, own=[own, drive / "mine.h5.work"])
    names = ["2024-03-01 Ann/1.emd", "2024-03-01 Ann/2.emd", "2024-03-02 Ann/3.emd", "2024-03-02 Ann/4.emd"]
    assert [s.name for s in found.sources] == names
    assert found.refused["2024-03-02 Ann/link.emd"] == "a link to 2024-03-01 Ann/1.emd"
    assert "cannot be opened" in found.refused["2024-03-02 Ann/gone.emd"]
    assert found.refused["notes.txt"] == "not a microscope file" and len(found.refused) == 3
    star = list_inputs(f"{drive}/**/*", own=[own, drive / "mine.h5.work"])
    assert [s.name for s in star.sources] == names
    assert list_inputs([drive, f"{drive}/*/*.emd"], own=[own, drive / "mine.h5.work"]).sources == found.sources


def test_files_in_the_root_itself_share_the_roots_session(drive):
    one = [s.name for s in list_inputs(f"{drive}/2024-03-01 Ann/*.emd").sources]
    assert one == ["2024-03-01 Ann/1.emd", "2024-03-01 Ann/2.emd"]
    (drive / "top.emd").write_bytes(b"x")
    assert [s.name for s in list_inputs(drive).sources][-1] == "drive/top.emd"


def test_odd_names(tmp_path):
    (tmp_path / "a[1]").mkdir()
    for name in (b"a[1]/\xe9t\xe9.emd", "a[1]/\u00e9\n*.EMD".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    names = [s.name for s in list_inputs(tmp_path / "a[1]").sources]
    assert names == ["a[1]/\\xe9t\\xe9.emd", "a[1]/\u00e9\n*.EMD"]
    "".join(names).encode()
    assert len(list_inputs(tmp_path / "a[1]" / "\u00e9\n*.EMD").sources) == 1


def test_links_round_in_circles_end_and_hide_nothing(tmp_path):
    drive, elsewhere = tmp_path / "drive", tmp_path / "elsewhere/s2"
    for folder in (drive / "z", drive / "b", elsewhere):
        folder.mkdir(parents=True)
    (drive / "z/1.emd").write_bytes(b"x")
    (elsewhere / "2.emd").write_bytes(b"x")
    for link in ("z/up", "b/up", "z/again"):
        (drive / link).symlink_to(drive)
    (drive / "a").symlink_to(drive / "z")
    (drive / "linked").symlink_to(elsewhere.parent)
    for pattern in (drive, f"{drive}/**/*", f"{drive}/**", f"{drive}/**/*.emd"):
        assert [s.name for s in list_inputs(pattern).sources] == ["linked/s2/2.emd", "z/1.emd"], pattern
    assert len(list_inputs(f"{drive}/**/s2/**/*.emd").sources) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.emd")
    (tmp_path / "b.emd").write_bytes(b"x")
    assert list_inputs(tmp_path).refused == {f"{tmp_path.name}/a.emd": "a pipe or a device, not a file"}


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path, drive):
    for pattern in ("*.emd", "absent", "absent/**/*"):
        with pytest.raises(CimpError, match="no such file"):
            list_inputs([drive, tmp_path / pattern])
    with pytest.raises(CimpError, match="no input"):
        list_inputs([])


def test_a_ser_is_read_with_its_emi(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "SUFFIXES", (".emi", ".ser"))
    for name in ("a.emi", "a_1.ser", "a_2.SER", "A_3.ser", "a_0.ser", "b_1.ser", "a.ser", "sub/a_1.ser"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list_inputs(f"{tmp_path}/**/*")
    assert set(found.refused.values()) == {"read with its .emi"}
    assert {name.split("/", 1)[1] for name in found.refused} == {"a_1.ser", "a_2.SER"}


def test_a_ser_whose_emi_is_damaged_is_not_said_to_have_been_read(here, tmp_path):
    (tmp_path / "s").mkdir()
    write_velox(tmp_path / "s/b.emd", picture(), SETTINGS)
    for name in ("a.emi", "a_1.ser"):
        (tmp_path / "s" / name).write_bytes(b"x")
    report = build_here(tmp_path / "s")
    reasons = dict(zip(report.table["file"], report.table["reason"], strict=True))
    assert reasons["s/a_1.ser"].startswith("its .emi cannot be read; name this .ser alone")


# What the rest of the package makes of it


@pytest.fixture
def mixed(tmp_path):
    """Equal uint16 images, on two scales."""
    images = [picture(side=64)] * 6
    raw = np.tile(SETTINGS.vector(), (6, 1)) * np.linspace(1, 2, 6)[:, None]
    scales = ["velox16", "unknown", "dm_counts", "velox16", "float", "velox16"]
    cimp.dataset.write_dataset(tmp_path / "mixed.h5", images, raw, [f"{i}/a.emd" for i in range(6)], intensity=scales)
    cimp.dataset.write_dataset(tmp_path / "plain.h5", images, raw, [f"{i}/a.emd" for i in range(6)])
    return tmp_path


def test_absolute_intensity_is_used_on_the_trained_scale_only(mixed):
    import dataclasses

    from cimp_core.models import Cimp, CimpConfig
    from cimp_core.pretrain import PROFILES, CropSampler
    from cimp_core.retrieval import embed_dataset

    on = np.array([True, False, False, True, False, True])
    data, plain = cimp.open_dataset(mixed / "mixed.h5"), cimp.open_dataset(mixed / "plain.h5")
    assert check_dataset(mixed / "mixed.h5") == [] and plain.intensity is None
    assert data.view([4, 0]).intensity == ["float", "velox16"]
    config = dataclasses.replace(PROFILES["smoke"], batch_size=12, mask_absolute=0.0)
    for view, expected in ((data, on), (plain, np.ones(6, bool))):
        sampler = CropSampler(view, config)
        absolute = sampler(0)[2].numpy()
        assert (absolute == expected[sampler.order(0, 12)]).all()
    model = Cimp(CimpConfig(width=8, dim=16, hidden=16)).eval()
    with pytest.warns(UserWarning, match="3 of 6 images embedded without absolute intensity"):
        rows = embed_dataset(model, data)
    with_, without = (model.embed_images([data.image(0)], absolute=[a])[0] for a in (True, False))
    assert np.abs(with_ - without).max() > 1e-3
    np.testing.assert_allclose(rows, np.where(on[:, None], with_, without), atol=1e-6)
    np.testing.assert_allclose(embed_dataset(model, plain), np.tile(with_, (6, 1)), atol=1e-6)


# The command


def test_the_command_builds_and_says_what_it_did(here, drive):
    from cimp_core.cli import app

    out = drive.parent / "mine.h5"
    call = ["dataset", "build", str(drive), "--out", str(out), "--workers", "1"]
    done = CliRunner().invoke(app, [*call, "--json", "--series", "mean", "--set", "beam_current=2e-11"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["rows"], said["taken"], said["left_out"], said["duplicate"]) == (4, 4, 1, 0)
    with h5py.File(out) as file:
        assert file.attrs["series"] == "mean"
    done = CliRunner().invoke(app, call)
    assert isinstance(done.exception, CimpError) and "exists already" in str(done.exception)
    done = CliRunner().invoke(app, [*call, "--force", "--anonymise"])
    assert "6 rows of 4 images" in done.stdout and "keep both private" in done.stdout
    with pytest.raises(OutOfRangeError, match="beam_curent"):
        CliRunner().invoke(app, [*call, "--set", "beam_curent=1"], catch_exceptions=False)
