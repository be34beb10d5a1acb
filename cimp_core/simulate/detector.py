"""The annular detector: from electrons that reach it to the numbers of a 16-bit micrograph.

A scan position receives ``current * dwell_time / e`` electrons, of which the specimen sends a fraction to
the detector. Their number is Poisson distributed; each makes a light pulse of random height (gamma
distributed); the scintillator's light decays exponentially, so that at a short dwell time part of it is
counted in the following positions of the row; the amplifier multiplies by a slope that grows with the gain
setting, adds the black level, and some noise of its own; the result is rounded and clipped to 16 bits.

What the gain setting means in counts is not published by any maker. It is taken here to be exponential, as the
amplification of a photomultiplier is a high power of its voltage; the exponent differs between instruments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.constants import elementary_charge
from scipy.signal import lfilter

from ..errors import OutOfRangeError
from ..metadata import Acquisition

__all__ = ["FULL_SCALE", "Detector", "after_glow", "electrons", "expected_counts", "record", "spill"]

FULL_SCALE = 65535
"""Largest number that a 16-bit image can hold."""

SAMPLING_TIME = 1e-6
"""Dwell time [s] at which the "mean" and the "sum" readout give the same numbers."""

REFERENCE_GAIN = 32.0


@dataclass(frozen=True)
class Detector:
    """One detector with its amplifier, as it does not change from image to image.

    Parameters
    ----------
    slope : float
        Counts per picoampere of detected current at gain 32 (mean readout).
    slope_exponent : float
        Relative growth of the slope per unit of gain: slope(gain) = slope * exp(slope_exponent * (gain - 32)).
    black_level : float
        Counts without a beam at offset 0 and without dark current.
    black_per_offset : float
        Counts per unit of offset.
    dark_current : float
        Stray light and dark current, as the detected electron current [A] that would give the same signal.
    pulse_height_spread : float
        Standard deviation over mean of the pulse heights of single electrons. It multiplies the variance of
        the counts by 1 + spread^2.
    decay_time : float
        Decay time of the after-glow [s]; 0 for none.
    read_noise : float
        Standard deviation [counts] of the amplifier's noise at a dwell time of 1 us.
    readout : {"mean", "sum"}
        Whether a pixel is the mean over the dwell time (Velox) or the sum (DigitalMicrograph), which makes
        signal and black level grow with the dwell time.
    """

    slope: float
    slope_exponent: float
    black_level: float
    black_per_offset: float
    dark_current: float = 0.0
    pulse_height_spread: float = 0.5
    decay_time: float = 50e-9
    read_noise: float = 30.0
    readout: str = "mean"

    def __post_init__(self) -> None:
        if self.readout not in ("mean", "sum"):
            raise OutOfRangeError(f'readout is {self.readout!r}: it must be "mean" or "sum"')
        if min(self.slope, self.slope_exponent) <= 0:
            raise OutOfRangeError("slope and slope_exponent must be above zero: counts grow with the gain")
        if min(self.pulse_height_spread, self.decay_time, self.read_noise, self.dark_current) < 0:
            raise OutOfRangeError("spread, decay time, read noise and dark current of a detector cannot be negative")

    def slope_at(self, gain: float) -> float:
        """Counts per picoampere of detected current at `gain` (mean readout)."""
        return self.slope * math.exp(self.slope_exponent * (gain - REFERENCE_GAIN))

    def gain_for(self, slope: float) -> float:
        """Inverse of `slope_at`."""
        return REFERENCE_GAIN + math.log(slope / self.slope) / self.slope_exponent

    def black_at(self, offset: float) -> float:
        """Counts without beam and dark current at `offset` (mean readout)."""
        return self.black_level + self.black_per_offset * offset


def _need(acquisition: Acquisition, *names: str) -> None:
    for name in names:
        if getattr(acquisition, name) is None:
            raise OutOfRangeError(f"{name} is missing ({acquisition.missing[name]}): recording an image needs it")


def _readout_time(acquisition: Acquisition, detector: Detector) -> float:
    """Factor between counts of this readout and counts of the mean readout."""
    return 1.0 if detector.readout == "mean" else acquisition.dwell_time / SAMPLING_TIME


def electrons(fraction: np.ndarray, acquisition: Acquisition, detector: Detector) -> np.ndarray:
    """Expected number of detected electrons in each dwell time, dark current included, before after-glow.

    Parameters
    ----------
    fraction : (..., rows, columns) array
        Part of the incident electrons that reaches the detector.
    """
    _need(acquisition, "dwell_time", "beam_current")
    per_ampere = acquisition.dwell_time / elementary_charge
    return np.asarray(fraction) * (acquisition.beam_current * per_ampere) + detector.dark_current * per_ampere


def spill(decay_time: float, dwell_time: float) -> float:
    """Part of a pixel's light that is counted in later pixels, f = (tau / T) (1 - exp(-T / tau)).

    Electrons arrive evenly over the dwell time T and the light decays exponentially with time constant tau.
    """
    if decay_time == 0:
        return 0.0
    return decay_time / dwell_time * -math.expm1(-dwell_time / decay_time)


def after_glow(
    signal: np.ndarray, decay_time: float, dwell_time: float, before: np.ndarray | float = 0.0
) -> np.ndarray:
    """Light counted in each pixel, (rows, columns), when it decays exponentially along the row.

    The pixel keeps 1 - f of its light (see `spill`); of the rest, each later pixel gets exp(-T/tau) of what the
    one before got. `before` is the signal at which the light had settled before the row: a number, or (rows, 1).
    """
    if decay_time == 0:
        return signal
    f, r = spill(decay_time, dwell_time), math.exp(-dwell_time / decay_time)
    start = np.broadcast_to(np.asarray(f * before, signal.dtype), (len(signal), 1))
    taps = np.array([1 - f, f - r], signal.dtype), np.array([1, -r], signal.dtype)
    return lfilter(*taps, signal, axis=-1, zi=start)[0]


def _counts(detected: np.ndarray, acquisition: Acquisition, detector: Detector) -> np.ndarray:
    """Counts for a number of detected electrons a pixel: the affine part of the chain."""
    _need(acquisition, "detector_gain", "detector_offset")
    picoamperes_per_electron = elementary_charge / acquisition.dwell_time * 1e12
    slope = detector.slope_at(acquisition.detector_gain) * picoamperes_per_electron
    black = detector.black_at(acquisition.detector_offset)
    return _readout_time(acquisition, detector) * (slope * detected + black)


def expected_counts(fraction: np.ndarray, acquisition: Acquisition, detector: Detector) -> np.ndarray:
    """Mean of the counts over many recordings, before rounding and clipping; exactly affine in `fraction`.

    Parameters
    ----------
    fraction : (rows, columns) array
        Part of the incident electrons that reaches the detector at each scan position.

    Returns
    -------
    (rows, columns) float64 array
        Counts. They may lie outside 0..65535, where `record` clips.
    """
    light = electrons(np.asarray(fraction, float), acquisition, detector)
    # The beam waits at the start of the row before it begins. Fly-back takes about 1 ms, far longer than the
    # glow of the row before, so rows do not see each other.
    light = after_glow(light, detector.decay_time, acquisition.dwell_time, light[:, :1])
    return _counts(light, acquisition, detector)


def record(fraction: np.ndarray, acquisition: Acquisition, detector: Detector, rng: np.random.Generator) -> np.ndarray:
    """One recording of the image: shot noise, pulse heights, after-glow, read noise, rounding, clipping.

    The sum of n gamma-distributed pulse heights is again gamma distributed, so one draw a pixel is exact.
    How the light of a single electron divides between pixels is taken at its mean.

    Returns
    -------
    (rows, columns) uint16 array
    """
    expected = electrons(fraction, acquisition, detector)
    # The end of the fly-back is drawn too, so that the first pixels see a glow with noise.
    waiting = math.ceil(3 * detector.decay_time / acquisition.dwell_time)
    light = rng.poisson(np.pad(expected, ((0, 0), (waiting, 0)), mode="edge")).astype(np.float32)
    if detector.pulse_height_spread > 0:
        variance = np.float32(detector.pulse_height_spread**2)
        light = rng.standard_gamma(light / variance, dtype=np.float32) * variance
    light = after_glow(light, detector.decay_time, acquisition.dwell_time, expected[:, :1])[:, waiting:]
    counts = _counts(light, acquisition, detector)
    # White amplifier noise: its mean over the dwell time falls as 1/sqrt(T), its sum grows as sqrt(T).
    deviation = detector.read_noise * math.sqrt(SAMPLING_TIME / acquisition.dwell_time)
    counts += _readout_time(acquisition, detector) * deviation * rng.standard_normal(counts.shape, dtype=np.float32)
    return np.clip(np.rint(counts), 0, FULL_SCALE).astype(np.uint16)
