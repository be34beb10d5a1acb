"""The same recording twice in a drive, also where it was saved again in another type or stretched in between.

Two recordings of one area share the picture, not the noise. So what is compared is noise, at points spread over the
image: that of a copy is the same, that of another recording of the same area, however alike the pictures, is not.
A copy that was cropped, turned, resampled or filtered has other noise, and is not found. Comparing every pair takes a
time that grows with the square of their number; of many images, only pairs are compared whose noise has the same signs
at some points, which hardly any other pair has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .measuring import Measured

__all__ = ["EXHAUSTIVE", "SAME_NOISE", "Duplicate", "find_duplicates"]

SAME_NOISE = 0.97
"""Correlation of the noise from which on two images are one recording."""

EXHAUSTIVE = 2048
"""Images up to which every pair is compared. Of more, a copy at a correlation of `SAME_NOISE` is missed with a
probability of some 1e-5, of 0.99 of 1e-11."""

_BLOCK = 512  # rows compared at a time
_BAND = 20  # points whose signs must all agree before two rows are compared; there are 51 bands of 1024 points
_LISTED = 20  # a pair that is listed takes as long as so many in a product of all rows
_PAIRS = 2**14  # listed pairs compared at a time


class Duplicate(NamedTuple):
    """An image that was there before: its position, that of the first one, and how alike their noise is."""

    index: int
    first: int
    correlation: float  # 1 where every pixel is equal
    exact: bool


def find_duplicates(images: Sequence[Measured]) -> list[Duplicate]:
    """Each image that repeats an earlier one of the sequence, in order; flat images are not compared."""
    found: dict[int, Duplicate] = {}
    first: dict[str, int] = {}
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        if image.flat:
            continue
        earlier = first.setdefault(image.digest, i)
        if earlier != i:
            found[i] = Duplicate(i, earlier, 1.0, True)
        elif np.any(image.fingerprint):
            groups[image.shape].append(i)
    for members in groups.values():
        found |= {d.index: d for d in _near(images, members)}
    return [found[i] for i in sorted(found)]


def _near(images: Sequence[Measured], members: list[int]) -> list[Duplicate]:
    rows = np.array([images[i].fingerprint for i in members], np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6)
    first = _every_pair(rows) if len(rows) <= EXHAUSTIVE else _alike_in_signs(rows)
    return [Duplicate(members[k], members[j], c, False) for k, (j, c) in sorted(first.items())]


def _every_pair(rows: np.ndarray) -> dict[int, tuple[int, float]]:
    """Of each row that repeats an earlier one: the first such row, and the correlation."""
    found = {}
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK] @ rows[: start + _BLOCK].T
        for k, alike in enumerate(block, start):
            earlier = np.flatnonzero(alike[:k] >= SAME_NOISE)
            if earlier.size:
                found[k] = int(earlier[0]), float(alike[earlier[0]])
    return found


def _alike_in_signs(rows: np.ndarray) -> dict[int, tuple[int, float]]:
    """As `_every_pair`, comparing rows that agree in all signs of one of the bands.

    At a correlation c, two signs of noise agree with a probability of 1 - arccos(c) / pi.
    """
    signs = rows > np.median(rows, axis=1, keepdims=True)  # noise that is zero in places has no sign there
    bands, pairs = [], 0
    for start in range(0, rows.shape[1] - _BAND + 1, _BAND):
        key = signs[:, start : start + _BAND] @ (1 << np.arange(_BAND))
        order = np.argsort(key, kind="stable")
        lengths = np.unique(key, return_counts=True)[1]
        bands.append((order, key[order], int(lengths.max())))
        pairs += int((lengths * (lengths - 1)).sum()) // 2
    if _LISTED * pairs > len(rows) ** 2 / 2:
        return _every_pair(rows)  # noise that is zero in most places has few patterns of signs
    found: dict[int, tuple[int, float]] = {}
    for order, key, longest in bands:
        for step in range(1, longest):
            places = np.flatnonzero(key[step:] == key[:-step])
            for part in np.split(places, range(_PAIRS, len(places), _PAIRS)):
                earlier, later = order[part], order[part + step]
                alike = np.einsum("ij,ij->i", rows[earlier], rows[later])
                for n in np.flatnonzero(alike >= SAME_NOISE):
                    pair = int(earlier[n]), float(alike[n])
                    found[int(later[n])] = min(found.get(int(later[n]), pair), pair)
    return found
