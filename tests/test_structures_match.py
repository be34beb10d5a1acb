"""Matching: polar maps, the first look, fits, grains, probabilities, and what is refused."""

import itertools
import math

import numpy as np
import pytest

from cimp_core.errors import OutOfRangeError
from cimp_core.structures import fit, matching, polar, probability, regions
from cimp_core.structures.answers import NONE
from cimp_core.structures.index import FIELDS, Index
from cimp_core.structures.library import library
from cimp_core.structures.projection import Pattern
from cimp_core.structures.query import Products, prepare
from cimp_core.structures.views import View, collected, recorded, rotation

PIXEL = 0.2


@pytest.fixture(scope="module")
def known():
    return library(["SrTiO3", "Si", "GaAs", "Cu", "Au", "Ag", "TiO2", "CeO2", "W"], zones=1)


def entry(known, name, zone):
    table = known.table
    return next(i for i in range(len(known)) if table.structure[i] == name and table.zone[i] == zone)


def image_of(known, number, angle=0.7, dose=60.0, pixels=(160, 160), size=PIXEL, seed=0, **others):
    view = View(size, *pixels, angle=angle, **{"shift": (1.3, -0.4), **others})
    return recorded(collected(known[number].pattern, view), dose, np.random.default_rng(seed))


def test_a_map_of_an_image_is_that_of_its_pattern_turned(known):
    number = entry(known, "TiO2", (1, 0, 0))
    angle = 0.9
    mapped = polar.of_image(image_of(known, number, angle, dose=2000), PIXEL)
    same = polar.correlate(mapped, polar.of_pattern(known[number].pattern, mapped.field), 0.0, mirror=False)
    assert same.score > 0.93
    assert math.remainder(same.angle - angle, math.pi) == pytest.approx(0, abs=math.pi / 96)
    other = entry(known, "W", (1, 1, 0))
    assert polar.correlate(mapped, polar.of_pattern(known[other].pattern, mapped.field)).score < same.score - 0.2


def test_a_map_tells_a_pattern_from_its_mirror_image():
    oblique = np.array([[0.31, 0.0], [0.09, 0.42], [0.4, 0.42], [0.62, 0.0]], np.float32)
    one = Pattern(1.0, oblique, np.array([0.1, 0.06, 0.03, 0.05], np.complex64))
    mapped = polar.of_image(collected(one, View(PIXEL, 160, 160, angle=0.5)), PIXEL)
    mine = polar.of_pattern(one, mapped.field)
    behind = polar.of_pattern(Pattern(1.0, oblique * np.float32([1, -1]), one.coefficients), mapped.field)
    assert polar.correlate(mapped, mine, 0.0, mirror=False).angle == pytest.approx(0.5, abs=math.pi / 96)
    assert polar.correlate(mapped, mine, 0.0).mirrored is False
    assert polar.correlate(mapped, behind, 0.0).mirrored is True
    assert polar.correlate(mapped, behind, 0.0, mirror=False).score < 0.9


def test_a_map_knows_no_shift_and_moves_out_with_the_pixel_size(known):
    number = entry(known, "SrTiO3", (1, 0, 0))
    first, second = (
        polar.of_image(image_of(known, number, dose=2000, shift=s), PIXEL) for s in ((0.0, 0.0), (1.7, 0.9))
    )
    assert float((first.values * second.values).sum()) > 0.97
    # A pixel size that is said to be 4.4 % too small puts spatial frequencies one bin further out.
    closer = polar.of_image(image_of(known, number, dose=2000), PIXEL / 2 ** (1 / 16))
    found = polar.correlate(closer, polar.of_pattern(known[number].pattern, closer.field), 0.1, mirror=False)
    assert found.scale == pytest.approx(2 ** (1 / 16))


def test_a_map_says_what_it_does_not_know(known):
    mapped = polar.of_image(image_of(known, 0, pixels=(96, 140)), PIXEL)
    assert not mapped.known[polar.RADII > 0.5 / PIXEL].any()
    assert not mapped.known[polar.RADII < 1 / (96 * PIXEL)].any()
    assert not mapped.values[~mapped.known].any()
    assert np.linalg.norm(mapped.values) == pytest.approx(1, rel=1e-5)


def test_the_first_look_finds_each_pattern_however_it_is_turned(known):
    index = Index([e.pattern for e in known], FIELDS[3])
    for number in range(0, len(known), 3):
        turned = polar.of_pattern(known[number].pattern, FIELDS[3], angle=0.4 + number)
        cosines = index.similar(turned, 0.0)
        assert cosines[number] == pytest.approx(1, abs=2e-3)
        assert cosines[number] >= cosines.max() - 2e-3
        assert cosines[index.nearest(turned, 1, 0.0)[0]] == cosines.max()


