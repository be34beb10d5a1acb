"""The primary endpoints: named before the run, each with the target that the lower end of its interval has to reach.

A model is read against two fixed things. The *control*, gradient boosting on hand-made statistics, is what needs no
network; the *ceiling*, an oracle that knows every setting up to a stated error, is what no image could beat. All three
answer the same test images in the same pools, so ratios and differences are paired, and intervals are over sessions
and over the seeds of the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..dataset import Dataset, open_dataset
from ..errors import SchemaError
from ..metadata import PARAMETERS
from ..metrics import pool_hits, r2
from ..models import Cimp
from ..probe import predict
from ..results import update_results
from ..weights import load
from .ceiling import oracle_scores, parameter_scores
from .control import control_estimates
from .embedder import Embedder, embed_parts
from .probe_rows import below_rows, within_rows
from .probes import seeds_of
from .rows import row
from .seeds import over_seeds
from .shipped import known_mean
from .statistics import dataset_statistics
from .statistics_file import of_parts, stored_statistics

__all__ = ["TARGETS", "endpoint_rows", "endpoint_table", "few_of_each"]

TARGETS: dict[str, float] = {
    "endpoint.top1_over_control": 2.0,
    "endpoint.top1_over_ceiling": 0.5,
    "endpoint.r2_minus_control.detector_gain": 0.0,
    "endpoint.r2_minus_control.detector_offset": 0.0,
    "endpoint.r2_minus_control.dwell_time": 0.0,
    "endpoint.r2_minus_control.pixel_size": 0.0,
    "endpoint.r2.pixel_size_within_40pm": 0.5,
    "endpoint.r2.pixel_size_below_40pm": 0.5,
}
"""What the lower end of an endpoint's 95 % interval has to reach; a difference of zero has to be exceeded."""

PRECISION = 0.05
"""Error of the oracle of the primary endpoint [standard deviations]; others are reported beside it."""


