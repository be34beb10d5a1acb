"""The control: gradient boosting on hand-made statistics of the image, no network.

It is fixed, so that a network's scores can be read against it: same split, same pools, same intervals. One model a
parameter is trained on the training part; the number of trees is chosen on validation; the test part is seen once.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from ..dataset import Dataset, open_dataset
from ..metadata import PARAMETERS
from ..metrics import bootstrap_interval, median_relative_error, partial_r2, pool_topk, r2
from ..probe import in_si
from ..results import update_results
from .ceiling import parameter_scores
from .probe_rows import below_rows, within_rows
from .rows import print_rows, retrieval_rows, row
from .statistics import dataset_statistics
from .statistics_file import of_parts, stored_statistics

__all__ = ["boost", "control_estimates", "control_rows"]

TREES = 300


def boost(features: list[np.ndarray], target: list[np.ndarray], seed: int = 0) -> tuple[np.ndarray, float]:
    """Predict one parameter with gradient boosting.

    Parameters
    ----------
    features : three (n, f) arrays
        Of the training, validation and test images; ``nan`` is allowed.
    target : two (n,) arrays
        Normalised parameter of the training and validation images; rows with ``nan`` are left out.
    seed : int

    Returns
    -------
    predicted : (n_test,) array
        Of the number of trees that is best on validation.
    spread : float
        Root mean square error on validation [standard deviations]; at least 0.001, which a constant parameter has.
    """
    known = [~np.isnan(t) for t in target]
    model = HistGradientBoostingRegressor(
        max_iter=TREES,
        learning_rate=0.06,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    truth = target[1][known[1]]
    # One thread: tables this small gain little from more, and on a busy machine threads wait for one another.
    with threadpool_limits(1):
        model.fit(features[0][known[0]], target[0][known[0]])
        errors = [np.mean((p - truth) ** 2) for p in model.staged_predict(features[1][known[1]])]
        best = int(np.argmin(errors))
        predicted = next(islice(model.staged_predict(features[2]), best, None))
    return predicted, max(float(np.sqrt(errors[best])), 1e-3)


def control_estimates(
    images: list[np.ndarray], metadata: list[np.ndarray], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The seven normalised parameters of the test images (n_test, 7), and the error of each on validation (7,).

    Parameters
    ----------
    images : three (n, f) arrays
        Statistics of the training, validation and test images.
    metadata : two (n, 7) arrays
        Normalised parameters of the training and validation images.
    """
    found = [boost(images, [m[:, j] for m in metadata], seed) for j in range(len(PARAMETERS))]
    return np.stack([predicted for predicted, _ in found], axis=1), np.array([spread for _, spread in found])


def control_rows(
    data: Dataset,
    *,
    statistics: np.ndarray | None = None,
    split: str = "session",
    val: float = 0.1,
    test: float = 0.12,
    seed: int = 0,
    pool: int = 450,
    draws: int = 200,
    profile: str = "full",
    command: str = "python -m cimp_core.study.control DATASET",
    workers: int | None = None,
) -> list[dict]:
    """Rows of the control on the held-out test part, ready for the results file.

    ``control.probe.r2.NAME`` is the R2 of the normalised parameter from the image alone, ``control.others.r2.NAME``
    from the other six parameters without the image, ``control.probe.partial_r2.NAME`` what the image adds to those,
    ``control.probe.median_error.NAME`` the median relative error; four more are of images below 40 pm, see
    `cimp_core.study.probe_rows`. ``control.retrieval.top1.image_to_metadata`` takes the vector nearest to the seven
    predictions, each weighed by its error on validation; ``.other_sessions`` is without candidates of the image's own
    session.

    Parameters
    ----------
    data : Dataset
    statistics : (n, f) array, optional
        Of every image; measured if not given.
    split, val, test, seed
        As in `Dataset.split`; `seed` is also that of pools and models.
    pool, draws
        As in `cimp_core.metrics.pool_topk`.
    profile, command : str
        Written into the rows.
    workers : int, optional
        Processes that measure the statistics.
    """
    statistics = dataset_statistics(data, workers) if statistics is None else statistics
    parts = data.split(split, val=val, test=test, seed=seed)
    images = of_parts(statistics, data, parts)
    metadata = [part.metadata for part in parts]
    held_out = parts[2]
    common = {"split": split, "profile": profile, "seeds": [seed], "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    estimate, spread = control_estimates(images, metadata[:2], seed)
    rows = below_rows("control.probe", [estimate[:, 0]], held_out, common, seed)
    rows += within_rows("control.probe", [images], parts, common, seed, lambda f, t: boost(f, t, seed)[0])
    for j, name in enumerate(PARAMETERS):
        others = [np.delete(m, j, axis=1) for m in metadata]
        joint = [np.concatenate(pair, axis=1) for pair in zip(images, others, strict=True)]
        target, truth = [metadata[0][:, j], metadata[1][:, j]], held_out.metadata[:, j]
        alone, full = boost(others, target, seed)[0], boost(joint, target, seed)[0]
        for score, statistic, columns in (
            ("probe.r2", r2, (truth, estimate[:, j])),
            ("others.r2", r2, (truth, alone)),
            ("probe.partial_r2", partial_r2, (truth, full, alone)),
            ("probe.median_error", median_relative_error, in_si(held_out.normalizer, j, truth, estimate[:, j])),
        ):
            interval = bootstrap_interval(statistic, held_out.sessions, *columns, seed=seed)
            rows.append(row(f"control.{score}.{name}", statistic(*columns), *interval, common))
    scores = parameter_scores(estimate, held_out.metadata, spread)
    for exclude in (False, True):
        for direction, matrix in (("image_to_metadata", scores), ("metadata_to_image", scores.T)):
            found = pool_topk(
                matrix,
                held_out.groups,
                held_out.sessions,
                pool=pool,
                draws=draws,
                exclude_same_session=exclude,
                seed=seed,
            )
            rows += retrieval_rows("control.retrieval.{k}." + direction, found, exclude, common)
    return rows


def main() -> None:
    """``python -m cimp_core.study.control DATASET --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure the control on a data set.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--test", type=float, default=0.12, help="share of the images held out for the test")
    parser.add_argument("--workers", type=int, help="processes that measure the statistics")
    parser.add_argument("--statistics", type=Path, help="file that keeps the statistics, made if absent")
    arguments = parser.parse_args()
    data, file, workers = open_dataset(arguments.dataset), arguments.statistics, arguments.workers
    statistics = None if file is None else stored_statistics(data, file, workers)
    rows = control_rows(
        data, statistics=statistics, test=arguments.test, profile=arguments.profile, workers=arguments.workers
    )
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
