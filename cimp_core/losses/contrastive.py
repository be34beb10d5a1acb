"""Contrastive losses between image and metadata embeddings, with several positives a row.

Two images taken at the same settings share one metadata vector, so every pair of one *group* is a
positive. Groups are integer ids of identical raw vectors, made once by the data set: an exact test,
where distances between float32 vectors lose true pairs.

Logits and reductions are float32 (or float64) whatever the surrounding autocast does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["info_nce", "sigmoid_loss"]


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
    _check(image, metadata, group)
    # Each direction has its own softmax: rows of the logits, then columns.
    rows = _tiled(_row_nce, image, metadata, group, tile, scale)
    columns = _tiled(_row_nce, metadata, image, group, tile, scale)
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
    _check(image, metadata, group)
    return _tiled(_row_sigmoid, image, metadata, group, tile, scale, bias) / len(image)


def _row_nce(rows: Tensor, columns: Tensor, row_group: Tensor, column_group: Tensor, scale: Tensor | float) -> Tensor:
    """Sum over rows of the mean over a row's positives of -log softmax."""
    positive = row_group[:, None] == column_group[None, :]
    log_p = F.log_softmax(scale * (rows @ columns.T), dim=1)
    return -((log_p * positive).sum(1) / positive.sum(1)).sum()


def _row_sigmoid(
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
    part: Callable[..., Tensor], rows: Tensor, columns: Tensor, group: Tensor, tile: int | None, *rest: Tensor | float
) -> Tensor:
    """Sum of `part` over tiles of rows against all columns, in at least float32."""
    with torch.autocast(rows.device.type, enabled=False):
        dtype = torch.promote_types(rows.dtype, torch.float32)
        rows, columns = rows.to(dtype), columns.to(dtype)
        if tile is None or tile >= len(rows):
            return part(rows, columns, group, group, *rest)
        # Without checkpointing every tile's logits would wait for the backward pass, and nothing be saved.
        return sum(
            checkpoint(part, r, columns, g, group, *rest, use_reentrant=False)
            for r, g in zip(rows.split(tile), group.split(tile), strict=True)
        )


def _check(image: Tensor, metadata: Tensor, group: Tensor) -> None:
    if image.shape != metadata.shape or image.ndim != 2 or group.shape != image.shape[:1]:
        raise ValueError(
            f"image {tuple(image.shape)} and metadata {tuple(metadata.shape)} must both be (B, d) "
            f"and group (B,), got {tuple(group.shape)}"
        )
    if group.is_floating_point():
        raise ValueError(f"group must hold integer ids, got {group.dtype}")
