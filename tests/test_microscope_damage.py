"""Damaged files end in a valid answer or a clear refusal, in time, and the caller lives on."""

import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from damage import damaged_copies
from velox_files import IMAGE, SETTINGS

from cimp_core.errors import NotHAADFError, UnreadableFileError
from cimp_core.metadata import PARAMETERS
from cimp_core.microscope import read
from cimp_core.microscope.velox_writer import write_velox
from cimp_core.microscope.worker import KillableReader

FILES = (
    "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/test_stackbuilder_imagestack.dm3",
    "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/Fei HAADF-UK_location.dm3",
    "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/Fei HAADF-DE_location.dm3",
    "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/2D/test_STEM_image.dm3",
    "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/2D/test_diffraction_pattern.dm3",
    "hyperspy+rosettasciio/rsciio/tests/data/digitalmicrograph/1D/test-EELS_spectrum.dm3",
    "hyperspy+rosettasciio/rsciio/tests/data/emd/FFTComplexEven.emd",
    "hyperspy+rosettasciio/rsciio/tests/data/emd/fei_example_dpc_titles.emd",
    "hyperspy+rosettasciio/rsciio/tests/data/emd/fei_example_tem_stack.emd",
    "hyperspy+rosettasciio/rsciio/tests/data/emd/velox_EELS_EDS.zip",
    "hyperspy+rosettasciio/rsciio/tests/data/mrc/HAADFscan.mrc",
    "ercius+openNCEM/ncempy/data/STEM HAADF Diffraction Micro.emd",
    "ercius+openNCEM/ncempy/data/Camera Ceta Imaging Micro.emd",
    "ercius+openNCEM/ncempy/data/Acquisition_18.emd",
    "ercius+openNCEM/ncempy/data/16_STOimage.emi",
    "ercius+openNCEM/ncempy/data/16_STOimage_1.ser",
    "hyperspy+rosettasciio/rsciio/tests/data/tia/old/16x16_STEM_BF_DF_acquire.emi",
    "hyperspy+rosettasciio/rsciio/tests/data/tia/old/16x16_STEM_BF_DF_acquire_2.ser",
    "hyperspy+rosettasciio/rsciio/tests/data/tia/old/16x16x5_STEM_BF_DF_preview.emi",
    "hyperspy+rosettasciio/rsciio/tests/data/tia/old/16x16x5_STEM_BF_DF_preview_1.ser",
    "hyperspy+rosettasciio/rsciio/tests/data/tia/old/64x64x5_TEM_preview_1.ser",
    "hyperspy+rosettasciio/rsciio/tests/data/tia/new/128x128-TEM_search.emi",
    "hyperspy+rosettasciio/rsciio/tests/data/tia/new/128x128-TEM_search_1.ser",
    "pycroscopy+SciFiDatasets/data/microscopy/em/tem/EMDReader_Image_FEI.emd",
    "pycroscopy+SciFiDatasets/data/microscopy/em/tem/EMDReader_Spectrum_FEI.emd",
    "pycroscopy+SciFiDatasets/data/microscopy/em/tem/DMReader_Image_SI-Survey.dm3",
    "pycroscopy+SciFiDatasets/data/microscopy/em/tem/DMReader_EELS_STO.dm4",
    "MaterialEyes+ingrained/Si_01-1_Si_0-11_tilt/HAADF85.dm3",
    "MaterialEyes+ingrained/CdTe_110_CdTe_110_tilt/HAADF149.dm3",
    "AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4",
    "PinkShnack+TEMUL/temul/example_data/structures/example_Cu_nanoparticle_sim.hspy",
)
LIMIT = 10.0  # [s]; the reader ends what takes longer, so no test needs to look at the clock


@pytest.fixture(scope="module")
def reader():
    with KillableReader(timeout=LIMIT) as reader:
        reader.start()
        yield reader


def attack(reader, original: bytes, suffix: str, folder: Path, count: int, seed: int) -> Counter:
    """Read `count` damaged copies; fail on any answer but a valid one or a refusal in time."""
    outcomes = Counter()
    target = folder / f"damaged{suffix}"
    for what, data in damaged_copies(original, count, seed):
        target.write_bytes(data)
        restarts = reader.restarts
        try:
            shots = reader.read(target)
            for shot in shots:
                assert_valid(shot)
            outcomes["read"] += 1
        except NotHAADFError as error:  # a valid answer: the damage changed what the file says it is
            assert "damaged" in str(error)
            outcomes["not HAADF"] += 1
        except UnreadableFileError as error:
            assert str(target) in str(error)
            outcomes["unreadable"] += 1
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
        if reader.restarts > restarts:
            outcomes["worker replaced"] += 1
    return outcomes


def assert_valid(shot) -> None:
    assert shot.image.data.ndim in (2, 3) and shot.image.data.dtype.kind in "uif"
    for name in PARAMETERS:
        value = getattr(shot.acquisition, name)
        if value is None:
            assert shot.acquisition.missing[name]
        else:
            assert np.isfinite(value) and (value > 0 or name == "detector_offset")


@pytest.mark.parametrize("name", FILES, ids=lambda name: name.rsplit("/", 1)[-1])
def test_damaged_copies_of_real_files(shared, reader, tmp_path, name, request, record_property):
    path = shared / "data" / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            (member,) = archive.namelist()
            original, suffix = archive.read(member), Path(member).suffix
    else:
        original, suffix = path.read_bytes(), path.suffix
    if suffix in (".emi", ".ser"):  # TIA: NAME.emi and NAME_1.ser, NAME_2.ser ... are read together
        stem = re.sub(r"(_\d+)?\.\w+$", "", path.name)
        suffix = path.name.removeprefix(stem)
        for other in path.parent.glob(f"{stem}[._]*"):
            (tmp_path / other.name.replace(stem, "damaged")).write_bytes(other.read_bytes())
    outcomes = attack(reader, original, suffix, tmp_path, request.config.getoption("--fuzz"), seed=len(original))
    record_property("outcomes", dict(outcomes))
    print(f"\n{path.name}: {dict(outcomes)}")
    assert sum(outcomes.values()) >= request.config.getoption("--fuzz")
    assert outcomes["unreadable"] > 0


def test_damaged_copies_of_a_zip_with_its_member(shared, reader, tmp_path, request):
    original = (shared / "data" / "hyperspy+rosettasciio/rsciio/tests/data/emd/velox_EELS_EDS.zip").read_bytes()
    outcomes = attack(reader, original, ".zip", tmp_path, request.config.getoption("--fuzz"), seed=1)
    print(f"\nthe zip itself: {dict(outcomes)}")
    assert outcomes["unreadable"] > 0


@pytest.mark.parametrize("suffix", [".emd", ".hspy"])
def test_damaged_copies_of_a_file_made_here(reader, tmp_path, suffix):
    healthy = write_velox(tmp_path / "healthy.emd", IMAGE, SETTINGS)
    if suffix == ".hspy":
        read(healthy)[0].image.save(healthy.with_suffix(suffix))
    outcomes = attack(reader, healthy.with_suffix(suffix).read_bytes(), suffix, tmp_path, 100, seed=0)
    assert outcomes["unreadable"] > 0 and outcomes["read"] > 0
