"""A crystal as a HAADF image shows it: a pattern of columns with two periods, and the pattern's Fourier coefficients.

Atoms image incoherently: each counts with its cross section for scattering onto the detector, on its way out through
the rest of the crystal too, spread over its vibration and the range of the interaction, seen through the probe. That is
the twin's detector and probe (`simulate`). The twin's channelling needs a table of its own for each crystal and
direction, too much for a library. In its place a part of the probe is held by the column, the more the stronger the
column, until the column's own diffuse scattering has used it up; the rest spreads with depth as it would in vacuum.
How strong, how long and how much brighter are three numbers, fitted to the twin's images of half of its crystals
(bench/structures_model.py, which also says how the other half agrees).

Positions in angstrom, spatial frequencies in 1/angstrom, in the plane across the beam. The first axis is along the
first vector of the projected lattice.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..errors import OutOfRangeError
from ..simulate import scattering
from ..simulate.lattice_image import _PATHS as PATHS
from ..simulate.lattice_image import DELOCALISATION
from ..simulate.optics import Optics, transfer, wavelength
from .crystals import Structure

__all__ = ["HOLD", "IMAGE_MODEL", "Pattern", "Projection", "pattern", "project", "reduced"]

IMAGE_MODEL = 3
"""Of the numbers that this module makes: libraries of another one are made again. A test holds reference values."""

WEAKEST = 2e-3
"""Coefficients below this part of the strongest are left out."""

HOLD = 1.02, 0.296, 2.56
"""Of guided electrons: strength of a column at which it holds a large part of the probe [1], area over which a column
absorbs [angstrom^2], brightness of its atoms relative to those in a probe that spreads."""

_STRENGTH_AT = 0.5
"""Where the scattering factor counts for the strength of a column [1/angstrom]: about the size of a bound state."""

_DEPTHS = np.concatenate([[0.0], np.geomspace(8, 1000, 22)])
"""Depths at which the spreading probe is tabulated [angstrom]; below it is spread out."""


@dataclass(frozen=True, eq=False)
class Projection:
    """The columns of a crystal along a zone axis.

    Attributes
    ----------
    structure : Structure
    zone : (int, int, int)
        In the axes of the conventional cell.
    lattice : (2, 2) float array
        Rows: the projected lattice, reduced: the first is its shortest vector and lies along x [angstrom].
    positions : (n, 2) float array
        Of each atom of the primitive cell [angstrom].
    period : float
        Along the beam [angstrom].
    """

    structure: Structure
    zone: tuple[int, int, int]
    lattice: np.ndarray
    positions: np.ndarray
    period: float

    @property
    def area(self) -> float:
        """Of the projected cell [angstrom^2]."""
        return abs(float(np.linalg.det(self.lattice)))


@dataclass(frozen=True, eq=False)
class Pattern:
    """Fourier series of the collected fraction of a crystal, of unlimited extent, along a zone axis.

    image(r) = mean + 2 Re sum_j coefficients[j] exp(2 pi i frequencies[j] . r)

    Attributes
    ----------
    mean : float
        Collected fraction.
    frequencies : (m, 2) float32 array
        One of each pair g, -g [1/angstrom].
    coefficients : (m,) complex64 array
    """

    mean: float
    frequencies: np.ndarray
    coefficients: np.ndarray


def project(structure: Structure, zone: tuple[int, int, int]) -> Projection:
    """Look at a crystal along `zone`, in the axes of its conventional cell.

    Raises
    ------
    OutOfRangeError
        The direction is [000], or not of three whole numbers.
    """
    if len(zone) != 3 or not any(zone) or any(int(i) != i for i in zone):
        raise OutOfRangeError(f"zone axis {zone}: three whole numbers, not all zero, are needed")
    beam = np.array(zone, float) @ structure.conventional
    along = np.rint(beam @ np.linalg.inv(structure.lattice)).astype(int)
    along //= math.gcd(*along.tolist())
    unit = beam / np.linalg.norm(beam)
    # Two lattice vectors that make a basis with the one along the beam; their projections span the pattern's periods.
    flat = _complement(along) @ structure.lattice
    flat = reduced(flat - (flat @ unit)[:, None] * unit)
    x = flat[0] / np.linalg.norm(flat[0])
    frame = np.stack([x, np.cross(unit, x)])
    lattice = flat @ frame.T
    if np.linalg.det(lattice) < 0:
        lattice[1] *= -1
    positions = structure.sites @ structure.lattice @ frame.T
    positions = positions @ np.linalg.inv(lattice) % 1 @ lattice
    return Projection(
        structure, tuple(int(i) for i in zone), lattice, positions, float(np.linalg.norm(along @ structure.lattice))
    )


def _complement(along: np.ndarray) -> np.ndarray:
    """(2, 3) whole numbers that make, with the three given ones without common divisor, a matrix of determinant +-1."""
    # Column operations that bring `along` to (g, 0, 0), gathered; the rows of the inverse are the basis.
    basis, v = np.eye(3, dtype=int), along.copy()
    while np.count_nonzero(v) > 1:
        small = min((i for i in range(3) if v[i]), key=lambda i: abs(v[i]))
        for i in range(3):
            if i != small and v[i]:
                q = v[i] // v[small]
                v[i] -= q * v[small]
                basis[small] += q * basis[i]
    return np.delete(basis, int(np.flatnonzero(v)[0]), axis=0)


def reduced(vectors: np.ndarray) -> np.ndarray:
    """The shortest basis (2, n) of the same lattice, the shorter vector first, at 60 to 90 degrees (Gauss)."""
    a, b = vectors
    while True:
        if a @ a > b @ b:
            a, b = b, a
        share = float(a @ b / (a @ a))
        if abs(share) < 0.5 + 1e-6:  # not 0.5: rounding would move a rhombic cell to and fro for ever
            break
        b = b - round(share) * a
    return np.stack([a, -b if a @ b < 0 else b])


def pattern(
    projection: Projection, optics: Optics, inner: float, outer: float, thickness: float, tilt: tuple = (0.0, 0.0)
) -> Pattern:
    """What an annular detector collects of the probe over a crystal.

    Parameters
    ----------
    inner, outer : float
        Collection range [rad].
    thickness : float
        [angstrom]; a free-standing sheet has its own.
    tilt : (float, float)
        Of the columns against the beam, along x and y [rad]: they are smeared over its product with the thickness.

    Raises
    ------
    OutOfRangeError
        The collection range is empty, or the crystal has no thickness.
    """
    if not 0 <= inner < outer or thickness <= 0:
        raise OutOfRangeError(
            f"inner {inner:g}, outer {outer:g} rad, thickness {thickness:g} angstrom: nothing is seen"
        )
    structure = projection.structure
    if structure.layers:
        thickness = structure.layers * projection.period
    edge = 2 * optics.convergence_angle / (wavelength(optics.voltage) * 1e10)
    g = _half_plane(projection.lattice, edge)
    radius = np.hypot(*g.T)
    kinds = list(zip(structure.elements, structure.debye_waller.tolist(), strict=True))
    seen = _seen(projection, kinds, optics, inner, outer, thickness)
    total, mean = np.zeros(len(g), complex), 0.0
    for kind, position, (average, profile) in zip(kinds, projection.positions, seen, strict=True):
        variance = _variance(*kind, inner, outer, optics.voltage)
        shape = np.exp(-2 * math.pi**2 * variance * radius**2 - 2j * math.pi * (g @ position))
        total += np.interp(radius, np.linspace(0, edge, len(profile)), profile) * shape
        mean += average
    total *= np.sinc(g @ np.asarray(tilt, float) * thickness)
    if not len(total):
        return Pattern(mean, g.astype(np.float32), total.astype(np.complex64))
    keep = np.abs(total) > WEAKEST * np.abs(total).max()
    order = np.argsort(-np.abs(total[keep]), kind="stable")
    return Pattern(mean, g[keep][order].astype(np.float32), total[keep][order].astype(np.complex64))


def _half_plane(lattice: np.ndarray, edge: float) -> np.ndarray:
    """Reciprocal lattice vectors (m, 2) shorter than `edge`, one of each pair, without the origin."""
    reciprocal = np.linalg.inv(lattice).T
    h = [math.ceil(edge * np.linalg.norm(v)) for v in lattice]
    indices = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in h), indexing="ij"), -1).reshape(-1, 2)
    indices = indices[(indices[:, 0] > 0) | ((indices[:, 0] == 0) & (indices[:, 1] > 0))]
    g = indices @ reciprocal
    return g[np.hypot(*g.T) < edge]


def _variance(element: str, b: float, inner: float, outer: float, voltage: float) -> float:
    """Variance of an atom's source [angstrom^2]: its vibration, and the range of what scatters onto the detector."""
    atom, weights = scattering.atom(element, b, voltage), scattering.annulus(inner, outer, voltage)
    # Elastic scattering is counted as well: columns that interfere with themselves are part of channelling.
    shares = weights * (atom.diffuse + atom.elastic)
    inverse = float(np.sum(shares / np.maximum(scattering.G, 0.1) ** 2) / np.sum(shares))
    return b / (8 * math.pi**2) + DELOCALISATION**2 * inverse


