"""Trained weights: what is shipped, how it is checked, loaded and saved.

A weights file is safetensors (no code runs when it is read). Its metadata hold the kind of model, its configuration,
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
from .model_cards import card
from .models import (
    Cimp,
    CimpConfig,
    DoseNet,
    DoseNetConfig,
    SettingsReader,
    SettingsReaderConfig,
    StructureEncoder,
    StructureEncoderConfig,
    Translator,
    TranslatorConfig,
)

__all__ = ["KINDS", "WEIGHTS", "Kind", "Shipped", "info", "load", "locate", "save", "sha256"]


class Kind(NamedTuple):
    """A kind of model that weights are kept of; a model is made of its config alone and has it as ``config``."""

    model: type
    config: type


KINDS = {
    "cimp": Kind(Cimp, CimpConfig),
    "style": Kind(Translator, TranslatorConfig),
    "dose": Kind(DoseNet, DoseNetConfig),
    "settings": Kind(SettingsReader, SettingsReaderConfig),
    "structures": Kind(StructureEncoder, StructureEncoderConfig),
}
"""Kinds of models by the name that a weights file states; a file that states none is of the first."""


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
    "cimp-dose-s": Shipped(
        "cimp-dose-s.safetensors", "dc9a7ce92c2932ad93bfe857bbc653973f4b071152e60f3f83fe671aa7f5f426"
    ),
    "cimp-audit-s": Shipped(
        "cimp-audit-s.safetensors", "6cfa5b1bf4d860e91c46dca30cb2cc153f409a9132717867a560a5e71b2f7655"
    ),
    "cimp-style-s": Shipped(
        "cimp-style-s.safetensors", "0c18191df9576d6529ccc4074f5794c304ef90897f25a5cca73c9dcbd8fe8d24"
    ),
    "cimp-structures-s": Shipped(
        "cimp-structures-s.safetensors", "d0f73ca23d46db6f8cc1ccbc4ae17fe83bdd68d10703e094fdba5a26f0658bf2"
    ),
}
"""Weights that come with the package, by name; those with a seed in their name are for intervals over seeds."""

FORMAT = "cimp-1"


def load(name: str | Path, kind: str = "cimp") -> Any:
    """Model with trained weights, in evaluation mode on the CPU.

    Parameters
    ----------
    name : str or path
        A name in `WEIGHTS`, or a file written by `save`.
    kind : str
        What it has to be, a name in `KINDS`: by default a `Cimp`.

    Raises
    ------
    UnreadableFileError
        No such name or file, or it is damaged (a shipped file that differs from its checksum included).
    SchemaError
        The file is not a CIMP model of this version, or one of another kind.
    """
    path = locate(name)
    header, tensors = _read(path)
    if header["kind"] != kind:
        raise SchemaError(f"{path}: holds a model of the kind {header['kind']!r}, not {kind!r}: name other weights")
    model = KINDS[kind].model(_config(header))
    # Stored half precision comes back to the model's own.
    own = model.state_dict()
    state = {k: v.to(own[k].dtype) if k in own else v for k, v in tensors.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise SchemaError(f"{path}: weights do not fit their own config: {error}") from error
    return model.eval()


def info(name: str | Path) -> dict[str, Any]:
    """How a weights file was trained: the record given to `save`, the model's ``kind``, its configuration ``model``."""
    header, _ = _read(locate(name))
    return {**header["record"], "kind": header["kind"], "model": dataclasses.asdict(_config(header))}


def save(
    model: torch.nn.Module,
    path: str | Path,
    record: Mapping[str, Any],
    *,
    half: tuple[str, ...] = (),
    force: bool = False,
) -> str:
    """Write a model and return the sha256 of the file.

    Parameters
    ----------
    model : Module
        Of one of the `KINDS`.
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
    kind = next((name for name, k in KINDS.items() if type(model) is k.model), None)
    if kind is None:
        raise SchemaError(f"{type(model).__name__} is no model that weights are kept of: {', '.join(KINDS)}")
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
    if kind != "cimp":  # which files written before there were others do not state
        header["kind"] = kind
    data = to_bytes(tensors, {"cimp": json.dumps(header, sort_keys=True)})
    digest = hashlib.sha256(data).hexdigest()
    _write(path, data)
    _write(path.with_suffix(".md"), card(kind, path, model, record, digest, half, len(data)).encode())
    return digest


def sha256(path: str | Path) -> str:
    """Checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(name: str | Path) -> Path:
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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header (``kind``, ``config``, ``record``) and tensors of a file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise UnreadableFileError(f"{path}: not a readable safetensors file ({error})") from error
    header = json.loads(metadata.get("cimp", "{}"))
    if header.get("format") != FORMAT:
        raise SchemaError(f"{path}: format is {header.get('format')!r}, expected {FORMAT!r}: not a CIMP model")
    header.setdefault("kind", "cimp")
    if header["kind"] not in KINDS:
        raise SchemaError(f"{path}: a model of the kind {header['kind']!r}; this version has {', '.join(KINDS)}")
    return header, tensors


def _config(header: dict[str, Any]) -> Any:
    return KINDS[header["kind"]].config.from_dict(header["config"])


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
