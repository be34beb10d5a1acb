"""Crops of every image, prepared once: what a model computes from them before anything is learnt is kept on disk.

Statistics and spectra have nothing to learn, but cost more than the networks that read them. Taken once for a few crops
of every image, they let a processor train several times faster; the price is that the crops are no longer new at every
step. Several runs, other seeds and variants of a model, share one folder.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checkpoint import write_text
from .errors import SchemaError
from .models.encoders import Prepared, prepare
from .processes import is_first

if TYPE_CHECKING:
    from .crop_sampler import CropSampler

__all__ = ["Views", "prepare_views"]

CHUNK = 64  # rows prepared at a time
NOTE_EVERY = 50  # chunks between notes of how far it is


class Views(NamedTuple):
    """Views of n images, `count` of each: row ``i * count + v`` is view v of image i."""

    count: int
    tile: np.ndarray  # (n * count, t, t): the upper left of each crop, as recorded
    prepared: tuple[np.ndarray, ...]  # the fields of `Prepared`

    def rows(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Tiles, and the fields of `Prepared`, of some rows, as float32 tensors."""
        return tuple(torch.from_numpy(a[rows].astype(np.float32)) for a in (self.tile, *self.prepared))


def prepare_views(sampler: CropSampler, folder: str | Path, count: int) -> Views:
    """Views of the images of a `CropSampler`, from `folder` if they are there, else made and kept there.

    Which crops they are depends on the images and on the settings of crops, not on the seed of the run. An interrupted
    preparation goes on where it stopped; of several processes the first prepares and the others wait for it.

    Raises
    ------
    SchemaError
        The folder holds views of other images or other crops.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, data = sampler.config, sampler.data
    made_from = {
        "file": Path(data.path).name,
        "bytes": os.path.getsize(data.path),
        "images": [len(data), int(data.indices.sum()), int((data.indices * np.arange(len(data))).sum())],
        "views": count,
        "edges": sampler.edges.tolist(),
        **{name: getattr(config, name) for name in ("kept_tile", "flips", "turns")},
    }
    note, total = folder / "views.json", len(data) * count
    while not is_first() and not (note.exists() and json.loads(note.read_text())["done"] == total):
        time.sleep(1)
    done = 0
    if note.exists():
        found = json.loads(note.read_text())
        done = found.pop("done")
        if found != made_from:
            differs = ", ".join(k for k in made_from if found.get(k) != made_from[k])
            raise SchemaError(f"{folder}: holds views of something else ({differs} differ); name another folder")
    arrays = _open(folder, total, sampler, done)
    for start in range(done, total, CHUNK):
        rows = np.arange(start, min(start + CHUNK, total))
        tile, prepared = _make(sampler, rows, count, arrays[0].shape[1])
        for array, values in zip(arrays, (tile, *prepared), strict=True):
            array[rows] = values
        if rows[-1] + 1 == total or start // CHUNK % NOTE_EVERY == NOTE_EVERY - 1:
            for array in arrays:
                array.flush()
            write_text(note, json.dumps({**made_from, "done": int(rows[-1]) + 1}))
    return Views(count, arrays[0], tuple(arrays[1:]))


def _open(folder: Path, total: int, sampler: CropSampler, done: int) -> list[np.ndarray]:
    """The arrays on disk, mapped into memory; made if nothing is done yet, read-only if all is."""
    paths = [folder / f"{name}.npy" for name in ("tile", *Prepared._fields)]
    if done:
        return [np.load(path, mmap_mode="r" if done == total else "r+") for path in paths]
    sample, tile = prepare(torch.zeros(1, 32, 32)), min(sampler.config.kept_tile, sampler.edges[0])
    shapes = {"tile": ((total, tile, tile), np.result_type(*sampler.reader.dtypes))}
    for name, value in zip(Prepared._fields, sample, strict=True):
        # The logarithm of a power needs no more than half precision.
        shapes[name] = ((total, *value.shape[1:]), np.float16 if name == "grid" else np.float32)
    return [
        np.lib.format.open_memmap(path, "w+", dtype, shape)
        for path, (shape, dtype) in zip(paths, shapes.values(), strict=True)
    ]


def _make(sampler: CropSampler, rows: np.ndarray, count: int, tile: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Tile and `Prepared` of each row; the edge of a chunk's crops is drawn for the chunk."""
    rng = np.random.default_rng((0, 3, int(rows[0])))
    crops = sampler.read(rows // count, *sampler.draw(rng, rows // count))
    prepared = prepare(torch.from_numpy(crops))
    return crops[:, :tile, :tile], [value.numpy() for value in prepared]
