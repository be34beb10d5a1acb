"""The towers and the model: shapes, masks, sizes, what is invariant to what."""

import numpy as np
import pytest
import torch

from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.metadata import PARAMETERS, Acquisition, Normalizer
from cimp_core.models import Cimp, CimpConfig, image_statistics, log_polar_spectrum
from cimp_core.models.cimp import MAX_SCALE
from cimp_core.models.encoders import FEATURES, tiles
from cimp_core.models.spectrum import ANGLES, HIGHEST, LOWEST, RADII

ACQUISITION = Acquisition(20e-12, 2e-6, 21.4e-3, 50e-12, 35.0, -1.2, 60e-3)


def small(**changes):
    torch.manual_seed(0)
    raw = np.array([ACQUISITION.vector(), 2 * ACQUISITION.vector(), 3 * ACQUISITION.vector()])
    config = CimpConfig(**{"width": 8, "dim": 16, "hidden": 32, "crop_size": 64, "tile": 64, "spectrum": 4, **changes})
    model = Cimp(config.with_normalizer(Normalizer.fit(raw)))
    # Statistics of some images, so that evaluation mode is not that of an untouched network.
    for seed in range(3):
        images = noise(8, 64, seed=seed)
        model.image_encoder(images * torch.linspace(0.3, 2, 8)[:, None, None] + 2000 * seed)
    return model.eval()


def noise(count, height, width=None, mean=20000.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, height, width or height, generator=generator) * 3000 + mean


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (64, 64), (200, 130)])
@pytest.mark.parametrize("without", [{}, {"statistics": False}, {"spectrum": 0}, {"width": 0}, {"absolute": False}])
def test_any_size_gives_unit_rows(shape, without):
    out = small(**without).image_encoder(noise(2, *shape))
    assert out.shape == (2, 16)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))


def lattice(size, period, electrons, count=8):
    """Shot noise on crossed waves: `electrons` a pixel on average, 30 counts each."""
    x = torch.arange(size) / period * 2 * torch.pi
    expected = electrons * (1 + 0.4 * torch.cos(x) + 0.4 * torch.cos(x)[:, None])
    generator = torch.Generator().manual_seed(int(size * period))
    return 30 * torch.poisson(expected.expand(count, -1, -1), generator=generator) + 2000


def test_tiles_of_noise_say_the_same_at_any_size():
    """The features of tiles are averaged, so 128 and 256 pixels estimate the same; other noise is farther away."""
    model = small(statistics=False, spectrum=0)
    with torch.no_grad():
        near, far = (model.image_encoder(noise(4, s)).mean(0) for s in (128, 256))
        other = model.image_encoder(noise(4, 128, mean=40000.0)).mean(0)
    assert torch.dist(near, far) < 0.3 * torch.dist(near, other)


def test_what_is_said_of_a_picture_hardly_depends_on_its_size():
    """The shipped weights, trained on 128 to 256 pixels: the same picture at both is near, other pictures are far."""
    from cimp_core.weights import load

    pictures = [(p, e) for p in (6.3, 9.1, 13.7, 21.0) for e in (20.0, 100.0, 500.0)]
    model = load("cimp-twin-s")
    with torch.no_grad():
        near, far = (
            torch.stack([model.image_encoder(lattice(size, *picture)).mean(0) for picture in pictures])
            for size in (128, 256)
        )
    distance = torch.cdist(near, far)
    ratio = distance.diagonal().mean() / distance.mean()
    assert ratio < 0.3, ratio


def test_masked_intensity_hides_gain_and_offset_but_not_the_picture():
    model = small()
    image = noise(2, 64, mean=10000.0)
    changed = 1.7 * image + 3000
    hidden, shown = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(
            model.image_encoder(image, hidden), model.image_encoder(changed, hidden), atol=1e-4, rtol=0
        )
        assert torch.dist(model.image_encoder(image, shown), model.image_encoder(changed, shown)) > 1e-2
        assert torch.dist(model.image_encoder(image, hidden)[0], model.image_encoder(image, hidden)[1]) > 1e-4


@pytest.mark.parametrize("column", range(7))
def test_each_parameter_counts_and_a_missing_one_is_flagged(column):
    model = small()
    values = torch.zeros(3, 7)
    values[1, column] = 1.0
    values[2, column] = float("nan")
    with torch.no_grad():
        base, moved, missing = model.metadata_encoder(values)
    assert torch.isfinite(missing).all()
    assert torch.dist(base, moved) > 1e-2
    # Zero is the mean of the data, not "unknown": the two must differ.
    assert torch.dist(base, missing) > 1e-2


