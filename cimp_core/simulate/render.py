"""Pieces of an image: lattices, amorphous films and single atoms, at the positions of a scan.

Positions are in angstrom from the middle of the field; x runs along the fast scan. Every piece is a function of
position, sampled at the points where the probe stands, so a coarse scan aliases a lattice as a microscope does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from . import scattering
from .lattice_image import cell_mean, unit_cell_image
from .optics import Optics, transfer, wavelength
from .structures import zone_axis_cell

__all__ = ["Scan", "Settings", "film", "lattice", "probe_kernel", "ripple", "stamp"]

CARBON = ("C", 0.5)
CARBON_DENSITY = 0.100
"""Atoms per volume of amorphous carbon at 2.0 g/cm^3 [1/angstrom^3]."""

COARSE = 1.7
"""Scan step beyond which lattices fade to their mean [angstrom]: coarse images are taken of crystals off axis."""


@dataclass(frozen=True, eq=False)
class Scan:
    """Position (i, j) is (x[j] + dx[i], y[i]), `x` (n,) along the fast axis, `dx` and `y` (n,) per row."""

    step: float
    x: np.ndarray
    dx: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, pixel_size: float, size: int, drift: np.ndarray | None) -> Scan:
        """Scan of `size` rows [pixel size in m]; `drift` (size, 2) moves each row by (x, y) [m]."""
        step = pixel_size * 1e10
        along = (np.arange(size) - (size - 1) / 2) * step
        moved = np.zeros((size, 2)) if drift is None else np.asarray(drift, float) * 1e10
        return cls(step, along, moved[:, 0], along + moved[:, 1])

    def window(self, x: float, y: float, radius: float) -> tuple[slice, slice] | None:
        """Rows and columns within `radius` of a point, or None if there are none."""
        rows = np.flatnonzero(np.abs(self.y - y) <= radius)
        columns = np.flatnonzero(np.abs(self.x - x) <= radius + np.abs(self.dx).max())
        if not (len(rows) and len(columns)):
            return None
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def grid(self, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """float32 x (r, c) and y (r, 1) of a window."""
        rows, columns = window
        x = self.x[None, columns] + self.dx[rows, None]
        return x.astype(np.float32), self.y[rows, None].astype(np.float32)

    @property
    def whole(self) -> tuple[slice, slice]:
        return slice(0, len(self.y)), slice(0, len(self.x))


@dataclass(frozen=True)
class Settings:
    """What all pieces of one image share: `optics`, `inner` and `outer` collection angle [rad]."""

    optics: Optics
    inner: float
    outer: float

    @property
    def angles(self) -> tuple[float, float, float, float]:
        return self.inner, self.outer, self.optics.convergence_angle, self.optics.voltage


def ripple(scan: Scan, waves: np.ndarray, gain: np.ndarray | None = None) -> np.ndarray:
    """Random field of unit variance: sum of the plane waves (kx, ky [1/angstrom], phase), each times `gain`."""
    scale = np.full(len(waves), math.sqrt(2 / len(waves))) if gain is None else gain * math.sqrt(2 / len(waves))
    waves, scale = waves[scale > 1e-3].astype(np.float32), scale[scale > 1e-3].astype(np.float32)
    kx, ky = np.float32(2 * math.pi) * waves[:, 0], np.float32(2 * math.pi) * waves[:, 1]
    x, dx, y = (v.astype(np.float32) for v in (scan.x, scan.dx, scan.y))
    rows, along = np.outer(y, ky) + np.outer(dx, kx) + waves[:, 2], np.outer(kx, x)
    # cos(a + b) as two real products, far cheaper than a cosine per wave and position.
    return (np.cos(rows) * scale) @ np.cos(along) - (np.sin(rows) * scale) @ np.sin(along)


def film(scan: Scan, settings: Settings, thickness: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Amorphous carbon of `thickness` [angstrom] (a number or (n, n)); `waves` make its speckle.

    The number of atoms under the probe is Poissonian, so their density has a white spectrum of variance n t per area
    that the probe's transfer cuts off.
    """
    top = float(np.max(thickness))
    if top <= 0:
        return np.zeros((len(scan.y), len(scan.x)), np.float32)
    nodes = np.linspace(0, top, 9)
    curve = scattering.plural_fraction({CARBON: CARBON_DENSITY * nodes}, *settings.angles)
    smooth = np.interp(thickness, nodes, curve).astype(np.float32)
    k = np.hypot(waves[:, 0], waves[:, 1])
    if scan.step > 8 or k.max() <= 0:  # speckle of single atoms is below a thousandth there
        return smooth
    # Waves are drawn evenly in |k|, where the probe looks, and weighted back to evenly in area.
    gain = np.abs(transfer(settings.optics, waves[:, 0] * 1e10, waves[:, 1] * 1e10)) * np.sqrt(2 * k / k.max())
    area = 1 / (math.pi * k.max() ** 2)
    # A random field of variance 1 spread over a disc of radius k_max has the white density 1 / area of that disc.
    relative = 1 / math.sqrt(CARBON_DENSITY * top * area)
    return smooth * np.maximum(1 + relative * ripple(scan, waves, gain), 0)


