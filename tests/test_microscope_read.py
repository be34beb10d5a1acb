"""Real files: every value of the reference table, the rules, the refusals. Values: published open test files."""

import zipfile

import pytest

import cimp_core as cimp
from cimp_core.errors import NotHAADFError
from cimp_core.microscope import inspect, read

RSCIIO = "hyperspy+rosettasciio/rsciio/tests/data"
DM = f"{RSCIIO}/digitalmicrograph"
SCIFI = "pycroscopy+SciFiDatasets/data/microscopy/em/tem"
NCEM = "ercius+openNCEM/ncempy/data"

TITAN = {"pixel_size": 2.4854e-10, "dwell_time": 3.5e-6, "beam_current": 0, "voltage": 200e3, "camera_length": 0.135}
HAADF_FEI = {"pixel_size": 5.5061e-9, "dwell_time": 1.4e-6, "beam_current": 0, "voltage": 200e3, "camera_length": 0.135}
JEOL = {"pixel_size": 1.6388e-11, "dwell_time": 3.1124e-5, "beam_current": 0, "voltage": 200e3, "camera_length": 0.06}
# What the file says, shape, what is accepted of it, intensity scale and readout.
POSITIVE = {
    f"{RSCIIO}/emd/FFTComplexEven.emd": (
        {
            "pixel_size": 2.7115e-8,
            "dwell_time": 4e-5,
            "convergence_angle": 0.029974,
            "beam_current": 2.268e-13,
            "detector_gain": 31.2952,
            "detector_offset": -1.52736,
            "inner_collection_angle": 0.060630,
            "outer_collection_angle": 0.2,
            "voltage": 300e3,
            "camera_length": 0.091,
        },
        (128, 128),
        "pixel_size dwell_time convergence_angle detector_gain detector_offset inner_collection_angle",
        ("velox16", "mean"),
    ),
    f"{NCEM}/STEM HAADF Diffraction Micro.emd": (
        {
            "pixel_size": 8.7371e-8,
            "dwell_time": 1e-5,
            "convergence_angle": -0.028762,
            "beam_current": 2.253e-14,
            "detector_gain": 20.3783,
            "detector_offset": -1.23465,
            "inner_collection_angle": 0.027403,
            "voltage": 300e3,
            "camera_length": 0.301,
        },
        (128, 128),
        "pixel_size dwell_time detector_gain detector_offset inner_collection_angle",
        ("velox16", "mean"),
    ),
    f"{SCIFI}/EMDReader_Image_FEI.emd": (
        {"pixel_size": 5.3024e-9, "dwell_time": 2e-5, "beam_current": 2.523e-10}
        | {"voltage": 200e3, "camera_length": 0.098},
        (512, 512),
        "pixel_size dwell_time beam_current",
        ("velox16", "mean"),
    ),
    "MaterialEyes+ingrained/CdTe_110_CdTe_110_tilt/HAADF149.dm3": (
        JEOL, (512, 512), "pixel_size dwell_time", ("float", None),
    ),
    "MaterialEyes+ingrained/Si_01-1_Si_0-11_tilt/HAADF85.dm3": (
        JEOL, (512, 512), "pixel_size dwell_time", ("dm_counts", None),
    ),
    f"{DM}/2D/test_STEM_image.dm3": (TITAN, (68, 68), "pixel_size dwell_time", ("dm_counts", "sum")),
    f"{DM}/Fei HAADF-UK_location.dm3": (HAADF_FEI, (4, 16), "pixel_size dwell_time", ("dm_counts", None)),
    f"{DM}/Fei HAADF-DE_location.dm3": (HAADF_FEI, (4, 16), "pixel_size dwell_time", ("dm_counts", None)),
    f"{DM}/test_stackbuilder_imagestack.dm3": (
        {"pixel_size": 5.998e-8, "dwell_time": 0.03, "beam_current": 0, "voltage": 200e3, "camera_length": 0.015},
        (3, 2, 16),
        "pixel_size dwell_time",
        ("dm_counts", "sum"),
    ),
    f"{SCIFI}/DMReader_Image_SI-Survey.dm3": (
        {"dwell_time": 3.15e-5, "beam_current": 0, "voltage": 200e3, "camera_length": 0.0028},
        (512, 512),
        "dwell_time",
        ("dm_counts", "sum"),
    ),
    "AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4": (
        {"pixel_size": 2.966e-11}, (413, 469), "pixel_size", ("float", None),
    ),
    "PinkShnack+TEMUL/temul/example_data/structures/example_Cu_nanoparticle_sim.hspy": (
        {"pixel_size": 1e-9}, (434, 434), "", ("float", None),
    ),
}  # fmt: skip
NEGATIVE = {
    f"{NCEM}/Camera Ceta Imaging Micro.emd": "'Ceta' (512 x 512): an image of the camera BM-Ceta",
    f"{DM}/1D/test-EELS_spectrum.dm3": "'EELS Acquire' (2048): a spectrum",
    f"{DM}/2D/test_diffraction_pattern.dm3": "axes in 1/nm",
    f"{RSCIIO}/emd/fei_example_tem_stack.emd": "an image of the camera BM-Ceta",
    f"{SCIFI}/DMReader_EELS_STO.dm4": "a spectrum",
    f"{SCIFI}/EMDReader_Spectrum_FEI.emd": "'EDS spectrum': 1 in the file",
    f"{RSCIIO}/emd/fei_example_dpc_titles.emd": "an image of the detector DF4 (0.603 to 3.36 mrad)",
}


