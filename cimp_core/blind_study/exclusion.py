"""Raters left out of the analysis, by the rules that the settings fixed before anybody answered, and by no other."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .results import Answers

__all__ = ["RULES", "excluded_raters", "rater_table"]

RULES = {
    "min_catch_correct": ("catch_correct", "least", "share of catch trials answered right"),
    "max_side_share": ("side_share", "most", "share of the side chosen more often"),
    "min_repeat_agreement": ("repeat_agreement", "least", "share of repeats with the same picture chosen"),
    "min_median_seconds": ("median_seconds", "least", "median time of an answer [s]"),
    "min_complete": ("complete", "least", "share of trials answered"),
}
"""Setting: column of `rater_table`, whether the value is the least or the most allowed, and what it is."""


def rater_table(answers: Answers) -> pd.DataFrame:
    """What the rules look at, one row a rater.

    Returns
    -------
    DataFrame
        Index ``rater``; columns ``file``, ``code``, ``answered``, ``complete`` (share of the trials shown),
        ``catch_correct``, ``left_share`` and ``side_share`` (of all answers but those to catch trials, whose side is
        given), ``repeat_agreement``, ``median_seconds``; ``nan`` where there is nothing to judge by.
    """
    rows = []
    for rater in answers.raters.itertuples():
        mine = answers.table[answers.table["rater"] == rater.rater]
        catch, free = mine[mine["kind"] == "catch"], mine[mine["kind"] != "catch"]
        left = float((free["choice"] == "left").mean()) if len(free) else np.nan
        first = mine.set_index("trial")["chosen"]
        again = mine[mine["repeats"].isin(first.index)]
        same = again["chosen"].to_numpy() == first.reindex(again["repeats"]).to_numpy()
        rows.append({
            "rater": rater.rater,
            "file": rater.file,
            "code": rater.code,
            "answered": len(mine),
            "complete": len(mine) / rater.shown,
            "catch_correct": float((catch["choice"] == catch["correct"]).mean()) if len(catch) else np.nan,
            "left_share": left,
            "side_share": max(left, 1 - left),
            "repeat_agreement": float(same.mean()) if len(again) else np.nan,
            "median_seconds": float(mine["seconds"].median()),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("rater")


def excluded_raters(table: pd.DataFrame, rules: dict[str, float | None]) -> list[dict]:
    """Each rule that a rater breaks, with the value that breaks it.

    A value that is not known breaks no rule: a study without catch trials excludes nobody by them.

    Parameters
    ----------
    table : DataFrame
        From `rater_table`.
    rules : dict
        ``exclude`` of the settings; ``None`` is no rule.

    Returns
    -------
    list of dict
        ``rater``, ``rule``, ``limit``, ``value``.
    """
    found = []
    for rater, row in table.iterrows():
        for rule, (column, way, _) in RULES.items():
            limit, value = rules.get(rule), row[column]
            if limit is None or np.isnan(value):
                continue
            if value < limit if way == "least" else value > limit:
                found.append({"rater": rater, "rule": rule, "limit": float(limit), "value": float(value)})
    return found
