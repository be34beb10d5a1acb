"""Retrieval, one question at a time: a query image, its settings, and the candidates that the model puts first.

An interactive figure like those of `cimp_core.interactive`: it needs no network, and its menu is a ``<select>`` on the
built pages. Values are drawn as text on the page's own ground, so that they are legible in light and in dark.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from .dataset import Dataset
from .errors import OutOfRangeError
from .figures import AXIS_LABELS, in_display_units
from .interactive import thumbnails
from .metadata import PARAMETERS
from .retrieval import describe_difference

__all__ = ["retrieval_explorer"]

WRONG, RIGHT = "\N{BALLOT X}", "\N{CHECK MARK}"
ALT = (
    "Retrieval explorer: a menu chooses one of {queries} test images. Shown are the image, the seven settings it was "
    "taken with, and the {top} candidates whose settings the model finds most alike, with cosine, a check mark at the "
    "right one, and the values in which a candidate differs from the truth."
)


def retrieval_explorer(
    data: Dataset,
    embeddings: tuple[np.ndarray, np.ndarray],
    queries: Sequence[int],
    *,
    top: int = 10,
    size: int = 128,
) -> go.Figure:
    """Plotly figure in which a menu chooses a query image and the model's first answers are listed.

    The candidates are all distinct settings of `data`. Of equal cosines a wrong candidate comes first. A candidate's
    row shows only the values that differ from the truth by more than 1 %; all of it is in the text at the pointer.

    Parameters
    ----------
    data : Dataset
        Held-out view.
    embeddings : pair of (n, d) arrays
        Image and metadata rows of `data`.
    queries : sequence of int
        Positions in `data` of the images on the menu.
    top : int
        Candidates listed.
    size : int
        Longest edge of the picture of a query [px].

    Raises
    ------
    OutOfRangeError
        No query, or embeddings of another number of images.
    """
    if not len(queries) or any(len(rows) != len(data) for rows in embeddings):
        raise OutOfRangeError(f"{len(queries)} queries, {[len(r) for r in embeddings]} embeddings, {len(data)} images")
    _, first = np.unique(data.groups, return_index=True)
    pictures = thumbnails([data.image(i) for i in queries], size=size)
    cosine = embeddings[0][list(queries)] @ embeddings[1][first].T
    pages, buttons = [], []
    for place, (i, scores, picture) in enumerate(zip(queries, cosine, pictures, strict=True), start=1):
        right = data.groups[first] == data.groups[i]
        order = np.lexsort((right, -np.nan_to_num(scores, nan=-np.inf)))
        rank = int(np.flatnonzero(right[order])[0]) + 1
        pages.append(_page(data, i, first[order[:top]], right[order[:top]], scores[order[:top]], rank, len(first)))
        pages[-1][1]["images[0].source"] = f"data:image/jpeg;base64,{picture}"
        mark = RIGHT if rank == 1 else WRONG
        buttons.append({"label": f"image {place}, first answer {mark}", "method": "update", "args": list(pages[-1])})
    return _figure(*pages[0], buttons, min(top, len(first)), len(queries))


def _page(
    data: Dataset, i: int, found: np.ndarray, right: np.ndarray, scores: np.ndarray, rank: int, pool: int
) -> tuple[dict, dict]:
    """What the figure shows of one query: updates of its trace, and of its layout."""
    raw = np.asarray(data.metadata_raw, float)
    own, shown = raw[i], in_display_units(raw)
    texts = [[_number(value) for value in shown[i]]]
    hover = [["the query's own settings"] * len(PARAMETERS)]
    labels = ["<b>truth</b>"]
    for n, (j, good, score) in enumerate(zip(found, right, scores, strict=True), start=1):
        differs = [describe_difference(_only(own, k), raw[j]) not in ("nothing", "no known setting") for k in range(7)]
        texts.append([_number(value) if d else "=" for value, d in zip(shown[j], differs, strict=True)])
        words = describe_difference(own, raw[j]).replace(", ", "<br>")
        hover.append([f"candidate {n}, cosine {score:.3f}<br>differs in: {words}"] * len(PARAMETERS))
        labels.append(f"{n} {RIGHT if good else WRONG} {score:.2f}")
    for j, value in enumerate(own):
        if np.isnan(value):  # nothing to compare with
            for line in texts[1:]:
                line[j] = ""
    flat = [text for line in texts for text in line], [text for line in hover for text in line]
    verdict = "right" if rank == 1 else "wrong"
    words = f"first answer: <b>{verdict}</b><br>the truth is number {rank} of {pool}"
    layout = {"annotations[0].text": words, "yaxis.ticktext": labels}
    return {"text": [flat[0]], "hovertext": [flat[1]]}, layout


def _only(own: np.ndarray, k: int) -> np.ndarray:
    """`own` with all but parameter `k` missing."""
    return np.where(np.arange(len(own)) == k, own, np.nan)


def _number(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _figure(trace: dict, layout: dict, buttons: list[dict], top: int, queries: int) -> go.Figure:
    """The figure as it starts, with the first query."""
    columns, rows = len(PARAMETERS), top + 1
    figure = go.Figure(
        go.Scatter(
            x=np.tile(np.arange(columns), rows).tolist(),
            y=np.repeat(np.arange(rows), columns).tolist(),
            mode="text",
            text=trace["text"][0],
            hovertext=trace["hovertext"][0],
            hovertemplate="%{hovertext}<extra></extra>",
            textfont={"size": 12},
        )
    )
    names = [
        label.replace(" angle [", "<br>angle [").replace("time [", "time<br>[").replace("size [", "size<br>[")
        for label in AXIS_LABELS
    ]
    axis = {"zeroline": False, "fixedrange": True, "showline": False, "showgrid": False, "tickmode": "array"}
    menu = {"buttons": buttons, "active": 0, "name": "query", "x": 0.0, "xanchor": "left", "y": 1.02}
    picture = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "sizex": 0.6, "sizey": 0.19, "xanchor": "left"}
    picture |= {"yanchor": "top", "sizing": "contain", "source": layout["images[0].source"], "layer": "above"}
    words = {"text": layout["annotations[0].text"], "showarrow": False, "align": "left", "xref": "paper"}
    words |= {"yref": "paper", "x": 0, "xanchor": "left", "y": 0.8, "yanchor": "top"}
    figure.update_layout(
        xaxis={**axis, "tickvals": list(range(columns)), "ticktext": names, "side": "top", "tickangle": -90}
        | {"range": [-0.5, columns - 0.5]},
        yaxis={**axis, "tickvals": list(range(rows)), "ticktext": layout["yaxis.ticktext"]}
        | {"range": [rows - 0.5, -0.5], "domain": [0, 0.55]},
        images=[picture],
        annotations=[words],
        updatemenus=[{**menu, "yanchor": "bottom"}],
        template="plotly_white",
        height=760,
        margin={"t": 70, "l": 85, "r": 10, "b": 20},
        meta={"alt": ALT.format(queries=queries, top=top)},
    )
    return figure
