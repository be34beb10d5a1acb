"""Static figures of the book: micrographs with a scale bar, distributions of the settings, scores with intervals.

Colours are the eight of Okabe and Ito, which people with a colour vision deficiency tell apart; micrographs are grey.
``python -m cimp_core.figures readme`` draws README's picture.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .errors import OutOfRangeError
from .metadata import LABELS, PARAMETERS, UNITS, Acquisition

__all__ = [
    "AXIS_LABELS",
    "DISPLAY",
    "LOGARITHMIC",
    "OKABE_ITO",
    "example_area",
    "in_display_units",
    "interval_plot",
    "metadata_distributions",
    "quantity",
    "readme_picture",
    "scale_bar",
    "settings_table",
    "show_micrographs",
    "use_style",
    "with_intervals",
]

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
"""Colours to tell series apart, in the order in which they are used."""

# How people speak of each parameter: its unit, and what that unit is in SI.
DISPLAY = {
    "pixel_size": ("pm", 1e-12),
    "dwell_time": ("µs", 1e-6),
    "convergence_angle": ("mrad", 1e-3),
    "beam_current": ("pA", 1e-12),
    "detector_gain": ("", 1.0),
    "detector_offset": ("", 1.0),
    "inner_collection_angle": ("mrad", 1e-3),
}
AXIS_LABELS = [
    f"{label} [{DISPLAY[name][0]}]" if DISPLAY[name][0] else label
    for name, label in zip(PARAMETERS, LABELS, strict=True)
]
_FOR_AREA = ("pixel_size", "convergence_angle", "inner_collection_angle")
LOGARITHMIC = ("pixel_size", "dwell_time", "beam_current")


def use_style() -> None:
    """Set matplotlib's defaults: colour-blind-safe cycle, grey micrographs, readable at half the page's width."""
    mpl.rcParams.update(
        {
            "axes.prop_cycle": mpl.cycler(color=OKABE_ITO),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.dpi": 110,
            "font.size": 10,
            "image.cmap": "gray",
            "legend.frameon": False,
        }
    )


def in_display_units(raw: np.ndarray) -> np.ndarray:
    """(..., 7) SI values -> the same in the units of `DISPLAY`."""
    return np.asarray(raw, dtype=float) / [DISPLAY[name][1] for name in PARAMETERS]


def scale_bar(pixel_size: float, width: int) -> tuple[float, str]:
    """Length of the scale bar for an image and its label: 1, 2 or 5 times a power of ten, at most a third of the width.

    Parameters
    ----------
    pixel_size : float
        Distance between scan positions [m].
    width : int
        Width of the image [px].

    Returns
    -------
    length : float
        [m]
    label : str
        The same length, written out, for example ``"2 nm"``.
    """
    if not (pixel_size > 0 and width > 0):
        raise OutOfRangeError(f"no scale bar for pixel size {pixel_size} m and width {width}: both must be above zero")
    longest = pixel_size * width / 3
    # The small surplus keeps a field of exactly 3, 6 or 15 units from losing its bar to rounding.
    exponent = math.floor(math.log10(longest * (1 + 1e-9)))
    mantissa = max(m for m in (1, 2, 5) if m * 10.0**exponent <= longest * (1 + 1e-9))
    length = mantissa * 10.0**exponent
    return length, quantity(length, "m")


def _draw_scale_bar(axes, pixel_size: float | None, shape: tuple[int, int]) -> None:
    height, width = shape
    outline = [mpl.patheffects.withStroke(linewidth=2, foreground="black")]
    text = {"color": "white", "fontsize": 8, "va": "bottom", "path_effects": outline}
    x, y = 0.05 * width, 0.94 * height
    if pixel_size is None or not np.isfinite(pixel_size):
        axes.text(x, y, "pixel size unknown", **text)
        return
    length, label = scale_bar(pixel_size, width)
    bar = mpl.patches.Rectangle(
        (x, y), length / pixel_size, 0.02 * height, facecolor="white", edgecolor="black", linewidth=0.6
    )
    bar.set_gid("scale-bar")
    axes.add_patch(bar)
    axes.text(x, y - 0.015 * height, label, **text)


def show_micrographs(
    images: Sequence[np.ndarray],
    pixel_sizes: Sequence[float | None],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 4,
    panel: float = 2.3,
    limits: tuple[float, float] | None = None,
) -> mpl.figure.Figure:
    """Draw micrographs in a grid, each with a scale bar.

    Parameters
    ----------
    images : sequence of (h, w) arrays
    pixel_sizes : sequence of float or None
        [m]; where it is not known, the panel says so instead of showing a bar.
    titles : sequence of str, optional
    columns : int
        Panels in a row.
    panel : float
        Width of one panel [inch].
    limits : (float, float), optional
        Intensities drawn black and white. By default the 0.5th and 99.5th percentile of each image,
        which hides differences of brightness; give them where brightness is what matters.
    """
    titles = [""] * len(images) if titles is None else titles
    if not len(images) == len(pixel_sizes) == len(titles):
        raise OutOfRangeError(f"{len(images)} images, {len(pixel_sizes)} pixel sizes and {len(titles)} titles")
    rows, columns = math.ceil(len(images) / columns), min(columns, len(images))
    heading = 0.18 * (1 + max(title.count("\n") for title in titles)) if any(titles) else 0.05
    figure, grid = plt.subplots(
        rows, columns, figsize=(columns * panel, rows * (panel + heading)), squeeze=False, layout="constrained"
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, pixel_size, title in zip(grid.flat, images, pixel_sizes, titles, strict=False):
        low, high = np.percentile(image, (0.5, 99.5)) if limits is None else limits
        axes.imshow(image, vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        _draw_scale_bar(axes, pixel_size, np.shape(image))
    return figure


def quantity(value: float, unit: str, digits: int = 4) -> str:
    """A value with its SI unit, prefixed as people write it: 2.5e-11, "A" -> "25 pA"; angles in mrad."""
    if not unit:
        return f"{value:.{digits}g}"
    exponents = {"p": -12, "n": -9, "µ": -6, "m": -3, "": 0, "k": 3}
    prefix = (
        "m"
        if unit == "rad"
        else max((p for p, e in exponents.items() if abs(value) >= 0.99999 * 10.0**e), key=exponents.get, default="p")
    )
    return f"{value / 10.0 ** exponents[prefix]:.{digits}g} {prefix}{unit}"


def settings_table(acquisition: Acquisition) -> pd.DataFrame:
    """The seven parameters as a table: value in everyday units, or the reason why there is none."""
    rows = []
    for name, label in zip(PARAMETERS, LABELS, strict=True):
        value = getattr(acquisition, name)
        shown = "missing" if value is None else quantity(value, UNITS[name])
        rows.append({"parameter": label, "value": shown, "why missing": acquisition.missing.get(name, "")})
    return pd.DataFrame(rows).set_index("parameter")


def with_intervals(table: pd.DataFrame, names: Sequence[str], digits: int = 3) -> pd.DataFrame:
    """Columns `names` of a table as text "value [low, high]", from ``NAME``, ``NAME_low`` and ``NAME_high``."""

    def text(row, name):
        return f"{row[name]:.{digits}f} [{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]"

    return pd.DataFrame({name: [text(row, name) for _, row in table.iterrows()] for name in names}, index=table.index)


def metadata_distributions(raw: np.ndarray, *, bins: int = 40) -> mpl.figure.Figure:
    """Histograms of the seven parameters of `raw`, (n, 7) in SI units; missing values are left out and counted."""
    figure, grid = plt.subplots(2, 4, figsize=(10, 4.4), layout="constrained")
    for i, (axes, name) in enumerate(zip(grid.flat, PARAMETERS, strict=False)):
        column = in_display_units(raw)[:, i]
        known = column[np.isfinite(column)]
        if name in LOGARITHMIC and known.size:
            axes.set_xscale("log")
            edges = np.geomspace(known.min() * 0.99, known.max() * 1.01, bins + 1)
            decades = np.log10(known.max() / known.min())
            steps = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2.5 else (1,)
            axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=steps))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        else:
            edges = bins
        axes.hist(known, bins=edges, color=OKABE_ITO[i])
        axes.set_xlabel(AXIS_LABELS[i])
        if known.size < column.size:
            axes.set_title(f"{column.size - known.size} of {column.size} missing", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("images")
    grid.flat[-1].set_axis_off()
    return figure


def interval_plot(
    table: pd.DataFrame, *, label: str = "", limits: tuple[float, float] | None = None
) -> mpl.figure.Figure:
    """Values with their intervals, one row of the plot a quantity and one colour a series.

    Parameters
    ----------
    table : DataFrame
        Columns ``quantity``, ``series``, ``value``, ``low``, ``high``; a value without an interval has ``nan`` there.
    label : str
        What the axis shows, with its unit.
    """
    quantities, series = list(dict.fromkeys(table["quantity"])), list(dict.fromkeys(table["series"]))
    figure, axes = plt.subplots(figsize=(7, 0.7 + 0.42 * len(quantities)), layout="constrained")
    for j, name in enumerate(series):
        part = table[table["series"] == name]
        place = [quantities.index(q) + 0.22 * (j - (len(series) - 1) / 2) for q in part["quantity"]]
        value, low, high = (part[c].to_numpy(float) for c in ("value", "low", "high"))
        reach = np.nan_to_num(np.vstack([value - low, high - value])).clip(min=0)
        axes.errorbar(value, place, xerr=reach, fmt="oDs^v"[j % 5], color=OKABE_ITO[j], capsize=3, ms=5, label=name)
    axes.set_yticks(range(len(quantities)), quantities)
    axes.set_ylim(len(quantities) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    if limits is not None:
        axes.set_xlim(*limits)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def example_area(raw: np.ndarray) -> int:
    """Index of an image fit for showing what the settings do: atomic columns resolved, detector far outside the probe.

    `raw` is (n, 7) in SI units. Of the images with a probe of 15 mrad or more and twice that angle to the detector,
    the one whose pixel size is nearest 12 pm.
    """
    pixel_size, angle, inner = (np.asarray(raw)[:, PARAMETERS.index(n)] for n in _FOR_AREA)
    unfit = (inner < 2 * angle) | (angle < 15e-3)
    return int(np.lexsort((np.abs(np.log(pixel_size / 12e-12)), unfit))[0])


def readme_picture(path: str | os.PathLike, images: int = 60) -> Path:
    """README's picture: an area of a twin of `images` images recorded at four settings. A PNG, written atomically."""
    from PIL import Image

    from .digital_twin import reacquire, twin

    use_style()
    data = twin(images=images, size=256, seed=0)
    area = example_area(data.metadata_raw)
    base = data.acquisition(area).replace(dwell_time=16e-6)
    shots = {
        "as it is, 16 µs": base,
        "dwell time 0.25 µs": base.replace(dwell_time=0.25e-6),
        "convergence angle 10 mrad": base.replace(convergence_angle=10e-3),
        "beam current 0.4 nA": base.replace(beam_current=0.4e-9, detector_gain=base.detector_gain - 6),
    }
    images = [reacquire(data, area, shot) for shot in shots.values()]
    figure = show_micrographs(images, [base.pixel_size] * len(images), list(shots))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=95)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    Image.open(buffer).convert("L").save(temporary, "PNG", optimize=True)  # grey needs a third of the bytes
    os.replace(temporary, path)
    return path


if __name__ == "__main__":
    if sys.argv[1:] != ["readme"]:
        raise SystemExit("usage, in the repository's root: python -m cimp_core.figures readme")
    print(readme_picture(Path("book/images/haadf.png")))
