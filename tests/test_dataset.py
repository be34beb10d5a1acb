"""The HDF5 schema: what is written is read back, every fault is named, views and crops keep what they promise."""

import hashlib
import multiprocessing
import pickle
import time
import tracemalloc

import h5py
import numpy as np
import pytest
from dataset_samples import PLAIN, paths, pictures, table

from cimp_core.dataset import check_dataset, open_dataset, write_dataset
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError
from cimp_core.metadata import LABELS, Normalizer
from cimp_core.schema import group_ids, session_ids


@pytest.fixture
def made(tmp_path):
    return write_dataset(tmp_path / "set.h5", pictures(), table(), paths(), materials=["gold", "silicon", "iron"] * 4)


def test_what_is_written_is_read_back(made):
    data, raw = open_dataset(made), table()
    assert len(data) == 12 and check_dataset(made) == []
    for i, image in enumerate(pictures()):
        assert data.image(i).dtype == np.uint16
        np.testing.assert_array_equal(data.image(i), image)
        assert data.shape(i) == image.shape
    np.testing.assert_array_equal(data.metadata_raw, raw.astype(float))
    np.testing.assert_allclose(data.normalizer.restore(data.metadata), raw, rtol=1e-5)
    assert data.filepaths == paths() and data.materials[:3] == ["gold", "silicon", "iron"]
    assert data.acquisition(4).beam_current is None and "absent" in data.acquisition(4).missing["beam_current"]
    assert data.acquisition(0).dwell_time == raw[0, 1]
    assert data.sessions.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_file_has_the_published_layout(made):
    with h5py.File(made) as file:
        types = {name: file[name].dtype for name in file if name != "full_res"}
        floats = ("metadata", "metadata_raw", "stats_mean", "stats_std")
        assert all(types[name] == np.float32 for name in floats)
        assert all(types[name] == np.int32 for name in ("log_indices", "frame_indices", "total_frames"))
        assert types["filepaths"].kind == "O" and file["missing"].dtype == bool
        assert file["log_indices"].shape == (4,) and file["stats_mean"].shape == (7,)
        assert sorted(file["full_res"]) == [f"{i:06d}" for i in range(12)]
        assert list(file.attrs["metadata_labels"]) == list(LABELS)
        assert file.attrs["num_samples"] == 12 and file.attrs["num_source_files"] == 6
        assert "dose_threshold" in file.attrs


def test_missing_mask_is_absent_when_nothing_is_missing(tmp_path):
    path = write_dataset(tmp_path / "set.h5", pictures(3), table(3), paths(3))
    with h5py.File(path) as file:
        assert "missing" not in file and "materials" not in file


def test_logged_columns_and_statistics_are_read_not_assumed(tmp_path):
    raw = table(8, seed=1)
    path = write_dataset(tmp_path / "set.h5", pictures(8), raw, paths(8), log_indices=(2, 4))
    data = open_dataset(path)
    assert data.normalizer.log_indices == (2, 4)
    column = np.log(raw[:, 2].astype(float))
    np.testing.assert_allclose(data.metadata[:, 2], (column - column.mean()) / column.std(), atol=1e-4)
    np.testing.assert_allclose(data.metadata[:, 1], (raw[:, 1] - raw[:, 1].mean()) / raw[:, 1].std(), atol=1e-4)


def test_same_data_same_bytes(tmp_path):
    digests = set()
    for name in ("a.h5", "b.h5"):
        path = write_dataset(tmp_path / name, pictures(), table(), paths(), extra={"twin/seed": np.arange(12)})
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        time.sleep(1.1)  # a stored time has a resolution of one second
    assert len(digests) == 1


def test_writing_is_atomic_and_never_overwrites(made):
    before = made.read_bytes()
    with pytest.raises(CimpError, match="exists already.*--force"):
        write_dataset(made, pictures(), table(), paths())
    with pytest.raises(SchemaError, match="11 images for 12 rows"):
        write_dataset(made, pictures(11), table(), paths(), force=True)
    assert made.read_bytes() == before and [p.name for p in made.parent.iterdir()] == ["set.h5"]
    write_dataset(made, pictures(3), table(3), paths(3), force=True)
    assert len(open_dataset(made)) == 3


@pytest.mark.parametrize(
    ("images", "rows", "files", "message"),
    [
        (pictures(4), 3, 3, "one image more than 3 rows"),
        ([np.zeros((4, 4), np.int32)], 1, 1, "image 0 is int32"),
        ([np.zeros((4, 4, 1), np.uint16)], 1, 1, r"shape \(4, 4, 1\)"),
        (pictures(3), 3, 2, "filepaths has 2 entries"),
    ],
)
def test_writer_names_what_does_not_fit(tmp_path, images, rows, files, message):
    with pytest.raises(SchemaError, match=message):
        write_dataset(tmp_path / "set.h5", images, table(12)[:rows], paths(files))
    assert not list(tmp_path.iterdir())