def endpoint_rows(
    models: Sequence[Cimp],
    data: Dataset,
    statistics: np.ndarray,
    *,
    more: tuple[np.ndarray, np.ndarray] | None = None,
    seeds: Sequence[int] = (0,),
    precisions: Sequence[float] = (PRECISION, 0.1, 0.2),
    split: str = "session",
    seed: int = 0,
    pool: int = 450,
    draws: int = 200,
    profile: str = "full",
    command: str = "python -m cimp_core.study.endpoints DATASET",
) -> list[dict]:
    """Rows of the endpoints, ready for the results file.

    ``endpoint.top1_over_control``: Top-1 from image to settings, the model's over the control's;
    ``endpoint.top1_over_ceiling``: over that of the oracle at `PRECISION`, ``.sd010`` and ``.sd020`` at other errors;
    ``endpoint.r2_minus_control.NAME``: R2 of ridge on the frozen features minus that of the control, and
    ``endpoint.embedding.r2_minus_control.NAME``, that on the embedding which is projected from them;
    ``endpoint.r2.pixel_size_within_40pm``: where atoms are resolved, by a probe that is told so;
    ``endpoint.r2.pixel_size_below_40pm``: the same images, by the probe of all images, which is not told; see
    `cimp_core.study.probe_rows`. With several models each is the mean over them.

    Parameters
    ----------
    models : list of Cimp
        Trained alike from `seeds`.
    statistics : (n, f) array
        Of every image of `data`, for the control.
    more : (m, f) and (m, 7) array, optional
        Statistics and settings [SI] of images of other sessions, from which the control may learn as well.
    precisions : sequence of float
        Errors of the oracle [standard deviations].
    split, seed, pool, draws, profile, command
        As in `cimp_core.study.control.control_rows`.
    """
    parts = data.split(split, seed=seed)
    held_out = parts[2]
    common = {"split": split, "profile": profile, "seeds": list(seeds), "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    embed = Embedder()
    features, embeddings = (
        [embed_parts(model, parts, features=which, embed=embed) for model in models] for which in (True, False)
    )
    images, settings = of_parts(statistics, data, parts), [part.metadata for part in parts[:2]]
    if more is not None:
        images[0] = np.concatenate([images[0], more[0]])
        settings[0] = np.concatenate([settings[0], parts[0].normalizer.normalize(more[1])])
    estimate, spread = control_estimates(images, settings, seed)

    def top1(scores: np.ndarray) -> np.ndarray:
        """(n,) share of the pools in which each image was answered first; the pools are the same for all scores."""
        hits = pool_hits(scores, held_out.groups, held_out.sessions, pool=pool, draws=draws, ks=(1,), seed=seed)
        return hits.shares[0]

    ours = [top1(z[2] @ m.embed_metadata(held_out.metadata_raw).T) for z, m in zip(embeddings, models, strict=True)]
    against = {"endpoint.top1_over_control": top1(parameter_scores(estimate, held_out.metadata, spread))}
    for precision in precisions:
        ending = "" if precision == PRECISION else f".sd{round(100 * precision):03d}"
        several = [top1(scores) for scores in oracle_scores(held_out, precision, seed=seed)]
        against[f"endpoint.top1_over_ceiling{ending}"] = np.mean(several, axis=0)
    rows = []
    for name, theirs in against.items():
        numbers = over_seeds(_ratio, held_out.sessions, [(own, theirs) for own in ours], seed=seed)
        rows.append(row(name, *numbers, common, pool))
    predicted = [predict(f, parts).image for f in features]
    for prefix, found in (
        ("endpoint", predicted),
        ("endpoint.embedding", [predict(z, parts).image for z in embeddings]),
    ):
        for j, name in enumerate(PARAMETERS):
            columns = [(held_out.metadata[:, j], p[:, j], estimate[:, j]) for p in found]
            numbers = over_seeds(_difference, held_out.sessions, columns, seed=seed)
            rows.append(row(f"{prefix}.r2_minus_control.{name}", *numbers, common))
    fine = within_rows("endpoint", features, parts, common, seed)
    fine += below_rows("endpoint", [p[:, 0] for p in predicted], held_out, common, seed)
    return rows + [made for made in fine if made["name"] in TARGETS]


def few_of_each(data: Dataset, count: int) -> Dataset:
    """The first `count` images of every session."""
    order = np.argsort(data.sessions, kind="stable")
    place = np.arange(len(data)) - np.searchsorted(data.sessions[order], data.sessions[order])
    return data.view(np.sort(order[place < count]))


def _ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    other = known_mean(theirs)
    return known_mean(ours) / other if other > 0 else float("nan")


def _difference(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    return r2(truth, ours) - r2(truth, theirs)


def endpoint_table(rows: Sequence[dict]) -> pd.DataFrame:
    """Endpoints with their targets and whether these are met, from rows of the results file; others are passed over.

    Returns
    -------
    DataFrame
        Index ``endpoint`` (the name without "endpoint."), in the order of `TARGETS`, then those without a target;
        columns ``value``, ``low``, ``high``, ``target`` (text, empty where there is none), ``met`` ("yes", "no", "" or
        "not measured"), ``seeds`` (their number).

    Raises
    ------
    SchemaError
        An endpoint occurs twice: the rows are of several profiles or data sets.
    """
    found = [made for made in rows if made["name"].startswith("endpoint.")]
    names = [made["name"] for made in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SchemaError(f"rows of {', '.join(twice)} occur twice: choose one profile and one data set first")
    order = [*TARGETS, *(name for name in names if name not in TARGETS)]
    table = [_line(made) for made in sorted(found, key=lambda made: order.index(made["name"]))]
    columns = ["endpoint", "value", "low", "high", "target", "met", "seeds"]
    return pd.DataFrame(table, columns=columns).set_index("endpoint")


def _line(made: dict) -> dict:
    target, low = TARGETS.get(made["name"]), made["low"]
    met = "" if target is None else "not measured"
    if target is not None and low is not None:
        met = "yes" if (low > 0 if target == 0 else low >= target) else "no"
    sign = "" if target is None else f"> {target:g}" if target == 0 else f"≥ {target:g}"
    numbers = {key: np.nan if made[key] is None else made[key] for key in ("value", "low", "high")}
    name = made["name"].removeprefix("endpoint.")
    return {"endpoint": name, **numbers, "target": sign, "met": met, "seeds": len(made["seeds"])}


def main() -> None:
    """``python -m cimp_core.study.endpoints DATASET --weights A --weights B --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure the primary endpoints of trained weights.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--weights", action="append", help="a shipped name or a file; again for each seed")
    parser.add_argument("--statistics", type=Path, help="their file, made if absent; by default beside --out")
    parser.add_argument("--more", type=Path, help="data set from whose other sessions the control learns as well")
    parser.add_argument("--each", type=int, default=2, help="images of each of these sessions")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--prefix", default="endpoint", help="first part of the rows' names, another for other weights")
    arguments = parser.parse_args()
    data, names = open_dataset(arguments.dataset), arguments.weights or ["cimp-twin-s"]
    statistics = stored_statistics(data, arguments.statistics or arguments.out.with_suffix(".statistics.npz"))
    models, more, command = [load(name) for name in names], None, "python -m cimp_core.study.endpoints DATASET"
    if arguments.more is not None:
        others = few_of_each(open_dataset(arguments.more).without_sessions_of(*data.split("session")), arguments.each)
        print(f"the control learns from {len(others)} more images, of {len(np.unique(others.sessions))} sessions")
        more = dataset_statistics(others), others.metadata_raw
        command += f" --more LARGE --each {arguments.each}"
    common = {"seeds": seeds_of(names), "profile": arguments.profile, "command": command}
    rows = endpoint_rows(models, data, statistics, more=more, **common)
    named = [made | {"name": arguments.prefix + made["name"].removeprefix("endpoint")} for made in rows]
    update_results(arguments.out, named)
    with pd.option_context("display.width", 120, "display.max_columns", None):
        print(endpoint_table(rows).round(3))


if __name__ == "__main__":
    main()
