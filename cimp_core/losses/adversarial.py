"""The terms that a translator of images and its critic are trained with.

Least squares for the critic and for the generator (LSGAN), cycle, embedding, identity: the terms that the CIMP paper
names; and `truth`, which needs what only a simulation, or an experiment made for it, has. All are means over what they
compare, in float32.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["TERMS", "cycle", "embedding", "identity", "lsgan_discriminator", "lsgan_generator", "noise", "truth"]

TERMS = ("lsgan_discriminator", "lsgan_generator", "cycle", "embedding", "identity")
"""Names of the paper's five; the first is the critic's, the others are the generator's."""

LEAST_NOISE = 100.0
"""Variance [counts^2] that counts for none: 10 counts of 65,535, as where an image is clipped or nearly black."""


def lsgan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Half the mean square distance of the critic's scores from 1 for real images and from 0 for made ones.

    Parameters
    ----------
    real, fake : tensors of any shapes
        Scores of patches.

    References
    ----------
    Mao et al., arXiv:1611.04076, equation 9 (a = 0, b = c = 1).
    """
    return 0.5 * ((real.float() - 1).square().mean() + fake.float().square().mean())


def lsgan_generator(fake: Tensor) -> Tensor:
    """Half the mean square distance from 1 of the critic's scores of made images; arguments as there."""
    return 0.5 * (fake.float() - 1).square().mean()


def cycle(image: Tensor, back: Tensor, spread: Tensor, cell: int = 1) -> Tensor:
    """Mean absolute difference of images from what comes back of them by way of other settings.

    Parameters
    ----------
    image, back : (B, H, W) tensors
        Counts.
    spread : (B,) tensor
        Standard deviation of each image [counts], in units of which differences count: a dim image is as important
        as a bright one.
    cell : int
        Side of the squares [px] whose means are compared. Noise is drawn anew on the way and cannot come back: compared
        by the pixel, the term is least where none is made and none removed.

    References
    ----------
    Zhu, Park, Isola and Efros, arXiv:1703.10593, equation 2.
    """
    difference = F.avg_pool2d((back.float() - image.float())[:, None], cell)[:, 0]
    return (difference.abs().mean((1, 2)) / spread.float()).mean()


def identity(image: Tensor, same: Tensor, spread: Tensor) -> Tensor:
    """As `cycle`, of what is made of images when the settings asked for are their own."""
    return cycle(image, same, spread)


def truth(made: Tensor, recording: Tensor, spread: Tensor, cell: int) -> Tensor:
    """As `cycle`, of images and recordings of the same areas under the settings that they were made for."""
    return cycle(recording, made, spread, cell)


def noise(made: Tensor, recording: Tensor, cell: int) -> Tensor:
    """Mean difference of the logarithms of the noise of two images, (B, H, W) counts, over squares of `cell` pixels.

    The noise is the mean square of the second difference along the slow axis, over which after-glow does not reach,
    divided by 6, which is the variance of white noise; `LEAST_NOISE` is added to it.
    """
    rough = [
        F.avg_pool2d(i.float().diff(n=2, dim=1).square()[:, None] / 6, cell) + LEAST_NOISE for i in (made, recording)
    ]
    return (rough[0].log() - rough[1].log()).abs().mean()


def embedding(image: Tensor, metadata: Tensor) -> Tensor:
    """One minus the mean cosine of the embeddings of made images with those of the settings asked for.

    Parameters
    ----------
    image, metadata : (B, d) tensors
        Of the image tower and of the metadata tower of a frozen `Cimp`; normalised here.
    """
    return 1 - F.cosine_similarity(image.float(), metadata.float(), dim=1).mean()
