"""One training loop for every model here, on lightning Fabric.

A loop is a model, a function ``batches(step)`` and a function ``loss(model, *batch)``. As the batch is a
pure function of the step, a run that was stopped and resumed sees what the uninterrupted run sees, and on
a CPU ends at the same weights bit for bit. Durations are counted in training samples, which keeps its
meaning when the batch size changes.

On several processes each takes an equal share of the batch; the whole stays the run of one process, but for the order
of sums (see `processes`).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import CHECKPOINT, LOG, load_checkpoint, restore_checkpoint, save_checkpoint, write_text
from .errors import CimpError, OutOfRangeError
from .processes import couple, share_of_batch, start, uncouple

__all__ = [
    "CHECKPOINT",
    "LOG",
    "TrainConfig",
    "average_weights",
    "decay_groups",
    "fit",
    "for_this_device",
    "is_due",
    "learning_rate",
    "load_checkpoint",
    "make_config",
    "require_finite",
]

# Fabric announces the precision at every start; the config says it already.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; durations in training samples."""

    samples: int = 320_000  # length of the run [samples]
    batch_size: int = 128  # [samples]
    peak_rate: float = 3e-3  # learning rate at the end of the warm-up
    warmup: int = 16_000  # linear warm-up from zero [samples]; then a cosine to zero
    weight_decay: float = 0.05  # of weights; norms, biases and scalars have none
    clip: float = 1.0  # largest norm of the gradient
    ema_half_life: int = 0  # of the mean of the weights that is validated and returned [samples]; 0: the last weights
    precision: str = "auto"  # "bf16-mixed", "32-true", or what suits the device, see `for_this_device`
    log_every: int = 5_120  # [samples]
    validate_every: int = 25_600  # [samples]
    checkpoint_every: int = 25_600  # [samples]
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return math.ceil(self.samples / self.batch_size)


def make_config(cls: type, values: Mapping[str, Any]) -> Any:
    """A frozen config from a mapping; a name that it does not have raises `OutOfRangeError`."""
    names = [f.name for f in dataclasses.fields(cls)]
    if unknown := sorted(set(values) - set(names)):
        raise OutOfRangeError(f"unknown setting {', '.join(unknown)}; {cls.__name__} has {', '.join(names)}")
    return cls(**values)


