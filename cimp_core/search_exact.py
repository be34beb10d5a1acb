"""Exact search by cosine: the answer of float64 over all rows, at the price of a product in float32.

The rows are taken block by block. The product finds what may be among the k best, within a bound on its rounding error;
the cosines of those few are then computed in float64, and decide. The answer depends neither on the size of the blocks
nor on the library of matrix products; of equal cosines the lowest row comes first. Memory beyond the rows is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .errors import OutOfRangeError

__all__ = ["BLOCK_BYTES", "blocks", "exact", "stray_of", "unit_rows"]

BLOCK_BYTES = 16 * 2**20
"""Memory of a block [bytes]: of scores, and of rows as float32 where they are stored in half."""
SAMPLE = 4096  # columns of the first block that tell what is worth rescoring
PAIRS = 2**14  # rows rescored at once in float64
HALF_UNIT = 2.0**-24  # relative rounding error of one float32 operation


def blocks(count: int, bytes_each: int) -> Iterator[slice]:
    """Slices of `count` rows that need `bytes_each` of memory a row, in order."""
    size = max(1, BLOCK_BYTES // max(1, bytes_each))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def stray_of(rows: np.ndarray, name: str) -> float:
    """Largest distance of a row's length from 1; every row is checked.

    Raises
    ------
    OutOfRangeError
        A row is zero or not finite: it has no direction.
    """
    stray, bad = 0.0, []
    for block in blocks(len(rows), 8 * rows.shape[1]):
        part = rows[block].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", part, part))
        good = np.isfinite(lengths) & (lengths > 0)
        bad += (block.start + np.flatnonzero(~good)).tolist()
        if good.any():
            stray = max(stray, float(np.abs(lengths[good] - 1).max()))
    if bad:
        raise OutOfRangeError(f"{len(bad)} of {len(rows)} {name} are zero or not finite, the first number {bad[0]}")
    return stray


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; the division is in float64, so that no length over- or underflows."""
    wide = rows.astype(np.float64)
    return (wide / np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]).astype(np.float32)


def exact(
    rows: np.ndarray, stray: float, queries: np.ndarray, k: int, among: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and float64 cosines (q, k) of the best rows."""
    wide = queries.astype(np.float64)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    unit, margin = wide.astype(np.float32), 1.01 * (rows.shape[1] + 8) * HALF_UNIT + stray
    best = np.full((len(queries), k), -np.inf)
    where = np.full((len(queries), k), len(rows))
    half = rows.dtype != np.float32
    for block in blocks(len(rows), 4 * len(queries) + (4 * rows.shape[1] if half else 0)):
        part = rows[block].astype(np.float32, copy=False)
        scores = unit @ part.T
        if among is not None:
            scores[:, ~among[block]] = -np.inf
        query, column = _candidates(scores, best[:, -1], k, margin)
        cosines = _rescore(rows, wide, query, block.start + column)
        best, where = _merge(best, where, query, block.start + column, cosines)
    return where, best


def _candidates(scores: np.ndarray, floor: np.ndarray, k: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (query, column) that may be among the k best, given the cosine `floor` of the k-th so far (-inf for none).

    A score is at most `margin` away from the cosine, so that nothing within it may be dropped.
    """
    hit = scores >= np.maximum(floor - margin, -2)[:, None]  # what is masked is -inf
    if np.count_nonzero(hit) > 8 * k * len(scores) and k < scores.shape[1]:
        # So many that some of them say more: k cosines are at least the k-th best score of these, less the margin.
        some = scores[:, :: max(1, scores.shape[1] // max(SAMPLE, 4 * k))]
        kth = np.partition(some, -k, axis=1)[:, -k]
        hit = scores >= np.maximum(np.maximum(floor, kth - margin) - margin, -2)[:, None]
    return np.nonzero(hit)


def _rescore(rows: np.ndarray, queries: np.ndarray, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Cosines of pairs in float64: one order of summation for every pair, so that equal rows have equal cosines."""
    cosines = np.empty(len(query))
    for start in range(0, len(query), PAIRS):
        some = slice(start, start + PAIRS)
        wide = rows[row[some]].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        cosines[some] = np.einsum("ij,ij->i", wide, queries[query[some]]) / lengths
    return cosines


def _merge(
    best: np.ndarray, where: np.ndarray, query: np.ndarray, row: np.ndarray, cosines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of what was found before and of new pairs, in order of cosine and then of row."""
    count, k = best.shape
    owners = np.concatenate([np.repeat(np.arange(count), k), query])
    values, indices = np.concatenate([best.ravel(), cosines]), np.concatenate([where.ravel(), row])
    order = np.lexsort((indices, -values, owners))
    first = np.searchsorted(owners[order], np.arange(count))
    kept = order[first[:, None] + np.arange(k)]
    return values[kept], indices[kept]
