"""Sweeps: each layout is read, the swept setting is found or told, and what does not say what it is is refused."""

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest
from bucket_server import serve
from dataset_samples import PLAIN

from cimp_core.dataset import write_dataset
from cimp_core.errors import OutOfRangeError, SchemaError, UnreadableFileError
from cimp_core.metadata import LABELS, PARAMETERS
from cimp_core.sweeps import open_sweep

N = 11
DWELL = np.linspace(5e-6, 2e-7, N)
STACK = np.random.default_rng(0).integers(0, 65536, (N, 16, 20), dtype=np.uint16)


def table(name="dwell_time", values=DWELL):
    raw = np.tile(np.array(PLAIN), (N, 1))
    raw[:, PARAMETERS.index(name)] = values
    return raw.astype(np.float32)


@pytest.fixture
def make(tmp_path):
    def write(name="dwell_time_eval.h5", entries=(), attributes=(), marks=()):
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in dict(entries).items():
                file[key] = value
            file.attrs.update(dict(attributes))
            for key, value in dict(marks).items():
                place, _, mark = key.partition("@")
                file[place].attrs[mark] = value
        return tmp_path / name

    return write


def one_each(pattern="full_res/{:06d}"):
    return {pattern.format(i): image for i, image in enumerate(STACK)}


def check(sweep, parameter="dwell_time", values=DWELL, rtol=1e-6):
    assert sweep.parameter == parameter and len(sweep) == len(sweep.images) == N
    np.testing.assert_allclose(sweep.values, values, rtol=rtol)
    for i in range(N):
        np.testing.assert_array_equal(sweep.images[i], STACK[i])
    assert np.all(np.diff(sweep.values[sweep.order]) > 0)
    sweep.close()


@pytest.mark.parametrize(
    ("parameter", "values"),
    [("dwell_time", DWELL), ("detector_gain", 20.0 + np.arange(N)), ("detector_offset", np.linspace(-1.8, 0, N))],
)
def test_the_published_schema(tmp_path, parameter, values):
    raw = table(parameter, values)
    sweep = open_sweep(write_dataset(tmp_path / "sweep.h5", STACK, raw, ["a.emd"] * N, log_indices=(0, 1)))
    check(sweep, parameter, values)
    assert set(sweep.settings) == set(PARAMETERS) - {parameter} and "metadata_raw" in sweep.source
    assert sweep.settings["beam_current"][3] == pytest.approx(5e-11)


def test_normalised_metadata_is_restored_by_the_statistics_of_the_file(tmp_path):
    path = write_dataset(tmp_path / "s.h5", STACK, table(), ["a.emd"] * N)
    with h5py.File(path, "r+") as file:
        del file["metadata_raw"]
    sweep = open_sweep(path)
    check(sweep, rtol=1e-4)
    assert "restored by the statistics" in sweep.source
    with h5py.File(path, "r+") as file:
        del file["stats_std"]
    with pytest.raises(SchemaError, match="nothing tells whether these numbers are normalised"):
        open_sweep(path)


def test_columns_are_taken_by_their_labels(make):
    turned = {"metadata_raw": table()[:, ::-1], "images": STACK}
    check(open_sweep(make(entries=turned, attributes={"metadata_labels": list(LABELS[::-1])})))
    with pytest.raises(SchemaError, match="expected the seven"):
        open_sweep(make(entries=turned, attributes={"metadata_labels": list("abcdefg")}))


