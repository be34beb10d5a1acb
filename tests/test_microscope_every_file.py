"""What ``cimp info`` says of every vendor file in the folder of real files: one row an image, or why there is none.

A file that is in the folder and not in this table fails the test, as does a row without its file.
"""

import json

import pytest
import typer
from typer.testing import CliRunner

from cimp_core.cli.info import info
from cimp_core.metadata import PARAMETERS

SUFFIXES = (".emd", ".dm3", ".dm4", ".emi", ".ser", ".mrc", ".tif", ".tiff", ".hspy", ".zip", ".h5", ".ndata")
RSCIIO = "hyperspy+rosettasciio/rsciio/tests/data"
DM = f"{RSCIIO}/digitalmicrograph"
SCIFI = "pycroscopy+SciFiDatasets/data/microscopy/em/tem"
NCEM = "ercius+openNCEM/ncempy/data"
HPAI = "HPAI-BSC+AtomDetection_ACSTEM/data/tif_data"
INGRAINED = "MaterialEyes+ingrained"
ATOMAGINED = "MaterialEyes+atomagined"
_ = None

# shape, pixel size [m], dwell time [s], convergence [rad], current [A], gain, offset, inner angle [rad],
# voltage [V], camera length [m], detector
UNNAMED = ((512, 512), _, _, _, _, _, _, _, _, _, _)
PT_ON_CARBON = ((512, 512), 2.9297e-11, _, _, _, _, _, _, _, _, _)
JEOL = ((512, 512), 1.6388e-11, 3.1124e-5, _, _, _, _, _, 200e3, 0.06, "HAADF")
LOCATION = ((4, 16), 5.5061e-9, 1.4e-6, _, _, _, _, _, 200e3, 0.135, _)
STO = ((1024, 1024), 1.00127e-11, 2.9e-5, _, _, _, _, _, 80e3, 0.116, _)
BF_OR_DF = ((16, 16), 2.151e-8, 4.8e-5, _, _, _, _, _, 200e3, 0.04, _)
PREVIEW = ((5, 16, 16), 2.151e-8, 1.6e-5, _, _, _, _, _, 200e3, 0.04, _)

