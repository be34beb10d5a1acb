"""Data sets of HAADF-STEM images and their seven acquisition parameters, in the published HDF5 schema.

One file holds ``full_res/000000 ...`` (one 2-D image each, sizes may differ), ``metadata_raw`` (n, 7) in SI units,
``metadata`` (n, 7) normalised, the statistics of that normalisation (``log_indices``, ``stats_mean``, ``stats_std``),
``filepaths``, ``frame_indices``, ``total_frames`` and four attributes. Three additions are optional: ``missing``
(n, 7), true where ``metadata_raw`` is ``nan`` because the source file lacks the value, ``materials`` (n,), a label
each, and ``intensity`` (n,), the scale of each image's counts.
Which columns are log-transformed and with which statistics is read from the file and never assumed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from .dataset_writer import write_dataset
from .errors import OutOfRangeError, SchemaError, UnreadableFileError
from .metadata import PARAMETERS, UNITS, Acquisition, Normalizer
from .remote import RemoteFile, is_url, open_hdf5
from .schema import image_faults, image_key, read_table, session_name, value_faults
from .splits import split_indices

__all__ = ["Dataset", "check_dataset", "open_dataset", "write_dataset"]


class Dataset:
    """Images and metadata of one HDF5 file, or a view of some of them.

    The file is opened on first use and once a process, so a data set may be pickled (without its images) and handed
    to forked or spawned workers. Every index below counts within the view; `indices` leads back to the file.

    Attributes
    ----------
    path : Path or str
        The file, absolute, or the address of one on a server.
    indices : (n,) int64 array
        Position in the file of each image of this view.
    metadata_raw : (n, 7) float64 array
        Values in SI units in the order of `PARAMETERS`; ``nan`` where missing.
    metadata : (n, 7) float64 array
        The same as z-scores, some after a logarithm, as the file has them.
    normalizer : Normalizer
        The file's own statistics; shared by every view.
    filepaths : list of str
        Source file of each image.
    frame_indices, total_frames : (n,) int64 arrays
        Place of the image in its source series.
    sessions : (n,) int64 array
        Number of the directory of the source path, or of the file where the path has no directory.
    groups : (n,) int64 array
        Equal for identical raw vectors (as stored, ``nan`` equal to ``nan``). Numbered over the whole file,
        so ids of two views may be compared.
    materials : list of str or None
        Label of each image; ``None`` where the file has none.
    intensity : list of str or None
        Scale of the counts: "velox16", "dm_counts", "float" or "unknown"; ``None`` where the file does not say.
    attributes : dict
        Attributes of the file.
    """

    def __init__(self, path: str | os.PathLike, indices: Sequence[int] | None = None):
        self.path = path if is_url(path) else Path(path).resolve()
        self._handle, self._remote, self._pid = None, None, None
        table, faults = read_table(self.file, listing=not is_url(path))
        if not is_url(path):
            self.close()
        if faults:
            raise SchemaError(_report(path, faults))
        self._table = table
        self.normalizer: Normalizer = table["normalizer"]
        self.attributes: dict = table["attributes"]
        self._select(np.arange(len(table["metadata_raw"])) if indices is None else indices)

    def _select(self, indices: Sequence[int]) -> None:
        table, total = self._table, len(self._table["metadata_raw"])
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if np.any((self.indices < 0) | (self.indices >= total)):
            raise OutOfRangeError(f"{self.path}: holds images 0 to {total - 1}, asked for one outside")
        for name in ("metadata_raw", "metadata", "frame_indices", "total_frames", "sessions", "groups"):
            setattr(self, name, table[name][self.indices])
        self.filepaths = [table["filepaths"][i] for i in self.indices]
        for name in ("materials", "intensity"):
            labels = table[name]
            setattr(self, name, None if labels is None else [labels[i] for i in self.indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"<Dataset {Path(self.path).name}: {len(self)} images, {len(np.unique(self.sessions))} sessions>"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_handle": None, "_remote": None, "_pid": None}

    @property
    def file(self) -> h5py.File:
        """The open HDF5 file, read-only. A forked child must not share its parent's handle, so each has its own."""
        if not self._handle or self._pid != os.getpid():
            self._handle, self._remote = open_hdf5(self.path)
            self._pid = os.getpid()
        return self._handle

    @property
    def remote(self) -> RemoteFile | None:
        """The file on the server as this process reads it, with the bytes ``fetched``; ``None`` for a local file."""
        return self._remote if self.file else None

    def close(self) -> None:
        """Close the file; it opens again when next used."""
        if self._handle is not None and self._pid == os.getpid():
            self._handle.close()
        self._handle = None

    def view(self, indices: Sequence[int]) -> Dataset:
        """The images at `indices` of this view, in that order."""
        other = object.__new__(Dataset)
        other.__dict__.update(self.__getstate__())
        if self._remote is not None:  # one connection and one store of blocks for all views in this process
            other._handle, other._remote, other._pid = self._handle, self._remote, self._pid
        other._select(self.indices[np.asarray(indices, dtype=np.int64)])
        return other

    def image(self, i: int) -> np.ndarray:
        """Image `i`, (h, w), in the type the file has it."""
        return self.file[image_key(self.indices[i])][()]

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width of image `i` [px], without reading it."""
        return self.file[image_key(self.indices[i])].shape

    def on_scale(self, i: int) -> bool:
        """Whether image `i` is on Velox's 16-bit scale, the one on which absolute intensity means something.

        A file without ``intensity``, such as the published one, is taken at its images' type: uint16 is.
        """
        if self.intensity is not None:
            return self.intensity[i] == "velox16"
        return self.file[image_key(self.indices[i])].dtype == np.uint16

    def series(self, i: int) -> np.ndarray:
        """Positions in this view of the frames of the series that image `i` belongs to, in the order they were taken.

        Frames of one source file form a series as long as `frame_indices` rises; where it falls back, as for a second
        detector, the next series begins. Frames that the data set or the view leaves out are not there.
        """
        rows = np.array([k for k, name in enumerate(self.filepaths) if name == self.filepaths[i]])
        rows = rows[np.argsort(self.indices[rows], kind="stable")]
        frames, totals = self.frame_indices[rows], self.total_frames[rows]
        number = np.r_[0, np.cumsum((np.diff(frames) <= 0) | (np.diff(totals) != 0))]
        return rows[number == number[np.flatnonzero(rows == np.arange(len(self))[i])[0]]]

    def acquisition(self, i: int) -> Acquisition:
        """Settings of image `i`; a value that is absent or not above zero is ``None`` with its reason."""
        values, missing = self.metadata_raw[i].copy(), {}
        for j, name in enumerate(PARAMETERS):
            if np.isnan(values[j]):
                missing[name] = "absent from the data set"
            elif values[j] <= 0 and name != "detector_offset":
                missing[name] = f"the data set has {values[j]:g} {UNITS[name]}, which must be above zero"
                values[j] = np.nan
        return Acquisition.from_vector(values, missing)

    def split(self, kind: str, val: float = 0.1, test: float = 0.12, seed: int = 0) -> tuple[Dataset, Dataset, Dataset]:
        """Views for training, validation and test; see `cimp_core.splits.split_indices` for what each `kind` promises.

        Parameters
        ----------
        kind : {"image", "session", "material"}
            What never straddles two parts: a source file, a session, a material.
        val, test : float
            Share of the images each part should hold.
        seed : int
            Same seed, same split.

        Raises
        ------
        SchemaError
            ``kind="material"`` and the data set has no labels.
        OutOfRangeError
            Unknown `kind`, impossible shares, or too few units to fill three parts.
        """
        units = {"image": self.filepaths, "session": self.sessions, "material": self.materials}
        if kind in units and units[kind] is None:
            raise SchemaError(f"{self.path}: no 'materials' data set, so it cannot be split by material; use 'session'")
        parts = split_indices(kind, units.get(kind), val=val, test=test, seed=seed)
        return tuple(self.view(part) for part in parts)

    def without_sessions_of(self, *held_out: Dataset) -> Dataset:
        """The images of all sessions that none of the data sets `held_out` has: what may be trained on beside them.

        A session is known by the directory of its source paths, so `held_out` may be views of another, smaller file.
        """
        taken = {session_name(path) for data in held_out for path in data.filepaths}
        return self.view([i for i, path in enumerate(self.filepaths) if session_name(path) not in taken])

    def crops(self, indices: Sequence[int], size: int, rng: np.random.Generator, flips: bool = True) -> np.ndarray:
        """One random square of each image, turned at random by quarter turns and flips.

        Only these eight symmetries are offered. Zoom would contradict the pixel size, blur the convergence angle,
        noise the dwell time and current, contrast the gain and offset: the pair would no longer be true.
        (A flip does exchange the sense of the fast scan direction; none of the seven parameters records it.)

        Parameters
        ----------
        indices : sequence of int
            Images of this view, repeats allowed.
        size : int
            Side of the square [px].
        rng : numpy.random.Generator
            Source of the positions and symmetries.
        flips : bool
            Whether to turn and flip.

        Returns
        -------
        (n, size, size) float32 array
            Recorded counts, not scaled.

        Raises
        ------
        OutOfRangeError
            An image is smaller than `size`.
        """
        out = np.empty((len(indices), size, size), dtype=np.float32)
        images = self.file
        for row, i in enumerate(indices):
            image = images[image_key(self.indices[i])]
            height, width = image.shape
            if min(height, width) < size:
                raise OutOfRangeError(
                    f"{self.path}: image {self.indices[i]} is {height} x {width} px, too small for {size}"
                )
            top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
            crop = image[top : top + size, left : left + size]
            if flips:
                turns, flip = rng.integers(4), rng.integers(2)
                crop = np.rot90(crop[:, ::-1] if flip else crop, turns)
            out[row] = crop
        return out


def open_dataset(path: str | os.PathLike) -> Dataset:
    """Open a data set for reading: a file, or an address, ``hf://buckets/ORG/NAME/file.h5`` or ``https://...``.

    At an address only the table is read; an image or a crop fetches its own bytes, see `Dataset.remote`.

    Raises
    ------
    UnreadableFileError
        The file is absent, cannot be reached, truncated, or not HDF5.
    SchemaError
        The file does not follow the schema; the message names every fault.
    """
    return Dataset(path)


def check_dataset(path: str | os.PathLike) -> list[str]:
    """Every fault of a data set, one line each; an empty list means that it follows the schema.

    Looks at each image's shape, type and last pixel, not at every pixel; on a server, at the first and the last image.
    """
    try:
        with open_hdf5(path)[0] as file:
            _, faults = read_table(file, listing=not is_url(path))
            return faults + value_faults(file) + image_faults(file, listing=not is_url(path))
    except UnreadableFileError as error:
        return [str(error)]


def _report(path: str | os.PathLike, faults: Sequence[str]) -> str:
    return f"{path}: not a data set this can read; {len(faults)} fault(s):\n  " + "\n  ".join(faults)
