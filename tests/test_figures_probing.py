"""Figures of probing: every value is where it belongs, and the words are true."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cimp_core import figures_probing
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import LABELS, PARAMETERS


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def lattice(period=8.0, angle=0.3, noise=0.3, shape=(128, 160)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    return 1000 + 100 * wave + 100 * noise * np.random.default_rng(0).normal(size=shape)


def test_spectra_are_drawn_below_with_the_circle_at_the_spot():
    images = [lattice(8.0, 0.0), np.full((64, 64), 3.0)]
    figure = figures_probing.spectrum_figure(images, [20e-12, 20e-12], ["a", "b"])
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["a", "b", "strongest spot: 0.125 cycles/px", "no spot"]
    (circle,) = [patch for patch in drawn[2].patches if patch.get_gid() is None]
    assert circle.width == pytest.approx(2 * 20, abs=1) and circle.height == pytest.approx(2 * 16, abs=1)
    assert not drawn[2].texts and len(drawn[0].texts) == 1


def panel(figure, name):
    return next(axes for axes in figure.axes if axes.get_title() == LABELS[PARAMETERS.index(name)])


def test_panels_show_values_intervals_and_what_lies_below_the_axis():
    rows = [("pixel_size", "probe", 0.5, 0.4, 0.7), ("pixel_size", "control", -3.2, -4.0, -2.0)]
    rows += [("dwell_time", "probe", np.nan, np.nan, np.nan), ("dwell_time", "control", 0.3, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["quantity", "series", "value", "low", "high"])
    figure = figures_probing.probe_panels(table)
    first, second = panel(figure, "pixel_size"), panel(figure, "dwell_time")
    (container,) = first.containers
    (segment,) = container.lines[2][0].get_segments()
    assert segment[:, 0] == pytest.approx([0.4, 0.7]) and segment[0, 1] == 0
    assert [text.get_text() for text in first.texts] == ["-3.2"]
    (only,) = second.containers
    assert only.lines[0].get_xydata().tolist() == [[0.3, 1.0]]
    assert [label.get_text() for label in first.get_yticklabels()] == ["probe", "control"]
    many = pd.concat([table.assign(series=f"s{k}") for k in range(9)])
    with pytest.raises(OutOfRangeError, match="9 series"):
        figures_probing.probe_panels(many)


def test_scatter_enlarges_the_range_of_resolved_atoms():
    true = np.array([10e-12, 20e-12, 39e-12, 41e-12, 1e-9, np.nan])
    figure = figures_probing.lattice_scatter(true, true * 2)
    left, right = figure.axes
    assert left.get_title() == "all: 5 images" and right.get_title() == "below 40 pm: 3 images"
    points = np.concatenate([line.get_xydata() for line in right.lines if line.get_marker() == "."])
    np.testing.assert_allclose(points, [[10, 20], [20, 40], [39, 78]])
    figures_probing.lattice_scatter(np.full(3, np.nan), np.full(3, np.nan)).canvas.draw()


def test_errors_in_words_hold_half_of_the_readings():
    words = figures_probing.error_in_words("dwell_time", 2e-6, 0.4)
    assert words == "half are within 40 %: 2 µs is read as 1.2 µs to 2.8 µs"
    assert figures_probing.error_in_words("pixel_size", 67e-12, 0.64).endswith("67 pm is read as 24 pm to 110 pm")
    assert figures_probing.error_in_words("detector_offset", -1.5, 0.2).endswith("-1.5 is read as -1.2 to -1.8")
    assert figures_probing.error_in_words("beam_current", 50e-12, 1.4).endswith("50 pA is read as 0 pA to 120 pA")
    assert figures_probing.error_in_words("beam_current", np.nan, 0.1) == "nothing to probe"


def test_table_of_errors_takes_the_median_of_what_is_known():
    raw = np.tile([20e-12, 1e-6, 0.02, 5e-11, 30.0, -1.0, 0.06], (3, 1))
    raw[0, 1], raw[1, 1], raw[:, 3] = 4e-6, np.nan, np.nan
    table = figures_probing.error_table(pd.Series(dict.fromkeys(PARAMETERS, 0.2)), raw)
    assert list(table.index) == list(LABELS)
    column = table["median relative error"]
    assert "2.5 µs is read as 2 µs to 3 µs" in column["dwell time"] and column["beam current"] == "nothing to probe"
