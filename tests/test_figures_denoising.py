"""Figures of denoising: everything is drawn where it belongs, and the interactive one moves."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cimp_core import figures_denoising
from cimp_core.errors import OutOfRangeError


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def truth():
    y, x = np.mgrid[:48, :64]
    return 500 + 100 * np.sin(x / 3) * np.sin(y / 4)


def test_images_stand_above_their_differences_from_the_truth(truth):
    images = {"recording": truth + 50, "restored": truth - 5}
    figure = figures_denoising.comparison(images, truth, 20e-12)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["recording", "restored", "truth", "", ""]
    np.testing.assert_allclose(shown[3].images[0].get_array(), 50)
    np.testing.assert_allclose(shown[4].images[0].get_array(), -5)
    assert shown[0].images[0].get_clim() == shown[2].images[0].get_clim()
    assert shown[3].images[0].get_clim() == shown[4].images[0].get_clim()
    with pytest.raises(OutOfRangeError, match="crop them alike"):
        figures_denoising.comparison({"a": truth[1:]}, truth, None)


def test_without_a_truth_the_recording_stands_for_it(truth):
    figure = figures_denoising.comparison({"restored": truth - 5}, truth, None, against="recording")
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["restored", "recording", ""]
    np.testing.assert_allclose(shown[2].images[0].get_array(), -5)
    bars = [child for axes in figure.axes for child in axes.child_axes]
    assert [bar.get_ylabel() for bar in bars] == ["minus recording [counts]"]
    chart = figures_denoising.before_after(truth + 9, {"a": truth}, None, steps=3)
    (menu,) = chart.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["a"]


def test_gains_are_drawn_with_their_intervals():
    table = pd.DataFrame(
        [("a", 4.0, 8.0, 6.0, 9.0), ("a", 1.0, 4.0, 3.0, 5.0), ("b_c", 1.0, 2.0, np.nan, np.nan)],
        columns=["method", "electrons", "value", "low", "high"],
    )
    figure = figures_denoising.gain_curves(table)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b c"]
    line = axes.containers[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [4, 8])
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[3, 5], [6, 9]])
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_rings_are_in_cycles_per_nanometre_where_the_pixel_is_known():
    curves = {"raw": (np.array([0.1, 0.2]), np.array([1.0, 0.2]))}
    for pixel_size, first in ((None, 0.1), (20e-12, 5.0)):
        axes = figures_denoising.ring_curves(curves, pixel_size).axes[0]
        assert axes.lines[0].get_xdata()[0] == pytest.approx(first)
        assert ("1/nm" in axes.get_xlabel()) == (pixel_size is not None)


def test_each_failure_is_a_row_at_the_scale_of_its_truth(truth):
    rows = [("worst", truth + 9, truth + 1, truth), ("next", truth, truth, 3 * truth)]
    figure = figures_denoising.failure_gallery(rows)
    assert len(figure.axes) == 6 and figure.axes[1].get_title() == "worst"
    limits = [axes.images[0].get_clim() for axes in figure.axes]
    assert limits[0] == limits[1] == limits[2] != limits[3]
    with pytest.raises(OutOfRangeError, match="at least one"):
        figures_denoising.failure_gallery([])


def test_coverage_of_right_deviations_lies_on_the_diagonal():
    noise = np.random.default_rng(0).standard_normal((80, 80))
    one = (noise, np.ones_like(noise), np.zeros_like(noise))
    axes = figures_denoising.coverage_plot({"right": [one, one]}).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "right")
    np.testing.assert_allclose(line.get_ydata(), line.get_xdata(), atol=0.02)


def test_the_line_moves_and_the_right_side_can_be_chosen(truth):
    figure = figures_denoising.before_after(truth + 9, {"wiener_filter": truth + 1, "b": truth}, truth, steps=5)
    (slider,), (menu,) = figure.layout.sliders, figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["wiener filter", "b", "truth"]
    sources = [button.args[0]["images[1].source"] for button in menu.buttons]
    assert figure.layout.images[1].source == sources[0] != sources[1] == sources[2]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    for step in slider.steps:
        places = step.args[0]
        # The cut is at the same place of the picture as of the page, and nothing is stretched.
        share = places["xaxis.domain"][1]
        assert places["xaxis2.domain"] == [share, 1] and places["xaxis.range"] == [0, share * 64]
        assert places["xaxis2.range"] == [share * 64, 64]
    assert figure.layout.xaxis.domain[1] == slider.steps[slider.active].args[0]["xaxis.domain"][1]
    assert "slider" in figure.layout.meta["alt"]
