"""What one quick frame tells: signal, noise, after-glow, black level, clipping, and columns if it shows any."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import fft

from ..denoising.classical import Wiener
from ..errors import OutOfRangeError
from ..metadata import Acquisition
from ..simulate.detector import FULL_SCALE
from .columns import FoundColumns, look_for_columns
from .noise import SMALLEST, FrameNoise, black_level, frame_noise, glow_power

__all__ = ["Estimate", "SignalPower", "check_frame", "estimate", "signal_kept"]

SEEN = 3.0
"""The picture's variance stands out from that of the noise by so many standard errors, or nothing is seen."""

UNLIKE, UNEVEN = 4.0, 0.4
"""Misfit of the noise's spectrum, and its change down the columns, above which the frame was not recorded so."""

_BINS = 24
_LEVELS = 256


class SignalPower(NamedTuple):
    """Variance of the picture without noise, by frequency along the row and by radius, both [cycles/px]."""

    along: np.ndarray  # (n,)
    radius: np.ndarray  # (n,)
    power: np.ndarray  # (n,) [counts^2]; they sum to the variance
    sure: np.ndarray  # (n,) bool: stands out from the noise
    noise: float  # power of the noise at these frequencies [counts^2]
    chance: float  # standard deviation that noise gives to the sum of the powers, were its spectrum known [counts^2]


@dataclass(frozen=True)
class Estimate:
    """What a frame tells.

    Attributes
    ----------
    settings : Acquisition
        What it was taken with.
    shape : (int, int)
        Rows and columns [px].
    on_scale : bool
        Whether it has Velox's 16-bit counts, the only ones for which gain and offset can be advised.
    noise : FrameNoise
    decay_time : float
        Of the detector's light [s]; 0 where no after-glow is seen.
    signal : SignalPower
    mean, black : float
        Mean of the counts, and those at which there would be no signal.
    levels : (256,) array
        Quantiles of the expected counts, in the middle of 256 equal shares.
    clipped : (float, float)
        Shares of the pixels at 0 and at the largest number; zeros where the scale has no end.
    columns : FoundColumns or None
        ``None`` where the frame shows none.
    """

    settings: Acquisition
    shape: tuple[int, int]
    on_scale: bool
    noise: FrameNoise
    decay_time: float
    signal: SignalPower
    mean: float
    black: float
    levels: np.ndarray
    clipped: tuple[float, float]
    columns: FoundColumns | None

    @property
    def signal_variance(self) -> float:
        """Of the expected picture [counts^2]; chance may bring it below zero."""
        return float(self.signal.power.sum())

    @property
    def signal_error(self) -> float:
        """Standard error of it [counts^2]."""
        return math.hypot(self.signal.chance, self.noise.white_error * self.signal.noise)

    @property
    def snr(self) -> float:
        """Standard deviation of the expected picture over the root mean square noise of a pixel."""
        return math.sqrt(max(self.signal_variance, 0.0) / self.noise.variance)

    @property
    def seen(self) -> bool:
        """Whether the frame shows anything but noise."""
        return self.signal_variance > SEEN * self.signal_error

    @property
    def frame_time(self) -> float | None:
        """Time that the beam is on [s], fly-back not counted."""
        return None if self.settings.dwell_time is None else self.shape[0] * self.shape[1] * self.settings.dwell_time


def check_frame(frame: np.ndarray) -> np.ndarray:
    """The frame as float64, (h, w).

    Raises
    ------
    OutOfRangeError
        It is no single image of 32 pixels a side or more, has pixels that are not finite, is constant, or is clipped in
        more than a fifth of its pixels.
    """
    data = np.asarray(frame)
    if data.ndim != 2 or min(data.shape) < SMALLEST or data.dtype.kind not in "uif":
        raise OutOfRangeError(
            f"frame of shape {data.shape}, {data.dtype}: give one image (h, w) of counts, {SMALLEST} px a side or more"
        )
    if bad := int(data.size - np.isfinite(data).sum()):
        raise OutOfRangeError(f"{bad} of {data.size} pixels are nan or infinite: take the frame again")
    if data.min() == data.max():
        raise OutOfRangeError(f"every pixel is {data.flat[0]:g}: the frame is blank or saturated; is the beam on?")
    low, high = _clipped(data)
    if low + high > 0.2:
        raise OutOfRangeError(
            f"{high:.0%} of the pixels are at full scale and {low:.0%} at zero: the noise cannot be read; change "
            "gain or offset and take the frame again"
        )
    return data.astype(float)


