"""The HAADF image of a crystal's unit cell: guided probe times cross section, plus what scattered electrons add.

A column's atom at depth z counts with the diffuse cross section of electrons that end on the detector after the
remaining path (single scattering onto it, and on the way through the rest of the crystal plural scattering onto and
off it), and with the elastic cross section of a column that interferes with itself.
The share of diffuse electrons that stays guided (`channelling.GUIDED`) is not taken off the second path again:
multislice agrees better so, in heavy crystals by some percent. That share and `DELOCALISATION` are the only fitted
numbers: chosen on a grid so that the worst figure of four crystals is best, see bench/fit_channelling.py.
Lengths in angstrom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from ..errors import OutOfRangeError
from . import scattering
from .channelling import CUTOFF, Column, Guide, guide
from .optics import Optics, focus_nodes, pupil, source_transfer, wavelength

__all__ = ["DELOCALISATION", "column_weights", "unit_cell_image"]

DELOCALISATION = 0.242
"""Range of the interaction that scatters by g, as a standard deviation times g; of the order of 1 / (2 pi).
Fitted once to multislice, over all stored structures, angles and thicknesses together: bench/fit_channelling.py."""

_PATHS = np.concatenate([np.linspace(0, 400, 17)[:-1], np.geomspace(400, 8000, 24)])
"""Path lengths below the diffusely scattering atom [angstrom]."""

_POWER = 0.995
"""Share of the intensity that the coherent modes of an image keep; the rest is made up by scale."""


@lru_cache(maxsize=4096)
def _coherence(element: str, b: float, period: float, inner: float, outer: float, convergence: float, voltage: float):
    """Cross section [angstrom^2] that each further atom of a column adds to elastic scattering onto the detector.

    A column of N atoms scatters elastically as |F|^2 sin^2(N pi x) / sin^2(pi x); x = period lambda (g^2 - k^2) / 2
    counts the phase between neighbours from direction k to g; atom N adds a Dirichlet kernel (Jesson and Pennycook,
    Proc. R. Soc. A 441, 261 (1993)). Soon it adds almost nothing: the atoms interfere destructively.
    """
    lam = wavelength(voltage) * 1e10
    elastic = scattering.atom(element, b, voltage).elastic
    g, step = np.linspace(inner / lam, min(outer / lam, 6.0), 161, retstep=True)
    weight = 2 * math.pi * g * step
    weight[[0, -1]] /= 2
    k = convergence / lam * np.sqrt((np.arange(6) + 0.5) / 6)  # rings of equal area
    azimuth = (np.arange(12) + 0.5) * math.pi / 12
    change = np.sqrt(g[:, None, None] ** 2 + k[:, None] ** 2 - 2 * g[:, None, None] * k[:, None] * np.cos(azimuth))
    density = np.interp(change, scattering.G, elastic).mean(2) * weight[:, None] / len(k)
    x = period * lam / 2 * (g[:, None] ** 2 - k**2)
    terms = np.einsum("gk,mgk->m", density, np.cos(2 * math.pi * np.arange(24)[:, None, None] * x))
    return terms[0] + 2 * np.concatenate([[0], np.cumsum(terms[1:])])


def _range(element: str, b: float, part: str, inner: float, outer: float, voltage: float) -> float:
    """Variance of the source that stands for a vibrating atom seen on the detector [angstrom^2]."""
    one, w = scattering.atom(element, b, voltage), scattering.annulus(inner, outer, voltage)
    shares = w * getattr(one, part)
    inverse = float(np.sum(shares / np.maximum(scattering.G, 0.1) ** 2) / np.sum(shares))
    return b / (8 * math.pi**2) + DELOCALISATION**2 * inverse


@lru_cache(maxsize=1024)
def _sections(crystal: str, zone: str, voltage: float, inner: float, outer: float, convergence: float):
    """Per column: diffuse cross section over `_PATHS`, elastic one over repeats [angstrom^2], moved sources."""
    tables = guide(crystal, zone, voltage)
    ring = scattering.annulus_q(inner, outer, convergence, voltage)
    loss = 0.0
    for (element, b), n in tables.density.items():
        one = scattering.atom(element, b, voltage)
        loss = loss + n * (one.total_q - one.total)
    spread, found = np.exp(_PATHS[:, None] * loss), []
    for column in tables.columns:
        e, b = column.element, column.debye_waller
        diffuse = (spread * scattering.atom(e, b, voltage).diffuse_q) @ ring
        elastic = _coherence(e, b, tables.cell.size[2], inner, outer, convergence, voltage)
        moved = [
            min(1.0, _range(e, b, part, inner, outer, voltage) / column.spread**2) for part in ("diffuse", "elastic")
        ]
        found.append((diffuse, elastic, *moved))
    return found


def column_weights(crystal: str, zone: str, optics: Optics, inner: float, outer: float, thickness: np.ndarray):
    """Cross section [angstrom^2] with which the groups of depths of each column count in the image.

    Parameters
    ----------
    inner, outer : float
        Collection range [rad].
    thickness : (t,) array
        Thicknesses [angstrom].

    Returns
    -------
    list of (2, t, g) arrays, one per column
        For the sources at the atom and for the displaced ones.
    """
    tables = guide(crystal, zone, optics.voltage)
    period, nodes = tables.cell.size[2], tables.repeats
    thickness = np.asarray(thickness, float)
    repeats = np.arange(max(1, math.ceil(thickness.max() / period)))
    # Atom by atom, but the last repeat of a thickness counts in part.
    count = np.clip(thickness[:, None] / period - repeats, 0, 1)
    nearest = np.abs(repeats[:, None] - nodes).argmin(1)
    owner = np.concatenate([np.full(len(g), i) for i, g in enumerate(tables.groups)])[nearest]
    share = np.eye(len(tables.groups))[owner]
    # Deeper than the tables, the elastic wave goes on to lose what diffuse scattering takes.
    loss = sum(n * scattering.atom(e, b, optics.voltage).diffuse_total for (e, b), n in tables.density.items())
    share *= np.exp(-np.maximum(repeats - nodes[-1], 0) * period * loss)[:, None]
    remaining = np.maximum(thickness[:, None] - repeats * period, 0)
    out = []
    sections = _sections(crystal, zone, optics.voltage, inner, outer, optics.convergence_angle)
    for diffuse, elastic, moved_diffuse, moved_elastic in sections:
        d = np.interp(remaining, _PATHS, diffuse)
        e = elastic[np.minimum(repeats, len(elastic) - 1)]
        moved = moved_diffuse * d + moved_elastic * e
        out.append(np.maximum([(count * (d + e - moved)) @ share, (count * moved) @ share], 0))
    return out


@dataclass(frozen=True, eq=False)
class _Aperture:
    """The probe's plane waves on the grid of the tables: their orders, and where the tables hold them."""

    edges: tuple[float, float]
    sizes: tuple[int, int]
    index: tuple[np.ndarray, np.ndarray]
    rows: np.ndarray
    columns: np.ndarray
    reach: tuple[int, int]
    k: tuple[np.ndarray, np.ndarray]


