"""The translator and its critic: what they give untrained, what they depend on, and what they may not do."""

import pytest
import torch

from cimp_core.errors import OutOfRangeError
from cimp_core.models import PatchDiscriminator, Translator, TranslatorConfig
from cimp_core.models.translator import START, levels_of

SMALL = TranslatorConfig(condition=8, cell=2, channels=8, blocks=2, hidden=16)


def counts(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 8000 + 3000 * torch.randn(*shape, generator=generator).cumsum(-1) / 4


def inputs(shape=(2, 40, 36), condition=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    settings = torch.randn(2, shape[0], condition, generator=generator)
    return counts(*shape), settings[0], settings[1], torch.randn(shape, generator=generator)


def stirred(config=SMALL, seed=0):
    """A translator whose every weight counts."""
    torch.manual_seed(seed)
    model = Translator(config).eval()
    for parameter in model.parameters():
        if not parameter.abs().max() > 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_untrained_it_gives_back_the_image_and_noise_in_proportion_to_the_distance_of_the_settings():
    model = Translator(SMALL)
    image, source, target, noise = inputs()
    torch.testing.assert_close(model(image, source, source, noise), image, rtol=1e-6, atol=2e-3)
    torch.testing.assert_close(model(image, source, target, 0 * noise), image, rtol=1e-6, atol=2e-3)
    distance = (target - source).square().mean(1).sqrt()
    with torch.no_grad():
        made = (model(image, source, target, noise) - image) / noise
    expected = START * distance * levels_of(image)[:, 2]
    torch.testing.assert_close(made.median(2).values.median(1).values, expected, rtol=1e-3, atol=0.01)


def test_trained_it_keeps_the_image_where_the_settings_stay():
    model, (image, source, target, noise) = stirred(), inputs()
    with torch.no_grad():
        torch.testing.assert_close(model(image, source, source, noise), image, rtol=1e-6, atol=2e-3)
        assert (model(image, source, target, noise) - image).abs().mean() > 10


def test_the_first_step_already_tells_the_network_to_make_noise():
    """With an amplitude of zero, its power would have no gradient."""
    model, (image, source, target, noise) = Translator(SMALL), inputs()
    model(image, source, target, noise).diff(n=2, dim=1).square().mean().backward()
    assert model.grain.bias.grad > 0 and model.head.bias.grad[4:].sum() > 0


def test_default_is_small_enough_for_a_processor():
    assert sum(p.numel() for p in Translator(TranslatorConfig()).parameters()) <= 300_000


def test_trained_it_depends_on_source_target_and_noise_and_on_nothing_else_of_chance():
    model, (image, source, target, noise) = stirred(), inputs()
    with torch.no_grad():
        first = model(image, source, target, noise)
        assert torch.equal(first, model(image, source, target, noise))
        for changed in ((source + 1, target, noise), (source, target + 1, noise), (source, target, -noise)):
            assert (model(image, *changed) - first).abs().max() > 1
        swapped = model(image, target, source, noise)
        assert (swapped - first).abs().max() > 1


def test_affine_part_is_one_scale_about_the_black_level_that_the_way_back_undoes():
    torch.manual_seed(3)
    model, (image, source, target, noise) = Translator(SMALL), inputs()
    noise = 0 * noise
    torch.nn.init.normal_(model.affine[-1].weight, std=0.3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = model(image, source, target, noise)
        (scale, black), (own_scale, own_black) = (model.affine(e)[:, :, None, None].unbind(1) for e in (target, source))
        assert (scale - own_scale).abs().min() > 0.05 and (black - own_black).abs().min() > 0.01
        by_hand = 4096 * black + (scale - own_scale).exp() * (image - 4096 * own_black)
        torch.testing.assert_close(given, by_hand, rtol=1e-5, atol=0.1)
        torch.testing.assert_close(model(given, target, source, noise), image, rtol=1e-4, atol=0.5)
        torch.testing.assert_close(model(image, source, source, noise), image, rtol=1e-6, atol=2e-3)


def test_noise_only_enters_where_the_amplitude_says_and_in_proportion_to_the_spread():
    model, (image, source, target, noise) = Translator(SMALL), inputs()
    with torch.no_grad():
        model.head.bias[4:] = 0.1  # the second map, four pixels a cell
        given = model(image, source, target, noise)
    scale = levels_of(image)[:, 2] * (target - source).square().mean(1).sqrt()
    torch.testing.assert_close(given - image, 1.1 * START * scale[:, None, None] * noise, rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("cell", (2, 4))
@pytest.mark.parametrize("shape", [(1, 33, 47), (1, 4, 5), (1, 64, 31)], ids=str)
def test_any_size_is_kept(shape, cell):
    config = TranslatorConfig(condition=8, cell=cell, channels=8, blocks=1)
    model, (image, source, target, noise) = stirred(config), inputs(shape)
    given = model(image, source, target, noise)
    assert given.shape == image.shape and torch.isfinite(given).all()


def test_too_small_or_too_narrow_is_refused():
    with pytest.raises(OutOfRangeError, match="at least 4 x 4"):
        Translator(SMALL)(*inputs((1, 3, 9)))
    with pytest.raises(OutOfRangeError, match="at least 8 and 2"):
        Translator(TranslatorConfig(channels=4))
    with pytest.raises(OutOfRangeError, match="at least 8 and 2"):
        Translator(TranslatorConfig(cell=1))


def test_a_pixel_depends_on_no_more_than_the_margin_around_it():
    model, (image, source, target, noise) = stirred(), inputs((1, 96, 96))
    levels = levels_of(image)
    with torch.no_grad():
        whole = model(image, source, target, noise, levels)
        m = model.margin
        part = (slice(None), slice(0, 96), slice(20, 96))  # even, so that the cells of two pixels stay the same
        cut = model(image[part], source, target, noise[part], levels)
        torch.testing.assert_close(cut[:, :, m:], whole[:, :, 20 + m :], rtol=1e-5, atol=0.05)
        changed = image.clone()
        changed[:, 40, 40] += 5000
        reach = (model(changed, source, target, noise, levels) - whole)[0].abs().amax(0).nonzero()[:, 0]
    assert 40 - reach.min() <= m and reach.max() - 40 <= m
    assert reach.max() - 40 >= m - 3  # and the margin is no larger than it has to be


def test_without_a_condition_it_is_told_nothing():
    model, (image, source, target, noise) = stirred(TranslatorConfig(condition=0, channels=8, blocks=1)), inputs()
    with torch.no_grad():
        assert torch.equal(model(image, source, target, noise), model(image, -source, target + 3, noise))


def test_levels_are_a_low_quantile_the_mean_and_the_spread():
    image = torch.arange(10_000.0).reshape(1, 100, 100)[:, torch.randperm(100)]
    dark, mean, spread = levels_of(image)[0]
    assert 0 <= dark < 400 and mean == pytest.approx(4999.5) and spread == pytest.approx(2886.9, rel=1e-3)
    assert levels_of(torch.full((1, 8, 8), 7.0))[0].tolist() == [7.0, 7.0, 1.0]


def test_critic_sees_the_settings_the_scale_of_the_counts_and_the_picture():
    torch.manual_seed(0)
    critic, (image, own, other, _) = PatchDiscriminator(8, 8), inputs((2, 64, 32))
    with torch.no_grad():
        score = critic(image, own)
        assert score.shape == (2, 16, 8)
        assert (critic(image, other) - score).abs().max() > 1e-4
        assert (critic(2 * image, own) - score).abs().max() > 1e-4
        rough = image + 3 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
        assert (critic(rough, own) - score).abs().max() > 1e-4  # a thousandth of the spread, which is the noise
        turned = critic(image.flip(1), own)
        assert not torch.allclose(turned.mean(), score.mean(), atol=1e-7)
        blind = PatchDiscriminator(0, 8)
        assert torch.equal(blind(image, own), blind(image, other))
