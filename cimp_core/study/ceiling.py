"""The identifiability ceiling: how often an oracle that knows every parameter to a stated precision finds the right
vector in the pools of `cimp_core.metrics.pool_topk`.

Settings come in habits, so some vectors lie so close together that no image could tell them apart. A model's Top-k is
read against this. The oracle knows each normalised parameter with a Gaussian error and takes the nearest candidate.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..dataset import Dataset, open_dataset
from ..metadata import PARAMETERS
from ..metrics import mean_interval, pool_topk
from ..results import update_results
from .rows import print_rows, retrieval_rows, row

__all__ = ["ceiling_rows", "is_alone", "oracle_scores", "oracle_topk", "parameter_scores"]

PRECISIONS = (0.05, 0.1, 0.2)
"""Errors of the oracle [standard deviations of each normalised parameter]."""
NEAR = 0.2
"""Vectors this close in every parameter count as alike [standard deviations]."""


def parameter_scores(estimate: np.ndarray, metadata: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Minus half the squared distance of every estimate to every candidate, in units of `spread`.

    Parameters
    ----------
    estimate, metadata : (q, 7), (c, 7) arrays
        Normalised parameters; one that is ``nan`` on either side does not count.
    spread : (7,) array
        Standard error of the estimate of each parameter.

    Returns
    -------
    (q, c) array
    """
    scores = np.zeros((len(estimate), len(metadata)))
    for j in range(len(PARAMETERS)):
        z = (estimate[:, j, None] - metadata[:, j]) / spread[j]
        scores -= 0.5 * np.nan_to_num(z) ** 2
    return scores


def oracle_topk(data: Dataset, precision: float, *, repeats: int = 5, seed: int = 0, **pools) -> dict:
    """`pool_topk` of an oracle with Gaussian errors of `precision` in every parameter, averaged over `repeats`.

    Further arguments go to `pool_topk`. The scores of the repeats share one set of pools; the interval is that of the
    repeats together, over sessions.
    """
    found = [
        pool_topk(scores, data.groups, data.sessions, seed=seed, **pools)
        for scores in oracle_scores(data, precision, repeats=repeats, seed=seed)
    ]
    result = dict(found[0])
    for key in result:
        if key.startswith("top"):
            result[key] = {end: float(np.mean([f[key][end] for f in found])) for end in ("value", "low", "high")}
    return result


def oracle_scores(data: Dataset, precision: float, *, repeats: int = 5, seed: int = 0) -> Iterator[np.ndarray]:
    """(n, n) scores of every image against every image's settings by an oracle with errors of `precision`, `repeats`
    times.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
    for _ in range(repeats):
        estimate = data.metadata + precision * rng.normal(size=data.metadata.shape)
        yield parameter_scores(estimate, data.metadata, np.full(len(PARAMETERS), precision))


def is_alone(metadata: np.ndarray, groups: np.ndarray, near: float = NEAR) -> np.ndarray:
    """(n,) bool: whether no other vector lies within `near` in every parameter (``nan`` agrees with anything)."""
    alike = np.asarray(groups)[:, None] != np.asarray(groups)
    for column in metadata.T:
        alike &= ~(np.abs(column[:, None] - column) > near)
    return ~alike.any(axis=1)


def ceiling_rows(
    data: Dataset,
    *,
    split: str = "session",
    val: float = 0.1,
    test: float = 0.12,
    seed: int = 0,
    precisions: Sequence[float] = PRECISIONS,
    pool: int = 450,
    draws: int = 200,
    repeats: int = 5,
    profile: str = "full",
    command: str = "python -m cimp_core.study.ceiling DATASET",
) -> list[dict]:
    """Rows of the ceiling on the held-out test part, ready for the results file.

    ``ceiling.retrieval.top1.image_to_metadata.sd005`` is the oracle with errors of 0.05 standard deviations;
    ``.other_sessions`` is without candidates of the image's own session; ``ceiling.alone`` is the share of held-out
    images whose vector has no other within 0.2 standard deviations in every parameter.

    Parameters
    ----------
    data : Dataset
    split, val, test, seed
        As in `Dataset.split`; `seed` is also that of the pools.
    precisions : sequence of float
        Errors of the oracle [standard deviations].
    pool, draws
        As in `cimp_core.metrics.pool_topk`.
    repeats : int
        Draws of the oracle's errors.
    profile, command : str
        Written into the rows.
    """
    held_out = data.split(split, val=val, test=test, seed=seed)[2]
    common = {"split": split, "profile": profile, "seeds": [seed], "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    rows = []
    for precision in precisions:
        for exclude in (False, True):
            found = oracle_topk(
                held_out, precision, repeats=repeats, seed=seed, pool=pool, draws=draws, exclude_same_session=exclude
            )
            name = "ceiling.retrieval.{k}.image_to_metadata" + f".sd{round(100 * precision):03d}"
            rows += retrieval_rows(name, found, exclude, common)
    alone = is_alone(held_out.metadata, held_out.groups).astype(float)
    interval = mean_interval(held_out.sessions, alone, seed=seed)
    return [*rows, row("ceiling.alone", alone.mean(), *interval, common)]


def main() -> None:
    """``python -m cimp_core.study.ceiling DATASET --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure the identifiability ceiling of a data set.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--test", type=float, default=0.12, help="share of the images held out for the test")
    arguments = parser.parse_args()
    rows = ceiling_rows(open_dataset(arguments.dataset), test=arguments.test, profile=arguments.profile)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
