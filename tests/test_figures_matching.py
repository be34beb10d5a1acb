"""Figures and tables of the chapter on structures show what they are given."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from cimp_core import figures_matching
from cimp_core import structures as st


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def found():
    known = st.library(["Au", "Si"])
    entry = known[0]
    image = st.collected(entry.pattern, st.View(0.2, 160, 160, angle=0.4))
    return st.match(st.recorded(image, 60, np.random.default_rng(0)), known, pixel_size=2e-11, grains=1), known


def test_a_gallery_has_a_titled_picture_of_each_entry(found):
    entries = list(found[1])[:3]
    titles = [axes.get_title() for axes in figures_matching.gallery(entries).axes]
    assert titles == [f"{e.structure.formula} {figures_matching.zone_name(e.zone)}" for e in entries]


def test_the_table_of_a_match_is_the_match_in_other_units(found):
    shown, table = figures_matching.ranked(found[0]), found[0].table
    assert len(shown) == len(table)
    assert float(shown["probability"].iloc[0]) == pytest.approx(table.probability.iloc[0], abs=6e-4)
    assert float(shown["scale error [%]"].iloc[0]) == pytest.approx(100 * table.scale_error.iloc[0], abs=0.06)
    assert shown["zone"].iloc[-1] == shown["space group"].iloc[-1] == ""


def test_pictures_of_a_match_are_the_image_the_fits_and_the_residuals(found):
    grain = found[0].grains[0]
    figure = figures_matching.match_pictures(found[0], ranks=(0, 1, 99))
    images = [axes.images[0].get_array() for axes in figure.axes]
    ranks = min(2, len(grain.candidates))
    assert len(images) == 1 + 2 * ranks
    np.testing.assert_array_equal(images[0], grain.query.image)
    np.testing.assert_array_equal(images[2], grain.residual(0))


def test_grains_are_framed_where_they_are(found):
    figure = figures_matching.grains_map(np.zeros((160, 160)), found[0])
    (frame,) = figure.axes[0].patches
    rows, columns = found[0].grains[0].region.window
    assert (frame.get_x(), frame.get_y(), frame.get_width()) == (
        columns.start,
        rows.start,
        columns.stop - columns.start,
    )


def test_curves_and_tables_take_the_rows_of_their_name():
    row = {"value": 0.5, "low": 0.4, "high": 0.6, "pool": 20}
    names = ["top1.dose_1", "top1.moderate", "polar_top1.dose_1", "none_auroc.left_out"]
    rows = [{"name": f"structures.match.{name}", **row} for name in names]
    first = figures_matching.accuracy_curves(rows).axes[0]
    assert sorted(len(line.get_xdata()) for line in first.lines if line.get_marker() == "o") == [1, 2]
    table = figures_matching.score_table(rows, "structures.match.top1.")
    assert list(table.index) == ["dose_1", "moderate"] and table["95 %"].iloc[0] == "[0.400, 0.600]"
    assert figures_matching.score_table(rows, "structures.twin.").empty
    assert not figures_matching.accuracy_curves([]).axes[0].lines


def test_every_real_image_is_listed_with_its_first_answer(tmp_path):
    first = {"formula": "Au", "zone": [1, 0, 0], "probability": 0.7, "scale": 1.02}
    grain = {"none": 0.2, "candidates": [first]}
    case = {"what": "a", "simulated": False, "truth": "Au", "truth_zone": [0, 0, 1], "right": True, "grains": [grain]}
    unsure = case | {"what": "b", "right": False, "grains": [grain | {"none": 0.9}]}
    refused = {"what": "c", "simulated": True, "truth": None, "truth_zone": None, "right": None, "why": "no pixel size"}
    (tmp_path / "real.json").write_text(json.dumps([case, unsure, refused]), encoding="utf-8")
    table = figures_matching.real_table(tmp_path / "real.json")
    assert table.answer.tolist() == ["Au [100]", "none of these", "no pixel size"]
    assert table.right.tolist() == ["yes", "no", ""] and table.scale.iloc[0] == "+2.0%"
    assert table.shows.tolist() == ["Au [001]", "Au [001]", "none of the library"]
