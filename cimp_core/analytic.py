"""What can be re-rendered by arithmetic: gain and offset are affine in the counts, and a lower dose is fewer electrons.

Counts are ``slope(gain) x detected current + black(offset)``. No maker says what slope and black level are, so both are
taken from images: the logarithm of the slope grows evenly with the gain (an assumption: a photomultiplier's
amplification is a high power of its voltage), the black level evenly with the offset.

A lower dose is a draw of some of the electrons (thinning). It is exact where each electron makes the same known number
of counts in its own pixel. Here that number comes from the noise of the image itself, and pulse heights, the
amplifier's noise and after-glow, which shares an electron among pixels, make it an approximation.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .errors import OutOfRangeError
from .metadata import PARAMETERS, Acquisition

__all__ = ["AnalyticModel", "ImageNoise", "analytic", "fit_analytic", "image_noise"]

FULL_SCALE = 65535
BLOCK, LEVELS = 8, 8


@dataclass(frozen=True)
class AnalyticModel:
    """How counts follow gain and offset at one kind of instrument; see `fit_analytic`."""

    slope_exponent: float  # relative growth of the slope per unit of gain
    black_level: float  # counts without a beam at offset 0
    black_per_offset: float  # counts per unit of offset
    images: int = 0  # from how many images

    @classmethod
    def shipped(cls) -> AnalyticModel:
        """Fitted to the training materials of the embedded twin, whose four instruments differ: their mean."""
        text = (Path(__file__).parent / "data" / "analytic.json").read_text()
        return cls(**json.loads(text))

    def black_at(self, offset: float) -> float:
        """Counts without a beam."""
        return self.black_level + self.black_per_offset * offset


@dataclass(frozen=True)
class ImageNoise:
    """Shot noise of an image, from the image alone: its variance is ``per_electron x (counts - black)``."""

    per_electron: float  # counts per detected electron, times what pulse heights add to the variance
    black: float  # counts at which the noise would vanish
    certain: bool  # whether the levels of the image differ enough to tell


def image_noise(frame: np.ndarray, black: float | None = None) -> ImageNoise:
    """Counts per electron of (h, w) counts, from the variance against the mean in blocks.

    Differences are taken along the slow axis, where after-glow does not tie neighbours together. The lower half of the
    blocks at a level counts, as edges and atoms only ever add to the variance.

    Parameters
    ----------
    black : float, optional
        The black level, where it is known: the line then goes through it.

    Raises
    ------
    OutOfRangeError
        The image is smaller than 32 pixels.
    """
    pixels = np.asarray(frame, float)
    if pixels.ndim != 2 or min(pixels.shape) < 4 * BLOCK:
        raise OutOfRangeError(f"image of shape {pixels.shape}: at least {4 * BLOCK} pixels a side are needed")
    # The fourth difference: a lattice of five pixels a period keeps a twentieth of its power in it, noise all of it.
    fourth = pixels[4:] - 4 * pixels[3:-1] + 6 * pixels[2:-2] - 4 * pixels[1:-3] + pixels[:-4]
    rows, columns = (n // BLOCK * BLOCK for n in fourth.shape)
    shape = (rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    variance = (fourth[:rows, :columns] ** 2).reshape(shape).mean((1, 3)).ravel() / 70
    level = pixels[2 : rows + 2, :columns].reshape(shape).mean((1, 3)).ravel()
    use = (level > 0.002 * FULL_SCALE) & (level < 0.95 * FULL_SCALE)  # clipped blocks have no noise
    if use.sum() < 2 * LEVELS:
        return ImageNoise(0.0, float(np.quantile(pixels, 0.01)), False)
    groups = np.array_split(np.argsort(level[use]), LEVELS)
    x = np.array([level[use][g].mean() for g in groups])
    y = np.array([np.quantile(variance[use][g], 0.4) for g in groups]) * 1.04  # of a chi-square of some 50 degrees
    weight = 1 / (y + 0.1 * y.mean() + 1) ** 2
    if black is not None:
        slope = float(np.sum(weight * (x - black) * y) / np.sum(weight * (x - black) ** 2))
        return ImageNoise(max(slope, 0.0), black, slope > 0)
    mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = np.average((x - mean_x) ** 2, weights=weight)
    slope = float(np.average((x - mean_x) * (y - mean_y), weights=weight) / max(spread, 1.0))
    if slope <= 0:
        return ImageNoise(0.0, float(np.quantile(pixels, 0.01)), False)
    return ImageNoise(slope, float(mean_x - mean_y / slope), math.sqrt(spread) > 0.02 * FULL_SCALE)


def analytic(
    frame: np.ndarray,
    source: Acquisition,
    target: Acquisition,
    *,
    model: AnalyticModel | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Counts (h, w) float32, clipped to 16 bits, with dwell time, current, gain and offset of `target`.

    Other settings are left as they are. A higher dose leaves the noise of the image as it is: it cannot be undone by
    arithmetic.

    Parameters
    ----------
    frame : (h, w) array
        Counts of a readout that is a mean over the dwell time.
    source, target : Acquisition
        Of which gain and offset are known, and dwell time and current where they differ.

    Raises
    ------
    OutOfRangeError
        A setting that is needed is missing.
    """
    model = AnalyticModel.shipped() if model is None else model
    dose = [n for n in ("dwell_time", "beam_current") if getattr(source, n) != getattr(target, n)]
    needed = ["detector_gain", "detector_offset", *dose]
    if missing := [n for n in needed if None in (getattr(source, n), getattr(target, n))]:
        raise OutOfRangeError(f"{', '.join(missing)} not known: counts cannot be scaled without; give the values")
    frame = np.asarray(frame, float)
    black = min(model.black_at(source.detector_offset), float(np.quantile(frame, 0.02)))
    longer, brighter = (
        getattr(target, n) / getattr(source, n) if n in dose else 1.0 for n in ("dwell_time", "beam_current")
    )
    dose, signal = longer * brighter, np.maximum(frame - black, 0)
    relative = signal
    if dose < 1 and (per_electron := image_noise(frame, black).per_electron) > 0:
        rng = np.random.default_rng(seed)
        relative = thinned(signal / per_electron, dose, rng) * (per_electron / dose)
    scale = brighter * math.exp(model.slope_exponent * (target.detector_gain - source.detector_gain))
    shift = model.black_per_offset * (target.detector_offset - source.detector_offset)
    # Noise below the black level is kept where no electrons are drawn.
    below = np.minimum(frame - black, 0)
    counts = black + shift + scale * (relative + below)
    return np.clip(counts, 0, FULL_SCALE).astype(np.float32)


