"""Zip archives: what is inside is read as if it were unpacked, and no zip can fill the disk or write elsewhere."""

import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from velox_files import IMAGE, SETTINGS

from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.microscope import archive, inspect, read
from cimp_core.microscope.velox_writer import write_velox
from cimp_core.microscope.worker import KillableReader

RSCIIO = "data/hyperspy+rosettasciio/rsciio/tests/data"
REAL = f"{RSCIIO}/emd/velox_EELS_EDS.zip"


@pytest.fixture
def velox(tmp_path):
    return write_velox(tmp_path / "one.emd", IMAGE, SETTINGS)


def packed(path, **members):
    """A zip of files; in their names the last low line stands for a dot, and two of them for a slash."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            file.writestr(".".join(name.rsplit("_", 1)).replace("__", "/"), data)
    return path


def test_the_real_zip_reads_as_its_member(shared, tmp_path):
    with zipfile.ZipFile(shared / REAL) as file:
        (name,) = file.namelist()
        file.extractall(tmp_path)
    inside, outside = read(shared / REAL, detector="DF-S"), read(tmp_path / name, detector="DF-S")
    assert len(inside) == len(outside) == 2
    for one, other in zip(inside, outside):
        assert one.acquisition == other.acquisition and one.instrument == other.instrument
        assert (one.image.data == other.image.data).all()
        assert one.path == f"{shared / REAL}!/{name}"
    with pytest.raises(NotHAADFError, match="detector DF-S") as refusal:
        read(shared / REAL)
    assert str(shared / REAL) in str(refusal.value)
    assert len(inspect(shared / REAL)) == len(inspect(tmp_path / name))


def test_every_member_that_can_be_read_is_read(velox, tmp_path):
    read(velox)[0].image.save(tmp_path / "two.hspy")
    path = packed(
        tmp_path / "a.zip",
        day1__one_emd=velox,
        day2__one_emd=velox,
        two_hspy=tmp_path / "two.hspy",
        notes_txt=b"hello",
    )
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("__MACOSX/day1/._one.emd", b"what macOS keeps beside a file")
    shots = read(path)
    assert [s.path for s in shots][:2] == [f"{path}!/day1/one.emd", f"{path}!/day2/one.emd"]
    assert all(s.acquisition == SETTINGS and (s.image.data == IMAGE).all() for s in shots)
    assert not any("._one" in note for shot in shots for note in shot.notes)


def test_members_that_fail_are_named_and_the_others_returned(velox, tmp_path):
    path = packed(tmp_path / "a.zip", good_emd=velox, bad_emd=velox.read_bytes()[:5000], in_zip=b"PK")
    (shot,) = read(path)
    notes = " ".join(shot.notes)
    assert f"{path}!/bad.emd: damaged" in notes and "in.zip: a zip within the zip" in notes
    assert "cimp-" not in notes  # no path of the temporary folder
    assert [s.title for s in shot.skipped] == ["bad.emd"]


def test_where_all_fail_the_first_reason_is_the_error(velox, tmp_path):
    path = packed(tmp_path / "a.zip", a_emd=velox.read_bytes()[:5000], b_emd=b"no", c_txt=b"")
    with pytest.raises(UnreadableFileError, match="a.zip!/a.emd: damaged.*1 more") as error:
        read(path)
    assert "\n" not in str(error.value) and "cimp-" not in str(error.value)


def test_a_zip_of_nothing_readable_says_what_it_holds(tmp_path):
    with pytest.raises(UnreadableFileError, match="nothing in this zip can be read. It holds 'a.txt'"):
        read(packed(tmp_path / "a.zip", a_txt=b"x"))
    with pytest.raises(UnreadableFileError, match="holds nothing"):
        read(packed(tmp_path / "b.zip"))


def test_lazy_says_that_the_pixels_are_in_memory(velox, tmp_path):
    (shot,) = read(packed(tmp_path / "a.zip", a_emd=velox), lazy=True)
    assert not shot.image._lazy and any("in memory" in note for note in shot.notes)
    assert not any("in memory" in note for note in read(tmp_path / "a.zip")[0].notes)


def test_an_emi_finds_its_ser_files_in_the_zip(shared, tmp_path):
    folder = shared / f"{RSCIIO}/tia/old"
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in (
            "16x16_STEM_BF_DF_acquire_1.ser",
            "16x16_STEM_BF_DF_acquire_2.ser",
            "16x16_STEM_BF_DF_acquire.emi",
        ):
            file.write(folder / name, f"day/{name}")
    shots = read(path)
    assert [s.path for s in shots] == [f"{path}!/day/16x16_STEM_BF_DF_acquire.emi"] * 2  # not once more as .ser
    assert [s.acquisition.dwell_time for s in shots] == pytest.approx([4.8e-5] * 2)


def test_names_that_point_elsewhere_write_nowhere_else(velox, tmp_path, monkeypatch):
    scratch = tmp_path / "deep" / "scratch"
    scratch.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = tmp_path / "a.zip"
    names = ["../../evil.emd", str(tmp_path / "evil2.emd"), "..\\..\\evil3.emd", "C:\\evil4.emd", "a/../../evil5.emd"]
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, velox.read_bytes())
    before = set(tmp_path.rglob("*"))
    assert len(read(path)) == len(names)
    assert set(tmp_path.rglob("*")) == before  # and nothing is left behind


def test_two_files_of_one_name_and_names_too_long(velox, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        for name in ("a.emd", "a.emd", "b" * 300 + ".emd"):
            file.writestr(name, velox.read_bytes())
    (shot,) = read(path)
    assert sum("two files of this name" in note for note in shot.notes) == 1
    assert any("b" * 300 in note for note in shot.notes)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_unpack", lambda *_: pytest.fail("unpacked"))
    path = packed(tmp_path / "a.zip", a_emd=bytes(archive._SMALL + 1))
    with pytest.raises(UnreadableFileError, match="refused; it would unpack from"):
        read(path)


def test_more_than_the_disk_or_the_limit_is_refused(velox, tmp_path, monkeypatch):
    path = packed(tmp_path / "a.zip", a_emd=velox)
    size = velox.stat().st_size
    monkeypatch.setattr(archive, "LARGEST", size - 1)
    with pytest.raises(UnreadableFileError, match="refused"):
        read(path)
    monkeypatch.setattr(archive, "LARGEST", size)
    full = shutil._ntuple_diskusage(10**9, 10**9, size - 1)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: full)
    with pytest.raises(UnreadableFileError, match="TMPDIR"):
        read(path)


def test_a_member_larger_than_it_says_is_damaged(velox, tmp_path):
    path = packed(tmp_path / "a.zip", a_emd=velox)
    data, size = path.read_bytes(), struct.pack("<L", velox.stat().st_size)
    assert data.count(size) == 2  # before the member and in the list at the end
    path.write_bytes(data.replace(size, struct.pack("<L", 1000)))
    with pytest.raises(UnreadableFileError, match="a.zip!/a.emd: damaged"):
        read(path)


def test_encrypted_and_damaged_zips_give_one_clear_error(velox, tmp_path):
    path = packed(tmp_path / "a.zip", a_emd=velox)
    data = path.read_bytes()
    flagged = bytearray(data)
    flagged[6] |= 1
    flagged[data.index(b"PK\x01\x02") + 8] |= 1
    for changed, why in (
        (bytes(flagged), "encrypted"),
        (data[: len(data) // 2], "not a .zip file"),
        (b"no zip at all", "not a .zip file"),
        (data[:200] + bytes(100) + data[300:], "a.emd: damaged in the zip"),
    ):
        path.write_bytes(changed)
        with pytest.raises(UnreadableFileError, match=f"a.zip.*{why}") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_reader_that_is_killed_leaves_nothing_behind(velox, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = packed(tmp_path / "a.zip", a_emd=velox)
    with KillableReader(timeout=60) as reader:
        (shot,) = reader.read(path)
        assert shot.path == f"{path}!/a.emd" and np.array_equal(shot.image.data, IMAGE)
        (own,) = scratch.iterdir()
        (own / "cimp-unpacked").mkdir()  # as after a reading that was cut short
    assert not list(scratch.iterdir())