def estimate(
    frame: np.ndarray,
    settings: Acquisition,
    *,
    on_scale: bool = True,
    decay_time: float | None = None,
    recorded: bool = True,
) -> Estimate:
    """Signal, noise, levels and columns of (h, w) counts.

    Parameters
    ----------
    settings : Acquisition
        What it was taken with; of a combination of frames, with the dwell time that all have together.
    on_scale : bool
        Whether the counts are on Velox's 16-bit scale.
    decay_time : float, optional
        Of the detector's light [s], where it is known from other frames. From the frame's own noise by default.
    recorded : bool
        Refuse a frame whose noise says that it was filtered; false for a combination of frames.

    Raises
    ------
    OutOfRangeError
        See `check_frame`; or the frame has no noise.
    """
    x = check_frame(frame)
    noise = frame_noise(x)
    if recorded and (noise.misfit > UNLIKE or noise.uneven > UNEVEN):
        raise OutOfRangeError(
            "the noise is not that of a recording: it changes with frequency as after filtering or resampling; "
            "give the frame as it was recorded"
        )
    clipped = _clipped(np.asarray(frame)) if on_scale else (0.0, 0.0)
    signal = _signal_power(x, noise)
    picture = np.asarray(Wiener()(x.astype(np.float32))[0], float)
    levels = _levels(picture, max(float(signal.power.sum()), 0.0))
    if decay_time is None:
        decay_time = 0.0 if settings.dwell_time is None else noise.glow * settings.dwell_time
    black, columns = _black(x, picture, levels), look_for_columns(x, noise.white, noise.glow)
    return Estimate(
        settings, x.shape, on_scale, noise, decay_time, signal, float(x.mean()), black, levels, clipped, columns
    )


def _clipped(data: np.ndarray) -> tuple[float, float]:
    """Shares at either end of 16 bits; of other scales, at the least and the largest value if many have it."""
    low, high = (0, FULL_SCALE) if data.dtype == np.uint16 else (data.min(), data.max())
    shares = float(np.mean(data <= low)), float(np.mean(data >= high))
    return shares if data.dtype == np.uint16 else tuple(s if s > 0.002 else 0.0 for s in shares)


def _signal_power(x: np.ndarray, noise: FrameNoise) -> SignalPower:
    """Power of the frame less that of its noise, summed over bins of frequency, up to the highest that shows any."""
    height, width = x.shape
    power = fft.dctn(x - x.mean(), norm="ortho") ** 2 / x.size
    along = np.broadcast_to(np.arange(width) / (2 * width), x.shape)
    radius = np.hypot(np.arange(height)[:, None] / (2 * height), along)
    expected = np.broadcast_to(noise.spectrum / x.size, x.shape)
    ring = np.minimum((radius * 2 * _BINS).astype(int), 2 * _BINS - 1)
    top = _highest(ring, power, expected)
    bins = ((along * 2 * _BINS).astype(int) * 2 * _BINS + ring)[ring <= top]
    sums, noises, squares, number, row, far = (
        np.bincount(bins, values[ring <= top], 2 * _BINS**2)
        for values in (power, expected, expected**2, np.ones(x.shape), along, radius)
    )
    used = number > 0
    left = (sums - noises)[used]
    sure = left > 3 * np.sqrt(2 * squares[used])
    whole = max(float(left.sum()), 0.0)
    chance = math.sqrt(4 * whole * float(noises.sum()) / max(float(number.sum()), 1.0) + 2 * float(squares.sum()))
    return SignalPower(row[used] / number[used], far[used] / number[used], left, sure, float(noises.sum()), chance)


def _highest(ring: np.ndarray, power: np.ndarray, expected: np.ndarray) -> int:
    """Number of the last ring of frequencies in which there is more than noise; of the last one if there is none."""
    sums, noises, squares = (np.bincount(ring.ravel(), v.ravel()) for v in (power, expected, expected**2))
    more = np.flatnonzero(sums - noises > 3.5 * np.sqrt(2 * squares) + 0.02 * noises)
    return int(more[-1]) + 1 if len(more) else len(sums)


def signal_kept(signal: SignalPower, before: float, after: float, blur: float = 0.0) -> float:
    """Factor of the picture's variance when the glow changes and a Gaussian blur of `blur` [px^2] more is added.

    Only what stands out from the noise is changed: dividing noise by a small transfer would make a signal of it.
    """
    power = np.where(signal.sure, np.maximum(signal.power, 0), 0)
    rest = float(signal.power.sum() - power.sum())
    factor = glow_power(after, signal.along) / glow_power(before, signal.along)
    factor = factor * np.exp(-4 * np.pi**2 * signal.radius**2 * blur)
    whole = float(signal.power.sum())
    return max((float((power * factor).sum()) + rest) / whole, 0.05) if whole > 0 else 1.0


def _levels(picture: np.ndarray, variance: float) -> np.ndarray:
    """Quantiles of the filtered picture, stretched to the variance that the picture has."""
    shares = (np.arange(_LEVELS) + 0.5) / _LEVELS
    levels = np.quantile(picture, shares)
    spread = float(levels.std())
    stretch = min(math.sqrt(variance) / spread, 2.0) if spread > 0 else 1.0
    return float(picture.mean()) + stretch * (levels - levels.mean())


def _black(x: np.ndarray, picture: np.ndarray, levels: np.ndarray) -> float:
    """Counts without signal: where the noise would vanish, if it tells, and not above the darkest of the picture."""
    found, darkest = black_level(x, picture), float(levels[2])
    return darkest if found is None else min(found, darkest)
