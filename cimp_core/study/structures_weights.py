"""The weights by which fits become probabilities, from outcomes of calibration queries (see `structures_match`)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from ..structures.probability import CANDIDATE

__all__ = ["chances", "fit_weights"]

EASE = 0.002
"""By which the square of the weights is made less; smaller ones make left-out calibration queries no more probable."""
SIGNS = [(None, 0), *[(0, None)] * 5, (None, None), *[(0, None)] * 2]
"""Bounds of a candidate's weights: what speaks for it may not count against it, or fits decide beyond what was seen.
Only what its lattice explains and its columns do not may do either."""


def chances(line: dict, weights: np.ndarray) -> np.ndarray:
    """Probabilities of the candidates and of none of them."""
    each = np.array(line["features"], float).reshape(-1, CANDIDATE)
    scores = np.append(each @ weights[:CANDIDATE], np.array(line["whole"]) @ weights[CANDIDATE:])
    scores = np.exp(scores - scores.max())
    return scores / scores.sum()


def fit_weights(lines: list[dict], ease: float = EASE) -> np.ndarray:
    """Weights that make the right answers most probable, within `SIGNS` and with a little ease."""
    number = CANDIDATE + len(lines[0]["whole"])
    most = 1 + max(len(line["features"]) for line in lines)
    seen, right = np.zeros((len(lines), most, number)), np.zeros((len(lines), most))
    there = np.zeros((len(lines), most), bool)
    for i, line in enumerate(lines):
        each = np.array(line["features"], float).reshape(-1, CANDIDATE)
        seen[i, : len(each), :CANDIDATE] = each
        seen[i, len(each), CANDIDATE:] = line["whole"]
        right[i, : len(each) + 1] = [*line["right"][: len(each)], not any(line["right"])]
        there[i, : len(each) + 1] = True

    def cost(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.where(there, seen @ weights, -np.inf)
        chance = np.exp(scores - scores.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        of_right = np.maximum((chance * right).sum(1, keepdims=True), 1e-9)
        slope = np.einsum("nk,nkf->f", chance * (1 - right / of_right), seen)
        return -float(np.log(of_right).sum()) + ease * float(weights @ weights), slope + 2 * ease * weights

    bounds = SIGNS + [(None, None)] * (number - len(SIGNS))
    return minimize(cost, np.zeros(number), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 2000}).x
