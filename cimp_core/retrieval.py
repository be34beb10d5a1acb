"""Cross-modal retrieval: which settings does an image fit, and how often is the answer right."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .errors import OutOfRangeError
from .metadata import PARAMETERS, UNITS, Acquisition
from .metrics import cosine_gaps, pool_topk
from .models import Cimp
from .models.cimp import PreparedCrops, pieces_of
from .models.encoders import FEATURES, Prepared, prepare
from .search import Index

if TYPE_CHECKING:
    from .dataset import Dataset
    from .microscope import Micrograph

__all__ = [
    "describe_difference",
    "embed_dataset",
    "evaluate",
    "index_dataset",
    "nearest",
    "prepare_dataset",
    "rank_metadata",
    "with_unit",
]

DIRECTIONS = ("image_to_metadata", "metadata_to_image")
TOP = (1, 5, 10)


def rank_metadata(
    model: Cimp,
    shot: Micrograph | np.ndarray,
    candidates: Sequence[Acquisition] | np.ndarray,
    *,
    crops: int | None = 4,
) -> pd.DataFrame:
    """Candidates in the order in which they fit an image, best first.

    Parameters
    ----------
    shot : Micrograph or (h, w) array
        The image; its own settings, where it has any, are used only to say what differs.
    candidates : list of Acquisition or (n, 7) array
        Settings in SI units.
    crops : int or None
        As in `Cimp.embed_images`.

    Returns
    -------
    DataFrame
        ``candidate`` (its number), ``cosine``, ``differs`` (text: what the image was taken with against
        what the candidate has, parameters off by more than 1 %), and the candidate's seven parameters.
    """
    raw = candidates if isinstance(candidates, np.ndarray) else np.array([c.vector() for c in candidates])
    raw = np.asarray(raw, float).reshape(-1, len(PARAMETERS))
    cosine = model.embed_metadata(raw) @ model.embed_images([shot], crops=crops)[0]
    order = np.argsort(-cosine, kind="stable")
    return _ranked(shot, raw, order, cosine[order])


def nearest(
    model: Cimp, shot: Micrograph | np.ndarray, index: Index, k: int = 5, *, crops: int | None = 4
) -> pd.DataFrame:
    """As the first `k` rows of `rank_metadata`, out of an index that `index_dataset` made; any number of candidates."""
    (order,), (cosine,) = index.search(model.embed_images([shot], crops=crops), k)
    found = order >= 0
    return _ranked(shot, index.columns["raw"], order[found], cosine[found])


def index_dataset(
    model: Cimp,
    data: Dataset,
    *,
    of: str = "settings",
    kind: str = "auto",
    half: bool = False,
    crops: int | None = 4,
    about: Mapping[str, Any] | None = None,
) -> Index:
    """Index of a data set's distinct settings (``of="settings"``) or of its images (``"images"``).

    `kind`, `half` and `about` are as in `cimp_core.search.Index`, `crops` as in `Cimp.embed_images`. The columns are
    ``image``, the position in the file, for settings of the first that has them, and ``raw``, the settings, (n, 7) in
    SI units.
    """
    if of not in ("settings", "images"):
        raise OutOfRangeError(f"an index is of settings or images, not of {of!r}")
    rows = np.unique(data.groups, return_index=True)[1] if of == "settings" else np.arange(len(data))
    raw = data.metadata_raw[rows]
    embedded = model.embed_metadata(raw) if of == "settings" else embed_dataset(model, data, crops=crops)
    about = {"of": of, "data": str(data.path), "crops": (crops or 0) if of == "images" else None, **(about or {})}
    return Index(embedded, kind, half=half, about=about, columns={"image": data.indices[rows], "raw": raw})


def _ranked(shot: Micrograph | np.ndarray, raw: np.ndarray, order: np.ndarray, cosine: np.ndarray) -> pd.DataFrame:
    """The table of `rank_metadata` for the candidates `order` of `raw`."""
    table = pd.DataFrame(raw[order], columns=list(PARAMETERS))
    table.insert(0, "candidate", order)
    table.insert(1, "cosine", cosine)
    own = shot.acquisition.vector() if hasattr(shot, "acquisition") else np.full(len(PARAMETERS), np.nan)
    table.insert(2, "differs", [describe_difference(own, row) for row in raw[order]])
    return table


def describe_difference(own: np.ndarray, other: np.ndarray, tolerance: float = 0.01) -> str:
    """What two (7,) vectors of settings differ in, as text; a parameter that `own` lacks is not compared."""
    parts = []
    for name, a, b in zip(PARAMETERS, own, other, strict=True):
        if np.isnan(a) or np.isnan(b) or abs(a - b) <= tolerance * max(abs(a), abs(b)):
            continue
        parts.append(f"{name.replace('_', ' ')} {with_unit(a, UNITS[name])} -> {with_unit(b, UNITS[name])}")
    if not parts:
        return "no known setting" if np.isnan(own).all() else "nothing"
    return ", ".join(parts)


def with_unit(value: float, unit: str) -> str:
    """Three digits and an SI prefix: 2.5e-11 A -> 25 pA."""
    if not unit or value == 0:
        return f"{value:.3g}{unit and ' ' + unit}"
    value = float(f"{value:.3g}")  # before the prefix is chosen, or 999.9 ns would be 1e+03 ns
    power = int(np.clip(3 * np.floor(np.log10(abs(value)) / 3 + 1e-9), -12, 0))
    return f"{value / 10.0**power:.3g} {dict(zip((-12, -9, -6, -3, 0), 'pnµm '))[power].strip()}{unit}"


def embed_dataset(
    model: Cimp,
    data: Dataset,
    *,
    crops: int | None = 4,
    size: int | None = None,
    features: bool = False,
    chunk: int = 32,
) -> np.ndarray:
    """Unit rows (n, d) of all images of a data set, a few images in memory at a time.

    `crops`, `size` (the edge of a crop; no larger an image is taken whole) and `features` are as in
    `Cimp.embed_images`.
    Images that are not on Velox's 16-bit scale are embedded without absolute intensity; one warning says how many.
    """
    absolute, parts = _on_scale(data), []
    for start in range(0, len(data), chunk):
        rows = range(start, min(start + chunk, len(data)))
        images = [data.image(i) for i in rows]
        known = [absolute[i] for i in rows]
        parts.append(model.embed_images(images, crops=crops, size=size, absolute=known, features=features))
    width = FEATURES if features else model.config.dim
    return np.concatenate(parts) if parts else np.zeros((0, width), np.float32)


def prepare_dataset(data: Dataset, *, crops: int | None = 4, size: int = 256, chunk: int = 32) -> PreparedCrops:
    """Statistics and spectra of the crops of every image, once for any number of models without convolutions.

    They are most of what such a model computes; ``model.embed_prepared`` does the rest. Some 5 KB a crop.
    Arguments as of `embed_dataset`; `size` is the model's ``config.crop_size``.
    """
    absolute, rows, owner, known, waiting = _on_scale(data), [], [], [], []
    for i in range(len(data)):
        pieces, on_scale, _ = pieces_of(data.image(i), i, absolute[i], size, crops)
        if waiting and (len(waiting) >= chunk or waiting[0].shape != pieces[0].shape):
            rows.append(_prepared(waiting))
            waiting = []
        waiting += pieces
        owner += [i] * len(pieces)
        known += [on_scale] * len(pieces)
    rows.append(_prepared(waiting))
    together = Prepared(*(torch.cat(values) for values in zip(*rows, strict=True)))
    return PreparedCrops(together, np.array(owner), np.array(known), len(data))


def _on_scale(data: Dataset) -> list[bool]:
    """Whether each image is on Velox's 16-bit scale; a warning says how many are not."""
    absolute = [data.on_scale(i) for i in range(len(data))]
    if not all(absolute):
        lacking = f"{absolute.count(False)} of {len(data)} images"
        warnings.warn(f"{data.path}: {lacking} embedded without absolute intensity", stacklevel=3)
    return absolute


