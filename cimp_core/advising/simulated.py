"""A microscope made of the twin: it exposes one area as often as it is asked, while the specimen drifts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dataset import Dataset
from ..digital_twin import scan_of, shot_of
from ..metadata import Acquisition
from ..simulate.detector import expected_counts, record
from ..simulate.instruments import Shot
from .columns import obtained_error
from .combine import Combination
from .goal import Goal
from .predict import dose_of

__all__ = ["REPEATS", "SimulatedMicroscope", "obtained_snr"]


REPEATS = 6
"""Recordings of one scan from which the standard error of columns is taken."""


class SimulatedMicroscope:
    """Takes frames of the area of one image of a twin, and keeps what was expected of each.

    The specimen drifts with the velocity that the image was made with, during frames and between them.

    Parameters
    ----------
    data : Dataset
        A twin.
    index : int
        Image whose area, focus, detector and drift are used.
    pause : float
        Time between the end of a frame and the start of the next [s].
    drift : float
        Factor on the image's drift velocity.
    seed : int
        Of scan and noise.

    Attributes
    ----------
    index : int
        As given.
    settings : Acquisition
        Those of the image.
    frames, expected : list of (h, w) arrays
        What was recorded, and the mean of which it is one draw, of each frame.
    scans : list of (Shot, (h, w) array)
        What each was made from: `cimp_core.digital_twin.scan_of`.
    dose : float
        Of all frames [e/m^2].
    """

    def __init__(self, data: Dataset, index: int, *, pause: float = 5.0, drift: float = 1.0, seed: int = 0) -> None:
        self._data, self.index, self._pause, self._seed = data, index, pause, seed
        self.settings: Acquisition = shot_of(data, index).acquisition
        self._velocity = drift * np.array(shot_of(data, index).scan.drift)
        self.frames: list[np.ndarray] = []
        self.expected: list[np.ndarray] = []
        self.scans: list[tuple[Shot, np.ndarray]] = []
        self.dose, self._clock = 0.0, 0.0

    def expose(self, settings: Acquisition) -> np.ndarray:
        """One frame, (h, w) uint16."""
        shot = shot_of(self._data, self.index)
        size = int(self._data.attributes["twin_size"])
        lasts = size * (size * settings.dwell_time + shot.scan.flyback_time)
        # The first frame is where the image was; drift within a frame is that of the scan.
        start = self._clock if self.frames else -lasts / 2
        away = self._velocity * (start + lasts / 2)
        number = len(self.frames)
        seed = self._seed * 1000 + number + 1
        shot, fraction = scan_of(self._data, self.index, settings, seed=seed, moved=tuple(away.tolist()))
        self.scans.append((shot, fraction))
        self.frames.append(self._record(number, 0))
        self.expected.append(expected_counts(fraction, shot.acquisition, shot.detector))
        self._clock = start + lasts + self._pause
        self.dose += dose_of(settings)
        return self.frames[-1]

    def _record(self, number: int, again: int) -> np.ndarray:
        """Frame `number`, or the same scan with other noise."""
        shot, fraction = self.scans[number]
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(71, self.index, number, again)))
        return record(fraction, shot.acquisition, shot.detector, rng)

    def obtained(
        self, goal: Goal, how: Combination | None = None, numbers: Sequence[int] | None = None
    ) -> float | None:
        """Snr or column precision [m] against the truth; of frames put together, or of the last one.

        `numbers` are those of the frames that were put together; all by default. The errors of a few columns say little
        about their standard error, so the same scans are recorded with other noise, too. ``None`` where the truth shows
        no columns.
        """
        last, many = len(self.frames) - 1, list(range(len(self.frames)) if numbers is None else numbers)
        truth = self.expected[last] if how is None else how.of([self.expected[n] for n in many])
        if goal.quantity == "snr":
            return obtained_snr(self.frames[last] if how is None else how.of([self.frames[n] for n in many]), truth)
        frames = [
            self._record(last, k) if how is None else how.of([self._record(n, k) for n in many]) for k in range(REPEATS)
        ]
        error = obtained_error(frames, truth)
        return None if error is None else error * self.settings.pixel_size


def obtained_snr(frame: np.ndarray, expected: np.ndarray) -> float:
    """Standard deviation of what was expected over the root mean square of what the frame differs by."""
    return float(np.std(expected) / np.sqrt(np.mean((np.asarray(frame, float) - expected) ** 2)))
