"""Figures: the scale bar has the length it states, missing values are said to be missing, colours can be told apart."""

import base64
import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cimp_core import figures, interactive
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import LABELS, PARAMETERS, Acquisition

METRES = {"pm": 1e-12, "nm": 1e-9, "µm": 1e-6}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def stated_length(label: str) -> float:
    number, unit = label.split()
    return float(number) * METRES[unit]


@pytest.mark.parametrize("width", [64, 256, 1024, 2048])
@pytest.mark.parametrize("pixel_size", np.geomspace(6e-12, 4e-9, 13))
def test_scale_bar_is_a_round_length_that_fits(pixel_size, width):
    length, label = figures.scale_bar(pixel_size, width)
    assert stated_length(label) == pytest.approx(length, rel=1e-9)
    assert float(f"{length:.0e}"[0]) in (1, 2, 5)
    field = pixel_size * width
    assert field / 8 < length <= field / 3 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("pixel_size", "width", "label"),
    [
        (10e-12, 256, "500 pm"),
        (12e-12, 256, "1 nm"),
        (30e-12, 100, "1 nm"),
        (2e-9, 2048, "1 µm"),
        (6e-12, 96, "100 pm"),
    ],
)
def test_scale_bar_by_hand(pixel_size, width, label):
    assert figures.scale_bar(pixel_size, width)[1] == label


@pytest.mark.parametrize(("pixel_size", "width"), [(0, 256), (-1e-12, 256), (1e-12, 0), (float("nan"), 256)])
def test_scale_bar_refuses_what_has_no_length(pixel_size, width):
    with pytest.raises(OutOfRangeError):
        figures.scale_bar(pixel_size, width)


def test_drawn_bar_is_as_long_as_its_label_says():
    figure = figures.show_micrographs([np.eye(128), np.ones((64, 96))], [20e-12, 0.5e-9], ["a", "b"])
    for axes, pixel_size in zip(figure.axes, (20e-12, 0.5e-9), strict=True):
        (bar,) = [patch for patch in axes.patches if patch.get_gid() == "scale-bar"]
        assert bar.get_width() * pixel_size == pytest.approx(stated_length(axes.texts[0].get_text()), rel=1e-9)


def test_unknown_pixel_size_gets_words_and_no_bar():
    figure = figures.show_micrographs([np.eye(32), np.eye(32)], [None, float("nan")])
    for axes in figure.axes:
        assert not axes.patches and "unknown" in axes.texts[0].get_text()


def test_limits_are_kept_and_panels_counted():
    figure = figures.show_micrographs([np.eye(8)] * 5, [1e-10] * 5, columns=3, limits=(0, 7))
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 5
    assert all(axes.images[0].get_clim() == (0, 7) for axes in drawn)
    with pytest.raises(OutOfRangeError):
        figures.show_micrographs([np.eye(8)], [1e-10, 1e-10])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.5e-11, "A", "25 pA"),
        (1e-9, "A", "1 nA"),
        (9.999999e-10, "A", "1 nA"),
        (25e-6, "s", "25 µs"),
        (3e-2, "s", "30 ms"),
        (300e3, "V", "300 kV"),
        (0.2, "rad", "200 mrad"),
        (-1.5, "", "-1.5"),
        (5.998e-8, "m", "59.98 nm"),
        (2e-13, "A", "0.2 pA"),
    ],
)
def test_quantity(value, unit, text):
    assert figures.quantity(value, unit) == text


def test_settings_table_gives_units_and_reasons():
    acquisition = Acquisition(pixel_size=12.5e-12, convergence_angle=0.025, missing={"beam_current": "beam off"})
    table = figures.settings_table(acquisition)
    assert list(table.index) == list(LABELS)
    assert table.loc["pixel size", "value"] == "12.5 pm"
    assert table.loc["convergence angle", "value"] == "25 mrad"
    assert table.loc["beam current", "value"] == "missing"
    assert table.loc["beam current", "why missing"] == "beam off"


@pytest.fixture
def raw():
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=(200, 7))) * [20e-12, 1e-6, 0.02, 5e-11, 30, 1, 0.06]
    values[:, 5] -= 2
    values[:17, 3] = np.nan
    return values


