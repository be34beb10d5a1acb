"""What can be known of the convergence angle, the inner angle and the current, and how much of it the lab leaves.

Two answers. In principle: the Cramer-Rao bound of one image of a known scene (`cimp_core.study.fisher`). By learning: a
row of small data sets, in the first of which one setting varies and nothing else, in each further one something more
of what varies in the lab (`cimp_core.study.cascade`). Gradient boosting on the control's statistics and a radial
spectrum reads the setting from the image, and from the image together with the other six settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import fft
from threadpoolctl import threadpool_limits

from ..metadata import PARAMETERS, Normalizer
from ..metrics import bootstrap_interval, r2
from ..results import PROFILES, update_results
from ..twin_version import TWIN_VERSION
from .cascade import TARGETS, LabImage, freed, take
from .control import boost
from .fisher import bound_table
from .rows import print_rows, row
from .statistics import image_statistics

__all__ = ["cascade_table", "identifiability_rows", "radial_spectrum", "table_of"]

IMAGES, SIZE = {"smoke": 40, "book": 120, "full": 600}, {"smoke": 64, "book": 128, "full": 128}
RINGS = 24


def radial_spectrum(image: np.ndarray) -> np.ndarray:
    """Logarithm of the power in `RINGS` rings that are even in the logarithm of the frequency, relative to all.

    From one period of the image to the corner of its spectrum, under a Hann window: (RINGS,) float64.
    """
    height, width = image.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(fft.rfft2((image - image.mean()) * window)) ** 2
    radius = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width))
    edges = np.geomspace(1 / max(image.shape), 0.5**0.5, RINGS + 1)
    ring = np.clip(np.searchsorted(edges, radius.ravel(), side="right") - 1, 0, RINGS - 1)
    power[0, 0] = 0
    sums = np.bincount(ring, power.ravel(), RINGS)
    return np.log(sums / max(power.sum(), 1e-30) + 1e-12)


def _features(
    images: int, size: int, seed: int, targets: Sequence[str], note: Callable | None
) -> tuple[dict[frozenset, np.ndarray], dict[frozenset, np.ndarray]]:
    """Statistics (n, f) and settings (n, 7) of each set of what varies."""
    wanted = list(dict.fromkeys(free for target in targets for _, free in freed(target)))
    features, settings = {free: [] for free in wanted}, {free: [] for free in wanted}
    for number in range(images):
        lab = LabImage.draw(number, seed)
        for free in wanted:
            pixels, acquisition = take(lab, free, size)
            features[free].append(np.concatenate([image_statistics(pixels), radial_spectrum(pixels)]))
            settings[free].append(acquisition.vector())
        if note is not None:
            note(number + 1)
    return {k: np.array(v) for k, v in features.items()}, {k: np.array(v) for k, v in settings.items()}


def _score(features: np.ndarray, target: np.ndarray, seed: int) -> tuple[float, float, float]:
    """R2 on the last quarter of the images with its interval; trained on the rest, a seventh of it for validation."""
    count = len(target)
    train, val = np.split(np.arange(count * 3 // 4), [count * 9 // 14])
    test = np.arange(count * 3 // 4, count)
    predicted, _ = boost([features[part] for part in (train, val, test)], [target[train], target[val]], seed)
    low, high = bootstrap_interval(r2, test, target[test], predicted, seed=seed)
    return r2(target[test], predicted), low, high


def cascade_table(
    images: int = 600,
    size: int = 128,
    seed: int = 0,
    targets: Sequence[str] = TARGETS,
    note: Callable | None = None,
) -> tuple[pd.DataFrame, Normalizer]:
    """How well each target can be read at each step.

    Parameters
    ----------
    images : int
        Images at each step: 9/14 to train, about a tenth to choose the number of trees, a quarter to test.
    size : int
        Side of the images [px].
    targets : sequence of str
        Of `TARGETS`.
    note : callable, optional
        Called with the number of images done.

    Returns
    -------
    DataFrame
        Columns ``parameter``, ``step``, ``kind``, ``value``, ``low``, ``high``: R2 of the normalised setting, from the
        image (``r2``), from image and the other six settings (``told``), from those alone (``others``: habits).
    Normalizer
        Of the lab's settings, drawn as the twin draws them.
    """
    with threadpool_limits(1):
        features, settings = _features(images, size, seed, targets, note)
    lab = settings[list(freed(targets[0]))[-1][1]]
    normalizer = Normalizer.fit(lab)
    rows = []
    for target in targets:
        j = PARAMETERS.index(target)
        truth = normalizer.normalize(lab)[:, j]
        for step, free in freed(target):
            others = np.delete(settings[free], j, axis=1)
            rows.append((target, step, "r2", *_score(features[free], truth, seed)))
            if np.ptp(others, axis=0).any():
                rows.append((target, step, "told", *_score(np.hstack([features[free], others]), truth, seed)))
                rows.append((target, step, "others", *_score(others, truth, seed)))
    return pd.DataFrame(rows, columns=["parameter", "step", "kind", "value", "low", "high"]), normalizer


def identifiability_rows(
    *,
    images: int = 600,
    size: int = 128,
    seed: int = 0,
    targets: Sequence[str] = TARGETS,
    profile: str = "full",
    command: str = "python -m cimp_core.study.identifiability",
    note: Callable | None = None,
) -> list[dict]:
    """Rows ``identifiability.KIND.PARAM.STEP`` and ``identifiability.bound.PARAM.CONDITION``, ready for the file.

    Kinds are those of `cascade_table`, conditions those of `cimp_core.study.fisher.bound_table`. A bound is a standard
    deviation in units of the lab's; one that is infinite has no value.
    """
    common = {"split": None, "profile": profile, "seeds": [seed], "command": command, "twin_version": TWIN_VERSION}
    table, normalizer = cascade_table(images, size, seed, targets, note)
    rows = []
    for found in table.itertuples():
        name = f"identifiability.{found.kind}.{found.parameter}.{found.step}"
        rows.append(row(name, found.value, found.low, found.high, common))
    bounds = bound_table(normalizer.std, 64 if profile == "smoke" else 256)
    for found in bounds.itertuples():
        value = found.sd if np.isfinite(found.sd) else float("nan")
        name = f"identifiability.bound.{found.parameter}.{found.condition}"
        rows.append({**row(name, value, float("nan"), float("nan"), common), "unit": "sd of the lab"})
    return rows


def table_of(rows: Iterable[Mapping], kind: str) -> pd.DataFrame:
    """Rows of one kind, ``"r2"``, ``"told"``, ``"others"`` or ``"bound"``, as a table; empty if there are none.

    Returns
    -------
    DataFrame
        Columns ``parameter``, ``step`` (or the condition of a bound), ``value``, ``low``, ``high``; an infinite bound
        is ``inf``.
    """
    found = []
    for made in rows:
        parts = made["name"].split(".")
        if parts[:2] == ["identifiability", kind]:
            value = np.inf if made["value"] is None and kind == "bound" else made["value"]
            found.append((*parts[2:], value, made["low"], made["high"]))
    return pd.DataFrame(found, columns=["parameter", "step", "value", "low", "high"])


def main() -> None:
    """``python -m cimp_core.study.identifiability --out FILE.json``."""
    parser = argparse.ArgumentParser(description="What can be known of three settings, and what the lab leaves of it.")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--profile", default="full", choices=PROFILES)
    parser.add_argument("--images", type=int, help="images at each step; by default as many as the profile has")
    arguments = parser.parse_args()
    images, size = arguments.images or IMAGES[arguments.profile], SIZE[arguments.profile]
    rows = identifiability_rows(images=images, size=size, profile=arguments.profile)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
