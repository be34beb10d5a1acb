"""Two frames of one area: they are brought together, and the scores say what was done to one of them."""

import numpy as np
import pytest
from scipy import ndimage

from cimp_core.errors import OutOfRangeError, UnreadableFileError
from cimp_core.results import row_faults
from cimp_core.study.real_repeats import compare_repeat, gaussian_nearest, open_repeats, registered, shift_of

COMMON = {"split": "real repeats", "profile": "smoke", "seeds": [0], "command": "test", "twin_version": None}
PIXEL = 30e-12


def area(size=330, seed=0):
    """A support with hills and texture, and single atoms on it."""
    rng = np.random.default_rng(seed)
    hills = ndimage.gaussian_filter(rng.normal(size=(size, size)), 25)
    texture = ndimage.gaussian_filter(rng.normal(size=(size, size)), 3)
    atoms = np.zeros((size, size))
    atoms[tuple(rng.integers(0, size, (2, 250)))] = 1
    atoms = ndimage.gaussian_filter(atoms, 2.2)
    return 20 + 4 * hills / hills.std() + 2 * texture / texture.std() + 12 * atoms / atoms.max()


@pytest.fixture(scope="module")
def frames():
    """Clean, low and high dose; the high-dose frame is of an area 9 rows above and 13 columns to the left."""
    clean, rng = area(), np.random.default_rng(1)
    truth = clean[20:308, 20:308]
    low = 100.0 + rng.poisson(truth) * 10
    high = 400.0 + rng.poisson(4 * clean[11:299, 7:295]) * 10
    return truth, low, high


@pytest.fixture(scope="module")
def repeat(frames):
    _, low, high = frames
    return registered("pair", low, high, PIXEL)


def scores(repeat, picture):
    rows = compare_repeat(repeat, picture, "real.pair.method", COMMON)
    assert [fault for row in rows for fault in row_faults(row)] == []
    return {row["name"].removeprefix("real.pair.method."): row for row in rows}


def test_shift_is_found_and_both_frames_show_the_same(frames, repeat):
    truth, low, high = frames
    assert shift_of(low, high) == pytest.approx((-9, -13), abs=0.3)
    assert shift_of(high, low) == pytest.approx((9, 13), abs=0.3)
    assert repeat.low.shape == (279, 275)
    smooth = [ndimage.gaussian_filter(f.astype(float), 4)[20:-20, 20:-20].ravel() for f in (repeat.low, repeat.high)]
    assert np.corrcoef(*smooth)[0, 1] > 0.9


def test_part_of_a_pixel_is_found_and_taken_back():
    clean = np.fft.fft2(ndimage.gaussian_filter(area(256, seed=3), 1))
    first, moved = clean, ndimage.fourier_shift(clean, (4.4, -2.7))
    first, moved = (np.fft.ifft2(p).real for p in (first, moved))
    assert shift_of(first, moved) == pytest.approx((-4.4, 2.7), abs=0.15)
    pair = registered("pair", first, moved, PIXEL)
    inner = np.s_[20:-20, 20:-20]
    left = (pair.high - pair.low)[inner].std() / pair.low[inner].std()
    assert left < 0.05  # whole pixels alone leave more


def test_raw_frame_is_the_measure(repeat):
    found = scores(repeat, repeat.low)
    for name, row in found.items():
        if name.startswith(("kept", "noise", "level", "texture")) and row["value"] is not None:
            assert row["value"] == pytest.approx(1) and row["low"] == row["high"] == pytest.approx(1)
        if name.startswith("frc_over_raw"):
            assert row["value"] == 0
    assert found["frc.0p4_1_per_nm"]["value"] > 0.6
    assert abs(found["frc.4_8_per_nm"]["value"]) < 0.1
    assert found["kept.4_8_per_nm"]["value"] is None  # there is nothing to keep
    row = found["frc.1_2_per_nm"]
    assert row["low"] < row["value"] < row["high"]


