"""Embeddings of the images in many files, read and embedded here or on a cluster, resumable."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .inputs import Source
from .jobs import FileJob, Limits

if TYPE_CHECKING:
    from .microscope.worker import KillableReader

__all__ = ["Embedded", "embed_file", "embed_files"]


class Embedded(NamedTuple):
    """Embeddings (n, d) and settings (n, 7) in SI units of `n` images, and the files that gave none."""

    images: np.ndarray
    settings: np.ndarray
    sources: list[tuple[str, int, int]]  # of each image: path, its number in the file, how many that has
    absolute: list[bool]  # whether the absolute intensity was known
    failed: dict[str, str]  # path: why


def embed_files(
    sources: Sequence[Source],
    work: str | os.PathLike,
    *,
    weights: str | os.PathLike = "cimp-twin-s",
    crops: int | None = 4,
    timeout: float | None = None,
    memory: int | None = 4 * 2**30,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Embed every HAADF-STEM image of many files; after an interruption the same call goes on where it was.

    Parameters
    ----------
    sources : sequence of Source
        The files, as `cimp_core.inputs.list_inputs` gives them.
    work : path
        Folder for what is done; the caller removes it when the result is kept elsewhere.
    weights, crops
        As for `cimp_core.load` and `Cimp.embed_images`.
    timeout, memory, workers, scheduler, progress
        As for `cimp_core.build_dataset`.

    Raises
    ------
    CimpError
        As `FileJob` raises; no such weights.
    """
    from .weights import locate, sha256

    path = locate(weights)
    named = str(path.absolute()) if str(weights) == str(path) else str(weights)
    options = {"weights": named, "sha256": sha256(path), "crops": crops}
    images, settings, of, absolute, failed = [], [], [], [], {}
    with FileJob(Path(work), embed_file, sources, options, Limits(timeout, memory)) as job:
        job.run(workers, scheduler, progress)
        for result in job.results():
            if result.failed is not None:
                failed[result.source.path] = result.failed
                continue
            found = (result.record or {})["images"]
            images += [np.array(row) for row in result.array(0)]
            settings += [[np.nan if v is None else v for v in image["settings"]] for image in found]
            of += [(result.source.path, i, len(found)) for i in range(len(found))]
            absolute += [image["absolute"] for image in found]
    return Embedded(np.array(images), np.array(settings, dtype=float), of, absolute, failed)


def embed_file(
    reader: KillableReader, path: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Embed the images of one file; a task of `cimp_core.jobs`."""
    shots = reader.read(path)
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # `absolute` says it
        rows = _model(options["weights"], options["sha256"]).embed_images(shots, crops=options["crops"])
    found = []
    for shot in shots:
        values = [None if np.isnan(v) else float(v) for v in shot.acquisition.vector()]
        found.append({"settings": values, "absolute": shot.intensity == "velox16"})
    return {"images": found}, [rows]


_one_at_a_time = threading.Lock()  # files are read side by side; the network takes all processors by itself


@lru_cache(maxsize=1)
def _model(weights: str, _: str) -> Any:
    from .weights import load

    return load(weights)
