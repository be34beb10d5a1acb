"""From what a user names to crystal structures: prototypes, crystals, CIF files, a formula, a system of elements."""

from __future__ import annotations

import glob
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CimpError, OutOfRangeError
from ..simulate.structures import CRYSTALS
from .crystals import Structure, aflow_name, from_cif, from_pymatgen, prototype, prototypes, require_pymatgen

if TYPE_CHECKING:
    from pymatgen.core import Structure as PymatgenStructure

__all__ = ["LENGTH_ERROR", "crystal", "decorate", "find_structures"]

LENGTH_ERROR = 0.07
"""Largest error seen of the lengths of decorated prototypes, in a check of nine common crystals: they are a guess."""


def find_structures(sources: Any) -> list[Structure]:
    """The structures that `sources` name.

    Parameters
    ----------
    sources : one or many of these
        "prototypes" (the AFLOW library of prototypes), "crystals" (those of the twin), the name of one of either
        ("AB_cF8_225_a_b", "SrTiO3"); a CIF file, a folder or a pattern of them; elements ("Sr-Ti-O") or a formula
        ("SrHfO3"), with which every prototype of as many species, and for a formula of that stoichiometry, is
        decorated; a pymatgen structure, or a `Structure`.

    Raises
    ------
    OutOfRangeError
        A name is none of these.
    UnreadableFileError, OutOfRangeError
        As of `from_cif`.
    """
    alone = isinstance(sources, (str, os.PathLike, Structure)) or hasattr(sources, "lattice")
    found = [s for source in ([sources] if alone else sources) for s in _found(source)]
    if not found:
        raise OutOfRangeError(f"no structure in {sources!r}: name prototypes, CIF files, a formula or elements")
    seen: Counter = Counter()
    for i, one in enumerate(found):
        seen[one.name] += 1
        if seen[one.name] > 1:
            found[i] = _renamed(one, f"{one.name}#{seen[one.name]}")
    return found


def _renamed(structure: Structure, name: str) -> Structure:
    return Structure(**{**vars(structure), "name": name})


def _found(source: Any) -> Iterable[Structure]:
    if isinstance(source, Structure):
        return [source]
    if hasattr(source, "frac_coords"):
        return [from_pymatgen(source, source.composition.reduced_formula, "given")]
    name = os.fspath(source)
    if name == "prototypes":
        return prototypes()
    if name == "crystals":
        return [crystal(each) for each in CRYSTALS]
    if name in CRYSTALS:
        return [crystal(name)]
    if os.path.isdir(name):
        name = os.path.join(name, "**", "*.cif")
    if glob.has_magic(name):
        paths = sorted(glob.glob(name, recursive=True))
        if not paths:
            raise OutOfRangeError(f"{name}: there is no such file")
        return [s for path in paths for s in from_cif(path)]
    if Path(name).suffix.lower() == ".cif" or os.path.exists(name):
        return from_cif(name)
    require_pymatgen()
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    named = (prototype(entry) for entry in AFLOW_PROTOTYPE_LIBRARY if entry["tags"]["aflow"] == name)
    one = next((one for one in named if one is not None), None)
    return _of_elements(name) if one is None else [one]


def crystal(name: str) -> Structure:
    """One of the crystals that the twin is made of, with its Debye-Waller factors."""
    require_pymatgen()
    from pymatgen.core import Structure as PymatgenStructure

    known = CRYSTALS[name]
    elements = [site[0] for site in known.sites]
    made = PymatgenStructure(known.lattice, elements, [site[1:] for site in known.sites])
    one = from_pymatgen(made, name, "crystals of the twin")
    factors = np.array([known.debye_waller[e] for e in one.elements])
    return Structure(**{**vars(one), "debye_waller": factors, "layers": known.layered})


def _of_elements(name: str) -> list[Structure]:
    from pymatgen.core import Composition, Element

    parts = name.split("-")
    if all(Element.is_valid_symbol(part) for part in parts) and len(set(parts)) == len(parts):
        return decorate(parts)
    try:
        formula = Composition(name)
    except ValueError:
        formula = None
    if not formula or not all(e.symbol in name and Element.is_valid_symbol(e.symbol) for e in formula.elements):
        raise OutOfRangeError(
            f"{name}: no prototype, crystal, file, formula ('SrHfO3') or elements ('Sr-Ti-O') of that name; "
            f"crystals are {', '.join(CRYSTALS)}"
        )
    return decorate([e.symbol for e in formula.elements], formula.reduced_formula)


def decorate(elements: list[str], formula: str | None = None, most_sites: int = 40) -> list[Structure]:
    """The prototypes with as many species, each with the given elements in every order that makes a difference.

    Cells are scaled to the volume at which the shortest bonds have the lengths known of their elements (pymatgen's
    `DLSVolumePredictor`). That is a guess: of nine common crystals lengths came out within `LENGTH_ERROR`.

    Parameters
    ----------
    formula : str, optional
        Reduced formula; others are left out.
    most_sites : int
        Of the primitive cell.

    Raises
    ------
    OutOfRangeError
        No prototype fits.
    """
    found = []
    for label, name, plain in _ordered_prototypes(len(elements)):
        species, seen = plain.elements, set()
        for order in itertools.permutations(elements):
            made = plain.copy()
            made.replace_species(dict(zip(species, order, strict=True)))
            if formula and made.composition.reduced_formula != formula:
                continue
            key = _key(made)
            if key in seen:
                continue
            seen.add(key)
            source = f"{name} decorated with {'-'.join(order)}; its lengths are a guess"
            try:
                made = made.copy()
                made.scale_lattice(_volume(made))
                one = from_pymatgen(made, f"{made.composition.reduced_formula} {label}", source, label)
            except CimpError:
                if len(elements) == 1:
                    raise  # no scattering factor: so of every prototype
                continue
            if len(one.elements) <= most_sites:
                found.append(one)
    if not found:
        raise OutOfRangeError(f"no prototype fits {formula or '-'.join(elements)}: give a CIF file instead")
    return found


@cache
def _ordered_prototypes(species: int) -> list[tuple[str, str, PymatgenStructure]]:
    """Label, name and structure of those of `prototypes` that have as many species, whatever these are."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    found = {}
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        structure, label = entry["snl"].structure, entry["tags"]["aflow"]
        if structure.is_ordered and len(structure.composition) == species and label not in found:
            plain = structure.copy()
            plain.remove_oxidation_states()
            found[label] = label, aflow_name(entry["tags"]), plain
    return list(found.values())


def _volume(structure: PymatgenStructure) -> float:
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Bonds are searched within some angstrom only: start where atoms are about as dense as in most crystals.
        structure.scale_lattice(20.0 * len(structure))
        return float(DLSVolumePredictor().predict(structure))


def _key(structure: PymatgenStructure) -> tuple:
    """Distances between kinds of atoms: alike where a change of elements gives the same crystal."""
    scaled = structure.copy()
    scaled.scale_lattice(float(len(structure)))
    first, second, _, distances = scaled.get_neighbor_list(2.5)
    symbols = np.array([site.specie.symbol for site in scaled])
    pairs = Counter(
        zip(symbols[first].tolist(), symbols[second].tolist(), np.round(distances, 2).tolist(), strict=True)
    )
    return structure.composition.reduced_formula, *sorted(pairs.items())
