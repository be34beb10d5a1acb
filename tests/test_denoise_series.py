"""Frame series: neighbours help, drift is followed, and what changes in one frame stays in it."""

import hyperspy.api as hs
import numpy as np
import pytest
from denoise_methods import Adapted, Blur
from scipy import ndimage

import cimp_core as cimp
from cimp_core.denoising.pairs import low_dose, virtual_truth
from cimp_core.denoising.register import find_shift, prepared
from cimp_core.denoising.series import fuse, weights_of
from cimp_core.digital_twin import scan_of
from cimp_core.errors import OutOfRangeError
from cimp_core.simulate.detector import record

DRIFT = (0.7, -1.3)  # px a frame


@pytest.fixture(scope="module")
def twin():
    return cimp.twin(60, 96, 0)


def recorded(twin, image, electrons, count=6, drift=DRIFT, change=None):
    """Frames of a drifting area, what each is expected to be at 16 times the dose, and the settings."""
    shot, fraction = scan_of(twin, image)
    rng = np.random.default_rng(image)
    settings, _ = low_dose(shot, fraction, electrons, 5e-6, rng)
    frames, truths = [], []
    for k in range(count):
        moved = ndimage.shift(fraction, (drift[0] * k, drift[1] * k), order=3, mode="reflect").clip(0)
        if change is not None:
            moved = change(k, moved)
        frames.append(record(moved, settings, shot.detector, rng))
        truths.append(virtual_truth(shot, moved, settings, 16))
    return np.stack(frames), np.stack(truths), settings


def micrograph(frames, settings):
    signal = hs.signals.Signal2D(frames)
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = settings.pixel_size * 1e9, "nm"
    return cimp.Micrograph.from_signal(signal, override={"beam_current": settings.beam_current, "dwell_time": 5e-6})


def error(image, truth):
    return float(np.mean((image.astype(float) - truth) ** 2))


def denoised(shot, sigma=1.0):
    with pytest.warns(UserWarning):
        return cimp.denoise(shot, method=Blur(sigma), settings="trust")


@pytest.mark.parametrize("image", [3, 12, 45, 57])
def test_the_series_beats_each_frame_alone(twin, image):
    frames, truths, settings = recorded(twin, image, 50)
    together = denoised(micrograph(frames, settings), 0.4)
    assert together.image.data.shape == frames.shape and together.image.data.dtype == frames.dtype
    for i, frame in enumerate(frames):
        alone = denoised(micrograph(frame, settings), 0.4).image.data
        assert error(together.image.data[i], truths[i]) < 0.6 * error(alone, truths[i]), i
    told = together.provenance["frames"]
    assert all(t["used"] == 5 and t["dose"] > 3 for t in told)


def test_the_method_is_told_the_dose_of_the_average(twin):
    frames, _, settings = recorded(twin, 12, 50)
    method = Blur()
    with pytest.warns(UserWarning):
        out = cimp.denoise(micrograph(frames, settings), method=method, settings="trust")
    currents = [acquisition.beam_current / settings.beam_current for _, acquisition, _ in method.calls]
    doses = [t["dose"] for t in out.provenance["frames"]]
    assert sorted({round(c, 2) for c in currents} - {1.0}) == pytest.approx(sorted(set(doses)), abs=0.011)
    assert {acquisition.dwell_time for _, acquisition, _ in method.calls} == {5e-6}


def test_a_change_in_one_frame_stays_in_that_frame(twin):
    def add_a_particle(k, fraction):
        if k == 3:
            fraction = fraction.copy()
            fraction[30:46, 50:66] += 1.5 * np.quantile(fraction, 0.9)
        return fraction

    frames, truths, settings = recorded(twin, 12, 50, drift=(0, 0), change=add_a_particle)
    plain, _, _ = recorded(twin, 12, 50, drift=(0, 0))
    out = denoised(micrograph(frames, settings)).image.data.astype(float)
    inside = np.s_[33:43, 53:63]
    step = truths[3][inside].mean() - truths[2][inside].mean()
    assert out[3][inside].mean() - truths[3][inside].mean() == pytest.approx(0, abs=0.05 * step)
    for k in (0, 1, 2, 4, 5):
        assert out[k][inside].mean() - truths[k][inside].mean() == pytest.approx(0, abs=0.05 * step), k
    naive = np.mean(frames.astype(float), axis=0)
    assert abs(naive[inside].mean() - truths[3][inside].mean()) > 0.5 * step  # an average without weights loses it


def test_frames_that_share_nothing_are_denoised_alone_and_it_is_said(twin):
    frames = np.stack([recorded(twin, i, 50, 1)[0][0] for i in (3, 12, 30)])
    settings = recorded(twin, 3, 50, 1)[2]
    with pytest.warns(UserWarning, match="denoised alone: 0, 1, 2"):
        out = cimp.denoise(micrograph(frames, settings), method=Blur(1.0), settings="trust")
    for i, frame in enumerate(frames):
        alone = denoised(micrograph(frame, settings)).image.data
        assert np.array_equal(out.image.data[i], alone)


