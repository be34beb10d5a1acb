"""Plain estimates of a noisy image, from which `DoseNet` composes its own; nothing here is learnt.

Shot noise is white before the scintillator smears it along the row. So the noise is white along the slow axis, its
spectrum along the fast axis is that of the after-glow, and both its level and the decay of the glow can be measured in
one image, where the slow frequency is high and the picture has faded. What is known of the glow is then undone up to
what F times the dwell time would leave of it, which makes the noise white again; what is left is smoothed by Gaussians,
or in the spectra of overlapping blocks, where a coefficient that does not stand out of the noise is taken away.

The glow's transfer is that of `cimp_core.simulate.detector.after_glow`: a decay by exp(-T/tau) from pixel to pixel.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "CANDIDATES",
    "GLOBALS",
    "Candidates",
    "blocks",
    "candidates",
    "field_edge",
    "gaussian",
    "glow_transfer",
    "local_noise",
    "noise_spectrum",
]

WIDTHS = (0.8, 1.4, 2.4, 4.5, 9.0, 18.0)
"""Standard deviations of the Gaussians [pixels]."""

BLOCKS = ((16, 4.0), (32, 5.0), (64, 5.0), (128, 7.0), (0, 9.0))
"""Edges of the blocks [pixels], 0 for `field_edge`, and how far above the noise a coefficient must be to stay."""

CANDIDATES = 2 + len(WIDTHS) + len(BLOCKS)
BANDS = 8
GLOBALS = 3 + 2 * BANDS
"""Numbers that say how noisy an image is, how its noise is coloured, and how its spectrum falls."""

RATIOS = torch.logspace(-1.4, 2.0, 46)
"""Dwell times over decay times that are told apart; the last is as good as no glow."""

LEAST_NOISE = 1e-5
"""Variance of the noise, of that of the image, below which it is not believed: clipped or computed pixels have none."""

LEAST_TRANSFER = 1e-3
"""Of the glow's power, below which it is not undone: read noise, which came after the glow, would grow with it."""

LOCAL = 16.0
"""Standard deviation of the Gaussian over which noise is local [pixels]."""

SCALES = (0.2, 4.0)
"""Of the local noise over that of the image: dark places have read noise, and nothing is all noise."""

_HIGH = 0.3
_PAD = 48


class Candidates(NamedTuple):
    """Of (B, H, W) images."""

    images: Tensor  # (B, CANDIDATES, H, W): recorded, glow undone, Gaussians, blocks; in units of `spread`, less `mean`
    globals: Tensor  # (B, GLOBALS)
    mean: Tensor  # (B,) [counts]
    spread: Tensor  # (B,): standard deviation [counts]
    noise: Tensor  # (B,): standard deviation of the noise before the glow [units of spread]
    ratio: Tensor  # (B,): dwell time over decay time, one of `RATIOS`
    scale: Tensor  # (B, H, W): local deviation of the noise over that of the image


def glow_transfer(ratio: Tensor, frequency: Tensor) -> Tensor:
    """Transfer (B, n) of the after-glow at `frequency` (n,) [cycles/pixel], for dwell time over decay time (B,)."""
    keep = torch.exp(-ratio)[:, None]
    spilt = (1 - keep) / ratio[:, None]
    turn = torch.exp(-2j * math.pi * frequency)[None]
    return ((1 - spilt) + (spilt - keep) * turn) / (1 - keep * turn)


