"""Real signals through HyperSpy: saved and read again, rebinned, lazy, and from a format that `read` leaves alone."""

import hyperspy.api as hs
import pytest

import cimp_core as cimp
from cimp_core.microscope import read

RSCIIO = "hyperspy+rosettasciio/rsciio/tests/data"
DM = f"{RSCIIO}/digitalmicrograph"
SCIFI = "pycroscopy+SciFiDatasets/data/microscopy/em/tem"
NCEM = "ercius+openNCEM/ncempy/data"


def one(path, **options):
    (shot,) = read(path, **options)
    return shot


@pytest.mark.parametrize(
    "name", [f"{RSCIIO}/emd/FFTComplexEven.emd", f"{DM}/test_stackbuilder_imagestack.dm3"], ids=["velox", "gatan"]
)
def test_hspy_saved_from_a_vendor_signal_goes_by_the_vendors_rules(shared, tmp_path, name):
    shot = one(shared / "data" / name)
    shot.image.save(tmp_path / "saved.hspy")
    again = one(tmp_path / "saved.hspy")
    assert again.acquisition == shot.acquisition
    assert dict(again.acquisition.missing) == dict(shot.acquisition.missing)
    assert {n: r.value for n, r in again.raw.items()} == pytest.approx({n: r.value for n, r in shot.raw.items()})
    assert (again.intensity, again.readout, again.instrument) == (shot.intensity, shot.readout, shot.instrument)
    assert again.image.data.shape == shot.image.data.shape


def test_rebinned_signal_goes_by_its_axis(shared, tmp_path):
    shot = one(shared / "data" / RSCIIO / "emd/FFTComplexEven.emd")
    again = cimp.Micrograph.from_signal(shot.image.rebin(scale=(2, 2)))
    assert again.acquisition.pixel_size == pytest.approx(2 * shot.acquisition.pixel_size)
    assert any("rebinned" in note for note in again.notes)


def test_pixels_that_rebinning_made_oblong_have_no_one_size(shared):
    shot = one(shared / "data" / RSCIIO / "emd/FFTComplexEven.emd")
    again = cimp.Micrograph.from_signal(shot.image.rebin(scale=(1, 2)))
    assert "not square" in again.acquisition.missing["pixel_size"]


def test_lazy_stays_lazy(shared):
    shot = one(shared / "data" / SCIFI / "EMDReader_Image_FEI.emd", lazy=True)
    assert shot.image._lazy
    eager = one(shared / "data" / SCIFI / "EMDReader_Image_FEI.emd")
    assert (shot.image.data.compute() == eager.image.data).all()


def test_a_signal_that_hyperspy_loaded_can_be_used(shared):
    path = shared / "data" / NCEM / "Acquisition_18.emd"
    shot = cimp.Micrograph.from_signal(hs.load(str(path)))
    assert shot.acquisition.pixel_size == pytest.approx(1.2247e-11, rel=1e-3)
