"""A folder of finished results, one JSON document a file with its arrays beside it as .npy, each written at once.

A result's name is a digest of what it was made from. That is the manifest: what is there is done, what was half-written
when its process was killed is no result, and a file that changed has another name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CimpError

__all__ = ["WorkFolder", "digest"]


def digest(*parts: Any) -> str:
    """Digest of anything JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


class WorkFolder:
    """Results by key. Any process may read and write; the one that decides what to do holds the lock."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path).absolute()

    def lock(self) -> None:
        """Make the folder and keep other processes out. The system lets go of the lock when its process ends, however
        it ends, so that none is ever stale.

        Raises
        ------
        CimpError
            Another process is at work in the folder.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CimpError(f"{self.path}: cannot be made ({error.strerror}); choose another output") from error
        self._lock, owner = FileLock(self.path / "lock"), self.path / "owner.json"
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            try:
                held = json.loads(owner.read_text(encoding="utf-8"))
                who = f"process {held['pid']} on {held['host']}"
            except (OSError, ValueError, KeyError):
                who = "another process"
            raise CimpError(f"{self.path}: {who} is at work here; wait for it, or choose another output") from None
        owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")

    def unlock(self) -> None:
        """Let other processes in."""
        self._lock.release()

    def remove(self) -> None:
        """Remove everything, and unlock: the results have been used."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.unlock()
        if os.name == "nt":  # where an open file, the lock, cannot be removed
            shutil.rmtree(self.path, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed process left half-written: temporary files, and arrays without their document."""
        for path in [*self.path.glob("parts/*/*"), *self.path.glob(".*.part")]:
            half = path.suffix == ".npy" and not self._document(path.name.split(".")[0]).exists()
            if half or path.suffix == ".part":
                path.unlink(missing_ok=True)

    def write(self, key: str, document: dict, arrays: Sequence[np.ndarray] = ()) -> None:
        """Store a result."""
        self._document(key).parent.mkdir(parents=True, exist_ok=True)
        sizes = []
        for k, array in enumerate(arrays):
            with _replacing(self._array(key, k)) as file:
                np.save(file, array, allow_pickle=False)
                sizes.append(file.tell())
        with _replacing(self._document(key)) as file:  # last: with it the result is there
            file.write(json.dumps({**document, "arrays": sizes}).encode())

    def read(self, key: str) -> dict | None:
        """Document of a result; ``None`` where there is none, or not a whole one."""
        try:
            document = json.loads(self._document(key).read_bytes())
            sizes = [os.path.getsize(self._array(key, k)) for k in range(len(document["arrays"]))]
        except (OSError, ValueError):
            return None
        return document if sizes == document["arrays"] else None

    def array(self, key: str, number: int) -> np.ndarray:
        """One of a result's arrays, mapped from the disk."""
        return np.load(self._array(key, number), mmap_mode="r", allow_pickle=False)

    def _document(self, key: str) -> Path:
        return self.path / "parts" / key[:2] / f"{key}.json"

    def _array(self, key: str, number: int) -> Path:
        return self.path / "parts" / key[:2] / f"{key}.{number}.npy"


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
