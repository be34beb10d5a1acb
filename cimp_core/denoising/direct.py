"""The direct route: `DoseNet`, which learnt from the twin what a longer exposure would show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import OutOfRangeError
from ..metadata import Acquisition
from ..models import Cimp
from ..models.denoiser import CONDITION, DoseNet
from ..weights import load, locate, sha256

__all__ = ["DEFAULT_WEIGHTS", "Direct"]

DEFAULT_WEIGHTS = "cimp-dose-s"


class Direct:
    """A denoising method: ``direct(frame, acquisition, factor)`` gives the picture and the deviation of its error.

    Parameters
    ----------
    weights : str, path or DoseNet
        Shipped name or file.
    encoder : str, path or Cimp
        Whose metadata tower embeds the settings; the one that the network was trained with.
    device : str, optional
        Where to compute; a graphics card if there is one.

    Attributes
    ----------
    margin : int
        Pixels around a tile that its picture depends on.
    """

    name = "direct"
    margin = 64

    def __init__(
        self,
        weights: str | Path | DoseNet = DEFAULT_WEIGHTS,
        encoder: str | Path | Cimp = "cimp-twin-s",
        device: str | None = None,
    ) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        own = isinstance(weights, DoseNet)
        net = weights if own else load(weights, "dose")
        self.weights, self.sha256 = (None, None) if own else (str(weights), sha256(locate(weights)))
        self.net = net.to(self.device).eval()
        self.encoder = encoder if isinstance(encoder, Cimp) else load(encoder)

    def settings(self, acquisition: Acquisition) -> torch.Tensor:
        """Embedding (1, 128) of the settings by which the network is steered; zero where none is known."""
        if len(acquisition.missing) == len(acquisition.vector()) or not self.net.config.conditioned:
            return torch.zeros(1, CONDITION, device=self.device)
        return torch.from_numpy(self.encoder.embed_metadata([acquisition])).to(self.device)

    @torch.no_grad()
    def __call__(self, frame: np.ndarray, acquisition: Acquisition, factor: float) -> tuple[np.ndarray, np.ndarray]:
        """Picture and deviation, (h, w) float32 each, of counts (h, w) at any scale.

        Raises
        ------
        OutOfRangeError
            The frame is smaller than 32 x 32 pixels, or `factor` is not above 1.
        """
        if min(frame.shape) < 32 or not factor > 1:
            raise OutOfRangeError(
                f"a frame of {frame.shape[0]} x {frame.shape[1]} pixels and a factor of {factor:g}: "
                "give at least 32 x 32, and more than 1"
            )
        counts = torch.from_numpy(np.ascontiguousarray(frame, np.float32))[None].to(self.device)
        factors = torch.tensor([float(factor)], device=self.device)
        out = self.net(counts, self.settings(acquisition), factors)
        image = out.image * out.spread + out.mean
        deviation = (0.5 * out.log_variance).exp() * out.spread * self.net.config.deviation
        return image[0].float().cpu().numpy(), deviation[0].float().cpu().numpy()
