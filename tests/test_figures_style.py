"""Figures of the chapter on style transfer: they show what they are given, and the slider holds every picture."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from real_schema_files import settings, write_real

import cimp_core as cimp
from cimp_core import figures_style
from cimp_core.study.restyling_cases import CHANGED, SIGMAS, cases_of


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def parts():
    return cimp.twin(60, 96).split("material", val=0.2, test=0.2, seed=0)


def test_losses_of_training_and_of_validation_each_where_it_was_measured():
    log = pd.DataFrame({"samples": [8, 16], "critic": [0.5, 0.3], "cycle": [0.1, 0.2], "val_cycle": [None, 0.15]})
    left, right = figures_style.loss_plot(log).axes
    assert [line.get_label() for line in left.lines] == ["lsgan (D)", "cycle"]
    assert list(right.lines[0].get_ydata()) == [0.15] and left.get_yscale() == "log"


def test_similarity_is_the_matched_minus_the_mean_of_the_others():
    rng = np.random.default_rng(0)
    rows, wanted = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 5, 8)))
    matched, others, gap = figures_style.similarity(rows, wanted, np.arange(5))
    by_hand = [rows[i] @ wanted[i] - np.mean([rows[i] @ wanted[j] for j in range(5) if j != i]) for i in range(5)]
    assert gap[0] == pytest.approx(np.mean(by_hand)) and gap[1] <= gap[0] <= gap[2]
    np.testing.assert_allclose(matched, [rows[i] @ wanted[i] for i in range(5)])
    assert others.shape == (5, 4) and others[2, 3] == pytest.approx(rows[2] @ wanted[4])


def test_each_parameter_has_its_line_and_the_image_itself_a_frame(parts):
    ways = {"left": lambda case: case.frame, "right": lambda case: case.recording}
    figure = figures_style.steps_figure(parts[2], 0, parts[0], ways)
    assert len(figure.axes) == len(CHANGED) * len(ways) * len(SIGMAS)
    framed = [axes for axes in figure.axes if axes.spines["left"].get_visible()]
    assert len(framed) == len(CHANGED) * len(ways)
    for axes in framed:
        np.testing.assert_array_equal(axes.images[0].get_array(), parts[2].image(0))
    assert len({axes.images[0].get_clim() for axes in figure.axes}) == 1  # one grey scale


def test_virtual_stands_beside_real_on_one_grey_scale(parts):
    cases = [next(iter(cases_of(parts[2], [0], parts[0], only=n))) for n in ("detector_gain", "dwell_time")]
    figure = figures_style.virtual_and_real(cases, lambda case: case.frame + 1.0)
    for k, case in enumerate(cases):
        source, virtual, real, histogram = figure.axes[4 * k : 4 * k + 4]
        np.testing.assert_array_equal(virtual.images[0].get_array(), case.frame + 1.0)
        np.testing.assert_array_equal(real.images[0].get_array(), case.recording)
        assert source.images[0].get_clim() == real.images[0].get_clim() and len(histogram.patches) == 3
    assert "µs" in figure.axes[4].get_title() or "ns" in figure.axes[4].get_title()


def test_table_of_routes_takes_the_rows_of_its_score_alone():
    row = {"value": 21.25, "low": 20.0, "high": None}
    names = ["style.psnr.joint.generator", "style.psnr.joint.unchanged", "style.psnr.beam_current.generator"]
    names += ["style.psnr.beam_current.plus3.generator", "style.ssim.joint.generator", "probe.psnr.joint.generator"]
    table = figures_style.route_table([{"name": n, **row} for n in names], "psnr", digits=1)
    assert list(table.index) == ["beam_current", "joint"] and list(table.columns) == ["unchanged", "generator"]
    assert table.loc["joint", "generator"] == "21.2 [20.0, nan]"
    assert figures_style.route_table([], "psnr").empty
    names = ["style.read.dwell_time.joint.generator", "style.noise.joint.analytic", "style.noise.dwell_time.analytic"]
    rows = [{"name": n, **row} for n in names]
    read, other = figures_style.read_table(rows), figures_style.joint_table(rows)
    assert list(read.index) == ["dwell_time"] and list(read.columns) == ["generator"]
    assert list(other.index) == ["noise"] and list(other.columns) == ["analytic"]
    assert figures_style.read_table([]).empty


def test_slider_holds_every_picture_rendered_beside_recorded(parts):
    from PIL import Image

    asked = []

    def way(frame, source, target):
        asked.append((target.dwell_time, target.beam_current))
        return np.zeros_like(frame, float)

    figure = figures_style.dose_slider(parts[2], 0, way, dwell_times=(1e-6, 4e-6), currents=(5e-11, 1e-10), edge=48)
    assert sorted(asked) == [(1e-6, 5e-11), (1e-6, 1e-10), (4e-6, 5e-11), (4e-6, 1e-10)]
    steps, buttons = figure.layout.sliders[0].steps, figure.layout.updatemenus[0].buttons
    assert [s.label for s in steps] == ["1 µs", "4 µs"] and [b.label for b in buttons] == ["50 pA", "100 pA"]
    sources = [source for step in steps for source in step.args[0]["source"]]
    assert len(sources) == 4 and figure.data[0].source in sources
    assert [b.args[0]["visible"] for b in buttons] == [[True, False], [False, True]]
    assert sum(bool(trace.visible) for trace in figure.data) == 1
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1]))))
    assert picture.shape == (48, 102, 3)
    assert picture[:, :44].max() < 30 and picture[:, 60:].max() > 100  # nothing was rendered, something was recorded
    assert "rendered from" in figure.layout.meta["alt"] and len(figure.to_json()) < 100_000
    assert figure.layout.meta["alt"].endswith("right: recorded.")


def test_of_a_file_without_truth_only_renderings_are_shown(tmp_path):
    from PIL import Image

    raw = settings(3)
    raw[:, 5] = np.nan
    path = write_real(tmp_path / "a.h5", raw=raw, edges=(64,))
    train, _, test = cimp.open_dataset(path).split("session", val=0.34, test=0.34, seed=0)
    figure = figures_style.steps_figure(test, 0, train, {"rendered": lambda case: case.frame})
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert len(labels) * len(SIGMAS) == len(figure.axes) and not any("offset" in label for label in labels)
    assert any("gain" in label for label in labels) and not any("convergence" in label for label in labels)
    figure = figures_style.dose_slider(
        test, 0, lambda frame, *_: np.zeros_like(frame, float), dwell_times=(1e-6,), currents=(5e-11,), edge=48
    )
    assert figure.layout.meta["alt"].endswith("right: as it is.")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(figure.data[0].source.split(",")[1]))))
    assert picture[:, :44].max() < 30 and picture[:, 60:].max() > 100


def test_ablation_table_has_trainings_first_and_then_the_routes_that_need_none():
    names = ("no_cycle", "unchanged", "reference", "analytic")
    rows = [
        {"name": f"ablation.style.{score}.{name}", "value": k + 0.5, "low": k, "high": None}
        for score in ("psnr.joint", "gap.own")
        for k, name in enumerate(names)
    ]
    table = figures_style.ablation_table(rows)
    assert list(table.index) == ["reference", "no_cycle", "unchanged", "analytic"]
    assert table.loc["reference", "psnr"] == "2.50 [2.00, nan]" and table.loc["unchanged", "gap"] == "1.50 [1.00, nan]"
    assert len(figures_style.ablation_table([])) == 0
