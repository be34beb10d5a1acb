"""Atomic columns in a noisy frame: Gaussian fits, and how far noise moves them.

A column is fitted by least squares with a round Gaussian of the frame's common width on a level background, in a disc
of half the distance of neighbours. Its height, background and place are free. The error of such a fit is linear in the
noise, so it follows from the noise's variance and its correlation along the row (after-glow) without drawing any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

from ..denoising.classical import Wiener
from ..metrics_structure import true_columns
from ..simulate.detector import after_glow

__all__ = [
    "WEAK",
    "FoundColumns",
    "Response",
    "fit_columns",
    "fitted_width",
    "look_for_columns",
    "obtained_error",
    "response",
]

WEAK = 0.4
"""Columns of less than this part of the median height are left out: at an edge half a column is fitted, or none."""

_ONE = 0.6827  # of normal errors lie within one standard error
_ROUNDS = 8
_WIDTHS = np.linspace(0.1, 0.6, 26)  # in spacings


class FoundColumns(NamedTuple):
    """Columns that a noisy frame shows."""

    count: int
    spacing: float  # median distance of nearest neighbours [px]
    width: float  # standard deviation of the Gaussian without after-glow [px]
    height: float  # of the column whose error is the typical one, without after-glow [counts]
    height_error: float  # relative standard error of it
    level: float  # mean of the counts where a column's flanks are, which is where its place is read


class Response(NamedTuple):
    """What a fit makes of a Gaussian of height 1 and of white noise of variance 1, both after the after-glow."""

    height: float  # that it reports
    width: float  # that fits best [px]
    down: float  # variance of the place across rows [px^2]
    along: float  # variance of the place along the row [px^2]
    height_variance: float


def look_for_columns(frame: np.ndarray, white: float, glow: float) -> FoundColumns | None:
    """Columns of (h, w) counts whose noise is known; ``None`` where the frame does not show any.

    They are looked for in a copy from which noise was filtered, where a lattice stands out long before a single column
    does, and measured in the frame itself.

    Parameters
    ----------
    white : float
        Variance of the noise of a pixel before after-glow [counts^2].
    glow : float
        Decay time over dwell time.
    """
    frame = np.asarray(frame, float)
    shown = np.asarray(Wiener()(frame.astype(np.float32))[0], float)
    columns = true_columns(shown)
    if columns is None:
        return None
    seen = fitted_width(frame, columns.positions, columns.spacing)
    if seen is None:
        return None
    width = _without_glow(seen, columns.spacing, glow)
    _, height, background = fit_columns(frame, columns.positions, columns.spacing, seen, move=False)
    made = response(width, columns.spacing, glow)
    noise = white * made.height_variance
    heights = height / made.height
    spread, noise = float(np.var(heights)), noise / made.height**2
    middle = float(np.mean(heights))
    if not middle > 3 * math.sqrt(noise / len(heights)):
        return None
    # What noise adds to the spread of the heights is taken off before they are inverted.
    kept = math.sqrt(max(0.0, 1 - noise / spread)) if spread > 0 else 0.0
    own = middle + kept * (heights - middle)
    strong = own > WEAK * np.median(own)
    error = math.sqrt((spread + noise) / len(heights)) / middle
    # The squared slope of a Gaussian has its mean at 4/9 of the height.
    level = float(np.mean(background + 4 / 9 * height))
    return FoundColumns(int(strong.sum()), columns.spacing, width, _typical(own[strong]), error, level)


def _typical(heights: np.ndarray) -> float:
    """Height of which the standard error is exceeded by 32 % of the errors of all columns, as by one alone."""
    low, high = np.log(0.3 / heights.max()), np.log(3 / heights.min())
    for _ in range(40):
        middle = (low + high) / 2
        inside = float(np.mean(special.erf(np.exp(middle) * heights / math.sqrt(2))))
        low, high = (middle, high) if inside < _ONE else (low, middle)
    return float(np.exp(-middle))


def fitted_width(image: np.ndarray, points: np.ndarray, spacing: float) -> float | None:
    """Width [px] of the round Gaussian that fits the mean of all columns best; ``None`` without a peak there."""
    patches, y, x, inside = _patches(image, points, spacing)
    mean = patches.mean(axis=0)[inside]
    offset = points - np.rint(points)
    best, width = np.inf, None
    for sigma in _WIDTHS * spacing:
        # The mean of columns that lie anywhere within their pixels.
        peak = np.mean([np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * sigma**2)) for a, b in offset[:200]], axis=0)[
            inside
        ]
        design = np.stack([peak, np.ones_like(peak)], axis=1)
        found, *_ = np.linalg.lstsq(design, mean, rcond=None)
        left = float(np.sum((design @ found - mean) ** 2))
        if found[0] > 0 and left < best:
            best, width = left, float(sigma)
    return width


def fit_columns(
    image: np.ndarray, points: np.ndarray, spacing: float, width: float, *, move: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least-squares fit of every column.

    Parameters
    ----------
    image : (h, w) array
    points : (n, 2) array
        Where to start, row and column [px].
    spacing, width : float
        Distance of neighbours, and standard deviation of the Gaussian [px].
    move : bool
        Fit the places too, or heights and backgrounds alone.

    Returns
    -------
    points : (n, 2) array
    height, background : (n,) arrays
    """
    patches, y, x, inside = _patches(image, points, spacing)
    values, y, x = patches[:, inside], y[inside], x[inside]
    offset = points - np.rint(points)
    reach = 0.5 * spacing
    for last in range(_ROUNDS if move else 1):
        dy, dx = y - offset[:, :1], x - offset[:, 1:]
        peak = np.exp(-(dy**2 + dx**2) / (2 * width**2))
        basis = [peak, np.ones_like(peak)]
        height, background = _solve(basis, values).T
        if not move or last == _ROUNDS - 1:
            break
        slope = height[:, None] * peak / width**2
        step = _solve([*basis, slope * dy, slope * dx], values)[:, 2:]
        offset = np.clip(offset + np.clip(step, -width / 2, width / 2), -reach, reach)
    return np.rint(points) + offset, height, background