def test_gradients_pass_by_missing_parameters_without_nan():
    model = small().train()
    values = torch.zeros(4, 7)
    values[:, 2] = float("nan")
    model(noise(4, 64), values).metadata.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.metadata_encoder.parameters())
    assert model.metadata_encoder.missing.grad[2].abs() > 0
    assert model.metadata_encoder.missing.grad[3] == 0


def test_scale_starts_at_clip_s_and_is_clamped():
    model = small()
    assert model.scale == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    assert model.scale == MAX_SCALE
    assert model(noise(2, 64), torch.zeros(2, 7)).scale.item() == pytest.approx(MAX_SCALE)


def test_embed_images_cuts_crops_evenly_and_averages_them():
    model = small()
    image = noise(1, 128)[0].numpy().clip(0, 65535).astype(np.uint16)
    corners = [image[t : t + 64, x : x + 64] for t in (0, 64) for x in (0, 64)]
    mean = model.embed_images(corners, crops=1).mean(0)
    np.testing.assert_allclose(model.embed_images([image], crops=4)[0], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(
        model.embed_images([image], crops=1), model.embed_images([image[32:96, 32:96]], crops=1), atol=1e-6
    )
    whole = model.image_encoder(torch.from_numpy(image.astype(np.float32))[None]).detach().numpy()
    np.testing.assert_allclose(model.embed_images([image], crops=None), whole, atol=1e-5)


def test_features_are_what_the_embedding_is_projected_from():
    """One image: its projection is the embedding. Four crops: their mean, which is not made a unit row."""
    model = small()
    image = noise(2, 64).numpy().clip(0, 65535).astype(np.uint16)
    features = model.embed_images(image, features=True)
    assert features.shape == (2, FEATURES)
    with torch.no_grad():
        projected = model.image_encoder.head[-1](torch.from_numpy(features))
    rows = torch.nn.functional.normalize(projected, dim=1).numpy()
    np.testing.assert_allclose(rows, model.embed_images(image), atol=1e-6)
    quarters = [image[0, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    each = model.embed_images(quarters, features=True)
    of_crops = model.embed_images(image[:1], crops=4, size=32, features=True)
    np.testing.assert_allclose(of_crops[0], each.mean(0), atol=1e-5)
    assert np.linalg.norm(of_crops[0]) != pytest.approx(1, abs=0.1)


def test_large_images_are_embedded_a_few_at_a_time(monkeypatch):
    model, seen = small(), []
    images = [noise(1, 48, 64, seed=i)[0].numpy().astype(np.uint16) for i in range(7)]
    expected = model.embed_images(images, crops=None)
    monkeypatch.setattr("cimp_core.models.cimp.PIXELS", 3 * 48 * 64)
    handle = model.image_encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    np.testing.assert_allclose(model.embed_images(images, crops=None), expected, atol=1e-5)
    assert seen == [3, 3, 1]
    monkeypatch.setattr("cimp_core.models.cimp.PIXELS", 48)
    np.testing.assert_allclose(model.embed_images(images[:2], crops=None), expected[:2], atol=1e-5)
    assert seen[3:] == [1, 1]
    handle.remove()


def test_embed_images_mixes_sizes_in_order_and_batches_change_nothing():
    model = small()
    images = [noise(1, s, seed=s)[0].numpy().astype(np.uint16) for s in (40, 128, 40, 96)]
    together = model.embed_images(images, batch=3)
    for row, image in zip(together, images, strict=True):
        np.testing.assert_allclose(row, model.embed_images([image])[0], atol=1e-5)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_other_intensity_scales_are_masked_and_reported():
    model = small()
    image = noise(1, 64).numpy().clip(0, 65535).astype(np.uint16)
    with pytest.warns(UserWarning, match="image 0: embedded without its absolute intensity"):
        floats = model.embed_images(image.astype(np.float32))
    with pytest.warns(UserWarning, match="without its absolute"):
        scaled = model.embed_images(image.astype(np.float32) * 1e-3)
    np.testing.assert_allclose(floats, scaled, atol=1e-3)
    assert np.linalg.norm(model.embed_images(image) - floats) > 1e-3


def test_embed_metadata_takes_records_and_arrays_and_masks_what_is_missing():
    model = small()
    partial = ACQUISITION.replace(beam_current=None)
    rows = model.embed_metadata([ACQUISITION, partial])
    np.testing.assert_array_equal(rows, model.embed_metadata(np.array([ACQUISITION.vector(), partial.vector()])))
    assert rows.shape == (2, 16) and rows.dtype == np.float32
    assert np.linalg.norm(rows[0] - rows[1]) > 1e-2
    with pytest.raises(OutOfRangeError, match="must be"):
        model.embed_metadata(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("image", "crops", "message"),
    [
        (np.zeros((20, 64), np.uint16), 1, "too small"),
        (np.full((64, 64), np.nan, np.float32), 1, "not finite"),
        (np.zeros((128, 128), np.uint16), 3, "square number"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*absolute intensity")
def test_images_that_cannot_be_embedded_are_refused(image, crops, message):
    with pytest.raises(OutOfRangeError, match=message):
        small().embed_images([image], crops=crops)


def test_blank_and_saturated_images_are_finite():
    for value in (0, 65535):
        assert np.isfinite(small().embed_images(np.full((1, 64, 64), value, np.uint16))).all()


def test_statistics_know_white_noise_shot_noise_and_direction():
    z = noise(64, 64, mean=30000.0)
    absolute, relative = image_statistics(z)
    changed = image_statistics(z * 0.5 + 1000)
    torch.testing.assert_close(relative, changed[1], atol=1e-3, rtol=0)
    assert (absolute - changed[0]).abs().max() > 0.1
    # Columns: 9 quantiles, 2 moments, 8 of the noise, 5 of its steps, 10 lags, 24 bands of the spectrum and 24 of its
    # logarithm, 14 of the rows.
    steps, lags, bands, logs = relative[:, 19:24], relative[:, 24:34], relative[:, 34:58], relative[:, 58:82]
    assert relative.shape[1] == 96 and lags.mean(0).abs().max() < 0.02
    assert bands.exp().mean() == pytest.approx(1.0, abs=0.05)  # white noise has unit power in each
    # Power of white noise is exponentially distributed: the mean of its logarithm is minus Euler's constant.
    assert logs.mean() == pytest.approx(-np.euler_gamma, abs=0.05)
    # Steps of white noise are normal with a variance of 2, of which the median is 0.6745 standard deviations.
    expected = torch.tensor([0.6745 * 2**0.5] * 2 + [2**0.5] * 2).log()
    torch.testing.assert_close(steps.mean(0)[:4], expected, atol=0.02, rtol=0)
    assert steps[:, 4].mean().abs() < 0.02
    # A blur along the fast axis shows in the lags along it, and in the profile along it, not across.
    blurred = (z + z.roll(1, 2)) / 2
    _, after = image_statistics(blurred)
    assert after[:, 24].mean() == pytest.approx(0.5, abs=0.05)
    assert after[:, 29].mean() == pytest.approx(0.0, abs=0.05)
    assert after[:, 23].mean() < -0.2  # neighbours in a row differ less than in a column
    along, across = after[:, 34:46].mean(0), after[:, 46:58].mean(0)
    assert along[0] - along[-1] > 3 and (across - across.mean()).abs().max() < 0.5


def test_config_round_trip_and_unknown_name():
    config = small().config
    as_dict = {k: list(v) if isinstance(v, tuple) else v for k, v in config.__dict__.items()}
    assert CimpConfig.from_dict(as_dict) == config
    with pytest.raises(SchemaError, match="depth"):
        CimpConfig.from_dict({**as_dict, "depth": 3})
    assert len(config.mean) == len(PARAMETERS)


def test_embedding_leaves_a_model_in_training_as_it_was():
    model = small()
    images = noise(4, 64).numpy().clip(0, 65535).astype(np.uint16)
    expected = model.embed_images(images)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    np.testing.assert_array_equal(model.embed_images(images), expected)
    assert model.training and model.image_encoder.pixels.stem.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_shot_noise_gives_counts_per_electron_and_the_black_level():
    """Poisson electrons on a ramp, 40 counts each above 3,000: the line of variance against mean says both."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 300, 128)[:, None] * np.ones((4, 1, 128))
    x = torch.from_numpy(40.0 * rng.poisson(ramp) + 3000).float()
    absolute, _ = image_statistics(x)
    slope, black = absolute[:, -7], absolute[:, -6]  # asinh of the slope; black level over full scale
    torch.testing.assert_close(slope.sinh().mean(), torch.tensor(40.0), atol=2.0, rtol=0)
    torch.testing.assert_close(black.mean() * 65535, torch.tensor(3000.0), atol=400.0, rtol=0)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_darkest_and_the_brightest_pixels(size):
    """Of the numbers 1 to n in any order the k-th from either end."""
    n = size * size
    x = torch.randperm(n, generator=torch.Generator().manual_seed(0)).reshape(1, size, size).float() + 1
    absolute, _ = image_statistics(x)
    few, more = max(1, round(1e-4 * n)), max(1, round(1e-3 * n))
    expected = torch.tensor([few, more, n + 1 - few, n + 1 - more])
    torch.testing.assert_close((absolute[0, 11:15] * 65535).round(), expected.float())


@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 256), (160, 224)])
def test_a_lattice_of_another_scale_is_the_same_pattern_elsewhere(height, width):
    """Waves of 8 and of 16 pixels: the peak moves by the logarithm of 2 along the radius; a turned one along angles."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")

    def peak(period, angle):
        wave = torch.cos(2 * torch.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        grid = log_polar_spectrum(wave[None] * 1000 + 5000)[0]
        assert grid.shape == (RADII, ANGLES)
        return divmod(int(grid.argmax()), ANGLES)

    step = np.log(HIGHEST / LOWEST) / (RADII - 1)
    for period in (8, 16):
        ring, angle = peak(period, 0.0)
        assert abs(ring - np.log(1 / period / LOWEST) / step) <= 1.0
        assert angle in (ANGLES // 2 - 1, ANGLES // 2)  # the fast axis lies in the middle
    ring, angle = peak(8, np.pi / 4)
    assert abs(angle + 0.5 - 0.75 * ANGLES) <= 1.0


def test_power_of_white_noise_is_one_everywhere_on_the_grid():
    for edge in (64, 200):
        grid = log_polar_spectrum(noise(64, edge)).exp().mean(0)
        assert (grid - 1).abs().max() < 0.5 and (grid.mean() - 1).abs() < 0.03


def test_tiles_cover_an_image_and_start_at_the_upper_left():
    for shape in ((128, 128), (256, 256), (200, 130), (96, 300), (257, 40)):
        seen = np.zeros(shape, int)
        for rows, columns in tiles(*shape, 128):
            seen[rows, columns] += 1
            assert rows.stop - rows.start == min(128, shape[0]) and columns.stop - columns.start == min(128, shape[1])
        assert seen.min() >= 1
        assert len(tiles(*shape, 128)) == np.prod([-(-n // 128) for n in shape])
        assert tiles(*shape, 128)[0][0].start == tiles(*shape, 128)[0][1].start == 0


def test_an_evaluated_image_is_seen_whole_by_the_convolutions():
    """A change in any of the four tiles changes what is said of the image."""
    model = small(statistics=False, spectrum=0)
    image = noise(1, 128)
    with torch.no_grad():
        before = model.image_encoder(image)
        for rows, columns in tiles(128, 128, 64):
            other = image.clone()
            other[:, rows, columns] += 3000 * torch.randn(64, 64)
            assert torch.dist(model.image_encoder(other), before) > 1e-4


def test_without_the_absolute_channel_gain_and_offset_are_not_seen():
    model = small(absolute=False)
    image = noise(2, 64, mean=10000.0)
    with torch.no_grad():
        torch.testing.assert_close(
            model.image_encoder(image), model.image_encoder(1.7 * image + 3000), atol=1e-4, rtol=0
        )


def test_too_few_channels_are_refused():
    with pytest.raises(OutOfRangeError, match="width is 4: take 0, for no convolutions, or at least 8"):
        small(width=4)


def test_the_sigmoid_loss_has_a_bias_and_an_unknown_loss_is_refused():
    model = small(loss="sigmoid")
    assert model.bias.item() == -10 and model.scale == pytest.approx(10)
    assert small().bias is None and small()(noise(2, 64), torch.zeros(2, 7)).bias is None
    with pytest.raises(OutOfRangeError, match="unknown loss 'triplet'; there are info_nce, sigmoid"):
        small(loss="triplet")
