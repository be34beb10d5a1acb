"""What each term of the translator's training contributes, and what it has to be told: trainings of equal length.

``python -m cimp_core.study.restyling_ablation TWIN --work FOLDER --out FILE.json``. The variants are scored on the
validation materials: which one is best is a choice. A run that is finished is not done again, one that was stopped goes
on; use another folder after a change of the code.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset import Dataset, open_dataset
from ..renderer import Renderer
from ..results import update_results
from ..style import PAIRS, PROFILES, StyleConfig, StyleValidation, prepare_pairs, train_style
from ..training import make_config
from ..weights import load
from .restyling import chosen_images, evaluate, restyling_rows, routes
from .restyling_cases import cases_of
from .rows import print_rows

__all__ = ["SHOWN", "VARIANTS", "train_variants", "variant_config", "variant_rows"]

VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no_adversarial": {"adversarial": 0.0},
    "no_cycle": {"cycle": 0.0},
    "no_embedding": {"embedding": 0.0},
    "no_identity": {"identity": 0.0},
    "no_truth": {"truth": 0.0, "noise": 0.0},
    "laboratory": {"truth": 0.0, "noise": 0.0},
    "raw_settings": {"condition": "raw"},
    "no_condition": {"condition": "none"},
}
"""What is changed in `StyleConfig`. Without the adversarial term there is no critic.

``laboratory`` learns from the images as they were taken, unpaired, and ``no_truth``, with the same terms, from settings
drawn at random.
"""

SHOWN = ("psnr", "ssim", "noise", "histogram")
"""Scores of `restyling_scores` that tell variants apart."""


def variant_config(name: str, base: StyleConfig, samples: int, seed: int = 0) -> StyleConfig:
    """`base` for `samples` images with the variant's settings."""
    length = {"samples": samples, "warmup": samples // 10, "ema_half_life": max(base.batch_size, samples // 10)}
    length |= {"validate_every": samples, "checkpoint_every": max(base.batch_size, samples // 4), "seed": seed}
    return make_config(StyleConfig, {**dataclasses.asdict(base), **length, **VARIANTS[name]})


def train_variants(
    train: Dataset,
    val: Dataset,
    base: StyleConfig,
    samples: int,
    work: str | Path,
    *,
    encoder: Any = None,
    pairs: int = PAIRS["full"],
) -> dict[str, Renderer]:
    """Renderers of all `VARIANTS` after `samples` images each, in folders of their own below `work`."""
    again, found = prepare_pairs(train, Path(work) / "pairs", pairs), {}
    for name in VARIANTS:
        config = variant_config(name, base, samples)
        check = StyleValidation(val, config, load(config.encoder) if encoder is None else encoder, batches=2)
        paired = None if name == "laboratory" else again
        found[name] = train_style(train, config, Path(work) / name, encoder=encoder, pairs=paired, validate=check)
    return found


def variant_rows(
    renderers: Mapping[str, Renderer],
    train: Dataset,
    part: Dataset,
    common: Mapping,
    *,
    images: int = 40,
) -> list[dict]:
    """``ablation.style.SCORE.joint.VARIANT`` of the scores `SHOWN`, ``ablation.style.gap.own.VARIANT``, and the same of
    arithmetic, of the image left as it is and of a second recording.

    Of joint changes of all six settings, two an image of `part`.
    """
    cases = list(cases_of(part, chosen_images(part, images), train, joints=2, only="joint"))
    first = next(iter(renderers.values()))
    known = routes(first)
    ways = {name: routes(renderer)["generator"] for name, renderer in renderers.items()}
    ways |= {name: known[name] for name in ("unchanged", "analytic", "recording")}
    encoders = {"own": first.conditioner.encoder}
    table = evaluate(cases, ways, encoders=encoders)
    rows = restyling_rows(table, np.asarray(part.sessions), common, prefix="ablation.style")
    return [row for row in rows if row["name"].split(".")[2] in (*SHOWN, "gap")]


def main() -> None:
    """``python -m cimp_core.study.restyling_ablation TWIN --work FOLDER --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure what each part of the translator's training contributes.")
    parser.add_argument("dataset", type=Path, help="a twin")
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings; a run goes on in it")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--samples", type=int, default=3_200, help="images that each variant sees")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    data = open_dataset(arguments.dataset)
    train, val, _ = data.split("material", val=0.1, test=0.25, seed=0)
    common = {"split": "material", "profile": arguments.profile, "seeds": [0]}
    common |= {"command": "python -m cimp_core.study.restyling_ablation TWIN"}
    common["twin_version"] = data.attributes.get("twin_version")
    renderers = train_variants(train, val, PROFILES["full"], arguments.samples, arguments.work)
    rows = variant_rows(renderers, train, val, common, images=arguments.images)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
