"""Quality of a frame that was not taken yet, from the estimate of one that was.

Counts are ``black + slope(gain) x current x expected fraction``. Twice the dwell time is half the variance of the noise
at the same counts; twice the current also doubles the counts; a gain multiplies signal and noise alike. After-glow
weakens noise and fine structure the less, the longer the dwell time. Everything that was estimated, and the little
that is assumed of the detector, is drawn within its error, and what is predicted is an interval.

Noise of the amplifier is taken with the shot noise, as if it too fell with the current; nothing is known of drift.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special
from scipy.constants import elementary_charge

from ..analytic import AnalyticModel
from ..errors import OutOfRangeError
from ..metadata import Acquisition
from ..simulate.detector import FULL_SCALE
from ..simulate.optics import FWHM, source_size
from .columns import response
from .estimate import Estimate, signal_kept
from .goal import Goal
from .limits import Limits
from .noise import glow_kept

__all__ = ["LEVEL", "Calibration", "Interval", "Quality", "counts_range", "dose_of", "predict", "relative_dose"]

LEVEL = 0.9
"""Of the intervals: 19 of 20 times the quality is better than the worse end."""

_DRAWS = 240


class Interval(NamedTuple):
    """What is expected, and between what it lies with probability `LEVEL`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """Of one frame at some settings.

    Attributes
    ----------
    snr : Interval
        Standard deviation of the expected picture over the noise of a pixel.
    column_precision : Interval or None
        Standard error of fitted columns per axis [m]; ``None`` where the quick frame shows none, or the pixel size is
        not known.
    clipped : Interval or None
        Share of pixels at either end of the scale; ``None`` off the 16-bit scale.
    """

    snr: Interval
    column_precision: Interval | None
    clipped: Interval | None

    def of(self, goal: Goal) -> Interval | None:
        """The one that a goal is about."""
        return self.snr if goal.quantity == "snr" else self.column_precision

    def surely(self, goal: Goal) -> bool:
        """Whether even the worse end of the interval reaches the goal."""
        found = self.of(goal)
        return found is not None and goal.reached_by(found.low if goal.quantity == "snr" else found.high)


@dataclass(frozen=True)
class Calibration:
    """How well predictions held on simulated materials set aside for it, beyond what the frame's own noise explains."""

    snr: float = 0.03  # standard deviation of the logarithm of obtained over predicted
    columns: float = 0.12
    snr_now: float = 0.02  # the same of the frame itself, of which nothing is predicted
    columns_now: float = 0.10
    bright: float = 0.03  # of the expected counts above black
    snr_bias: float = 0.0  # mean of that logarithm
    columns_bias: float = 0.0
    snr_now_bias: float = 0.0
    columns_now_bias: float = 0.0
    gain_exponent_spread: float = 0.04  # standard deviation between instruments
    black_per_offset_spread: float = 0.25  # relative
    images: int = 0

    def errors(self, now: bool) -> tuple[tuple[float, float], tuple[float, float]]:
        """Bias and spread of snr and of column precision, of the frame itself or of another one."""
        if now:
            return (self.snr_now_bias, self.snr_now), (self.columns_now_bias, self.columns_now)
        return (self.snr_bias, self.snr), (self.columns_bias, self.columns)

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> Calibration:
        """Measured on the twin's training and validation materials."""
        file = Path(__file__).parents[1] / "data" / "advising.json"
        return cls(**json.loads(file.read_text())) if file.exists() else cls()


def dose_of(settings: Acquisition) -> float | None:
    """Electrons per area of one frame [e/m^2]: current x dwell time / (e x pixel size^2)."""
    known = settings.beam_current, settings.dwell_time, settings.pixel_size
    if None in known:
        return None
    return known[0] * known[1] / (elementary_charge * known[2] ** 2)


def relative_dose(settings: Acquisition, before: Acquisition) -> float:
    """Dose over that of another frame with the same pixels; a current that is not known is taken as unchanged."""
    factor = settings.dwell_time / before.dwell_time
    if None not in (settings.beam_current, before.beam_current):
        factor *= settings.beam_current / before.beam_current
    return factor