def thinned(electrons: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Numbers of electrons of which each was kept with probability `share`; parts of one are rounded at random."""
    whole = np.floor(electrons + rng.random(electrons.shape)).astype(np.int64)
    return rng.binomial(whole, share).astype(float)


def fit_analytic(train: Dataset, *, most: int = 1500, seed: int = 0) -> AnalyticModel:
    """Slope and black level of the instruments that a data set was taken with, from its images and settings alone.

    The counts per electron times the dwell time are in proportion to the slope: their logarithm is regressed on the
    gain. The darkest level of an image is at or above its black level: its low quantile is regressed on the offset.
    Both are robust regressions (least absolute deviations, for the black level of the lower quarter).

    Parameters
    ----------
    most : int
        At most so many images, drawn by `seed`.
    """
    chosen = np.random.default_rng((seed, 21)).permutation(len(train))[:most]
    gain, dwell, offset = (train.metadata_raw[chosen, PARAMETERS.index(n)].astype(float) for n in (
        "detector_gain", "dwell_time", "detector_offset"))  # fmt: skip
    found = [image_noise(train.image(i)) for i in chosen]
    dark = np.array([np.quantile(train.image(i)[::2, ::2], 0.02) for i in chosen])
    slope = np.array([n.per_electron if n.certain else math.nan for n in found])
    use = (slope > 0) & np.isfinite(gain) & np.isfinite(dwell)
    exponent = _quantile_line(gain[use], np.log(slope[use] * dwell[use]), 0.5)[1]
    use = np.isfinite(offset) & (dark > 0)
    level, per_offset = _quantile_line(offset[use], dark[use], 0.25)
    return AnalyticModel(float(exponent), float(level), float(per_offset), len(chosen))


def _quantile_line(x: np.ndarray, y: np.ndarray, quantile: float, rounds: int = 200) -> tuple[float, float]:
    """Intercept and slope of the line below which a share `quantile` of the points lies (reweighted least squares)."""
    if len(x) < 10 or np.ptp(x) == 0:
        raise OutOfRangeError(f"{len(x)} images with a value and a spread of settings: too few for a line")
    design = np.column_stack([np.ones_like(x), x])
    line = np.linalg.lstsq(design, y, rcond=None)[0]
    scale = 1e-4 * (np.std(y) + 1e-12)
    for _ in range(rounds):
        error = y - design @ line
        weight = np.where(error >= 0, quantile, 1 - quantile) / np.maximum(np.abs(error), scale)
        root = np.sqrt(weight)[:, None]
        line = np.linalg.lstsq(design * root, y * root[:, 0], rcond=None)[0]
    return tuple(line)


def main() -> None:
    """``python -m cimp_core.analytic DATASET OUT.json``: fit to the training materials and write the model."""
    import sys

    from .dataset import open_dataset

    train = open_dataset(sys.argv[1]).split("material", val=0.1, test=0.25, seed=0)[0]
    model = fit_analytic(train)
    Path(sys.argv[2]).write_text(json.dumps(dataclasses.asdict(model), indent=1) + "\n")
    print(model)


if __name__ == "__main__":
    main()
