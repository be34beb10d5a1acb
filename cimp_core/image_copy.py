"""A copy of the raw images of a data set, made once, for files whose images are compressed or in pieces.

The copy holds the images in the order of the file, each from a multiple of 64 bytes on, and nothing else. Its name is
made of the path, the size and the time of the data set and of `VERSION`: a data set that changed has another copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import h5py
import numpy as np

from .errors import UnreadableFileError
from .schema import image_key

if TYPE_CHECKING:
    from .dataset import Dataset

__all__ = ["image_bounds", "image_bytes", "image_kinds", "raw_copy", "stamp"]

VERSION = 1
"""Of the layout described above."""

SPARE = 2 * 2**30
"""What a copy leaves free on its disk [bytes]."""


def stamp(file: h5py.File | Path | BinaryIO) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written to: number, size and time; ``None`` if it is no local file."""
    if isinstance(file, h5py.File):
        if file.driver != "sec2":
            return None
        # HDF5's own handle: the path may lead to another file by now.
        file = file.id.get_vfd_handle() if os.name == "posix" else Path(file.filename)
    stat = os.stat(file if isinstance(file, int | Path) else file.fileno())
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def image_kinds(images: list[h5py.Dataset]) -> tuple[np.ndarray, list[np.dtype]]:
    """Shapes (n, 2) and types of images."""
    return np.array([i.shape for i in images], dtype=np.int64).reshape(-1, 2), [i.dtype for i in images]


def image_bounds(shapes: np.ndarray, dtypes: list[np.dtype]) -> np.ndarray:
    """First byte of each of n raw images in a copy, and the length of the copy: (n + 1,) int64."""
    sizes = shapes.prod(axis=1) * np.array([dtype.itemsize for dtype in dtypes], dtype=np.int64)
    return np.concatenate([[0], np.cumsum(-(-sizes // 64) * 64)])


def image_bytes(image: np.ndarray) -> np.ndarray:
    """Bytes of an image, row after row."""
    return np.ascontiguousarray(image).reshape(-1).view(np.uint8)


def raw_copy(dataset: Dataset, limit: float) -> tuple[Path, np.ndarray] | None:
    """The copy of all images of the file of `dataset`, made if need be, and the first byte of each of them in it.

    ``None``, with a warning that says why, where there can be none: it is on a server, the copy would be
    larger than `limit` [GiB] or leave less than 2 GiB free, or its folder cannot be written to.

    Raises
    ------
    UnreadableFileError
        The data set changed meanwhile.
    """
    try:
        return _copy(dataset, limit)
    except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
        message = f"{dataset.path}: crops are read through HDF5, which is slow: {error}"
        warnings.warn(message, stacklevel=2)
        return None


def _copy(dataset: Dataset, limit: float) -> tuple[Path, np.ndarray]:
    from filelock import FileLock

    before = stamp(dataset.file)
    if before is None:
        raise OSError("it is on a server; fetch it first (cimp dataset fetch)")
    bounds = image_bounds(*image_kinds([dataset.file[image_key(i)] for i in range(len(dataset.file["metadata_raw"]))]))
    folder = Path(os.environ.get("CIMP_CACHE") or Path.home() / ".cache" / "cimp")
    folder.mkdir(parents=True, exist_ok=True)
    of = str(dataset.path), (VERSION, *before[1:])
    owner, state = (hashlib.sha256(repr(part).encode()).hexdigest()[:16] for part in of)
    path = folder / f"crops_{owner}_{state}.raw"
    # One process makes the copy, others wait for it. The system frees the lock of a process that was killed.
    with FileLock(folder / f"crops_{owner}.lock"):
        if not (path.is_file() and path.stat().st_size == bounds[-1]):
            _make(dataset, path, folder / f"crops_{owner}.part", bounds, limit)
            if stamp(dataset.file) != before:
                path.unlink()
                raise UnreadableFileError(f"{dataset.path}: changed while its images were copied; open it again")
            for old in folder.glob(f"crops_{owner}_*.raw"):  # of an earlier state of the file
                if old != path:
                    old.unlink(missing_ok=True)
    return path, bounds[:-1]


def _make(dataset: Dataset, path: Path, part: Path, bounds: np.ndarray, limit: float) -> None:
    part.unlink(missing_ok=True)  # of a process that was killed
    need, free = int(bounds[-1]), shutil.disk_usage(path.parent).free
    if need > limit * 2**30 or need + SPARE > free:
        sizes = f"{need / 2**30:.3g} GiB needed, {free / 2**30:.3g} GiB free, limit {limit:.3g} GiB"
        raise OSError(f"no room in {path.parent} for a copy of the images ({sizes}); set CIMP_CACHE to a larger disk")
    print(f"{dataset.path}: copying the images once to {path} ({need / 2**30:.3g} GiB)", file=sys.stderr, flush=True)
    try:
        with open(part, "wb") as file:
            for i, start in enumerate(bounds[:-1]):
                file.write(bytes(start - file.tell()))
                file.write(image_bytes(dataset.file[image_key(i)][()]))
            file.write(bytes(need - file.tell()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
