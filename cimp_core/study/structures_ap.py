"""Does a micrograph find the other micrographs of its crystal, of prototypes that nothing was learnt from?

``python -m cimp_core.study.structures_ap --work FOLDER --out FILE.json``. The protocol is the thesis's at nearly its
size: about 650 crystals (672 there), 8 zone axes, 3 images each; an image asks, all others answer, 23 of them rightly.
Unlike there, images are turned in the plane, up to seven crystals share a prototype, so that some wrong answers are
nearly right, and `ASKED` of the images ask, not all. Trainings that are finished are not done again and one that was
stopped goes on; use another folder after a change of the code.

What is chosen, is chosen on the validation prototypes: the cells of heads and branches are compared there, at equal
length.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics_ranking import structure_precisions
from ..models.structure_encoder import StructureEncoder
from ..results import update_results
from ..structures.embedding import EmbeddingConfig, embed_lines, embed_set, make_encoder, train
from ..structures.map_files import Maps, structure_rng, zones_of
from ..structures.micrographs import MICROSCOPE, Conditions, draw_micrograph
from ..structures.micrographs import THESIS as THESIS_CONDITIONS
from ..structures.projection import IMAGE_MODEL, project
from ..structures.retrieval_sets import MapSet, test_set, training_set
from ..structures.spectrum_map import spectrum_map
from . import structures_baselines as baselines
from .rows import print_rows, row
from .seeds import over_seeds
from .shipped import known_mean

__all__ = ["CELLS", "SORTS", "THESIS", "ap_rows", "baseline_rows", "cell_rows", "thesis_table"]

SORTS = ("all", "same_view", "other_view", "other_prototypes")
"""What counts as a right answer, see `structure_precisions`."""

THESIS = {
    ("cts", "identity"): 0.3936,
    ("cts", "nonlinear"): 0.2076,
    ("cts+space_group", "identity"): 0.4302,
    ("cts+space_group", "nonlinear"): 0.2738,
    ("cts+prototype", "identity"): 0.4586,
    ("cts+prototype", "nonlinear"): 0.3826,
    ("space_group", "identity"): 0.1142,
    ("prototype", "identity"): 0.2616,
    ("untrained", "identity"): 0.0125,
}
"""Mean AP of the thesis's tables 5.1 and 5.2 by branch and head, on its own images of ICSD crystals. Its "icsd" tells
crystals where ours tells prototypes; its "untrained" is a network that learnt from photographs."""

CELLS = [cell for cell in THESIS if cell[0] != "untrained"]

LENGTHS = {"resnet": 262_144, "lines": 2_560}
"""Samples of a cell's training, of the thesis's network and of ours, which begins as a likeness and learns less."""

SEEDS = (0, 1, 2)

ASKED = 2016
"""Queries: three images of each crystal, and a fourth of some."""


def cell_rows(data: MapSet, val: MapSet, work: Path, common: Mapping[str, Any], lengths=LENGTHS) -> list[dict]:
    """Rows ``structures.ap.ablation.NETWORK.BRANCH.HEAD.SORT``: each cell trained, and untrained, on validation."""
    rows, query = [], some_queries(val, ASKED)
    for network, samples in lengths.items():
        for branch, head in THESIS:
            config = ablation_config(network, "cts" if branch == "untrained" else branch, head, samples)
            name = f"{network}.{branch}.{head}".replace("+", "_and_")
            model = make_encoder(data, config) if branch == "untrained" else train(data, None, config, work / name)
            found = precisions(embed_set(model, val), val, query)
            rows += summary(f"structures.ap.ablation.{name}", [found], val, common, query, ("all", "other_view"))
    return rows


def ablation_config(network: str, branch: str, head: str, samples: int) -> EmbeddingConfig:
    """Settings of a cell: as of the shipped weights, but for what the cell is about, the length, and fewer waves.

    The residual network is a quarter as wide as ResNet-18, and has smaller batches, of which more fit into its length.
    """
    resnet = {"width": 16, "batch_size": 64, "peak_rate": 2e-3} if network == "resnet" else {}
    return EmbeddingConfig(
        samples=samples, network=network, branch=branch, head=head, waves=256, validate_every=10**9,
        warmup=samples // 10, ema_half_life=samples // 8, checkpoint_every=max(1_024, samples // 5), **resnet,
    )  # fmt: skip


def precisions(z: np.ndarray, data: MapSet, query: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`structure_precisions` of all images, or of some, of a set whose embeddings are the unit rows `z`."""
    query = np.arange(len(z)) if query is None else query
    parts = [
        structure_precisions(z[some] @ z.T, some, data.maps.structure, data.maps.view, data.prototype)
        for some in np.array_split(query, max(1, len(query) // 256))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in SORTS}


def summary(
    name: str,
    found: Sequence[Mapping[str, np.ndarray]],
    data: MapSet,
    common: Mapping[str, Any],
    query: np.ndarray | None = None,
    sorts: Sequence[str] = SORTS,
) -> list[dict]:
    """Rows ``NAME.SORT``: means over queries, with intervals over prototypes, and seeds where there are several."""
    clusters = data.prototype if query is None else data.prototype[query]
    return [
        row(f"{name}.{sort}", *over_seeds(known_mean, clusters, [(one[sort],) for one in found]), common,
            len(data.prototype) - 1)
        for sort in sorts
    ]  # fmt: skip


def ap_rows(
    models: Sequence[StructureEncoder], data: MapSet, name: str, common: Mapping[str, Any], contrast: bool = True
) -> list[dict]:
    """Rows of models trained alike from several seeds: ``NAME.SORT`` of `ASKED` queries, and the time of a query."""
    found, query = [], some_queries(data, ASKED)
    for model in models:
        z = embed_set(model, data, contrast=contrast)
        found.append(precisions(z, data, query))
    began = time.process_time()
    embed_lines(models[0], data.maps.lines[:256])
    z[:256] @ z.T
    return summary(name, found, data, common, query) + timed(name, (time.process_time() - began) / 256, common)


def timed(name: str, seconds: float, common: Mapping[str, Any]) -> list[dict]:
    """Row of the processor time of a query."""
    nan = float("nan")
    return [row(f"{name}.per_query", 1e3 * seconds, nan, nan, common) | {"unit": "ms"}]


def baseline_rows(data: MapSet, common: Mapping[str, Any], queries: int = 96) -> list[dict]:
    """Rows of what compares maps and needs no training, for some queries against the whole set."""
    query = some_queries(data, queries)
    rows = []
    for method in ("radial_profile", "polar_fft"):
        began = time.process_time()
        scores = getattr(baselines, method)(data.maps.values, query)
        seconds = (time.process_time() - began) / len(query)
        found = structure_precisions(scores, query, data.maps.structure, data.maps.view, data.prototype)
        name = f"structures.ap.{method}"
        rows += summary(name, [found], data, common, query) + timed(name, seconds, common)
    return rows


def disturbed_rows(data: MapSet, model: StructureEncoder, common: Mapping[str, Any], queries: int) -> list[dict]:
    """Rows of the embedding on recorded images whose settings differ as on a microscope, or whose scale is wrong.

    ``structures.ap.small.microscope``, where the error of lengths by the scan is told, also without contrast and
    untrained, and ``structures.ap.small.pixel_size_PERMILLE``: of queries whose pixel size is told too large by so
    much, in a library told rightly; with ``_told`` it is told that lengths may be wrong by so much.
    """
    rows = []
    small, _ = recorded_set(data, MICROSCOPE)
    query = some_queries(small, queries)
    plain = make_encoder(data, EmbeddingConfig())
    cases = {
        "microscope": (model, True),
        "microscope_no_contrast": (model, False),
        "microscope_untrained": (plain, True),
    }
    for name, (asked, contrast) in cases.items():
        found = precisions(embed_set(asked, small, MICROSCOPE.distortion, contrast=contrast), small, query)
        rows += summary(f"structures.ap.small.{name}", [found], small, common, query, SORTS[:3])
    z = embed_set(model, small)
    for permille in (2, 5, 10, 50):
        wrong = small.maps.lines[query].copy()
        wrong[..., 0] -= np.log1p(permille / 1000)
        for told, ending in ((0.0, ""), (permille / 1000, "_told")):
            scores = embed_lines(model, wrong, told) @ z.T
            found = structure_precisions(scores, query, small.maps.structure, small.maps.view, small.prototype)
            name = f"structures.ap.small.pixel_size_{permille}{ending}"
            rows += summary(name, [found], small, common, query, SORTS[:3])
    return rows


def pixel_rows(
    data: MapSet, model: StructureEncoder, common: Mapping[str, Any], queries: int, ssim_queries: int, seed: int = 0
) -> list[dict]:
    """Rows ``structures.ap.small.METHOD.SORT``: what compares images, and the others, on one crystal a prototype.

    Here all methods see recorded images.
    """
    small, images = recorded_set(data, THESIS_CONDITIONS)
    query, z = some_queries(small, queries, seed), embed_set(model, small)
    methods = {
        "embedding": lambda q: z[q] @ z.T,
        "line_spectrum": lambda q: baselines.line_spectrum(small.maps.lines, q),
        "radial_profile": lambda q: baselines.radial_profile(small.maps.values, q),
        "polar_fft": lambda q: baselines.polar_fft(small.maps.values, q),
        "fft_magnitude": lambda q: baselines.fft_magnitude(images, q),
        "pixel_correlation": lambda q: baselines.pixel_correlation(images, q),
        "ssim": lambda q: baselines.structural_similarity(images, q),
    }
    rows = []
    for method, scores in methods.items():
        asked = query[:ssim_queries] if method == "ssim" else query
        began = time.process_time()
        found = scores(asked)
        seconds = (time.process_time() - began) / len(asked)
        found = structure_precisions(found, asked, small.maps.structure, small.maps.view, small.prototype)
        name = f"structures.ap.small.{method}"
        rows += summary(name, [found], small, common, asked, SORTS[:3]) + timed(name, seconds, common)
    return rows


def some_queries(data: MapSet, count: int, seed: int = 0) -> np.ndarray:
    """Images to ask with, in an order in which any part of them is spread over the crystals."""
    rng = np.random.default_rng((seed, 7))
    crystals = np.unique(data.maps.structure)
    rounds = -(-count // len(crystals))
    picked = np.concatenate([rng.permutation(crystals) for _ in range(rounds)])[:count]
    return np.array([rng.choice(np.flatnonzero(data.maps.structure == c)) for c in picked])


def recorded_set(data: MapSet, conditions: Conditions, zones: int = 8, repeats: int = 3) -> tuple[MapSet, np.ndarray]:
    """Recorded images (n, rows, columns) float32 of the first crystal of each prototype of a set, and their maps."""
    crystals = data.structures[: len({s.prototype for s in data.structures})]
    images, made, labels = [], [], []
    for number, structure in enumerate(crystals):
        rng = structure_rng(structure, 0)
        for view, zone in enumerate(zones_of(structure, zones)):
            projection = project(structure, zone)
            for _ in range(repeats):
                image, pixel_size = draw_micrograph(projection, conditions, rng)
                images.append(image)
                made.append(spectrum_map(image, pixel_size))
                labels.append((number, zones * number + view))
    values, *scalars, lines = map(np.array, zip(*made, strict=True))
    structure_of, view_of = np.array(labels).T
    maps = Maps(values, lines, np.stack(scalars, 1).astype(np.float32), structure_of, view_of)
    return MapSet(maps, crystals, structure_of, structure_of), np.stack(images)


def thesis_table(rows: Sequence[Mapping[str, Any]]):
    """Table of the cells: our mean AP on validation prototypes, and the thesis's on its own data (pandas)."""
    import pandas as pd

    ours = {r["name"]: r["value"] for r in rows}
    return pd.DataFrame(
        [
            {
                "learnt": branch.replace("+", " + ").replace("_", " "),
                "head": head,
                **{
                    f"mean AP, {title}": ours.get(
                        f"structures.ap.ablation.{network}.{branch.replace('+', '_and_')}.{head}.all"
                    )
                    for network, title in (("resnet", "ResNet here"), ("lines", "reflections here"))
                },
                "mean AP, thesis (other data)": theirs,
            }
            for (branch, head), theirs in THESIS.items()
        ]
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/structures"), help="folder of maps and trainings")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--no-cells", action="store_true", help="leave out the cells of heads and branches")
    parser.add_argument("--ssim-queries", type=int, default=24)
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    work = arguments.work
    command = "python -m cimp_core.study.structures_ap --work FOLDER"
    common = {"profile": arguments.profile, "twin_version": None, "command": command}
    data, val, test = training_set(work), test_set(work, "val"), test_set(work)
    models = [train(data, val, EmbeddingConfig(seed=seed), work / f"seed{seed}") for seed in SEEDS]
    split = f"prototype, image model {IMAGE_MODEL}"
    one, several = (common | {"split": split, "seeds": list(seeds)} for seeds in (SEEDS[:1], SEEDS))
    on_val = one | {"split": f"{split}, validation part"}

    def keep(rows: list[dict]) -> None:
        update_results(arguments.out, rows)
        print_rows(rows)

    keep(ap_rows(models, test, "structures.ap.embedding", several))
    keep(ap_rows([make_encoder(data, EmbeddingConfig())], test, "structures.ap.untrained", one))
    keep(baseline_rows(test, one))
    keep(pixel_rows(test, models[0], one, 192, arguments.ssim_queries))
    if not arguments.no_cells:
        keep(cell_rows(data, val, work / "cells", on_val))
    keep(disturbed_rows(test, models[0], one, 192))
    keep(ap_rows(models[:1], test, "structures.ap.embedding_no_contrast", one, contrast=False))


if __name__ == "__main__":
    main()
