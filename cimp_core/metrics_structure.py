"""What microscopists read from a restored image: where columns are, how strong a fringe is, what is not there.

Pure functions of NumPy arrays. A column found in the truth and one found in the image are matched where they lie
within half the distance of neighbours; what remains on either side was lost, or was invented.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .metrics_denoising import affine_match

__all__ = [
    "ColumnScore",
    "Columns",
    "column_score",
    "false_spot",
    "find_columns",
    "fringe_kept",
    "match_points",
    "power_left",
    "true_columns",
]

_FINEST, _COARSEST = 4.0, 48.0  # px: spacings that count as resolved columns
_CONTRAST = 0.35  # a column found in an image has at least this part of the truth's median contrast


class Columns(NamedTuple):
    """Resolved columns of a truth."""

    positions: np.ndarray  # (n, 2) row, column [px]
    spacing: float  # median distance of nearest neighbours [px]
    contrast: float  # median height over the surroundings [counts]


def true_columns(truth: np.ndarray, *, least: int = 12) -> Columns | None:
    """Atomic columns of an image without noise; ``None`` where there are none to resolve.

    Places that stand out from the mean of their surroundings, 4 to 48 px apart, by at least a quarter of what the
    sharpest of the image does. Resolved means: at least `least` of them, standing out by 2 % of the image's range, and
    at distances that agree (six in ten within a tenth of the median), so that speckle of amorphous carbon does not
    pass for columns. An aliased lattice does: leave images of coarse pixels out.
    """
    truth = np.asarray(truth, float)
    reach = float(np.quantile(truth, 0.995) - np.quantile(truth, 0.005))
    for guess in (4.0, 6.0, 9.0, 14.0, 20.0, 30.0, 44.0):
        points, contrast = _standing_out(truth, guess)
        if len(points) < least or contrast < 0.02 * reach:
            continue
        spacing = _apart(points)[0]
        if spacing > 1.5 * guess:  # a coarser scale fits better
            continue
        points, contrast = _standing_out(truth, spacing)
        if len(points) < least or contrast < 0.02 * reach:
            return None
        points = _refine(truth, points, spacing)
        spacing, regular = _apart(points)
        return Columns(points, spacing, contrast) if regular >= 0.6 and _FINEST <= spacing <= _COARSEST else None
    return None


def _standing_out(truth: np.ndarray, spacing: float) -> tuple[np.ndarray, float]:
    height = _height(truth, spacing)
    points = _maxima(height, spacing / 2, max(0.25 * float(np.quantile(height, 0.995)), 1e-12))
    return points, float(np.median(height[tuple(points.astype(int).T)])) if len(points) else 0.0


def _apart(points: np.ndarray) -> tuple[float, float]:
    """Median distance of nearest neighbours, and the share of them within a tenth of it."""
    apart = cKDTree(points).query(points, k=2)[0][:, 1]
    return float(np.median(apart)), float(np.mean(np.abs(apart / np.median(apart) - 1) < 0.1))


def find_columns(image: np.ndarray, columns: Columns) -> np.ndarray:
    """Columns of a restored image on the truth's scale, (n, 2), by the same steps and the truth's spacing."""
    height = _height(np.asarray(image, float), columns.spacing)
    return _refine(image, _maxima(height, columns.spacing / 2, _CONTRAST * columns.contrast), columns.spacing)


def _height(image: np.ndarray, spacing: float) -> np.ndarray:
    """Smoothed over an eighth of the spacing, minus the mean over half of it."""
    near, far = (ndimage.gaussian_filter(image, s * spacing, mode="reflect") for s in (0.125, 0.5))
    return near - far


def _maxima(height: np.ndarray, apart: float, threshold: float) -> np.ndarray:
    """(n, 2) places that are the largest within `apart` and above `threshold`, a spacing's half off the edge."""
    reach = int(np.ceil(apart))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    largest = ndimage.maximum_filter(height, footprint=np.hypot(y, x) <= apart, mode="reflect")
    inside = np.zeros(height.shape, bool)
    inside[reach:-reach, reach:-reach] = True
    return np.argwhere((height == largest) & (height > threshold) & inside).astype(float)


