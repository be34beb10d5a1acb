"""What trained weights reach on the test part: retrieval and probes, beside the control and the ceiling."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..dataset import Dataset, open_dataset
from ..metrics import cosine_gaps, pool_hits
from ..models import Cimp
from ..results import update_results
from ..retrieval import DIRECTIONS, TOP
from ..weights import load
from .embedder import Embedder, embed_parts
from .probes import feature_rows, seeds_of
from .rows import print_rows, row
from .seeds import over_seeds

__all__ = ["known_mean", "model_rows"]


def model_rows(
    models: Sequence[Cimp],
    data: Dataset,
    *,
    seeds: Sequence[int] = (0,),
    split: str = "session",
    seed: int = 0,
    pool: int = 450,
    draws: int = 200,
    profile: str = "full",
    command: str = "python -m cimp_core.study.shipped DATASET",
) -> list[dict]:
    """Rows of models trained alike from several seeds, or of one, ready for the results file.

    ``retrieval.topK.DIRECTION`` as the control has it, test images embedded from four crops; ``retrieval.gap``, the
    mean cosine of an image with its own settings minus that with others; ``probe.r2.NAME``, ``probe.partial_r2.NAME``
    and ``probe.median_error.NAME`` of ridge probes on the frozen embedding, and the rows below 40 pm of
    `cimp_core.study.probe_rows`; the same as ``probe.features`` on the layer that the embedding is projected from.
    Each is the mean over the models, with an interval over sessions and seeds.

    Parameters
    ----------
    models : list of Cimp
    data : Dataset
        The whole set; it is split as for the training of the weights.
    seeds : list of int
        From which the models were trained.
    split, seed, pool, draws, profile, command
        As in `cimp_core.study.control.control_rows`.
    """
    parts = data.split(split, seed=seed)
    held_out = parts[2]
    common = {"split": split, "profile": profile, "seeds": list(seeds), "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    embed = Embedder()
    features = [embed_parts(model, parts, embed=embed) for model in models]
    pairs = [(f[2], m.embed_metadata(held_out.metadata_raw)) for f, m in zip(features, models, strict=True)]
    rows = []
    for exclude in (False, True):
        rows += _retrieval(pairs, held_out, common, exclude, pool=pool, draws=draws, seed=seed)
    gaps = [(cosine_gaps(*pair, held_out.groups),) for pair in pairs]
    rows.append(row("retrieval.gap", *over_seeds(known_mean, held_out.sessions, gaps, seed=seed), common))
    rows += feature_rows("probe", features, parts, common, seed)
    hidden = [embed_parts(model, parts, features=True, embed=embed) for model in models]
    return rows + feature_rows("probe.features", hidden, parts, common, seed)


def known_mean(values: np.ndarray) -> float:
    """Mean of the values that are known; ``nan``, without a warning, if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _retrieval(
    pairs: list, held_out: Dataset, common: dict, exclude: bool, *, pool: int, draws: int, seed: int
) -> list[dict]:
    """Rows of Top-k in both directions; `pairs` are the embeddings of images and of settings, of each model."""
    rows, ending = [], ".other_sessions" if exclude else ""
    for direction in DIRECTIONS:
        found = []
        for image, settings in pairs:
            scores = image @ settings.T if direction == "image_to_metadata" else settings @ image.T
            hits = pool_hits(
                scores, held_out.groups, held_out.sessions, pool=pool, draws=draws, ks=TOP,
                exclude_same_session=exclude, seed=seed,
            )  # fmt: skip
            found.append(hits.shares)
        for i, k in enumerate(TOP):
            columns = [(shares[i],) for shares in found]
            numbers = over_seeds(known_mean, held_out.sessions, columns, seed=seed)
            rows.append(row(f"retrieval.top{k}.{direction}{ending}", *numbers, common, pool))
    return rows


def main() -> None:
    """``python -m cimp_core.study.shipped DATASET --out FILE.json``, with ``--weights`` once for each seed."""
    parser = argparse.ArgumentParser(description="Measure trained weights on a data set.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--weights", action="append", help="a shipped name or a file; again for each seed")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    names = arguments.weights or ["cimp-twin-s"]
    data, models = open_dataset(arguments.dataset), [load(name) for name in names]
    rows = model_rows(models, data, seeds=seeds_of(names), profile=arguments.profile)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
