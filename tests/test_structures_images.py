"""Patterns and pictures of crystals: closed forms, sums over pixels in double loops, and the twin's own images."""

import math

import numpy as np
import pytest

from cimp_core import structures as st
from cimp_core.errors import OutOfRangeError
from cimp_core.simulate import agreement, scattering
from cimp_core.simulate.lattice_image import DELOCALISATION, unit_cell_image
from cimp_core.simulate.optics import Optics, transfer
from cimp_core.simulate.structures import CRYSTALS, zone_axis_cell
from cimp_core.structures.projection import IMAGE_MODEL, Projection

OPTICS, INNER, OUTER = Optics(convergence_angle=24e-3, source_size=70e-12), 60e-3, 0.2


def projected_cell(crystal, zone, layers=0):
    """The twin's own cell as a projection, so that both images lie alike."""
    cell = zone_axis_cell(crystal, zone)
    edges, turn = np.diag(cell.size), np.eye(3, dtype=int)[None]
    kinds = cell.elements, cell.positions / cell.size, cell.debye_waller
    one = st.Structure(crystal, crystal, crystal, 1, "P1", edges, edges, *kinds, turn, "", layers)
    return Projection(one, (0, 0, 1), edges[:2, :2], cell.positions[:, :2], float(cell.size[2]))


def image(pattern, size, shape):
    """The Fourier series summed at the points of a grid of the cell, (nx, ny)."""
    x, y = (np.arange(n) / n * edge for n, edge in zip(shape, size, strict=True))
    waves = [np.exp(2j * np.pi * np.outer(pattern.frequencies[:, i].astype(float), p)) for i, p in enumerate((x, y))]
    return pattern.mean + 2 * np.einsum("m,mx,my->xy", pattern.coefficients.astype(complex), *waves).real


def test_a_sheet_images_as_single_atoms_do_in_closed_form():
    (sheet,) = st.find_structures("graphene")
    view = st.project(sheet, (0, 0, 1))
    made = st.pattern(view, OPTICS, INNER, OUTER, 20.0)
    atom, ring = scattering.atom("C", 0.35, 300e3), scattering.annulus(INNER, OUTER, 300e3)
    section = float(ring @ atom.diffuse)
    shares = ring * (atom.diffuse + atom.elastic)
    variance = 0.35 / (8 * math.pi**2)
    variance += DELOCALISATION**2 * float(np.sum(shares / np.maximum(scattering.G, 0.1) ** 2) / np.sum(shares))
    area = 2.46**2 * math.sqrt(3) / 2
    g = made.frequencies.astype(float)
    expected = made.mean / 2 * np.exp(-2 * math.pi**2 * variance * (g**2).sum(1))
    expected = expected * transfer(OPTICS, g[:, 0] * 1e10, g[:, 1] * 1e10).real
    expected = expected * np.abs(np.exp(-2j * math.pi * g @ view.positions.T).sum(1))
    strong = np.abs(made.coefficients) > 0.05 * np.abs(made.coefficients).max()
    # The probe runs 3 angstrom further, and its cone smears the edge of the detector: some percent each.
    assert np.abs(made.coefficients)[strong] == pytest.approx(expected[strong], rel=0.02)
    assert made.mean == pytest.approx(2 * section / area, rel=0.12)
    assert st.pattern(view, OPTICS, INNER, OUTER, 500.0).mean == made.mean  # it has its own thickness


def test_heavier_columns_are_brighter_and_lie_where_the_atoms_are():
    (titanate,) = st.find_structures("SrTiO3")
    view = st.project(titanate, (0, 0, 1))
    made = st.pattern(view, OPTICS, INNER, OUTER, 200.0)
    found = image(made, np.diag(view.lattice), (40, 40))
    at = {}
    for element, position in zip(view.structure.elements, view.positions, strict=True):
        index = np.rint(position / np.diag(view.lattice) * 40).astype(int) % 40
        at.setdefault(element, []).append(found[tuple(index)])
    assert np.unravel_index(found.argmax(), found.shape) == tuple(
        np.rint(view.positions[titanate.elements.index("Sr")] / np.diag(view.lattice) * 40).astype(int) % 40
    )
    assert at["Sr"][0] > at["Ti"][0] > min(at["O"]) > found.min()


@pytest.mark.parametrize("name", ["Al-001", "BaTiO3-001", "CeO2-110", "GaN-100", "InP-111", "Fe-001"])
def test_images_are_nearly_the_twins_own_where_nothing_was_fitted(name):
    """Of crystals that `HOLD` was not fitted to (bench/structures_model.py), at other angles too."""
    crystal, zone = name.split("-")
    view, thickness = projected_cell(crystal, zone), np.array([50.0, 200.0])
    for convergence, inner in ((24e-3, 60e-3), (30e-3, 90e-3)):
        optics = Optics(convergence_angle=convergence, source_size=70e-12)
        shape = tuple(math.ceil(edge / 0.25) for edge in np.diag(view.lattice))
        truth = agreement.sample(unit_cell_image(crystal, zone, optics, inner, OUTER, thickness), shape)
        for t, true in zip(thickness, truth, strict=True):
            mine = image(st.pattern(view, optics, inner, OUTER, t), np.diag(view.lattice), shape)
            assert np.corrcoef(mine.ravel(), true.ravel())[0, 1] > 0.98
            assert (mine.std() / mine.mean()) / (true.std() / true.mean()) == pytest.approx(1.2, abs=0.5)


