"""The twin of the CIMP data set: simulated sessions in the same HDF5 schema, with the truth behind each image kept.

Image ``j`` of session ``k`` depends on the seed, ``k`` and ``j`` alone, so neither the number of images asked for nor
the number of worker processes changes it. What a recording is made from (specimen seed, optics, detector, scan) is
stored beside it in the group ``twin``, from which `reacquire` makes the expectation, or another recording.

Random streams, each a `numpy.random.SeedSequence` of the twin's seed with a spawn key: (0, k) habits and settings of
session k, (1, k, area) specimen, (2, k, area, frame, seed) scan and noise, (3, k) the image that
`cimp_core.twin_sessions` draws of session k. The stored recording has the last seed 0.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from .dataset import Dataset, open_dataset, write_dataset
from .errors import CimpError, OutOfRangeError, SchemaError
from .metadata import Acquisition
from .simulate.detector import expected_counts, record
from .simulate.instruments import Shot
from .simulate.lab import Session, draw_acquisition, draw_session, set_detector
from .simulate.scan import lag, row_displacements
from .simulate.specimen import MATERIALS, draw_specimen, expectation
from .twin_version import TWIN_VERSION

__all__ = ["TWIN_VERSION", "make_twin", "reacquire", "reference_images", "scan_of", "shot_of", "twin", "write_sessions"]

_SETTINGS, _SPECIMEN, _NOISE, SESSION_CHOICE = range(4)


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """The stream of a twin's seed that belongs to a spawn key; see the head of this page."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def open_session(seed: int, k: int) -> tuple[Session, np.random.Generator]:
    """Habits of session `k`, and the stream from which its settings are drawn."""
    rng = random_stream(seed, _SETTINGS, k)
    return draw_session(rng, MATERIALS), rng


def _session_lengths(seed: int, images: int) -> list[int]:
    """Images in each session, the last one cut so that they sum to `images`."""
    lengths, total = [], 0
    while total < images:
        lengths.append(open_session(seed, len(lengths))[0].images)
        total += lengths[-1]
    lengths[-1] -= total - images
    return lengths


def _scanned(
    seed: int, k: int, shot: Shot, size: int, material: str, rng: np.random.Generator, moved: tuple = (0.0, 0.0)
) -> np.ndarray:
    """Fraction of the electrons that reaches the detector, (size, size), where the beam really was."""
    settings = shot.acquisition
    specimen = draw_specimen(random_stream(seed, _SPECIMEN, k, shot.area), settings.pixel_size, size, material)
    rows = row_displacements(shot.scan, settings.dwell_time, size, size, rng) - np.array(moved)[::-1]
    inner, outer = settings.inner_collection_angle, shot.outer_collection_angle
    fraction = expectation(specimen, shot.optics, inner, outer, settings.pixel_size, size, rows)
    return lag(fraction, shot.scan, settings.dwell_time)


def _make_session(job: tuple[int, int, int, int]) -> tuple[np.ndarray, list[dict]]:
    """Images (count, size, size) uint16 of one session, and what each was made from."""
    seed, k, count, size = job
    session, rng = open_session(seed, k)
    images, stored, shot = np.empty((count, size, size), np.uint16), [], None
    for j in range(count):
        shot = draw_acquisition(session, rng, shot)
        noise = random_stream(seed, _NOISE, k, shot.area, shot.frame, 0)
        fraction = _scanned(seed, k, shot, size, session.material, noise)
        shot = set_detector(shot, session, fraction, rng)
        images[j] = record(fraction, shot.acquisition, shot.detector, noise)
        stored.append({"session": k, "material": session.material, **shot.to_dict()})
    return images, stored


def _run(jobs: list[tuple], workers: int) -> Iterator[tuple[np.ndarray, list[dict]]]:
    """Sessions in order, made by `workers` processes."""
    if workers <= 1 or len(jobs) == 1:
        with threadpool_limits(1):
            yield from map(_make_session, jobs)
        return
    # Fork starts at once and needs no guarded main script; elsewhere than on Linux it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, threadpool_limits, (1,)) as pool:
        try:
            yield from pool.map(_make_session, jobs, chunksize=2)
        except BrokenProcessPool as error:
            raise CimpError("a worker process died, perhaps for lack of memory: try fewer workers") from error


