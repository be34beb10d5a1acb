"""The script for Slurm: every option exists, and at its time limit it stops the training and asks for another turn."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser
from typer.main import get_command

from cimp_core.cli import app

SCRIPT = Path(__file__).resolve().parents[1] / "book" / "slurm_train.sh"

SBATCH = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "requeue", "open-mode", "signal",
}  # fmt: skip
"""Of the options of sbatch (https://slurm.schedmd.com/sbatch.html) those that are used."""

SRUN = """#!/bin/bash
printf '%s\\n' "$@" > {folder}/srun.txt
trap 'echo ended > {folder}/ended.txt; exit 143' TERM
for i in $(seq {seconds}0); do sleep 0.1; done
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "$@" > {folder}/scontrol.txt; fi
"""


@pytest.fixture
def job(tmp_path):
    """Starts the script as Slurm would, with a training that takes so many seconds."""

    def begin(seconds):
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.format(folder=tmp_path, seconds=seconds))
            path.chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
        environment |= {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
        environment |= {"SLURM_CPUS_PER_TASK": "16"}
        command = ["bash", SCRIPT, "d.h5", "run", "--profile", "full"]
        child = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (tmp_path / "srun.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # srun has set its trap
        return child

    return begin


def test_it_is_bash_and_every_option_exists(job, tmp_path):
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    asked = re.findall(r"^#SBATCH --([a-z-]+)", SCRIPT.read_text(), re.MULTILINE)
    assert set(asked) == SBATCH and len(asked) == len(SBATCH)
    assert job(0).wait(60) == 0
    srun = (tmp_path / "srun.txt").read_text().split("\n")[:-1]
    start = srun.index("torchrun")
    assert srun[:start] == ["--cpus-per-task", "16"]
    found = get_args_parser().parse_args(srun[start + 1 :])
    assert (found.nnodes, found.nproc_per_node, found.rdzv_endpoint) == ("2", "4", "node7:29500")
    assert (found.rdzv_backend, found.rdzv_id, found.max_restarts) == ("c10d", "42-0", 3)
    assert found.module and found.training_script == "cimp_core.cli"
    name, *arguments = found.training_script_args
    parsed = get_command(app).commands[name].make_context(name, arguments)
    assert (str(parsed.params["data"]), str(parsed.params["out"])) == ("d.h5", "run")
    assert parsed.params["resume"] is True and parsed.params["profile"] == "full"


def test_at_the_time_limit_it_ends_the_training_and_goes_back_into_the_queue(job, tmp_path):
    child = job(30)
    child.send_signal(signal.SIGUSR1)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 0 and "goes back into the queue" in said
    assert (tmp_path / "ended.txt").exists() and (tmp_path / "scontrol.txt").read_text() == "requeue 42\n"


def test_a_training_that_failed_fails_the_job(job, tmp_path):
    child = job(30)
    own = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(own[0]), signal.SIGTERM)
    assert child.wait(60) == 143 and not (tmp_path / "scontrol.txt").exists()
