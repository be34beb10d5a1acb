"""The probe: wavelength, aberrations, source size, and what of the specimen's detail they let through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import constants, fft, ndimage, special

from ..errors import OutOfRangeError

__all__ = ["Optics", "diffraction_limit", "probe_deviation", "pupil", "source_size", "transfer", "wavelength"]

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation."""

_FOCUS_NODES = ((0.0, 2 / 3), (math.sqrt(3), 1 / 6), (-math.sqrt(3), 1 / 6))
"""Gauss-Hermite nodes (in standard deviations) and weights for the focal spread."""


@dataclass(frozen=True)
class Optics:
    """Settings and faults of the probe-forming lens, SI units.

    Parameters
    ----------
    voltage : float
        Acceleration voltage [V].
    convergence_angle : float
        Semi-angle of the aperture [rad].
    source_size : float
        Diameter (FWHM) of the Gaussian source image in the specimen plane [m], see `source_size`.
    defocus : float
        Positive is underfocus [m]; 0 focuses on the entrance surface.
    spherical_aberration : float
        Third-order spherical aberration [m].
    astigmatism, astigmatism_angle : float
        Twofold astigmatism [m] and its azimuth [rad].
    focal_spread : float
        Standard deviation of the focus from the energy spread of the beam [m].

    Raises
    ------
    OutOfRangeError
        Voltage or convergence angle is not positive, or a size is negative.
    """

    voltage: float = 300e3
    convergence_angle: float = 24e-3
    source_size: float = 0.0
    defocus: float = 0.0
    spherical_aberration: float = 0.0
    astigmatism: float = 0.0
    astigmatism_angle: float = 0.0
    focal_spread: float = 0.0

    def __post_init__(self) -> None:
        if not (self.voltage > 0 and 0 < self.convergence_angle < 0.2):
            raise OutOfRangeError(
                f"voltage {self.voltage:g} V, convergence angle {self.convergence_angle:g} rad: "
                "the voltage must be positive and the angle between 0 and 0.2 rad"
            )
        if self.source_size < 0 or self.focal_spread < 0:
            raise OutOfRangeError(
                f"source size {self.source_size:g} m, focal spread {self.focal_spread:g} m: below zero"
            )


def wavelength(voltage: float) -> float:
    """Relativistic electron wavelength [m] at `voltage` [V]."""
    energy = constants.e * voltage
    return constants.h * constants.c / math.sqrt(energy * (energy + 2 * constants.m_e * constants.c**2))


def diffraction_limit(voltage: float, convergence_angle: float) -> float:
    """Radius of the first zero of the aberration-free probe, 0.61 lambda / alpha [m]."""
    return 0.61 * wavelength(voltage) / convergence_angle


def source_size(beam_current: float, convergence_angle: float, brightness: float) -> float:
    """Diameter of the source image [m] that a current asks for.

    Brightness B [A m^-2 sr^-1] is conserved along the column, so I = B pi^2 alpha^2 d^2 / 4
    (Reimer and Kohl, *Transmission Electron Microscopy*, 5th ed., section 4.2).

    Raises
    ------
    OutOfRangeError
        One of current [A], convergence angle [rad] or brightness is not positive.
    """
    if not (beam_current > 0 and convergence_angle > 0 and brightness > 0):
        raise OutOfRangeError("beam current, convergence angle and brightness must be positive")
    return 2 / (math.pi * convergence_angle) * math.sqrt(beam_current / brightness)


def pupil(optics: Optics, kx: np.ndarray, ky: np.ndarray, focus: float = 0.0) -> np.ndarray:
    """Amplitude of the incident plane waves, normalised to unit total intensity.

    Parameters
    ----------
    kx, ky : arrays that broadcast
        Spatial frequency [1/m] on a regular grid.
    focus : float
        Change of focus added to `optics.defocus` [m].

    Returns
    -------
    complex64 array
        exp(-i chi) inside the aperture, 0 outside; the edge is softened over one grid step.
    """
    lam = wavelength(optics.voltage)
    k2 = kx**2 + ky**2
    step = np.abs(np.diff(np.ravel(kx)[:2]))[0] if kx.size > 1 else 1.0
    inside = np.clip((optics.convergence_angle / lam - np.sqrt(k2)) / step + 0.5, 0, 1)
    chi = -math.pi * lam * (optics.defocus + focus) * k2 + 0.5 * math.pi * lam**3 * optics.spherical_aberration * k2**2
    if optics.astigmatism:
        a, b = math.cos(2 * optics.astigmatism_angle), math.sin(2 * optics.astigmatism_angle)
        chi = chi + math.pi * lam * optics.astigmatism * (a * (kx**2 - ky**2) + 2 * b * kx * ky)
    amplitude = (np.sqrt(inside) * np.exp(-1j * chi)).astype(np.complex64)
    return amplitude / np.sqrt(inside.sum())


