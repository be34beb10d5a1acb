"""What the translator is trained on: settings of a run, and batches of unpaired images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .crops import open_crops, turned
from .dataset import Dataset
from .errors import OutOfRangeError
from .metadata import PARAMETERS, Normalizer
from .style_pairs import Pairs
from .training import TrainConfig

__all__ = ["PAIRS", "PROFILES", "StyleBatch", "StyleConfig", "StyleSampler"]


@dataclass(frozen=True)
class StyleConfig(TrainConfig):
    """Settings of a training: shape, the weights of the terms (0 leaves one out), and the loop's own settings."""

    condition: str = "embedding"  # one of `renderer.CONDITIONS`
    encoder: str = "cimp-twin-s"  # weights of the frozen encoder
    channels: int = 48
    blocks: int = 4
    cell: int = 4
    hidden: int = 128
    critic_channels: int = 32
    critic_rate: float = 2e-3  # peak learning rate of the critic
    mismatched: float = 0.3  # share of what the critic shall reject that are real images beside other images' settings
    adversarial: float = 1.0  # weight of the generator's least squares; 0 leaves the critic out, too
    cycle: float = 0.3
    embedding: float = 1.0
    identity: float = 1.0
    truth: float = 4.0  # of the difference from the area recorded again; this and the next only where it was
    noise: float = 1.0  # of the difference of the noise from that of these recordings
    mean_cell: int = 8  # cycle and truth compare means over squares of this side [px]: noise is drawn anew
    noise_cell: int = 16  # squares over which noise is compared [px]
    crop_size: int = 96  # edge of the largest crops [pixels]
    smallest_crop: int = 64  # every step draws an edge from here to crop_size, in steps of 32 [pixels]
    few: float = 0.5  # without pairs: share of the wanted settings that differ from the own in some parameters only
    mask_metadata: float = 0.05  # share of the source's parameters hidden
    memory: float = 4.0  # as of `PretrainConfig` [GiB]


PROFILES = {
    "smoke": StyleConfig(
        samples=64, batch_size=4, warmup=16, channels=16, blocks=1, hidden=32, critic_channels=8, crop_size=64,
        precision="32-true", log_every=16, validate_every=64, checkpoint_every=64,
    ),
    "book": StyleConfig(
        samples=3_200, batch_size=16, warmup=320, peak_rate=2e-3, weight_decay=0.0, ema_half_life=200, log_every=320,
        validate_every=1_600, checkpoint_every=1_600,
    ),
    "full": StyleConfig(
        samples=32_000, batch_size=16, warmup=1_600, peak_rate=2e-3, weight_decay=0.0, ema_half_life=1_600,
        log_every=800, validate_every=3_200, checkpoint_every=1_600,
    ),
}  # fmt: skip
"""The same method at three lengths: a test (seconds), minutes, and the shipped weights."""

PAIRS = {"smoke": 24, "book": 800, "full": 8_000}
"""Areas that are recorded again for a training, if the data set is a twin."""


class StyleBatch(NamedTuple):
    """One batch; settings are normalised, ``nan`` where missing."""

    image: Tensor  # (B, s, s) counts
    source: Tensor  # (B, 7) its settings
    target: Tensor  # (B, 7) the wanted ones, with the pixel size of the source
    real: Tensor  # (B, s, s) counts of other images, whose settings the wanted ones were taken from; or, of pairs, of
    # the same areas under the wanted settings
    real_settings: Tensor  # (B, 7)


class StyleSampler:
    """Batches of unpaired images, a pure function of the step: ``sampler(step)`` is a `StyleBatch`.

    Wanted settings are those of another image with nearly the same pixel size, as a laboratory has them together;
    `config.few` of them are mixed, in that only some parameters change. A mix whose detector would begin inside the
    beam is not drawn: no HAADF image is taken so. With `pairs`, of the same view, a batch is drawn from them.
    """

    def __init__(
        self,
        data: Dataset,
        config: StyleConfig,
        normalizer: Normalizer,
        *,
        alike: int = 64,
        pairs: Pairs | None = None,
    ) -> None:
        self.data, self.config, self.normalizer, self.pairs = data, config, normalizer, pairs
        self.raw = np.asarray(data.metadata_raw, float)
        self.reader = open_crops(data, memory=config.memory)
        smallest = int(self.reader.shapes.min())
        if smallest < config.smallest_crop or len(data) < 2:
            raise OutOfRangeError(
                f"{data.path}: {len(data)} images of at least {smallest} pixels; two or more of "
                f"{config.smallest_crop} are needed"
            )
        self.edges = np.arange(config.smallest_crop, min(config.crop_size, smallest) + 1, 32)
        order = np.argsort(self.raw[:, 0], kind="stable")
        self.order, self.place = order, np.argsort(order)
        self.alike = min(alike, len(data) - 1)

    def __call__(self, step: int) -> StyleBatch:
        n, config = self.config.batch_size, self.config
        rng = np.random.default_rng((config.seed, 5, step))
        if self.pairs is not None:
            rows = rng.integers(len(self.pairs), size=n)
            chosen, target = self.pairs.images[rows], self.pairs.settings[rows]
            edge = int(rng.choice(self.edges))
            places = self._places(chosen, edge, rng)
            image = _half_turned(self.reader.crops(chosen, *places[:, :2].T, edge), places)
            real, own = _half_turned(self.pairs.crops(rows, *places[:, :2].T, edge), places), target
        else:
            chosen = rng.integers(len(self.data), size=n)
            other = self._alike(chosen, rng)
            target, own = self._mixed(self.raw[chosen], self.raw[other], rng), self.raw[other]
            edge = int(rng.choice(self.edges))
            image, real = (self._crops(indices, edge, rng) for indices in (chosen, other))
        source = self.normalizer.normalize(self.raw[chosen])
        source[rng.random(source.shape) < config.mask_metadata] = np.nan
        settings = source, self.normalizer.normalize(target), self.normalizer.normalize(own)
        source, target, own = (torch.from_numpy(s.astype(np.float32)) for s in settings)
        return StyleBatch(torch.from_numpy(image), source, target, torch.from_numpy(real), own)

    def _alike(self, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each image another one, drawn among those nearest in pixel size."""
        low = np.clip(self.place[chosen] - self.alike // 2, 0, len(self.order) - 1 - self.alike)
        drawn = low + rng.integers(self.alike, size=len(chosen))
        return self.order[drawn + (drawn >= self.place[chosen])]

    def _mixed(self, source: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        keep = (rng.random(len(source)) < self.config.few)[:, None] & (rng.random(source.shape) < 0.5)
        keep[:, 0] = True
        target = np.where(keep, source, other)
        inner, angle = PARAMETERS.index("inner_collection_angle"), PARAMETERS.index("convergence_angle")
        bright_field = target[:, inner] <= target[:, angle]
        target[bright_field, 1:] = other[bright_field, 1:]
        return target

    def _places(self, indices: np.ndarray, edge: int, rng: np.random.Generator) -> np.ndarray:
        """Top, left, half turn, mirror of a crop of each image."""
        free = self.reader.shapes[indices] - edge + 1
        return rng.integers(np.column_stack([free, np.full((len(indices), 2), 2)]))

    def _crops(self, indices: np.ndarray, edge: int, rng: np.random.Generator) -> np.ndarray:
        places = self._places(indices, edge, rng)
        return _half_turned(self.reader.crops(indices, *places[:, :2].T, edge), places)


def _half_turned(squares: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Half a turn and a mirror keep the fast scan axis."""
    return turned(squares, 2 * places[:, 2], places[:, 3])
