"""What the embedding of structures is trained with: settings, and batches of some images of some crystals each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import OutOfRangeError
from ..training import TrainConfig
from .retrieval_sets import MapSet

__all__ = ["BRANCHES", "NETWORKS", "Batches", "EmbeddingConfig"]

BRANCHES = ("cts", "cts+space_group", "cts+prototype", "space_group", "prototype")
"""What is learnt: to contrast crystals, to tell classes, or both."""

NETWORKS = ("lines", "resnet")
"""What sees an image: a network of the set of its reflections, or one of its map."""


@dataclass(frozen=True)
class EmbeddingConfig(TrainConfig):
    """Settings of a training: what is learnt, the network and its shape, and the loop's own settings."""

    samples: int = 6_144
    batch_size: int = 256
    peak_rate: float = 3e-3
    warmup: int = 768
    ema_half_life: int = 1_024
    precision: str = "32-true"
    log_every: int = 1_024
    validate_every: int = 2_048
    checkpoint_every: int = 1_024
    branch: str = "cts"  # one of `BRANCHES`
    head: str = "identity"  # or "nonlinear"
    network: str = "lines"  # a set of reflections; or "resnet": the thesis's, on maps (`MapEncoder`)
    width: int = 32  # channels of its first stage
    waves: int = 2048  # in which a reflection is laid out; the embedding is twice as long
    images: int = 4  # of each crystal of a batch
    hide: float = 0.2  # share of images whose mean is hidden
    omit: float = 0.1  # share of reflections that are left out
    length_error: float = 0.001  # largest of an image's lengths, relative and told


class Batches:
    """Batches of some images of some crystals each, a pure function of the step.

    ``batches(step)`` gives what the network sees, then crystal, prototype and space group (B,) of each image. Seen are
    reflections (B, 64, 7) and errors of lengths (B,), or maps (B, 64, 64) and scalars (B, 3). Of some images the mean
    is hidden; of all, some reflections are left out and lengths are made wrong, or the map is turned, and of a half
    mirrored.
    """

    def __init__(self, data: MapSet, config: EmbeddingConfig) -> None:
        self.data, self.config = data, config
        if config.batch_size % config.images or config.images % 2:
            raise OutOfRangeError(
                f"batch_size {config.batch_size}, images {config.images}: an even number of images, and whole crystals"
            )
        order = np.argsort(data.maps.structure, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(data.maps.structure[order])) + 1)

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        config, data = self.config, self.data
        rng = np.random.default_rng((config.seed, 2, step))
        chosen = rng.choice(len(self.members), config.batch_size // config.images, replace=False)
        rows = np.concatenate([rng.choice(self.members[c], config.images, replace=False) for c in chosen])
        seen = (self._maps if config.network == "resnet" else self._lines)(rows, rng)
        labels = data.maps.structure[rows], data.prototype[rows], data.space_group[rows]
        return tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in (*seen, *labels))

    def _lines(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        lines = self.data.maps.lines[rows].copy()
        lines[rng.random(len(rows)) < self.config.hide, :, 1] = np.nan
        lines[rng.random(lines.shape[:2]) < self.config.omit] = np.nan
        error = (self.config.length_error * 10 ** rng.uniform(-2.5, 0, len(rows))).astype(np.float32)
        lines[..., 0] += error[:, None] * rng.normal(size=(len(rows), 1)).astype(np.float32)
        return lines, error

    def _maps(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scalars = self.data.maps.scalars[rows].copy()
        scalars[rng.random(len(rows)) < self.config.hide, 1] = np.nan
        values = self.data.maps.values[rows].astype(np.float32)
        turn = rng.integers(values.shape[2], size=(len(rows), 1)) + np.arange(values.shape[2])
        mirrored = rng.random((len(rows), 1)) < 0.5
        sectors = np.where(mirrored, -turn, turn) % values.shape[2]
        return np.take_along_axis(values, sectors[:, None], 2), scalars