def _refine(image: np.ndarray, points: np.ndarray, spacing: float, rounds: int = 8) -> np.ndarray:
    """Positions as centres of mass under a Gaussian window that follows them.

    The window has a quarter of the spacing as standard deviation; intensity counts from the least value around.
    With a Gaussian peak the centre is right at the end; each round goes part of the way.
    """
    if not len(points):
        return points
    reach, width = max(2, round(0.5 * spacing)), max(0.25 * spacing, 0.8)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    padded = np.pad(np.asarray(image, float), 2 * reach, mode="reflect")
    base = np.rint(points).astype(int)
    rows, columns = (base[:, k, None, None] + grid + 2 * reach for k, grid in enumerate((y, x)))
    patch = padded[rows, columns]
    patch = patch - patch.min(axis=(1, 2), keepdims=True)
    offset = points - base
    for _ in range(rounds):
        dy, dx = (grid - offset[:, k, None, None] for k, grid in enumerate((y, x)))
        weight = np.exp(-(dy**2 + dx**2) / (2 * width**2)) * patch
        total = np.maximum(weight.sum(axis=(1, 2)), 1e-30)
        # A window as wide as the peak sees half of the way; twice the step is the whole for such a peak.
        step = np.stack([(weight * d).sum(axis=(1, 2)) / total for d in (dy, dx)], axis=1)
        offset = np.clip(offset + 1.5 * step, -0.5 * spacing, 0.5 * spacing)
    return base + offset