def test_distributions_count_what_is_missing(raw):
    figure = figures.metadata_distributions(raw)
    drawn = [sum(patch.get_height() for patch in axes.patches) for axes in figure.axes[:7]]
    assert drawn == [200, 200, 200, 183, 200, 200, 200]
    assert "17 of 200 missing" in figure.axes[3].get_title()


def test_every_parameter_missing_still_draws():
    figures.metadata_distributions(np.full((5, 7), np.nan))


def test_interval_plot_shows_low_and_high():
    table = pd.DataFrame(
        [("top-1", "CIMP", 0.5, 0.4, 0.7), ("top-1", "control", 0.3, np.nan, np.nan)],
        columns=["quantity", "series", "value", "low", "high"],
    )
    axes = figures.interval_plot(table, label="accuracy").axes[0]
    (segment,) = axes.containers[0].lines[2][0].get_segments()
    assert segment[:, 0] == pytest.approx([0.4, 0.7])
    assert axes.get_xlabel() == "accuracy"


def test_explorer_offers_all_seven_on_both_axes(raw):
    figure = interactive.metadata_explorer(raw, points=50)
    assert len(figure.data[0].x) == 50
    for menu in figure.layout.updatemenus:
        assert [button.label for button in menu.buttons] == list(LABELS)
    assert figure.layout.meta["alt"]


def test_embedding_map_colours_by_every_parameter(raw):
    small = interactive.thumbnails([np.random.default_rng(i).normal(size=(130, 100)) for i in range(len(raw))])
    figure = interactive.embedding_map(raw[:, :2], raw, small)
    buttons = figure.layout.updatemenus[0].buttons
    assert len(buttons) == len(PARAMETERS)
    assert np.nanmax(np.abs(buttons[2].args[0]["marker.color"][0] - raw[:, 2] * 1e3)) < 1e-9
    assert figure.layout.meta["alt"] and figure.layout.meta["thumbnails"] is True
    assert figure.data[0].customdata[3][0] == small[3]
    with pytest.raises(OutOfRangeError):
        interactive.embedding_map(raw[:, :2], raw, small[:-1])


def test_thumbnails_are_small_grey_jpegs():
    images = [np.arange(130 * 100.0).reshape(130, 100), np.zeros((40, 40))]
    first, second = (Image.open(io.BytesIO(base64.b64decode(t))) for t in interactive.thumbnails(images, size=64))
    assert first.size == (33, 43) and first.mode == "L" and second.size == (40, 40)
    pixels = np.asarray(first, dtype=float)
    assert pixels[-1, -1] > 240 and pixels[0, 0] < 15


def test_palette_is_told_apart_without_red_and_green():
    """Under the deuteranope projection of Vienot, Brettel and Mollon (1999) no two colours in use coincide."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in figures.OKABE_ITO[:6]]) ** 2.2
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lms = rgb @ to_lms.T
    lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    seen = np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(len(seen))
    assert distance.min() > 0.1


def test_with_intervals():
    table = pd.DataFrame({"r2": [0.5], "r2_low": [0.41], "r2_high": [0.625]}, index=["gain"])
    assert figures.with_intervals(table, ["r2"], digits=2).loc["gain", "r2"] == "0.50 [0.41, 0.62]"


def test_example_area_has_columns_and_a_detector_far_outside():
    raw = np.tile([12e-12, 1e-6, 20e-3, 5e-11, 30, -1, 60e-3], (4, 1))
    raw[0, 6] = 30e-3  # detector too near
    raw[1, 2] = 5e-3  # probe too wide
    raw[2, 0] = 30e-12
    raw[3, 0] = 14e-12
    assert figures.example_area(raw) == 3


def test_readme_picture_is_small_and_never_half_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CIMP_CACHE", str(tmp_path))
    path = figures.readme_picture(tmp_path / "a.png", images=6)
    assert [file for file in tmp_path.iterdir() if file.suffix != ".h5"] == [path]
    assert path.stat().st_size < 200_000
    picture = Image.open(path)
    assert picture.mode == "L" and picture.width > 700
