"""Re-rendering: what arithmetic does exactly, what it only estimates, what is refused, and what is said."""

import numpy as np
import pytest
import torch

import cimp_core as cimp
from cimp_core.analytic import AnalyticModel, analytic, fit_analytic, image_noise, thinned
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import Acquisition, Normalizer
from cimp_core.microscope import Micrograph
from cimp_core.models import Cimp, CimpConfig, Translator, TranslatorConfig
from cimp_core.renderer import Renderer
from cimp_core.rerendering import ROUTES, Rerendered, rerender
from cimp_core.simulate.detector import Detector, expected_counts, record

OWN = Acquisition(20e-12, 8e-6, 0.02, 60e-12, 32.0, -1.2, 0.06)
CLEAN = {"dark_current": 0.0, "pulse_height_spread": 0.0, "decay_time": 0.0, "read_noise": 0.0}
IDEAL = Detector(4200, 0.2, 13_900, 6_800, **CLEAN)
MODEL = AnalyticModel(0.2, 13_900, 6_800)


def fraction(size=192):
    """A smooth specimen with vacuum on one side."""
    y, x = np.mgrid[:size, :size] / size
    return 0.12 * np.clip(1.2 * x - 0.15, 0, 1) * (0.8 + 0.2 * np.sin(6 * y))


