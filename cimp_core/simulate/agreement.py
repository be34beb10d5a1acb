"""The model against multislice: stored frozen-phonon results, and how far an image model is from them.

The results are remade by bench/abtem_reference.py (300 kV, whole unit cells, scan steps at or below Nyquist).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import numpy as np

from .lattice_image import unit_cell_image
from .optics import Optics
from .structures import zone_axis_cell

__all__ = ["CONVERGENCE", "INNER", "OUTER", "REFERENCES", "Reference", "compare", "load_reference", "model_image"]

REFERENCES = ("SrTiO3-001", "Au-001", "Si-110", "GaAs-110")
"""Crystal and zone axis of the stored results."""

CONVERGENCE = (20e-3, 30e-3)
"""Convergence semi-angles [rad]."""

INNER, OUTER = (40e-3, 60e-3, 90e-3), 120e-3
"""Inner angles and the outer angle that are compared [rad]. The multislice grid loses a growing part of what goes
beyond 120 mrad to its bandwidth limit at 164 mrad, so its outer bins are stored but not compared."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Multislice images of one structure.

    Attributes
    ----------
    crystal, zone : str
    thickness : (t,) array
        [m]
    images : dict
        {(convergence, inner): (t, nx, ny) float array}, collected fraction over the unit cell, angles in rad.
    columns : dict
        {name: (x, y)}: fractional position of one column of each kind.
    peaks : dict
        {(convergence, inner): (t, columns) array}, collected fraction at the centres of the columns, in the order of
        `columns`: averaged over many more phonon configurations than the images. Empty if all columns are alike.
    """

    crystal: str
    zone: str
    thickness: np.ndarray
    images: dict[tuple[float, float], np.ndarray]
    columns: dict[str, tuple[float, float]]
    peaks: dict[tuple[float, float], np.ndarray]


def load_reference(name: str, outer: float = OUTER) -> Reference:
    """Stored results of one of `REFERENCES`, collected from each inner angle up to `outer` [rad]."""
    crystal, zone = name.split("-")
    with resources.files(__package__).joinpath("multislice.npz").open("rb") as file, np.load(file) as stored:
        width = float(stored[f"{name}/bin"]) * 1e-3
        kinds = stored[f"{name}/kinds"].tolist() if f"{name}/kinds" in stored else []
        images, peaks = {}, {}
        for convergence, inner in itertools.product(CONVERGENCE, INNER):
            key, collected = f"{convergence * 1e3:.0f}", slice(round(inner / width), round(outer / width))
            bins, index = stored[f"{name}/fraction_{key}"].astype(float), stored[f"{name}/index_{key}"]
            images[convergence, inner] = bins[..., collected].sum(-1)[:, index]
            if kinds:
                peaks[convergence, inner] = stored[f"{name}/peaks_{key}"][..., collected].astype(float).sum(-1)
        thickness = stored[f"{name}/thickness"] * 1e-10
    cell, named = zone_axis_cell(crystal, zone), {}
    for element, position in zip(cell.elements, cell.positions, strict=True):
        named.setdefault(tuple(np.round(position[:2] / cell.size[:2], 3)), set()).add(element)
    places: dict[str, tuple[float, float]] = {}
    for place, elements in named.items():
        places.setdefault("".join(sorted(elements)), place)
    return Reference(crystal, zone, thickness, images, {kind: places[kind] for kind in kinds}, peaks)


def model_image(reference: Reference, convergence: float, inner: float, outer: float = OUTER) -> np.ndarray:
    """The model's images (t, nx, ny) on the grid of the reference, in focus, with a point source."""
    optics = Optics(convergence_angle=convergence)
    orders = unit_cell_image(reference.crystal, reference.zone, optics, inner, outer, reference.thickness * 1e10)
    return sample(orders, reference.images[convergence, inner].shape[1:])


def sample(orders: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Image on a regular grid of the cell from Fourier coefficients (t, 2h + 1, 2k + 1)."""
    waves = []
    for n, size in zip(orders.shape[1:], shape, strict=True):
        waves.append(np.exp(2j * np.pi * np.outer(np.arange(size) / size, np.arange(n) - n // 2)))
    return (waves[0] @ orders @ waves[1].T).real


def compare(reference: Reference, model: Callable[[float, float], np.ndarray]) -> dict[str, np.ndarray | float]:
    """Agreement of `model` after ONE affine map shared over all angles, thicknesses and convergences.

    Parameters
    ----------
    model : callable
        (convergence, inner) -> (t, nx, ny) images on the reference's grid.

    Returns
    -------
    dict
        "scale", "offset" of the map (least squares of the relative error of the mean collected fractions), and over
        all images (18 of each structure) as arrays: "correlation"; "fraction", ratio of the mean collected fractions;
        "columns", ratio of the model's to the reference's intensity ratio of columns (pairs that are at least a tenth
        as bright as the brightest); "background", difference of background/peak.
    """
    truth = [image for stack in reference.images.values() for image in stack]
    guess = [image for key in reference.images for image in model(*key)]
    means = np.array([[b.mean(), 1.0] for b in guess]) / np.array([[a.mean()] for a in truth])
    scale, offset = np.linalg.lstsq(means, np.ones(len(truth)), rcond=None)[0]
    fitted = [scale * image + offset for image in guess]
    pairs = list(zip(truth, fitted, strict=True))
    return {
        "scale": float(scale),
        "offset": float(offset),
        "correlation": np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]),
        "fraction": np.array([b.mean() / a.mean() for a, b in pairs]),
        "columns": _column_ratios(reference, fitted),
        "background": np.array([b.min() / b.max() - a.min() / a.max() for a, b in pairs]),
    }


def _column_ratios(reference: Reference, fitted: list[np.ndarray]) -> np.ndarray:
    """Ratio of column ratios, model over reference; empty if all columns are alike."""
    truth = [row for rows in reference.peaks.values() for row in rows]
    ratios = []
    for image, peaks in zip(fitted, truth, strict=False):
        spots = [np.rint(np.multiply(p, image.shape)).astype(int) % image.shape for p in reference.columns.values()]
        model, brightest = np.array([image[tuple(spot)] for spot in spots]), peaks.argmax()
        others = (peaks > 0.1 * peaks[brightest]) & (np.arange(len(peaks)) != brightest)
        ratios.append((model / model[brightest] / (peaks / peaks[brightest]))[others])
    return np.concatenate(ratios) if ratios else np.array([])
