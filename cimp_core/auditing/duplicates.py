"""The same recording twice in a drive, also where it was saved again in another type or stretched in between.

Two recordings of one area share the picture, not the noise. So what is compared is noise, at points spread over the
image: that of a copy is the same, that of another recording of the same area, however alike the pictures, is not.
A copy that was cropped, turned, resampled or filtered has other noise, and is not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .measuring import Measured

__all__ = ["SAME_NOISE", "Duplicate", "find_duplicates"]

SAME_NOISE = 0.97
"""Correlation of the noise from which on two images are one recording."""

_BLOCK = 512  # rows compared at a time


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
    found = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK] @ rows[: start + _BLOCK].T
        for k, alike in enumerate(block, start):
            earlier = np.flatnonzero(alike[:k] >= SAME_NOISE)
            if earlier.size:
                found.append(Duplicate(members[k], members[earlier[0]], float(alike[earlier[0]]), False))
    return found
