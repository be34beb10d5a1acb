"""How often is the best match right, and is "none of these" said when it should be? On simulated queries.

    python -m cimp_core.study.structures_match FOLDER [--only CASE ...] [--fit] [--out book/results.json]

The library is every bundled prototype and the twin's crystals along axes of indices up to 1. Each query's outcome is a
line in FOLDER/CASE.jsonl; a run goes on where one was stopped. A match is right if structure and zone axis are, or if
the pattern is the same within resolution (`fit.alike`: correlation above 0.995, lattices within 0.5 %, or within the
stated error of the pixel size where that is larger). For "none of these" the structure is left out of the library, and
so is what is alike by that rule with twice the tolerance. ``--fit`` fits the weights of probabilities
(`cimp_core/data/structures.json`) on the cases "calibrate", whose structures no other case has.

The baseline "polar" takes the entry of the largest rolled correlation of polar maps, among those that the index finds
nearest; "embedding" takes the entry whose learnt embedding is nearest, whatever its axis.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from ..results import update_results
from ..simulate.structures import CRYSTALS, ZONE_AXES
from ..structures import embedded, embedding, matching, polar, probability
from ..structures import fit as fits
from ..structures.library import Library, library
from ..structures.query import prepare
from .structures_cases import EASY, Query, channelled, equal_zones, no_crystal, picture, projected, zone_of
from .structures_weights import chances, fit_weights

SEEDS = 11, 12, 13
"""Of the queries of a case, which take turns."""
HARD = EASY | {"distortion": 0.01, "gamma": 1.3, "blur": 0.4, "jitter": 0.08}
WORN = EASY | {"dose": (20.0, 2000.0), "pixels": (192, 448), "film": 0.7, "blur": 6.0, "gamma": 1.4}
WORN |= {"distortion": 0.012, "jitter": 0.15, "pixel_error": 0.03}
"""As pictures are that others took: a wide probe, a film on the crystal, rows that jump."""
COMMAND = "python -m cimp_core.study.structures_match FOLDER"


@dataclass(frozen=True)
class Case:
    """A kind of query: how it is made, whether its structure is in the library, what error is stated."""

    name: str
    count: int
    settings: dict = field(default_factory=lambda: dict(EASY))
    error: float = 0.005
    left_out: bool = False
    kind: str = "entry"
    thirds: tuple[int, ...] = (1, 2)


def cases() -> list[Case]:
    """All of them, those that matter most first."""
    wide = HARD | {"dose": (1.0, 500.0), "tilt": math.radians(0.5)}
    found = []
    for error in (0.005, 0.02, 0.05):
        settings = wide | {"pixel_error": error}
        name = f"calibrate_{error:g}"
        found.append(Case(name, 60, settings, error, thirds=(0,)))
        found.append(Case(f"{name}_out", 48, settings, error, left_out=True, thirds=(0,)))
    found.append(Case("calibrate_worn", 90, WORN, 0.05, thirds=(0,)))
    found.append(Case("calibrate_worn_out", 75, WORN, 0.05, left_out=True, thirds=(0,)))
    tilted = HARD | {"dose": (5.0, 500.0), "tilt": math.radians(2)}
    for error in (0.005, 0.02):
        found.append(Case(f"calibrate_tilted_{error:g}", 45, tilted, error, thirds=(0,)))
        found.append(Case(f"calibrate_tilted_{error:g}_out", 36, tilted, error, left_out=True, thirds=(0,)))
        found.append(Case(f"calibrate_channelled_{error:g}", 36, HARD, error, kind="channelled", thirds=(0,)))
        settings = {"left_out": True, "kind": "channelled", "thirds": (0,)}
        found.append(Case(f"calibrate_channelled_{error:g}_out", 30, HARD, error, **settings))
    found.append(Case("calibrate_amorphous", 15, wide, 0.05, kind="amorphous"))
    found.append(Case("calibrate_noise", 15, wide, 0.05, kind="noise"))
    found += [Case("moderate", 480), Case("out", 90, left_out=True), Case("channelled", 48, kind="channelled")]
    found += [Case("out_hard", 45, HARD, 0.02, left_out=True), Case("hard", 45, HARD, 0.02)]
    found += [Case(f"dose_{d}", 30, EASY | {"dose": (d, d)}) for d in (1, 3, 10, 500)]
    found += [Case(f"pixel_error_{p}", 30, EASY | {"pixel_error": p / 100}, 0.05) for p in (0, 2, 5)]
    found += [Case(f"tilt_{t}", 30, EASY | {"tilt": math.radians(t)}) for t in (0.5, 1, 2)]
    found += [Case(f"thickness_{t}", 30, EASY | {"thickness": 10.0 * t}) for t in (5, 10, 40, 80)]
    found += [Case(k, 15, EASY, 0.02, kind=k) for k in ("amorphous", "vacuum", "noise")]
    return found


def queries(case: Case, known: Library) -> Iterator[tuple[int, int | None, Query]]:
    """Each with its number, and the entry that it shows."""
    for number in range(case.count):
        rng = np.random.default_rng([SEEDS[number % len(SEEDS)], *case.name.encode(), number])
        if case.kind in ("amorphous", "vacuum", "noise"):
            yield number, None, no_crystal(case.kind, rng, case.settings)
        elif case.kind == "channelled":
            truth, one = _channelled(known, rng, case.thirds)
            yield number, truth, picture(one, rng, case.settings)
        else:
            from_these = np.flatnonzero(np.isin(known.owner % 3, case.thirds))
            truth = int(rng.choice(from_these))
            tilt, thickness = case.settings["tilt"], case.settings["thickness"]
            tilt *= rng.uniform() if case.name.startswith("cal") else 1
            one = projected(known, truth, tilt, rng, thickness) if tilt or thickness else known[truth].pattern
            yield number, truth, picture(one, rng, case.settings)


def _channelled(known: Library, rng: np.random.Generator, thirds: tuple[int, ...]):
    names = [s.name for s in known.structures]
    crystal = str(rng.choice([n for n, c in CRYSTALS.items() if not c.layered and names.index(n) % 3 in thirds]))
    family = CRYSTALS[crystal].family
    zone = str(rng.choice(list(ZONE_AXES[family])))
    owner = names.index(crystal)
    wanted = zone_of(crystal, zone, family)
    mine = np.flatnonzero(known.owner == owner)
    truth = next(int(i) for i in mine if equal_zones(known.structures[owner], wanted, tuple(known.zones[i].tolist())))
    return truth, channelled(crystal, zone, known, float(rng.uniform(50, 800)))


def outcome(
    case: Case,
    known: Library,
    truth: int | None,
    query: Query,
    cosines: Callable[[Query, float], np.ndarray] | None = None,
) -> dict:
    """What matching makes of a query, as JSON holds it; `cosines` gives those of its embedding to the entries'."""
    tolerance = max(0.005, case.error)
    without = np.flatnonzero(known.owner == known.owner[truth]) if case.left_out else ()
    ready = prepare(query.image, query.pixel_size)
    mapped = polar.of_image(query.image, query.pixel_size)
    near = matching.rolled(mapped, known, case.error, without)
    alike = matching.likenesses(query.image, query.pixel_size, known, case.error)
    also = matching.second_look(mapped, known, case.error, alike, without)
    found = matching.fitted(ready, near, known, case.error, also, alike)
    top = max((c.fit.explained for c in found), default=0.0)
    same: dict[int, bool] = {}

    def right(number: int) -> bool:
        if truth is None:
            return False
        if number not in same:
            zone = tuple(known.zones[truth].tolist())
            own = known.owner[number] == known.owner[truth]
            own = own and equal_zones(known.structures[known.owner[truth]], zone, tuple(known.zones[number].tolist()))
            first, second = known[truth].pattern, known[number].pattern
            same[number] = bool(own) or fits.alike(first, second, 2 * tolerance if case.left_out else tolerance)
        return same[number]

    nearest = None if cosines is None else int(cosines(query, case.error).argmax())
    judged = [right(c.number) if c.fit.explained > top - 0.05 else c.number == truth for c in found]
    if case.left_out:
        found, judged = [c for c, j in zip(found, judged, strict=True) if not j], []
    each, whole = probability.features(ready, found, case.error)
    return {
        "truth": truth,
        "present": truth is not None and not case.left_out,
        "dose": query.dose,
        "pixel_size": query.pixel_size,
        "shape": list(query.image.shape),
        "numbers": [c.number for c in found],
        "right": judged or [False] * len(found),
        "polar_right": bool(near) and not case.left_out and right(near[0][0]),
        "embedding_right": None if nearest is None else not case.left_out and right(nearest),
        "polar_score": near[0][1][0].score if near else 0.0,
        "scale": [c.fit.scale for c in found],
        "explained": [c.fit.explained for c in found],
        "features": each.tolist(),
        "whole": whole.tolist(),
    }


