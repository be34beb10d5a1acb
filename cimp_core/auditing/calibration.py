"""Split conformal calibration: how often an image whose settings are right scores as high as this one.

Scores of one image each of n sessions that nothing was fitted to are kept. For a new image of the same kind, whose
settings are right, the rank of its score among them is uniform, whatever the network is worth: the p-value
(1 + number of scores at least as high) / (n + 1) is at most p with a probability of at most p (Vovk, Gammerman and
Shafer, Algorithmic Learning in a Random World, 2005). Images of one session share specimen and habits, so sessions, not
images, are what is exchanged, and one image is drawn of each. The smallest p-value is 1 / (n + 1).

For the verdict on a whole image the largest of its scores is calibrated, which keeps the rate of false alarms over all
seven settings and the checks together (Westfall and Young's maximum), however they depend on one another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from ..errors import SchemaError, UnreadableFileError
from ..metadata import PARAMETERS
from .evidence import KINDS

__all__ = ["Calibration", "Calibrations", "load_calibrations", "p_value", "save_calibrations", "setting_scores"]

_N = len(PARAMETERS)
FORMAT = "cimp-audit-calibration-1"


def p_value(score: np.ndarray | float, reference: np.ndarray) -> np.ndarray:
    """Conformal p-value of scores among reference scores (n,), ``nan`` of which are left out; ``nan`` stays ``nan``."""
    known = np.sort(reference[np.isfinite(reference)])
    score = np.asarray(score, float)
    above = len(known) - np.searchsorted(known, score, side="left")
    return np.where(np.isnan(score), np.nan, (1 + above) / (len(known) + 1))


def setting_scores(scores: np.ndarray) -> np.ndarray:
    """Score (n, 7) of each setting, the larger of ``alone`` and ``given``, from scores (n, len(KINDS))."""
    return np.fmax(scores[:, :_N], scores[:, _N : 2 * _N])


@dataclass(frozen=True)
class Calibration:
    """Scores of n sessions, one image each, of one side and with or without intensity scale.

    Parameters
    ----------
    scores : (n, len(KINDS)) array
        Already divided by their scales; ``nan`` where a value was missing.
    distance : (n,) array
        How far the pictures lie from the training images.
    """

    scores: np.ndarray
    distance: np.ndarray

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        return len(self.scores)

    @cached_property
    def overall(self) -> np.ndarray:
        """Largest score of each image, (n,)."""
        return np.nan_to_num(self.scores, nan=0.0).max(axis=1, initial=0.0)

    @property
    def smallest_p(self) -> float:
        """No p-value can be smaller."""
        return 1 / (self.sessions + 1)

    def threshold(self, level: float) -> float:
        """Overall score from which on p is at most `level`; infinite where there are too few sessions for that."""
        allowed = math.floor(level * (self.sessions + 1) + 1e-9) - 1  # reference scores that may be as high
        if allowed < 0:
            return math.inf
        ordered = np.sort(self.overall)[::-1]
        return float(np.nextafter(ordered[allowed], math.inf)) if allowed < len(ordered) else -math.inf

    def unlike(self, distance: float) -> bool:
        """Whether a picture lies further off than every one of the sessions'."""
        return bool(distance > self.distance.max()) if self.sessions else True

    @cached_property
    def half_widths(self) -> np.ndarray:
        """Within which 95 % of the scores lie, (len(KINDS),); infinite where there are too few sessions to say."""
        out = np.full(self.scores.shape[1], math.inf)
        for k, column in enumerate(self.scores.T):
            known = np.sort(column[np.isfinite(column)])
            place = math.ceil(0.95 * (len(known) + 1) - 1e-9) - 1
            if place < len(known):
                out[k] = known[place]
        return out

    @cached_property
    def of_settings(self) -> np.ndarray:
        """`setting_scores` of the sessions, (n, 7)."""
        return setting_scores(self.scores)


@dataclass(frozen=True)
class Calibrations:
    """A calibration for each side [px] and for images with and without intensity scale.

    Parameters
    ----------
    parts : mapping of (int, bool) to Calibration
    scales : mapping of (int, bool) to (len(KINDS),) array
        What residuals are divided by to be scores.
    about : mapping
        Where the scores come from: ``source`` ("twin", or the name of a data set), ``sessions``, and what the record
        of the twin's has, such as ``twin_version`` and ``command``.
    """

    parts: Mapping[tuple[int, bool], Calibration]
    scales: Mapping[tuple[int, bool], np.ndarray]
    about: Mapping[str, Any] = field(default_factory=dict)

    def key(self, side: int, absolute: bool) -> tuple[int, bool] | None:
        """Of the largest side that an image has; ``None`` if it is smaller than all."""
        fitting = [s for s, _ in self.scales if s <= side]
        return (max(fitting), absolute) if fitting else None

    @property
    def of_twin(self) -> bool:
        """Whether it is that of simulated images."""
        return self.about.get("source") == "twin"


def save_calibrations(path: Path, calibrations: Calibrations) -> None:
    """Write as safetensors, scores in half precision."""
    tensors = {}
    for (side, absolute), part in calibrations.parts.items():
        name = f"{side}.{'absolute' if absolute else 'relative'}"
        tensors[name] = np.column_stack([part.scores, part.distance]).astype(np.float16)
    scales = {name: [float(v) for v in calibrations.scales[_key(name)]] for name in tensors}
    header = {"format": FORMAT, "kinds": list(KINDS), "scales": scales, "about": dict(calibrations.about)}
    path.write_bytes(to_bytes(tensors, {"cimp": json.dumps(header, sort_keys=True)}))


def load_calibrations(path: Path) -> Calibrations:
    """Read what `save_calibrations` wrote.

    Raises
    ------
    UnreadableFileError, SchemaError
        The file is damaged, or not of this version.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("cimp", "{}"))
            tensors = {key: file.get_tensor(key).astype(float) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise UnreadableFileError(f"{path}: not a readable calibration ({error})") from error
    if header.get("format") != FORMAT or header.get("kinds") != list(KINDS):
        raise SchemaError(f"{path}: not a calibration of this version; make it again")
    parts = {_key(name): Calibration(values[:, :-1], values[:, -1]) for name, values in tensors.items()}
    scales = {_key(name): np.array(values) for name, values in header["scales"].items()}
    return Calibrations(parts, scales, header["about"])


def _key(name: str) -> tuple[int, bool]:
    side, _, kind = name.partition(".")
    return int(side), kind == "absolute"


def sessions_needed(level: float) -> int:
    """Least number of sessions with which a p-value can be as small as `level`."""
    return max(1, math.ceil(1 / level - 1e-9) - 1)


def one_image_each(sessions: Sequence, seed: int = 0) -> np.ndarray:
    """Positions of one image of each session, drawn at random, in ascending order."""
    sessions = np.asarray(sessions)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    _, which = np.unique(sessions, return_inverse=True)
    order = rng.permutation(len(sessions))
    _, first = np.unique(which[order], return_index=True)
    return np.sort(order[first])
