"""The players of the translator's training: generator, critic and frozen encoder, and what either loses on a batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .dataset import Dataset
from .losses import adversarial
from .models import Cimp, PatchDiscriminator, Translator, TranslatorConfig
from .renderer import Conditioner, Renderer
from .style_batches import StyleBatch, StyleConfig, StyleSampler
from .style_pairs import Pairs

__all__ = ["FULL_SCALE", "Players", "StyleValidation", "Told", "limited"]

FULL_SCALE = 65535.0

LEAST_SPREAD = 1000.0
"""Images with less spread [counts] do not count for more: critic and encoder normalise, and amplify their gradient."""

LEAST_CONTRAST = 2000.0
"""Recordings with less spread [counts] do not count for more where they are compared with what was made."""


@dataclass
class Players:
    """Generator, critic and frozen encoder, and the loss of either on one batch."""

    config: StyleConfig
    conditioner: Conditioner
    translator: nn.Module
    critic: nn.Module | None = None
    paired: bool = False  # the real images of a batch show the same areas

    @classmethod
    def new(cls, config: StyleConfig, encoder: Cimp | str, paired: bool = False) -> Players:
        """Untrained ones."""
        told = Conditioner(config.condition, encoder)
        name = encoder if isinstance(encoder, str) else ""
        shape = (told.size, config.cell, config.channels, config.blocks, config.hidden, config.condition, name)
        critic = PatchDiscriminator(told.size, config.critic_channels)
        return cls(config, told, Translator(TranslatorConfig(*shape)), critic, paired)

    def critic_loss(self, made: Tensor, batch: StyleBatch, told: Told) -> Tensor:
        """Of `made` images, which carry no gradient here."""
        real, share = self.critic(batch.real, told.real), self.config.mismatched
        loss = adversarial.lsgan_discriminator(real, self.critic(made.detach(), told.target))
        if not share:
            return loss
        # The source has nearly the pixel size of the real image, so that it is the other settings that do not fit.
        wrong = adversarial.lsgan_discriminator(real, self.critic(batch.real, told.source))
        return (1 - share) * loss + share * wrong

    def generator_terms(self, seen: Tensor, batch: StyleBatch, told: Told, noise: Tensor) -> dict[str, Tensor]:
        """The generator's terms of the images `seen`, those that have a weight."""
        config, encoder, image, terms = self.config, self.conditioner.encoder, batch.image, {}
        if config.adversarial:
            terms["adversarial"] = adversarial.lsgan_generator(self.critic(seen, told.target))
        if config.embedding:
            # A flat image, clipped everywhere, has no embedding that a gradient could be taken of.
            some = seen.detach().flatten(1).std(1) > 0
            terms["embedding"] = seen.new_zeros(())
            if some.any():
                wanted = encoder.metadata_encoder(batch.target[some])
                terms["embedding"] = adversarial.embedding(encoder.image_encoder(seen[some]), wanted)
        # One half of the batch goes there and back, the other is asked for what it is: both are means over images,
        # and halves cost half.
        spread, half = image.flatten(1).std(1).clamp_min(LEAST_SPREAD / 2), len(image) // 2
        if config.cycle:
            back = self.translator(seen[:half], told.target[:half], told.source[:half], noise[1][:half])
            back = back.clamp(0, FULL_SCALE)
            terms["cycle"] = adversarial.cycle(image[:half], back, spread[:half], config.mean_cell)
        if self.paired and config.truth:
            own = batch.real.flatten(1).std(1).clamp_min(LEAST_CONTRAST)
            terms["truth"] = adversarial.truth(seen, batch.real, own, config.mean_cell)
        if self.paired and config.noise:
            terms["noise"] = adversarial.noise(seen, batch.real, config.noise_cell)
        if config.identity:
            own = told.source[half:]
            terms["identity"] = adversarial.identity(
                image[half:], self.translator(image[half:], own, own, noise[1][half:]), spread[half:]
            )
        return terms


def limited(gradient: Tensor) -> Tensor:
    """The gradient of each image, no longer than that of an image with `LEAST_SPREAD` typically is.

    An image that is clipped but for a few pixels may have none that is finite; it then counts for nothing.
    """
    gradient = torch.where(gradient.isfinite().flatten(1).all(1)[:, None, None], gradient, 0.0)
    length = gradient.flatten(1).norm(dim=1) * (len(gradient) * LEAST_SPREAD)
    return gradient / length.clamp_min(1.0)[:, None, None]


class StyleValidation:
    """The terms that need no critic, on fixed batches of a validation part.

    ``validation(renderer)`` gives ``val_embedding``, ``val_cycle`` and ``val_identity``; with `pairs`, ``val_truth``.
    """

    def __init__(
        self, val: Dataset, config: StyleConfig, encoder: Cimp, *, pairs: Pairs | None = None, batches: int = 4
    ) -> None:
        measured = {"adversarial": 0.0, "embedding": 1.0, "cycle": 1.0, "identity": 1.0, "truth": 1.0, "noise": 1.0}
        fixed = dataclasses.replace(config, mask_metadata=0.0, batch_size=16, seed=config.seed + 1, **measured)
        self.config, self.paired = fixed, pairs is not None
        sampler = StyleSampler(val, fixed, encoder.config.normalizer, pairs=pairs)
        self.batches = [sampler(step) for step in range(batches)]

    @torch.no_grad()
    def __call__(self, renderer: Renderer) -> dict[str, float]:
        players = Players(self.config, renderer.conditioner, renderer.translator, paired=self.paired)
        sums: dict[str, float] = {}
        for step, batch in enumerate(self.batches):
            told = Told(*(players.conditioner(s) for s in (batch.source, batch.target, batch.real_settings)))
            generator = torch.Generator().manual_seed(step)
            noise = torch.randn((2, *batch.image.shape), generator=generator)
            seen = players.translator(batch.image, told.source, told.target, noise[0]).clamp(0, FULL_SCALE)
            for name, term in players.generator_terms(seen, batch, told, noise).items():
                sums[name] = sums.get(name, 0.0) + term.item() / len(self.batches)
        return {f"val_{name}": value for name, value in sums.items()}


class Told(NamedTuple):
    """The settings of a batch as networks are told them, (B, n) each."""

    source: Tensor
    target: Tensor
    real: Tensor