def test_drift_beyond_the_field_leaves_a_frame_alone():
    rng = np.random.default_rng(0)
    wide = ndimage.gaussian_filter(rng.standard_normal((128, 700)), 4) * 40 + 20
    places = (0, 10, 500, 20)
    frames = np.stack([rng.poisson(wide[:, x : x + 128].clip(1)) for x in places]).astype(np.float32)
    with pytest.warns(UserWarning, match="denoised alone: 2$"):
        out = cimp.denoise(frames, method=Blur(1.0))
    assert [t["used"] for t in out.provenance["frames"]] == [2, 2, 0, 2]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.4, -7.8), (-12.5, 20.2)])
def test_shifts_are_found_to_a_fraction_of_a_pixel(shift):
    rng = np.random.default_rng(1)
    large = ndimage.gaussian_filter(rng.standard_normal((220, 240)), 3) * 60 + 20
    moved = ndimage.shift(large, shift, order=3)
    cut = np.s_[40:180, 40:190]
    a, b = (rng.poisson(x[cut].clip(0.5)).astype(np.float32) for x in (large, moved))
    found = find_shift(prepared(a), prepared(b))
    assert (found.down, found.right) == pytest.approx((-shift[0], -shift[1]), abs=0.25)
    assert found.trusted


def test_noise_alone_is_not_trusted():
    rng = np.random.default_rng(2)
    frames = rng.poisson(5, (30, 96, 96)).astype(np.float32)
    copies = [prepared(f) for f in frames]
    assert sum(find_shift(copies[0], c).trusted for c in copies[1:]) <= 1


def test_weights_of_frames_that_differ_by_noise_are_one():
    rng = np.random.default_rng(3)
    expected = ndimage.gaussian_filter(rng.standard_normal((256, 256)), 5) * 200 + 60
    a, b = (rng.poisson(expected.clip(1)).astype(np.float32) for _ in range(2))
    weights = weights_of(a, b, np.ones(a.shape, bool))
    assert weights.mean() > 0.97
    b[100:120, 80:100] += 30
    weights = weights_of(a, b, np.ones(a.shape, bool))
    assert weights[103:117, 83:97].max() < 0.05 and weights[:80].mean() > 0.97


def test_fusing_nothing_is_the_frame():
    frame = np.random.default_rng(4).random((40, 50)).astype(np.float32)
    fused, dose, helped = fuse(frame, [])
    assert helped == 0 and np.array_equal(fused, frame) and np.all(dose == 1)


def test_a_blank_frame_stays_blank_and_helps_nobody():
    rng = np.random.default_rng(5)
    frames = rng.poisson(ndimage.gaussian_filter(rng.random((64, 64)), 3) * 200, (3, 64, 64)).astype(np.uint16)
    frames[1] = 7
    with pytest.warns(UserWarning, match="frame 1 is constant"):
        out = cimp.denoise(frames, method=Blur())
    assert np.all(out.image.data[1] == 7) and out.provenance["frames"][1]["used"] == 0
    with pytest.raises(OutOfRangeError, match="every frame is constant"):
        cimp.denoise(np.full((3, 64, 64), 7, np.uint16), method=Blur(), settings="ignore")


def test_a_blank_first_frame_is_not_what_the_settings_are_compared_with(twin, monkeypatch):
    from cimp_core.denoising import trust

    seen = []

    def check(frame, acquisition, *, absolute, model):
        seen.append(frame)
        return trust.Trust(acquisition, "agree", 0.5)

    monkeypatch.setattr(trust, "check", check)
    frames, _, settings = recorded(twin, 57, 20, 3)
    frames[0] = 7
    with pytest.warns(UserWarning, match="frame 0 is constant"):
        out = cimp.denoise(micrograph(frames, settings), method=Blur())
    assert len(seen) == 1 and np.array_equal(seen[0], frames[1])
    assert out.provenance["noise"]["noise"] > 0 and np.all(out.image.data[0] == 7)


def test_a_lazy_series_gives_what_one_in_memory_gives(twin):
    frames, _, settings = recorded(twin, 57, 20, 4)
    method = Adapted(1.0)
    with pytest.warns(UserWarning):
        here = cimp.denoise(hs.signals.Signal2D(frames), method=method)
        lazy = cimp.denoise(hs.signals.Signal2D(frames).as_lazy(), method=Adapted(1.0))
    assert np.array_equal(here.image.data, lazy.image.data) and not lazy.image._lazy
    assert lazy.uncertainty.data.shape == frames.shape and lazy.uncertainty.data.dtype == np.float32


def test_a_series_of_one_frame_keeps_its_shape():
    frame = np.random.default_rng(6).poisson(30, (1, 40, 44)).astype(np.uint16)
    with pytest.warns(UserWarning):
        out = cimp.denoise(hs.signals.Signal2D(frame), method=Blur())
    assert out.image.data.shape == (1, 40, 44) and out.uncertainty.data.shape == (1, 40, 44)
