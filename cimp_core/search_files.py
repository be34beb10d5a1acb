"""A search index on disk: a folder with ``index.json``, which names every other file and its checksum.

Files are written under the names of their checksums, ``index.json`` last and in one step: a process that is killed
leaves the index that was there before, or none. NumPy and FAISS files only; nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CimpError, SchemaError, UnreadableFileError
from .search import Approximation, Index, load_faiss

__all__ = ["RECORD", "load_index", "save_index"]

RECORD, FORMAT = "index.json", "cimp-index-1"


def save_index(index: Index, folder: str | Path, *, force: bool = False) -> Path:
    """Write an index as a folder, and give its path.

    Raises
    ------
    CimpError
        The folder holds something already and is not to be overwritten, or it is no index at all.
    """
    from . import __version__

    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not (folder / RECORD).is_file():
            raise CimpError(f"{folder} exists and is no index: choose another name")
        if not force:
            raise CimpError(f"{folder} exists: choose another name, or force to overwrite it")
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    if index.kind == "exact":
        files["rows"] = _put(folder, "rows", ".npy", lambda path: _save_array(path, index.store))
    else:
        faiss = load_faiss()
        files["rows"] = _put(folder, "rows", ".faiss", lambda path: faiss.write_index(index.store, str(path)))
    for name, column in index.columns.items():
        files[f"column {name}"] = _put(folder, "column", ".npy", lambda path, column=column: _save_array(path, column))
    record = {
        "format": FORMAT,
        "cimp_core": __version__,
        "kind": index.kind,
        "count": len(index),
        "dim": index.dim,
        "normalised": True,
        "approximation": dataclasses.asdict(index.approximation),
        "about": index.about,
        "files": files,
    }
    part = folder / f".{RECORD}.{os.getpid()}.part"
    part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, folder / RECORD)
    kept = {entry["file"] for entry in files.values()} | {RECORD}
    for path in folder.iterdir():  # of the index that was overwritten, or of a killed process
        if path.name not in kept and path.suffix in (".npy", ".faiss", ".part"):
            path.unlink(missing_ok=True)
    return folder


def load_index(folder: str | Path, *, weights: str | None = None) -> Index:
    """Index that `save_index` wrote; exact rows stay on disk and are read when searched (a memory map).

    Parameters
    ----------
    weights : str, optional
        sha256 of the weights that the queries come from; an index of other weights is refused.

    Raises
    ------
    UnreadableFileError
        There is no such index.
    SchemaError
        A file is absent, damaged or not what the record says, or the rows are another model's.
    CimpError
        FAISS is needed and absent.
    """
    folder = Path(folder)
    record = _record(folder)
    made = record["about"].get("weights_sha256")
    if weights is not None and made != weights:
        raise SchemaError(
            f"{folder}: made with weights {record['about'].get('weights', 'unknown')} (sha256 {str(made)[:12]}), "
            f"the queries are of others ({weights[:12]}): name those weights, or make the index again"
        )
    paths = {name: _checked(folder, name, entry) for name, entry in record["files"].items()}
    saved = {name: path for name, path in paths.items() if path.suffix == ".npy"}
    try:
        arrays = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in saved.items()}
        store = arrays.pop("rows") if record["kind"] == "exact" else load_faiss().read_index(str(paths["rows"]))
    except (ValueError, RuntimeError, KeyError) as error:
        raise SchemaError(f"{folder}: not a readable index ({error}): make it again") from error
    index = Index.restored(
        record["kind"],
        store,
        approximation=Approximation(**record["approximation"]),
        about=record["about"],
        columns={name.removeprefix("column "): array for name, array in arrays.items()},
    )
    if (len(index), index.dim) != (record["count"], record["dim"]):
        stated = f"{RECORD} says {record['count']} rows of {record['dim']}"
        raise SchemaError(f"{folder}: {stated}, the file holds {len(index)} of {index.dim}: make the index again")
    return index


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableFileError(f"{folder}: no index there ({RECORD}: {error.strerror})") from error
    except ValueError as error:
        raise SchemaError(f"{folder / RECORD}: damaged ({error}): make the index again") from error
    form = record.get("format") if isinstance(record, dict) else None
    if form != FORMAT:
        raise SchemaError(f"{folder / RECORD}: of the format {form!r}, this version reads {FORMAT!r}: make it again")
    types = {"kind": str, "count": int, "dim": int, "approximation": dict, "about": dict, "files": dict}
    wrong = [name for name, kind in types.items() if not isinstance(record.get(name), kind)]
    if wrong or "rows" not in record["files"] or record["kind"] not in ("exact", "ivf", "hnsw"):
        parts = ", ".join(wrong) or "kind or rows"
        raise SchemaError(f"{folder / RECORD}: {parts} absent or wrong: make the index again")
    return record


def _checked(folder: Path, name: str, entry: dict[str, Any]) -> Path:
    """Path of a file whose checksum is the record's."""
    from .weights import sha256

    path = folder / Path(str(entry.get("file"))).name
    if not path.is_file():
        raise SchemaError(f"{folder}: {path.name} ({name}) is absent: make the index again")
    if sha256(path) != entry.get("sha256"):
        raise SchemaError(f"{path}: damaged or changed, its sha256 is not that of {RECORD}: make the index again")
    return path


def _put(folder: Path, name: str, suffix: str, write: Callable[[Path], None]) -> dict[str, Any]:
    """Write a file, then name it after its content; its entry in the record."""
    from .weights import sha256

    part = folder / f".{name}.{os.getpid()}.part"
    try:
        write(part)
        digest = sha256(part)
        path = folder / f"{name}-{digest[:16]}{suffix}"
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}


def _save_array(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
