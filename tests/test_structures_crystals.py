"""Crystals: read from CIF, found by name, their zone axes, and their projections against sums over a block of atoms."""

import itertools
import math

import numpy as np
import pytest

from cimp_core import structures as st
from cimp_core.errors import CimpError, OutOfRangeError, UnreadableFileError
from cimp_core.structures import crystals
from cimp_core.structures.crystals import mirrored, period, zone_axes

HEAD = """data_test
_symmetry_space_group_name_H-M 'P 1'
_cell_length_a {a}
_cell_length_b {b}
_cell_length_c {c}
_cell_angle_alpha {alpha}
_cell_angle_beta {beta}
_cell_angle_gamma {gamma}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
CELL = {"a": 4, "b": 4, "c": 4, "alpha": 90, "beta": 90, "gamma": 90}
FCC = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]


def cif(path, sites, a, b=None, c=None, alpha=90, beta=90, gamma=90):
    """Write a CIF file of `sites` (element, x, y, z, occupancy)."""
    head = HEAD.format(a=a, b=b or a, c=c or a, alpha=alpha, beta=beta, gamma=gamma)
    lines = [f"{e}{i} {e} {x} {y} {z} {o}" for i, (e, x, y, z, o) in enumerate(sites)]
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def triclinic():
    """No symmetry at all, and nothing at right angles."""
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as PymatgenStructure

    sites = [(0, 0, 0), (0.31, 0.17, 0.42), (0.72, 0.61, 0.13)]
    made = PymatgenStructure(Lattice.from_parameters(4.1, 5.3, 6.2, 81, 74, 67), ["Sr", "Ti", "O"], sites)
    return st.from_pymatgen(made, "odd", "test")


def test_a_file_in_its_plainest_setting_gets_its_symmetry_back(tmp_path):
    halves = [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    sites = [("Sr", 0, 0, 0, 1), ("Ti", 0.5, 0.5, 0.5, 1), *(("O", *p, 1) for p in halves)]
    (one,) = st.from_cif(cif(tmp_path / "mine.cif", sites, 3.905))
    assert (one.name, one.formula, one.space_group, len(one.elements)) == ("mine", "SrTiO3", 221, 5)
    (gold,) = st.from_cif(cif(tmp_path / "gold.cif", [("Au", *p, 1) for p in FCC], 4.078))
    assert (gold.space_group, gold.space_group_symbol, gold.elements) == (225, "Fm-3m", ("Au",))
    assert gold.volume_per_atom == pytest.approx(4.078**3 / 4)
    assert len(gold.rotations) == 48


def test_bad_files_say_what_is_wrong_with_them(tmp_path):
    shared = cif(tmp_path / "shared.cif", [("Au", 0, 0, 0, 0.5), ("Cu", 0, 0, 0, 0.5)], 3.9)
    with pytest.raises(OutOfRangeError, match=r"shared\.cif.*partly occupied.*ordered"):
        st.from_cif(shared)
    vacant = cif(tmp_path / "vacant.cif", [("Au", 0, 0, 0, 0.7)], 3.9)
    with pytest.raises(OutOfRangeError, match=r"vacant\.cif.*partly"):
        st.from_cif(vacant)
    near = cif(tmp_path / "near.cif", [("Au", 0, 0, 0, 1), ("Cu", 0.05, 0, 0, 1)], 3.9)
    with pytest.raises(OutOfRangeError, match=r"near\.cif.*0\.2\d? angstrom apart"):
        st.from_cif(near)
    strange = cif(tmp_path / "strange.cif", [("Rf", 0, 0, 0, 1)], 3.9)
    with pytest.raises(OutOfRangeError, match=r"strange\.cif.*Rf"):
        st.from_cif(strange)
    texts = {"no.cif": "three apples\n", "empty.cif": "", "half.cif": HEAD[:90], "atoms.cif": HEAD.format(**CELL)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(UnreadableFileError, match=name):
            st.from_cif(tmp_path / name)
    with pytest.raises(UnreadableFileError, match="no such file"):
        st.from_cif(tmp_path / "absent.cif")
    (tmp_path / "bytes.cif").write_bytes(bytes(range(256)))
    with pytest.raises(UnreadableFileError, match=r"bytes\.cif"):
        st.from_cif(tmp_path / "bytes.cif")


def test_without_pymatgen_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(crystals, "find_spec", lambda name: None)
    with pytest.raises(CimpError, match=r"pip install cimp-core\[structures\]"):
        st.from_cif(tmp_path / "x.cif")
    with pytest.raises(CimpError, match=r"pip install cimp-core\[structures\]"):
        st.find_structures("SrTiO3")


def test_sources_by_name_formula_elements_and_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.cif", "deep/a.cif"):
        cif(tmp_path / name, [("Au", *p, 1) for p in FCC], 4.078)
    assert [s.name for s in st.find_structures(tmp_path)] == ["a", "a#2"]
    assert [s.name for s in st.find_structures([tmp_path / "a.cif", "Au", "AB_cF8_225_a_b"])][1:] == [
        "Au",
        "AB_cF8_225_a_b",
    ]
    (gold,) = st.find_structures("Au")
    assert gold.debye_waller.tolist() == [0.6]  # the twin's, not the default
    for wrong in ("Xx", "not/there", "*.nothing", "Sr-Xx", []):
        with pytest.raises(OutOfRangeError):
            st.find_structures(wrong)
    with pytest.raises(UnreadableFileError):
        st.find_structures("absent.cif")


def test_decorated_prototypes_have_the_formula_and_about_the_lengths():
    found = st.find_structures("SrZrO3")
    assert {s.formula for s in found} == {"SrZrO3"}
    (cubic,) = (s for s in found if s.space_group == 221 and s.elements.count("O") == 3 and "Sr-Zr" in s.source)
    a = abs(np.linalg.det(cubic.lattice)) ** (1 / 3)
    assert a == pytest.approx(4.15, rel=0.07)  # angstrom, measured at high temperature, where it is cubic
    assert "guess" in cubic.source
    rocksalt = [s for s in st.decorate(["Mg", "O"], "MgO") if s.prototype == "AB_cF8_225_a_b"]
    assert len(rocksalt) == 1  # MgO and OMg are the same crystal
    with pytest.raises(OutOfRangeError, match="no prototype fits"):
        st.decorate(["H", "He", "Li", "Be", "B", "C"])


def test_the_prototypes_are_many_and_of_many_space_groups():
    found = st.prototypes()
    assert len(found) > 250 and len({s.space_group for s in found}) > 90
    assert len({s.name for s in found}) == len(found)
    for one in found[::20]:  # the number in the label is that of the space group
        assert one.name.split("_")[2] == str(one.space_group)


def test_zone_axes_of_high_and_of_no_symmetry(triclinic):
    (gold,) = st.find_structures("Au")
    assert zone_axes(gold, 1) == [(1, 1, 0), (1, 0, 0), (1, 1, 1)]  # by the period along the beam
    assert set(zone_axes(gold, 2)) == {(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0), (2, 1, 1), (2, 2, 1)}
    assert zone_axes(gold, 2, both_sides=True) == zone_axes(gold, 2)
    primitive = [v for v in itertools.product(range(-1, 2), repeat=3) if any(v)]
    assert len(zone_axes(triclinic, 1)) == len(primitive) // 2
    both = zone_axes(triclinic, 1, both_sides=True)
    assert len(both) == len(set(both)) == len(primitive)
    with pytest.raises(OutOfRangeError):
        zone_axes(gold, 0)
    (sheet,) = st.find_structures("graphene")
    assert zone_axes(sheet, 3) == [(0, 0, 1)]


@pytest.mark.parametrize("zone", [(0, 0, 1), (1, 0, 0), (1, 1, 0), (1, -1, 2)])
def test_a_projection_holds_every_atom_of_a_block_of_the_crystal(triclinic, zone):
    for structure in (triclinic, *st.find_structures(["GaN", "TiO2", "Si"])):
        view = st.project(structure, zone)
        volume = abs(np.linalg.det(structure.lattice))
        assert view.area * view.period == pytest.approx(volume)
        beam = np.array(zone) @ structure.conventional
        beam /= np.linalg.norm(beam)
        # Distances in projection of every atom of a block from the first one, whatever the axes across the beam.
        block = np.array(list(itertools.product(range(-3, 4), repeat=3)))
        atoms = ((structure.sites[:, None] + block) @ structure.lattice).reshape(-1, 3)
        start = structure.sites[0] @ structure.lattice
        flat = (atoms - start) - ((atoms - start) @ beam)[:, None] * beam
        expected = np.linalg.norm(flat, axis=1)
        cells = np.array(list(itertools.product(range(-25, 26), repeat=2))) @ view.lattice
        columns = (view.positions[:, None] + cells).reshape(-1, 2) - view.positions[0]
        mine = np.hypot(*columns.T)
        reach = 4.0  # angstrom, within the block
        for some, all_ in ((expected, mine), (mine, expected)):
            assert np.abs(some[some < reach][:, None] - all_).min(1).max() < 1e-6


def test_the_period_is_the_shortest_step_that_maps_the_crystal_on_itself(triclinic):
    (silicon,) = st.find_structures("Si")
    a = 5.431
    assert period(silicon, (1, 0, 0)) == pytest.approx(a)
    assert period(silicon, (1, 1, 0)) == pytest.approx(a / math.sqrt(2))
    assert period(silicon, (1, 1, 1)) == pytest.approx(a * math.sqrt(3))
    assert period(triclinic, (0, 1, 0)) == pytest.approx(np.linalg.norm(triclinic.conventional[1]))


def test_a_wrong_zone_axis_is_an_error(triclinic):
    for wrong in ((0, 0, 0), (1, 1), (0.5, 1, 0), (1, 0, 0, 1)):
        with pytest.raises(OutOfRangeError, match="zone axis"):
            st.project(triclinic, wrong)


def turned_powers(view, mirror):
    """|F| of columns at reciprocal points, as a set of (|g|, angle from the strongest point, |F|), rounded."""
    basis = np.linalg.inv(view.lattice).T
    g = np.array(list(itertools.product(range(-6, 7), repeat=2))) @ basis
    g = g[(np.hypot(*g.T) < 1.2) & (np.hypot(*g.T) > 0)]
    numbers = np.array([{"Sr": 38, "Ti": 22, "O": 8, "Ga": 31, "N": 7, "Si": 14}[e] for e in view.structure.elements])
    powers = np.abs(np.exp(-2j * np.pi * g @ view.positions.T) @ numbers)
    angle = np.arctan2(g[:, 1] * (-1 if mirror else 1), g[:, 0])
    return np.hypot(*g.T), angle, powers


@pytest.mark.parametrize(("name", "zone"), [("SrTiO3", (3, 2, 1)), ("SrTiO3", (2, 1, 0)), ("TiO2", (1, 1, 1))])
def test_mirrored_tells_whether_a_turn_brings_the_mirror_image_back(name, zone):
    (structure,) = st.find_structures(name)
    view = st.project(structure, zone)
    radius, angle, power = turned_powers(view, False)
    _, other, _ = turned_powers(view, True)
    # Turn the mirror image by every angle between points of one length, and look whether all points meet their like.
    lengths = np.abs(radius - radius.min()) < 1e-4
    fits = False
    for turn in (angle[lengths][:, None] - other[lengths]).ravel():
        moved = radius * np.exp(1j * (other + turn))
        distance = np.abs(moved[:, None] - radius * np.exp(1j * angle))
        fits |= bool(np.all(distance.min(1) < 1e-4) and np.allclose(power[distance.argmin(1)], power, atol=1e-3))
    assert fits == mirrored(structure, zone)


def test_the_view_from_below_is_the_mirror_image(triclinic):
    above, below = (st.project(triclinic, zone) for zone in ((1, 1, 0), (-1, -1, 0)))
    radius, angle, power = turned_powers(above, True)
    radius_b, angle_b, power_b = turned_powers(below, False)
    mine = radius * np.exp(1j * angle)
    theirs = radius_b * np.exp(1j * angle_b)
    turns = theirs[np.abs(radius_b - radius.min()) < 1e-6] / mine[radius.argmin()]
    best = min(np.abs(mine[:, None] * turn / abs(turn) - theirs).min(1).max() for turn in turns)
    assert best < 1e-5 and np.allclose(np.sort(power), np.sort(power_b))
    assert not mirrored(triclinic, (1, 1, 0))