def _prepared(pieces: list[np.ndarray]) -> Prepared:
    return prepare(torch.from_numpy(np.stack(pieces).astype(np.float32)))


def evaluate(
    model: Cimp,
    data: Dataset,
    *,
    pool: int = 450,
    draws: int = 200,
    crops: int | None = 4,
    size: int | None = None,
    exclude_same_session: bool = False,
    seed: int = 0,
    embeddings: tuple[np.ndarray, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Top-1, 5 and 10 of images to settings and back, in pools of a fixed number of distinct settings.

    Parameters
    ----------
    data : Dataset
        Held-out view.
    pool, draws, exclude_same_session, seed
        As in `cimp_core.metrics.pool_topk`, which says how pools are drawn and that ties count against.
    crops, size : int or None
        As in `Cimp.embed_images`.
    embeddings : pair of (n, d) arrays, optional
        Image and metadata rows of `data`, if at hand.

    Returns
    -------
    DataFrame
        Index ``direction`` ("image_to_metadata", "metadata_to_image"); columns ``top1``, ``top5``, ``top10``
        with ``_low`` and ``_high`` (95 %, bootstrap over sessions), ``gap`` (matched minus mismatched cosine),
        ``pool``, ``draws``, ``crops`` (0 for the whole image), ``queries``, ``sessions``.

    Raises
    ------
    OutOfRangeError
        `data` holds fewer than `pool` distinct settings.
    """
    if embeddings is None:
        embeddings = embed_dataset(model, data, crops=crops, size=size), model.embed_metadata(data.metadata_raw)
    cosine = embeddings[0] @ embeddings[1].T
    gap = float(np.nanmean(cosine_gaps(*embeddings, data.groups)))
    rows = []
    for direction, scores in zip(DIRECTIONS, (cosine, cosine.T), strict=True):
        found = pool_topk(
            scores,
            data.groups,
            data.sessions,
            pool=pool,
            draws=draws,
            ks=TOP,
            exclude_same_session=exclude_same_session,
            seed=seed,
        )
        row = {"direction": direction}
        for k in TOP:
            score = found.pop(f"top{k}")
            row |= {f"top{k}": score["value"], f"top{k}_low": score["low"], f"top{k}_high": score["high"]}
        rows.append({**row, "gap": gap, "crops": crops or 0, **found})
    return pd.DataFrame(rows).set_index("direction")
