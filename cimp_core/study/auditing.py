"""How well the audit works, on simulated sessions that nothing was fitted to: ``python -m cimp_core.study.auditing``.

Two kinds of numbers. False alarms: the share of images, one of each session, with right settings that are called
"disagrees" at the rate that was asked for. Faults, one kind at a time (`cimp_core.study.auditing_faults`): the share
that is called "disagrees" at 1 % false alarms, and the area under the ROC curve of the score of what should object
(of a setting its score, of several the largest, of a check of the picture its own), against the same images without
the fault. Intervals resample sessions.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..auditing.calibration import one_image_each, setting_scores
from ..auditing.duplicates import find_duplicates
from ..auditing.evidence import KINDS, predict_settings
from ..auditing.judging import LEVEL, judge
from ..auditing.lab import shipped
from ..auditing.measuring import TEXTURE, Measured, measure
from ..auditing.scoring import raw_scores_of
from ..auditing.verdict import ImageAudit
from ..dataset import Dataset, open_dataset
from ..digital_twin import reacquire
from ..metadata import PARAMETERS, Acquisition
from ..metrics import bootstrap_interval
from ..results import update_results
from ..twin_sessions import last_of_sessions, make_sessions
from .auditing_faults import FAULTS, Fault
from .lattice import CONTRAST, strongest_spot
from .rows import print_rows, row

__all__ = ["area_under_curve", "audit_rows", "measure_faults"]

SEED, SESSIONS = 43, 800
"""Of the test sessions; training took seed 41, calibration 42."""

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Rates of false alarms that are asked for."""

PICTURES = 250
"""Sessions of which pictures with a fault are made, and duplicates."""

OTHER_KINDS = {"128_px": (128, True), "64_px": (64, True), "other_scale": (256, False)}
"""Images with a calibration of their own: side [px] of the middle; whether the intensity scale is known."""

LATTICE = 40e-12
"""Pixel size [m] below which atoms are resolved; with a spot in the spectrum it is lattice resolution."""

UNCLIPPED = 0.001
"""An image with a smaller share of pixels at 0 or 65535 is not clipped."""


def area_under_curve(good: np.ndarray, bad: np.ndarray) -> float:
    """Chance that a faulty image scores higher than a good one, ties counted half; ``nan`` without one of either."""
    good, bad = (np.sort(v[~np.isnan(v)]) for v in (np.asarray(good, float), np.asarray(bad, float)))
    if not len(good) or not len(bad):
        return float("nan")
    below = np.searchsorted(good, bad, "left").sum() + np.searchsorted(good, bad, "right").sum()
    return float(below / (2 * len(good) * len(bad)))


def score_of(measured: Measured, acquisition: Acquisition, objects: Sequence[str]) -> float:
    """Score of what should object."""
    if objects == ("clipped",):
        return measured.clipped_low + measured.clipped_high
    if objects == ("levels",):
        return -float(measured.statistics[TEXTURE.index("levels") - len(TEXTURE)]) if measured.statistics.size else 0.0
    if measured.flat:
        return 0.0  # nothing can be told, so nothing objects
    net, calibrations = shipped()
    key = calibrations.key(measured.side, measured.absolute)
    told = predict_settings(net, measured.features[None])
    values = net.config.normalizer.normalize(acquisition.vector())[None]
    raw, _ = raw_scores_of(net, told, values, measured.statistics[None], measured.absolute)
    scores = raw / calibrations.scales[key]
    if objects[0] in PARAMETERS:
        return float(np.nanmax(setting_scores(scores)[0][[PARAMETERS.index(n) for n in objects]]))
    return float(scores[0, KINDS.index(objects[0])])


def _objects(audit: ImageAudit, fault: Fault) -> bool:
    """Whether the audit says that something is wrong: of a clipped picture, that it is clipped."""
    if fault.objects == ("clipped",):
        return audit.checks["clipped"].verdict == "disagrees"
    return audit.verdict == "disagrees"


def _right(audit: ImageAudit, fault: Fault) -> bool:
    """Whether it names what is wrong, and no setting besides."""
    if fault.objects[0] in PARAMETERS:
        return bool(audit.doubted) and set(audit.doubted) <= set(fault.objects)
    return audit.checks[fault.objects[0]].verdict == "disagrees"


