"""Sums over all pairs of two sets of embeddings, tile by tile, in torch: no B x B array ever.

Three functions, which `contrastive` makes losses of: the log-sum-exp of the logits along both axes, its gradients, and
the sum of the sigmoid loss over all pairs with its gradients. Each tile of the logits is computed once and serves both
axes. `fused` has the same three for graphics cards.

A tile stays in the cache of a processor, where it costs little beside the matrix products: its exponentials are those
of base 2, for which the rows are multiplied by log2(e) beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["log_sums", "log_sums_gradients", "pair_sum"]

LOG2E = 1 / math.log(2)
BOUND = {torch.float32: 80.0, torch.float64: 800.0}
"""Logits, in base 2, of which sums of exponentials neither overflow nor vanish without taking a maximum off first."""


def log_sums(rows: Tensor, columns: Tensor, scale: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of the logits, scale * rows @ columns.T, along both axes.

    Parameters
    ----------
    rows, columns : (R, d) and (C, d) tensors
        Of one type, float32 or float64.
    scale : scalar tensor
        Inverse temperature.
    tile : int, optional
        Edge of the tiles.

    Returns
    -------
    tuple of (R,) and (C,) tensors
        Over the columns for each row, and over the rows for each column.
    """
    if not _bounded(rows, columns, scale):
        over_columns, over_rows = rows.new_full((len(rows),), -math.inf), rows.new_full((len(columns),), -math.inf)
        for r, c, logits, _ in _logits(rows * scale, columns, tile):
            over_columns[r] = torch.logaddexp(over_columns[r], logits.logsumexp(1))
            over_rows[c] = torch.logaddexp(over_rows[c], logits.logsumexp(0))
        return over_columns, over_rows
    over_columns, over_rows = rows.new_zeros(len(rows)), rows.new_zeros(len(columns))
    for r, c, logits, _ in _logits(rows * (scale * LOG2E), columns, tile):
        exponential = logits.exp2_()  # one for both axes
        over_columns[r] += exponential.sum(1)
        over_rows[c] += exponential.sum(0)
    return over_columns.log(), over_rows.log()


def log_sums_gradients(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    over_columns: Tensor,
    over_rows: Tensor,
    row_weights: Tensor,
    column_weights: Tensor,
    tile: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `log_sums`, weighted by what its two results (R,) and (C,) are multiplied with.

    `over_columns` and `over_rows` may be sums over more than these columns and rows: the gradients are then those of
    these rows' and columns' part.

    Returns
    -------
    tuple of (R, d), (C, d) and scalar tensors
        Of rows, columns and scale.
    """
    row_gradient, column_gradient = torch.zeros_like(rows), torch.zeros_like(columns)
    bounded = _bounded(rows, columns, scale)
    if bounded:
        row_weights, column_weights = row_weights * (-over_columns).exp(), column_weights * (-over_rows).exp()
    for r, c, logits, spare in _logits(rows * (scale * LOG2E), columns, tile):
        if bounded:
            torch.add(row_weights[r, None], column_weights[c], out=spare)
            spare.mul_(logits.exp2_())
        else:
            torch.sub(logits, over_columns[r, None] * LOG2E, out=spare).exp2_().mul_(row_weights[r, None])
            spare.add_(logits.sub_(over_rows[c] * LOG2E).exp2_().mul_(column_weights[c]))
        row_gradient[r].addmm_(spare, columns[c])
        column_gradient[c].addmm_(spare.T, rows[r])
    scale_gradient = (row_gradient * rows).sum()  # before the scale is multiplied: of the cosines
    return row_gradient.mul_(scale), column_gradient.mul_(scale), scale_gradient


def pair_sum(
    rows: Tensor,
    columns: Tensor,
    row_group: Tensor,
    column_group: Tensor,
    scale: Tensor,
    bias: Tensor,
    tile: int | None = None,
    gradients: bool = True,
) -> tuple[Tensor, ...]:
    """Sum over all pairs of softplus(-y (scale * cosine + bias)), y = +1 in one group and -1 otherwise.

    Returns
    -------
    tuple of tensors
        The sum and, if asked for, its gradients: of rows (R, d), columns (C, d), scale and bias. No sum over the other
        pairs enters them, so that one pass over the tiles does both.
    """
    # In order of the groups, all positives lie in few tiles; the others need no comparison.
    by_row, by_column = row_group.argsort(), column_group.argsort()
    rows, columns, row_group, column_group = (
        x[order] for x, order in ((rows, by_row), (columns, by_column), (row_group, by_row), (column_group, by_column))
    )
    bounded = _bounded(rows, columns, scale, bias)
    unit = LOG2E if bounded else 1.0
    value, bias_gradient = rows.new_zeros(len(rows)), rows.new_zeros(len(rows))
    row_gradient, column_gradient = torch.zeros_like(rows), torch.zeros_like(columns)
    row_ends, column_ends = row_group.tolist(), column_group.tolist()
    for r, c, logits, spare in _logits(rows * (scale * unit), columns, tile):
        logits += bias * unit
        sign = None
        if row_ends[r.start] <= column_ends[c.stop - 1] and column_ends[c.start] <= row_ends[r.stop - 1]:
            sign = 1 - 2 * (row_group[r, None] == column_group[c]).to(logits.dtype)
            logits *= sign
        if bounded:
            value[r] += torch.log1p(logits.exp2_(), out=spare).sum(1)
        else:
            value[r] -= F.logsigmoid(-logits).sum(1)
        if not gradients:
            continue
        if bounded:
            torch.div(logits, torch.add(logits, 1, out=spare), out=spare)
        else:
            torch.sigmoid(logits, out=spare)
        if sign is not None:
            spare *= sign
        bias_gradient[r] += spare.sum(1)
        row_gradient[r].addmm_(spare, columns[c])
        column_gradient[c].addmm_(spare.T, rows[r])
    if not gradients:
        return (value.sum(),)
    scale_gradient = (row_gradient * rows).sum()
    return (
        value.sum(),
        torch.empty_like(row_gradient).index_copy_(0, by_row, row_gradient.mul_(scale)),
        torch.empty_like(column_gradient).index_copy_(0, by_column, column_gradient.mul_(scale)),
        scale_gradient,
        bias_gradient.sum(),
    )


def _bounded(rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | float = 0.0) -> bool:
    """Whether all logits lie within `BOUND`, by the lengths of the vectors; false where there is a nan."""
    longest = scale.abs() * rows.norm(dim=1).max() * columns.norm(dim=1).max() + abs(bias)
    return bool(longest * LOG2E <= BOUND[rows.dtype])


def _logits(rows: Tensor, columns: Tensor, tile: int | None) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Place and values of each tile of rows @ columns.T, and a second array of its shape to work in.

    Both are overwritten by the next tile: fresh ones would each time be brought in from the operating system.
    """
    # Found on 2 cores of 512 KiB each: 128 Ki numbers a core; torch divides a tile's rows among its threads.
    height, width = (256 * torch.get_num_threads(), 512) if rows.device.type == "cpu" else (4096, 4096)
    height, width = (tile, tile) if tile else (height, width)
    space = rows.new_empty(2, min(height, len(rows)) * min(width, len(columns)))
    for top in range(0, len(rows), height):
        r = slice(top, min(top + height, len(rows)))
        for left in range(0, len(columns), width):
            c = slice(left, min(left + width, len(columns)))
            shape = (r.stop - r.start, c.stop - c.start)
            logits, spare = (s[: shape[0] * shape[1]].view(shape) for s in space)
            yield r, c, torch.mm(rows[r], columns[c].T, out=logits), spare
