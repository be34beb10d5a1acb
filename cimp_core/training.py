"""One training loop for every model here, on lightning Fabric.

A loop is a model, a function ``batches(step)`` and a function ``loss(model, *batch)``. As the batch is a
pure function of the step, a run that was stopped and resumed sees what the uninterrupted run sees, and on
a CPU ends at the same weights bit for bit. Durations are counted in training samples, which keeps its
meaning when the batch size changes.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning_fabric as lf
import torch
from torch import Tensor, nn

from .errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError

__all__ = [
    "CHECKPOINT",
    "LOG",
    "TrainConfig",
    "fit",
    "for_this_device",
    "learning_rate",
    "load_checkpoint",
    "make_config",
]

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
"""Names of the files that `fit` keeps in its folder."""

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
) -> list[dict[str, float]]:
    """Train `model` in place and return the log.

    Parameters
    ----------
    batches : callable
        Step number -> tensors of one batch, the same for the same step.
    loss : callable
        ``loss(model, *batch)`` -> scalar to minimise and scalars to log.
    out : path, optional
        Folder of the checkpoint and of the log, one JSON object a line.
    validate : callable, optional
        Scalars to log every ``config.validate_every`` samples and at the end.
    resume : bool
        Go on from the checkpoint in `out` if there is one.
    stop : int, optional
        End after this step as an interruption would, with a checkpoint.

    Raises
    ------
    CimpError
        The loss or a gradient is no longer finite.
    SchemaError
        The checkpoint in `out` belongs to a run with other settings.
    """
    config = for_this_device(config)
    fabric = lf.Fabric(accelerator="auto", devices=1, precision=config.precision)
    # Seeds torch for what a loss draws (dropout); models are initialised by the caller.
    fabric.seed_everything(config.seed, verbose=False)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(_decay_groups(model, config.weight_decay), lr=config.peak_rate)
    wrapped, optimizer = fabric.setup(model, optimizer)
    folder = None if out is None else Path(out)
    log: list[dict[str, float]] = []
    first = 0
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if resume and (folder / CHECKPOINT).exists():
            first, log = _restore(folder, model, optimizer, config)
        # Lines written after the checkpoint belong to steps that are now done again.
        _write_text(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in log))
    last = config.steps if stop is None else min(stop, config.steps)
    wrapped.train()
    sums: dict[str, float] = {}
    counted, since = 0, time.perf_counter()
    for step in range(first, last):
        rate = learning_rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = tuple(fabric.to_device(t) for t in batches(step))
        value, scalars = loss(wrapped, *batch)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(value)
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip, error_if_nonfinite=False)
        scalars = {"loss": value.item(), "gradient": norm.item(), **{k: v.item() for k, v in scalars.items()}}
        _require_finite(scalars, step, rate, folder)
        optimizer.step()
        for name, scalar in scalars.items():
            sums[name] = sums.get(name, 0.0) + scalar
        counted += 1

        seen, done = (step + 1) * config.batch_size, step + 1 == last
        # A checkpoint ends a log entry too, so that the log as well is that of the uninterrupted run.
        every = (config.log_every, config.validate_every, config.checkpoint_every)
        if done or any(_due(seen, n, config) for n in every):
            speed = counted * config.batch_size / (time.perf_counter() - since)
            entry = {"samples": seen, **{k: v / counted for k, v in sums.items()}, "rate": rate, "per_second": speed}
            if validate is not None and (_due(seen, config.validate_every, config) or seen >= config.samples):
                entry |= validate(model)
                wrapped.train()
            log.append(entry)
            if folder is not None:
                with open(folder / LOG, "a") as file:
                    file.write(json.dumps(entry) + "\n")
            if on_log is not None:
                on_log(entry)
            sums, counted, since = {}, 0, time.perf_counter()
        if folder is not None and (done or _due(seen, config.checkpoint_every, config)):
            _save(folder, model, optimizer, config, step + 1, log)
    model.eval()
    return log


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Contents of a checkpoint: ``model`` (state dict), ``optimizer``, ``step``, ``config``, ``log``, ``rng``."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: no such checkpoint") from error
    except Exception as error:
        raise UnreadableFileError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error})") from error


def _due(seen: int, every: int, config: TrainConfig) -> bool:
    """Whether the last batch crossed a multiple of `every` samples."""
    return seen // every > (seen - config.batch_size) // every


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only: it makes no sense for norms, biases and the scale."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _require_finite(scalars: dict[str, float], step: int, rate: float, folder: Path | None) -> None:
    """Stop before a step that would destroy the weights; the last checkpoint stays good."""
    if math.isfinite(scalars["loss"]) and math.isfinite(scalars["gradient"]):
        return
    where = "no checkpoint was kept" if folder is None else f"the last good state is {folder / CHECKPOINT}"
    raise CimpError(
        f"training stopped at step {step}: loss {scalars['loss']:g}, gradient norm {scalars['gradient']:g}, "
        f"learning rate {rate:g}. Lower peak_rate or lengthen warmup, and look for bad pixels in the data; {where}"
    )


def _save(folder: Path, model: nn.Module, optimizer: Any, config: TrainConfig, step: int, log: list) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "config": dataclasses.asdict(config),
        "log": log,
        "rng": torch.get_rng_state(),
    }
    temporary = folder / f".{CHECKPOINT}.{os.getpid()}"
    torch.save(state, temporary)
    os.replace(temporary, folder / CHECKPOINT)


def _restore(folder: Path, model: nn.Module, optimizer: Any, config: TrainConfig) -> tuple[int, list]:
    state = load_checkpoint(folder / CHECKPOINT)
    ours, theirs = dataclasses.asdict(config), state["config"]
    if different := sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)):
        pairs = ", ".join(f"{k} {theirs.get(k)} -> {ours.get(k)}" for k in different)
        raise SchemaError(
            f"{folder / CHECKPOINT} is of a run with other settings ({pairs}): "
            "train into another folder, or start again without resuming"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    return state["step"], state["log"]


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
