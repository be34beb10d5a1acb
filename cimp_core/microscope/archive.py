"""Zip archives of micrographs: every member that can be read, unpacked to a temporary folder and read from there."""

from __future__ import annotations

import contextlib
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..errors import UnreadableFileError
from .record import Loaded, Sighting
from .tia import NUMBERED

__all__ = ["load_zip"]

LARGEST = 32 * 2**30  # [bytes] unpacked, of all members to read
RATIO = 200  # unpacked size by packed size; Velox files pack to a tenth at most, a bomb to a thousandth
_SMALL = 100 * 2**20  # [bytes] unpacked, that any ratio may have
_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError, ValueError)


def load_zip(path: Path, lazy: bool, load: Callable[[Path, bool], Loaded], suffixes: Sequence[str]) -> Loaded:
    """Signals of every member whose ending is one of `suffixes`, read by `load`; their pixels are always in memory."""
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="cimp-") as scratch:
            members = _choose(path, archive, suffixes)
            folders: dict[str, Path] = {}
            # All first: a file may need another of its folder, as .emi needs .ser.
            unpacked = [(member, *_unpack(archive, member, Path(scratch), folders)) for member in members]
            loaded = _read(path, unpacked, load)
    except zipfile.BadZipFile as error:
        raise UnreadableFileError(f"{path}: damaged, truncated or not a .zip file ({error})") from error
    nested = [m.filename for m in archive.infolist() if m.filename.lower().endswith(".zip")]
    notes = [f"{name}: a zip within the zip is not read; unpack it" for name in nested[:3]]
    if lazy:
        notes.append("read from a zip: the pixels are in memory, not on disk")
    return replace(loaded, notes=(*loaded.notes, *notes))


def _choose(path: Path, archive: zipfile.ZipFile, suffixes: Sequence[str]) -> list[zipfile.ZipInfo]:
    """Members to unpack, once it is sure that they may be."""
    everything = [m for m in archive.infolist() if not m.is_dir()]
    members = [
        m
        for m in everything
        if (name := PurePosixPath(m.filename)).suffix.lower() in suffixes
        and name.suffix.lower() != ".zip"
        and not name.name.startswith("._")  # what macOS keeps beside a file
    ]
    if not members:
        names = ", ".join(repr(m.filename) for m in everything[:5]) or "nothing"
        more = f" and {len(everything) - 5} more" if len(everything) > 5 else ""
        raise UnreadableFileError(
            f"{path}: nothing in this zip can be read. It holds {names}{more}; these can: {', '.join(suffixes)}"
        )
    if any(m.flag_bits & 1 for m in members):
        raise UnreadableFileError(f"{path}: the zip is encrypted; unpack it with its password and read the files")
    size, packed = sum(m.file_size for m in members), path.stat().st_size
    if size > LARGEST or (size > _SMALL and size > RATIO * packed):
        raise UnreadableFileError(
            f"{path}: refused; it would unpack from {packed:.3g} to {size:.3g} bytes (at most {LARGEST:.3g}, and "
            f"{RATIO} times the packed size): damaged, or made to fill the disk. Unpack it by hand if you trust it"
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise UnreadableFileError(
            f"{path}: needs {size:.3g} bytes in {tempfile.gettempdir()}, which has {free:.3g}; free some, or set TMPDIR"
        )
    return members


def _unpack(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Path, folders: dict[str, Path]
) -> tuple[Path | None, str]:
    """Path of the unpacked member, or why there is none; only the last part of its name is ever used as a name."""
    name = PurePosixPath(member.filename.replace("\\", "/"))
    folder = folders.setdefault(str(name.parent), scratch / str(len(folders)))
    target = folder / name.name
    try:
        folder.mkdir(exist_ok=True)
        with archive.open(member) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
    except FileExistsError:
        return None, "the zip holds two files of this name"
    except RuntimeError as error:
        return None, f"encrypted ({error})"
    except _FAULTS as error:
        with contextlib.suppress(OSError):  # a name that is too long cannot be removed either
            target.unlink()
        return None, f"damaged in the zip ({type(error).__name__}: {error})"
    return target, ""


def _read(
    path: Path, unpacked: Sequence[tuple[zipfile.ZipInfo, Path | None, str]], load: Callable[[Path, bool], Loaded]
) -> Loaded:
    """What the unpacked members hold; those that fail are told of in the notes."""
    present = {file for _, file, _ in unpacked if file}
    signals, paths, others, notes, failed = [], [], [], [], []
    for member, file, fault in unpacked:
        where = f"{path}!/{member.filename}"
        if file and _has_emi(file, present):  # read with its .emi file
            continue
        try:
            if not file:
                raise UnreadableFileError(f"{where}: {fault}")
            loaded = load(file, False)
        except UnreadableFileError as error:
            failed.append(str(error).replace(str(file), where))
            continue
        signals += loaded.signals
        paths += [where] * len(loaded.signals)
        others += [replace(o, title=f"{member.filename}: {o.title}") for o in loaded.others]
        notes += [f"{member.filename}: {note}".replace(str(file), where) for note in loaded.notes]
    if failed and not signals and not others:
        more = f" (and {len(failed) - 1} more files of the zip fail)" if len(failed) > 1 else ""
        raise UnreadableFileError(f"{failed[0]}{more}")
    others += [Sighting(f.removeprefix(f"{path}!/").split(":")[0], (), "unreadable") for f in failed]
    return Loaded(signals, tuple(others), (*failed, *notes), tuple(paths))


def _has_emi(file: Path, present: set[Path]) -> bool:
    name = NUMBERED.fullmatch(file.name)
    return bool(name) and any(file.with_name(name[1] + end) in present for end in (".emi", ".EMI", ".Emi"))
