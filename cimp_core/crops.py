"""Squares of many images, read fast: from a map of the file where its images lie uncompressed in one piece, else from a
copy of the raw images that is made once.

Reading a square through HDF5 costs a look-up, a selection and, in a compressed file, the decoding of every chunk it
touches, each time. Of an image stored in one piece only the position in the file is needed: then the operating system
maps the file into memory and a square is one strided copy. The same holds for a copy of the raw images.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from .errors import OutOfRangeError, UnreadableFileError
from .image_copy import image_bounds, image_bytes, image_kinds, raw_copy, stamp
from .schema import image_key

if TYPE_CHECKING:
    from .dataset import Dataset

__all__ = ["CropReader", "open_crops", "require_inside", "turned"]

_SLOW = 50e-6  # [s] a crop; above it the disk was waited for, a crop from memory takes a fifth of it


def open_crops(dataset: Dataset, *, memory: float = 0.0, cache: bool = True, limit: float = 100.0) -> CropReader:
    """A reader of squares of the images of a data set or of a view of one.

    Parameters
    ----------
    dataset : Dataset
        Its images are numbered as in ``dataset.image(i)``.
    memory : float
        Images that cannot be mapped are held in memory if those of the view take at most this [GiB].
    cache : bool
        Else copy the raw images of the file once into the folder of ``CIMP_CACHE`` (else ``~/.cache/cimp``).
    limit : float
        No copy larger than this [GiB], nor one that leaves less than 2 GiB free: then the squares are read through
        HDF5, and a warning says so.

    Raises
    ------
    UnreadableFileError
        The file was replaced or changed since the data set was opened.
    """
    return CropReader(dataset, memory, cache, limit)


class CropReader:
    """Squares of the images of a data set; `open_crops` makes one.

    May be used in forked processes and pickled to others: the images stay behind, the file is opened there again.

    Attributes
    ----------
    storage : {"mapped", "memory", "cache", "hdf5"}
        Where the squares come from.
    shapes : (n, 2) int64 array
        Height and width of each image [px].
    dtypes : list of n dtype
        Type of each image in the file.
    waits : bool
        Whether the last squares had to be fetched from disk.
    """

    def __init__(self, dataset: Dataset, memory: float, cache: bool, limit: float) -> None:
        self.dataset, self._memory, self._cache, self._limit = dataset, memory, cache, limit
        images = [dataset.file[image_key(i)] for i in dataset.indices]
        self.shapes, self.dtypes = image_kinds(images)
        self._stamp = stamp(dataset.file)
        self._open(_offsets_in_file(dataset.file, images))

    def _open(self, offsets: np.ndarray | None) -> None:
        self._buffer, self._mapped = None, None
        if stamp(self.dataset.file) != self._stamp:  # opened again in another process
            raise UnreadableFileError(f"{self.dataset.path}: was replaced or changed; open the data set again")
        bounds = image_bounds(self.shapes, self.dtypes)
        if offsets is not None:
            self.storage, self._offsets = "mapped", offsets
            self._map(self.dataset.path)
            if self._mapped[1] != self._stamp:
                raise UnreadableFileError(f"{self.dataset.path}: was replaced since it was opened; open it again")
        elif bounds[-1] <= self._memory * 2**30:
            self.storage, self._offsets, self._buffer = "memory", bounds[:-1], np.empty(bounds[-1], dtype=np.uint8)
            for i, start in enumerate(self._offsets):
                image = image_bytes(self.dataset.image(i))
                self._buffer[start : start + len(image)] = image
        elif self._cache and (copy := raw_copy(self.dataset, self._limit)):
            self.storage, self._offsets = "cache", copy[1][self.dataset.indices]
            self._map(copy[0])
        else:
            self.storage, self._offsets = "hdf5", None
        self.waits = self._mapped is not None

    def _map(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._mapped = path, stamp(file)
            self._buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self.dtypes)

    def __repr__(self) -> str:
        return f"<CropReader {Path(self.dataset.path).name}: {len(self)} images, {self.storage}>"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_buffer": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.storage != "hdf5":
            self._open(self._offsets if self.storage == "mapped" else None)

    def crops(self, indices: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: int) -> np.ndarray:
        """``dataset.image(i)[top : top + size, left : left + size]`` of each entry, in one array.

        Parameters
        ----------
        indices : (n,) ints
            Images of the data set, repeats allowed.
        tops, lefts : (n,) ints
            First row and column of each square [px].
        size : int
            Side of the square [px].

        Returns
        -------
        (n, size, size) array
            In the stored type; float32, which holds every uint16, where the images asked for are of both.

        Raises
        ------
        OutOfRangeError
            A square does not lie within its image.
        UnreadableFileError
            The file changed while it was read from.
        """
        indices, starts, strides, dtypes = self._places(indices, tops, lefts, size)
        out = np.empty((len(indices), size, size), dtype=np.result_type(*set(dtypes)) if dtypes else np.uint16)
        if self._offsets is None:
            for row, (i, top, left) in enumerate(zip(indices, tops, lefts)):
                out[row] = self.dataset.file[image_key(self.dataset.indices[i])][top : top + size, left : left + size]
            return out
        self._require_unchanged()
        if self.waits:
            self._announce(starts, strides, size)
        since, buffer, shape = time.perf_counter(), self._buffer, (size, size)
        for row, (start, stride, dtype) in enumerate(zip(starts, strides, dtypes)):
            out[row] = np.ndarray(shape, dtype, buffer, start, (stride, dtype.itemsize))
        # Asking costs as much as a crop from memory, so it is left off while the disk is not waited for.
        self.waits = time.perf_counter() - since > _SLOW * len(indices) * max(1, size / 128) ** 2
        return out

    def announce(self, indices: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: int) -> None:
        """Have the disk begin to read squares that `crops` will ask for next; returns at once, changes no result."""
        if self._mapped is not None:
            _, starts, strides, _ = self._places(indices, tops, lefts, size)
            self._announce(starts, strides, size)

    def _announce(self, starts: list[int], strides: list[int], size: int) -> None:
        # A map alone reads one page after the other and, far around each, rows that no square needs.
        if self._mapped is not None and hasattr(mmap, "MADV_WILLNEED"):
            for start, stride in zip(starts, strides):
                first = start - start % mmap.PAGESIZE
                self._buffer.madvise(mmap.MADV_WILLNEED, first, start - first + size * stride)

    def _places(self, indices, tops, lefts, size: int) -> tuple[np.ndarray, list[int], list[int], list[np.dtype]]:
        """First byte, bytes from row to row, and type of each square."""
        indices, tops, lefts = require_inside(self.dataset, self.shapes, indices, tops, lefts, size)
        widths = self.shapes[indices, 1]
        dtypes = [self.dtypes[i] for i in indices]
        if self._offsets is None:
            return indices, [], [], dtypes
        items = np.array([dtype.itemsize for dtype in dtypes], dtype=np.int64)
        starts = self._offsets[indices] + (tops * widths + lefts) * items
        return indices, starts.tolist(), (widths * items).tolist(), dtypes

    def _require_unchanged(self) -> None:
        """A map of a file that was cut short would end the process, and one of a changed file would be wrong."""
        if self._mapped is None:
            return
        path, opened = self._mapped
        try:
            now = stamp(path)
        except FileNotFoundError:
            return  # deleted or replaced: the map keeps the file it was made of
        if now[0] == opened[0] and now != opened:
            raise UnreadableFileError(f"{path}: changed while it was read; open the data set again")


def require_inside(
    dataset: Dataset, shapes: np.ndarray, indices: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three as int64; raises `OutOfRangeError` where a square does not lie within its image."""
    indices, tops, lefts = (np.asarray(a, dtype=np.int64).reshape(-1) for a in (indices, tops, lefts))
    count = len(shapes)
    if len({len(indices), len(tops), len(lefts)}) > 1 or size < 1:
        raise OutOfRangeError(f"{len(indices)} indices, {len(tops)} tops, {len(lefts)} lefts, size {size}")
    if np.any(outside := (indices < -count) | (indices >= count)):
        raise OutOfRangeError(f"{dataset.path}: no image {indices[outside][0]} among {count}")
    heights, widths = shapes[indices].T
    outside = (tops < 0) | (lefts < 0) | (tops + size > heights) | (lefts + size > widths)
    if outside.any():
        k = int(np.argmax(outside))
        number, shape = dataset.indices[indices[k]], f"{heights[k]} x {widths[k]} px"
        what = "" if min(heights[k], widths[k]) < size else f" at row {tops[k]}, column {lefts[k]}"
        raise OutOfRangeError(f"{dataset.path}: image {number} is {shape}, too small for {size}{what}")
    return indices, tops, lefts


def turned(squares: np.ndarray, turns: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Squares (n, s, s) mirrored where `flips` and then turned by quarter turns, as float32."""
    out = np.empty(squares.shape, dtype=np.float32)
    for quarter in range(4):
        for flip in range(2):
            rows = np.flatnonzero((turns == quarter) & (flips == flip))
            some = squares[rows]
            out[rows] = np.rot90(some[:, :, ::-1] if flip else some, quarter, (1, 2))
    return out


def _offsets_in_file(file: h5py.File, images: list[h5py.Dataset]) -> np.ndarray | None:
    """First byte of each image in the file; ``None`` unless every image lies there in one piece as numpy has it."""
    if stamp(file) is None:
        return None
    home, offsets = h5py.h5o.get_info(file.id).fileno, []
    for image in images:
        plain = image.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        plain = plain and image.id.get_type() == h5py.h5t.py_create(image.dtype)
        plain = plain and h5py.h5o.get_info(image.id).fileno == home  # a link may lead into another file
        offsets.append(image.id.get_offset() if plain else None)  # None too if never written, or kept elsewhere
        if offsets[-1] is None:
            return None
    return np.array(offsets, dtype=np.int64)
