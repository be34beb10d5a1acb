"""Figures of the chapter on style transfer: losses, one parameter at a time, virtual beside real, and a slider."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .dataset import Dataset
from .figures import OKABE_ITO, quantity
from .metadata import LABELS, PARAMETERS, UNITS, Acquisition
from .metrics import mean_interval
from .study.restyling_cases import CHANGED, SIGMAS, Case, cases_of, has_truth, truth_of

__all__ = [
    "ablation_table",
    "dose_slider",
    "joint_table",
    "loss_plot",
    "read_table",
    "route_table",
    "similarity",
    "steps_figure",
    "virtual_and_real",
]

ROUTES = ("unchanged", "analytic", "generator", "rerender", "recording")
JOINT_SCORES = ("ssim", "noise", "spectrum", "lattice")
TERMS = ("lsgan (G)", "lsgan (D)", "cycle", "embedding", "identity", "truth", "noise")
_LOGGED = ("adversarial", "critic", *TERMS[2:])
ABLATION = {"psnr": "psnr.joint", "ssim": "ssim.joint", "noise": "noise.joint", "histogram": "histogram.joint"}

Render = Callable[[Case], np.ndarray]


def loss_plot(log: pd.DataFrame) -> mpl.figure.Figure:
    """The terms over a training, and on validation those that need no critic; logarithmic.

    Parameters
    ----------
    log : DataFrame
        Lines of ``log.jsonl``, a row each.
    """
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.6), sharex=True, layout="constrained")
    shown = [(0, name, column) for name, column in zip(TERMS, _LOGGED, strict=True)]
    shown += [(1, name, f"val_{name}") for name in TERMS[2:]]
    for k, name, column in shown:
        if column in log:
            part = log[["samples", column]].dropna()
            style = {"marker": ".", "color": OKABE_ITO[TERMS.index(name)], "label": name}
            panels[k].plot(part["samples"], part[column], **style)
    for axes, title in zip(panels, ("training", "validation"), strict=True):
        axes.set(yscale="log", xlabel="images seen", title=title)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 1e-4))  # identity begins at zero
    if panels[0].lines:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(TERMS), fontsize=8)
    panels[0].set_ylabel("loss")
    return figure


def similarity(rows: np.ndarray, wanted: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple]:
    """Cosines of made images with the settings asked for, and with those asked for of others; the gap of their means.

    Parameters
    ----------
    rows, wanted : (n, d) arrays
        Unit embeddings of images, and of settings.
    clusters : (n,) array
        Session of each image, for the interval.

    Returns
    -------
    matched, mismatched : (n,), (n, n - 1) arrays
    gap : (float, float, float)
        Value and 95 % interval.
    """
    cosine = rows @ wanted.T
    n = len(cosine)
    matched, others = np.diagonal(cosine), cosine[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    gaps = matched - others.mean(1)
    return matched, others, (float(gaps.mean()), *mean_interval(clusters, gaps))


def steps_figure(
    data: Dataset, index: int, train: Dataset, ways: Mapping[str, Render], *, panel: float = 1.25
) -> mpl.figure.Figure:
    """One image with each parameter alone at five places of its distribution; framed where it is the image itself.

    A line a parameter for each of the `ways`, by title; none of a parameter that is not known, or never changes.
    """
    cases = {case.change: case for case in cases_of(data, [index], train, joints=0)}
    lines = [(name, title) for name in CHANGED if any(name in change for change in cases) for title in ways]
    size = (len(SIGMAS) * panel + 1.6, len(lines) * panel + 0.4)
    figure, grid = plt.subplots(len(lines), len(SIGMAS), figsize=size, squeeze=False, layout="constrained")
    own = data.image(index)
    for k, (name, title) in enumerate(lines):
        for axes, sigma in zip(grid[k], SIGMAS, strict=True):
            case = cases.get(f"{name}{sigma:+d}")
            made = own if case is None else ways[title](case)
            value = getattr(data.acquisition(index) if case is None else case.target, name)
            axes.imshow(made, vmin=0, vmax=max(1.3 * np.quantile(own, 0.995), 1), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if title == next(iter(ways)):
                axes.set_title(quantity(value, UNITS[name], 3), fontsize=7)
            for spine in axes.spines.values():
                spine.set(visible=case is None, color=OKABE_ITO[1], linewidth=3)
        grid[k, 0].set_ylabel(f"{LABELS[PARAMETERS.index(name)]}\n{title}", fontsize=7)
    return figure


def virtual_and_real(cases: Sequence[Case], way: Render) -> mpl.figure.Figure:
    """Source, rendering and recording of each case on one grey scale, and the histograms of all three."""
    figure, grid = plt.subplots(
        len(cases), 4, figsize=(9.2, 2.2 * len(cases)), squeeze=False, layout="constrained", width_ratios=(1, 1, 1, 1.3)
    )
    for line, case in zip(grid, cases, strict=True):
        shown = {"source": case.frame, "virtual": way(case), "real": case.recording}
        high = max(np.quantile(case.recording, 0.998), np.quantile(case.frame, 0.998), 1)
        name = case.change[:-2] if case.change[-2:-1] in "+-" else case.change
        before, after = (quantity(getattr(a, name), UNITS[name], 3) for a in (case.source, case.target))
        for axes, (title, image) in zip(line, shown.items(), strict=False):
            axes.imshow(image, vmin=0, vmax=high, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{title}: {before if title == 'source' else after}", fontsize=8)
        line[0].set_ylabel(LABELS[PARAMETERS.index(name)], fontsize=9)
        edges = np.linspace(0, high, 80)
        for color, (title, image) in zip((2, 1, 0), shown.items(), strict=True):
            line[3].hist(np.ravel(image), edges, histtype="step", color=OKABE_ITO[color], label=title, density=True)
        line[3].set(yticks=[], xlabel="counts")
        line[3].legend(fontsize=7)
    return figure


def route_table(rows: Iterable[Mapping], score: str, *, prefix: str = "style", digits: int = 2) -> pd.DataFrame:
    """A score of the results file as text "value [low, high]": a line a change, a column a route; empty if none."""
    return _by_route(rows, {c: f"{prefix}.{score}.{c}" for c in (*CHANGED, "joint")}, digits)


def joint_table(rows: Iterable[Mapping], *, digits: int = 2) -> pd.DataFrame:
    """Other scores of changes of all six settings at once: a line a score, a column a route; empty if none."""
    return _by_route(rows, {s: f"style.{s}.joint" for s in JOINT_SCORES}, digits)


def read_table(rows: Iterable[Mapping], *, digits: int = 2) -> pd.DataFrame:
    """Errors of settings read back after changes of all six at once: a line a setting, a column a route."""
    return _by_route(rows, {c: f"style.read.{c}.joint" for c in CHANGED}, digits)


def ablation_table(rows: Iterable[Mapping], *, digits: int = 2) -> pd.DataFrame:
    """Short trainings without a term each, and routes that need none: a line each, a column a score; empty if none."""
    known, found = {row["name"]: row for row in rows if row["name"].startswith("ablation.style.")}, {}
    for column, middle in (ABLATION | {"gap": "gap.own"}).items():
        first = f"ablation.style.{middle}."
        found[column] = {
            name.removeprefix(first): _with_interval(row, digits)
            for name, row in known.items()
            if name.startswith(first)
        }
    table = pd.DataFrame(found)
    last = [route for route in ROUTES if route in table.index]
    trained = sorted(set(table.index) - set(last), key=lambda name: (name != "reference", name))
    return table.loc[[*trained, *last]]


def _with_interval(row: Mapping, digits: int) -> str:
    low, high = (np.nan if row[k] is None else row[k] for k in ("low", "high"))
    return f"{row['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _by_route(rows: Iterable[Mapping], lines: Mapping[str, str], digits: int) -> pd.DataFrame:
    """Rows ``FIRST.ROUTE`` as text "value [low, high]", a line for each of the first parts of names."""
    known, found = {row["name"]: row for row in rows if row["value"] is not None}, {}
    for line, first in lines.items():
        for route in ROUTES:
            if row := known.get(f"{first}.{route}"):
                found.setdefault(line, {})[route] = _with_interval(row, digits)
    table = pd.DataFrame.from_dict(found, orient="index")
    return table[[route for route in ROUTES if route in table]]


def dose_slider(
    data: Dataset,
    index: int,
    way: Callable[[np.ndarray, Acquisition, Acquisition], np.ndarray],
    *,
    dwell_times: Sequence[float] = (2e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5),
    currents: Sequence[float] = (1.5e-11, 5e-11, 1.5e-10, 5e-10),
    edge: int = 128,
) -> go.Figure:
    """The same area at any dwell time (slider) and current (menu): rendered, and beside it really recorded.

    Where nobody can record it again, the image itself stands there. Every picture is in the figure, so that it works
    on a page without a network: 15 kB a pair or so.

    Parameters
    ----------
    data : Dataset
        An image of it is shown; of a twin, it is recorded again.
    way : callable
        ``way(frame, source, target)`` -> counts.
    edge : int
        Of the part that is shown [px].
    """
    own, frame = data.acquisition(index), data.image(index)
    top, left = ((n - min(n, edge)) // 2 for n in frame.shape)
    part = np.s_[top : top + edge, left : left + edge]
    pictures = {}
    for current in currents:
        for dwell in dwell_times:
            target = own.replace(dwell_time=dwell, beam_current=current)
            beside = truth_of(data, index, target)[1] if has_truth(data) else frame
            pair = way(frame, own, target)[part], beside[part]
            pictures[current, dwell] = _uri(np.hstack([pair[0], np.full((len(pair[0]), 6), np.nan), pair[1]]))
    nearest = [int(np.argmin(np.abs(np.log(np.array(v) / o)))) for v, o in (
        (dwell_times, own.dwell_time), (currents, own.beam_current))]  # fmt: skip
    traces = [
        go.Image(source=pictures[c, dwell_times[nearest[0]]], visible=k == nearest[1], hoverinfo="skip")
        for k, c in enumerate(currents)
    ]
    figure = go.Figure(traces)
    steps = [
        {"label": quantity(d, "s", 3), "method": "restyle", "args": [{"source": [pictures[c, d] for c in currents]}]}
        for d in dwell_times
    ]
    buttons = [
        {
            "label": quantity(c, "A", 3),
            "method": "restyle",
            "args": [{"visible": [k == j for j in range(len(currents))]}],
        }
        for k, c in enumerate(currents)
    ]
    words = f"left: rendered from {quantity(own.dwell_time, 's', 3)}, {quantity(own.beam_current, 'A', 3)}; right: "
    words += "recorded" if has_truth(data) else "as it is"
    figure.update_layout(
        sliders=[{
            "steps": steps, "active": nearest[0], "name": "dwell time", "currentvalue": {"prefix": "dwell time: "},
        }],
        updatemenus=[{
            "buttons": buttons, "active": nearest[1], "name": "beam current", "x": 0, "xanchor": "left", "y": 1.15,
        }],
        title={"text": words, "font": {"size": 13}, "x": 0.98, "xanchor": "right"},
        xaxis={"visible": False}, yaxis={"visible": False},
        template="plotly_white", height=430, margin={"t": 60, "l": 10, "r": 10, "b": 10},
        meta={"alt": f"The same area at any dwell time and beam current, {words}."},
    )  # fmt: skip
    return figure


def _uri(image: np.ndarray) -> str:
    """JPEG of counts, black at 0 and white at the 99.5 percentile, as an operator would set the display."""
    from PIL import Image

    grey = np.nan_to_num(255 * image / max(np.nanquantile(image, 0.995), 1), nan=255).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).convert("RGB").save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
