"""One training loop for every model here, on lightning Fabric.

A loop is a model, a function ``batches(step)`` and a function ``loss(model, *batch)``. As the batch is a
pure function of the step, a run that was stopped and resumed sees what the uninterrupted run sees, and on
a CPU ends at the same weights bit for bit. Durations are counted in training samples, which keeps its
meaning when the batch size changes.

On several processes each takes an equal share of the batch; the whole stays the run of one process, but for the order
of sums (see `processes`).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import CHECKPOINT, LOG, load_checkpoint, restore_checkpoint, write_text
from .errors import OutOfRangeError
from .prefetch import batches_ahead
from .processes import share_of_batch, start
from .training_steps import Steps, average_weights, decay_groups, require_finite

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
        object with a method ``part(step, rows)``, rows a slice, is asked for these only. It is asked in a thread,
        one batch ahead. One with a method ``place(device)`` is told the device before.
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
    rows = share_of_batch(config.batch_size, fabric.global_rank, fabric.world_size)
    if hasattr(batches, "place"):
        batches.place(fabric.device)
    part = getattr(batches, "part", lambda step, rows: tuple(t[rows] for t in batches(step)))
    # Seeds torch for what a loss draws (dropout); models are initialised by the caller.
    fabric.seed_everything(config.seed, verbose=False)
    folder = None if out is None else Path(out)
    run = Steps(fabric, model, config, folder)
    first, log = _begin(run, folder, resume)
    last = config.steps if stop is None else min(stop, config.steps)
    steps = range(first, last)
    with batches_ahead(lambda step: part(step, rows), steps, fabric.device, config.precision) as coming:
        for step, batch in coming:
            run.step(step, learning_rate(config, step), loss, batch)
            seen, done = (step + 1) * config.batch_size, step + 1 == last
            # A checkpoint ends a log entry too, so that the log as well is that of the uninterrupted run.
            every = (config.log_every, config.validate_every, config.checkpoint_every)
            if done or any(is_due(seen, n, config) for n in every):
                entry = {"samples": seen, **run.averages()}
                validation = is_due(seen, config.validate_every, config) or seen >= config.samples
                _write_entry(run, folder, log, entry, validate if validation else None, on_log)
            if done or is_due(seen, config.checkpoint_every, config):
                run.save(step + 1, log)
            if fabric.global_rank == 0 and on_step is not None:
                on_step(seen)
    run.end()
    return log


def _begin(run: Steps, folder: Path | None, resume: bool) -> tuple[int, list[dict[str, float]]]:
    """The first step to do, and the log so far."""
    first, log = 0, []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if resume and (folder / CHECKPOINT).exists():
            first, log = restore_checkpoint(folder, run.model, run.mean, run.optimizer, run.config)
        if run.fabric.global_rank == 0:
            # Lines written after the checkpoint belong to steps that are now done again.
            write_text(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in log))
    return first, log


def _write_entry(
    run: Steps,
    folder: Path | None,
    log: list[dict[str, float]],
    entry: dict[str, float],
    validate: Callable[[nn.Module], dict[str, float]] | None,
    on_log: Callable[[dict[str, float]], None] | None,
) -> None:
    """Add an entry to the log of every process; the first one validates, writes and tells."""
    first = run.fabric.global_rank == 0
    if first and validate is not None:
        entry |= validate(run.model if run.mean is None else run.mean)
        run.wrapped.train()
    log.append(run.fabric.broadcast(entry))
    if first and folder is not None:
        with open(folder / LOG, "a") as file:
            file.write(json.dumps(entry) + "\n")
    if first and on_log is not None:
        on_log(entry)


def is_due(seen: int, every: int, config: TrainConfig) -> bool:
    """Whether the last batch crossed a multiple of `every` samples."""
    return seen // every > (seen - config.batch_size) // every
