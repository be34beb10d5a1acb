"""The Cramer-Rao bound against closed forms and against the simulator's own draws; the cascade step by step."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from cimp_core import figures_study
from cimp_core.metadata import PARAMETERS, Acquisition
from cimp_core.results import row_faults
from cimp_core.simulate.detector import record
from cimp_core.simulate.lab import set_detector
from cimp_core.simulate.scan import lag, row_displacements
from cimp_core.simulate.specimen import draw_specimen, expectation
from cimp_core.study import cascade, fisher, identifiability
from cimp_core.study.cascade import LabImage, freed, take
from cimp_core.study.fisher import BASE, bound, bound_table, derivatives, information, pixel_cumulants

SPREAD = np.array([1.5, 1.3, 7e-3, 0.9, 9.0, 0.5, 0.4])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def gaussian_noise(mean, deviation):
    nothing = np.zeros_like(mean)
    return np.array([mean, np.full_like(mean, deviation**2), nothing, nothing])


def test_poisson_image_that_is_linear_in_the_parameter():
    weights = np.random.default_rng(0).uniform(0.2, 3, 500)

    def image(scene):
        return np.array([weights * scene["rate"]] * 4)  # all cumulants of a Poisson number are its mean

    scene = {"rate": 2.5}
    found = bound(information(image(scene), derivatives(image, scene, ["rate"])), 0)
    assert found == pytest.approx(math.sqrt(1 / (2.5 * weights.sum())), rel=1e-4)  # of the logarithm


def test_width_of_a_gaussian_probe_in_white_noise():
    """sd(w) = sigma / (A sqrt(2 pi)) a pixel of area 1 if the height is known, sqrt(2) more if it is not."""
    y, x = np.mgrid[-40:41, -40:41].reshape(2, -1)

    def image(scene):
        mean = scene["height"] * np.exp(-(x**2 + y**2) / (2 * scene["width"] ** 2))
        return gaussian_noise(mean, 3.0)

    scene = {"height": 200.0, "width": 5.0}
    fisher_matrix = information(image(scene), derivatives(image, scene, ["width", "height"]))
    known = 3.0 / (200.0 * math.sqrt(2 * math.pi)) / 5.0
    assert bound(fisher_matrix, 0) == pytest.approx(known, rel=1e-3)
    assert bound(fisher_matrix, 0, [1]) == pytest.approx(math.sqrt(2) * known, rel=1e-3)


def test_noise_alone_tells_its_size():
    def image(scene):
        return gaussian_noise(np.zeros(400), scene["deviation"])

    scene = {"deviation": 7.0}
    found = bound(information(image(scene), derivatives(image, scene, ["deviation"])), 0)
    assert found == pytest.approx(1 / math.sqrt(2 * 400), rel=1e-3)


def test_two_parameters_with_the_same_effect():
    alike = np.full((2, 2), 4.0)
    assert bound(alike, 0) == 0.5
    assert bound(alike, 0, [1]) == math.inf
    # What is known of the other beforehand comes on top of what the image leaves.
    assert bound(alike, 0, [1], np.array([9.0, 0.3])) == pytest.approx(math.hypot(0.5, 0.3))
    assert bound(alike, 0, [1], np.array([9.0, math.inf])) == math.inf


@pytest.mark.parametrize("current", [5e-12, 1e-12])
def test_cumulants_and_information_are_those_of_recorded_images(current):
    """Scores of recorded images have the variance that the information says, in mean and in noise."""
    scene = {**BASE, "beam_current": current, "detector_gain": 33.0, "detector_offset": -1.23}
    fraction = np.linspace(0.01, 0.3, 256)
    detector = fisher.scene_detector(scene)
    names = ["beam_current", "detector_gain"]

    def image(scene):
        return pixel_cumulants(fraction, scene, detector)

    k = image(scene)
    slopes = derivatives(image, scene, names)
    settings = Acquisition(**{n: scene[n] for n in PARAMETERS})
    drawn = record(np.tile(fraction, (6000, 1)), settings, detector, np.random.default_rng(0)).astype(float)
    off = drawn - k[0]
    assert np.mean(off / np.sqrt(k[1])) == pytest.approx(0, abs=5e-3)
    assert np.mean(off**2 / k[1]) == pytest.approx(1, abs=5e-3)
    assert np.mean(off**3 / k[2]) == pytest.approx(1, abs=0.03)
    assert np.mean((off**4 - 3 * k[1] ** 2) / k[3]) == pytest.approx(1, abs=0.15)
    inverse = np.linalg.inv(np.moveaxis(np.array([[k[1], k[2]], [k[2], k[3] + 2 * k[1] ** 2]]), 2, 0))
    weights = np.einsum("pan,nab->pbn", slopes, inverse)
    direct = np.einsum("pan,qan->pq", weights, slopes)
    np.testing.assert_allclose(information(k, slopes), direct, rtol=1e-8)
    scores = np.einsum("pbn,bin->ip", weights, np.array([off, off**2 - k[1]]))
    np.testing.assert_allclose(np.cov(scores.T), information(k, slopes), rtol=0.06)


def test_bounds_of_the_scene():
    table = bound_table(SPREAD, 64).set_index(["parameter", "condition"])["sd"]
    for name in PARAMETERS:
        known, marginal, all_free = (table[name, c] for c in ("known", "marginal", "uncalibrated"))
        assert 0 < known < marginal <= all_free * 1.001
        assert table[name, "lab"] <= all_free * 1.001 and table[name, "lab"] > known
    # Dose and specimen: the detected current is their product; the source image alone tells them apart.
    assert table["beam_current", "free_specimen"] < math.inf and table["beam_current", "free_brightness"] < math.inf
    assert table["beam_current", "free_specimen_and_brightness"] == math.inf
    # Counts tell slope times current, noise tells slope over dwell time: three unknowns, two numbers.
    assert table["beam_current", "free_gain_and_dwell_time"] < 0.1
    assert table["beam_current", "free_gain_and_dwell_time_and_calibration"] == math.inf
    assert max(table["detector_gain", "marginal"], table["detector_offset", "marginal"]) < math.inf
    assert table["detector_gain", "uncalibrated"] == table["detector_offset", "uncalibrated"] == math.inf
    # The inner angle scales the image, nearly as thickness and composition do: known well, and lost with them.
    assert table["inner_collection_angle", "marginal"] > 50 * table["inner_collection_angle", "known"]


def test_bounds_hardly_depend_on_the_step(monkeypatch):
    names = ["convergence_angle", "inner_collection_angle", "beam_current", "thickness"]

    def known():
        image = lambda scene: fisher.moments(scene, 64)  # noqa: E731
        return np.diag(information(image(BASE), derivatives(image, BASE, names))) ** -0.5

    usual = known()
    for step in (0.005, 0.02):
        monkeypatch.setattr(fisher, "LOG_STEP", step)
        np.testing.assert_allclose(known(), usual, rtol=0.1)


def test_alone_only_the_target_varies_and_nothing_clips():
    labs = [LabImage.draw(number, 0) for number in range(12)]
    # As the extremes of the lab: the largest current, the widest probe, the smallest inner angle.
    for target, extreme in (
        ("beam_current", 1.1e-9),
        ("convergence_angle", 30e-3),
        ("inner_collection_angle", 18.7e-3),
    ):
        acquisition = labs[0].shot.acquisition.replace(**{target: extreme})
        lab = replace(labs[0], shot=replace(labs[0].shot, acquisition=acquisition))
        pixels, settings = take(lab, frozenset({target}), 64)
        assert pixels.min() > 0 and pixels.max() < 65535
        assert settings == Acquisition(**{n: BASE[n] for n in PARAMETERS}).replace(**{target: extreme})
    free = frozenset()
    one, two = (take(replace(lab, number=3), free, 64)[0] for lab in labs[:2])
    np.testing.assert_array_equal(one, two)  # nothing free: the lab's draw does not matter
    assert (take(labs[1], free, 64)[0] != one).mean() > 0.9  # but for the noise


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_with_everything_free_it_is_the_lab(number):
    lab, size = LabImage.draw(number, 4), 48
    everything = list(freed("beam_current"))[-1][1]
    assert all(list(freed(target))[-1][1] == everything for target in cascade.TARGETS)
    pixels, settings = take(lab, everything, size)
    shot, own = lab.shot, lab.shot.acquisition
    specimen = draw_specimen(lab.rng(1), own.pixel_size, size, lab.session.material)
    rows = row_displacements(shot.scan, own.dwell_time, size, size, lab.rng(2))
    angles = own.inner_collection_angle, shot.outer_collection_angle
    fraction = expectation(specimen, shot.optics, *angles, own.pixel_size, size, rows)
    fraction = lag(fraction, shot.scan, own.dwell_time)
    shot = set_detector(shot, lab.session, fraction, lab.rng(3))
    expected = record(fraction, shot.acquisition, shot.detector, lab.rng(4))
    assert settings == shot.acquisition
    np.testing.assert_allclose(pixels.astype(int), expected, atol=1)


def test_focus_is_carried_over_in_units_of_its_depth():
    lab = next(i for i in (LabImage.draw(n, 0) for n in range(40)) if i.shot.instrument != fisher.INSTRUMENT)
    own, angle = lab.shot.optics, lab.shot.acquisition.convergence_angle
    settings = Acquisition(**{n: BASE[n] for n in PARAMETERS})
    moved, still = (cascade._optics(lab, frozenset(free), settings) for free in ({"focus"}, ()))
    scherzer = [math.sqrt(o.spherical_aberration * fisher.WAVELENGTH) for o in (own, moved)]
    miss = [(own.defocus - scherzer[0]) * angle**2, (moved.defocus - scherzer[1]) * BASE["convergence_angle"] ** 2]
    assert miss[0] == pytest.approx(miss[1], rel=1e-6, abs=0) and miss[0] != 0
    assert moved.astigmatism * BASE["convergence_angle"] ** 2 == pytest.approx(
        own.astigmatism * angle**2, rel=1e-6, abs=0
    )
    assert still == fisher.scene_optics(BASE) and moved.source_size == still.source_size


def test_features_that_say_nothing_score_nothing():
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(200, 6)), rng.normal(size=200)
    assert identifiability._score(features, target, 0)[0] < 0.15
    value, low, high = identifiability._score(features, features[:, 1], 0)
    assert low < value < high and low > 0.8


def test_each_step_lets_one_thing_more_vary():
    labs, size = [LabImage.draw(number, 0) for number in range(20)], 48
    # One that differs from the base scene in instrument and material, too.
    lab = next(i for i in labs if i.shot.instrument != fisher.INSTRUMENT and i.session.material != fisher.MATERIAL)
    for target in cascade.TARGETS:
        before = None
        for step, free in freed(target):
            pixels, settings = take(lab, free, size)
            assert getattr(settings, target) == getattr(lab.shot.acquisition, target)
            for name in set(PARAMETERS) - {"detector_gain", "detector_offset"}:
                expected = getattr(lab.shot.acquisition, name) if name in free else BASE[name]
                assert getattr(settings, name) == pytest.approx(expected, rel=1e-6), (step, name)
            # The source image follows current and convergence angle, and both are still fixed when it is set free.
            same = target == "inner_collection_angle" and step == "source"
            assert before is None or (pixels == before).all() == same, (target, step)
            before = pixels


def test_radial_spectrum_puts_a_wave_into_its_ring():
    x = np.arange(128)
    rings = np.geomspace(1 / 128, 0.5**0.5, identifiability.RINGS + 1)
    for period in (32, 8, 3.2):
        wave = np.cos(2 * np.pi * x / period)[None] + 0 * x[:, None]
        found = np.exp(identifiability.radial_spectrum(1000 + wave))
        assert found.sum() == pytest.approx(1, abs=1e-3)
        # The window spreads a line over the neighbouring frequencies, 1/128 to either side.
        near = np.searchsorted(rings, [1 / period - 1 / 128, 1 / period + 1 / 128], side="right") - 1
        assert found[near[0] : near[1] + 1].sum() > 0.99
        assert found.argmax() in range(near[0], near[1] + 1)
    assert np.isfinite(identifiability.radial_spectrum(np.zeros((32, 32)))).all()


def test_rows(monkeypatch):
    """Current in a cut cascade: known while it varies alone, not when gain and offset follow the brightness."""
    steps = {"alone": (), "detector": ("dwell_time", "place", "detector")}
    monkeypatch.setattr(cascade, "STEPS", steps)
    monkeypatch.setattr("cimp_core.study.control.TREES", 60)
    made = [
        identifiability.identifiability_rows(images=n, size=32, targets=["beam_current"], profile="smoke")
        for n in (160, 8, 8)
    ]
    assert made[1] == made[2]
    assert [fault for row in made[0] for fault in row_faults(row)] == []
    table = identifiability.table_of(made[0], "r2").set_index("step")
    assert list(table.index) == list(steps)
    assert table.loc["alone", "low"] > 0.85 > table.loc["detector", "value"]
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    told, others = (identifiability.table_of(made[0], kind).set_index("step") for kind in ("told", "others"))
    assert list(told.index) == list(others.index) == ["detector"]
    assert told.loc["detector", "value"] > table.loc["detector", "value"]
    bounds = identifiability.table_of(made[0], "bound").set_index(["parameter", "step"])["value"]
    assert bounds["beam_current", "free_specimen_and_brightness"] == math.inf
    assert set(bounds.index.get_level_values("parameter")) == set(PARAMETERS)


def test_figure_shows_every_value():
    rng = np.random.default_rng(0)
    rows = [(n, s, v, v - 0.1, v + 0.2) for n in cascade.TARGETS for s in cascade.STEPS for v in [rng.uniform(0, 0.8)]]
    table = pd.DataFrame(rows, columns=["parameter", "step", "value", "low", "high"]).sample(frac=1, random_state=0)
    figure = figures_study.cascade_plot(table, table[table["step"] == "material"])
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "convergence angle",
        "beam current",
        "inner collection angle",
    ]
    assert [t.get_text() for t in axes.get_xticklabels()] == list(figures_study.STEP_LABELS.values())
    for container, name in zip(axes.containers, [n for n in PARAMETERS if n in cascade.TARGETS], strict=True):
        part = table[table["parameter"] == name].set_index("step").loc[list(cascade.STEPS)]
        np.testing.assert_allclose(container[0].get_ydata(), part["value"])
        ends = np.array([segment[:, 1] for segment in container[2][0].get_segments()])
        np.testing.assert_allclose(ends, part[["low", "high"]])
    plt.close(figure)
    assert list(figures_study.STEP_LABELS) == list(cascade.STEPS)


def test_bounds_as_a_table():
    rows = [(n, c, i, None, None) for i, (n, c) in enumerate((n, c) for n in PARAMETERS[::-1] for c in ("b", "a", "x"))]
    wide = figures_study.bound_pivot(
        pd.DataFrame(rows, columns=["parameter", "step", "value", "low", "high"]), ("a", "b")
    )
    assert list(wide.index) == list(PARAMETERS) and list(wide.columns) == ["a", "b"]
    assert wide.loc[PARAMETERS[-1], "b"] == 0 and wide.loc[PARAMETERS[-2], "a"] == 4
