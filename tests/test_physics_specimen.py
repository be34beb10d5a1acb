"""Images of specimens: lattice spacings, mean intensity at every scale, areas that can be imaged again."""

import numpy as np
import pytest
from scipy import ndimage

from cimp_core.errors import OutOfRangeError
from cimp_core.simulate import pieces
from cimp_core.simulate.lattice_image import cell_mean
from cimp_core.simulate.optics import Optics, probe_deviation
from cimp_core.simulate.specimen import MATERIALS, Specimen, draw_specimen, expectation
from cimp_core.simulate.structures import zone_axis_cell

OPTICS = Optics(convergence_angle=24e-3, source_size=6e-11)
ANGLES = (60e-3, 180e-3)


def _crystal(name="SrTiO3", zone="001", thickness=100.0, angle=0.4, tilt=(0.0, 0.0), **changes) -> Specimen:
    grain = pieces.Grain((name, zone), (0.3, -0.7, angle), tilt, thickness, **changes)
    flat = np.array([[0.0, 0.0, np.pi / 2]])  # a relief of zero height
    return Specimen(name, "crystal", (grain,), 0.0, (0.0, 0.0), None, flat, np.zeros((1, 3)), np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("name", "zone", "spacing"),
    [("SrTiO3", "001", 3.905), ("Si", "110", 3.136), ("Au", "110", 2.354), ("MgO", "001", 2.106), ("Ti", "001", 2.556)],
)
@pytest.mark.parametrize("pixel_size", [1.2e-11, 3.1e-11])
def test_lattice_spacing_in_the_power_spectrum(name, zone, spacing, pixel_size):
    size = 512
    image = expectation(_crystal(name, zone), OPTICS, *ANGLES, pixel_size, size)
    window = np.outer(np.hanning(size), np.hanning(size))
    padded = 2048
    power = np.abs(np.fft.rfft2((image - image.mean()) * window, (padded, padded)))
    fy, fx = np.fft.fftfreq(padded, pixel_size * 1e10), np.fft.rfftfreq(padded, pixel_size * 1e10)
    radius = np.hypot(fy[:, None], fx[None, :])
    near = power * (np.abs(radius * spacing - 1) < 0.06)
    assert near.max() > 0.2 * power.max()
    peaks = (near == ndimage.maximum_filter(near, 15, mode="wrap")) & (near > 0.2 * near.max())
    assert peaks.sum() >= 2  # along the lattice's different directions
    assert 1 / radius[peaks] == pytest.approx(np.full(peaks.sum(), spacing), rel=0.01)


def test_intensity_agrees_between_atoms_and_mass_thickness():
    for name, zone in (("SrTiO3", "001"), ("Au", "110")):
        specimen = _crystal(name, zone, 150.0)
        expected = cell_mean(name, zone, OPTICS, *ANGLES, np.array([150.0]))[0]
        for pixel_size in (1e-11, 6e-11, 1.5e-10, 3e-10, 2e-9):
            assert expectation(specimen, OPTICS, *ANGLES, pixel_size, 128).mean() == pytest.approx(expected, rel=0.03)


def test_contrast_of_atoms_fades_with_scan_step_and_source():
    def contrast(pixel_size, optics=OPTICS):
        return float(expectation(_crystal(), optics, *ANGLES, pixel_size, 96).std())

    assert contrast(2e-11) > contrast(1.9e-10) > 5 * contrast(5e-10)
    assert contrast(2e-11) > 1.5 * contrast(2e-11, Optics(convergence_angle=24e-3, source_size=2e-10))


def test_same_seed_same_image_and_the_same_area_again():
    for seed in range(6):
        one, two = (draw_specimen(np.random.default_rng(seed), 2e-11, 64) for _ in range(2))
        image = expectation(one, OPTICS, *ANGLES, 2e-11, 64)
        assert np.array_equal(image, expectation(two, OPTICS, *ANGLES, 2e-11, 64))
        # Half the step over the same field: every other position coincides, shifted by a quarter of a step.
        moved = np.full((64, 2), -0.5e-11)
        fine = expectation(one, OPTICS, *ANGLES, 1e-11, 128)[::2, ::2]
        coarse = expectation(one, OPTICS, *ANGLES, 2e-11, 64, drift=moved)
        assert np.abs(fine - coarse).max() < 2e-3 * max(image.max(), 1e-6)


def test_drift_moves_rows():
    specimen, drift = _crystal(angle=0.0), np.zeros((64, 2))
    drift[20:, 0] = 3 * 2e-11
    still, moved = (expectation(specimen, OPTICS, *ANGLES, 2e-11, 64, drift=d) for d in (None, drift))
    assert np.allclose(moved[:20], still[:20], rtol=1e-4)
    assert np.allclose(moved[20:, :-3], still[20:, 3:], rtol=1e-3)


