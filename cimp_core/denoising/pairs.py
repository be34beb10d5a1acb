"""Recordings at any dose with the truth behind them: what a denoiser learns from and is judged by.

All of it starts from the fraction of the electrons that reached the detector where the beam really was
(`cimp_core.digital_twin.scan_of`), so that a recording and its truth show the specimen at the same positions: jitter
and drift are not noise, and no denoiser is asked to undo them.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.constants import elementary_charge

from ..dataset import Dataset, open_dataset
from ..digital_twin import scan_of
from ..errors import OutOfRangeError, SchemaError
from ..metadata import Acquisition
from ..simulate.detector import FULL_SCALE, expected_counts, record
from ..simulate.instruments import Shot
from ..simulate.lab import GAIN_RANGE

__all__ = ["BRIGHT", "Scans", "bright_electrons", "low_dose", "prepare_scans", "virtual_truth"]

BRIGHT = 0.995
"""The bright pixel of an image is this quantile of the fraction that reaches the detector."""

_STEPS = 65_535


def bright_electrons(fraction: np.ndarray, acquisition: Acquisition) -> float:
    """Detected electrons expected at the bright pixel of a (rows, columns) scan."""
    bright = float(np.quantile(fraction, BRIGHT))
    return bright * acquisition.beam_current * acquisition.dwell_time / elementary_charge


def low_dose(
    shot: Shot,
    fraction: np.ndarray,
    electrons: float,
    dwell_time: float,
    rng: np.random.Generator,
    *,
    level: float | None = None,
    gain: float | None = None,
    offset: float | None = None,
) -> tuple[Acquisition, np.ndarray]:
    """A recording with a wanted number of electrons at the bright pixel.

    The current is chosen for it. The probe stays as it is: a smaller current would sharpen it a little.

    Parameters
    ----------
    shot, fraction : Shot, (rows, columns) array
        As `cimp_core.digital_twin.scan_of` gives them.
    electrons : float
        Detected electrons at the bright pixel.
    dwell_time : float
        [s]
    rng : numpy.random.Generator
        For the noise.
    level : float, optional
        Part of the full scale that the bright pixel is to reach above black: gain is set for it, within its range, as
        an operator would; 0.5 by default.
    gain, offset : float, optional
        Settings to use instead; the offset is the shot's own by default.

    Returns
    -------
    acquisition : Acquisition
        The settings it was taken with.
    counts : (rows, columns) uint16 array
    """
    bright = max(float(np.quantile(fraction, BRIGHT)), 1e-9)
    current = electrons * elementary_charge / (bright * dwell_time)
    settings = shot.acquisition.replace(dwell_time=dwell_time, beam_current=current)
    if offset is not None:
        settings = settings.replace(detector_offset=offset)
    if gain is None:
        black = shot.detector.black_at(settings.detector_offset) / FULL_SCALE
        # Bright pixels scatter: at low dose the operator leaves room for them.
        peak = bright * current * 1e12 * (1 + 3 / np.sqrt(electrons))
        wanted = (0.5 if level is None else level) * (1 - max(black, 0.0)) * FULL_SCALE
        gain = float(np.clip(shot.detector.gain_for(max(wanted, 1.0) / peak), *GAIN_RANGE))
    settings = settings.replace(detector_gain=gain)
    return settings, record(fraction, settings, shot.detector, rng)


def virtual_truth(shot: Shot, fraction: np.ndarray, acquisition: Acquisition, factor: float) -> np.ndarray:
    """Expectation (rows, columns) at `factor` times the dwell time, at the intensity scale of `acquisition` [counts].

    The longer dwell time has less after-glow, which is all that the expectation changes by. A readout that sums over
    the dwell time gives `factor` times the counts; they are divided by it.
    """
    longer = acquisition.replace(dwell_time=acquisition.dwell_time * factor)
    counts = expected_counts(fraction, longer, shot.detector)
    return counts if shot.detector.readout == "mean" else counts / factor


class Scans:
    """Fractions of many images, mapped from one file, with their shots; made by `prepare_scans`.

    ``scans[i]`` is ``(Shot, (size, size) float32 fraction)``. Fractions are kept in 65,535 steps of each image's
    largest: steps of 0.002 %, against 4 % shot noise at 500 electrons.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        index = self.folder / "scans.json"
        if not index.exists():
            raise SchemaError(f"{self.folder}: no prepared scans, or not complete; call prepare_scans")
        content = json.loads(index.read_text())
        self.shots = [Shot.from_dict(stored) for stored in content["shots"]]
        self.sources, self.materials = content["sources"], content["materials"]
        self.sessions = content["sessions"]
        size = content["size"]
        self._scale = np.array(content["scale"])
        self._steps = np.memmap(self.folder / "fractions.raw", np.uint16, "r", shape=(len(self.shots), size, size))

    def __len__(self) -> int:
        return len(self.shots)

    def __getitem__(self, i: int) -> tuple[Shot, np.ndarray]:
        return self.shots[i], self._steps[i].astype(np.float32) * np.float32(self._scale[i] / _STEPS)


def prepare_scans(
    data: Dataset,
    folder: str | os.PathLike,
    *,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Scans:
    """Fractions of all images of a view of a twin, computed once and kept in `folder`.

    Takes some 30 ms an image of 256 x 256 pixels and processor. A folder made of other images is made again.

    Raises
    ------
    SchemaError
        The data set is no twin of this version.
    OutOfRangeError
        The view is empty.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sources = [int(i) for i in data.indices]
    if not sources:
        raise OutOfRangeError(f"{data.path}: no image to scan")
    stamp = {"sources": sources, "file": Path(data.path).name, "version": str(data.attributes.get("twin_version"))}
    index = folder / "scans.json"
    if index.exists() and {k: json.loads(index.read_text()).get(k) for k in stamp} == stamp:
        return Scans(folder)
    index.unlink(missing_ok=True)
    shots, scale = [], []
    parts = np.array_split(np.arange(len(sources)), max(1, len(sources) // 64))
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with open(folder / "fractions.raw", "wb") as file, ProcessPoolExecutor(workers, context) as pool:
        jobs = [(str(data.path), [sources[j] for j in part]) for part in parts]
        for steps, largest, made in pool.map(_scan_some, jobs):
            file.write(steps.tobytes())
            scale += largest
            shots += made
            if progress is not None:
                progress(len(made))
    about = {"size": steps.shape[1], "scale": scale, "shots": shots, "sessions": [str(s) for s in data.sessions]}
    about["materials"] = [str(m) for m in data.materials]
    temporary = folder / ".scans.json"
    temporary.write_text(json.dumps(stamp | about))
    os.replace(temporary, index)
    return Scans(folder)


def _scan_some(job: tuple[str, list[int]]) -> tuple[np.ndarray, list[float], list[dict]]:
    path, sources = job
    data = open_dataset(path)
    steps, scale, shots = [], [], []
    for i in sources:
        shot, fraction = scan_of(data, i)
        largest = max(float(fraction.max()), 1e-12)
        steps.append(np.rint(fraction * (_STEPS / largest)).astype(np.uint16))
        scale.append(largest)
        shots.append(shot.to_dict())
    return np.stack(steps), scale, shots


def with_readout(shot: Shot, readout: str) -> Shot:
    """The same shot with the other readout."""
    return dataclasses.replace(shot, detector=dataclasses.replace(shot.detector, readout=readout))
