"""Blind spots: pictures in which some pixels are replaced, so that a network cannot see what it has to predict.

Krull, Buchholz and Jug, CVPR 2019, arXiv:1811.10980: a pixel gets the value of a random neighbour. Höck et al.,
arXiv:2211.08512 (N2V2): the median of its neighbours. Broaddus et al., ISBI 2020 (structN2V): the pixels of its row
whose noise goes with its own are replaced too.
"""

from __future__ import annotations

import numpy as np

from ..errors import OutOfRangeError

__all__ = ["BLINDS", "REPLACEMENTS", "blind_spots"]

BLINDS, REPLACEMENTS = ("pixel", "row"), ("uniform", "median")


def blind_spots(
    patches: np.ndarray,
    rng: np.random.Generator,
    *,
    share: float = 0.01,
    radius: int = 5,
    replace: str = "uniform",
    blind: str = "pixel",
    reach: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Replace one pixel of every box of about ``1 / share`` pixels.

    Nothing of a replaced pixel is left anywhere: replacements come from pixels that are not replaced themselves.

    Parameters
    ----------
    patches : (n, h, w) array
    rng : numpy.random.Generator
        Chooses the pixels and their neighbours.
    share : float
        Part of the pixels to predict; above 0, at most 1/4.
    radius : int
        Neighbours are taken from the square of ``2 * radius + 1`` pixels around.
    replace : {"uniform", "median"}
        A random neighbour, or the median of them all.
    blind : {"pixel", "row"}
        Hide the pixel alone, or also the `reach` pixels on both sides in its row, each replaced by neighbours of other
        rows of its own.
    reach : int
        Used with ``blind="row"``; a larger one hides after-glow of a longer decay.

    Returns
    -------
    masked : (n, h, w) array
        Of the type of `patches`.
    targets : (n, h, w) bool array
        Pixels to predict; with ``blind="row"`` only the middle of what is hidden.

    Raises
    ------
    OutOfRangeError
        An option is none of the above.
    """
    if replace not in REPLACEMENTS or blind not in BLINDS:
        raise OutOfRangeError(f"replace={replace!r}, blind={blind!r}: choose from {REPLACEMENTS} and {BLINDS}")
    if not 0 < share <= 0.25 or radius < 1 or reach < 1:
        raise OutOfRangeError(f"share={share}, radius={radius}, reach={reach}: (0, 0.25], from 1, from 1")
    targets = _one_a_box(patches.shape, share, rng)
    hidden = targets.copy()
    if blind == "row":
        for k in range(1, reach + 1):
            hidden[..., k:] |= targets[..., :-k]
            hidden[..., :-k] |= targets[..., k:]
    n, y, x = np.nonzero(hidden)
    values, usable = _neighbours(patches, hidden, n, y, x, radius, skip_row=blind == "row")
    masked = patches.copy()
    some = usable.any(1)
    # Where all neighbours are hidden (a wide reach in a tiny patch) the mean tells nothing of the pixel either.
    masked[n, y, x] = patches[~hidden].mean() if (~hidden).any() else 0
    chosen = _chosen(values[some], usable[some], replace, rng)
    masked[n[some], y[some], x[some]] = chosen
    return masked, targets


def _one_a_box(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> np.ndarray:
    """One random pixel of each box of a grid that begins at a random place (stratified sampling)."""
    n, height, width = shape
    box = max(2, round(share**-0.5))
    rows, columns = -(-height // box) + 1, -(-width // box) + 1
    start = rng.integers(-box + 1, 1, (2, n, 1, 1))
    place = rng.integers(0, box, (2, n, rows, columns))
    y = start[0] + box * np.arange(rows)[:, None] + place[0]
    x = start[1] + box * np.arange(columns) + place[1]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    targets = np.zeros(shape, bool)
    targets[np.nonzero(inside)[0], y[inside], x[inside]] = True
    return targets


def _neighbours(patches, hidden, n, y, x, radius: int, skip_row: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values around the pixels (n, y, x), (m, k), and which of them are in the patch and not hidden."""
    height, width = patches.shape[1:]
    side = np.arange(-radius, radius + 1)
    dy, dx = (d.ravel() for d in np.meshgrid(side, side, indexing="ij"))
    if skip_row:
        dy, dx = dy[dy != 0], dx[dy != 0]
    yy, xx = y[:, None] + dy, x[:, None] + dx
    inside = (yy >= 0) & (yy < height) & (xx >= 0) & (xx < width)
    yy, xx = yy.clip(0, height - 1), xx.clip(0, width - 1)
    return patches[n[:, None], yy, xx], inside & ~hidden[n[:, None], yy, xx]


def _chosen(values: np.ndarray, usable: np.ndarray, replace: str, rng: np.random.Generator) -> np.ndarray:
    if replace == "median":
        return np.nanmedian(np.where(usable, values, np.nan), axis=1)
    # The largest of independent random numbers is at each usable neighbour with the same probability.
    draw = np.where(usable, rng.random(values.shape, np.float32), -1.0)
    return values[np.arange(len(values)), draw.argmax(1)]
