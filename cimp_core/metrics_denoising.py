"""How close a restored image is to the truth: pure functions of NumPy arrays.

Errors are after one least-squares affine match unless a name says otherwise: brightness and contrast of a micrograph
are free, its structure is not. Positions of columns, fringes and false structure are in `metrics_structure`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from skimage.metrics import structural_similarity

from .errors import OutOfRangeError

__all__ = [
    "DoseGain",
    "RegionBias",
    "affine_error",
    "affine_match",
    "coverage",
    "dose_gain",
    "frc",
    "frc_resolution",
    "psnr",
    "region_bias",
    "ssim",
]


def _pair(image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image, truth = np.asarray(image, float), np.asarray(truth, float)
    if image.shape != truth.shape or image.ndim != 2:
        raise OutOfRangeError(f"an image of shape {image.shape} cannot be compared with a truth of {truth.shape}")
    return image, truth


def affine_match(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``a + b * image`` nearest to `truth`, (h, w); the mean of the truth if the image is constant."""
    image, truth = _pair(image, truth)
    x, t = image - image.mean(), truth - truth.mean()
    power = float(np.vdot(x, x))
    slope = float(np.vdot(x, t)) / power if power > 0 else 0.0
    return truth.mean() + slope * x


def affine_error(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean square difference from `truth` after `affine_match`, in its units squared: v_t (1 - r^2)."""
    return float(np.mean((affine_match(image, truth) - truth) ** 2))


def psnr(image: np.ndarray, truth: np.ndarray, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio [dB], without any match and without clipping.

    Parameters
    ----------
    data_range : float, optional
        Maximum minus minimum of `truth` by default; values with another convention cannot be compared.
    """
    image, truth = _pair(image, truth)
    reach = float(np.ptp(truth)) if data_range is None else data_range
    error = float(np.mean((image - truth) ** 2))
    if not reach > 0:
        return float("nan")
    return float(10 * np.log10(reach**2 / error)) if error > 0 else float("inf")


def ssim(image: np.ndarray, truth: np.ndarray, data_range: float | None = None) -> float:
    """Structural similarity of scikit-image (windows of 7 x 7), without any match; `data_range` as in `psnr`."""
    image, truth = _pair(image, truth)
    reach = float(np.ptp(truth)) if data_range is None else data_range
    return float(structural_similarity(image, truth, data_range=reach)) if reach > 0 else float("nan")


def frc(image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fourier ring correlation (van Heel and Schatz 2005) of two images under a Hann window.

    Returns
    -------
    frequency, correlation : (n,) arrays
        Middle of each ring [cycles/pixel], rings being one period a field wide up to 0.5; and Re(sum F conj T) over the
        root of the product of powers, 0 where one of them has none.
    """
    image, truth = _pair(image, truth)
    height, width = image.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    f, t = (np.fft.rfft2((values - values.mean()) * window) for values in (image, truth))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    count = min(height, width) // 2
    ring = np.rint(radius * 2 * count).astype(int)
    # Of the half plane that is left out, every column but the first (and the last of an even width) is a copy.
    twice = np.full(t.shape[1], 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    use = (ring >= 1) & (ring <= count)

    def rings(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring[use], weights=(values * twice)[use], minlength=count + 1)[1:]

    shared, powers = rings((f * t.conj()).real), rings(np.abs(f) ** 2) * rings(np.abs(t) ** 2)
    correlation = np.divide(shared, np.sqrt(powers), out=np.zeros(count), where=powers > 0)
    return np.arange(1, count + 1) / (2 * count), correlation


def frc_resolution(
    frequency: np.ndarray, correlation: np.ndarray, threshold: float = 0.5, *, last: bool = False
) -> float:
    """Frequency [cycles/pixel] at which the correlation falls below `threshold`, linearly interpolated.

    Against a truth without noise the threshold is 0.5; of two recordings with independent noise, 1/7. A resolution in
    metres is the pixel size over this. The last frequency if it never falls, 0 if it is always below.

    Parameters
    ----------
    last : bool
        Where it falls for the last time instead of the first. A crystal has nothing between its slow shapes and its
        first spots, and the correlation there is that of nothing; the last fall is where its finest spots are lost.
    """
    frequency, correlation = np.asarray(frequency, float), np.asarray(correlation, float)
    above = correlation >= threshold
    if above[-1] and (last or above.all()):
        return float(frequency[-1])
    falls = np.flatnonzero(above[:-1] & ~above[1:])
    if not falls.size or (not last and not above[0]):
        return 0.0
    k = int(falls[-1 if last else 0])
    share = (correlation[k] - threshold) / (correlation[k] - correlation[k + 1])
    return float(frequency[k] + share * (frequency[k + 1] - frequency[k]))


class DoseGain(NamedTuple):
    """By which factor the raw dose would have to rise for the same error; `beyond` says where that was not known."""

    factor: float
    beyond: str  # "" or "worse than raw" or "better than all"


def dose_gain(error: float, raw_errors: np.ndarray, factors: np.ndarray) -> DoseGain:
    """Dose-equivalent gain: the factor at which raw recordings have `error`.

    Parameters
    ----------
    error : float
        Of the restored image, after an affine match.
    raw_errors, factors : (n,) arrays
        Errors of recordings at ascending factors of the dose, the first of which is the dose itself. Chance may let an
        error rise with the dose: the least so far counts. Between two, log factor is linear in log error.

    Returns
    -------
    DoseGain
        The first or the last factor where the error lies beyond the recordings; ``nan`` if an error is not known, or
        if the recording has none.
    """
    ladder = np.minimum.accumulate(np.asarray(raw_errors, float))
    factors = np.asarray(factors, float)
    if not np.isfinite(error) or not np.isfinite(ladder).all() or ladder[0] <= 0:
        return DoseGain(float("nan"), "")
    if error >= ladder[0]:
        return DoseGain(float(factors[0]), "worse than raw" if error > ladder[0] else "")
    if error < ladder[-1]:
        return DoseGain(float(factors[-1]), "better than all")
    k = int(np.flatnonzero(ladder <= error)[0])  # the first that is as good
    high, low = np.log(ladder[k - 1]), np.log(max(ladder[k], 1e-300))
    share = (high - np.log(max(error, 1e-300))) / (high - low)
    return DoseGain(float(np.exp(np.log(factors[k - 1]) + share * np.log(factors[k] / factors[k - 1]))), "")


class RegionBias(NamedTuple):
    """Relative errors of the mean signal of regions."""

    median: float  # of |error|
    largest: float  # |error|
    within: float  # share of the regions within 1 %
    regions: int


def region_bias(
    image: np.ndarray,
    truth: np.ndarray,
    black: float,
    electrons: np.ndarray,
    *,
    spread: float = 0.5,
    shot_error: float = 0.003,
    tolerance: float = 0.01,
) -> RegionBias:
    """Relative error of mean intensities above black, in square blocks bright enough that shot noise is no excuse.

    Parameters
    ----------
    image, truth : (h, w) arrays
        Counts, not matched: the scale is part of what is tested.
    black : float
        Counts without electrons.
    electrons : (h, w) array
        Expected detected electrons of each pixel.
    spread : float
        Of pulse heights; a block of n electrons has the relative shot error sqrt((1 + spread^2) / n).
    shot_error : float
        Blocks of 8, 16, 32 ... pixels a side, and the whole image, count if theirs is below this.
    tolerance : float
        What `within` counts.

    Returns
    -------
    RegionBias
        ``nan`` with no region.
    """
    image, truth = _pair(image, truth)
    height, width = truth.shape
    errors, block = [], 8
    sizes = []
    while block < min(height, width):
        sizes.append((block, block))
        block *= 2
    for rows, columns in [*sizes, (height, width)]:
        mean, aim, number = (_blocks(v, rows, columns) for v in (image, truth - black, electrons))
        signal = mean - black
        use = (number * (rows * columns) * shot_error**2 > 1 + spread**2) & (aim > 0)
        errors.append(np.abs(signal[use] / aim[use] - 1))
    errors = np.concatenate(errors)
    if not errors.size:
        return RegionBias(float("nan"), float("nan"), float("nan"), 0)
    return RegionBias(
        float(np.median(errors)), float(errors.max()), float(np.mean(errors <= tolerance)), int(errors.size)
    )


def _blocks(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    height, width = (n // m * m for n, m in zip(values.shape, (rows, columns), strict=True))
    cut = np.asarray(values, float)[:height, :width].reshape(height // rows, rows, width // columns, columns)
    return cut.mean(axis=(1, 3)).ravel()


def coverage(image: np.ndarray, deviation: np.ndarray, truth: np.ndarray, level: float) -> float:
    """Share of the pixels whose truth lies within the central interval of `level` (such as 0.95) that is reported.

    Parameters
    ----------
    deviation : (h, w) array
        Reported standard deviation of each pixel, of a normal error.
    """
    from scipy.stats import norm

    image, truth = _pair(image, truth)
    return float(np.mean(np.abs(image - truth) <= norm.ppf(0.5 + level / 2) * np.asarray(deviation)))
