"""The twin's image model against stored frozen-phonon multislice, and a plain linear model that fails the same test."""

import numpy as np
import pytest

from cimp_core.simulate import agreement
from cimp_core.simulate.optics import Optics, transfer
from cimp_core.simulate.scattering import atomic_number
from cimp_core.simulate.structures import zone_axis_cell

LIMITS = {"correlation": 0.98, "fraction": 0.15, "columns": 0.10, "background": 0.05}


def failures(found: dict) -> list[str]:
    """What is worse than `LIMITS`, each with by how much."""
    worst = {
        "correlation": found["correlation"].min(),
        "fraction": np.abs(found["fraction"] - 1).max(),
        "columns": np.abs(found["columns"] - 1).max(initial=0.0),
        "background": np.abs(found["background"]).max(),
    }
    passed = {name: value <= LIMITS[name] for name, value in worst.items()}
    passed["correlation"] = worst["correlation"] >= LIMITS["correlation"]
    return [f"{name} {worst[name]:.3f} against {LIMITS[name]}" for name, good in passed.items() if not good]


def linear_model(reference: agreement.Reference, convergence: float, inner: float) -> np.ndarray:
    """Z^1.7 at every atom times thickness, seen through the probe, Rutherford's dependence on the inner angle."""
    cell = zone_axis_cell(reference.crystal, reference.zone)
    shape = reference.images[convergence, inner].shape[1:]
    gx, gy = (np.fft.fftfreq(n, e / n) for n, e in zip(shape, cell.size, strict=False))
    spectrum = sum(
        atomic_number(element) ** 1.7 * np.exp(-2j * np.pi * (gx[:, None] * x + gy * y))
        for element, (x, y, _) in zip(cell.elements, cell.positions, strict=True)
    )
    probe = transfer(Optics(convergence_angle=convergence), gx[:, None] * 1e10, gy[None, :] * 1e10)
    image = np.fft.ifft2(spectrum * probe).real * (inner**-2 - agreement.OUTER**-2)
    return image * reference.thickness[:, None, None]


@pytest.fixture(scope="module", params=agreement.REFERENCES)
def reference(request):
    return agreement.load_reference(request.param)


def test_the_model_agrees_with_multislice(reference):
    found = agreement.compare(reference, lambda *key: agreement.model_image(reference, *key))
    assert failures(found) == []


def test_a_linear_model_with_a_fixed_exponent_fails(reference):
    found = agreement.compare(reference, lambda *key: linear_model(reference, *key))
    assert any(line.startswith("fraction") for line in failures(found))


def test_the_reference_agrees_with_itself_and_not_with_a_flat_image(reference):
    same = agreement.compare(reference, lambda *key: 3 * reference.images[key] + 0.01)
    # The peaks of the images themselves are noisier than the stored ones, which average more configurations.
    assert [line for line in failures(same) if not line.startswith("columns")] == []
    assert same["scale"] == pytest.approx(1 / 3)
    swapped = agreement.compare(reference, lambda *key: np.roll(reference.images[key], 3, 1))
    assert any(line.startswith("correlation") for line in failures(swapped))


def test_the_scan_is_at_or_below_nyquist(reference):
    cell = zone_axis_cell(reference.crystal, reference.zone)
    for (convergence, _), images in reference.images.items():
        step = cell.size[:2] / images.shape[1:]
        assert np.all(step <= 0.0196875 / (4 * convergence) + 1e-6)
    assert reference.thickness * 1e10 == pytest.approx([20, 50, 100], rel=0.06)
    assert {inner for _, inner in reference.images} == {40e-3, 60e-3, 90e-3}
