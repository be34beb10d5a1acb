"""The translator: renders an image as if it had been taken with other settings; and the critic it learns from.

It is told two embeddings of settings by the metadata tower of a frozen `Cimp`: those that the image was taken with and
those that are wanted. Intensities are on the recorded 16-bit scale. What it gives is

    black' + scale * (image + distance * spread * (residual + amplitude * noise) - black)

with ``spread`` that of the image and ``distance`` that of the two embeddings. Gain, offset and current act on the
counts as a scale about a black level, two numbers for each set of settings: the scale is the ratio of that of the
wanted settings and that of the present ones, ``black'`` and ``black`` are the levels of either. So the same settings
change nothing, and the way back undoes the way there, without having to be learnt. The residual network sharpens, blurs
and removes noise. To lower the dose noise has to be made: white noise goes in from outside, and its amplitude is a
number for the two settings, times one plus what the network says of the place.

The logarithm of the scale, the levels and the residual start at zero: the untrained translator gives back what it gets,
but for noise, of which there is none where the settings stay. The amplitude cannot start at zero, too: there, as the
power of noise goes with its square, no gradient would tell it to grow. Nor could the network learn if it alone had to
keep the image where the settings stay: a penalty on every change would hold it at none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OutOfRangeError
from .config import config_from_dict

__all__ = ["PatchDiscriminator", "Translator", "TranslatorConfig", "levels_of"]

FULL_SCALE = 65535.0
STEP = 4096.0
"""Counts in one unit of the black level: what an operator's turn of the offset does to it."""

LARGEST = 8.0
"""Largest logarithm of the scale: 3,000 times, which is more than gain and current together span."""

AFFINE = 32
"""Units of the network that gives scale and black level."""

START = 0.1
"""Amplitude of the noise before training, in units of the image's spread and of the distance of the settings."""

LOWEST = 0.01
"""Quantile of an image that is taken as its darkest level: where nothing scatters, this is the black level."""


@dataclass(frozen=True)
class TranslatorConfig:
    """What fixes a translator's shape; stored with its weights."""

    condition: int = 128  # numbers that describe one set of settings; 0: it is told nothing
    cell: int = 4  # pixels a side that convolutions see as one place; what is within goes into channels
    channels: int = 48
    blocks: int = 4  # residual blocks
    hidden: int = 128  # units of the network that reads the condition
    kind: str = "embedding"  # what it is told of settings: their embedding, their "raw" values, or "none"
    encoder: str = "cimp-twin-s"  # weights of the embeddings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TranslatorConfig:
        """Inverse of `dataclasses.asdict`; an unknown or a missing name raises `SchemaError`."""
        return config_from_dict(cls, values)


