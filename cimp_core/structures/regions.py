"""Where in an image one lattice ends and another begins: tiles whose polar maps are alike, without turning them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import polar

__all__ = ["Region", "find_grains"]

TILE, LEAST = 24.0, 48
"""Edge of a tile [angstrom], and its least [pixels]."""
ALIKE = 0.62
"""Cosine, beyond what noise leaves, above which neighbouring tiles show one lattice."""
SMALLEST = 0.06
"""Share of the image that a grain has at least."""


@dataclass(frozen=True, eq=False)
class Region:
    """Attributes
    ----------
    window : (slice, slice)
        A rectangle that lies in the grain.
    mask : (m, n) bool array
        Which of the tiles of the image belong to the grain.
    share : float
        Of the image that the grain has.
    """

    window: tuple[slice, slice]
    mask: np.ndarray
    share: float


def find_grains(image: np.ndarray, pixel_size: float, most: int) -> list[Region]:
    """Regions of one lattice each, the largest first; the whole image where it cannot be divided.

    Parameters
    ----------
    pixel_size : float
        [angstrom]
    most : int
        Regions at most.
    """
    rows, columns = image.shape
    whole = Region((slice(0, rows), slice(0, columns)), np.ones((1, 1), bool), 1.0)
    edge = max(LEAST, round(TILE / pixel_size))
    step = edge // 2
    if most == 1 or min(rows, columns) < 2.5 * edge:
        return [whole]
    tops, lefts = (np.arange(0, n - edge + 1, step) for n in (rows, columns))
    maps = [[_map(image[t : t + edge, s : s + edge], pixel_size) for s in lefts] for t in tops]
    values = np.array(maps).reshape(len(tops), len(lefts), -1)
    labels = _clusters(values, most)
    found = []
    for label in range(labels.max() + 1):
        mask = labels == label
        top, bottom, left, right = _rectangle(mask)
        # Tiles overlap by half: those that lie across a boundary make a strip of one tile, which is no grain.
        strip = bottom - top + 1 < min(2, len(tops)) or right - left + 1 < min(2, len(lefts))
        if strip or mask.mean() < SMALLEST:
            continue
        window = (slice(tops[top], tops[bottom] + edge), slice(lefts[left], lefts[right] + edge))
        found.append(Region(window, mask, float(mask.mean())))
    if not found or (len(found) == 1 and found[0].share > 0.8):
        return [whole]
    return sorted(found, key=lambda r: -r.share)[:most]


def _map(tile: np.ndarray, pixel_size: float) -> np.ndarray:
    """Polar map of a tile, blurred and less its mean along the direction: what changes between grains."""
    if np.ptp(tile) == 0:
        return np.zeros(polar.RADII.size * polar.ANGLES.size, np.float32)
    from scipy import ndimage

    values = ndimage.gaussian_filter(polar.of_image(tile, pixel_size).values, (1.0, 1.5), mode=("nearest", "wrap"))
    values = values - values.mean(1, keepdims=True)
    return (values / max(float(np.linalg.norm(values)), 1e-12)).ravel()


def _clusters(values: np.ndarray, most: int) -> np.ndarray:
    """Label of each tile (m, n): average-linkage clusters of cosine, cut where they are less than `ALIKE`."""
    from scipy.cluster.hierarchy import fcluster, linkage

    shape = values.shape[:2]
    flat = values.reshape(-1, values.shape[-1])
    cosine = np.clip(flat @ flat.T, -1, 1)
    upper = 1 - cosine[np.triu_indices(len(flat), 1)]
    tree = linkage(upper, "average")
    return (fcluster(tree, 1 - ALIKE, "distance") - 1).reshape(shape)


def _rectangle(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row, first and last column of the largest rectangle of true tiles."""
    best, area = (0, 0, 0, 0), 0
    heights = np.zeros(mask.shape[1], int)
    for row in range(mask.shape[0]):
        heights = np.where(mask[row], heights + 1, 0)
        for left in range(mask.shape[1]):
            height = heights[left]
            for right in range(left, mask.shape[1]):
                height = min(height, heights[right])
                if height == 0:
                    break
                if height * (right - left + 1) > area:
                    area, best = height * (right - left + 1), (row - height + 1, row, left, right)
    return best
