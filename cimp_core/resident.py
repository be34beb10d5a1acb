"""All images of a data set on one device, from which a batch of crops is one gather; and when that is done.

A graphics card waits for crops that a processor cuts out, turns and sends over. Images that fit in its memory go there
once, one after the other in a flat tensor. A crop is then arithmetic on positions: along its rows and its columns the
position in that tensor changes by a fixed step each, and a flip or a quarter turn is another pair of steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .crops import CropReader, open_crops, require_inside
from .errors import CimpError, OutOfRangeError
from .schema import image_key

if TYPE_CHECKING:
    from .dataset import Dataset

__all__ = ["MARGIN", "SOURCES", "ResidentCrops", "choose_source"]

MARGIN = 0.15
"""Share of a device's memory that is left for the model and what it computes."""

SOURCES = ("auto", "device", "file", "hdf5")
"""Where crops may be asked to come from, see `choose_source`."""

_WHERE = {
    "mapped": "the file, mapped into memory",
    "memory": "a copy in memory",
    "cache": "a raw copy on disk, mapped into memory",
    "hdf5": "the file through HDF5",
}


def choose_source(
    dataset: Dataset, device: torch.device | str, asked: str = "auto", *, memory: float = 0.0
) -> tuple[ResidentCrops | CropReader, str]:
    """Where the crops of a training on `device` come from, and one line that says so and why.

    Parameters
    ----------
    dataset : Dataset
        A data set or a view of one.
    device : torch.device
        The device that trains.
    asked : {"auto", "device", "file", "hdf5"}
        "device": all images on the device. "file": as `open_crops` reads them. "hdf5": from the file in place, without
        any copy. "auto": the device if it is a graphics card and the images leave `MARGIN` of its memory free, else the
        file. The pixels are the same.
    memory : float
        As of `open_crops` [GiB].

    Raises
    ------
    OutOfRangeError
        Another word in `asked`.
    CimpError
        "device" was asked for and has no room.
    """
    if asked not in SOURCES:
        raise OutOfRangeError(f"crops from {asked!r}: choose one of {', '.join(SOURCES)}")
    device, why = torch.device(device), "asked for"
    if asked in ("auto", "device"):
        shapes, dtype = _kinds(dataset)
        need, room = int(shapes.prod(axis=1).sum()) * dtype.itemsize, _room(device)
        fits = room is None or need <= room
        size = f"{need / 1e9:.3g} GB of images"
        free = "" if room is None else f", {room / 1e9:.3g} GB free there beside the {MARGIN:.0%} kept for the model"
        if asked == "device" and not fits:
            raise CimpError(f"{dataset.path}: {size} do not fit on {device}{free}; take crops from the file")
        if asked == "device" or (fits and room is not None):
            return ResidentCrops(dataset, device), f"crops come from the memory of {device}: {size}{free}"
        why = f"the device is a {device.type}, which reads as fast from it" if fits else f"{size} for {device}{free}"
    reader = open_crops(dataset, memory=0.0 if asked == "hdf5" else memory, cache=asked != "hdf5")
    return reader, f"crops come from {_WHERE[reader.storage]}: {why}"


class ResidentCrops:
    """The images of a data set or of a view of one, on a device.

    Attributes
    ----------
    pixels : (p,) tensor
        All images, row after row: float32, or, if every image is uint16, the same bits as int16, for which a device has
        every operation.
    shapes : (n, 2) int64 array
        Height and width of each image [px].
    """

    def __init__(self, dataset: Dataset, device: torch.device | str) -> None:
        self.dataset, self.device = dataset, torch.device(device)
        self.shapes, dtype = _kinds(dataset)
        self._counts = dtype == np.uint16
        ends = np.cumsum(self.shapes.prod(axis=1))
        self._starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        kind = torch.int16 if self._counts else torch.float32
        try:
            self.pixels = torch.empty(int(ends[-1]), dtype=kind, device=device)
        except RuntimeError as error:  # torch's own for a lack of memory among them
            size = f"{ends[-1] * dtype.itemsize / 1e9:.3g} GB of images"
            raise CimpError(f"{dataset.path}: {size} do not fit on {device}; take crops from the file") from error
        for i, (start, end) in enumerate(zip(self._starts, ends, strict=True)):
            image = np.ascontiguousarray(dataset.image(i), dtype=dtype).reshape(-1)
            self.pixels[start:end] = torch.from_numpy(image.view(np.int16) if self._counts else image)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # batches are cut out on another stream

    def __len__(self) -> int:
        return len(self.shapes)

    def __repr__(self) -> str:
        return f"<ResidentCrops {Path(self.dataset.path).name}: {len(self)} images on {self.device}>"

    def crops(
        self, indices: np.ndarray, tops: np.ndarray, lefts: np.ndarray, turns: np.ndarray, flips: np.ndarray, size: int
    ) -> Tensor:
        """``turned(reader.crops(indices, tops, lefts, size), turns, flips)`` of a `CropReader`, on the device.

        Parameters
        ----------
        indices, tops, lefts : (n,) ints
            As of `CropReader.crops`.
        turns, flips : (n,) ints
            As of `cimp_core.crops.turned`: mirrored along the rows where 1, then turned by so many quarters.
        size : int
            Side of a square [px].

        Returns
        -------
        (n, size, size) float32 tensor

        Raises
        ------
        OutOfRangeError
            A square does not lie within its image.
        """
        indices, tops, lefts = require_inside(self.dataset, self.shapes, indices, tops, lefts, size)
        first, down, across = _walk(self.shapes[indices, 1], np.asarray(turns) % 4, np.asarray(flips), size)
        first += self._starts[indices] + tops * self.shapes[indices, 1] + lefts
        walk = torch.from_numpy(np.stack([first, down, across])).to(self.device)[:, :, None, None]
        steps = torch.arange(size, device=self.device)
        found = self.pixels[walk[0] + walk[1] * steps[:, None] + walk[2] * steps]
        # The bits of a count above 32,767 read as a negative number.
        return (found.to(torch.int32) & 0xFFFF).to(torch.float32) if self._counts else found


def _walk(widths: np.ndarray, turns: np.ndarray, flips: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Of squares of images of these widths: position of the first pixel, counted from the square's upper left, and
    the steps to the pixel below and to the next one in the row."""
    last = size - 1
    # Of a square that is not flipped, [row, column]: where the turned one begins, and what its axes are in it.
    begin = np.array([[0, 0], [0, last], [last, last], [last, 0]])[turns]
    down = np.array([[1, 0], [0, -1], [-1, 0], [0, 1]])[turns]
    across = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])[turns]
    begin[:, 1] = np.where(flips, last - begin[:, 1], begin[:, 1])
    mirror = np.stack([np.ones_like(widths), np.where(flips, -1, 1)], 1)
    steps = np.stack([widths, np.ones_like(widths)], 1)
    return tuple((part * steps).sum(1) for part in (begin, down * mirror, across * mirror))


def _kinds(dataset: Dataset) -> tuple[np.ndarray, np.dtype]:
    """Shapes of the images, and the type that holds all of them: uint16 or float32."""
    images = [dataset.file[image_key(i)] for i in dataset.indices]
    shapes = np.array([image.shape for image in images], dtype=np.int64).reshape(-1, 2)
    counts = all(image.dtype.kind == "u" for image in images)
    return shapes, np.dtype(np.uint16 if counts else np.float32)


def _room(device: torch.device) -> float | None:
    """Bytes that images may take on a graphics card; None elsewhere, where nothing is gained by a copy."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return free - MARGIN * total
