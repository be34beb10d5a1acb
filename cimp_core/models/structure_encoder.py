"""An embedding in which micrographs of one crystal are near one another, whatever zone axis they are taken along.

Input are maps of the power spectrum on axes of absolute |g| and of direction (`cimp_core.structures.spectrum_map`).
Different views of a crystal have reflections in common, at the same |g| and as strong. A small network reads what no
rotation changes of each ring of the map; a residual one, periodic along the direction, may read the map itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import config_from_dict
from .spectrum import _Block, _periodic

__all__ = ["HEADS", "StructureEncoder", "StructureEncoderConfig", "StructureOutput"]

HEADS = ("identity", "nonlinear")
"""What the contrastive loss compares: the embedding itself, or what a network makes of it, which is then left off."""


@dataclass(frozen=True)
class StructureEncoderConfig:
    """What fixes the network's shape; stored with its weights."""

    width: int = 0  # channels of the first stage of the residual network; 0 leaves it out
    hidden: int = 640  # units of the layers on the rings
    dim: int = 128  # length of an embedding
    head: str = "identity"  # one of `HEADS`
    prototypes: int = 0  # classes of the branch that tells prototypes apart; 0: no such branch
    space_groups: int = 0  # likewise, of space groups
    dropout: float = 0.1  # share dropped after each layer
    rings: int = 64  # of the map
    invariants: int = 6  # of each ring

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StructureEncoderConfig:
        """Inverse of `dataclasses.asdict`; an unknown or a missing name raises `SchemaError`."""
        return config_from_dict(cls, values)


class StructureOutput(NamedTuple):
    """What training compares."""

    embedding: Tensor  # (B, dim): unit rows
    projection: Tensor  # (B, dim): unit rows; the embedding itself with the identity head
    prototype: Tensor | None  # (B, prototypes): logits
    space_group: Tensor | None  # (B, space_groups)


class StructureEncoder(nn.Module):
    """Invariants (B, n, rings) of maps, scalars (B, 3) and, with a residual network, maps -> unit rows (B, dim).

    The scalars are energy, contrast and field of `SpectrumMap`; a contrast of ``nan`` is one that is not known. The
    first invariant is the largest value of a ring.
    """

    def __init__(self, config: StructureEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden, features = config.width, config.hidden, config.hidden
        layers: list[nn.Module] = []
        for inputs in ((config.invariants + 1) * config.rings + 4, hidden):
            layers += [nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(config.dropout)]
        self.profile = nn.Sequential(*layers)
        self.stages = None
        if width:
            self.stem = nn.Sequential(nn.Conv2d(3, width, 5, (2, 4), bias=False), nn.BatchNorm2d(width), nn.ReLU())
            self.stages = nn.Sequential(
                _Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)
            )
            # What a radius means must not be pooled away; the direction may.
            features += 2 * 4 * width * math.ceil(config.rings / 8)
        self.last = nn.Linear(features, config.dim)
        self.head = nn.Identity()
        if config.head == "nonlinear":
            self.head = nn.Sequential(nn.Linear(config.dim, config.dim), nn.GELU(), nn.Linear(config.dim, config.dim))
        self.prototype = nn.Linear(config.dim, config.prototypes) if config.prototypes else None
        self.space_group = nn.Linear(config.dim, config.space_groups) if config.space_groups else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss, at most 100."""
        return self.log_scale.exp().clamp(max=100)

    def embed(self, invariants: Tensor, scalars: Tensor, values: Tensor | None = None) -> Tensor:
        """Unit rows (B, dim)."""
        energy, contrast, field = scalars.float().unbind(1)
        known = torch.isfinite(contrast)
        # Logarithm of the intensity of a reflection over that of the mean, where the mean is known, else over the sum.
        level = energy - torch.where(known, contrast, 0.0)
        rings = torch.cat([invariants / 4, _share(invariants[:, :1], level)], 1).flatten(1)
        shown = torch.where(known, contrast, -2.0) / 2 + 1
        features = self.profile(
            torch.cat([rings, torch.stack([energy / 10 - 1, shown, known, field / 10 - 2.5], 1)], 1)
        )
        if self.stages is not None:
            place = torch.linspace(-1, 1, values.shape[1], device=values.device)[:, None].expand_as(values)
            x = torch.stack([values / 4, _share(values, level), place], 1)
            x = self.stages(self.stem(_periodic(x, 2)))
            features = torch.cat([features, x.mean(3).flatten(1), x.amax(3).flatten(1)], 1)
        return F.normalize(self.last(features).float(), dim=1)

    def forward(self, invariants: Tensor, scalars: Tensor, values: Tensor | None = None) -> StructureOutput:
        z = self.embed(invariants, scalars, values)
        return StructureOutput(
            z,
            F.normalize(self.head(z), dim=1),
            None if self.prototype is None else self.prototype(z * 10),
            None if self.space_group is None else self.space_group(z * 10),
        )


def _share(values: Tensor, level: Tensor) -> Tensor:
    """Logarithms of the power over the noise -> over `level` (B,); -1 where it is hardly above the noise."""
    return torch.where(values > 1.5, (values - level[:, None, None] + 8) / 4, -1.0).clamp(-1, 2)
