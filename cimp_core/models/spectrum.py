"""The power spectrum on a log-polar grid, and the network that reads lattices in it.

A lattice is a pattern of peaks in the power spectrum. Another pixel size moves the pattern along the logarithm of the
radius, another orientation turns it: neither changes its shape. Convolutions on such a grid therefore know a lattice
at any scale, where a convolution on pixels has to learn it scale by scale. The grid is the same for images of any size.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ANGLES", "RADII", "SpectrumEncoder", "frequencies", "log_polar_spectrum", "normalised", "power_spectrum"]

RADII = 48
ANGLES = 24
LOWEST, HIGHEST = 0.012, 0.5
"""Radii of the grid [cycles per pixel]; 0.5 is the Nyquist frequency."""


def normalised(intensity: Tensor) -> Tensor:
    """(B, H, W) images with mean 0 and standard deviation 1; a flat image becomes zeros."""
    variance, mean = torch.var_mean(intensity, (1, 2), keepdim=True)
    return (intensity - mean) / variance.sqrt().clamp_min(1e-3)


def frequencies(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Frequencies (fy, fx) [cycles per pixel] of a half spectrum, flattened: (H * (W // 2 + 1),) each."""
    fy, fx = torch.fft.fftfreq(height, device=device), torch.fft.rfftfreq(width, device=device)
    return fy[:, None].expand(-1, len(fx)).flatten(), fx[None].expand(len(fy), -1).flatten()


@lru_cache(maxsize=16)
def _window(height: int, width: int, device: torch.device) -> Tensor:
    """Hann window (H, W) of unit mean square, so that white noise of variance 1 has power 1 at each frequency."""
    window = torch.hann_window(height, device=device)[:, None] * torch.hann_window(width, device=device)
    return window / (window**2).sum().sqrt()


def power_spectrum(z: Tensor) -> Tensor:
    """Power of (B, H, W) images under a Hann window at the `frequencies`: (B, H * (W // 2 + 1))."""
    f = torch.view_as_real(torch.fft.rfft2(z * _window(z.shape[1], z.shape[2], z.device)))
    return (f * f).sum(3).flatten(1)


def log_polar_spectrum(intensity: Tensor) -> Tensor:
    """Logarithm of the power spectrum of (B, H, W) images on a log-polar grid: (B, RADII, ANGLES) float32.

    The first axis is the logarithm of the spatial frequency, from `LOWEST` to `HIGHEST`; the second its direction over
    half a turn, from the slow scan axis over the fast one (in the middle) and on. Unchanged by gain and offset.
    """
    with torch.autocast(intensity.device.type, enabled=False):
        return log_polar(power_spectrum(normalised(intensity.float())), *intensity.shape[1:])


def log_polar(power: Tensor, height: int, width: int) -> Tensor:
    """As `log_polar_spectrum`, from the `power_spectrum` of normalised images."""
    index, starts, weight = _grid(height, width, power.device)
    # Every cell is a weighted sum of a few frequencies; this is a sparse matrix product.
    cells = F.embedding_bag(index, power.T.contiguous(), starts, mode="sum", per_sample_weights=weight)
    return (cells.T + 1e-4).log().reshape(len(power), RADII, ANGLES)


@lru_cache(maxsize=16)
def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each cell of the grid: the frequencies that count, where they start, and their weights, which sum to 1.

    Weights are Gaussian, as wide as a cell, but not narrower than the spectrum itself is sampled: where the grid is
    finer than the spectrum, as at low frequencies, it interpolates.
    """
    fy, fx = frequencies(height, width, torch.device("cpu"))
    radius, direction = torch.hypot(fy, fx).double(), torch.atan2(fy, fx).double()
    inside = (radius > 0) & (radius <= HIGHEST * 1.05)
    places, log_radius, direction = inside.nonzero()[:, 0], radius[inside].log(), direction[inside]
    step, turn = math.log(HIGHEST / LOWEST) / (RADII - 1), math.pi / ANGLES
    angles = (torch.arange(ANGLES).double() + 0.5) * turn - math.pi / 2
    index, weight = [], []
    for ring in range(RADII):
        centre = math.log(LOWEST) + ring * step
        sampled = 0.6 / (math.exp(centre) * min(height, width))  # of the spectrum, relative to this radius
        wide, broad = max(step / 2, sampled), max(turn / 2, sampled)
        near = ((log_radius - centre).abs() < 3 * wide).nonzero()[:, 0]
        away = torch.remainder(direction[near] - angles[:, None] + math.pi / 2, math.pi) - math.pi / 2
        w = torch.exp(-0.5 * (((log_radius[near] - centre) / wide) ** 2 + (away / broad) ** 2))
        w /= w.sum(1, keepdim=True)
        for cell in w:
            counts = (cell > 1e-3).nonzero()[:, 0]
            index.append(places[near[counts]])
            weight.append((cell[counts] / cell[counts].sum()).float())
    lengths = torch.tensor([0] + [len(i) for i in index[:-1]])
    return torch.cat(index).to(device), lengths.cumsum(0).to(device), torch.cat(weight).to(device)


class SpectrumEncoder(nn.Module):
    """A small residual network on `log_polar` grids -> (B, features). Directions are periodic.

    Parameters
    ----------
    width : int
        Channels of its first stage.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 5, (2, 2), bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        stages = _Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)
        self.stages = nn.Sequential(*stages)
        # What a radius means must not be pooled away; the direction may.
        self.features = 2 * 4 * width * math.ceil(RADII / 8)

    def forward(self, spectrum: Tensor, size: Tensor) -> Tensor:
        """Features of (B, RADII, ANGLES) logarithms of the power of images with `size` (B,) pixels a side."""
        place = torch.linspace(-1, 1, RADII, device=spectrum.device)
        # How far a ring lies above what an image of this size can resolve.
        radius = LOWEST * (HIGHEST / LOWEST) ** ((place + 1) / 2)
        resolved = (radius * size[:, None] / 4).clamp(max=1) * 2 - 1
        extra = torch.stack([place.expand_as(resolved), resolved], 1)[..., None].expand(-1, -1, -1, ANGLES)
        # The logarithm of the power lies between -9 (the floor) and 6 or so.
        x = self.stages(self.stem(_periodic(torch.cat([spectrum[:, None] / 3, extra], 1), 2))).float()
        return torch.cat([x.mean(3), x.amax(3)], 1).flatten(1)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, periodic along the last axis."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels_in, channels, 3, stride, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, bias=False), nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm2.weight)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(_periodic(x, 1))))
        return F.relu(self.norm2(self.conv2(_periodic(y, 1))) + self.shortcut(x))


def _periodic(x: Tensor, margin: int) -> Tensor:
    """Pad (B, C, R, A) by a margin: by itself along the directions, by its edge along the radii."""
    x = torch.cat([x[..., -margin:], x, x[..., :margin]], 3)
    return F.pad(x, (0, 0, margin, margin), mode="replicate")
