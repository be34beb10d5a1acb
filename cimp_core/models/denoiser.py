"""`DoseNet`: a small network that composes the picture of a longer exposure from plain estimates of a noisy one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .candidates import CANDIDATES, GLOBALS, Candidates, blocks, candidates, field_edge, gaussian
from .config import config_from_dict

__all__ = ["CONDITION", "DoseNet", "DoseNetConfig", "DoseNetOutput"]

CONDITION = 128
"""Length of the embedding of settings by which a picture is steered."""


STANDS_OUT = 9.0
"""Power over that of the noise, above which what the network took for noise is put back."""


@dataclass(frozen=True)
class DoseNetConfig:
    """What fixes a network's shape; stored with its weights."""

    width: int = 32  # channels at half resolution
    deep: int = 48  # channels at a quarter and an eighth
    blocks: int = 2  # residual blocks at each resolution, on the way down and on the way up
    conditioned: bool = True  # steered by the settings; else by the picture alone
    deviation: float = 1.0  # by which the predicted deviation is multiplied, as calibrated on the validation part

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DoseNetConfig:
        """Inverse of `dataclasses.asdict`; an unknown or a missing name raises `SchemaError`."""
        return config_from_dict(cls, values)


class DoseNetOutput(NamedTuple):
    """(B, H, W) each, in units of `spread` after `mean` was taken off; `mean`, `spread`, `noise` are (B,)."""

    image: Tensor
    log_variance: Tensor
    mean: Tensor
    spread: Tensor
    noise: Tensor


class _Block(nn.Module):
    """Two 3x3 convolutions, steered by a scale and a shift of each channel (FiLM, Perez et al., arXiv:1709.07871)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.film = nn.Linear(condition, 2 * channels)
        for layer in (self.film, self.conv2):  # starts as the identity
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
        return x + self.conv2(F.silu(self.conv1(x) * (1 + scale) + shift))


class DoseNet(nn.Module):
    """Counts (B, H, W) and settings -> picture, and the logarithm of the variance of its error.

    At every pixel the picture is a mean of the `candidates` with weights that the network chooses, and a correction of
    its own; both may depend on the settings, by their embedding, and on what the image tells of its noise. Its means
    over regions are then made those of the recording: what is averaged over some thousand pixels needs no prior. Nor
    does a lattice of many periods: of what the network took away, spots that stand out of the noise in the spectrum of
    a wide field are put back.
    """

    def __init__(self, config: DoseNetConfig) -> None:
        super().__init__()
        self.config = config
        hidden = 64
        self.globals_norm = nn.BatchNorm1d(GLOBALS, affine=False)
        self.steer = nn.Sequential(
            nn.Linear(GLOBALS + 1 + (CONDITION + 1 if config.conditioned else 0), hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
        )
        widths = (config.width, config.deep, config.deep)
        self.stem = nn.Conv2d(4 * CANDIDATES, widths[0], 3, 1, 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.encode, self.decode = (
            nn.ModuleList(nn.ModuleList(_Block(n, hidden) for _ in range(config.blocks)) for n in widths)
            for _ in range(2)
        )
        self.head = nn.Conv2d(widths[0], 4 * (CANDIDATES + 2), 3, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, counts: Tensor, settings: Tensor, factor: Tensor) -> DoseNetOutput:
        """Denoise.

        Parameters
        ----------
        counts : (B, H, W) tensor
            At any scale; H and W at least 32.
        settings : (B, CONDITION) tensor
            Embedding of the settings; zero where they are not known or not to be believed.
        factor : (B,) tensor
            By which the dwell time is raised.
        """
        with torch.autocast(counts.device.type, enabled=False):
            seen = candidates(counts, factor)
        facts = [self.globals_norm(seen.globals).clamp(-6, 6), factor.log()[:, None] / 3]
        if self.config.conditioned:
            facts += [settings * 8, settings.any(1, keepdim=True).float()]
        steer = self.steer(torch.cat(facts, 1))
        h, w = counts.shape[1:]
        padded = F.pad(seen.images, (0, -w % 8, 0, -h % 8), mode="replicate")
        out = self._network(padded, steer)[:, :, :h, :w]
        weights = out[:, :CANDIDATES].softmax(1)
        image = (weights * seen.images).sum(1) + 0.1 * out[:, CANDIDATES]
        image = image + _drift(seen.images[:, 1] - image)
        image = image + _standing_out(seen, image, factor)
        log_variance = out[:, CANDIDATES + 1].float() + 2 * (seen.noise[:, None, None] * seen.scale).log() - 3
        return DoseNetOutput(image, log_variance, seen.mean, seen.spread, seen.noise)

    def _network(self, x: Tensor, steer: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(x, 2))
        kept = []
        for i, stage in enumerate(self.encode):
            if i:
                kept.append(x)
                x = self.down[i - 1](x)
            for block in stage:
                x = block(x, steer)
        for i in reversed(range(len(self.decode))):
            for block in self.decode[i]:
                x = block(x, steer)
            if i:
                x = F.pixel_shuffle(self.up[i - 1](x), 2) + kept[i - 1]
        return F.pixel_shuffle(self.head(F.silu(x)), 2)


def _standing_out(seen: Candidates, image: Tensor, factor: Tensor) -> Tensor:
    """What the picture (B, H, W) lacks and stands out of the noise in the spectrum of a wide field."""
    missed = (seen.images[:, 1] - image) / seen.scale
    field = field_edge(*image.shape[1:])
    return seen.scale * blocks(missed, seen.noise.square(), seen.ratio, factor, field, STANDS_OUT)


def _drift(missed: Tensor) -> Tensor:
    """What is missed (B, H, W) on average over some 40 x 40 pixels."""
    h, w = missed.shape[1:]
    coarse = F.avg_pool2d(F.pad(missed[:, None], (0, -w % 8, 0, -h % 8), mode="replicate"), 8)[:, 0]
    smooth = gaussian(coarse, min(2.5, min(coarse.shape[1:]) / 4))
    return F.interpolate(smooth[:, None], scale_factor=8, mode="bilinear", align_corners=False)[:, 0, :h, :w]
