"""The two towers: what reads an image, and a small MLP for the seven parameters.

``ImageEncoder``: intensities (B, H, W) -> unit rows (B, d). It reads an image three ways: by a ResNet-18 of variable
width on square tiles, normalised (structure) and on the absolute 16-bit scale (gain, offset, dose); by statistics of
the whole image that do not depend on where things are (noise, levels); and by its power spectrum on a log-polar grid
(lattices, resolution). Where the intensity scale is not the recorded 16-bit one the absolute part is masked.
``MetadataEncoder``: normalised parameters (B, 7), ``nan`` where missing, -> unit rows (B, d).

Deliberately absent: pre-training on photographs, a repeat of the one channel to three, attention.
He, Zhang, Ren and Sun, arXiv:1512.03385 (ResNet-18).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OutOfRangeError
from ..metadata import PARAMETERS
from .spectrum import SpectrumEncoder, log_polar, normalised, power_spectrum
from .statistics import FULL_SCALE, image_statistics

__all__ = ["FEATURES", "ImageEncoder", "MetadataEncoder", "Prepared", "ResNet", "prepare", "tiles"]


FEATURES = 512
"""Units of the image tower's last hidden layer."""


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm2.weight)  # each block starts as its shortcut
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 with `width` channels in its first stage: (B, 2, H, W) -> mean and spread over positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_Block(a, b, 1 if i == 0 else 2), _Block(b, b, 1))
                for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
            )
        )
        self.features = 2 * widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x)).float().flatten(2)
        # Mean and spread keep their expectation whatever the number of positions; a maximum would not.
        return torch.cat([x.mean(2), (x.var(2, unbiased=False) + 1e-4).sqrt()], 1)


class Prepared(NamedTuple):
    """What is computed from (B, H, W) images before anything is learnt, so that it can be kept; see `prepare`."""

    level: Tensor  # (B, 2): mean and standard deviation [counts]
    size: Tensor  # (B,): pixels on the shorter side
    absolute: Tensor  # (B, n): `image_statistics`
    relative: Tensor  # (B, m)
    grid: Tensor  # (B, RADII, ANGLES): `log_polar`


def prepare(intensity: Tensor) -> Prepared:
    """Level, statistics and spectrum of (B, H, W) intensities, in float32."""
    with torch.autocast(intensity.device.type, enabled=False):
        x = intensity.float()
        variance, mean = torch.var_mean(x.flatten(1), 1)
        power = power_spectrum(normalised(x))
        size = torch.full_like(mean, min(x.shape[1:]))
        level = torch.stack([mean, variance.sqrt().clamp_min(1e-3)], 1)
        return Prepared(level, size, *image_statistics(x, power), log_polar(power, *x.shape[1:]))


