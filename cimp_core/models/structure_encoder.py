"""An embedding in which micrographs of one crystal are near one another, whatever zone axis they are taken along.

It reads the reflections of an image as a set (`cimp_core.structures.lattice_lines`): different views of a crystal have
some in common, at the same |g|, about as strong against the mean, and with the same row behind them. Each reflection is
laid out in waves over log |g|, log amplitude and the ratios within its row (random Fourier features: Rahimi and Recht,
NeurIPS 2007), so fine that one per mille in |g| tells two apart; their weighted sum is the image's density of
reflections. The cosine of two embeddings is the overlap of these densities, in which a weak reflection, whose place is
uncertain, is blurred, and so is an image whose lengths are. Learnt are the widths of the overlap, the blur, and a
network that weighs each reflection. A network on top of the density, as wide as the rest allowed, learnt the training
prototypes by heart and was left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from .config import config_from_dict

__all__ = ["HEADS", "Branches", "StructureEncoder", "StructureEncoderConfig", "StructureOutput", "gaussian_points"]

HEADS = ("identity", "nonlinear")
"""What the contrastive loss compares: the embedding itself, or what a network makes of it, which is then left off."""

WIDTHS = 0.0008, 0.5, 0.7, 0.7, 1.2
"""Standard deviations by which strong reflections of one crystal differ from one zone axis to another: in log |g|, in
log amplitude, and in the logarithms of the ratios within the row."""
SAME = tuple(1.4 * width for width in WIDTHS)
"""Those within which reflections of one image are one line."""
ERRORS = 1.0, 0.7, 0.7, 0.7, 0.7
"""Of weak reflections, to begin with: standard deviation of |g| over the one that is told; those of the amplitude and
of the ratios times the square root of the power over the noise; a small ratio has a larger one of its logarithm."""


@dataclass(frozen=True)
class StructureEncoderConfig:
    """What fixes the network's shape; stored with its weights."""

    waves: int = 2048  # of each reflection, a sine and a cosine each; the embedding is twice as long
    head: str = "identity"  # one of `HEADS`
    prototypes: int = 0  # classes of the branch that tells prototypes apart; 0: no such branch
    space_groups: int = 0  # likewise, of space groups

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return 2 * self.waves

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StructureEncoderConfig:
        """Inverse of `dataclasses.asdict`; an unknown or a missing name raises `SchemaError`."""
        return config_from_dict(cls, values)


def gaussian_points(count: int, dim: int) -> np.ndarray:
    """(count, dim) float32 points spread like a Gaussian of unit width, more evenly than drawn ones.

    A Sobol sequence: waves so chosen give a kernel with less error than as many that are drawn (Yang et al.,
    "Quasi-Monte Carlo feature maps for shift-invariant kernels", ICML 2014).
    """
    power = math.ceil(math.log2(count))
    even = stats.qmc.Sobol(dim, scramble=False).random_base2(power)[:count] + 0.5 / 2**power
    return stats.norm.ppf(even).astype(np.float32)


class StructureOutput(NamedTuple):
    """What training compares."""

    embedding: Tensor  # (B, dim): unit rows
    projection: Tensor  # (B, dim): unit rows; the embedding itself with the identity head
    prototype: Tensor | None  # (B, prototypes): logits
    space_group: Tensor | None  # (B, space_groups)


class Branches(nn.Module):
    """What training makes of unit rows (B, dim): a projection that is contrasted, and logits of classes."""

    def __init__(self, dim: int, head: str, prototypes: int, space_groups: int) -> None:
        super().__init__()
        self.head = nn.Identity()
        if head == "nonlinear":
            self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.prototype = nn.Linear(dim, prototypes) if prototypes else None
        self.space_group = nn.Linear(dim, space_groups) if space_groups else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss, at most 100."""
        return self.log_scale.exp().clamp(max=100)

    def branches(self, z: Tensor) -> StructureOutput:
        """Of embeddings."""
        return StructureOutput(
            z,
            F.normalize(self.head(z), dim=1),
            None if self.prototype is None else self.prototype(z * 16),
            None if self.space_group is None else self.space_group(z * 16),
        )


class StructureEncoder(Branches):
    """Reflections (B, n, 7) of images and errors of their lengths (B,) -> unit rows (B, dim).

    Reflections are ``log |g|``, ``log amplitude over mean``, ``log power over noise``, three ratios within the row,
    and the error of the first, as of `lattice_lines.FIELDS`; rows of ``nan`` are none, and an amplitude of ``nan`` says
    that the mean is not known.
    """

    def __init__(self, config: StructureEncoderConfig) -> None:
        super().__init__(config.dim, config.head, config.prototypes, config.space_groups)
        self.config = config
        # Learnt is the kernel's width, not each wave.
        self.register_buffer("waves", torch.from_numpy(gaussian_points(config.waves, len(WIDTHS))), persistent=False)
        self.log_widths = nn.Parameter(torch.tensor(WIDTHS).log())
        self.log_errors = nn.Parameter(torch.tensor(ERRORS).log())
        self.weight = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 1))
        nn.init.zeros_(self.weight[-1].weight)  # starts as the plain sum
        nn.init.zeros_(self.weight[-1].bias)
        self.common = nn.Parameter(torch.zeros(config.dim))  # what all images share

    def embed(self, lines: Tensor, length_error: Tensor) -> Tensor:
        """Unit rows (B, dim); relative errors (B,) of all lengths of an image are those of its pixel size and scan."""
        lines = lines.float()
        there, known = torch.isfinite(lines[..., 0]), torch.isfinite(lines[..., 1])
        place, amplitude, power, *ratios, error = torch.where(torch.isfinite(lines), lines, 0.0).unbind(2)
        # Without the mean, amplitudes are told against the strongest reflection.
        strongest = (power / 2).masked_fill(~there, -1e3).amax(1, keepdim=True)
        relative = power / 2 - strongest
        amplitude = torch.where(known, amplitude, relative)
        plane = torch.stack([place, amplitude, *ratios], 2)
        # Several reflections at one |g| are one line.
        apart = (plane[:, :, None] - plane[:, None]) / torch.tensor(SAME, device=plane.device)
        alike = torch.exp(-0.5 * apart.square().sum(3)) * there[:, None]
        shown = torch.stack([place, amplitude / 2 + 1, power / 5 - 1, relative / 3, known.float(), *ratios], 2)
        weight = self.weight(shown)[..., 0].clamp(-6, 6).exp() * there / alike.sum(2).clamp_min(1)
        # A place that is not known exactly blurs the density: it damps the waves.
        noise = (-power / 2).exp()
        errors = [error.exp(), noise, *(noise * (-ratio).exp() for ratio in ratios)]
        blur = (torch.stack(errors, 2) * self.log_errors.exp()).square()
        blur[..., 0] += length_error[:, None].square()
        waves = self.waves / self.log_widths.exp()  # [radians]
        damped = weight[..., None] * torch.exp(-0.5 * blur @ waves.square().T)
        # Phases of log |g| are large: a product of matrices would round them otherwise in a batch of another size.
        phase = place[..., None] * waves[:, 0] + plane[..., 1:] @ waves[:, 1:].T
        density = torch.cat([(phase.cos() * damped).sum(1), (phase.sin() * damped).sum(1)], 1)
        return F.normalize((F.normalize(density, dim=1) - self.common).float(), dim=1)

    def forward(self, lines: Tensor, length_error: Tensor) -> StructureOutput:
        return self.branches(self.embed(lines, length_error))