def test_fourier_sums_are_those_of_a_double_loop(known):
    query = prepare(image_of(known, 0, pixels=(48, 64)), PIXEL)
    x, y = query.axes
    at = np.array([[0.31, 0.12], [-0.2, 0.47], [0.33, 0.15]])
    sums = Products.of(query, at)
    for i, g in enumerate(at):
        wave = np.exp(2j * np.pi * (g[0] * x[None, :] + g[1] * y[:, None]))
        assert sums.seen[i] == pytest.approx((query.image * wave.conj()).mean(), rel=1e-3, abs=1e-5)
        for j, h in enumerate(at):
            other = np.exp(2j * np.pi * (h[0] * x[None, :] + h[1] * y[:, None]))
            assert sums.gram[i, j] == pytest.approx((wave.conj() * other).mean().real, abs=1e-9)
            assert sums.opposite[i, j] == pytest.approx((wave * other).mean().real, abs=1e-9)


def test_a_fit_finds_turn_stretch_and_shift_and_leaves_noise(known):
    number, angle = entry(known, "TiO2", (1, 1, 0)), 2.1
    distortion = ((0.012, 0.006), (-0.004, -0.009))
    image = image_of(known, number, angle, dose=80.0, distortion=distortion)
    query, mapped = prepare(image, PIXEL), polar.of_image(image, PIXEL)
    places = polar.overlaps(mapped, polar.of_pattern(known[number].pattern, mapped.field), 0.03, mirror=False)
    laid = max((f for p in places for f in fit.lay(query, known[number].pattern, p)), key=lambda f: f.explained)
    found = fit.refine(query, known[number].pattern, laid)
    true = (np.eye(2) + np.array(distortion)).T @ rotation(angle)
    # TiO2 along [110] looks the same after half a turn, and in a mirror that a rotation does not make.
    assert min(np.abs(found.matrix - sign * true).max() for sign in (1, -1)) < 1e-3
    assert found.explained == pytest.approx(1, abs=0.03)
    assert found.scale == pytest.approx(1 / math.sqrt(abs(np.linalg.det(true))), abs=1e-3)
    left = (query.image - fit.model(query, known[number].pattern, found)) / math.sqrt(query.noise)
    assert left.std() == pytest.approx(1, abs=0.1)


def test_a_wider_probe_is_found_in_the_direction_that_it_has(known):
    number = entry(known, "SrTiO3", (1, 0, 0))
    wide = known[number].pattern
    spread = np.array([1.5, 0.0, 0.2])
    coefficients = wide.coefficients * np.exp(-fit._squares(wide.frequencies.astype(float)) @ spread)
    view = View(PIXEL, 160, 160, angle=0.0)
    image = collected(type(wide)(wide.mean, wide.frequencies, coefficients), view)
    query, mapped = prepare(image, PIXEL), polar.of_image(image, PIXEL)
    start = polar.correlate(mapped, polar.of_pattern(wide, mapped.field), 0.0, mirror=False)
    found = max((fit.refine(query, wide, f) for f in fit.lay(query, wide, start)), key=lambda f: f.explained)
    wider, narrower = sorted([found.envelope[0], found.envelope[2]], reverse=True)
    assert (wider, narrower) == pytest.approx((1.5, 0.2), abs=0.1)


def test_alike_are_gold_and_silver_but_not_gold_and_copper(known):
    gold, silver, copper = (known[entry(known, name, (1, 0, 0))].pattern for name in ("Au", "Ag", "Cu"))
    assert fit.alike(gold, silver, 0.005)
    assert not fit.alike(gold, copper, 0.005)
    si, gaas = (known[entry(known, name, (1, 1, 0))].pattern for name in ("Si", "GaAs"))
    assert not fit.alike(si, gaas, 0.05)


@pytest.mark.parametrize(
    ("name", "zone"), [("SrTiO3", (1, 1, 0)), ("Si", (1, 1, 0)), ("TiO2", (0, 0, 1)), ("Cu", (1, 1, 1))]
)
def test_the_best_match_is_what_the_image_shows(known, name, zone):
    number = entry(known, name, zone)
    found = matching.match(
        image_of(known, number, 1.1), known, pixel_size=PIXEL * 1e-10, pixel_size_error=0.01, grains=1
    )
    assert (found.best.entry.structure.name, found.best.entry.zone) == (name, zone)
    assert found.best.probability > 0.5
    assert abs(found.best.fit.scale - 1) < 3e-3
    table = found.table
    assert table.probability.sum() <= 1 + 1e-9
    assert table.structure.iloc[-1] == NONE
    assert found.grains[0].residual().std() == pytest.approx(1, abs=0.15)


def test_none_of_these_is_said_of_noise_and_of_what_is_left_out(known):
    rng = np.random.default_rng(3)
    noise = matching.match(rng.poisson(20, (160, 160)), known, pixel_size=2e-11, grains=1)
    assert noise.best is None and noise.grains[0].none > 0.5
    number = entry(known, "CeO2", (1, 1, 0))
    others = known.subset(known.table.structure.to_numpy() != "CeO2")
    image = image_of(known, number)
    there = matching.match(image, known, pixel_size=2e-11, pixel_size_error=0.01, grains=1)
    missing = matching.match(image, others, pixel_size=2e-11, pixel_size_error=0.01, grains=1)
    assert missing.grains[0].none > there.grains[0].none + 0.3
    assert missing.best is None


