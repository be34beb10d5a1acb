"""Real micrographs: Velox .emd, Gatan .dm3/.dm4 and HyperSpy .hspy files in, `Micrograph` out.

`read` is the way in; `inspect` tells what every signal of a file is; `worker.KillableReader` does the same
as `read` in a process of its own, for files that may be damaged.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import NotHAADFError, UnreadableFileError
from . import velox
from .micrograph import Micrograph, Sighting, judge, sight
from .record import Instrument, RawValue

__all__ = ["Instrument", "Micrograph", "RawValue", "Sighting", "inspect", "read"]

_READERS = {".emd": "EMD", ".dm3": "DigitalMicrograph", ".dm4": "DigitalMicrograph", ".hspy": "HSPY"}


def read(
    path: str | os.PathLike,
    *,
    override: Mapping[str, float | None] | None = None,
    lazy: bool = False,
    detector: str | None = None,
) -> list[Micrograph]:
    """Read every HAADF-STEM image of a file.

    Parameters
    ----------
    path : path-like
        A Velox .emd, Gatan .dm3 or .dm4, or HyperSpy .hspy file.
    override : mapping, optional
        Values in SI for what the file lacks, e.g. ``{"beam_current": 50e-12}``; they also replace what
        it has, and ``None`` withholds a value. Their provenance is "user".
    lazy : bool
        Leave the pixels on disk until they are used.
    detector : str, optional
        Read the images of this detector instead, e.g. ``"DF-S"``; a note says so.

    Returns
    -------
    list of Micrograph
        At least one. A STEM image whose detector the file does not name is returned with a note.

    Raises
    ------
    NotHAADFError
        No signal of the file is a HAADF-STEM image; the message says what each is.
    UnreadableFileError
        The file is missing, damaged, or of another format.
    OutOfRangeError
        `override` names an unknown parameter or an impossible value.
    """
    signals, others, warned = _load(path, lazy)
    seen = [(signal, *sight(signal, detector)) for signal in signals]
    skipped = tuple(s for _, _, s in seen if s.why) + others
    found = [(signal, evidence) for signal, evidence, s in seen if not s.why]
    if not found:
        what = "; ".join(map(str, skipped)) or "no data at all"
        wanted = f"an image of the detector {detector}" if detector else "a HAADF-STEM image"
        names = sorted({s.detector for s in skipped if s.detector and s.why.startswith("an image of the detector")})
        hint = f". To read another detector: detector={' or '.join(map(repr, names))}" if names else ""
        raise NotHAADFError(f"{path}: no signal of this file is {wanted}. It holds {what}{hint}")
    return [judge(s, e, override, path=str(path), skipped=skipped, notes=warned) for s, e in found]


def inspect(path: str | os.PathLike) -> list[Sighting]:
    """Say what every signal of a file is, with the raw values of each, HAADF-STEM image or not.

    Raises
    ------
    UnreadableFileError
        As for `read`.
    """
    signals, others, _ = _load(path, lazy=True)
    return [sight(signal)[1] for signal in signals] + list(others)


def _load(path: str | os.PathLike, lazy: bool) -> tuple[list[Any], tuple[Sighting, ...], tuple[str, ...]]:
    """Image signals of a file, what else it holds, and what the vendor reader warned of."""
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if path.is_dir() or not path.exists():
        raise UnreadableFileError(f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}")
    if reader is None:
        known = ", ".join(_READERS)
        raise UnreadableFileError(
            f"{path}: files of type {path.suffix or 'unknown'!r} cannot be read; these can: {known}"
        )
    if path.stat().st_size == 0:
        raise UnreadableFileError(f"{path}: the file is empty; copy it again from the microscope")
    import hyperspy.api as hs

    others: tuple[Sighting, ...] = ()
    options: dict[str, Any] = {}
    try:
        with _quiet() as warned:
            if reader == "EMD":
                others = _survey(path)
                # Spectra are not needed and dear to decode; images beside them come as first frames only unless asked.
                options = {"select_type": "images", "load_SI_image_stack": True}
            # In a list, for HyperSpy takes brackets and stars in a bare name for a pattern.
            signals = hs.load([str(path)], reader=reader, lazy=lazy, **options)
    except UnreadableFileError:
        raise
    except PermissionError as error:
        raise UnreadableFileError(f"{path}: you may not read this file (permission denied)") from error
    except MemoryError as error:
        raise UnreadableFileError(f"{path}: not enough memory to read it; the file is damaged or very large") from error
    except Exception as error:  # a damaged file makes the vendor readers raise anything
        raise UnreadableFileError(
            f"{path}: damaged, truncated or not a {path.suffix} file ({type(error).__name__}: {_short(error)})"
        ) from error
    return (signals if isinstance(signals, list) else [signals]), others, tuple(f"reader: {w}" for w in warned)


def _survey(path: Path) -> tuple[Sighting, ...]:
    """Make sure that an .emd file is Velox's, and list what it holds beside images."""
    import h5py

    with h5py.File(path, "r") as file:
        if "Version" not in file or "Data" not in file:
            raise UnreadableFileError(
                f"{path}: an .emd file, but not one of Velox (Berkeley EMD?): "
                "load it with HyperSpy and use Micrograph.from_signal"
            )
        return tuple(Sighting(what, (), f"{count} in the file") for what, count in velox.other_data(file).items())


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep what the readers log off the screen; yield the list of what RosettaSciIO warned of."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(_short(record.getMessage())) if len(said) < 3 else None
    loggers = [logging.getLogger(name) for name in ("rsciio", "hyperspy")]
    before = [(log.handlers[:], log.propagate) for log in loggers]
    try:
        for log in loggers:
            log.handlers, log.propagate = [], False
            log.addHandler(handler if log.name == "rsciio" else logging.NullHandler())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        for log, (handlers, propagate) in zip(loggers, before, strict=True):
            log.handlers, log.propagate = handlers, propagate


def _short(message: object, length: int = 160) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= length else text[: length - 3] + "..."
