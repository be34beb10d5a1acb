"""The protocol's numbers and what needs no training, against plain loops."""

import numpy as np
import pytest

from cimp_core.metrics_ranking import structure_precisions
from cimp_core.structures.map_files import Maps
from cimp_core.structures.retrieval_sets import MapSet
from cimp_core.study import structures_ap, structures_baselines
from cimp_core.study.structures_ap import CELLS, THESIS, precisions, some_queries, summary, thesis_table

COMMON = {"split": "prototype", "seeds": [0, 1], "profile": "smoke", "twin_version": None, "command": "none"}


@pytest.fixture
def small():
    """Six crystals of three prototypes, two views each, three images of each view; maps of random peaks."""
    rng = np.random.default_rng(0)
    structure = np.repeat(np.arange(6), 6)
    view = np.repeat(np.arange(12), 3)
    values = np.repeat(rng.exponential(1.5, (12, 16, 8)), 3, 0) + rng.normal(0, 0.05, (36, 16, 8))
    lines = np.full((36, 5, 3), np.nan, np.float32)
    lines[:, :4] = np.repeat(rng.normal(size=(12, 4, 3)), 3, 0)
    maps = Maps(values.astype(np.float16), lines, np.zeros((36, 3), np.float32), structure, view)
    return MapSet(maps, (), structure // 2, structure // 2)


def test_precisions_in_parts_are_those_of_the_whole(small):
    z = np.random.default_rng(1).normal(size=(36, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    whole = structure_precisions(z @ z.T, np.arange(36), small.maps.structure, small.maps.view, small.prototype)
    for name, values in precisions(z, small).items():
        np.testing.assert_allclose(values, whole[name])


def test_rows_are_means_over_seeds_with_an_interval_over_prototypes(small):
    rng = np.random.default_rng(2)
    found = [{name: rng.random(36) for name in structures_ap.SORTS} for _ in range(2)]
    rows = summary("structures.ap.x", found, small, COMMON)
    assert [r["name"] for r in rows] == [f"structures.ap.x.{s}" for s in structures_ap.SORTS]
    assert rows[0]["value"] == pytest.approx(np.mean([f["all"].mean() for f in found]), abs=1e-6)
    assert rows[0]["low"] < rows[0]["value"] < rows[0]["high"] and rows[0]["pool"] == 35


def test_polar_fft_is_the_best_of_all_rotations_and_mirrors(small):
    values = small.maps.values
    query = np.array([0, 7, 20])
    found = structures_baselines.polar_fft(values, query)
    amplitude = np.sqrt(np.maximum(np.expm1(values.astype(np.float32)) - 4, 0))
    for i, q in enumerate(query):
        for j in (0, 1, 5, 30):
            best = 0.0
            for other in (amplitude[j], amplitude[j][:, ::-1]):
                for turn in range(8):
                    turned = np.roll(other, turn, 1)
                    scale = np.linalg.norm(amplitude[q]) * np.linalg.norm(turned)
                    best = max(best, float((amplitude[q] * turned).sum() / scale))
            assert found[i, j] == pytest.approx(best, abs=1e-5)


def test_line_spectrum_is_the_overlap_of_the_densities(small):
    widths = np.array(structures_baselines.LINE_WIDTHS)
    lines = small.maps.lines * np.array([*(2.5 * widths), 1])  # so near that they overlap
    found = structures_baselines.line_spectrum(lines, np.arange(36), waves=20_000)

    def overlap(a, b):
        d = (a[:, None, :2] - b[None, :, :2]) / widths
        return np.exp(-0.5 * (d**2).sum(2)).sum()

    kept = []
    for image in lines:
        some = []
        for line in image[np.isfinite(image[:, 0])]:
            if not any((np.abs(line[:2] - other[:2]) < widths).all() for other in some):
                some.append(line)
        kept.append(np.array(some))
    kernel = np.array([[overlap(a, b) for b in kept] for a in kept])
    kernel /= np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
    kernel += kernel.mean() - kernel.mean(0) - kernel.mean(1)[:, None]
    kernel /= np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
    np.testing.assert_allclose(found, kernel, atol=0.05)


def test_methods_on_images_know_a_copy_and_only_what_they_should():
    rng = np.random.default_rng(3)
    images = rng.random((4, 32, 32)) + 1
    images[1] = images[0] * 3
    images[2] = np.roll(images[0], (5, 9), (0, 1))
    query = np.array([0])
    pixels = structures_baselines.pixel_correlation(images, query)[0]
    np.testing.assert_allclose(pixels[1], 1, atol=1e-5)
    assert pixels[2] == pytest.approx(np.corrcoef(images[0].ravel(), images[2].ravel())[0, 1], abs=1e-5)
    magnitudes = structures_baselines.fft_magnitude(images, query)[0]
    np.testing.assert_allclose(magnitudes[:3], 1, atol=1e-5)  # a shift does not change it
    assert magnitudes[3] < 0.95
    similar = structures_baselines.structural_similarity(images, query)[0]
    np.testing.assert_allclose(similar[:2], 1, atol=1e-6)
    assert similar[2] < 0.5


def test_queries_are_spread_over_the_crystals(small):
    query = some_queries(small, 12)
    assert sorted(small.maps.structure[query][:6]) == list(range(6)) == sorted(small.maps.structure[query][6:])


def test_the_thesis_table_has_its_cells_and_ours_beside_them():
    rows = [
        {"name": "structures.ap.ablation.lines.cts_and_prototype.identity.all", "value": 0.5},
        {"name": "structures.ap.ablation.resnet.cts_and_prototype.identity.all", "value": 0.4},
    ]
    table = thesis_table(rows)
    assert len(table) == len(THESIS) == len(CELLS) + 1
    one = table[(table["learnt"] == "cts + prototype") & (table["head"] == "identity")].iloc[0]
    assert one["mean AP, reflections here"] == 0.5 and one["mean AP, ResNet here"] == 0.4
    assert one["mean AP, thesis (other data)"] == 0.4586


def test_cells_are_trained_once_and_named_by_network_branch_and_head(tmp_path):
    rng = np.random.default_rng(4)
    structure, view = np.repeat(np.arange(72), 4), np.repeat(np.arange(144), 2)
    lines = np.full((288, 64, 7), np.nan, np.float32)
    lines[:, :5] = np.repeat(rng.normal(0, 0.3, (72, 5, 7)) - [0, 0, 0, 0, 0, 0, 9], 4, 0)
    values = np.repeat(rng.exponential(1.0, (72, 64, 64)), 4, 0).astype(np.float16)
    scalars = np.tile(np.float32([8, -1, 25]), (288, 1))
    data = MapSet(Maps(values, lines, scalars, structure, view), (), structure // 8, structure // 8)
    lengths = {"lines": 256}
    rows = structures_ap.cell_rows(data, data, tmp_path, COMMON, lengths)
    names = {r["name"] for r in rows}
    assert "structures.ap.ablation.lines.cts_and_prototype.nonlinear.all" in names
    assert len(names) == 2 * len(THESIS) and all(0 < r["value"] <= 1 for r in rows)
    again = structures_ap.cell_rows(data, data, tmp_path, COMMON, lengths)  # from its folders
    assert [r["value"] for r in again] == [r["value"] for r in rows]
    assert structures_ap.ablation_config("resnet", "cts", "identity", 100).network == "resnet"
