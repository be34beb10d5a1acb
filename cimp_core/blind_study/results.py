"""The result files of raters against the key: each is either read whole or named with what is wrong with it.

Nothing in a file is repaired. A file that is damaged, belongs to another study or repeats another is left out, and the
others are analysed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import SchemaError, UnreadableFileError
from .config import config_digest

__all__ = ["COLUMNS", "KEY", "RESULTS", "SIMULATED", "Answers", "load_key", "load_results"]

KEY, RESULTS = "key.json", "results"
SIMULATED = "simulated-"
"""How the ids of simulated raters begin."""

COLUMNS = (
    "rater",
    "code",
    "trial",
    "kind",
    "image",
    "left",
    "right",
    "choice",
    "chosen",
    "seconds",
    "repeats",
    "correct",
)
"""Of the table of answers: one row an answer, in the order given; ``chosen`` is the method on the chosen side."""

_LARGEST = 50_000_000  # a result file of thousands of answers has less than one of these [bytes]


@dataclass(frozen=True)
class Answers:
    """What was read."""

    key: dict[str, Any]
    table: pd.DataFrame  # with COLUMNS
    raters: pd.DataFrame  # rater, code, file, shown (trials of the assignment)
    left_out: tuple[dict[str, str], ...]  # file and reason
    simulated: bool


class _Fault(Exception):
    """Why a result file is left out."""


def load_key(folder: str | Path) -> dict[str, Any]:
    """The key of a study, whose settings must be those that it was made with.

    Raises
    ------
    UnreadableFileError
        There is no key, or it is no JSON.
    SchemaError
        It lacks something, or its settings were changed afterwards.
    """
    path = Path(folder) / KEY
    try:
        key = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: no such file; name the folder that 'cimp study make' wrote") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableFileError(
            f"{path}: not readable as JSON ({error}); restore it, no analysis goes without"
        ) from error
    try:
        if key["format"] != 1:
            raise SchemaError(f"{path}: format {key['format']!r} is unknown; update this program")
        if config_digest(key["config"]) != key["digest"]:
            raise SchemaError(
                f"{path}: its settings were changed after the study was made, so its rules of exclusion were not fixed "
                "beforehand; restore the key"
            )
        for part in ("study", "methods", "images"):
            key[part]
        seen = [trial["id"] for given in key["assignments"] for trial in given["trials"]]
        needed = ("kind", "image", "left", "right", "repeats", "correct")
        [[trial[name] for name in needed] for given in key["assignments"] for trial in given["trials"]]
        codes = [given["code"] for given in key["assignments"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"{path}: not the key of a study ({type(error).__name__}: {error}); restore it") from error
    if len(set(seen)) < len(seen) or len(set(codes)) < len(codes):
        raise SchemaError(f"{path}: a trial or a code occurs twice; restore the key")
    return key


def load_results(folder: str | Path) -> Answers:
    """Read the key and every ``results/*.json`` of a study.

    Raises
    ------
    UnreadableFileError, SchemaError
        As `load_key`; no file could be used; or simulated and real raters are mixed.
    """
    folder = Path(folder)
    key = load_key(folder)
    paths = sorted(path for path in (folder / RESULTS).glob("*.json") if not path.name.startswith("."))
    if not paths:
        raise UnreadableFileError(f"{folder / RESULTS}: no result files (*.json); put those of the raters there")
    left_out: dict[str, str] = {}
    read: dict[str, dict] = {}
    for path in paths:
        try:
            read[path.name] = _read(path, key)
        except _Fault as fault:
            left_out[path.name] = str(fault)
    simulated = {name: held["rater"].startswith(SIMULATED) for name, held in read.items()}
    if len(set(simulated.values())) == 2:
        names = ", ".join(name for name, made in simulated.items() if made)
        raise SchemaError(f"{folder / RESULTS}: simulated raters among real ones ({names}); take one kind away")
    known = _known(key)
    for rule in (_same_answers, _same_rater, _same_code):
        for name, reason in rule(read).items():
            left_out[name] = reason
            del read[name]
    listed = tuple({"file": name, "reason": left_out[name]} for name in sorted(left_out))
    if not read:
        first = listed[0]
        raise SchemaError(
            f"{folder / RESULTS}: none of {len(paths)} files can be used ({first['file']}: {first['reason']})"
        )
    table = pd.DataFrame([row for held in read.values() for row in _rows(held, known)], columns=list(COLUMNS))
    raters = [(held["rater"], held["code"], name, len(known[held["code"]])) for name, held in read.items()]
    raters = pd.DataFrame(raters, columns=["rater", "code", "file", "shown"])
    return Answers(key, table, raters, listed, any(simulated.values()))


def _known(key: dict) -> dict[str, dict[str, dict]]:
    """Trials by code and id."""
    return {given["code"]: {trial["id"]: trial for trial in given["trials"]} for given in key["assignments"]}


def _rows(held: dict, known: dict) -> list[tuple]:
    rows = []
    for answer in held["answers"]:
        t = known[held["code"]][answer["trial"]]
        chosen = t[answer["choice"]]
        about = (t["id"], t["kind"], t["image"], t["left"], t["right"], answer["choice"], chosen)
        rows.append((held["rater"], held["code"], *about, float(answer["seconds"]), t["repeats"], t["correct"]))
    return rows


def _read(path: Path, key: dict) -> dict:
    """One file, checked from outside to inside; the first thing that is wrong is the reason."""
    try:
        if path.stat().st_size > _LARGEST:
            raise _Fault(f"larger than {_LARGEST // 1_000_000} MB, no result file")
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _Fault(f"damaged or cut off: not readable as JSON ({error})") from error
    if not isinstance(held, dict) or not isinstance(held.get("answers"), list):
        raise _Fault("not a result file: it has no list of answers")
    if held.get("format") != 1:
        raise _Fault(f"format {held.get('format')!r} is unknown; update this program")
    if held.get("study") != key["study"]:
        raise _Fault(f"of another study ({held.get('study')!r}, not {key['study']!r})")
    if "page" in key and held.get("page") != key["page"]:
        raise _Fault("of another version of this study's page: its digest differs from the key's")
    if not isinstance(held.get("rater"), str) or not held["rater"].strip():
        raise _Fault("has no id of the rater")
    known = _known(key)
    if not isinstance(held.get("code"), str) or held["code"] not in known:
        raise _Fault(f"code {held.get('code')!r} is not in the key")
    if not held["answers"]:
        raise _Fault("has no answers")
    seen: set[str] = set()
    for number, answer in enumerate(held["answers"], 1):
        _check_answer(answer, known[held["code"]], seen, f"answer {number}")
    return held


def _check_answer(answer: Any, trials: dict[str, dict], seen: set[str], where: str) -> None:
    if not isinstance(answer, dict):
        raise _Fault(f"{where} is {answer!r}, not an answer")
    trial, choice, seconds = (answer.get(name) for name in ("trial", "choice", "seconds"))
    if not isinstance(trial, str) or trial not in trials:
        raise _Fault(f"{where} is to trial {trial!r}, which this code does not have")
    if trial in seen:
        raise _Fault(f"{where} is a second one to trial {trial}")
    if not isinstance(choice, str) or choice not in ("left", "right"):
        raise _Fault(f"{where} has the choice {choice!r}, neither 'left' nor 'right'")
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds < 0:
        raise _Fault(f"{where} took {seconds!r} s, which no answer takes")
    seen.add(trial)


def _given(held: dict) -> dict[str, tuple]:
    return {answer["trial"]: (answer["choice"], answer["seconds"]) for answer in held["answers"]}


def _same_answers(read: dict[str, dict]) -> dict[str, str]:
    """Copies: the same answers in the same times, which two persons do not give."""
    first: dict[str, str] = {}
    copies = {}
    for name, held in read.items():
        mark = json.dumps(sorted(_given(held).items()))
        if mark in first:
            copies[name] = f"a copy of {first[mark]}: the same answers in the same times"
        else:
            first[mark] = name
    return copies


def _same_rater(read: dict[str, dict]) -> dict[str, str]:
    """An earlier export of the same rater is left out; where two contradict each other, both are."""

    def verdict(name: str, other: str) -> str | None:
        mine, theirs = _given(read[name]), _given(read[other])
        if not mine.items() <= theirs.items() and not theirs.items() <= mine.items():
            return f"the rater of {other} too, with other answers; nobody can tell which count"
        if len(mine) < len(theirs):
            return f"an earlier state of {other}, of the same rater"
        return None

    return _compare(read, "rater", verdict)


def _same_code(read: dict[str, dict]) -> dict[str, str]:
    """One assignment is for one rater; used again, the file with most answers counts, of several the earliest."""

    def rank(name: str) -> tuple:
        return -len(read[name]["answers"]), str(read[name].get("started", "")), name

    def verdict(name: str, other: str) -> str | None:
        if rank(name) < rank(other):
            return None
        return (
            f"code {read[name]['code']} was used for {other} as well; one code is for one rater, who would count twice"
        )

    return _compare(read, "code", verdict)


def _compare(read: dict[str, dict], field: str, verdict: Callable[[str, str], str | None]) -> dict[str, str]:
    """The verdict on each file over all others that have the same value of a field; the first that there is."""
    found = {}
    for name, held in read.items():
        for other, theirs in read.items():
            if other != name and theirs[field] == held[field] and (reason := verdict(name, other)):
                found[name] = reason
                break
    return found
