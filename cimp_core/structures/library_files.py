"""A library on disk: one HDF5 file, written at once, of numbers and JSON only."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..errors import CimpError, SchemaError, UnreadableFileError
from .crystals import Structure
from .library import Library, document
from .library_settings import Settings
from .projection import IMAGE_MODEL

__all__ = ["open_library", "save_library"]

FORMAT = "cimp-structures-1"
_ARRAYS = ("owner", "zones", "thickness", "means", "offsets", "frequencies", "coefficients")


def save_library(library: Library, path: str | os.PathLike, *, force: bool = False) -> Path:
    """Write a library, whole or not at all, and give its path.

    Raises
    ------
    CimpError
        The file exists and `force` is not set.
    """
    import h5py

    path = Path(path)
    if path.exists() and not force:
        raise CimpError(f"{path} exists: choose another name, or force to overwrite it")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with h5py.File(part, "w") as file:
            file.attrs["format"], file.attrs["image_model"] = FORMAT, IMAGE_MODEL
            file.attrs["version"], file.attrs["settings"] = library.version, json.dumps(asdict(library.settings))
            texts = [json.dumps(document(s)) for s in library.structures]
            file.create_dataset("structures", data=texts, dtype=h5py.string_dtype())
            for name in _ARRAYS:
                file.create_dataset(name, data=getattr(library, name), compression="gzip", compression_opts=1)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def open_library(path: str | os.PathLike) -> Library:
    """Library that `save_library` wrote. pymatgen is not needed.

    Raises
    ------
    UnreadableFileError
        There is no such file, or it is no HDF5 file.
    SchemaError
        It is no library, it is damaged, or the image model has changed since it was made.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be opened as HDF5 ({error})") from error
    with file:
        if file.attrs.get("format") != FORMAT:
            raise SchemaError(f"{path}: no library of structures (format {file.attrs.get('format')!r}, not {FORMAT!r})")
        model = int(file.attrs.get("image_model", 0))
        if model != IMAGE_MODEL:
            raise SchemaError(
                f"{path}: made by version {model} of the image model, this program has {IMAGE_MODEL}: make it again "
                "with cimp_core.structures.library, or 'cimp structures library'"
            )
        try:
            arrays = [file[name][()] for name in _ARRAYS]
            structures = tuple(_structure(json.loads(text)) for text in file["structures"].asstr()[()])
            settings = json.loads(file.attrs["settings"])
            stated = str(file.attrs["version"])
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise SchemaError(f"{path}: damaged ({error}): make it again") from error
    settings["thickness"] = tuple(settings["thickness"])
    if not isinstance(settings["zones"], int):
        settings["zones"] = tuple(map(tuple, settings["zones"]))
    library = Library(structures, Settings(**settings), *arrays)
    if library.version != stated:
        raise SchemaError(f"{path}: its content is not what its version {stated[:12]} says: damaged, make it again")
    return library


def _structure(document: dict) -> Structure:
    arrays = {"conventional": float, "lattice": float, "sites": float, "debye_waller": float, "rotations": int}
    made = {k: np.array(v, arrays[k]) if k in arrays else v for k, v in document.items()}
    return Structure(**{**made, "elements": tuple(document["elements"])})
