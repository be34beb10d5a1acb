"""Sweeps: images of one area in which one setting was changed, the dwell time, the detector's gain or its offset.

How the published sweep files are laid out inside is not stated anywhere, so three layouts are recognised: the schema of
the data sets, one stack of images with arrays beside it, and images with attributes. What a number means is taken from
names, labels and units in the file, or from the caller. Nothing is guessed from the size of a number: a file that
does not tell is refused with a list of what it holds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from .errors import OutOfRangeError, SchemaError, UnreadableFileError
from .metadata import UNITS
from .remote import is_url, open_hdf5
from .sweep_layout import SCALES, SWEPT, Refused, listing, parameter_of, places, settings, survey, swept

__all__ = ["SWEPT", "Sweep", "open_sweep"]

_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


class _Images(Sequence):
    """Images of a sweep, each read when it is asked for."""

    def __init__(self, sweep: Sweep, places: list[tuple[str, int | None]]):
        self._sweep, self._places = sweep, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        name, row = self._places[i]
        item = self._sweep.file[name]
        return item[()] if row is None else item[row]


class Sweep:
    """Images in which one setting was changed. Made by `open_sweep`; may be pickled and handed to workers.

    Attributes
    ----------
    path : Path or str
        The file, or its address.
    parameter : {"dwell_time", "detector_gain", "detector_offset"}
        What was changed.
    values : (n,) float64 array
        Its value for each image [s for the dwell time; gain and offset have no unit].
    images : sequence of n (h, w) arrays
        In the order of the file, each read when asked for, in the type the file has it.
    settings : dict of str to (n,) float64 array
        Others of the seven, SI, as far as the file has them.
    order : (n,) int64 array
        Positions of the images by rising value.
    source : str
        Where in the file the values come from, and what was taken as given.
    remote : RemoteFile or None
        The file on the server, with the bytes fetched.
    """

    def __init__(self, path, parameter: str, columns: dict[str, np.ndarray], places: list, source: str):
        self.path, self.parameter, self.source = path, parameter, source
        self.values = columns[parameter]
        self.settings = {name: column for name, column in columns.items() if name != parameter}
        self.order = np.argsort(self.values, kind="stable")
        self.images = _Images(self, places)
        self._handle, self.remote, self._pid = None, None, None

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        low, high, unit = self.values.min(), self.values.max(), UNITS[self.parameter]
        what = f"{self.parameter} from {low:.4g} to {high:.4g} {unit}".strip()
        return f"<Sweep {Path(self.path).name}: {len(self)} images, {what}>"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_handle": None, "remote": None, "_pid": None}

    @property
    def file(self) -> h5py.File:
        """The open HDF5 file, read-only, one a process."""
        if not self._handle or self._pid != os.getpid():
            self._handle, self.remote = open_hdf5(self.path)
            self._pid = os.getpid()
        return self._handle

    def close(self) -> None:
        """Close the file; it opens again when next used."""
        if self._handle and self._pid == os.getpid():
            self._handle.close()
        self._handle = None


def open_sweep(path: str | os.PathLike, *, parameter: str | None = None, unit: str | None = None) -> Sweep:
    """Open a sweep of one setting: a file, or an address (``hf://...``, ``https://...``).

    The swept parameter is the one column that varies, or the name of the array of values; it must not contradict the
    name of the file.

    Parameters
    ----------
    path : path or str
        An HDF5 file.
    parameter : {"dwell_time", "detector_gain", "detector_offset"}, optional
        What was swept, where the file does not tell.
    unit : str, optional
        Unit of the values where the file does not tell: "s", "ms", "us" or "ns".

    Raises
    ------
    UnreadableFileError
        The file is absent, cannot be reached, truncated, or not HDF5.
    SchemaError
        The file does not tell which images or values it holds, or contradicts itself; the message lists its content.
    OutOfRangeError
        Unknown `parameter` or `unit`.
    """
    if parameter not in (None, *SWEPT):
        raise OutOfRangeError(f"{parameter!r} is no sweep; there are {', '.join(SWEPT)}")
    if unit is not None and unit.lower() not in SCALES["s"]:
        raise OutOfRangeError(f"unknown unit {unit!r}; there are s, ms, us, ns")
    with open_hdf5(path)[0] as file:
        try:
            items = survey(file)
            images = places(items)
            named = parameter or parameter_of(Path(path).stem)
            if not images:
                raise Refused("no set of images: expected one group of 2-D images, or one stack (n, h, w), n above 1")
            found = settings(file, items, images, named, unit)
            what = swept(found, named)
        except Refused as error:
            raise SchemaError(f"{path}: {error}. The file holds:\n{listing(items)}") from error
        except _DAMAGE as error:
            raise UnreadableFileError(f"{path}: damaged, cannot be read ({error})") from error
    return Sweep(path if is_url(path) else Path(path).resolve(), what, found.columns, images, found.source)
