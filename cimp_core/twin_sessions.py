"""One image a session, each drawn at random from its session: what calibration over sessions is made of.

A session is simulated from its beginning, for settings follow from those before, up to one of its images, drawn
evenly over its length; what comes after is never made. Session ``k`` is that of `make_twin` with the same seed: the
same images, so a file of one seed must not be tested on what was trained on a twin of that seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .digital_twin import SESSION_CHOICE, open_session, random_stream, write_sessions
from .errors import OutOfRangeError

__all__ = ["last_of_sessions", "make_sessions"]


def make_sessions(
    path: str | os.PathLike,
    sessions: int,
    size: int,
    seed: int,
    workers: int | None = None,
    force: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Simulate the first `sessions` sessions of a seed, each up to one of its images, and write them as a data set.

    The drawn image is the last of its session in the file (`last_of_sessions`); those before it are kept too, for they
    had to be made. It is a twin: `reacquire` and `scan_of` work on it.

    Parameters
    ----------
    path, size, seed, workers, force, progress
        As in `cimp_core.digital_twin.make_twin`.
    sessions : int
        Number of sessions; 3.9 images of each are made on average.

    Raises
    ------
    OutOfRangeError
        `sessions` is less than 1.
    CimpError
        As in `make_twin`.
    """
    if sessions < 1:
        raise OutOfRangeError(f"sessions is {sessions}: it must be at least 1")
    drawn = [
        int(random_stream(seed, SESSION_CHOICE, k).integers(open_session(seed, k)[0].images)) for k in range(sessions)
    ]
    lengths = [number + 1 for number in drawn]
    return write_sessions(path, sum(lengths), lambda: lengths, size, seed, workers, force, progress)


def last_of_sessions(data: Dataset) -> Dataset:
    """The last image of each session of `data`: of a file of `make_sessions`, one image each, drawn at random."""
    names = data.sessions
    last = {name: i for i, name in enumerate(names)}
    return data.view(np.sort(np.fromiter(last.values(), int)))
