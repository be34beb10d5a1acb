"""Interactive figures of the book, drawn by plotly: any setting against any other, and the map of embeddings.

Each says in words what it shows in ``layout.meta.alt``. A notebook keeps the plain plotly output, so the same figure
works in Jupyter, in Colab and, with no network, on the built pages.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from .errors import OutOfRangeError
from .figures import AXIS_LABELS, LOGARITHMIC, in_display_units
from .metadata import LABELS, PARAMETERS

__all__ = ["embedding_map", "metadata_explorer", "show_embedding_map", "thumbnails"]


def metadata_explorer(raw: np.ndarray, *, seed: int = 0, points: int = 1500) -> go.Figure:
    """Plotly scatter of any two of the seven parameters, chosen from two menus; colour is the third, dwell time.

    Parameters
    ----------
    raw : (n, 7) array
        SI units; ``nan`` where missing.
    points : int
        At most so many images are drawn, chosen with `seed`, to keep the page small.
    """
    raw = np.asarray(raw, dtype=float)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(raw))[:points])
    shown = in_display_units(raw[chosen])
    kind = ["log" if name in LOGARITHMIC else "linear" for name in PARAMETERS]

    def menu(axis: str, name: str, place: float, active: int) -> dict:
        buttons = [
            {
                "label": LABELS[i],
                "method": "update",
                "args": [
                    {axis: [shown[:, i]]},
                    {f"{axis}axis.title.text": AXIS_LABELS[i], f"{axis}axis.type": kind[i]},
                ],
            }
            for i in range(len(PARAMETERS))
        ]
        place = {"x": place, "xanchor": "left", "y": 1.18, "direction": "down"}
        return {"buttons": buttons, "active": active, "name": name, **place}

    x, y, colour = 2, 3, 1
    figure = go.Figure(
        go.Scatter(
            x=shown[:, x],
            y=shown[:, y],
            mode="markers",
            marker={
                "size": 5,
                "opacity": 0.6,
                "color": np.log10(shown[:, colour]),
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": "log<sub>10</sub> dwell time [µs]"}},
            },
            hovertemplate="%{x:.4g}, %{y:.4g}<extra></extra>",
        )
    )
    figure.update_layout(
        xaxis={"title": {"text": AXIS_LABELS[x]}, "type": kind[x]},
        yaxis={"title": {"text": AXIS_LABELS[y]}, "type": kind[y]},
        updatemenus=[menu("x", "horizontal axis", 0.0, x), menu("y", "vertical axis", 0.4, y)],
        template="plotly_white",
        height=480,
        margin={"t": 80, "l": 60, "r": 20, "b": 50},
        meta={"alt": "Scatter of two acquisition parameters of every image; menus choose the parameter on each axis."},
    )
    return figure


def thumbnails(images: Sequence[np.ndarray], *, size: int = 64) -> list[str]:
    """JPEG of each image, block-averaged to at most `size` pixels a side, as base64 text for a page."""
    from PIL import Image

    texts = []
    for image in images:
        image = np.asarray(image, dtype=float)
        step = max(1, math.ceil(max(image.shape) / size))
        height, width = (n // step * step for n in image.shape)
        small = image[:height, :width].reshape(height // step, step, width // step, step).mean(axis=(1, 3))
        low, high = np.percentile(small, (1, 99))
        grey = np.clip(255 * (small - low) / max(high - low, 1e-12), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "JPEG", quality=60)
        texts.append(base64.b64encode(buffer.getvalue()).decode("ascii"))
    return texts


def embedding_map(
    coordinates: np.ndarray, raw: np.ndarray, images: Sequence[str] | None = None, *, title: str = ""
) -> go.Figure:
    """Plotly map of embeddings; a menu chooses the parameter that colours the points.

    Parameters
    ----------
    coordinates : (n, 2) array
        Where each image lies, from PCA, t-SNE or the like.
    raw : (n, 7) array
        Settings in SI units, ``nan`` where missing.
    images : sequence of str, optional
        `thumbnails`, shown beside the pointer by `show_embedding_map`.
    """
    coordinates, shown = np.asarray(coordinates, dtype=float), in_display_units(raw)
    if coordinates.shape != (len(shown), 2) or (images is not None and len(images) != len(shown)):
        raise OutOfRangeError(
            f"coordinates {coordinates.shape}, settings {shown.shape} and thumbnails do not belong together"
        )
    colours, names = [], []
    for i, name in enumerate(PARAMETERS):
        logarithmic = name in LOGARITHMIC
        colours.append(np.log10(shown[:, i]) if logarithmic else shown[:, i])
        names.append(f"log<sub>10</sub> {AXIS_LABELS[i]}" if logarithmic else AXIS_LABELS[i])
    lines = ["<br>".join(f"{AXIS_LABELS[i]}: {v:.4g}" for i, v in enumerate(row)) for row in shown]
    start = PARAMETERS.index("dwell_time")
    figure = go.Figure(
        go.Scatter(
            x=coordinates[:, 0],
            y=coordinates[:, 1],
            mode="markers",
            text=lines,
            customdata=None if images is None else [[image] for image in images],
            hovertemplate="%{text}<extra></extra>",
            marker={
                "size": 7,
                "color": colours[start],
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": names[start]}},
            },
        )
    )
    buttons = [
        {
            "label": LABELS[i],
            "method": "restyle",
            "args": [{"marker.color": [colours[i]], "marker.colorbar.title.text": names[i]}],
        }
        for i in range(len(PARAMETERS))
    ]
    figure.update_layout(
        title={"text": title},
        xaxis={"showticklabels": False, "zeroline": False},
        yaxis={"showticklabels": False, "zeroline": False},
        updatemenus=[{"buttons": buttons, "active": start, "name": "colour", "x": 0.0, "xanchor": "left", "y": 1.12}],
        template="plotly_white",
        height=560,
        margin={"t": 70, "l": 20, "r": 20, "b": 20},
        meta={
            "alt": "Map of image embeddings, one point an image; a menu chooses the parameter that colours them.",
            "thumbnails": images is not None,
        },
    )
    return figure


# Plotly's own hover label cannot hold a picture, so a box of the page follows the pointer. The figure may be drawn
# after this script has run: it looks for it until it is there, for at most 30 s.
HOVER_SCRIPT = """<script>
(function () {
  var tries = 0;
  var timer = setInterval(function () {
    if (++tries > 150) { clearInterval(timer); }
    document.querySelectorAll(".js-plotly-plot").forEach(function (plot) {
      var meta = plot.layout && plot.layout.meta;
      if (!meta || !meta.thumbnails || plot.dataset.thumbnails || !plot.on) { return; }
      plot.dataset.thumbnails = "on";
      clearInterval(timer);
      var box = document.createElement("img");
      box.alt = "micrograph at the pointer";
      box.className = "embedding-thumbnail";
      box.style.cssText = "position:fixed;display:none;width:160px;image-rendering:pixelated;" +
        "border:2px solid #222;background:#fff;z-index:1000;pointer-events:none";
      document.body.appendChild(box);
      plot.on("plotly_hover", function (event) {
        var data = event.points[0].customdata;
        if (!data) { return; }
        box.src = "data:image/jpeg;base64," + data[0];
        box.style.left = Math.min(event.event.clientX + 24, window.innerWidth - 180) + "px";
        var y = event.event.clientY;  // clear of plotly's own label, which is as high above the point as below
        box.style.top = (y > 250 ? y - 240 : y + 80) + "px";
        box.style.display = "block";
      });
      plot.on("plotly_unhover", function () { box.style.display = "none"; });
    });
  }, 200);
})();
</script>"""


def show_embedding_map(figure: go.Figure) -> None:
    """Display an `embedding_map` in a notebook, with the micrograph under the pointer beside it."""
    from IPython.display import HTML, display

    display(figure)
    display(HTML(HOVER_SCRIPT))
