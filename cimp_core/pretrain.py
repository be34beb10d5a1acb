"""Contrastive pre-training of a `Cimp` on a data set: crops in, a model that has learnt out."""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoint import write_text
from .crop_sampler import CropSampler
from .dataset import Dataset
from .losses import gather, gathered_info_nce, gathered_sigmoid_loss
from .metrics import positive_ranks, topk
from .models import Cimp, CimpConfig
from .models.encoders import Prepared
from .processes import is_first
from .schema import image_key
from .training import TrainConfig, fit

__all__ = ["PROFILES", "CropSampler", "PretrainConfig", "Validation", "half_is_enough", "pretrain"]


@dataclass(frozen=True)
class PretrainConfig(TrainConfig):
    """Settings of a pre-training: the model's shape, what is masked, and the loop's own settings."""

    width: int = 0  # channels of the first ResNet stage; 64 is a ResNet-18; 0 leaves the convolutions out
    dim: int = 128  # length of an embedding
    hidden: int = 256  # units of the metadata network's layers
    absolute: bool = True  # look at the absolute intensity where it is known
    statistics: bool = True  # feed statistics of the image to the head
    spectrum: int = 16  # channels of the network on the power spectrum; 0 leaves it out
    dropout: float = 0.3  # share dropped in the image head
    loss: str = "info_nce"  # or "sigmoid"
    learn_scale: bool = True  # else the inverse temperature stays where it starts
    crop_size: int = 256  # edge of the largest crops [pixels]
    smallest_crop: int = 128  # every step draws an edge from here to crop_size, in steps of 32 [pixels]
    tile: int = 128  # edge of the part of a crop that the convolutions see [pixels]
    flips: bool = True  # crops are mirrored at random along either axis
    turns: bool = False  # and turned by quarters; the fast scan axis is then not always the same
    views: int = 0  # crops of each image, prepared once and kept (`cimp_core.views`); 0: new crops at every step
    mask_absolute: float = 0.1  # share of crops whose absolute intensity is hidden
    mask_metadata: float = 0.1  # share of parameters hidden
    memory: float = 4.0  # compressed images are kept in memory up to this size [GiB], else copied to disk once

    @property
    def smallest(self) -> int:
        """Edge of the smallest crops; none is larger than `crop_size`."""
        return min(self.smallest_crop, self.crop_size)

    @property
    def kept_tile(self) -> int:
        """Edge of what is kept of a prepared crop as pixels: the part that convolutions see, where there are any."""
        return self.tile if self.width else 1


PROFILES = {
    "smoke": PretrainConfig(
        samples=1_024, batch_size=64, warmup=256, width=8, dim=32, hidden=64, spectrum=8, crop_size=96,
        smallest_crop=64, tile=64, precision="32-true", log_every=256, validate_every=1_024, checkpoint_every=1_024,
    ),
    "book": PretrainConfig(
        samples=25_600, batch_size=128, warmup=2_560, crop_size=192, log_every=1_280, validate_every=12_800,
        checkpoint_every=12_800,
    ),
    "full": PretrainConfig(
        samples=1_500_000, batch_size=256, warmup=60_000, views=2, log_every=30_000, validate_every=150_000,
        checkpoint_every=150_000,
    ),
}  # fmt: skip
"""The same method at three lengths: a test (seconds), a chapter (about a minute), the shipped weights.

The convolutions take part in the test only: on the twin they added nothing to statistics and spectrum at an equal
number of crops (the ablation in the book), and cost four times as much. `width` brings them in.
"""


def pretrain(
    train: Dataset,
    val: Dataset | None,
    config: PretrainConfig,
    out: str | Path | None = None,
    *,
    views: str | Path | None = None,
    resume: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    strategy: str = "auto",
    crops: str = "auto",
    on_note: Callable[[str], None] | None = None,
) -> Cimp:
    """Train a model on `train`; checkpoint, log and settings go into the folder `out`.

    Parameters
    ----------
    train, val : Dataset
        Views of one data set. Every ``validate_every`` samples the Top-1/5/10 on `val` is logged (images
        against its distinct metadata vectors, one central crop); nothing else is done with `val`.
    out : path, optional
        Folder for ``checkpoint.pt``, ``log.jsonl`` and ``config.json``.
    views : path, optional
        Folder of the prepared crops if ``config.views`` asks for them; by default ``views`` in `out`, or for this run
        alone. Several processes need one that all of them see.
    resume : bool
        Go on from the checkpoint in `out`.
    on_log, on_step, devices, num_nodes, strategy : optional
        As of `training.fit`: every process calls this function, and every one gets the model.
    crops : {"auto", "device", "file", "hdf5"}
        Where crops come from, see `resident.choose_source`; their pixels are the same. Not a setting of the run.
    on_note : optional
        Called in the first process with a line of text that says where they come from, and why.
    """
    torch.manual_seed(config.seed)
    names = {f.name for f in dataclasses.fields(CimpConfig)} & {f.name for f in dataclasses.fields(config)}
    shape = CimpConfig(**{name: getattr(config, name) for name in names})
    model = Cimp(shape.with_normalizer(train.normalizer))
    model.log_scale.requires_grad_(config.learn_scale)
    if out is not None and is_first():
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "config.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    validate = None if val is None else Validation(val, config.crop_size)
    with tempfile.TemporaryDirectory(prefix="cimp-views-") as own:
        if config.views and views is None:
            views = own if out is None else Path(out) / "views"
        fit(
            model, CropSampler(train, config, views, crops=crops, on_note=on_note), _loss, config, out,
            validate=validate, resume=resume, on_log=on_log, on_step=on_step, devices=devices, num_nodes=num_nodes,
            strategy=strategy,
        )  # fmt: skip
    return model.cpu().eval()


def _loss(model: Cimp, intensity: Tensor, metadata: Tensor, absolute: Tensor, group: Tensor, *prepared: Tensor):
    output = model(intensity, metadata, absolute, Prepared(*prepared) if prepared else None)
    if output.bias is not None:
        loss = gathered_sigmoid_loss(output.image, output.metadata, group, output.scale, output.bias, even=True)
        return loss, {"scale": output.scale.detach()}
    loss = gathered_info_nce(output.image, output.metadata, group, output.scale, even=True)
    # Of each sample, how many there are in its group; `unique` would wait for the device to learn how many groups.
    groups = gather(group, even=True).sort().values
    positives = torch.searchsorted(groups, groups, right=True) - torch.searchsorted(groups, groups)
    # The minimum of the loss is the entropy of the positives, not zero: what is left above it can be learnt.
    excess = loss.detach() - positives.float().log().mean()
    return loss, {"excess": excess, "scale": output.scale.detach()}


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

    All of them (an empty start), else the convolutions and the head of the image encoder, which are most of the
    weights; none if these change a score too.
    """
    scores = validation(model)
    for starts in (("",), ("image_encoder.pixels.", "image_encoder.spectrum.", "image_encoder.head.")):
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