def test_two_grains_give_two_answers(known):
    number = entry(known, "SrTiO3", (1, 1, 0))
    angles = (0.3, 0.9)
    left, right = (image_of(known, number, a, pixels=(330, 180), seed=i) for i, a in enumerate(angles))
    found = matching.match(np.hstack([left, right]), known, pixel_size=2e-11, pixel_size_error=0.01)
    assert len(found.grains) == 2
    answers = [g.candidates[0] for g in found.grains]
    assert all(c.number == number for c in answers)
    turns = sorted(c.fit.angle % math.pi for c in answers)
    assert turns == pytest.approx(angles, abs=0.02)


def test_one_lattice_is_one_grain(known):
    image = image_of(known, entry(known, "SrTiO3", (1, 1, 0)), pixels=(400, 400), dose=30.0)
    assert len(regions.find_grains(image, PIXEL, 4)) == 1


def test_the_largest_rectangle_is_that_of_all_tried():
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = rng.random((5, 6)) < 0.6
        mask[2, 2] = True
        top, bottom, left, right = regions._rectangle(mask)
        assert mask[top : bottom + 1, left : right + 1].all()
        best = max(
            (b - t + 1) * (r - s + 1)
            for t, b in itertools.combinations_with_replacement(range(5), 2)
            for s, r in itertools.combinations_with_replacement(range(6), 2)
            if mask[t : b + 1, s : r + 1].all()
        )
        assert (bottom - top + 1) * (right - left + 1) == best


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_size": None}, "pixel size is unknown"),
        ({"pixel_size": -1e-11}, "pixel size"),
        ({"pixel_size": 3e-9}, "show no lattice"),
        ({"shot": np.full((64, 64), 7.0)}, "constant"),
        ({"shot": np.where(np.arange(4096).reshape(64, 64) % 3, 255.0, np.arange(64.0))}, "saturated"),
        ({"shot": np.where(np.eye(64) > 0, np.nan, 1.0)}, "finite"),
        ({"region": (slice(0, 9), slice(0, 60))}, "region"),
        ({"pixel_size_error": 0.3}, "pixel_size_error"),
        ({"grains": "many"}, "grains"),
        ({"k": 0}, "k="),
    ],
)
def test_what_cannot_be_matched_is_refused(known, change, words):
    given = {"shot": np.random.default_rng(0).poisson(20, (64, 64)), "pixel_size": 2e-11} | change
    with pytest.raises(OutOfRangeError, match=words):
        matching.match(given.pop("shot"), known, **given)


def test_an_image_need_not_be_square_and_a_region_is_enough(known):
    number = entry(known, "Si", (1, 1, 0))
    image = np.zeros((260, 300))
    image[40:200, 90:290] = image_of(known, number, pixels=(160, 200), dose=300.0)
    found = matching.match(
        image, known, region=(slice(40, 200), slice(90, 290)), pixel_size=2e-11, pixel_size_error=0.01
    )
    assert found.best.number == number


def test_probabilities_follow_the_weights(monkeypatch, known):
    query = prepare(image_of(known, 0), PIXEL)
    weights = {"candidate": np.zeros(probability.CANDIDATE), "none": np.array([math.log(2), 0.0, 0.0, 0.0])}
    monkeypatch.setattr(probability, "constants", lambda: weights)
    one = matching.candidates(image_of(known, 0), PIXEL, known, 0.01)[0][:2]
    each, none = probability.probabilities(query, one, 0.01)
    assert each == pytest.approx([0.25, 0.25]) and none == pytest.approx(0.5)
    assert probability.probabilities(query, [], 0.01)[1] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_the_basis_is_that_of_the_whole_lattice_also_where_strong_reflections_have_a_coarser_one(seed):
    rng = np.random.default_rng(seed)
    true = rotation(rng.uniform(0, 6)) @ np.array([[0.0618, 0.0], [0.031, 0.1317]]).T
    strong = np.array([[h, k] for h in range(-6, 7, 2) for k in range(4) if h or k])
    weak = np.array([[5, 1], [-3, 2], [1, 4]])
    g = np.concatenate([strong, weak]) @ true.T
    found = g @ np.linalg.inv(fit._basis(g))
    np.testing.assert_allclose(found, np.rint(found), atol=1e-6)
    assert abs(np.linalg.det(fit._basis(g))) == pytest.approx(abs(np.linalg.det(true)), rel=1e-6)
    line = np.arange(1, 5)[:, None] * true[:, 0]
    found = line @ np.linalg.inv(fit._basis(line))
    np.testing.assert_allclose(found, np.rint(found), atol=1e-6)
