"""Areas of a twin recorded again under other settings: what the translator should have made of an image.

In a laboratory's own images an operator sets the gain by the brightness that he sees, so that images of high gain are
no brighter than others: who only compares images with images learns that the gain does nothing. Here the settings are
drawn whatever the image shows, and the same area is recorded under them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from .dataset import Dataset, open_dataset
from .digital_twin import scan_of
from .errors import OutOfRangeError, SchemaError
from .metadata import PARAMETERS, Acquisition, Normalizer
from .simulate.detector import record

__all__ = ["Pairs", "draw_settings", "prepare_pairs"]

INNER, ANGLE = PARAMETERS.index("inner_collection_angle"), PARAMETERS.index("convergence_angle")

REACH = 3.0
"""Standard deviations of its distribution within which a setting that changes alone is drawn."""


class Pairs:
    """Images of a view, and each recorded again; made by `prepare_pairs`.

    Attributes
    ----------
    images : (n,) int64 array
        Of the view.
    settings : (n, 7) float64 array
        What the area was recorded again with, SI.
    recordings : (n, size, size) uint16 array
        Mapped from a file.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        index = Path(folder) / "pairs.json"
        if not index.exists():
            raise SchemaError(f"{folder}: no prepared pairs, or not complete; call prepare_pairs")
        content = json.loads(index.read_text())
        self.images, self.settings = np.array(content["images"]), np.array(content["settings"])
        shape = (len(self.images), content["size"], content["size"])
        self.recordings = np.memmap(Path(folder) / "recordings.raw", np.uint16, "r", shape=shape)

    def __len__(self) -> int:
        return len(self.images)

    def crops(self, rows: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: int) -> np.ndarray:
        """Squares (n, size, size) uint16 of some recordings."""
        places = zip(rows, tops, lefts, strict=True)
        return np.stack([self.recordings[row, top : top + size, left : left + size] for row, top, left in places])


def draw_settings(own: np.ndarray, others: np.ndarray, normalizer: Normalizer, rng: np.random.Generator) -> np.ndarray:
    """Settings (7,) to record an image again with: one time in three those of another image, or some of them, or one
    changed alone. The pixel size stays.

    Parameters
    ----------
    own : (7,) array
        Of the image, SI.
    others : (n, 7) array
        Of all images; settings are taken from one of the 64 that are nearest in pixel size.
    """
    nearest = np.argsort(np.abs(np.log(others[:, 0] / own[0])), kind="stable")[:64]
    wanted = others[rng.choice(nearest)].copy()
    kind = rng.integers(3)
    if kind == 1:
        wanted = np.where(rng.random(len(own)) < 0.5, own, wanted)
    elif kind == 2:
        normalized, which = normalizer.normalize(own[None])[0], int(rng.integers(1, len(own)))
        normalized[which] = rng.uniform(-REACH, REACH)
        wanted = np.where(np.arange(len(own)) == which, normalizer.restore(normalized), own)
    wanted[0] = own[0]
    wanted[ANGLE] = max(wanted[ANGLE], others[:, ANGLE].min())
    if wanted[INNER] <= 1.05 * wanted[ANGLE]:  # the direct beam on the detector: nobody's HAADF
        wanted[[INNER, ANGLE]] = own[[INNER, ANGLE]]
    return wanted


def prepare_pairs(
    data: Dataset, folder: str | os.PathLike, count: int, *, seed: int = 0, workers: int | None = None
) -> Pairs:
    """Record `count` images of a view of a twin again, drawn at random, and keep that in `folder`.

    Takes some 30 ms an image of 256 x 256 pixels and processor. A folder made of other images is made again.

    Raises
    ------
    SchemaError
        The data set is no twin of this version.
    OutOfRangeError
        The view is empty, or `count` is below 1.
    """
    if not len(data) or count < 1:
        raise OutOfRangeError(f"{data.path}: {count} of {len(data)} images to record again; give one or more")
    folder, index = Path(folder), Path(folder) / "pairs.json"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"file": Path(data.path).name, "sources": [int(i) for i in data.indices], "count": count, "seed": seed}
    stamp["version"] = str(data.attributes.get("twin_version"))
    if index.exists() and {k: json.loads(index.read_text()).get(k) for k in stamp} == stamp:
        return Pairs(folder)
    index.unlink(missing_ok=True)
    rng, raw = np.random.default_rng((seed, 16)), np.asarray(data.metadata_raw, float)
    normalizer = Normalizer.fit(raw)
    images = rng.integers(len(data), size=count)
    settings = np.array([draw_settings(raw[i], raw, normalizer, rng) for i in images])
    jobs = [
        (str(data.path), data.indices[images[part]], settings[part])
        for part in np.array_split(np.arange(count), max(1, count // 64))
    ]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with open(folder / "recordings.raw", "wb") as file, ProcessPoolExecutor(workers, context) as pool:
        for recordings in pool.map(_record_some, jobs):
            file.write(recordings.tobytes())
    about = {"size": recordings.shape[-1], "images": images.tolist(), "settings": settings.tolist()}
    temporary = folder / ".pairs.json"
    temporary.write_text(json.dumps(stamp | about))
    os.replace(temporary, index)
    return Pairs(folder)


def _record_some(job: tuple[str, np.ndarray, np.ndarray]) -> np.ndarray:
    """Recordings with the beam at the positions of the image itself: jitter and drift are no settings."""
    path, sources, settings = job
    data, made = open_dataset(path), []
    for i, wanted in zip(sources, settings, strict=True):
        target = Acquisition.from_vector(wanted)
        shot, fraction = scan_of(data, int(i), target.replace(dwell_time=data.acquisition(int(i)).dwell_time))
        made.append(record(fraction, target, shot.detector, np.random.default_rng((int(i), *wanted.view(np.uint64)))))
    return np.stack(made)
