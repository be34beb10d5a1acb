"""Statistics, control and ceiling: they see what is there, and nothing where nothing is."""

import numpy as np
import pytest

from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import PARAMETERS
from cimp_core.results import row_faults
from cimp_core.study.ceiling import ceiling_rows, is_alone, oracle_topk, parameter_scores
from cimp_core.study.control import boost, control_rows
from cimp_core.study.statistics import NAMES, dataset_statistics, image_statistics

PLAIN = np.array([2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05])


def stat(image):
    return dict(zip(NAMES, image_statistics(image), strict=True))


def noise(seed=0, mean=100.0, shape=(128, 128), slope=1.0, read=0.0):
    rng = np.random.default_rng(seed)
    image = slope * rng.poisson(np.broadcast_to(mean, shape)) + read * rng.normal(size=shape) + 1000
    return np.round(image).astype(np.uint16)


def test_about_ninety_finite_numbers_whatever_the_image():
    assert 80 <= len(NAMES) <= 100 and len(set(NAMES)) == len(NAMES)
    rng = np.random.default_rng(0)
    images = [np.full((64, 48), level, np.uint16) for level in (0, 1, 65535)]
    images += [np.full((32, 32), 1000.3, np.float32), np.eye(16), rng.integers(0, 65536, (17, 200), dtype=np.uint16)]
    images += [np.tile([0, 65535], (32, 16)).astype(np.uint16), -rng.random((40, 40)).astype(np.float32)]
    for image in images:
        values = image_statistics(image)
        assert values.shape == (len(NAMES),) and values.dtype == np.float64 and np.isfinite(values).all()
    assert not np.array_equal(image_statistics(images[0]), image_statistics(images[2]))


def test_too_small_or_not_finite_is_refused():
    with pytest.raises(OutOfRangeError, match=r"shape \(15, 40\)"):
        image_statistics(np.zeros((15, 40)))
    with pytest.raises(OutOfRangeError, match="not finite"):
        image_statistics(np.full((20, 20), np.nan))


def test_levels_and_clipping():
    image = np.arange(10000, dtype=np.uint16).reshape(100, 100)
    found = stat(image)
    assert found["mean"] == pytest.approx(4999.5) and found["percentile_25"] == pytest.approx(2500, abs=2)
    assert found["minimum"] == 0 and found["maximum"] == 9999 and found["median_step"] == 1
    image = np.clip(noise(mean=300.0).astype(int) * 1000 - 1270000, 0, 65535).astype(np.uint16)
    found = stat(image)
    assert found["at_full_scale"] == pytest.approx(np.mean(image == 65535)) and found["at_full_scale"] > 0.01
    assert stat(noise())["at_full_scale"] == 0


def test_noise_level_and_its_slope_against_the_mean():
    ramp = np.linspace(50, 800, 128)[:, None]
    one, three = stat(noise(mean=ramp)), stat(noise(mean=ramp, slope=3.0))
    # variance = slope * (mean - offset): the slope is the counts of an electron
    assert np.sinh(one["variance_slope"]) == pytest.approx(1, rel=0.15)
    assert np.sinh(three["variance_slope"]) == pytest.approx(3, rel=0.15)
    flat = stat(noise(mean=400.0))
    assert flat["residual_std"] == pytest.approx(20, rel=0.05) and flat["residual_mad"] == pytest.approx(20, rel=0.05)
    assert flat["difference_mad_horizontal"] == pytest.approx(20 * 2**0.5, rel=0.07)


def test_afterglow_correlates_along_the_rows_only():
    image = noise(mean=400.0).astype(float)
    glow = image.copy()
    glow[:, 1:] += 0.4 * image[:, :-1]
    glow[:, 0] += 0.4 * image[:, 1]
    before, after = stat(image.astype(np.float32)), stat(glow.astype(np.float32))
    for lag in (1, 2, 3, 4):
        assert abs(before[f"correlation_horizontal_{lag}"]) < 0.03
    assert after["correlation_horizontal_1"] == pytest.approx(0.4 / 1.16, abs=0.03)
    assert abs(after["correlation_vertical_1"]) < 0.03
    assert after["residual_correlation_horizontal_1"] > before["residual_correlation_horizontal_1"] + 0.1
    assert after["residual_correlation_vertical_1"] == pytest.approx(
        before["residual_correlation_vertical_1"], abs=0.05
    )
    turned = stat(glow.T.astype(np.float32))
    assert turned["correlation_vertical_1"] == pytest.approx(after["correlation_horizontal_1"])


def test_lattice_gives_a_sharp_peak_at_its_frequency():
    x = np.arange(128)
    lattice = 1000 + 300 * np.cos(2 * np.pi * x / 8)[None] + 0 * x[:, None]
    found, none = stat(lattice + np.random.default_rng(0).normal(size=(128, 128)) * 30), stat(noise())
    assert found["peak_radius"] == pytest.approx(1 / 8, abs=0.01)
    assert found["peak_height"] > none["peak_height"] + 1
    band = max((k for k in found if k.startswith("band_")), key=found.get)
    assert band in ("band_03", "band_04")


def test_jitter_moves_rows():
    x = np.arange(128)
    rng = np.random.default_rng(1)
    still = 1000 + 300 * np.cos(2 * np.pi * x / 20)[None] + 0 * x[:, None]
    moved = 1000 + 300 * np.cos(2 * np.pi * (x[None] + 0.5 * rng.normal(size=(128, 1))) / 20)
    assert stat(still)["row_shift_std"] < 1e-6
    assert stat(moved)["row_shift_std"] == pytest.approx(0.5 * 2**0.5, rel=0.2)
    drifting = 1000 + 300 * np.cos(2 * np.pi * (x[None] + 0.3 * x[:, None]) / 20)
    assert stat(drifting)["row_shift_mean"] == pytest.approx(0.3, rel=0.05)


