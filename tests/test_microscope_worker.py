"""The killable reader: what goes wrong in its process costs one file and nothing else."""

import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from cimp_core.errors import NotHAADFError, OutOfRangeError, UnreadableFileError
from cimp_core.metadata import Acquisition
from cimp_core.microscope.velox_writer import write_velox
from cimp_core.microscope.worker import KillableReader

SETTINGS = Acquisition(2e-11, 1e-5, 0.025, 5e-11, 30.0, -1.0, 0.06)
IMAGE = np.random.default_rng(0).integers(2**16, size=(3, 20, 30)).astype(np.uint16)


class Rigged(KillableReader):
    _module = "rigged_worker"


@pytest.fixture
def rigged(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with Rigged(timeout=8.0) as reader:
        yield reader


@pytest.fixture
def file(tmp_path) -> Path:
    return write_velox(tmp_path / "healthy.emd", IMAGE, SETTINGS, camera_length=0.09)


def copy(file: Path, name: str) -> Path:
    return Path(shutil.copy(file, file.with_name(f"{name}.emd")))


def test_what_comes_back_is_what_read_gives(file):
    from cimp_core.microscope import read

    with KillableReader() as reader:
        (there,) = reader.read(file, {"beam_current": 1e-10})
    (here,) = read(file, override={"beam_current": 1e-10})
    assert there.acquisition == here.acquisition
    assert there.provenance == here.provenance and there.provenance["beam_current"] == "user"
    assert (there.raw, there.instrument, there.notes, there.skipped) == (
        here.raw,
        here.instrument,
        here.notes,
        here.skipped,
    )
    assert (there.image.data == here.image.data).all() and there.image.data.dtype == np.uint16
    axes = [
        [(a.name, a.scale, a.offset, a.units, a.navigate) for a in s.image.axes_manager._axes] for s in (there, here)
    ]
    assert axes[0] == axes[1]
    about = [s.image.metadata.as_dictionary() for s in (there, here)]
    for metadata in about:
        del metadata["General"]["FileIO"]  # when it was read
    assert about[0] == about[1]
    assert there.image.original_metadata.as_dictionary() == here.image.original_metadata.as_dictionary()


def test_refusals_cross_the_border(file, tmp_path):
    with KillableReader() as reader:
        with pytest.raises(UnreadableFileError, match="no such file"):
            reader.read(tmp_path / "absent.emd")
        with pytest.raises(OutOfRangeError, match="beam_curent"):
            reader.read(file, {"beam_curent": 1e-10})
        with pytest.raises(NotHAADFError, match="BF-S"):
            reader.read(write_velox(tmp_path / "bright.emd", IMAGE, SETTINGS, detector="BF-S"))
        assert reader.restarts == 0


def test_a_hang_costs_one_file(rigged, file):
    rigged.start()
    with pytest.raises(UnreadableFileError, match="longer than 8 s"):
        rigged.read(copy(file, "hang"))
    assert rigged.restarts == 1
    assert len(rigged.read(file)) == 1


def test_a_crash_costs_one_file(rigged, file):
    with pytest.raises(UnreadableFileError, match=f"signal {int(signal.SIGSEGV)}"):
        rigged.read(copy(file, "crash"))
    assert len(rigged.read(file)) == 1
    assert rigged.restarts == 1


def test_memory_is_limited(rigged, file):
    with pytest.raises(UnreadableFileError, match="needs more memory than 4 GiB"):
        rigged.read(copy(file, "greedy"))
    assert len(rigged.read(file)) == 1


def test_library_output_does_not_get_between_the_answers(rigged, file):
    assert len(rigged.read(copy(file, "chatty"))) == 1
    assert len(rigged.read(file)) == 1


def test_an_error_of_ours_is_not_blamed_on_the_file(rigged, file):
    with pytest.raises(RuntimeError, match="of our own making"):
        rigged.read(copy(file, "bug"))
    assert len(rigged.read(file)) == 1


def test_an_interrupted_read_does_not_answer_the_next_one(rigged, file):
    rigged.start()
    slow = copy(file, "hang")
    main = threading.main_thread().ident
    threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        rigged.read(slow)
    (shot,) = rigged.read(file)
    assert shot.path == str(file)


def test_the_process_ends_with_the_reader(file):
    with KillableReader() as reader:
        reader.read(file)
        process = reader._process
        assert process.poll() is None
    assert process.poll() is not None
