"""Data sets on a server: a part is read for a part, whole files arrive whole, and every failure is one clear line."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from bucket_server import serve
from dataset_samples import PLAIN
from typer.testing import CliRunner

from cimp_core import http_ranges, remote
from cimp_core.cli.dataset import app
from cimp_core.dataset import check_dataset, open_dataset, write_dataset
from cimp_core.errors import CimpError, SchemaError, UnreadableFileError
from cimp_core.remote import RemoteFile, download

COUNT, SIDE = 60, 512
HUB = "hf://buckets/lab/set/set.h5"


def picture(i):
    return np.random.default_rng(i).integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of 31 MB: ten series of six frames."""
    folder = tmp_path_factory.mktemp("bucket")
    raw = np.array(PLAIN) * np.random.default_rng(0).uniform(0.5, 2, (COUNT, 7))
    frames = {"frame_indices": np.arange(COUNT) % 6, "total_frames": np.full(COUNT, 6)}
    paths = [f"day {i // 24}/series {i // 6}.emd" for i in range(COUNT)]
    write_dataset(folder / "set.h5", map(picture, range(COUNT)), raw, paths, **frames)
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(http_ranges, "_WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(http_ranges, "_TIMEOUT", 10.0)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with serve(folder) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


@pytest.fixture(params=["hub", "web"])
def url(request, server):
    return HUB if request.param == "hub" else server.web("set.h5")


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def parts(folder):
    return sorted(path.name for path in folder.iterdir())


def test_opening_reads_the_table_and_an_image_its_own_bytes(url, server, folder):
    size = (folder / "set.h5").stat().st_size
    assert size > 31e6
    data = open_dataset(url)
    assert len(data) == COUNT and "set.h5: 60 images" in repr(data) and data.path == url
    opening = data.remote.fetched
    assert 0 < opening < 2.5e6
    np.testing.assert_array_equal(data.image(25), picture(25))
    assert data.remote.fetched - opening <= 2 * SIDE * SIDE + 3 * 2**18
    before = data.remote.fetched
    crop = data.crops([40], 64, np.random.default_rng(0), flips=False)[0]
    assert data.remote.fetched - before < 4 * 2**18 and np.isin(crop, picture(40)).all()
    assert data.remote.fetched <= server.sent() <= data.remote.fetched + 1  # the one byte that asks for the size


def test_what_is_kept_is_not_fetched_again_and_is_bounded(url, monkeypatch):
    file = RemoteFile(url)
    assert file.read(8) == b"\x89HDF\r\n\x1a\n"
    after = file.fetched
    file.seek(2)
    assert file.read(100)[:2] == b"DF" and file.fetched == after
    monkeypatch.setattr(remote, "_KEPT", 4)
    for start in range(0, file.size, 2**18):
        file.seek(start)
        file.read(10)
        assert sum(map(len, file._blocks.values())) <= 4 * 2**18
    assert file.seek(-10, 2) == file.size - 10 and len(file.read(100)) == 10 and file.read(5) == b""


def test_any_range_is_the_right_bytes(url, folder):
    whole, file = (folder / "set.h5").read_bytes(), RemoteFile(url)
    rng = np.random.default_rng(0)
    for length in (1, 5000, 2**18, 2**18 + 1, 3 * 2**18, 2**20 + 7):
        for start in rng.integers(0, len(whole), 6):
            file.seek(start)
            before = file.fetched
            assert file.read(length) == whole[start : start + length]
            if length > 2**20:  # as an image: exactly its own bytes
                assert file.fetched - before == len(whole[start : start + length])


def test_views_share_the_file_and_copies_open_their_own(url):
    data = open_dataset(url)
    view = data.view([7, 3])
    assert view.remote is data.remote
    np.testing.assert_array_equal(view.image(1), picture(3))
    data.close()
    np.testing.assert_array_equal(view.image(0), picture(7))
    text = pickle.dumps(view)
    assert len(text) < 100_000
    copy = pickle.loads(text)
    np.testing.assert_array_equal(copy.image(0), picture(7))
    assert copy.remote is not view.remote


def _sum(data, i, queue):
    queue.put(int(data.image(i).sum()))


@pytest.mark.parametrize(("method", "url"), [("fork", "hub"), ("fork", "web"), ("spawn", "hub")], indirect=["url"])
def test_worker_processes_read_at_the_same_time(url, method):
    data = open_dataset(url)
    data.image(0)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_sum, args=(data, i, queue)) for i in (1, 2)]
    for worker in workers:
        worker.start()
    assert int(data.image(5).sum()) == picture(5).sum()
    found = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(found) == sorted(int(picture(i).sum()) for i in (1, 2))