IMAGES = {
    # Velox
    f"{RSCIIO}/emd/FFTComplexEven.emd": [
        ((128, 128), 2.7115e-8, 4e-5, 0.029974, _, 31.2952, -1.52736, 0.060630, 300e3, 0.091, "HAADF")
    ],
    f"{NCEM}/STEM HAADF Diffraction Micro.emd": [
        ((128, 128), 8.7371e-8, 1e-5, _, _, 20.3783, -1.23465, 0.027403, 300e3, 0.301, "HAADF")
    ],
    f"{SCIFI}/EMDReader_Image_FEI.emd": [((512, 512), 5.3024e-9, 2e-5, _, 2.523e-10, _, _, _, 200e3, 0.098, "HAADF")],
    f"{RSCIIO}/mrc/HAADFscan.mrc": [
        ((16, 16), 5.6791e-9, 0.01, 0.014327, _, 38.4013, -1.752, _, 300e3, 0.0911, "HAADF")
    ],
    # DigitalMicrograph
    f"{INGRAINED}/CdTe_110_CdTe_110_tilt/HAADF149.dm3": [JEOL],
    f"{INGRAINED}/Si_01-1_Si_0-11_tilt/HAADF85.dm3": [JEOL],
    f"{DM}/2D/test_STEM_image.dm3": [((68, 68), 2.4854e-10, 3.5e-6, _, _, _, _, _, 200e3, 0.135, _)],
    f"{DM}/Fei HAADF-UK_location.dm3": [LOCATION],
    f"{DM}/Fei HAADF-DE_location.dm3": [LOCATION],
    f"{DM}/test_stackbuilder_imagestack.dm3": [((3, 2, 16), 5.998e-8, 0.03, _, _, _, _, _, 200e3, 0.015, _)],
    f"{SCIFI}/DMReader_Image_SI-Survey.dm3": [((512, 512), _, 3.15e-5, _, _, _, _, _, 200e3, _, _)],
    "AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4": [
        ((413, 469), 2.966e-11, _, _, _, _, _, _, _, _, _)
    ],
    # Berkeley EMD, TIA (a .ser with its .emi beside it has the settings of that)
    f"{NCEM}/Acquisition_18.emd": [((1024, 1024), 1.2247e-11, 1e-6, 0.024979, _, _, _, _, 200e3, 0.085, _)],
    f"{NCEM}/16_STOimage.emi": [STO],
    f"{NCEM}/16_STOimage_1.ser": [STO],
    f"{RSCIIO}/tia/old/16x16_STEM_BF_DF_acquire.emi": [BF_OR_DF, BF_OR_DF],
    f"{RSCIIO}/tia/old/16x16_STEM_BF_DF_acquire_1.ser": [BF_OR_DF],
    f"{RSCIIO}/tia/old/16x16_STEM_BF_DF_acquire_2.ser": [BF_OR_DF],
    f"{RSCIIO}/tia/old/16x16x5_STEM_BF_DF_preview.emi": [PREVIEW, PREVIEW],
    f"{RSCIIO}/tia/old/16x16x5_STEM_BF_DF_preview_1.ser": [PREVIEW],
    f"{RSCIIO}/tia/old/16x16x5_STEM_BF_DF_preview_2.ser": [PREVIEW],
    # No vendor's
    "PinkShnack+TEMUL/temul/example_data/structures/example_Cu_nanoparticle_sim.hspy": [
        ((434, 434), _, _, _, _, _, _, _, _, _, _)
    ],
    "noahschnitzer+kemstem/example_notebooks/data/FigS6_0716__Cryo_NSMO110_5-1Mx_0p5us_1024px_REGISTERED.tif": [
        ((898, 963), _, _, _, _, _, _, _, _, _, _)
    ],
}
IMAGES |= {f"Jeffrey-Ede+partial-STEM/example_scans/truth-{n}.tif": [UNNAMED] for n in (1, 2, 3)}
IMAGES |= {
    f"Sjeon1+HAADF_Atom_Detection/Atom_Detection_Demo/data/tif_data/Ptporph{n}.tif": [UNNAMED] for n in range(19)
}
IMAGES |= {
    f"{HPAI}/{number:03d}_HAADF_15nm_Sample_PtNC_{20 if number in (45, 49) else 21}Oct20.tif": [PT_ON_CARBON]
    for number in (21, 25, 27, 38, 45, 47, 48, 49, 51, 66, 72, 75, 78, 91)
}
SIMULATIONS = {
    "general/h5": ("020790.000001", "020790.000102", "020790.000201", "052227.000001", "052227.000101",
                   "052227.000102", "391225.010101"),
    "retrieval/choices/h5": ("020790.000001", "020790.000201", "020790.010102", "020790.020100", "052227.000101",
                             "052227.000102", "052227.010101", "052227.010202"),
}  # fmt: skip
REFUSED = {
    f"{NCEM}/Camera Ceta Imaging Micro.emd": ("NotHAADFError", "camera BM-Ceta"),
    f"{RSCIIO}/emd/fei_example_tem_stack.emd": ("NotHAADFError", "camera BM-Ceta"),
    f"{RSCIIO}/emd/fei_example_dpc_titles.emd": ("NotHAADFError", "detector DF4"),
    f"{RSCIIO}/emd/velox_EELS_EDS.zip": ("NotHAADFError", "detector DF-S"),
    f"{SCIFI}/EMDReader_Spectrum_FEI.emd": ("NotHAADFError", "EDS spectrum"),
    f"{SCIFI}/DMReader_EELS_STO.dm4": ("NotHAADFError", "a spectrum"),
    f"{DM}/1D/test-EELS_spectrum.dm3": ("NotHAADFError", "a spectrum"),
    f"{DM}/2D/test_diffraction_pattern.dm3": ("NotHAADFError", "axes in 1/nm"),
    f"{RSCIIO}/tia/new/128x128-TEM_search.emi": ("NotHAADFError", "camera BM-Ceta"),
    f"{RSCIIO}/tia/new/128x128-TEM_search_1.ser": ("NotHAADFError", "camera BM-Ceta"),
    f"{RSCIIO}/tia/old/64x64x5_TEM_preview.emi": ("NotHAADFError", "camera WA-Orius"),
    f"{RSCIIO}/tia/old/64x64x5_TEM_preview_1.ser": ("NotHAADFError", "camera WA-Orius"),
    f"{INGRAINED}/examples/clean_templates/gb/Ni_001_M3B2_001/HAADF91.tif": ("NotHAADFError", "colour picture"),
}
REFUSED |= {
    f"{ATOMAGINED}/{folder}/{name}.h5": ("UnreadableFileError", "simulation")
    for folder, names in SIMULATIONS.items()
    for name in names
}


@pytest.fixture(scope="module")
def found(shared):
    """Every vendor file of the folder, and what ``cimp info --json`` says of it: one process for all of them."""
    data = shared / "data"
    files = sorted(p for p in data.rglob("*") if p.suffix.lower() in SUFFIXES)
    app = typer.Typer()
    app.command()(info)
    result = CliRunner().invoke(app, ["--json", "--timeout", "60", *map(str, files)])
    said = {str(p.relative_to(data)): [] for p in files}
    for record in json.loads(result.stdout):
        said[record["path"].removeprefix(f"{data}/")].append(record)
    return result.exit_code, said


def test_the_table_and_the_folder_hold_the_same_files(found):
    assert set(found[1]) == set(IMAGES) | set(REFUSED)
    assert found[0] == 1  # some are refused


def image(record):
    held = record["instrument"]
    return (*record["acquisition"].values(), held["voltage"], held["camera_length"]), held["detector"]


@pytest.mark.parametrize("name", IMAGES, ids=lambda name: name.rsplit("/", 1)[-1])
def test_images(found, name):
    records = found[1][name]
    assert [r.get("error") for r in records] == [_] * len(IMAGES[name]), records
    for record, (shape, *values, detector) in zip(records, IMAGES[name]):
        assert list(record["acquisition"]) == list(PARAMETERS)
        assert tuple(record["shape"]) == shape
        numbers, named = image(record)
        assert numbers == tuple(v and pytest.approx(v, rel=1e-3) for v in values)
        assert named == detector
        # Every value that is not there has its reason.
        assert set(record["missing"]) == {n for n, v in record["acquisition"].items() if v is None}
        assert all(len(reason) > 8 for reason in record["missing"].values())
        assert detector or any("does not name the detector" in note for note in record["notes"])


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name.rsplit("/", 1)[-1])
def test_refusals(found, name):
    (record,) = found[1][name]
    error, word = REFUSED[name]
    assert record.get("error") == error and word in record["message"]
    assert name.rsplit("/", 1)[-1] in record["message"] and "\n" not in record["message"]
