"""Many crystals from few prototypes: other elements on the same sites, and a division in which unseen means unseen.

An element is replaced by one of its own sort, metal by metal and nonmetal by nonmetal, and the cell grows with the
atomic radii. What is left of the cell's freedom, c/a of a tetragonal crystal for one, varies by a few per cent, as it
does among real crystals of one prototype. Atoms keep their fractional coordinates.

Prototypes are divided by their AFLOW label, never crystals: all decorations of a prototype fall in one part.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from ..errors import OutOfRangeError
from .crystals import Structure

__all__ = ["METALS", "NONMETALS", "PARTS", "allowed_strain", "decorate", "decorations", "split_prototypes"]

METALS = (
    "Li", "Be", "Na", "Mg", "Al", "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga",
    "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Cs", "Ba", "La", "Ce", "Nd",
    "Sm", "Gd", "Hf", "Ta", "W", "Re", "Ir", "Pt", "Au", "Tl", "Pb", "Bi",
)  # fmt: skip
NONMETALS = (
    "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Ge", "As", "Se", "Br", "Sb", "Te", "I",
)  # fmt: skip

PARTS = {"test": 96, "val": 24}
"""Prototypes that are never trained on; up to seven crystals of each of the first come near the 672 of the thesis."""

VOLUMES = 6.0, 60.0
"""Volumes per atom [angstrom^3] beyond which a drawn crystal is drawn again: hardly any real one has them."""


def split_prototypes(structures: Sequence[Structure], seed: int = 0) -> dict[str, list[Structure]]:
    """Divide structures by prototype label: as many prototypes as `PARTS` says are held out, the others are "train".

    Raises
    ------
    OutOfRangeError
        There are too few prototypes.
    """
    labels = sorted({s.prototype for s in structures})
    if len(labels) <= sum(PARTS.values()):
        raise OutOfRangeError(
            f"{len(labels)} prototypes: more than {sum(PARTS.values())} are needed, which are held out"
        )
    order, parts, first = np.random.default_rng((seed, 96)).permutation(len(labels)), {}, 0
    for name, count in (*PARTS.items(), ("train", len(labels))):
        chosen = {labels[i] for i in order[first : first + count]}
        parts[name] = [s for s in structures if s.prototype in chosen]
        first += count
    return parts


def decorations(prototype: Structure, count: int, seed: int = 0, spread: float = 0.02) -> list[Structure]:
    """The prototype itself and crystals of it with other elements, `count` in all or as many as there are.

    They are the same for the same seed.

    Parameters
    ----------
    spread : float
        Standard deviation of the strain, of each component before symmetry takes its part.
    """
    kinds = sorted(set(prototype.elements))
    found, taken = [prototype], {tuple(kinds)}
    # Not Python's hash, which differs from run to run.
    rng = np.random.default_rng((seed, zlib.crc32(prototype.name.encode())))
    for _ in range(100 * count):
        if len(found) == count:
            break
        new = tuple(str(rng.choice(METALS if kind in METALS else NONMETALS)) for kind in kinds)
        strain = rng.normal(0, spread, (3, 3))
        if new in taken or len(set(new)) < len(new):  # two sites of one element would be another prototype
            continue
        taken.add(new)
        made = decorate(prototype, dict(zip(kinds, new, strict=True)), (strain + strain.T) / 2)
        if VOLUMES[0] < made.volume_per_atom < VOLUMES[1]:
            found.append(made)
    return found


def decorate(prototype: Structure, elements: dict[str, str], strain: np.ndarray | None = None) -> Structure:
    """A crystal of the same prototype with each element replaced, in a cell of fitting size.

    Lengths are multiplied by the ratio of the sums of the empirical atomic radii (J. C. Slater, J. Chem. Phys. 41, 3199
    (1964), as pymatgen has them).

    Parameters
    ----------
    elements : dict of str to str
        Old to new.
    strain : (3, 3) float array, optional
        Of the cell, Cartesian; what the crystal's symmetry does not allow of it is left out.
    """
    from pymatgen.core import Composition

    new = tuple(elements[e] for e in prototype.elements)
    grown = np.eye(3) * sum(map(_radius, new)) / sum(map(_radius, prototype.elements))
    if strain is not None:
        grown = grown @ (np.eye(3) + allowed_strain(prototype, strain))
    formula = Composition({e: new.count(e) for e in new}).reduced_formula
    return dataclasses.replace(
        prototype,
        name=f"{prototype.name}/{formula}",
        formula=formula,
        conventional=prototype.conventional @ grown,
        lattice=prototype.lattice @ grown,
        elements=new,
        source=f"{prototype.source} with {', '.join(f'{b} for {a}' for a, b in elements.items() if a != b)}",
    )


def _radius(element: str) -> float:
    """[angstrom]; of the transuranium elements, which have none, that of their neighbours."""
    from pymatgen.core import Element

    return float(Element(element).atomic_radius or 1.75)


def allowed_strain(structure: Structure, strain: np.ndarray) -> np.ndarray:
    """The part of a symmetric (3, 3) Cartesian strain that keeps the crystal's symmetry: its mean over the class."""
    cell = structure.conventional
    # Indices turn as columns, u' = W u; a vector is u @ cell.
    turns = np.linalg.inv(cell) @ np.transpose(structure.rotations, (0, 2, 1)) @ cell
    return np.mean(np.transpose(turns, (0, 2, 1)) @ strain @ turns, 0)
