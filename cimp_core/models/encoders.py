"""The two towers: a ResNet-18 of variable width for images, a small MLP for the seven parameters.

``ImageEncoder``: intensities (B, H, W) -> unit rows (B, d). It sees the image three ways: normalised
to mean 0 and std 1 (structure), on its absolute 16-bit scale (gain, offset, dose), and as pixel-
independent statistics (noise, spectrum). Where the intensity scale is not the recorded 16-bit one the
absolute part is masked. ``MetadataEncoder``: normalised parameters (B, 7), ``nan`` where missing, ->
unit rows (B, d).

Deliberately absent: pre-training on photographs, a repeat of the one channel to three, attention.
He, Zhang, Ren and Sun, arXiv:1512.03385 (ResNet-18).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..metadata import PARAMETERS

__all__ = ["FULL_SCALE", "ImageEncoder", "MetadataEncoder", "image_statistics"]

FULL_SCALE = 65535.0
"""Largest value of a 16-bit image [counts]."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LAGS = (1, 2, 3, 4, 8)
BANDS = 20
"""Rings of the power spectrum between zero and the Nyquist frequency."""


class Block(nn.Module):
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


class ImageEncoder(nn.Module):
    """ResNet-18 and image statistics -> unit rows.

    Parameters
    ----------
    width : int
        Channels of the first stage; 64 is ResNet-18, 32 half of it.
    dim : int
        Length of the embedding.
    statistics : bool
        Feed `image_statistics` to the head.
    dropout : float
        Share of the head's inputs that is dropped in training.
    """

    def __init__(self, width: int = 32, dim: int = 128, statistics: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(Block(a, b, 1 if i == 0 else 2), Block(b, b, 1))
                for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
            )
        )
        features = 2 * widths[-1] + 1
        self.statistics = statistics
        if statistics:
            absolute, relative = image_statistics(torch.zeros(1, 32, 32))
            self.norm_absolute = nn.BatchNorm1d(absolute.shape[1], affine=False)
            self.norm_relative = nn.BatchNorm1d(relative.shape[1], affine=False)
            self.mix = nn.Sequential(nn.Linear(absolute.shape[1] + relative.shape[1], 256), nn.GELU())
            features += 256
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(features, 512),
            nn.LayerNorm(512),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(512, dim),
        )

    def forward(self, intensity: Tensor, absolute: Tensor | None = None) -> Tensor:
        """Embed (B, H, W) intensities; `absolute` (B,) bool is False where the scale is unknown."""
        if absolute is None:
            absolute = torch.ones(len(intensity), dtype=torch.bool, device=intensity.device)
        intensity = intensity.float()
        known = absolute.to(intensity.dtype)
        x = self.stages(self.stem(_channels(intensity, known)))
        # Mean and spread over positions keep their expectation at any image size; a maximum would not.
        x = x.float().flatten(2)
        # The flag tells "hidden" from "happens to be zero".
        pooled = [x.mean(2), (x.var(2, unbiased=False) + 1e-4).sqrt(), known[:, None]]
        if self.statistics:
            a, r = image_statistics(intensity)
            # Zero is the mean after the norm, so a masked statistic says nothing.
            a = self.norm_absolute(a).clamp(-6, 6) * known[:, None]
            pooled.append(self.mix(torch.cat([a, self.norm_relative(r).clamp(-6, 6)], 1)))
        return F.normalize(self.head(torch.cat(pooled, 1)).float(), dim=1)


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


def _channels(intensity: Tensor, known: Tensor) -> Tensor:
    """(B, H, W) -> (B, 2, H, W): normalised, and absolute (zero where masked) with a spread of about 1 in a lab."""
    variance, mean = torch.var_mean(intensity, (1, 2), keepdim=True)
    b, h, w = intensity.shape
    channels = torch.empty(b, 2, h, w, device=intensity.device).contiguous(memory_format=torch.channels_last)
    channels[:, 0] = ((intensity - mean) / variance.sqrt().clamp_min(1e-3)).clamp_(-10, 10)
    # Values of an unknown scale may be of any size; they are hidden by selection, not by multiplication.
    channels[:, 1] = torch.where(known[:, None, None] > 0, intensity * (4 / FULL_SCALE) - 1, 0.0)
    return channels


