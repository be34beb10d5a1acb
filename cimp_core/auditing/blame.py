"""Which of the recorded settings is wrong, where one wrong value disturbs all that are compared with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..metadata import PARAMETERS
from .evidence import Gaussians, residuals
from .scoring import scores_from

__all__ = ["Case"]

_N = len(PARAMETERS)


@dataclass
class Case:
    """One image: what is predicted, what is recorded (normalised), and which settings are compared."""

    told: Gaussians
    values: np.ndarray  # (7,)
    known: np.ndarray  # (7,) bool
    logits: np.ndarray  # (2,)
    scale: np.ndarray
    threshold: float

    def residuals(self, known: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """``alone`` and ``given``, (7,) each, when only `known` are compared."""
        alone, given = residuals(self.told, self.values[None], self.known if known is None else known)
        return alone[0], given[0]

    def scores(self) -> np.ndarray:
        """All of them, (len(KINDS),)."""
        alone, given = self.residuals()
        return scores_from(alone[None], given[None], self.logits[None])[0] / self.scale

    def worst(self, known: np.ndarray) -> float:
        """Largest score of the settings when only `known` are compared."""
        alone, given = self.residuals(known)
        sizes = np.abs(np.concatenate([alone, given])) / self.scale[: 2 * _N]
        return float(np.nanmax(sizes, initial=0.0)) if known.any() else 0.0

    def blame(self) -> tuple[list[int], list[int]]:
        """Settings that disagree, and settings of which one must be wrong though not which.

        Left out is each time the setting without which the others agree best, until they agree. Where leaving out any
        one of several would do, none can be named.
        """
        known, blamed = self.known.copy(), []
        while self.worst(known) >= self.threshold:
            without = {j: self.worst(minus(known, j)) for j in np.flatnonzero(known)}
            enough = [int(j) for j, rest in without.items() if rest < self.threshold]
            if len(enough) > 1:
                return blamed, enough
            j = enough[0] if enough else int(min(without, key=without.get))
            blamed.append(j)
            known = minus(known, j)
        return blamed, []


def minus(known: np.ndarray, j: int) -> np.ndarray:
    """`known` without setting j."""
    out = known.copy()
    out[j] = False
    return out
