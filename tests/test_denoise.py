"""`cimp.denoise`: what comes back, what is refused, what is warned of, and the record of how it was made."""

import json
import subprocess
import sys
import types
import warnings

import hyperspy.api as hs
import numpy as np
import pytest
from denoise_methods import Blur
from velox_files import SETTINGS

import cimp_core as cimp
from cimp_core.denoising.exposure import exposure
from cimp_core.denoising.pairs import low_dose, with_readout
from cimp_core.digital_twin import scan_of
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import PARAMETERS, Acquisition
from cimp_core.microscope.velox_writer import write_velox

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(30, (40, 52)).astype(np.uint16) * 20


class Learnt(Blur):
    """A stand-in for the network."""

    name, learnt, weights, sha256 = "direct", True, "cimp-dose-s", "ab" * 32


@pytest.fixture
def trust(monkeypatch):
    """A stand-in for the comparison of settings and picture: set ``answer`` to what it should give."""
    module = types.ModuleType("cimp_core.denoising.trust")
    module.seen = []

    def check(frame, acquisition, *, absolute, model):
        assert model == "encoder" and absolute
        module.seen.append((frame, acquisition))
        return module.answer(acquisition)

    module.check = check
    module.answer = lambda a: types.SimpleNamespace(acquisition=a, verdict="agree", cosine=0.5, reasons=())
    monkeypatch.setattr(Blur, "encoder", "encoder")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def shot(tmp_path):
    return cimp.read(write_velox(tmp_path / "a.emd", COUNTS, SETTINGS))[0]


def signal(data=COUNTS, units="nm", scale=0.02):
    made = hs.signals.Signal2D(np.array(data))
    for axis in made.axes_manager.signal_axes:
        axis.units, axis.scale = units, scale
    made.axes_manager.signal_axes[0].offset = 1.5
    made.metadata.General.title = "particle"
    made.original_metadata.set_item("Maker.key", 7)
    return made


def quiet(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return cimp.denoise(*arguments, **{"method": Blur()} | options)


def test_the_public_name_is_the_function_whatever_was_imported_before():
    code = (
        "import cimp_core.denoising, cimp_core.denoising.tiles, cimp_core as cimp, sys\n"
        "assert callable(cimp.denoise) and cimp.denoise is cimp_core.denoising.denoise\n"
        "assert not {'torch', 'hyperspy', 'skimage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", "import cimp_core\n" + code], check=True)


def test_a_micrograph_comes_back_with_its_axes_and_metadata(shot, trust):
    out = cimp.denoise(shot, method=Blur())
    assert isinstance(out, cimp.Denoised)
    assert out.image.data.dtype == np.uint16 and out.uncertainty.data.dtype == np.float32
    for new, old in zip(out.image.axes_manager._axes, shot.image.axes_manager._axes, strict=True):
        assert (new.scale, new.units, new.offset, new.size) == (old.scale, old.units, old.offset, old.size)
    assert out.image.original_metadata.as_dictionary() == shot.image.original_metadata.as_dictionary()
    assert out.image.metadata.General.title == shot.image.metadata.General.title
    assert "not a recording" in out.image.metadata.General.notes
    assert out.image.metadata.CIMP.denoise.as_dictionary()["dose_factor"] == 16
    assert not out.image.metadata.has_item("Signal.Noise_properties")
    assert np.array_equal(shot.image.data, COUNTS) and not shot.image.metadata.has_item(
        "CIMP"
    )  # the input is as it was
    expected = Blur()(COUNTS.astype(np.float32), shot.acquisition, 16.0)[0]
    assert np.array_equal(out.image.data, np.rint(expected))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "float32", "float64", ">u2"])
def test_dtype_is_kept(dtype):
    data = (COUNTS // 20).astype(dtype)
    out = quiet(data)
    assert out.image.data.dtype == np.dtype(dtype)
    flat = quiet(data, keep_dtype=False)
    assert flat.image.data.dtype == np.float32
    np.testing.assert_allclose(out.image.data, flat.image.data, atol=0.5001 if np.dtype(dtype).kind in "ui" else 0.01)


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (300, 41)])
def test_odd_and_small_sizes(shape):
    data = np.random.default_rng(1).poisson(20, shape).astype(np.uint16)
    assert quiet(data, tile=64).image.data.shape == shape


def test_a_signal_keeps_offset_and_title_and_an_array_has_none():
    out = quiet(signal())
    assert out.image.axes_manager.signal_axes[0].offset == 1.5 and out.image.original_metadata.Maker.key == 7
    assert out.uncertainty.metadata.General.title == "standard deviation of particle"
    assert out.uncertainty.axes_manager.signal_axes[0].scale == 0.02
    assert set(out.provenance["settings"]["missing"]) == set(PARAMETERS)
    assert "no settings" in quiet(COUNTS).provenance["notes"][0]


