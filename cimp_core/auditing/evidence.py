"""From a picture and its recorded settings to residuals and scores, before anything is judged.

Residuals are in the spreads that the network predicts. ``alone``: recorded value against what the picture says.
``given``: against what the picture and the other recorded values say together, from the same Gaussian: with residual r
and precision P of those that are known, ``given`` is (P r)_j / sqrt(P_jj). A score is the size of a residual over what
1 in 100 recordings of the twin's validation sessions reach, so that scores of different kinds can be compared and the
largest of them be calibrated as one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..metadata import PARAMETERS
from ..models.settings_reader import CHECKS, SettingsReader

__all__ = ["ABSOLUTE_ONLY", "KINDS", "Gaussians", "conditional", "picture_scores", "predict_settings", "residuals"]

ABSOLUTE_ONLY = ("beam_current", "detector_gain", "detector_offset")
"""What nothing is told of where the intensities are on no known scale."""

KINDS = (*(f"alone.{n}" for n in PARAMETERS), *(f"given.{n}" for n in PARAMETERS), *CHECKS)
"""Names of the scores that are calibrated together, in order."""

_N = len(PARAMETERS)


@dataclass(frozen=True)
class Gaussians:
    """What pictures say of their settings, normalised: means (n, 7) and covariances (n, 7, 7)."""

    mean: np.ndarray
    covariance: np.ndarray

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def spread(self) -> np.ndarray:
        """Of each setting, told by the picture alone: (n, 7)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))


@torch.no_grad()
def predict_settings(net: SettingsReader, features: np.ndarray) -> Gaussians:
    """Gaussians of (n, 512) features."""
    if len(features) == 0:
        return Gaussians(np.zeros((0, _N)), np.zeros((0, _N, _N)))
    mean, root = net(torch.from_numpy(np.asarray(features, np.float32)))
    root = root.double()
    return Gaussians(mean.double().numpy(), torch.linalg.inv(root @ root.mT).numpy())


@torch.no_grad()
def picture_scores(net: SettingsReader, statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 2) of `CHECKS`, and distances (n,) from the training images."""
    x = torch.from_numpy(np.asarray(statistics, np.float32).reshape(-1, net.common_mean.numel()))
    return net.check(x).numpy().astype(float), net.distance(x).numpy().astype(float)


def conditional(mean: np.ndarray, covariance: np.ndarray, values: np.ndarray, j: int, known: Sequence[int]) -> tuple:
    """Mean and spread of setting `j` given the picture and the values (7,) of the settings `known`."""
    others = [k for k in known if k != j]
    if not others:
        return float(mean[j]), float(np.sqrt(covariance[j, j]))
    weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, j])
    centre = mean[j] + weights @ (values[others] - mean[others])
    variance = covariance[j, j] - weights @ covariance[others, j]
    return float(centre), float(np.sqrt(max(variance, 1e-12)))


def residuals(told: Gaussians, values: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals ``alone`` and ``given``, (n, 7) each, of normalised recorded values.

    Parameters
    ----------
    values : (n, 7) array
        ``nan`` where missing.
    used : (7,) or (n, 7) bool array
        Settings that are compared; the others count as missing.
    """
    known = np.isfinite(values) & np.broadcast_to(used, values.shape)
    off = np.where(known, values - told.mean, 0.0)
    alone = np.where(known, off / told.spread, np.nan)
    # A setting that is left out gets a huge variance of its own: then it says nothing of the others.
    masked = told.covariance + np.eye(_N) * np.where(known, 0.0, 1e8)[:, None, :]
    precision = np.linalg.inv(masked) if len(values) else masked
    given = np.einsum("nij,nj->ni", precision, off) / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    return alone, np.where(known, given, np.nan)