def _levels(thickness: np.ndarray) -> np.ndarray:
    """Thicknesses at which lattice images are made; between them, and down to zero, they are interpolated."""
    top = float(thickness.max())
    low = float(thickness[thickness > 0].min()) if np.any(thickness > 0) else 0.0
    if top - low < 0.1 * top:
        return np.array([(top + low) / 2])
    return np.array([max(low, top / 4), top])


def lattice(
    scan: Scan,
    window: tuple[slice, slice],
    settings: Settings,
    crystal: tuple[str, str],
    thickness: np.ndarray,
    place: tuple[float, float, float],
    tilt: tuple[float, float] | None,
) -> np.ndarray:
    """Crystal of local `thickness` [angstrom] (r, c) over a window of the scan.

    Parameters
    ----------
    crystal : (str, str)
        Name and zone axis.
    place : (float, float, float)
        Origin x, y [angstrom] of the lattice and its angle in the image [rad].
    tilt : (float, float) or None
        Beam tilt off the zone axis [rad]; None: no zone axis is near, nothing is guided and no lattice seen.
    """
    top = float(thickness.max())
    if top <= 0:
        return np.zeros(thickness.shape, np.float32)
    if tilt is None or scan.step > 1.4 * COARSE:
        nodes = np.concatenate([[0], np.geomspace(top / 30, top, 7)])
        if tilt is None:
            cell = zone_axis_cell(*crystal)
            density: dict = {}
            for key in zip(cell.elements, cell.debye_waller.tolist(), strict=True):
                density[key] = density.get(key, 0.0) + nodes / float(np.prod(cell.size))
            curve = scattering.plural_fraction(density, *settings.angles)
        else:
            curve = cell_mean(*crystal, settings.optics, settings.inner, settings.outer, nodes, tilt)
        return np.interp(thickness, nodes, curve).astype(np.float32)
    levels = _levels(thickness)
    orders = unit_cell_image(*crystal, settings.optics, settings.inner, settings.outer, levels, tilt)
    fade = math.exp(-((scan.step / COARSE) ** 4))
    middle = tuple(n // 2 for n in orders.shape[1:])
    mean = orders[:, middle[0], middle[1]].copy()
    orders *= fade
    orders[:, middle[0], middle[1]] = mean
    cell = zone_axis_cell(*crystal)
    images = _fine(orders, cell.size)
    x, y = scan.grid(window)
    c, s = math.cos(place[2]), math.sin(place[2])
    shift = (x - np.float32(place[0])), (y - np.float32(place[1]))
    u = (shift[0] * np.float32(c / cell.size[0]) + shift[1] * np.float32(s / cell.size[0])) % np.float32(1)
    v = (shift[1] * np.float32(c / cell.size[1]) - shift[0] * np.float32(s / cell.size[1])) % np.float32(1)
    values = bilinear(images, u, v)
    if len(levels) == 1:
        return np.maximum(values[0] * (thickness / np.float32(levels[0])), 0)
    part = np.clip((thickness - levels[0]) / (levels[1] - levels[0]), 0, 1).astype(np.float32)
    thin = np.minimum(thickness / levels[0], 1).astype(np.float32)
    return np.maximum(values[0] * (thin * (1 - part)) + values[1] * part, 0)


def _fine(orders: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Images (t, n, m) float32 of the unit cell, fine enough for linear interpolation."""
    shape = [
        fft.next_fast_len(max(2 * n, int(edge / 0.07) + 1)) for n, edge in zip(orders.shape[1:], size, strict=False)
    ]
    spectrum = np.zeros((len(orders), *shape), np.complex64)
    index = [np.arange(n) - n // 2 for n in orders.shape[1:]]
    spectrum[:, index[0][:, None], index[1][None, :]] = orders
    return fft.ifft2(spectrum).real.astype(np.float32) * np.float32(math.prod(shape))


def bilinear(images: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Periodic linear interpolation of (t, n, m) images at fractions u, v in [0, 1] -> (t, *u.shape)."""
    t, n, m = images.shape
    padded = np.empty((t, n + 1, m + 1), np.float32)
    padded[:, :n, :m], padded[:, n, :m], padded[:, :, m] = images, images[:, 0], 0
    padded[:, :, m] = padded[:, :, 0]
    a, b = u * np.float32(n), v * np.float32(m)
    i, j = np.minimum(a.astype(np.int32), n - 1), np.minimum(b.astype(np.int32), m - 1)
    a -= i
    b -= j
    first = i * (m + 1) + j
    out = np.empty((t, *u.shape), np.float32)
    for k, flat in enumerate(padded.reshape(t, -1)):
        low, high = flat[first], flat[first + (m + 1)]
        low += b * (flat[first + 1] - low)
        high += b * (flat[first + (m + 2)] - high)
        out[k] = low + a * (high - low)
    return out


def probe_kernel(optics: Optics, radius: float = 8.0) -> tuple[np.ndarray, tuple[float, float]]:
    """Intensity of the unguided probe [1/angstrom^2], as `lattice_image.site_kernel` gives it for an atom."""
    edge = 2 * radius
    half = math.ceil(2 * optics.convergence_angle / (wavelength(optics.voltage) * 1e10) * edge) + 1
    n = fft.next_fast_len(2 * half)
    k = fft.fftfreq(n, edge / n) * 1e10
    kernel = fft.ifft2(transfer(optics, k[:, None], k[None, :])).real * n * n / edge**2
    return kernel, (edge, edge)


def stamp(
    image: np.ndarray,
    scan: Scan,
    kernel: np.ndarray,
    edges: tuple[float, float],
    atoms: np.ndarray,
    angle: float,
    tail: float = 4.0,
) -> None:
    """Add single atoms (x, y [angstrom], cross section [angstrom^2]) to `image` in place, seen through `kernel`."""
    c, s, reach = math.cos(angle), math.sin(angle), min(tail, *(e / 2 for e in edges))
    for x, y, section in atoms:
        window = scan.window(x, y, reach)
        if window is None:
            continue
        px, py = scan.grid(window)
        px, py = px - np.float32(x), py - np.float32(y)
        u, v = (c * px + s * py) / edges[0], (c * py - s * px) / edges[1]
        near = np.clip((reach - np.hypot(px, py)) / (0.3 * reach), 0, 1)
        values = bilinear(kernel[None], (u % 1).astype(np.float32), (v % 1).astype(np.float32))[0]
        image[window] += (section * values * near).astype(image.dtype)
