"""Trained weights: what is shipped, how it is checked, loaded and saved.

A weights file is safetensors (no code runs when it is read). Its metadata hold the model's configuration,
normalisation included, and a record of how it was trained. Shipped files are known by their sha256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from .errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError
from .models import Cimp, CimpConfig

__all__ = ["WEIGHTS", "Shipped", "info", "load", "save", "sha256"]


class Shipped(NamedTuple):
    """A weights file of the package and its checksum."""

    file: str
    sha256: str


FOLDER = Path(__file__).parent / "data"

WEIGHTS: dict[str, Shipped] = {
    "cimp-twin-s": Shipped(
        "cimp-twin-s.safetensors", "502c274fc40f5d957ff7dc23793d3c8ccc5748f19daee9b9d0241d087c7455b1"
    ),
    "cimp-twin-s-seed1": Shipped(
        "cimp-twin-s-seed1.safetensors", "7a850809485dc25c01c59ac4f4f973102665b63f248efa9d6b6afdaf2898416d"
    ),
    "cimp-twin-s-seed2": Shipped(
        "cimp-twin-s-seed2.safetensors", "e73487fcacab08fd612b0c7740e41db3555480f34b32c1a3c86926dbec5ae5e1"
    ),
}
"""Weights that come with the package, by name; those with a seed in their name are for intervals over seeds."""

FORMAT = "cimp-1"


def load(name: str | Path) -> Cimp:
    """Model with trained weights, in evaluation mode on the CPU.

    Parameters
    ----------
    name : str or path
        A name in `WEIGHTS`, or a file written by `save`.

    Raises
    ------
    UnreadableFileError
        No such name or file, or it is damaged (a shipped file that differs from its checksum included).
    SchemaError
        The file is not a CIMP model of this version.
    """
    path = _locate(name)
    config, _, tensors = _read(path)
    model = Cimp(config)
    # Stored half precision comes back to the model's own.
    own = model.state_dict()
    state = {k: v.to(own[k].dtype) if k in own else v for k, v in tensors.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise SchemaError(f"{path}: weights do not fit their own config: {error}") from error
    return model.eval()


def info(name: str | Path) -> dict[str, Any]:
    """How a weights file was trained: the record given to `save`, and the model's configuration as ``model``."""
    config, record, _ = _read(_locate(name))
    return {**record, "model": dataclasses.asdict(config)}


def save(
    model: Cimp, path: str | Path, record: Mapping[str, Any], *, half: tuple[str, ...] = (), force: bool = False
) -> str:
    """Write a model and return the sha256 of the file.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors``; a model card with the suffix ``.md`` is written beside it.
    record : mapping
        How it was trained, as plain JSON values: command, data, seed, settings, scores.
    half : tuple of str
        Store matrices and kernels whose names start so as float16, ``("",)`` for all; see
        `cimp_core.pretrain.half_is_enough` on when rankings stay the same.
    force : bool
        Overwrite.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutOfRangeError(f"{path}: weights are written as .safetensors")
    if path.exists() and not force:
        raise CimpError(f"{path} exists: choose another name, or force to overwrite it")
    tensors = {}
    for key, value in model.state_dict().items():
        # Norms hold variances beyond float16's range, and are few.
        small = key.startswith(half) and value.ndim > 1 and value.is_floating_point()
        tensors[key] = value.detach().cpu().to(torch.float16 if small else value.dtype).contiguous()
    # One entry only: safetensors writes several in random order, and the checksum would change.
    header = {"format": FORMAT, "config": dataclasses.asdict(model.config), "record": dict(record)}
    data = to_bytes(tensors, {"cimp": json.dumps(header, sort_keys=True)})
    digest = hashlib.sha256(data).hexdigest()
    _write(path, data)
    _write(path.with_suffix(".md"), _card(path, model, record, digest, half, len(data)).encode())
    return digest


def sha256(path: str | Path) -> str:
    """Checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locate(name: str | Path) -> Path:
    """Path of a shipped name, its checksum verified, or of a file."""
    if str(name) in WEIGHTS:
        shipped = WEIGHTS[str(name)]
        path = FOLDER / shipped.file
        if not path.exists():
            raise UnreadableFileError(f"{path}: shipped weights {name!r} are absent; install the package again")
        if (found := sha256(path)) != shipped.sha256:
            raise UnreadableFileError(
                f"{path}: sha256 is {found}, expected {shipped.sha256}: the file is damaged or was changed; "
                "install the package again"
            )
        return path
    path = Path(name)
    if not path.exists():
        names = ", ".join(sorted(WEIGHTS)) or "none"
        raise UnreadableFileError(f"{name}: neither a weights file nor a shipped name (shipped: {names})")
    return path


def _read(path: Path) -> tuple[CimpConfig, dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise UnreadableFileError(f"{path}: not a readable safetensors file ({error})") from error
    header = json.loads(metadata.get("cimp", "{}"))
    if header.get("format") != FORMAT:
        raise SchemaError(f"{path}: format is {header.get('format')!r}, expected {FORMAT!r}: not a CIMP model")
    return CimpConfig.from_dict(header["config"]), header["record"], tensors


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _reads(model: Cimp) -> str:
    """What the image tower looks at, in words."""
    config = model.config
    ways = [f"a ResNet-18 with {config.width} channels in its first stage"] if config.width else []
    ways += ["statistics"] if config.statistics else []
    ways += ["their power spectrum on a log-polar grid"] if config.spectrum else []
    return " and ".join(ways)


def _card(path: Path, model: Cimp, record: Mapping[str, Any], digest: str, half: tuple[str, ...], size: int) -> str:
    """Model card in Markdown."""
    count = sum(p.numel() for p in model.parameters())
    stored = {(): "float32", ("",): "float16 (norms float32)"}.get(half, f"float32, {' and '.join(half)}* as float16")
    rows = "\n".join(f"| {k} | `{json.dumps(v)}` |" for k, v in sorted(record.items()))
    return f"""# {path.stem}

CIMP: a network that reads HAADF-STEM images by {_reads(model)}, and a small network for their seven
acquisition parameters, trained so that the embeddings of an image and of its settings agree.

- {count:,} parameters, stored in {size / 1e6:.1f} MB as {stored};
  inverse temperature {model.scale:.1f}
- sha256 `{digest}`
- licence GPL-3.0-or-later

## It learnt from simulation
Every training image comes from a physics-based simulation, not from a microscope. Scores below are scores
on simulated images of held-out sessions, at 300 kV, on invented instruments. How well it carries over to
a given instrument is not known until it is measured there.

## What it is for
Teaching, tests, and a starting point for training on a laboratory's own images.

## What it must not be used for
- To decide about an experiment or a specimen, or as evidence of how a published image was taken.
- To certify the calibration or the settings of an instrument, or to replace recorded metadata.
- On anything but HAADF-STEM images; on images below 32 x 32 pixels.
- With absolute intensity on images that are not Velox 16-bit: there the absolute channel is masked, and the
  gain and offset can hardly be told.

## How it was trained
| | |
|---|---|
{rows}
"""
