"""How a crystal along a zone axis guides the probe to its atoms.

The signal of an atom is the intensity of the elastic wave at the atom times the cross section of its incoherent
scattering (Pennycook and Jesson, Phys. Rev. Lett. 64, 938 (1990); Allen et al., Phys. Rev. B 68, 205408 (2003)).
By reciprocity the wave at one atom, for every incident plane wave at once, is what a point source at that atom
sends back to the entrance surface. So one backward multislice run gives A(k, n), the amplitude at the atom of
repeat n for incident plane wave k; a probe of any aberrations, tilt and position is then a sum over its aperture:
psi(R) = sum A(k, n) P(k) exp(-2 pi i k R). Slices transmit the thermal average of exp(i chi), so the wave is the
elastic one of the Einstein model and loses what thermal diffuse scattering takes away. Those electrons go on as
in an amorphous body (`scattering.annulus_q`): they are the background that rises with thickness.

Lengths in angstrom, spatial frequencies in 1/angstrom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import fft

from . import scattering
from .optics import wavelength
from .structures import CRYSTALS, Cell, zone_axis_cell

__all__ = ["Column", "Guide", "frequencies", "guide"]

GUIDED = 0.6
"""Share of the diffusely scattered electrons that go on as if guided: most are scattered by little more than the
probe's own angles, start at a column and stay with it. Fitted to multislice with `lattice_image.DELOCALISATION`."""

SAMPLING, LATERAL, DEPTH = 0.125, 8.0, 300.0
"""Grid step and smallest edge of the supercell, and depth to which channelling is followed [angstrom]."""

CUTOFF, PROBE = 0.046, 0.033
"""Largest angle of incident plane waves that the tables hold (probe and tilt), and the probe's own [rad]."""


@dataclass(frozen=True, eq=False)
class Column:
    """Atoms of one element that translations of the crystal map on each other.

    Attributes
    ----------
    element : str
    debye_waller : float
        B [angstrom^2].
    positions : (m, 2) float array
        Positions in the cell [angstrom].
    spread : float
        Distance of the displaced point sources along x and y [angstrom]. With the undisplaced one they give the mean
        over any Gaussian of smaller standard deviation (a cubature of degree 3: intensity is smooth on this scale).
    still, moved : tuple of (f, n, n) complex64 arrays
        For each group of depths the coherent modes of A(k), for the source at the atom and for the displaced ones;
        their intensities add up to the mean over the group. In FFT order.
    """

    element: str
    debye_waller: float
    positions: np.ndarray
    spread: float
    still: tuple[np.ndarray, ...]
    moved: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Guide:
    """Tables of one crystal and zone axis at one voltage.

    Attributes
    ----------
    cell : Cell
    voltage : float
        [V]
    multiples : (int, int)
        Unit cells along the edges of the supercell that sets the step of k.
    repeats : (d,) int array
        Repeats of the cell along the beam at which the wave is sampled.
    groups : tuple of int arrays
        Which of them share modes.
    columns : tuple of Column
    """

    cell: Cell
    voltage: float
    multiples: tuple[int, int]
    repeats: np.ndarray
    groups: tuple[np.ndarray, ...]
    columns: tuple[Column, ...]

    @property
    def density(self) -> dict[tuple[str, float], float]:
        """Atoms per volume [1/angstrom^3] by (element, B)."""
        found: dict[tuple[str, float], float] = {}
        for key in zip(self.cell.elements, self.cell.debye_waller.tolist(), strict=True):
            found[key] = found.get(key, 0.0) + 1 / float(np.prod(self.cell.size))
        return found


def frequencies(n: int, edge: float) -> np.ndarray:
    return fft.fftfreq(n, edge / n)


def _transmission(cell: Cell, atoms: np.ndarray, shape: tuple[int, int], voltage: float) -> np.ndarray:
    """Thermal average of exp(i chi) of one layer on the grid of the unit cell, with the guided share put back."""
    kx, ky = frequencies(shape[0], cell.size[0])[:, None], frequencies(shape[1], cell.size[1])[None, :]
    g = np.hypot(kx, ky)
    out = np.ones(shape, complex)
    for i in atoms:
        b = float(cell.debye_waller[i])
        amplitude = scattering.atom(cell.elements[i], b, voltage).amplitude
        damped = amplitude * np.exp(-b * scattering.G**2 / 4)
        spectrum = np.interp(g, scattering.G, damped.real) + 1j * np.interp(g, scattering.G, damped.imag)
        spectrum *= np.exp(-2j * math.pi * (kx * cell.positions[i, 0] + ky * cell.positions[i, 1]))
        out *= 1 + fft.ifft2(spectrum) * np.prod(shape) / np.prod(cell.size[:2])
    return (out / np.abs(out) ** GUIDED).astype(np.complex64)


