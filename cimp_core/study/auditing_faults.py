"""Faults that are planted to measure the audit; their sizes were fixed before anything was measured on test sessions.

Each takes image `i` of a twin, the others of the file for what it needs of them, and gives a picture, its recorded
settings, and what should object: settings by name, or a check. ``None`` where the fault is none for this image, such as
the current of another session that happens to be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..auditing.spoiled import bright_field, resampled, rescaled, rotated
from ..dataset import Dataset
from ..digital_twin import scan_of, shot_of
from ..metadata import PARAMETERS, Acquisition
from ..simulate.detector import FULL_SCALE, expected_counts, record

__all__ = ["FAULTS", "Fault", "Planted"]

CURRENT_RATIO = 1.5
"""A stale current differs by at least this factor."""

GAIN_STEP = 3.5
"""A gain of another detector differs by at least this; on the twin's instruments about a factor of 2 in counts."""

OFFSET_STEP = 0.3
"""An offset of another detector differs by at least this: some 2,000 counts."""

CLIPPED_SHARE = 0.05
"""Part of the pixels that a wrong gain or offset clips."""

SAME = 0.01
"""Settings that differ by less are the same."""


@dataclass(frozen=True)
class Planted:
    """A picture with a fault in it or in its settings."""

    image: np.ndarray
    settings: Acquisition


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Parameters
    ----------
    plant : function
        ``plant(data, i, rng)`` gives a `Planted` or ``None``.
    objects : tuple of str
        What should object: names of settings, or one check; all seven settings where any may.
    new_picture : bool
        Whether the picture changes, or the settings alone.
    what : str
        In words, for tables.
    """

    plant: Callable[[Dataset, int, np.random.Generator], Planted | None]
    objects: tuple[str, ...]
    new_picture: bool
    what: str


def _scaled(name: str, factor: float) -> Callable:
    def plant(data: Dataset, i: int, rng: np.random.Generator) -> Planted:
        settings = data.acquisition(i)
        wrong = getattr(settings, name) * factor ** float(rng.choice([-1, 1]))
        return Planted(data.image(i), settings.replace(**{name: float(wrong)}))

    return plant


def _stale_current(data: Dataset, i: int, rng: np.random.Generator) -> Planted | None:
    """The current of the nearest earlier session of the same instrument that had another one."""
    own, instrument = data.acquisition(i), shot_of(data, i).instrument.name
    for k in range(i - 1, -1, -1):
        if data.sessions[k] == data.sessions[i] or shot_of(data, k).instrument.name != instrument:
            continue
        other = data.acquisition(k).beam_current
        if abs(np.log(other / own.beam_current)) >= np.log(CURRENT_RATIO):
            return Planted(data.image(i), own.replace(beam_current=other))
    return None


def _other_detector(gain: bool, offset: bool) -> Callable:
    def plant(data: Dataset, i: int, rng: np.random.Generator) -> Planted | None:
        own, instrument = data.acquisition(i), shot_of(data, i).instrument.name
        for k in rng.permutation(len(data)):
            other = data.acquisition(int(k))
            if shot_of(data, int(k)).instrument.name == instrument:
                continue
            far_gain = abs(other.detector_gain - own.detector_gain) >= GAIN_STEP
            far_offset = abs(other.detector_offset - own.detector_offset) >= OFFSET_STEP
            if (gain and not far_gain) or (offset and not far_offset):
                continue
            changes = {"detector_gain": other.detector_gain} if gain else {}
            changes |= {"detector_offset": other.detector_offset} if offset else {}
            return Planted(data.image(i), own.replace(**changes))
        return None

    return plant


def _previous(same_session: bool) -> Callable:
    def plant(data: Dataset, i: int, rng: np.random.Generator) -> Planted | None:
        k = i - 1
        while not same_session and k >= 0 and data.sessions[k] == data.sessions[i]:
            k -= 1
        if k < 0 or (data.sessions[k] == data.sessions[i]) != same_session:
            return None
        own, other = data.acquisition(i).vector(), data.acquisition(k)
        if np.all(np.abs(own - other.vector()) <= SAME * np.abs(own)):
            return None
        return Planted(data.image(i), other)

    return plant


def _clipped(high: bool) -> Callable:
    """Gain or offset turned until a share of the expected counts lies outside the range; recorded as it was turned."""

    def plant(data: Dataset, i: int, rng: np.random.Generator) -> Planted:
        shot, fraction = scan_of(data, i)
        own, detector = shot.acquisition, shot.detector
        counts = expected_counts(fraction, own, detector)
        if high:
            black = detector.black_at(own.detector_offset)
            level = float(np.quantile(counts, 1 - CLIPPED_SHARE)) - black
            gain = own.detector_gain + np.log(max(FULL_SCALE - black, 1) / max(level, 1)) / detector.slope_exponent
            settings = own.replace(detector_gain=float(gain))
        else:
            lower = float(np.quantile(counts, CLIPPED_SHARE)) / detector.black_per_offset
            settings = own.replace(detector_offset=own.detector_offset - lower)
        return Planted(record(fraction, settings, detector, rng), settings)

    return plant


def _spoiled(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    def plant(data: Dataset, i: int, rng: np.random.Generator) -> Planted:
        image = data.image(i)
        return Planted(change(image)[: image.shape[0], : image.shape[1]], data.acquisition(i))

    return plant


def _bright_field(data: Dataset, i: int, rng: np.random.Generator) -> Planted:
    return Planted(bright_field(data, i, seed=int(rng.integers(2**31))), data.acquisition(i))


def _resampled_with_pixel_size(factor: float, order: int) -> Callable:
    """A resampled picture whose pixel size was set to match: nothing but its noise can tell."""

    def plant(data: Dataset, i: int, rng: np.random.Generator) -> Planted:
        image, settings = data.image(i), data.acquisition(i)
        made = resampled(image, factor, order)[: image.shape[0], : image.shape[1]]
        return Planted(made, settings.replace(pixel_size=settings.pixel_size / factor))

    return plant


FAULTS: dict[str, Fault] = {
    "pixel_size_10x": Fault(
        _scaled("pixel_size", 10), ("pixel_size",), False, "pixel size 10 times too large or small"
    ),
    "pixel_size_2x": Fault(_scaled("pixel_size", 2), ("pixel_size",), False, "pixel size 2 times too large or small"),
    "pixel_size_10_percent": Fault(_scaled("pixel_size", 1.1), ("pixel_size",), False, "pixel size off by 10 %"),
    "dwell_time_unit": Fault(
        _scaled("dwell_time", 1000), ("dwell_time",), False, "dwell time in the wrong unit, 1000 x"
    ),
    "stale_current": Fault(
        _stale_current, ("beam_current",), False, "beam current of an earlier session, 1.5 x or more"
    ),
    "wrong_gain": Fault(
        _other_detector(True, False), ("detector_gain",), False, "gain of another detector, 3.5 or more off"
    ),
    "wrong_offset": Fault(
        _other_detector(False, True), ("detector_offset",), False, "offset of another detector, 0.3 or more off"
    ),
    "other_detector": Fault(
        _other_detector(True, True), ("detector_gain", "detector_offset"), False, "gain and offset of another detector"
    ),
    "bright_field": Fault(_bright_field, ("contrast",), True, "a bright field labelled HAADF"),
    "previous_session": Fault(_previous(False), PARAMETERS, False, "settings of the session before"),
    "previous_image": Fault(_previous(True), PARAMETERS, False, "settings of the image before, same session"),
    "saturated": Fault(_clipped(True), ("clipped",), True, "gain so high that 5 % of the expected counts are cut off"),
    "black_clipped": Fault(
        _clipped(False), ("clipped",), True, "offset so low that 5 % of the expected counts are below zero"
    ),
    "enlarged": Fault(_resampled_with_pixel_size(1.5, 3), ("resampled",), True, "resampled 1.5 times larger, cubic"),
    "reduced": Fault(
        _resampled_with_pixel_size(0.75, 1), ("resampled",), True, "resampled to 0.75 of its pixels, linear"
    ),
    "rotated": Fault(_spoiled(lambda image: rotated(image, 7.0)), ("resampled",), True, "turned by 7 degrees, cubic"),
    "stretched": Fault(
        _spoiled(lambda image: rescaled(image, 256)), ("levels",), True, "256 grey levels stretched to 16 bit"
    ),
}
"""By name. Duplicates are measured apart: they are a matter of two images."""
