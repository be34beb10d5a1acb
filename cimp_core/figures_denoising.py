"""Figures of the chapter on denoising: before and after beside the truth, gains against dose, rings, failures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .errors import OutOfRangeError
from .figures import OKABE_ITO, _draw_scale_bar
from .metrics_denoising import coverage

__all__ = ["before_after", "comparison", "coverage_plot", "failure_gallery", "gain_curves", "ring_curves"]

MARKERS = "oDs^vPX*"


def comparison(
    images: Mapping[str, np.ndarray],
    truth: np.ndarray,
    pixel_size: float | None,
    *,
    against: str = "truth",
    panel: float = 2.0,
) -> mpl.figure.Figure:
    """Images above their differences from the truth, which is the last column.

    Parameters
    ----------
    images : mapping of title to (h, w) array
        All at the truth's scale of intensity, and drawn at it.
    truth : (h, w) array
    pixel_size : float or None
        [m]
    against : str
        What `truth` is, if another image has to stand for it: the recording, where nobody knows the truth.
    """
    for title, image in images.items():
        if np.shape(image) != np.shape(truth):
            raise OutOfRangeError(f"{title} is {np.shape(image)}, the {against} {np.shape(truth)}: crop them alike")
    columns = len(images) + 1
    figure, grid = plt.subplots(2, columns, figsize=(columns * panel, 2 * panel + 0.5), layout="constrained")
    low, high = np.percentile(truth, (0.2, 99.8))
    high = max(high, low + 1e-9)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, (title, image) in enumerate([*images.items(), (against, truth)]):
        grid[0, column].imshow(image, vmin=low, vmax=high, interpolation="nearest")
        grid[0, column].set_title(title, fontsize=9)
        _draw_scale_bar(grid[0, column], pixel_size, np.shape(truth))
    reach = (high - low) / 3
    for axes, image in zip(grid[1], images.values(), strict=False):
        drawn = axes.imshow(image - truth, vmin=-reach, vmax=reach, cmap="PuOr", interpolation="nearest")
    figure.colorbar(drawn, cax=grid[1, -1].inset_axes([0.1, 0.02, 0.08, 0.96]), label=f"minus {against} [counts]")
    return figure


def gain_curves(
    table: pd.DataFrame, *, label: str = "dose-equivalent gain", level: float | None = 1.0
) -> mpl.figure.Figure:
    """A quantity against the dose on logarithmic axes, one line a method, with intervals.

    Parameters
    ----------
    table : DataFrame
        Columns ``method``, ``electrons``, ``value``, ``low``, ``high``; an interval may be ``nan``.
    level : float, optional
        Where a horizontal line says "no better than raw".
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    names = list(dict.fromkeys(table["method"]))
    for j, name in enumerate(names):
        part = table[table["method"] == name].sort_values("electrons")
        value, low, high = (part[key].to_numpy(float) for key in ("value", "low", "high"))
        x = part["electrons"].to_numpy(float) * 1.025 ** (j - (len(names) - 1) / 2)  # intervals side by side
        reach = np.nan_to_num(np.vstack([value - low, high - value])).clip(min=0)
        style = {"color": OKABE_ITO[j % 7], "marker": MARKERS[j % 8], "ls": "-" if j < 7 else "--"}
        axes.errorbar(x, value, yerr=reach, capsize=2, ms=5, lw=1.2, label=name.replace("_", " "), **style)
    if level is not None:
        axes.axhline(level, color="0.5", lw=0.8)
    axes.set(xscale="log", yscale="log", xlabel="detected electrons at the bright pixel", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def ring_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], pixel_size: float | None = None, threshold: float = 0.5
) -> mpl.figure.Figure:
    """Fourier ring correlation with the truth, one line a method, and the threshold.

    Parameters
    ----------
    curves : mapping of name to (frequency [cycles/pixel], correlation)
    pixel_size : float, optional
        [m], to mark spatial frequencies per nanometre.
    """
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    scale = 1.0 if pixel_size is None else 1e-9 / pixel_size
    for j, (name, (frequency, correlation)) in enumerate(curves.items()):
        style = {"color": OKABE_ITO[j % 7], "ls": "-" if j < 7 else "--"}
        axes.plot(scale * frequency, correlation, lw=1.4, label=name.replace("_", " "), **style)
    axes.axhline(threshold, color="0.5", lw=0.8)
    unit = "cycles/pixel" if pixel_size is None else "1/nm"
    axes.set(xlabel=f"spatial frequency [{unit}]", ylabel="correlation with the truth", ylim=(-0.15, 1.03))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def failure_gallery(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], *, panel: float = 2.2
) -> mpl.figure.Figure:
    """One failure a row: the recording, what was made of it, the truth.

    Parameters
    ----------
    rows : sequence of (title, recording, image, truth)
        The title stands above the restored image.
    """
    if not rows:
        raise OutOfRangeError("no failure to show: give at least one row")
    height = len(rows) * (panel + 0.3)
    figure, grid = plt.subplots(len(rows), 3, figsize=(3 * panel, height), squeeze=False, layout="constrained")
    for line, (title, *pictures) in zip(grid, rows, strict=True):
        low, high = np.percentile(pictures[-1], (0.2, 99.8))
        for axes, picture, heading in zip(line, pictures, ("recording", title, "truth"), strict=True):
            axes.set_axis_off()
            axes.imshow(picture, vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
            axes.set_title(heading, fontsize=8)
    return figure


def coverage_plot(
    pairs: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]],
) -> mpl.figure.Figure:
    """Share of the pixels whose truth lies in the reported interval, against what the interval promises.

    Parameters
    ----------
    pairs : mapping of name to sequence of (image, deviation, truth)
        Of several images each; the line is the mean over images.
    """
    figure, axes = plt.subplots(figsize=(4.6, 4), layout="constrained")
    levels = np.array([0.2, 0.4, 0.5, 0.6, 0.68, 0.8, 0.9, 0.95, 0.99])
    axes.plot([0, 1], [0, 1], color="0.5", lw=0.8)
    for j, (name, several) in enumerate(pairs.items()):
        shares = np.mean([[coverage(*one, level) for level in levels] for one in several], axis=0)
        axes.plot(levels, shares, marker=MARKERS[j % 8], color=OKABE_ITO[j % 7], label=name.replace("_", " "))
    axes.set(xlabel="promised", ylabel="share of pixels", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right")
    return figure


def _grey(image: np.ndarray, low: float, high: float) -> str:
    """A picture of 256 greys as a data address, JPEG."""
    from PIL import Image

    grey = np.clip(255 * (np.asarray(image, float) - low) / max(high - low, 1e-9), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def before_after(frame: np.ndarray, images: Mapping[str, np.ndarray], truth: np.ndarray | None, *, steps: int = 21):
    """Plotly figure of one area: the recording on the left of a line, a restored image or the truth on its right.

    A slider moves the line, a menu chooses what is on the right.

    Parameters
    ----------
    frame : (h, w) array
    images : mapping of name to (h, w) array
    truth : (h, w) array or None
    steps : int
        Places of the line.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    import plotly.graph_objects as go

    height, width = np.shape(frame)
    pictures = {name.replace("_", " "): image for name, image in images.items()}
    pictures |= {} if truth is None else {"truth": truth}
    low, high = np.percentile(next(iter(pictures.values())) if truth is None else truth, (0.2, 99.8))
    addresses = {name: _grey(image, low, high) for name, image in pictures.items()}

    def places(share: float) -> dict:
        # Each half is an axis of its own that shows its part of the picture: nothing is drawn twice.
        cut = share * width
        return {
            "xaxis.domain": [0, share],
            "xaxis.range": [0, cut],
            "xaxis2.domain": [share, 1],
            "xaxis2.range": [cut, width],
        }

    shares = np.linspace(0.02, 0.98, steps)
    size = {"x": 0, "y": 0, "sizex": width, "sizey": height, "sizing": "stretch", "layer": "below", "xanchor": "left"}
    half = places(float(shares[steps // 2]))
    bare = {"showticklabels": False, "showgrid": False, "zeroline": False, "fixedrange": True}
    # An axis without a trace is not drawn: one invisible point each.
    point = {"mode": "markers", "marker": {"opacity": 0}, "showlegend": False, "hoverinfo": "skip"}
    figure = go.Figure(
        [go.Scatter(x=[1], y=[1], **point), go.Scatter(x=[width - 1], y=[1], xaxis="x2", yaxis="y", **point)]
    )
    buttons = [
        {"label": name, "method": "relayout", "args": [{"images[1].source": address}]}
        for name, address in addresses.items()
    ]
    slider_steps = [
        {"label": f"{100 * share:.0f} %", "method": "relayout", "args": [places(float(share))]} for share in shares
    ]
    slider = {"steps": slider_steps, "active": steps // 2, "name": "line", "pad": {"t": 10}}
    figure.update_layout(
        images=[
            {"source": _grey(frame, low, high), "xref": "x", "yref": "y", **size},
            {"source": next(iter(addresses.values())), "xref": "x2", "yref": "y", **size},
        ],
        xaxis={**bare, "domain": half["xaxis.domain"], "range": half["xaxis.range"]},
        xaxis2={**bare, "domain": half["xaxis2.domain"], "range": half["xaxis2.range"], "anchor": "y"},
        # Both halves have one scale, so the picture keeps its shape however wide the page is.
        yaxis={**bare, "range": [height, 0], "scaleanchor": "x", "constrain": "domain", "constraintoward": "top"},
        sliders=[slider],
        updatemenus=[{"buttons": buttons, "active": 0, "name": "on the right", "x": 0, "xanchor": "left", "y": 1.14}],
        template="plotly_white",
        width=560,
        height=600,
        margin={"t": 60, "l": 10, "r": 10, "b": 10},
        meta={
            "alt": "One area of a specimen, left of a line as recorded, right of it as restored; a slider moves the "
            "line, and a menu chooses what is on the right."
        },
    )
    return figure
