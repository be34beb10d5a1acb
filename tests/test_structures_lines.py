"""Peaks of a spectrum, the lattice that they lie on, waves fitted to an image, and the lines that are told of it."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from cimp_core.structures import spectrum_map
from cimp_core.structures.lattice_fit import find_lattice
from cimp_core.structures.lattice_lines import RATIO_FLOOR, ROW, lattice_lines
from cimp_core.structures.lattice_peaks import Peaks, find_peaks, noise_power, power_spectrum
from cimp_core.structures.lattice_waves import fit_waves
from cimp_core.structures.projection import Pattern
from cimp_core.structures.views import View, collected

SHAPE = 96, 128
NOISE = 0.5
"""Standard deviation of a pixel."""
BASIS = np.array([[0.061, 0.013], [-0.018, 0.083]])
"""Periods along rows and columns [cycles per pixel]."""


def crystal(rng, amplitudes, basis=BASIS, noise=NOISE, shape=SHAPE):
    """An image of waves with amplitudes by index (h, k), phases drawn, and white noise."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    image = np.full(shape, 20.0)
    for h, amplitude in amplitudes.items():
        g = np.array(h) @ basis
        image += 2 * amplitude * np.cos(2 * np.pi * (y[:, None] * g[0] + x * g[1] + rng.uniform()))
    return image + noise * rng.normal(size=shape)


def peaks_of(image, noise=None):
    power = power_spectrum(image)
    return find_peaks(power, noise_power(power) if noise is None else noise, *image.shape, 0.2)


def test_places_of_peaks_are_exact_but_for_the_end_of_the_window_and_noise():
    rng, size, off, pulls = np.random.default_rng(0), np.array(SHAPE), [], []
    for _ in range(60):
        place = np.array([rng.uniform(5, 18) * rng.choice([-1, 1]), rng.uniform(5, 18)])
        for noise in (0.0, NOISE):
            image = crystal(rng, {(1, 0): 0.4}, np.array([place / size, [1, 1]]), noise)
            found = peaks_of(image, max(noise, 1e-3) ** 2)
            if noise:
                pulls.append((found.place[0] - place) / found.error[0])
            else:
                off.append(found.place[0] - place)
                # Power over the noise: amplitude^2 times the pixels, of which the windows leave 1/2.25.
                assert found.power[0] == pytest.approx(0.16 * image.size / 2.25 / 1e-6, rel=0.02)
    assert np.abs(off).max() < 0.01 and np.sqrt(np.mean(np.square(off))) < 0.004
    assert 0.75 < np.sqrt(np.mean(np.square(pulls))) < 1.2


def test_noise_has_hardly_any_peak_and_its_power_is_its_variance():
    images = np.random.default_rng(1).normal(0, 3.0, (40, *SHAPE))
    assert sum(len(peaks_of(image).power) for image in images) < 8
    assert np.mean([noise_power(power_spectrum(image)) for image in images]) == pytest.approx(9.0, rel=0.05)


def same_lattice(a, b, tolerance):
    """Whether two bases span one lattice: each is a whole multiple of the other."""
    for first, second in ((a, b), (b, a)):
        h = first @ np.linalg.inv(second)
        if np.abs(h - np.rint(h)).max() > tolerance:
            return False
    return True


def scattered(rng, basis, indices, power, error=0.02):
    place = np.array(indices) @ basis + rng.normal(0, error, (len(indices), 2))
    place *= np.where((place[:, 1] < 0) | ((place[:, 1] == 0) & (place[:, 0] < 0)), -1, 1)[:, None]
    order = np.argsort(-np.asarray(power), kind="stable")
    return Peaks(place[order], np.asarray(power, float)[order], np.full(len(place), error))