def match_points(found: np.ndarray, truth: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of points not more than `reach` apart: as many as possible, then the least sum of squared distances.

    Parameters
    ----------
    found, truth : (m, 2), (n, 2) arrays

    Returns
    -------
    of_found, of_truth : (k,) int arrays
        Indices of the pairs.
    """
    if not len(found) or not len(truth):
        return np.zeros(0, int), np.zeros(0, int)
    near = cKDTree(found).sparse_distance_matrix(cKDTree(truth), reach, output_type="coo_matrix")
    # Two points with no other in reach are a pair at once, and most are.
    alone = (np.bincount(near.row, minlength=len(found))[near.row] == 1) & (
        np.bincount(near.col, minlength=len(truth))[near.col] == 1
    )
    pairs = [np.stack([near.row, near.col])[:, alone]]
    row, column, distance = near.row[~alone], near.col[~alone], near.data[~alone]
    size = len(found) + len(truth)
    graph = coo_array((np.ones(len(row)), (row, column + len(found))), shape=(size, size))
    label = connected_components(graph, directed=False)[1][row]
    # The others form small groups: the problem is solved in each.
    order = np.argsort(label, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if len(order) else []:
        pairs.append(_assigned(row[group], column[group], distance[group], reach))
    matched = np.concatenate(pairs, axis=1).astype(int)
    return matched[0], matched[1]


def _assigned(row: np.ndarray, column: np.ndarray, distance: np.ndarray, reach: float) -> np.ndarray:
    """(2, k) pairs of a few points of which each may have several candidates."""
    rows, i = np.unique(row, return_inverse=True)
    columns, j = np.unique(column, return_inverse=True)
    cost = np.full((len(rows), len(columns)), 2 * reach**2 * (1 + len(rows)))  # dearer than any pair in reach
    cost[i, j] = distance**2
    chosen = linear_sum_assignment(cost)
    return np.stack([rows[chosen[0]], columns[chosen[1]]])[:, cost[chosen] <= reach**2]


class ColumnScore(NamedTuple):
    """Columns of an image against those of the truth."""

    precision: float  # share of the found columns that are there
    recall: float  # share of the true columns that were found
    f1: float
    error: float  # root mean square distance of matched columns, per axis [px]
    count: int  # true columns


def column_score(image: np.ndarray, truth: np.ndarray, columns: Columns) -> ColumnScore:
    """Columns found in `image`, after an affine match, against those of its `truth`.

    True columns nearer than half a spacing to the edge are not counted, nor what is found there.
    """
    found = find_columns(affine_match(image, truth), columns)
    edge, shape = columns.spacing / 2 + 1, np.array(truth.shape)
    # A column at this border may be found on either side of it: it counts on neither side if it is matched.
    inside = [np.all((p >= edge) & (p <= shape - 1 - edge), axis=1) for p in (found, columns.positions)]
    a, b = match_points(found, columns.positions, columns.spacing / 2)
    use = inside[1][b]
    hits = int(use.sum())
    spurious = int(inside[0].sum() - np.isin(np.flatnonzero(inside[0]), a).sum())
    wanted = int(inside[1].sum())
    precision = hits / (hits + spurious) if hits + spurious else 0.0
    recall = hits / wanted if wanted else float("nan")
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    apart = found[a[use]] - columns.positions[b[use]]
    error = float(np.sqrt(np.mean(apart**2))) if hits else float("nan")
    return ColumnScore(precision, recall, f1, error, wanted)


def fringe_kept(
    image: np.ndarray, truth: np.ndarray, recording: np.ndarray, *, low: float = 1.0, high: float = 10.0
) -> tuple[float, int]:
    """Amplitude kept of lattice fringes that in the recording lie near the noise: 1 is all of it.

    A fringe is a spot of the truth's power spectrum ten times above all that is three to five pixels away, beyond five
    periods a field, whose power is `low` to `high` times that of the recording's noise in one pixel of the spectrum.

    Parameters
    ----------
    image, truth, recording : (h, w) arrays
        At one scale of intensity: no match is made.

    Returns
    -------
    kept : float
        Sum of the real part of F conj(T) over that of T conj(T), over these spots; chance adds nothing on average.
        ``nan`` without any.
    spots : int
        Their number, each counted once of the pair at +f and -f.
    """
    t, f, r = (_spectrum(np.asarray(values, float)) for values in (truth, image, np.asarray(recording, float) - truth))
    power, noise = np.abs(t) ** 2, float(np.mean(np.abs(r) ** 2))
    around, beyond = _surroundings(power)
    y, x = np.mgrid[-2:3, -2:3]
    peak = power == ndimage.maximum_filter(power, footprint=np.hypot(y, x) <= 2, mode="wrap")
    spots = peak & beyond & (power > 10 * around) & (power >= low * noise) & (power <= high * noise)
    count = int(spots.sum())
    if not count:
        return float("nan"), 0
    return float((f * t.conj()).real[spots].sum() / power[spots].sum()), count


def false_spot(image: np.ndarray, truth: np.ndarray, recording: np.ndarray, *, least: float = 0.1) -> float:
    """Contrast of the strongest spot of an `image` whose `truth` is empty: above ten it would pass for a lattice.

    As `cimp_core.study.lattice.strongest_spot`, but a spot has to have at least `least` times the power that the
    recording's noise has in one pixel of the spectrum: of an image that is all but flat, rounding makes spots.

    Returns
    -------
    float
        Power over the largest of all that is three to five pixels away; 0 if nothing has that power.
    """
    noise = float(np.mean(np.abs(_spectrum(np.asarray(recording, float) - truth)) ** 2))
    power = np.abs(_spectrum(np.asarray(image, float) - truth)) ** 2
    around, beyond = _surroundings(power)
    seen = beyond & (power >= least * noise) & (noise > 0)
    return float((power[seen] / np.maximum(around[seen], 1e-30)).max()) if seen.any() else 0.0


def _spectrum(values: np.ndarray) -> np.ndarray:
    """Fourier transform under a Hann window, zero frequency in the middle."""
    window = np.hanning(values.shape[0])[:, None] * np.hanning(values.shape[1])
    return np.fft.fftshift(np.fft.fft2((values - values.mean()) * window))


def _surroundings(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest power three to five pixels away; and which frequencies count: beyond five periods, one of +f and -f."""
    height, width = power.shape
    y, x = np.mgrid[-5:6, -5:6]
    away = np.hypot(y, x)
    around = ndimage.maximum_filter(power, footprint=(away >= 3) & (away <= 5), mode="wrap")
    fy, fx = np.arange(height)[:, None] - height // 2, np.arange(width) - width // 2
    half = (fy > 0) | ((fy == 0) & (fx > 0))
    return around, half & (np.hypot(fy, fx) >= 5) & (np.hypot(fy / height, fx / width) < 0.5)


def power_left(image: np.ndarray, truth: np.ndarray, recording: np.ndarray) -> float:
    """Variance that `image` has beyond its truth, over that of the recording: what a filter leaves of pure noise."""
    noise = float(np.var(np.asarray(recording, float) - truth))
    return float(np.var(np.asarray(image, float) - truth)) / noise if noise > 0 else float("nan")