def test_the_record_says_how_it_was_made_and_json_holds_it(shot, trust):
    out = cimp.denoise(shot, 32, method=Learnt(), seed=5, tile=64, settings="check")
    record = json.loads(json.dumps(out.provenance))
    assert record["method"] == "direct" and record["weights"] == "cimp-dose-s" and record["sha256"] == "ab" * 32
    assert record["dose_factor"] == 32 and record["seed"] == 5 and record["input"] == shot.path
    assert record["program"] == f"cimp_core {cimp.__version__}" and record["tile"]["side"] == 64
    assert record["settings"]["verdict"] == "agree" and record["settings"]["ignored"] == {}
    assert record["settings"]["used"] == {n: getattr(SETTINGS, n) for n in PARAMETERS}
    assert record["noise"]["noise"] > 0 and record["dtype"] == "uint16"


def test_the_record_survives_a_file(shot, trust, tmp_path):
    out = cimp.denoise(shot, method=Blur())
    out.image.save(tmp_path / "out.hspy")
    back = cimp.read(tmp_path / "out.hspy")[0]
    assert back.image.metadata.CIMP.denoise.settings.verdict == "agree"
    with pytest.raises(OutOfRangeError, match="virtual already"):
        cimp.denoise(back, method=Blur())
    with pytest.warns(UserWarning, match="denoised twice"):
        cimp.denoise(back, method=Blur(), anyway=True)


def test_settings_that_disagree_are_left_out_and_it_is_said(shot, trust):
    def answer(acquisition):
        doubted = Acquisition(**{n: getattr(acquisition, n) for n in PARAMETERS if n != "beam_current"},
                              missing={"beam_current": "the noise says ten times less"})  # fmt: skip
        return types.SimpleNamespace(acquisition=doubted, verdict="disagree", cosine=0.2, reasons=())

    trust.answer, method = answer, Blur()
    with pytest.warns(UserWarning, match="disagree with the picture; denoised without beam_current"):
        out = cimp.denoise(shot, method=method)
    assert out.provenance["settings"]["ignored"] == {"beam_current": "the noise says ten times less"}
    assert "beam_current" not in out.provenance["settings"]["used"]
    assert method.calls[0][1].beam_current is None and method.calls[0][1].dwell_time == SETTINGS.dwell_time
    assert any("disagree" in text for text in out.provenance["warnings"])
    frame, recorded = trust.seen[0]
    assert frame.dtype == np.float32 and recorded == shot.acquisition


def test_the_true_comparison_finds_settings_of_another_image(tmp_path):
    twin = cimp.twin(60, 96, 0)
    for settings, verdict in ((twin.acquisition(12), "agree"), (twin.acquisition(41), "disagree")):
        file = write_velox(tmp_path / f"{verdict}.emd", twin.image(12), settings)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            out = cimp.denoise(cimp.read(file)[0], method=Blur())
        assert out.provenance["settings"]["verdict"] == verdict
        assert any("disagree with the picture" in str(w.message) for w in said) == (verdict == "disagree")
        assert json.dumps(out.provenance)


def test_trust_believes_and_ignore_does_not_look(shot, trust):
    method = Blur()
    cimp.denoise(shot, method=method, settings="trust")
    assert method.calls[-1][1] == shot.acquisition
    out = cimp.denoise(shot, method=method, settings="ignore")
    assert all(getattr(method.calls[-1][1], n) is None for n in PARAMETERS) and not trust.seen
    assert set(out.provenance["settings"]["ignored"]) == set(PARAMETERS) and out.provenance["warnings"] == []


class Blind(Blur):
    name = "gaussian"


def test_a_method_that_uses_no_settings_is_not_told_that_they_are_missing(shot, trust):
    assert cimp.denoise(COUNTS, method=Blind()).provenance["warnings"] == []
    out = cimp.denoise(shot, method=Blind())
    assert not trust.seen and out.provenance["settings"]["verdict"] == "not asked: the method uses no settings"


def test_missing_settings_are_said(trust):
    with pytest.warns(UserWarning, match="all seven settings not known"):
        cimp.denoise(COUNTS, method=Blur())
    some = cimp.Micrograph.from_signal(signal(), override={"dwell_time": 1e-6})
    with pytest.warns(UserWarning, match="convergence_angle, beam_current.* not known"):
        out = cimp.denoise(some, method=Blur(), settings="trust")
    assert out.provenance["settings"]["used"]["dwell_time"] == 1e-6


def holed():
    data = COUNTS.astype(float)
    data[3, 4], data[5, 6] = np.nan, np.inf
    return data


