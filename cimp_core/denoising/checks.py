"""What is refused, what is warned of, before an image is denoised."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import OutOfRangeError
from ..metadata import Acquisition
from .exposure import Exposure

__all__ = [
    "ELECTRONS",
    "FACTORS",
    "PIXELS",
    "SMALLEST",
    "Warned",
    "check_factor",
    "check_pixels",
    "check_shape",
    "check_training_range",
    "look_through",
]

SMALLEST = 32
"""Shortest side of an image [px]."""

FACTORS = (1.0, 1024.0)
"""Between these lies a dose factor."""

ELECTRONS = (0.3, 1000.0)
"""Detected electrons at the bright pixel that the network was trained on."""

PIXELS = (6e-12, 4e-9)
"""Pixel sizes that the network was trained on [m]."""

_CLIPPED = 0.01
_FEW_LEVELS = 64


class Warned(list):
    """Warnings of one call, each given once as a `UserWarning` too."""

    def add(self, text: str) -> None:
        """Say and keep `text`."""
        if text not in self:
            self.append(text)
            warnings.warn(text, UserWarning, stacklevel=4)


class Pixels(NamedTuple):
    """What one pass over a frame tells."""

    least: float
    most: float
    bad: int  # nan or infinite
    clipped: float  # part of the pixels at the end of an integer's range


def check_factor(factor: float) -> float:
    """`factor` as a float; `OutOfRangeError` unless it is above 1 and at most 1024."""
    low, high = FACTORS
    if isinstance(factor, bool) or not isinstance(factor, (int, float, np.integer, np.floating)):
        raise OutOfRangeError(f"dose factor {factor!r}: it must be a number above {low:g}, at most {high:g}")
    if not low < float(factor) <= high:
        raise OutOfRangeError(
            f"dose factor {factor:g}: it must be above {low:g} (1 is the image itself) and at most {high:g}"
        )
    return float(factor)


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise `OutOfRangeError` unless this is an image, or a series of images, large enough."""
    if len(shape) == 3 and shape[-1] in (3, 4):
        raise OutOfRangeError(f"{name}: data of shape {shape} look like a colour picture; give the counts themselves")
    if len(shape) not in (2, 3) or 0 in shape:
        raise OutOfRangeError(f"{name}: data of shape {shape}; an image is (h, w), a series (frames, h, w)")
    if min(shape[-2:]) < SMALLEST:
        raise OutOfRangeError(
            f"{name}: {shape[-2]} x {shape[-1]} pixels; denoising needs at least {SMALLEST} x {SMALLEST}"
        )


def look_through(rows: Callable[[int, int], np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> Pixels:
    """Survey of a frame, some rows at a time."""
    least, most, bad, clipped = np.inf, -np.inf, 0, 0
    ceiling = np.iinfo(dtype).max if dtype.kind in "ui" else np.inf
    for first in range(0, shape[0], 256):
        part = rows(first, min(first + 256, shape[0]))
        good = np.isfinite(part)
        bad += int(part.size - good.sum())
        if good.any():
            least, most = min(least, float(part[good].min())), max(most, float(part[good].max()))
        # float32 rounds the largest 32-bit number up
        clipped += int((part >= np.float32(ceiling)).sum()) if dtype.kind in "ui" else 0
    return Pixels(least, most, bad, clipped / (shape[0] * shape[1]))


def check_pixels(pixels: Pixels, name: str, keeps_integers: bool, warned: Warned) -> bool:
    """Whether there is anything to denoise; what cannot be denoised raises.

    Raises
    ------
    OutOfRangeError
        Some pixels are nan or infinite.
    """
    if pixels.bad:
        raise OutOfRangeError(
            f"{name}: {pixels.bad} pixels are nan or infinite; a method would spread them. Replace them first, "
            "by the median of their neighbours for example, or crop them away"
        )
    if pixels.least == pixels.most:
        return False
    if pixels.clipped > _CLIPPED:
        warned.add(f"{name}: {pixels.clipped:.1%} of the pixels are at the largest number they can hold (clipped)")
    if keeps_integers and pixels.most - pixels.least < _FEW_LEVELS:
        warned.add(
            f"{name}: the counts span {pixels.most - pixels.least:g} levels only, and the result is rounded to whole "
            "counts as the input is; keep_dtype=False (--float) gives float32"
        )
    return True


def check_training_range(
    name: str, acquisition: Acquisition, seen: Exposure, instrument: Any, anyway: bool, warned: Warned
) -> None:
    """Warn where an image lies outside of what a trained method has seen; refuse another kind of image.

    Raises
    ------
    OutOfRangeError
        The detector is named, is not HAADF, and `anyway` is false.
    """
    detector = getattr(instrument, "detector", None)
    if detector and "HAADF" not in detector.upper():
        text = f"{name}: an image of the detector {detector}; the method was trained on HAADF only"
        if not anyway:
            raise OutOfRangeError(f'{text}. Choose another (method="noise2void"), or anyway=True')
        warned.add(text)
    if seen.electrons is None:
        warned.add(f"{name}: the noise does not tell the dose, so whether the method was trained for it is not known")
    elif not ELECTRONS[0] <= seen.electrons <= ELECTRONS[1]:
        warned.add(
            f"{name}: about {seen.electrons:.2g} electrons at the bright pixel, judged from the noise; the method was "
            f"trained for {ELECTRONS[0]:g} to {ELECTRONS[1]:g}"
        )
    size = acquisition.pixel_size
    if size is not None and not PIXELS[0] <= size <= PIXELS[1]:
        warned.add(
            f"{name}: pixels of {size * 1e9:.3g} nm; the method was trained for {PIXELS[0] * 1e9:g} to "
            f"{PIXELS[1] * 1e9:g} nm"
        )
