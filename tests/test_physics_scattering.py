"""Cross sections, plural scattering, and how signal, exponent and background depend on angle and thickness."""

import numpy as np
import pytest

from cimp_core.errors import OutOfRangeError
from cimp_core.simulate import scattering
from cimp_core.simulate.agreement import sample
from cimp_core.simulate.lattice_image import cell_mean, unit_cell_image
from cimp_core.simulate.optics import Optics
from cimp_core.simulate.structures import CRYSTALS, ZONE_AXES, zone_axis_cell

VOLTAGE = 300e3


def _cross_section(element: str, inner: float, outer: float = 200e-3) -> float:
    one = scattering.atom(element, 0.5, VOLTAGE)
    return float(scattering.annulus(inner, outer, VOLTAGE) @ (one.elastic + one.diffuse))


def test_light_atoms_scatter_as_born_says_and_heavy_ones_less():
    g = scattering.G
    for element, least, most in (("C", 0.98, 1.0), ("Au", 0.6, 0.85)):
        born = (1.5871 * 0.0196875 * scattering.scattering_factor(element, g)) ** 2
        ratio = _cross_section(element, 60e-3) / float(scattering.annulus(60e-3, 200e-3, VOLTAGE) @ born)
        assert least < ratio < most


def test_z_exponent_rises_with_the_inner_angle_to_below_two():
    elements = ("C", "Al", "Si", "Ti", "Cu", "Ge", "Sr", "Ag")
    number = np.log([scattering.atomic_number(e) for e in elements])
    exponents = [
        np.polyfit(number, np.log([_cross_section(e, i) for e in elements]), 1)[0] for i in (20e-3, 40e-3, 90e-3)
    ]
    assert 1.2 < exponents[0] < exponents[1] < exponents[2] < 2.0


def test_thermal_and_elastic_parts_add_up():
    for b in (0.1, 0.6, 2.0):
        one = scattering.atom("Sr", b, VOLTAGE)
        assert np.allclose(one.elastic + one.diffuse, np.abs(one.amplitude) ** 2)
    cold, warm = scattering.atom("Sr", 0.1, VOLTAGE), scattering.atom("Sr", 1.0, VOLTAGE)
    assert warm.diffuse_total > 2 * cold.diffuse_total


def test_plural_scattering_is_linear_when_thin_and_saturates_when_thick():
    density = np.array([1e-6, 2e-6, 5.0, 1e2])
    fraction = scattering.plural_fraction({("Au", 0.6): density}, 60e-3, 200e-3, 0.0, VOLTAGE)
    assert fraction[0] / density[0] == pytest.approx(_cross_section("Au", 60e-3), rel=2e-3)
    assert fraction[1] == pytest.approx(2 * fraction[0], rel=1e-4)
    assert fraction[2] < fraction[3] < 0.8 * 1e2 * _cross_section("Au", 60e-3) and np.all(fraction <= 1)


def test_plural_scattering_keeps_every_electron():
    total = scattering.plural_fraction({("Si", 0.5): np.array([20.0])}, 1e-9, 300e-3, 0.0, VOLTAGE)[0]
    assert total == pytest.approx(1 - np.exp(-20 * scattering.atom("Si", 0.5, VOLTAGE).total), abs=0.01)


def test_signal_falls_with_the_inner_angle_and_rises_with_thickness():
    optics, thickness = Optics(convergence_angle=20e-3), np.array([20.0, 100.0, 400.0])
    means = np.array([cell_mean("SrTiO3", "001", optics, inner, 200e-3, thickness) for inner in (40e-3, 60e-3, 90e-3)])
    assert np.all(np.diff(means, axis=0) < 0) and np.all(np.diff(means, axis=1) > 0)
    # The wave gathers on the columns first, and is used up later: no straight line through the origin.
    assert means[1, 1] / means[1, 0] > 1.05 * 100 / 20 and means[1, 2] / means[1, 1] < 0.95 * 400 / 100


def test_background_rises_and_column_exponent_falls_with_thickness():
    optics = Optics(convergence_angle=20e-3)
    images = sample(unit_cell_image("SrTiO3", "001", optics, 60e-3, 200e-3, np.array([20.0, 60.0, 120.0])), (48, 48))
    background = images.min((1, 2)) / images.max((1, 2))
    assert np.all(np.diff(background) > 0.003)
    strontium, titanium = images[:, 0, 0], images[:, 24, 24]
    exponent = np.log(strontium / titanium) / np.log(38 / 22)
    assert 2.0 > exponent[0] > exponent[-1] + 0.1 and exponent[-1] > 0.5


def test_mean_is_the_middle_order_of_the_image():
    optics, thickness = Optics(convergence_angle=24e-3, defocus=3e-9, focal_spread=2e-9), np.array([30.0, 200.0])
    for crystal, zone, tilt in (("GaAs", "110", (0.0, 0.0)), ("Au", "111", (4e-3, -3e-3))):
        orders = unit_cell_image(crystal, zone, optics, 50e-3, 180e-3, thickness, tilt)
        middle = orders[:, orders.shape[1] // 2, orders.shape[2] // 2].real
        assert cell_mean(crystal, zone, optics, 50e-3, 180e-3, thickness, tilt) == pytest.approx(middle, rel=0.01)


def test_channelling_is_lost_by_tilt():
    optics, thickness = Optics(convergence_angle=20e-3), np.array([60.0])
    on, off = (
        sample(unit_cell_image("Au", "001", optics, 60e-3, 200e-3, thickness, (tilt, 0.0)), (32, 32))[0]
        for tilt in (0.0, 15e-3)
    )
    assert np.ptp(off) / off.mean() < 0.9 * np.ptp(on) / on.mean()


def test_cells_hold_the_density_of_the_crystal():
    for name, crystal in CRYSTALS.items():
        for zone in ZONE_AXES[crystal.family]:
            cell = zone_axis_cell(name, zone)
            volume = abs(np.linalg.det(np.array(crystal.lattice))) / len(crystal.sites)
            assert np.prod(cell.size) / len(cell.elements) == pytest.approx(volume, rel=1e-6)
            gaps = cell.positions[:, None] - cell.positions[None]
            gaps -= cell.size * np.round(gaps / cell.size)
            distance = np.linalg.norm(gaps, axis=-1) + 9 * np.eye(len(gaps))
            assert distance.min() > 1.3


def test_unknown_elements_and_axes_are_refused():
    for call in (
        lambda: scattering.atom("Xx", 0.5, VOLTAGE),
        lambda: zone_axis_cell("Si", "123"),
        lambda: zone_axis_cell("kryptonite"),
        lambda: cell_mean("Si", "110", Optics(convergence_angle=60e-3), 80e-3, 200e-3, np.array([10.0])),
    ):
        with pytest.raises(OutOfRangeError):
            call()
