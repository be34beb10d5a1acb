"""An embedding in which micrographs of one crystal are near one another, whatever zone axis they are taken along.

It reads the reflections of an image as a set (`cimp_core.structures.lattice_lines`): different views of a crystal have
some in common, at the same |g| and as strong against the mean. Each reflection is laid out in waves over the plane of
log |g| and log amplitude (random Fourier features: Rahimi and Recht, NeurIPS 2007), so fine that a few per mille in |g|
tell two apart; their weighted sum is the image's density of reflections. Untrained, the cosine of two embeddings is the
overlap of these densities, in which a weak reflection, whose place is uncertain, is blurred. Learnt are the weights of
reflections, their blur, the waves, and what a network adds to the sum.
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

__all__ = ["HEADS", "StructureEncoder", "StructureEncoderConfig", "StructureOutput"]

HEADS = ("identity", "nonlinear")
"""What the contrastive loss compares: the embedding itself, or what a network makes of it, which is then left off."""

WIDTHS = 0.003, 0.08
"""Standard deviations in log |g| and in log amplitude by which strong reflections of one crystal differ."""
SAME = 0.004, 0.12
"""Those within which reflections of one image are one line."""
ERRORS = 0.8, 1.0
"""Of weak reflections, to begin with: standard deviations of |g|, over the width of a peak, and of the amplitude are
these over the square root of the power over the noise."""


@dataclass(frozen=True)
class StructureEncoderConfig:
    """What fixes the network's shape; stored with its weights."""

    waves: int = 1024  # of each reflection, a sine and a cosine each; the embedding is twice as long
    hidden: int = 128  # units of the network that adds to the sum
    head: str = "identity"  # one of `HEADS`
    prototypes: int = 0  # classes of the branch that tells prototypes apart; 0: no such branch
    space_groups: int = 0  # likewise, of space groups
    dropout: float = 0.1  # share of the network's units that is dropped

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return 2 * self.waves

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
    """Reflections (B, n, 3) and fields of view (B,) of images -> unit rows (B, dim).

    Reflections are ``log |g|``, ``log amplitude over mean`` and ``log power over noise``; rows of ``nan`` are none, and
    an amplitude of ``nan`` says that the mean is not known.
    """

    def __init__(self, config: StructureEncoderConfig) -> None:
        super().__init__()
        self.config = config
        dim, hidden = config.dim, config.hidden
        # Waves of a Gaussian kernel: their frequencies are Gaussian, too [cycles].
        self.waves = nn.Parameter(torch.randn(config.waves, 2) / (2 * math.pi * torch.tensor(WIDTHS)))
        self.log_errors = nn.Parameter(torch.tensor(ERRORS).log())
        self.weight = nn.Sequential(nn.Linear(5, 32), nn.GELU(), nn.Linear(32, 1))
        self.common = nn.Parameter(torch.zeros(dim))  # what all images share
        self.added = nn.Sequential(
            nn.Linear(dim + 4, hidden), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(hidden, dim)
        )
        for layer in (self.weight[-1], self.added[-1]):  # starts as the plain sum
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.head = nn.Identity()
        if config.head == "nonlinear":
            self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.prototype = nn.Linear(dim, config.prototypes) if config.prototypes else None
        self.space_group = nn.Linear(dim, config.space_groups) if config.space_groups else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss, at most 100."""
        return self.log_scale.exp().clamp(max=100)

    def embed(self, lines: Tensor, field: Tensor) -> Tensor:
        """Unit rows (B, dim); fields of view (B,) [angstrom] tell how wide peaks are."""
        lines = lines.float()
        there, known = torch.isfinite(lines[..., 0]), torch.isfinite(lines[..., 1])
        place, amplitude, power = torch.where(torch.isfinite(lines), lines, 0.0).unbind(2)
        # Without the mean, amplitudes are told against the strongest reflection.
        strongest = (power / 2).masked_fill(~there, -1e3).amax(1, keepdim=True)
        relative = power / 2 - strongest
        amplitude = torch.where(known, amplitude, relative)
        plane = torch.stack([place, amplitude], 2)
        # Several reflections at one |g| are one line.
        apart = (plane[:, :, None] - plane[:, None]) / torch.tensor(SAME, device=plane.device)
        alike = torch.exp(-0.5 * apart.square().sum(3)) * there[:, None]
        shown = torch.stack([place, amplitude / 2 + 1, power / 5 - 1, relative / 3, known.float()], 2)
        weight = self.weight(shown)[..., 0].clamp(-6, 6).exp() * there / alike.sum(2).clamp_min(1)
        # A place that is not known exactly blurs the density: it damps the waves.
        blur = torch.stack([(-place).exp() / field[:, None], torch.ones_like(place)], 2) * (-power / 2).exp()[..., None]
        blur = (blur * self.log_errors.exp()).square()
        damped = weight[..., None] * torch.exp(-2 * math.pi**2 * blur @ self.waves.square().T)
        phase = 2 * math.pi * plane @ self.waves.T
        density = torch.cat([(phase.cos() * damped).sum(1), (phase.sin() * damped).sum(1)], 1)
        x = F.normalize(density, dim=1) - self.common
        count, sum_of = there.sum(1, keepdim=True), weight.sum(1, keepdim=True)
        rest = torch.cat(
            [count / 32 - 1, sum_of / 20 - 1, strongest.clamp_min(0) / 3 - 1, known.any(1, keepdim=True)], 1
        )
        x = x + self.added(torch.cat([x * 16, rest], 1)) / 16
        return F.normalize(x.float(), dim=1)

    def forward(self, lines: Tensor, field: Tensor) -> StructureOutput:
        z = self.embed(lines, field)
        return StructureOutput(
            z,
            F.normalize(self.head(z), dim=1),
            None if self.prototype is None else self.prototype(z * 16),
            None if self.space_group is None else self.space_group(z * 16),
        )
