"""Bytes of a file on a server by HTTP ranges: where they are, tries again, and one clear line for what fails.

``hf://...`` is found by huggingface_hub's file system. The bytes of it and of plain ``https://`` addresses come through
huggingface_hub's HTTP client in the calling thread. (h5py holds its lock while it reads: a file object with a thread
of its own, as fsspec's HTTP one is, can stop for ever when that thread collects garbage.)
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from .errors import UnreadableFileError

__all__ = ["Source", "chunks", "find"]

_WAITS = (1.0, 2.0, 4.0, 8.0)  # [s] before each further try; a try that brings bytes starts the count again
_TIMEOUT = 30.0  # [s] without a byte


class Source(NamedTuple):
    """Where the bytes of an address are."""

    url: str  # as the user gave it
    address: str  # where to ask for bytes
    headers: dict[str, str]
    size: int  # [bytes]
    version: str  # changes with the content, as far as the server tells
    ranges: bool  # whether a part can be asked for


class _TryAgain(Exception):
    """A fault that may pass; the wait that the server asked for [s], and whether there was a server at all."""

    def __init__(self, message: str, wait: float = 0.0, reached: bool = True):
        super().__init__(message)
        self.wait, self.reached = wait, reached


def find(url: str) -> Source:
    """Address, size and version of the file behind `url`, ``hf://...`` or ``https://...``.

    Raises
    ------
    UnreadableFileError
        The server cannot be reached, refuses, or has no such file.
    """
    failures = 0
    while True:
        try:
            return _find(url)
        except _TryAgain as error:
            _wait(url, error, failures if error.reached else len(_WAITS))
            failures += 1


def _find(url: str) -> Source:
    """Address, size and version behind `url`; one try."""
    if url.startswith("hf://"):
        return _find_hub(url)
    with _answer(url, url, {"Range": "bytes=0-0"}) as response:
        headers = response.headers
        ranges = response.status_code == 206
        size = headers.get("Content-Range", "").rpartition("/")[2] if ranges else headers.get("Content-Length", "")
        if not size.isdecimal():
            raise UnreadableFileError(f"{url}: the server does not tell the size of the file")
        return Source(url, url, {}, int(size), headers.get("ETag") or headers.get("Last-Modified", ""), ranges)


def _find_hub(url: str) -> Source:
    from huggingface_hub import HfFileSystem, get_token
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    from huggingface_hub.utils import build_hf_headers

    # Without the user's token first: a public file needs none, and with an expired one the hub refuses even that.
    # No shared instance: it would outlive a fork, and remember files that have changed since.
    for token in (False, True) if get_token() else (False,):
        files = HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT"), token=token, skip_instance_cache=True)
        try:
            with _transport(url):
                info, address = files.info(url), files.url(url)
        except (FileNotFoundError, EntryNotFoundError, HfHubHTTPError) as error:
            fault = error
            continue
        except (ValueError, NotImplementedError) as error:
            raise UnreadableFileError(f"{url}: not an address; it should be hf://buckets/ORG/NAME/FILE") from error
        if info["type"] != "file":
            raise UnreadableFileError(f"{url}: a folder; add the name of a file")
        version = str(info.get("xet_hash") or info.get("blob_id") or info.get("mtime") or "")
        return Source(url, address, build_hf_headers(token=token), info["size"], version, True)
    response = getattr(fault, "response", None) or getattr(fault.__cause__, "response", None)
    _refuse(url, getattr(response, "status_code", 404), getattr(response, "headers", {}))
    raise UnreadableFileError(f"{url}: {fault}") from fault


def chunks(source: Source, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` to `stop` in order; a broken transfer is taken up where it broke."""
    failures = 0
    while start < stop:
        try:
            for chunk in _stream(source, start, stop):
                start, failures = start + len(chunk), 0
                yield chunk
            if start < stop:
                raise _TryAgain(f"the transfer stopped at byte {start} of {stop}")
        except _TryAgain as error:
            _wait(source.url, error, failures)
            failures += 1


def _stream(source: Source, start: int, stop: int) -> Iterator[bytes]:
    wanted = {**source.headers, "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    with _answer(source.url, source.address, wanted) as response:
        if response.status_code == 206:
            total, skip = response.headers.get("Content-Range", "").rpartition("/")[2], 0
            if total not in (str(source.size), "*"):
                raise UnreadableFileError(
                    f"{source.url}: has changed on the server, now {total} bytes, first {source.size}; begin again"
                )
        elif source.ranges and (start, stop) != (0, source.size):
            raise UnreadableFileError(f"{source.url}: the server sent the whole file for a range; fetch it whole")
        else:
            skip = start  # without ranges a broken transfer comes again from its first byte
        left = stop - start
        with _transport(source.url):
            for chunk in response.iter_raw():
                piece, skip = chunk[skip:][:left], max(0, skip - len(chunk))
                left -= len(piece)
                yield piece


def _wait(url: str, error: _TryAgain, failures: int) -> None:
    if failures == len(_WAITS):
        raise UnreadableFileError(
            f"{url}: {error}; check the network connection or the proxy, try again later, "
            "or fetch the file elsewhere and open the copy"
        ) from error
    time.sleep(max(_WAITS[failures], error.wait))


@contextlib.contextmanager
def _answer(url: str, address: str, headers: dict[str, str]):
    """The response to a GET, its body still to be read; every status but success is an error."""
    from huggingface_hub.utils import get_session

    with contextlib.ExitStack() as stack:
        with _transport(url):
            request = get_session().stream("GET", address, headers=headers, timeout=_TIMEOUT, follow_redirects=True)
            response = stack.enter_context(request)
        _refuse(url, response.status_code, response.headers)
        yield response


def _refuse(url: str, status: int, headers) -> None:
    if status in (401, 403):
        raise UnreadableFileError(
            f"{url}: access refused ({status}); if the file is private, log in (`hf auth login`, or set HF_TOKEN) "
            "with an account that may read it; else check the address"
        )
    if status == 404:
        raise UnreadableFileError(
            f"{url}: no such file on the server (404); check the address, and log in if it is private"
        )
    if status == 416:
        raise UnreadableFileError(f"{url}: the file on the server is shorter than it was (416); begin again")
    if status == 429 or status >= 500:
        after = headers.get("Retry-After", "")
        raise _TryAgain(f"the server answers {status}", min(float(after), 60.0) if after.isdecimal() else 0.0)
    if status not in (200, 206):
        raise UnreadableFileError(f"{url}: the server answers {status}")


@contextlib.contextmanager
def _transport(url: str):
    """Turn what the HTTP library raises on the way into one of two errors: will not pass, or may pass."""
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import get_session

    library = sys.modules[type(get_session()).__module__.partition(".")[0]]  # httpx, or what followed it
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UnreadableFileError(f"{url}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it") from error
    except library.TransportError as error:
        reached = not isinstance(error, library.ConnectError)
        what = "the server broke off" if reached else "the server cannot be reached"
        raise _TryAgain(f"{what} ({str(error) or type(error).__name__})", reached=reached) from error
    except library.InvalidURL as error:
        raise UnreadableFileError(f"{url}: not an address ({error})") from error
