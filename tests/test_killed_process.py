"""A process of a training under torchrun dies: it is started again, or the command is, and the end is the same."""

import json
import subprocess
import sys

import dying_worker
import pytest
import torch


def torchrun(folder, dies_at, restarts):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", restarts, dying_worker.__file__, folder, dies_at]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


def end(folder):
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return torch.load(folder / "end.pt"), [{k: v for k, v in entry.items() if k != "per_second"} for entry in log]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = torchrun(folder, -1, 0)
    assert done.returncode == 0, done.stderr[-3000:]
    return end(folder)


def same(a, b):
    for name, value in a[0].items():
        assert torch.equal(value, b[0][name]), name
    assert a[1] == b[1]


def test_torchrun_starts_it_again_and_the_losses_are_those_of_the_uninterrupted_run(whole, tmp_path):
    done = torchrun(tmp_path / "a", 15, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "a/died").exists() and (tmp_path / "a/restarts.json").read_text() == "1"
    same(whole, end(tmp_path / "a"))


def test_the_same_command_goes_on_from_the_last_checkpoint(whole, tmp_path):
    killed = torchrun(tmp_path / "a", 15, 0)
    assert killed.returncode != 0 and "Signal 9" in killed.stderr
    assert torch.load(tmp_path / "a/checkpoint.pt", weights_only=True)["step"] == 12
    done = torchrun(tmp_path / "a", 15, 0)
    assert done.returncode == 0, done.stderr[-3000:]
    same(whole, end(tmp_path / "a"))
