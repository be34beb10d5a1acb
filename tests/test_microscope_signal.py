"""`Micrograph.from_signal`: signals from anywhere, and the tags of DigitalMicrograph."""

import hyperspy.api as hs
import numpy as np
import pytest
from velox_files import IMAGE, SETTINGS

from cimp_core.errors import NotHAADFError
from cimp_core.microscope import Micrograph, gatan


def signal(data=IMAGE, units="nm", scale=0.02, **metadata):
    made = hs.signals.Signal2D(np.asarray(data))
    for axis in made.axes_manager.signal_axes:
        axis.units, axis.scale = units, scale
    for key, value in metadata.items():
        made.metadata.set_item(f"Acquisition_instrument.TEM.{key}", value)
    return made


BAD_SIGNALS = {
    "a spectrum": lambda: hs.signals.Signal1D(np.zeros((4, 5))),
    "complex data": lambda: hs.signals.ComplexSignal2D(np.zeros((4, 5), complex)),
    "axes in 1/nm": lambda: signal(units="1/nm"),
    "axes in 1 / µm": lambda: signal(units="1 / µm"),
    "axes in mrad": lambda: signal(units="mrad"),
    "axes in eV": lambda: signal(units="eV"),
    "4D data": lambda: signal(np.zeros((2, 3, 4, 5))),
    "taken in TEM mode": lambda: signal(acquisition_mode="TEM"),
    "data of type bool": lambda: signal(np.zeros((4, 5), bool)),
}


@pytest.mark.parametrize("what", BAD_SIGNALS)
def test_from_signal_refuses_what_is_no_image_and_says_what_it_is(what):
    with pytest.raises(NotHAADFError, match=what):
        Micrograph.from_signal(BAD_SIGNALS[what]())


def test_from_signal_uses_what_hyperspy_knows_in_hyperspy_units():
    made = signal(
        acquisition_mode="STEM", dwell_time=1e-5, convergence_angle=25.0, beam_current=0.05, camera_length=91.0,
        beam_energy=300.0,
    )  # fmt: skip
    shot = Micrograph.from_signal(made, override={"detector_gain": 30.0, "detector_offset": -1.0})
    expected = SETTINGS.replace(inner_collection_angle=None).vector()
    assert shot.acquisition.vector() == pytest.approx(expected, nan_ok=True)
    assert shot.provenance["convergence_angle"] == "file" and shot.provenance["detector_gain"] == "user"
    assert (shot.instrument.voltage, shot.instrument.camera_length) == pytest.approx((300e3, 0.091))
    assert shot.raw["convergence_angle"].key == "Acquisition_instrument.TEM.convergence_angle"
    assert shot.intensity == "unknown" and shot.path is None


@pytest.mark.parametrize("units, metres", [("Å", 1e-10), ("µm", 1e-6), ("μm", 1e-6), ("um", 1e-6), ("pm", 1e-12)])
def test_units_of_length(units, metres):
    assert Micrograph.from_signal(signal(units=units, scale=0.5)).acquisition.pixel_size == pytest.approx(0.5 * metres)


@pytest.mark.parametrize("units, scale", [("", 1.0), ("", 0.03125), ("nm", 1.0), ("px", 2.0)])
def test_an_axis_without_unit_or_of_scale_one_is_not_calibrated(units, scale):
    shot = Micrograph.from_signal(signal(units=units, scale=scale))
    assert shot.acquisition.pixel_size is None and "calibrated" in shot.acquisition.missing["pixel_size"]
    given = Micrograph.from_signal(signal(units=units, scale=scale), override={"pixel_size": 1e-9})
    assert given.acquisition.pixel_size == 1e-9


def test_series_of_a_signal_stays_a_series():
    shot = Micrograph.from_signal(signal(np.zeros((5, 8, 9), np.float32)))
    assert shot.image.axes_manager.navigation_shape == (5,) and shot.intensity == "float"


def dm_tree(units="nm", name=None, probe_current=0.0, **tags):
    size = {"Scale": 0.02, "Units": units}
    tags = {
        "DigiScan": {"Sample Time": 10.0},
        "Microscope Info": {"Voltage": 200000.0, "Probe Current (nA)": probe_current, "Illumination Mode": "STEM"},
        "DataBar": {"Signal Name": name} if name else {},
    } | tags
    return {
        "ImageList": {
            "TagGroup0": {
                "ImageTags": tags,
                "ImageData": {"Calibrations": {"Dimension": {"TagGroup0": size, "TagGroup1": size}}},
            }
        }
    }


def test_gatan_units_are_converted():
    raw = gatan.look_up(dm_tree(probe_current=0.05)).raw
    assert raw["dwell_time"].value == pytest.approx(1e-5) and raw["dwell_time"].unit == "s"
    assert raw["beam_current"].value == pytest.approx(5e-11) and raw["beam_current"].unit == "A"
    assert raw["pixel_size"].value == pytest.approx(2e-11) and raw["pixel_size"].unit == "m"
    assert raw["pixel_size"].key == "ImageList.TagGroup0.ImageData.Calibrations.Dimension.TagGroup0.Scale"


@pytest.mark.parametrize("dtype, readout", [(np.uint32, "sum"), (np.uint16, None), (np.float32, None)])
def test_only_32_bit_digitalmicrograph_images_are_known_to_be_sums(dtype, readout):
    made = signal(IMAGE.astype(dtype))
    made.original_metadata.add_dictionary(dm_tree(name="HAADF"))
    shot = Micrograph.from_signal(made)
    assert shot.readout == readout
    assert shot.intensity == ("float" if dtype is np.float32 else "dm_counts")
    assert shot.instrument.detector == "HAADF"


def test_gatan_signal_name_decides_and_camera_images_are_refused():
    made = signal()
    made.original_metadata.add_dictionary(dm_tree(name="BF"))
    with pytest.raises(NotHAADFError, match="detector BF"):
        Micrograph.from_signal(made)
    made = signal()
    camera = dm_tree(Acquisition={"Device": {"Name": "OneView"}})
    del camera["ImageList"]["TagGroup0"]["ImageTags"]["DigiScan"]
    made.original_metadata.add_dictionary(camera)
    with pytest.raises(NotHAADFError, match="camera OneView"):
        Micrograph.from_signal(made)


@pytest.mark.parametrize("channel, refused", [("Signal 0", False), ("Seg 1", False), ("LAADF", True), ("SE", True)])
def test_a_gatan_channel_tells_the_detector_only_if_it_is_named_after_one(channel, refused):
    made = signal()
    made.original_metadata.add_dictionary(dm_tree(name=channel))
    if refused:
        with pytest.raises(NotHAADFError, match=f"detector {channel}"):
            Micrograph.from_signal(made)
    else:
        shot = Micrograph.from_signal(made)
        assert shot.instrument.detector is None and any(repr(channel) in note for note in shot.notes)


def test_a_gatan_map_of_another_signal_is_refused():
    made = signal()
    made.original_metadata.add_dictionary(dm_tree(**{"Meta Data": {"Signal": "EELS"}}))
    with pytest.raises(NotHAADFError, match="a map of EELS"):
        Micrograph.from_signal(made)
