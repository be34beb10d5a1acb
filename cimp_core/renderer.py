"""The trained translator at work: images and settings in, images as under other settings out."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from .errors import OutOfRangeError
from .metadata import PARAMETERS, Acquisition
from .models import Cimp, Translator
from .models.translator import levels_of
from .weights import load

__all__ = ["CONDITIONS", "Conditioner", "Renderer", "StyleRoute"]

CONDITIONS = ("embedding", "raw", "none")
"""What the translator and the critic are told of settings: CIMP embeddings, the normalised values, or nothing."""

BAND = 512
"""Rows that are rendered at a time [px]."""

SMALLEST = 32
"""Least side of an image [px]."""


class Conditioner(nn.Module):
    """Normalised settings (B, 7), ``nan`` where missing -> what networks are told of them, (B, `size`).

    Parameters
    ----------
    kind : str
        One of `CONDITIONS`.
    encoder : Cimp or str
        Frozen: a copy of the model, or weights by name. All kinds use its normalisation.
    """

    def __init__(self, kind: str, encoder: Cimp | str) -> None:
        super().__init__()
        if kind not in CONDITIONS:
            raise OutOfRangeError(f"unknown condition {kind!r}; there are {', '.join(CONDITIONS)}")
        encoder = load(encoder) if isinstance(encoder, str) else copy.deepcopy(encoder)
        self.kind, self.encoder = kind, encoder.eval().requires_grad_(False)
        self.size = {"embedding": encoder.config.dim, "raw": 2 * len(PARAMETERS), "none": 0}[kind]

    def forward(self, settings: Tensor) -> Tensor:
        if self.kind == "embedding":
            # Unit rows have values of about 1 / sqrt(d), too small to be told apart by a fresh layer.
            return self.encoder.metadata_encoder(settings) * self.size**0.5
        known = ~torch.isnan(settings)
        told = torch.cat([torch.where(known, settings, 0.0).clamp(-5, 5), known.float()], 1)
        return told[:, : self.size]

    def of(self, acquisition: Acquisition) -> Tensor:
        """The same of one acquisition in SI units, (1, `size`)."""
        vector = self.encoder.config.normalizer.normalize(acquisition.vector()[None])
        return self(torch.from_numpy(vector.astype(np.float32)))


class Renderer:
    """A translator with what it is told of settings.

    Parameters
    ----------
    translator : Translator or str
        Trained, or weights by name or path.
    encoder : Cimp, optional
        The one it was trained with; by default the weights that its config names.
    """

    def __init__(self, translator: Translator | str = "cimp-style-s", encoder: Cimp | None = None) -> None:
        self.translator = translator if isinstance(translator, Translator) else load(translator, "style")
        self.translator.eval()
        config = self.translator.config
        self.conditioner = Conditioner(config.kind, config.encoder if encoder is None else encoder)

    @torch.no_grad()
    def __call__(self, frame: np.ndarray, source: Acquisition, target: Acquisition, *, seed: int = 0) -> np.ndarray:
        """Render (h, w) counts on the 16-bit scale as under the settings `target`, not rounded, clipped to 16 bits.

        A missing parameter is masked on both sides.

        Raises
        ------
        OutOfRangeError
            The image is too small or not finite.
        """
        frame = np.asarray(frame, np.float32)
        if frame.ndim != 2 or min(frame.shape) < SMALLEST or not np.isfinite(frame).all():
            raise OutOfRangeError(f"image of shape {frame.shape}: give finite counts, at least {SMALLEST} px a side")
        noise = torch.randn(frame.shape, generator=torch.Generator().manual_seed(seed))[None]
        image = torch.from_numpy(frame)[None]
        told, levels = (self.conditioner.of(source), self.conditioner.of(target)), levels_of(image)
        cell, out = self.translator.config.cell, np.empty_like(frame)
        margin = -(-self.translator.margin // cell) * cell
        band = BAND // cell * cell
        for top in range(0, len(frame), band):
            first, last = max(0, top - margin), min(len(frame), top + band + margin)
            made = self.translator(image[:, first:last], *told, noise[:, first:last], levels)[0]
            out[top : top + band] = made[top - first : top - first + band].clamp(0, 65535).numpy()
        return out


class StyleRoute:
    """Denoising by the translator: it is asked for the same image with a longer dwell time.

    A method as the others of `cimp_core.denoising`: ``route(frame, acquisition, factor)`` -> (image, None).
    """

    name = "style"

    def __init__(self, renderer: Renderer | None = None) -> None:
        self.renderer = Renderer() if renderer is None else renderer
        self.margin = self.renderer.translator.margin

    def __call__(
        self, frame: np.ndarray, acquisition: Acquisition, factor: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The frame (h, w) as with `factor` times the dwell time [counts]; it states no deviation.

        Raises
        ------
        OutOfRangeError
            The dwell time is not known: the translator has no other way to be asked for a dose.
        """
        if acquisition.dwell_time is None:
            raise OutOfRangeError(
                f"dwell time is missing ({acquisition.missing['dwell_time']}): this route renders the image at a "
                "longer one; give it, or choose another method"
            )
        longer = acquisition.replace(dwell_time=acquisition.dwell_time * factor)
        return self.renderer(frame, acquisition, longer), None
