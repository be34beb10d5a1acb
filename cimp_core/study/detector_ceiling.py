"""What a perfect reader of the detector could tell of gain, offset and dwell time.

An image tells these three by what the detector does to electrons: counts per electron, black level, after-glow along a
row, noise in the dark. Here the four are not measured but taken from the simulation, and the same gradient boosting as
the control's learns the settings from them, from as many sessions. What it misses, no statistic of the noise can give:
the calibration of the day, and which instrument it was. With errors as large as one image of 256 x 256 pixels leaves
them, it says how much of that is lost to counting. That is as if every pixel were the best one; what the image itself
leaves, by the Cramér-Rao bound, is the last case.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.constants import elementary_charge

from ..dataset import Dataset, open_dataset
from ..digital_twin import reacquire, shot_of
from ..metadata import PARAMETERS
from ..metrics import bootstrap_interval, r2
from ..results import update_results
from ..simulate.detector import FULL_SCALE
from ..simulate.instruments import Shot
from .control import boost
from .rows import print_rows, row

__all__ = ["detector_rows", "detector_traits", "noise_bound", "traits_as_read"]

NAMES = ("detector_gain", "detector_offset", "dwell_time")
PIXELS = 256 * 256


def detector_traits(data: Dataset, seed: int | None = None) -> np.ndarray:
    """Four traits of the detector in each image of a twin: (n, 4).

    Logarithm of the variance a detected electron adds per count of signal [counts]; black level with dark current
    [counts]; correlation of the noise of neighbours in a row; logarithm of the noise variance without beam [counts^2].

    Parameters
    ----------
    data : Dataset
        A twin, or a view of one.
    seed : int, optional
        Draw errors as of one image: the relative error of a variance of n values is sqrt(2 / n), that of a correlation
        1 / sqrt(n). This is kind to the reader: as if all pixels were in the dark for the last and none for the first.
    """
    rows = []
    for i in range(len(data)):
        shot = shot_of(data, i)
        settings, detector = shot.acquisition, shot.detector
        counts = detector.slope_at(settings.detector_gain) * elementary_charge / settings.dwell_time * 1e12
        spread = 1 + detector.pulse_height_spread**2
        dark = detector.dark_current * settings.dwell_time / elementary_charge  # electrons
        black = detector.black_at(settings.detector_offset) + counts * dark
        first, ratio = _taps(detector.decay_time, settings.dwell_time)
        rows.append(
            [
                math.log(counts * spread),
                black,
                _neighbours(first, ratio),
                math.log(counts**2 * spread * dark + _read_noise(shot)),
            ]
        )
    traits = np.array(rows).reshape(-1, 4)
    if seed is not None:
        noise = np.random.default_rng(np.random.SeedSequence(seed)).normal(size=traits.shape)
        variance = math.sqrt(2 / PIXELS)
        scatter = np.exp(0.5 * traits[:, 3]) / math.sqrt(PIXELS)  # of a mean level
        sizes = [
            np.full(len(traits), variance),
            scatter,
            np.full(len(traits), PIXELS**-0.5),
            np.full(len(traits), variance),
        ]
        traits += noise * np.stack(sizes, 1)
    return traits


def noise_bound(signal: np.ndarray, counts: float, meets: float) -> np.ndarray:
    """Cramér-Rao bound of what noise tells of a detector: covariance (2, 2) of the errors of any unbiased reader.

    The variance of a pixel of signal s is k (s - z): a line that meets zero at z = b - r / k, where b is the black
    level and r the variance of the read noise. Noise alone cannot tell b and r apart. A reader who knew s everywhere,
    as no one does, would have the Fisher information sum (1/2) (dv/v)(dv/v)^T on (log k, z).

    Parameters
    ----------
    signal : (n,) array
        Expected counts; those that clip tell nothing and are left out.
    counts, meets : float
        k and z [counts].

    Returns
    -------
    (2, 2) array
        With so weak a prior (errors of 3 and of 10,000 counts) that a blank image has a finite bound.
    """
    s = signal[(signal > 0) & (signal < FULL_SCALE)]
    slopes = np.stack([np.ones_like(s), -1 / (s - meets)])
    return np.linalg.inv(0.5 * slopes @ slopes.T + np.diag([1 / 9, 1e-8]))


def traits_as_read(data: Dataset, seed: int) -> np.ndarray:
    """What an image itself shows of its detector, with errors as no reader of the noise can avoid: (n, 4).

    Logarithm of k and level z of the `noise_bound`, drawn with its errors; correlation of neighbours, with an error of
    1 / sqrt(pixels); the level that 1 % of the expected picture lie below, which is dark where there is vacuum.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 7)))
    known, rows = detector_traits(data), []
    for i in range(len(data)):
        shot = shot_of(data, i)
        settings, detector = shot.acquisition, shot.detector
        counts = math.exp(known[i, 0])
        meets = detector.black_at(settings.detector_offset) - _read_noise(shot) / counts
        signal = reacquire(data, i, settings, noise=False).ravel()
        error = rng.multivariate_normal(np.zeros(2), noise_bound(signal, counts, meets), method="eigh")
        neighbours = known[i, 2] + rng.normal() / math.sqrt(signal.size)
        rows.append([known[i, 0] + error[0], meets + error[1], neighbours, np.quantile(signal, 0.01)])
    return np.array(rows).reshape(-1, 4)


