"""The explorer says of each query what is true, and the curves draw what the rows hold."""

import json

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cimp_core import figures_retrieval
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import OutOfRangeError
from cimp_core.explorer import RIGHT, WRONG, retrieval_explorer
from cimp_core.metadata import LABELS, PARAMETERS, Acquisition

SETTINGS = Acquisition(20e-12, 2e-6, 21.4e-3, 50e-12, 35.0, -1.2, 60e-3)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images of 256 pixels; the first two share their settings, the third differs from them in the current."""
    raw = np.array([SETTINGS.vector()] * 3 + [SETTINGS.vector() * (1 + i / 10) for i in range(1, 6)])
    raw[2, 3] = 75e-12
    raw[7, 5] = np.nan
    images = np.random.default_rng(0).integers(0, 65535, (8, 256, 256)).astype(np.uint16)
    file = tmp_path_factory.mktemp("e") / "d.h5"
    return open_dataset(write_dataset(file, images, raw, [f"s{i}/{i}.emd" for i in range(8)]))


@pytest.fixture(scope="module")
def embeddings(data):
    """Everything is right but image 2, which takes image 0's settings for its own: 0.8 against 0.6."""
    settings = np.eye(7)[np.unique(data.groups, return_inverse=True)[1].reshape(-1)]
    images = settings.copy()
    images[2] = 0.8 * settings[0] + 0.6 * settings[2]
    return images, settings


def test_each_choice_shows_its_own_image_settings_and_answers(data, embeddings):
    figure = retrieval_explorer(data, embeddings, [0, 2, 7], top=4)
    (menu,) = figure.layout.updatemenus
    assert menu.name == "query" and [button.label[-1] for button in menu.buttons] == [RIGHT, WRONG, RIGHT]
    trace, layout = menu.buttons[1].args
    text = np.array(trace["text"][0]).reshape(5, 7)
    assert text[0].tolist() == ["20", "2", "21.4", "75", "35", "-1.2", "60"]
    assert text[1].tolist() == ["=", "=", "=", "50", "=", "=", "="]  # the settings of image 0
    assert set(text[2]) == {"="}
    assert layout["yaxis.ticktext"][1:3] == [f"1 {WRONG} 0.80", f"2 {RIGHT} 0.60"]
    assert "wrong" in layout["annotations[0].text"] and "number 2 of 7" in layout["annotations[0].text"]
    assert "beam current 75 pA -> 50 pA" in trace["hovertext"][0][7]
    pictures = [button.args[1]["images[0].source"] for button in menu.buttons]
    assert len(set(pictures)) == 3 and all(p.startswith("data:image/jpeg;base64,") for p in pictures)
    # what is missing is not compared
    lacking = np.array(menu.buttons[2].args[0]["text"][0]).reshape(5, 7)[:, PARAMETERS.index("detector_offset")]
    assert lacking.tolist() == ["?", "", "", "", ""]


def test_it_starts_with_the_first_choice_and_describes_itself(data, embeddings):
    figure = retrieval_explorer(data, embeddings, [2, 0])
    trace, layout = figure.layout.updatemenus[0].buttons[0].args
    assert list(figure.data[0].text) == trace["text"][0] and list(figure.data[0].hovertext) == trace["hovertext"][0]
    assert list(figure.layout.yaxis.ticktext) == layout["yaxis.ticktext"] and len(layout["yaxis.ticktext"]) == 8
    assert figure.layout.images[0].source == layout["images[0].source"]
    assert figure.layout.annotations[0].text == layout["annotations[0].text"]
    assert "2 test images" in figure.layout.meta["alt"] and "7 candidates" in figure.layout.meta["alt"]


def test_of_equal_cosines_a_wrong_one_comes_first(data):
    figure = retrieval_explorer(data, (np.ones((8, 3)), np.ones((8, 3))), [4])
    assert "number 7 of 7" in figure.layout.annotations[0].text


def test_thirty_queries_stay_small(data, embeddings):
    figure = retrieval_explorer(data, embeddings, [0, 2, 4, 6, 7] * 6)
    assert len(figure.to_json()) < 1.5e6
    assert "http" not in json.dumps(figure.to_plotly_json()["layout"]["images"], default=str)


def test_explorer_refuses_what_does_not_belong_together(data, embeddings):
    with pytest.raises(OutOfRangeError, match="0 queries"):
        retrieval_explorer(data, embeddings, [])
    with pytest.raises(OutOfRangeError, match="8 images"):
        retrieval_explorer(data.view(range(8)), (embeddings[0][:5], embeddings[1]), [0])


def made(name, value, low=None, high=None, pool=450):
    return {"name": name, "value": value, "low": low, "high": high, "pool": pool}


def test_curve_takes_the_rows_that_match_in_order():
    rows = [made("curve.crops.020000.top1", 0.3, 0.2, 0.4), made("curve.crops.005000.top1", 0.1)]
    rows += [made("curve.crops.005000.top10", 0.9), made("curve.crops.000100.top1", None)]
    table = figures_retrieval.curve_from_rows(rows, r"curve\.crops\.(\d+)\.top1", "a")
    assert table["x"].tolist() == [5000, 20000] and table["value"].tolist() == [0.1, 0.3]
    assert table["low"].isna().tolist() == [True, False] and set(table["series"]) == {"a"}
    whole = [made("c.pool_all.top1", 0.2, pool=744)]
    assert figures_retrieval.curve_from_rows(whole, r"c\.pool_(\w+)\.top1", "a")["x"].tolist() == [744]
    assert figures_retrieval.curve_from_rows([], "x", "a").empty


def test_curve_plot_draws_values_with_their_intervals():
    table = pd.DataFrame(
        [("a", 16, 0.5, 0.4, 0.7), ("a", 64, 0.3, np.nan, np.nan), ("b", 16, 0.6, 0.6, 0.6)],
        columns=figures_retrieval.COLUMNS,
    )
    axes = figures_retrieval.curve_plot({"left": table, "right": table}, xlabel="x", ylabel="y").axes
    assert [a.get_title() for a in axes] == ["left", "right"] and axes[0].get_ylabel() == "y"
    line = axes[0].containers[0]
    assert line.lines[0].get_xydata().tolist() == [[16, 0.5], [64, 0.3]]
    assert line.lines[2][0].get_segments()[0][:, 1] == pytest.approx([0.4, 0.7])
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["16", "64"]
    assert len(axes[0].containers) == 2


def test_difference_plot_counts_wrong_answers():
    differs = np.zeros((4, 7), bool)
    differs[:3, 1] = True
    differs[2, 0] = True
    axes = figures_retrieval.difference_plot(differs).axes[0]
    both = [[patch.get_width() for patch in bars] for bars in axes.containers]
    assert both[0][:2] == [0.25, 0.75] and both[1][:2] == [0, 0.5]
    assert [t.get_text() for t in axes.get_yticklabels()] == list(LABELS) and "4 wrong" in axes.get_xlabel()
    figures_retrieval.difference_plot(np.zeros((0, 7), bool))


def test_histogram_tells_the_two_apart():
    axes = figures_retrieval.cosine_histogram(np.full(5, 0.9), np.full((3, 3), -0.5)).axes[0]
    tops = [max(bars, key=lambda p: p.get_height()).get_x() for bars in axes.containers]
    assert tops == pytest.approx([-0.5, 0.9], abs=0.05)
