"""A batch ahead, and scalars that are looked at now and then: nothing of it may change a run."""

import dataclasses
import math
import threading

import lightning_fabric as lf
import pytest
import torch
import torch.nn.functional as F
from test_training import QUICK, line_problem, weights_of
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cimp_core import training_steps
from cimp_core.errors import CimpError, UnreadableFileError
from cimp_core.models import Cimp, CimpConfig
from cimp_core.prefetch import batches_ahead
from cimp_core.pretrain import _loss
from cimp_core.training import fit, learning_rate, load_checkpoint
from cimp_core.training_steps import Steps, _computed_as_here, decay_groups

CPU = torch.device("cpu")


def test_a_batch_is_made_in_a_thread_while_the_one_before_is_worked_on():
    made, works = ({step: threading.Event() for step in range(6)} for _ in range(2))
    seen = []

    def make(step):
        assert threading.current_thread() is not threading.main_thread()
        assert step == 2 or works[step - 1].wait(10)  # the work does not wait for the next batch
        made[step].set()
        return (torch.tensor(step),)

    with batches_ahead(make, range(2, 5), CPU, "32-true") as coming:
        for step, (value,) in coming:
            works[step].set()
            assert step == 4 or made[step + 1].wait(10)  # before the work on this one has ended
            assert not made[5].is_set() and value == step
            seen.append(step)
    assert seen == [2, 3, 4] and not made[1].is_set()
    assert not [t for t in threading.enumerate() if t.name.startswith("cimp-batches")]


def test_precisions_that_change_the_default_type_make_a_batch_when_it_is_due():
    make = lambda step: (torch.ones(1) * (threading.current_thread() is threading.main_thread()),)  # noqa: E731
    for precision, here in (("64-true", 1), ("bf16-true", 1), ("32-true", 0), ("bf16-mixed", 0)):
        with batches_ahead(make, range(2), CPU, precision) as coming:
            assert [(step, value.item()) for step, (value,) in coming] == [(0, here), (1, here)], precision


def test_an_error_of_the_thread_is_the_error_and_comes_when_its_step_is_due(tmp_path):
    model, batches, loss = line_problem()

    def failing(step):
        if step == 13:
            raise UnreadableFileError("d.h5: changed while it was read")
        return batches(step)

    done = []
    with pytest.raises(UnreadableFileError, match="changed while it was read") as found:
        fit(model, failing, loss, QUICK, tmp_path, on_step=done.append)
    assert found.value.__notes__ == ["while the batch of step 13 was made"]
    assert done[-1] == 13 * QUICK.batch_size
    assert not [t for t in threading.enumerate() if t.name.startswith("cimp-batches")]


