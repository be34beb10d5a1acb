"""Filters that were there before networks, each with a blind default, and two that are told the best setting.

Every filter is a callable ``method(frame, acquisition, factor) -> (image, None)``: counts in, counts out, at any scale
of intensity. They use neither settings nor dose factor: a filter knows the image and nothing else. What noise there
is, they take from the image. Scikit-image computes all but the Gaussian and the Wiener filter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from ..errors import OutOfRangeError
from ..metadata import Acquisition
from .noise_line import NoiseLine, noise_line

__all__ = ["Gaussian", "NonLocalMeans", "TotalVariation", "Wavelet", "Wiener", "keep_level", "steadied"]

_LEVEL = 12.0  # px: over a Gaussian of this width the mean level of the recording is kept


def checked(frame: np.ndarray) -> np.ndarray:
    """The frame as float32; `OutOfRangeError` if it is no finite image of at least 32 pixels a side."""
    frame = np.asarray(frame, np.float32)
    if frame.ndim != 2 or min(frame.shape) < 32:
        raise OutOfRangeError(f"a frame of shape {frame.shape}: denoising needs (h, w) with 32 pixels a side or more")
    if not np.isfinite(frame).all():
        raise OutOfRangeError("the frame holds nan or infinite values: replace them before denoising")
    return frame


def keep_level(image: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """`image` with the slow part of what it lost of the recording given back, so that regions keep their mean."""
    return image + ndimage.gaussian_filter(frame - image, _LEVEL, mode="reflect")


def steadied(frame: np.ndarray, smooth: Callable[[np.ndarray], np.ndarray], line: NoiseLine | None) -> np.ndarray:
    """`smooth` applied where noise has the standard deviation 1 and the mean is 0; float32 counts come back.

    A frame without noise (`line` is ``None``) comes back as it is.
    """
    if line is None:
        return frame.copy()
    steady = line.stabilise(frame.astype(float))
    middle = float(steady.mean())
    image = line.restore(smooth((steady - middle).astype(np.float32)).astype(float) + middle)
    return keep_level(image, frame).astype(np.float32)


@dataclass(frozen=True)
class Gaussian:
    """Gaussian filter.

    Parameters
    ----------
    sigma : float, optional
        [px] By default, of sixteen from 0.35 to 16 px, the one with the least of Stein's unbiased estimate of the
        error, which needs to know the noise and nothing else.
    """

    sigma: float | None = None
    name: str = "gaussian"
    margin: int = 64

    def __call__(
        self, frame: np.ndarray, acquisition: Acquisition | None = None, factor: float = 16
    ) -> tuple[np.ndarray, None]:
        frame = checked(frame)
        sigma = self.sigma if self.sigma is not None else blind_sigma(frame)
        return (ndimage.gaussian_filter(frame, sigma, mode="reflect") if sigma > 0 else frame.copy()), None


def blind_sigma(frame: np.ndarray) -> float:
    """Width [px] of least estimated error, |x - Gx|^2 + 2 sum_k c(k) G(k), c the covariance of noise along a row."""
    # Second differences down the columns: hardly any signal, and rows do not see each other's after-glow.
    rough = ndimage.convolve1d(frame.astype(float), np.array([1, -2, 1]) / np.sqrt(6), axis=0, mode="reflect")[1:-1]
    reach = min(16, frame.shape[1] - 1)
    covariance = np.array([np.mean(rough[:, : rough.shape[1] - k] * rough[:, k:]) for k in range(reach)])
    if not covariance[0] > 1e-12 * max(1.0, float(np.abs(frame).max())) ** 2:
        return 0.0
    middled, best = frame.astype(float) - frame.mean(), (np.inf, 0.0)
    impulse = np.zeros(257)
    impulse[128] = 1
    for sigma in np.geomspace(0.35, 16, 16):
        left = middled - ndimage.gaussian_filter(middled, sigma, mode="reflect")
        weights = ndimage.gaussian_filter1d(impulse, sigma)[128 : 128 + reach]
        kept = weights[0] * (2 * covariance @ weights - covariance[0] * weights[0])
        best = min(best, (float(np.mean(left**2) + 2 * kept), float(sigma)))
    return best[1]


@dataclass(frozen=True)
class TotalVariation:
    """Total variation (Rudin, Osher and Fatemi 1992) by Chambolle's algorithm, of the stabilised image.

    Parameters
    ----------
    weight : float
        In standard deviations of the noise; the larger, the flatter.
    steps : int
        At most so many iterations.
    """

    weight: float = 2.0
    steps: int = 60
    name: str = "total_variation"
    margin: int = 32

    def __call__(
        self, frame: np.ndarray, acquisition: Acquisition | None = None, factor: float = 16
    ) -> tuple[np.ndarray, None]:
        frame = checked(frame)
        return self.with_noise(frame, noise_line(frame)), None

    def with_noise(self, frame: np.ndarray, line: NoiseLine | None) -> np.ndarray:
        """The same with noise that is known already."""

        def smooth(steady: np.ndarray) -> np.ndarray:
            return denoise_tv_chambolle(steady, weight=self.weight, eps=1e-4, max_num_iter=self.steps)

        return steadied(frame, smooth, line)


@dataclass(frozen=True)
class NonLocalMeans:
    """Non-local means (Buades, Coll and Morel 2005), of the stabilised image.

    Parameters
    ----------
    strength : float
        Cut-off in standard deviations of the noise.
    patch, distance : int
        Edge of the patches that are compared, and how far away they may lie [px].
    """

    strength: float = 0.7
    patch: int = 7
    distance: int = 8
    name: str = "non_local_means"
    margin: int = 32

    def __call__(
        self, frame: np.ndarray, acquisition: Acquisition | None = None, factor: float = 16
    ) -> tuple[np.ndarray, None]:
        frame = checked(frame)

        def smooth(steady: np.ndarray) -> np.ndarray:
            sizes = {"patch_size": self.patch, "patch_distance": self.distance}
            return denoise_nl_means(steady, h=self.strength, sigma=1.0, fast_mode=True, **sizes)

        return steadied(frame, smooth, noise_line(frame)), None


@dataclass(frozen=True)
class Wavelet:
    """Soft thresholds of Haar coefficients at every shift (BayesShrink, Chang, Yu and Vetterli 2000), stabilised.

    Parameters
    ----------
    levels : int
        The coarsest differences are of blocks of 2^(levels - 1) pixels.
    """

    levels: int = 5
    name: str = "wavelet"
    margin: int = 64

    def __call__(
        self, frame: np.ndarray, acquisition: Acquisition | None = None, factor: float = 16
    ) -> tuple[np.ndarray, None]:
        frame = checked(frame)

        def smooth(steady: np.ndarray) -> np.ndarray:
            width = 2**self.levels
            padded = np.pad(steady, width, mode="symmetric")
            return _haar(padded, self.levels)[width:-width, width:-width]

        return steadied(frame, smooth, noise_line(frame)), None


def _haar(image: np.ndarray, levels: int, level: int = 0) -> np.ndarray:
    """Thresholded Haar transform of all shifts, of white noise of variance 1 in `image`, and back; edges wrap."""
    if level == levels:
        return image
    step = 2**level
    rows = _halves(image, step, 0)
    bands = [_halves(part, step, 1) for part in rows]
    noise = 0.25 ** (level + 1)  # variance of a mean of 4^(level + 1) pixels, or of such differences
    coarse = _haar(bands[0][0], levels, level + 1)
    kept = [[coarse, _shrink(bands[0][1], noise)], [_shrink(band, noise) for band in bands[1]]]
    rows = [_joined(*pair, step, 1) for pair in kept]
    return _joined(*rows, step, 0)


def _halves(image: np.ndarray, step: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Half the sum and half the difference of each pixel and the one `step` further."""
    further = np.roll(image, -step, axis)
    return (image + further) / 2, (image - further) / 2


