"""What the shipped weights reach on the test part: retrieval and probes, beside the control and the ceiling."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..dataset import Dataset, open_dataset
from ..metadata import PARAMETERS
from ..models import Cimp
from ..probe import ridge_probe
from ..results import update_results
from ..retrieval import embed_dataset, evaluate
from ..weights import load
from .rows import row

__all__ = ["model_rows"]


def model_rows(
    model: Cimp,
    data: Dataset,
    *,
    split: str = "session",
    seed: int = 0,
    pool: int = 450,
    draws: int = 200,
    profile: str = "full",
    command: str = "python -m cimp_core.study.shipped DATASET",
) -> list[dict]:
    """Rows of a trained model, ready for the results file.

    ``retrieval.topK.DIRECTION`` as the control has it, test images embedded from four crops; ``retrieval.gap``, the
    mean cosine of an image with its own settings minus that with others; ``probe.r2.NAME``, ``probe.partial_r2.NAME``
    and ``probe.median_error.NAME`` of ridge probes on the frozen embedding.

    Parameters
    ----------
    model : Cimp
    data : Dataset
        The whole set; it is split as for the training of the weights.
    split, seed, pool, draws, profile, command
        As in `cimp_core.study.control.control_rows`.
    """
    parts = data.split(split, seed=seed)
    held_out = parts[2]
    common = {"split": split, "profile": profile, "seeds": [seed], "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    # One crop is enough to fit a probe on thousands of images.
    features = [embed_dataset(model, part, crops=n) for part, n in zip(parts, (1, 1, 4), strict=True)]
    rows, embeddings = [], (features[2], model.embed_metadata(held_out.metadata_raw))
    for exclude in (False, True):
        ending = ".other_sessions" if exclude else ""
        found = evaluate(
            model, held_out, pool=pool, draws=draws, exclude_same_session=exclude, seed=seed, embeddings=embeddings
        )
        for direction, scores in found.iterrows():
            for k in ("top1", "top5", "top10"):
                numbers = scores[k], scores[f"{k}_low"], scores[f"{k}_high"]
                rows.append(row(f"retrieval.{k}.{direction}{ending}", *numbers, common, pool))
    gap = float(found["gap"].iloc[0])
    rows.append({**row("retrieval.gap", gap, gap, gap, common), "low": None, "high": None})
    probes = ridge_probe(features, parts, seed=seed)
    for name in PARAMETERS:
        for score in ("r2", "partial_r2", "median_error"):
            numbers = (probes.loc[name, f"{score}{end}"] for end in ("", "_low", "_high"))
            rows.append(row(f"probe.{score}.{name}", *numbers, common))
    return rows


def main() -> None:
    """``python -m cimp_core.study.shipped DATASET --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure trained weights on a data set.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--weights", default="cimp-twin-s", help="a shipped name or a file")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    rows = model_rows(load(arguments.weights), open_dataset(arguments.dataset), profile=arguments.profile)
    update_results(arguments.out, rows)
    for made in rows:
        low, high = (float("nan") if made[k] is None else made[k] for k in ("low", "high"))
        print(f"{made['name']:64s} {made['value']:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
