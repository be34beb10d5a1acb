"""What a random split hides: the same short training on splits of different kinds, each tested on its own test part.

Scores on two splits differ for two reasons: the training part may hold siblings of a test image (same specimen, same
day, same habits), and the test part, and so the pool, is another. The siblings' experiment tells them apart: twice the
same questions in the same pools, and twice as many training images, but the second time some of them are siblings.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..dataset import Dataset, open_dataset
from ..metrics import mean_interval, pool_hits
from ..models import Cimp
from ..pretrain import PROFILES, PretrainConfig, pretrain
from ..results import update_results
from ..retrieval import DIRECTIONS, TOP, embed_dataset
from ..splits import KINDS
from .control import control_rows
from .retrieval_curves import pool_rows
from .rows import print_rows, row
from .statistics import dataset_statistics

__all__ = ["known_rows", "sibling_parts", "sibling_rows", "split_rows"]


def split_rows(
    data: Dataset,
    config: PretrainConfig,
    *,
    kinds: Sequence[str] = KINDS,
    seeds: Sequence[int] = (0,),
    pool: int = 450,
    draws: int = 200,
    crops: int | None = 4,
    statistics: np.ndarray | None = None,
    work: str | Path | None = None,
    profile: str = "book",
    command: str = "python -m cimp_core.study.splits_compared DATASET",
) -> list[dict]:
    """Train alike on each kind of split and test each on its own test part, in pools of one size.

    ``split.KIND.retrieval.topK.DIRECTION``, also with ``.other_sessions``; ``split.KIND.known.settings`` and
    ``split.KIND.known.session``, the shares of test images whose settings, or whose session, occur in training; and,
    with `statistics`, the control's ``split.KIND.control.retrieval.topK.DIRECTION``.

    Parameters
    ----------
    data : Dataset
        The whole set; without material labels the kind "material" is left out.
    config : PretrainConfig
        Budget, the same for every kind.
    kinds, seeds
        Kinds of split (drawn with seed 0), and seeds of the trainings.
    pool, draws
        As in `cimp_core.metrics.pool_hits`; the pool shrinks to what the smallest test part allows.
    crops
        As in `Cimp.embed_images`.
    statistics : (n, f) array, optional
        Of every image, from `dataset_statistics`.
    work : path, optional
        Folder in which trainings are kept; they go on from there.
    profile, command : str
        Written into the rows.
    """
    kinds = [kind for kind in kinds if kind != "material" or data.materials is not None]
    parts = {kind: data.split(kind, seed=0) for kind in kinds}
    pool = min(pool, *(len(np.unique(part[2].groups)) for part in parts.values()))
    rows = []
    for kind, (train, _, test) in parts.items():
        common = _common(data, kind, seeds, profile, command)
        pairs = [_embedded(m, test, crops) for m in _models(train, config, seeds, work, kind)]
        rows += pool_rows(f"split.{kind}.retrieval", pairs, test, common, pool=pool, draws=draws)
        rows += known_rows(f"split.{kind}.known", train, test, common)
        if statistics is not None:
            found = control_rows(data, statistics=statistics, split=kind, pool=pool, draws=draws)
            found = [made for made in found if made["name"].startswith("control.retrieval")]
            rows += [made | {"name": f"split.{kind}.{made['name']}"} | _origin(profile, command) for made in found]
    return rows


def sibling_rows(
    data: Dataset,
    config: PretrainConfig,
    *,
    seeds: Sequence[int] = (0,),
    pool: int = 450,
    draws: int = 200,
    crops: int | None = 4,
    work: str | Path | None = None,
    profile: str = "book",
    command: str = "python -m cimp_core.study.splits_compared DATASET",
) -> list[dict]:
    """The same questions to a model that never saw their sessions and to one that saw other images of them.

    ``split.strangers.retrieval.topK.DIRECTION``, ``split.siblings.retrieval.topK.DIRECTION`` and
    ``split.siblings.gain.topK.DIRECTION``, the second minus the first, image by image; arguments as in `split_rows`.
    """
    strangers, siblings, questions = sibling_parts(data)
    pool = min(pool, len(np.unique(questions.groups)))
    common = _common(data, "session", seeds, profile, command)
    rows, found = [], {}
    for name, train in (("strangers", strangers), ("siblings", siblings)):
        pairs = [_embedded(m, questions, crops) for m in _models(train, config, seeds, work, name)]
        rows += pool_rows(f"split.{name}.retrieval", pairs, questions, common, pool=pool, draws=draws)
        found[name] = [_shares(pair, questions, pool, draws) for pair in pairs]
    for i, direction in enumerate(DIRECTIONS):
        for j, k in enumerate(TOP):
            gain = np.mean(found["siblings"], axis=0)[i, j] - np.mean(found["strangers"], axis=0)[i, j]
            seen = ~np.isnan(gain)
            interval = mean_interval(questions.sessions[seen], gain[seen])
            rows.append(row(f"split.siblings.gain.top{k}.{direction}", gain[seen].mean(), *interval, common, pool))
    return rows


def sibling_parts(data: Dataset, *, seed: int = 0) -> tuple[Dataset, Dataset, Dataset]:
    """Training without siblings, training of the same size with siblings, and the questions.

    Half of the files of every test session are questions. The other half takes the place of as many training images,
    drawn at random. Frames of one file stay together, as in `Dataset.split`.
    """
    train, _, test = data.split("session", seed=0)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(11,)))
    files = np.unique(test.filepaths, return_inverse=True)[1].reshape(-1)
    asked = np.zeros(len(test), dtype=bool)
    for session in np.unique(test.sessions):
        own = np.unique(files[test.sessions == session])
        asked |= np.isin(files, rng.permutation(own)[: (len(own) + 1) // 2])
    place = {index: i for i, index in enumerate(data.indices.tolist())}
    of_train = np.array([place[index] for index in train.indices.tolist()])
    of_test = np.array([place[index] for index in test.indices.tolist()])
    kept = np.sort(rng.permutation(of_train)[(~asked).sum() :])
    return train, data.view(np.sort(np.concatenate([kept, of_test[~asked]]))), data.view(of_test[asked])


def known_rows(name: str, train: Dataset, test: Dataset, common: dict) -> list[dict]:
    """``NAME.settings`` and ``NAME.session``: shares of test images whose settings, or session, occur in training."""
    rows = []
    for what, part in (("settings", "groups"), ("session", "sessions")):
        known = np.isin(getattr(test, part), getattr(train, part)).astype(float)
        rows.append(row(f"{name}.{what}", known.mean(), *mean_interval(test.sessions, known), common))
    return rows


def _models(
    train: Dataset, config: PretrainConfig, seeds: Sequence[int], work: str | Path | None, name: str
) -> list[Cimp]:
    folders = [None if work is None else Path(work) / f"{name}.seed{seed}" for seed in seeds]
    return [pretrain(train, None, replace(config, seed=s), out) for s, out in zip(seeds, folders, strict=True)]


def _embedded(model: Cimp, data: Dataset, crops: int | None) -> tuple[np.ndarray, np.ndarray]:
    return embed_dataset(model, data, crops=crops), model.embed_metadata(data.metadata_raw)


def _shares(pair: tuple[np.ndarray, np.ndarray], data: Dataset, pool: int, draws: int) -> np.ndarray:
    """(2, 3, n): of both directions, share of the draws in which each image was among the first 1, 5, 10."""
    cosine = pair[0] @ pair[1].T
    options = {"pool": pool, "draws": draws, "ks": TOP}
    return np.array([pool_hits(scores, data.groups, data.sessions, **options).shares for scores in (cosine, cosine.T)])


def _common(data: Dataset, split: str, seeds: Sequence[int], profile: str, command: str) -> dict:
    version = data.attributes.get("twin_version")
    return {"split": split, "seeds": list(seeds), "twin_version": version, **_origin(profile, command)}


def _origin(profile: str, command: str) -> dict:
    return {"profile": profile, "command": command}


def main() -> None:
    """``python -m cimp_core.study.splits_compared DATASET --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Train alike on splits of different kinds and compare.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, "siblings"], default=[*KINDS, "siblings"])
    parser.add_argument("--profile", default="book", choices=list(PROFILES), help="budget of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, help="folder in which trainings are kept, to go on from")
    parser.add_argument("--no-control", action="store_true", help="leave the control out")
    arguments = parser.parse_args()
    data, config = open_dataset(arguments.dataset), PROFILES[arguments.profile]
    options = {"seeds": arguments.seeds, "work": arguments.work, "profile": arguments.profile}
    rows, kinds = [], [kind for kind in arguments.kinds if kind in KINDS]
    if kinds:
        statistics = None if arguments.no_control else dataset_statistics(data)
        rows += split_rows(data, config, kinds=kinds, statistics=statistics, **options)
    if "siblings" in arguments.kinds:
        rows += sibling_rows(data, config, **options)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
