"""The scan: where the beam really is when a pixel is recorded.

Displacements are in metres on the specimen, so they matter at high magnification and vanish at low, and in
time, so that they follow the dwell time: rows are displaced by slow disturbances of the scan coils (an AR(1)
process in the time of a row, and mains hum), the start of a row lags behind after the fly-back, and
the specimen drifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

__all__ = ["Scan", "lag", "row_displacements"]


@dataclass(frozen=True)
class Scan:
    """Imperfections of one instrument's scan.

    Parameters
    ----------
    jitter : float
        Standard deviation of the random row displacement, along the row [m]. Across rows it is half of that.
    jitter_time : float
        Correlation time of the row displacement [s].
    hum : float
        Amplitude of the displacement at 50 Hz [m].
    flyback_time : float
        Time from the end of a row to the start of the next [s].
    lag : float
        Displacement at the start of a row, as a fraction of the row's length: the beam is not yet all the way back.
    lag_time : float
        Time constant with which it fades [s].
    drift : (2,) tuple of float
        Drift velocity of the specimen, down and right [m/s].
    """

    jitter: float = 0.0
    jitter_time: float = 5e-3
    hum: float = 0.0
    flyback_time: float = 1e-3
    lag: float = 0.0
    lag_time: float = 50e-6
    drift: tuple[float, float] = (0.0, 0.0)


def row_displacements(scan: Scan, dwell_time: float, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """How far the beam is from where it should be on the specimen, row by row.

    The displacement is taken as constant along a row. Half-way through the frame the drift is zero.

    Parameters
    ----------
    dwell_time : float
        Time at each scan position [s].
    rng : numpy.random.Generator
        Source of the random displacements and of the phase of the mains hum.

    Returns
    -------
    (rows, 2) array
        To the right and down [m].
    """
    row_time = columns * dwell_time + scan.flyback_time
    time = row_time * (np.arange(rows) - (rows - 1) / 2)
    keep = math.exp(-row_time / scan.jitter_time)
    noise = rng.standard_normal((rows, 2))
    noise[1:] *= math.sqrt(1 - keep**2)
    wander = lfilter([1.0], [1.0, -keep], noise, axis=0) * (scan.jitter, 0.5 * scan.jitter)
    wander[:, 0] += scan.hum * np.sin(2 * math.pi * 50 * time + rng.uniform(0, 2 * math.pi))
    # The specimen moves one way, so the beam finds itself displaced the other way.
    return wander - time[:, None] * (scan.drift[1], scan.drift[0])


def lag(fraction: np.ndarray, scan: Scan, dwell_time: float) -> np.ndarray:
    """Rows as seen by a beam that, after the fly-back, still stands to the right of where it should be.

    Interpolated by cubic convolution (Catmull-Rom).

    Parameters
    ----------
    fraction : (rows, columns) array
        Part of the incident electrons that reaches the detector at undistorted columns.

    Returns
    -------
    (rows, columns) float32 array
        Never negative.
    """
    columns = fraction.shape[1]
    x = np.arange(columns) + scan.lag * columns * np.exp(-dwell_time * np.arange(columns) / scan.lag_time)
    base = np.floor(x).astype(int)
    t = x - base
    # Weights of the four neighbours; they sum to 1.
    weights = (
        t * (-0.5 + t * (1 - 0.5 * t)),
        1 + t * t * (-2.5 + 1.5 * t),
        t * (0.5 + t * (2 - 1.5 * t)),
        t * t * (-0.5 + 0.5 * t),
    )
    fraction, out = np.asarray(fraction, np.float32), 0
    for k, weight in enumerate(weights):
        out = out + weight.astype(np.float32) * fraction[:, np.clip(base + k - 1, 0, columns - 1)]
    # Cubic convolution may overshoot at a sharp edge; a fraction of electrons cannot be negative.
    return np.maximum(out, 0)
