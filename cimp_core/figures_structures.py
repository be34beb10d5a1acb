"""Figures of the learnt embedding of structures: its map, and how precision depends on what counts as right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from .errors import OutOfRangeError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plot_precisions", "precision_table", "structure_map", "tsne"]

METHODS = {
    "embedding": "learnt embedding",
    "untrained": "same network, untrained",
    "line_spectrum": "reflections, not learnt",
    "radial_profile": "radial profile",
    "polar_fft": "polar FFT",
    "fft_magnitude": "FFT magnitude",
    "pixel_correlation": "pixel correlation",
    "ssim": "SSIM",
}
"""Names of methods in rows, and in words."""

DISTURBED = {
    "embedding_no_contrast": "learnt embedding, black level unknown",
    "microscope": "learnt embedding, settings vary as on a microscope",
    "microscope_untrained": "the same, untrained",
    "microscope_no_contrast": "the same, learnt, black level unknown",
    **{
        f"pixel_size_{n}{ending}": f"learnt embedding, pixel size {n / 10:g} % off{words}"
        for n in (2, 5, 10, 50)
        for ending, words in (("", ""), ("_told", ", told so"))
    },
}
"""Likewise, of the embedding under what an image may suffer."""

SORTS = {"all": "all", "same_view": "same view", "other_view": "other views"}
"""What counts as right."""


def tsne(z: np.ndarray, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """Coordinates (n, 2) of unit rows (n, d) in which near rows stay near.

    t-SNE: van der Maaten and Hinton, J. Mach. Learn. Res. 9, 2579 (2008), by cosine, from principal components.
    """
    from sklearn.manifold import TSNE

    perplexity = min(perplexity, (len(z) - 1) / 3)
    return TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed).fit_transform(np.asarray(z))


def structure_map(
    coordinates: np.ndarray, formulas: Sequence[str], prototypes: Sequence[str], space_groups: Sequence[int],
    zones: Sequence[str],
) -> go.Figure:  # fmt: skip
    """Plotly map of images; a menu colours them by crystal, prototype or space group, the pointer tells what each is.

    Parameters
    ----------
    coordinates : (n, 2) array
        As of `tsne`.
    formulas, prototypes, space_groups, zones : (n,) sequences
        Of each image.
    """
    coordinates, count = np.asarray(coordinates, float), len(formulas)
    if coordinates.shape != (count, 2) or not count == len(prototypes) == len(space_groups) == len(zones):
        raise OutOfRangeError(f"coordinates {coordinates.shape} and {count} names do not belong together")
    crystals = [f"{formula} {prototype}" for formula, prototype in zip(formulas, prototypes, strict=True)]
    colours = {
        "crystal": np.unique(crystals, return_inverse=True)[1],
        "prototype": np.unique(prototypes, return_inverse=True)[1],
        "space group": np.asarray(space_groups),
    }
    figure = go.Figure(
        go.Scatter(
            x=coordinates[:, 0],
            y=coordinates[:, 1],
            mode="markers",
            text=[f"{c}<br>space group {g}<br>{z}" for c, g, z in zip(crystals, space_groups, zones, strict=True)],
            hovertemplate="%{text}<extra></extra>",
            marker={"size": 6, "color": colours["crystal"], "colorscale": "Turbo"},
        )
    )
    buttons = [{"label": name, "method": "restyle", "args": [{"marker.color": [c]}]} for name, c in colours.items()]
    figure.update_layout(
        xaxis={"visible": False},
        yaxis={"visible": False, "scaleanchor": "x"},
        updatemenus=[{"buttons": buttons, "active": 0, "name": "colour", "x": 0.0, "xanchor": "left", "y": 1.12}],
        template="plotly_white",
        height=560,
        margin={"t": 70, "l": 20, "r": 20, "b": 20},
        meta={"alt": "Map of the embeddings of micrographs, one point an image; a menu chooses what colours them."},
    )
    return figure


def precision_table(rows: Sequence[Mapping], prefix: str = "structures.ap") -> pd.DataFrame:
    """Mean average precision of each method, with intervals, by what counts as right, and the time of a query.

    Parameters
    ----------
    rows : sequence of dict
        Of the results file; those named ``PREFIX.METHOD.SORT``.
    prefix : str
        "structures.ap" for all crystals, "structures.ap.small" for one of each prototype.
    """
    import pandas as pd

    found = {row["name"]: row for row in rows}
    beginning = f"{prefix}."
    parts = [name.removeprefix(beginning).split(".") for name in found if name.startswith(beginning)]
    methods = {part[0] for part in parts if len(part) == 2}
    lines = {}
    for method, words in {**METHODS, **DISTURBED}.items():
        if method not in methods:
            continue
        cells = {}
        for sort, title in SORTS.items():
            if row := found.get(f"{beginning}{method}.{sort}"):
                cells[title] = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        if row := found.get(f"{beginning}{method}.per_query"):
            cells["time of a query"] = f"{row['value']:.3g} {row['unit']}"
        lines[words] = cells
    return pd.DataFrame.from_dict(lines, orient="index").fillna("")


def plot_precisions(rows: Sequence[Mapping], prefix: str = "structures.ap.small", profile: str = "full"):
    """Bars of mean average precision by method, of the same view and of other views, with intervals (matplotlib)."""
    import matplotlib.pyplot as plt

    found = {r["name"]: r for r in rows if r["profile"] == profile}
    methods = [m for m in METHODS if f"{prefix}.{m}.all" in found]
    if not methods:
        raise OutOfRangeError(f"no rows {prefix}.METHOD.all of profile {profile!r} among {len(rows)}")
    figure, axis = plt.subplots(figsize=(7, 0.45 * len(methods) + 1.2), layout="constrained")
    for offset, (sort, label) in zip(
        (-0.27, 0.0, 0.27),
        (("same_view", "same view, other noise"), ("other_view", "other view"), ("all", "both")),
        strict=True,
    ):
        some = [found[f"{prefix}.{m}.{sort}"] for m in methods]
        value = np.array([r["value"] for r in some])
        ends = np.array([[r["value"] - r["low"], r["high"] - r["value"]] for r in some]).T
        axis.barh(np.arange(len(methods)) + offset, value, 0.26, xerr=np.maximum(ends, 0), label=label, capsize=2)
    axis.set_yticks(np.arange(len(methods)), [METHODS[m] for m in methods])
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel="mean average precision")
    axis.legend(loc="lower right", fontsize="small")
    return figure
