"""Prototype crystals and their orthogonal cells along a zone axis.

Lengths here are in angstrom, the unit in which crystal data are published; the rest of the package is SI.
Lattice parameters and internal coordinates are the common textbook values at room temperature
(Wyckoff, *Crystal Structures*, 2nd ed., 1963). The isotropic Debye-Waller factors B are rounded
room-temperature values of the usual compilations (Peng et al., Acta Cryst. A 52, 456 (1996) for elements;
Abramov et al., Acta Cryst. B 51, 942 (1995) for SrTiO3); they are good to 10 or 20 %.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..errors import OutOfRangeError

__all__ = ["CRYSTALS", "ZONE_AXES", "Cell", "Crystal", "zone_axis_cell"]

_FCC = ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))


def _centred(*species):
    """Face-centred sites of each (element, x, y, z)."""
    return tuple((e, *((np.array(p) + t) % 1)) for e, *p in species for t in _FCC)


@dataclass(frozen=True)
class Crystal:
    """A crystal structure: `lattice` (3, 3) rows [angstrom], `sites` (element, x, y, z) fractional,
    `debye_waller` {element: B [angstrom^2]}, `family` selects the zone axes that `ZONE_AXES` offers,
    `layered` the number of unit cells of a free-standing sheet (0: bulk)."""

    lattice: tuple
    sites: tuple
    debye_waller: dict
    family: str
    layered: int = 0


@dataclass(frozen=True, eq=False)
class Cell:
    """Orthogonal cell with the beam along its third axis.

    Attributes
    ----------
    size : (3,) float array
        Edge lengths [angstrom].
    elements : tuple of str
        Element of each of the n atoms.
    positions : (n, 3) float array
        Cartesian positions [angstrom], each in [0, size).
    debye_waller : (n,) float array
        Isotropic B [angstrom^2]; the mean square displacement along one axis is B / (8 pi^2).
    """

    size: np.ndarray
    elements: tuple[str, ...]
    positions: np.ndarray
    debye_waller: np.ndarray


def _cubic(a, sites, debye_waller, **extra):
    return Crystal(((a, 0, 0), (0, a, 0), (0, 0, a)), tuple(sites), debye_waller, "cubic", **extra)


def _hexagonal(a, c, sites, debye_waller, **extra):
    lattice = ((a, 0, 0), (-a / 2, a * 3**0.5 / 2, 0), (0, 0, c))
    return Crystal(lattice, tuple(sites), debye_waller, "hexagonal", **extra)


def _diamond(a, first, second, debye_waller):
    return _cubic(a, _centred((first, 0, 0, 0), (second, 0.25, 0.25, 0.25)), debye_waller)


def _rocksalt(a, first, second, debye_waller):
    return _cubic(a, _centred((first, 0, 0, 0), (second, 0.5, 0.5, 0.5)), debye_waller)


def _perovskite(a, large, small, debye_waller):
    oxygen = [("O", 0.5, 0.5, 0), ("O", 0.5, 0, 0.5), ("O", 0, 0.5, 0.5)]
    return _cubic(a, [(large, 0, 0, 0), (small, 0.5, 0.5, 0.5), *oxygen], debye_waller)


def _bcc(a, element, b):
    return _cubic(a, [(element, 0, 0, 0), (element, 0.5, 0.5, 0.5)], {element: b})


def _fcc(a, element, b):
    return _cubic(a, _centred((element, 0, 0, 0)), {element: b})


def _sheet(a, metal, chalcogen, half, debye_waller):
    sites = [(metal, 1 / 3, 2 / 3, 0.5), (chalcogen, 2 / 3, 1 / 3, 0.5 + half), (chalcogen, 2 / 3, 1 / 3, 0.5 - half)]
    return _hexagonal(a, 6.2, sites, debye_waller, layered=1)


_U_RUTILE, _U_WURTZITE = 0.305, 0.377
CRYSTALS: dict[str, Crystal] = {
    "Si": _diamond(5.431, "Si", "Si", {"Si": 0.46}),
    "Ge": _diamond(5.658, "Ge", "Ge", {"Ge": 0.57}),
    "GaAs": _diamond(5.653, "Ga", "As", {"Ga": 0.65, "As": 0.57}),
    "InP": _diamond(5.869, "In", "P", {"In": 0.80, "P": 0.60}),
    "CdTe": _diamond(6.482, "Cd", "Te", {"Cd": 1.60, "Te": 1.25}),
    "SrTiO3": _perovskite(3.905, "Sr", "Ti", {"Sr": 0.62, "Ti": 0.44, "O": 0.72}),
    "BaTiO3": _perovskite(4.00, "Ba", "Ti", {"Ba": 0.50, "Ti": 0.50, "O": 0.75}),
    "LaAlO3": _perovskite(3.79, "La", "Al", {"La": 0.40, "Al": 0.35, "O": 0.60}),
    "MgO": _rocksalt(4.212, "Mg", "O", {"Mg": 0.31, "O": 0.34}),
    "NaCl": _rocksalt(5.640, "Na", "Cl", {"Na": 1.70, "Cl": 1.40}),
    "NiO": _rocksalt(4.177, "Ni", "O", {"Ni": 0.35, "O": 0.45}),
    "CeO2": _cubic(
        5.411, _centred(("Ce", 0, 0, 0), ("O", 0.25, 0.25, 0.25), ("O", 0.75, 0.75, 0.75)), {"Ce": 0.30, "O": 0.55}
    ),
    "Au": _fcc(4.078, "Au", 0.60),
    "Pt": _fcc(3.924, "Pt", 0.32),
    "Ag": _fcc(4.086, "Ag", 0.72),
    "Pd": _fcc(3.891, "Pd", 0.44),
    "Cu": _fcc(3.615, "Cu", 0.54),
    "Al": _fcc(4.050, "Al", 0.80),
    "Ni": _fcc(3.524, "Ni", 0.36),
    "Fe": _bcc(2.866, "Fe", 0.33),
    "W": _bcc(3.165, "W", 0.16),
    "Ti": _hexagonal(2.951, 4.684, [("Ti", 1 / 3, 2 / 3, 0.25), ("Ti", 2 / 3, 1 / 3, 0.75)], {"Ti": 0.50}),
    "GaN": _hexagonal(
        3.189,
        5.185,
        [
            (e, x, y, z + dz)
            for e, dz in (("Ga", 0), ("N", _U_WURTZITE))
            for x, y, z in ((1 / 3, 2 / 3, 0), (2 / 3, 1 / 3, 0.5))
        ],
        {"Ga": 0.30, "N": 0.35},
    ),
    "TiO2": Crystal(
        ((4.594, 0, 0), (0, 4.594, 0), (0, 0, 2.959)),
        (("Ti", 0, 0, 0), ("Ti", 0.5, 0.5, 0.5))
        + tuple(
            ("O", x % 1, y % 1, z)
            for u in (_U_RUTILE,)
            for x, y, z in ((u, u, 0), (-u, -u, 0), (0.5 + u, 0.5 - u, 0.5), (0.5 - u, 0.5 + u, 0.5))
        ),
        {"Ti": 0.42, "O": 0.55},
        "tetragonal",
    ),
    "MoS2": _sheet(3.160, "Mo", "S", 1.56 / 6.2, {"Mo": 0.30, "S": 0.40}),
    "WSe2": _sheet(3.282, "W", "Se", 1.67 / 6.2, {"W": 0.25, "Se": 0.40}),
    "graphene": _hexagonal(2.460, 3.35, [("C", 1 / 3, 2 / 3, 0.5), ("C", 2 / 3, 1 / 3, 0.5)], {"C": 0.35}, layered=1),
}
"""The crystals, by the label that images of them carry."""

ZONE_AXES = {
    "cubic": {
        "001": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        "110": ((1, -1, 0), (0, 0, 1), (1, 1, 0)),
        "111": ((1, -1, 0), (1, 1, -2), (1, 1, 1)),
    },
    "hexagonal": {"001": ((1, 0, 0), (1, 2, 0), (0, 0, 1)), "100": ((0, 0, 1), (1, 2, 0), (1, 0, 0))},
    "tetragonal": {"001": ((1, 0, 0), (0, 1, 0), (0, 0, 1)), "100": ((0, 1, 0), (0, 0, 1), (1, 0, 0))},
}
"""Per family, the zone axes and the three mutually orthogonal lattice directions of their cells (beam last)."""


@cache
def zone_axis_cell(crystal: str, zone: str = "001") -> Cell:
    """Orthogonal cell of `crystal` with the beam along `zone`, the smallest that its directions span.

    Raises
    ------
    OutOfRangeError
        `crystal` or `zone` is not in the tables.
    """
    if crystal not in CRYSTALS:
        raise OutOfRangeError(f"no crystal {crystal!r}; there are {', '.join(CRYSTALS)}")
    prototype = CRYSTALS[crystal]
    axes = ZONE_AXES[prototype.family]
    if zone not in axes:
        raise OutOfRangeError(f"no zone axis {zone!r} for {crystal}; there are {', '.join(axes)}")
    lattice = np.array(prototype.lattice, float)
    vectors = np.array(axes[zone], float) @ lattice
    centred = {tuple(np.round(np.array(t) % 1, 6)) for t in _translations(prototype)}
    for i, v in enumerate(np.array(axes[zone], float)):  # a centred lattice repeats after half of some directions
        if tuple(np.round(v / 2 % 1, 6)) in centred - {(0.0, 0.0, 0.0)}:
            vectors[i] /= 2
    size = np.linalg.norm(vectors, axis=1)
    atoms: dict[tuple, tuple] = {}
    reach = range(-3, 4)
    for element, *fraction in prototype.sites:
        for shift in itertools.product(reach, reach, reach):
            cartesian = (np.array(fraction, float) + shift) @ lattice
            inside = cartesian @ vectors.T / size**2  # the new axes are orthogonal
            if np.all(inside > -1e-6) and np.all(inside < 1 - 1e-6):
                key = (element, *np.round(inside, 5) + 0.0)
                atoms.setdefault(key, (element, inside * size))
    ordered = sorted(
        atoms.values(), key=lambda atom: (round(atom[1][2], 4), round(atom[1][0], 4), round(atom[1][1], 4))
    )
    elements = tuple(e for e, _ in ordered)
    positions = np.clip(np.array([p for _, p in ordered]), 0, None)
    return Cell(size, elements, positions, np.array([prototype.debye_waller[e] for e in elements]))


def _translations(prototype: Crystal) -> list[tuple]:
    """Fractional translations that map the structure on itself (the centring of the lattice)."""
    sites = {(e, *np.round(np.array(p, float) % 1 % 0.99999999, 5)) for e, *p in prototype.sites}
    first = prototype.sites[0]
    found = []
    for element, *position in prototype.sites:
        shift = np.array(position, float) - np.array(first[1:], float)
        moved = {(e, *np.round((np.array(p, float) + shift) % 1 % 0.99999999, 5)) for e, *p in prototype.sites}
        if element == first[0] and moved == sites:
            found.append(tuple(shift))
    return found