def _joined(mean: np.ndarray, difference: np.ndarray, step: int, axis: int) -> np.ndarray:
    """A pixel from the pair that it begins and from the pair that it ends, averaged: inverse of `_halves`."""
    return (mean + difference + np.roll(mean - difference, step, axis)) / 2


def _shrink(band: np.ndarray, noise: float) -> np.ndarray:
    """Soft threshold: variance of the noise over the standard deviation of the signal."""
    signal = max(float(np.mean(band**2)) - noise, 1e-12)
    return np.sign(band) * np.maximum(np.abs(band) - noise / np.sqrt(signal), 0)


@dataclass(frozen=True)
class Wiener:
    """Empirical Wiener filter: each frequency keeps the part of its power that is not noise.

    The noise of a row does not see the next row, so its spectrum depends on the frequency along the row only, and is
    read from the highest frequencies down the columns: after-glow and streaks are in it. A lattice is kept well, since
    its spots stand out; whatever occurs only once in the image is not.

    Parameters
    ----------
    over : float
        Factor by which noise is subtracted in excess, so that chance leaves little behind.
    """

    over: float = 2.0
    name: str = "wiener"
    margin: int = 64

    def __call__(
        self, frame: np.ndarray, acquisition: Acquisition | None = None, factor: float = 16
    ) -> tuple[np.ndarray, None]:
        frame = checked(frame)
        middle = float(frame.mean())
        height, width = frame.shape
        # The cosine transform mirrors the image at its edges, so these make no cross in the spectrum.
        spectrum = fft.dctn(frame - np.float32(middle), norm="ortho")
        power = spectrum**2
        high = power[int(0.85 * height) :]
        # The mean of squares of normal values over their median: noise alone, even if a spot lies there.
        noise = ndimage.gaussian_filter1d(np.median(high, axis=0) / 0.4549, max(2.0, width / 64), mode="nearest")
        local = ndimage.uniform_filter(power, 3, mode="nearest")
        kept = np.clip(1 - self.over * noise / np.maximum(local, 1e-30), 0, 1)
        kept[0, 0] = 1
        return (fft.idctn(spectrum * kept, norm="ortho") + np.float32(middle)).astype(np.float32), None