class ImageEncoder(nn.Module):
    """Tiles, statistics and the power spectrum of an image -> unit rows.

    Works at any size: statistics and the spectrum are taken of the whole image on grids that do not depend on it, and
    the convolutions only ever see tiles of the size they were trained on, whose features are averaged. While training
    they see one tile, the upper left, which flips make any of the four corners.

    Parameters
    ----------
    width : int
        Channels of the first stage of the ResNet; 64 is ResNet-18, 32 half of it. 0 leaves the convolutions out.
    dim : int
        Length of the embedding.
    tile : int
        Edge of the tiles [pixels].
    absolute : bool
        Whether it looks at the absolute intensity, where this is known.
    statistics : bool
        Whether it uses `image_statistics`.
    spectrum : int
        Channels of the first stage of the `SpectrumEncoder`; 0 leaves it out.
    dropout : float
        Share of the head's inputs that is dropped in training.
    """

    def __init__(
        self,
        width: int = 0,
        dim: int = 128,
        tile: int = 128,
        *,
        absolute: bool = True,
        statistics: bool = True,
        spectrum: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if 0 < width < 8:
            # Seen on a CPU with AVX2: the backward pass of convolutions on 4 channels writes past its memory.
            raise OutOfRangeError(f"width is {width}: take 0, for no convolutions, or at least 8")
        self.tile, self.absolute = tile, absolute
        self.pixels = ResNet(width) if width else None
        self.spectrum = SpectrumEncoder(spectrum) if spectrum else None
        self.statistics = None
        features = 1 + (self.pixels.features if width else 0)
        if statistics:
            known, relative = image_statistics(torch.zeros(1, 32, 32))
            self.norm_absolute = nn.BatchNorm1d(known.shape[1], affine=False)
            self.norm_relative = nn.BatchNorm1d(relative.shape[1], affine=False)
            self.statistics = _mix(known.shape[1] + relative.shape[1], 384, dropout)
            features += 384
        if spectrum:
            self.mix_spectrum = _mix(self.spectrum.features, 256, dropout)
            features += 256
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(features, FEATURES),
            nn.LayerNorm(FEATURES),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(FEATURES, dim),
        )

    def forward(self, intensity: Tensor, absolute: Tensor | None = None, prepared: Prepared | None = None) -> Tensor:
        """Embed (B, H, W) intensities; `absolute` (B,) bool is False where the scale is unknown.

        With `prepared`, that of the whole images, `intensity` may be a tile of each: statistics are not taken of it.
        """
        return F.normalize(self.head[-1](self.features(intensity, absolute, prepared)).float(), dim=1)

    def features(self, intensity: Tensor, absolute: Tensor | None = None, prepared: Prepared | None = None) -> Tensor:
        """The layer (B, `FEATURES`) from which the embedding is projected; arguments as of `forward`."""
        if absolute is None:
            absolute = torch.ones(len(intensity), dtype=torch.bool, device=intensity.device)
        intensity = intensity.float()
        known = (absolute & self.absolute).float()
        prepared = prepare(intensity) if prepared is None else prepared
        parts = [known[:, None]]  # tells "hidden" from "happens to be zero"
        if self.pixels:
            shown = tiles(*intensity.shape[1:], self.tile)[: 1 if self.training else None]
            seen = [self.pixels(_channels(intensity[:, t, x], prepared.level, known)) for t, x in shown]
            parts.append(torch.stack(seen).mean(0))
        if self.statistics:
            # Zero is the mean after the norm, so a masked statistic says nothing.
            a = self.norm_absolute(prepared.absolute).clamp(-6, 6) * known[:, None]
            parts.append(self.statistics(torch.cat([a, self.norm_relative(prepared.relative).clamp(-6, 6)], 1)))
        if self.spectrum:
            parts.append(self.mix_spectrum(self.spectrum(prepared.grid, prepared.size)))
        return self.head[:-1](torch.cat(parts, 1))


def tiles(height: int, width: int, edge: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the fewest square tiles that cover an image, spread evenly; the first is the upper left.

    An image smaller than a tile along an axis is one tile along it.
    """
    axes = []
    for length in (height, width):
        count, size = math.ceil(length / edge), min(edge, length)
        starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
        axes.append([slice(s, s + size) for s in starts])
    return [(rows, columns) for rows in axes[0] for columns in axes[1]]


def _channels(intensity: Tensor, level: Tensor, known: Tensor) -> Tensor:
    """(B, H, W) -> (B, 2, H, W): normalised, and absolute (zero where masked) with a spread of about 1 in a lab."""
    z = (intensity - level[:, :1, None]) / level[:, 1:, None]
    absolute = torch.where(known[:, None, None] > 0, intensity * (4 / FULL_SCALE) - 1, 0.0)
    return torch.stack([z, absolute], 1).contiguous(memory_format=torch.channels_last)


def _mix(features: int, units: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, units),
        nn.LayerNorm(units),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(units, units),
        nn.GELU(),
    )


class MetadataEncoder(nn.Module):
    """Normalised parameters (B, 7), ``nan`` where missing, -> unit rows (B, d).

    The values go in as they are. Sines and cosines of them (Fourier features) would tell the settings of any
    two sessions apart, and were seen to be learnt by heart instead of what changes the image.
    """

    def __init__(self, dim: int = 128, hidden: int = 256) -> None:
        super().__init__()
        n = len(PARAMETERS)
        self.missing = nn.Parameter(torch.zeros(n))  # stands for a missing value, beside a flag
        self.mlp = nn.Sequential(
            nn.Linear(2 * n, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, dim),
        )

    def forward(self, parameters: Tensor) -> Tensor:
        known = ~torch.isnan(parameters)
        # Settings far outside those trained on saturate instead of extrapolating.
        x = torch.where(known, parameters.float().clamp(-5, 5), self.missing)
        return F.normalize(self.mlp(torch.cat([x, known.float()], 1)).float(), dim=1)
