"""A small drive with faults in it, made of any data set: what the chapter audits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..dataset import Dataset
from ..metadata import PARAMETERS
from ..microscope.velox_writer import write_velox
from .spoiled import bright_field, resampled, rescaled

__all__ = ["write_faulty_drive"]


def write_faulty_drive(folder: str | os.PathLike, data: Dataset, images: int = 24) -> dict[str, str]:
    """Write Velox files of one image each of many sessions, a third of them with a fault.

    Parameters
    ----------
    folder : path
        Made where it is absent.
    data : Dataset
        A twin, or images on Velox's 16-bit scale; of these none becomes a bright field, which has to be simulated.
    images : int
        At most so many files, beside one copy.

    Returns
    -------
    dict of str to str
        By the name of a file, as the audit names it, what is wrong with it.
    """
    folder = Path(folder)
    usable = [i for i in range(len(data)) if data.on_scale(i)]
    firsts = {data.sessions[i]: i for i in reversed(usable)}
    chosen = sorted(firsts.values())[:images]
    planted: dict[str, str] = {}
    kinds = ["pixel size", "dwell time", "gain", "enlarged", "stretched", "other settings"]
    kinds += ["bright field"] * ("twin_version" in data.attributes)
    for number, i in enumerate(chosen):
        image, settings = data.image(i), data.acquisition(i)
        kind = kinds[number // 3] if number % 3 == 1 and number // 3 < len(kinds) else ""
        if kind == "other settings":
            settings = data.acquisition(chosen[(number + len(chosen) // 2) % len(chosen)])
        known = [n for n in PARAMETERS if getattr(settings, n) is not None]
        name = {"pixel size": "pixel_size", "dwell time": "dwell_time", "gain": "detector_gain"}.get(kind)
        if name is not None and name not in known:
            kind = ""
        elif kind == "gain":
            value = settings.detector_gain
            settings = settings.replace(detector_gain=value + 7 if value < 36 else value - 7)
        elif name is not None:
            factor = 10.0 if kind == "pixel size" else 1000.0
            settings = settings.replace(**{name: getattr(settings, name) * factor})
        elif kind == "bright field":
            image = bright_field(data, i)
        elif kind == "enlarged":
            image = resampled(image, 1.5, 3)[: image.shape[0], : image.shape[1]]
        elif kind == "stretched":
            image = rescaled(image, 256)
        file = f"day_{number // 4 + 1:02d}/{number:03d}.emd"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_velox(folder / file, np.ascontiguousarray(image, np.uint16), settings)
        if kind:
            planted[file] = kind
    if chosen:
        file = "day_01/copy.emd"
        write_velox(folder / file, data.image(chosen[0]).astype(np.uint16), data.acquisition(chosen[0]))
        planted[file] = "a copy"
    return planted
