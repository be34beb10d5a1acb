"""One function over many files: side by side here or on a cluster, and resumable after any interruption.

Each file's result goes at once to a `WorkFolder`, under a digest of the file's name, size and time of change, of the
function and of its options: what is there is done, and a file that changed is done again. Files are read by
`KillableReader`, one for each thread, so that a file that hangs or crashes its reader costs one result.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .errors import CimpError, OutOfRangeError
from .inputs import Source
from .job_cluster import cluster, in_turn
from .microscope.worker import KillableReader
from .work_folder import WorkFolder, digest

__all__ = ["FileJob", "Limits", "Result"]

Task = Callable[[KillableReader, str, Mapping[str, Any]], tuple[dict, Sequence[np.ndarray]]]
"""``task(reader, path, options)`` gives what JSON can hold, and arrays. It must be importable where it runs."""


@dataclass(frozen=True)
class Limits:
    """Longest time for one file [s], by default 30 s and 1 s for every 5 MB; largest memory of its reader [bytes]."""

    timeout: float | None = None
    memory: int | None = 4 * 2**30

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise OutOfRangeError(f"timeout is {self.timeout}: it must be above 0 s")
        if self.memory is not None and not self.memory > 0:
            raise OutOfRangeError(f"memory is {self.memory}: it must be above 0 bytes, or None for no limit")

    @property
    def stamp(self) -> list:
        """As JSON gives it back."""
        return [self.timeout, self.memory]

    def seconds(self, size: int) -> float:
        """Time for a file of `size` bytes."""
        return 30.0 + size / 5e6 if self.timeout is None else self.timeout


@dataclass(frozen=True)
class Result:
    """What became of one file: the task's record, or why there is none; ``array(k)`` maps its arrays from the disk."""

    source: Source
    record: dict | None
    failed: str | None
    array: Callable[[int], np.ndarray]


