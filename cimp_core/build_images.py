"""From one micrograph to rows of a data set: which frames, in which type, with which dwell time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .metadata import PARAMETERS

if TYPE_CHECKING:
    from .microscope import Micrograph
    from .microscope.worker import KillableReader

__all__ = ["SERIES", "digest_pixels", "take", "take_images"]

ELECTRON = 1.602176634e-19  # [C], CODATA 2018, exact
SERIES = ("frames", "mean", "first")
"""What can become of a series."""


def take(reader: KillableReader, path: str, options: Mapping[str, Any]) -> tuple[dict, list[np.ndarray]]:
    """Read one file: of each image what the data set keeps, and the pixels of those that can be taken."""
    return reader.read(path, options["override"], options["detector"], partial(take_images, series=options["series"]))


def take_images(shots: list[Micrograph], series: str) -> tuple[dict, list[np.ndarray]]:
    """The same of micrographs that have been read."""
    images, arrays = [], []
    for shot in shots:
        record, pixels = _take_image(shot, series)
        if pixels is not None:
            record["array"] = len(arrays)
            arrays.append(pixels)
        images.append(record)
    return {"images": images}, arrays


def _take_image(shot: Micrograph, series: str) -> tuple[dict, np.ndarray | None]:
    data, notes = np.asarray(shot.image.data), list(shot.notes)
    frames = data.reshape(-1, *data.shape[-2:])
    recorded, averaged, acquisition = len(frames), 1, shot.acquisition
    if recorded > 1 and series == "mean":
        averaged, frames = recorded, frames.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
        notes.append(f"the mean of {recorded} frames")
        if acquisition.dwell_time is not None and shot.readout == "mean":
            acquisition = acquisition.replace(dwell_time=acquisition.dwell_time * recorded)
            notes[-1] += ", with the dwell time of all of them together: that is the dose behind each pixel"
        elif acquisition.dwell_time is not None:
            notes[-1] += "; the dwell time is that of one, as the counts are"
    elif recorded > 1 and series == "first":
        notes.append(f"the first of {recorded} frames")
        frames = frames[:1]
    pixels, fault = _published(frames, notes)
    current, dwell = shot.acquisition.beam_current, shot.acquisition.dwell_time
    record = {
        "title": str(shot.image.metadata.General.title),
        "values": [getattr(acquisition, name) for name in PARAMETERS],
        "missing": dict(acquisition.missing),
        "dose": None if current is None or dwell is None else current * dwell * averaged / ELECTRON,
        "intensity": shot.intensity,
        "readout": shot.readout,
        "notes": notes,
        "frames": recorded,
        "fault": fault,
        "shape": None if pixels is None else pixels.shape,
        "bytes": None if pixels is None else pixels.nbytes,
        "digest": None if pixels is None else digest_pixels(pixels),
    }
    return record, pixels


def _published(frames: np.ndarray, notes: list[str]) -> tuple[np.ndarray | None, str | None]:
    """Frames as uint16 or float32, with a note where that is not exact; or why they cannot be taken."""
    if frames.size == 0:
        return None, "the image has no pixels"
    kind, small = frames.dtype.kind, frames.dtype.itemsize <= 2
    if kind not in "biuf":
        return None, f"its pixels are of type {frames.dtype}, not real numbers"
    if kind == "b" or (kind in "iu" and small and frames.min() >= 0):
        return np.ascontiguousarray(frames, dtype=np.uint16), None
    if kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(frames)))):
        return None, f"{bad} of its pixels are not finite numbers"
    with np.errstate(over="ignore"):
        pixels = np.ascontiguousarray(frames, dtype=np.float32)
    if not np.isfinite(pixels).all():
        return None, "its pixels are too large for float32"
    if changed := int(np.count_nonzero(pixels.astype(np.longdouble) != frames)):
        notes.append(f"{changed} of {frames.size} pixels were rounded from {frames.dtype} to float32")
    return pixels, None


def digest_pixels(pixels: np.ndarray) -> str:
    """The same for the same numbers: a copy saved as floating point is still a copy."""
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 65535 and (pixels == np.rint(pixels)).all():
        pixels = pixels.astype(np.uint16)
    summary = hashlib.blake2b(f"{pixels.dtype.name} {pixels.shape}".encode(), digest_size=16)
    summary.update(np.ascontiguousarray(pixels))
    return summary.hexdigest()
