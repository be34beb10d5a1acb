"""Probes of one data set in one table: the frozen embedding against what needs no contrastive training.

=================  ===================================================================================================
``probe``          ridge on the frozen embedding (rows made by `cimp_core.study.shipped`)
``probe.features``     ridge on the frozen layer that the embedding is projected from (made there too)
``probe.knn``      the mean over the 5 nearest training images in that embedding, as the paper's forerunner probed
``probe.statistics``   ridge on hand-made statistics of the image (`cimp_core.study.statistics`)
``probe.untrained``    ridge on the embedding of the same encoder with random weights
``probe.supervised``   the same encoder trained to predict the seven (`cimp_core.study.supervised`)
``control.probe``  gradient boosting on the statistics (rows made by `cimp_core.study.control`)
=================  ===================================================================================================

All are trained on the same training images, choose on the same validation images and are tested on the same sessions.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..dataset import Dataset, open_dataset
from ..models import Cimp, CimpConfig
from ..pretrain import CropSampler, PretrainConfig
from ..probe import Predictions, Regression, nearest, predict, ridge
from ..results import update_results
from ..weights import info, load
from .embedder import Embedder, embed_parts
from .probe_rows import probe_rows, within_rows
from .rows import print_rows
from .statistics_file import of_parts, stored_statistics
from .supervised import Supervised, load_supervised

__all__ = [
    "feature_rows",
    "seeds_of",
    "study_rows",
    "supervised_predictions",
    "untrained",
]


def seeds_of(names: Sequence[str | Path]) -> list[int]:
    """The seeds that weights were trained from, as their records have them; their places where one has none."""
    settings = [info(name).get("settings", {}) for name in names]
    return [int(s.get("seed", place)) for place, s in enumerate(settings)]


def untrained(config: CimpConfig, train: Dataset, seed: int = 0, batches: int = 4) -> Cimp:
    """A `Cimp` with random weights, whose norms have seen a few batches of crops of `train`.

    Without those the norms would let features of any scale pass, and the encoder would do worse than it need.
    """
    torch.manual_seed(seed)
    model = Cimp(config)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the plain mean of all batches
    few = train.view(np.random.default_rng(seed).permutation(len(train))[: 128 * batches])
    crop_size = min(config.crop_size, *(min(few.shape(i)) for i in range(len(few))))
    smallest = min(PretrainConfig.smallest_crop, crop_size)
    sampler = CropSampler(few, PretrainConfig(crop_size=crop_size, smallest_crop=smallest, seed=seed, mask_absolute=0))
    with torch.no_grad():
        for step in range(batches):
            intensity, metadata, absolute, _ = sampler(step)
            model.train()(intensity, metadata, absolute)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def feature_rows(
    name: str,
    features: Sequence[Sequence[np.ndarray]],
    parts: Sequence[Dataset],
    common: Mapping,
    seed: int = 0,
    regression: Regression = ridge,
) -> list[dict]:
    """`probe_rows` and `within_rows` of one kind of features, three (n, d) arrays for each of its seeds."""
    found = [predict(f, parts, regression) for f in features]
    rows = probe_rows(name, found, parts[2], common, seed)
    return rows + within_rows(name, features, parts, common, seed, regression)


def supervised_predictions(model: Supervised, parts: Sequence[Dataset]) -> Predictions:
    """`Predictions` of a supervised network: its own outputs, and, jointly with the other six, ridge on its outputs.

    The ridge is fitted to its outputs on the images that it was trained on, as every probe of a trained encoder is.
    """
    outputs = [model.predict(part, crops=n) for part, n in zip(parts, (1, 1, 4), strict=True)]
    found = predict(outputs, parts)
    return found._replace(image=np.where(np.isnan(found.image), np.nan, outputs[2]))


def study_rows(
    data: Dataset,
    models: Sequence[Cimp],
    *,
    seeds: Sequence[int] = (0,),
    statistics: np.ndarray | None = None,
    supervised: Sequence[Supervised] = (),
    split: str = "session",
    seed: int = 0,
    profile: str = "full",
    command: str = "python -m cimp_core.study.probes DATASET",
) -> list[dict]:
    """Rows of the probes of this page's head whose makers are not named there, ready for the results file.

    Parameters
    ----------
    data : Dataset
        The whole set; it is split as for the training of the weights.
    models : list of Cimp
        Trained alike from `seeds`; the untrained encoder is drawn from the same seeds.
    statistics : (n, f) array, optional
        Of every image of `data`; without it no ``probe.statistics``.
    supervised : list of Supervised
        Networks trained alike from several seeds; without one no ``probe.supervised``.
    split, seed, profile, command
        As in `cimp_core.study.control.control_rows`.
    """
    parts = data.split(split, seed=seed)
    common = {"split": split, "profile": profile, "seeds": list(seeds), "command": command}
    common["twin_version"] = data.attributes.get("twin_version")
    random = (untrained(models[0].config, parts[0], s) for s in seeds)
    embed = Embedder()
    rows = feature_rows("probe.knn", [embed_parts(m, parts, embed=embed) for m in models], parts, common, seed, nearest)
    rows += feature_rows("probe.untrained", [embed_parts(m, parts, embed=embed) for m in random], parts, common, seed)
    if statistics is not None:
        one = [of_parts(statistics, data, parts)]
        rows += feature_rows("probe.statistics", one, parts, common | {"seeds": [seed]}, seed)
    if supervised:
        several = [supervised_predictions(m, parts) for m in supervised]
        of_these = common | {"seeds": [m.seed for m in supervised]}
        rows += probe_rows("probe.supervised", several, parts[2], of_these, seed)
    return rows


def main() -> None:
    """``python -m cimp_core.study.probes DATASET --weights A --weights B --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Compare probes of the frozen embedding with others.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--weights", action="append", help="a shipped name or a file; again for each seed")
    parser.add_argument("--supervised", action="append", default=[], help="folder of a supervised network; again ...")
    parser.add_argument("--statistics", type=Path, help="their file, made if absent; by default beside --out")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    data, names = open_dataset(arguments.dataset), arguments.weights or ["cimp-twin-s"]
    file = arguments.statistics or arguments.out.with_suffix(".statistics.npz")
    rows = study_rows(
        data,
        [load(name) for name in names],
        seeds=seeds_of(names),
        statistics=stored_statistics(data, file),
        supervised=[load_supervised(folder) for folder in arguments.supervised],
        profile=arguments.profile,
    )
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