class FileJob:
    """A task over files, with its work folder; use it as a context manager, which keeps other processes out.

    Parameters
    ----------
    folder : Path
        Work folder; made where it is absent.
    task : function
        See `Task`; a `CimpError` it raises is the file's result.
    sources : sequence of Source
        The files.
    options : mapping
        Passed to `task`; of what JSON can hold.
    limits : Limits
        Of each file. A file that failed is tried again under other limits.

    Raises
    ------
    CimpError
        On entering: another process is at work in the folder.
    """

    def __init__(self, folder: Path, task: Task, sources: Sequence[Source], options: Mapping, limits: Limits) -> None:
        self.folder, self.task, self.sources = WorkFolder(folder), task, list(sources)
        self.options, self.limits = dict(options), limits
        made_by = digest(__version__, task.__module__, task.__qualname__, self.options)
        self._keys = [digest(s.name, s.size, s.mtime_ns, made_by) for s in self.sources]
        self._lost: dict[int, str] = {}  # failures that may pass, such as a file that changed meanwhile

    def __enter__(self) -> FileJob:
        self.folder.lock()
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.unlock()

    def run(
        self,
        workers: int | None = None,
        scheduler: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Do what is not done yet.

        Parameters
        ----------
        workers : int, optional
            Files read at a time; one a processor by default.
        scheduler : str, optional
            Address of a dask scheduler whose workers do it instead; they must see the same files at the same paths.
        progress : function, optional
            Called as ``progress(done, total)``.

        Raises
        ------
        CimpError
            No scheduler, no reader process, or no room on the disk; what is done stays done.
        KeyboardInterrupt
            Stopped by hand; the message says how to go on.
        """
        if workers is not None and (workers < 1 or scheduler):
            raise OutOfRangeError("workers must be at least 1, and is not for a scheduler, which has its own workers")
        self.folder.clean()
        todo = [i for i, key in enumerate(self._keys) if self._document(key) is None]
        done, total = len(self.sources) - len(todo), len(self.sources)
        report = progress or (lambda done, total: None)
        report(done, total)
        if not todo:
            return
        token = uuid.uuid4().hex
        try:
            with _client(scheduler, min(workers or os.cpu_count() or 1, len(todo)), token) as client:
                for i, state in self._finished(client, todo, token):
                    self._check(i, state)
                    done += 1
                    report(done, total)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped: {done} of {total} files are done and kept in {self.folder.path}; the same command goes on"
            ) from None

    def results(self) -> Iterator[Result]:
        """The result of every file, in the order of the sources, once `run` has ended."""
        for i, (source, key) in enumerate(zip(self.sources, self._keys, strict=True)):
            document = self._document(key)
            if document is None:
                document = {"record": None, "failed": self._lost.get(i, "not read")}
            yield Result(source, document["record"], document["failed"], partial(self.folder.array, key))

    def remove(self) -> None:
        """Remove the work folder: its results have been used."""
        self.folder.remove()

    def _finished(self, client: Any, todo: list[int], token: str) -> Iterator[tuple[int, str]]:
        """Indices as their tasks end."""

        def submit(i: int, key: str) -> Any:
            arguments = self.task, self.sources[i], self._keys[i], self.options, self.limits
            return client.submit(_one, *arguments, self.folder.path, token, key=key, pure=False)

        return in_turn(client, todo, submit, token)

    def _check(self, i: int, state: str) -> None:
        """Whether what a worker says of a file is so here too."""
        path = self.sources[i].path
        if state == "changed":
            if _same(self.sources[i]):
                raise CimpError(f"{path}: a worker does not see this file; all of them must share this file system")
            self._lost[i] = "the file changed or vanished while it was read"
        elif state == "killed":
            self._lost[i] = "the file ended the workers that read it"
        elif self._document(self._keys[i]) is None:
            raise CimpError(
                f"{self.folder.path}: a worker's result is not here; all of them must share this file system"
            )

    def _document(self, key: str) -> dict | None:
        """What is written of a file, unless it failed under other limits."""
        document = self.folder.read(key)
        again = document is not None and document["failed"] and document["limits"] != self.limits.stamp
        return None if again else document


_readers: dict[tuple[str, int], KillableReader] = {}  # of this process, by run and thread
_guard = threading.Lock()
_stopped: set[str] = set()  # runs that ended: what their tasks still give is not kept


def _one(task: Task, source: Source, key: str, options: Mapping, limits: Limits, folder: Path, token: str) -> str:
    """Do one file, in a thread of a dask worker, and write what came of it."""
    there = WorkFolder(folder).read(key)
    if there is not None and (not there["failed"] or there["limits"] == limits.stamp):
        return "done"  # by a worker that died before it could say so
    with _guard:
        if token in _stopped:
            return "stopped"
        reader = _readers.setdefault((token, threading.get_ident()), KillableReader(memory=limits.memory))
    reader.start()  # a reader that does not start is no fault of the file: the run stops
    reader.timeout = limits.seconds(source.size)
    record, arrays, failed = None, [], None
    try:
        record, arrays = task(reader, source.path, options)
    except CimpError as error:
        failed = str(error).removeprefix(f"{source.path}: ")
    except MemoryError:
        failed = "needs more memory than there is"
    except Exception as error:  # of the program's own making; the other files go on
        failed = f"an error of this program, please report it: {type(error).__name__}: {error}"
    if token in _stopped:
        reader.close()  # it may have started again since the run ended
        return "stopped"
    if not _same(source):
        return "changed"
    try:
        document = {"name": source.name, "size": source.size, "mtime_ns": source.mtime_ns}
        document |= {"failed": failed, "limits": limits.stamp, "record": record}
        WorkFolder(folder).write(key, document, arrays if failed is None else ())
    except OSError as error:
        raise CimpError(f"{folder}: cannot be written ({error}); make room, then the same command goes on") from error
    return "done"


def _same(source: Source) -> bool:
    try:
        stat = os.stat(source.path)
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (source.size, source.mtime_ns)


def _close(token: str) -> None:
    """End the reader processes of a run, in whichever process it is called."""
    with _guard:
        _stopped.add(token)
        readers = [_readers.pop(key) for key in list(_readers) if key[0] == token]
    for reader in readers:
        reader.close()


def _client(scheduler: str | None, threads: int, token: str) -> Any:
    return cluster(scheduler, threads, partial(_close, token))
