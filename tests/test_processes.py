"""Two processes train as one does: gathered losses, the loop, and the command under torchrun."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import two_processes
from typer.testing import CliRunner

from cimp_core.cli import app
from cimp_core.dataset import write_dataset
from cimp_core.errors import OutOfRangeError
from cimp_core.processes import share_of_batch


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found, and their folder."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(two_processes.__file__, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)], folder


@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_gathered_losses_give_the_gradients_of_the_whole_batch(found, name, tile):
    """Five rows here and three there, groups in both; towers, scale and bias; two steps of the optimiser."""
    expected = two_processes.two_steps(name, None, slice(None), gathered=False)
    for process in found[0]:
        for step, reference in zip(process[name, tile], expected, strict=True):
            assert step.keys() == reference.keys() and {"loss", "scale", "bias", "image.weight"} <= step.keys()
            for key, value in reference.items():
                torch.testing.assert_close(step[key], value, rtol=1e-11, atol=1e-13, msg=key)


def test_batch_norm_of_two_processes_is_that_of_the_whole_batch(found):
    """With five rows here and three there; gradients of weight and bias are the terms of each process."""
    for case, *ours in zip(two_processes.NORMS, *(process["norms"] for process in found[0]), strict=True):
        whole = two_processes.normalised(*case, slice(None))
        for name, value in whole.items():
            parts = [process[name] for process in ours]
            if name in ("y", "x"):
                parts = [torch.cat(parts)]
            elif name.endswith("gradient"):
                parts = [sum(parts)]
            for part in parts:
                about = partial("{} {}: {}".format, case, name)
                torch.testing.assert_close(part, value, rtol=1e-11, atol=1e-13, msg=about)
        assert ours[0]["y"][:3].stride() == whole["y"][:3].stride()


def test_rows_that_cannot_be_gathered_are_refused_in_both_processes(found):
    for process in found[0]:
        assert "[2, 2] rows of [3, 4] numbers" in process["kinds"]
        assert "[0, 2] rows" in process["empty"]


def close(a, b):
    for name, value in a["state"].items():
        torch.testing.assert_close(b["state"][name], value, rtol=1e-9, atol=1e-11, msg=name)
    for one, two in zip(a["log"], b["log"], strict=True):
        assert one.keys() == two.keys()
        np.testing.assert_allclose([*two.values()], [*one.values()], rtol=1e-9)


def test_two_processes_train_as_one(found, tmp_path):
    """Weights, mean of the weights, statistics of batch norms, dropout and log are those of the same batches."""
    one = two_processes.run(tmp_path / "one")
    (first, second), folder = found
    close(one, first["whole"])
    close(first["whole"], second["whole"])
    assert first["whole"]["kinds"] == one["kinds"]  # the model is handed back as it was
    assert first["whole"]["calls"] == one["calls"] > 20 and second["whole"]["calls"] == 0
    lines = [json.loads(line) for line in (folder / "whole/log.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in entry.items() if k != "per_second"} for entry in lines] == first["whole"]["log"]


def test_resumed_on_two_processes_bit_for_bit_and_on_one_within_rounding(found):
    processes, folder = found
    for process in processes:
        for name, value in process["whole"]["state"].items():
            assert torch.equal(value, process["resumed"]["state"][name]), name
        assert process["whole"]["log"] == process["resumed"]["log"]
    close(processes[0]["whole"], two_processes.run(folder / "begun", seed=99))


def test_a_nan_in_one_process_stops_both_with_the_same_message(found):
    processes, folder = found
    assert processes[0]["nan"] == processes[1]["nan"]
    assert "step 7: loss nan" in processes[0]["nan"] and "last good state" in processes[0]["nan"]
    assert torch.load(folder / "nan/checkpoint.pt", weights_only=True)["step"] == 6


def test_shares_cover_the_batch_and_unequal_ones_are_refused(found):
    assert [share_of_batch(12, r, 3) for r in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    with pytest.raises(OutOfRangeError, match=r"multiple of 3, such as 9"):
        share_of_batch(8, 0, 3)
    assert all("batch_size 15" in process["uneven"] for process in found[0])


def test_the_command_under_torchrun_follows_the_loss_of_one_process(tmp_path):
    rng = np.random.default_rng(0)
    raw = np.array([20e-12, 2e-6, 0.02, 5e-11, 35.0, -1.2, 0.06]) * rng.uniform(0.7, 1.4, (64, 7))
    raw = raw[np.arange(64) // 2]  # pairs of equal settings: groups that lie in both processes
    images = rng.normal(20000 + 100 * np.arange(64)[:, None, None], 2000, (64, 56, 56)).astype(np.uint16)
    data = write_dataset(tmp_path / "d.h5", images, raw, [f"s{i // 4}/{i}.emd" for i in range(64)])
    settings = {"samples": 320, "batch_size": 32, "crop_size": 48, "log_every": 32, "ema_half_life": 64}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    command = ["pretrain", data, "--profile", "smoke", *options, "--out"]
    two = torchrun("-m", "cimp_core.cli", *command, tmp_path / "two")
    assert two.returncode == 0, two.stderr[-3000:]
    one = CliRunner().invoke(app, [*map(str, command), str(tmp_path / "one")])
    assert one.exit_code == 0, one.output
    logs = [
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("one", "two")
    ]
    assert len(logs[0]) == len(logs[1]) == 10 and logs[0][-1]["loss"] < logs[0][0]["loss"]
    for a, b in zip(*logs, strict=True):
        assert (a["samples"], a["rate"]) == (b["samples"], b["rate"])
        for name in ("loss", "excess", "scale"):
            assert b[name] == pytest.approx(a[name], rel=1e-3), (name, a["samples"])
    assert two.stdout.count("weights.safetensors") == 1  # one process speaks
