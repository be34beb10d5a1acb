"""How probable is each fitted candidate, and none of them?

Probabilities are those of a conditional logit: each candidate and "none of these" has a score linear in what the fit
says of it (`features`), and probabilities are the exponentials over their sum. The weights were fitted on simulated
queries, a part of them with the structure left out of the library (`cimp_core.study.structures_weights`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from .answers import Candidate
from .query import TERMS, Query

__all__ = ["CANDIDATE", "CONSTANTS", "constants", "features", "probabilities"]

CONSTANTS = Path(__file__).resolve().parents[1] / "data" / "structures.json"
CANDIDATE = 9
"""Numbers that `features` has of a candidate."""
LEAST_WRONG = 0.01
"""Share of the variance that no model of an image gets right."""
CHANCE = 30.0
"""Logarithm of the likelihood ratio to noise alone that a search through a library finds by chance, about."""


def features(query: Query, found: Sequence[Candidate], error: float) -> tuple[np.ndarray, np.ndarray]:
    """What fits say: (n, 9) numbers of each candidate, and (4,) of the query for "none of these".

    Of a candidate: logarithm of the share that it leaves unexplained, root of how much less probable the image is under
    it than under the best one, likeness of moduli, overlap of polar maps, the scale's departure in standard deviations
    of the pixel size, logarithm of the distortion, what its lattice could explain but its columns do not, what it
    explains, logarithm of how much more probable it makes the image than noise alone would. Of the query the last says
    whether the embedding was asked, which finds more that is alike. (The likeness itself, and the square of the
    departure, made left-out calibration queries no more probable.)
    """
    if not found:
        return np.zeros((0, CANDIDATE)), np.array([1.0, 0.0, 0.0, 0.0])
    ratio = max(query.noise, 1e-6) / (1 - query.noise)
    explained = np.array([c.fit.explained for c in found])
    # What speaks for one against another is noise in every pixel, and what no model has right in every coefficient.
    doubt = ratio / query.image.size + max(1 - float(explained.max()), LEAST_WRONG) / TERMS
    size = float(np.clip(ratio, 0.01, 30.0))
    rows = [
        np.log(np.maximum(1 - explained, 0) + LEAST_WRONG + 0.05 * ratio),
        -np.sqrt(np.minimum((explained.max() - explained) / doubt / 2, 100.0)),
        [c.fit.found for c in found],
        [c.overlap for c in found],
        [-min(abs(math.log(c.fit.scale)) / max(error, 2e-3), 4.0) for c in found],
        [-math.log(c.fit.bend + 0.01) for c in found],
        [min(max(c.fit.lattice - c.fit.explained, 0.0), 1.0) for c in found],
        np.clip(explained, 0, 1),
        np.minimum(np.log1p(np.maximum(explained, 0) / ratio * query.image.size / 2 / CHANCE), 4.0),
    ]
    asked = float(found[0].likeness is not None)
    return np.array(rows, float).T, np.array([1.0, math.log(size), max(math.log(size), 0.0), asked])


def probabilities(query: Query, found: Sequence[Candidate], error: float) -> tuple[np.ndarray, float]:
    """Of each candidate, and of none of them."""
    each, whole = features(query, found, error)
    weights = constants()
    scores = np.append(each @ weights["candidate"], whole @ weights["none"])
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    return chances[:-1], float(chances[-1])


@cache
def constants() -> dict[str, np.ndarray]:
    """Weights of `features` of a candidate, and of those of the query."""
    read = json.loads(CONSTANTS.read_text(encoding="utf-8"))
    return {name: np.array(read[name], float) for name in ("candidate", "none")}
