"""Fast crops are the pixels of `Dataset.image`, however the file stores them and whatever happens to the copy."""

import dataclasses
import multiprocessing
import os
import pickle
import signal
import time
from collections import namedtuple

import h5py
import numpy as np
import pytest
from bucket_server import serve
from dataset_samples import paths, table

from cimp_core import image_copy
from cimp_core.crops import open_crops
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import OutOfRangeError, UnreadableFileError

COUNT = 12
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (16, 16)},
    "gzip": {"chunks": (16, 16), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": (32, 24), "compression": "lzf"},
}


def images(mixed=False, seed=0):
    """Sizes from 32 x 33 to 54 x 33 pixels; of the mixed ones every third is float32."""
    rng = np.random.default_rng(seed)
    for i in range(COUNT):
        image = rng.integers(0, 65536, (32 + 2 * i, 33), dtype=np.uint16)
        yield image.astype(np.float32) / 7 if mixed and i % 3 == 1 else image


def write(path, layout="contiguous", mixed=False, seed=0):
    write_dataset(path, images(mixed, seed), table(), paths(), force=True)
    if LAYOUTS[layout]:
        with h5py.File(path, "r+") as file:
            for name, image in ((n, file["full_res"][n][()]) for n in list(file["full_res"])):
                del file["full_res"][name]
                file["full_res"].create_dataset(name, data=image, track_times=False, **LAYOUTS[layout])
    return open_dataset(path)


def squares(data, n=60, size=24, seed=3):
    """Arguments of `CropReader.crops`, the corners among them, and what must come out."""
    rng = np.random.default_rng(seed)
    indices = rng.integers(len(data), size=n)
    free = np.array([data.shape(i) for i in indices]) - size
    places = rng.integers(free + 1)
    places[:4] = free[:4] * [[0, 0], [0, 1], [1, 0], [1, 1]]
    expected = [data.image(i)[t : t + size, x : x + size] for i, (t, x) in zip(indices, places)]
    return (indices, *places.T, size), np.array(expected)


def require_equal(reader, data):
    arguments, expected = squares(data)
    found = reader.crops(*arguments)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def copies(cache):
    return sorted(p.name for p in cache.glob("*") if p.suffix != ".lock")


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_crops_are_the_pixels_of_the_images(tmp_path, cache, layout, mixed):
    data = write(tmp_path / "a.h5", layout, mixed)
    expected = "mapped" if layout == "contiguous" else "cache"
    for view in (data, data.view([7, 2, 9, 1, 4])):
        for options, storage in (({}, expected), ({"memory": 1.0}, "memory"), ({"cache": False}, "hdf5")):
            reader = open_crops(view, **options)
            assert reader.storage == ("mapped" if layout == "contiguous" else storage)
            require_equal(reader, view)
            require_equal(reader, view)  # also once nothing waits for the disk
    assert len(copies(cache)) == (expected == "cache")
    assert open_crops(data).crops([], [], [], 8).shape == (0, 8, 8)


def test_announced_crops_are_the_same(tmp_path):
    data = write(tmp_path / "a.h5")
    reader = open_crops(data)
    arguments, expected = squares(data)
    reader.announce(*arguments)
    np.testing.assert_array_equal(reader.crops(*arguments), expected)


@pytest.mark.parametrize("options", [{}, {"memory": 1.0}, {"cache": False}])
def test_squares_outside_of_their_image_are_refused(tmp_path, options):
    view = write(tmp_path / "a.h5", "chunked").view([3, 0])
    reader = open_crops(view, **options)
    with pytest.raises(OutOfRangeError, match=r"image 0 is 32 x 33 px, too small for 33$"):
        reader.crops([0, 1], [0, 0], [0, 0], 33)
    for top, left in ((-1, 0), (0, -1), (15, 0), (0, 10)):
        with pytest.raises(OutOfRangeError, match=rf"image 3 is 38 x 33 px.*at row {top}, column {left}"):
            reader.crops([0], [top], [left], 24)
    assert reader.crops([0], [14], [9], 24).shape == (1, 24, 24)
    with pytest.raises(OutOfRangeError, match="no image 2 among 2"):
        reader.crops([2], [0], [0], 8)
    np.testing.assert_array_equal(reader.crops([-1], [0], [0], 8)[0], view.image(1)[:8, :8])


def _crops(reader, arguments, queue):
    queue.put(reader.crops(*arguments))


@pytest.mark.parametrize("options", [{}, {"memory": 1.0}, {"cache": False}])
def test_other_processes_read_the_same(tmp_path, options):
    for layout in ("contiguous", "gzip"):
        data = write(tmp_path / f"{layout}.h5", layout)
        reader = open_crops(data.view([5, 1, 8]), **options)
        arguments, expected = squares(data.view([5, 1, 8]))
        text = pickle.dumps(reader)
        assert len(text) < (tmp_path / f"{layout}.h5").stat().st_size  # no images
        np.testing.assert_array_equal(pickle.loads(text).crops(*arguments), expected)
        for method in ("fork", "spawn") if layout == "contiguous" and not options else ("fork",):
            context = multiprocessing.get_context(method)
            queue = context.Queue()
            worker = context.Process(target=_crops, args=(reader, arguments, queue))
            worker.start()
            np.testing.assert_array_equal(queue.get(timeout=60), expected)
            worker.join()