def test_fly_back():
    image = noise(shape=(128, 256)).astype(np.float32)
    image[:, :4] += 50
    assert stat(image)["fly_back"] > 1 > abs(stat(noise(shape=(128, 256)))["fly_back"])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Sessions whose offset is the black level and whose dwell time is the dose; the other five are nowhere."""
    rng = np.random.default_rng(0)
    count, sessions = 600, 150
    session = rng.integers(0, sessions, count)
    habit = np.exp(0.5 * rng.normal(size=(sessions, 7)))
    raw = PLAIN * habit[session] * np.exp(0.2 * rng.normal(size=(count, 7)))

    def images():
        for row in raw:
            level = 3000 - 1000 * row[5]
            yield (level + rng.poisson(row[1] * 5e7, (24, 24))).astype(np.uint16)

    path = tmp_path_factory.mktemp("lab") / "lab.h5"
    write_dataset(
        path, images(), raw, [f"s{s}/{i}.emd" for i, s in enumerate(session)], attributes={"twin_version": "t"}
    )
    return open_dataset(path)


def test_statistics_do_not_depend_on_the_number_of_workers(lab):
    few = lab.view(range(70))
    one, two = dataset_statistics(few, workers=1), dataset_statistics(few, workers=2)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[3], image_statistics(few.image(3)))


def test_control_reads_what_is_in_the_image_and_nothing_else(lab, monkeypatch):
    monkeypatch.setattr("cimp_core.study.control.TREES", 30)
    rows = control_rows(lab, pool=40, draws=10, profile="smoke", workers=1)
    assert [fault for row in rows for fault in row_faults(row)] == []
    found = {row["name"]: row for row in rows}
    assert len(found) == len(rows) == 4 * 7 + 4 + 2 * 2 * 3
    for name in PARAMETERS:
        score, partial = found[f"control.probe.r2.{name}"], found[f"control.probe.partial_r2.{name}"]
        seen = name in ("dwell_time", "detector_offset")
        assert (score["low"] > 0.6) if seen else (score["value"] < 0.3), (name, score)
        assert (partial["low"] > 0.6) if seen else (partial["value"] < 0.3), (name, partial)
        assert score["low"] <= score["value"] <= score["high"] and score["twin_version"] == "t"
        assert found[f"control.others.r2.{name}"]["value"] < 0.3
    top = found["control.retrieval.top1.image_to_metadata"]
    assert top["pool"] == 40 and top["value"] > 3 / 40
    assert found["control.retrieval.top10.image_to_metadata"]["value"] > top["value"]


def test_boost_leaves_missing_values_out():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 3))
    y = x[:, 0] + 0.1 * rng.normal(size=900)
    target = [y[:500].copy(), y[500:700].copy()]
    target[0][::5] = target[1][::7] = np.nan
    predicted, spread = boost([x[:500], x[500:700], x[700:]], target)
    assert np.corrcoef(predicted, y[700:])[0, 1] > 0.95 and 0.1 < spread < 0.4


def test_parameter_scores_against_a_loop():
    rng = np.random.default_rng(2)
    estimate, metadata, spread = rng.normal(size=(5, 7)), rng.normal(size=(6, 7)), rng.uniform(0.1, 1, 7)
    metadata[2, 3] = np.nan
    scores = parameter_scores(estimate, metadata, spread)
    for i in range(5):
        for j in range(6):
            z = [(estimate[i, k] - metadata[j, k]) / spread[k] for k in range(7) if not np.isnan(metadata[j, k])]
            assert scores[i, j] == pytest.approx(-0.5 * sum(v * v for v in z))


def test_ceiling_falls_with_the_error_and_is_one_without(lab):
    values = [oracle_topk(lab, p, pool=100, draws=10)["top1"]["value"] for p in (1e-6, 0.2, 1.0)]
    assert values[0] == 1 and values[1] > values[2] + 0.1
    rows = ceiling_rows(lab, pool=40, draws=5, repeats=2, profile="smoke", precisions=(0.05, 1.0))
    assert [fault for row in rows for fault in row_faults(row)] == []
    found = {row["name"]: row["value"] for row in rows}
    assert len(found) == 2 * 2 * 3 + 1
    near = "ceiling.retrieval.top1.image_to_metadata.sd005"
    assert found[near] > found["ceiling.retrieval.top1.image_to_metadata.sd100"]
    assert found[near + ".other_sessions"] >= found[near] - 0.02


def test_alone_against_a_loop():
    rng = np.random.default_rng(3)
    metadata = np.round(rng.normal(size=(60, 7)), 1)
    metadata[:, 2:] = 0
    metadata[5] = metadata[6] = 50.0  # equal to one another only, and of one group
    metadata[9, 0] = np.nan
    groups = np.arange(60)
    groups[5] = 6
    for i, alone in enumerate(is_alone(metadata, groups, 0.25)):
        others = [j for j in range(60) if groups[j] != groups[i]]
        close = [not np.any(np.abs(metadata[i] - metadata[j]) > 0.25) for j in others]
        assert alone == (not any(close))
    assert is_alone(metadata, groups, 0.25)[[5, 6]].all() and 0 < is_alone(metadata, groups, 0.25).mean() < 1


def test_boost_repeats_to_the_last_bit():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 5))
    y = x[:, 0] * x[:, 1]
    one, two = (boost([x[:200], x[200:250], x[250:]], [y[:200], y[200:250]]) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1] == two[1]
