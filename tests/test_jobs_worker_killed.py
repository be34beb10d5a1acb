"""A worker of a cluster is killed while it works on a drive: no file is lost, none that was finished is done again."""

import os
import signal
from pathlib import Path

from logged_task import finish

from cimp_core import jobs
from cimp_core.inputs import Source
from cimp_core.jobs import FileJob, Limits

COUNT = 12


def test_nothing_is_lost_and_nothing_done_twice(tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    sources = []
    for i in range(COUNT):
        path = tmp_path / f"{i:02d}"
        path.write_text("x")
        sources.append(Source(path.name, str(path), 1, path.stat().st_mtime_ns))
    log, done_at_death = tmp_path / "log", []
    how = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(host="127.0.0.1", **how) as cluster:
        pids = [worker.process.pid for worker in cluster.workers.values()]

        def kill(done, total):
            if done == 4:
                done_at_death.extend(p.name for p in tmp_path.glob("work/parts/*/*.json"))
                os.kill(pids[0], signal.SIGKILL)

        with FileJob(tmp_path / "work", finish, sources, {"log": str(log)}, Limits()) as job:
            job.run(scheduler=cluster.scheduler_address, progress=kill)
            results = [(r.source.name, r.record, r.failed) for r in job.results()]
    assert results == [(s.name, {"name": s.name}, None) for s in sources]
    assert len(done_at_death) >= 4
    names = log.read_text().split()
    # Only the file that was in hand may come twice: it was begun, but its result was not there.
    assert set(names) == {s.name for s in sources} and len(names) <= COUNT + 1


def test_a_result_that_is_there_is_not_made_again(tmp_path):
    """As when a worker died between writing a result and saying so."""
    path = tmp_path / "a"
    path.write_text("x")
    source = Source("a", str(path), 1, path.stat().st_mtime_ns)
    job = FileJob(tmp_path / "work", finish, [source], {"log": str(tmp_path / "log")}, Limits())
    with job:
        document = {"name": "a", "failed": None, "limits": Limits().stamp, "record": {}}
        job.folder.write(job._keys[0], document)
        arguments = (finish, source, job._keys[0], job.options, Limits(), job.folder.path, "token")
        assert jobs._one(*arguments) == "done"
    assert not (tmp_path / "log").exists()
