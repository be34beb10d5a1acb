"""Figures of advice: predicted quality against dose, prediction against truth, and how a loop closes in."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.constants import angstrom

from .advising import Estimate, Goal, Limits, Quality
from .advising.predict import dose_of, predict, relative_dose
from .figures import OKABE_ITO

__all__ = ["dose_explorer", "loop_steps", "predicted_against_obtained", "quality_curves", "quality_table"]

_SHOWN = {"snr": ("snr", 1.0), "column_precision": ("column precision [pm]", 1e12), "clipped": ("clipped share", 1.0)}


def quality_table(known: Estimate, dwell_times: Sequence[float], limits: Limits | None = None) -> pd.DataFrame:
    """Predicted quality at several dwell times, a line each.

    Returns
    -------
    DataFrame
        Columns ``dwell_time`` [s], ``dose`` [e/angstrom^2], or in parts of the frame's where it is not known, and
        ``snr_value``, ``snr_low``, ``snr_high``; the same of ``column_precision`` [m] and ``clipped``, if known.
    """
    lines = []
    for time in dwell_times:
        settings = known.settings.replace(dwell_time=float(time))
        dose, quality = dose_of(settings), predict(known, settings, limits)
        relative = relative_dose(settings, known.settings)
        line = {"dwell_time": float(time), "dose": relative if dose is None else dose * angstrom**2}
        for name in _SHOWN:
            found = getattr(quality, name)
            line |= {} if found is None else {f"{name}_{key}": value for key, value in found._asdict().items()}
        lines.append(line)
    return pd.DataFrame(lines)


def quality_curves(table: pd.DataFrame, truth: pd.DataFrame | None = None) -> mpl.figure.Figure:
    """Each quality against the dose, with its interval; dots are what recordings of the same area have.

    Parameters
    ----------
    table : DataFrame
        Of `quality_table`.
    truth : DataFrame, optional
        Columns ``dose`` and the names of qualities.
    """
    names = [name for name in _SHOWN if f"{name}_value" in table]
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3), layout="constrained", squeeze=False)
    for one, name in zip(axes[0], names):
        label, unit = _SHOWN[name]
        low, value, high = (table[f"{name}_{end}"] * unit for end in ("low", "value", "high"))
        one.fill_between(table["dose"], low, high, color=OKABE_ITO[5], alpha=0.4, lw=0, label="90 % interval")
        one.plot(table["dose"], value, color=OKABE_ITO[0], label="predicted")
        if truth is not None and name in truth:
            one.plot(truth["dose"], truth[name] * unit, "o", color=OKABE_ITO[3], ms=4, label="recorded")
        one.set(xscale="log", xlabel="dose [e/Å²]", ylabel=label)
        if name == "clipped":
            one.set_ylim(0, max(0.01, 1.1 * float(high.max())))
        else:
            one.set_yscale("log")
            _plain(one.yaxis)
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


def dose_explorer(table: pd.DataFrame, goals: Sequence[Goal]) -> go.Figure:
    """Plotly: quality against dose; a slider moves the goal, and the least dose that surely reaches it is marked.

    Parameters
    ----------
    table : DataFrame
        Of `quality_table`, by rising dose.
    goals : sequence of Goal
        All of one quantity; the steps of the slider.
    """
    name = "snr" if goals[0].quantity == "snr" else "column_precision"
    label, unit = _SHOWN[name]
    x = table["dose"].to_numpy()
    low, value, high = (table[f"{name}_{end}"].to_numpy() * unit for end in ("low", "value", "high"))
    times = [f"{t * 1e6:.3g} µs" for t in table["dwell_time"]]
    worse = low if name == "snr" else high
    marks = []
    for goal in goals:
        reached = np.flatnonzero(worse >= goal.value if name == "snr" else worse <= goal.value * unit)
        marks.append((goal, int(reached[0]) if len(reached) else None))
    start = len(goals) // 2

    def mark(goal: Goal, number: int | None) -> tuple[list[float], list[float], str]:
        if number is None:
            return [], [], f"{goal}: not reached within the limits"
        text = f"{goal}: {times[number]}, {x[number]:.4g} e/Å²"
        return [float(x[number])], [float(value[number])], text

    band = go.Scatter(
        x=np.r_[x, x[::-1]].tolist(), y=np.r_[low, high[::-1]].tolist(), fill="toself", mode="lines",
        line={"width": 0}, fillcolor="rgba(86,180,233,0.35)", name="90 % interval", hoverinfo="skip",
    )  # fmt: skip
    line = go.Scatter(
        x=x.tolist(), y=value.tolist(), mode="lines", name="predicted", line={"color": OKABE_ITO[0]}, text=times,
        hovertemplate="%{text}<br>%{x:.4g} e/Å²<br>" + label + " %{y:.3g}<extra></extra>",
    )  # fmt: skip
    at_x, at_y, title = mark(*marks[start])
    point = go.Scatter(x=at_x, y=at_y, mode="markers", name="least dose", marker={"size": 13, "color": OKABE_ITO[3]})
    steps = []
    for goal, number in marks:
        px, py, text = mark(goal, number)
        steps.append({"label": goal.text(goal.value).removeprefix("column precision "), "method": "update",
                      "args": [{"x": [px], "y": [py]}, {"title.text": text}, [2]]})  # fmt: skip
    slider = {"steps": steps, "active": start, "name": "goal", "pad": {"t": 40}}
    slider["currentvalue"] = {"prefix": "goal: "}
    figure = go.Figure([band, line, point])
    figure.update_layout(
        title={"text": title},
        xaxis={"title": {"text": "dose [e/Å²]"}, "type": "log"},
        yaxis={"title": {"text": label}, "type": "log"},
        sliders=[
            {"steps": steps, "active": start, "name": "goal", "pad": {"t": 40}, "currentvalue": {"prefix": "goal: "}}
        ],
        template="plotly_white",
        height=480,
        margin={"t": 60, "l": 60, "r": 20, "b": 50},
        meta={
            "alt": f"Predicted {label} against dose with its interval; a slider sets the goal, and a point marks the "
            "least dose that surely reaches it."
        },
    )
    return figure


def predicted_against_obtained(table: pd.DataFrame) -> mpl.figure.Figure:
    """What was obtained against what was predicted, with intervals; the diagonal is right.

    Parameters
    ----------
    table : DataFrame
        Of `cimp_core.study.advising.prediction_table`.
    """
    shown = (("snr", "snr", 1.0), ("columns", "column precision [pm]", 1e12), ("clip", "clipped share", 1.0))
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for one, (name, label, unit) in zip(axes, shown):
        part = table[table["longer"] > 1].dropna(subset=[f"{name}_obtained", f"{name}_value"])
        value, low, high, got = (part[f"{name}_{k}"].to_numpy() * unit for k in ("value", "low", "high", "obtained"))
        if name == "clip":
            value, low, high, got = (np.maximum(v, 1e-5) for v in (value, low, high, got))
        inside = (low <= got) & (got <= high)
        for chosen, colour, what in ((inside, OKABE_ITO[0], "held"), (~inside, OKABE_ITO[3], "missed")):
            wide = np.maximum([value - low, high - value], 0)[:, chosen]
            style = {"fmt": "o", "ms": 2.5, "lw": 0.6, "color": colour, "label": what}
            one.errorbar(value[chosen], got[chosen], xerr=wide, **style)
        if len(got):
            ends = [min(value.min(), got.min()), max(value.max(), got.max())]
            one.plot(ends, ends, color="0.5", lw=0.8, zorder=0)
        one.set(xscale="log", yscale="log", xlabel=f"predicted {label}", ylabel="obtained")
        if name != "clip":
            _plain(one.xaxis)
            _plain(one.yaxis)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def loop_steps(
    doses: Sequence[float], qualities: Sequence[Quality], goal: Goal, truth: Sequence[float]
) -> mpl.figure.Figure:
    """How a loop closes in on its goal: quality of all frames so far against all dose so far.

    Parameters
    ----------
    doses : sequence of float
        Of all frames up to each [e/m^2].
    qualities : sequence of Quality
        What the loop believed after each.
    truth : sequence of float
        What was obtained; ``nan`` where it is not known.
    """
    name = "snr" if goal.quantity == "snr" else "column_precision"
    label, unit = _SHOWN[name]
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    known = [(d * angstrom**2, q.of(goal)) for d, q in zip(doses, qualities) if q.of(goal) is not None]
    for dose, found in known:
        axes.plot([dose, dose], [found.low * unit, found.high * unit], color=OKABE_ITO[0], lw=2)
    axes.plot([d for d, _ in known], [f.value * unit for _, f in known], "o-", color=OKABE_ITO[0], label="estimated")
    axes.plot(np.array(doses) * angstrom**2, np.array(truth) * unit, "x", color=OKABE_ITO[3], ms=8, label="obtained")
    axes.axhline(goal.value * unit, color="0.4", ls=":", label=str(goal))
    axes.set(xscale="log", yscale="log", xlabel="dose so far [e/Å²]", ylabel=label)
    _plain(axes.yaxis)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _plain(axis: mpl.axis.Axis) -> None:
    """Ticks at 1, 2 and 5 of a logarithmic axis, as plain numbers."""
    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(mpl.ticker.NullFormatter())