@pytest.mark.parametrize("url", ["hub"], indirect=True)
def test_a_data_loader_reads_in_workers(url):
    from torch.utils.data import DataLoader

    class Images:
        data = open_dataset(url)

        def __len__(self):
            return 6

        def __getitem__(self, i):
            return int(self.data.image(i).sum())

    loader = DataLoader(Images(), batch_size=None, num_workers=2)
    assert list(loader) == [picture(i).sum() for i in range(6)]


PASSING = ["drop", "cut", "short", "slow", 500, 503, 429]


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_costs_nothing_but_time(url, server, fault):
    data = open_dataset(url)
    server.faults = [fault, None, fault]
    np.testing.assert_array_equal(data.image(11), picture(11))
    np.testing.assert_array_equal(data.image(12), picture(12))
    assert server.faults == []


LASTING = {
    401: r"access refused \(401\).*log in",
    403: r"access refused \(403\).*log in",
    404: r"no such file on the server \(404\)",
    416: r"shorter than it was \(416\)",
    418: "the server answers 418",
    500: "the server answers 500; check the network",
    "drop": "the server broke off.*check the network",
    "short": "the transfer stopped at byte",
    "whole": "sent the whole file for a range|serves no byte ranges",
    "grown": "has changed on the server|shorter than it was",
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_lasts_is_one_line_with_the_address(url, server, fault):
    data = open_dataset(url)
    server.always = fault
    for read in (lambda: data.image(30), lambda: open_dataset(url).image(3), lambda: data.shape(50)):
        with pytest.raises(UnreadableFileError, match=LASTING[fault]) as error:
            read()
        assert str(error.value).startswith(f"{url}: ") and "\n" not in str(error.value)
    server.always = None
    np.testing.assert_array_equal(data.image(30), picture(30))


def test_a_fault_at_any_moment_of_opening_is_told_as_such(url, server):
    open_dataset(url)
    count = len(server.log)
    assert count > 3
    for moment in range(count):
        server.faults = [None] * moment + [404]
        with pytest.raises(UnreadableFileError, match="no such file on the server"):
            open_dataset(url)
    assert open_dataset(url).image(0).any()


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_bucket_that_cannot_be_read(server, status, tmp_path):
    server.hidden = status
    for act in (lambda: open_dataset(HUB), lambda: download(HUB, tmp_path / "x.h5")):
        with pytest.raises(UnreadableFileError, match=r"access refused|no such file|the server answers 500") as error:
            act()
        assert str(error.value).startswith(HUB) and "\n" not in str(error.value) and parts(tmp_path) == []


def test_absent_files_and_addresses_that_are_none(server, tmp_path):
    for address in (
        "hf://buckets/lab/set/none.h5",
        server.web("none.h5"),
        "hf://buckets/lab/other/set.h5",
        "hf://buckets/lab/set/sub/none.h5",
    ):
        with pytest.raises(UnreadableFileError, match="no such file on the server"):
            open_dataset(address)
    with pytest.raises(UnreadableFileError, match="hf://buckets/lab/set: .*"):
        open_dataset("hf://buckets/lab/set")
    for address in ("http://[", "hf://buckets", "hf://"):
        with pytest.raises(UnreadableFileError, match="not an address|no such file|cannot be reached"):
            open_dataset(address)
    with pytest.raises(UnreadableFileError, match="not an address"):
        download("ftp://host/file", tmp_path / "x")


def test_no_server_at_all_is_said_at_once(folder, monkeypatch, tmp_path):
    with serve(folder) as server:
        address, web = server.address, server.web("set.h5")
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(http_ranges.time, "sleep", lambda _: pytest.fail("waited"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for url in (HUB, web):
        for act in (lambda url=url: open_dataset(url), lambda url=url: download(url, tmp_path / "x.h5")):
            with pytest.raises(UnreadableFileError, match="server cannot be reached.*check the network connection"):
                act()
        assert parts(tmp_path) == []


def test_offline_by_choice_is_said(url, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for act in (lambda: open_dataset(url), lambda: download(url, tmp_path / "x.h5")):
        with pytest.raises(UnreadableFileError, match="HF_HUB_OFFLINE is set.*unset it"):
            act()


def test_a_token_is_sent_only_where_it_is_needed(server, monkeypatch):
    seen = []
    find = http_ranges._find_hub
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: "hf_secret")
    source = find(HUB)
    assert "authorization" not in {name.lower() for name in source.headers}
    server.hidden = 401

    class Files:
        def __init__(self, token, **_):
            seen.append(token)

        def info(self, _):
            if seen[-1] is False:
                raise FileNotFoundError("hidden")
            return {"type": "file", "size": 3}

        def url(self, _):
            return "http://127.0.0.1/x"

    monkeypatch.setattr("huggingface_hub.HfFileSystem", Files)
    assert find(HUB).headers["authorization"] == "Bearer hf_secret" and seen == [False, True]


def test_a_whole_file(url, server, folder, tmp_path):
    steps, out = [], tmp_path / "copy.h5"
    assert download(url, out, digest(folder / "set.h5").upper(), progress=lambda *step: steps.append(step)) == out
    size = (folder / "set.h5").stat().st_size
    assert digest(out) == digest(folder / "set.h5") and parts(tmp_path) == ["copy.h5"]
    assert steps[0] == (0, size) and steps[-1] == (size, size) and steps == sorted(steps)
    with pytest.raises(CimpError, match="exists already.*--force"):
        download(url, out)
    download(url, out, force=True)
    with pytest.raises(CimpError, match="no folder"):
        download(url, tmp_path / "none" / "x.h5")


@pytest.mark.parametrize("fault", ["cut", "short", "drop", 500])
def test_a_broken_transfer_goes_on_where_it_broke(url, server, folder, tmp_path, fault):
    server.faults = [None] * (not url.startswith("hf")) + [fault] * (6 if fault in ("cut", "short") else 2)
    download(url, tmp_path / "copy.h5")
    assert digest(tmp_path / "copy.h5") == digest(folder / "set.h5") and server.faults == []
    assert server.sent() <= (folder / "set.h5").stat().st_size + 1


def test_a_server_without_ranges(server, folder, tmp_path):
    server.ranges, url = False, server.web("set.h5")
    server.faults = [None, "cut"]
    download(url, tmp_path / "copy.h5")
    assert digest(tmp_path / "copy.h5") == digest(folder / "set.h5")
    with pytest.raises(UnreadableFileError, match="serves no byte ranges; fetch the whole file"):
        open_dataset(url)


@pytest.mark.parametrize("url", ["web"], indirect=True)
def test_a_killed_transfer_is_taken_up(url, server, folder, tmp_path):
    size = (folder / "set.h5").stat().st_size
    code = "import os, sys; from cimp_core.remote import download\n"
    code += "download(sys.argv[1], sys.argv[2], progress=lambda n, _: n > 8e6 and os.kill(os.getpid(), 9))"
    killed = subprocess.run([sys.executable, "-c", code, url, str(tmp_path / "copy.h5")], timeout=60)
    assert killed.returncode == -9
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(".copy.h5.") and part.name.endswith(".part") and 4e6 < part.stat().st_size < size
    kept = part.stat().st_size
    server.log.clear()
    download(url, tmp_path / "copy.h5")
    assert digest(tmp_path / "copy.h5") == digest(folder / "set.h5") and parts(tmp_path) == ["copy.h5"]
    assert server.sent() <= size - kept + 1


@pytest.mark.parametrize("url", ["hub"], indirect=True)
def test_what_came_of_another_version_is_not_mixed_in(url, server, folder, tmp_path):
    server.always = None
    stopped = RuntimeError("stop")

    def stop(done, _):
        if done > 5e6:
            raise stopped

    bucket = tmp_path / "bucket"
    bucket.mkdir()
    shutil.copy(folder / "set.h5", bucket)
    server.folder = bucket
    with pytest.raises(RuntimeError, match="stop"):
        download(url, tmp_path / "copy.h5", progress=stop)
    with h5py.File(bucket / "set.h5", "r+") as file:
        file["full_res/000000"][:] = 7
    os.utime(bucket / "set.h5", ns=(1, time.time_ns()))
    download(url, tmp_path / "copy.h5")
    assert digest(tmp_path / "copy.h5") == digest(bucket / "set.h5")


@pytest.mark.parametrize("url", ["web"], indirect=True)
def test_another_checksum_leaves_nothing(url, tmp_path, monkeypatch):
    with pytest.raises(UnreadableFileError, match=r"sha256 is [0-9a-f]{64}, expected 00.*what came was removed"):
        download(url, tmp_path / "copy.h5", "00" * 32)
    monkeypatch.setitem(remote.KNOWN_SHA256, url, "11" * 32)
    with pytest.raises(UnreadableFileError, match="expected 11"):
        download(url, tmp_path / "copy.h5")
    assert parts(tmp_path) == []


def test_a_disk_too_small_is_said_before_anything_is_fetched(url, server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 10**7))
    with pytest.raises(CimpError, match=r"needs 0\.03 GB more, .* has 0\.01 GB free"):
        download(url, tmp_path / "copy.h5")
    assert parts(tmp_path) == [] and server.sent() <= 1


@pytest.mark.parametrize("url", ["web"], indirect=True)
def test_two_processes_do_not_mix_one_part(url, tmp_path):
    with pytest.raises(RuntimeError):
        download(url, tmp_path / "copy.h5", progress=lambda *_: exec("raise RuntimeError"))
    (part,) = tmp_path.iterdir()
    with open(part, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CimpError, match="another process is fetching it"):
            download(url, tmp_path / "copy.h5")
    download(url, tmp_path / "copy.h5")


@pytest.mark.parametrize("url", ["web"], indirect=True)
@pytest.mark.parametrize("what", ["gone", "replaced"])
def test_a_part_that_another_process_finished_meanwhile_leaves_no_hole(url, folder, tmp_path, monkeypatch, what):
    with pytest.raises(RuntimeError):
        download(url, tmp_path / "copy.h5", progress=lambda done, _: exec("raise RuntimeError") if done else None)
    (part,) = tmp_path.iterdir()
    assert part.stat().st_size
    locked = remote._locked

    def late(part, url):
        part.unlink()
        if what == "replaced":
            part.write_bytes(b"")
        return locked(part, url)

    monkeypatch.setattr(remote, "_locked", late)
    download(url, tmp_path / "copy.h5")
    assert (tmp_path / "copy.h5").read_bytes() == (folder / "set.h5").read_bytes()


@pytest.mark.parametrize("url", ["hub"], indirect=True)
def test_command_line(url, folder, tmp_path):
    run, out = CliRunner().invoke, tmp_path / "copy.h5"
    done = run(app, ["fetch", url, "--out", str(out), "--json"])
    told = json.loads(done.stdout)
    assert told["sha256"] == digest(folder / "set.h5") and told["compared"].startswith("with nothing")
    assert told["bytes"] == out.stat().st_size
    again = run(app, ["fetch", url, "--out", str(out), "--sha256", told["sha256"], "--force"])
    assert again.exit_code == 0 and "with the checksum expected" in again.stdout
    checked = run(app, ["check", url])
    assert checked.exit_code == 0 and "only the first and the last" in checked.stdout
    told = json.loads(run(app, ["info", url, "--json"]).stdout)
    assert told["images"] == COUNT and told["sizes_looked_at"] == 20 and 0 < told["megabytes_fetched"] < 15
    command = [
        sys.executable,
        "-c",
        "from cimp_core.cli import main; main()",
        "dataset",
        "info",
        "http://127.0.0.1:9/set.h5",
    ]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("cimp: http://127.0.0.1:9/set.h5: the server cannot be reached")


def test_a_truncated_file_names_both_sizes(folder, tmp_path, server):
    whole = (folder / "set.h5").read_bytes()
    (tmp_path / "set.h5").write_bytes(whole[: len(whole) // 3])
    server.folder = tmp_path
    for path in (tmp_path / "set.h5", HUB):
        with pytest.raises(
            UnreadableFileError, match=f"has {len(whole) // 3} bytes and its header states {len(whole)}"
        ):
            open_dataset(path)
    assert "truncated" in check_dataset(tmp_path / "set.h5")[0]


def test_frames_of_a_series(folder):
    data = open_dataset(folder / "set.h5")
    assert data.series(8).tolist() == [6, 7, 8, 9, 10, 11]
    view = data.view([11, 3, 7, 20, 6])
    assert view.series(2).tolist() == [4, 2, 0]
    for kind in ("image", "session"):
        for seed in range(5):
            split = data.split(kind, val=0.3, test=0.3, seed=seed)
            places = [set(part.filepaths) for part in split]
            assert all(places) and not places[0] & places[1] | places[0] & places[2] | places[1] & places[2]
            assert all(len(part.series(i)) == 6 for part in split for i in range(len(part)))


def test_two_series_of_one_source_are_told_apart(tmp_path):
    raw = np.tile(PLAIN, (7, 1))
    frames = {"frame_indices": [0, 1, 2, 0, 1, 2, 0], "total_frames": [3, 3, 3, 3, 3, 3, 1]}
    images = [np.zeros((9, 9), np.uint16)] * 7
    data = open_dataset(write_dataset(tmp_path / "s.h5", images, raw, ["a.emd"] * 7, **frames))
    assert [data.series(i).tolist() for i in (1, 5, 6)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_stack_as_one_entry_is_said(tmp_path, server):
    path = write_dataset(tmp_path / "set.h5", [np.zeros((9, 9), np.uint16)] * 2, np.tile(PLAIN, (2, 1)), ["a", "b"])
    with h5py.File(path, "r+") as file:
        for name in ("full_res/000000", "full_res/000001"):
            del file[name]
            file[name] = np.zeros((5, 9, 9), np.uint16)
    server.folder = tmp_path
    for place in (path, HUB):
        with pytest.raises(SchemaError, match=r"full_res/000000: a stack of shape \(5, 9, 9\), expected one 2-D image"):
            open_dataset(place)