def noise_spectrum(z: Tensor, ratio: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Noise of (B, H, W) images, from their power at high slow frequencies.

    Parameters
    ----------
    ratio : (B,) tensor, optional
        Dwell time over decay time, where it is known; else the one of `RATIOS` that fits best.

    Returns
    -------
    variance : (B,) tensor
        Of the white noise before the glow.
    ratio : (B,) tensor
    bands : (B, 2 * BANDS) tensor
        Logarithm of the power in bands of the fast and of the slow frequency, where the other one is high.
    """
    h, w = z.shape[1:]
    window, fy, fx, fast, slow = _grid(h, w, z.device)
    power = torch.fft.rfft2(z * window).abs().square() / window.square().sum()
    # The median of exponentially distributed power is ln 2 of its mean, and passes over the spots of a lattice.
    profile = power[:, fy.abs() > _HIGH].median(1).values / math.log(2) + 1e-9
    inner = slice(1, len(fx) - 1)  # the ends are not exponentially distributed
    log = profile[:, inner].log()
    if ratio is None:
        fits = 2 * glow_transfer(RATIOS.to(z), fx[inner]).abs().log()
        apart = log[:, None] - fits
        error = (apart - apart.mean(2, keepdim=True)).square().mean(2)
        ratio = RATIOS.to(z)[error.argmin(1)]
    level = (log - 2 * glow_transfer(ratio, fx[inner]).abs().log()).mean(1).exp()
    mean_log = (power + 1e-9).log().flatten(1)
    return level.clamp_min(LEAST_NOISE), ratio, torch.cat([mean_log @ fast, mean_log @ slow], 1)


@lru_cache(maxsize=16)
def _grid(h: int, w: int, device: torch.device) -> tuple[Tensor, ...]:
    window = torch.hann_window(h, device=device)[:, None] * torch.hann_window(w, device=device)
    fy, fx = torch.fft.fftfreq(h, device=device), torch.fft.rfftfreq(w, device=device)
    ay, ax = fy.abs()[:, None].expand(h, len(fx)), fx[None].expand(h, len(fx))
    columns = []
    for along, across in ((ax, ay), (ay, ax)):
        band = (along * 2 * BANDS).long().clamp_max(BANDS - 1)
        members = [((band == i) & (across > _HIGH)).float().flatten() for i in range(BANDS)]
        columns.append(torch.stack([m / m.sum().clamp_min(1) for m in members], 1))
    return window, fy, fx, *columns


def _deglow(z: Tensor, ratio: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) as at `factor` (B,) times the dwell time, and by how much noise grew at each fast frequency (B, n)."""
    padded = F.pad(z[:, None], (_PAD, 0, 0, 0), mode="replicate")[:, 0]  # the beam waits at the start of the row
    n = padded.shape[2]
    frequency = torch.fft.rfftfreq(n, device=z.device)
    now, then = glow_transfer(ratio, frequency), glow_transfer(ratio * factor, frequency)
    change = then * now.conj() / (now.abs().square() + LEAST_TRANSFER)
    out = torch.fft.irfft(torch.fft.rfft(padded) * change[:, None], n)[:, :, _PAD:]
    return out, change


def gaussian(z: Tensor, sigma: float) -> Tensor:
    """(B, H, W) images smoothed by a Gaussian of standard deviation `sigma` [pixels], reflected at the edges."""
    radius = min(int(3 * sigma + 0.5), z.shape[1] - 1, z.shape[2] - 1)
    x = torch.arange(-radius, radius + 1, device=z.device, dtype=z.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(z[:, None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]


def blocks(z: Tensor, level: Tensor, ratio: Tensor, factor: Tensor, edge: int, threshold: float) -> Tensor:
    """Shrinkage in the spectra of overlapping blocks: the part of a coefficient's power that is above the noise.

    Parameters
    ----------
    z : (B, H, W) tensor
        Images of which the glow was undone.
    level, ratio, factor : (B,) tensors
        Variance of the white noise before the glow, dwell time over decay time, factor of the dwell time.
    edge : int
        Of the blocks [pixels].
    threshold : float
        Power over that of the noise below which a coefficient is taken away.
    """
    b, h, w = z.shape
    step = edge // 2
    tall, wide = (-(-(n + edge) // step) * step for n in (h, w))
    z = _reflect(z, step, tall - h - step, step, wide - w - step)
    window = torch.hann_window(edge, device=z.device).sqrt()
    window = window[:, None] * window
    pieces = z.unfold(1, edge, step).unfold(2, edge, step)
    spectrum = torch.fft.rfft2(pieces * window)
    frequency = torch.fft.rfftfreq(edge, device=z.device)
    now, then = glow_transfer(ratio, frequency), glow_transfer(ratio * factor, frequency)
    white = (now * then * now.conj() / (now.abs().square() + LEAST_TRANSFER)).abs().square()
    noise = level[:, None] * white * window.square().sum() * threshold
    gain = 1 - noise[:, None, None, None] / (spectrum.abs().square() + 1e-12)
    gain = gain.clamp_min(0)
    gain[..., 0, 0] = 1  # the mean of a block is known well
    pieces = torch.fft.irfft2(spectrum * gain, (edge, edge)) * window
    rows, columns = pieces.shape[1:3]
    pieces = pieces.reshape(b, rows * columns, edge * edge).transpose(1, 2)
    out = F.fold(pieces, (tall, wide), edge, stride=step)[:, 0]
    return out[:, step : step + h, step : step + w]


def field_edge(h: int, w: int) -> int:
    """Edge of the widest blocks for an image of this size [pixels]: a lattice stands out the more, the wider it is."""
    return 256 if min(h, w) >= 256 else 128


def local_noise(z: Tensor) -> Tensor:
    """Local deviation of the noise (B, H, W) over that of the image, over some 40 pixels.

    From second differences along the slow axis, along which noise is white and where the picture has mostly faded.
    """
    rough = F.pad(z[:, None], (0, 0, 1, 1), mode="reflect")[:, 0]
    rough = (rough[:, 2:] - 2 * rough[:, 1:-1] + rough[:, :-2]).square()
    smooth = gaussian(rough, LOCAL)
    return (smooth / smooth.mean((1, 2), keepdim=True).clamp_min(LEAST_NOISE)).sqrt().clamp(*SCALES)


def _reflect(z: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Reflection padding of any width, also beyond the image's own."""
    for axis, before, after in ((1, top, bottom), (2, left, right)):
        n = z.shape[axis]
        index = torch.arange(-before, n + after, device=z.device) % max(1, 2 * n - 2)
        z = z.index_select(axis, torch.where(index >= n, 2 * n - 2 - index, index))
    return z


def candidates(counts: Tensor, factor: Tensor) -> Candidates:
    """Estimates of (B, H, W) images, at least 32 pixels a side, as at `factor` (B,) times the dwell time."""
    x = counts.float()
    variance, mean = torch.var_mean(x.flatten(1), 1)
    spread = variance.sqrt().clamp_min(1e-3)
    z = (x - mean[:, None, None]) / spread[:, None, None]
    level, ratio, bands = noise_spectrum(z)
    clear, _ = _deglow(z, ratio, factor)
    images = [z, clear, *(gaussian(clear, sigma) for sigma in WIDTHS)]
    scale, field = local_noise(clear), field_edge(*clear.shape[1:])
    even = clear / scale
    images += [scale * blocks(even, level, ratio, factor, edge or field, above) for edge, above in BLOCKS]
    smooth = images[4].flatten(1).var(1)
    globals_ = torch.cat([torch.stack([level.log(), ratio.log(), (smooth + 1e-6).log()], 1), bands], 1)
    return Candidates(torch.stack(images, 1), globals_, mean, spread, level.sqrt(), ratio, scale)
