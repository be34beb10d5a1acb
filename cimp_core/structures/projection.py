"""A crystal as a HAADF image shows it: a pattern of columns with two periods, and the pattern's Fourier coefficients.

Atoms image incoherently: each counts with its cross section for scattering onto the detector, spread over its vibration
and the range of the interaction, seen through the probe. This is the twin's detector and probe (`simulate`) without its
channelling, which needs a table of its own for each crystal and direction: intensities of columns are therefore linear
in their atoms, and only the mean of the image follows the plural scattering of a thick crystal.

Positions in angstrom, spatial frequencies in 1/angstrom, in the plane across the beam. The first axis is along the
first vector of the projected lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import OutOfRangeError
from ..simulate import scattering
from ..simulate.lattice_image import DELOCALISATION
from ..simulate.optics import Optics, transfer, wavelength
from .crystals import Structure

__all__ = ["IMAGE_MODEL", "Pattern", "Projection", "pattern", "project"]

IMAGE_MODEL = 1
"""Of the numbers that this module makes: libraries of another one are made again. A test holds reference values."""

WEAKEST = 2e-3
"""Coefficients below this part of the strongest are left out."""


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
    flat = _reduced(flat - (flat @ unit)[:, None] * unit)
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


def _reduced(vectors: np.ndarray) -> np.ndarray:
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
    repeats, total, density = thickness / projection.period, np.zeros(len(g), complex), {}
    for element, b, position in zip(structure.elements, structure.debye_waller, projection.positions, strict=True):
        section, variance = _atom(element, float(b), inner, outer, optics.voltage)
        shape = np.exp(-2 * math.pi**2 * variance * (g**2).sum(1) - 2j * math.pi * (g @ position))
        total += section * repeats / projection.area * shape
        key = element, float(b)
        density[key] = density.get(key, 0.0) + repeats / projection.area
    mean = float(scattering.plural_fraction(density, inner, outer, optics.convergence_angle, optics.voltage))
    total *= transfer(optics, g[:, 0] * 1e10, g[:, 1] * 1e10) * np.sinc(g @ np.asarray(tilt, float) * thickness)
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


def _atom(element: str, b: float, inner: float, outer: float, voltage: float) -> tuple[float, float]:
    """Cross section onto the detector [angstrom^2] and variance of an atom's source [angstrom^2]."""
    atom, weights = scattering.atom(element, b, voltage), scattering.annulus(inner, outer, voltage)
    # Elastic scattering is counted as well: columns that interfere with themselves are part of channelling.
    shares = weights * (atom.diffuse + atom.elastic)
    inverse = float(np.sum(shares / np.maximum(scattering.G, 0.1) ** 2) / np.sum(shares))
    return float(np.sum(weights * atom.diffuse)), b / (8 * math.pi**2) + DELOCALISATION**2 * inverse