def short(name):
    return name.rsplit("/", 1)[-1]


def one(path, **options):
    (shot,) = read(path, **options)
    return shot


@pytest.mark.parametrize("name", POSITIVE, ids=short)
def test_raw_values_and_what_is_accepted_of_them(shared, name):
    values, shape, accepted, scale = POSITIVE[name]
    shot = one(shared / "data" / name)
    assert {n: r.value for n, r in shot.raw.items() if n in values} == pytest.approx(values, rel=1e-3)
    for raw in shot.raw.values():
        assert raw.key and (raw.unit in ("m", "s", "rad", "A", "V", ""))
    # Nothing beyond the table, but for the outer angle and the uncalibrated axis.
    assert set(shot.raw) - set(values) <= {"outer_collection_angle", "pixel_size"}
    assert shot.image.data.shape == shape
    assert (shot.intensity, shot.readout) == scale
    for parameter in cimp.PARAMETERS:
        value = getattr(shot.acquisition, parameter)
        if parameter in accepted.split():
            assert value == shot.raw[parameter].value
            assert shot.provenance[parameter] == "file"
        else:
            assert value is None
            assert len(shot.acquisition.missing[parameter]) > 8


@pytest.mark.parametrize("name", NEGATIVE, ids=short)
def test_negative_controls_are_refused_and_say_what_they_are(shared, name):
    with pytest.raises(NotHAADFError) as refusal:
        read(shared / "data" / name)
    assert NEGATIVE[name] in str(refusal.value)
    assert short(name) in str(refusal.value)


def test_reasons_are_in_plain_words(shared):
    microprobe = one(shared / "data" / NCEM / "STEM HAADF Diffraction Micro.emd").acquisition.missing
    assert microprobe["beam_current"] == "2.3e-14 A is no probe current (beam off?)"
    assert "-0.029 rad is no convergence semi-angle" in microprobe["convergence_angle"]
    old = one(shared / "data" / SCIFI / "EMDReader_Image_FEI.emd").acquisition.missing
    assert old["convergence_angle"] == "Velox did not record it (no Optics.BeamConvergence)"
    survey = one(shared / "data" / SCIFI / "DMReader_Image_SI-Survey.dm3").acquisition.missing
    assert "not calibrated" in survey["pixel_size"]
    assert survey["beam_current"] == "0 A: the current was not measured"


