"""Statistics of an image that do not depend on where things are: levels, noise, correlations, rows.

They are computed on the device, in float32, for a batch of images of any size from 32 pixels. The fast scan axis is
the last one, and horizontal and vertical statistics differ: after-glow correlates neighbours along a row, jitter
displaces rows.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .spectrum import frequencies, normalised, power_spectrum

__all__ = ["FULL_SCALE", "image_statistics"]

FULL_SCALE = 65535.0
"""Largest value of a 16-bit image [counts]."""

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
TAILS = (1e-4, 1e-3)
"""Shares of the darkest and of the brightest pixels."""
LAGS = (1, 2, 3, 4, 8)
BANDS = 12
"""Bands of one axis of the spectrum, between zero and the Nyquist frequency."""
ROW_LAGS = (1, 2, 4, 8)
LEVELS = 6


def image_statistics(intensity: Tensor, power: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Statistics of (B, H, W) images; `power` is the `power_spectrum` of the normalised images, if at hand.

    Returns
    -------
    absolute : (B, n) tensor
        On the 16-bit scale: quantiles and their logarithms, the darkest and brightest pixels, clipped shares, the
        noise of neighbours and at six levels of the signal, and what follows if it is shot noise: counts per electron,
        and the black level, at which there would be none.
    relative : (B, m) tensor
        Unchanged by any gain and offset: shape of the histogram, correlations of the noise and of the picture along
        both axes, profiles of the spectrum's noise, steps and displacements from row to row.
    """
    with torch.autocast(intensity.device.type, enabled=False):
        x = intensity.float()
        z = normalised(x)
        power = power_spectrum(z) if power is None else power
        std = x.flatten(1).std(1).clamp_min(1e-3)
        # Sorting a few thousand pixels is enough for quantiles and costs a tenth of sorting them all.
        coarse = z[:, :: max(1, x.shape[1] // 64), :: max(1, x.shape[2] // 64)].flatten(1).sort(1).values
        quantiles = coarse[:, [round(q * (coarse.shape[1] - 1)) for q in QUANTILES]]
        residual, steps = _residual(z), _steps(z)
        noise = (steps * std[:, None] + 1e-2).log()
        absolute = torch.cat([_levels(x, std, quantiles), _shot_noise(x, residual, std), noise], 1)
        square = z * z
        moments = torch.stack([(square * z).mean((1, 2)).asinh(), (square * square).mean((1, 2)).log1p()], 1)
        steps = (steps + 1e-4).log()
        relative = [quantiles, moments, _noise(residual), steps, steps[:, :1] - steps[:, 1:2]]
        relative += [_spectrum(power, *x.shape[1:]), _rows(z)]
    return absolute, torch.cat(relative, 1)


def _levels(x: Tensor, std: Tensor, quantiles: Tensor) -> Tensor:
    """Absolute levels, linear and logarithmic, those of the darkest and the brightest, and how many pixels are clipped.

    Where nothing scatters a pixel is dark but for its noise, so the darkest say most about the black level.
    """
    flat, blocks = x.flatten(1), F.avg_pool2d(x[:, None], 8).flatten(1)
    mean = flat.mean(1, keepdim=True)
    counts = [max(1, round(share * flat.shape[1])) for share in TAILS]
    dark, bright = (flat.topk(counts[-1], largest=largest).values for largest in (False, True))
    ends = [tail[:, n - 1 : n] for tail in (dark, bright) for n in counts]
    levels = [mean + std[:, None] * quantiles, blocks.amin(1, True), blocks.amax(1, True), *ends]
    levels = torch.cat(levels, 1) / FULL_SCALE
    clipped = torch.stack([(flat <= 0).float().mean(1), (flat >= FULL_SCALE).float().mean(1)], 1)
    logs = [levels.clamp_min(1e-4).log(), (clipped + 1e-4).log(), mean.clamp_min(1).log(), std[:, None].log()]
    return torch.cat([levels, clipped, *logs], 1)


def _residual(z: Tensor) -> Tensor:
    """Second difference along both axes, of unit gain for white noise: blind to slopes and to straight edges."""
    rows = z[:, :, 2:] - 2 * z[:, :, 1:-1] + z[:, :, :-2]
    return (rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2]) / 6


def _steps(z: Tensor) -> Tensor:
    """Typical (median) and root mean square difference of neighbours in a row and in a column, (B, 4).

    The median passes over edges and atoms where they are few. Every third pixel is enough for it.
    """
    along, across = z[:, :, 1:] - z[:, :, :-1], z[:, 1:] - z[:, :-1]
    typical = [d[:, ::3, ::3].flatten(1).abs().median(1).values for d in (along, across)]
    return torch.stack([*typical, *((d * d).mean((1, 2)).sqrt() for d in (along, across))], 1)


def _shot_noise(x: Tensor, residual: Tensor, std: Tensor) -> Tensor:
    """Noise variance against the signal in blocks of 8 x 8 pixels.

    Shot noise has the variance counts per electron x (signal - black level): the line's slope and where it meets zero.
    """
    edge = min(8, residual.shape[1] // 4, residual.shape[2] // 4)
    signal = F.avg_pool2d(x[:, None, 1:-1, 1:-1], edge).flatten(1)
    variance = F.avg_pool2d((residual**2)[:, None], edge).flatten(1) * std[:, None] ** 2
    signal, order = signal.sort(1)
    size = signal.shape[1] // LEVELS
    level = signal[:, : size * LEVELS].reshape(-1, LEVELS, size).mean(2)
    noise = variance.gather(1, order)[:, : size * LEVELS].reshape(-1, LEVELS, size).median(2).values
    # A noisy level counts for less, as its estimate scatters in proportion to itself.
    weight = 1 / (noise + 0.1 * noise.mean(1, keepdim=True) + 1e-3) ** 2
    weight = weight / weight.sum(1, keepdim=True)
    centre, height = (weight * level).sum(1, keepdim=True), (weight * noise).sum(1, keepdim=True)
    spread = (weight * (level - centre) ** 2).sum(1, keepdim=True)
    slope = (weight * (level - centre) * (noise - height)).sum(1, keepdim=True) / (spread + 1)
    black = (centre - height / slope.clamp_min(1e-2)) / FULL_SCALE
    off_line = (weight * (noise - height - slope * (level - centre)) ** 2).sum(1, keepdim=True)
    off_line = off_line.clamp_min(1e-20).sqrt()  # without noise at any level the root has no slope
    mean = variance.mean(1, keepdim=True)
    logs = [(v + 1e-2).log() for v in (noise, mean, slope.abs(), off_line)]
    above = ((level[:, -1:] - level[:, :1]) / FULL_SCALE).clamp_min(1e-5).log()
    return torch.cat([*logs, slope.asinh(), black.clamp(-1, 1), above], 1)


def _noise(residual: Tensor) -> Tensor:
    """Size of the noise against the picture, its tails, and its correlation along and across the fast axis."""
    power = (residual**2).mean((1, 2)) + 1e-9
    blocks = F.avg_pool2d((residual**2)[:, None], min(8, residual.shape[1] // 4, residual.shape[2] // 4)).flatten(1)
    parts = [power.log(), (power / (blocks.median(1).values + 1e-9)).clamp(max=1e4).log()]
    for lag in (1, 2, 3):
        parts.append((residual[:, :, lag:] * residual[:, :, :-lag]).mean((1, 2)) / power)
        parts.append((residual[:, lag:] * residual[:, :-lag]).mean((1, 2)) / power)
    return torch.stack(parts, 1)


def _spectrum(power: Tensor, height: int, width: int) -> Tensor:
    """Correlations at `LAGS` along both axes, and profiles along each axis where the other frequency is high.

    There the picture has faded and noise is left, so the profile along the fast axis shows what after-glow does to it.
    """
    lags, bands = _weights(height, width, power.device)
    # The mean of the logarithm passes over the peaks of a lattice, which may still be there.
    return torch.cat([power @ lags, (power @ bands + 1e-6).log(), (power + 1e-6).log() @ bands], 1)


@lru_cache(maxsize=16)
def _weights(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weights of the half spectrum (H * (W // 2 + 1), ...) that give correlations at lags, and means over bands."""
    fy, fx = frequencies(height, width, device)
    # The half spectrum stands for both signs of fx, but for its first and (of an even width) last column.
    twice = torch.where((fx == 0) | ((fx == 0.5) if width % 2 == 0 else False), 1.0, 2.0)
    lags = [torch.cos(2 * math.pi * k * f) * twice / (height * width) for f in (fx, fy) for k in LAGS]
    bands = []
    for along, across in ((fx.abs(), fy.abs()), (fy.abs(), fx.abs())):
        band = (along * 2 * BANDS).long().clamp_max(BANDS - 1)
        high = (across > 0.33) & (across <= 0.5)
        bands += [((band == i) & high).float() for i in range(BANDS)]
    return torch.stack(lags, 1), torch.stack([b / b.sum() for b in bands], 1)


def _rows(z: Tensor) -> Tensor:
    """Gradients, steps of the level and displacements from row to row, and how far displacements remember."""
    gx, gy = z[:, 1:-1, 2:] - z[:, 1:-1, :-2], z[:, 2:, 1:-1] - z[:, :-2, 1:-1]
    square = (gx * gx + gy * gy) / 4
    mean = square.mean((1, 2)) + 1e-9
    # Where neighbours are equal the root has no slope; the least value is too small to be seen in the mean.
    length = square.clamp_min(1e-20).sqrt()
    parts = [mean.log(), length.mean((1, 2)), ((square * square).mean((1, 2)) / mean**2).clamp(max=1e4).log1p()]
    means = z.mean(2)
    parts += [(means.std(1) + 1e-4).log(), (means.diff(dim=1).std(1) + 1e-4).log()]
    # Displacement d of a row against the one above, to first order: difference = d x slope, by least squares.
    slope = 0.25 * ((z[:, 1:, 2:] - z[:, 1:, :-2]) + (z[:, :-1, 2:] - z[:, :-1, :-2]))
    energy = (slope * slope).sum(2)
    shift = ((z[:, 1:] - z[:, :-1])[:, :, 1:-1] * slope).sum(2)
    shift = (shift / (energy + 0.05 * energy.mean(1, keepdim=True) + 1e-6)).clamp(-3, 3)
    shift = shift - shift.median(1, keepdim=True).values
    variance = (shift * shift).mean(1) + 1e-8
    parts.append(variance.log())
    place = shift.cumsum(1)
    for lag in ROW_LAGS:
        parts.append(((place[:, lag:] - place[:, :-lag]).var(1) + 1e-8).log())
        parts.append((shift[:, lag:] * shift[:, :-lag]).mean(1) / variance)
    return torch.stack(parts, 1)
