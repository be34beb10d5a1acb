"""Crystals made from prototypes: what is kept, what changes, and that no prototype is in two parts."""

import dataclasses

import numpy as np
import pytest
from pymatgen.core import Lattice
from pymatgen.core import Structure as PymatgenStructure

from cimp_core.errors import OutOfRangeError
from cimp_core.structures.crystals import from_pymatgen, zone_axes
from cimp_core.structures.decorated import METALS, NONMETALS, allowed_strain, decorate, decorations, split_prototypes


def made(group, lattice, elements, sites, name="made"):
    return from_pymatgen(PymatgenStructure.from_spacegroup(group, lattice, elements, sites), name, "a test")


@pytest.fixture(scope="module")
def salt():
    return made("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], "salt")


@pytest.fixture(scope="module")
def rutile():
    return made("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]], "rutile")


def test_lengths_follow_the_radii_and_sites_stay(salt):
    new = decorate(salt, {"Na": "K", "Cl": "Br"})
    # Slater's radii: Na 1.80, Cl 1.00, K 2.20, Br 1.15 angstrom.
    np.testing.assert_allclose(new.lattice, salt.lattice * (2.20 + 1.15) / (1.80 + 1.00), atol=1e-12)
    np.testing.assert_allclose(new.conventional, salt.conventional * 3.35 / 2.8, atol=1e-12)
    np.testing.assert_array_equal(new.sites, salt.sites)
    assert new.formula == "KBr" and new.name == "salt/KBr" and new.prototype == salt.prototype
    assert [salt.elements[i] for i, e in enumerate(new.elements) if e == "K"] == ["Na"]


@pytest.mark.parametrize("seed", range(3))
def test_strain_keeps_the_symmetry(salt, rutile, seed):
    strain = np.random.default_rng(seed).normal(0, 0.05, (3, 3))
    strain = (strain + strain.T) / 2
    np.testing.assert_allclose(allowed_strain(salt, strain), np.eye(3) * np.trace(strain) / 3, atol=1e-12)
    kept = allowed_strain(rutile, strain)
    cell = rutile.conventional
    c = cell[np.argmin(np.linalg.norm(cell, axis=1))] / np.linalg.norm(cell, axis=1).min()  # the short axis
    along, across = c @ strain @ c, (np.trace(strain) - c @ strain @ c) / 2
    np.testing.assert_allclose(kept, across * np.eye(3) + (along - across) * np.outer(c, c), atol=1e-12)


def test_strained_crystals_have_the_symmetry_that_spglib_finds(rutile):
    for one in decorations(rutile, 4, seed=3, spread=0.05):
        again = from_pymatgen(PymatgenStructure(Lattice(one.lattice), one.elements, one.sites), "again", "a test")
        assert again.space_group == 136
        assert len(zone_axes(again, 2)) == len(zone_axes(one, 2))


def test_decorations_are_different_alike_by_seed_and_of_the_same_sort(rutile):
    found = decorations(rutile, 12)
    assert found[0] is rutile and len({s.name for s in found}) == 12
    for one in found[1:]:
        metal = {e for e, old in zip(one.elements, rutile.elements, strict=True) if old == "Ti"}
        nonmetal = set(one.elements) - metal
        assert metal <= set(METALS) and nonmetal <= set(NONMETALS) and 6 < one.volume_per_atom < 60
    again = decorations(rutile, 12)
    assert [s.name for s in again] == [s.name for s in found]
    np.testing.assert_array_equal(again[5].lattice, found[5].lattice)
    assert [s.name for s in decorations(rutile, 12, seed=1)] != [s.name for s in found]


def test_no_prototype_is_in_two_parts(salt):
    many = [dataclasses.replace(salt, name=f"{n // 2}/{n % 2}", prototype=str(n // 2)) for n in range(300)]
    parts = split_prototypes(many)
    labels = {name: {s.prototype for s in part} for name, part in parts.items()}
    assert {name: len(found) for name, found in labels.items()} == {"test": 96, "val": 24, "train": 30}
    assert sum(map(len, labels.values())) == len(set.union(*labels.values())) == 150
    assert sum(map(len, parts.values())) == len(many)
    shuffled = split_prototypes(many[::-1])
    assert {s.name for s in shuffled["test"]} == {s.name for s in parts["test"]}
    with pytest.raises(OutOfRangeError, match="more than 120 are needed"):
        split_prototypes(many[:200])
