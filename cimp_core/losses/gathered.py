"""The contrastive losses of a batch that is spread over several processes.

Each process holds some rows of the batch. It compares its images with the settings of all: these and the group ids are
gathered, and the gradient of every gathered row goes back to the process that holds the row. Without several
processes these are `info_nce` and `sigmoid_loss` themselves. With ``ring=True`` nothing is gathered: see `ring`.

The value in a process is its part of the sum times the number of processes. The mean over the processes is therefore
the loss of the whole batch, and gradients that are averaged over the processes, as DistributedDataParallel does, are
the gradients of that loss: of both towers, of the scale and of the bias, with any number of rows in each process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .contrastive import (
    group_sums,
    info_nce,
    log_sums,
    positive_sum,
    promoted,
    require_pairs,
    sigmoid_loss,
    sigmoid_rows,
)
from .ring import ring_log_sums, ring_pair_sum

__all__ = ["gather", "gathered_info_nce", "gathered_sigmoid_loss"]


def gathered_info_nce(
    image: Tensor,
    metadata: Tensor,
    group: Tensor,
    scale: Tensor | float,
    tile: int | None = None,
    ring: bool = False,
    even: bool = False,
) -> Tensor:
    """`info_nce` of the rows of all processes; parameters as there, each process giving its own (b, d) rows.

    Every process must call it, and go backward through it if one does. Each of the B x B logits is computed in one
    process only.

    Parameters
    ----------
    ring : bool
        Let the settings go round instead of gathering them: memory for b rows twice instead of for all B, for more
        and smaller messages.
    even : bool
        As of `gather`.

    Raises
    ------
    ValueError
        Shapes do not fit in this process; or, then in every process, those of one do not fit those of another.
    """
    if _processes() == 1:
        return info_nce(image, metadata, group, scale, tile)
    require_pairs(image, metadata, group)
    counts = _row_counts(metadata, even)
    with torch.autocast(image.device.type, enabled=False):
        if ring:
            image, metadata, scale = promoted(image, metadata, scale)
            rows, columns, *positives = ring_log_sums(image, metadata, group, scale, counts, tile)
        else:
            image, settings, scale = promoted(image, gather(metadata, even), scale)
            groups = gather(group, even)
            # The logits of these images with all settings are all there is of the rows, and a part of the columns.
            rows, part = log_sums(image, settings, scale, tile)
            columns = _LogSumExp.apply(part).split(counts)[dist.get_rank()]
            positives = group_sums(settings, groups, group)
        total = rows.sum() + columns.sum() - 2 * positive_sum(image, *positives, scale)
    return total * (_processes() / (2 * sum(counts)))


def gathered_sigmoid_loss(
    image: Tensor,
    metadata: Tensor,
    group: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    tile: int | None = None,
    ring: bool = False,
    even: bool = False,
) -> Tensor:
    """`sigmoid_loss` of the rows of all processes; see `gathered_info_nce`."""
    if _processes() == 1:
        return sigmoid_loss(image, metadata, group, scale, bias, tile)
    require_pairs(image, metadata, group)
    counts = _row_counts(metadata, even)
    if ring:
        with torch.autocast(image.device.type, enabled=False):
            image, metadata, scale, bias = promoted(image, metadata, scale, bias)
            total = ring_pair_sum(image, metadata, group, scale, bias, counts, tile)
    else:
        total = sigmoid_rows(image, gather(metadata, even), group, gather(group, even), scale, bias, tile)
    return total * (_processes() / sum(counts))


def gather(rows: Tensor, even: bool = False) -> Tensor:
    """Rows (b, ...) of all processes, one process after the other; b may differ between them.

    In the backward pass a row gets the sum of the gradients that all processes have for it. Every process must call
    it, and go backward through it if one does. Without several processes it returns `rows`. Where the caller knows
    that b is the same everywhere (`even`), the numbers of rows are not exchanged, and the device is not waited for.

    Raises
    ------
    ValueError
        A process has no row, or the rows are not of one length and type; then in every process.
    """
    if _processes() == 1:
        return rows
    return _Gather.apply(rows, _row_counts(rows, even))


def _row_counts(rows: Tensor, even: bool) -> list[int]:
    """Number of rows in each process, after a check that they fit; no check where they are `even`."""
    if even:
        return [len(rows)] * _processes()
    kind = torch.tensor([len(rows), rows[:1].numel(), rows.element_size()], device=rows.device)
    kinds = [torch.empty_like(kind) for _ in range(_processes())]
    dist.all_gather(kinds, kind)
    counts, lengths, sizes = torch.stack(kinds).T.tolist()
    if min(counts) == 0 or len(set(lengths)) > 1 or len(set(sizes)) > 1:
        raise ValueError(
            "every process needs rows, of one length and one type: by process there are "
            f"{counts} rows of {lengths} numbers of {sizes} bytes"
        )
    return counts


class _Gather(torch.autograd.Function):
    """Rows are padded to the longest part, for collectives want equal shapes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        rank = dist.get_rank()
        ctx.mine = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        padding = (0, 0) * (rows.ndim - 1) + (0, max(counts) - len(rows))
        padded = F.pad(rows, padding).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.mine], None


class _LogSumExp(torch.autograd.Function):
    """Log-sum-exp over the processes; a term gets the sum of the gradients that all processes have for it."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        most = part.clone()
        dist.all_reduce(most, dist.ReduceOp.MAX)
        total = (part - most).exp_()
        dist.all_reduce(total)
        total = most + total.log_()
        ctx.save_for_backward(part, total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        part, total = ctx.saved_tensors
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient * (part - total).exp()


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
