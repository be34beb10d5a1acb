"""Reading the pixel size from a lattice: in how many images there is one to read, and what that alone allows.

Below 40 pm a pixel, where atoms are resolved, the lattice is the ruler: its spots lie at pixel size over spacing, in
cycles a pixel. The pixel size of an image without a spot (vacuum, amorphous carbon, a tilted grain, too few electrons)
has to be guessed, and who learns by least squares guesses the mean over all training images that look so. These are no
strict bounds: the width of a single column, of a particle or of the probe says something, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..dataset import Dataset, open_dataset
from ..metrics import bootstrap_interval, mean_interval, r2
from ..results import update_results
from .probe_rows import BELOW
from .rows import print_rows, row

__all__ = ["CONTRAST", "lattice_rows", "power_spectrum", "spots", "strongest_spot"]

CONTRAST = 10.0
"""A spot counts from this contrast on; in noise alone the strongest stays below."""


def power_spectrum(image: np.ndarray) -> np.ndarray:
    """Power spectrum of an image under a Hann window, (h, w), zero frequency at ``(h // 2, w // 2)``; its mean is 1."""
    image = np.asarray(image, dtype=float)
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    power = np.abs(np.fft.fftshift(np.fft.fft2((image - image.mean()) * window))) ** 2
    return power / max(power.mean(), 1e-30)


def strongest_spot(image: np.ndarray) -> tuple[float, float]:
    """Where the power spectrum stands out most from all that is three to five pixels away from there.

    An edge or a slope makes a streak, in which no pixel stands out from the next ones; a lattice makes a spot.

    Parameters
    ----------
    image : (h, w) array
        Frequencies below five periods a field are left out: these are shapes, not a lattice.

    Returns
    -------
    radius : float
        [cycles/pixel]; 0 in a flat image.
    contrast : float
        Power there over the largest of its surroundings; below ten in noise, a hundred and more of a good lattice.
    """
    power = power_spectrum(image)
    height, width = power.shape
    fy, fx = np.arange(height)[:, None] - height // 2, np.arange(width) - width // 2
    y, x = np.mgrid[-5:6, -5:6]
    around = ndimage.maximum_filter(power, footprint=(np.hypot(y, x) >= 3) & (np.hypot(y, x) <= 5), mode="wrap")
    radius = np.hypot(fy / height, fx / width)
    outside = (np.hypot(fy, fx) >= 5) & (radius < 0.5)
    contrast = np.where(outside, power / np.maximum(around, 1e-9), 0.0)
    place = np.unravel_index(contrast.argmax(), contrast.shape)
    return (float(radius[place]), float(contrast[place])) if contrast[place] > 0 else (0.0, 0.0)


def spots(data: Dataset) -> np.ndarray:
    """`strongest_spot` of every image, (n, 2): radius [cycles/pixel] and contrast."""
    return np.array([strongest_spot(data.image(i)) for i in range(len(data))]).reshape(-1, 2)


def lattice_rows(
    data: Dataset,
    *,
    split: str = "session",
    seed: int = 0,
    profile: str = "full",
    command: str = "python -m cimp_core.study.lattice DATASET",
) -> list[dict]:
    """Rows of test images below 40 pm, ready for the results file.

    ``lattice.share``: in how many of them a spot stands out. ``lattice.r2.mean_spacing``: R2 of their pixel size, in
    those with a spot, from its radius and the mean spacing of the training images. Two ceilings for whoever reads spots
    alone, R2 over all of them: every image with a spot is read without error, and every other one is given the mean of
    the training images without a spot (``ceiling.r2.pixel_size_below_40pm.spots``), or of those among them that are
    below 40 pm, which a reader would have to be told (``ceiling.r2.pixel_size_below_40pm.spots_in_range``).

    Parameters
    ----------
    data : Dataset
    split, seed, profile, command
        As in `cimp_core.study.control.control_rows`.
    """
    parts = data.split(split, seed=seed)
    train, test = parts[0], parts[2].view(np.flatnonzero(parts[2].metadata_raw[:, 0] < BELOW))
    common = {"split": split, "profile": profile, "seeds": [seed], "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    radius, contrast = spots(train).T
    fine, plain = train.metadata_raw[:, 0] < BELOW, contrast > CONTRAST
    spacing = np.log(train.metadata_raw[fine & plain, 0] / radius[fine & plain]).mean()
    truth, sessions = test.metadata[:, 0], test.sessions
    radius, contrast = spots(test).T
    seen = contrast > CONTRAST
    rows = [row("lattice.share", seen.mean(), *mean_interval(sessions, seen.astype(float), seed=seed), common)]
    vectors = test.metadata_raw.copy()
    vectors[seen, 0] = radius[seen] * np.exp(spacing)
    by_radius = np.where(seen, test.normalizer.normalize(vectors)[:, 0], np.nan)
    estimates = {"lattice.r2.mean_spacing": by_radius}
    for ending, guess in (("spots", ~plain), ("spots_in_range", ~plain & fine)):
        known = train.metadata[guess, 0]
        estimates[f"ceiling.r2.pixel_size_below_40pm.{ending}"] = np.where(seen, truth, np.nanmean(known))
    for name, estimate in estimates.items():
        numbers = r2(truth, estimate), *bootstrap_interval(r2, sessions, truth, estimate, seed=seed)
        rows.append(row(name, *numbers, common))
    return rows


def main() -> None:
    """``python -m cimp_core.study.lattice DATASET --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure how many images have a lattice, and what it allows.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    rows = lattice_rows(open_dataset(arguments.dataset), profile=arguments.profile)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