DWELL_US = DWELL * 1e6
LAYOUTS = {
    "stack and table": ({"images": STACK, "metadata_raw": table()}, {}, {}),
    "stack and named array": ({"images": STACK, "dwell_times_us": DWELL_US}, {}, {}),
    "unit as attribute": ({"data/stack": STACK, "data/dwell": DWELL_US}, {}, {"data/dwell@units": "us"}),
    "values of the file's name": ({"images": STACK, "values": DWELL}, {}, {"values@unit": "s"}),
    "group an image": (one_each("frame_{}/image"), {}, {f"frame_{i}@dwell_time_s": DWELL[i] for i in range(N)}),
    "attributes of images": (one_each("im{}"), {}, {f"im{i}@dwell_time_us": DWELL_US[i] for i in range(N)}),
    "images and array": (one_each("images/{}") | {"dwell_time_ns": DWELL * 1e9}, {}, {}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(make, name):
    check(open_sweep(make(entries=LAYOUTS[name][0], attributes=LAYOUTS[name][1], marks=LAYOUTS[name][2])))


def test_a_unit_is_never_guessed_but_may_be_given(make):
    path = make(entries={"images": STACK, "dwell_time": DWELL_US})
    with pytest.raises(SchemaError, match="no values with a meaning") as error:
        open_sweep(path)
    assert "images: (11, 16, 20) uint16" in str(error.value) and "dwell_time: (11,) float64" in str(error.value)
    check(open_sweep(path, unit="us"))
    gain = make("gain_eval.h5", {"images": STACK, "values": 20.0 + np.arange(N)})
    check(open_sweep(gain), "detector_gain", 20.0 + np.arange(N))
    with pytest.raises(OutOfRangeError, match="unknown unit"):
        open_sweep(path, unit="m")
    with pytest.raises(OutOfRangeError, match="is no sweep"):
        open_sweep(path, parameter="pixel_size")


def test_the_parameter_may_be_given_where_the_name_is_silent(make):
    path = make("sweep.h5", {"images": STACK, "values": 20.0 + np.arange(N)})
    with pytest.raises(SchemaError, match="no values with a meaning"):
        open_sweep(path)
    check(open_sweep(path, parameter="detector_gain"), "detector_gain", 20.0 + np.arange(N))


def test_where_several_vary_the_name_decides(make):
    raw = table()
    raw[:, 3] *= np.linspace(1, 1.01, N)  # a measured current is never quite the same
    check(open_sweep(make(entries={"images": STACK, "metadata_raw": raw})))
    with pytest.raises(SchemaError, match="dwell_time, beam_current varies; expected one of"):
        open_sweep(make("sweep.h5", {"images": STACK, "metadata_raw": raw}))


BOTH = {"a": STACK, "b": STACK, "metadata_raw": table()}
REFUSED = {
    "the name says otherwise": ("gain_eval.h5", {"i": STACK, "metadata_raw": table()}, "varies, but the name says"),
    "nothing varies": ("s.h5", {"i": STACK, "metadata_raw": table(values=1e-6)}, "nothing varies"),
    "another varies": ("s.h5", {"i": STACK, "metadata_raw": table("pixel_size", DWELL)}, "pixel_size varies; expected"),
    "z-scores": ("gain_eval.h5", {"i": STACK, "gain": np.linspace(-2, 2, N)}, "detector_gain is -2 in image 0: no set"),
    "not a number": ("s.h5", {"i": STACK, "gain": np.r_[np.nan, 1.0 + np.arange(N - 1)]}, "detector_gain is nan"),
    "two stacks": ("s.h5", BOTH, "no set of images"),
    "images in two groups": ("s.h5", one_each("a/{}") | one_each("b/{}"), "no set of images"),
    "one image": ("s.h5", {"i": STACK[0]}, "no set of images"),
    "no images": ("s.h5", {"metadata_raw": table()}, "no set of images"),
    "table of unknown scale": ("s.h5", {"i": STACK, "parameters": table()}, "whether these numbers are normalised"),
    "two arrays": ("s.h5", {"i": STACK, "gain": np.arange(N), "contrast": np.arange(N)}, "two arrays for the detector"),
    "another length": ("s.h5", {"i": STACK, "gain": 1.0 + np.arange(N - 1)}, "no values with a meaning"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_list_of_what_is_there(make, name):
    file, entries, message = REFUSED[name]
    with pytest.raises(SchemaError, match=message) as error:
        open_sweep(make(file, entries, {"remark": "made"}))
    assert "The file holds:" in str(error.value) and "[remark = 'made']" in str(error.value)
    for key, value in list(entries.items())[:3]:
        assert f"{key}: {np.shape(value)} {np.asarray(value).dtype}" in str(error.value)


def test_files_that_are_no_hdf5(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"not this")
    for name in ("x.h5", "absent.h5"):
        with pytest.raises(UnreadableFileError):
            open_sweep(tmp_path / name)


def _sum(sweep, queue):
    queue.put(int(sweep.images[2].sum()))


def test_pickled_forked_and_from_a_server(make, monkeypatch):
    path = make(entries={"images": STACK, "metadata_raw": table()})
    with serve(path.parent) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        sweep = open_sweep(f"hf://buckets/lab/set/{path.name}")
        check(sweep)
        assert 0 < sweep.remote.fetched <= path.stat().st_size
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(sweep)).images[4], STACK[4])
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        worker = context.Process(target=_sum, args=(sweep, queue))
        worker.start()
        assert queue.get(timeout=60) == STACK[2].sum()
        worker.join()
    np.testing.assert_array_equal(np.stack(open_sweep(path).images[3:5]), STACK[3:5])
