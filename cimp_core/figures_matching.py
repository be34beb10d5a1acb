"""Figures and tables of the chapter on structures: entries, a match with its residual, curves, evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from .figures import OKABE_ITO, show_micrographs
from .structures import Entry, Match, View, collected
from .structures.fit import model

__all__ = [
    "accuracy_curves",
    "gallery",
    "grains_map",
    "match_pictures",
    "ranked",
    "real_table",
    "score_table",
    "zone_name",
]

DOSES, ERRORS, TILTS = ("1", "3", "10", "moderate", "500"), ("0", "2", "5"), ("moderate", "0.5", "1", "2")
THICKNESSES = ("5", "10", "moderate", "40", "80")
_METHODS = {"top1": "match", "polar_top1": "polar maps alone", "embedding_top1": "embedding alone"}


def zone_name(zone: Iterable[int]) -> str:
    """[uvw], with a bar as a minus sign before the number."""
    return f"[{''.join(map(str, zone))}]"


def gallery(entries: Sequence[Entry], pixel_size: float = 20e-12, pixels: int = 96) -> mpl.figure.Figure:
    """Noise-free pictures of entries of a library, each on its own grey scale.

    Parameters
    ----------
    pixel_size : float
        [m]
    """
    images = [collected(entry.pattern, View(pixel_size * 1e10, pixels, pixels)) for entry in entries]
    titles = [f"{entry.structure.formula} {zone_name(entry.zone)}" for entry in entries]
    return show_micrographs(images, [pixel_size] * len(images), titles)


def ranked(match: Match) -> pd.DataFrame:
    """The table of a match, in the units in which people speak."""
    table = match.table
    zones = [zone_name(z) if isinstance(z, tuple) else "" for z in table["zone"]]
    shown = pd.DataFrame({"grain": table["grain"], "structure": table["structure"], "zone": zones})
    shown["space group"] = ["" if np.isnan(n) else f"{n:.0f}" for n in table["space_group"].astype(float)]
    for title, column, digits, factor in (
        ("angle [deg]", "angle", 1, 1),
        ("scale error [%]", "scale_error", 1, 100),
        ("explained", "explained", 2, 1),
        ("probability", "probability", 3, 1),
    ):
        shown[title] = ["" if np.isnan(v) else f"{factor * v:.{digits}f}" for v in table[column].astype(float)]
    return shown.set_index(["grain", "structure"])


def match_pictures(match: Match, grain: int = 0, ranks: Sequence[int] = (0, 1)) -> mpl.figure.Figure:
    """The image as it was compared, and for candidates of a grain the fitted pattern and the residual.

    Residuals are in standard deviations of the noise, from -4 (blue) to 4 (red): where a candidate is right they are
    noise, where it is not they show columns.
    """
    found = match.grains[grain]
    ranks = [r for r in ranks if r < len(found.candidates)]
    figure, axes = plt.subplots(1, 1 + 2 * len(ranks), figsize=(2.1 * (1 + 2 * len(ranks)), 2.4), layout="constrained")
    axes = np.atleast_1d(axes)
    low, high = np.percentile(found.query.image, (0.5, 99.5))
    axes[0].imshow(found.query.image, vmin=low, vmax=high)
    axes[0].set_title("the image", fontsize=8)
    for i, rank in enumerate(ranks):
        one = found.candidates[rank]
        drawn = model(found.query, one.entry.pattern, one.fit)
        axes[2 * i + 1].imshow(drawn, vmin=drawn.min(), vmax=drawn.max())
        title = f"{one.entry.structure.name} {zone_name(one.entry.zone)}\nprobability {one.probability:.2f}"
        axes[2 * i + 1].set_title(title, fontsize=8)
        axes[2 * i + 2].imshow(found.residual(rank), vmin=-4, vmax=4, cmap="RdBu_r")
        axes[2 * i + 2].set_title("residual", fontsize=8)
    for each in axes:
        each.set_axis_off()
    return figure


def grains_map(image: np.ndarray, match: Match) -> mpl.figure.Figure:
    """The image with the window of each grain, and the first candidate in it."""
    figure, axes = plt.subplots(figsize=(4.6, 4.6), layout="constrained")
    low, high = np.percentile(image, (0.5, 99.5))
    axes.imshow(image, vmin=low, vmax=high)
    for number, grain in enumerate(match.grains):
        rows, columns = grain.region.window
        size = columns.stop - columns.start, rows.stop - rows.start
        colour = OKABE_ITO[1 + number % 5]
        axes.add_patch(Rectangle((columns.start, rows.start), *size, fill=False, edgecolor=colour, linewidth=2))
        first = grain.candidates[0] if grain.candidates else None
        said = "none of these" if first is None or first.probability < grain.none else first.entry.structure.name
        if said != "none of these":
            said += f" {zone_name(first.entry.zone)} at {np.degrees(first.fit.angle):.0f}°"
        place = columns.start + 6, rows.start + 6
        box = {"facecolor": "black", "alpha": 0.7, "pad": 2, "edgecolor": "none"}
        axes.text(*place, said, color=colour, fontsize=9, va="top", bbox=box)
    axes.set_axis_off()
    return figure


def accuracy_curves(rows: Sequence[Mapping]) -> mpl.figure.Figure:
    """Share of right first answers against dose, error of the pixel size, tilt and thickness, with 95 % intervals.

    Parameters
    ----------
    rows : sequence of dict
        Of the results file; those named ``structures.match.top1.CASE`` and ``structures.match.polar_top1.CASE``.
    """
    values = {row["name"].removeprefix("structures.match."): row for row in rows}
    figure, axes = plt.subplots(1, 4, figsize=(10.4, 2.9), sharey=True, layout="constrained")
    panels = (
        ("electrons per bright pixel", DOSES, "dose_"),
        ("error of the pixel size [%]", ERRORS, "pixel_error_"),
        ("tilt [degrees]", TILTS, "tilt_"),
        ("thickness [nm]", THICKNESSES, "thickness_"),
    )
    for each, (label, cases, prefix) in zip(axes, panels, strict=True):
        for k, (method, name) in enumerate(_METHODS.items()):
            keys = [(c, f"{method}.{c if c == 'moderate' else prefix + c}") for c in cases]
            found = [(c, values[key]) for c, key in keys if key in values]
            if found:
                y, low, high = (np.array([row[f] for _, row in found], float) for f in ("value", "low", "high"))
                x = np.array([cases.index(c) for c, _ in found]) + 0.1 * (k - 1)
                each.errorbar(
                    x, y, np.maximum([y - low, high - y], 0), fmt="o-", lw=1, ms=4, color=OKABE_ITO[k], label=name
                )
        plain = {"dose_": "30–100", "tilt_": "0", "thickness_": "20"}  # what "moderate" stands for
        each.set_xticks(range(len(cases)), [plain[prefix] if c == "moderate" else c for c in cases])
        each.set_xlabel(label)
    axes[0].set_ylabel("first answer right")
    axes[0].set_ylim(0, 1.03)
    if axes[0].lines:
        axes[0].legend(frameon=False, loc="lower right")
    return figure


def score_table(rows: Sequence[Mapping], prefix: str, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Value with interval of every row whose name begins so, in the file's order; `names` picks and renames."""
    found = {row["name"].removeprefix(prefix): row for row in rows if row["name"].startswith(prefix)}
    lines = []
    for key, title in (names or {key: key for key in found}).items():
        if key in found:
            row = found[key]
            interval = "" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"
            lines.append(
                {
                    "": title,
                    "value": f"{row['value']:.3f} {row.get('unit', '')}".strip(),
                    "95 %": interval,
                    "pool": row["pool"],
                    "split": row.get("split") or "",
                }
            )
    return pd.DataFrame(lines, columns=["", "value", "95 %", "pool", "split"]).set_index("")