def test_truth_scores_best_and_a_blur_loses_what_it_smooths_away(frames, repeat):
    truth = 100 + 10 * frames[0]
    best = scores(repeat, truth[: repeat.low.shape[0], : repeat.low.shape[1]])
    blurred = scores(repeat, ndimage.gaussian_filter(repeat.low.astype(float), 4))
    for band in ("0p4_1_per_nm", "1_2_per_nm"):
        gain = best[f"frc_over_raw.{band}"]
        assert gain["low"] > 0 and gain["value"] > blurred[f"frc_over_raw.{band}"]["value"]
        assert best[f"kept.{band}"]["value"] == pytest.approx(1, abs=0.15)
        assert best[f"noise.{band}"]["value"] < 0.75
    assert 0.32 < blurred["kept.1_2_per_nm"]["value"] < 0.75  # the Gaussian's transfer at 2 / nm and at 1 / nm
    assert blurred["noise.2_4_per_nm"]["value"] < 0.32


def test_invented_structure_is_noise_and_a_changed_level_is_seen(repeat):
    rng = np.random.default_rng(9)
    invented = ndimage.gaussian_filter(rng.normal(size=repeat.low.shape), 3)
    painted = scores(repeat, repeat.low + 60 * invented / invented.std())
    assert painted["noise.1_2_per_nm"]["value"] > 1.3
    assert painted["frc_over_raw.1_2_per_nm"]["high"] < 0
    brighter = scores(repeat, (repeat.low - repeat.low.min()) * 1.03 + repeat.low.min())
    for part in ("thin", "middle", "thick"):
        assert brighter[f"level.{part}"]["value"] == pytest.approx(1.03, abs=1e-4)
        assert painted[f"level.{part}"]["value"] == pytest.approx(1, abs=0.04)
    flat = scores(repeat, np.full(repeat.low.shape, repeat.low.mean()))
    assert flat["level.thin"]["value"] > 1.02 > 0.98 > flat["level.thick"]["value"]
    assert flat["texture.thin"]["value"] < 1e-6


def test_nearest_gaussian_is_nearer_than_its_neighbours(repeat):
    picture = gaussian_nearest(repeat)(repeat.low, None, 1)[0]

    def nearness(p):
        return np.corrcoef(p.ravel(), repeat.high.ravel())[0, 1]

    for sigma in (0.7, 1.4, 5.6, 8.0):
        assert nearness(picture) >= nearness(ndimage.gaussian_filter(repeat.low.astype(float), sigma))
    assert nearness(picture) > nearness(repeat.low)


def test_what_cannot_be_compared_is_refused(repeat, tmp_path):
    with pytest.raises(OutOfRangeError, match="size"):
        registered("pair", np.ones((64, 64)), np.ones((64, 65)), PIXEL)
    with pytest.raises(OutOfRangeError, match="share too little"):
        registered("pair", repeat.low[:100, :100], repeat.high[:100, :100], PIXEL)
    with pytest.raises(OutOfRangeError, match="picture of"):
        compare_repeat(repeat, repeat.low[1:], "real.pair.raw", COMMON)
    with pytest.raises(UnreadableFileError, match="047"):
        open_repeats(tmp_path)


def test_shared_frames_lie_on_each_other(shared):
    for repeat, shift in zip(open_repeats(shared), ((11, 2), (19, 9), (20, -27)), strict=True):
        assert repeat.shift == pytest.approx(shift, abs=1.5)
        assert repeat.pixel_size == pytest.approx(29.3e-12, rel=0.01)
        rows = compare_repeat(repeat, repeat.low, f"real.{repeat.name}.raw", COMMON)
        found = {row["name"].split(".raw.")[1]: row for row in rows}
        assert found["frc.0p4_1_per_nm"]["low"] > 0.4  # they do show the same support
        assert abs(found["frc.4_8_per_nm"]["value"]) < 0.05  # and no fixed pattern of the detector
