"""How single atoms and plural scattering send electrons to the annular detector.

Everything here is in angstrom and 1/angstrom (g = theta / lambda), with intensities relative to the incident
electrons. An atom scatters as a phase object: F(g) is the two-dimensional Fourier transform of exp(i chi(b)) - 1,
where chi is its projected potential times the interaction constant. Thermal vibration (Einstein model) splits
|F|^2 into the elastic part |F|^2 exp(-B g^2 / 2) and the thermal diffuse part, which is the rest
(Hall and Hirsch, Proc. R. Soc. A 286, 158 (1965)).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from scipy import constants, special

from ..errors import OutOfRangeError
from .optics import wavelength

__all__ = ["Atom", "annulus", "annulus_q", "atom", "atomic_number", "plural_fraction", "scattering_factor"]


def _panels(edge: float, panels: int, order: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes on equal panels of [0, edge], and weights times 2 pi x: a radial integral's measure.

    High order matters: the rare large angles are what is left when a hundred times larger terms cancel.
    """
    x, w = np.polynomial.legendre.leggauss(order)
    half = edge / panels / 2
    nodes = (np.arange(panels)[:, None] * 2 + 1 + x).ravel() * half
    return nodes, 2 * math.pi * nodes * np.tile(w * half, panels)


G, _G_WEIGHTS = _panels(16.0, 44)
"""Scattering vectors at which |F| is tabulated [1/angstrom]; 16 is 315 mrad at 300 kV."""

Q, _Q_WEIGHTS = _panels(8.0, 60)
"""Distances of the Hankel transforms of angular distributions [angstrom]."""

_J0 = special.j0(2 * math.pi * Q[:, None] * G[None, :]) * _G_WEIGHTS[None, :]
"""Hankel transform from G to Q."""


@lru_cache(maxsize=1)
def _parameters() -> dict:
    text = resources.files(__package__).joinpath("scattering_factors.json").read_text(encoding="utf-8")
    return json.loads(text)["elements"]


def _element(element: str) -> dict:
    if element not in _parameters():
        raise OutOfRangeError(f"no scattering factor for {element!r}; there are {', '.join(_parameters())}")
    return _parameters()[element]