@lru_cache(maxsize=64)
def _spreading(optics: Optics, nodes: int = 65) -> np.ndarray:
    """Transfer of a probe in vacuum at `_DEPTHS`, from the middle to the edge: (depths, nodes)."""
    if optics.astigmatism:
        raise OutOfRangeError("patterns are made for round probes: set the astigmatism to zero")
    k = np.linspace(0, 2 * optics.convergence_angle / wavelength(optics.voltage), nodes)
    at_depth = (replace(optics, defocus=optics.defocus - z * 1e-10) for z in _DEPTHS)
    return np.stack([transfer(o, k, np.zeros(nodes)).real for o in at_depth])


def _seen(
    projection: Projection, kinds: list, optics: Optics, inner: float, outer: float, thickness: float
) -> list[tuple[float, np.ndarray]]:
    """Of each atom and its repeats: mean collected fraction, and transfer of the probe times that on `_spreading`."""
    structure, voltage = projection.structure, optics.voltage
    table = {kind: scattering.atom(*kind, voltage) for kind in set(kinds)}
    loss = 0.0
    for kind, count in Counter(kinds).items():
        n = count / (projection.area * projection.period)
        loss = loss + n * (table[kind].total_q - table[kind].total)
    ring = scattering.annulus_q(inner, outer, optics.convergence_angle, voltage)
    out = np.exp(PATHS[:, None] * loss)
    section = {kind: (out * one.diffuse_q) @ ring for kind, one in table.items()}  # against the path that is left
    depth = (np.arange(24) + 0.5) / 24 * thickness
    spreading = _spreading(optics)
    k = np.minimum(np.searchsorted(_DEPTHS, depth), len(_DEPTHS) - 1)
    share = np.clip((depth - _DEPTHS[k - 1]) / (_DEPTHS[k] - _DEPTHS[k - 1]), 0, 1)[:, None]
    free = spreading[k - 1] * (1 - share) + spreading[k] * share
    strength, absorption = _columns(projection, kinds, table)
    critical, absorbing_area, brightness = HOLD
    held = 1 - np.exp(-((strength / critical) ** 2)) if not structure.layers else np.zeros(len(kinds))
    repeats, found = thickness / projection.period / projection.area, {}
    for key in {*zip(kinds, held.tolist(), absorption.tolist(), strict=True)}:
        kind, part, absorbing = key
        each = np.interp(thickness - depth, PATHS, section[kind]) * repeats / len(depth)
        guided = part * np.exp(-depth * absorbing / absorbing_area)
        mean = float(each @ (1 + (brightness - 1) * guided))
        found[key] = mean, brightness * (each @ guided) * spreading[0] + (each * (1 - guided)) @ free
    return [found[key] for key in zip(kinds, held.tolist(), absorption.tolist(), strict=True)]


def _columns(projection: Projection, kinds: list, table: dict) -> tuple[np.ndarray, np.ndarray]:
    """Strength [1] of the column of each atom, and its diffuse cross section per length [angstrom]."""
    fractions = projection.positions @ np.linalg.inv(projection.lattice)
    apart = fractions[:, None] - fractions
    apart = (apart - np.rint(apart)) @ projection.lattice
    together = (apart**2).sum(-1) < 0.4**2
    g = np.array([_STRENGTH_AT])
    factor = [float(scattering.scattering_factor(e, g)[0]) * math.exp(-b * _STRENGTH_AT**2 / 4) for e, b in kinds]
    diffuse = [table[kind].diffuse_total for kind in kinds]
    strength, absorption = (together @ np.array([factor, diffuse]).T / projection.period).T
    return np.round(strength, 6), np.round(absorption, 6)
