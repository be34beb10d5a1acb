"""Many files denoised, here or on a cluster; the record beside what was written of a file says that it is done."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import __version__
from ..inputs import Source
from ..jobs import FileJob, Limits
from ..work_folder import digest
from . import methods
from .denoised import Denoised, denoise
from .files import kept, output_names, write_all

if TYPE_CHECKING:
    from ..microscope.worker import KillableReader

__all__ = ["Outcome", "denoise_file", "denoise_files"]


class Outcome(NamedTuple):
    """What became of one file."""

    file: str
    status: str  # "denoised" | "kept" | "left out" | "failed"
    outputs: list[str]
    warnings: list[str]
    reason: str = ""


def denoise_files(
    sources: Sequence[Source],
    out: Path,
    work: Path,
    options: Mapping[str, Any],
    *,
    force: bool = False,
    timeout: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[float, int], object] | None = None,
) -> list[Outcome]:
    """Denoise files; those that an earlier run finished with the same options are kept.

    Parameters
    ----------
    sources : sequence of Source
        The files.
    out, work : Path
        Folder for the results; folder for what is known while it runs, removed in the end.
    options : mapping
        Of what JSON can hold: ``factor``, ``method``, ``seed``, ``settings``, ``anyway`` and ``keep_dtype`` as for
        `cimp_core.denoise`, ``override`` and ``detector`` as for `cimp_core.read`, ``format`` "hspy" or "tif".
    force : bool
        Overwrite, and do again what is done.
    timeout, workers, scheduler
        As for `cimp_core.build_dataset`; one file at a time by default, since each is spread over the processors.
    progress : callable, optional
        Called as ``progress(done, total)`` of files. Of a file under way `done` counts the share that is denoised; with
        a scheduler, whole files only.

    Returns
    -------
    list of Outcome
        In the order of `sources`.
    """
    names = output_names(source.path for source in sources)
    stamp = _stamp(options, methods.resolve(options["method"], options["seed"]))
    there = {}
    for source in sources:
        record = None if force else kept(out / names[source.path], _made_by(source.size, source.mtime_ns, stamp))
        if record is not None:
            there[source.path] = _outcome(out / names[source.path], source.path, "kept", record)
    todo = [source for source in sources if source.path not in there]
    if todo:
        # The token makes results of another run none of this one's: the records beside the images decide.
        given = dict(options) | {"out": str(out.absolute()), "force": force, "token": uuid.uuid4().hex}
        given |= _naming(sources, names)
        report, before = progress or (lambda done, total: None), len(there)
        under_way = _UnderWay(lambda done: report(before + done, len(sources)))
        with FileJob(work, denoise_file, todo, given, Limits(timeout)) as job, under_way.of_run(given["token"]):
            job.run(workers if workers or scheduler else 1, scheduler, under_way.files)
            for result in job.results():
                path = result.source.path
                if result.failed is not None:
                    there[path] = Outcome(path, "failed", [], [], result.failed)
                else:
                    there[path] = _outcome(out / names[path], path, "denoised", result.record or {})
            job.remove()
    return [there[source.path] for source in sources]


def denoise_file(
    reader: KillableReader, path: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Denoise and write the images of one file; a task of `cimp_core.jobs`."""
    method = _method(options["token"], options["method"], options["seed"])
    about = os.stat(path)
    made_by = _made_by(about.st_size, about.st_mtime_ns, _stamp(options, method))
    stem = Path(options["out"]) / _name(path, options)
    record = None if options["force"] else kept(stem, made_by)
    if record is None:  # otherwise written by a worker that died before it could say so
        record = write_all(stem, _images(reader, path, options, method), options["format"], made_by, options["force"])
    said = [{"warnings": image["warnings"]} for image in record["images"]]
    return {"files": record["files"], "images": said}, []


def _images(reader: KillableReader, path: str, options: Mapping[str, Any], method: Callable) -> list[Denoised]:
    how = {key: options[key] for key in ("settings", "seed", "anyway", "keep_dtype")}
    under_way, done = _runs.get(options["token"]), []
    shots = reader.read(path, options["override"], options["detector"])

    def step(part: int, parts: int) -> None:
        if under_way is not None:
            under_way.share(path, (len(done) + part / parts) / len(shots))

    try:
        for shot in shots:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # said in the table
                done.append(denoise(shot, options["factor"], method=method, progress=step, **how))
    finally:
        if under_way is not None:
            under_way.share(path, None)
    return done


class _UnderWay:
    """Progress of a run: files that ended, and of those under way the share that the threads of this process tell."""

    def __init__(self, report: Callable[[float], object]) -> None:
        self.report, self.ended, self.most = report, 0, 0.0
        self.shares: dict[str, float] = {}
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def of_run(self, token: str) -> Iterator[None]:
        """Let the tasks of the run find it."""
        _runs[token] = self
        try:
            yield
        finally:
            del _runs[token]

    def files(self, ended: int, _: int) -> None:
        """So many files have ended, well or not."""
        with self.lock:
            self.ended = ended
            self._tell()

    def share(self, path: str, share: float | None) -> None:
        """Of a file this much is denoised; None: its task has ended, which `files` is about to count."""
        with self.lock:
            if share is None:
                self.shares.pop(path, None)
            else:
                self.shares[path] = share
                self._tell()

    def _tell(self) -> None:
        self.most = max(self.most, self.ended + sum(self.shares.values()))  # a bar does not go back
        self.report(self.most)


_runs: dict[str, _UnderWay] = {}  # of this process, by token


@lru_cache(maxsize=2)
def _method(token: str, name: str, seed: int) -> Callable:
    """The method, once a run and process: some of them load weights."""
    return methods.resolve(name, seed)


def _naming(sources: Sequence[Source], names: Mapping[str, str]) -> dict[str, Any]:
    """What `_name` needs of all the files to name one: few words, however many files."""
    root = os.path.commonpath([os.path.dirname(source.path) for source in sources])
    alike = [path for path, name in names.items() if name != _stem(path, root)]
    return {"root": root, "alike": sorted({_stem(path, root) for path in alike})}


def _name(path: str, options: Mapping[str, Any]) -> str:
    """As `output_names` says."""
    stem = _stem(path, options["root"])
    return stem + os.path.splitext(path)[1].replace(".", "_") if stem in options["alike"] else stem


def _stem(path: str, root: str) -> str:
    return os.path.splitext(os.path.relpath(path, root))[0].replace(os.sep, "/")


def _stamp(options: Mapping[str, Any], method: Callable) -> list[Any]:
    """Everything that the result depends on beside the file."""
    keys = ("factor", "settings", "seed", "anyway", "keep_dtype", "format", "override", "detector")
    return [*(options[key] for key in keys), methods.describe(method)]


def _made_by(size: int, mtime_ns: int, stamp: list[Any]) -> str:
    return digest(__version__, size, mtime_ns, stamp)


def _outcome(stem: Path, path: str, status: str, record: Mapping[str, Any]) -> Outcome:
    said = sorted({text for image in record["images"] for text in image["warnings"]})
    return Outcome(path, status, [str(stem.parent / name) for name in record["files"]], said)
