"""How good is a denoiser, measured against truth: every method on the same recordings of unseen materials.

``python -m cimp_core.study.denoising TWIN --work FOLDER --out FILE.json`` makes the recordings (`denoising_cases`) in
``FOLDER/cases``, lets each method restore them, keeps one line an image and method in ``FOLDER/tables/METHOD.csv``, and
makes rows of all the tables it finds there (`denoising_rows`). Stopped, it goes on where it was. A method that cannot
be part of this package brings its own table: ``evaluate(method, Cases("FOLDER/cases"), "FOLDER/tables")`` writes it.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..dataset import open_dataset
from ..denoising.classical import Gaussian, NonLocalMeans, TotalVariation, Wavelet, Wiener
from ..denoising.oracle import OracleGaussian, OracleTotalVariation
from ..errors import OutOfRangeError, SchemaError
from ..metadata import Acquisition
from ..results import update_results
from ..simulate.lab import GAIN_RANGE
from .denoising_cases import FACTORS, Case, Cases, make_cases
from .denoising_scores import COLUMNS, scores
from .rows import print_rows

__all__ = ["FACTOR", "VARIANTS", "Raw", "evaluate", "methods", "read_tables"]

FACTOR = 16.0
"""Dose factor of the main table."""

SHIFT = (3.0, 20000.0)
"""The contrast shift: counts times the first (or over it, where no gain is left) plus the second, and such settings."""

VARIANTS = ("", "wrong", "missing", "shifted")
"""What a method is told: the settings as they were, those of another image, none; or the contrast is shifted."""


class Raw:
    """The recording as it is: what all else is measured against."""

    name, margin = "raw", 0

    def __call__(self, frame: np.ndarray, acquisition: Acquisition, factor: float) -> tuple[np.ndarray, None]:
        return frame, None


class Checked:
    """A method that believes settings only where they agree with the picture, as `cimp_core.denoise` does."""

    def __init__(self, method: Callable) -> None:
        self.method, self.name, self.margin = method, f"{method.name}_checked", method.margin

    def __call__(self, frame: np.ndarray, acquisition: Acquisition, factor: float) -> tuple:
        from ..denoising.trust import check

        known = check(frame, acquisition, absolute=True, model=getattr(self.method, "encoder", None))
        return self.method(frame, known.acquisition, factor)


def evaluate(
    method: Callable,
    cases: Cases,
    folder: str | Path,
    *,
    name: str | None = None,
    variant: str = "",
    factor: float = FACTOR,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Restore every case and write its scores; cases that the table has already are passed over.

    Parameters
    ----------
    method : callable
        ``method(frame, acquisition, factor) -> (image, deviation or None)`` with counts (h, w), and a ``name``; or
        ``method.tuned(frame, truth) -> image`` for one that is told the truth.
    cases : Cases
        All or some, see `Cases.of`.
    folder : path
        The table is ``NAME.csv`` in it, with `COLUMNS`.
    name : str, optional
        The method's own by default; ``_wrong``, ``_f64`` and the like are added for variants and other factors.
    variant : str
        One of `VARIANTS`.
    factor : float
        One of `FACTORS`.
    progress : callable, optional
        Called with 1 after each case.

    Returns
    -------
    Path
        The table.
    """
    if variant not in VARIANTS or factor not in FACTORS:
        raise OutOfRangeError(f"variant {variant!r}, factor {factor:g}: there are {VARIANTS} and {FACTORS}")
    name = (name or method.name) + (f"_{variant}" if variant else "") + ("" if factor == FACTOR else f"_f{factor:g}")
    path = Path(folder) / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _keys(path)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done and path.stat().st_size == 0:
            writer.writeheader()
        for key in cases.keys:
            flat = cases.about(key)["kind"] in ("vacuum", "even")
            if key in done or (flat and hasattr(method, "tuned")):  # nothing to tune by, where nothing is seen
                continue
            writer.writerow({"method": name, **_row(method, cases, key, variant, factor)})
            file.flush()  # a line is a result: whatever happens next, it stays
            if progress is not None:
                progress(1)
    return path


