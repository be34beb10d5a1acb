"""The structure of a TIA .ser file, checked before RosettaSciIO reads the pixels.

Damaged counts and offsets make that reader hang or take all memory; here each is held against the size of the file.
The layout is that of C. B. Boothroyd, "TIA series data (.ser) format", er-c.org/cbb/info/TIAformat.
"""

from __future__ import annotations

import math
import mmap
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import UnreadableFileError
from .record import Sighting

__all__ = ["TYPES", "survey"]

TYPES = {1: "u1", 2: "u2", 3: "u4", 4: "i1", 5: "i2", 6: "i4", 7: "f4", 8: "f8", 9: "c8", 10: "c16"}
"""Type of the numbers, as NumPy spells it, for each value of the field DataType."""

_SPECTRA, _IMAGES = 0x4120, 0x4122
_TIME, _POSITION = 0x4152, 0x4142  # what stands after each image: its time, or its time and position
_TAG_SIZE = {_TIME: 8, _POSITION: 24}
_OFFSETS = {0x0210: "<u4", 0x0220: "<u8"}  # by version; TIA 4.7.3 widened them
_IMAGE = struct.Struct("<ddIddIHII")  # calibration of x and of y (offset, delta, element), type, columns, rows


def survey(path: Path) -> Sighting:
    """Say what a .ser file holds, from its structure alone; `why` is empty for an image or a series of frames.

    Raises
    ------
    UnreadableFileError
        The structure is not that of a .ser file, or does not fit into the file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            shape, why = _survey(data)
    except (ValueError, struct.error) as error:
        what = "it ends too early" if isinstance(error, struct.error) else error
        raise UnreadableFileError(f"{path}: damaged, truncated or not a .ser file ({what})") from error
    return Sighting(path.stem, shape, why)


def _survey(data: mmap.mmap) -> tuple[tuple[int, ...], str]:
    """Shape of the data, and what they are if no image; ValueError where the structure cannot be true."""
    order, series, version, kind, tag, total, valid = struct.unpack_from("<HHHIIII", data)
    if (order, series) != (0x4949, 0x0197) or version not in _OFFSETS:
        raise ValueError(f"byte order {order:#x}, series {series:#x}, version {version:#x}")
    if kind not in (_SPECTRA, _IMAGES) or tag not in _TAG_SIZE:
        raise ValueError(f"data type {kind:#x}, tag type {tag:#x}")
    word = np.dtype(_OFFSETS[version])
    array, dimensions = struct.unpack_from("<II" if word.itemsize == 4 else "<QI", data, 22)
    if valid > total or array + 2 * word.itemsize * total > len(data):
        raise ValueError(f"{valid} of {total} images in {len(data)} bytes")
    sizes, units = _dimensions(data, 26 + word.itemsize, dimensions, array)
    if not sizes or math.prod(sizes) != total:
        raise ValueError(f"{dimensions} dimensions of sizes {sizes} for {total} images")
    steps = tuple(size for size in sizes if size > 1)
    if kind == _SPECTRA:
        return steps, "a spectrum, or spectra"
    if valid == 0:
        return (), "no image: the acquisition was stopped before the first was complete"

    offsets = sorted(np.frombuffer(data[array : array + word.itemsize * valid], word).tolist())
    columns, rows, delta = _images(data, offsets, array + 2 * word.itemsize * total, _TAG_SIZE[tag])
    if len(steps) > 1:
        return (*steps, rows, columns), "a map of images (4D data)"
    if steps and (tag == _POSITION or any(units)):
        return (*steps, rows, columns), "images taken point by point along a line (diffraction patterns?)"
    shape = (valid, rows, columns) if valid > 1 else (rows, columns)
    return shape, "an image with axes in 1/m (a diffraction pattern or an FFT)" if delta > 1 else ""


def _dimensions(data: mmap.mmap, at: int, count: int, end: int) -> tuple[list[int], list[bytes]]:
    """Sizes and units of the dimensions of the series, which stand between `at` and `end`."""
    if count > 8:
        raise ValueError(f"{count} dimensions")
    sizes, units = [], []
    for _ in range(count):
        size, start, step, _, length = struct.unpack_from("<IddII", data, at)
        (length_of_unit,) = struct.unpack_from("<I", data, at + 28 + length)
        at += 32 + length + length_of_unit
        if at > end or not (math.isfinite(start) and math.isfinite(step)):
            raise ValueError("its dimensions make no sense")
        sizes.append(size)
        units.append(data[at - length_of_unit : at])
    return sizes, units


def _images(data: mmap.mmap, offsets: list[int], start: int, tag_size: int) -> tuple[int, int, float]:
    """Columns, rows and larger calibration step of images that are all alike and follow each other after `start`."""
    if offsets[0] < start or offsets[-1] + _IMAGE.size > len(data):
        raise ValueError("an image begins outside the file")
    kind, columns, rows = _IMAGE.unpack_from(data, offsets[0])[6:]
    if kind not in TYPES or not rows or not columns:
        raise ValueError(f"an image of {rows} x {columns} of type {kind}")
    each = _IMAGE.size + rows * columns * np.dtype(TYPES[kind]).itemsize + tag_size
    if offsets[-1] + each > len(data) or any(b - a < each for a, b in pairwise(offsets)):
        raise ValueError(f"{len(offsets)} images of {rows} x {columns} of type {TYPES[kind]} in {len(data)} bytes")
    delta = 0.0
    for offset in offsets:
        *calibration, kind_, columns_, rows_ = _IMAGE.unpack_from(data, offset)
        if (kind_, columns_, rows_) != (kind, columns, rows):
            raise ValueError("its images differ in size or type")
        if not all(map(math.isfinite, calibration)):
            raise ValueError("its images are calibrated with numbers that are none")
        delta = max(delta, abs(calibration[1]), abs(calibration[4]))
    return columns, rows, delta
