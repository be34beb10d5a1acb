"""What can be checked of a denoiser without a truth: whether what it took away is noise, and all of it.

A method that passes may still have invented what it shows: noise that was taken for structure is in the image, and not
in the residual. A method that fails has done something else than to remove noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..denoising.noise_line import noise_line
from .lattice import strongest_spot

__all__ = ["Residual", "residual"]

_BLOCK = 16  # pixels a side, over which levels are compared


class Residual(NamedTuple):
    """Of the recording minus the restored image, in standard deviations of the recording's noise at that intensity."""

    taken: (
        float  # mean square: 1 if all noise went and nothing else, less if some was left, more if structure went, too
    )
    down: float  # correlation of pixels above one another: 0 of noise, for rows do not share after-glow
    level: float  # deviation of means over blocks in parts of what noise leaves: 1, or more where levels were moved
    spot: float  # contrast of the strongest spot of its power spectrum: above ten, a lattice was taken away
    claimed: float  # dose gain that the stated deviation amounts to; nan if none is stated


def residual(frame: np.ndarray, image: np.ndarray, deviation: np.ndarray | None = None) -> Residual:
    """Check a restored `image` (h, w) of a recording; ``nan`` for a recording without noise.

    The noise is that of `cimp_core.denoising.noise_line`, which takes a lattice of a few pixels a period for noise in
    part: there `taken` is too low. After-glow makes blocks noisier, so `level` lies above 1 at short dwell times.
    """
    frame, image = np.asarray(frame, float), np.asarray(image, float)
    line = noise_line(frame)
    if line is None:
        return Residual(*[float("nan")] * 5)
    variance = line.variance(image)
    z = (frame - image) / np.sqrt(variance)
    spread = z - z.mean()
    power = max(float(np.mean(spread**2)), 1e-12)
    rows, columns = (n // _BLOCK * _BLOCK for n in z.shape)
    blocks = z[:rows, :columns].reshape(rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK).mean((1, 3))
    return Residual(
        taken=float(np.mean(z**2)),
        down=float(np.mean(spread[1:] * spread[:-1])) / power,
        level=float(np.sqrt(np.mean(blocks**2))) * _BLOCK,
        spot=strongest_spot(z)[1],
        claimed=float("nan") if deviation is None else float(variance.mean() / np.mean(np.square(deviation))),
    )
