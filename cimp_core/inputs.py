"""Which files of a drive are micrographs: patterns, folders and files in, one sorted list out, nothing opened."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CimpError
from .microscope.files import SUFFIXES

__all__ = ["Inputs", "Source", "list_inputs"]


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
        matches = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
        files = [os.path.abspath(file) for match in matches for file in _files(match)]
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
    containers = {name.lower() for name in found if _suffix(name) == ".emi"} if ".emi" in SUFFIXES else set()
    for name in sorted(found):
        path = found[name]
        if _suffix(path) not in SUFFIXES:
            refused[name] = "not a microscope file"
        elif (emi := re.sub(r"_\d+\.ser$", ".emi", name.lower())) != name.lower() and emi in containers:
            refused[name] = "read with its .emi"
        elif (first := seen.setdefault(os.path.realpath(path), name)) != name:
            refused[name] = f"a link to {first}"
        else:
            try:
                stat = os.stat(path)
                sources.append(Source(name, path, stat.st_size, stat.st_mtime_ns))
            except OSError as error:
                refused[name] = f"cannot be opened ({error.strerror})"
    return Inputs(sources, refused)


def _files(match: str) -> Iterator[str]:
    """The file itself, or all files of a folder but hidden ones."""
    if not os.path.isdir(match):
        yield match
        return
    for folder, folders, files in os.walk(match):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in files if not name.startswith("."))


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