def _aperture(tables: Guide, optics: Optics, tilt: tuple[float, float]) -> _Aperture:
    lam = wavelength(optics.voltage) * 1e10
    edges = tuple(float(m * e) for m, e in zip(tables.multiples, tables.cell.size, strict=False))
    reach = tuple(math.ceil(optics.convergence_angle / lam * e) for e in edges)
    held = [n // 2 for n in tables.columns[0].still[0].shape[1:]]
    if any(r > h for r, h in zip(reach, held, strict=True)):
        raise OutOfRangeError(
            f"convergence angle {optics.convergence_angle * 1e3:g} mrad: channelling is tabulated up to "
            f"{CUTOFF * 1e3:g} mrad; choose a smaller one"
        )
    index = tuple(np.concatenate([np.arange(r + 1), np.arange(-r, 0)]) for r in reach)
    # A tilt beyond the tables is as good as their largest: the crystal is off axis.
    shift = [
        int(np.clip(round(t / lam * e), r - h, h - r)) for t, e, r, h in zip(tilt, edges, reach, held, strict=True)
    ]
    rows, columns = (i + s for i, s in zip(index, shift, strict=True))
    k = index[0][:, None] / edges[0] * 1e10, index[1][None, :] / edges[1] * 1e10
    return _Aperture(edges, tuple(fft.next_fast_len(4 * r + 2) for r in reach), index, rows, columns, reach, k)


def _strongest(column: Column, weights: np.ndarray, rows, columns, aperture: np.ndarray) -> np.ndarray:
    """Coherent modes (f, n, m) whose intensities add up to those of all depths and sources by weight."""
    fields, scale = [], []
    for modes, weight in zip((column.still, column.moved), weights, strict=True):
        for group, w in zip(modes, weight, strict=True):
            if w > 0:
                fields.append(group[:, rows[:, None], columns[None, :]])
                scale += [math.sqrt(w)] * len(group)
    if not fields:
        return np.zeros((1, len(rows), len(columns)), np.complex64)
    fields = np.concatenate(fields)
    flat = fields[:, aperture] * np.float32(np.array(scale)[:, None])
    power, vectors = np.linalg.eigh(flat @ flat.conj().T)
    power, vectors = np.maximum(power[::-1], 0), vectors[:, ::-1]
    keep = min(len(power), int(np.searchsorted(np.cumsum(power), _POWER * power.sum())) + 1)
    out = np.zeros((keep, *aperture.shape), np.complex64)
    out[:, aperture] = vectors[:, :keep].conj().T @ flat * np.float32(math.sqrt(power.sum() / power[:keep].sum()))
    return out


def _intensity(modes: np.ndarray, probe: _Aperture) -> np.ndarray:
    """Sum of |psi|^2 over coherent modes (f, n, m) against the position of the probe."""
    field = np.zeros((len(modes), *probe.sizes), np.complex64)
    field[:, probe.index[0][:, None], probe.index[1][None, :]] = modes
    wave = fft.fft2(field)
    return (wave.real**2 + wave.imag**2).sum(0)


def unit_cell_image(
    crystal: str,
    zone: str,
    optics: Optics,
    inner: float,
    outer: float,
    thickness: np.ndarray,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Fourier coefficients of the collected fraction over the projected unit cell.

    Parameters
    ----------
    inner, outer : float
        Collection range [rad].
    thickness : (t,) array
        Thicknesses [angstrom].
    tilt : (float, float)
        Angle of the beam against the zone axis along the cell's edges [rad], rounded to the step of the tables.

    Returns
    -------
    (t, 2h + 1, 2k + 1) complex128 array
        Orders -h..h and -k..k; the middle one is the mean of the cell.
    """
    tables = guide(crystal, zone, optics.voltage)
    weights = column_weights(crystal, zone, optics, inner, outer, thickness)
    cell, probe = tables.cell, _aperture(tables, optics, tilt)
    pupils = [(pupil(optics, *probe.k, f), w) for f, w in focus_nodes(optics)]
    aperture = np.abs(pupils[0][0]) > 0
    orders = [np.arange(-(2 * r // m), 2 * r // m + 1) for r, m in zip(probe.reach, tables.multiples, strict=True)]
    pick = np.ix_(*[(h * m) % n for h, m, n in zip(orders, tables.multiples, probe.sizes, strict=True)])
    gx, gy = (h / e for h, e in zip(orders, cell.size, strict=False))
    image = np.zeros((len(weights[0][0]), len(gx), len(gy)), complex)
    for column, weight in zip(tables.columns, weights, strict=True):
        phase = sum(np.exp(-2j * math.pi * (gx[:, None] * x + gy * y)) for x, y in column.positions)
        for level in range(len(image)):
            modes = _strongest(column, weight[:, level], probe.rows, probe.columns, aperture)
            kernel = 0.0
            for amplitude, share in pupils:
                kernel = kernel + share * _intensity(modes * amplitude, probe)
            image[level] += fft.fft2(kernel)[pick] / math.prod(probe.sizes) * phase
    # |psi|^2 per area of the supercell, folded onto the cell.
    return image / np.prod(cell.size[:2]) * source_transfer(optics, (gx[:, None] ** 2 + gy**2) * 1e20)


def cell_mean(
    crystal: str,
    zone: str,
    optics: Optics,
    inner: float,
    outer: float,
    thickness: np.ndarray,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Mean collected fraction of the unit cell (t,): the middle order of `unit_cell_image`, without making images."""
    tables = guide(crystal, zone, optics.voltage)
    weights = column_weights(crystal, zone, optics, inner, outer, thickness)
    probe = _aperture(tables, optics, tilt)
    aperture = np.abs(pupil(optics, *probe.k)) ** 2
    total = np.zeros(len(weights[0][0]))
    for column, weight in zip(tables.columns, weights, strict=True):
        for modes, w in zip((column.still, column.moved), weight, strict=True):
            power = [np.sum(np.abs(m[:, probe.rows[:, None], probe.columns]) ** 2 * aperture) for m in modes]
            total += w @ np.array(power) * len(column.positions)
    return total / np.prod(tables.cell.size[:2])


def site_kernel(
    crystal: str, zone: str, optics: Optics, column: int, depth: float, tilt: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, tuple[float, float]]:
    """Intensity of the wave at one atom against the probe's distance from it.

    Parameters
    ----------
    column : int
        Index into `guide(...).columns`.
    depth : float
        Depth of the atom [angstrom].

    Returns
    -------
    (n, m) float array
        [1/angstrom^2], the atom at index (0, 0), periodic.
    (float, float)
        Edges of that period [angstrom].
    """
    tables = guide(crystal, zone, optics.voltage)
    probe, source = _aperture(tables, optics, tilt), tables.columns[column]
    node = int(np.abs(tables.repeats * tables.cell.size[2] - depth).argmin())
    group = next(i for i, g in enumerate(tables.groups) if node in g)
    modes = source.moved[group][:, probe.rows[:, None], probe.columns]
    kernel = _intensity(modes * pupil(optics, *probe.k), probe)
    kx, ky = (fft.fftfreq(n, e / n) * 1e10 for n, e in zip(probe.sizes, probe.edges, strict=True))
    blurred = fft.ifft2(fft.fft2(kernel) * source_transfer(optics, kx[:, None] ** 2 + ky**2)).real
    return blurred / math.prod(probe.edges), probe.edges