def measure_faults(data: Dataset, rows: Sequence[int], pictures: int = PICTURES) -> Iterator[dict[str, Any]]:
    """One line for each image (one of each session) and fault, and for each image as it is.

    Parameters
    ----------
    rows : sequence of int
        Images.
    pictures : int
        Of the first so many, faults of the picture are made too, which have to be simulated.

    Yields
    ------
    dict
        ``image``, ``session``, ``fault`` ("" for the image as it is), ``score``, ``objects``, ``right``, ``unlike``,
        ``lattice``, ``clipped`` (as it is), ``p``; for the image as it is ``scores`` by fault instead of ``score``.
    """
    net, calibrations = shipped()
    for done, i in enumerate(map(int, rows)):
        image, settings = data.image(i), data.acquisition(i)
        own = measure(image, absolute=True)
        about = {"image": i, "session": data.sessions[i]}
        about["lattice"] = settings.pixel_size < LATTICE and strongest_spot(image)[1] >= CONTRAST
        about["clipped"] = float(np.mean((image == 0) | (image == 65535))) >= UNCLIPPED
        audit = judge(own, settings, net, calibrations)
        names = [name for name in FAULTS if done < pictures or not FAULTS[name].new_picture]
        plain = {name: score_of(own, settings, FAULTS[name].objects) for name in names}
        flags = {"objects": audit.verdict == "disagrees", "right": True, "unlike": _unlike(audit)}
        yield about | flags | {"fault": "", "scores": plain, "p": audit.p, "named_clipped": _is_clipped(audit)}
        for number, (name, fault) in enumerate(FAULTS.items()):
            if name not in names:
                continue
            planted = fault.plant(data, i, np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(i, number))))
            if planted is None:
                continue
            seen = measure(planted.image, absolute=True) if fault.new_picture else own
            audit = judge(seen, planted.settings, net, calibrations)
            yield about | {
                "fault": name,
                "score": score_of(seen, planted.settings, fault.objects),
                "objects": _objects(audit, fault),
                "right": _right(audit, fault),
                "unlike": _unlike(audit),
                "p": audit.p,
            }


def _unlike(audit: ImageAudit) -> bool:
    return audit.checks["like"].verdict != "agrees"


def _is_clipped(audit: ImageAudit) -> bool:
    return audit.checks["clipped"].verdict == "disagrees"


def other_kind_rows(data: Dataset, rows: Sequence[int], common: Mapping) -> list[dict]:
    """False alarms at the calibrations for smaller images and for those without a known intensity scale."""
    net, calibrations = shipped()
    sessions, out = data.sessions[np.asarray(rows)], []
    for name, (side, absolute) in OTHER_KINDS.items():
        start = (min(data.shape(int(rows[0]))) - side) // 2
        middle = slice(start, start + side)
        seen = ((measure(data.image(int(i))[middle, middle], absolute=absolute), int(i)) for i in rows)
        judged = [judge(measured, data.acquisition(i), net, calibrations) for measured, i in seen]
        p = np.array([1.0 if audit.p is None else audit.p for audit in judged])
        hit = (p <= LEVEL + 1e-12).astype(float)
        out.append(row(f"audit.false_alarms.{name}", *_interval(hit.mean(), np.mean, sessions, hit), common))
    return out


