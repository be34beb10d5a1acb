"""The statistics of a data set's images, measured once and kept in a file that says which data set they belong to."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np

from ..dataset import Dataset
from ..errors import SchemaError, UnreadableFileError
from .statistics import NAMES, dataset_statistics

__all__ = ["dataset_digest", "of_parts", "stored_statistics"]


def dataset_digest(data: Dataset) -> str:
    """Sixteen hexadecimal digits that change with the images' number, order, settings, sources, and the first and last
    image itself.
    """
    digest = hashlib.sha256(np.ascontiguousarray(data.metadata_raw).tobytes())
    digest.update("\n".join(map(str, data.filepaths)).encode())
    for i in {0, len(data) - 1} if len(data) else ():
        digest.update(np.ascontiguousarray(data.image(i)).tobytes())
    return digest.hexdigest()[:16]


def stored_statistics(data: Dataset, path: str | os.PathLike, workers: int | None = None) -> np.ndarray:
    """`dataset_statistics` of `data`, read from `path`, or measured and written there (atomically) if it is absent.

    Parameters
    ----------
    path : path
        An ``.npz`` file.
    workers : int, optional
        As in `dataset_statistics`.

    Returns
    -------
    (n, f) float64 array

    Raises
    ------
    UnreadableFileError
        The file is not such an ``.npz``.
    SchemaError
        The file holds the statistics of another data set, or other statistics.
    """
    path, digest = Path(path), dataset_digest(data)
    if path.exists():
        try:
            with np.load(path) as file:
                values, names, found, source = (file[k] for k in ("values", "names", "digest", "source"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UnreadableFileError(f"{path}: no file of statistics ({error}); remove it, and it is made") from error
        if str(found) != digest or tuple(names) != NAMES or len(values) != len(data):
            raise SchemaError(
                f"{path}: statistics of {source} (digest {found}), not those of {data.path} (digest {digest}); "
                "name another file, or remove this one"
            )
        return values
    values = dataset_statistics(data, workers)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez(temporary, values=values, names=np.array(NAMES), digest=digest, source=Path(str(data.path)).name)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return values


def of_parts(statistics: np.ndarray, data: Dataset, parts: tuple[Dataset, ...]) -> list[np.ndarray]:
    """Rows of `statistics` (of all of `data`) for each of its views, a list of (n, f) arrays."""
    place = {index: i for i, index in enumerate(data.indices.tolist())}
    return [statistics[[place[index] for index in part.indices.tolist()]] for part in parts]
