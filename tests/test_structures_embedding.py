"""Random micrographs, maps of their spectra, and the embedding learnt from them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice
from pymatgen.core import Structure as PymatgenStructure

from cimp_core import weights
from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.models.map_encoder import MapEncoder, MapEncoderConfig
from cimp_core.models.structure_encoder import WIDTHS
from cimp_core.structures import embedding, lattice_peaks, map_files, polar, spectrum_map
from cimp_core.structures.crystals import from_pymatgen
from cimp_core.structures.decorated import decorations
from cimp_core.structures.embedding import (
    Batches,
    EmbeddingConfig,
    embed,
    embed_lines,
    embed_set,
    train,
)
from cimp_core.structures.map_files import make_maps
from cimp_core.structures.micrographs import MICROSCOPE, THESIS, draw_micrograph
from cimp_core.structures.projection import Pattern, project
from cimp_core.structures.retrieval_sets import MapSet
from cimp_core.structures.spectrum_map import RINGS, SECTORS
from cimp_core.structures.views import View, collected

TINY = EmbeddingConfig(
    samples=256, batch_size=32, warmup=32, ema_half_life=0, waves=64, length_error=1e-3, log_every=64,
    validate_every=128, checkpoint_every=128,
)  # fmt: skip


def crystal(group, lattice, elements, sites, name):
    return from_pymatgen(PymatgenStructure.from_spacegroup(group, lattice, elements, sites), name, "a test")


@pytest.fixture(scope="module")
def crystals():
    salt = crystal("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], "salt")
    rutile = crystal("P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]], "rutile")
    return [one for prototype in (salt, rutile) for one in decorations(prototype, 6)]


@pytest.fixture(scope="module")
def maps(crystals, tmp_path_factory):
    return make_maps(crystals, tmp_path_factory.mktemp("maps"), THESIS, zones=4, repeats=1)


@pytest.fixture(scope="module")
def data(crystals, maps):
    prototype = maps.structure // 6
    return MapSet(maps, tuple(crystals), prototype, prototype)


def test_a_wave_lies_on_the_map_where_it_should_and_as_strong():
    g, direction = 0.5, 0.7
    wave = Pattern(
        1.0, np.array([[np.cos(direction), np.sin(direction)]], np.float32) * g, np.array([0.1], np.complex64)
    )
    image = collected(wave, View(0.2, 128, 128)) * 1e4
    image = np.random.default_rng(0).poisson(image).astype(float)
    made = spectrum_map.spectrum_map(image, 0.2)
    ring, sector = np.unravel_index(made.values.argmax(), made.values.shape)
    assert abs(RINGS[ring] - g) <= 0.01 + 1e-9 and abs(SECTORS[sector] - direction) < np.pi / 64
    # Energy over that of the mean: 2 x 0.1^2 of the image's mean square.
    assert made.contrast == pytest.approx(np.log(2 * 0.1**2), abs=0.03)
    assert made.field == pytest.approx(25.6)
    again = spectrum_map.spectrum_map(3 * image + 500, 0.2)
    np.testing.assert_allclose(again.values, made.values, atol=1e-3)
    assert again.contrast < made.contrast and np.isnan(spectrum_map.spectrum_map(image - 2e4, 0.2).contrast)
    # A quarter of a turn moves directions by half the axis, and columns onto rows.
    turned = spectrum_map.spectrum_map(np.rot90(image), 0.2).values
    ring, sector = np.unravel_index(turned.argmax(), turned.shape)
    assert abs((SECTORS[sector] - direction) % np.pi - np.pi / 2) < np.pi / 64
    with pytest.raises(OutOfRangeError, match="pixel size"):
        spectrum_map.spectrum_map(image, 0.0)


def test_bilinear_is_exact_at_the_places_of_the_spectrum_and_mirrors():
    image = np.random.default_rng(1).normal(size=(16, 20))
    power = lattice_peaks.power_spectrum(image)
    full = np.abs(np.fft.fft2(polar.prepared(image))) ** 2 / image.size
    y, x = np.meshgrid([-7.0, -1, 0, 3], [-9.0, -2, 0, 4], indexing="ij")
    np.testing.assert_allclose(
        spectrum_map._bilinear(power, y, x), full[y.astype(int) % 16, x.astype(int) % 20], rtol=1e-4, atol=1e-9
    )


def test_regions_cover_an_image_and_are_no_wider_than_the_field():
    covered = np.zeros((400, 300), int)
    for part in spectrum_map.regions(400, 300, 0.2):
        covered[part] += 1
        assert covered[part].shape[0] * 0.2 <= spectrum_map.FIELD
    assert covered.min() >= 1
    assert spectrum_map.regions(128, 128, 0.2) == [(slice(0, 128), slice(0, 128))]
    assert len(spectrum_map.regions(4000, 4000, 0.2)) == 9


def test_maps_are_kept_resumed_and_not_mistaken(crystals, maps, tmp_path, monkeypatch):
    monkeypatch.setattr(map_files, "CHUNK", 5)
    arguments = {"zones": 4, "repeats": 1}
    make_maps(crystals, tmp_path, THESIS, **arguments)
    (tmp_path / "maps-0001.npz").unlink()
    again = make_maps(crystals, tmp_path, THESIS, **arguments)
    for one, other in zip(again, maps, strict=True):
        np.testing.assert_array_equal(one, other)
    assert maps.values.shape == (48, 64, 64) and len(np.unique(maps.view)) == 48
    with pytest.raises(SchemaError, match="conditions differ"):
        make_maps(crystals, tmp_path, MICROSCOPE, **arguments)


def test_batches_are_of_whole_crystals_and_the_same_for_a_step(data):
    batches = Batches(data, TINY)
    first, again, other = batches(3), batches(3), batches(4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    lines, error, structure, prototype, _ = first
    assert (
        lines.shape == (32, 64, 7)
        and error.shape == (32,)
        and not torch.equal(torch.nan_to_num(lines), torch.nan_to_num(other[0]))
    )
    assert np.all(np.unique(structure, return_counts=True)[1] == 4)
    assert torch.equal(prototype, structure // 6)
    assert 0 < error.min() < TINY.length_error / 100 and TINY.length_error / 3 < error.max() < TINY.length_error
    there, hidden = torch.isfinite(lines[..., 0]), torch.isnan(lines[..., 1])
    without = (there & hidden).any(1)
    assert 0 < without.sum() < 32 and torch.equal(without, (there & hidden).sum(1) == there.sum(1))
    with pytest.raises(OutOfRangeError, match="whole crystals"):
        Batches(data, dataclasses.replace(TINY, images=3))


def test_batches_of_maps_are_turned_and_mirrored_copies(data):
    batches = Batches(data, dataclasses.replace(TINY, network="resnet"))
    values, scalars, structure, *_ = batches(1)
    assert values.shape == (32, 64, 64) and scalars.shape == (32, 3) and 0 < torch.isnan(scalars[:, 1]).sum() < 32
    mirrored = 0
    for one, beside, crystal in zip(values.numpy(), scalars.numpy(), structure.numpy(), strict=True):
        mine = (data.maps.structure == crystal) & np.isclose(data.maps.scalars[:, 0], beside[0])
        true = data.maps.values[np.flatnonzero(mine)[0]].astype(np.float32)
        turns = [turn for turn in range(64) if np.array_equal(np.roll(true, -turn, 1), one)]
        back = [turn for turn in range(64) if np.array_equal(np.roll(true, turn, 1)[:, -np.arange(64)], one)]
        assert turns or back
        mirrored += bool(back) and not turns
    assert 4 < mirrored < 28


def test_the_network_of_maps_learns_resumes_and_tells_spacings_by_their_place(data, tmp_path):
    config = dataclasses.replace(
        TINY, network="resnet", width=8, branch="cts+prototype", samples=512, validate_every=256
    )
    whole = train(data, data, config, tmp_path / "whole")
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"] and 0 < log[-1]["val_all"] <= 1
    train(data, data, config, tmp_path / "parts", stop=9)
    resumed = train(data, data, config, tmp_path / "parts")
    z = embed_set(whole, data)
    np.testing.assert_array_equal(z, embed_set(resumed, data))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embed_set(whole, data, batch=7), z, atol=1e-5)
    assert np.abs(embed_set(whole, data, contrast=False) - z).max() > 1e-4
    torch.manual_seed(0)
    model = MapEncoder(MapEncoderConfig(width=8)).eval()
    near, far = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    near[0, 16], far[0, 32] = 4, 4  # alike but for their |g|
    with torch.inference_mode():
        a, b = (model.embed(one, torch.tensor([[5.0, -1.0, 25.0]])) for one in (near, far))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("branch", ["cts", "cts+prototype", "space_group"])
def test_training_learns_resumes_and_comes_back_from_a_file(data, tmp_path, branch):
    config = dataclasses.replace(TINY, branch=branch, head="nonlinear")
    inputs = (data.maps.lines,)
    whole = train(data, data, config, tmp_path / "whole")
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"] and 0 < log[-1]["val_all"] <= 1
    train(data, data, config, tmp_path / "parts", stop=5)
    resumed = train(data, data, config, tmp_path / "parts")
    np.testing.assert_array_equal(embed_lines(whole, *inputs), embed_lines(resumed, *inputs))
    weights.save(whole, tmp_path / "w.safetensors", {"seed": 0})
    again = embedding.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(embed_lines(again, *inputs), embed_lines(whole, *inputs))
    assert "any zone axis" in (tmp_path / "w.md").read_text()


def test_embeddings_do_not_depend_on_gain_and_batch_and_black_level_only_where_asked(crystals, data):
    torch.manual_seed(0)
    model = embedding.make_encoder(data, TINY).eval()
    image, size = draw_micrograph(project(crystals[0], (1, 0, 0)), THESIS, np.random.default_rng(0))
    z = embed(model, [image, image * 7 + 40, np.tile(image, (2, 2))], size)
    assert z.shape == (3, 128)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(z[0], z[1], atol=1e-4)
    dark = embed(model, [image, image + 40], size, contrast=True)
    assert np.abs(dark[0] - dark[1]).max() > 1e-4
    lines = data.maps.lines
    whole = embed_lines(model, lines)
    np.testing.assert_allclose(embed_lines(model, lines, batch=7), whole, atol=1e-5)
    order = np.random.default_rng(0).permutation(lines.shape[1])
    np.testing.assert_allclose(embed_lines(model, lines[:, order]), whole, atol=1e-5)
    with pytest.raises(OutOfRangeError, match="constant"):
        embed(model, [np.ones((64, 64))], 0.2)


def test_lengths_are_compared_as_finely_as_they_are_known(data):
    torch.manual_seed(0)
    model = embedding.make_encoder(data, dataclasses.replace(TINY, waves=512)).eval()
    lines, wrong = data.maps.lines, data.maps.lines.copy()
    wrong[..., 0] += 0.005
    true = embed_lines(model, lines)
    told = embed_lines(model, wrong, 0.005)
    np.testing.assert_array_equal(embed_lines(model, wrong, np.full(len(lines), 0.005)), told)
    own = {name: (true * embed_lines(model, wrong, error)).sum(1) for name, error in (("not", 0.0), ("told", 0.005))}
    # Of two Gaussians s and t wide, as far apart as t is wide: s of a kernel WIDTHS[0] wide, t with the error.
    s, t = WIDTHS[0] / 2**0.5, (WIDTHS[0] ** 2 / 2 + 0.005**2) ** 0.5
    overlap = (2 * s * t / (s**2 + t**2)) ** 0.5 * np.exp(-(0.005**2) / 2 / (s**2 + t**2))
    assert np.median(own["not"]) < 0.1 and np.median(own["told"]) == pytest.approx(overlap, abs=0.05)
    assert ((true @ told.T).argmax(0) == np.arange(len(true))).mean() > 0.7


def test_unknown_branches_are_refused(data):
    with pytest.raises(OutOfRangeError, match="branch 'sgn': it is one of cts"):
        train(data, None, dataclasses.replace(TINY, branch="sgn"))
    with pytest.raises(OutOfRangeError, match="network 'vit': it is one of lines, resnet"):
        train(data, None, dataclasses.replace(TINY, network="vit"))


def test_a_map_without_lattice_is_finite():
    made = spectrum_map.spectrum_map(np.random.default_rng(0).normal(5.0, size=(128, 128)), 0.2)
    assert np.isfinite(made.values).all() and np.isfinite(made.energy) and np.isfinite(made.contrast)
    assert np.isfinite(made.lines[:, 0]).sum() <= 2
    torch.manual_seed(0)
    model = embedding.StructureEncoder(embedding.StructureEncoderConfig(waves=8))
    assert np.isfinite(embed_lines(model, np.full((2, 64, 7), np.nan, np.float32), np.ones(2))).all()
