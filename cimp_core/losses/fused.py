"""What `tiles` does, fused into one kernel each for graphics cards, by Triton.

A tile of the logits lives in registers from the product to the sum. No two programs write to one place, so that a
result is the same every time: the gradient of the columns comes from the same kernel with the two sets exchanged, which
costs the logits one product more than sums added up in any order would.

Products are in float32 as `torch.get_float32_matmul_precision` says: "highest" is true float32, "high" three products
of TF32 with nearly its precision, "medium" one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["log_sums", "log_sums_gradients", "pair_sum", "suits"]

LONGEST = 256
"""Numbers of a row that fit in registers beside a tile."""

PRECISION = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}


def suits(rows: Tensor, columns: Tensor) -> bool:
    """Whether the kernels take these tensors."""
    return rows.dtype == columns.dtype == torch.float32 and rows.shape[1] <= LONGEST and not torch.version.hip


def log_sums(rows: Tensor, columns: Tensor, scale: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor]:
    """As `tiles.log_sums`; `tile` is the edge of the tiles, a power of 2 of at least 16."""
    rows, columns, edge = (rows * scale).contiguous(), columns.contiguous(), tile or 64
    programs = min(triton.cdiv(len(rows), edge), _programs(rows))
    over_columns = rows.new_empty(len(rows))
    # Each program keeps the sums of its own rows for all columns: a fixed number of such lists, so memory grows with C.
    parts = rows.new_full((programs, len(columns)), -torch.inf)
    with _device(rows):
        _log_sums[(programs,)](
            rows, columns, over_columns, parts, len(rows), len(columns), rows.shape[1], **_shape(rows, edge)
        )
    return over_columns, parts.logsumexp(0)


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
    """As `tiles.log_sums_gradients`."""
    rows, columns, scaled = rows.contiguous(), columns.contiguous(), (rows * scale).contiguous()
    sides = [(scaled, over_columns, row_weights), (columns, over_rows, column_weights)]
    gradients = []
    for (mine, my_sums, my_weights), (_, sums, weights), others in zip(sides, sides[::-1], (columns, scaled)):
        gradient, edge = torch.empty_like(mine), tile or 64
        lists = [x.contiguous() for x in (my_sums, my_weights, sums, weights)]
        with _device(rows):
            _log_sums_gradient[(triton.cdiv(len(mine), edge),)](
                mine, others, *lists, gradient, len(mine), len(others), mine.shape[1], **_shape(mine, edge)
            )
        gradients.append(gradient)
    row_gradient, column_gradient = gradients  # the second is already of scaled rows
    return row_gradient * scale, column_gradient, (row_gradient * rows).sum()


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
    """As `tiles.pair_sum`."""
    rows, columns, scaled, edge = rows.contiguous(), columns.contiguous(), (rows * scale).contiguous(), tile or 64
    sides = [(scaled, row_group.long().contiguous()), (columns, column_group.long().contiguous())]
    found = []
    for (mine, my_group), (others, group) in zip(sides, sides[::-1]):
        value, bias_gradient, gradient = mine.new_empty(len(mine)), mine.new_empty(len(mine)), torch.empty_like(mine)
        with _device(rows):
            _pair_sum[(triton.cdiv(len(mine), edge),)](
                mine, others, my_group, group, bias, value, bias_gradient, gradient, len(mine), len(others),
                mine.shape[1], GRADIENTS=gradients, **_shape(mine, edge),
            )  # fmt: skip
        if not gradients:
            return (value.sum(),)
        found.append((value.sum(), gradient, bias_gradient.sum()))
    (value, row_gradient, bias_gradient), (_, column_gradient, _) = found
    return value, row_gradient * scale, column_gradient, (row_gradient * rows).sum(), bias_gradient


def _programs(x: Tensor) -> int:
    return 2 * torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2


def _device(x: Tensor) -> torch.cuda.device:
    return torch.cuda.device(x.device if x.is_cuda else -1)  # -1: nothing to change


def _shape(x: Tensor, edge: int) -> dict[str, int | str]:
    """Compile-time constants: the tile's edge, the row length as a power of 2, and what a product is."""
    length = max(16, triton.next_power_of_2(x.shape[1]))
    precision = PRECISION[torch.get_float32_matmul_precision()]
    return {"EDGE": edge, "LENGTH": length, "PRECISION": precision, "num_warps": 8 if length > 128 else 4}


@triton.jit
def _load(start, count, of, d, EDGE: tl.constexpr, LENGTH: tl.constexpr):
    """Rows start, start + 1, ... of a (count, d) array; zero beyond its edges. Their numbers, which exist, the rows."""
    at = start + tl.arange(0, EDGE)
    along = tl.arange(0, LENGTH)
    inside = at < count
    # 64 bits: rows times length may exceed 2^31
    values = tl.load(of + at[:, None].to(tl.int64) * d + along, mask=inside[:, None] & (along < d), other=0.0)
    return at, inside, values


