"""Contrastive pre-training of a `Cimp` on a data set: crops in, a model that has learnt out."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoint import write_text
from .crops import open_crops, turned
from .dataset import Dataset
from .errors import OutOfRangeError, SchemaError
from .losses import gather, gathered_info_nce
from .metrics import positive_ranks, topk
from .models import Cimp, CimpConfig
from .processes import is_first
from .schema import image_key
from .training import TrainConfig, fit

__all__ = ["PROFILES", "CropSampler", "PretrainConfig", "Validation", "half_is_enough", "pretrain"]


@dataclass(frozen=True)
class PretrainConfig(TrainConfig):
    """Settings of a pre-training: the model's shape, what is masked, and the loop's own settings."""

    width: int = 32  # channels of the first ResNet stage; 64 is a ResNet-18
    dim: int = 128  # length of an embedding
    hidden: int = 256  # units of the metadata network's layers
    statistics: bool = True  # feed image statistics to the head
    dropout: float = 0.3  # share dropped in the image head
    crop_size: int = 128  # edge of a crop [pixels]
    flips: bool = True  # the eight flips and quarter turns of a crop
    mask_absolute: float = 0.1  # share of crops whose absolute intensity is hidden
    mask_metadata: float = 0.1  # share of parameters hidden
    memory: float = 4.0  # compressed images are kept in memory up to this size [GiB], else copied to disk once


PROFILES = {
    "smoke": PretrainConfig(
        samples=1_024, batch_size=64, warmup=256, width=8, dim=32, hidden=64, crop_size=64, precision="32-true",
        log_every=256, validate_every=1_024, checkpoint_every=1_024,
    ),
    "book": PretrainConfig(
        samples=25_600, batch_size=128, warmup=2_560, width=16, log_every=1_280, validate_every=12_800,
        checkpoint_every=12_800,
    ),
    "full": PretrainConfig(),
}  # fmt: skip
"""The same method at three lengths: a test (seconds), a chapter (about a minute), the shipped weights."""


def pretrain(
    train: Dataset,
    val: Dataset | None,
    config: PretrainConfig,
    out: str | Path | None = None,
    *,
    resume: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    strategy: str = "auto",
) -> Cimp:
    """Train a model on `train`; checkpoint, log and settings go into the folder `out`.

    Parameters
    ----------
    train, val : Dataset
        Views of one data set. Every ``validate_every`` samples the Top-1/5/10 on `val` is logged (images
        against its distinct metadata vectors, one central crop); nothing else is done with `val`.
    out : path, optional
        Folder for ``checkpoint.pt``, ``log.jsonl`` and ``config.json``.
    resume : bool
        Go on from the checkpoint in `out`.
    on_log, on_step, devices, num_nodes, strategy : optional
        As of `training.fit`: every process calls this function, and every one gets the model.
    """
    torch.manual_seed(config.seed)
    names = {f.name for f in dataclasses.fields(CimpConfig)} & {f.name for f in dataclasses.fields(config)}
    shape = CimpConfig(**{name: getattr(config, name) for name in names})
    model = Cimp(shape.with_normalizer(train.normalizer))
    if out is not None and is_first():
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "config.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    validate = None if val is None else Validation(val, config.crop_size)
    fit(
        model, CropSampler(train, config), _loss, config, out, validate=validate, resume=resume, on_log=on_log,
        on_step=on_step, devices=devices, num_nodes=num_nodes, strategy=strategy,
    )  # fmt: skip
    return model.cpu().eval()


def _loss(model: Cimp, intensity: Tensor, metadata: Tensor, absolute: Tensor, group: Tensor):
    output = model(intensity, metadata, absolute)
    loss = gathered_info_nce(output.image, output.metadata, group, output.scale)
    _, row, count = gather(group).unique(return_inverse=True, return_counts=True)
    positives = count[row].float()
    # The minimum of the loss is the entropy of the positives, not zero: what is left above it can be learnt.
    return loss, {"excess": loss.detach() - positives.log().mean(), "scale": output.scale.detach()}


class CropSampler:
    """Batches of random crops, a pure function of the step.

    Images come in epochs, each a new permutation. ``sampler(step)`` gives intensities (B, s, s) float32,
    normalised metadata (B, 7) with ``nan`` where missing or masked, absolute (B,) bool and group (B,) int64.
    """

    def __init__(self, data: Dataset, config: PretrainConfig) -> None:
        self.data, self.config = data, config
        self.metadata = data.metadata.astype(np.float32)
        self.groups = np.asarray(data.groups, dtype=np.int64)
        self.on_scale = np.array([data.on_scale(i) for i in range(len(data))], dtype=bool)
        shapes = [data.shape(i) for i in range(len(data))]
        if not shapes:
            raise SchemaError(f"{data.path}: no image to train on")
        if min(min(s) for s in shapes) < config.crop_size:
            small = next(i for i, s in enumerate(shapes) if min(s) < config.crop_size)
            raise OutOfRangeError(
                f"{data.path}: image {data.indices[small]} is {shapes[small][0]} x {shapes[small][1]} pixels, smaller "
                f"than crop_size {config.crop_size}; choose a smaller crop_size"
            )
        self.reader = open_crops(data, memory=config.memory)

    def order(self, first: int, count: int) -> np.ndarray:
        """Indices of the samples `first` to `first + count` of the run."""
        n = len(self.data)
        epochs = range(first // n, (first + count - 1) // n + 1)
        stream = [np.random.default_rng((self.config.seed, 1, epoch)).permutation(n) for epoch in epochs]
        return np.concatenate(stream)[first % n : first % n + count]

    def places(self, step: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
        """Of the samples of a step: the generator that drew them, images (B,), and (B, 4): top, left, turns, flip."""
        n = self.config.batch_size
        rng = np.random.default_rng((self.config.seed, 2, step))
        indices = self.order(step * n, n)
        free = self.reader.shapes[indices] - self.config.crop_size + 1
        return rng, indices, rng.integers(np.column_stack([free, np.tile((4, 2), (n, 1))]))

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.part(step, slice(None))

    def part(self, step: int, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Some rows of ``sampler(step)``; only their images are read."""
        config = self.config
        rng, indices, drawn = self.places(step)
        metadata = self.metadata[indices].copy()
        metadata[rng.random(metadata.shape) < config.mask_metadata] = np.nan
        absolute = self.on_scale[indices] & (rng.random(len(indices)) >= config.mask_absolute)
        tops, lefts, turns, flips = drawn[rows].T
        squares = self.reader.crops(indices[rows], tops, lefts, config.crop_size)
        crops = turned(squares, turns, flips) if config.flips else squares.astype(np.float32)
        if self.reader.waits:  # the disk then reads the next batch while the model learns from this one
            _, following, place = self.places(step + 1)
            self.reader.announce(following[rows], place[rows, 0], place[rows, 1], config.crop_size)
        return tuple(torch.from_numpy(a) for a in (crops, metadata[rows], absolute[rows], self.groups[indices[rows]]))


