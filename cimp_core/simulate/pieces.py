"""Random specimens: crystals, interfaces, particles, polycrystals, sheets and amorphous films.

A `Specimen` is a list of pieces in real space, so the same area can be imaged again at another scan step, probe or
detector. Lengths of pieces are in angstrom, from the middle of the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..errors import OutOfRangeError
from . import scattering
from .channelling import guide
from .structures import CRYSTALS, zone_axis_cell

__all__ = ["MATERIALS", "Grain", "Specimen", "draw_specimen"]

MATERIALS = (*CRYSTALS, "amorphous carbon")
"""Labels that `draw_specimen` gives."""

ZONES = {
    name: ("001", "110") if c.family == "cubic" else ("001", "100") for name, c in CRYSTALS.items() if not c.layered
}
ZONES |= {name: ("001",) for name, c in CRYSTALS.items() if c.layered}
ZONES |= dict.fromkeys(("Au", "Pt"), ("110", "001", "111"))
"""Zone axes that specimens are drawn in."""

PARTICLES = ("Au", "Pt", "Ag", "Pd", "Cu", "Ni", "Fe", "W", "CeO2", "TiO2", "MgO", "NiO", "CdTe")
"""Crystals that are also drawn as nanoparticles on carbon."""

PARTNERS = {
    "SrTiO3": "LaAlO3", "LaAlO3": "SrTiO3", "BaTiO3": "SrTiO3", "Si": "Ge", "Ge": "Si", "GaAs": "InP", "InP": "GaAs",
    "Ni": "Cu", "Cu": "Ni", "Au": "Pd", "Pd": "Au", "MgO": "Fe", "Pt": "Pd", "NiO": "MgO", "CeO2": "Si",
}  # fmt: skip
"""Second crystal at an interface."""

DOPANTS = ("La", "Hf", "Pt", "Au", "W", "In", "Sn", "Zr")


@dataclass(frozen=True, eq=False)
class Grain:
    """A crystal that fills part of the field.

    Attributes
    ----------
    crystal : (str, str)
        Name and zone axis.
    place : (float, float, float)
        Origin x, y and angle of the lattice.
    tilt : (float, float) or None
        Beam tilt off the zone axis [rad]; None where no zone axis is near.
    thickness : float
        At the origin of the field, or of a particle at its middle.
    shape : tuple
        ("all",); ("half", x, y, angle), the side to which the normal at `angle` points; ("cell", own, seeds), all that
        is nearer to seed number `own` than to the others; or ("ball", x, y, radius, flatness).
    sites : (m, 5) float array
        Point defects: column, x, y, depth, change of scattering against the column's own atom (-1: a vacancy).
    """

    crystal: tuple[str, str]
    place: tuple[float, float, float]
    tilt: tuple[float, float] | None
    thickness: float
    shape: tuple = ("all",)
    sites: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))


@dataclass(frozen=True, eq=False)
class Specimen:
    """What lies under the beam.

    Attributes
    ----------
    material : str
        One of `MATERIALS`.
    kind : str
        "crystal", "interface", "particles", "grains", "sheet" or "amorphous".
    grains : tuple of Grain
    carbon : float
        Thickness of the amorphous support or surface layer.
    slope : (float, float)
        Relative change of thickness along x and y [1/angstrom].
    edge : (float, float, float) or None
        Vacuum beyond the line at distance d along the normal (angle), over a rim of some width: (d, angle, width).
    relief, speckle : (n, 3) float arrays
        Plane waves of the thickness relief (5 % of the thickness) and of the carbon's speckle.
    adatoms : (n, 3) float array
        x, y and index into `ADATOMS` of single atoms on top.
    """

    material: str
    kind: str
    grains: tuple[Grain, ...]
    carbon: float
    slope: tuple[float, float]
    edge: tuple[float, float, float] | None
    relief: np.ndarray
    speckle: np.ndarray
    adatoms: np.ndarray


ADATOMS = ("Si", "Fe", "Cu", "Pd", "W", "Pt", "Au")
"""Elements of single atoms on carbon and sheets."""


def _plane_waves(rng: np.random.Generator, count: int, edge: float) -> np.ndarray:
    """Spatial frequencies of random azimuth, evenly spread up to `edge` [1/angstrom], with phases: (count, 3)."""
    k, azimuth = edge * rng.random(count), 2 * math.pi * rng.random(count)
    return np.stack([k * np.cos(azimuth), k * np.sin(azimuth), 2 * math.pi * rng.random(count)], 1)


def _grain(rng: np.random.Generator, name: str, width: float, thickness: float, on_axis: float, **extra) -> Grain:
    zones = ZONES[name]
    zone = zones[0] if rng.random() < 0.6 else zones[rng.integers(len(zones))]
    tilt = tuple(rng.normal(0, 3e-3, 2)) if rng.random() < on_axis else None
    place = (*rng.uniform(-5, 5, 2), rng.uniform(0, 2 * math.pi))
    return Grain((name, zone), place, tilt, thickness, **extra)


def _defects(rng: np.random.Generator, grain: Grain, width: float) -> np.ndarray:
    """Vacancies and substitutions at random sites of the field."""
    cell, tables = zone_axis_cell(*grain.crystal), guide(*grain.crystal)
    c, s = math.cos(grain.place[2]), math.sin(grain.place[2])
    found = []
    for _ in range(rng.integers(1, 25)):
        column = int(rng.integers(len(tables.columns)))
        atom = tables.columns[column]
        at = rng.uniform(-width / 2, width / 2, 2) - grain.place[:2]
        cells = np.floor(np.array([c * at[0] + s * at[1], c * at[1] - s * at[0]]) / cell.size[:2])
        u, v = cells * cell.size[:2] + atom.positions[rng.integers(len(atom.positions))]
        guest = scattering.atomic_number(DOPANTS[rng.integers(len(DOPANTS))])
        host = scattering.atomic_number(atom.element)
        change = -1.0 if rng.random() < 0.4 else (guest / host) ** 1.8 - 1
        x, y = grain.place[0] + c * u - s * v, grain.place[1] + s * u + c * v
        found.append((column, x, y, rng.uniform(0, grain.thickness), change))
    return np.array(found)


def _particles(rng: np.random.Generator, name: str, width: float) -> tuple[Grain, ...]:
    middle = math.exp(rng.normal(math.log(np.clip(width / 6, 12, 300)), 0.35))
    count = int(np.clip(rng.poisson(min(18, 0.25 * (width / middle) ** 2)), 1, 24))
    balls = []
    for _ in range(count):
        radius, flat = middle * math.exp(rng.normal(0, 0.3)), rng.uniform(0.6, 1.0)
        x, y = rng.uniform(-0.5, 0.5, 2) * width
        grain = _grain(rng, name, width, 2 * radius * flat, 0.5, shape=("ball", x, y, radius, flat))
        balls.append(grain)
    return tuple(balls)


def draw_specimen(rng: np.random.Generator, pixel_size: float, size: int, material: str | None = None) -> Specimen:
    """Random specimen for a field of `size` x `size` positions, `pixel_size` [m] apart.

    Raises
    ------
    OutOfRangeError
        `material` is not one of `MATERIALS`, or the field is empty.
    """
    if material is not None and material not in MATERIALS:
        raise OutOfRangeError(f"no material {material!r}; there are {', '.join(MATERIALS)}")
    if not (pixel_size > 0 and size > 0):
        raise OutOfRangeError(f"pixel size {pixel_size:g} m and size {size}: both must be above zero")
    width, name = pixel_size * 1e10 * size, material or MATERIALS[rng.integers(len(MATERIALS))]
    fine = pixel_size < 1.2e-10
    thickness = float(np.clip(math.exp(rng.normal(math.log(160 if fine else 350), 0.6)), 20, 1500))
    relief = _plane_waves(rng, 12, 4 / width)
    speckle = _plane_waves(rng, 160, 2.4)
    carbon, grains, adatoms = max(0.0, rng.normal(10, 12)), (), np.zeros((0, 3))
    slope = tuple(rng.normal(0, 0.15, 2) / width)
    edge = None
    if name == "amorphous carbon":
        kind, carbon = "amorphous", thickness
        if rng.random() < 0.5:
            adatoms = _adatoms(rng, width)
    elif CRYSTALS[name].layered:
        kind, layers = "sheet", int(rng.choice([1, 1, 1, 2, 3]))
        height = float(zone_axis_cell(name, "001").size[2])
        grain = _grain(rng, name, width, layers * height, 1.0)
        if fine and width < 400 and rng.random() < 0.7:
            grain = Grain(*(grain.crystal, grain.place, grain.tilt, grain.thickness), sites=_defects(rng, grain, width))
        grains, carbon, slope = (grain,), max(0.0, rng.normal(2, 4)), (0.0, 0.0)
        if rng.random() < 0.5:
            adatoms = _adatoms(rng, width)
    elif name in PARTICLES and rng.random() < 0.45:
        kind, grains, carbon = "particles", _particles(rng, name, width), rng.uniform(20, 150)
    elif name in PARTNERS and rng.random() < 0.35:
        kind, normal = "interface", rng.uniform(0, 2 * math.pi)
        on_axis = 1.0 if fine else 0.5
        first = _grain(rng, name, width, thickness, on_axis, shape=("half", 0.0, 0.0, normal))
        second = _grain(rng, PARTNERS[name], width, thickness, on_axis, shape=("half", 0.0, 0.0, normal + math.pi))
        if rng.random() < 0.8 and second.tilt is not None:  # grown on each other: the same orientation
            zone = first.crystal[1] if first.crystal[1] in ZONES[PARTNERS[name]] else second.crystal[1]
            second = Grain((PARTNERS[name], zone), first.place, first.tilt, thickness, second.shape)
        grains = (first, second)
    elif not fine and rng.random() < 0.5:
        kind, grains = "grains", _grains(rng, name, width, thickness)
    else:
        kind, grain = "crystal", _grain(rng, name, width, thickness, 0.92 if fine else 0.5)
        if fine and width < 400 and grain.tilt is not None and rng.random() < 0.4:
            sites = _defects(rng, grain, width)
            grain = Grain(grain.crystal, grain.place, grain.tilt, thickness, sites=sites)
        grains = (grain,)
    if rng.random() < (0.1 if kind == "particles" else 0.22):
        edge = (rng.uniform(-0.25, 0.5) * width, rng.uniform(0, 2 * math.pi), rng.uniform(0.02, 0.3) * width)
    return Specimen(name, kind, grains, float(carbon), slope, edge, relief, speckle, adatoms)


def _adatoms(rng: np.random.Generator, width: float) -> np.ndarray:
    count = rng.integers(1, 30)
    return np.column_stack([rng.uniform(-width / 2, width / 2, (count, 2)), rng.integers(len(ADATOMS), size=count)])


def _grains(rng: np.random.Generator, name: str, width: float, thickness: float) -> tuple[Grain, ...]:
    """Polycrystal: neighbours parted by straight boundaries through the field."""
    seeds = rng.uniform(-0.6, 0.6, (int(rng.integers(3, 9)), 2)) * width
    return tuple(
        _grain(rng, name, width, thickness * rng.uniform(0.9, 1.1), 0.35, shape=("cell", i, seeds))
        for i in range(len(seeds))
    )