def test_images_that_are_not_plain_bytes_of_the_file_are_not_mapped(tmp_path):
    """One of each: in another file by a link, in a raw file, in a type that numpy has otherwise, never written."""
    path = tmp_path / "a.h5"
    write(path)
    write(tmp_path / "b.h5", seed=1)
    with h5py.File(path, "r+") as file:
        group = file["full_res"]
        for i in range(4):
            del group[f"{i:06d}"]
        group["000000"] = h5py.ExternalLink("b.h5", "full_res/000000")
        raw = np.arange(1600, dtype=np.uint16).reshape(40, 40)
        raw.tofile(tmp_path / "c.raw")
        group.create_dataset("000001", shape=(40, 40), dtype="u2", external=[(str(tmp_path / "c.raw"), 0, raw.nbytes)])
        shifted = h5py.h5t.STD_U16LE.copy()
        shifted.set_precision(12)
        shifted.set_offset(4)
        item = h5py.h5d.create(group.id, b"000002", shifted, h5py.h5s.create_simple((40, 40)))
        item.write(h5py.h5s.ALL, h5py.h5s.ALL, raw)
        group.create_dataset("000003", shape=(40, 40), dtype="u2", fillvalue=7)
    data = open_dataset(path)
    for i in range(4):
        assert open_crops(data.view([i])).storage == "cache"
    assert open_crops(data.view(range(4, 12))).storage == "mapped"
    np.testing.assert_array_equal(data.image(2), raw)
    assert (data.image(3) == 7).all()
    require_equal(open_crops(data), data)


def test_a_user_block_and_big_endian_images_are_mapped(tmp_path):
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as old, h5py.File(tmp_path / "b.h5", "w", userblock_size=1024) as new:
        new.attrs.update(old.attrs)
        for name in old:
            if name != "full_res":
                old.copy(name, new)
        for i, image in enumerate(images()):
            new.create_dataset(f"full_res/{i:06d}", data=image.astype(">u2"))
    data = open_dataset(tmp_path / "b.h5")
    reader = open_crops(data)
    assert reader.storage == "mapped" and data.image(0).dtype == ">u2"
    arguments, expected = squares(data)
    np.testing.assert_array_equal(reader.crops(*arguments), expected)


def _make(path, gate, queue):
    gate.wait()
    reader = open_crops(open_dataset(path))
    queue.put((reader.storage, reader.crops([0], [0], [0], 24)))


