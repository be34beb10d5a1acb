"""Batches of random crops with their settings, a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .crops import CropReader, open_crops, turned
from .dataset import Dataset
from .errors import OutOfRangeError, SchemaError
from .processes import is_first
from .resident import ResidentCrops, choose_source
from .views import prepare_views

if TYPE_CHECKING:
    from .pretrain import PretrainConfig

__all__ = ["CropSampler"]


class CropSampler:
    """Batches of random crops, a pure function of the step.

    Images come in epochs, each a new permutation. ``sampler(step)`` gives intensities (B, s, s) float32,
    normalised metadata (B, 7) with ``nan`` where missing or masked, absolute (B,) bool and group (B,) int64. The edge s
    is drawn for each step, so that the model meets images of many sizes; no crop is larger than the smallest image.
    With ``config.views``, the folder `views` holds the crops; a batch is then tiles, and the fields of `Prepared` last.
    `crops` says where crops come from (`resident.choose_source`) once a device is told (`place`), until then from the
    file; in a batch that is read on a device, the crops are there already.
    """

    def __init__(
        self,
        data: Dataset,
        config: PretrainConfig,
        views: str | Path | None = None,
        *,
        crops: str = "auto",
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.data, self.config, self._crops, self._on_note = data, config, crops, on_note
        self.resident: ResidentCrops | None = None
        self.metadata = data.metadata.astype(np.float32)
        self.groups = np.asarray(data.groups, dtype=np.int64)
        self.on_scale = np.array([data.on_scale(i) for i in range(len(data))], dtype=bool)
        shapes = [data.shape(i) for i in range(len(data))]
        if not shapes:
            raise SchemaError(f"{data.path}: no image to train on")
        self.shapes = np.array(shapes, dtype=np.int64)
        edges, smallest = [min(s) for s in shapes], config.smallest
        if min(edges) < smallest:
            small = next(i for i, edge in enumerate(edges) if edge < smallest)
            raise OutOfRangeError(
                f"{data.path}: image {data.indices[small]} is {shapes[small][0]} x {shapes[small][1]} pixels, smaller "
                f"than the smallest crop, {smallest}; choose a smaller smallest_crop"
            )
        # All crops of a batch are of one size, which every image must have.
        self.edges = np.arange(smallest, min(config.crop_size, *edges) + 1, 32)
        self.views = None
        if config.views:
            if views is None:
                raise OutOfRangeError(f"views is {config.views}: name a folder to keep them in")
            self.views = prepare_views(self, views, config.views)

    @cached_property
    def reader(self) -> CropReader:
        """Where crops come from; not opened where all of them are prepared."""
        return open_crops(self.data, memory=self.config.memory)

    def place(self, device: torch.device) -> None:
        """Settle where crops come from in a training on `device`, and say so."""
        if self.views is not None:
            note = "crops are prepared already"
        else:
            source, note = choose_source(self.data, device, self._crops, memory=self.config.memory)
            if isinstance(source, ResidentCrops):
                self.resident = source
            else:
                self.resident, self.reader = None, source
        if self._on_note is not None and is_first():
            self._on_note(note)

    def order(self, first: int, count: int) -> np.ndarray:
        """Indices of the samples `first` to `first + count` of the run."""
        n = len(self.data)
        epochs = range(first // n, (first + count - 1) // n + 1)
        stream = [np.random.default_rng((self.config.seed, 1, epoch)).permutation(n) for epoch in epochs]
        return np.concatenate(stream)[first % n : first % n + count]

    def draw(self, rng: np.random.Generator, indices: np.ndarray) -> tuple[int, np.ndarray]:
        """Edge of the crops of some images, and of each crop (n, 4): top, left, turns, flip."""
        edge, n = int(rng.choice(self.edges)), len(indices)
        free = self.shapes[indices] - edge + 1
        places = rng.integers(np.column_stack([free, np.tile((4, 2), (n, 1))]))
        if not self.config.turns:
            places[:, 2] = places[:, 2] // 2 * 2  # half a turn keeps the fast scan axis
        return edge, places * (1, 1, self.config.flips, self.config.flips)

    def read(self, indices: np.ndarray, edge: int, places: np.ndarray) -> np.ndarray:
        """The crops (n, edge, edge) float32 that `draw` chose."""
        return turned(self.reader.crops(indices, *places[:, :2].T, edge), *places[:, 2:].T)

    def _step(self, step: int) -> tuple[np.random.Generator, np.ndarray]:
        n = self.config.batch_size
        return np.random.default_rng((self.config.seed, 2, step)), self.order(step * n, n)

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        return self.part(step, slice(None))

    def part(self, step: int, rows: slice) -> tuple[Tensor, ...]:
        """Some rows of ``sampler(step)``; only their images are read."""
        config = self.config
        rng, indices = self._step(step)
        edge, places = self.draw(rng, indices) if self.views is None else (0, None)
        metadata = self.metadata[indices].copy()
        metadata[rng.random(metadata.shape) < config.mask_metadata] = np.nan
        absolute = self.on_scale[indices] & (rng.random(len(indices)) >= config.mask_absolute)
        rest = [torch.from_numpy(a) for a in (metadata[rows], absolute[rows], self.groups[indices[rows]])]
        if self.views is not None:
            tile, *prepared = self.views.rows(
                (indices * config.views + rng.integers(config.views, size=len(indices)))[rows]
            )
            return tile, *rest, *prepared
        if self.resident is not None:
            return self.resident.crops(indices[rows], *places[rows].T, edge), *rest
        crops = self.read(indices[rows], edge, places[rows])
        if self.reader.waits:  # the disk then reads the next batch while the model learns from this one
            rng, following = self._step(step + 1)
            edge, places = self.draw(rng, following)
            self.reader.announce(following[rows], *places[rows, :2].T, edge)
        return torch.from_numpy(crops), *rest
