"""Noise2Void: what is to be predicted cannot be seen, noise is not learnt, pictures are, and runs repeat."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage

import cimp_core as cimp
from cimp_core.denoising.blind_spots import blind_spots
from cimp_core.denoising.noise2void import Noise2Void, Noise2VoidConfig, _in_parts
from cimp_core.denoising.pairs import low_dose, virtual_truth
from cimp_core.digital_twin import scan_of
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError
from cimp_core.models.unet import UNet
from cimp_core.study.noise2void_pool import PooledNoise2Void, train_pools

TINY = Noise2VoidConfig(width=4, depth=1, patch=32, batch_size=4, warmup=16, precision="32-true", share=0.04)
SMALL = Noise2VoidConfig(
    width=8, depth=1, patch=32, batch_size=8, warmup=80, peak_rate=3e-3, precision="32-true", share=0.04
)
VARIANTS = [("uniform", "pixel"), ("median", "pixel"), ("uniform", "row"), ("median", "row")]


def noise(shape=(3, 40, 56), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def all_hidden(targets, blind, reach):
    return targets if blind == "pixel" else ndimage.binary_dilation(targets, np.ones((1, 1, 2 * reach + 1), bool))


@pytest.mark.parametrize("blind", ["pixel", "row"])
def test_what_is_hidden_is_nowhere_in_the_masked_picture(blind):
    # Each value occurs once: a copy of a hidden pixel would be found wherever it is.
    patches = np.random.default_rng(0).permutation(3 * 40 * 56).reshape(3, 40, 56).astype(float)
    masked, targets = blind_spots(patches, np.random.default_rng(1), share=0.04, blind=blind, reach=3, radius=4)
    hidden = all_hidden(targets, blind, 3)
    assert np.array_equal(masked[~hidden], patches[~hidden])
    assert not np.isin(masked, patches[hidden]).any()
    assert np.isin(masked, patches[~hidden]).all()


@pytest.mark.parametrize(("replace", "blind"), VARIANTS)
def test_prediction_does_not_depend_on_the_pixel_to_predict(replace, blind):
    patches = noise()
    options = {"share": 0.04, "replace": replace, "blind": blind, "reach": 4}
    masked, targets = blind_spots(patches, np.random.default_rng(1), **options)
    changed = patches + 100.0 * all_hidden(targets, blind, 4)  # the random choices stay
    again, _ = blind_spots(changed, np.random.default_rng(1), **options)
    assert not np.array_equal(patches, changed)
    torch.manual_seed(0)
    network = UNet(4, 1).eval()
    with torch.no_grad():
        a, b = (network(torch.from_numpy(m[:, None]).float()) for m in (masked, again))
    assert torch.equal(a, b)


def test_hidden_row_is_filled_from_other_rows():
    patches = np.repeat(np.arange(48.0)[None, :, None], 64, axis=2)  # each pixel holds its row
    masked, targets = blind_spots(patches, np.random.default_rng(1), share=0.01, blind="row", reach=5, radius=3)
    hidden = all_hidden(targets, "row", 5)
    assert (masked[hidden] != patches[hidden]).all()
    assert np.abs(masked - patches).max() == 3


@pytest.mark.parametrize("share", [0.002, 0.01, 0.04])
def test_targets_are_as_many_as_asked_for_everywhere(share):
    counts = np.zeros((48, 48))
    for seed in range(30):
        _, targets = blind_spots(noise((16, 48, 48)), np.random.default_rng(seed), share=share)
        counts += targets.sum(0)
    assert counts.mean() / 480 == pytest.approx(share, rel=0.06)
    edges = np.concatenate([counts[0], counts[-1], counts[:, 0], counts[:, -1]])
    assert edges.mean() == pytest.approx(counts.mean(), rel=0.25)


def test_uniform_replacement_takes_every_neighbour_alike():
    y, x = np.mgrid[:31, :31]
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        patches = (1000.0 * y + x)[None]
        masked, targets = blind_spots(patches, rng, share=0.02, radius=2)
        inner = targets & (masked != patches)
        inner[:, :3] = inner[:, -3:] = inner[:, :, :3] = inner[:, :, -3:] = False
        found.append(masked[inner] - patches[inner])
    steps, counts = np.unique(np.concatenate(found), return_counts=True)
    assert len(steps) == 24 and 0.0 not in steps
    assert counts.min() > 0.7 * counts.mean() and counts.max() < 1.3 * counts.mean()


def test_bad_options_are_refused():
    for options in ({"replace": "mean"}, {"blind": "column"}, {"share": 0}, {"share": 0.5}, {"radius": 0}):
        with pytest.raises(OutOfRangeError):
            blind_spots(noise(), np.random.default_rng(0), **options)
    for wrong in ({"seconds": 0}, {"steps": 0}):
        with pytest.raises(OutOfRangeError):
            Noise2Void(**wrong)
    with pytest.raises(OutOfRangeError, match="32"):
        Noise2Void(steps=1).fit(np.ones((20, 40)))


@pytest.mark.parametrize(("depth", "top_skip"), [(1, True), (2, True), (2, False)])
def test_margin_covers_what_a_pixel_depends_on_and_tiles_make_the_whole(depth, top_skip):
    torch.manual_seed(0)
    network = UNet(4, depth, top_skip=top_skip).eval()
    x, far = torch.randn(1, 1, 96, 96, requires_grad=True), 0
    for place in (48, 49, 50, 51):
        (gradient,) = torch.autograd.grad(network(x)[0, 0, place, place], x)
        far = max(far, (gradient[0, 0].nonzero() - place).abs().max().item())
    assert far <= network.margin <= far + 2 * 2**depth  # enough, and no waste
    assert network.margin % 2**depth == 0
    with torch.inference_mode():
        picture = torch.randn(100, 121)
        whole = network(picture[None, None])[0, 0]
    assert whole.shape == picture.shape
    torch.testing.assert_close(_in_parts(network, picture, network.margin, tile=48), whole, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def low():
    """A twin image at 4 electrons, and its truth."""
    data = cimp.twin(60, 96)
    shot, fraction = scan_of(data, 4)
    settings, counts = low_dose(shot, fraction, 4.0, 5e-6, np.random.default_rng(0))
    return settings, counts.astype(np.float32), virtual_truth(shot, fraction, settings, 16)


def error(image, truth):
    """Mean square difference after an affine match, in parts of the variance of the truth."""
    return 1 - np.corrcoef(np.ravel(image), np.ravel(truth))[0, 1] ** 2


def test_error_falls_on_a_twin_image_at_4_electrons(low):
    settings, counts, truth = low
    method = Noise2Void(steps=110, config=SMALL)
    image, deviation = method(counts, settings, 16)
    assert deviation is None and image.dtype == np.float32 and image.shape == counts.shape
    assert error(image, truth) < 0.5 * error(counts, truth)
    assert image.mean() == pytest.approx(counts.mean(), rel=0.02)  # at the recorded scale
    assert method.network is None  # trained for this frame alone


def test_white_noise_is_not_learnt():
    frame = 5000 + 300 * noise((96, 96))
    method = Noise2Void(steps=150, config=SMALL)
    image, _ = method(frame)
    assert image.std() < 0.25 * frame.std()
    assert abs(np.corrcoef(image.ravel(), frame.ravel())[0, 1]) < 0.35
    assert image.mean() == pytest.approx(5000, abs=60)


def test_same_seed_same_picture_other_seed_other_picture(low):
    _, counts, _ = low
    first, again, other = (Noise2Void(steps=4, config=TINY, seed=s)(counts)[0] for s in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_interrupted_training_goes_on_where_it_stopped(low, tmp_path):
    _, counts, _ = low

    def stop(seen):
        if seen == 7 * TINY.batch_size:
            raise KeyboardInterrupt

    config = dataclasses.replace(TINY, checkpoint_every=5 * TINY.batch_size)
    whole = Noise2Void(steps=12, config=config).fit(counts)
    with pytest.raises(KeyboardInterrupt):
        Noise2Void(steps=12, config=config, folder=tmp_path).fit(counts, on_step=stop)
    seen = []
    parts = Noise2Void(steps=12, config=config, folder=tmp_path).fit(counts, on_step=seen.append)
    assert seen[0] == 6 * TINY.batch_size
    assert np.array_equal(whole(counts)[0], parts(counts)[0])


def test_time_sets_the_steps_once(low, tmp_path):
    _, counts, _ = low
    first = Noise2Void(0.3, config=TINY, folder=tmp_path).fit(counts)
    assert first.steps >= 1 and first.config.samples == first.steps * TINY.batch_size
    (tmp_path / "steps.json").write_text(str(first.steps))
    again = Noise2Void(0.3, config=TINY, folder=tmp_path).fit(counts)
    assert again.steps == first.steps


def test_pool_series_and_saved_network(low, tmp_path):
    _, counts, _ = low
    pool = Noise2Void(config=TINY, steps=6).fit_pool([counts, 3 * counts + 100, counts[:64, :80]])
    # A pool's network brings every frame to one scale, whatever gain and offset it was taken with.
    image, scaled = pool(counts)[0], pool(3 * counts + 100)[0]
    np.testing.assert_allclose(scaled, 3 * image + 100, rtol=1e-4)
    pool.save(tmp_path / "pool.safetensors")
    back = Noise2Void.trained(tmp_path / "pool.safetensors")
    assert np.array_equal(back(counts)[0], image) and back.margin == pool.margin
    # Tiles of a frame need the scale of the frame.
    method = pool.for_frame(counts)
    tile = method(counts[:64, :64])[0]
    np.testing.assert_allclose(tile[:48, :48], image[:48, :48], rtol=1e-4)
    series = Noise2Void(config=TINY, steps=3).fit(np.stack([counts, counts + 10]))
    assert series.level is not None and series(counts)[0].shape == counts.shape
    with pytest.raises(CimpError, match="not trained"):
        Noise2Void().save(tmp_path / "none.safetensors")


def test_each_recording_goes_to_the_network_of_its_dose(low, tmp_path):
    _, counts, _ = low
    frames = {1.0: counts, 2.0: counts[:, ::-1], 64.0: 2 * counts[::-1], 7.0: counts + 9}
    made = train_pools(frames.items(), tmp_path, 1.0, groups=((1.0, 2.0), (64.0,)), steps=3, config=TINY)
    assert [len(group["recordings"]) for group in made.about["groups"]] == [2, 1]
    assert [group["seconds"] for group in made.about["groups"]] == [0.7, 0.3]
    alone = Noise2Void(steps=3, config=TINY).fit_pool([frames[64.0]])
    np.testing.assert_allclose(made(frames[64.0])[0], alone(frames[64.0])[0], rtol=1e-5)
    assert not np.array_equal(made(frames[1.0])[0], alone(frames[1.0])[0])
    with pytest.raises(OutOfRangeError, match="no pool"):
        made(frames[7.0])
    seen = (tmp_path / "pool0.safetensors").read_bytes()
    again = train_pools(frames.items(), tmp_path, 1.0, groups=((1.0, 2.0), (64.0,)), steps=3, config=TINY)
    assert (tmp_path / "pool0.safetensors").read_bytes() == seen and again.margin == made.margin
    one = train_pools(frames.items(), tmp_path / "one", 1.0, groups=(), steps=1, config=TINY)
    assert len(one.about["groups"]) == 1 and len(one.about["groups"][0]["recordings"]) == 4
    with pytest.raises(OutOfRangeError, match="none of the doses"):
        train_pools(frames.items(), tmp_path, 1.0, groups=((3.0,),))
    with pytest.raises(SchemaError):
        PooledNoise2Void(tmp_path / "absent")


def test_other_files_are_no_weights(tmp_path):
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(UnreadableFileError):
        Noise2Void.trained(tmp_path / "text.safetensors")
    with pytest.raises(UnreadableFileError):
        Noise2Void.trained(tmp_path / "absent.safetensors")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(SchemaError):
        Noise2Void.trained(tmp_path / "other.safetensors")


def test_flat_frame_stays_flat():
    image, _ = Noise2Void(steps=2, config=TINY)(np.full((48, 48), 700.0))
    assert np.isfinite(image).all() and np.ptp(image) < 20