def test_contrast_is_lost_with_thickness_but_atoms_that_add_up_keep_it():
    """What the hold on the probe and its spread are for: without them every thickness has the contrast of the first."""
    view = projected_cell("Al", "111")
    contrast = [
        np.linalg.norm(made.coefficients) / made.mean
        for made in (st.pattern(view, OPTICS, INNER, OUTER, t) for t in (20.0, 100.0, 400.0))
    ]
    assert contrast[0] > 2 * contrast[1] > 3 * contrast[2]


@pytest.mark.parametrize("name", agreement.REFERENCES)
def test_images_against_stored_multislice(name):
    reference = agreement.load_reference(name)
    view, worst = projected_cell(reference.crystal, reference.zone), 1.0
    for (convergence, inner), images in reference.images.items():
        for thickness, true in zip(reference.thickness * 1e10, images, strict=True):
            made = st.pattern(view, Optics(convergence_angle=convergence), inner, agreement.OUTER, thickness)
            mine = image(made, np.diag(view.lattice), true.shape)
            worst = min(worst, np.corrcoef(mine.ravel(), true.ravel())[0, 1])
    assert worst > 0.92


GOLD = (0.1655635, 25, (0.03457995, 0.03457995, 0.0282455))


def test_the_numbers_are_those_of_this_version_of_the_model():
    """If this fails on purpose, give `IMAGE_MODEL` its next number: libraries of the old one are then refused."""
    assert IMAGE_MODEL == 3
    (gold,) = st.find_structures("Au")
    made = st.pattern(st.project(gold, (1, 1, 0)), OPTICS, INNER, OUTER, 200.0)
    assert made.mean == pytest.approx(GOLD[0], rel=1e-4)
    assert len(made.coefficients) == GOLD[1]
    assert np.abs(made.coefficients[:3]) == pytest.approx(GOLD[2], rel=1e-3)


def test_tilt_smears_along_its_direction_only():
    view = projected_cell("Fe", "001")
    straight = st.pattern(view, OPTICS, INNER, OUTER, 100.0)
    tilted = st.pattern(view, OPTICS, INNER, OUTER, 100.0, tilt=(10e-3, 0.0))
    there = {tuple(g): c for g, c in zip(tilted.frequencies.tolist(), tilted.coefficients, strict=True)}
    for g, c in zip(straight.frequencies.tolist(), straight.coefficients, strict=True):
        expected = c * np.sinc(g[0] * 1.0)  # 10 mrad over 100 angstrom
        assert there.get(tuple(g), 0) == pytest.approx(expected, abs=3e-3 * float(np.abs(straight.coefficients).max()))


def test_what_cannot_be_seen_is_an_error():
    view = projected_cell("Fe", "001")
    for inner, outer, thickness in ((0.1, 0.1, 100.0), (0.06, 0.2, 0.0), (-0.01, 0.2, 10.0)):
        with pytest.raises(OutOfRangeError):
            st.pattern(view, OPTICS, inner, outer, thickness)
    with pytest.raises(OutOfRangeError, match="round"):
        st.pattern(view, Optics(astigmatism=1e-9), INNER, OUTER, 100.0)


def test_a_view_is_the_series_at_every_pixel_in_a_double_loop():
    (structure,) = st.find_structures("GaN")
    made = st.pattern(st.project(structure, (1, -1, 0)), OPTICS, INNER, OUTER, 100.0)
    jitter = tuple(np.random.default_rng(0).normal(0, 0.1, 7).tolist())
    view = st.View(0.31, 7, 9, 0.4, (0.7, -1.3), ((0.02, -0.01), (0.03, 0.01)), jitter)
    found = st.collected(made, view)
    c, s = math.cos(0.4), math.sin(0.4)
    for row in range(7):
        for column in range(9):
            x, y = (column - 4) * 0.31, (row - 3) * 0.31
            x += jitter[row]
            x, y = 1.02 * x - 0.01 * y - 0.7, 0.03 * x + 1.01 * y + 1.3
            u, v = c * x + s * y, -s * x + c * y
            waves = np.exp(2j * np.pi * (made.frequencies.astype(float) @ (u, v)))
            value = max(made.mean + 2 * float((made.coefficients * waves).real.sum()), 0)
            assert found[row, column] == pytest.approx(value, abs=2e-4 * made.mean)


def test_recorded_counts_have_the_mean_and_spread_of_pulses():
    """Mean n, variance n (1 + spread^2): Poisson pulses, each of mean 1."""
    fraction = np.full((300, 300), 0.02)
    fraction[:, :150] = 0.01
    counts = st.recorded(fraction, 8.0, np.random.default_rng(1), spread=0.5)
    for half, mean in ((counts[:, :150], 4.0), (counts[:, 150:], 8.0)):
        assert half.mean() == pytest.approx(mean, rel=0.01)
        assert half.var() == pytest.approx(mean * 1.25, rel=0.03)
    assert np.all(st.recorded(np.zeros((4, 4)), 8.0, np.random.default_rng(1)) == 0)
    assert CRYSTALS["Au"].debye_waller == {"Au": 0.60}