def image_problem():
    """Convolutions, whose kernels lie in memory with their channels last, and a norm."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 1)
    )

    def batches(step):
        x = torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(step))
        return x, x.mean((1, 2, 3))[:, None]

    return model, batches, lambda m, x, y: ((m(x) - y).square().mean(), {})


def test_steps_are_those_of_a_plain_loop_with_an_unfused_optimiser():
    model, batches, loss = image_problem()
    log = fit(model, batches, loss, QUICK)
    plain, _, _ = image_problem()
    optimizer, losses = torch.optim.AdamW(decay_groups(plain, QUICK.weight_decay), fused=False, foreach=False), []
    for step in range(QUICK.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(QUICK, step)
        optimizer.zero_grad()
        x, y = batches(step)
        value = F.mse_loss(plain(x), y)
        value.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), QUICK.clip)
        optimizer.step()
        losses.append(value.item())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert log[0]["loss"] == pytest.approx(sum(losses[:4]) / 4, rel=1e-4)


@pytest.mark.parametrize("what", ["input", "loss alone"])
def test_a_step_that_is_not_finite_changes_no_weight_and_none_after_it_does(what, monkeypatch, tmp_path):
    """The loss is looked at later: by then, other steps were done."""
    model, batches, loss = line_problem()
    config = dataclasses.replace(QUICK, log_every=10**6, validate_every=10**6, checkpoint_every=10**6)
    weights = []

    def broken(step):
        x, y = batches(step)
        return (x * math.inf if step == 9 and what == "input" else x), y, torch.full((16,), float(step == 9))

    def broken_loss(m, x, y, bad):
        value, scalars = loss(m, x, y)
        # Added, it leaves the gradient finite.
        return value + (torch.where(bad[0] > 0, math.inf, 0.0) if what == "loss alone" else 0.0), scalars

    monkeypatch.setattr(training_steps, "LOOK_EVERY", 12)
    with pytest.raises(CimpError, match=r"step 9: loss (nan|inf)"):
        fit(
            model, broken, broken_loss, config, tmp_path, on_step=lambda seen: weights.append(weights_of(model).clone())
        )
    assert len(weights) == 11  # steps 9 and 10 were done, and the twelfth asked
    assert torch.equal(weights[8], weights[9]) and torch.equal(weights[8], weights[10])
    assert torch.equal(weights[8], weights_of(model)) and not torch.equal(weights[7], weights[8])
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_log_is_the_mean_over_its_steps_however_often_they_are_looked_at(monkeypatch):
    logs = []
    for often in (1, 3, 64):
        monkeypatch.setattr(training_steps, "LOOK_EVERY", often)
        model, batches, loss = line_problem()
        log = fit(model, batches, loss, QUICK)
        logs.append([{k: v for k, v in entry.items() if k != "per_second"} for entry in log])
    assert logs[0] == logs[1] == logs[2]


def test_a_checkpoint_from_before_the_fused_optimiser_is_gone_on_with(tmp_path):
    whole, batches, loss = line_problem()
    fit(whole, batches, loss, QUICK, tmp_path / "a")
    half, _, _ = line_problem()
    fit(half, batches, loss, QUICK, tmp_path / "b", stop=10)
    state = load_checkpoint(tmp_path / "b/checkpoint.pt")
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    torch.save(state, tmp_path / "b/checkpoint.pt")
    fit(half, batches, loss, QUICK, tmp_path / "b")
    assert torch.equal(weights_of(whole), weights_of(half))
    assert all(g["fused"] for g in load_checkpoint(tmp_path / "b/checkpoint.pt")["optimizer"]["param_groups"])


class Waits(TorchDispatchMode):
    """Operations for which a processor has to wait for a graphics card."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.name().split("::")[1].split(".")[0]
        if name in ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "equal"):
            self.found.append(name)
        if name in ("index", "index_put_") and any(x is not None and x.dtype == torch.bool for x in arguments[1]):
            self.found.append("mask")
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_nothing_in_a_step_of_pre_training_asks_the_device_for_a_number(kind, monkeypatch):
    fabric = lf.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    run = Steps(fabric, Cimp(CimpConfig(width=8, tile=64, loss=kind)), QUICK, None)
    batch = torch.rand(16, 64, 64) * 1000, torch.randn(16, 7), torch.ones(16, dtype=torch.bool), torch.arange(16) // 2
    run.step(0, 1e-3, _loss, batch)  # tables that are made once are there after it
    tolist = torch.Tensor.tolist
    with Waits() as waits:
        waits.found = []
        monkeypatch.setattr(torch.Tensor, "tolist", lambda x: waits.found.append("tolist") or tolist(x))
        run.step(1, 1e-3, _loss, batch)
        assert waits.found == []
        run.averages()
        assert waits.found == ["tolist"]
        batch[3].unique(), batch[1][batch[2]], float(batch[1].sum())  # the list is not blind
        assert len(waits.found) == 4


def test_a_checkpoint_of_the_unfused_optimiser_is_gone_on_with_fused():
    weight = torch.nn.Parameter(torch.ones(3))
    before, now = torch.optim.AdamW([weight], fused=False), torch.optim.AdamW([weight], fused=True)
    now.register_load_state_dict_pre_hook(_computed_as_here)
    now.load_state_dict(before.state_dict())
    assert now.param_groups[0]["fused"] is True
