"""How good is a re-rendering, measured against the same area re-acquired, on materials held out.

``python -m cimp_core.study.restyling TWIN --out FILE.json`` changes each parameter alone and all six at once, and lets
every route render the change: the image left as it is, arithmetic, the translator, and what `cimp.rerender` takes; a
second recording of the truth goes the same way, as the best that can be reached. ``--sweep FILE`` does the same with
pairs of images of a real sweep, of which only recordings are known.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..analytic import analytic
from ..dataset import Dataset, open_dataset
from ..errors import OutOfRangeError
from ..metadata import PARAMETERS, Acquisition
from ..metrics import cosine_gaps, mean_interval
from ..models import Cimp
from ..renderer import Renderer
from ..rerendering import rerender
from ..results import update_results
from ..sweeps import open_sweep
from ..weights import load
from .restyling_cases import CHANGED, Case, cases_of
from .restyling_scores import SCORES, Reader, scores
from .rows import print_rows, row

__all__ = [
    "UNITS",
    "chosen_images",
    "evaluate",
    "preferred_routes",
    "read_back",
    "rendered",
    "restyling_rows",
    "routes",
    "sweep_cases",
    "sweep_rows",
]

UNITS = {"psnr": "dB", "lattice": "periods", "histogram": "%"}

EACH = ("psnr", "histogram")
"""Scores of each parameter alone that get rows: the picture, and the noise with it."""

Route = Callable[[Case], np.ndarray]


def routes(renderer: Renderer, *, seed: int = 0) -> dict[str, Route]:
    """Ways to render a case, by name; ``recording`` is the truth itself, where there is one."""

    def arithmetic(case: Case) -> np.ndarray:
        return analytic(case.frame, case.source, case.target, seed=seed)

    def default(case: Case) -> np.ndarray:
        known = [n for n in CHANGED if getattr(case.source, n) is not None]
        changes = {n: getattr(case.target, n) for n in known}
        return rerender(case.frame, case.source, renderer=renderer, seed=seed, **changes).image

    def truth(case: Case) -> np.ndarray:
        if case.recording is None:
            raise OutOfRangeError("the area was not recorded under the settings asked for")
        return case.recording.astype(np.float32)

    return {
        "unchanged": lambda case: case.frame.astype(np.float32),
        "analytic": arithmetic,
        "generator": lambda case: renderer(case.frame, case.source, case.target, seed=seed),
        "rerender": default,
        "recording": truth,
    }


def chosen_images(data: Dataset, images: int, seed: int = 0) -> np.ndarray:
    """Images of a view, drawn evenly over its sessions."""
    order = np.random.default_rng((seed, 14)).permutation(len(data))
    _, first = np.unique(np.asarray(data.sessions)[order], return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    return np.sort(order[np.concatenate([np.sort(first), rest])][:images])


def rendered(cases: Sequence[Case], ways: Mapping[str, Route]) -> dict[str, list[np.ndarray]]:
    """All cases by each route, in whole counts; a route that lacks a setting, or the truth, is left out and named."""
    made = {}
    for name, way in ways.items():
        try:
            made[name] = [np.rint(way(case)).astype(np.uint16) for case in cases]
        except OutOfRangeError as error:
            print(f"{name}: left out, {error}")
    return made


def read_back(images: Mapping[str, Sequence[np.ndarray]], cases: Sequence[Case], reader: Reader) -> pd.DataFrame:
    """Mean |read minus wanted| of each setting [standard deviations], a line a setting, a column a route."""
    wanted = reader.normalizer.normalize(np.array([case.target.vector() for case in cases]))
    read = reader([reader.look(image) for made in images.values() for image in made])
    away = np.abs(read.reshape(len(images), *wanted.shape) - wanted).mean(1)[:, 1:]
    return pd.DataFrame(dict(zip(images, away, strict=True)), index=PARAMETERS[1:])


def evaluate(
    cases: Sequence[Case],
    ways: Mapping[str, Route],
    *,
    reader: Reader | None = None,
    encoders: Mapping[str, Cimp] | None = None,
) -> pd.DataFrame:
    """One line a case and route: ``case``, ``index``, ``change``, ``route``, the `SCORES`, and more where asked for.

    With a `reader`, ``read.NAME``: |read minus wanted| of each parameter [standard deviations]. With `encoders`,
    ``gap.NAME``: cosine with the wanted settings minus the mean of that with the settings of the other cases.
    """
    lines, seen = [], []
    for name, way in ways.items():
        images = [np.asarray(way(case), np.float32) for case in cases]
        table = pd.DataFrame([scores(made, case) for made, case in zip(images, cases, strict=True)], columns=SCORES)
        wanted = np.array([case.target.vector() for case in cases])
        seen += [reader.look(image) for image in images] if reader is not None else []
        for label, encoder in (encoders or {}).items():
            rows = encoder.embed_images([np.rint(i).astype(np.uint16) for i in images], crops=1)
            table[f"gap.{label}"] = cosine_gaps(rows, encoder.embed_metadata(wanted), np.arange(len(cases)))
        table.insert(0, "route", name)
        table.insert(0, "change", [case.change for case in cases])
        table.insert(0, "index", [case.index for case in cases])
        table.insert(0, "case", range(len(cases)))
        lines.append(table)
    table = pd.concat(lines, ignore_index=True)
    if reader is not None:  # learns once for all
        away = np.abs(reader(seen) - reader.normalizer.normalize(np.tile(wanted, (len(ways), 1))))
        table[[f"read.{p}" for p in PARAMETERS]] = away
    return table


def restyling_rows(table: pd.DataFrame, sessions: np.ndarray, common: Mapping, *, prefix: str = "style") -> list[dict]:
    """Rows for the results file: what the book shows.

    ``style.psnr.CHANGE.ROUTE``, ``style.histogram.CHANGE.ROUTE``: each parameter alone, and ``joint``; of joint changes
    also the other `SCORES`, ``style.read.NAME.joint.ROUTE`` and ``style.gap.ENCODER.ROUTE``.

    Parameters
    ----------
    sessions : (n,) array
        Of the images that ``index`` counts.
    """
    rows = []

    def add(name: str, part: pd.DataFrame, column: str, unit: str = "") -> None:
        part = part[np.isfinite(part[column])]
        if len(part):
            clusters, values = sessions[part["index"]], part[column].to_numpy(float)
            numbers = float(values.mean()), *mean_interval(clusters, values)
            rows.append({**row(f"{prefix}.{name}", *numbers, common, len(part)), "unit": unit})

    kind = table["change"].str.replace(r"[+-]\d$", "", regex=True)
    for change in [*CHANGED, "joint"]:
        for route in dict.fromkeys(table["route"]):
            part = table[(kind == change) & (table["route"] == route)]
            for score in SCORES if change == "joint" else EACH:
                add(f"{score}.{change}.{route}", part, score, UNITS.get(score, ""))
            for name in CHANGED if change == "joint" else ():
                if f"read.{name}" in table:
                    add(f"read.{name}.joint.{route}", part, f"read.{name}", "sd")
            for column in [c for c in table if c.startswith("gap.") and change == "joint"]:
                add(f"{column.replace('-', '_')}.{route}", part, column)
    return rows


def preferred_routes(table: pd.DataFrame, cases: Sequence[Case]) -> pd.DataFrame:
    """Mean scores of each route where one parameter alone was lowered or raised.

    `cimp_core.rerendering.ROUTES` has the route with the least sum of ranks in histogram, noise and spectrum, column
    ``ranks``; validation materials decide, the test is not looked at. Lines: parameter, direction; columns: score,
    route.
    """
    alone = table[table["change"] != "joint"].copy()
    alone["parameter"] = alone["change"].str[:-2]
    moved = [
        getattr(cases[k].target, n) > getattr(cases[k].source, n)
        for k, n in zip(alone["case"], alone["parameter"], strict=True)
    ]
    alone["direction"] = np.where(moved, "raised", "lowered")
    by = ["parameter", "direction", "route"]
    means = alone.groupby(by)[["histogram", "psnr", "noise", "spectrum"]].mean().unstack("route")
    tried = [route for route in ("unchanged", "analytic", "generator") if route in means["noise"]]
    ranks = sum(means[score][tried].rank(axis=1) for score in ("histogram", "noise", "spectrum"))
    return means.join(pd.concat({"ranks": ranks}, axis=1))


def sweep_cases(
    path: str | Path, settings: Acquisition | None = None, *, most: int = 30, size: int = 512
) -> list[Case]:
    """Pairs of images of a sweep: one as the source, another as the truth, of which only a recording is known.

    Parameters
    ----------
    path : path
        What `cimp_core.sweeps.open_sweep` reads.
    settings : Acquisition, optional
        Of the sweep, where its file does not tell.
    most : int
        Pairs, drawn with a fixed seed from all ordered ones.
    size : int
        Edge of the middle part that is compared [px].

    Raises
    ------
    OutOfRangeError
        The images are not 16-bit counts.
    """
    sweep, settings = open_sweep(path), settings or Acquisition()
    images = [_middle(np.asarray(sweep.images[i]), size) for i in range(len(sweep))]
    if any(i.dtype != np.uint16 for i in images):
        raise OutOfRangeError(f"{path}: images are {images[0].dtype}, not 16-bit counts as the microscope records them")
    known = []
    for i in range(len(sweep)):
        own = {n: float(column[i]) for n, column in {**sweep.settings, sweep.parameter: sweep.values}.items()}
        known.append(settings.replace(**{n: v for n, v in own.items() if np.isfinite(v)}))
    pairs = [(i, j) for i in range(len(sweep)) for j in range(len(sweep)) if sweep.values[i] != sweep.values[j]]
    order = np.random.default_rng(15).permutation(len(pairs))[:most]
    return [
        Case(i, sweep.parameter, images[i], known[i], known[j], images[j].astype(float), images[j])
        for i, j in (pairs[k] for k in np.sort(order))
    ]


def _middle(image: np.ndarray, size: int) -> np.ndarray:
    top, left = (max(0, (n - size) // 2) for n in image.shape)
    return image[top : top + size, left : left + size]


def sweep_rows(cases: Sequence[Case], renderer: Renderer, common: Mapping) -> list[dict]:
    """``style.sweep.SCORE.PARAMETER.ROUTE``; an interval over source images. PSNR and SSIM are against one recording.

    A route that lacks a setting of this sweep is left out.
    """
    tables = []
    for name, way in routes(renderer).items():
        if name == "recording":
            continue
        try:
            tables.append(evaluate(cases, {name: way}))
        except OutOfRangeError as error:
            print(f"{name}: left out, {error}")
    table = pd.concat(tables, ignore_index=True)
    return restyling_rows(table, np.arange(table["index"].max() + 1), common, prefix="style.sweep")


def main() -> None:
    """``python -m cimp_core.study.restyling TWIN --out FILE.json``, or with ``--sweep FILE`` in place of the twin."""
    parser = argparse.ArgumentParser(description="Measure re-rendering against the same area re-acquired.")
    parser.add_argument("dataset", type=Path, nargs="?", help="a twin")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--weights", default="cimp-style-s", help="a shipped name or a file")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--draws", type=int, default=2, help="steps of each parameter for an image, of four")
    parser.add_argument("--part", choices=("test", "val"), default="test", help="val: what ROUTES is chosen by")
    parser.add_argument("--prefix", default="style", help="first part of the rows' names")
    parser.add_argument("--sweep", type=Path, help="a sweep of dwell time, gain or offset")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    common = {"split": "material", "profile": arguments.profile, "seeds": [0]}
    renderer = Renderer(arguments.weights)
    if arguments.sweep is not None:
        common |= {"split": None, "twin_version": None, "command": "python -m cimp_core.study.restyling --sweep FILE"}
        rows = sweep_rows(sweep_cases(arguments.sweep), renderer, common)
    else:
        if arguments.dataset is None:
            parser.error("name a twin, or --sweep FILE")
        data = open_dataset(arguments.dataset)
        train, val, test = data.split("material", val=0.1, test=0.25, seed=0)
        common |= {"command": "python -m cimp_core.study.restyling TWIN"}
        common["twin_version"] = data.attributes.get("twin_version")
        part = test if arguments.part == "test" else val
        indices = chosen_images(part, arguments.images)
        cases = list(cases_of(part, indices, train, joints=2, draws=arguments.draws))
        encoders = {"own": renderer.conditioner.encoder, "other": load("cimp-twin-s-seed1")}
        table = evaluate(cases, routes(renderer), reader=Reader(train, val), encoders=encoders)
        rows = restyling_rows(table, np.asarray(part.sessions), common, prefix=arguments.prefix)
        if arguments.part == "val":
            print(preferred_routes(table, cases).round(2).to_string())
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
