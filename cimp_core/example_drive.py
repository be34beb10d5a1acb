"""A small drive as a lab leaves it, made of the twin: sessions in folders, several formats, and files of no use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .digital_twin import reacquire
from .errors import CimpError, OutOfRangeError
from .metadata import Acquisition
from .microscope.velox_writer import write_velox

__all__ = ["write_example_drive"]

EXPORTS = "various"
"""Folder of what is no plain recording."""


def write_example_drive(folder: str | os.PathLike, twin: Dataset, *, sessions: int = 8, images: int = 4) -> Path:
    """Write the first images of the first sessions of a twin as Velox files, and beside them what a real drive holds.

    That is, in a folder of their own: a series of three frames, a HyperSpy and a TIFF file (both know less than a Velox
    file does), a copy, a bright-field image, a file that is cut off, and a text.

    Parameters
    ----------
    folder : path
        An empty or new folder.
    twin : Dataset
        As `cimp_core.twin` gives it.
    sessions, images : int
        How many sessions, and at most how many images of each.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CimpError
        The folder is not empty.
    OutOfRangeError
        The twin has no four images more than are written as Velox files.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise CimpError(f"{folder}: not empty; the example drive goes into a new folder")
    names = np.unique(twin.sessions)[:sessions]
    chosen = [i for name in names for i in np.flatnonzero(twin.sessions == name)[:images]]
    others = [i for i in range(len(twin)) if i not in set(chosen)]
    if len(others) < 4:
        raise OutOfRangeError(f"{twin.path}: {len(twin)} images, too few for {sessions} sessions and four more files")
    for i in chosen:
        path = folder / twin.filepaths[i]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_velox(path, twin.image(i), twin.acquisition(i))
    _write_exports(folder / EXPORTS, twin, others, path)
    return folder


def _write_exports(folder: Path, twin: Dataset, others: list[int], recording: Path) -> None:
    folder.mkdir()
    series, hyperspy, tiff, bright = others[:4]
    acquisition = twin.acquisition(series)
    frames = np.stack([reacquire(twin, series, acquisition, seed=k) for k in range(3)])
    write_velox(folder / "series.emd", frames, acquisition)
    for i, name in ((hyperspy, "processed.hspy"), (tiff, "for the paper.tif")):
        _signal(twin.image(i), twin.acquisition(i)).save(folder / name)
    shutil.copy(recording, folder / "copy.emd")
    write_velox(folder / "bright field.emd", twin.image(bright), twin.acquisition(bright), detector="BF-S")
    content = recording.read_bytes()
    (folder / "cut off.emd").write_bytes(content[: len(content) // 2])
    (folder / "notes.txt").write_text("aligned the probe, new sample at noon\n")


def _signal(image: np.ndarray, acquisition: Acquisition):
    """A HyperSpy signal of which only the pixel size and the dwell time are known."""
    from hyperspy.signals import Signal2D

    signal = Signal2D(image)
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = acquisition.pixel_size * 1e9, "nm"
    signal.metadata.set_item("Acquisition_instrument.TEM.acquisition_mode", "STEM")
    signal.metadata.set_item("Acquisition_instrument.TEM.dwell_time", acquisition.dwell_time)
    return signal
