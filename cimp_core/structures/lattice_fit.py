"""The lattice on which the peaks of a spectrum lie, from all of them at once: finer than any one of them is known.

Each pair of periods that peaks and their differences tell is tried; the coarsest that explains nearly all is settled by
least squares, and divided where peaks are left over that a finer one explains.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .lattice_peaks import Peaks
from .projection import reduced

__all__ = ["Lattice", "find_lattice"]

STRONG, TRIED, PERIODS = 14, 32, 40
"""Peaks whose differences are candidates for a period; peaks that a lattice is tried on; periods that are tried."""
SHORTEST = 1.5
"""Period, and distance from the line of a row, below which peaks run together [places]."""
NEAR = 0.1, 0.03
"""How far from a lattice point a peak may lie before the lattice is settled [places]: so far, and for each period on
the way there."""
ALIKE, GAIN, ENOUGH = 0.96, 0.03, 0.97
"""Share of the best explanation that is as good; share of all by which a finer lattice must explain more; share above
which none is looked for."""
FINER = ((0.5, 0), (0, 0.5), (0.5, 0.5), (1 / 3, 0), (0, 1 / 3), (1 / 3, 1 / 3), (1 / 3, -1 / 3))
"""Points that make a lattice twice and three times as dense: all ways to do so."""


class Lattice(NamedTuple):
    """Periods of a spectrum."""

    basis: np.ndarray  # (2, 2): rows are periods along rows and columns [places]
    indices: np.ndarray  # (n, 2) int of each peak
    member: np.ndarray  # (n,) bool: whether the peak lies on the lattice


def find_lattice(peaks: Peaks) -> Lattice | None:
    """The lattice of peaks; None where there are no peaks.

    Peaks of one line, or one peak, have a row: its other period is longer than the spectrum, so that no second index
    but 0 is ever seen.
    """
    weight = np.log(peaks.power)
    guess = _guessed(peaks, weight)
    found = None if guess is None else _settled(peaks, guess)
    if found is None:
        return None
    share = _explained(peaks, weight, *found)
    while share < ENOUGH:
        finer = [_settled(peaks, _with(found[0], point)) for point in FINER]
        shares = [0.0 if one is None else _explained(peaks, weight, *one) for one in finer]
        best = int(np.argmax(shares))
        if shares[best] < share + GAIN:
            break
        found, share = finer[best], shares[best]
    indices, member, _ = _members(peaks, *found)
    return Lattice(found[0], indices.astype(int), member)


def _guessed(peaks: Peaks, weight: np.ndarray) -> np.ndarray | None:
    """Periods (2, 2) that explain nearly as much as the best do, and are as long as can be."""
    if not len(weight):
        return None
    periods = _periods(peaks.place[:STRONG])
    i, j = np.triu_indices(len(periods), 1)
    a, b = periods[i], periods[j]
    area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    # Reduced, and no nearly parallel ones: two peaks of one row do not span a lattice.
    plane = (np.abs((a * b).sum(1)) < 0.6 * (a * a).sum(1)) & (area > SHORTEST * np.hypot(*b.T))
    basis = np.stack([a[plane], b[plane]], 1)
    if not len(basis):
        across = np.stack([-periods[:, 1], periods[:, 0]], 1)
        basis = np.stack([periods, across * (1e4 / np.hypot(*periods.T))[:, None]], 1)
    at = np.einsum("ni,pij->pnj", peaks.place[:TRIED], np.linalg.inv(basis))
    whole = np.rint(at)
    off = np.einsum("pnj,pji->pni", at - whole, basis)
    reach = NEAR[0] + NEAR[1] * np.abs(whole).sum(-1)
    score = (((off**2).sum(-1) < reach**2) - _chance(reach, basis)) @ weight[:TRIED]
    good = np.flatnonzero(score > ALIKE * score.max())
    return basis[good[np.abs(np.linalg.det(basis[good])).argmax()]]


def _periods(strong: np.ndarray) -> np.ndarray:
    """Candidates for a period (n, 2), short ones first: peaks, their differences and sums."""
    i, j = np.triu_indices(len(strong), 1)
    v = np.concatenate([strong, strong[i] - strong[j], strong[i] + strong[j]])
    v = v[np.hypot(*v.T) > SHORTEST]
    v[(v[:, 1] < 0) | ((v[:, 1] == 0) & (v[:, 0] < 0))] *= -1
    # Of those that tell the same period, the first is that of the strongest peaks.
    near = ((v[:, None] - v) ** 2).sum(-1) < 0.7**2
    v = v[~np.tril(near, -1).any(1)]
    return v[np.argsort(np.hypot(*v.T), kind="stable")][:PERIODS]


def _chance(reach: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Probability that a place lies so near to a point of a lattice (..., 2, 2) by chance; reach (..., n)."""
    return np.minimum(np.pi * reach**2 / np.abs(np.linalg.det(basis))[..., None], 1)


def _settled(peaks: Peaks, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Basis and the covariance of its rows, by least squares over its members; None where they span no lattice."""
    covariance = None
    for _ in range(5):
        indices, member, _ = _members(peaks, basis, covariance)
        h, weight = indices[member], 1 / peaks.error[member] ** 2
        if not len(h):
            return None
        normal = np.einsum("n,ni,nj->ij", weight, h, h)
        # A period that no member has is left as it is.
        covariance = np.linalg.inv(normal + 1e-6 * np.trace(normal) * np.eye(2))
        basis = basis + covariance @ np.einsum("n,ni,nj->ij", weight, h, peaks.place[member] - h @ basis)
    return basis, covariance


def _members(peaks: Peaks, basis: np.ndarray, covariance: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Indices (n, 2) of peaks, whether they lie on the lattice, and how far from it they may [places]."""
    h = np.rint(peaks.place @ np.linalg.inv(basis))
    if covariance is None:
        reach = NEAR[0] + NEAR[1] * np.abs(h).sum(1)
    else:
        reach = 0.02 + 3.5 * np.sqrt(peaks.error**2 + np.einsum("ni,ij,nj->n", h, covariance, h))
    off = np.hypot(*(peaks.place - h @ basis).T)
    return h, (off < reach) & (h != 0).any(1), reach


def _explained(peaks: Peaks, weight: np.ndarray, basis: np.ndarray, covariance: np.ndarray) -> float:
    """Share of the peaks that lie on a lattice, beyond those that do so by chance."""
    _, member, reach = _members(peaks, basis, covariance)
    return float((member - _chance(reach, basis)) @ weight / weight.sum())


def _with(basis: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """The lattice that also has a point, in parts of the periods of which one is half or a third."""
    new = np.array(point) @ basis
    return reduced(np.stack([new, basis[1]] if point[0] else [basis[0], new]))
