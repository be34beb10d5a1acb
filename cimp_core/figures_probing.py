"""Figures of the chapter on probing: probes side by side, pixel sizes as read against true ones, and spectra."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .errors import OutOfRangeError
from .figures import OKABE_ITO, quantity, show_micrographs
from .metadata import LABELS, PARAMETERS, UNITS
from .study.lattice import power_spectrum, strongest_spot

__all__ = [
    "error_in_words",
    "error_table",
    "lattice_scatter",
    "probe_panels",
    "spectrum_figure",
]

MARKERS = "oDs^vPX*"


def probe_panels(
    table: pd.DataFrame, *, label: str = "R² of the normalised value", floor: float = -0.5
) -> mpl.figure.Figure:
    """A panel for each parameter, a row in it for each way of reading it, values with their intervals.

    Parameters
    ----------
    table : DataFrame
        Columns ``quantity`` (a name of `PARAMETERS`), ``series``, ``value``, ``low``, ``high``; ``nan`` where unknown.
    label : str
        What the axes show.
    floor : float
        Left end of the axes; a value below it is drawn as an arrow at the edge.
    """
    quantities, series = list(dict.fromkeys(table["quantity"])), list(dict.fromkeys(table["series"]))
    if len(series) > len(OKABE_ITO):
        raise OutOfRangeError(f"{len(series)} series, but there are {len(OKABE_ITO)} colours to tell them apart")
    columns = min(4, max(1, len(quantities)))
    rows = -(-len(quantities) // columns)
    size = (2.3 * columns + 2.2, (0.9 + 0.24 * len(series)) * rows + 0.3)
    figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, name in zip(grid.flat, quantities, strict=False):
        for place, kind in enumerate(series):
            part = table[(table["quantity"] == name) & (table["series"] == kind)]
            _value(axes, part, place, floor)
        axes.set_title(LABELS[PARAMETERS.index(name)], fontsize=10)
        axes.axvline(0, color="0.6", lw=0.8)
        axes.set_xlim(floor, 1.02)
        axes.grid(axis="x", alpha=0.3)
    for axes in grid.flat[len(quantities) :]:
        axes.set_axis_off()
    grid[0, 0].set_yticks(range(len(series)), series)
    grid[0, 0].set_ylim(len(series) - 0.5, -0.5)
    figure.supxlabel(label, fontsize=10)
    return figure


def _value(axes: mpl.axes.Axes, part: pd.DataFrame, place: int, floor: float) -> None:
    """One value with its interval in a panel; nothing where it is not known."""
    if part.empty or not np.isfinite(part["value"].iloc[0]):
        return
    value, low, high = (float(part[c].iloc[0]) for c in ("value", "low", "high"))
    colour = OKABE_ITO[place]
    if value < floor:
        axes.annotate(
            f"{value:.1f}", (floor, place), (14, 0), textcoords="offset points", va="center", fontsize=8, color=colour,
            arrowprops={"arrowstyle": "->", "color": colour},
        )  # fmt: skip
        return
    reach = np.nan_to_num([[value - low], [high - value]]).clip(min=0)
    axes.errorbar([value], [place], xerr=reach, fmt=MARKERS[place], color=colour, capsize=3, ms=5)


def lattice_scatter(true: np.ndarray, predicted: np.ndarray, below: float = 40e-12) -> mpl.figure.Figure:
    """Predicted against true pixel size, both logarithmic; the range in which atoms are resolved enlarged beside it.

    Parameters
    ----------
    true, predicted : (n,) arrays
        Pixel sizes [m]; a pair with ``nan`` is left out.
    below : float
        Upper end of the range that is enlarged [m].
    """
    known = np.isfinite(true) & np.isfinite(predicted) & (np.asarray(true) > 0)
    true, predicted = np.asarray(true, float)[known] * 1e12, np.asarray(predicted, float)[known] * 1e12
    edge = below * 1e12
    fine = true < edge
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.9), layout="constrained")
    for axes, use, title in zip(panels, (np.ones_like(fine), fine), ("all", f"below {edge:g} pm"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="true pixel size [pm]", ylabel="read from the image [pm]")
        axes.set_title(f"{title}: {use.sum()} images", fontsize=10)
        for part, colour in ((use & fine, OKABE_ITO[3]), (use & ~fine, OKABE_ITO[0])):
            axes.plot(true[part], predicted[part], ".", ms=4, alpha=0.6, color=colour)
        if use.any():
            ends = true[use].min() * 0.9, true[use].max() * 1.1
            axes.plot(ends, ends, "k--", lw=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5) if use.sum() < len(use) else (1,)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(mpl.ticker.NullFormatter())
    panels[0].axvline(edge, color="0.6", lw=0.8)
    return figure


def spectrum_figure(
    images: Sequence[np.ndarray], pixel_sizes: Sequence[float], titles: Sequence[str]
) -> mpl.figure.Figure:
    """Micrographs above, their power spectra (logarithmic) below, with a circle through each one's `strongest_spot`.

    Parameters
    ----------
    images : list of (h, w) arrays
    pixel_sizes : list of float
        For the scale bars [m].
    titles : list of str
        One an image.
    """
    count, spectra = len(images), [np.log10(power_spectrum(image) + 1e-6) for image in images]
    shown = [np.maximum(s, np.median(s)) for s in spectra]  # half of the noise in black, so that spots stand out
    figure = show_micrographs(
        [*images, *shown], [*pixel_sizes, *[None] * count], [*titles, *[""] * count], columns=count, panel=2.8
    )
    for axes, image in zip(figure.axes[count : 2 * count], images, strict=True):
        for text in axes.texts:  # a spectrum has no scale bar to be missing
            text.remove()
        (height, width), radius = np.shape(image), strongest_spot(image)[0]
        axes.set_title(f"strongest spot: {radius:.3f} cycles/px" if radius else "no spot", fontsize=9)
        ends = 2 * radius * width, 2 * radius * height
        axes.add_patch(mpl.patches.Ellipse((width // 2, height // 2), *ends, fill=False, color=OKABE_ITO[1], lw=1))
    return figure


def error_in_words(name: str, typical: float, error: float) -> str:
    """A median relative error as a microscopist says it, for one parameter with its typical value [SI].

    ``("dwell_time", 2e-6, 0.4)`` -> "half are within 40 %: 2 µs is read as 1.2 µs to 2.8 µs".
    """
    if not (np.isfinite(typical) and np.isfinite(error)):
        return "nothing to probe"
    factors = 1.0, max(0.0, 1 - error), 1 + error
    true, low, high = (quantity(float(f"{typical * f:.1e}"), UNITS[name]) for f in factors)
    return f"half are within {100 * error:.0f} %: {true} is read as {low} to {high}"


def error_table(errors: pd.Series, raw: np.ndarray) -> pd.DataFrame:
    """`error_in_words` of each parameter: median relative errors by name, and settings (n, 7) in SI units."""
    words = {}
    for j, (name, label) in enumerate(zip(PARAMETERS, LABELS, strict=True)):
        known = raw[np.isfinite(raw[:, j]), j]
        words[label] = error_in_words(name, float(np.median(known)) if known.size else np.nan, float(errors[name]))
    return pd.DataFrame({"median relative error": words}).rename_axis("parameter")
