"""Crystals that a micrograph may show: bundled prototypes, CIF files, chemical elements.

All come out alike: the conventional cell, in whose axes zone axes are named, and the primitive cell, of which images
are computed. Lengths in angstrom, as crystal data are published. Symmetry is spglib's; structures and the reader of CIF
files are pymatgen's (the AFLOW library of prototypes: Mehl et al., Comput. Mater. Sci. 136, S1 (2017)).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CimpError, OutOfRangeError, UnreadableFileError
from ..simulate.scattering import atomic_number

if TYPE_CHECKING:
    from pymatgen.core import Structure as PymatgenStructure

__all__ = ["Structure", "from_cif", "from_pymatgen", "mirrored", "period", "prototypes", "zone_axes"]

DEBYE_WALLER = 0.5
"""B of every atom [angstrom^2] where nothing is known of it: the middle of what crystals have at room temperature."""

SYMMETRY = 0.01
"""Distance within which atoms count as mapped on each other [angstrom]."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A crystal structure.

    Attributes
    ----------
    name : str
        Unlike that of any other structure of a library.
    formula : str
        Reduced chemical formula.
    prototype : str
        Structures of one prototype are the same but for elements and lengths.
    space_group : int
        Number in the International Tables.
    space_group_symbol : str
    conventional : (3, 3) float array
        Rows: lattice vectors in which zone axes are named [angstrom].
    lattice : (3, 3) float array
        Rows: primitive lattice vectors, in the same Cartesian frame [angstrom].
    elements : tuple of str
        Element of each of the n atoms of the primitive cell.
    sites : (n, 3) float array
        Their fractional coordinates.
    debye_waller : (n,) float array
        Isotropic B [angstrom^2].
    rotations : (r, 3, 3) int array
        The crystal class: each maps conventional indices [uvw], as columns, on equivalent ones.
    source : str
        Where it comes from, and what of it is a guess.
    layers : int
        Unit cells of a free-standing sheet, which is looked at along [001]; 0 for a bulk crystal.
    """

    name: str
    formula: str
    prototype: str
    space_group: int
    space_group_symbol: str
    conventional: np.ndarray
    lattice: np.ndarray
    elements: tuple[str, ...]
    sites: np.ndarray
    debye_waller: np.ndarray
    rotations: np.ndarray
    source: str
    layers: int = 0

    def __repr__(self) -> str:
        return f"<Structure {self.name}: {self.formula}, {self.space_group_symbol} ({self.space_group})>"

    @property
    def volume_per_atom(self) -> float:
        """[angstrom^3]"""
        return abs(float(np.linalg.det(self.lattice))) / len(self.elements)


def require_pymatgen() -> None:
    """Say in one line what to install where it is not."""
    if find_spec("pymatgen") is None or find_spec("spglib") is None:
        raise CimpError("crystals are made by pymatgen and spglib: pip install cimp-core[structures]")


def from_pymatgen(structure: PymatgenStructure, name: str, source: str, prototype: str | None = None) -> Structure:
    """A `Structure` of an ordered pymatgen structure.

    Raises
    ------
    OutOfRangeError
        A site is partly occupied, two atoms lie on one another, an element has no scattering factor, or spglib finds
        no symmetry.
    """
    require_pymatgen()
    import spglib

    if not structure.is_ordered:
        site = next(s for s in structure if not s.is_ordered)
        raise OutOfRangeError(
            f"{source}: the site {site.species_string} at {np.round(site.frac_coords, 3).tolist()} is shared or partly "
            "occupied; an image needs whole atoms: choose one occupation, or an ordered supercell, and save it as CIF"
        )
    elements = [site.specie.symbol for site in structure]  # without oxidation states
    for element in set(elements):
        try:
            atomic_number(element)
        except OutOfRangeError as error:
            raise OutOfRangeError(f"{source}: {error}") from None
    if len(structure) > 1 and (near := structure.distance_matrix[np.triu_indices(len(structure), 1)].min()) < 0.5:
        raise OutOfRangeError(f"{source}: two atoms are {near:.2f} angstrom apart; mend the file")
    kinds = sorted(set(elements))
    cell = (structure.lattice.matrix, structure.frac_coords, [kinds.index(e) for e in elements])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib announces its next release
        # Not idealised: an idealised cell is turned, and conventional and primitive one would no longer fit together.
        primitive = spglib.standardize_cell(cell, to_primitive=True, no_idealize=True, symprec=SYMMETRY)
        symmetry = primitive and spglib.get_symmetry_dataset(primitive, symprec=SYMMETRY)
        if symmetry is None:
            raise OutOfRangeError(f"{source}: spglib finds no symmetry within {SYMMETRY} angstrom")
        conventional = spglib.standardize_cell(primitive, to_primitive=False, no_idealize=True, symprec=SYMMETRY)
    lattice, sites, numbers = primitive
    change = np.linalg.inv(lattice.T) @ conventional[0].T  # from conventional indices to primitive ones
    rotations = np.rint(np.linalg.inv(change) @ symmetry.rotations @ change).astype(int)
    formula = structure.composition.reduced_formula
    return Structure(
        name=name,
        formula=formula,
        prototype=prototype or name,
        space_group=int(symmetry.number),
        space_group_symbol=str(symmetry.international),
        conventional=np.array(conventional[0], float),
        lattice=np.array(lattice, float),
        elements=tuple(kinds[i] for i in numbers),
        sites=np.array(sites, float) % 1,
        debye_waller=np.full(len(numbers), DEBYE_WALLER),
        rotations=np.unique(rotations, axis=0),
        source=source,
    )


def from_cif(path: str | Path) -> list[Structure]:
    """The structures of a CIF file, named after it.

    Raises
    ------
    UnreadableFileError
        It is no CIF file, or its structure cannot be made from it.
    OutOfRangeError
        As of `from_pymatgen`.
    """
    require_pymatgen()
    from pymatgen.io.cif import CifParser

    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rounded coordinates
            found = CifParser(path).parse_structures(primitive=False, on_error="raise")
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: there is no such file") from None
    except Exception as error:  # the parser raises whatever it stumbles over
        raise UnreadableFileError(f"{path}: no crystal structure can be read from it ({error})") from error
    names = [path.stem if len(found) == 1 else f"{path.stem}#{i + 1}" for i in range(len(found))]
    return [from_pymatgen(s, name, str(path)) for s, name in zip(found, names, strict=True)]


def aflow_name(tags: dict) -> str:
    """Label of a prototype with the mineral and the Strukturbericht's symbol that it goes by."""
    others = [tags[key] for key in ("mineral", "strukturbericht") if tags.get(key) not in (None, "None")]
    return f"AFLOW {tags['aflow']}" + (f" ({', '.join(others)})" if others else "")


