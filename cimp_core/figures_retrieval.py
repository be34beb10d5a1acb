"""Static figures of the chapter on retrieval: curves with their intervals, and what wrong answers differ in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .figures import OKABE_ITO
from .metadata import LABELS, PARAMETERS

__all__ = ["cosine_histogram", "curve_from_rows", "curve_plot", "difference_plot"]

COLUMNS = ["series", "x", "value", "low", "high"]


def curve_from_rows(rows: Iterable[Mapping], pattern: str, series: str) -> pd.DataFrame:
    """Points of a curve from rows of the results file, in the order of x; empty if there is none.

    Parameters
    ----------
    rows : rows of the results file
    pattern : str
        Regular expression that a whole name must match; its one group is x: a number, or another word, such as ``all``,
        for which the row's pool is taken.
    series : str
        Written into the column of that name.

    Returns
    -------
    DataFrame
        Columns ``series``, ``x``, ``value``, ``low``, ``high``; rows without a value are left out.
    """
    points = []
    for row in rows:
        match = re.fullmatch(pattern, row["name"])
        if match and row["value"] is not None:
            x = int(match[1]) if match[1].isdigit() else row["pool"]
            points.append((series, x, row["value"], row["low"], row["high"]))
    table = pd.DataFrame(points, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[1:], float))
    return table.sort_values("x", ignore_index=True)


def curve_plot(
    panels: Mapping[str, pd.DataFrame],
    *,
    xlabel: str,
    ylabel: str,
    logarithmic: bool = True,
    ticks: Mapping[float, str] | None = None,
) -> mpl.figure.Figure:
    """Curves with error bars, one panel for each table and one colour a series; the panels share the vertical axis.

    Parameters
    ----------
    panels : mapping of title to DataFrame
        Columns ``series``, ``x``, ``value``, ``low``, ``high``; the ends of an interval may be ``nan``.
    xlabel, ylabel : str
    logarithmic : bool
        Whether x doubles from tick to tick.
    ticks : mapping of x to text, optional
        By default the values of x that occur.
    """
    figure, grid = plt.subplots(
        1, len(panels), figsize=(4.6 * max(len(panels), 1.3), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (title, table) in zip(grid.flat, panels.items(), strict=True):
        for j, name in enumerate(dict.fromkeys(table["series"])):
            part = table[table["series"] == name].sort_values("x")
            x, value, low, high = (part[c].to_numpy(float) for c in COLUMNS[1:])
            reach = np.nan_to_num(np.vstack([value - low, high - value])).clip(min=0)
            style = {"fmt": "oDs^v"[j % 5] + "-", "ms": 4, "capsize": 2, "color": OKABE_ITO[j % len(OKABE_ITO)]}
            axes.errorbar(x, value, yerr=reach, label=name, **style)
        if logarithmic:
            axes.set_xscale("log", base=2)
        marks = dict(ticks) if ticks else {x: f"{x:g}" for x in sorted(set(table["x"]))}
        axes.set_xticks(list(marks), list(marks.values()), rotation=45 if len(marks) > 4 else 0)
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set(xlabel=xlabel, title=title, ylim=(0, 1))
        axes.grid(axis="y", alpha=0.3)
    grid.flat[0].set_ylabel(ylabel)
    grid.flat[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def cosine_histogram(matched: np.ndarray, mismatched: np.ndarray) -> mpl.figure.Figure:
    """Cosines of images with their own settings (any shape) and with those of others, each a density."""
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    edges = np.linspace(-1, 1, 61)
    series = (("image and settings of another", mismatched), ("image and its own settings", matched))
    for color, hatch, (label, cosine) in zip(OKABE_ITO, ("", "///"), series, strict=False):
        axes.hist(np.ravel(cosine), edges, density=True, alpha=0.6, color=color, hatch=hatch, label=label)
    axes.set(xlabel="cosine", ylabel="density")
    axes.legend()
    return figure


def difference_plot(differs: np.ndarray, names: Sequence[str] = LABELS) -> mpl.figure.Figure:
    """Bars: of wrong first answers, the share that differ from the truth in each setting, and in that one alone.

    `differs` is (n, 7) bool, one row a wrong answer; without any, the bars are empty.
    """
    differs = np.asarray(differs, bool).reshape(-1, len(PARAMETERS))
    count = max(len(differs), 1)
    alone = differs & (differs.sum(axis=1, keepdims=True) == 1)
    place = np.arange(len(PARAMETERS))
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for shift, color, label, part in ((-0.2, 0, "differ in it", differs), (0.2, 1, "differ in nothing else", alone)):
        axes.barh(place + shift, part.sum(axis=0) / count, 0.38, color=OKABE_ITO[color], label=label)
    axes.set_yticks(place, names)
    axes.invert_yaxis()
    axes.set(xlabel=f"share of {len(differs)} wrong first answers", xlim=(0, 1))
    axes.legend(loc="lower right")
    return figure