@pytest.mark.parametrize("seed", range(8))
def test_a_lattice_is_found_with_absences_and_weak_peaks_between_strong_ones(seed):
    rng = np.random.default_rng(seed)
    angle, ratio = rng.uniform(0.9, 1.6), rng.uniform(1, 2)
    turn = rng.uniform(0, np.pi)
    basis = rng.uniform(5, 8) * np.array(
        [[np.cos(turn), np.sin(turn)], [ratio * np.cos(turn + angle), ratio * np.sin(turn + angle)]]
    )
    every = [(h, k) for h in range(-6, 7) for k in range(-6, 7) if (h, k) > (0, 0) and abs(h) + abs(k) < 8]
    # Strong ones of a centred cell, and a few weak ones in between.
    indices = [h for h in every if sum(h) % 2 == 0] + [h for h in every if sum(h) % 2][:6]
    power = [10 ** rng.uniform(2, 4) if sum(h) % 2 == 0 else 30.0 for h in indices]
    found = find_lattice(scattered(rng, basis, indices, power))
    assert same_lattice(found.basis, basis, 0.02) and found.member.all()
    # Without the weak ones, it is that of the strong ones.
    strong = find_lattice(scattered(rng, basis, indices[:-6], power[:-6]))
    assert same_lattice(strong.basis, np.array([[1, 1], [1, -1]]) @ basis, 0.02)
    # A peak beside it is no member, and spoils nothing.
    beside = find_lattice(scattered(rng, basis, [*indices, (1.37, 1.71)], [*power, 500.0]))
    assert same_lattice(beside.basis, basis, 0.02) and (~beside.member).sum() == 1


def test_a_row_one_peak_and_none():
    rng, row = np.random.default_rng(0), np.array([[3.0, 5.0], [0.0, 0.0]])
    found = find_lattice(scattered(rng, row, [(2, 0), (3, 0), (4, 0), (1, 0)], [900, 400, 200, 30]))
    np.testing.assert_allclose(found.basis[0], [3, 5], atol=0.03)
    assert found.member.all() and (found.indices[:, 1] == 0).all() and np.hypot(*found.basis[1]) > 1000
    one = find_lattice(scattered(rng, row, [(2, 0)], [900]))
    assert one.member.all() and one.indices.tolist() == [[1, 0]]
    assert find_lattice(Peaks(np.zeros((0, 2)), np.zeros(0), np.zeros(0))) is None


AMPLITUDES = {(1, 0): 0.5, (0, 1): 0.4, (1, 1): 0.3, (1, -1): 0.25, (2, 0): 0.15, (0, 2): 0.08, (2, 1): 0.05}


def test_waves_are_fitted_as_by_least_squares_of_all_unknowns_at_once():
    rng = np.random.default_rng(3)
    shape, some = (32, 40), {h: AMPLITUDES[h] for h in [(1, 0), (0, 1), (1, 1)]}
    basis = 2 * BASIS
    image = crystal(rng, some, basis, 0.2, shape).astype(np.float32)
    image -= image.mean()
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    h = np.array(list(some))

    def residual(p):
        g = h @ p[:4].reshape(2, 2)
        phase = 2 * np.pi * (g[:, 0, None, None] * y[:, None] + g[:, 1, None, None] * x)
        waves = p[4:7, None, None] * np.cos(phase) - p[7:, None, None] * np.sin(phase)
        return (image - 2 * waves.sum(0)).ravel()

    found = fit_waves(image, h, basis + 1e-3 * rng.normal(size=(2, 2)), np.zeros((0, 2)), 0.04, 0.2)
    assert {tuple(i) for i in found.indices.tolist()} == set(some)
    order = [found.indices.tolist().index(list(i)) for i in h.tolist()]
    mine = found.amplitudes[order]
    best = least_squares(residual, np.concatenate([basis.ravel(), mine.real, mine.imag]), x_scale="jac", xtol=1e-12)
    np.testing.assert_allclose(found.basis.ravel(), best.x[:4], atol=2e-5)
    np.testing.assert_allclose(mine, best.x[4:7] + 1j * best.x[7:], atol=2e-3)
    np.testing.assert_allclose((found.residual**2).sum(), 2 * best.cost, rtol=1e-4)