def levels_of(image: Tensor) -> Tensor:
    """Darkest level, mean and standard deviation of (B, H, W) images, on their own scale: (B, 3)."""
    flat = image.flatten(1)
    # A few thousand pixels settle a quantile.
    some = flat[:, :: max(1, flat.shape[1] // 4096)].sort(1).values
    dark = some[:, round(LOWEST * (some.shape[1] - 1))]
    variance, mean = torch.var_mean(flat, 1)
    return torch.stack([dark, mean, variance.clamp_min(1.0).sqrt()], 1)


class _FiLM(nn.Module):
    """Scale and shift of channels by a condition; both are zero before training."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.linear = _zero(nn.Linear(hidden, 2 * channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.linear(condition)[:, :, None, None].chunk(2, 1)
        return x * (1 + scale) + shift


def _unit(x: Tensor) -> Tensor:
    """Channels of mean square one at every place: without it a large step once silences the network for good."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class _Block(nn.Module):
    """Two 3x3 convolutions, with the condition between them, and a shortcut."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")
        self.film = _FiLM(hidden, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.film(self.conv1(_unit(x)), condition)))


class Translator(nn.Module):
    """Images (B, H, W) in counts -> images (B, H, W) in counts as under other settings.

    Parameters
    ----------
    config : TranslatorConfig
    """

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        if config.channels < 8 or config.cell < 2:
            # Seen on a CPU with AVX2: the backward pass of convolutions on 4 channels writes past its memory.
            raise OutOfRangeError(f"channels {config.channels}, cell {config.cell}: take at least 8 and 2")
        self.config = config
        told = 2 * config.condition + 3
        self.told = nn.Sequential(
            nn.Linear(told, config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.hidden), nn.SiLU()
        )
        self.affine = None
        if config.condition:
            self.affine = nn.Sequential(nn.Linear(config.condition, AFFINE), nn.SiLU(), _zero(nn.Linear(AFFINE, 2)))
        maps = 2 * config.cell**2
        self.stem = nn.Conv2d(maps, config.channels, 3, padding=1, padding_mode="replicate")
        self.blocks = nn.ModuleList(_Block(config.channels, config.hidden) for _ in range(config.blocks))
        self.head = _zero(nn.Conv2d(config.channels, maps, 3, padding=1, padding_mode="replicate"))
        self.grain = _zero(nn.Linear(config.hidden, 1))

    @property
    def margin(self) -> int:
        """Pixels around a pixel that its result depends on, but for the levels of the whole image."""
        # Reach of the convolutions in cells, and the other pixels of a cell.
        return self.config.cell * (2 * self.config.blocks + 2) + self.config.cell - 1

    def forward(
        self, image: Tensor, source: Tensor, target: Tensor, noise: Tensor, levels: Tensor | None = None
    ) -> Tensor:
        """Render images as under the settings `target`.

        Parameters
        ----------
        image : (B, H, W) tensor
            Counts; at least 4 pixels a side.
        source, target : (B, condition) tensors
            Settings that the images were taken with, and those wanted.
        noise : (B, H, W) tensor
            Normally distributed, of variance 1: what the result needs of chance.
        levels : (B, 3) tensor, optional
            `levels_of` the whole images, where `image` is a part of each.

        Returns
        -------
        (B, H, W) tensor
            Counts, neither rounded nor clipped.
        """
        if min(image.shape[1:]) < 4:
            raise OutOfRangeError(f"images of {image.shape[1]} x {image.shape[2]} pixels: give at least 4 x 4")
        levels = levels_of(image) if levels is None else levels
        spread = levels[:, 2, None, None]
        told = [levels[:, 1:2] * (4 / FULL_SCALE) - 1, (levels[:, 2:].log() - 8) / 2, levels[:, :1] * (4 / FULL_SCALE)]
        if self.config.condition:
            told += [source, target]
        condition = self.told(torch.cat(told, 1))
        residual, amplitude = self._maps((image - levels[:, 1, None, None]) / spread, noise, condition)
        change = spread * (residual + amplitude * noise)
        if self.config.condition:
            change = change * (target - source).square().mean(1).sqrt()[:, None, None]
        scaled = image + change
        if self.affine is None:
            return scaled
        with torch.autocast(image.device.type, enabled=False):  # half precision rounds a black level by 20 counts
            (log_scale, black), (log_own, own_black) = (
                self.affine(told.float())[:, :, None, None].unbind(1) for told in (target, source)
            )
        return STEP * black + (log_scale - log_own).clamp(-LARGEST, LARGEST).exp() * (scaled - STEP * own_black)

    def _maps(self, z: Tensor, noise: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Residual and amplitude of the noise, (B, H, W) each, relative to the spread of the image."""
        height, width = z.shape[1:]
        cell = self.config.cell
        both = F.pad(torch.stack([z, noise], 1), (0, -width % cell, 0, -height % cell), mode="replicate")
        x = self.stem(F.pixel_unshuffle(both, cell))
        for block in self.blocks:
            x = block(x, condition)
        maps = F.pixel_shuffle(self.head(F.silu(_unit(x))), cell)[:, :, :height, :width]
        strength = START * self.grain(condition).clamp(-LARGEST, LARGEST).exp()[:, :, None]
        return maps[:, 0], strength * (1 + maps[:, 1])


class PatchDiscriminator(nn.Module):
    """Judges patches of an image beside the settings it is said to have: (B, H, W), (B, condition) -> (B, h, w).

    It sees the absolute counts (gain, offset, dose are in them), the normalised picture, and how much rows differ from
    their neighbours, on a logarithmic scale, where the noise of any dose is seen. The condition scales its features,
    and their product with it is added to the score.
    """

    def __init__(self, condition: int, channels: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(12, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 4, 2, 1)
        self.third = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.score = nn.Conv2d(2 * channels, 1, 1)
        self.condition = condition
        if condition:
            self.film = _FiLM(condition, 2 * channels)
            self.product = nn.Linear(condition, 2 * channels)

    def forward(self, image: Tensor, settings: Tensor) -> Tensor:
        variance, mean = torch.var_mean(image, (1, 2), keepdim=True)
        normalised = (image - mean) / variance.clamp_min(1.0).sqrt()
        rough = (F.pad(image.diff(n=2, dim=1), (0, 0, 1, 1)).square() + 1).log() / 4 - 3
        views = torch.stack([image * (4 / FULL_SCALE) - 1, normalised, rough], 1)
        x = F.leaky_relu(self.first(F.pixel_unshuffle(views, 2)), 0.2)
        x = F.leaky_relu(self.second(x), 0.2)
        if not self.condition:
            return self.score(F.leaky_relu(self.third(x), 0.2))[:, 0]
        x = F.leaky_relu(self.third(self.film(x, settings)), 0.2)
        agrees = (x * self.product(settings)[:, :, None, None]).mean(1)
        return self.score(x)[:, 0] + agrees


def _zero(layer: nn.Linear | nn.Conv2d) -> Any:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
