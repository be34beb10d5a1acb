"""The five terms that a translator of images and its critic are trained with.

Least squares for the critic and for the generator (LSGAN), cycle, embedding, identity: the terms that the CIMP paper
names. All are means over what they compare, in float32.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["TERMS", "cycle", "embedding", "identity", "lsgan_discriminator", "lsgan_generator"]

TERMS = ("lsgan_discriminator", "lsgan_generator", "cycle", "embedding", "identity")
"""Names of the five; the first is the critic's, the others are the generator's."""


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


def cycle(image: Tensor, back: Tensor, spread: Tensor) -> Tensor:
    """Mean absolute difference of images from what comes back of them by way of other settings.

    Parameters
    ----------
    image, back : (B, H, W) tensors
        Counts.
    spread : (B,) tensor
        Standard deviation of each image [counts], in units of which differences count: a dim image is as important
        as a bright one.

    References
    ----------
    Zhu, Park, Isola and Efros, arXiv:1703.10593, equation 2.
    """
    return ((back.float() - image.float()).abs().mean((1, 2)) / spread.float()).mean()


def identity(image: Tensor, same: Tensor, spread: Tensor) -> Tensor:
    """As `cycle`, of what is made of images when the settings asked for are their own."""
    return cycle(image, same, spread)


def embedding(image: Tensor, metadata: Tensor) -> Tensor:
    """One minus the mean cosine of the embeddings of made images with those of the settings asked for.

    Parameters
    ----------
    image, metadata : (B, d) tensors
        Of the image tower and of the metadata tower of a frozen `Cimp`; normalised here.
    """
    return 1 - F.cosine_similarity(image.float(), metadata.float(), dim=1).mean()
