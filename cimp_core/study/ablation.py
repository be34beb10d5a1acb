"""What each part of the method contributes: variants trained at an equal budget, scored on the validation part.

A variant is the reference with some settings changed, all else alike: as many crops, the same order of images for the
same seed, the same schedule. The test part is not looked at: which variant is best is a choice, and choices are made on
validation. Two curves come with it, over the number of crops and over the number of sessions trained on.

Every run has a folder of its own in the work folder: a run that is finished is not done again, one that was stopped
goes on from its last checkpoint. Use another work folder after a change of the code.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import write_text
from ..dataset import Dataset, open_dataset
from ..errors import OutOfRangeError, SchemaError
from ..metadata import PARAMETERS
from ..metrics import pool_hits, r2
from ..models import Cimp
from ..pretrain import PROFILES, PretrainConfig, pretrain
from ..probe import fit_ridge
from ..results import update_results
from ..splits import split_indices
from ..training import make_config
from .embedder import Embedder
from .rows import print_rows, row
from .seeds import over_seeds

__all__ = ["VARIANTS", "Run", "ablation_rows", "curve_runs", "scores_of", "study", "variant_run"]

VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no_absolute": {"absolute": False},
    "no_statistics": {"statistics": False},
    "no_spectrum": {"spectrum": 0},
    "convolutions": {"width": 8},
    "quarter_turns": {"turns": True},
    "no_masking": {"mask_absolute": 0.0, "mask_metadata": 0.0},
    "sigmoid_loss": {"loss": "sigmoid"},
    "fixed_scale": {"learn_scale": False},
    "small_crops": {"crop_size": 128},
}
"""What is changed in `PretrainConfig`. Small crops are all of 128 pixels, where the reference has 128 to 256."""

TOP = (1, 5, 10)
SHARES = (8, 4, 2)
"""The curves' points: one over these, and the whole."""
DRAWS = 1000
"""Of the bootstrap."""


@dataclass(frozen=True)
class Run:
    """One training: a name for its folder, all its settings, and how many training sessions it has."""

    name: str
    config: PretrainConfig
    sessions: int | None = None  # None: all


