"""Figures of the chapter on pre-training show the numbers they are given, and say so where there are none."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cimp_core import figures_training as figures
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import PARAMETERS


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made(name, value, low=None, high=None):
    return {"name": name, "value": value, "low": low, "high": high}


VALUES = {"reference": 0.30, "no_pixels": 0.10, "larger_crop": 0.35}
ROWS = [made(f"ablation.top{k}.{v}", x * k**0.5, x - 0.05, x + 0.05) for k in (1, 5, 10) for v, x in VALUES.items()]
ROWS += [made(f"ablation.r2.{p}.{v}", x + j / 10, 0, 1) for j, p in enumerate(PARAMETERS) for v, x in VALUES.items()]
ROWS += [
    made(f"ablation.change.top{k}.{v}", VALUES[v] - 0.3, VALUES[v] - 0.33, VALUES[v] - 0.28)
    for k in (10, 5, 1)
    for v in ("larger_crop", "no_pixels")
]
CURVES = [
    made(f"curve.crops.{n:06d}.top{k}", k * n / 1e6, k * n / 2e6, k * n / 5e5) for n in (400, 100) for k in (1, 5)
]


def test_table_is_in_order_of_top1_and_every_cell_is_where_it_belongs():
    table = figures.ablation_table(ROWS + CURVES + [made("control.top1.x", 0.9)])
    assert list(table.index) == ["larger crop", "reference", "no pixels"]
    assert table.loc["no pixels", "Top-1"] == "0.10 [0.05, 0.15]"
    assert table.loc["no pixels", "change of Top-1"] == "-0.20 [-0.23, -0.18]"
    assert table.loc["reference", "change of Top-1"] == "" and table.loc["reference", "Top-10"].startswith("0.95 [")


def test_a_row_without_interval_or_value_is_shown_as_it_is():
    rows = [made("ablation.top1.reference", 0.2), made("ablation.top5.reference", None)]
    table = figures.ablation_table(rows)
    assert table.loc["reference", "Top-1"] == "0.20" and table.loc["reference", "Top-5"] == ""


def test_map_has_every_r2_and_colours_only_changes_that_are_some():
    changes = [
        made("ablation.change.r2.dwell_time.no_pixels", -0.2, -0.3, -0.1),
        made("ablation.change.r2.pixel_size.no_pixels", -0.2, -0.5, 0.1),
        made("ablation.change.r2.beam_current.larger_crop", None),
    ]
    axes = figures.ablation_map(ROWS + changes).axes[0]
    colour = np.asarray(axes.images[0].get_array())
    assert colour.shape == (3, 7) and colour[1, 1] == -0.2 and np.count_nonzero(colour) == 1
    assert {(t.get_position(), t.get_text()) for t in axes.texts} >= {((0, 0), "0.30"), ((6, 1), "0.70")}
    assert len(axes.texts) == 21
    assert [label.get_text() for label in axes.get_yticklabels()] == ["reference", "no pixels", "larger crop"]


def test_changes_are_drawn_with_their_ends_the_worst_first():
    axes = figures.ablation_plot(ROWS).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no pixels", "larger crop"]
    assert [c.get_label() for c in axes.containers] == ["Top-1", "Top-5", "Top-10"]
    ends = [segment[:, 0] for segment in axes.containers[0].lines[2][0].get_segments()]
    assert ends[0] == pytest.approx([-0.23, -0.18]) and ends[1] == pytest.approx([0.02, 0.07])


def test_curves_are_drawn_in_order_of_the_budget():
    crops, sessions = figures.budget_plot(ROWS + CURVES).axes
    line = crops.containers[0].lines[0]
    assert list(line.get_xdata()) == [100, 400] and list(line.get_ydata()) == pytest.approx([1e-4, 4e-4])
    assert len(crops.containers) == 2 and not sessions.containers
    assert [label.get_text() for label in crops.get_xticklabels()] == ["100", "400"]
    segments = crops.containers[1].lines[2][0].get_segments()
    assert segments[0][:, 1] == pytest.approx([2.5e-4, 1e-3])


@pytest.mark.parametrize(
    "draw", [figures.ablation_table, figures.ablation_plot, figures.ablation_map, figures.budget_plot]
)
def test_no_rows_is_one_clear_error(draw):
    with pytest.raises(OutOfRangeError, match="names begin with"):
        draw([made("control.probe.r2.x", 1.0)])


def test_training_curves_of_two_runs_one_without_validation():
    log = pd.DataFrame({"samples": [1000, 2000, 4000], "excess": [3.0, 2.0, 1.0], "scale": [14.0, 15.0, 16.0]})
    checked = log.assign(val_top1=[np.nan, 0.1, 0.2], val_top5=[np.nan, 0.3, 0.4], val_top10=[np.nan, 0.5, 0.6])
    loss, found, scale = figures.training_curves({"long": checked, "short": log}).axes
    assert [line.get_label() for line in loss.lines] == ["long", "short"]
    assert list(loss.lines[0].get_ydata()) == [3, 2, 1] and list(loss.lines[0].get_xdata()) == [1, 2, 4]
    assert [list(line.get_ydata()) for line in found.lines[:3]] == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    assert list(found.lines[0].get_xdata()) == [2, 4]
    assert list(scale.lines[0].get_ydata()) == [14, 15, 16] and scale.lines[-1].get_ydata()[0] == 100


def test_inputs_are_normalised_above_and_absolute_below():
    dark, bright = (np.random.default_rng(0).normal(size=(8, 8)) * s + m for s, m in ((10, 1000), (500, 40000)))
    above, _, below, last = figures.model_inputs([dark, bright], ["a", "b"]).axes[:4]
    shown = np.asarray(above.images[0].get_array())
    assert shown.mean() == pytest.approx(0, abs=1e-9) and shown.std() == pytest.approx(1)
    np.testing.assert_allclose(below.images[0].get_array(), dark / 65535)
    assert last.images[0].get_clim() == (0, 1) and above.get_title() == "a"


def test_spectra_share_their_colours_and_stand_beside_their_means():
    spectra = [np.add.outer(np.arange(6.0), np.zeros(9)), np.add.outer(np.arange(6.0) + 1, np.zeros(9))]
    one, two, means = figures.spectrum_plot(spectra, ["fine", "coarse"]).axes
    assert one.images[0].get_clim() == two.images[0].get_clim() and one.images[0].origin == "lower"
    assert list(means.lines[1].get_xdata()) == [1, 2, 3, 4, 5, 6] and list(means.lines[1].get_ydata()) == list(range(6))


def test_scan_axes_and_settling_show_what_they_are_given():
    axes = figures.scan_axes_plot(np.array([1e-6, 4e-6]), np.array([0.3, 0.0])).axes[0]
    assert list(axes.lines[0].get_xdata()) == pytest.approx([1, 4]) and list(axes.lines[0].get_ydata()) == [0.3, 0.0]
    runs = {"a": ([3, 1], 1.0), "b": ([3, 2], 2.0), "c": ([4, 0], 0.0), "d": ([4, 3], 3.0)}
    left, right = figures.settling_plot(runs, ["one", "two"]).axes
    assert left.get_title() == "one" and [t.get_text() for t in right.get_legend().texts] == ["c", "d"]
    assert list(right.lines[2].get_ydata()) == [4, 3] and right.lines[3].get_ydata()[0] == 3.0
