"""The steps of a training, without a word with the device that is not needed.

A device that is asked for a number at every step has to finish the step first, and then waits for the next one. So the
scalars of a step stay on the device until they are looked at, some steps together. A loss or a gradient that is not
finite must not wait so long: the device itself leaves out that update and all that follow, so the weights are those
from before when the error comes up.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning_fabric as lf
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .checkpoint import CHECKPOINT, save_checkpoint
from .errors import CimpError
from .processes import couple, uncouple

if TYPE_CHECKING:
    from .training import TrainConfig

__all__ = ["Steps", "average_weights", "decay_groups", "require_finite"]

LOOK_EVERY = 64
"""Steps after which their scalars are looked at, if no entry of the log is due before."""


class Steps:
    """A model with its optimiser on the devices of `fabric`; see `training.fit`, whose parts these are."""

    def __init__(self, fabric: lf.Fabric, model: nn.Module, config: TrainConfig, folder: Path | None) -> None:
        self.fabric, self.model, self.config, self.folder = fabric, model, config, folder
        model.to(memory_format=torch.channels_last)
        if fabric.world_size > 1:
            couple(model, fabric)
        # Only the fused optimiser can be told by the device to leave an update out.
        self.lazy = fabric.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            decay_groups(model, config.weight_decay), lr=config.peak_rate, fused=self.lazy or None
        )
        optimizer.register_load_state_dict_pre_hook(_computed_as_here)
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        self.mean = None
        if config.ema_half_life:
            self.mean = copy.deepcopy(model).eval()
            uncouple(self.mean)
        self.wrapped.train()
        self._spoilt = torch.zeros((), device=fabric.device)  # 1 from the first step on that is not finite
        self._unseen: list[tuple[int, float, list[str], Tensor]] = []  # step, rate, names and values of its scalars
        self._start_entry()

    def step(self, step: int, rate: float, loss: Callable, batch: tuple[Tensor, ...]) -> None:
        """One step of the optimiser at a learning rate.

        Raises
        ------
        CimpError
            This step, or one of the last `LOOK_EVERY`, was not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        value, scalars = loss(self.wrapped, *batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(value)
        norm = self.fabric.clip_gradients(
            self.wrapped, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False
        )
        scalars = {"loss": value.detach(), "gradient": norm, **scalars}
        dtype = torch.promote_types(value.dtype, torch.float32)
        # As every process gets the mean, all of them stop where a value of one is not finite.
        means = _mean_over_processes(torch.stack([v.to(dtype) for v in scalars.values()]))
        self._unseen.append((step, rate, list(scalars), means))
        self._spoilt = torch.maximum(self._spoilt, 1 - means[:2].isfinite().all().to(self._spoilt.dtype))
        if self.lazy:
            self.optimizer.optimizer.found_inf = self._spoilt
        if not self.lazy or len(self._unseen) == LOOK_EVERY:
            self.look()
        self.optimizer.step()
        if self.mean is not None:
            average_weights(self.mean, self.model, self.config, step)

    def look(self) -> None:
        """Bring the scalars of the last steps here; this waits for the device.

        Raises
        ------
        CimpError
            One of these steps was not finite.
        """
        if not self._unseen:
            return
        values = iter(torch.cat([means for *_, means in self._unseen]).tolist())
        for step, rate, names, _ in self._unseen:
            scalars = {name: next(values) for name in names}
            require_finite(scalars, step, rate, self.folder)
            for name, scalar in scalars.items():
                self._sums[name] = self._sums.get(name, 0.0) + scalar
            self._counted, self._rate = self._counted + 1, rate
        self._unseen = []

    def averages(self) -> dict[str, float]:
        """Mean of each scalar over the steps since this was last called, the rate, and the samples a second."""
        self.look()
        speed = self._counted * self.config.batch_size / (time.perf_counter() - self._since)
        means = {name: total / self._counted for name, total in self._sums.items()}
        rate = self._rate
        self._start_entry()
        return {**means, "rate": rate, "per_second": speed}

    def _start_entry(self) -> None:
        self._sums: dict[str, float] = {}
        self._counted, self._rate, self._since = 0, 0.0, time.perf_counter()

    def save(self, step: int, log: list) -> None:
        """Write the checkpoint from which step `step` follows, in the first process."""
        self.look()
        if self.fabric.global_rank == 0 and self.folder is not None:
            save_checkpoint(self.folder, self.model, self.mean, self.optimizer, self.config, step, log)

    def end(self) -> None:
        """Leave in the model what the run is for."""
        self.look()
        self.fabric.barrier()  # what is returned from can be read from the folder
        uncouple(self.model)
        if self.mean is not None:
            self.model.load_state_dict(self.mean.state_dict())
        self.model.eval()


def _mean_over_processes(values: Tensor) -> Tensor:
    """Fabric's own has the processes wait for one another first."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only: it makes no sense for norms, biases and the scale."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def average_weights(mean: nn.Module, model: nn.Module, config: TrainConfig, step: int) -> None:
    """Exponentially weighted mean of the weights after each step, those before the first not among them.

    The weight of a step halves every `ema_half_life` samples; all weights so far add up to one.
    """
    per_step = -math.log(2) * config.batch_size / config.ema_half_life
    newest = math.expm1(per_step) / math.expm1(per_step * (step + 1))
    ours = mean.state_dict()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            ours[name].lerp_(value, newest)
        else:
            ours[name].copy_(value)


def require_finite(scalars: dict[str, float], step: int, rate: float, folder: Path | None) -> None:
    """Stop before a step that would destroy the weights; the last checkpoint stays good."""
    if math.isfinite(scalars["loss"]) and math.isfinite(scalars["gradient"]):
        return
    where = "no checkpoint was kept" if folder is None else f"the last good state is {folder / CHECKPOINT}"
    raise CimpError(
        f"training stopped at step {step}: loss {scalars['loss']:g}, gradient norm {scalars['gradient']:g}, "
        f"learning rate {rate:g}. Lower peak_rate or lengthen warmup, and look for bad pixels in the data; {where}"
    )


def _computed_as_here(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """How updates are computed is no part of a run's state: a checkpoint of before has them computed one by one."""
    for ours, theirs in zip(optimizer.param_groups, state["param_groups"], strict=True):
        theirs["fused"] = ours["fused"]
