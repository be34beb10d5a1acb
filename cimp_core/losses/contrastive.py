"""Contrastive losses between image and metadata embeddings, with several positives a row.

Two images taken at the same settings share one metadata vector, so every pair of one *group* is a
positive. Groups are integer ids of identical raw vectors, made once by the data set: an exact test,
where distances between float32 vectors lose true pairs.

Logits and reductions are float32 (or float64) whatever the surrounding autocast does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["info_nce", "info_nce_rows", "sigmoid_loss", "sigmoid_rows"]


def info_nce(image: Tensor, metadata: Tensor, group: Tensor, scale: Tensor | float, tile: int | None = None) -> Tensor:
    """Symmetric InfoNCE with multi-positive targets.

    For each row the mean over its positives of -log softmax(scale * cosine), the mean over rows, and
    the mean of the two directions. With K positives in every row the minimum is log K, not zero.

    Parameters
    ----------
    image, metadata : (B, d) tensors
        Unit rows; row i of both belongs to one image.
    group : (B,) int64 tensor
        Rows of one id are positives of one another.
    scale : scalar tensor or float
        Inverse temperature.
    tile : int, optional
        Rows of the B x B logits held at a time; they are computed again for the backward pass, so
        memory grows with tile x B instead of B x B. Value and gradients stay the same.

    References
    ----------
    van den Oord, Li and Vinyals, arXiv:1807.03748; Radford et al., arXiv:2103.00020; the several
    positives as "outside the logarithm" in Khosla et al., arXiv:2004.11362, equation 2.
    """
    require_pairs(image, metadata, group)
    # Each direction has its own softmax: rows of the logits, then columns.
    rows = info_nce_rows(image, metadata, group, group, scale, tile)
    columns = info_nce_rows(metadata, image, group, group, scale, tile)
    return (rows + columns) / (2 * len(image))


def sigmoid_loss(
    image: Tensor,
    metadata: Tensor,
    group: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    tile: int | None = None,
) -> Tensor:
    """Pairwise sigmoid loss: sum over all B^2 pairs of softplus(-y (scale * cosine + bias)), divided by B.

    y is +1 for a pair of one group and -1 for any other. Parameters as in `info_nce`; `bias` starts
    best at log(p / (1 - p)) with p the fraction of positive pairs.

    References
    ----------
    Zhai, Mustafa, Kolesnikov and Beyer, arXiv:2303.15343, algorithm 1.
    """
    require_pairs(image, metadata, group)
    return sigmoid_rows(image, metadata, group, group, scale, bias, tile) / len(image)


def info_nce_rows(
    rows: Tensor,
    columns: Tensor,
    row_group: Tensor,
    column_group: Tensor,
    scale: Tensor | float,
    tile: int | None = None,
) -> Tensor:
    """One direction of `info_nce` before any mean over rows: the sum over rows (b, d) against all columns (B, d).

    `row_group` (b,) and `column_group` (B,) hold the ids; every row needs a positive among the columns. Sums over
    parts of the rows add up to the sum over all, which is what a process that holds b of B rows needs.
    """
    return _tiled(_nce, rows, columns, row_group, column_group, tile, scale)


def sigmoid_rows(
    rows: Tensor,
    columns: Tensor,
    row_group: Tensor,
    column_group: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    tile: int | None = None,
) -> Tensor:
    """`sigmoid_loss` before the division by B: the sum over the pairs of rows (b, d) and columns (B, d)."""
    return _tiled(_sigmoid, rows, columns, row_group, column_group, tile, scale, bias)


def require_pairs(image: Tensor, metadata: Tensor, group: Tensor) -> None:
    """Raise `ValueError` where the shapes or the type of the ids do not fit."""
    if image.shape != metadata.shape or image.ndim != 2 or group.shape != image.shape[:1]:
        raise ValueError(
            f"image {tuple(image.shape)} and metadata {tuple(metadata.shape)} must both be (B, d) "
            f"and group (B,), got {tuple(group.shape)}"
        )
    if group.is_floating_point():
        raise ValueError(f"group must hold integer ids, got {group.dtype}")


def _nce(rows: Tensor, columns: Tensor, row_group: Tensor, column_group: Tensor, scale: Tensor | float) -> Tensor:
    """Sum over rows of the mean over a row's positives of -log softmax."""
    positive = row_group[:, None] == column_group[None, :]
    log_p = F.log_softmax(scale * (rows @ columns.T), dim=1)
    return -((log_p * positive).sum(1) / positive.sum(1)).sum()


def _sigmoid(
    rows: Tensor,
    columns: Tensor,
    row_group: Tensor,
    column_group: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
) -> Tensor:
    """Sum over the pairs of these rows with all columns."""
    sign = 2.0 * (row_group[:, None] == column_group[None, :]) - 1.0
    return F.softplus(-sign * (scale * (rows @ columns.T) + bias)).sum()


def _tiled(
    part: Callable[..., Tensor],
    rows: Tensor,
    columns: Tensor,
    row_group: Tensor,
    column_group: Tensor,
    tile: int | None,
    *rest: Tensor | float,
) -> Tensor:
    """Sum of `part` over tiles of rows against all columns, in at least float32."""
    if tile is not None and tile < 1:
        raise ValueError(f"tile is {tile}: a tile has at least one row")
    with torch.autocast(rows.device.type, enabled=False):
        dtype = torch.promote_types(rows.dtype, torch.float32)
        rows, columns = rows.to(dtype), columns.to(dtype)
        if tile is None or tile >= len(rows):
            return part(rows, columns, row_group, column_group, *rest)
        numbers = [x if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype) for x in rest]
        return _Tiles.apply(part, tile, rows, columns, row_group, column_group, *numbers)


class _Tiles(torch.autograd.Function):
    """The sum over tiles; forward keeps nothing of a tile, backward computes each again.

    `torch.utils.checkpoint` of each tile does the same, but keeps small objects of each alive between the large ones,
    which on a CPU splits the heap until it holds the whole B x B after all.
    """

    @staticmethod
    def forward(ctx: Any, part: Callable[..., Tensor], tile: int, *tensors: Tensor) -> Tensor:
        ctx.part, ctx.tile = part, tile
        ctx.save_for_backward(*tensors)
        rows, columns, row_group, *rest = tensors
        total = rows.new_zeros(())
        for r, g in zip(rows.split(tile), row_group.split(tile), strict=True):
            total += part(r, columns, g, *rest)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        rows, columns, row_group, *rest = (
            x.detach().requires_grad_(need) for x, need in zip(ctx.saved_tensors, needed, strict=True)
        )
        row_gradient = torch.zeros_like(rows)
        with torch.enable_grad(), torch.autocast(rows.device.type, enabled=False):
            for r, g, out in zip(*(x.split(ctx.tile) for x in (rows, row_group, row_gradient)), strict=True):
                r = r.detach().requires_grad_(needed[0])
                ctx.part(r, columns, g, *rest).backward(gradient)
                if needed[0]:
                    out.copy_(r.grad)
        return None, None, row_gradient, *(x.grad for x in (columns, row_group, *rest))
