"""The checkpoint of a training run: tensors, numbers and texts only, so that reading one runs no code."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import SchemaError, UnreadableFileError

__all__ = ["CHECKPOINT", "LOG", "load_checkpoint", "restore_checkpoint", "save_checkpoint", "write_text"]

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
"""Names of the files that `training.fit` keeps in its folder."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Contents of a checkpoint: ``model`` (state dict), ``mean`` (of its weights; state dict or None), ``optimizer``,
    ``step``, ``config``, ``log``, ``rng`` and ``device_rng`` (states of the generators, the latter None on a CPU).
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: no such checkpoint") from error
    except Exception as error:
        raise UnreadableFileError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error})") from error


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    mean: nn.Module | None,
    optimizer: Any,
    config: Any,
    step: int,
    log: list,
) -> None:
    """Write what `load_checkpoint` reads; `step` is the first that is not done."""
    state = {
        "model": model.state_dict(),
        "mean": None if mean is None else mean.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "config": dataclasses.asdict(config),
        "log": log,
        "rng": torch.get_rng_state(),
        "device_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    temporary = folder / f".{CHECKPOINT}.{os.getpid()}"
    torch.save(state, temporary)
    os.replace(temporary, folder / CHECKPOINT)


def restore_checkpoint(
    folder: Path, model: nn.Module, mean: nn.Module | None, optimizer: Any, config: Any
) -> tuple[int, list]:
    """Put a checkpoint's state back, generators included; the step to go on with, and the log so far.

    Raises
    ------
    SchemaError
        The checkpoint belongs to a run with other settings.
    """
    state = load_checkpoint(folder / CHECKPOINT)
    ours, theirs = dataclasses.asdict(config), state["config"]
    if different := sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)):
        pairs = ", ".join(f"{k} {theirs.get(k)} -> {ours.get(k)}" for k in different)
        raise SchemaError(
            f"{folder / CHECKPOINT} is of a run with other settings ({pairs}): "
            "train into another folder, or start again without resuming"
        )
    model.load_state_dict(state["model"])
    if mean is not None:
        mean.load_state_dict(state["mean"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    if torch.cuda.is_available() and state["device_rng"] is not None:
        torch.cuda.set_rng_state(state["device_rng"])
    return state["step"], state["log"]


def write_text(path: Path, text: str) -> None:
    """Write a text beside `path`, then in its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