def test_instrument(shared):
    instrument = one(shared / "data" / RSCIIO / "emd/FFTComplexEven.emd").instrument
    assert (instrument.voltage, instrument.camera_length, instrument.outer_collection_angle) == (300e3, 0.091, 0.2)
    assert instrument.microscope == "Titan Spectra #3815"
    assert instrument.date == "2022-09-28T00:27:07+00:00"
    gatan = one(shared / "data/MaterialEyes+ingrained/CdTe_110_CdTe_110_tilt/HAADF149.dm3").instrument
    assert (gatan.microscope, gatan.detector, gatan.date) == ("ARM 200", "HAADF", "2018-03-21T19:36:14")
    dates = [one(shared / "data" / DM / f"Fei HAADF-{place}_location.dm3").instrument.date for place in ("UK", "DE")]
    assert dates == ["2016-08-27T20:52:30", "2016-08-27T20:54:33"]  # written 8/27/2016 and 27.08.2016 in the files


def test_a_gatan_image_whose_detector_is_not_named_is_returned_and_says_so(shared):
    shot = one(shared / "data" / DM / "Fei HAADF-UK_location.dm3")
    assert shot.instrument.detector is None  # HAADF stands in the title only, and a title is free text
    assert any("does not name the detector" in note for note in shot.notes)


def test_a_file_that_does_not_even_say_stem_is_returned_and_says_so(shared):
    shot = one(shared / "data/AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4")
    assert any("does not say that this is a STEM image" in note for note in shot.notes)


def test_default_camera_length_of_an_unconnected_microscope_is_not_believed(shared):
    shot = one(shared / "data" / SCIFI / "DMReader_Image_SI-Survey.dm3")
    assert shot.raw["camera_length"].value == pytest.approx(2.8e-3)
    assert shot.instrument.camera_length is None and shot.instrument.microscope is None


def test_dpc_file_can_be_inspected_and_read_by_detector(shared):
    path = shared / "data" / RSCIIO / "emd/fei_example_dpc_titles.emd"
    row = next(s for s in inspect(path) if s.title == "DF4-A").raw
    expected = {
        "pixel_size": 9.962e-11,
        "dwell_time": 1e-5,
        "convergence_angle": 0.001046,
        "beam_current": 4.186e-10,
        "detector_gain": 0,
        "detector_offset": 0,
        "inner_collection_angle": 0.000603,
        "voltage": 300e3,
        "camera_length": 3.028,
    }
    assert {n: row[n].value for n in expected} == pytest.approx(expected, rel=1e-3)
    shots = read(path, detector="df4")
    assert len(shots) == 4  # the four segments; iDPC, sums and differences are computed, not recorded
    acquisition = shots[0].acquisition
    assert acquisition.detector_gain is None and "gain 0" in acquisition.missing["detector_gain"]
    assert acquisition.detector_offset is None
    assert acquisition.beam_current == pytest.approx(4.186e-10, rel=1e-3)  # ScreenCurrent is 0 here
    assert any("not with a detector named HAADF" in note for note in shots[0].notes)


@pytest.fixture(scope="module")
def spectroscopy(shared, tmp_path_factory):
    """Velox file version 13 with EDS, EELS and two STEM acquisitions with different optics."""
    folder = tmp_path_factory.mktemp("velox")
    with zipfile.ZipFile(shared / "data" / RSCIIO / "emd/velox_EELS_EDS.zip") as archive:
        (name,) = archive.namelist()
        return archive.extract(name, folder)


def test_a_file_without_haadf_names_the_detectors_it_has(spectroscopy):
    with pytest.raises(NotHAADFError) as refusal:
        read(spectroscopy)
    message = str(refusal.value)
    assert "'a' (128 x 128): an image of the detector DF-S (18.5 to 94.2 mrad)" in message
    assert "'Fe-EELS' (16 x 20): a map of Zebra" in message and "'EELS spectrum image': 3 in the file" in message
    assert "detector='DF-S'" in message