def _solve(basis: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    """Coefficients (n, p) of each row of `values` (n, m) in its own basis, p arrays (n, m)."""
    design = np.stack(basis, axis=2)
    normal = np.einsum("nmp,nmq->npq", design, design)
    size = np.einsum("npp->n", normal)[:, None, None] / normal.shape[1]
    normal = normal + 1e-9 * size * np.eye(normal.shape[1])
    return np.linalg.solve(normal, np.einsum("nmp,nm->np", design, values)[..., None])[..., 0]


def _patches(image: np.ndarray, points: np.ndarray, spacing: float) -> tuple[np.ndarray, ...]:
    """Windows around the nearest pixels, (n, m, m), their grid, and the disc that a fit uses."""
    reach = max(2, math.floor(0.5 * spacing))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = np.hypot(y, x) <= 0.5 * spacing + 0.5
    padded = np.pad(np.asarray(image, float), reach, mode="reflect")
    base = np.rint(points).astype(int)
    rows, columns = (base[:, k, None, None] + grid + reach for k, grid in enumerate((y, x)))
    return padded[rows, columns], y, x, inside


def response(width: float, spacing: float, glow: float) -> Response:
    """How a fit answers to a column and to noise, both after a glow of so many dwell times."""
    return _response(round(width, 2), round(spacing, 1), round(glow, 3))


@lru_cache(maxsize=512)
def _response(width: float, spacing: float, glow: float) -> Response:
    reach = max(2, math.floor(0.5 * spacing))
    run = reach + int(math.ceil(6 * glow)) + 2
    y, x = np.mgrid[-reach : reach + 1, -run : run + 1].astype(float)
    peak = _glowing(np.exp(-(y**2 + x**2) / (2 * width**2)), glow)
    centre = float((peak * x).sum() / peak.sum())  # light lags; all columns by the same
    inside = np.hypot(y, x - centre) <= 0.5 * spacing + 0.5
    best = None
    for sigma in np.linspace(0.85 * width, width + 2.5 * glow + 0.3, 40):
        model = np.exp(-(y**2 + (x - centre) ** 2) / (2 * sigma**2))
        design = np.stack([model[inside], np.ones(inside.sum())], axis=1)
        found, *_ = np.linalg.lstsq(design, peak[inside], rcond=None)
        left = float(np.sum((design @ found - peak[inside]) ** 2))
        if best is None or left < best[0]:
            best = left, float(sigma), float(found[0])
    _, sigma, height = best
    model = np.exp(-(y**2 + (x - centre) ** 2) / (2 * sigma**2))
    slope = height * model / sigma**2
    design = np.stack([model, np.ones_like(model), slope * y, slope * (x - centre)], axis=2) * inside[..., None]
    flat = design.reshape(-1, 4)
    weights = flat @ np.linalg.inv(flat.T @ flat)  # (pixels, 4): a parameter is the sum of weights times counts
    maps = np.moveaxis(weights.reshape(*inside.shape, 4), 2, 0)
    # Noise that was spread forwards along the row, summed with these weights: the weights gathered backwards.
    gathered = np.stack([_glowing(np.pad(m, ((0, 0), (run, 0)))[:, ::-1], glow) for m in maps])
    variance = (gathered**2).sum(axis=(1, 2))
    # A peak that is not of the model's form moves the fit by other than the linear step, until the step is zero.
    gaussian = np.exp(-(y**2 + x**2) / (2 * width**2)) / width**2
    gains = [float((maps[2 + k] * _glowing(gaussian * axis, glow)).sum()) for k, axis in enumerate((y, x))]
    down, along = (float(variance[2 + k]) / gains[k] ** 2 for k in range(2))
    return Response(height, sigma, down, along, float(variance[0]))


def _glowing(rows: np.ndarray, glow: float) -> np.ndarray:
    return after_glow(rows, glow, 1.0) if glow > 0 else rows


def _without_glow(seen: float, spacing: float, glow: float) -> float:
    """Width whose Gaussian, after the glow, is fitted best by one of width `seen`."""
    if glow <= 0:
        return seen
    widths = np.linspace(0.4 * seen, seen, 13)
    found = np.array([response(float(w), spacing, glow).width for w in widths])
    return float(np.interp(seen, np.maximum.accumulate(found), widths))


def obtained_error(frames: Sequence[np.ndarray], expected: np.ndarray) -> float | None:
    """Standard error of fitted columns, per axis [px], against the same fit of what was expected.

    The half-width that holds 68 % of the errors along both axes: a column that is lost altogether does not decide.
    Distortion that both share is no error.

    Parameters
    ----------
    frames : sequence of (h, w) arrays
        Recordings of one expectation; several tell the error of a few columns better.
    expected : (h, w) array

    Returns
    -------
    float or None
        ``None`` where the expectation shows no columns.
    """
    columns = true_columns(expected)
    width = None if columns is None else fitted_width(expected, columns.positions, columns.spacing)
    if width is None:
        return None
    truth, height, _ = fit_columns(expected, columns.positions, columns.spacing, width)
    truth = truth[height > WEAK * np.median(height)]
    errors = [fit_columns(frame, truth, columns.spacing, width)[0] - truth for frame in frames]
    return float(np.quantile(np.abs(errors), _ONE))