def _equivalent_columns(cell: Cell) -> list[list[int]]:
    """Atoms grouped by the translations that map the cell on itself."""
    fraction = np.round(cell.positions / cell.size, 4) % 1
    labels = {(e, *np.round(f, 3)) for e, f in zip(cell.elements, fraction, strict=True)}

    def maps(shift):
        moved = np.round((fraction + shift) % 1 % 0.9999, 3)
        return {(e, *f) for e, f in zip(cell.elements, moved, strict=True)} == labels

    groups: list[list[int]] = []
    for i, element in enumerate(cell.elements):
        for group in groups:
            if cell.elements[group[0]] == element and maps(fraction[i] - fraction[group[0]]):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def _depths(limit: int) -> np.ndarray:
    """Repeats at which amplitudes are kept: each of the first, then ever sparser ones."""
    nodes = [0]
    while nodes[-1] < limit - 1:
        nodes.append(min(limit - 1, nodes[-1] + max(1, round(nodes[-1] * 0.14))))
    return np.array(nodes)


def _groups(count: int) -> list[np.ndarray]:
    """Neighbouring depths that share their coherent modes."""
    return np.array_split(np.arange(count), max(1, min(count, 8)))


def _modes(fields: np.ndarray, inside: np.ndarray, keep: int) -> np.ndarray:
    """The `keep` strongest coherent modes of an incoherent sum of `fields`, (f, n, n), scaled to its mean intensity."""
    flat = fields[:, inside]
    power, vectors = np.linalg.eigh(flat @ flat.conj().T)
    power, vectors = power[::-1], vectors[:, ::-1]
    scale = np.sqrt(power.sum() / power[:keep].sum() / len(fields))
    return (scale * np.tensordot(vectors[:, :keep].conj().T, fields, 1)).astype(np.complex64)


def _backward(cell: Cell, atom: int, spread: float, grid: tuple) -> np.ndarray:
    """A(k) at each repeat of `_depths` and each source position: (d, 5, n, n) complex64."""
    shape, kx, ky, keep, heights, transmission, propagators, limit = grid
    x, y, z = cell.positions[atom]
    sources = [(0, 0)] + [(a * spread, b * spread) for a in (-1, 1) for b in (-1, 1)]
    centre = np.exp(-2j * math.pi * (kx * x + ky * y))
    wave = np.stack([centre * np.exp(-2j * math.pi * (kx * dx + ky * dy)) for dx, dy in sources]).astype(np.complex64)
    order, wanted, kept = list(range(int(np.argmin(np.abs(heights - z)))))[::-1], set(_depths(limit).tolist()), []
    for repeat in range(limit):
        for j in order:  # the layers above, from the nearest up
            wave = fft.fft2(fft.ifft2(wave * propagators[j]) * transmission[j])
        order = list(range(len(heights)))[::-1]
        if repeat in wanted:
            # psi = sum B(-k) P(k), relative to the atom's own position.
            reversed_k = np.roll(wave[:, ::-1, ::-1], (1, 1), (1, 2)) * centre
            kept.append(reversed_k[:, keep[0]][:, :, keep[1]].astype(np.complex64))
    return np.array(kept)


@cache
def guide(crystal: str, zone: str, voltage: float = 300e3) -> Guide:
    """Channelling tables of `crystal` along `zone`: some tenths of a second, then remembered."""
    cell, lam = zone_axis_cell(crystal, zone), wavelength(voltage) * 1e10
    multiples = tuple(math.ceil(LATERAL / edge) for edge in cell.size[:2])
    unit = tuple(fft.next_fast_len(math.ceil(edge / SAMPLING)) for edge in cell.size[:2])
    shape = tuple(n * m for n, m in zip(unit, multiples, strict=True))
    heights = np.unique(np.round(cell.positions[:, 2], 1))
    layers = [np.flatnonzero(np.abs(cell.positions[:, 2] - h) < 0.051) for h in heights]
    transmission = [np.tile(_transmission(cell, layer, unit, voltage), multiples) for layer in layers]
    kx, ky = (frequencies(n, m * e) for n, m, e in zip(shape, multiples, cell.size, strict=False))
    keep = [np.abs(k) <= CUTOFF / lam for k in (kx, ky)]
    kx, ky = kx[:, None], ky[None, :]
    steps = np.diff([*heights, heights[0] + cell.size[2]])
    propagators = [np.exp(-1j * math.pi * lam * dz * (kx**2 + ky**2)).astype(np.complex64) for dz in steps]
    limit = 1 if CRYSTALS[crystal].layered else max(1, round(DEPTH / cell.size[2]))
    repeats = _depths(limit)
    inside = (np.hypot(kx, ky) * lam < PROBE)[np.ix_(*keep)]
    grid = (shape, kx, ky, keep, heights, transmission, propagators, limit)
    columns = []
    for group in _equivalent_columns(cell):
        element, b = cell.elements[group[0]], float(cell.debye_waller[group[0]])
        spread = math.sqrt(b / (8 * math.pi**2) + 0.1**2)
        fields = _backward(cell, group[0], spread, grid)
        still, moved = [], []
        for depths in _groups(len(repeats)):
            still.append(_modes(fields[depths, 0], inside, min(2, len(depths))))
            moved.append(_modes(fields[depths, 1:].reshape(-1, *fields.shape[2:]), inside, 3))
        columns.append(Column(element, b, cell.positions[group][:, :2], spread, tuple(still), tuple(moved)))
    return Guide(cell, voltage, multiples, repeats, tuple(_groups(len(repeats))), tuple(columns))
