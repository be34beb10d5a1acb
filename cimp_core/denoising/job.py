"""One call of `denoise`: what was asked for, and what each frame goes through, alone or in a series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metadata import Acquisition
from .checks import Warned, check_pixels, look_through
from .methods import fitted

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

__all__ = ["Job", "fit", "usable"]


@dataclass
class Job:
    """One call: the input as arrays and facts, and what is found out on the way."""

    signal: Signal2D
    acquisition: Acquisition
    name: str
    path: str | None
    instrument: Any
    absolute: bool  # whether the intensities are on the scale that settings were learnt with
    factor: float
    method: Callable
    tile: int
    keep_dtype: bool
    anyway: bool
    notes: list[str] = field(default_factory=list)
    warned: Warned = field(default_factory=Warned)

    @property
    def frames(self) -> Any:
        """(frames, h, w) numpy or dask array."""
        data = self.signal.data
        return data if data.ndim == 3 else data[None]

    @property
    def dtype(self) -> np.dtype:
        """Of the result."""
        return self.signal.data.dtype if self.keep_dtype else np.dtype(np.float32)


def usable(job: Job, rows: Callable, name: str) -> bool:
    """Whether a frame has anything to denoise; raises where it cannot be denoised."""
    dtype = job.signal.data.dtype
    pixels = look_through(rows, tuple(job.signal.data.shape[-2:]), dtype)
    return check_pixels(pixels, name, job.keep_dtype and dtype.kind in "ui", job.warned)


def fit(method: Callable, rows: Callable, shape: tuple[int, int]) -> Callable:
    """The method for all tiles of a frame; the frame is read whole only for a method that asks for it."""
    return fitted(method, rows(0, shape[0])) if hasattr(method, "for_frame") else method