def variant_run(name: str, changed: Mapping[str, Any], base: PretrainConfig, samples: int, seed: int) -> Run:
    """`base` for `samples` crops with the settings `changed`; an unknown one raises `OutOfRangeError`."""
    length = {"samples": samples, "warmup": max(base.batch_size, samples // 12), "seed": seed}
    length |= {"validate_every": samples, "checkpoint_every": max(base.batch_size, samples // 8)}
    return Run(name, make_config(PretrainConfig, {**dataclasses.asdict(base), **length, **changed}))


def curve_runs(base: PretrainConfig, samples: int, sessions: int, seed: int) -> dict[str, Run]:
    """Runs of both curves by the first part of their rows' names; the whole is the reference itself.

    Fewer crops have a schedule of their own, so each point is a finished training. Fewer sessions, drawn by the seed,
    have the same number of crops.
    """
    whole = variant_run("reference", {}, base, samples, seed)
    found = {}
    for share in SHARES:
        few = max(base.batch_size, samples // share)
        found[f"curve.crops.{few:06d}"] = variant_run(f"crops_{few:06d}", {}, base, few, seed)
    found[f"curve.crops.{samples:06d}"] = whole
    for share in SHARES:
        few = max(4, sessions // share)
        found[f"curve.sessions.{few:04d}"] = dataclasses.replace(whole, name=f"sessions_{few:04d}", sessions=few)
    return found | {f"curve.sessions.{sessions:04d}": whole}


def scores_of(
    run: Run,
    train: Dataset,
    val: Dataset,
    work: str | Path,
    *,
    pool: int = 450,
    draws: int = 200,
    embed: Embedder | None = None,
) -> dict:
    """Train a run in its folder below `work` unless that is done, and score it on `val`.

    Returns
    -------
    dict
        ``shares`` (3, n): of the draws of a pool in which the own settings of image i were among the first 1, 5, 10;
        ``predicted`` (n, 7): its normalised settings as ridge probes read them from the embedding; ``pool``, the
        distinct vectors of a pool; ``settings``, what the scores belong to.

    Raises
    ------
    SchemaError
        The folder holds the scores or the checkpoint of a run with other settings.
    """
    pool = min(pool, len(np.unique(val.groups)))
    made_of = {"config": dataclasses.asdict(run.config), "sessions": run.sessions, "pool": pool, "draws": draws}
    made_of |= {"train": len(train), "val": len(val), "twin_version": train.attributes.get("twin_version")}
    made_of = json.loads(json.dumps(made_of))  # as a file gives it back
    folder = Path(work) / f"{run.name}.seed{run.config.seed}"
    finished = folder / "scores.json"
    if finished.exists():
        found = json.loads(finished.read_text())
        if found["settings"] != made_of:
            different = sorted(k for k in made_of if found["settings"].get(k) != made_of[k])
            raise SchemaError(f"{finished}: of a run with other settings ({', '.join(different)}); use another folder")
    else:
        seen = some_sessions(train, run.sessions, run.config.seed)
        model = pretrain(seen, None, run.config, folder, views=Path(work) / _views_of(run))
        found = {"settings": made_of, "pool": pool, **score(model, seen, val, pool=pool, draws=draws, embed=embed)}
        write_text(finished, json.dumps(found) + "\n")
    return {**found, "shares": np.array(found["shares"], float), "predicted": np.array(found["predicted"], float)}


def _views_of(run: Run) -> str:
    """Folder of the prepared crops; runs with the same crops of the same images share it."""
    config = run.config
    crops = f"{config.smallest_crop}-{config.crop_size}.{config.kept_tile}.x{config.views}{'.turned' * config.turns}"
    return f"views.{crops}" + ("" if run.sessions is None else f".sessions_{run.sessions:04d}.seed{config.seed}")


def some_sessions(data: Dataset, count: int | None, seed: int) -> Dataset:
    """The images of `count` sessions; fewer sessions of the same seed are among more."""
    if count is None:
        return data
    drawn = np.random.default_rng((seed, 3)).permutation(np.unique(data.sessions))[:count]
    return data.view(np.flatnonzero(np.isin(data.sessions, drawn)))


def score(model: Cimp, train: Dataset, val: Dataset, *, pool: int, draws: int, embed: Embedder | None = None) -> dict:
    """``shares`` and ``predicted`` of `scores_of`, as lists. Validation images are embedded from four crops."""
    embed = embed or Embedder()
    image = embed(model, val, crops=4)
    cosine = image @ model.embed_metadata(val.metadata_raw).T
    hits = pool_hits(cosine, val.groups, val.sessions, pool=pool, draws=draws, ks=TOP)
    features, target = embed(model, train, crops=1), np.asarray(train.metadata, float)
    # Validation is the score here, so the penalty is chosen on sessions of the training part.
    fit, choose, _ = split_indices("session", train.sessions, val=0.1, test=0.0)
    predicted = np.full((len(val), len(PARAMETERS)), np.nan)
    for j in range(len(PARAMETERS)):
        if min(np.isfinite(target[part, j]).sum() for part in (fit, choose)) >= 2:
            probe = fit_ridge(features[fit], target[fit, j], features[choose], target[choose, j])
            predicted[:, j] = probe.predict(image)
    return {"shares": hits.shares.round(6).tolist(), "predicted": predicted.round(6).tolist()}


def ablation_rows(scores: Mapping[str, Sequence[dict]], val: Dataset, common: Mapping) -> list[dict]:
    """Rows of each variant, ready for the results file.

    ``ablation.topK.VARIANT`` and ``ablation.r2.NAME.VARIANT`` are means over seeds with intervals over seeds and
    sessions; ``ablation.change.topK.VARIANT`` and ``ablation.change.r2.NAME.VARIANT`` the variant minus the reference
    where that is among `scores`: seed by seed, the same images and pools, so that the interval is that of the
    difference.

    Parameters
    ----------
    scores : mapping of name to list of dict
        `scores_of` for each seed, in the same order of seeds.
    val : Dataset
        The part that was scored.
    common : mapping
        Split, profile, seeds, twin_version and command of the rows.
    """
    truth, rows = np.asarray(val.metadata, float), []
    reference = scores.get("reference")
    for name, own in scores.items():
        rows += _topk_rows("ablation.{}." + name, own, val, common)
        rows += [
            _over_seeds(f"ablation.r2.{p}.{name}", r2, val, [(truth[:, j], s["predicted"][:, j]) for s in own], common)
            for j, p in enumerate(PARAMETERS)
        ]
        if reference is None or name == "reference":
            continue
        pairs = list(zip(own, reference, strict=True))
        differences = [{**a, "shares": a["shares"] - b["shares"]} for a, b in pairs]
        rows += _topk_rows("ablation.change.{}." + name, differences, val, common)
        for j, p in enumerate(PARAMETERS):
            columns = [(truth[:, j], a["predicted"][:, j], b["predicted"][:, j]) for a, b in pairs]
            rows.append(_over_seeds(f"ablation.change.r2.{p}.{name}", _r2_change, val, columns, common))
    return rows


def _topk_rows(name: str, own: Sequence[dict], val: Dataset, common: Mapping) -> list[dict]:
    return [
        _over_seeds(name.format(f"top{k}"), _mean, val, [(s["shares"][i],) for s in own], common, own[0]["pool"])
        for i, k in enumerate(TOP)
    ]


def _r2_change(truth: np.ndarray, variant: np.ndarray, reference: np.ndarray) -> float:
    return r2(truth, variant) - r2(truth, reference)


def _mean(shares: np.ndarray) -> float:
    return float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def _over_seeds(
    name: str,
    statistic: Callable[..., float],
    val: Dataset,
    columns_by_seed: Sequence[tuple[np.ndarray, ...]],
    common: Mapping,
    pool: int | None = None,
) -> dict:
    """A row: the mean over seeds, and an interval over sessions and seeds."""
    return row(name, *over_seeds(statistic, val.sessions, columns_by_seed, draws=DRAWS), common, pool)


def study(
    data: Dataset,
    work: str | Path,
    base: PretrainConfig,
    *,
    samples: int,
    seeds: Sequence[int],
    only: Sequence[str] | None = None,
    curves: bool = False,
    common: Mapping,
    say: Callable[[str], None] = print,
) -> list[dict]:
    """Rows of the variants `only` (all by default) and, where asked for, of both curves."""
    if unknown := sorted(set(only or ()) - set(VARIANTS)):
        raise OutOfRangeError(f"no such variant: {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    train, val, _ = data.split("session", seed=0)
    names = [name for name in VARIANTS if only is None or name in only]
    plan = {name: [variant_run(name, VARIANTS[name], base, samples, seed) for seed in seeds] for name in names}
    points: dict[str, list[Run]] = {}
    for seed in seeds if curves else ():
        for name, run in curve_runs(base, samples, len(np.unique(train.sessions)), seed).items():
            points.setdefault(name, []).append(run)
    scores: dict[str, list[dict]] = {}
    embed = Embedder()
    for name, runs in {**plan, **points}.items():
        scores[name] = [scores_of(run, train, val, work, embed=embed) for run in runs]
        top1 = ", ".join(f"{_mean(s['shares'][0]):.3f}" for s in scores[name])
        say(f"{name}: Top-1 {top1} in a pool of {scores[name][0]['pool']} of the validation part")
    rows = ablation_rows({name: scores[name] for name in plan}, val, common)
    return rows + [r for name in points for r in _topk_rows(name + ".{}", scores[name], val, common)]


def main() -> None:
    """``python -m cimp_core.study.ablation DATASET --work DIR --out FILE.json --samples N --seeds 0 1``."""
    parser = argparse.ArgumentParser(description="Train variants at an equal budget; score them on validation.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs; those in it go on")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--samples", type=int, required=True, help="crops of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--curves", action="store_true", help="also fewer crops and fewer sessions")
    parser.add_argument("--profile", choices=PROFILES, default="full")
    given = parser.parse_args()
    data = open_dataset(given.dataset)
    command = f"python -m cimp_core.study.ablation DATASET --samples {given.samples} --seeds "
    command += " ".join(map(str, given.seeds)) + " --curves" * given.curves
    common = {"split": "session, validation part", "profile": given.profile, "seeds": given.seeds, "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    rows = study(
        data, given.work, PROFILES[given.profile], samples=given.samples, seeds=given.seeds, only=given.only,
        curves=given.curves, common=common,
    )  # fmt: skip
    update_results(given.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