def _keys(path: Path) -> set[str]:
    """Cases in a table; a last line that was cut off is removed."""
    if not path.exists():
        return set()
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    if path.stat().st_size == 0:
        return set()
    table = pd.read_csv(path)
    if list(table.columns) != list(COLUMNS):
        raise SchemaError(f"{path}: columns of another version; remove the file to measure again")
    return set(table["key"])


def _row(method: Callable, cases: Cases, key: str, variant: str, factor: float) -> dict:
    case = cases.load(key)
    truth = case.truth(factor)
    settings, gain, black = case.acquisition, 1.0, 0.0
    if variant == "wrong":
        settings = _other_settings(cases, case)
    elif variant == "missing":
        settings = Acquisition()
    elif variant == "shifted":
        settings, gain, black = _shifted(case)
    frame = (gain * case.frame + black).astype(np.float32)
    start = time.perf_counter()
    if hasattr(method, "tuned"):
        image, deviation = method.tuned(frame, gain * truth + black), None
    else:
        image, deviation = method(frame, settings, factor)
    seconds = time.perf_counter() - start
    image = (np.asarray(image, float) - black) / gain
    deviation = None if deviation is None else np.asarray(deviation, float) / gain
    return scores(case, image, deviation, truth, factor) | {"seconds": round(seconds, 4)}


