"""Retrieval in depth: against the pool, against what is seen of an image, the gap, and what a wrong answer misses.

One number for retrieval hides what it depends on. Several models, trained alike from different seeds, are measured on
the same pools; a value is the mean over them, and its interval allows for other sessions and other seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ..dataset import Dataset, open_dataset
from ..metadata import PARAMETERS
from ..metrics import cosine_gaps, pool_hits
from ..models import Cimp
from ..results import update_results
from ..retrieval import DIRECTIONS, TOP
from ..weights import load
from .embedder import Embedder
from .probes import seeds_of
from .rows import print_rows, row
from .seeds import over_seeds

__all__ = [
    "CROPS",
    "POOLS",
    "SIZES",
    "curve_rows",
    "first_answers",
    "gap_rows",
    "pool_rows",
    "setting_differs",
    "wrong_rows",
]

POOLS = (16, 32, 64, 128, 256, 450, None)
"""Distinct settings a pool; None for all that the test part has."""
CROPS = (1, 4, 16, None)
"""Crops of `CROP` pixels averaged for an embedding; None for the whole image at once."""
CROP = 128
SIZES = (64, 96, 128, 192, 256)
"""Edges of the one central crop that is all that is seen of an image [pixels]."""
CURVE_DRAWS = 50
"""Pools drawn for a point of a curve: its interval is mostly that of the sessions."""

Embeddings = tuple[np.ndarray, np.ndarray]


def curve_rows(
    models: Sequence[Cimp],
    data: Dataset,
    *,
    split: str = "session",
    pools: Sequence[int | None] = POOLS,
    crops: Sequence[int | None] = CROPS,
    sizes: Sequence[int] = SIZES,
    pool: int = 450,
    draws: int = CURVE_DRAWS,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    profile: str = "full",
    command: str = "python -m cimp_core.study.retrieval_curves DATASET",
) -> list[dict]:
    """All rows of this study on the held-out test part, ready for the results file.

    ``retrieval.curve.pool_0016.top1.DIRECTION`` (``pool_all`` for all settings) from the embedding that other studies
    use, four crops as large as the model was trained on; in pools of `pool`,
    ``retrieval.curve.crops_01.top1.DIRECTION`` from crops of `CROP` pixels (``crops_whole`` from the whole image) and
    ``retrieval.curve.size_064.top1.DIRECTION`` from one central crop of that edge; all also with ``.other_sessions``;
    then what `gap_rows` and `wrong_rows` make, from the embedding of the pools.

    Parameters
    ----------
    models : list of Cimp
        Trained alike from different seeds.
    data : Dataset
        The whole set; it is split as for the training of the models.
    split, seed
        As in `Dataset.split`; `seed` is also that of pools and intervals.
    pools, crops, sizes : sequences of int or None
        As `POOLS`, `CROPS` and `SIZES`; pools larger than the test part allows, and sizes larger than its images, are
        left out.
    pool, draws
        As in `cimp_core.metrics.pool_hits`.
    seeds : sequence of int, optional
        Seeds of the models, written into the rows; by default 0, 1, ...
    profile, command : str
        Written into the rows.
    """
    held_out = data.split(split, seed=seed)[2]
    common = {"split": split, "profile": profile, "command": command}
    common["seeds"] = list(range(len(models)) if seeds is None else seeds)
    common["twin_version"] = data.attributes.get("twin_version")
    settings, embed = [model.embed_metadata(held_out.metadata_raw) for model in models], Embedder()

    @cache  # one central crop of 128 pixels is a point of two curves
    def embedded(number: int | None, size: int | None) -> list[Embeddings]:
        images = [embed(model, held_out, crops=number, size=size) for model in models]
        return list(zip(images, settings, strict=True))

    four, options = embedded(4, None), {"draws": draws, "seed": seed}
    rows = []
    distinct = len(np.unique(held_out.groups))
    for size in dict.fromkeys(pools):
        if size is None or size <= distinct:
            name = f"retrieval.curve.pool_{'all' if size is None else f'{size:04d}'}"
            rows += pool_rows(name, four, held_out, common, pool=size or distinct, **options)
    seen = {f"crops_{'whole' if n is None else f'{n:02d}'}": (n, None if n is None else CROP) for n in crops}
    smallest = min(min(held_out.shape(i)) for i in range(len(held_out)))
    seen |= {f"size_{size:03d}": (1, size) for size in sizes if size <= smallest}
    for name, (number, size) in seen.items():
        pairs = embedded(number, size)
        rows += pool_rows(f"retrieval.curve.{name}", pairs, held_out, common, pool=min(pool, distinct), **options)
    return [*rows, *gap_rows(four, held_out, common, seed=seed), *wrong_rows(four, held_out, common, seed=seed)]


def pool_rows(
    name: str,
    embeddings: Sequence[Embeddings],
    held_out: Dataset,
    common: Mapping,
    *,
    pool: int,
    draws: int = 200,
    seed: int = 0,
) -> list[dict]:
    """``NAME.topK.DIRECTION`` for k of 1, 5, 10, both directions, and without same-session candidates.

    Parameters
    ----------
    embeddings : list over models of pairs of (n, d) arrays
        Image and metadata rows of `held_out`. All models answer in the same pools.
    held_out : Dataset
        Anything with ``groups`` and ``sessions``.
    common : mapping
        As in `cimp_core.study.rows.row`.
    pool, draws, seed
        As in `cimp_core.metrics.pool_hits`; `seed` is also that of the intervals.
    """
    rows = []
    for exclude in (False, True):
        ending = ".other_sessions" if exclude else ""
        options = {"pool": pool, "draws": draws, "ks": TOP, "exclude_same_session": exclude, "seed": seed}
        for direction in DIRECTIONS:
            found = []
            for image, metadata in embeddings:
                cosine = image @ metadata.T
                scores = cosine if direction == DIRECTIONS[0] else cosine.T
                found.append(pool_hits(scores, held_out.groups, held_out.sessions, **options).shares)
            seen = ~np.isnan(found[0][0])  # in small pools some images are never drawn, the same for every model
            for i, k in enumerate(TOP):
                columns = [(shares[i, seen],) for shares in found]
                numbers = over_seeds(np.mean, held_out.sessions[seen], columns, seed=seed)
                rows.append(row(f"{name}.top{k}.{direction}{ending}", *numbers, common, pool))
    return rows


def gap_rows(embeddings: Sequence[Embeddings], held_out: Dataset, common: Mapping, *, seed: int = 0) -> list[dict]:
    """``retrieval.curve.gap``: mean cosine of an image with its own settings minus that with all others."""
    gaps = [cosine_gaps(*pair, held_out.groups) for pair in embeddings]
    known = ~np.isnan(gaps[0])
    numbers = over_seeds(np.mean, held_out.sessions[known], [(gap[known],) for gap in gaps], seed=seed)
    return [row("retrieval.curve.gap", *numbers, common)]


def wrong_rows(embeddings: Sequence[Embeddings], held_out: Dataset, common: Mapping, *, seed: int = 0) -> list[dict]:
    """How often distinct questions are answered right among all settings, and what wrong first answers differ in.

    A question is one list of settings in one session: an image that was repeated without touching anything counts
    once. ``retrieval.questions.top1`` is the share answered right. Of the wrong answers,
    ``retrieval.wrong.differs.NAME`` is the share that differ from the truth in this setting by more than 1 %,
    ``retrieval.wrong.only.NAME`` the share that differ in this one alone.
    """
    _, question = np.unique(np.column_stack([held_out.sessions, held_out.groups]), axis=0, return_inverse=True)
    question = question.reshape(-1)
    sessions = _mean_by(question, held_out.sessions.astype(float))
    raw = np.asarray(held_out.metadata_raw, float)
    right, differs = [], []
    for pair in embeddings:
        answer = first_answers(pair[0] @ pair[1].T, held_out.groups)
        right.append(held_out.groups[answer] == held_out.groups)
        differs.append(setting_differs(raw, raw[answer]))
    pool = len(np.unique(held_out.groups))
    numbers = over_seeds(np.mean, sessions, [(_mean_by(question, r),) for r in right], seed=seed)
    rows = [row("retrieval.questions.top1", *numbers, common, pool)]
    for j, name in enumerate(PARAMETERS):
        known = ~np.isnan(raw[:, j])
        for kind in ("differs", "only"):
            columns = []
            for good, d in zip(right, differs, strict=True):
                hit = d[:, j] if kind == "differs" else d[:, j] & (d.sum(axis=1) == 1)
                columns.append(tuple(_mean_by(question, part) for part in (hit & ~good, known & ~good)))
            numbers = over_seeds(_ratio, sessions, columns, seed=seed)
            rows.append(row(f"retrieval.wrong.{kind}.{name}", *numbers, common, pool))
    return rows


def first_answers(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Candidate that each query puts first, (n,) int; of equal scores a wrong one, as `cimp_core.metrics` counts ties.

    Parameters
    ----------
    scores : (n, n) array
        Query i against candidate j, of the same n images; ``nan`` is the worst.
    groups : (n,) int array
        A candidate is right where its group is the query's.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    right = np.asarray(groups)[:, None] == np.asarray(groups)
    best = scores == scores.max(axis=1, keepdims=True)
    return np.argmax(best * (2 - right), axis=1)


def setting_differs(own: np.ndarray, other: np.ndarray, tolerance: float = 0.01) -> np.ndarray:
    """(n, 7) bool: which settings of two (n, 7) arrays differ by more than `tolerance`; what is missing does not.

    The rule of `cimp_core.retrieval.describe_difference`.
    """
    with np.errstate(invalid="ignore"):
        return np.abs(own - other) > tolerance * np.maximum(np.abs(own), np.abs(other))


def _mean_by(which: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(which, weights=values) / np.bincount(which)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    total = np.sum(whole)
    return float(np.sum(part) / total) if total > 0 else float("nan")


def main() -> None:
    """``python -m cimp_core.study.retrieval_curves DATASET --weights A [--weights B ...] --out FILE.json``."""
    parser = argparse.ArgumentParser(
        description="Measure retrieval against the pool and against what is seen of an image."
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--weights", action="append", help="a shipped name or a file; once for each seed")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="seeds of the weights; by default as their records have them"
    )
    parser.add_argument("--profile", default="full")
    parser.add_argument("--draws", type=int, default=CURVE_DRAWS, help="pools drawn")
    arguments = parser.parse_args()
    names = arguments.weights or ["cimp-twin-s"]
    models, seeds = [load(name) for name in names], arguments.seeds or seeds_of(names)
    if len(seeds) != len(models):
        parser.error(f"{len(models)} weights, but {len(seeds)} seeds")
    options = {"seeds": seeds, "profile": arguments.profile, "draws": arguments.draws}
    rows = curve_rows(models, open_dataset(arguments.dataset), **options)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
