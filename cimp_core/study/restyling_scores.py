"""How near a rendering comes to the truth of it: the picture, the noise, the spectrum, the lattice, the histogram."""

from __future__ import annotations

import numpy as np
from scipy.stats import wasserstein_distance

from ..dataset import Dataset
from ..errors import OutOfRangeError
from ..metadata import PARAMETERS
from ..metrics_denoising import psnr, ssim
from .control import boost
from .lattice import CONTRAST, power_spectrum, strongest_spot
from .restyling_cases import Case
from .statistics import image_statistics

__all__ = ["SCORES", "Reader", "scores"]

SCORES = ("psnr", "ssim", "noise", "spectrum", "lattice", "histogram")
"""Names of what `scores` measures, in its order.

``psnr`` [dB] and ``ssim`` against the expectation; the data range is that between its 0.1 and 99.9 percentiles, at
least one percent of the full scale. ``noise``: |log10| of the ratio of noise variances to that of a recording.
``spectrum``: mean |log10| ratio of the power to that of a recording, over rings. ``lattice``: shift of the strongest
spot [periods a field], where the expectation and a recording have one. ``histogram``: Wasserstein distance of the
counts to those of a recording [percent of the full scale].
"""

RINGS = 12
LEAST_RANGE = 655.35


def scores(made: np.ndarray, case: Case) -> list[float]:
    """`SCORES` of an image (h, w) that was made for a case; ``nan`` where there is nothing to compare."""
    if case.expected is None or case.recording is None:
        raise OutOfRangeError("nobody knows the truth of this case: only the areas of a twin can be recorded again")
    made, recording = np.asarray(made, float), case.recording.astype(float)
    reach = max(float(np.diff(np.quantile(case.expected, (0.001, 0.999)))[0]), LEAST_RANGE)
    return [
        min(psnr(made, case.expected, reach), 99.0),
        ssim(made, case.expected, reach),
        abs(np.log10(noise_variance(made) / noise_variance(recording))),
        spectral_distance(made, recording),
        lattice_shift(made, case.expected) if strongest_spot(recording)[1] > CONTRAST else float("nan"),
        wasserstein_distance(made.ravel()[::4], recording.ravel()[::4]) / 655.35,
    ]


def noise_variance(image: np.ndarray) -> float:
    """Of the second difference along the slow axis, with unit gain for white noise; at least that of rounding."""
    twice = image[2:] - 2 * image[1:-1] + image[:-2]
    return max(float(np.mean(twice**2) / 6), 1 / 12)


def spectral_distance(made: np.ndarray, recording: np.ndarray) -> float:
    """Mean |log10| of the ratio of the power of two images in rings, after one scale that matches the whole power."""
    means = []
    for image in (made, recording):
        power = power_spectrum(image)  # its mean is 1
        fy, fx = (np.arange(n) / n - (n // 2) / n for n in power.shape)
        ring = np.minimum((np.hypot(fy[:, None], fx) / 0.5 * RINGS).astype(int), RINGS)
        sums = np.bincount(ring.ravel(), power.ravel(), RINGS + 1) / np.bincount(ring.ravel(), minlength=RINGS + 1)
        means.append(np.log10(sums[:RINGS] + 1e-6))
    return float(np.mean(np.abs(means[0] - means[1])))


def lattice_shift(made: np.ndarray, expected: np.ndarray) -> float:
    """How far the strongest spot has moved [periods a field]; ``nan`` if the expectation has no spot.

    It is looked for within four periods of where the expectation has it: in noise, another spot of the same lattice may
    be the strongest of all, which is no shift.
    """
    radius, contrast = strongest_spot(expected)
    if contrast <= CONTRAST:
        return float("nan")
    height, width = expected.shape
    fy, fx = np.arange(height)[:, None] - height // 2, np.arange(width) - width // 2
    ring = np.abs(np.hypot(fy / height, fx / width) - radius) * min(height, width) < 0.75
    half = (fx > 0) | ((fx == 0) & (fy > 0))  # a spot and its mirror image are one
    power = power_spectrum(expected)
    y, x = np.unravel_index(np.argmax(power * (ring & half)), power.shape)
    found = [_centre(values, y, x, reach) for values, reach in ((power, 1), (power_spectrum(made), 4))]
    return float(np.hypot(*(found[1] - found[0])))


def _centre(power: np.ndarray, y: int, x: int, reach: int) -> np.ndarray:
    """Centre of the strongest peak within `reach` of a place, by the powers next to its highest; ``nan`` if none."""
    top, left = max(1, y - reach), max(1, x - reach)
    window = power[top : min(y + reach + 1, power.shape[0] - 1), left : min(x + reach + 1, power.shape[1] - 1)]
    a, b = np.unravel_index(window.argmax(), window.shape)
    y, x = top + a, left + b
    near = power[y - 1 : y + 2, x - 1 : x + 2]
    if not near.sum():  # a picture that is clipped everywhere
        return np.full(2, np.nan)
    steps = np.arange(-1, 2)
    return np.array([y + near.sum(1) @ steps / near.sum(), x + near.sum(0) @ steps / near.sum()])


class Reader:
    """Reads settings back from images: gradient boosting on hand-made statistics, as the fixed control does.

    No generator is trained against it, and it is no network.

    Parameters
    ----------
    train, val : Dataset
        At most `most` images of `train` are learnt from.
    """

    def __init__(self, train: Dataset, val: Dataset, *, most: int = 2000, seed: int = 0) -> None:
        rng = np.random.default_rng((seed, 13))
        parts = [part.view(np.sort(rng.permutation(len(part))[:n])) for part, n in ((train, most), (val, most // 5))]
        self.normalizer, self.seed = train.normalizer, seed
        self.features = [np.array([self.look(p.image(i)) for i in range(len(p))]) for p in parts]
        self.targets = [p.metadata.astype(float) for p in parts]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Normalised settings (n, 7) of images of which `look` gave the rows; ``nan`` where none was known to learn."""
        features = [*self.features, np.asarray(rows)]
        read = np.full((len(features[2]), len(PARAMETERS)), np.nan)
        for j in range(len(PARAMETERS)):
            targets = [t[:, j] for t in self.targets]
            if all(np.isfinite(t).any() for t in targets):
                read[:, j] = boost(features, targets, self.seed)[0]
        return read

    @staticmethod
    def look(image: np.ndarray) -> np.ndarray:
        """Statistics of an image (h, w) as it would be stored, in whole counts."""
        return image_statistics(np.rint(image))
