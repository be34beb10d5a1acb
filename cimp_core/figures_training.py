"""Figures of the chapter on pre-training: what the model sees, how a run goes, and what each part contributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .errors import OutOfRangeError
from .figures import OKABE_ITO, interval_plot
from .metadata import LABELS, PARAMETERS
from .models.cimp import MAX_SCALE
from .models.encoders import FULL_SCALE

__all__ = [
    "ablation_map",
    "ablation_plot",
    "ablation_table",
    "budget_plot",
    "model_inputs",
    "scan_axes_plot",
    "settling_plot",
    "spectrum_plot",
    "training_curves",
]


def model_inputs(crops: Sequence[np.ndarray], titles: Sequence[str]) -> mpl.figure.Figure:
    """Crops as the two channels of the image encoder: above normalised, each by itself; below on one absolute scale.

    Parameters
    ----------
    crops : sequence of (h, w) arrays
        Counts of 16-bit images.
    """
    figure, grid = plt.subplots(
        2, len(crops), figsize=(2.3 * len(crops) + 0.8, 4.9), layout="constrained", squeeze=False
    )
    for crop, title, (above, below) in zip(crops, titles, grid.T, strict=True):
        counts = np.asarray(crop, float)
        normalised = above.imshow((counts - counts.mean()) / max(counts.std(), 1e-9), vmin=-3, vmax=3)
        absolute = below.imshow(counts / FULL_SCALE, vmin=0, vmax=1)
        above.set_title(title, fontsize=9)
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
    figure.colorbar(normalised, ax=grid[0], label="standard deviations from the mean", shrink=0.9)
    figure.colorbar(absolute, ax=grid[1], label="share of full scale", shrink=0.9)
    return figure


def spectrum_plot(spectra: Sequence[np.ndarray], titles: Sequence[str]) -> mpl.figure.Figure:
    """Power spectra over logarithm of the radius and angle, and their means over the angle beside one another.

    Parameters
    ----------
    spectra : sequence of (R, A) arrays
        Logarithm of the power; rows from low to high spatial frequency at equal steps of its logarithm, columns over
        half a turn.
    """
    count = len(spectra)
    figure, axes = plt.subplots(1, count + 1, figsize=(2.6 * count + 3.2, 3.0), layout="constrained")
    low, high = np.percentile(np.concatenate([np.ravel(s) for s in spectra]), (1, 99.5))
    for i, (panel, spectrum, title) in enumerate(zip(axes[:-1], spectra, titles, strict=True)):
        extent = (0, 180, -0.5, len(spectrum) - 0.5)
        panel.imshow(spectrum, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="cividis")
        panel.set(title=title, xlabel="angle [degrees]", xticks=[0, 90, 180])
        axes[-1].plot(np.mean(spectrum, axis=1), range(len(spectrum)), label=title, color=OKABE_ITO[i])
    axes[0].set_ylabel("step of log radius")
    axes[-1].set(xlabel="mean log power", ylim=axes[0].get_ylim())
    axes[-1].legend(fontsize=8)
    return figure


def settling_plot(runs: Mapping[str, tuple[Sequence[float], float]], titles: Sequence[str]) -> mpl.figure.Figure:
    """Losses of an optimisation, each with the lowest value it can have as a dashed line.

    Parameters
    ----------
    runs : mapping of label to (losses, lowest)
        The same number of runs for each of `titles`, in their order.
    """
    figure, panels = plt.subplots(1, len(titles), figsize=(4.5 * len(titles), 3.1), layout="constrained", squeeze=False)
    each = len(runs) // len(titles)
    for number, (label, (losses, lowest)) in enumerate(runs.items()):
        axes, colour = panels[0, number // each], OKABE_ITO[number % each]
        # The second is drawn thin on the first, so that both are seen where they are equal.
        axes.plot(losses, color=colour, lw=3 - 1.8 * (number % each), label=label)
        axes.axhline(lowest, color=colour, ls="--", lw=1)
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set(title=title, xlabel="step", ylabel="loss")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    return figure


def scan_axes_plot(dwell_time: np.ndarray, difference: np.ndarray) -> mpl.figure.Figure:
    """How much more the noise of neighbours correlates along a row than along a column, against dwell time [s]."""
    figure, axes = plt.subplots(figsize=(6, 3.1), layout="constrained")
    axes.plot(np.asarray(dwell_time) * 1e6, difference, "o", color=OKABE_ITO[3], ms=4, alpha=0.6)
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xscale="log", xlabel="dwell time [µs]", ylabel="correlation of neighbours,\nrow minus column")
    _plain_numbers(axes.xaxis)
    return figure


def _plain_numbers(axis: mpl.axis.Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5, or where that would crowd it at powers of ten, written out."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


def training_curves(logs: Mapping[str, pd.DataFrame]) -> mpl.figure.Figure:
    """Loss above its minimum, validation retrieval, and inverse temperature of one or more runs.

    Parameters
    ----------
    logs : mapping of label to DataFrame
        Entries of a training log: ``samples``, ``excess``, ``scale`` and, in some rows, ``val_top1`` ... ``val_top10``.
    """
    figure, (loss, found, scale) = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    for i, (label, log) in enumerate(logs.items()):
        thousands, style = log["samples"] / 1000, ("-", "--", ":")[i % 3]
        loss.plot(thousands, log["excess"], style, color="black", marker=".", ms=3, label=label)
        scale.plot(thousands, log["scale"], style, color="black", label=label)
        checks = log.dropna(subset=["val_top1"]) if "val_top1" in log else None
        for k, colour, marker in zip((1, 5, 10), OKABE_ITO, "os^", strict=False):
            if checks is None:
                continue
            name = f"Top-{k}" if i == 0 else None
            found.plot(checks["samples"] / 1000, checks[f"val_top{k}"], style, color=colour, marker=marker, label=name)
    scale.axhline(MAX_SCALE, color=OKABE_ITO[3], lw=1, label="clamp")
    loss.set(yscale="log", ylabel="loss above its minimum")
    found.set(ylim=(0, 1), ylabel="share of validation images found")
    scale.set(yscale="log", ylabel="inverse temperature")
    for axes in (loss, scale):
        _plain_numbers(axes.yaxis)
    for axes in (loss, found, scale):
        axes.set(xscale="log", xlabel="crops seen [thousands]")
        _plain_numbers(axes.xaxis)
        axes.legend(fontsize=8)
    return figure


def ablation_table(rows: Iterable[Mapping]) -> pd.DataFrame:
    """One line a variant of the rows ``ablation.topK.*``, in order of Top-1, as text with intervals.

    Columns: Top-1, 5 and 10, and what the variant changed of Top-1 against the reference.
    """
    found = _named(rows)
    variants = [name.rsplit(".", 1)[1] for name in found if name.startswith("ablation.top1.")]
    if not variants:
        raise OutOfRangeError("no row of an ablation: names begin with ablation.top1")
    variants.sort(key=lambda v: -found[f"ablation.top1.{v}"]["value"])
    columns = {f"Top-{k}": f"top{k}.{{}}" for k in (1, 5, 10)} | {"change of Top-1": "change.top1.{}"}
    table = {c: [_text(found.get("ablation." + p.format(v))) for v in variants] for c, p in columns.items()}
    return pd.DataFrame(table, index=pd.Index([v.replace("_", " ") for v in variants], name="variant"))


def _named(rows: Iterable[Mapping]) -> dict[str, Mapping]:
    return {row["name"]: row for row in rows if row["name"].startswith("ablation.")}


def _text(row: Mapping | None) -> str:
    if row is None or row["value"] is None:
        return ""
    interval = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.2f}{interval}"


def ablation_plot(rows: Iterable[Mapping]) -> mpl.figure.Figure:
    """What each variant changes of Top-1, 5 and 10 against the reference, with intervals; the worst for Top-1 first."""
    table = []
    for row in rows:
        parts = row["name"].split(".")
        if parts[:2] == ["ablation", "change"] and parts[2].startswith("top") and row["value"] is not None:
            series = f"Top-{parts[2][3:]}"
            table.append((parts[3].replace("_", " "), series, row["value"], row["low"], row["high"]))
    if not table:
        raise OutOfRangeError("no row of an ablation's changes: names begin with ablation.change.top")
    table = pd.DataFrame(table, columns=["quantity", "series", "value", "low", "high"])
    first = table[table["series"] == "Top-1"].set_index("quantity")["value"]
    table["series"] = pd.Categorical(table["series"], ["Top-1", "Top-5", "Top-10"])
    table = table.sort_values("series", kind="stable")
    table = table.sort_values("quantity", key=lambda q: q.map(first), kind="stable")
    figure = interval_plot(table, label="change of the share found, variant minus reference")
    figure.axes[0].axvline(0, color="black", lw=0.8)
    return figure


def ablation_map(rows: Iterable[Mapping], *, reach: float = 0.3) -> mpl.figure.Figure:
    """R2 of every parameter, variant by variant; colour is the change against the reference.

    A change whose interval contains zero is not coloured. What was not measured is left empty.

    Parameters
    ----------
    reach : float
        Change that has the full colour.
    """
    found = _named(rows)
    variants = list(dict.fromkeys(name.rsplit(".", 1)[1] for name in found if name.startswith("ablation.r2.")))
    if not variants:
        raise OutOfRangeError("no row of an ablation's probes: names begin with ablation.r2")
    variants.sort(key=lambda v: v != "reference")  # first; the others stay in their order
    colour = np.zeros((len(variants), len(PARAMETERS)))
    figure, axes = plt.subplots(figsize=(8.5, 1.3 + 0.36 * len(variants)), layout="constrained")
    for i, variant in enumerate(variants):
        for j, name in enumerate(PARAMETERS):
            own, change = found.get(f"ablation.r2.{name}.{variant}"), found.get(f"ablation.change.r2.{name}.{variant}")
            if change and change["low"] is not None and not change["low"] <= 0 <= change["high"]:
                colour[i, j] = change["value"]
            if own and own["value"] is not None:
                ink = "white" if abs(colour[i, j]) > 0.6 * reach else "black"
                axes.text(j, i, f"{own['value']:.2f}", ha="center", va="center", color=ink, fontsize=9)
    picture = axes.imshow(colour, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
    axes.set_xticks(range(len(PARAMETERS)), [label.replace(" ", "\n", 1) for label in LABELS])
    axes.set_yticks(range(len(variants)), [v.replace("_", " ") for v in variants])
    figure.colorbar(picture, ax=axes, label="change of R²")
    return figure


def budget_plot(rows: Iterable[Mapping]) -> mpl.figure.Figure:
    """Retrieval against the number of training crops, and of sessions: rows ``curve.crops`` and ``curve.sessions``."""
    rows = list(rows)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    drawn = 0
    for axes, kind in zip(panels, ("crops", "sessions"), strict=True):
        axes.set_xscale("log")  # first, since it brings ticks of its own
        for k, colour, marker in zip((1, 5, 10), OKABE_ITO, "os^", strict=False):
            points = [(int(r["name"].split(".")[2]), r) for r in rows if _is_point(r["name"], kind, k)]
            if not points:
                continue
            points.sort(key=lambda point: point[0])
            count = [n for n, _ in points]
            value, low, high = (np.array([r[key] for _, r in points], float) for key in ("value", "low", "high"))
            reach = np.nan_to_num(np.vstack([value - low, high - value])).clip(min=0)
            axes.errorbar(count, value, reach, marker=marker, color=colour, capsize=3, label=f"Top-{k}")
            axes.set_xticks(count, [str(n) for n in count])
            drawn += 1
        axes.minorticks_off()
        axes.set_xlabel(f"training {kind}")
    if not drawn:
        raise OutOfRangeError("no row of a curve: names begin with curve.crops or curve.sessions")
    panels[0].set(ylabel="share found", ylim=(0, 1))
    panels[0].legend()
    return figure


def _is_point(name: str, kind: str, k: int) -> bool:
    return name.startswith(f"curve.{kind}.") and name.endswith(f".top{k}")
