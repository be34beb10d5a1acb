"""Overlapping tiles: a method for small pictures applied to a frame of any size, in bounded memory and without seams.

Along each axis the frame is cut into cores of equal size. A tile is a core with half a blending zone and the method's
own margin on each inner side. In the blending zone the weight of one tile falls smoothly from 1 to 0 while that of its
neighbour rises, so that they sum to one; pixels in the margin, where a method lacks context, have no weight at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import OutOfRangeError
from ..metadata import Acquisition

__all__ = ["BLEND", "TILE", "Span", "cast", "denoise_frame", "read_rows", "spans"]

TILE = 512
"""Largest core of a tile [px]."""

BLEND = 16
"""Width of the zone in which one tile gives way to the next [px]."""

SMALLEST = 64
"""Smallest core that may be asked for [px]."""


class Span(NamedTuple):
    """One tile along one axis: what it reads, what it gives (both half-open, in pixels of the frame), with weights."""

    read: tuple[int, int]
    give: tuple[int, int]
    weight: np.ndarray  # (give[1] - give[0],) float32

    @property
    def kept(self) -> slice:
        """Part of what is read that is given."""
        return slice(self.give[0] - self.read[0], self.give[1] - self.read[0])


def spans(size: int, margin: int, tile: int = TILE) -> list[Span]:
    """Tiles along an axis of `size` pixels; at every pixel their weights sum to exactly 1, also in float32.

    Raises
    ------
    OutOfRangeError
        `tile` is below 64 or `margin` below 0.
    """
    if tile < SMALLEST or margin < 0:
        raise OutOfRangeError(f"tile {tile} with margin {margin}: a tile has at least {SMALLEST} px, a margin 0")
    count = math.ceil(size / tile)
    edges = [round(k * size / count) for k in range(count + 1)]
    half, rise = BLEND // 2, _rise()
    found = []
    for k, (first, last) in enumerate(zip(edges, edges[1:])):
        begins, ends = k == 0, k == count - 1
        give = (first if begins else first - half, last if ends else last + half)
        weight = np.ones(give[1] - give[0], np.float32)
        if not begins:
            weight[:BLEND] = rise
        if not ends:
            weight[-BLEND:] = rise[::-1]
        found.append(Span((max(0, give[0] - margin), min(size, give[1] + margin)), give, weight))
    return found


def _rise() -> np.ndarray:
    """Weights from 0 to 1 over a blending zone; rise + reversed rise is exactly 1."""
    upper = np.sin(np.pi / 2 * (np.arange(BLEND // 2, BLEND) + 0.5) / BLEND).astype(np.float32) ** 2
    # Of a number from 0.5 to 1 the difference from 1 is exact, so the lower half is made of the upper.
    return np.concatenate([1 - upper[::-1], upper])


def read_rows(frame: Any) -> Callable[[int, int], np.ndarray]:
    """Function that gives rows ``first`` to ``last`` of a (h, w) numpy or dask array as float32.

    A dask array whose rows are in several chunks is read chunk by chunk, when needed; one in a single chunk of rows is
    loaded whole, as dask would do for every part of it.
    """
    if hasattr(frame, "compute") and len(frame.chunks[0]) == 1:
        frame = frame.compute()
    return lambda first, last: np.asarray(frame[first:last]).astype(np.float32, copy=False)


def cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Copy of `values` as `dtype`: rounded and clipped to its range if that is an integer."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        # Done in float64, which holds the limits of 32-bit integers.
        return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)


def denoise_frame(
    rows: Callable[[int, int], np.ndarray],
    method: Callable,
    acquisition: Acquisition,
    factor: float,
    out: np.ndarray,
    *,
    tile: int = TILE,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray | None:
    """Apply a method to a frame, tile by tile, and write the picture to `out`.

    Parameters
    ----------
    rows : callable
        ``rows(first, last)`` gives these rows of the frame, (last - first, w) float32; see `read_rows`.
    method : callable
        ``method(frame, acquisition, factor) -> (image, deviation or None)`` with an attribute ``margin`` [px].
    acquisition, factor
        Handed to the method.
    out : (h, w) array
        Filled with the picture, in its own dtype.
    tile : int
        Largest core of a tile [px].
    progress : callable, optional
        Called as ``progress(done, total)`` after each tile.

    Returns
    -------
    (h, w) float32 array or None
        Standard deviation [counts], where the method gives one. Where tiles overlap, the mean of theirs: both see the
        same pixels, so their errors do not average out.

    Notes
    -----
    Beside `out` and the deviation, there are in memory one row of tiles (``tile + 16 + 2 * margin`` rows of the frame,
    three times, in float32) and what the method needs for one tile.
    """
    height, width = out.shape
    down, across = (spans(size, method.margin, tile) for size in (height, width))
    deviation, carried = None, None
    for k, strip in enumerate(down):
        held = rows(*strip.read)
        sums = _strip(held, strip, across, width, method, acquisition, factor, deviation is not None or k == 0)
        if carried is not None:
            for total, before in zip(sums, carried):
                total[:BLEND] += before
        last = len(down) - 1 == k
        done = len(sums[0]) if last else len(sums[0]) - BLEND
        first = strip.give[0]
        out[first : first + done] = cast(sums[0][:done], out.dtype)
        if len(sums) > 1:
            deviation = np.empty(out.shape, np.float32) if deviation is None else deviation
            deviation[first : first + done] = sums[1][:done]
        carried = [total[done:] for total in sums]
        if progress is not None:
            progress(k + 1, len(down))
    return deviation


def _strip(
    held: np.ndarray,
    strip: Span,
    across: list[Span],
    width: int,
    method: Callable,
    acquisition: Acquisition,
    factor: float,
    uncertain: bool,
) -> list[np.ndarray]:
    """Weighted sum over one row of tiles: the picture, and the deviation where the method gives one."""
    sums: list[np.ndarray] = []
    for span in across:
        given = method(held[:, slice(*span.read)], acquisition, factor)
        parts = [part for part in given if part is not None] if uncertain else given[:1]
        weight = strip.weight[:, None] * span.weight
        if not sums:
            sums = [np.zeros((len(strip.weight), width), np.float32) for _ in parts]
        for total, part in zip(sums, parts, strict=True):
            total[:, slice(*span.give)] += weight * part[strip.kept, span.kept]
    return sums
