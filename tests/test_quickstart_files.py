"""Chapter 00 on real files: papermill executes it on every readable one of the shared data, and on one .tif of many."""

from pathlib import Path

import nbformat
import papermill
import pytest

import cimp_core as cimp
from cimp_core.metadata import LABELS

QUICKSTART = Path(__file__).resolve().parents[1] / "notebooks" / "00_quickstart.ipynb"
RSCIIO = "hyperspy+rosettasciio/rsciio/tests/data/"
FILES = {  # the file, and what the chapter has to say about it
    "AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4": "1 of 7 settings known",
    "MaterialEyes+ingrained/CdTe_110_CdTe_110_tilt/HAADF149.dm3": "2 of 7 settings known",
    "MaterialEyes+ingrained/Si_01-1_Si_0-11_tilt/HAADF85.dm3": "2 of 7 settings known",
    "PinkShnack+TEMUL/temul/example_data/structures/example_Cu_nanoparticle_sim.hspy": "0 of 7 settings known",
    "HPAI-BSC+AtomDetection_ACSTEM/data/tif_data/047_HAADF_15nm_Sample_PtNC_21Oct20.tif": "1 of 7 settings known",
    "ercius+openNCEM/ncempy/data/16_STOimage.emi": "2 of 7 settings known",
    "ercius+openNCEM/ncempy/data/Acquisition_18.emd": "3 of 7 settings known",
    "ercius+openNCEM/ncempy/data/STEM HAADF Diffraction Micro.emd": "no convergence semi-angle",
    RSCIIO + "digitalmicrograph/2D/test_STEM_image.dm3": "embedded without its absolute intensity",
    RSCIIO + "digitalmicrograph/Fei HAADF-DE_location.dm3": "too few pixels to embed",
    RSCIIO + "digitalmicrograph/Fei HAADF-UK_location.dm3": "too few pixels to embed",
    RSCIIO + "digitalmicrograph/test_stackbuilder_imagestack.dm3": "3 frame(s)",
    RSCIIO + "mrc/HAADFscan.mrc": "5 of 7 settings known",
    RSCIIO + "tia/old/16x16_STEM_BF_DF_acquire.emi": "too few pixels to embed",
    RSCIIO + "tia/old/16x16x5_STEM_BF_DF_preview.emi": "5 frame(s)",
    RSCIIO + "emd/FFTComplexEven.emd": "6 of 7 settings known",
    "pycroscopy+SciFiDatasets/data/microscopy/em/tem/DMReader_Image_SI-Survey.dm3": "1 of 7 settings known",
    "pycroscopy+SciFiDatasets/data/microscopy/em/tem/EMDReader_Image_FEI.emd": "3 of 7 settings known",
}


def text_of(notebook: Path) -> str:
    """All that an executed notebook printed or showed."""
    texts = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file).name)
def test_quickstart_on_a_real_file(file, shared, tmp_path):
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        str(QUICKSTART),
        str(out),
        parameters={"file": str(shared / "data" / file), "profile": "smoke"},
        kernel_name="python3",
        cwd=str(QUICKSTART.parent),
        progress_bar=False,
    )
    text = text_of(out)
    assert FILES[file] in text
    assert all(label in text for label in LABELS)


def test_no_readable_file_is_left_out(shared):
    """A file of the shared data, pictures as .tif apart, is in the list above exactly if it can be read."""
    readable = set()
    for path in sorted((shared / "data").rglob("*")):
        if path.suffix in (".emd", ".dm3", ".dm4", ".emi", ".mrc", ".hspy", ".zip"):
            try:
                cimp.read(path)
            except (cimp.NotHAADFError, cimp.UnreadableFileError):
                continue
            readable.add(path.relative_to(shared / "data").as_posix())
    assert readable == {file for file in FILES if not file.endswith(".tif")}