class Validation:
    """Retrieval scores on the central crops of a validation view: image to all its distinct settings.

    ``validation(model)`` gives ``val_top1``, ``val_top5``, ``val_top10`` and ``val_candidates``. Cheap and
    the same at every call; the scores to publish come from `cimp_core.retrieval.evaluate`.
    """

    def __init__(self, val: Dataset, size: int, most: int = 1000) -> None:
        chosen = np.sort(np.random.default_rng(0).permutation(len(val))[:most])
        self.crops = [_center(val, i, size) for i in chosen]
        self.on_scale = [val.on_scale(i) for i in chosen]
        self.groups = val.groups[chosen]
        self.candidates, first = np.unique(self.groups, return_index=True)
        self.raw = val.metadata_raw[chosen[first]]

    def __call__(self, model: Cimp) -> dict[str, float]:
        cosine = model.embed_images(self.crops, crops=1, absolute=self.on_scale) @ model.embed_metadata(self.raw).T
        found = topk(positive_ranks(cosine, self.groups, self.candidates))
        return {"val_candidates": len(self.raw)} | {f"val_{k}": v for k, v in found.items()}


def half_is_enough(model: Cimp, validation: Validation) -> tuple[str, ...]:
    """Which parameters, by the start of their names, may be float16 without a change of the validation scores.

    All of them (an empty start), else the last stages and the head of the image encoder, which are nine tenths of the
    weights; none if these change a score too.
    """
    scores = validation(model)
    for starts in (("",), ("image_encoder.stages.2.", "image_encoder.stages.3.", "image_encoder.head.")):
        half = copy.deepcopy(model)
        for name, parameter in half.named_parameters():
            if parameter.ndim > 1 and name.startswith(starts):
                parameter.data = parameter.data.half().float()
        if validation(half) == scores:
            return starts
    return ()


def _center(data: Dataset, i: int, size: int) -> np.ndarray:
    image = data.file[image_key(data.indices[i])]  # not read whole
    top, left = (max(0, (edge - size) // 2) for edge in image.shape)
    return image[top : top + size, left : left + size]
