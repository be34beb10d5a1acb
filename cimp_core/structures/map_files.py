"""Maps of many micrographs of many crystals, made once and kept on disk: to learn from, and to be searched in a test.

Images of one crystal are made along several zone axes, several times each with settings drawn anew. An interrupted
preparation goes on where it stopped; which images they are depends on the seed and on the settings alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checkpoint import write_text
from ..errors import SchemaError
from .crystals import Structure, zone_axes
from .micrographs import Conditions, draw_micrograph
from .projection import IMAGE_MODEL, project
from .spectrum_map import spectrum_map

__all__ = ["VERSION", "Maps", "make_maps", "structure_rng", "zones_of"]

VERSION = 4
"""Of what `spectrum_map` gives; files of another version are not read."""

CHUNK = 48
"""Structures in a file."""

HIGHEST = 3
"""Largest index of a zone axis."""


class Maps(NamedTuple):
    """Of n images, in the order of structures, zone axes and repeats."""

    values: np.ndarray  # (n, 64, 64) float16
    lines: np.ndarray  # (n, 64, 7) float32
    scalars: np.ndarray  # (n, 3) float32: energy, contrast, field
    structure: np.ndarray  # (n,) int: index of the structure
    view: np.ndarray  # (n,) int: no two structures have one in common


def zones_of(structure: Structure, count: int, _kept: dict = {}) -> list[tuple[int, int, int]]:  # noqa: B006 - a cache
    """The `count` zone axes with the shortest periods; all decorations of a prototype have the same."""
    key = structure.prototype, len(structure.rotations)
    if key not in _kept:
        _kept[key] = zone_axes(structure, HIGHEST)
    return _kept[key][:count]


def make_maps(
    structures: Sequence[Structure],
    folder: str | Path,
    conditions: Conditions,
    *,
    zones: int = 8,
    repeats: int = 3,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> Maps:
    """Maps of `zones` x `repeats` images of each structure, from `folder` if they are there, else made and kept.

    Raises
    ------
    SchemaError
        The folder holds maps of other structures or settings.
    """
    folder, note = Path(folder), Path(folder) / "maps.json"
    folder.mkdir(parents=True, exist_ok=True)
    names = "\n".join(s.name for s in structures)
    made_from = {
        "version": [VERSION, IMAGE_MODEL],
        "structures": [len(structures), zlib.crc32(names.encode())],
        "zones": zones,
        "repeats": repeats,
        "seed": seed,
        "conditions": json.loads(json.dumps(dataclasses.asdict(conditions))),
    }
    if not note.exists():
        write_text(note, json.dumps(made_from))
    elif (found := json.loads(note.read_text())) != made_from:
        differs = ", ".join(k for k in made_from if found.get(k) != made_from[k])
        raise SchemaError(f"{folder}: holds maps of something else ({differs} differ); name another folder")
    parts = []
    for start in range(0, len(structures), CHUNK):
        path = folder / f"maps-{start // CHUNK:04d}.npz"
        if not path.exists():
            _make(structures[start : start + CHUNK], start, path, conditions, zones, repeats, seed)
        with np.load(path) as file:
            parts.append(Maps(*(file[name] for name in Maps._fields)))
        if on_step is not None:
            on_step(min(start + CHUNK, len(structures)))
    return Maps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _make(structures, first, path: Path, conditions: Conditions, zones, repeats, seed) -> None:
    values, lines, scalars, labels = [], [], [], []
    for index, structure in enumerate(structures, first):
        rng = structure_rng(structure, seed)
        for number, zone in enumerate(zones_of(structure, zones)):
            projection = project(structure, zone)
            for _ in range(repeats):
                made = spectrum_map(*draw_micrograph(projection, conditions, rng))
                values.append(made.values.astype(np.float16))
                lines.append(made.lines)
                scalars.append((made.energy, made.contrast, made.field))
                labels.append((index, zones * index + number))
    structure_of, view = np.array(labels).T
    scalars = np.array(scalars, np.float32)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez(temporary, values=values, lines=lines, scalars=scalars, structure=structure_of, view=view)
    os.replace(temporary, path)


def structure_rng(structure: Structure, seed: int) -> np.random.Generator:
    """Of a structure's images; Python's own hash of a name would differ from run to run."""
    return np.random.default_rng((seed, zlib.crc32(structure.name.encode())))