def test_errors_of_lengths_are_as_told_and_far_smaller_than_those_of_the_peaks():
    pulls, fitted, alone = [], [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        image = crystal(rng, AMPLITUDES)
        power = power_spectrum(image)
        lines = lattice_lines(image, power, noise_power(power), 0.2)
        lines = lines[np.isfinite(lines[:, 0])]
        truth = {h: np.hypot(*(np.array(h) @ BASIS)) / 0.2 for h in AMPLITUDES}
        for h, amplitude in AMPLITUDES.items():
            line = lines[np.abs(lines[:, 0] - np.log(truth[h])).argmin()]
            off = line[0] - np.log(truth[h])
            pulls.append(off / np.exp(line[6]))
            fitted.append(off)
            assert np.exp(line[1]) == pytest.approx(amplitude / 20, rel=0.2)
        peaks = peaks_of(image)
        g = np.hypot(*(peaks.place / SHAPE).T) / 0.2
        alone += [np.log(g[np.abs(g - size).argmin()] / size) for size in truth.values()]
    rms = [np.sqrt(np.mean(np.square(v))) for v in (pulls, fitted, alone)]
    assert 0.75 < rms[0] < 1.35 and rms[1] < rms[2] / 4


@pytest.mark.parametrize("seed", range(4))
def test_lines_are_where_waves_are_and_as_strong_on_one_lattice_or_not(seed):
    rng = np.random.default_rng(seed)
    g, amplitudes = np.array([0.21, 0.4, 0.47, 0.8]), np.array([0.2, 0.05, 0.1, 0.02])
    directions = rng.uniform(0, 2 * np.pi) + np.arange(4) * 0.8
    waves = Pattern(1.0, np.stack([g * np.cos(directions), g * np.sin(directions)], 1), amplitudes.astype(complex))
    image = collected(waves, View(0.2, 128, 160, shift=tuple(rng.uniform(-9, 9, 2)))).astype(float)
    image = rng.poisson(3e4 * image)
    lines = spectrum_map.spectrum_map(image, 0.2).lines
    lines = lines[np.isfinite(lines[:, 0])]
    assert np.all(np.diff(lines[:, 2]) < 0) and np.all(lines[4:, 2] < 4)  # but for a maximum of the noise
    lines = lines[:4]
    order = np.argsort(-amplitudes)
    off = np.abs(lines[:, 0] - np.log(g[order]))
    assert off.max() < 1e-3 and np.median(off) < 1e-4
    np.testing.assert_allclose(np.exp(lines[:, 1]), amplitudes[order], rtol=0.08)
    without = spectrum_map.spectrum_map(image - 2 * image.mean(), 0.2).lines
    assert np.isnan(without[:, 1]).all() and np.isfinite(without[:4, 0]).all()


def test_a_line_tells_what_stands_in_its_row():
    direction, across = np.array([np.cos(0.7), np.sin(0.7)]), np.array([-np.sin(0.7), np.cos(0.7)])
    truth = {0.25: 0.08, 0.5: 0.2, 1.0: 0.05, 1.5: 0.02}  # amplitudes along a row, by |g|
    g = np.array([*(size * direction for size in truth), 0.61 * across])
    amplitudes = np.array([*truth.values(), 0.1])
    view = View(0.2, 160, 128, shift=(3.1, -2.2))
    image = collected(Pattern(1.0, g, amplitudes.astype(complex)), view).astype(float)
    image = np.random.default_rng(0).poisson(1e5 * image)
    lines = spectrum_map.spectrum_map(image, view.pixel_size).lines
    for size, own in [(0.5, 0.2), (0.25, 0.08), (0.61, 0.1)]:
        line = lines[np.nanargmin(np.abs(lines[:, 0] - np.log(size)))]
        assert line[0] == pytest.approx(np.log(size), abs=1e-4)
        there = [truth.get(round(k * size, 3), 0.0) for k in ROW] if size != 0.61 else [0.0] * 3
        told = np.exp(line[3:6]) - RATIO_FLOOR
        np.testing.assert_allclose(told, np.array(there) / own, rtol=0.05, atol=0.01)