def test_two_processes_make_one_copy(tmp_path, cache, capfd):
    data = write(tmp_path / "a.h5", "gzip")
    context = multiprocessing.get_context("fork")
    gate, queue = context.Event(), context.Queue()
    workers = [context.Process(target=_make, args=(data.path, gate, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    gate.set()
    for _ in workers:
        storage, square = queue.get(timeout=60)
        assert storage == "cache"
        np.testing.assert_array_equal(square[0], data.image(0)[:24, :24])
    for worker in workers:
        worker.join()
    assert capfd.readouterr().err.count("copying the images once") == 1
    assert len(copies(cache)) == 1


def _hang(path):
    def slowly(image, plain=image_copy.image_bytes):
        time.sleep(0.2)
        return plain(image)

    image_copy.image_bytes = slowly
    open_crops(open_dataset(path))


def test_a_killed_copy_is_made_again(tmp_path, cache):
    data = write(tmp_path / "a.h5", "lzf")
    worker = multiprocessing.get_context("fork").Process(target=_hang, args=(data.path,))
    worker.start()
    deadline = time.monotonic() + 60
    while not list(cache.glob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert copies(cache)[0].endswith(".part")
    require_equal(open_crops(data), data)
    assert len(copies(cache)) == 1 and copies(cache)[0].endswith(".raw")


def test_a_damaged_copy_is_made_again(tmp_path, cache):
    data = write(tmp_path / "a.h5", "gzip")
    open_crops(data)
    (made,) = cache.glob("*.raw")
    made.write_bytes(made.read_bytes()[:-4096])
    require_equal(open_crops(data), data)


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
def test_a_data_set_that_changed_is_read_anew(tmp_path, cache, layout):
    path = tmp_path / "a.h5"
    old = write(path, layout)
    reader, (arguments, expected) = open_crops(old), squares(old)
    size = path.stat().st_size
    write(tmp_path / "b.h5", layout, seed=1)
    os.replace(tmp_path / "b.h5", path)
    assert layout == "gzip" or path.stat().st_size == size
    np.testing.assert_array_equal(reader.crops(*arguments), expected)  # what was open stays what it was
    with pytest.raises(UnreadableFileError, match="replaced"):
        pickle.loads(pickle.dumps(reader))
    new = open_dataset(path)
    require_equal(open_crops(new), new)
    assert not np.array_equal(open_crops(new).crops(*arguments), expected)
    assert len(copies(cache)) == (layout == "gzip")  # the copy of the old state is gone


def test_a_file_written_to_while_mapped_is_noticed(tmp_path):
    data = write(tmp_path / "a.h5")
    reader = open_crops(data)
    data.close()
    with open(data.path, "r+b") as file:
        file.truncate(4096)
    with pytest.raises(UnreadableFileError, match="changed while it was read"):
        reader.crops([0], [0], [0], 8)


def test_a_file_on_a_server_is_read_there_or_held_in_memory(tmp_path, cache):
    data = write(tmp_path / "a.h5")
    with serve(tmp_path) as server:
        far = open_dataset(server.web("a.h5")).view([3, 0, 5])
        with pytest.warns(UserWarning, match="through HDF5.*fetch it first"):
            reader = open_crops(far)
        assert (reader.storage, open_crops(far, memory=1.0).storage) == ("hdf5", "memory")
        arguments, expected = squares(data.view([3, 0, 5]), n=20)
        for each in (reader, open_crops(far, memory=1.0)):
            np.testing.assert_array_equal(each.crops(*arguments), expected)
        assert not cache.exists()


def _usage(free):
    return lambda folder: namedtuple("usage", "total used free")(2**50, 0, free)


def test_without_room_crops_are_read_through_hdf5_and_it_is_said(tmp_path, cache, monkeypatch):
    data = write(tmp_path / "a.h5", "gzip")
    need = sum(-(-h * w * 2 // 64) * 64 for h, w in (data.shape(i) for i in range(COUNT)))
    with pytest.warns(UserWarning, match=r"a\.h5: crops are read through HDF5.*limit 1e-06 GiB.*CIMP_CACHE"):
        reader = open_crops(data, limit=1e-6)
    assert reader.storage == "hdf5"
    require_equal(reader, data)
    monkeypatch.setattr(image_copy.shutil, "disk_usage", _usage(need + image_copy.SPARE - 1))
    with pytest.warns(UserWarning, match="no room"):
        assert open_crops(data).storage == "hdf5"
    assert copies(cache) == []
    monkeypatch.setattr(image_copy.shutil, "disk_usage", _usage(need + image_copy.SPARE))
    assert open_crops(data).storage == "cache"


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, cache, monkeypatch):
    data = write(tmp_path / "a.h5", "gzip")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_copy.os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        reader = open_crops(data)
    assert reader.storage == "hdf5" and copies(cache) == []
    require_equal(reader, data)


def plain_batch(sampler, step):
    """A batch drawn one crop after the other from the whole images, as the definition has it."""
    config, data = sampler.config, sampler.data
    rng, n = np.random.default_rng((config.seed, 2, step)), config.batch_size
    s = int(rng.choice(sampler.edges))
    indices, crops = sampler.order(step * n, n), np.empty((n, s, s), np.float32)
    for row, i in enumerate(indices):
        image = data.image(i)
        top, left = (int(rng.integers(edge - s + 1)) for edge in image.shape)
        turns, flip = rng.integers(4), rng.integers(2)
        turns = turns if config.turns else turns // 2 * 2
        crop = image[top : top + s, left : left + s]
        crops[row] = np.rot90(crop[:, ::-1] if flip else crop, turns) if config.flips else crop
    metadata = data.metadata.astype(np.float32)[indices]
    metadata[rng.random(metadata.shape) < config.mask_metadata] = np.nan
    on_scale = np.array([data.on_scale(i) for i in indices])
    return crops, metadata, on_scale & (rng.random(n) >= config.mask_absolute), data.groups[indices]


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("turns", [True, False])
def test_training_batches_are_those_of_whole_images(tmp_path, layout, flips, turns):
    from cimp_core.pretrain import PROFILES, CropSampler  # here, or every spawned process would load torch

    data = write(tmp_path / "a.h5", layout, mixed=True).view([4, 1, 0, 7, 10, 2, 6, 5])
    config = dataclasses.replace(PROFILES["smoke"], batch_size=21, flips=flips, turns=turns)
    for size in (24, 32):  # 32: the height of image 0, so that a draw has one outcome
        for memory in (0.0, 4.0):
            sampler = CropSampler(data, dataclasses.replace(config, crop_size=size, smallest_crop=size, memory=memory))
            for step in (0, 1, 7, 1):
                for found, expected in zip(sampler(step), plain_batch(sampler, step), strict=True):
                    assert found.numpy().dtype == expected.dtype
                    np.testing.assert_array_equal(found.numpy(), expected)


def test_validation_takes_the_central_squares(tmp_path):
    from cimp_core.pretrain import Validation

    data = write(tmp_path / "a.h5", "gzip", mixed=True)
    for size in (24, 33, 40):
        for crop, (i, image) in zip(Validation(data, size).crops, enumerate(data.image(i) for i in range(COUNT))):
            top, left = (max(0, (edge - size) // 2) for edge in image.shape)
            np.testing.assert_array_equal(crop, image[top : top + size, left : left + size], err_msg=str(i))
