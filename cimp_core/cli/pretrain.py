"""``cimp pretrain``: train a model on a data set."""

from __future__ import annotations

import dataclasses
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CimpError, OutOfRangeError

if TYPE_CHECKING:
    import numpy as np

    from ..dataset import Dataset


class Profile(StrEnum):
    """Length of the run; the method is the same."""

    smoke = "smoke"
    book = "book"
    full = "full"


class Crops(StrEnum):
    """Where crops come from."""

    auto = "auto"
    device = "device"
    file = "file"
    hdf5 = "hdf5"


def pretrain(
    data: Annotated[Path, typer.Argument(help="Data set (HDF5).")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, log, settings and weights.")],
    profile: Annotated[Profile, typer.Option(help="smoke: seconds, book: a minute, full: the whole run.")] = "book",
    split: Annotated[str, typer.Option(help="What is held out: image, session or material.")] = "session",
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="Validate on the validation part of this data set; train on all sessions but its held-out ones."
        ),
    ] = None,
    views: Annotated[Path | None, typer.Option(help="Folder of crops prepared once, to share between runs.")] = None,
    crops: Annotated[
        Crops,
        typer.Option(help="Where crops come from: the device that holds all images, if they fit, or the file."),
    ] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting by hand, e.g. samples=100000.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in the folder.")] = False,
    force: Annotated[bool, typer.Option(help="Start again although the folder holds a run.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train on a data set; with --resume, go on where an interrupted run stopped. Under torchrun, on many devices."""
    from rich.console import Console
    from rich.progress import Progress

    from .. import weights
    from ..dataset import open_dataset
    from ..pretrain import PROFILES, PretrainConfig, Validation, half_is_enough, pretrain
    from ..processes import is_first
    from ..training import CHECKPOINT, for_this_device, make_config

    config = PROFILES[Profile(profile).value]
    config = make_config(PretrainConfig, {**dataclasses.asdict(config), **_settings(set_ or [], PretrainConfig)})
    config = for_this_device(config)
    if (out / CHECKPOINT).exists() and not (resume or force):
        raise CimpError(f"{out} already holds a run: --resume to go on with it, --force to start again")
    dataset = open_dataset(data)
    train, val, test = (dataset if held_out is None else open_dataset(held_out)).split(split)
    if held_out is not None:
        if split != "session":
            raise OutOfRangeError("--held-out leaves out sessions: it goes with --split session")
        train = dataset.without_sessions_of(val, test)
    before, edge = len(train) + len(val), config.smallest
    train, val = (part.view(_large_enough(part, edge)) for part in (train, val))
    if (small := before - len(train) - len(val)) and is_first():
        print(f"{small} images are smaller than {edge} px and are left out", file=sys.stderr)
    if not (len(train) and len(val)):
        raise CimpError(f"{data}: no images as large as {edge} px to train on or to validate with")
    console = Console(stderr=True, quiet=json_ or not is_first())
    console.print(f"{len(train)} images to train on, {len(val)} to validate, split by {split}; {config.steps} steps")

    def show(entry: dict[str, float]) -> None:
        top1 = f"  val Top-1 {entry['val_top1']:.1%} of {entry['val_candidates']}" if "val_top1" in entry else ""
        console.print(
            f"{entry['samples']:>9} of {config.samples}  loss {entry['loss']:.3f}  "
            f"{entry['per_second']:.0f} samples/s{top1}"
        )

    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=config.steps * config.batch_size)
        model = pretrain(
            train, val, config, out, views=views, resume=resume, on_log=show, on_note=console.print,
            on_step=lambda seen: progress.update(task, completed=seen), crops=Crops(crops).value,
        )  # fmt: skip
    if not is_first():
        return
    validation = Validation(val, config.crop_size)
    half, scores = half_is_enough(model, validation), validation(model)
    path = out / "weights.safetensors"
    record = {
        "command": f"cimp pretrain {data.name} --profile {Profile(profile).value} --split {split}"
        + (f" --held-out {held_out.name}" if held_out else "")
        + "".join(f" --set {s}" for s in set_ or []),
        "data": data.name,
        "data_version": str(dataset.attributes.get("twin_version", "unknown")),
        "split": split,
        "images": len(train),
        "images_too_small": small,
        "settings": dataclasses.asdict(config),
        **{k: round(v, 4) for k, v in scores.items()},
    }
    digest = weights.save(model, path, record, half=half, force=True)
    if json_:
        json.dump({"weights": str(path), "sha256": digest, "half": list(half), **scores}, sys.stdout)
        print()
    else:
        kind = "float16" if half == ("",) else "partly float16" if half else "float32"
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB {kind}  sha256 {digest}")
        print("validation, one crop: " + "  ".join(f"{k[4:]} {v:.3g}" for k, v in scores.items()))


def _large_enough(data: Dataset, side: int) -> np.ndarray:
    import numpy as np

    return np.flatnonzero([min(data.shape(i)) >= side for i in range(len(data))])


def _settings(pairs: list[str], cls: type) -> dict[str, object]:
    """``name=value`` texts, each value read as the type of the setting's default."""
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in defaults:
            raise OutOfRangeError(f"--set {pair}: write name=value with a name among {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            if kind is bool:
                values[name] = {"true": True, "false": False}[text.lower()]
            else:
                # 4e5 is a fine way to write an integer.
                values[name] = int(float(text)) if kind is int else kind(text)
        except (KeyError, ValueError) as error:
            raise OutOfRangeError(f"--set {pair}: {text!r} is no {kind.__name__}") from error
    return values
