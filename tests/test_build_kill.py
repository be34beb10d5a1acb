"""A build that is killed again and again ends with the same bytes, and reads nothing twice that it had finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from velox_files import SETTINGS

from cimp_core.dataset import check_dataset
from cimp_core.microscope.velox_writer import write_velox

COUNT, WORKERS, KILLS = 60, 2, 10
WRITTEN = ("mine.h5", "mine.report.csv", "mine.report.html")


def start(folder, log, program=("killed_build.py",)):
    program = [str(Path(__file__).parent / program[0]), str(log)] if len(program) == 1 else list(program)
    command = [sys.executable, *program, "dataset", "build", str(folder.parent / "drive"), "--out", "mine.h5"]
    return subprocess.Popen([*command, "--workers", str(WORKERS)], cwd=folder, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


def finished(folder):
    """Numbers of the files whose results are wholly there."""
    done = set()
    for path in folder.glob("mine.h5.work/parts/*/*.json"):
        if path.with_suffix(".0.npy").exists():
            done.add(int(json.loads(path.read_text())["name"][:-4].rpartition("/")[2]))
    return done


def wait_for(condition, process):
    while process.poll() is None and not condition():
        time.sleep(0.002)


def test_ten_kills_change_nothing(tmp_path):
    (tmp_path / "drive").mkdir()
    for i in range(COUNT):
        (tmp_path / f"drive/{i:03d}.emd").write_bytes(b"x")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    process = start(whole, tmp_path / "whole.log")
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    expected = {name: (whole / name).read_bytes() for name in WRITTEN}
    assert check_dataset(whole / "mine.h5") == []

    rng = np.random.default_rng(0)
    moments = sorted(rng.integers(0, COUNT, KILLS - 2).tolist()) + [COUNT, COUNT]  # and two when all is read
    killed, reads = 0, 0
    for number, moment in enumerate(moments):
        before, log = finished(broken), tmp_path / f"{number}.log"
        process = start(broken, log)
        wait_for(lambda at=moment: len(finished(broken)) >= at, process)
        time.sleep(rng.uniform(0, 0.05))
        killed += process.poll() is None
        kill(process) if process.poll() is None else process.stderr.close()
        now = [int(line) for line in log.read_text().split()] if log.exists() else []
        assert not before & set(now) and len(now) == len(set(now))
        reads += len(now)
        out = broken / "mine.h5"
        assert not out.exists() or out.read_bytes() == expected["mine.h5"]
        if out.exists():
            break
    assert killed >= KILLS - 2
    if not (broken / "mine.h5").exists():
        process = start(broken, tmp_path / "last.log")
        assert process.wait() == 0, process.stderr.read()
        process.stderr.close()
        reads += len((tmp_path / "last.log").read_text().split()) if (tmp_path / "last.log").exists() else 0
        assert sorted(p.name for p in broken.iterdir()) == sorted(WRITTEN)
    assert COUNT <= reads <= COUNT + killed * WORKERS
    assert {name: (broken / name).read_bytes() for name in WRITTEN} == expected


def test_ctrl_c_in_the_terminal_says_how_to_go_on_and_blames_no_file(tmp_path):
    """With real readers, which the terminal's signal reaches too."""
    (tmp_path / "drive").mkdir()
    rng = np.random.default_rng(0)
    for i in range(300):
        image = rng.integers(2**16, size=(64, 64)).astype(np.uint16)
        write_velox(tmp_path / f"drive/{i:03d}.emd", image, SETTINGS)
    folder = tmp_path / "out"
    folder.mkdir()
    process = start(folder, None, ("-c", "from cimp_core.cli import main; main()"))
    wait_for(lambda: len(finished(folder)) >= 20, process)
    os.killpg(process.pid, signal.SIGINT)
    said = process.stderr.read().decode()
    assert process.wait() == 130 and "files are done" in said and "the same command goes on" in said, said
    process.stderr.close()
    documents = [json.loads(p.read_text()) for p in folder.glob("mine.h5.work/parts/*/*.json")]
    assert 20 <= len(documents) < 300 and not any(d["failed"] for d in documents)
    assert not (folder / "mine.h5").exists()
