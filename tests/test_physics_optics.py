"""The probe: diffraction limit, brightness, transfer."""

import math

import numpy as np
import pytest

from cimp_core.errors import OutOfRangeError
from cimp_core.simulate.optics import (
    Optics,
    airy_width,
    diffraction_limit,
    pupil,
    source_size,
    transfer,
    wavelength,
)


def _profile(optics: Optics, edge: float = 4e-9, n: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Position [m] and intensity of the probe along a line through its middle."""
    k = np.fft.fftfreq(n, edge / n)
    intensity = np.fft.fftshift(np.fft.ifft2(transfer(optics, k[:, None], k[None, :]).real).real)[n // 2]
    return (np.arange(n) - n // 2) * edge / n, intensity / intensity.max()


def _width(optics: Optics) -> float:
    x, intensity = _profile(optics)
    half = np.flatnonzero(intensity >= 0.5)[-1]
    return 2 * np.interp(-0.5, -intensity[half : half + 2], x[half : half + 2])


def test_wavelength_at_300_kv():
    assert wavelength(300e3) == pytest.approx(1.96875e-12, rel=1e-4)


@pytest.mark.parametrize("angle", [10e-3, 15e-3, 20e-3, 30e-3])
def test_probe_follows_the_diffraction_limit(angle):
    assert _width(Optics(convergence_angle=angle)) == pytest.approx(airy_width(300e3, angle), rel=0.02)
    x, intensity = _profile(Optics(convergence_angle=angle))
    right = intensity[len(x) // 2 :]
    first_zero = x[len(x) // 2 + np.flatnonzero(np.diff(right) > 0)[0]]
    assert first_zero == pytest.approx(diffraction_limit(300e3, angle), rel=0.05)
    assert diffraction_limit(300e3, angle) == pytest.approx(0.61 * wavelength(300e3) / angle)


def test_transfer_in_closed_form_is_the_pupils_autocorrelation():
    sharp = Optics(convergence_angle=20e-3)
    k = np.linspace(0, 2.2 * 20e-3 / wavelength(300e3), 40)
    # A defocus of an angstrom changes nothing but takes the numerical path.
    numerical = transfer(Optics(convergence_angle=20e-3, defocus=1e-12), k, 0 * k)
    assert np.abs(transfer(sharp, k, 0 * k) - numerical).max() < 0.02
    assert np.all(transfer(sharp, k[k > 2 * 20e-3 / wavelength(300e3)], 0.0) == 0)


@pytest.mark.parametrize("fault", ["defocus", "astigmatism", "focal_spread"])
def test_every_aberration_loses_transfer(fault):
    k = np.linspace(2e9, 1.2e10, 8)
    ideal = transfer(Optics(convergence_angle=24e-3), k, 0 * k).real
    assert np.all(np.abs(transfer(Optics(convergence_angle=24e-3, **{fault: 5e-9}), k, 0 * k)) < ideal)


def test_astigmatism_turns_with_its_angle():
    k = np.array([6e9])
    optics = {"convergence_angle": 20e-3, "astigmatism": 4e-9, "defocus": 4e-9}
    along = transfer(Optics(**optics), k, 0 * k).real
    turned = transfer(Optics(**optics, astigmatism_angle=math.pi / 2), 0 * k, k).real
    assert along == pytest.approx(turned, abs=0.01)
    assert abs(along - transfer(Optics(**optics), 0 * k, k).real) > 0.05


def test_source_size_follows_brightness():
    current, angle, brightness = 50e-12, 24e-3, 5e12
    size = source_size(current, angle, brightness)
    assert brightness * math.pi**2 * angle**2 * size**2 / 4 == pytest.approx(current)
    assert source_size(4 * current, angle, brightness) == pytest.approx(2 * size)
    assert source_size(current, angle / 2, brightness) == pytest.approx(2 * size)
    assert source_size(current, angle, 4 * brightness) == pytest.approx(size / 2)
    wide = _width(Optics(convergence_angle=angle, source_size=2e-10))
    assert wide == pytest.approx(math.hypot(2e-10, airy_width(300e3, angle)), rel=0.05)


def test_defocus_and_the_pupil_keep_the_current():
    k = np.arange(-40, 41) * 5e8
    for defocus in (0.0, 2e-8):
        amplitude = pupil(Optics(defocus=defocus), k[:, None], k[None, :])
        assert np.sum(np.abs(amplitude) ** 2) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("bad", [{"convergence_angle": 0.0}, {"voltage": -1.0}, {"source_size": -1e-10}])
def test_impossible_optics_are_refused(bad):
    with pytest.raises(OutOfRangeError):
        Optics(**bad)
    with pytest.raises(OutOfRangeError):
        source_size(0.0, 20e-3, 1e12)
