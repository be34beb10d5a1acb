"""Files on a server: read by byte ranges where they lie, or fetched whole and checked.

Addresses are ``hf://buckets/ORG/NAME/file.h5`` and plain ``https://``. Opening a data set there reads its table;
an image fetches its own bytes. `download` goes by the same ranges, because huggingface_hub's own download of a
bucket file has no way to take up a transfer that was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from .errors import CimpError, UnreadableFileError
from .http_ranges import chunks, find

__all__ = ["KNOWN_SHA256", "RemoteFile", "download", "is_url", "open_hdf5"]

KNOWN_SHA256: dict[str, str] = {}
"""Checksums by address. Empty: none is published for the files of the real data set, and a bucket keeps no versions,
so what it holds can change. Write down the checksum of what you fetched, and give it the next time."""

_BLOCK, _KEPT = 2**18, 128  # [bytes], [blocks]: small reads come in blocks, of which 32 MiB stay in memory
_DIRECT = 4 * _BLOCK  # a longer read, such as an image, fetches exactly its own bytes


def is_url(path: str | os.PathLike) -> bool:
    """Whether `path` is an address that this module reads."""
    return isinstance(path, str) and path.startswith(("hf://", "https://", "http://"))


def open_hdf5(path: str | os.PathLike) -> tuple[h5py.File, RemoteFile | None]:
    """Open an HDF5 file for reading, here or on a server; in the second case with the file that counts the bytes.

    Raises
    ------
    UnreadableFileError
        The file is absent, cannot be reached, truncated, or not HDF5.
    """
    if not is_url(path) and not Path(path).is_file():
        raise UnreadableFileError(f"{path}: no such file")
    remote = RemoteFile(path) if is_url(path) else None
    try:
        return h5py.File(path if remote is None else remote, "r"), remote
    except OSError as error:
        again = "fetch or write it again" if remote is None else "the file on the server is damaged"
        if sizes := re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error)):
            found, stated = (int(size) for size in sizes.groups())
            again = f"it has {found} bytes and its header states {stated}: truncated; {again}"
        raise UnreadableFileError(f"{path}: not a complete HDF5 file ({error}); {again}") from error


class RemoteFile(io.RawIOBase):
    """A file on a server, read-only, for h5py; not to be shared between processes.

    Parameters
    ----------
    url : str
        ``hf://...`` or ``https://...``

    Attributes
    ----------
    size, fetched, requests : int
        Length of the file [bytes]; bytes and requests that reading took until now.

    Raises
    ------
    UnreadableFileError
        The server cannot be reached, refuses, has no such file, or serves no ranges.
    """

    def __init__(self, url: str):
        self._source = find(url)
        if not self._source.ranges:
            raise UnreadableFileError(f"{url}: the server serves no byte ranges; fetch the whole file and open that")
        self.size, self.fetched, self.requests = self._source.size, 0, 0
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer) -> int:
        start, stop = self._position, min(self._position + len(buffer), self.size)
        if start >= stop:
            return 0
        buffer[: stop - start] = self._fetch(start, stop) if stop - start > _DIRECT else self._cached(start, stop)
        self._position = stop
        return stop - start

    def _cached(self, start: int, stop: int) -> bytes:
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        lacking = [b for b in range(first, last + 1) if b not in self._blocks]
        if lacking:  # one request, though it may fetch a block between again
            begin, end = lacking[0] * _BLOCK, min((lacking[-1] + 1) * _BLOCK, self.size)
            data = self._fetch(begin, end)
            for block in range(lacking[0], lacking[-1] + 1):
                self._blocks[block] = data[block * _BLOCK - begin : (block + 1) * _BLOCK - begin]
        for block in range(first, last + 1):
            self._blocks.move_to_end(block)
        data = b"".join(self._blocks[block] for block in range(first, last + 1))
        while len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return data[start - first * _BLOCK : stop - first * _BLOCK]

    def _fetch(self, start: int, stop: int) -> bytes:
        data = bytearray()
        self.requests += 1
        for chunk in chunks(self._source, start, stop):
            data += chunk
            self.fetched += len(chunk)
        return bytes(data)


def download(
    url: str,
    path: str | os.PathLike,
    sha256: str | None = None,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fetch a file whole. It appears only once it is complete; an interrupted transfer goes on where it stopped.

    Parameters
    ----------
    url : str
        ``hf://...`` or ``https://...``
    path : path
        File to write. What has come until then lies beside it, ``.NAME.VERSION.part``.
    sha256 : str, optional
        Checksum that the file must have; by default the one in `KNOWN_SHA256`, if any.
    force : bool
        Replace an existing file.
    progress : callable, optional
        Called with the bytes present and the size of the file [bytes].

    Returns
    -------
    Path
        The file, of the size the server states.

    Raises
    ------
    CimpError
        The file exists and `force` is false, the disk is too small, or another process fetches the same.
    UnreadableFileError
        The server cannot be reached, refuses or has no such file, the transfer breaks again and again,
        or the checksum differs.
    """
    path, expected = Path(path), sha256 or KNOWN_SHA256.get(url)
    if not is_url(url):
        raise UnreadableFileError(f"{url}: not an address; give hf://buckets/ORG/NAME/FILE or https://...")
    if path.exists() and not force:
        raise CimpError(f"{path}: exists already; choose another name, or replace it with force=True (--force)")
    source = find(url)
    if not path.parent.is_dir():
        raise CimpError(f"{path}: no folder {path.parent}; make it first")
    version = hashlib.sha256(f"{url} {source.size} {source.version}".encode()).hexdigest()[:12]
    part = path.with_name(f".{path.name}.{version}.part")
    begun = min(part.stat().st_size, source.size) if part.exists() else 0
    if (free := shutil.disk_usage(path.parent).free) < source.size - begun:
        raise CimpError(
            f"{url}: needs {(source.size - begun) / 1e9:.2f} GB more, {path.parent} has {free / 1e9:.2f} GB free; "
            "choose another disk, or open the address without fetching it"
        )
    with _locked(part, url), open(part, "ab") as out:
        # Only now: until the lock was had, another process may have written more.
        done = min(os.fstat(out.fileno()).st_size, source.size)
        out.truncate(done)
        if progress is not None:
            progress(done, source.size)
        for chunk in chunks(source, done, source.size):
            out.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, source.size)
        out.flush()
        os.fsync(out.fileno())
        out.close()
        _check_digest(url, part, expected)
        os.replace(part, path)
    return path


@contextlib.contextmanager
def _locked(part: Path, url: str) -> Iterator[None]:
    """Two processes that append to one part would mix it; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CimpError(f"{url}: another process is fetching it to {part}; wait for it") from error
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
            raise CimpError(f"{url}: another process has just fetched it")
        yield


def _check_digest(url: str, part: Path, expected: str | None) -> None:
    if expected is None:
        return
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.lower():
        part.unlink()
        raise UnreadableFileError(
            f"{url}: sha256 is {found}, expected {expected}: the file on the server is another one, "
            "or the transfer was damaged; what came was removed"
        )
