"""A supervised network of the same size: the reference for what an image encoder can read when it is told to.

The same `ImageEncoder` as CIMP's, a linear head, and the seven normalised parameters as targets; the loss is the mean
squared error over the values that are known. Data, crops, optimiser and length are those of pre-training, so the
difference between its scores and a probe's is the price, or the gain, of learning by contrast.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint import write_text
from ..dataset import Dataset, open_dataset
from ..errors import SchemaError, UnreadableFileError
from ..metadata import PARAMETERS
from ..models import Cimp, CimpConfig
from ..models.encoders import Prepared
from ..pretrain import PROFILES, CropSampler, PretrainConfig
from ..retrieval import embed_dataset
from ..training import CHECKPOINT, fit, load_checkpoint, make_config
from ..weights import info

__all__ = ["Supervised", "load_supervised", "train_supervised"]

MODEL = "model.json"


class Supervised(nn.Module):
    """CIMP's image encoder and a linear head: (B, H, W) intensities -> (B, 7) normalised parameters.

    The head reads the unit row that the encoder gives, so a prediction is a linear function of an embedding, as a
    probe's is. The metadata network is there but unused: the encoder stays part of a `Cimp`, which knows how to cut and
    to average images.
    """

    def __init__(self, config: CimpConfig) -> None:
        super().__init__()
        self.seed = 0  # of its training
        self.cimp = Cimp(config)
        self.cimp.metadata_encoder.requires_grad_(False)
        self.cimp.log_scale.requires_grad_(False)
        self.head = nn.Linear(config.dim, len(PARAMETERS))

    def forward(self, intensity: Tensor, absolute: Tensor | None = None, prepared: Prepared | None = None) -> Tensor:
        """(B, 7) normalised parameters; arguments as of `ImageEncoder.forward`."""
        return self.head(self.cimp.image_encoder(intensity, absolute, prepared))

    @torch.no_grad()
    def predict(self, data: Dataset, crops: int | None = 4) -> np.ndarray:
        """Normalised parameters (n, 7) of all images of `data`; `crops` as in `Cimp.embed_images`."""
        rows = torch.from_numpy(embed_dataset(self.cimp, data, crops=crops)).to(self.cimp.device)
        return self.head(rows).cpu().numpy().astype(float)


def train_supervised(
    train: Dataset,
    val: Dataset | None,
    config: PretrainConfig,
    out: str | Path | None = None,
    *,
    views: str | Path | None = None,
    resume: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    stop: int | None = None,
) -> Supervised:
    """Train a `Supervised` on random crops of `train`; checkpoint, log and settings go into the folder `out`.

    Parameters
    ----------
    train, val : Dataset
        Views of one data set; the error on `val` is logged as ``val_error`` every ``validate_every`` samples.
    config : PretrainConfig
        As for `pretrain`, but that no parameter is masked: a masked one would be a target less.
    views : path, optional
        As of `pretrain`: the folder of its prepared crops will do, for the same crops of the same images.
    out, resume, on_log, stop : optional
        As of `cimp_core.training.fit`.
    """
    config = dataclasses.replace(config, mask_metadata=0.0)
    torch.manual_seed(config.seed)
    names = {f.name for f in dataclasses.fields(CimpConfig)} & {f.name for f in dataclasses.fields(config)}
    shape = CimpConfig(**{name: getattr(config, name) for name in names}).with_normalizer(train.normalizer)
    model = Supervised(shape)
    model.seed = config.seed
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_text(Path(out) / MODEL, json.dumps(dataclasses.asdict(shape), indent=1) + "\n")

    def validate(model: Supervised) -> dict[str, float]:
        return {"val_error": float(np.nanmean((model.predict(val, crops=1) - val.metadata) ** 2))}

    if config.views and views is None and out is not None:
        views = Path(out) / "views"
    fit(
        model, CropSampler(train, config, views), _loss, config, out,
        validate=None if val is None else validate, resume=resume, on_log=on_log, stop=stop,
    )  # fmt: skip
    return model.cpu().eval()


def _loss(model: Supervised, intensity: Tensor, metadata: Tensor, absolute: Tensor, group: Tensor, *prepared: Tensor):
    known = ~torch.isnan(metadata)
    # Zero in place of a missing target before the square: nan times zero would still be nan in the gradient.
    error = (model(intensity, absolute, Prepared(*prepared) if prepared else None) - torch.nan_to_num(metadata)) * known
    return error.square().sum() / known.sum().clamp_min(1), {}


def load_supervised(folder: str | Path) -> Supervised:
    """The network that `train_supervised` left in a folder, in evaluation mode on the CPU.

    Raises
    ------
    UnreadableFileError
        The folder lacks a file of such a run, or it cannot be read.
    SchemaError
        The run is not finished, or its model has another shape in this version.
    """
    folder = Path(folder)
    try:
        model = Supervised(CimpConfig.from_dict(json.loads((folder / MODEL).read_text())))
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{folder}: no supervised network here ({error}); train one first") from error
    state = load_checkpoint(folder / CHECKPOINT)
    seen, samples = state["step"] * state["config"]["batch_size"], state["config"]["samples"]
    if seen < samples:
        raise SchemaError(f"{folder}: trained on {seen} of {samples} crops only; run its training again to go on")
    try:
        model.load_state_dict(state["model"] if state["mean"] is None else state["mean"])
    except RuntimeError as error:
        raise SchemaError(f"{folder}: these weights are of another version of the network: {error}") from error
    model.seed = state["config"]["seed"]
    return model.eval()


def main() -> None:
    """``python -m cimp_core.study.supervised DATASET --out FOLDER``; stopped, the same command goes on."""
    parser = argparse.ArgumentParser(description="Train the supervised reference network on a data set.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--profile", choices=PROFILES, default="full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, help="crops to train on; by default as the profile has it")
    parser.add_argument("--views", type=Path, help="folder of prepared crops, made if absent; by default in --out")
    parser.add_argument("--like", help="weights, a name or a file, whose settings to take in place of the profile's")
    arguments = parser.parse_args()
    config = PROFILES[arguments.profile]
    if arguments.like:
        config = make_config(PretrainConfig, info(arguments.like)["settings"])
    config = dataclasses.replace(config, seed=arguments.seed)
    if arguments.samples:
        config = dataclasses.replace(config, samples=arguments.samples)
    if arguments.views and not config.views:
        parser.error("--views: these settings prepare no crops (views is 0)")
    train, val, _ = open_dataset(arguments.dataset).split("session", seed=0)

    def show(entry: dict[str, float]) -> None:
        print(" ".join(f"{name} {value:.4g}" for name, value in entry.items()), flush=True)

    train_supervised(train, val, config, arguments.out, views=arguments.views, on_log=show)


if __name__ == "__main__":
    main()
