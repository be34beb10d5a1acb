"""Figures of the embedding of structures show what they are given, and say so."""

import matplotlib
import numpy as np
import pytest

from cimp_core.errors import OutOfRangeError
from cimp_core.figures_structures import METHODS, plot_precisions, precision_table, structure_map, tsne

matplotlib.use("Agg")


def test_the_map_has_every_image_and_a_menu_of_colours():
    figure = structure_map(np.eye(3)[:, :2], ["NaCl", "NaCl", "Si"], ["B1", "B1", "A4"], [225, 225, 227], ["[001]"] * 3)
    assert list(figure.data[0].x) == [1, 0, 0] and figure.layout.meta["alt"]
    assert [b.label for b in figure.layout.updatemenus[0].buttons] == ["crystal", "prototype", "space group"]
    colours = figure.layout.updatemenus[0].buttons[0].args[0]["marker.color"][0]
    assert colours[0] == colours[1] != colours[2]
    assert "NaCl B1" in figure.data[0].text[0] and "225" in figure.data[0].text[0]
    with pytest.raises(OutOfRangeError, match="do not belong together"):
        structure_map(np.eye(3)[:, :2], ["NaCl"], ["B1"], [225], ["[001]"])


def test_tsne_keeps_groups_apart():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3), 12, 0)
    z = centres + rng.normal(0, 0.05, centres.shape)
    places = tsne(z / np.linalg.norm(z, axis=1, keepdims=True))
    distance = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(36)
    assert np.all(distance.argmin(1) // 12 == np.arange(36) // 12)


def test_bars_are_as_long_as_the_rows_say():
    rows = [
        {"name": f"structures.ap.small.{m}.{sort}", "value": v, "low": v - 0.1, "high": v + 0.1, "profile": "full"}
        for m, v in (("embedding", 0.7), ("ssim", 0.2))
        for sort in ("all", "same_view", "other_view")
    ]
    axis = plot_precisions(rows).axes[0]
    assert [bar.get_width() for container in axis.containers if hasattr(container, "patches") for bar in container] == [
        0.7, 0.2, 0.7, 0.2, 0.7, 0.2,
    ]  # fmt: skip
    assert [label.get_text() for label in axis.get_yticklabels()] == [METHODS["embedding"], METHODS["ssim"]]
    with pytest.raises(OutOfRangeError, match="no rows"):
        plot_precisions(rows, "nothing")


def test_the_table_has_a_line_a_method_with_intervals_and_times():
    row = {"low": 0.1, "high": 0.9, "unit": ""}
    rows = [
        {"name": f"structures.ap.{n}", "value": 0.5, **row} for n in ("ssim.all", "embedding.all", "small.ssim.all")
    ]
    rows.append({"name": "structures.ap.embedding.per_query", "value": 9.118, "unit": "ms"})
    rows.append({"name": "structures.ap.embedding_no_contrast.other_view", "value": 0.25, **row})
    table = precision_table(rows)
    assert list(table.index) == [METHODS["embedding"], "SSIM", "learnt embedding, black level unknown"]
    assert table.loc["SSIM", "all"] == "0.500 [0.100, 0.900]" and table.loc["SSIM", "time of a query"] == ""
    assert table.loc[METHODS["embedding"], "time of a query"] == "9.12 ms"
    assert table["other views"].iloc[2] == "0.250 [0.100, 0.900]"
    assert list(precision_table(rows, "structures.ap.small").index) == ["SSIM"] and precision_table([]).empty
