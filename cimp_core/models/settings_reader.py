"""What the seven settings of an image are likely to have been, all together: a mean and a covariance.

A covariance, not seven spreads, because settings make up for one another in a picture: twice the current at half the
gain looks much alike. With it a recorded value can be compared with what the picture says alone, and with what the
picture and the other recorded values say together; values that are missing, or not believed, are left out of a
Gaussian in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..metadata import PARAMETERS, Normalizer
from .config import config_from_dict
from .encoders import FEATURES

__all__ = ["CHECKS", "SettingsReader", "SettingsReaderConfig", "negative_log_likelihood"]

CHECKS = ("resampled", "contrast")
"""What is learnt to be told from a picture alone: that it was resampled or rescaled; that it is a bright field."""

_N = len(PARAMETERS)


@dataclass(frozen=True)
class SettingsReaderConfig:
    """What fixes the network's shape and its view of the data; stored with its weights."""

    relative: int  # statistics of the picture that no gain or offset changes
    texture: int  # further statistics, for the checks
    hidden: int = 256  # units of the layers for the settings
    check_hidden: int = 32  # units of the layer for the checks
    dropout: float = 0.3
    encoder: str = "cimp-twin-s"  # weights whose hidden layer is read
    log_indices: tuple[int, ...] = (0, 1, 3, 6)  # parameters normalised after a logarithm
    mean: tuple[float, ...] = (0.0,) * _N  # of the (log) parameters
    std: tuple[float, ...] = (1.0,) * _N

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SettingsReaderConfig:
        """Inverse of `dataclasses.asdict`; an unknown or a missing name raises `SchemaError`."""
        return config_from_dict(cls, values)

    @property
    def normalizer(self) -> Normalizer:
        """In whose units means and covariances are."""
        return Normalizer(self.log_indices, np.array(self.mean), np.array(self.std))


class SettingsReader(nn.Module):
    """Hidden layer of an encoder -> Gaussian of the settings; statistics of the picture -> one logit a check."""

    def __init__(self, config: SettingsReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.settings = nn.Sequential(
            nn.BatchNorm1d(FEATURES, affine=False),
            nn.Dropout(config.dropout),
            nn.Linear(FEATURES, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, _N + _N * (_N + 1) // 2),
        )
        statistics = config.relative + config.texture
        self.check_norm = nn.BatchNorm1d(statistics, affine=False)
        self.checks = nn.Sequential(
            nn.Linear(statistics, config.check_hidden), nn.GELU(), nn.Linear(config.check_hidden, len(CHECKS))
        )
        # How far from the training images a picture lies, along the directions in which those differ.
        self.register_buffer("common_mean", torch.zeros(statistics))
        self.register_buffer("common_axes", torch.eye(statistics))
        rows, columns = np.tril_indices(_N)
        self._rows, self._columns = rows, columns

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, 7), and a lower triangular (B, 7, 7) whose product with its transpose is the precision."""
        out = self.settings(features)
        entries = out[:, _N:]
        root = entries.new_zeros(len(out), _N, _N)
        root[:, self._rows, self._columns] = entries
        diagonal = root.diagonal(dim1=1, dim2=2)
        # From a spread of a thousandth of the laboratory's to one of hundred times it.
        positive = diagonal.clamp(-4.6, 6.9).exp()
        return out[:, :_N], root - torch.diag_embed(diagonal) + torch.diag_embed(positive)

    def check(self, statistics: Tensor) -> Tensor:
        """Logits (B, 2) of `CHECKS` from (B, relative + texture) statistics."""
        return self.checks(self.check_norm(statistics).clamp(-8, 8))

    def distance(self, statistics: Tensor) -> Tensor:
        """Root mean square deviation (B,) from the training images, in their own spreads."""
        scaled = self.check_norm(statistics).clamp(-1e3, 1e3)
        return ((scaled - self.common_mean) @ self.common_axes).square().mean(1).sqrt()


def negative_log_likelihood(mean: Tensor, root: Tensor, truth: Tensor, freedom: float = 6.0) -> Tensor:
    """Of normalised settings (B, 7), under a multivariate Student distribution, a constant left out: (B,).

    A Gaussian would let a few images far off make every spread large.
    """
    whitened = torch.einsum("bij,bi->bj", root, truth - mean)
    square = whitened.square().sum(1)
    return 0.5 * (freedom + _N) * torch.log1p(square / freedom) - root.diagonal(dim1=1, dim2=2).log().sum(1)