def run(folder: Path, only: list[str]) -> dict[str, list[dict]]:
    """Outcomes of the cases, those that are missing made."""
    known = library(["prototypes", "crystals"], zones=1, folder=folder / "library")
    model, found = embedding.load(), {}
    z = embedded.embed_patterns(model, [entry.pattern for entry in known])

    def cosines(query: Query, error: float) -> np.ndarray:
        return z @ embedding.embed(model, [query.image], query.pixel_size, length_error=error)[0]

    for case in cases():
        path = folder / f"{case.name}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        lines = lines[: case.count]
        if not only or any(case.name.startswith(name) for name in only):
            for number, truth, query in queries(case, known):
                if number >= len(lines):
                    lines.append(outcome(case, known, truth, query, cosines))
                    with path.open("a") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
        if lines:
            found[case.name] = lines
    return found


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22, 209 (1927))."""
    share, whole = right / count, 1 + z**2 / count
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / whole
    middle = (share + z**2 / (2 * count)) / whole
    return max(0.0, middle - half), min(1.0, middle + half)


def resampled(inside: np.ndarray, outside: np.ndarray, times: int = 1000) -> tuple[float, float]:
    """95 % interval of the area under the curve, from queries drawn anew with replacement."""
    rng, found = np.random.default_rng(SEEDS[0]), []
    label = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    for _ in range(times):
        drawn = np.concatenate([rng.choice(inside, len(inside)), rng.choice(outside, len(outside))])
        found.append(roc_auc_score(label, drawn))
    return tuple(float(v) for v in np.percentile(found, [2.5, 97.5]))


def rows(found: dict[str, list[dict]], weights: np.ndarray) -> list[dict]:
    """The published numbers."""
    out = []

    def row(name: str, value: float, ends: tuple[float, float], count: int) -> None:
        common = {"unit": "", "split": "simulated", "pool": count, "profile": "full", "seeds": list(SEEDS)}
        numbers = {"value": round(value, 6), "low": round(ends[0], 6), "high": round(ends[1], 6)}
        out.append({"name": f"structures.match.{name}", **numbers, **common, "twin_version": None, "command": COMMAND})

    for name, lines in found.items():
        if name.startswith("calibrate") or not lines[0]["present"]:
            continue
        best = [int(np.argmax(chances(line, weights)[:-1])) if line["right"] else None for line in lines]
        ours = [b is not None and line["right"][b] for b, line in zip(best, lines, strict=True)]
        others = {f"{m}_top1": [line[f"{m}_right"] for line in lines] for m in ("polar", "embedding")}
        for label, values in {"top1": ours, **others}.items():
            row(f"{label}.{name}", float(np.mean(values)), wilson(sum(values), len(values)), len(values))
    none = {name: np.array([chances(line, weights)[-1] for line in lines]) for name, lines in found.items()}
    pairs = {"left_out": (["moderate"], ["out"]), "left_out_hard": (["hard"], ["out_hard"])}
    pairs |= {k: (["moderate"], [k]) for k in ("amorphous", "vacuum", "noise")}
    pairs["channelled_against_left_out"] = (["channelled"], ["out"])
    for name, (inside, outside) in pairs.items():
        if all(n in none for n in (*inside, *outside)):
            a, b = (np.concatenate([none[n] for n in part]) for part in (inside, outside))
            label = np.concatenate([np.zeros(len(a)), np.ones(len(b))])
            row(f"none_auroc.{name}", float(roc_auc_score(label, np.concatenate([a, b]))), resampled(a, b), len(label))
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--only", nargs="*", default=[])
    options.add_argument("--fit", action="store_true")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = run(given.folder, given.only)
    if given.fit:
        lines = [line for name, part in found.items() if name.startswith("calibrate") for line in part]
        weights = fit_weights(lines)
        n = probability.CANDIDATE
        text = {"candidate": weights[:n].round(4).tolist(), "none": weights[n:].round(4).tolist()}
        text |= {"queries": len(lines), "seeds": list(SEEDS), "command": f"{COMMAND} --only calibrate --fit"}
        probability.CONSTANTS.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        probability.constants.cache_clear()
    weights = probability.constants()
    made = rows(found, np.concatenate([weights["candidate"], weights["none"]]))
    for one in made:
        print(f"{one['name']:60s} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]  ({one['pool']})")
    if given.out:
        update_results(given.out, made)


if __name__ == "__main__":
    main()