def predict(
    known: Estimate, settings: Acquisition, limits: Limits | None = None, calibration: Calibration | None = None
) -> Quality:
    """Quality of a frame of the same area at other settings.

    Parameters
    ----------
    known : Estimate
        Of a frame that was taken.
    settings : Acquisition
        Dwell time, current, gain and offset may differ from the frame's.
    limits : Limits, optional
        For the brightness and for what is known of gain and offset.

    Raises
    ------
    OutOfRangeError
        Another pixel size, convergence or collection angle; a dwell time that is not known; another current without the
        brightness of the source.
    """
    limits, calibration = limits or Limits(), calibration or Calibration.shipped()
    before = known.settings
    _check(before, settings)
    blur = _blur(before, settings, limits)
    z = _normals()
    dose = relative_dose(settings, before)
    decay = known.decay_time * np.exp(z[2] * known.noise.glow_error)
    now = known.noise.glow
    # Three values of the decay time, between which logarithms are interpolated: the draws are many.
    nodes = np.array([-2.0, 0.0, 2.0])
    table = []
    for node in nodes:
        longer = math.exp(node * known.noise.glow_error)
        then = now * longer if settings == before else known.decay_time * longer / settings.dwell_time
        kept = signal_kept(known.signal, now * longer, then, blur)
        table.append((math.log(kept), math.log(glow_kept(then)), math.log(glow_kept(now * longer))))
    kept, noise_then, noise_now = (np.exp(np.interp(z[2], nodes, column)) for column in np.array(table).T)
    noise = known.noise.variance * np.exp(z[0] * known.noise.white_error)
    more = (noise / known.noise.variance - 1) * known.signal.noise
    signal = known.signal_variance + known.signal.chance * z[1] - more
    signal = np.maximum(signal, 1e-4 * known.noise.variance) * kept
    white = noise / (dose * noise_now)  # at the counts of the frame
    of_snr, of_columns = calibration.errors(settings == before)
    snr = np.sqrt(signal / (white * noise_then)) * np.exp(of_snr[0] + of_snr[1] * z[3])
    precision = None
    if known.columns is not None and before.pixel_size is not None:
        error = _column_error(known, white, decay / settings.dwell_time, blur, z)
        precision = _interval(before.pixel_size * error * np.exp(of_columns[0] + of_columns[1] * z[4]))
    clipped = _clipped(known, settings, limits, calibration, white * noise_then, z) if known.on_scale else None
    return Quality(_interval(snr), precision, clipped)


def _check(before: Acquisition, settings: Acquisition) -> None:
    for name in ("pixel_size", "convergence_angle", "inner_collection_angle"):
        if getattr(settings, name) != getattr(before, name):
            raise OutOfRangeError(f"{name} differs from the frame's: what that gives cannot be predicted from it")
    if settings.dwell_time is None or before.dwell_time is None:
        raise OutOfRangeError("dwell_time is not known: without it no other dose can be predicted; give it")


def _blur(before: Acquisition, settings: Acquisition, limits: Limits) -> float:
    """Variance that another current adds to the probe [px^2]: the image of the source grows with its root."""
    if settings.beam_current == before.beam_current:
        return 0.0
    needed = before.beam_current, settings.beam_current, before.convergence_angle, before.pixel_size, limits.brightness
    if None in needed:
        raise OutOfRangeError(
            "another current changes the size of the source image: to predict it, give the brightness of the source in "
            "the limits; current, convergence angle and pixel size must be known"
        )
    sizes = [source_size(s.beam_current, before.convergence_angle, limits.brightness) for s in (before, settings)]
    return (sizes[1] ** 2 - sizes[0] ** 2) / (FWHM * before.pixel_size) ** 2


