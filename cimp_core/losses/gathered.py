"""The contrastive losses of a batch that is spread over several processes.

Each process holds some rows of the batch. It compares them with the rows of all: embeddings and group ids are
gathered, and the gradient of every gathered row goes back to the process that holds the row. Without several
processes these are `info_nce` and `sigmoid_loss` themselves.

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

from .contrastive import info_nce, info_nce_rows, require_pairs, sigmoid_loss, sigmoid_rows

__all__ = ["gather", "gathered_info_nce", "gathered_sigmoid_loss"]


def gathered_info_nce(
    image: Tensor,
    metadata: Tensor,
    group: Tensor,
    scale: Tensor | float,
    tile: int | None = None,
    *,
    even: bool = False,
) -> Tensor:
    """`info_nce` of the rows of all processes; parameters as there, each process giving its own (b, d) rows.

    Every process must call it. `tile` rows of b x B logits are held at a time; `even` as of `gather`.

    Raises
    ------
    ValueError
        Shapes do not fit in this process; or, then in every process, those of one do not fit those of another.
    """
    if _processes() == 1:
        return info_nce(image, metadata, group, scale, tile)
    images, settings, groups = _gather_pairs(image, metadata, group, even)
    total = info_nce_rows(image, settings, group, groups, scale, tile)
    total = total + info_nce_rows(metadata, images, group, groups, scale, tile)
    return total * (_processes() / (2 * len(groups)))


def gathered_sigmoid_loss(
    image: Tensor,
    metadata: Tensor,
    group: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    tile: int | None = None,
    *,
    even: bool = False,
) -> Tensor:
    """`sigmoid_loss` of the rows of all processes; see `gathered_info_nce`."""
    if _processes() == 1:
        return sigmoid_loss(image, metadata, group, scale, bias, tile)
    _, settings, groups = _gather_pairs(image, metadata, group, even)
    total = sigmoid_rows(image, settings, group, groups, scale, bias, tile)
    return total * (_processes() / len(groups))


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
    if even:
        return _Gather.apply(rows, [len(rows)] * _processes())
    kind = torch.tensor([len(rows), rows[:1].numel(), rows.element_size()], device=rows.device)
    kinds = [torch.empty_like(kind) for _ in range(_processes())]
    dist.all_gather(kinds, kind)
    counts, lengths, sizes = torch.stack(kinds).T.tolist()
    if min(counts) == 0 or len(set(lengths)) > 1 or len(set(sizes)) > 1:
        raise ValueError(
            "every process needs rows, of one length and one type: by process there are "
            f"{counts} rows of {lengths} numbers of {sizes} bytes"
        )
    return _Gather.apply(rows, counts)


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


def _gather_pairs(image: Tensor, metadata: Tensor, group: Tensor, even: bool) -> tuple[Tensor, Tensor, Tensor]:
    require_pairs(image, metadata, group)
    # One collective for both towers: their backward passes then cannot come in another order elsewhere.
    both = gather(torch.cat([image, metadata], 1), even)
    return both[:, : image.shape[1]], both[:, image.shape[1] :], gather(group, even)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
