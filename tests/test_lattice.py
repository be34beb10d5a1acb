"""Lattices: spots are found where a lattice puts them, nowhere else, and the bounds that follow are those by hand."""

import numpy as np
import pytest

from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.results import row_faults
from cimp_core.study.lattice import lattice_rows, power_spectrum, spots, strongest_spot


def lattice(period=8.0, angle=0.3, noise=0.3, shape=(128, 160), seed=0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    return 1000 + 100 * wave + 100 * noise * np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("period", "angle"), [(8.0, 0.0), (8.0, 0.3), (5.5, 1.2), (3.1, np.pi / 2)])
def test_strongest_spot_is_at_the_frequency_of_the_lattice(period, angle):
    radius, contrast = strongest_spot(lattice(period, angle))
    assert radius == pytest.approx(1 / period, abs=1 / 128) and contrast > 100


def test_noise_has_no_spot_and_neither_has_a_flat_image_a_slope_or_an_edge():
    rng = np.random.default_rng(1)
    assert all(strongest_spot(rng.normal(size=(256, 256)))[1] < 10 for _ in range(5))
    assert strongest_spot(np.full((64, 64), 7)) == (0.0, 0.0)
    slope = np.linspace(0, 1000, 128)[None] + rng.normal(size=(128, 128))
    edge = 1000.0 * (np.arange(128)[None] + 0.2 * np.arange(128)[:, None] > 70) + rng.normal(size=(128, 128))
    assert max(strongest_spot(image)[1] for image in (slope, edge)) < 10
    assert strongest_spot(lattice())[1] > 100


def test_power_spectrum_has_its_middle_in_the_middle():
    power = power_spectrum(lattice(8.0, 0.0, noise=0.0, shape=(64, 80)))
    assert power.mean() == pytest.approx(1)
    assert sorted(np.argsort(power[32])[-2:].tolist()) == [40 - 10, 40 + 10] and power[32, 50] > 100


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Spacing 200 pm everywhere; every second image, and every one at 1 nm a pixel, is noise."""
    rng = np.random.default_rng(0)
    count = 120
    raw = np.tile([2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05], (count, 1)) * np.exp(0.1 * rng.normal(size=(count, 7)))
    raw[:, 0] = np.where(np.arange(count) % 3 == 2, 1e-9, np.exp(rng.uniform(np.log(12e-12), np.log(38e-12), count)))
    plain = (np.arange(count) % 2 == 0) & (raw[:, 0] < 40e-12)
    images = (
        lattice(200e-12 / raw[i, 0], shape=(64, 64), seed=i) if plain[i] else 1000 + 30 * rng.normal(size=(64, 64))
        for i in range(count)
    )
    path = tmp_path_factory.mktemp("lattice") / "lab.h5"
    sources = [f"s{i // 4}/{i}.emd" for i in range(count)]
    write_dataset(path, (image.astype(np.uint16) for image in images), raw, sources, attributes={"twin_version": "t"})
    return open_dataset(path), plain


def test_rows_are_those_by_hand(lab):
    data, plain = lab
    assert np.array_equal(spots(data)[:, 1] > 10, plain)
    rows = lattice_rows(data, profile="smoke")
    assert [fault for row in rows for fault in row_faults(row)] == []
    found = {row["name"]: row["value"] for row in rows}
    train, _, test = data.split("session", seed=0)
    fine, seen = test.metadata_raw[:, 0] < 40e-12, plain[test.indices]
    y, known = test.metadata[fine, 0], train.metadata[:, 0]
    total = np.sum((y - y.mean()) ** 2)
    assert found["lattice.share"] == pytest.approx(seen[fine].mean(), abs=1e-6)
    assert found["lattice.r2.mean_spacing"] > 0.95  # the spacing is the same everywhere
    blind = ~plain[train.indices]
    for ending, guess in (("spots", blind), ("spots_in_range", blind & (train.metadata_raw[:, 0] < 40e-12))):
        left = np.sum((y[~seen[fine]] - known[guess].mean()) ** 2)
        assert found[f"ceiling.r2.pixel_size_below_40pm.{ending}"] == pytest.approx(1 - left / total, abs=1e-5)
    assert found["ceiling.r2.pixel_size_below_40pm.spots"] < found["ceiling.r2.pixel_size_below_40pm.spots_in_range"]
