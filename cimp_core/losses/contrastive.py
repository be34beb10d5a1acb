"""Contrastive losses between image and metadata embeddings, with several positives a row.

Two images taken at the same settings share one metadata vector, so every pair of one *group* is a
positive. Groups are integer ids of identical raw vectors, made once by the data set: an exact test,
where distances between float32 vectors lose true pairs.

Logits and reductions are float32 (or float64) whatever the surrounding autocast does. Large batches go tile by tile, so
that memory grows with B d: by `tiles`, in torch, or on a graphics card by `fused`. Small ones go the plain way.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import tiles

__all__ = ["info_nce", "info_nce_rows", "sigmoid_loss", "sigmoid_rows"]

PLAIN = {"cpu": 1024**2, "cuda": 4096**2}
"""Logits up to which `tile=None` is the plain form.

On a processor the two take the same time at 512 to 1,024 rows of 128 numbers and at about 2,048 rows of 512. On a
graphics card, not measured: there the logits are then 64 MiB, and fewer rows would leave parts of the card idle.
"""


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
        Edge of the square of the B x B logits that is held at a time; each is computed again for the backward pass, so
        that memory grows with B d instead of B x B. Value and gradients stay the same. An edge of B or more is the
        plain form, all logits at once. By default chosen by size and device.

    References
    ----------
    van den Oord, Li and Vinyals, arXiv:1807.03748; Radford et al., arXiv:2103.00020; the several
    positives as "outside the logarithm" in Khosla et al., arXiv:2004.11362, equation 2.
    """
    require_pairs(image, metadata, group)
    with torch.autocast(image.device.type, enabled=False):
        image, metadata, scale = promoted(image, metadata, scale)
        # Each direction has its own softmax: rows of the logits, then columns. The positives are the same in both.
        rows, columns = log_sums(image, metadata, scale, tile)
        positives = positive_sum(image, *group_sums(metadata, group, group), scale)
        return (rows.sum() + columns.sum() - 2 * positives) / (2 * len(image))


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
    with torch.autocast(rows.device.type, enabled=False):
        rows, columns, scale = promoted(rows, columns, scale)
        positives = positive_sum(rows, *group_sums(columns, column_group, row_group), scale)
        return log_sums(rows, columns, scale, tile)[0].sum() - positives


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
    with torch.autocast(rows.device.type, enabled=False):
        rows, columns, scale, bias = promoted(rows, columns, scale, bias)
        kernels = kernels_for(rows, columns, tile)
        if kernels is not None:
            needed = torch.is_grad_enabled() and any(x.requires_grad for x in (rows, columns, scale, bias))
            return _PairSum.apply(kernels, tile, needed, row_group, column_group, rows, columns, scale, bias)
        sign = 2.0 * (row_group[:, None] == column_group[None, :]) - 1.0
        return -F.logsigmoid(sign * (scale * (rows @ columns.T) + bias)).sum()


def log_sums(rows: Tensor, columns: Tensor, scale: Tensor, tile: int | None) -> tuple[Tensor, Tensor]:
    """`tiles.log_sums` with gradients, in the form that suits."""
    kernels = kernels_for(rows, columns, tile)
    if kernels is not None:
        return _LogSums.apply(kernels, tile, rows, columns, scale)
    logits = scale * (rows @ columns.T)
    return logits.logsumexp(1), logits.logsumexp(0)


def group_sums(columns: Tensor, column_group: Tensor, row_group: Tensor) -> tuple[Tensor, Tensor]:
    """Sum (b, d) and number (b,) of the columns (B, d) that are in the group of each row.

    The mean of a row's logits over its positives is its product with their mean: no pair needs to be looked at.
    """
    # The first place among the sorted ids stands for a group: `unique` would wait for the device to count them.
    ids = column_group.sort().values
    column, row = torch.searchsorted(ids, column_group), torch.searchsorted(ids, row_group).clamp(max=len(ids) - 1)
    sums = torch.zeros_like(columns).index_add(0, column, columns)
    counts = columns.new_zeros(len(ids)).index_add(0, column, columns.new_ones(len(columns)))
    present = ids[row] == row_group
    return sums.index_select(0, row) * present[:, None], counts[row] * present


def positive_sum(rows: Tensor, sums: Tensor, counts: Tensor, scale: Tensor) -> Tensor:
    """Sum over the rows of the mean of the logits of their positives; the two before the last from `group_sums`."""
    return scale * ((rows * sums).sum(1) / counts).sum()


def kernels_for(rows: Tensor, columns: Tensor, tile: int | None) -> ModuleType | None:
    """The module that computes tile by tile; None where the plain form is to be taken."""
    if tile is not None and tile < 1:
        raise ValueError(f"tile is {tile}: a tile has at least one row")
    if tile is not None:
        return None if tile >= max(len(rows), len(columns)) else tiles
    if len(rows) * len(columns) <= PLAIN.get(rows.device.type, PLAIN["cuda"]):
        return None
    if rows.is_cuda:
        try:
            from . import fused
        except ImportError:  # Triton comes along with torch's build for CUDA on Linux, not with every other
            return tiles
        if fused.suits(rows, columns):
            return fused
    return tiles


def promoted(rows: Tensor, columns: Tensor, *numbers: Tensor | float) -> tuple[Tensor, ...]:
    """All in one type, float32 at least; the numbers as scalar tensors."""
    dtype = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    scalars = (torch.as_tensor(x, dtype=dtype, device=rows.device).reshape(()) for x in numbers)
    return rows.to(dtype), columns.to(dtype), *scalars


def require_pairs(image: Tensor, metadata: Tensor, group: Tensor) -> None:
    """Raise `ValueError` where the shapes or the type of the ids do not fit."""
    if image.shape != metadata.shape or image.ndim != 2 or group.shape != image.shape[:1]:
        raise ValueError(
            f"image {tuple(image.shape)} and metadata {tuple(metadata.shape)} must both be (B, d) "
            f"and group (B,), got {tuple(group.shape)}"
        )
    if group.is_floating_point():
        raise ValueError(f"group must hold integer ids, got {group.dtype}")


class _LogSums(torch.autograd.Function):
    """`log_sums` of a module of kernels; forward keeps nothing of a tile, backward computes each again."""

    @staticmethod
    def forward(ctx: Any, kernels: ModuleType, tile: int | None, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.kernels, ctx.tile = kernels, tile
        sums = kernels.log_sums(*tensors, tile)
        ctx.save_for_backward(*tensors, *sums)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        rows = ctx.saved_tensors[0]
        with torch.autocast(rows.device.type, enabled=False):
            return None, None, *ctx.kernels.log_sums_gradients(*ctx.saved_tensors, *weights, ctx.tile)


class _PairSum(torch.autograd.Function):
    """`pair_sum` of a module of kernels; the gradients are found along with the value."""

    @staticmethod
    def forward(ctx: Any, kernels: ModuleType, tile: int | None, needed: bool, *tensors: Tensor) -> Tensor:
        groups, (rows, columns, *numbers) = tensors[:2], tensors[2:]
        value, *gradients = kernels.pair_sum(rows, columns, *groups, *numbers, tile, needed)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, None, *(weight * gradient for gradient in ctx.saved_tensors)
