"""From a path to HyperSpy signals: which module opens which kind of file, and one clear error where none can."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UnreadableFileError
from . import archive, berkeley, mrc, nion, tia, tiff, velox
from .record import Loaded

__all__ = ["SUFFIXES", "load", "with_hyperspy"]


def with_hyperspy(path: Path, lazy: bool, reader: str, **options: Any) -> list[Any]:
    """Signals of a file as the HyperSpy reader of that name gives them; it may raise anything."""
    import hyperspy.api as hs

    # In a list, for HyperSpy takes brackets and stars in a bare name for a pattern.
    signals = hs.load([str(path)], file_format=reader, lazy=lazy, **options)
    return signals if isinstance(signals, list) else [signals]


def _emd(path: Path, lazy: bool) -> Loaded:
    if not velox.is_velox(path):
        return berkeley.load_berkeley(path, lazy)
    others = velox.survey(path)
    # Spectra are not needed and dear to decode; images beside them come as first frames only unless asked.
    signals = with_hyperspy(path, lazy, "EMD", select_type="images", load_SI_image_stack=True)
    return Loaded(signals, others)


def _gatan(path: Path, lazy: bool) -> Loaded:
    return Loaded(with_hyperspy(path, lazy, "DigitalMicrograph"))


def _hspy(path: Path, lazy: bool) -> Loaded:
    return Loaded(with_hyperspy(path, lazy, "HSPY"))


def _zip(path: Path, lazy: bool) -> Loaded:
    return archive.load_zip(path, lazy, load, SUFFIXES)


def _tiff(path: Path, lazy: bool) -> Loaded:
    return tiff.load_tiff(path, lazy, with_hyperspy)


def _emi(path: Path, lazy: bool) -> Loaded:
    return tia.load_emi(path, lazy, with_hyperspy)


def _ser(path: Path, lazy: bool) -> Loaded:
    return tia.load_ser(path, lazy, with_hyperspy)


_LOADERS: dict[str, Callable[[Path, bool], Loaded]] = {
    ".emd": _emd,
    ".dm3": _gatan,
    ".dm4": _gatan,
    ".hspy": _hspy,
    ".tif": _tiff,
    ".tiff": _tiff,
    ".ndata": nion.load_ndata,
    ".h5": nion.load_h5,
    ".emi": _emi,
    ".ser": _ser,
    ".mrc": mrc.load_mrc,
    ".zip": _zip,
}
SUFFIXES = tuple(_LOADERS)
"""Endings, in lower case, of the files that can be read."""


def load(path: str | os.PathLike, lazy: bool) -> Loaded:
    """Signals of a file, what else it holds, and what its reader warned of.

    Raises
    ------
    UnreadableFileError
        The file is missing, damaged, or of another format.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        raise UnreadableFileError(f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}")
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise UnreadableFileError(
            f"{path}: files of type {path.suffix or 'unknown'!r} cannot be read; these can: {', '.join(SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise UnreadableFileError(f"{path}: the file is empty; copy it again from the microscope")
    try:
        with _quiet() as warned:
            loaded = loader(path, lazy)
    except UnreadableFileError:
        raise
    except PermissionError as error:
        raise UnreadableFileError(f"{path}: you may not read this file (permission denied)") from error
    except MemoryError as error:
        raise UnreadableFileError(f"{path}: not enough memory to read it; the file is damaged or very large") from error
    except ImportError as error:
        raise UnreadableFileError(f"{path}: reading it needs a package that is not installed ({error})") from error
    except Exception as error:  # a damaged file makes the vendor readers raise anything
        raise UnreadableFileError(
            f"{path}: damaged, truncated or not a {path.suffix} file ({type(error).__name__}: {_short(error)})"
        ) from error
    return replace(loaded, notes=(*loaded.notes, *(f"reader: {w}" for w in warned)))


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep what the readers log off the screen; yield the list of what RosettaSciIO warned of."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(_short(record.getMessage())) if len(said) < 3 else None
    loggers = [logging.getLogger(name) for name in ("rsciio", "tifffile", "hyperspy")]
    before = [(log.handlers[:], log.propagate) for log in loggers]
    try:
        for log in loggers:
            log.handlers, log.propagate = [], False
            log.addHandler(handler if log.name != "hyperspy" else logging.NullHandler())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        for log, (handlers, propagate) in zip(loggers, before, strict=True):
            log.handlers, log.propagate = handlers, propagate


def _short(message: object, length: int = 160) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= length else text[: length - 3] + "..."