def image_statistics(intensity: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel-independent statistics of (B, H, W) images, at any size from 32.

    Returns
    -------
    absolute : (B, n) tensor
        On the 16-bit scale: quantiles and their logarithms, fractions of empty and full pixels, logarithms
        of mean, spread and noise, noise variance against mean signal (slope and intercept).
    relative : (B, m) tensor
        Unchanged by any gain and offset: shape of the histogram, correlation at `LAGS` along the fast and
        along the slow scan axis, logarithm of the power spectrum in `BANDS` rings.
    """
    with torch.autocast(intensity.device.type, enabled=False):
        x = intensity.float()
        flat = x.flatten(1)
        variance, mean = torch.var_mean(flat, 1)
        std = variance.sqrt().clamp_min(1e-3)
        z = (x - mean[:, None, None]) / std[:, None, None]
        # Sorting 32 x 32 pixels is enough for quantiles and costs a tenth of sorting them all.
        coarse = z[:, :: max(1, x.shape[1] // 32), :: max(1, x.shape[2] // 32)].flatten(1)
        quantiles = torch.quantile(coarse, torch.tensor(QUANTILES, device=x.device), dim=1).T
        square = z * z
        moments = torch.stack([(square * z).mean((1, 2)), (square * square).mean((1, 2)).log1p()], 1)
        relative = torch.cat([quantiles, moments, _spectrum(z)], 1)
        absolute = torch.cat([_levels(flat, mean, std, quantiles), _noise(x)], 1)
    return absolute, relative


def _levels(flat: Tensor, mean: Tensor, std: Tensor, quantiles: Tensor) -> Tensor:
    """Absolute levels, linear and logarithmic, and how many pixels are clipped."""
    levels = (mean[:, None] + std[:, None] * quantiles) / FULL_SCALE
    clipped = torch.stack([(flat <= 0).float().mean(1), (flat >= FULL_SCALE).float().mean(1)], 1)
    logs = torch.stack([mean.clamp_min(1).log(), std.log()], 1)
    return torch.cat([levels, levels.clamp_min(1e-4).log(), clipped, (clipped + 1e-4).log(), logs], 1)


def _noise(x: Tensor) -> Tensor:
    """Noise variance from second differences, against the mean signal, both in blocks of 8 x 8 pixels.

    For shot noise the variance is gain x (signal - offset): slope and intercept of the line carry both.
    """
    second = x[:, :, 2:] + x[:, :, :-2] - 2 * x[:, :, 1:-1]
    signal = F.avg_pool2d(x[:, None, :, 1:-1], 8).flatten(1) / FULL_SCALE
    variance = F.avg_pool2d((second * second)[:, None], 8).flatten(1) / (6 * FULL_SCALE**2) * 1e3
    ds = signal - signal.mean(1, keepdim=True)
    spread = (ds * ds).mean(1)
    slope = (ds * variance).mean(1) / (spread + 1e-6)
    intercept = variance.mean(1) - slope * signal.mean(1)
    order = variance.sort(1).values
    low, high = order[:, order.shape[1] // 10], order[:, -1 - order.shape[1] // 10]
    logs = [v.clamp_min(1e-6).log() for v in (variance.mean(1), low, high, slope.abs())]
    return torch.stack([*logs, slope.asinh(), intercept.asinh(), spread.clamp_min(1e-10).log()], 1)


def _spectrum(z: Tensor) -> Tensor:
    """Correlations at `LAGS` along x and along y, then the logarithm of the power in rings.

    For white noise of unit variance the correlations are 0 and the logarithms are 0. Both are weighted sums
    of one power spectrum (Wiener-Khinchin).
    """
    window, rings, lags = _weights(z.shape[1], z.shape[2], z.device)
    f = torch.view_as_real(torch.fft.rfft2(z * window))
    power = (f * f).sum(3).flatten(1)
    return torch.cat([power @ lags, (power @ rings + 1e-4).log()], 1)


@lru_cache(maxsize=8)
def _weights(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Hann window (H, W) and, for the flattened half spectrum, weights of `BANDS` rings and of the lags."""
    window = torch.hann_window(height, device=device)[:, None] * torch.hann_window(width, device=device)
    fy, fx = torch.fft.fftfreq(height, device=device)[:, None], torch.fft.rfftfreq(width, device=device)
    ring = (torch.hypot(fy, fx) * 2 * BANDS).long().flatten()  # equal rings up to 0.5 cycles a pixel
    inside = ring < BANDS
    rings = F.one_hot(ring.clamp_max(BANDS - 1), BANDS).float() * inside[:, None]
    energy = (window**2).sum()
    # The half spectrum stands for both signs of fx, but for its first and (of an even width) last column.
    twice = torch.full_like(fx, 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    waves = [torch.cos(2 * math.pi * k * fx) * torch.ones_like(fy) for k in LAGS]
    waves += [torch.cos(2 * math.pi * k * fy) * torch.ones_like(fx) for k in LAGS]
    lags = torch.stack([(w * twice).flatten() for w in waves], 1) / (energy * height * width)
    return window, rings / (rings.sum(0).clamp_min(1) * energy), lags
