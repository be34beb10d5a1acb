"""Everything that a study tells, as one dictionary: the files, the raters, the preferences and how certain they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .agreement import consistency, rater_agreement
from .bootstrap import share_interval
from .bradley_terry import bradley_terry
from .exclusion import excluded_raters, rater_table
from .mixed import fit_mixed
from .results import load_results
from .shares import independent, two_way

__all__ = ["HEADLINE", "NOTICE", "analyse", "analyse_answers"]

HEADLINE = "two_way"
"""The interval of a summary. Of those that `cimp_core.study.blind_coverage` measures it holds the truth in 95 % of
every kind of study, as the bootstrap does, which is wider where raters and images differ little; the mixed model's is
narrower than both, and does not hold it often enough where they differ much."""

NOTICE = "SIMULATED: these raters are a computer model of an observer. No person has judged anything here."


def analyse(folder: str | Path, *, draws: int = 2000, seed: int = 0) -> dict:
    """Analyse a study.

    Parameters
    ----------
    folder : str or Path
        With ``key.json`` and ``results/*.json``.
    draws, seed : int
        Of every bootstrap.

    Returns
    -------
    dict
        ``study``, ``title``, ``question``; ``simulated`` and ``notice``; ``files`` (``read``, ``left_out``); ``raters``
        (one entry each) and ``excluded`` (rater, rule, limit, value), ``rules``; ``headline``, which interval a summary
        shows; ``result``, see `analyse_answers`, without the raters excluded; ``without_exclusion``, the same with
        them, ``None`` where nobody was excluded. JSON can hold it: what is not known is ``None``.

    Raises
    ------
    CimpError
        Nothing can be analysed; the message says why.
    """
    answers = load_results(folder)
    settings = answers.key["config"]
    rules = settings.get("exclude") or {}
    raters = rater_table(answers)
    excluded = excluded_raters(raters, rules)
    out = {entry["rater"] for entry in excluded}
    kept = answers.table[~answers.table["rater"].isin(out)]
    both = [
        analyse_answers(table, answers.key["methods"], draws=draws, seed=seed)
        for table in (kept, answers.table)[: 1 + bool(out)]
    ]
    return {
        "study": answers.key["study"],
        "title": settings.get("title"),
        "question": settings.get("question"),
        "simulated": answers.simulated,
        "notice": NOTICE if answers.simulated else None,
        "files": {"read": len(answers.raters), "left_out": list(answers.left_out)},
        "raters": _records(raters.assign(excluded=raters.index.isin(out))),
        "rules": rules,
        "headline": HEADLINE,
        "excluded": excluded,
        "result": both[0],
        "without_exclusion": both[1] if out else None,
        "bootstrap": {"draws": draws, "seed": seed},
    }


def analyse_answers(table: pd.DataFrame, methods: Sequence[str], *, draws: int = 2000, seed: int = 0) -> dict:
    """Analyse answers, whoever gave them.

    Parameters
    ----------
    table : DataFrame
        As `cimp_core.blind_study.results.COLUMNS`.
    methods : sequence of str
    draws, seed : int

    Returns
    -------
    dict
        ``raters``, ``images``, ``trials``; ``pairs``, of each two methods ``count`` of ``trials`` with A chosen and
        every interval; ``bradley_terry``, ``None`` with two methods; ``side``: ``count`` of ``trials`` with the left
        picture chosen, ``share``, ``low``, ``high``, ``p``, and ``model``, the log-odds; ``repeats``; ``catch``.
    """
    trials = table[table["kind"] == "trial"]
    shares = [
        _pair(trials[trials["left"].isin(pair) & trials["right"].isin(pair)], *pair, draws, seed)
        for pair in itertools.combinations(methods, 2)
    ]
    left = (trials["choice"] == "left").to_numpy()
    catch = table[table["kind"] == "catch"]
    right = (catch["choice"] == catch["correct"]).to_numpy()
    strengths = bradley_terry(trials, methods, draws=draws, seed=seed) if len(trials) else None
    return {
        "raters": trials["rater"].nunique(),
        "images": trials["image"].nunique(),
        "trials": len(trials),
        "pairs": shares,
        "bradley_terry": strengths if len(methods) > 2 else None,
        "side": _share(left, trials) | {"model": strengths and strengths["side"]},
        "repeats": consistency(table),
        "catch": _share(right, catch),
    }


def _share(yes: np.ndarray, rows: pd.DataFrame) -> dict:
    found = two_way(yes, rows["rater"].to_numpy(), rows["image"].to_numpy())
    numbers = {"low": found.low, "high": found.high, "p": found.p, "df": found.df, "reason": found.reason}
    return {"count": int(yes.sum()), "trials": len(yes), "share": found.value, **numbers}


def _pair(trials: pd.DataFrame, a: str, b: str, draws: int, seed: int) -> dict:
    """How often A was preferred to B, with every interval."""
    a_chosen = (trials["chosen"] == a).to_numpy()
    raters, images = trials["rater"].to_numpy(), trials["image"].to_numpy()
    found = _share(a_chosen, trials)
    drawn, mixed = None, None
    if len(trials):
        drawn = share_interval(a_chosen, raters, images, draws=draws, seed=seed)
        mixed = fit_mixed(a_chosen, raters, images, (trials["left"] == a).to_numpy())
    return {
        "a": a,
        "b": b,
        "count": found["count"],
        "trials": found["trials"],
        "share": found["share"],
        "two_way": {name: found[name] for name in ("low", "high", "p", "df", "reason")},
        "bootstrap": None if drawn is None else {"low": drawn[0], "high": drawn[1]},
        "mixed": None if mixed is None else mixed._asdict(),
        "independent": independent(found["count"], found["trials"]),
        "alpha": rater_agreement(trials.assign(a_chosen=a_chosen), draws=draws, seed=seed),
    }


def _records(raters: pd.DataFrame) -> list[dict]:
    rows = raters.reset_index().to_dict(orient="records")
    return [{name: None if isinstance(v, float) and np.isnan(v) else v for name, v in row.items()} for row in rows]
