"""Splits into training, validation and test images that keep together what belongs together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import OutOfRangeError

__all__ = ["KINDS", "split_indices"]

KINDS = ("image", "session", "material")


def split_indices(
    kind: str, units: Sequence, *, val: float = 0.1, test: float = 0.12, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the training, validation and test images.

    ``"image"`` is the paper's kind: images are drawn, but frames of one source file stay together, because two frames
    of one series are nearly the same picture. ``"session"`` keeps a directory together, ``"material"`` a material.
    All three hold a unit out whole. None of them promises that a metadata vector is new: a microscope returns to the
    same settings, so a vector of the test part may occur in training. Retrieval treats equal vectors as one.

    Parameters
    ----------
    kind : {"image", "session", "material"}
        What the units are.
    units : sequence of n labels
        Source file, session or material of each image.
    val, test : float
        Share of the images, reached to within half of the unit that would pass it. The default keeps more than 100
        of the embedded twin's 1,000 or so sessions for the test.
    seed : int
        Same labels, shares and seed give the same split, whatever the order of the images.

    Returns
    -------
    train, val, test : int64 arrays, ascending
        Together every image once.

    Raises
    ------
    OutOfRangeError
        Unknown `kind`, shares that leave nothing, or fewer units than parts.
    """
    if kind not in KINDS:
        raise OutOfRangeError(f"unknown split {kind!r}; there are {', '.join(KINDS)}")
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise OutOfRangeError(f"val={val:g} and test={test:g} must be at least 0 and leave something to train on")
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    parts_wanted = 1 + (val > 0) + (test > 0)
    if len(names) < parts_wanted:
        raise OutOfRangeError(
            f"a split by {kind} into {parts_wanted} parts needs as many of them; here is {len(names)}"
        )
    sizes = np.bincount(unit)
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(names)).tolist()
    held_out = []
    for share, left in ((test, parts_wanted - 1), (val, 1)):
        chosen = _fill(order, sizes, share * len(unit), left) if share > 0 else []
        order = [u for u in order if u not in set(chosen)]
        held_out.append(np.flatnonzero(np.isin(unit, chosen)))
    return np.flatnonzero(np.isin(unit, order)), held_out[1], held_out[0]


def _fill(order: list[int], sizes: np.ndarray, target: float, leave: int) -> list[int]:
    """Units in shuffled order until their images come to `target`; one that overshoots by most of itself is passed."""
    chosen, total = [], 0
    for u in order:
        if len(order) - len(chosen) > leave and total + sizes[u] / 2 <= target:
            chosen.append(u)
            total += sizes[u]
    return chosen or [min(order, key=lambda u: sizes[u])]
