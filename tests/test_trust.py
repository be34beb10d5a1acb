"""Whether settings are believed: the limits on real cosines, and what follows from a cosine that a test chooses."""

import numpy as np
import pytest

import cimp_core as cimp
from cimp_core.denoising import trust
from cimp_core.denoising.trust import LIMIT, LIMIT_RELATIVE
from cimp_core.metadata import PARAMETERS, Acquisition

FRAME = np.zeros((64, 64), np.float32)
ALL = Acquisition(2e-11, 1e-6, 0.02, 5e-11, 40.0, -0.2, 0.05)
HIGH, LOW = max(LIMIT, LIMIT_RELATIVE) + 0.1, 0.1


class Planned:
    """Both towers: the cosine of an image with settings is what a function of the settings' names says."""

    def __init__(self, cosine):
        self.cosine, self.absolute, self.asked = cosine, [], []

    def embed_images(self, images, *, absolute):
        assert len(images) == len(absolute) == 1
        self.absolute += absolute
        return np.array([[1.0, 0.0]], np.float32)

    def embed_metadata(self, acquisitions):
        (settings,) = acquisitions
        names = {n for n in PARAMETERS if getattr(settings, n) is not None}
        self.asked.append(names)
        c = self.cosine(names)
        return np.array([[c, np.sqrt(1 - c * c)]], np.float32)


def asked(cosine, settings=ALL, absolute=True):
    model = Planned(cosine)
    return trust.check(FRAME, settings, absolute=absolute, model=model), model


@pytest.mark.parametrize("absolute", [True, False])
def test_the_limit_divides_own_settings_from_those_of_another_session(absolute):
    model, data = cimp.load("cimp-twin-s"), cimp.twin(60, 256)
    images = [data.image(i).astype(np.float32) for i in range(60)]
    rows = model.embed_images(images, absolute=[absolute] * 60)
    cosine = rows @ model.embed_metadata([data.acquisition(i) for i in range(60)]).T
    sessions = np.asarray(data.sessions)
    limit = LIMIT if absolute else LIMIT_RELATIVE
    assert np.mean(np.diagonal(cosine) >= limit) > 0.97
    # Where the scale is unknown an image says less, and more wrong settings pass.
    assert np.mean(cosine[sessions[:, None] != sessions] < limit) > (0.92 if absolute else 0.65)


@pytest.mark.parametrize(("absolute", "limit"), [(True, LIMIT), (False, LIMIT_RELATIVE)])
def test_from_the_limit_on_settings_are_believed(absolute, limit):
    found, model = asked(lambda names: limit + 1e-4, absolute=absolute)
    assert found.verdict == "agree" and found.acquisition is ALL and not found.doubted
    assert model.absolute == [absolute] and model.asked == [set(PARAMETERS)]
    assert f"{limit:.2f}" in str(found) and "agree" in str(found)
    found, model = asked(lambda names: limit - 1e-4, absolute=absolute)
    assert found.verdict == "disagree" and model.absolute == [absolute]


@pytest.mark.parametrize("wrong", PARAMETERS)
def test_the_one_setting_without_which_the_others_agree_is_doubted(wrong):
    settings = ALL if wrong == "beam_current" else ALL.replace(beam_current=None)
    found, _ = asked(lambda names: LOW if wrong in names else HIGH, settings)
    assert found.verdict == "disagree" and found.doubted == (wrong,)
    assert found.cosine == pytest.approx(LOW)  # of all settings, not of those that are left
    assert found.acquisition == settings.replace(**{wrong: None})
    assert "disagrees" in found.acquisition.missing[wrong] and wrong in str(found) and f"{LOW:.2f}" in str(found)


def test_the_setting_whose_loss_helps_most_is_doubted():
    gain = {"dwell_time": 0.02, "detector_gain": 0.04, "detector_offset": 0.01}
    found, _ = asked(lambda names: LIMIT - 0.005 + sum(more for name, more in gain.items() if name not in names))
    assert found.doubted == ("detector_gain",)


def test_none_is_believed_where_no_single_one_explains_it():
    settings = ALL.replace(beam_current=None)
    found, _ = asked(lambda names: LIMIT - 0.2 + 0.1 * ("dwell_time" not in names), settings)
    assert found.verdict == "disagree" and found.acquisition == Acquisition()
    assert set(found.doubted) == set(PARAMETERS) - {"beam_current"}
    assert all(name in str(found) for name in found.doubted)


def test_what_was_missing_before_keeps_its_reason():
    settings = Acquisition(*ALL.vector()[:3], missing={"beam_current": "beam off?"})
    found, _ = asked(lambda names: LOW if "dwell_time" in names else HIGH, settings)
    assert found.acquisition.missing["beam_current"] == "beam off?"
    assert found.acquisition.missing["dwell_time"] != found.acquisition.missing["detector_gain"]


def test_of_two_settings_that_disagree_neither_can_be_blamed():
    settings = Acquisition(dwell_time=1e-6, detector_gain=40.0)
    found, _ = asked(lambda names: LOW if len(names) == 2 else HIGH, settings)
    assert found.doubted == ("dwell_time", "detector_gain")
    assert asked(lambda names: HIGH, settings)[0].verdict == "agree"


@pytest.mark.parametrize("settings", [Acquisition(), Acquisition(dwell_time=1e-6)])
def test_fewer_than_two_settings_are_neither_believed_nor_doubted(settings):
    found, model = asked(lambda names: HIGH, settings)
    assert found.verdict == "missing" and found.cosine is None and not model.asked
    assert found.acquisition is settings and "no settings" in str(found)


def test_without_a_model_the_shipped_one_is_asked(monkeypatch):
    loaded, model = [], Planned(lambda names: HIGH)
    monkeypatch.setattr(trust, "load", lambda name: loaded.append(name) or model)
    assert trust.check(FRAME, ALL, absolute=True).verdict == "agree"
    assert loaded == ["cimp-twin-s"] and model.absolute == [True]
    trust.check(FRAME, ALL, absolute=True, model=Planned(lambda names: HIGH))
    assert len(loaded) == 1
