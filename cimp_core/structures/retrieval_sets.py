"""The three sets of maps that the embedding is learnt from, chosen on and tested on: of other prototypes each.

The test is like the thesis's, which has 672 crystals along 8 zone axes, 3 images each; here some prototypes allow fewer
crystals than asked for, which leaves about 650. An image is searched for among all others, of which 23 show the same
crystal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .crystals import Structure, prototypes
from .decorated import decorations, split_prototypes
from .map_files import Maps, make_maps
from .micrographs import MICROSCOPE, THESIS, TRAINING

__all__ = ["CONDITIONS", "DECORATIONS", "MapSet", "crystals_of", "test_set", "training_set"]

DECORATIONS = {"train": 8, "val": 7, "test": 7}
"""Crystals of each prototype; fewer where so many cannot be made."""

CONDITIONS = {"thesis": THESIS, "microscope": MICROSCOPE}


class MapSet(NamedTuple):
    """Maps, and of each image what is known of its crystal."""

    maps: Maps
    structures: tuple[Structure, ...]
    prototype: np.ndarray  # (n,) int: class of each image
    space_group: np.ndarray  # (n,) int


@cache
def crystals_of(part: str) -> tuple[Structure, ...]:
    """The crystals of a part: first one of each prototype, then another of each, and so on."""
    # Cells of the training crystals vary more: there are few prototypes, and this makes them more.
    spread = 0.08 if part == "train" else 0.02
    found = [decorations(s, DECORATIONS[part], spread=spread) for s in split_prototypes(prototypes())[part]]
    return tuple(some[i] for i in range(DECORATIONS[part]) for some in found if i < len(some))


def training_set(folder: str | Path, on_step: Callable[[int], None] | None = None) -> MapSet:
    """Eight images of each crystal, one along each zone axis; made in `folder` or read from it."""
    crystals = crystals_of("train")
    maps = make_maps(crystals, Path(folder) / "train", TRAINING, repeats=1, seed=1, on_step=on_step)
    return _labelled(maps, crystals)


def test_set(
    folder: str | Path,
    part: str = "test",
    conditions: str = "thesis",
    on_step: Callable[[int], None] | None = None,
) -> MapSet:
    """Three images along each of eight zone axes of every crystal of a part, "val" or "test".

    Parameters
    ----------
    conditions : str
        A name in `CONDITIONS`.
    """
    crystals, place = crystals_of(part), Path(folder) / f"{part}_{conditions}"
    maps = make_maps(crystals, place, CONDITIONS[conditions], on_step=on_step)
    return _labelled(maps, crystals)


test_set.__test__ = False  # no test, whatever pytest makes of its name


def _labelled(maps: Maps, crystals: Sequence[Structure]) -> MapSet:
    classes = [
        np.unique(values, return_inverse=True)[1]
        for values in zip(*((s.prototype, str(s.space_group)) for s in crystals))
    ]
    return MapSet(maps, tuple(crystals), *(c[maps.structure] for c in classes))
