"""The next batch, made and sent to the device while that works on the one before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

__all__ = ["batches_ahead"]


@contextlib.contextmanager
def batches_ahead(
    make: Callable[[int], tuple[Tensor, ...]], steps: range, device: torch.device, precision: str
) -> Iterator[Iterator[tuple[int, tuple[Tensor, ...]]]]:
    """Pairs of a step and its batch on `device`; one thread is a batch ahead, never more.

    The batches are those that ``make(step)`` gives, which must not depend on what is done between them. What it raises
    is raised here when its step is due. Leaving the context ends the thread.

    Fabric computes with the precisions "64-true", "bf16-true" and "16-true" by changing torch's default type for all
    threads: a batch could then come out in one type or another, so it is made when it is due, without a thread.
    """
    if precision.endswith("-true") and precision != "32-true":
        yield ((step, tuple(_sent(t, device) for t in make(step))) for step in steps)
        return
    with ThreadPoolExecutor(1, "cimp-batches") as thread:
        yield _in_turn(make, steps, device, thread)


def _in_turn(
    make: Callable[[int], tuple[Tensor, ...]], steps: range, device: torch.device, thread: ThreadPoolExecutor
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare(step: int) -> tuple[tuple[Tensor, ...], Any]:
        try:
            with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
                batch = tuple(_sent(t, device) for t in make(step))
                return batch, None if stream is None else stream.record_event()
        except Exception as error:
            error.add_note(f"while the batch of step {step} was made")
            raise

    coming = thread.submit(prepare, steps[0]) if len(steps) else None
    for step in steps:
        batch, ready = coming.result()
        coming = thread.submit(prepare, step + 1) if step + 1 in steps else None
        if ready is not None:
            works = torch.cuda.current_stream(device)
            works.wait_event(ready)  # the device waits, not this process
            for tensor in batch:
                tensor.record_stream(works)  # its memory is not given away before the work with it is done
        yield step, batch


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device; from memory that stays in place, so that the copy runs beside the work."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