def test_writing_and_reading_stream(tmp_path):
    count, side = 40, 256
    images = (np.full((side, side), i, np.uint16) for i in range(count))
    tracemalloc.start()
    path = write_dataset(tmp_path / "set.h5", images, np.tile(PLAIN, (count, 1)), paths(count))
    open_dataset(path).image(3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * side * side * 2


def test_the_table_may_be_filled_while_streaming(tmp_path):
    raw, seen = np.full((5, 7), np.nan), {"twin/mean": np.zeros(5)}

    def images():
        for i, image in enumerate(pictures(5)):
            seen["twin/mean"][i], raw[i] = image.mean(), table()[i]
            yield image

    path = write_dataset(tmp_path / "set.h5", images(), raw, paths(5), extra=seen, attributes={"twin_version": "x"})
    data = open_dataset(path)
    np.testing.assert_allclose(data.file["twin/mean"][2], data.image(2).mean())
    np.testing.assert_array_equal(data.metadata_raw, table(5))
    assert data.attributes["twin_version"] == "x"


def test_groups_are_identical_vectors():
    raw = np.tile(np.float32(PLAIN), (6, 1))
    raw[2, 3] = raw[4, 3] = np.nan
    raw[4].view(np.uint32)[3] ^= 1  # another bit pattern, still nan
    raw[3, 0] = np.nextafter(raw[3, 0], np.float32(1))
    raw[:, 5] = 0.0
    raw[5, 5] = -0.0
    assert np.isnan(raw[4, 3])
    assert group_ids(raw).tolist() == [0, 0, 1, 2, 1, 0]


def test_groups_never_lose_a_pair_in_a_large_batch():
    rng = np.random.default_rng(1)
    kinds = rng.integers(0, 40, 600)
    raw = (np.array(PLAIN) * rng.uniform(0.5, 2, (40, 7))).astype(np.float32)[kinds]
    np.testing.assert_array_equal(group_ids(raw)[:, None] == group_ids(raw), kinds[:, None] == kinds)


def test_sessions_are_directories_else_files():
    files = ["a/b/1.emd", "a/b/2.emd", "a/1.emd", "1.emd", "2.emd", "1.emd", r"D:\lab\x.emd", r"D:\lab\y.emd"]
    ids = session_ids(files)
    expected = ["ab", "ab", "a", "1", "2", "1", "lab", "lab"]
    same = [[x == y for y in expected] for x in expected]
    np.testing.assert_array_equal(ids[:, None] == ids, same)


def test_views_keep_their_rows(made):
    data = open_dataset(made)
    view = data.view([9, 2, 5]).view([2, 0])
    assert view.indices.tolist() == [5, 9] and len(view) == 2
    np.testing.assert_array_equal(view.image(0), data.image(5))
    np.testing.assert_array_equal(view.metadata_raw, data.metadata_raw[[5, 9]])
    assert view.groups[0] == data.groups[4] and view.filepaths == [paths()[5], paths()[9]]
    assert view.materials == [data.materials[5], data.materials[9]]
    with pytest.raises(OutOfRangeError, match="holds images 0 to 11"):
        type(data)(made, [12])


def test_crops_are_squares_of_the_image_and_nothing_else(tmp_path):
    image = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
    data = open_dataset(write_dataset(tmp_path / "set.h5", [image], [PLAIN], ["a"]))
    crops = data.crops([0] * 400, 8, np.random.default_rng(0))
    assert crops.shape == (400, 8, 8) and crops.dtype == np.float32
    places, symmetries = set(), set()
    for crop in crops:
        top, left = divmod(int(crop.min()), 40)
        square = image[top : top + 8, left : left + 8]
        np.testing.assert_array_equal(np.sort(crop, axis=None), np.sort(square, axis=None))
        found = [k for k in range(8) if np.array_equal(np.rot90(square[:, ::-1] if k >= 4 else square, k % 4), crop)]
        assert len(found) == 1
        symmetries.update(found)
        places.add((top, left))
    assert symmetries == set(range(8))
    tops, lefts = zip(*places, strict=True)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 22, 0, 32)
    plain = data.crops([0] * 20, 8, np.random.default_rng(0), flips=False)
    assert all(crop[0, 1] == crop[0, 0] + 1 and crop[1, 0] == crop[0, 0] + 40 for crop in plain)


def test_crops_repeat_with_the_seed_and_refuse_small_images(made):
    data = open_dataset(made)
    one, two, three = (data.crops(range(12), 16, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)
    with pytest.raises(OutOfRangeError, match="image 0 is 20 x 24 px, too small for 22"):
        data.crops([0], 22, np.random.default_rng(0))


def _sum(data, i, queue):
    queue.put(int(data.image(i).sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_while_the_parent_has_it_open(made, method):
    data = open_dataset(made).view([4, 5, 6])
    expected = [int(data.image(i).sum()) for i in range(3)]
    context = multiprocessing.get_context(method)
    for i in range(3):
        queue = context.Queue()
        worker = context.Process(target=_sum, args=(data, i, queue))
        worker.start()
        assert queue.get(timeout=60) == expected[i]
        worker.join()
    assert int(data.image(0).sum()) == expected[0]


def test_pickle_carries_no_images_and_no_handle(made):
    data = open_dataset(made)
    data.image(0)
    text = pickle.dumps(data)
    assert len(text) < made.stat().st_size / 2
    np.testing.assert_array_equal(pickle.loads(text).image(3), data.image(3))


def test_normalizer_of_the_file_is_the_one_fitted(made):
    fitted = Normalizer.fit(table())
    np.testing.assert_allclose(open_dataset(made).normalizer.mean, fitted.mean, rtol=1e-6)
