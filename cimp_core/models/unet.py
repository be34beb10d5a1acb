"""A small U-Net (Ronneberger, Fischer and Brox, arXiv:1505.04597): a picture in, a picture of the same size out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["UNet"]


class UNet(nn.Module):
    """Two convolutions a level, max-pooling down, bilinear interpolation up, skips by concatenation.

    Works at any size: pictures are continued by their edge to a multiple of ``2**depth`` and cut again.

    Parameters
    ----------
    width : int
        Channels of the first level; each level down has twice as many.
    depth : int
        Times that the picture is halved.
    norm : bool
        Batch normalisation after each convolution.
    top_skip : bool
        Whether the first level's skip is there. N2V2 (Höck et al., arXiv:2211.08512) leaves it out and blurs before
        it halves, against checkerboards.
    """

    def __init__(self, width: int = 32, depth: int = 2, *, norm: bool = True, top_skip: bool = True) -> None:
        super().__init__()
        self.depth, self.top_skip = depth, top_skip
        widths = [width * 2**k for k in range(depth + 1)]
        self.down = nn.ModuleList(_pair(a, b, norm) for a, b in zip([1, *widths[:-1]], widths))
        skips = [w if k or top_skip else 0 for k, w in enumerate(widths[:-1])]
        self.up = nn.ModuleList(_pair(2 * w + s, w, norm) for w, s in zip(widths[:-1], skips))
        self.last = nn.Conv2d(width, 1, 1)

    @property
    def margin(self) -> int:
        """Pixels around a pixel that its result may depend on, rounded up to a multiple of ``2**depth``."""
        # At a level of edge 2^k: two convolutions down and two up, and what pooling and interpolation look beyond it.
        beyond = 2 if self.top_skip else 3
        reach = 2**self.depth * 2 + sum(2**k * (2 + 2 + beyond) for k in range(self.depth))
        return -(-reach // 2**self.depth) * 2**self.depth

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, h, w) -> (B, 1, h, w)."""
        height, width = x.shape[-2:]
        multiple = 2**self.depth
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        skips = []
        for k, level in enumerate(self.down):
            if k:
                x = self._halved(x)
            x = level(x)
            skips.append(x)
        for k in reversed(range(self.depth)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up[k](torch.cat([x, skips[k]], 1) if k or self.top_skip else x)
        return self.last(x)[..., :height, :width]

    def _halved(self, x: Tensor) -> Tensor:
        if self.top_skip:
            return F.max_pool2d(x, 2)
        return F.avg_pool2d(F.max_pool2d(x, 3, stride=1, padding=1), 2)


def _pair(channels_in: int, channels: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first in (channels_in, channels):
        layers.append(nn.Conv2d(first, channels, 3, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(channels)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