def _other_settings(cases: Cases, case: Case) -> Acquisition:
    """Those of an image of another session, half way round, at the same dose."""
    about = Cases(cases.folder).of(kinds=[case.kind], doses=[case.electrons]).keys
    place = about.index(case.key)
    for step in range(len(about)):
        other = about[(place + len(about) // 2 + step) % len(about)]
        if cases.about(other)["session"] != case.session:
            return Cases(cases.folder).load(other).acquisition
    raise OutOfRangeError(f"{case.key}: all cases of this kind and dose are of one session: no other settings to tell")


def _shifted(case: Case) -> tuple[Acquisition, float, float]:
    """Settings at which this detector gives the shifted counts, and by what these are multiplied and raised."""
    detector, settings = case.shot.detector, case.acquisition
    factor, black = SHIFT
    gain = detector.gain_for(factor * detector.slope_at(settings.detector_gain))
    if gain > GAIN_RANGE[1]:  # at low dose it is at its end already
        factor = 1 / factor
        gain = detector.gain_for(factor * detector.slope_at(settings.detector_gain))
    level = factor * detector.black_at(settings.detector_offset) + black
    offset = (level - detector.black_level) / detector.black_per_offset
    return settings.replace(detector_gain=gain, detector_offset=offset), factor, black


def read_tables(folder: str | Path) -> pd.DataFrame:
    """All tables of a folder as one, a line a method and case."""
    paths = sorted(Path(folder).glob("*.csv"))
    tables = [pd.read_csv(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if list(table.columns) != list(COLUMNS):
            raise SchemaError(f"{path}: not a table of scores of this version; remove it to measure again")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def methods(
    names: Sequence[str],
    *,
    weights: str | None = None,
    without: str | None = None,
    seconds: float = 20,
    pools: str | Path | None = None,
) -> dict[str, Callable]:
    """Methods by name, those with weights loaded when they are asked for.

    Parameters
    ----------
    names : sequence of str
        ``raw``, the classical ones, ``oracle_gaussian``, ``oracle_total_variation``, ``direct``, ``direct_checked``,
        ``direct_without_metadata``, ``style``, ``noise2void``.
    weights, without : str, optional
        Of the network, and of the one trained without settings.
    seconds : float
        For which Noise2Void trains on each image it is given,
    pools : path, optional
        unless it was trained on all of them together, by `cimp_core.study.noise2void_pool`.
    """
    plain = [Raw(), Gaussian(), TotalVariation(), NonLocalMeans(), Wavelet(), Wiener()]
    found = {method.name: method for method in [*plain, OracleGaussian(), OracleTotalVariation()]}
    for name in names:
        if name in NETWORKS:
            if name == "direct_without_metadata" and without is None:
                raise OutOfRangeError("direct_without_metadata needs the weights of a network trained without settings")
            from ..denoising.direct import DEFAULT_WEIGHTS, Direct

            network = Direct(without if name == "direct_without_metadata" else weights or DEFAULT_WEIGHTS)
            found[name] = Checked(network) if name == "direct_checked" else network
        elif name == "style":
            from ..style import StyleRoute

            found[name] = StyleRoute()
        elif name == "noise2void" and pools is not None:
            from .noise2void_pool import PooledNoise2Void

            found[name] = PooledNoise2Void(pools)
        elif name == "noise2void":
            from ..denoising.noise2void import Noise2Void

            found[name] = Noise2Void(seconds=seconds)
        elif name not in found:
            raise OutOfRangeError(f"unknown method {name!r}; there are {', '.join(found)} and those with weights")
    return {name: found[name] for name in names}


PLAIN = ("raw", "gaussian", "total_variation", "non_local_means", "wavelet", "wiener")
ORACLES = ("oracle_gaussian", "oracle_total_variation")
NETWORKS = ("direct", "direct_checked", "direct_without_metadata")


def main() -> None:
    """``python -m cimp_core.study.denoising TWIN --work FOLDER --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure denoisers against truth, on materials held out.")
    parser.add_argument("dataset", type=Path, help="a twin")
    parser.add_argument("--work", type=Path, required=True, help="folder of recordings and tables; a run goes on in it")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--method", action="append", help="again for each; by default all that are plain, and oracles")
    parser.add_argument("--variant", action="append", choices=VARIANTS[1:], help="also told wrong, or nothing, ...")
    parser.add_argument("--factor", action="append", type=float, help="also at this dose factor (4 or 64)")
    parser.add_argument("--images", type=int, default=48, help="of the main table")
    parser.add_argument("--only", type=int, help="restore only the first so many images of each kind")
    parser.add_argument("--weights", help="of direct: a shipped name or a file")
    parser.add_argument("--without", help="of direct_without_metadata")
    parser.add_argument("--pools", help="of noise2void: folder of cimp_core.study.noise2void_pool")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    data = open_dataset(arguments.dataset).split("material", val=0.1, test=0.25, seed=0)[2]
    cases = make_cases(data, arguments.work / "cases", images=arguments.images)
    names = arguments.method or [*PLAIN, *ORACLES]
    chosen = cases.of(images=arguments.only) if arguments.only else cases
    options = {"weights": arguments.weights, "without": arguments.without, "pools": arguments.pools}
    for name, method in methods(names, **options).items():
        for variant in ("", *(arguments.variant or [])):
            _evaluate_shown(method, chosen, arguments.work / "tables", name, variant, FACTOR)
        for factor in arguments.factor or []:
            _evaluate_shown(method, chosen.of(kinds=["dose"]), arguments.work / "tables", name, "", factor)
    from .denoising_rows import denoising_rows, endpoint_lines

    rows = denoising_rows(read_tables(arguments.work / "tables"), cases.twin_version, profile=arguments.profile)
    update_results(arguments.out, rows)
    print_rows(rows)
    print("\n".join(endpoint_lines(rows)))


def _evaluate_shown(method, cases: Cases, folder: Path, name: str, variant: str, factor: float) -> None:
    from rich.progress import track

    if hasattr(method, "tuned") and variant:  # an oracle is told the truth, and no settings
        return
    steps = iter(track(range(len(cases)), description=" ".join(filter(None, [name, variant]))))
    evaluate(method, cases, folder, name=name, variant=variant, factor=factor, progress=lambda _: next(steps, None))
    for _ in steps:  # those that the table had already
        pass


if __name__ == "__main__":
    main()