@triton.jit
def _store(at, inside, values, to, d, LENGTH: tl.constexpr):
    along = tl.arange(0, LENGTH)
    tl.store(to + at[:, None].to(tl.int64) * d + along, values, mask=inside[:, None] & (along < d))


@triton.jit
def _log_sums(
    rows, columns, over_columns, parts, n_rows, n_columns, d,
    EDGE: tl.constexpr, LENGTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    mine = parts + tl.program_id(0).to(tl.int64) * n_columns
    for top in range(tl.program_id(0) * EDGE, n_rows, tl.num_programs(0) * EDGE):
        i, i_inside, row = _load(top, n_rows, rows, d, EDGE, LENGTH)
        most = tl.full((EDGE,), -float("inf"), tl.float32)
        total = tl.zeros((EDGE,), tl.float32)
        for left in range(0, n_columns, EDGE):
            j, j_inside, column = _load(left, n_columns, columns, d, EDGE, LENGTH)
            logits = tl.dot(row, tl.trans(column), input_precision=PRECISION)
            # Over the columns.
            here = tl.where(j_inside[None, :], logits, -float("inf"))
            new = tl.maximum(most, tl.max(here, 1))
            total = total * tl.exp(most - new) + tl.sum(tl.exp(here - new[:, None]), 1)
            most = new
            # Over the rows, on top of those that this program has seen before.
            here = tl.where(i_inside[:, None], logits, -float("inf"))
            before = tl.load(mine + j, mask=j_inside, other=-float("inf"))
            new = tl.maximum(before, tl.max(here, 0))
            after = new + tl.log(tl.exp(before - new) + tl.sum(tl.exp(here - new[None, :]), 0))
            tl.store(mine + j, after, mask=j_inside)
        tl.store(over_columns + i, most + tl.log(total), mask=i_inside)
        tl.debug_barrier()  # what one thread stored, another may load for the next rows


@triton.jit
def _log_sums_gradient(
    rows, columns, row_sums, row_weights, column_sums, column_weights, gradient, n_rows, n_columns, d,
    EDGE: tl.constexpr, LENGTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i, i_inside, row = _load(tl.program_id(0) * EDGE, n_rows, rows, d, EDGE, LENGTH)
    row_sum = tl.load(row_sums + i, mask=i_inside, other=0.0)
    row_weight = tl.load(row_weights + i, mask=i_inside, other=0.0)
    total = tl.zeros((EDGE, LENGTH), tl.float32)
    for left in range(0, n_columns, EDGE):
        j, j_inside, column = _load(left, n_columns, columns, d, EDGE, LENGTH)
        column_sum = tl.load(column_sums + j, mask=j_inside, other=0.0)
        column_weight = tl.load(column_weights + j, mask=j_inside, other=0.0)
        logits = tl.dot(row, tl.trans(column), input_precision=PRECISION)
        logits = tl.where(i_inside[:, None] & j_inside[None, :], logits, -float("inf"))
        share = tl.exp(logits - row_sum[:, None]) * row_weight[:, None]
        share += tl.exp(logits - column_sum[None, :]) * column_weight[None, :]
        total += tl.dot(share, column, input_precision=PRECISION)
    _store(i, i_inside, total, gradient, d, LENGTH)


@triton.jit
def _pair_sum(
    rows, columns, row_group, column_group, bias, value, bias_gradient, gradient, n_rows, n_columns, d,
    GRADIENTS: tl.constexpr, EDGE: tl.constexpr, LENGTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i, i_inside, row = _load(tl.program_id(0) * EDGE, n_rows, rows, d, EDGE, LENGTH)
    mine = tl.load(row_group + i, mask=i_inside, other=0)
    offset = tl.load(bias)
    total = tl.zeros((EDGE, LENGTH), tl.float32)
    loss = tl.zeros((EDGE,), tl.float32)
    slope = tl.zeros((EDGE,), tl.float32)
    for left in range(0, n_columns, EDGE):
        j, j_inside, column = _load(left, n_columns, columns, d, EDGE, LENGTH)
        group = tl.load(column_group + j, mask=j_inside, other=0)
        sign = tl.where(mine[:, None] == group[None, :], -1.0, 1.0)
        x = sign * (tl.dot(row, tl.trans(column), input_precision=PRECISION) + offset)
        # log(1 + e) with the digits that 1 + e loses, put back by e / ((1 + e) - 1)
        e = tl.exp(-tl.abs(x))
        one = 1.0 + e
        digits = tl.where(one == 1.0, e, tl.log(one) * (e / tl.where(one == 1.0, 1.0, one - 1.0)))
        loss += tl.sum(tl.where(j_inside[None, :], tl.maximum(x, 0.0) + digits, 0.0), 1)
        if GRADIENTS:
            share = tl.where(j_inside[None, :], sign * tl.where(x >= 0, 1.0, e) / one, 0.0)
            slope += tl.sum(share, 1)
            total += tl.dot(share, column, input_precision=PRECISION)
    tl.store(value + i, loss, mask=i_inside)
    if GRADIENTS:
        tl.store(bias_gradient + i, slope, mask=i_inside)
        _store(i, i_inside, total, gradient, d, LENGTH)