BAD = {
    "2 pixels are nan or infinite": holed,
    "same value": lambda: np.full((40, 40), 7, np.uint16),
    "at least 32 x 32": lambda: COUNTS[:31],
    "colour picture": lambda: np.zeros((40, 40, 3), np.uint8),
    r"\(h, w\)": lambda: np.zeros((2, 2, 40, 40)),
    "complex data": lambda: hs.signals.ComplexSignal2D(np.zeros((40, 40), complex)),
    "data of type bool": lambda: np.zeros((40, 40), bool),
    "axes in 1/nm": lambda: signal(units="1/nm"),
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_no_image_is_refused(reason):
    with pytest.raises(OutOfRangeError, match=reason):
        quiet(BAD[reason]())


@pytest.mark.parametrize("factor", [1, 0, -4, 1025, float("nan"), float("inf"), "16", None, True])
def test_dose_factors(factor):
    with pytest.raises(OutOfRangeError, match="dose factor"):
        quiet(COUNTS, factor)


@pytest.mark.parametrize("options", [{"method": "magic"}, {"method": 3}, {"method": lambda *a: a}, {"settings": "all"}])
def test_options_that_do_not_exist(options):
    with pytest.raises(OutOfRangeError):
        quiet(COUNTS, **options)


def test_clipped_pixels_and_few_levels_are_warned_of():
    data = COUNTS.copy()
    data[:4] = 65535
    with pytest.warns(UserWarning, match="clipped"):
        cimp.denoise(data, method=Blur(), settings="ignore")
    few = RNG.poisson(3, (40, 40)).astype(np.uint8)
    with pytest.warns(UserWarning, match="keep_dtype=False"):
        cimp.denoise(few, method=Blur(), settings="ignore")
    assert quiet(few, keep_dtype=False).provenance["warnings"] == ["the image: all seven settings not known"]


def noisy(electrons, counts=200):
    ramp = np.linspace(0.1, 1, 256) * np.ones((256, 1)) * electrons
    return (RNG.poisson(ramp) * counts + 1000).astype(np.float32)


@pytest.mark.parametrize("electrons", [2, 20, 200])
def test_electrons_are_read_from_the_noise(electrons):
    seen = exposure(noisy(electrons))
    assert seen.electrons == pytest.approx(electrons, rel=0.25)
    assert seen.counts_per_electron == pytest.approx(200, rel=0.25)
    assert seen.zero == pytest.approx(1000, abs=0.1 * electrons * 200)


def test_outside_of_the_training_range_a_learnt_method_warns_and_others_do_not(trust):
    with pytest.warns(UserWarning, match="trained for 0.3 to 1000"):
        out = cimp.denoise(noisy(5000), method=Learnt(), settings="ignore")
    assert any("electrons at the bright pixel" in text for text in out.provenance["warnings"])
    assert quiet(noisy(50), method=Learnt(), settings="ignore").provenance["warnings"] == []
    assert quiet(noisy(5000), settings="ignore").provenance["warnings"] == []
    large = cimp.Micrograph.from_signal(signal(noisy(50), scale=20.0))
    with pytest.warns(UserWarning, match="pixels of 20 nm"):
        cimp.denoise(large, method=Learnt(), settings="trust")


def test_another_detector_is_refused_by_a_learnt_method_only(tmp_path, trust):
    file = write_velox(tmp_path / "b.emd", COUNTS, SETTINGS, detector="DF4")
    other = cimp.read(file, detector="DF4")[0]
    with pytest.raises(OutOfRangeError, match="DF4; the method was trained on HAADF"):
        cimp.denoise(other, method=Learnt())
    with pytest.warns(UserWarning, match="detector DF4"):
        cimp.denoise(other, method=Learnt(), anyway=True)
    cimp.denoise(other, method=Blur(), settings="trust")


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_regions_keep_their_mean_in_both_readouts(readout):
    twin = cimp.twin(60, 96, 0)
    made, fraction = scan_of(twin, 12)
    settings, counts = low_dose(with_readout(made, readout), fraction, 200, 1e-6, np.random.default_rng(0))
    out = quiet(counts, keep_dtype=False)
    assert out.image.data.mean() == pytest.approx(counts.mean(), rel=1e-3)


def test_a_lazy_image_gives_what_one_in_memory_gives():
    lazy = quiet(signal().as_lazy())
    assert np.array_equal(lazy.image.data, quiet(signal()).image.data) and not lazy.image._lazy


def test_a_method_without_deviation_gives_no_uncertainty():
    assert quiet(COUNTS, method=Blur(deviation=False)).uncertainty is None


def test_real_files(shared):
    data = shared / "data" / "pycroscopy+SciFiDatasets/data/microscopy/em/tem/EMDReader_Image_FEI.emd"
    (found,) = cimp.read(data)
    out = quiet(found, settings="trust")
    assert out.image.data.shape == (512, 512) and out.image.data.dtype == np.uint16
    assert out.image.axes_manager[0].scale == found.image.axes_manager[0].scale
    assert set(out.provenance["settings"]["used"]) == {"pixel_size", "dwell_time", "beam_current"}
    assert out.image.data.astype(float).std() < found.image.data.astype(float).std()
