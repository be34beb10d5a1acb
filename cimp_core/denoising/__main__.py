"""``python -m cimp_core.denoising LARGE --held-out TWIN --out RUN``: trains the weights of the direct route.

Training images are those of LARGE whose material is neither in the validation nor in the test part of TWIN, split by
material. Validation images, on which the deviation is calibrated, are of TWIN.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import numpy as np
import torch

from ..dataset import Dataset, open_dataset
from ..models.denoiser import DoseNet
from ..training import make_config
from ..weights import load, save
from .pairs import Scans, prepare_scans
from .training import PROFILES, DenoiseConfig, DoseSampler, train_direct

__all__ = ["SPLIT", "calibrate", "held_out_parts"]

SPLIT = {"val": 0.1, "test": 0.25, "seed": 0}
"""Shares of the images whose materials are held out."""


def held_out_parts(twin: Dataset) -> tuple[Dataset, Dataset, Dataset]:
    """The parts by material that everything about denoising is trained, calibrated and tested on."""
    return twin.split("material", **SPLIT)


@torch.no_grad()
def calibrate(net: DoseNet, scans: Scans, encoder, config: DenoiseConfig, batches: int = 48) -> float:
    """Factor by which the predicted deviation has to grow for 68.3 % of the pixels of `scans` to lie within it.

    On whole images, as they are denoised: a wide field shows more of a lattice than a crop does.
    """
    size = min(scans[0][1].shape)
    told = {"hide": 0.0, "hide_one": 0.0, "wrong": 0.0}
    fixed = dataclasses.replace(config, seed=config.seed + 2_000_003, crop_size=size, batch_size=4, **told)
    sampler, ratios = DoseSampler(scans, encoder, fixed), []
    for step in range(batches):
        counts, truth, settings, factor = sampler(step)
        out = net(counts, settings, factor)
        wanted = (truth - out.mean[:, None, None]) / out.spread[:, None, None]
        ratios.append(((out.image - wanted).abs() / (0.5 * out.log_variance).exp()).flatten(1)[:, ::7])
    within = math.erf(1 / math.sqrt(2))
    return float(np.quantile(torch.cat(ratios).numpy(), within))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cimp_core.denoising", description=__doc__.split("\n")[0])
    parser.add_argument("large", type=Path, help="twin to train on")
    parser.add_argument("--held-out", type=Path, required=True, help="twin whose held-out materials are left out")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; goes on where it stopped")
    parser.add_argument("--scans", type=Path, help="folder of the prepared scans; by default in the run's")
    parser.add_argument("--images", type=int, default=12_000, help="images to train on")
    parser.add_argument("--profile", default="full", choices=list(PROFILES))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the training")
    parser.add_argument("--encoder", default="cimp-twin-s")
    arguments = parser.parse_args()
    changes = dict(item.split("=", 1) for item in arguments.set)
    defaults = dataclasses.asdict(PROFILES[arguments.profile])
    parsed = {k: type(defaults.get(k, v))(_number(v)) for k, v in changes.items()}
    config = make_config(DenoiseConfig, {**defaults, **parsed})
    large, twin = open_dataset(arguments.large), open_dataset(arguments.held_out)
    train, val, _ = held_out_parts(twin)
    usable = np.flatnonzero(np.isin(large.materials, np.unique(train.materials)))
    chosen = np.sort(np.random.default_rng(0).permutation(usable)[: arguments.images])
    few = np.sort(np.random.default_rng(0).permutation(len(val))[:300])
    folder = arguments.scans or arguments.out / "scans"
    scans = prepare_scans(large.view(chosen), folder / "train")
    checks = prepare_scans(val.view(few), folder / "val")
    encoder = load(arguments.encoder)
    net = train_direct(scans, checks, encoder, config, arguments.out, on_log=lambda entry: print(_line(entry)))
    net.config = dataclasses.replace(net.config, deviation=round(calibrate(net, checks, encoder, config), 4))
    record = {
        "command": f"python -m cimp_core.denoising LARGE --held-out TWIN --profile {arguments.profile} "
        + " ".join(f"--set {item}" for item in arguments.set),
        "data": f"{len(scans)} images of {len(np.unique(scans.sessions))} simulated sessions",
        "materials": sorted({*scans.materials}),
        "twin_version": str(large.attributes.get("twin_version")),
        "encoder": arguments.encoder,
        "settings": dataclasses.asdict(config),
    }
    print(save(net, arguments.out / "weights.safetensors", record, half=("",), force=True))


def _number(text: str):
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


def _line(entry: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in entry.items())


if __name__ == "__main__":
    main()
