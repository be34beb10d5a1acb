"""About ninety hand-made statistics of a micrograph: what can be read from an image without learning to see.

A fixed control stands on them (`cimp_core.study.control`): a network that does no better has learnt nothing more.
The fast scan axis is the last one, so horizontal and vertical statistics differ: after-glow correlates neighbours along
a row, jitter displaces rows. Absolute levels are kept, because gain and offset are in them. A flat image gives finite
values too: wherever a quotient has no meaning it is zero.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from ..errors import OutOfRangeError

if TYPE_CHECKING:
    from ..dataset import Dataset

__all__ = ["NAMES", "dataset_statistics", "image_statistics"]

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
LAGS = (1, 2, 3, 4, 8)
BANDS = 16
LEVELS = 6
SMALLEST = 16
"""Least side of an image [px]."""


def image_statistics(image: np.ndarray) -> np.ndarray:
    """Statistics of one image, in the order of `NAMES`.

    Parameters
    ----------
    image : (h, w) array
        Recorded counts, not scaled; the fast scan axis last.

    Returns
    -------
    (len(NAMES),) float64 array
        All finite.

    Raises
    ------
    OutOfRangeError
        The image is smaller than `SMALLEST` or holds a value that is not finite.
    """
    return np.array(list(_named(image).values()))


def _named(image: np.ndarray) -> dict[str, float]:
    if np.ndim(image) != 2 or min(np.shape(image)) < SMALLEST:
        raise OutOfRangeError(f"image of shape {np.shape(image)}: statistics need at least {SMALLEST} x {SMALLEST} px")
    pixels = np.asarray(image, dtype=np.float64)
    if not np.isfinite(pixels.sum()):
        raise OutOfRangeError("the image holds values that are not finite")
    out = _levels(image, pixels)
    scale = max(out["std"], 1e-9)  # of a flat image every quotient below is 0 / 1e-9 = 0
    residual = _noise_residual(pixels)
    out |= _noise(pixels, residual, scale)
    out |= _noise_against_level(pixels, residual)
    out |= _spectrum(pixels)
    out |= _gradients(pixels, scale)
    out |= _rows(pixels, scale)
    return out


def _levels(image: np.ndarray, pixels: np.ndarray) -> dict[str, float]:
    """Where the counts lie, how they are distributed, and whether they clip."""
    ordered = np.sort(image, axis=None).astype(np.float64)
    n = ordered.size
    mean, std = pixels.mean(), pixels.std()
    z = (ordered - mean) / max(std, 1e-9)
    square = z * z
    out = {"mean": mean, "std": std, "skewness": np.mean(square * z), "kurtosis": np.mean(square * square)}
    levels = ordered[[int(p / 100 * (n - 1)) for p in PERCENTILES]]
    out |= {f"percentile_{p}": v for p, v in zip(PERCENTILES, levels, strict=True)}
    out |= {"minimum": ordered[0], "maximum": ordered[-1]}
    out |= {"at_zero": np.mean(ordered <= 0), "at_full_scale": np.mean(ordered >= 65535)}
    out |= {"at_minimum": np.mean(ordered == ordered[0]), "at_maximum": np.mean(ordered == ordered[-1])}
    steps = np.diff(ordered)
    steps = steps[steps > 0]
    spread = ordered[-1] - ordered[0]
    out["distinct_levels"] = np.log1p(steps.size)
    out["median_step"] = np.median(steps) if steps.size else 0.0
    out["range"] = levels[-1] - levels[0]
    out["median_in_range"] = (levels[4] - levels[0]) / max(levels[-1] - levels[0], 1e-9)
    out["range_of_spread"] = (levels[-1] - levels[0]) / max(spread, 1e-9)
    out["std_over_mean"] = std / max(abs(mean), 1.0)
    return out


def _noise_residual(p: np.ndarray) -> np.ndarray:
    """Second difference along both axes, with unit gain for white noise: blind to slopes and to straight edges."""
    rows = p[:, 2:] - 2 * p[:, 1:-1] + p[:, :-2]
    return (rows[2:] - 2 * rows[1:-1] + rows[:-2]) / 6.0


def _noise(p: np.ndarray, residual: np.ndarray, scale: float) -> dict[str, float]:
    """Noise from differences of neighbours, and its correlation along and across the fast axis."""
    across, down = p[:, 1:] - p[:, :-1], p[1:] - p[:-1]
    out = {}
    for name, d in (("horizontal", across), ("vertical", down)):
        out[f"difference_std_{name}"] = d.std()
        out[f"difference_mad_{name}"] = 1.4826 * np.median(np.abs(d[::2, ::2]))
    out["difference_ratio"] = _ratio(out["difference_std_horizontal"], out["difference_std_vertical"])
    out["residual_std"] = residual.std()
    out["residual_mad"] = 1.4826 * np.median(np.abs(residual[::2, ::2]))
    out["residual_over_std"] = out["residual_std"] / scale
    out["residual_tail"] = _ratio(out["residual_std"], out["residual_mad"])
    power = np.mean(residual**2)
    for lag in (1, 2, 3):
        out[f"residual_correlation_horizontal_{lag}"] = _ratio(np.mean(residual[:, lag:] * residual[:, :-lag]), power)
        out[f"residual_correlation_vertical_{lag}"] = _ratio(np.mean(residual[lag:] * residual[:-lag]), power)
    return out


def _noise_against_level(p: np.ndarray, residual: np.ndarray) -> dict[str, float]:
    """Variance against mean in blocks of 4 x 4: the slope is the counts an electron makes, the intercept read noise."""
    rows, columns = (s // 4 * 4 for s in residual.shape)
    shape = (rows // 4, 4, columns // 4, 4)
    level = p[1 : rows + 1, 1 : columns + 1].reshape(shape).mean(axis=(1, 3)).ravel()
    variance = (residual[:rows, :columns] ** 2).reshape(shape).mean(axis=(1, 3)).ravel()
    order = np.argsort(level)
    groups = np.array_split(order, LEVELS)
    means = np.array([level[g].mean() for g in groups])
    medians = np.array([np.median(variance[g]) for g in groups])
    out = {f"variance_at_level_{i}": np.log1p(v) for i, v in enumerate(medians)}
    centred = means - means.mean()
    slope = _ratio(centred @ medians, centred @ centred)
    out["variance_slope"] = np.arcsinh(slope)
    out["variance_intercept"] = np.arcsinh(medians.mean() - slope * means.mean())
    out["variance_over_mean"] = np.arcsinh(variance.mean() / max(abs(level.mean()), 1.0))
    out["variance_level_correlation"] = _ratio(centred @ medians, np.sqrt((centred @ centred) * (medians @ medians)))
    return out


@lru_cache(maxsize=8)
def _plan(height: int, width: int) -> tuple[np.ndarray, ...]:
    """Window, ring of each frequency of a half spectrum, weight of each, and counts of the rings."""
    window = np.hanning(height)[:, None] * np.hanning(width)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    radius = np.hypot(fy, fx)
    ring = np.minimum((radius / 0.5 * BANDS).astype(int), BANDS)
    ring[0, 0] = BANDS
    high = radius > 0.25
    flat, upright = high & (np.abs(fy) < fx), high & (np.abs(fy) > fx)
    return window, ring, radius, np.bincount(ring.ravel(), minlength=BANDS + 1), flat, upright


def _spectrum(p: np.ndarray) -> dict[str, float]:
    """Power in rings, its anisotropy, how sharp its strongest peaks are and where, and the autocorrelation from it."""
    window, ring, radius, counts, flat, upright = _plan(*p.shape)
    centred = p - p.mean()
    power = np.abs(fft.rfft2(centred * window)) ** 2
    sums = np.bincount(ring.ravel(), weights=power.ravel(), minlength=BANDS + 1)
    total = sums[:BANDS].sum()
    level = sums[:BANDS] / np.maximum(counts[:BANDS], 1)
    # Relative to all power, with a floor, so that a flat image has the floor everywhere.
    out = {f"band_{i:02d}": np.log(s / total + 1e-12) if total > 0 else np.log(1e-12) for i, s in enumerate(sums[:-1])}
    out["power"] = np.log1p(total)
    out["anisotropy"] = _ratio(power[flat].mean() - power[upright].mean(), power[flat].mean() + power[upright].mean())
    whitened = power / np.maximum(np.append(level, np.inf)[ring], 1e-9)
    rows, columns = np.unravel_index(np.argpartition(whitened, -8, axis=None)[-8:], whitened.shape)
    peaks = whitened[rows, columns]
    top = np.argmax(peaks)
    out["peak_height"] = np.log1p(peaks[top])
    out["peak_height_eighth"] = np.log1p(peaks.min())
    out["peak_radius"] = radius[rows[top], columns[top]] if total > 0 else 0.0
    out["peak_radius_mean"] = _ratio(peaks @ radius[rows, columns], peaks.sum())
    middle = (np.arange(BANDS) + 0.5) / BANDS
    share = sums[:BANDS] / total if total > 0 else np.zeros(BANDS)
    out["spectral_centre"] = share @ middle
    out["spectral_entropy"] = -np.sum(share * np.log(share + 1e-12))
    variance = np.mean(centred**2)
    for lag in LAGS:
        out[f"correlation_horizontal_{lag}"] = _ratio(np.mean(centred[:, lag:] * centred[:, :-lag]), variance)
        out[f"correlation_vertical_{lag}"] = _ratio(np.mean(centred[lag:] * centred[:-lag]), variance)
    return out


def _gradients(p: np.ndarray, scale: float) -> dict[str, float]:
    """Slopes over two pixels, which noise moves less than differences of neighbours."""
    gx, gy = p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]
    square = (gx * gx + gy * gy) / (4 * scale**2)
    size = np.sqrt(square)
    fewer = size[::2, ::2]  # a quarter of the pixels settles a median
    median, upper = np.quantile(fewer, (0.5, 0.9))
    tail = _ratio(np.mean(square * square), np.mean(square) ** 2)
    return {"gradient_mean": size.mean(), "gradient_median": median, "gradient_upper": upper, "gradient_tail": tail}


def _rows(p: np.ndarray, scale: float) -> dict[str, float]:
    """Steps in level and displacement from row to row, and the first columns after the fly-back."""
    means = p.mean(axis=1)
    out = {"row_mean_std": means.std() / scale, "row_mean_step": np.diff(means).std() / scale}
    out["column_mean_std"] = p.mean(axis=0).std() / scale
    # Displacement d of a row against the one above, to first order: difference = d * slope, by least squares.
    slope = 0.25 * ((p[1:, 2:] - p[1:, :-2]) + (p[:-1, 2:] - p[:-1, :-2]))
    step = (p[1:] - p[:-1])[:, 1:-1]
    energy = np.einsum("ij,ij->i", slope, slope)
    shift = np.einsum("ij,ij->i", step, slope) / (energy + 1e-6 * scale**2 * slope.shape[1] + 1e-30)
    out["row_shift_std"] = shift.std()
    out["row_shift_mad"] = np.median(np.abs(shift - np.median(shift)))
    out["row_shift_mean"] = shift.mean()
    edge = max(p.shape[1] // 64, 1)
    out["fly_back"] = (p[:, :edge].mean() - p[:, edge : 4 * edge].mean()) / scale
    out["last_columns"] = (p[:, -edge:].mean() - p[:, -4 * edge : -edge].mean()) / scale
    return out


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 1e-12 else 0.0


NAMES = tuple(_named(np.eye(SMALLEST)))
"""Name of each statistic, in order."""


def dataset_statistics(data: Dataset, workers: int | None = None) -> np.ndarray:
    """Statistics of every image of a data set: (n, len(NAMES)) float64.

    Parameters
    ----------
    workers : int, optional
        Processes; by default one a processor on Linux and one elsewhere. The result does not depend on it.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    if workers == 1 or len(data) < 64:
        return np.array([image_statistics(data.image(i)) for i in range(len(data))]).reshape(-1, len(NAMES))
    chunks = np.array_split(np.arange(len(data)), 8 * workers)
    with ProcessPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(_chunk, [data] * len(chunks), chunks)))


def _chunk(data: Dataset, indices: np.ndarray) -> np.ndarray:
    return np.array([image_statistics(data.image(i)) for i in indices]).reshape(-1, len(NAMES))
