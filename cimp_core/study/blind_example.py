"""Pictures for an example of a blind study: one recording, several methods, and the truth where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..dataset import Dataset
from ..denoising.pairs import low_dose, virtual_truth
from ..digital_twin import scan_of
from ..errors import OutOfRangeError
from .denoising import FACTOR, methods
from .denoising_cases import chosen_images

__all__ = ["METHODS", "Pictures", "example_pictures"]

METHODS = ("gaussian", "wiener", "direct")


class Pictures(NamedTuple):
    """What was written: folders of pictures, each with the same file names."""

    methods: tuple[str, ...]
    truth: str | None  # folder of the true pictures


def example_pictures(
    data: Dataset,
    folder: str | Path,
    images: int,
    electrons: float,
    crop: int,
    *,
    names: Sequence[str] = METHODS,
    seed: int = 0,
) -> Pictures:
    """Write ``METHOD/im01.npy`` and so on, and ``truth/im01.npy`` where `data` is a twin.

    Parameters
    ----------
    data : Dataset
        A twin, of which materials are taken that no network of this package was trained on, recorded anew; or another
        data set, whose own images are restored.
    folder : path
        Made if absent.
    images : int
    electrons : float
        Detected at the bright pixel of a recording of the twin.
    crop : int
        Side of the middle part that is kept [pixels].
    names : sequence of str
        Methods of `cimp_core.study.denoising.methods`.
    seed : int

    Raises
    ------
    OutOfRangeError
        There are fewer images, or an image is smaller.
    """
    twin = data.attributes.get("twin_version") is not None
    source = _recorded(data, images, electrons, seed) if twin else _own(data, images, seed)
    found: dict[str, Callable] = methods(names)
    for number, (frame, acquisition, truth) in enumerate(source, 1):
        made = {name: method(frame, acquisition, FACTOR)[0] for name, method in found.items()}
        if truth is not None:
            made["truth"] = truth
        for name, picture in made.items():
            path = Path(folder) / name / f"im{number:02d}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, _middle(picture, crop).astype(np.float32))
    return Pictures(tuple(names), "truth" if twin else None)


def _recorded(data: Dataset, images: int, electrons: float, seed: int):
    test = data.split("material", val=0.1, test=0.25, seed=0)[2]
    for i in chosen_images(test, images, seed):
        shot, fraction = scan_of(test, i)
        rng = np.random.default_rng((seed, 71, i))
        acquisition, counts = low_dose(shot, fraction, electrons, max(1e-6, shot.acquisition.dwell_time), rng)
        yield counts.astype(np.float32), acquisition, virtual_truth(shot, fraction, acquisition, FACTOR)


def _own(data: Dataset, images: int, seed: int):
    order, given = np.random.default_rng((seed, 71)).permutation(len(data)), 0
    for i in order:
        frame = data.image(int(i)).astype(np.float32)
        if np.ptp(frame) > 0:  # one without any contrast shows raters nothing
            given += 1
            yield frame, data.acquisition(int(i)), None
        if given == images:
            return
    raise OutOfRangeError(f"{data.path}: {given} images with something to see, {images} wanted: ask for less")


def _middle(picture: np.ndarray, crop: int) -> np.ndarray:
    if min(picture.shape) < crop:
        raise OutOfRangeError(f"an image of {picture.shape[0]} x {picture.shape[1]} pixels: crop {crop} is too large")
    top, left = ((n - crop) // 2 for n in picture.shape)
    return picture[top : top + crop, left : left + crop]