def shot(settings, detector=IDEAL, seed=0):
    return record(fraction(), settings, detector, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def renderer():
    torch.manual_seed(0)
    vectors = np.stack([OWN.vector() * f for f in (0.8, 1.0, 1.25)])
    encoder = Cimp(CimpConfig(dim=16, hidden=32, spectrum=8).with_normalizer(Normalizer.fit(vectors))).eval()
    translator = Translator(TranslatorConfig(condition=16, channels=8, blocks=1, hidden=16, encoder=""))
    for parameter in translator.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return Renderer(translator, encoder)


def test_counts_per_electron_and_black_level_are_read_from_the_noise():
    per_electron = IDEAL.slope_at(32.0) * 1.602e-19 / 8e-6 * 1e12
    found = image_noise(shot(OWN))
    assert found.certain and found.per_electron == pytest.approx(per_electron, rel=0.15)
    assert found.black == pytest.approx(IDEAL.black_at(-1.2), abs=500)
    through = image_noise(shot(OWN), black=IDEAL.black_at(-1.2))
    assert through.per_electron == pytest.approx(per_electron, rel=0.12)
    spread = Detector(4200, 0.2, 13_900, 6_800, **CLEAN | {"pulse_height_spread": 0.7})
    assert image_noise(shot(OWN, spread)).per_electron == pytest.approx(1.49 * per_electron, rel=0.15)
    flat = np.full((64, 64), 9000, np.uint16)
    assert not image_noise(flat).certain and image_noise(flat).per_electron == 0


def test_gain_and_offset_are_exact_where_the_model_is():
    target = OWN.replace(detector_gain=34.5, detector_offset=-1.5)
    before, after = (expected_counts(fraction(), a, IDEAL) for a in (OWN, target))
    made = analytic(before, OWN, target, model=MODEL)
    np.testing.assert_allclose(made, np.clip(after, 0, 65535), atol=0.02)
    assert np.abs(before - after).max() > 2000


def test_a_lower_dose_has_the_mean_and_the_noise_of_a_recording():
    for change in ({"dwell_time": 1e-6}, {"beam_current": 12e-12}):
        target = OWN.replace(**change)
        made = np.stack([analytic(shot(OWN, seed=k), OWN, target, model=MODEL, seed=k) for k in range(12)])
        true = np.stack([shot(target, seed=100 + k) for k in range(12)]).astype(float)
        assert made.mean() == pytest.approx(true.mean(), rel=0.004)
        ratio = made.std(0).mean() / true.std(0).mean()
        assert ratio == pytest.approx(1, abs=0.06), change
        left = np.s_[:, :, :20]  # vacuum: no electrons, no noise
        assert made[left].std() == pytest.approx(true[left].std(), abs=3)


def test_a_higher_dose_changes_no_noise_and_current_scales_the_counts():
    frame, black = shot(OWN).astype(np.float32), IDEAL.black_at(-1.2)
    np.testing.assert_allclose(analytic(frame, OWN, OWN.replace(dwell_time=40e-6), model=MODEL), frame, atol=0.01)
    made = analytic(frame, OWN, OWN.replace(beam_current=90e-12), model=MODEL)
    np.testing.assert_allclose(made - black, np.minimum(1.5 * (frame - black), 65535 - black), atol=0.05)


def test_thinning_is_binomial_and_keeps_its_mean():
    rng = np.random.default_rng(0)
    electrons = rng.poisson(4.0, 200_000).astype(float)
    kept = thinned(electrons, 0.3, rng)
    assert kept.mean() == pytest.approx(1.2, rel=0.01) and kept.var() == pytest.approx(1.2, rel=0.02)
    assert (kept <= electrons).all()
    assert thinned(np.full(100_000, 0.25), 1.0, rng).mean() == pytest.approx(0.25, rel=0.03)


def test_model_is_fitted_from_images_and_settings_alone():
    class Fake:
        path, settings = "fake", []

        def __len__(self):
            return len(self.settings)

        def image(self, i):
            return shot(self.settings[i], seed=i)

    rng, data = np.random.default_rng(1), Fake()
    for _ in range(24):
        gain, offset, dwell = rng.uniform(29, 34), rng.choice([-1.6, -1.2, -0.9]), rng.choice([2e-6, 4e-6, 8e-6])
        data.settings = [*data.settings, OWN.replace(detector_gain=gain, detector_offset=offset, dwell_time=dwell)]
    data.metadata_raw = np.array([a.vector() for a in data.settings])
    found = fit_analytic(data)
    assert found.slope_exponent == pytest.approx(0.2, abs=0.02)
    assert found.black_per_offset == pytest.approx(6800, rel=0.03)
    assert found.black_level == pytest.approx(13_900, rel=0.03)
    data.settings = data.settings[:5]
    data.metadata_raw = data.metadata_raw[:5]
    with pytest.raises(OutOfRangeError, match="too few"):
        fit_analytic(data)


def test_shipped_model_is_near_the_mean_instrument_of_the_twin():
    model = AnalyticModel.shipped()
    assert 0.15 < model.slope_exponent < 0.23 and 5300 < model.black_per_offset < 9000 and model.images > 1000


def test_each_change_takes_the_better_route_and_it_is_said(renderer, monkeypatch):
    monkeypatch.setitem(ROUTES, "convergence_angle", ("generator", "generator"))
    frame = shot(OWN)
    made = rerender(frame, OWN, renderer=renderer, model=MODEL, detector_gain=33.0, convergence_angle=0.015)
    assert isinstance(made, Rerendered) and made.image.shape == frame.shape and made.image.dtype == np.float32
    assert made.route == {"convergence_angle": "generator", "detector_gain": "analytic"}
    assert made.acquisition == OWN.replace(detector_gain=33.0, convergence_angle=0.015)
    assert any("may be invented" in note for note in made.notes) and any("slope" in note for note in made.notes)
    middle = OWN.replace(convergence_angle=0.015)
    step = renderer(frame, OWN, middle, seed=0)
    np.testing.assert_array_equal(made.image, analytic(step, middle, made.acquisition, model=MODEL, seed=0))


def test_no_change_gives_back_the_image_and_a_forced_route_is_taken(renderer):
    frame = shot(OWN)
    same = rerender(frame, OWN, dwell_time=OWN.dwell_time)
    np.testing.assert_array_equal(same.image, frame)
    assert same.route == {} and same.notes == ()
    forced = rerender(frame, OWN, route="generator", renderer=renderer, detector_offset=-1.0)
    assert forced.route == {"detector_offset": "generator"}
    np.testing.assert_array_equal(forced.image, renderer(frame, OWN, forced.acquisition))
    with pytest.raises(OutOfRangeError, match="changes the optics"):
        rerender(frame, OWN, route="analytic", convergence_angle=0.015)
    with pytest.raises(OutOfRangeError, match="route is 'magic'"):
        rerender(frame, OWN, route="magic", detector_gain=33.0)


def test_a_change_that_no_route_renders_well_is_left_and_that_is_said(monkeypatch):
    monkeypatch.setitem(ROUTES, "convergence_angle", ("unchanged", "unchanged"))
    made = rerender(shot(OWN), OWN, convergence_angle=0.015)
    np.testing.assert_array_equal(made.image, shot(OWN))
    assert made.route == {"convergence_angle": "unchanged"} and "left as it is" in made.notes[0]
    both = rerender(shot(OWN), OWN, model=MODEL, convergence_angle=0.015, detector_offset=-1.0)
    only = rerender(shot(OWN), OWN, model=MODEL, detector_offset=-1.0)
    np.testing.assert_array_equal(both.image, only.image)


def test_more_dose_leaves_the_noise_and_says_so():
    made = rerender(shot(OWN), OWN, model=MODEL, dwell_time=2 * OWN.dwell_time)
    np.testing.assert_array_equal(made.image, shot(OWN))
    assert made.route == {"dwell_time": "analytic"} and "cimp.denoise" in made.notes[0]


def test_series_are_rendered_frame_by_frame_with_noise_of_their_own():
    frames = np.stack([shot(OWN), shot(OWN)])
    made = rerender(frames, OWN, model=MODEL, dwell_time=1e-6)
    assert made.image.shape == frames.shape and np.abs(made.image[0] - made.image[1]).max() > 100
    assert made.route == {"dwell_time": "analytic"} and any("drawn at random" in n for n in made.notes)


def test_a_micrograph_brings_its_own_settings():
    hs = pytest.importorskip("hyperspy.api")
    signal = hs.signals.Signal2D(shot(OWN))
    made = Micrograph(signal, OWN, {}, None, "velox16", "mean", None, {}, [], [])
    result = rerender(made, model=MODEL, detector_gain=33.0)
    np.testing.assert_array_equal(result.image, rerender(shot(OWN), OWN, model=MODEL, detector_gain=33.0).image)
    other = Micrograph(signal, OWN, {}, None, "float", None, "a.dm4", {}, [], [])
    with pytest.raises(OutOfRangeError, match=r"a.dm4: intensities are 'float'"):
        rerender(other, detector_gain=33.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_size": 10e-12}, "another field of view holds another specimen"),
        ({"dwell": 1e-6}, "unknown parameter"),
        ({"dwell_time": -1e-6}, "must be above zero"),
        ({"dwell_time": None}, "is None"),
        ({"convergence_angle": 0.07}, "bright field"),
    ],
    ids=["pixel size", "name", "negative", "none", "bright field"],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(OutOfRangeError, match=message):
        rerender(shot(OWN), OWN, **changes)


def test_unknown_settings_and_other_images_are_refused(renderer, monkeypatch):
    monkeypatch.setitem(ROUTES, "convergence_angle", ("generator", "generator"))
    frame = shot(OWN)
    with pytest.raises(OutOfRangeError, match=r"beam_current of the image is not known \(not given\)"):
        rerender(frame, OWN.replace(beam_current=None), beam_current=1e-10)
    with pytest.raises(OutOfRangeError, match="acquisition is missing"):
        rerender(frame, detector_gain=33.0)
    with pytest.raises(OutOfRangeError, match="outside 0..65535"):
        rerender(frame - 9e4, OWN, detector_gain=33.0)
    with pytest.raises(OutOfRangeError, match="32 px"):
        rerender(frame[:20], OWN, detector_gain=33.0)
    # One that is not changed may be unknown: it is masked, which is said.
    unknown = OWN.replace(beam_current=None)
    made = rerender(frame, unknown, renderer=renderer, convergence_angle=0.015)
    assert any("masked: beam_current" in note for note in made.notes)
    # Without gain and offset there is no arithmetic.
    made = rerender(frame, OWN.replace(detector_gain=None), renderer=renderer, detector_offset=-1.0)
    assert made.route == {"detector_offset": "generator"}


def test_it_is_public():
    assert cimp.rerender is rerender