@pytest.mark.parametrize("material", MATERIALS)
def test_every_material_can_be_drawn_and_imaged(material):
    for seed, pixel_size in enumerate((8e-12, 7e-11, 4e-9)):
        specimen = draw_specimen(np.random.default_rng(seed), pixel_size, 48, material=material)
        image = expectation(specimen, OPTICS, *ANGLES, pixel_size, 48)
        assert specimen.material == material and image.shape == (48, 48) and image.dtype == np.float64
        assert np.all(np.isfinite(image)) and image.min() >= 0 and image.max() < 0.9


def test_all_kinds_are_drawn():
    rng = np.random.default_rng(1)
    kinds = {draw_specimen(rng, step, 64).kind for step in (2e-11, 1e-9) for _ in range(80)}
    assert kinds == {"crystal", "interface", "particles", "grains", "sheet", "amorphous"}


def test_a_vacancy_darkens_and_a_dopant_brightens_its_column():
    cell = zone_axis_cell("Si", "001")
    place = cell.positions[0, :2] @ np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]]) + (0.3, -0.7)
    plain = expectation(_crystal("Si", "001", 30.0), OPTICS, *ANGLES, 1.5e-11, 128)
    axis = (np.arange(128) - 63.5) * 0.15
    near = np.hypot(axis[None, :] - place[0], axis[:, None] - place[1]) < 0.3
    for change, sign in ((-1.0, -1), (20.0, 1)):
        sites = np.array([[0, *place, 5.0, change]])
        defect = expectation(_crystal("Si", "001", 30.0, sites=sites), OPTICS, *ANGLES, 1.5e-11, 128)
        assert sign * (defect - plain)[near].mean() > 0.02 * plain[near].mean()
        assert np.abs(defect - plain)[:20].max() < 1e-6 or abs(place[1]) > 5


def test_amorphous_speckle_has_poissonian_strength():
    optics = Optics(convergence_angle=15e-3)
    waves = pieces._plane_waves(np.random.default_rng(0), 4000, 2.4)
    film = Specimen(
        "amorphous carbon", "amorphous", (), 200.0, (0.0, 0.0), None, np.zeros((1, 3)), waves, np.zeros((0, 3))
    )
    film.relief[0] = (0.0, 0.0, np.pi / 2)
    image = expectation(film, optics, *ANGLES, 3e-11, 200)
    # Variance of a Poissonian number under the probe: the integral of the squared transfer over n t.
    k = np.linspace(0, 2 * 15e-3 / 0.0196875, 400)
    x = k * 0.0196875 / (2 * 15e-3)
    squared = (2 / np.pi * (np.arccos(x) - x * np.sqrt(1 - x**2))) ** 2
    expected = np.sqrt(np.trapezoid(2 * np.pi * k * squared, k) / (0.1 * 200.0))
    assert image.std() / image.mean() == pytest.approx(expected, rel=0.15)


def test_bright_field_and_unknown_materials_are_refused():
    with pytest.raises(OutOfRangeError, match="dark field"):
        expectation(_crystal(), OPTICS, 20e-3, 180e-3, 2e-11, 16)
    with pytest.raises(OutOfRangeError, match="unobtainium"):
        draw_specimen(np.random.default_rng(0), 2e-11, 16, material="unobtainium")
    with pytest.raises(OutOfRangeError):
        draw_specimen(np.random.default_rng(0), 0.0, 16)


@pytest.mark.parametrize("optics", [OPTICS, Optics(convergence_angle=8e-3), Optics(source_size=4e-10)])
def test_a_boundary_is_as_sharp_as_the_probe(optics):
    """Two crystals off any zone axis, side by side: an error function whose width is that of the probe."""
    halves = [
        pieces.Grain((name, zone), (0.0, 0.0, 0.0), None, 400.0, ("half", 0.0, 0.0, normal))
        for name, zone, normal in (("Au", "001", 0.0), ("Si", "110", np.pi))
    ]
    flat = np.array([[0.0, 0.0, np.pi / 2]])
    both = Specimen("Au", "interface", tuple(halves), 0.0, (0.0, 0.0), None, flat, np.zeros((1, 3)), np.zeros((0, 3)))
    step, size = 5e-12, 512
    image = expectation(both, optics, *ANGLES, step, size)
    silicon, gold = image[:, 0].mean(), image[:, -1].mean()
    share = (image.mean(0) - silicon) / (gold - silicon)
    assert share.min() > -1e-6 and share.max() < 1 + 1e-6
    assert (share[size // 2 - 1] + share[size // 2]) / 2 == pytest.approx(0.5, abs=1e-3)
    x = (np.arange(size) - (size - 1) / 2) * step
    width = np.interp(0.75, share, x) - np.interp(0.25, share, x)
    assert width == pytest.approx(1.349 * probe_deviation(optics), rel=0.02)


def test_the_probe_deviation_is_that_of_a_gaussian_where_the_source_rules():
    broad = Optics(convergence_angle=30e-3, source_size=1e-9)
    # The half is looked up on a grid of spatial frequencies, good to some percent.
    assert probe_deviation(broad) == pytest.approx(1e-9 / 2.3548, rel=0.02)
    fine = probe_deviation(Optics(convergence_angle=20e-3))
    assert probe_deviation(Optics(convergence_angle=10e-3)) == pytest.approx(2 * fine, rel=0.01)