def duplicate_lines(data: Dataset, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Alikeness of the noise of copies, and of other recordings of the same area at the same settings."""
    for i in map(int, rows):
        image = data.image(i)
        low, high = float(image.min()), float(image.max())
        grey = np.rint((image - low) / max(high - low, 1) * 255).astype(np.uint8)
        again = reacquire(data, i, data.acquisition(i), seed=1)
        own = measure(image, absolute=True)
        for name, other in (("copy_in_float", image.astype(np.float64)), ("copy_in_8_bit", grey), ("again", again)):
            seen = measure(other, absolute=False)
            score = float(own.fingerprint.astype(float) @ seen.fingerprint.astype(float))
            found = find_duplicates([own, seen])
            score = 1.0 if found and found[0].exact else score
            yield {"image": i, "session": data.sessions[i], "kind": name, "score": score, "objects": bool(found)}


def _interval(value: float, statistic: Any, clusters: np.ndarray, *columns: np.ndarray) -> tuple[float, float, float]:
    low, high = bootstrap_interval(statistic, clusters, *columns)
    return value, min(low, value), max(high, value)


def false_alarm_rows(lines: Sequence[Mapping], common: Mapping) -> list[dict]:
    """Obtained at each rate asked for; of clipping, among images that are not clipped."""
    sessions = np.array([line["session"] for line in lines])
    p = np.array([1.0 if line["p"] is None else line["p"] for line in lines])
    out = []
    for level in LEVELS:
        hit = (p <= level + 1e-12).astype(float)
        name = f"audit.false_alarms.asked_{round(100 * level)}_percent"
        out.append(row(name, *_interval(hit.mean(), np.mean, sessions, hit), common))
    named = np.array([line["objects"] for line in lines], float)
    out.append(row("audit.false_alarms.verdict", *_interval(named.mean(), np.mean, sessions, named), common))
    clean = np.array([not line["clipped"] for line in lines])
    named = np.array([line["named_clipped"] for line in lines], float)[clean]
    out.append(row("audit.false_alarms.clipped", *_interval(named.mean(), np.mean, sessions[clean], named), common))
    return out


def fault_rows(lines: Sequence[Mapping], common: Mapping) -> list[dict]:
    """AUROC, detection, and share named rightly of each kind of fault; pixel sizes also at lattice resolution."""
    plain = {line["image"]: line for line in lines if not line["fault"]}
    out = []
    for name, fault in FAULTS.items():
        bad = [line for line in lines if line["fault"] == name]
        if fault.objects == ("clipped",):
            bad = [line for line in bad if not line["clipped"]]
        parts = {"": bad}
        if fault.objects == ("pixel_size",):
            parts[".lattice"] = [line for line in bad if line["lattice"]]
        for ending, chosen in parts.items():
            out += _rows_of_fault(f"{name}{ending}", name, chosen, plain, common)
    return out


def _rows_of_fault(label: str, name: str, bad: Sequence[Mapping], plain: Mapping, common: Mapping) -> list[dict]:
    sessions = np.array([line["session"] for line in bad])
    good = np.array([plain[line["image"]]["scores"][name] for line in bad])
    scores = np.array([line["score"] for line in bad])
    found = np.array([line["objects"] for line in bad], float)
    right = np.array([line["objects"] and line["right"] for line in bad], float)
    curve = _interval(area_under_curve(good, scores), area_under_curve, sessions, good, scores)
    return [
        row(f"audit.auroc.{label}", *curve, common),
        row(f"audit.detection.{label}", *_interval(found.mean(), np.mean, sessions, found), common),
        row(f"audit.named.{label}", *_interval(right.mean(), np.mean, sessions, right), common),
        row(f"audit.images.{label}", len(bad), float("nan"), float("nan"), common),
    ]


def duplicate_rows(lines: Sequence[Mapping], common: Mapping) -> list[dict]:
    """Copies against recordings of the same area again: AUROC, share found, and share wrongly taken for copies."""
    by_kind = {k: [line for line in lines if line["kind"] == k] for k in ("copy_in_float", "copy_in_8_bit", "again")}
    again = np.array([line["score"] for line in by_kind["again"]])
    sessions = np.array([line["session"] for line in by_kind["again"]])
    out = []
    for kind in ("copy_in_float", "copy_in_8_bit"):
        scores = np.array([line["score"] for line in by_kind[kind]])
        found = np.array([line["objects"] for line in by_kind[kind]], float)
        curve = _interval(area_under_curve(again, scores), area_under_curve, sessions, again, scores)
        out.append(row(f"audit.auroc.duplicate.{kind}", *curve, common))
        out.append(row(f"audit.detection.duplicate.{kind}", *_interval(found.mean(), np.mean, sessions, found), common))
    out.append(row("audit.images.duplicate", len(again), float("nan"), float("nan"), common))
    wrong = np.array([line["objects"] for line in by_kind["again"]], float)
    out.append(row("audit.false_alarms.duplicate", *_interval(wrong.mean(), np.mean, sessions, wrong), common))
    return out


def audit_rows(data: Dataset, profile: str = "full", command: str = "") -> tuple[list[dict], list[dict]]:
    """All rows, of one image of each session of a twin, and the lines they are made of."""
    rows = one_image_each(data.sessions) if data.attributes.get("twin_seed") != SEED else _lasts(data)
    common = {"split": "session", "profile": profile, "seeds": [int(data.attributes["twin_seed"])]}
    common |= {"twin_version": data.attributes.get("twin_version"), "command": command}
    lines = list(measure_faults(data, rows))
    out = false_alarm_rows([line for line in lines if not line["fault"]], common)
    out += fault_rows(lines, common)
    out += other_kind_rows(data, rows, common)
    out += duplicate_rows(list(duplicate_lines(data, rows[:PICTURES])), common)
    return out, lines


def _lasts(data: Dataset) -> np.ndarray:
    """Positions of the images of `last_of_sessions`."""
    return np.flatnonzero(np.isin(data.indices, last_of_sessions(data).indices))


def main() -> None:
    """``python -m cimp_core.study.auditing --work RUN --out FILE.json``."""
    parser = argparse.ArgumentParser(description="False alarms and detection of planted faults, on unseen sessions.")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--work", type=Path, required=True, help="folder of the test sessions, simulated if absent")
    parser.add_argument("--lines", type=Path, help="CSV of every image and fault")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "test.h5"
    if not path.exists():
        make_sessions(path, SESSIONS, 256, SEED)
    command = "python -m cimp_core.study.auditing --work RUN --out FILE.json"
    rows, lines = audit_rows(open_dataset(path), arguments.profile, command)
    if arguments.lines is not None:
        names = [k for k in lines[1] if k != "scores"]
        with open(arguments.lines, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(lines)
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
