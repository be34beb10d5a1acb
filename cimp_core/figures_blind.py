"""Figures and tables of blind studies: what a published share allows, shares of preference, coverage of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .errors import SchemaError
from .figures import OKABE_ITO

__all__ = ["INTERVALS", "compatible", "coverage_table", "shares"]

INTERVALS = {
    "two_way": "two-way, the headline",
    "bootstrap": "two-way bootstrap",
    "mixed": "mixed logistic model",
    "wilson": "Wilson, trials independent",
    "exact": "Clopper-Pearson, trials independent",
}
"""Intervals of a share of preference, as the results file and as a reader name them."""


def compatible(counts: pd.DataFrame) -> mpl.figure.Figure:
    """Wilson intervals against the number of trials.

    Parameters
    ----------
    counts : DataFrame
        Of `cimp_core.blind_study.power.compatible_counts`.
    """
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    trials, low, high = (counts[name].to_numpy(float) for name in ("trials", "wilson_low", "wilson_high"))
    axes.vlines(trials, 100 * low, 100 * high, color=OKABE_ITO[0], lw=0.8)
    axes.plot(trials, 100 * counts["share"], ".", ms=2, color=OKABE_ITO[1])
    axes.axhline(50, color="0.5", lw=0.8, ls=":")
    axes.set_xlabel("trials")
    axes.set_ylabel("preferred, 95 % [%]")
    return figure


def shares(pairs: Sequence[Mapping]) -> mpl.figure.Figure:
    """Share of each pair with its two-way interval, and below it the one that takes trials for independent.

    Parameters
    ----------
    pairs : sequence of dict
        ``result["pairs"]`` of `cimp_core.blind_study.analysis.analyse`.

    Raises
    ------
    SchemaError
        No pair was ever compared.
    """
    known = [pair for pair in pairs if pair["trials"]]
    if not known:
        raise SchemaError("no pair of methods was ever compared: there is no share to draw")
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.6 * len(known)), layout="constrained")
    for place, pair in enumerate(known):
        ends = {"two-way": (pair["two_way"]["low"], pair["two_way"]["high"]), "alone": pair["independent"]["wilson"]}
        drawn = (("two-way", 0.12, OKABE_ITO[0], "o"), ("alone", -0.16, OKABE_ITO[1], "s"))
        for name, up, colour, mark in drawn:
            if ends[name] and ends[name][0] is not None:
                axes.hlines(place + up, *(100 * np.array(ends[name], float)), color=colour, lw=2)
            axes.plot(100 * pair["share"], place + up, mark, color=colour, ms=5)
    axes.axvline(50, color="0.5", lw=0.8, ls=":")
    axes.set_yticks(range(len(known)), [f"{pair['a']} over {pair['b']}" for pair in known])
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("preferred [%], 95 %")
    handles = [
        mpl.lines.Line2D([], [], color=colour, marker=mark, lw=2, label=label)
        for colour, mark, label in (
            (OKABE_ITO[0], "o", "other raters and images"),
            (OKABE_ITO[1], "s", "trials independent (they are not)"),
        )
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def coverage_table(rows: Sequence[Mapping], effects: str = "usual") -> pd.DataFrame:
    """How often intervals of a preference held the truth [%]: a line an interval, a column a size and share.

    Parameters
    ----------
    rows : sequence of dict
        Of the results file, ``blind.coverage.METHOD.RATERSxIMAGES.shareNN.EFFECTS``.
    effects : str
        ``none``, ``usual`` or ``large`` differences between raters and images.
    """
    found: dict[tuple[int, int, int], dict[str, float]] = {}
    for row in rows:
        parts = row["name"].split(".")
        if len(parts) != 6 or parts[:2] != ["blind", "coverage"] or parts[2] not in INTERVALS or parts[5] != effects:
            continue
        raters, images = (int(n) for n in parts[3].split("x"))
        column = raters, images, int(parts[4].removeprefix("share"))
        found.setdefault(column, {})[INTERVALS[parts[2]]] = round(100 * row["value"], 1)
    if not found:
        return pd.DataFrame()
    table = pd.DataFrame(found).sort_index(axis=1)
    names = [(f"{raters} raters, {images} images", f"share {share} %") for raters, images, share in table.columns]
    table.columns = pd.MultiIndex.from_tuples(names)
    return table.reindex([name for name in INTERVALS.values() if name in table.index])