def _column_error(known: Estimate, white: np.ndarray, glow: np.ndarray, blur: float, z: np.ndarray) -> np.ndarray:
    """Standard error of columns [px], one a draw."""
    columns = known.columns
    wide = math.sqrt(max(columns.width**2 + blur, (0.3 * columns.width) ** 2))
    height = columns.height * (columns.width / wide) ** 2 * np.exp(columns.height_error * z[5])
    made = response(wide, columns.spacing, float(np.median(glow)))
    # Shot noise grows with the signal, and a place is read from the flanks of a column.
    local = np.clip((columns.level - known.black) / max(known.mean - known.black, 1e-9), 0.5, 4.0)
    return np.sqrt(0.5 * (made.down + made.along) * white * local) / height


def _scale(known: Estimate, settings: Acquisition, limits: Limits, calibration: Calibration) -> tuple[float, ...]:
    """Factor of the counts above black, its relative error, the black level, and its error [counts]."""
    before, model = known.settings, AnalyticModel.shipped()
    brighter = 1.0
    if None not in (before.beam_current, settings.beam_current):
        brighter = settings.beam_current / before.beam_current
    steps = [
        0.0 if None in (getattr(before, n), getattr(settings, n)) else getattr(settings, n) - getattr(before, n)
        for n in ("detector_gain", "detector_offset")
    ]
    exponent = limits.gain_exponent or model.slope_exponent
    per_offset = limits.black_per_offset or model.black_per_offset
    spread = 0.0 if limits.gain_exponent else calibration.gain_exponent_spread
    unsure = 0.0 if limits.black_per_offset else calibration.black_per_offset_spread * per_offset
    factor = brighter * math.exp(exponent * steps[0])
    return factor, spread * abs(steps[0]), known.black + per_offset * steps[1], unsure * abs(steps[1])


def _clipped(
    known: Estimate, settings: Acquisition, limits: Limits, calibration: Calibration, noise: np.ndarray, z: np.ndarray
) -> Interval:
    """Share of pixels beyond either end; the noise of a pixel is taken as gamma distributed, for it is skew."""
    factor, unsure, black, black_error = _scale(known, settings, limits, calibration)
    some = slice(None, None, 4)
    factor = factor * np.exp(unsure * z[6][some] + calibration.bright * z[5][some])[:, None]
    black = (black + black_error * z[7][some])[:, None]
    above = np.maximum(known.levels - known.black, 0)[None, :]
    mean = max(known.mean - known.black, 1e-9)
    variance = factor**2 * noise[some][:, None] * np.maximum(above / mean, 0.02)
    counts, deviation = black + factor * above, np.sqrt(variance)
    skew = np.clip(1.2 * deviation / np.maximum(factor * above, 1e-9), 0.02, 3.0)
    shape = 4 / skew**2
    ends = [shape + np.sqrt(shape) * (end - counts) / deviation for end in (0.5, FULL_SCALE - 0.5)]
    below = special.gammainc(shape, np.maximum(ends[0], 0))
    beyond = special.gammaincc(shape, np.maximum(ends[1], 0))
    return _interval((below + beyond).mean(axis=1))


def counts_range(
    known: Estimate, settings: Acquisition, limits: Limits, calibration: Calibration
) -> tuple[float, float]:
    """Counts between which all but a thousandth of the pixels of a frame lie, with what is not sure on either side."""
    factor, unsure, black, black_error = _scale(known, settings, limits, calibration)
    dose = relative_dose(settings, known.settings)
    mean = max(known.mean - known.black, 1e-9)
    unsure = math.hypot(unsure, calibration.bright)
    ends = []
    for level, sign in ((known.levels[0], -1), (known.levels[-1], 1)):
        above = max(float(level) - known.black, 0.0)
        deviation = factor * math.sqrt(known.noise.variance / dose * max(above / mean, 0.02))
        wide = factor * above * math.exp(sign * 1.645 * unsure)
        ends.append(black + wide + sign * (3 * deviation + 1.645 * black_error))
    return ends[0], ends[1]


def _interval(draws: np.ndarray) -> Interval:
    low, middle, high = np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Interval(float(middle), float(low), float(high))


@lru_cache(maxsize=1)
def _normals() -> np.ndarray:
    """(8, n) standard normal numbers, the same in every call, each with its opposite."""
    half = np.random.default_rng(0).standard_normal((8, _DRAWS // 2))
    return np.concatenate([half, -half], axis=1)
