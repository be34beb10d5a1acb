"""Real micrographs: files of Velox, DigitalMicrograph, TIA, Nion Swift, Berkeley EMD and others in, `Micrograph` out.

`read` is the way in; `inspect` tells what every signal of a file is; `worker.KillableReader` does the same
as `read` in a process of its own, for files that may be damaged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import NotHAADFError
from .files import load
from .micrograph import Micrograph, judge, sight
from .record import Instrument, RawValue, Sighting

__all__ = ["Instrument", "Micrograph", "RawValue", "Sighting", "inspect", "read"]


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
        Velox or Berkeley .emd, Gatan .dm3 or .dm4, TIA .emi or .ser, .mrc, Nion .ndata or .h5, .tif, .hspy; or a
        .zip of such files, each then named ``archive.zip!/name``.
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
    loaded = load(path, lazy)
    paths = loaded.paths or [str(path)] * len(loaded.signals)
    seen = [(signal, *sight(signal, detector), where) for signal, where in zip(loaded.signals, paths, strict=True)]
    skipped = tuple(s for _, _, s, _ in seen if s.why) + loaded.others
    found = [(signal, evidence, where) for signal, evidence, s, where in seen if not s.why]
    if not found:
        what = "; ".join(map(str, skipped)) or "no data at all"
        wanted = f"an image of the detector {detector}" if detector else "a HAADF-STEM image"
        names = sorted({s.detector for s in skipped if s.detector and s.why.startswith("an image of the detector")})
        hint = f". To read another detector: detector={' or '.join(map(repr, names))}" if names else ""
        raise NotHAADFError(f"{path}: no signal of this file is {wanted}. It holds {what}{hint}")
    return [judge(s, e, override, path=where, skipped=skipped, notes=loaded.notes) for s, e, where in found]


def inspect(path: str | os.PathLike) -> list[Sighting]:
    """Say what every signal of a file is, with the raw values of each, HAADF-STEM image or not.

    Raises
    ------
    UnreadableFileError
        As for `read`.
    """
    loaded = load(path, lazy=True)
    return [sight(signal)[1] for signal in loaded.signals] + list(loaded.others)