def _read_noise(shot: Shot) -> float:
    """Variance of the amplifier's noise [counts^2]."""
    return shot.detector.read_noise**2 * 1e-6 / shot.acquisition.dwell_time


def _taps(decay_time: float, dwell_time: float) -> tuple[float, float]:
    """Share of a pixel's light counted in the next pixel, and from one later pixel to the next."""
    if decay_time == 0:
        return 0.0, 0.0
    ratio = math.exp(-dwell_time / decay_time)
    spilt = decay_time / dwell_time * (1 - ratio)
    return spilt * (1 - ratio), ratio


def _neighbours(first: float, ratio: float) -> float:
    """Correlation of neighbours of white noise after the filter 1 - f, first, first * ratio, first * ratio^2 ..."""
    own = 1 - first / (1 - ratio)
    later = first**2 / (1 - ratio**2)
    return (own * first + later * ratio) / (own**2 + later)


def detector_rows(
    data: Dataset,
    *,
    profile: str = "full",
    command: str = "python -m cimp_core.study.detector_ceiling DATASET",
    seed: int = 0,
) -> list[dict]:
    """``ceiling.detector.r2.NAME.exact``, ``.measured``, ``.no_vacuum`` and ``.as_read`` on the test part.

    ``as_read`` are `traits_as_read`: of the image's own noise and levels.
    ``no_vacuum`` is what is left where the specimen fills the field: no pixel is dark, so the black level and the noise
    without beam do not show, and only the first and the third trait do.
    """
    parts = data.split("session", seed=seed)
    held_out, rows = parts[2], []
    common = {"split": "session", "profile": profile, "seeds": [seed], "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    exact = [detector_traits(part) for part in parts]
    measured = [detector_traits(part, seed + k) for k, part in enumerate(parts)]
    cases = {"exact": exact, "measured": measured, "no_vacuum": [traits[:, [0, 2]] for traits in measured]}
    cases["as_read"] = [traits_as_read(part, seed + k) for k, part in enumerate(parts)]
    for ending, traits in cases.items():
        for name in NAMES:
            j = PARAMETERS.index(name)
            predicted, _ = boost(traits, [part.metadata[:, j] for part in parts[:2]], seed)
            columns = held_out.metadata[:, j], predicted
            interval = bootstrap_interval(r2, held_out.sessions, *columns, seed=seed)
            rows.append(row(f"ceiling.detector.r2.{name}.{ending}", r2(*columns), *interval, common))
    return rows


def main() -> None:
    """``python -m cimp_core.study.detector_ceiling DATASET --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure what a perfect reader of the detector could tell.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    rows = detector_rows(open_dataset(arguments.dataset), profile=arguments.profile)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