def real_table(path: str | Path) -> pd.DataFrame:
    """Images that others took or simulated: what they show, what was answered first for the largest grain, and whether
    that is right; of the file that `cimp_core.study.structures_real` writes."""
    lines = []
    for case in json.loads(Path(path).read_text(encoding="utf-8")):
        shows = "none of the library" if case["truth"] is None else case["truth"]
        if case["truth_zone"]:
            shows += f" {zone_name(case['truth_zone'])}"
        line = {
            "image": case["what"],
            "library": case.get("library", ""),
            "simulated": "yes" if case["simulated"] else "",
            "shows": shows,
        }
        grain = (case.get("grains") or [None])[0]
        if grain is None:
            line["answer"] = case.get("why", "")
        else:
            first = grain["candidates"][0] if grain["candidates"] else None
            if first is None or first["probability"] < grain["none"]:
                line |= {"answer": "none of these", "probability": f"{grain['none']:.2f}"}
            else:
                line["answer"] = f"{first['formula']} {zone_name(first['zone'])}"
                line |= {"probability": f"{first['probability']:.2f}", "scale": f"{first['scale'] - 1:+.1%}"}
        line["right"] = {None: "", True: "yes", False: "no"}[case.get("right")]
        lines.append(line)
    columns = ["image", "library", "simulated", "shows", "answer", "probability", "scale", "right"]
    return pd.DataFrame(lines, columns=columns).fillna("").set_index("image")
