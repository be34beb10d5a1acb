"""The learnt embedding of a crystal's micrographs: training on simulated crystals, and its use.

``python -m cimp_core.structures.embedding --out RUN --maps FOLDER`` trains; images of one crystal, taken along any zone
axis, are positives of one another, several a query. Prototypes of the validation and test parts are never learnt from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import weights
from ..checkpoint import write_text
from ..errors import OutOfRangeError
from ..losses import info_nce
from ..metrics_ranking import structure_precisions
from ..models.map_encoder import MapEncoder, MapEncoderConfig
from ..models.structure_encoder import Branches, StructureEncoder, StructureEncoderConfig
from ..training import fit, make_config
from .embedding_batches import BRANCHES, NETWORKS, Batches, EmbeddingConfig
from .retrieval_sets import MapSet, test_set, training_set
from .spectrum_map import regions, spectrum_map

__all__ = ["BRANCHES", "WEIGHTS", "EmbeddingConfig", "embed", "embed_lines", "load", "train"]

WEIGHTS = "cimp-structures-s"
"""Name of the shipped weights."""


def loss(branch: str) -> Callable:
    """The loss of a branch: contrast of one half of the images with the other, and cross entropy of classes."""
    terms = branch.split("+")

    def of(model, seen: Tensor, beside: Tensor, crystal: Tensor, prototype: Tensor, space_group: Tensor):
        output = model(seen, beside)
        total, scalars = seen.new_zeros(()), {}
        if "cts" in terms:
            scale = (model.module if hasattr(model, "module") else model).scale
            total = info_nce(output.projection[::2], output.projection[1::2], crystal[::2].contiguous(), scale)
            scalars = {"contrast": total.detach(), "scale": scale.detach()}
        for name, logits, truth in (
            ("prototype", output.prototype, prototype),
            ("space_group", output.space_group, space_group),
        ):
            if name in terms:
                found = F.cross_entropy(logits, truth)
                total, scalars = total + found, scalars | {name: found.detach()}
        return total, scalars

    return of


def train(
    data: MapSet,
    val: MapSet | None,
    config: EmbeddingConfig,
    out: str | Path | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
    stop: int | None = None,
) -> Branches:
    """Train an encoder; checkpoint, log and settings go into the folder `out`, a run that was stopped goes on.

    Parameters
    ----------
    val : MapSet, optional
        Its mean average precision is logged; nothing else is done with it.
    """
    if config.branch not in BRANCHES:
        raise OutOfRangeError(f"branch {config.branch!r}: it is one of {', '.join(BRANCHES)}")
    if config.network not in NETWORKS:
        raise OutOfRangeError(f"network {config.network!r}: it is one of {', '.join(NETWORKS)}")
    model = make_encoder(data, config)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_text(Path(out) / "config.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    validate = None if val is None else (lambda model: validation(model, val))
    fit(model, Batches(data, config), loss(config.branch), config, out, validate=validate, on_log=on_log, stop=stop)
    return model.cpu().eval()


def make_encoder(data: MapSet, config: EmbeddingConfig) -> Branches:
    """An untrained encoder for a training."""
    torch.manual_seed(config.seed)
    classes = {
        f"{name}s": int(labels.max()) + 1 if name in config.branch.split("+") else 0
        for name, labels in (("prototype", data.prototype), ("space_group", data.space_group))
    }
    if config.network == "resnet":
        return MapEncoder(MapEncoderConfig(width=config.width, head=config.head, **classes))
    model = StructureEncoder(StructureEncoderConfig(waves=config.waves, head=config.head, **classes))
    some = np.random.default_rng((config.seed, 3)).permutation(len(data.maps.lines))[:2048]
    with torch.no_grad():  # what the images have in common is no likeness
        model.common += torch.from_numpy(embed_lines(model, data.maps.lines[some]).mean(0))
    return model


def validation(model: Branches, val: MapSet, every: int = 11) -> dict[str, float]:
    """Mean average precisions of some of a set's images, each against all the others."""
    z = embed_set(model, val)
    query = np.arange(0, len(z), every)
    maps = val.maps
    found = structure_precisions(z[query] @ z.T, query, maps.structure, maps.view, val.prototype)
    return {f"val_{name}": float(v[known].mean()) for name, v in found.items() if (known := ~np.isnan(v)).any()}


