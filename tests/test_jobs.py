"""Many files: what is done stays done, what goes wrong with one file costs one result, and one run works at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cimp_core import job_cluster, jobs
from cimp_core.errors import CimpError, OutOfRangeError, UnreadableFileError
from cimp_core.inputs import Source, list_inputs
from cimp_core.jobs import FileJob, Limits
from cimp_core.microscope.velox_writer import write_velox
from cimp_core.microscope.worker import KillableReader

TESTS = Path(__file__).parent
seen = []


class Idle:
    """Stands for a reader where none is needed: no process."""

    def __init__(self, *_, **__):
        self.timeout = None

    def start(self):
        pass

    def close(self):
        pass


def measure(reader, path, options):
    """The text of a file as a number, and that many zeros."""
    seen.append(Path(path).name)
    text = Path(path).read_text()
    if text == "bad":
        raise UnreadableFileError(f"{path}: of no use")
    if text == "bug":
        raise ZeroDivisionError("of our own making")
    return {"value": int(text) * options.get("times", 1)}, [np.full(int(text), 7, np.uint16)]


def touch(reader, path, options):
    """Change the file while it is read."""
    Path(path).write_text("changed meanwhile")
    return {}, []


def slow(reader, path, options):
    time.sleep(0.05)
    return measure(reader, path, options)


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(jobs, "KillableReader", Idle)
    seen.clear()


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i:02d}").write_text({4: "bad", 5: "bug"}.get(i, str(i)))
    return [Source(f.name, str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir())]


def run(tmp_path, sources, task=measure, options=None, limits=None, **how):
    with FileJob(tmp_path / "work", task, sources, options or {}, limits or Limits()) as job:
        job.run(**({} if "scheduler" in how else {"workers": 2}) | how)
        return [
            (r.record, None if r.failed else r.array(0).tolist() if r.record else [], r.failed) for r in job.results()
        ]


def test_every_file_has_its_result_in_order_whatever_went_wrong(idle, tmp_path, sources):
    told = []
    results = run(tmp_path, sources, progress=lambda done, total: told.append((done, total)))
    for i, (record, array, failed) in enumerate(results):
        if i == 4:
            assert failed == "of no use"  # without the path, which the reader of a report knows
        elif i == 5:
            assert "an error of this program" in failed and "of our own making" in failed
        else:
            assert (record, array, failed) == ({"value": i}, [7] * i, None)
    assert told == [(i, 30) for i in range(31)]


def test_what_is_done_is_not_done_again(idle, tmp_path, sources):
    first = run(tmp_path, sources[:20])
    seen.clear()
    assert run(tmp_path, sources)[:20] == first
    assert sorted(seen) == [f"{i:02d}" for i in range(20, 30)]


def test_a_changed_file_and_other_options_are_done_again_and_a_failure_under_other_limits(idle, tmp_path, sources):
    run(tmp_path, sources)
    seen.clear()
    os.utime(sources[3].path, ns=(0, sources[3].mtime_ns + 1))
    sources[3] = Source(sources[3].name, sources[3].path, sources[3].size, sources[3].mtime_ns + 1)
    run(tmp_path, sources)
    assert seen == ["03"]
    seen.clear()
    run(tmp_path, sources, limits=Limits(timeout=99.0))
    assert sorted(seen) == ["04", "05"]
    seen.clear()
    assert run(tmp_path, sources, options={"times": 2})[3][0] == {"value": 6}
    assert len(seen) == 30


@pytest.mark.parametrize("damage", ["no array", "short array", "no document", "empty document", "half a document"])
def test_a_half_written_result_is_no_result(idle, tmp_path, sources, damage):
    expected = run(tmp_path, sources)
    seen.clear()
    document = next(p for p in tmp_path.glob("work/parts/*/*.json") if json.loads(p.read_text())["name"] == "09")
    array = document.with_suffix(".0.npy")
    (array.parent / f"{array.name}.00.part").write_bytes(b"half")
    if "array" in damage:
        array.unlink() if damage == "no array" else array.write_bytes(array.read_bytes()[:-1])
    else:
        content = document.read_text()
        document.unlink() if damage == "no document" else document.write_text(
            "" if damage == "empty document" else content[:50]
        )
    assert run(tmp_path, sources) == expected
    assert seen == ["09"]
    assert not list(tmp_path.glob("work/parts/*/*.part"))


def test_a_file_that_changes_while_it_is_read_is_tried_again(idle, tmp_path, sources):
    (result,) = run(tmp_path, sources[:1], task=touch)
    assert result[2] == "the file changed or vanished while it was read"
    assert not list(tmp_path.glob("work/parts/*/*"))


def test_submissions_are_few_however_many_files(idle, tmp_path, monkeypatch, sources):
    import distributed

    waiting, most, submit = [0], [0], distributed.Client.submit

    def counted(self, *arguments, **options):
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return submit(self, *arguments, **options)

    monkeypatch.setattr(distributed.Client, "submit", counted)
    run(
        tmp_path,
        sources,
        task=slow,
        workers=1,
        progress=lambda done, _: waiting.__setitem__(0, waiting[0] - (done > 0)),
    )
    assert most[0] <= 8


def test_no_port_is_open_to_other_machines(idle, tmp_path, sources):
    psutil, heard = pytest.importorskip("psutil"), []

    def listen(*_):
        connections = psutil.Process().net_connections()
        heard.extend(c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN)

    run(tmp_path, sources, progress=listen)
    assert set(heard) <= {"127.0.0.1"}


def test_nothing_to_do_starts_nothing(idle, tmp_path, monkeypatch, sources):
    run(tmp_path, sources)
    monkeypatch.setattr(jobs, "_client", None)
    assert len(run(tmp_path, sources)) == 30


def test_impossible_requests_are_refused(idle, tmp_path, monkeypatch, sources):
    for how in ({"workers": 0}, {"workers": 2, "scheduler": "tcp://127.0.0.1:1"}):
        with pytest.raises(OutOfRangeError, match="workers"):
            run(tmp_path, sources, **how)
    for limits in ({"timeout": 0}, {"memory": -1}):
        with pytest.raises(OutOfRangeError, match="must be above 0"):
            Limits(**limits)
    assert Limits().seconds(10**9) > 100 > Limits().seconds(10**6)
    monkeypatch.setattr(job_cluster, "_PATIENCE", 0.5)
    with pytest.raises(CimpError, match="no dask scheduler answers"):
        run(tmp_path, sources, scheduler="tcp://127.0.0.1:1")


def test_no_room_stops_the_run_and_blames_no_file(idle, tmp_path, monkeypatch, sources):
    from cimp_core.work_folder import WorkFolder

    def full(self, *_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CimpError, match="No space left.*make room"):
        patch.setattr(WorkFolder, "write", full)
        run(tmp_path, sources)
    assert run(tmp_path, sources)[7][0] == {"value": 7}


HOLD = """
import sys, time
from cimp_core.work_folder import WorkFolder
folder = WorkFolder(sys.argv[1]); folder.lock(); print("held", flush=True); time.sleep(60)
"""


def test_one_run_at_a_time_and_a_dead_one_is_in_nobodys_way(idle, tmp_path, sources):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "work")], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CimpError, match=f"process {other.pid} on .* is at work here"):
            run(tmp_path, sources)
        assert not seen
        other.send_signal(signal.SIGKILL)
    assert len(run(tmp_path, sources)) == 30


def test_ctrl_c_keeps_what_is_done_and_says_so(idle, tmp_path, sources):
    main = threading.main_thread().ident

    def stop(done, total):
        if done == 6:
            signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="6 of 30 files are done.*same command goes on"):
        run(tmp_path, sources, task=slow, progress=stop)
    done = {json.loads(p.read_text())["name"] for p in tmp_path.glob("work/parts/*/*.json")}
    assert len(done) >= 6
    time.sleep(0.3)  # for what was still at work
    assert {json.loads(p.read_text())["name"] for p in tmp_path.glob("work/parts/*/*.json")} == done
    assert not jobs._readers
    seen.clear()
    assert len(run(tmp_path, sources, task=slow)) == 30
    assert sorted(done | set(seen)) == [s.name for s in sources] and not done & set(seen)


class Rigged(KillableReader):
    _module = "rigged_worker"


def take_shapes(reader, path, options):
    return {"shapes": [list(shot.image.data.shape) for shot in reader.read(path)]}, []


def test_hanging_crashing_and_greedy_files_cost_one_result_each(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setattr(jobs, "KillableReader", Rigged)
    image = np.arange(600, dtype=np.uint16).reshape(20, 30)
    from velox_files import SETTINGS

    (tmp_path / "drive").mkdir()
    names = ["crash", "fine 1", "fine 2", "greedy", "hang", "last"]
    for name in names:
        write_velox(tmp_path / f"drive/{name}.emd", image, SETTINGS)
    found = list_inputs(tmp_path / "drive").sources
    results = run_shapes(tmp_path, found, workers=2)
    failed = {name: failed for name, (_, failed) in zip(names, results, strict=True) if failed}
    assert set(failed) == {"crash", "greedy", "hang"}
    assert "crashed its reader" in failed["crash"] and "longer than 6 s" in failed["hang"]
    assert "needs more memory" in failed["greedy"]
    assert all(record == {"shapes": [[20, 30]]} for record, failed in results if not failed)
    assert not jobs._readers  # nobody is left behind


def run_shapes(tmp_path, sources, **how):
    with FileJob(tmp_path / "work", take_shapes, sources, {}, Limits(timeout=6.0)) as job:
        job.run(**how)
        return [(r.record, r.failed) for r in job.results()]


def test_a_reader_that_cannot_start_stops_the_run(tmp_path, monkeypatch, sources):
    monkeypatch.setattr(Rigged, "_module", "no_such_module")
    monkeypatch.setattr(jobs, "KillableReader", Rigged)
    with pytest.raises(CimpError, match="the reader process did not start"):
        run(tmp_path, sources)
    assert not list(tmp_path.glob("work/parts/*/*"))


def test_a_scheduler_elsewhere_gives_the_same(tmp_path, monkeypatch, sources):
    from distributed import LocalCluster

    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    how = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(host="127.0.0.1", **how) as cluster:
        there = run(tmp_path, sources, scheduler=cluster.scheduler_address)
        hidden = [Source("x", str(tmp_path / "x"), 1, 0)]
        monkeypatch.setattr(jobs, "_same", lambda source: True)  # here it is there, but the workers do not see it
        with pytest.raises(CimpError, match="does not see this file.*share this file system"):
            run(tmp_path, hidden, scheduler=cluster.scheduler_address)
    monkeypatch.setattr(jobs, "KillableReader", Idle)
    assert run(tmp_path / "again", sources) == there
