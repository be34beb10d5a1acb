"""Which files of a drive are micrographs: patterns, folders and files in, one sorted list out, nothing opened."""

from __future__ import annotations

import glob
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CimpError
from .microscope.files import SUFFIXES
from .microscope.tia import NUMBERED

__all__ = ["NO_MICROSCOPE_FILE", "READ_WITH_EMI", "Inputs", "Source", "list_inputs"]

NO_MICROSCOPE_FILE = "not a microscope file"
READ_WITH_EMI = "read with its .emi"


@dataclass(frozen=True)
class Source:
    """One file to read, and what tells that it is still the same file."""

    name: str  # path relative to the common root, with forward slashes
    path: str  # absolute
    size: int  # [bytes]
    mtime_ns: int  # last change [ns]


@dataclass(frozen=True)
class Inputs:
    """Files to read, in order of their names, and the files that are not, each with the reason."""

    sources: list[Source]
    refused: dict[str, str]


def list_inputs(patterns: str | os.PathLike | Sequence[str | os.PathLike], own: Iterable[Path] = ()) -> Inputs:
    """Files that the patterns name, by suffix only.

    Parameters
    ----------
    patterns : one or many
        Globs (``**`` for any depth), folders (taken with all that is in them) or files. Hidden files are left out.
    own : paths
        Files and folders that are never input: what the caller writes.

    Returns
    -------
    Inputs
        Names are relative to the common root of the patterns. Where a file lies directly in the root they begin with
        the root's own name, for the directory is the session.

    Raises
    ------
    CimpError
        A pattern matches nothing, or the patterns have no common root.
    """
    patterns = [patterns] if isinstance(patterns, (str, os.PathLike)) else list(patterns)
    if not patterns:
        raise CimpError("no input: name a folder, files, or a pattern such as 'drive/**/*'")
    own = {os.path.realpath(path) for path in own}
    found: set[str] = set()
    for pattern in map(os.fspath, patterns):
        matches = [pattern] if os.path.lexists(pattern) else sorted(set(_expand(pattern)), key=_through_link)
        visited: set[str] = set()
        files = [os.path.abspath(file) for match in matches for file in _files(match, visited)]
        if not files:
            raise CimpError(f"{pattern}: no such file, or no file in this folder or of this pattern")
        found.update(files)
    try:
        root = os.path.commonpath([_base(os.fspath(pattern)) for pattern in patterns])
    except ValueError:
        raise CimpError("the inputs lie on different drives: build one data set of each") from None
    found = {file for file in found if not _within(os.path.realpath(file), own)}
    if not found:
        raise CimpError(f"{', '.join(map(str, patterns))}: nothing but what this command itself wrote")
    micrographs = [file for file in found if _suffix(file) in SUFFIXES]
    if any(os.path.dirname(file) == root for file in micrographs):
        root = os.path.dirname(root)
    return _sort({_printable(os.path.relpath(file, root)): file for file in found})


def _sort(found: dict[str, str]) -> Inputs:
    """Decide on each (name: path)."""
    sources, refused, seen = [], {}, {}
    containers = {name[: -len(".emi")] for name in found if _suffix(name) == ".emi"} if ".emi" in SUFFIXES else set()
    for name in sorted(found):
        path = found[name]
        if _suffix(path) not in SUFFIXES:
            refused[name] = NO_MICROSCOPE_FILE
        elif (emi := NUMBERED.fullmatch(name)) and emi[1] in containers:
            refused[name] = READ_WITH_EMI
        elif (first := seen.setdefault(os.path.realpath(path), name)) != name:
            refused[name] = f"a link to {first}"
        else:
            try:
                about = os.stat(path)
            except OSError as error:
                refused[name] = f"cannot be opened ({error.strerror})"
                continue
            if stat.S_ISREG(about.st_mode):
                sources.append(Source(name, path, about.st_size, about.st_mtime_ns))
            else:  # to open a pipe can wait for ever
                refused[name] = "a pipe or a device, not a file"
    return Inputs(sources, refused)


def _expand(pattern: str) -> Iterator[str]:
    """What a glob matches; glob's own ``**`` would go round and round where a link leads back to a folder above."""
    separator = f"[{re.escape(os.sep + (os.altsep or ''))}]"
    parts = re.split(rf"(?:(?<={separator})|^)\*\*(?:{separator}+|$)", pattern, maxsplit=1)
    if len(parts) == 1:
        yield from glob.glob(pattern)
        return
    head, tail = parts
    for top in glob.glob(head) if head else [os.curdir]:
        if tail in ("", "*"):  # all that is in it
            yield top
            continue
        for folder, _ in _walk(top, set()):
            yield from _expand(os.path.join(glob.escape(folder), tail))


def _files(match: str, visited: set[str]) -> Iterator[str]:
    """The file itself, or all files of a folder but hidden ones and those of folders visited before."""
    if not os.path.isdir(match):
        yield match
        return
    for folder, files in _walk(match, visited):
        yield from (os.path.join(folder, name) for name in files if not name.startswith("."))


def _walk(top: str, visited: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder once, with its files, whatever links lead to it: by a link only where there is no other way."""
    tops = [top]
    while tops:
        links = []
        for folder, folders, files in itertools.chain.from_iterable(map(os.walk, tops)):
            real = os.path.realpath(folder)
            folders[:] = [] if real in visited else sorted(name for name in folders if not name.startswith("."))
            if real not in visited:
                visited.add(real)
                links += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
                yield folder, files
        tops = sorted(links)


def _through_link(path: str) -> tuple[bool, str]:
    return os.path.realpath(path) != os.path.abspath(path), path


def _base(pattern: str) -> str:
    """Folder below which everything lies that a pattern can match."""
    path = os.path.abspath(pattern)
    if os.path.isdir(path):
        return path
    while not os.path.isdir(path) or (glob.has_magic(path) and not os.path.lexists(path)):
        path = os.path.dirname(path)
    return path


def _within(path: str, own: set[str]) -> bool:
    return path in own or any(path.startswith(folder + os.sep) for folder in own)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _printable(path: str) -> str:
    """With forward slashes, and what is no UTF-8 written out, for HDF5, CSV and HTML take nothing else."""
    return os.fsencode(path.replace(os.sep, "/")).decode("utf-8", "backslashreplace")