def source_transfer(optics: Optics, k2: np.ndarray) -> np.ndarray:
    """Transfer of the Gaussian source image at squared spatial frequency `k2` [1/m^2]."""
    sigma = optics.source_size / FWHM
    return np.exp(-2 * math.pi**2 * sigma**2 * k2)


def focus_nodes(optics: Optics) -> list[tuple[float, float]]:
    """Focus offsets [m] and weights that stand for the focal spread."""
    return [(x * optics.focal_spread, w) for x, w in _FOCUS_NODES] if optics.focal_spread else [(0.0, 1.0)]


def transfer(optics: Optics, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """Optical transfer function: Fourier transform of the probe's intensity, source image included.

    Parameters
    ----------
    kx, ky : arrays that broadcast
        Spatial frequency [1/m], any values.

    Returns
    -------
    complex128 array of the broadcast shape
        1 at zero frequency, 0 beyond 2 alpha / lambda. Complex only by rounding: even aberrations keep it real.
    """
    lam = wavelength(optics.voltage)
    edge = optics.convergence_angle / lam
    k2 = kx**2 + ky**2
    aberrated = abs(optics.defocus) + abs(optics.astigmatism) + optics.focal_spread + optics.spherical_aberration
    if aberrated == 0:  # the autocorrelation of a disc, in closed form
        x = np.clip(np.sqrt(k2) / (2 * edge), 0, 1)
        return (2 / math.pi * (np.arccos(x) - x * np.sqrt(1 - x**2)) * source_transfer(optics, k2)).astype(complex)
    # The pupil's grid must hold the geometric disc that the aberrations spread the probe over.
    blur = optics.convergence_angle * (abs(optics.defocus) + abs(optics.astigmatism) + 2 * optics.focal_spread)
    blur += optics.convergence_angle**3 * abs(optics.spherical_aberration)
    half = int(np.clip(math.ceil(2.5 * blur * edge), 20, 120))
    n = fft.next_fast_len(4 * half + 4)
    step = edge / half
    k = fft.fftfreq(n, 1 / n) * step
    intensity = sum(
        w * np.abs(fft.ifft2(pupil(optics, k[:, None], k[None, :], focus))) ** 2 for focus, w in focus_nodes(optics)
    )
    grid = fft.fftshift(fft.fft2(intensity).real)
    grid /= grid[n // 2, n // 2]
    where = np.broadcast_arrays(np.asarray(kx) / step + n // 2, np.asarray(ky) / step + n // 2)
    values = ndimage.map_coordinates(grid, np.array(where, np.float64), order=1, mode="constant")
    return values * source_transfer(optics, k2) + 0j


def airy_width(voltage: float, convergence_angle: float) -> float:
    """Full width at half maximum of the aberration-free probe [m]: 0.514 lambda / alpha."""
    x = 1.61633995  # where (2 J1(x) / x)^2 = 1/2
    assert abs((2 * special.j1(x) / x) ** 2 - 0.5) < 1e-6
    return x / math.pi * wavelength(voltage) / convergence_angle


def probe_deviation(optics: Optics) -> float:
    """Standard deviation [m] of the Gaussian whose transfer falls to one half where that of the probe does.

    The second moment of a probe with a sharp aperture does not exist; this is the width that blurs an edge.
    """
    k = np.linspace(0, 2 * optics.convergence_angle / wavelength(optics.voltage), 129)
    directions = np.array([(1, 0), (0, 1), (0.5**0.5, 0.5**0.5)])
    mean = transfer(optics, *(k * d[:, None] for d in directions.T)).real.mean(0)
    below = int(np.argmax(mean < 0.5))
    half = np.interp(0.5, mean[[below, below - 1]], k[[below, below - 1]])
    return math.sqrt(2 * math.log(2)) / (2 * math.pi * half)