def _lobato(element: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array(_element(element)["a"]), np.array(_element(element)["b"])


def atomic_number(element: str) -> int:
    """Atomic number of an element of the table; raises `OutOfRangeError` for others."""
    return int(_element(element)["Z"])


def scattering_factor(element: str, g: np.ndarray) -> np.ndarray:
    """Electron scattering factor of the first Born approximation at rest mass [angstrom], `g` in 1/angstrom.

    Raises
    ------
    OutOfRangeError
        `element` is not in the table.
    """
    a, b = _lobato(element)
    bg2 = b * np.asarray(g)[..., None] ** 2
    return np.sum(a * (2 + bg2) / (1 + bg2) ** 2, axis=-1)


@dataclass(frozen=True, eq=False)
class Atom:
    """Scattering of one vibrating atom, tabulated on `G` and, Hankel-transformed, on `Q`.

    Attributes
    ----------
    amplitude : complex array
        F(g) [angstrom^2].
    elastic, diffuse : float arrays
        |F|^2 exp(-B g^2 / 2) and the rest [angstrom^4].
    total_q, diffuse_q : float arrays
        Hankel transforms of |F|^2 and of the diffuse part [angstrom^2].
    total : float
        Cross section of all scattering, the integral of |F|^2 [angstrom^2].
    diffuse_total : float
        The diffuse part of it.
    """

    amplitude: np.ndarray
    elastic: np.ndarray
    diffuse: np.ndarray
    total_q: np.ndarray
    diffuse_q: np.ndarray
    total: float
    diffuse_total: float


@lru_cache(maxsize=256)
def _amplitude(element: str, voltage: float) -> np.ndarray:
    lam = wavelength(voltage) * 1e10
    gamma = 1 + constants.e * voltage / (constants.m_e * constants.c**2)
    a, b = _lobato(element)
    r = np.geomspace(1e-4, 12, 1200)
    x = 2 * math.pi * r[:, None] / np.sqrt(b)
    # Fourier transform of the scattering factor's terms, in closed form.
    chi = gamma * lam * np.sum(2 * math.pi * a / b * (special.k0(x) + x / 2 * special.k1(x)), axis=1)
    # Born's term goes over exactly; only what is beyond it is integrated numerically, on a logarithmic grid.
    beyond = (np.exp(1j * chi) - 1 - 1j * chi) * 2 * math.pi * r**2 * math.log(r[1] / r[0])
    return 1j * gamma * lam * scattering_factor(element, G) + special.j0(2 * math.pi * G[:, None] * r) @ beyond


@lru_cache(maxsize=256)
def atom(element: str, debye_waller: float, voltage: float) -> Atom:
    """Tables of an atom with isotropic B [angstrom^2] at `voltage` [V]."""
    amplitude = _amplitude(element, voltage)
    total = np.abs(amplitude) ** 2
    elastic = total * np.exp(-debye_waller * G**2 / 2)
    return Atom(
        amplitude,
        elastic,
        total - elastic,
        _J0 @ total,
        _J0 @ (total - elastic),
        float(_G_WEIGHTS @ total),
        float(_G_WEIGHTS @ (total - elastic)),
    )


@lru_cache(maxsize=1024)
def annulus(inner: float, outer: float, voltage: float) -> np.ndarray:
    """Weights on `G` that integrate an angular distribution over [inner, outer] rad."""
    lam = wavelength(voltage) * 1e10
    # The edges fall between grid points: interpolate the distribution linearly onto a grid of the interval.
    fine = np.linspace(inner / lam, min(outer / lam, G[-1]), 257)
    w, index = 2 * math.pi * fine * np.gradient(fine), np.clip(np.searchsorted(G, fine) - 1, 0, len(G) - 2)
    w[[0, -1]] /= 2
    part = (fine - G[index]) / (G[index + 1] - G[index])
    return np.bincount(index, w * (1 - part), len(G)) + np.bincount(index + 1, w * part, len(G))


@lru_cache(maxsize=1024)
def annulus_q(inner: float, outer: float, convergence: float, voltage: float) -> np.ndarray:
    """Weights on `Q` that do the same to a Hankel-transformed distribution, tilted over a cone of `convergence` rad."""
    lam = wavelength(voltage) * 1e10
    ring = sum(s * k / lam * special.j1(2 * math.pi * Q * k / lam) / Q for s, k in ((1, outer), (-1, inner)))
    x = 2 * math.pi * Q * convergence / lam
    disc = 2 * special.j1(x) / x if convergence else 1.0
    return _Q_WEIGHTS * ring * disc


def plural_fraction(
    density: dict[tuple[str, float], float], inner: float, outer: float, convergence: float, voltage: float
) -> np.ndarray:
    """Fraction of electrons that an amorphous or randomly oriented body sends to the detector.

    Plural scattering of independent atoms: in Hankel space each areal density n multiplies the angular distribution
    by exp(n (S(q) - S(0))) (Goudsmit and Saunderson, Phys. Rev. 57, 24 (1940), at small angles).

    Parameters
    ----------
    density : dict
        {(element, B): areal density [1/angstrom^2]}, a number or an array (...) each.
    inner, outer, convergence : float
        Collection range and probe semi-angle [rad].
    voltage : float
        Acceleration voltage [V].

    Returns
    -------
    (...) float array
    """
    exponent, unscattered = 0.0, 0.0
    for (element, b), n in density.items():
        one = atom(element, b, voltage)
        exponent = exponent + np.asarray(n)[..., None] * (one.total_q - one.total)
        unscattered = unscattered - np.asarray(n)[..., None] * one.total
    # What is not scattered stays in the cone, inside the hole of the detector.
    scattered = np.exp(exponent) - np.exp(unscattered)
    return np.clip(scattered @ annulus_q(inner, outer, convergence, voltage), 0, 1)