@cache
def prototypes(most_sites: int = 40) -> tuple[Structure, ...]:
    """The ordered structures of the AFLOW library of prototypes with at most `most_sites` in the primitive cell."""
    require_pymatgen()
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    found: dict[str, Structure] = {}
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        one = prototype(entry)
        if one is not None and len(one.elements) <= most_sites:
            found.setdefault(one.name, one)
    return tuple(found.values())


def prototype(entry: dict) -> Structure | None:
    """One of pymatgen's; None where sites are shared, or an element has no scattering factor."""
    structure, label = entry["snl"].structure, entry["tags"]["aflow"]
    if not structure.is_ordered:
        return None
    try:
        return from_pymatgen(structure, label, aflow_name(entry["tags"]), label)
    except CimpError:
        return None


def zone_axes(structure: Structure, highest: int = 2, both_sides: bool = False) -> list[tuple[int, int, int]]:
    """Directions [uvw] up to an index, one of each set that the crystal's class makes equal.

    In the axes of the conventional cell, those with the shortest period along the beam first.

    Parameters
    ----------
    highest : int
        Largest absolute value of an index.
    both_sides : bool
        The view from below is the mirror image of that from above. Where no symmetry makes the two equal, the
        opposite direction is listed as well, after the first.
    """
    if highest < 1:
        raise OutOfRangeError(f"highest index {highest}: a zone axis needs at least 1")
    if structure.layers:
        return [(0, 0, 1)]
    reach = range(-highest, highest + 1)
    every = [v for v in ((u, w, t) for u in reach for w in reach for t in reach) if math.gcd(*v) == 1]
    classes: dict[tuple[int, int, int], None] = {}
    for direction in every:
        images = structure.rotations @ np.array(direction)
        alike = [tuple(map(int, v)) for v in np.concatenate([images, -images])]
        # Named as people do: small indices, few of them negative, the largest first.
        classes[min(alike, key=lambda v: (max(map(abs, v)), sum(i < 0 for i in v), [-i for i in v]))] = None
    found = sorted(classes, key=lambda v: (period(structure, v), [-i for i in v]))
    if not both_sides:
        return found
    return [side for v in found for side in ([v] if mirrored(structure, v) else [v, tuple(-i for i in v)])]


def mirrored(structure: Structure, zone: tuple[int, int, int]) -> bool:
    """Whether the image along a zone axis is, but for a turn and a shift, its own mirror image."""
    images = structure.rotations @ np.array(zone)
    # Of a symmetry that keeps the direction or turns it round, what it does across the beam is a turn or a mirror.
    signs = (images == zone).all(1).astype(int) - (images == np.negative(zone)).all(1)
    return bool(np.any(np.rint(np.linalg.det(structure.rotations)) * signs < 0))


def period(structure: Structure, zone: Iterable[int]) -> float:
    """Shortest lattice vector along a direction [angstrom]."""
    vector = np.array(list(zone), float) @ structure.conventional
    indices = np.rint(vector @ np.linalg.inv(structure.lattice)).astype(int)
    return float(np.linalg.norm(vector)) / math.gcd(*indices.tolist())
