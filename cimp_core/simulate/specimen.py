"""The noise-free HAADF image of a specimen under any settings.

`draw_specimen` gives a random `Specimen`; `expectation` images it. A specimen lives in real space, so the same area can
be imaged again at another scan step, probe or detector.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from ..errors import OutOfRangeError
from . import render, scattering
from .channelling import guide
from .lattice_image import site_kernel
from .optics import Optics, probe_deviation
from .pieces import ADATOMS, MATERIALS, Grain, Specimen, draw_specimen
from .structures import CRYSTALS

__all__ = ["MATERIALS", "Specimen", "draw_specimen", "expectation"]


def _cover(scan: render.Scan, window, shape: tuple, blur: float) -> np.ndarray | float:
    """Thickness of a shape relative to its largest, over a window of the scan (r, c).

    A straight boundary is as sharp as the probe: `blur` is the standard deviation of its intensity [angstrom]. A
    ball thins out by itself.
    """
    if shape[0] == "all":
        return 1.0
    x, y = scan.grid(window)
    if shape[0] == "half":
        _, x0, y0, normal = shape
        distance = (x - np.float32(x0)) * np.float32(math.cos(normal)) + (y - np.float32(y0)) * np.float32(
            math.sin(normal)
        )
        return _step(distance, blur)
    if shape[0] == "ball":
        _, x0, y0, radius, _ = shape
        return np.sqrt(
            np.clip(1 - ((x - np.float32(x0)) ** 2 + (y - np.float32(y0)) ** 2) / np.float32(radius**2), 0, None)
        )
    _, own, seeds = shape
    cover: np.ndarray | float = 1.0
    for other, (x1, y1) in enumerate(seeds):
        if other != own:
            x0, y0 = seeds[own]
            apart = math.hypot(x1 - x0, y1 - y0)
            # Signed distance from the line half-way between the two seeds.
            along = x * np.float32((x0 - x1) / apart) + y * np.float32((y0 - y1) / apart)
            cover = cover * _step(along - np.float32((x0**2 + y0**2 - x1**2 - y1**2) / (2 * apart)), blur)
    return cover


def _step(distance: np.ndarray, blur: float) -> np.ndarray:
    """A step at distance zero seen through a Gaussian probe, exactly 0 and 1 beyond three standard deviations."""
    share = special.ndtr(distance * np.float32(1 / max(blur, 1e-3)))
    return np.clip((share - np.float32(0.00135)) / np.float32(0.9973), 0, 1)


def _bounds(thickness: np.ndarray) -> tuple[slice, slice]:
    """Smallest window that holds all that is thicker than nothing."""
    rows, columns = np.flatnonzero(thickness.any(1)), np.flatnonzero(thickness.any(0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else (slice(1), slice(1))


def _profile(specimen: Specimen, scan: render.Scan) -> np.ndarray:
    """Thickness relative to the nominal one over the whole scan (n, n) float32."""
    x, y = scan.grid(scan.whole)
    profile = 1 + np.float32(specimen.slope[0]) * x + np.float32(specimen.slope[1]) * y
    if CRYSTALS.get(specimen.material) is None or not CRYSTALS[specimen.material].layered:
        profile = profile + np.float32(0.05) * render.ripple(scan, specimen.relief)
    if specimen.edge is not None:
        distance, normal, width = specimen.edge
        inward = np.float32(distance) - (x * np.float32(math.cos(normal)) + y * np.float32(math.sin(normal)))
        profile = profile * np.clip(inward / np.float32(width), 0, 1)
    return np.maximum(profile, 0)


def expectation(
    specimen: Specimen,
    optics: Optics,
    inner_angle: float,
    outer_angle: float,
    pixel_size: float,
    size: int,
    drift: np.ndarray | None = None,
) -> np.ndarray:
    """Expected fraction of the incident electrons that reaches the annular detector at each scan position.

    Parameters
    ----------
    inner_angle, outer_angle : float
        Collection range [rad]; the inner angle must exceed the convergence angle.
    pixel_size : float
        Scan step [m].
    drift : (size, 2) array, optional
        Displacement of each row along x and y [m]: drift and row jitter.

    Returns
    -------
    (size, size) float64 array
        Rows are slow scan, values 0 to 1, without noise.

    Raises
    ------
    OutOfRangeError
        The collection range is empty or not dark field.
    """
    if not optics.convergence_angle < inner_angle < outer_angle:
        raise OutOfRangeError(
            f"collection {inner_angle * 1e3:g} to {outer_angle * 1e3:g} mrad at {optics.convergence_angle * 1e3:g} "
            "mrad convergence is no dark field: choose inner angle > convergence angle, and outer > inner"
        )
    scan = render.Scan.of(pixel_size, size, drift)
    settings = render.Settings(optics, float(inner_angle), float(outer_angle))
    profile = _profile(specimen, scan)
    bounded = any(grain.shape[0] not in ("all", "ball") for grain in specimen.grains)
    blur = probe_deviation(optics) * 1e10 if bounded else 0.0
    image = np.zeros((size, size), np.float32)
    for grain in specimen.grains:
        window = scan.whole if grain.shape[0] != "ball" else scan.window(*grain.shape[1:4])
        if window is None:
            continue
        cover = _cover(scan, window, grain.shape, blur)
        if grain.shape[0] == "ball":
            thickness, share, above = np.float32(grain.thickness) * cover, 1.0, image[window]
        else:
            window = _bounds(cover * profile)
            thickness = np.float32(grain.thickness) * profile[window]
            # On a boundary the probe is partly in each of two neighbours; neither shades the other.
            share, above = (cover, image[window]) if grain.shape[0] == "all" else (cover[window], np.float32(0))
        layer = share * render.lattice(scan, window, settings, grain.crystal, thickness, grain.place, grain.tilt)
        # What one body took off the axis, the one below cannot take again.
        image[window] += layer * (1 - above)
        if len(grain.sites) and grain.tilt is not None:
            _stamp_defects(image, scan, settings, grain)
    if specimen.carbon > 0:
        carbon = specimen.carbon * profile if specimen.kind != "sheet" else specimen.carbon
        image += render.film(scan, settings, carbon, specimen.speckle) * (1 - image)
    if len(specimen.adatoms) and scan.step < 4:
        kernel, edges = render.probe_kernel(optics)
        sections = np.array([_section(element, settings) for element in ADATOMS])
        atoms = np.column_stack([specimen.adatoms[:, :2], sections[specimen.adatoms[:, 2].astype(int)]])
        render.stamp(image, scan, kernel, edges, atoms, 0.0)
    return np.clip(image, 0, 1).astype(np.float64)


def _section(element: str, settings: render.Settings) -> float:
    """Cross section of a free atom onto the detector [angstrom^2]."""
    one = scattering.atom(element, 0.5, settings.optics.voltage)
    return float(scattering.annulus_q(*settings.angles) @ one.total_q)


def _stamp_defects(image: np.ndarray, scan: render.Scan, settings: render.Settings, grain: Grain) -> None:
    """Add to `image` what point defects scatter more or less than the atom they replace."""
    tables = guide(*grain.crystal, settings.optics.voltage)
    for column in np.unique(grain.sites[:, 0]).astype(int):
        chosen = grain.sites[grain.sites[:, 0] == column]
        own = tables.columns[column]
        section = _section(own.element, settings)
        kernel, edges = site_kernel(*grain.crystal, settings.optics, column, float(chosen[:, 3].mean()), grain.tilt)
        atoms = np.column_stack([chosen[:, 1:3], chosen[:, 4] * section])
        render.stamp(image, scan, kernel, edges, atoms, grain.place[2])
    np.maximum(image, 0, out=image)
