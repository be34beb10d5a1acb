"""Queries for the study of matching: pictures of a library's entries, of channelled crystals, of no crystal at all.

A query is what a microscope records: any turn and place, a field of 128 to 256 pixels of 0.1 to 0.3 angstrom, a dose,
an error of the pixel size, distortions of the scan, and differences from the library that no setting tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..simulate.lattice_image import unit_cell_image
from ..simulate.structures import ZONE_AXES, zone_axis_cell
from ..structures.crystals import Structure
from ..structures.library import Library
from ..structures.projection import Pattern, pattern, project
from ..structures.views import View, collected, recorded

__all__ = ["EASY", "Query", "amorphous", "channelled", "no_crystal", "picture", "projected"]

EASY = {
    "dose": (30.0, 100.0),
    "pixel_size": (0.1, 0.3),
    "pixels": (128, 256),
    "pixel_error": 0.0,
    "distortion": 0.0,
    "tilt": 0.0,
    "thickness": None,
    "gamma": 1.0,
    "blur": 0.0,
    "jitter": 0.0,
    "film": 0.0,
}
"""Random rotation and shift at moderate dose [electrons per bright pixel], and nothing else."""


@dataclass(frozen=True, eq=False)
class Query:
    """A recorded image with the pixel size [angstrom] that it claims, and what it shows."""

    image: np.ndarray
    pixel_size: float
    angle: float
    pixel_error: float
    dose: float
    shown: Pattern | None = None


def picture(one: Pattern, rng: np.random.Generator, settings: Mapping) -> Query:
    """Of a pattern, with `settings` as `EASY` has them; what is a pair is drawn between its ends."""
    size = float(rng.uniform(*settings["pixel_size"]))
    rows, columns = rng.integers(settings["pixels"][0], settings["pixels"][1] + 1, 2)
    dose = float(np.exp(rng.uniform(*np.log(settings["dose"]))))
    error = float(settings["pixel_error"] * rng.uniform(-1, 1))
    view = View(
        size * (1 + error),
        int(rows),
        int(columns),
        angle=float(rng.uniform(0, 2 * np.pi)),
        shift=tuple(rng.uniform(-10, 10, 2)),
        distortion=tuple(map(tuple, settings["distortion"] * rng.normal(size=(2, 2)))),
        jitter=tuple(settings["jitter"] * rng.normal(size=int(rows))) if settings["jitter"] else None,
    )
    g2 = (one.frequencies.astype(float) ** 2).sum(1)
    wide = Pattern(one.mean, one.frequencies, one.coefficients * np.exp(-settings["blur"] * rng.uniform() * g2))
    fraction = collected(wide, view)
    if settings["gamma"] != 1:
        bright = float(np.percentile(fraction, 99.5))
        fraction = bright * (fraction / bright) ** float(np.exp(rng.uniform(-1, 1) * np.log(settings["gamma"])))
    if settings["film"]:
        fraction = fraction + _film(fraction, size, settings["film"] * rng.uniform(), rng)
    return Query(recorded(fraction, dose, rng), size, view.angle, error, dose, one)


def _film(fraction: np.ndarray, size: float, amount: float, rng: np.random.Generator) -> np.ndarray:
    """What a glass on the crystal adds, by `amount` of the image's own contrast, and a change of thickness as much."""
    grainy, slow = (ndimage.gaussian_filter(rng.normal(size=fraction.shape), s / size) for s in (0.6, 12.0))
    return amount * fraction.std() * np.maximum(grainy / grainy.std() + slow / slow.std() + 2, 0)


def projected(
    library: Library, number: int, tilt: float, rng: np.random.Generator, thickness: float | None = None
) -> Pattern:
    """An entry's pattern, its columns `tilt` [rad] off the beam in any direction, at another thickness [angstrom]."""
    entry, s = library[number], library.settings
    direction = rng.uniform(0, 2 * np.pi)
    angles = s.inner_collection_angle, s.outer_collection_angle
    away = tilt * np.cos(direction), tilt * np.sin(direction)
    deep = thickness or entry.thickness * 1e10
    return pattern(project(entry.structure, entry.zone), s.optics, *angles, deep, away)


def channelled(crystal: str, zone: str, library: Library, thickness: float) -> Pattern:
    """A crystal of the twin as its own simulator, with channelling, images it; `thickness` [angstrom]."""
    s = library.settings
    angles = s.inner_collection_angle, s.outer_collection_angle
    orders = unit_cell_image(crystal, zone, s.optics, *angles, np.array([thickness]))[0]
    size = zone_axis_cell(crystal, zone).size
    h, k = (np.arange(n) - n // 2 for n in orders.shape)
    g = np.stack(np.meshgrid(h / size[0], k / size[1], indexing="ij"), -1).reshape(-1, 2)
    c = orders.reshape(-1)
    half = (g[:, 0] > 1e-9) | ((np.abs(g[:, 0]) < 1e-9) & (g[:, 1] > 1e-9))
    keep = half & (np.abs(c) > 2e-3 * np.abs(c[half]).max())
    order = np.argsort(-np.abs(c[keep]), kind="stable")
    mean = float(orders[orders.shape[0] // 2, orders.shape[1] // 2].real)
    return Pattern(mean, g[keep][order].astype(np.float32), c[keep][order].astype(np.complex64))


def zone_of(crystal: str, zone: str, family: str) -> tuple[int, int, int]:
    """The indices of a zone axis of the twin."""
    return ZONE_AXES[family][zone][2]


def equal_zones(structure: Structure, first: tuple, second: tuple) -> bool:
    """Whether the crystal's class, or a view from below, makes two zone axes equal."""
    images = structure.rotations @ np.array(first)
    return any(np.array_equal(v, second) or np.array_equal(-v, second) for v in images)


def amorphous(size: float, rows: int, columns: int, rng: np.random.Generator, layers: int = 8) -> np.ndarray:
    """Collected fraction of a glass: layers of atoms at random, no two of a layer nearer than 2.2 angstrom."""
    image = np.zeros((rows, columns))
    for _ in range(layers):
        count = int(rows * columns * size**2 / 2.2**2 * 1.5)
        tried = rng.uniform(0, 1, (count, 2)) * [rows * size, columns * size]
        kept = np.empty((0, 2))
        for place in tried:
            if not len(kept) or ((kept - place) ** 2).sum(1).min() > 2.2**2:
                kept = np.concatenate([kept, place[None]])
        at = np.minimum((kept / size).astype(int), [rows - 1, columns - 1])
        np.add.at(image, (at[:, 0], at[:, 1]), 1.0)
    return ndimage.gaussian_filter(image, 0.45 / size) + 0.02


def no_crystal(kind: str, rng: np.random.Generator, settings: Mapping) -> Query:
    """A query of "amorphous", "vacuum" (a slope and little else) or "noise" (shot noise of a constant)."""
    size = float(rng.uniform(*settings["pixel_size"]))
    rows, columns = rng.integers(settings["pixels"][0], settings["pixels"][1] + 1, 2)
    dose = float(np.exp(rng.uniform(*np.log(settings["dose"]))))
    if kind == "amorphous":
        fraction = amorphous(size, rows, columns, rng)
    elif kind == "noise":
        fraction = np.ones((rows, columns))
    else:
        y, x = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
        fraction, dose = 0.2 + rng.uniform(0, 1) * x + rng.uniform(0, 1) * y**2, dose / 20
    return Query(recorded(fraction, dose, rng), size, 0.0, 0.0, dose)
