"""The thesis's form of a structure embedding: a ResNet-18 that looks at an image's power spectrum, and its branches.

It shares the residual network with the image tower (`encoders`). Where the thesis's network looks at pixels, which a
turn of the specimen changes, this one looks at the map of |g| and direction (`cimp_core.structures.spectrum_map`), in
which a turn is a shift, and averages over places. Each place is told its |g|: an average would else forget spacings.

Jiang, thesis (2022), chapter 5; He, Zhang, Ren and Sun, arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import config_from_dict
from .encoders import ResNet
from .structure_encoder import Branches, StructureOutput

__all__ = ["MapEncoder", "MapEncoderConfig"]


@dataclass(frozen=True)
class MapEncoderConfig:
    """What fixes the network's shape."""

    width: int = 32  # channels of the first stage; 64 is ResNet-18
    dim: int = 512
    head: str = "identity"  # one of `structure_encoder.HEADS`
    prototypes: int = 0  # classes of the branch that tells prototypes apart; 0: no such branch
    space_groups: int = 0  # likewise, of space groups

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MapEncoderConfig:
        """Inverse of `dataclasses.asdict`; an unknown or a missing name raises `SchemaError`."""
        return config_from_dict(cls, values)


class MapEncoder(Branches):
    """Maps (B, rings, sectors) and scalars (B, 3) of images -> unit rows (B, dim).

    Scalars are logarithms of energy and of contrast, `nan` where the mean is not known, and the field of view
    [angstrom]; all as of `spectrum_map.SpectrumMap`.
    """

    def __init__(self, config: MapEncoderConfig) -> None:
        super().__init__(config.dim, config.head, config.prototypes, config.space_groups)
        self.config = config
        self.pixels = ResNet(config.width)
        self.to_embedding = nn.Linear(self.pixels.features + 4, config.dim)

    def embed(self, values: Tensor, scalars: Tensor) -> Tensor:
        """Unit rows (B, dim)."""
        values = values.float()
        ring = torch.linspace(-1, 1, values.shape[1], device=values.device)[:, None].expand_as(values)
        x = torch.stack([values / 3 - 0.5, ring], 1).contiguous(memory_format=torch.channels_last)
        energy, contrast, field = scalars.float().unbind(1)
        known = torch.isfinite(contrast)
        told = [energy / 3 - 3, torch.where(known, contrast / 2 + 1, 0.0), known.float(), field / 10 - 2.5]
        return F.normalize(self.to_embedding(torch.cat([self.pixels(x), torch.stack(told, 1)], 1)).float(), dim=1)

    def forward(self, values: Tensor, scalars: Tensor) -> StructureOutput:
        return self.branches(self.embed(values, scalars))
