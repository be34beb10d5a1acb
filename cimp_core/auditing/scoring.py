"""Scores of many images, from their samples: what calibration and studies have in common."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..metadata import PARAMETERS, Normalizer
from ..models.settings_reader import SettingsReader
from .calibration import Calibration
from .evidence import ABSOLUTE_ONLY, Gaussians, picture_scores, predict_settings, residuals
from .samples import Samples

__all__ = ["calibrate_on", "raw_scores", "raw_scores_of", "scores_from"]


def raw_scores(
    net: SettingsReader, samples: Samples, absolute: bool, normalizer: Normalizer
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of residuals and logits of the checks, (n, len(KINDS)), not yet scaled; distances (n,)."""
    told = predict_settings(net, samples.absolute if absolute else samples.relative)
    return raw_scores_of(net, told, normalizer.normalize(samples.settings), samples.statistics, absolute)


def raw_scores_of(
    net: SettingsReader, told: Gaussians, values: np.ndarray, statistics: np.ndarray, absolute: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The same of predictions and normalised recorded values (n, 7)."""
    used = np.array([absolute or name not in ABSOLUTE_ONLY for name in PARAMETERS])
    logits, distance = picture_scores(net, statistics)
    return scores_from(*residuals(told, values, used), logits), distance


def scores_from(alone: np.ndarray, given: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Residuals (n, 7) and logits (n, 2) as sizes from zero up, (n, len(KINDS)), in the order of `KINDS`."""
    # A logit has no zero of its own: softplus is above zero, and grows alike.
    return np.concatenate([np.abs(alone), np.abs(given), np.logaddexp(0, logits)], axis=1)


def calibrate_on(
    net: SettingsReader, samples: Mapping[int, Samples], scales: Mapping[tuple[int, bool], np.ndarray]
) -> dict[tuple[int, bool], Calibration]:
    """Calibration at every side, with and without intensity scale, from one image each of many sessions."""
    out = {}
    for side, absolute in scales:
        raw, distance = raw_scores(net, samples[side], absolute, net.config.normalizer)
        out[side, absolute] = Calibration(raw / scales[side, absolute], distance)
    return out