def for_this_device(config: TrainConfig) -> TrainConfig:
    """`config` with a precision in place of "auto": bfloat16 where the device computes with it, else float32.

    A processor without such instructions imitates them, ten times slower than float32.
    """
    if config.precision != "auto":
        return config
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return dataclasses.replace(config, precision="bf16-mixed" if native else "32-true")


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of a step: a linear warm-up, then a cosine to zero at the end of the run."""
    seen, warmup = (step + 1) * config.batch_size, min(config.warmup, config.samples)
    if seen < warmup:
        return config.peak_rate * seen / warmup
    left = (seen - warmup) / max(1, config.steps * config.batch_size - warmup)
    return config.peak_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, left)))


def fit(
    model: nn.Module,
    batches: Callable[[int], tuple[Tensor, ...]],
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    resume: bool = True,
    stop: int | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    strategy: str = "auto",
) -> list[dict[str, float]]:
    """Train `model` in place and return the log.

    Parameters
    ----------
    batches : callable
        Step number -> tensors of one batch, the same for the same step. Of several processes each takes its rows; an
        object with a method ``part(step, rows)``, rows a slice, is asked for these only.
    loss : callable
        ``loss(model, *batch)`` -> scalar to minimise and scalars to log. Of several processes each has its rows of
        the batch, and values and gradients are averaged: right for a mean over samples and for `losses.gathered`.
    out : path, optional
        Folder of the checkpoint and of the log, one JSON object a line; on a disk that all nodes see.
    validate : callable, optional
        Scalars to log every ``config.validate_every`` samples and at the end; called in the first process, with the
        mean of the weights where ``config.ema_half_life`` asks for one.
    resume : bool
        Go on from the checkpoint in `out` if there is one.
    stop : int, optional
        End after this step as an interruption would, with a checkpoint.
    on_log, on_step : callable, optional
        Called in the first process with each entry of the log, and after each step with the samples seen.
    devices, num_nodes, strategy : optional
        As of `lightning_fabric.Fabric`; by default what ``torchrun`` was told, else one device. Strategies are
        those that keep a whole model on each device ("auto", "ddp"). They do not belong to the settings that a
        resumed run must share.

    Raises
    ------
    CimpError
        The loss or a gradient is no longer finite, in every process.
    OutOfRangeError
        The batch does not divide into equal shares.
    SchemaError
        The checkpoint in `out` belongs to a run with other settings.
    """
    config = for_this_device(config)
    fabric = start(config.precision, devices, num_nodes, strategy)
    rank, processes = fabric.global_rank, fabric.world_size
    rows = share_of_batch(config.batch_size, rank, processes)
    part = getattr(batches, "part", lambda step, rows: tuple(t[rows] for t in batches(step)))
    # Seeds torch for what a loss draws (dropout); models are initialised by the caller.
    fabric.seed_everything(config.seed, verbose=False)
    model.to(memory_format=torch.channels_last)
    if processes > 1:
        couple(model, fabric)
    optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.peak_rate)
    wrapped, optimizer = fabric.setup(model, optimizer)
    mean = None
    if config.ema_half_life:
        mean = copy.deepcopy(model).eval()
        uncouple(mean)
    folder = None if out is None else Path(out)
    log: list[dict[str, float]] = []
    first = 0
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if resume and (folder / CHECKPOINT).exists():
            first, log = restore_checkpoint(folder, model, mean, optimizer, config)
        if rank == 0:
            # Lines written after the checkpoint belong to steps that are now done again.
            write_text(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in log))
    last = config.steps if stop is None else min(stop, config.steps)
    wrapped.train()
    sums: dict[str, float] = {}
    counted, since = 0, time.perf_counter()
    for step in range(first, last):
        rate = learning_rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = tuple(fabric.to_device(t) for t in part(step, rows))
        value, scalars = loss(wrapped, *batch)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(value)
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip, error_if_nonfinite=False)
        scalars = {"loss": value.detach(), "gradient": norm, **scalars}
        # As every process gets the mean, all of them stop where a value of one is not finite.
        dtype = torch.promote_types(value.dtype, torch.float32)
        means = fabric.all_reduce(torch.stack([v.to(dtype) for v in scalars.values()]), reduce_op="mean")
        scalars = dict(zip(scalars, means.tolist(), strict=True))
        require_finite(scalars, step, rate, folder)
        optimizer.step()
        if mean is not None:
            average_weights(mean, model, config, step)
        for name, scalar in scalars.items():
            sums[name] = sums.get(name, 0.0) + scalar
        counted += 1

        seen, done = (step + 1) * config.batch_size, step + 1 == last
        # A checkpoint ends a log entry too, so that the log as well is that of the uninterrupted run.
        every = (config.log_every, config.validate_every, config.checkpoint_every)
        if done or any(is_due(seen, n, config) for n in every):
            speed = counted * config.batch_size / (time.perf_counter() - since)
            entry = {"samples": seen, **{k: v / counted for k, v in sums.items()}, "rate": rate, "per_second": speed}
            validation = is_due(seen, config.validate_every, config) or seen >= config.samples
            if rank == 0 and validate is not None and validation:
                entry |= validate(model if mean is None else mean)
                wrapped.train()
            log.append(fabric.broadcast(entry))
            if rank == 0 and folder is not None:
                with open(folder / LOG, "a") as file:
                    file.write(json.dumps(entry) + "\n")
            if rank == 0 and on_log is not None:
                on_log(entry)
            sums, counted, since = {}, 0, time.perf_counter()
        if rank == 0 and folder is not None and (done or is_due(seen, config.checkpoint_every, config)):
            save_checkpoint(folder, model, mean, optimizer, config, step + 1, log)
        if rank == 0 and on_step is not None:
            on_step(seen)
    fabric.barrier()  # what is returned from can be read from the folder
    uncouple(model)
    if mean is not None:
        model.load_state_dict(mean.state_dict())
    model.eval()
    return log


def is_due(seen: int, every: int, config: TrainConfig) -> bool:
    """Whether the last batch crossed a multiple of `every` samples."""
    return seen // every > (seen - config.batch_size) // every


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