def make_twin(
    path: str | os.PathLike,
    images: int,
    size: int,
    seed: int,
    workers: int | None = None,
    force: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Simulate `images` recordings and write them as a data set. Same seed, same bytes on one machine.

    Parameters
    ----------
    path : path
        File to write; it appears only once it is complete.
    images, size : int
        Number of images, and their side [px]. A twin of fewer images is the beginning of a larger one.
    seed : int
        Any whole number from 0.
    workers : int, optional
        Processes; by default one a processor on Linux and one elsewhere, where a script that starts processes must
        guard its main part.
    force : bool
        Replace an existing file.
    progress : callable, optional
        Called with the number of images made since the last call.

    Raises
    ------
    OutOfRangeError
        `images`, `size`, `seed` or `workers` is too small.
    CimpError
        The file exists and `force` is false, or its folder does not exist.
    """
    lengths = partial(_session_lengths, seed, images)
    return write_sessions(path, images, lengths, size, seed, workers, force, progress)


def write_sessions(
    path: str | os.PathLike,
    images: int,
    lengths: Callable[[], list[int]],
    size: int,
    seed: int,
    workers: int | None,
    force: bool,
    progress: Callable[[int], object] | None,
) -> Path:
    """As `make_twin`, of each session ``k`` the first ``lengths()[k]`` images; asked for once all else is in order."""
    path = Path(path)
    for name, value, least in (("images", images, 1), ("size", size, 16), ("seed", seed, 0), ("workers", workers, 1)):
        if value is not None and value < least:
            raise OutOfRangeError(f"{name} is {value}: it must be at least {least}")
    if not path.parent.is_dir():
        raise CimpError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.exists() and not force:
        raise CimpError(f"{path}: exists already; choose another name, or replace it with force=True (--force)")
    needed, free = 4 * images * size**2, shutil.disk_usage(path.parent).free
    if free < needed:
        raise CimpError(
            f"{path}: {needed / 1e9:.1f} GB needed while it is made, {free / 1e9:.1f} GB free in its folder"
        )
    jobs = [(seed, k, count, size) for k, count in enumerate(lengths())]
    stored: list[dict] = []
    # Gain and offset follow the image, so settings are complete only after the last: pixels wait on disk.
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        for pixels, shots in _run(jobs, workers or _processors()):
            spool.write(pixels)
            stored += shots
            if progress is not None:
                progress(len(shots))
        spool.seek(0)
        frames = (np.frombuffer(spool.read(2 * size * size), np.uint16).reshape(size, size) for _ in stored)
        return write_dataset(
            path,
            frames,
            np.array([shot["acquisition"] for shot in stored]),
            [_filepath(i, shot) for i, shot in enumerate(stored)],
            materials=[shot["material"] for shot in stored],
            dose_threshold=10.0,  # the lab's least current and dwell time give 12 electrons
            attributes={"twin_version": TWIN_VERSION, "twin_seed": seed, "twin_size": size},
            extra={"twin/settings": [json.dumps(shot) for shot in stored]},
            force=force,
        )


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def _filepath(i: int, shot: dict) -> str:
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", shot["material"])
    return f"session_{shot['session']:04d}/{i:07d}_{name}.emd"


def twin(images: int = 7330, size: int = 256, seed: int = 0, workers: int | None = None) -> Dataset:
    """The twin, made on first use (about two minutes with the default size on two processors) and then kept.

    It is kept in the folder of the environment variable ``CIMP_CACHE``, else in ``~/.cache/cimp``, under a name with
    its version, so that another version is never taken for this one.

    Parameters
    ----------
    images, size, seed, workers
        See `make_twin`.
    """
    folder = Path(os.environ.get("CIMP_CACHE") or Path.home() / ".cache" / "cimp")
    path = folder / f"twin_{TWIN_VERSION}_{images}x{size}_seed{seed}.h5"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_twin(path, images, size, seed, workers, force=True)
    return open_dataset(path)


def reacquire(
    data: Dataset,
    index: int,
    acquisition: Acquisition,
    *,
    noise: bool = True,
    seed: int = 0,
    readout: str | None = None,
) -> np.ndarray:
    """The same area of the same specimen, recorded again or as it is expected to be recorded.

    With the image's own acquisition and `seed` 0 the recording is the stored image itself, and the expectation is
    the mean of which that image is one draw (rounding and clipping apart), with the beam at the same positions.

    Parameters
    ----------
    data : Dataset
        A twin, or a view of one.
    index : int
        Image of the view.
    acquisition : Acquisition
        All seven settings, such as ``data.acquisition(index).replace(dwell_time=20e-6)``. Focus, aberrations, drift
        and detector stay; the source size follows from the current, the outer collection angle from the inner.
    noise : bool
        A recording, (size, size) uint16, or the expected counts, (size, size) float64, before rounding and clipping.
    seed : int
        Another seed is another scan of the area: other row displacements, other noise.
    readout : {"mean", "sum"}, optional
        Detector readout; the image's own by default, which is the mean over the dwell time.

    Raises
    ------
    SchemaError
        The data set is no twin, or one of another version than this program's.
    OutOfRangeError
        The settings are incomplete, have another pixel size, or are not HAADF; see `Shot.at`.
    """
    stored = _stored(data, index)
    shot = Shot.from_dict(stored).at(acquisition, readout)
    with threadpool_limits(1):
        fraction, rng = _scan_again(*_made_with(data), stored, shot, seed)
        if noise:
            return record(fraction, shot.acquisition, shot.detector, rng)
        return expected_counts(fraction, shot.acquisition, shot.detector)


def shot_of(data: Dataset, index: int) -> Shot:
    """What image `index` was made with: settings, optics, detector, scan. Raises `SchemaError` if `data` is no twin."""
    return Shot.from_dict(_stored(data, index))


def scan_of(
    data: Dataset,
    index: int,
    acquisition: Acquisition | None = None,
    *,
    seed: int = 0,
    moved: tuple[float, float] = (0.0, 0.0),
) -> tuple[Shot, np.ndarray]:
    """The shot, and the fraction of the electrons that reached the detector where the beam really was.

    `simulate.detector` makes recordings and expectations of it at any dose, gain and offset, all with the beam at the
    same positions.

    Arguments and errors are those of `reacquire`; by default the settings are the image's own. `moved` is how far the
    specimen has drifted since, down and right [m]. The fraction is (size, size) float32.
    """
    stored = _stored(data, index)
    shot = Shot.from_dict(stored)
    if acquisition is not None:
        shot = shot.at(acquisition)
    with threadpool_limits(1):
        return shot, _scan_again(*_made_with(data), stored, shot, seed, moved)[0]


def _made_with(data: Dataset) -> tuple[int, int]:
    return int(data.attributes["twin_seed"]), int(data.attributes["twin_size"])


def _scan_again(twin_seed: int, size: int, stored: dict, shot: Shot, seed: int, moved: tuple = (0.0, 0.0)) -> tuple:
    """The fraction at the beam's positions, and the stream from which noise is drawn next."""
    k = stored["session"]
    rng = random_stream(twin_seed, _NOISE, k, shot.area, shot.frame, seed)
    return _scanned(twin_seed, k, shot, size, stored["material"], rng, moved), rng


def _stored(data: Dataset, index: int) -> dict:
    version = data.attributes.get("twin_version")
    if version is None:
        raise SchemaError(f"{data.path}: not a twin, so there is nothing to record again; make one with cimp simulate")
    if version != TWIN_VERSION:
        raise SchemaError(f"{data.path}: a twin of version {version}, this program makes {TWIN_VERSION}; make it again")
    return json.loads(data.file["twin/settings"][data.indices[index]])


def reference_images(images: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, list[float]]]:
    """First image of each of the first sessions of seed 0: recording, expectation, the seven settings."""
    for k in range(images):
        with threadpool_limits(1):
            pixels, (stored,) = _make_session((0, k, 1, size))
            shot = Shot.from_dict(stored)
            fraction, _ = _scan_again(0, size, stored, shot, 0)
        yield pixels[0], expected_counts(fraction, shot.acquisition, shot.detector), stored["acquisition"]