def embed_set(
    model: Branches, data: MapSet, length_error: float = 0.0, *, contrast: bool = True, batch: int = 256
) -> np.ndarray:
    """Unit rows (n, dim) float32 of all images of a set; `length_error`, which maps do not ask, as of `embed_lines`."""
    if isinstance(model, StructureEncoder):
        return embed_lines(model, data.maps.lines, length_error, contrast=contrast, batch=batch)
    scalars = data.maps.scalars.astype(np.float32)
    if not contrast:
        scalars[:, 1] = np.nan
    model.eval()
    with torch.inference_mode():
        starts = range(0, len(scalars), batch)
        parts = [(data.maps.values[i : i + batch], scalars[i : i + batch]) for i in starts]
        return torch.cat([model.embed(*map(torch.from_numpy, part)) for part in parts]).numpy()


def load(name: str | Path = WEIGHTS) -> StructureEncoder:
    """Encoder with the shipped weights, or those of a file; errors as of `cimp_core.weights.load`."""
    return weights.load(name, "structures")


def embed_lines(
    model: StructureEncoder,
    lines: np.ndarray,
    length_error: float | np.ndarray = 0.0,
    *,
    contrast: bool = True,
    batch: int = 256,
) -> np.ndarray:
    """Unit rows (n, dim) float32 of `lattice_lines` (n, 64, 7).

    Parameters
    ----------
    length_error : float or (n,) array
        Relative standard deviation of an image's lengths, by its pixel size and its scan; lengths are then compared no
        more finely than this.
    contrast : bool
        False where black levels are not known, so that amplitudes cannot be told against the mean.
    """
    lines, z = np.array(lines, np.float32), np.zeros((len(lines), model.config.dim), np.float32)
    if not contrast:
        lines[..., 1] = np.nan
    errors = np.broadcast_to(np.asarray(length_error, np.float32), len(lines))
    there = np.isfinite(lines[..., 0])
    model.eval()
    with torch.inference_mode():
        # Images of as many reflections go together, so that little of a batch is empty.
        for some in np.array_split(np.argsort(there.sum(1), kind="stable"), max(1, math.ceil(len(lines) / batch))):
            used = there[some].any(0)
            used[0] = True  # also where no image shows any
            shown = torch.from_numpy(lines[some][:, used])
            z[some] = model.embed(shown, torch.from_numpy(errors[some])).numpy()
    return z


def embed(
    model: StructureEncoder,
    images: Sequence[np.ndarray],
    pixel_size: float | Sequence[float],
    contrast: bool = False,
    length_error: float = 0.0,
) -> np.ndarray:
    """Unit rows (n, dim) float32 of images, any two of one crystal near one another.

    Parameters
    ----------
    images : sequence of (rows, columns) arrays
        Of one crystal each. Those wider than `spectrum_map.FIELD` are read in parts, whose rows are averaged.
    pixel_size : float or sequence of float
        [angstrom]
    contrast : bool
        Whether zero means no electrons, so that contrast can be compared.
    length_error : float
        As of `embed_lines`.

    Raises
    ------
    OutOfRangeError
        As of `spectrum_map.spectrum_map`.
    """
    sizes = np.broadcast_to(np.asarray(pixel_size, float), len(images))
    found, owner = [], []
    for i, (image, size) in enumerate(zip(images, sizes, strict=True)):
        image = np.asarray(image, float)
        parts = regions(*image.shape, size) if image.ndim == 2 and size > 0 else [...]
        found += [spectrum_map(image[part], size) for part in parts]
        owner += [i] * len(parts)
    z = embed_lines(model, np.stack([one.lines for one in found]), length_error, contrast=contrast)
    sums = np.zeros((len(images), z.shape[1]), np.float32)
    np.add.at(sums, owner, z)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def main() -> None:
    """Train from the command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the run")
    parser.add_argument("--maps", default="runs/structures", help="folder of maps, which are made if they are absent")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of EmbeddingConfig")
    parser.add_argument("--save", metavar="FILE", help="write the weights here, with a model card")
    arguments = parser.parse_args()
    values = {}
    for text in arguments.set:
        name, _, value = text.partition("=")
        kind = type(getattr(EmbeddingConfig(), name, ""))
        values[name] = kind(value)
    config = make_config(EmbeddingConfig, values)
    data, val = training_set(arguments.maps), test_set(arguments.maps, "val")
    model = train(data, val, config, arguments.out, on_log=lambda entry: print(json.dumps(entry), flush=True))
    if arguments.save:
        settings = "".join(f" --set {text}" for text in arguments.set)
        record = {
            "command": f"python -m cimp_core.structures.embedding --out RUN{settings}",
            "data": f"{len(data.prototype)} simulated images of {len(data.structures)} decorated AFLOW prototypes",
            "settings": dataclasses.asdict(config),
            **{name: round(value, 4) for name, value in validation(model, val, every=1).items()},
        }
        print(weights.save(model, arguments.save, record, half=("common",)))


if __name__ == "__main__":
    main()
