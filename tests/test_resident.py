"""Crops of a data set that lies on a device: the pixels of the file's crops, the same run, and where they come from."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cimp_core import resident
from cimp_core.cli import app
from cimp_core.crops import open_crops, turned
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.errors import CimpError, OutOfRangeError
from cimp_core.pretrain import PROFILES, CropSampler, pretrain
from cimp_core.resident import ResidentCrops, choose_source

SHAPES = [(70, 50), (50, 64), (96, 96), (50, 50)] * 8
TINY = dataclasses.replace(
    PROFILES["smoke"], samples=128, batch_size=32, checkpoint_every=64, crop_size=48, smallest_crop=32, turns=True
)


def make(path, kinds=(np.uint16,)):
    rng = np.random.default_rng(0)
    raw = np.array([20e-12, 2e-6, 0.02, 5e-11, 35.0, -1.2, 0.06]) * rng.uniform(0.7, 1.4, (len(SHAPES), 7))
    images = [rng.integers(0, 65536, shape).astype(kinds[i % len(kinds)]) for i, shape in enumerate(SHAPES)]
    return open_dataset(write_dataset(path, images, raw, [f"s{i // 4}/{i}.emd" for i in range(len(SHAPES))]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make(tmp_path_factory.mktemp("data") / "d.h5")


@pytest.mark.parametrize("kinds", [(np.uint16,), (np.float32,), (np.uint16, np.float32)])
def test_every_flip_and_turn_of_images_of_any_size_is_that_of_the_reader(tmp_path, kinds):
    data = make(tmp_path / "d.h5", kinds).view(range(3, 31))
    reader, there, rng = open_crops(data), ResidentCrops(data, "cpu"), np.random.default_rng(1)
    assert there.pixels.dtype == (torch.int16 if kinds == (np.uint16,) else torch.float32)
    indices = rng.integers(-28, 28, 500)
    tops, lefts = rng.integers(0, reader.shapes[indices] - 31 + 1).T
    turns, flips = rng.integers(0, 4, 500), rng.integers(0, 2, 500)
    assert len(set(zip(turns, flips))) == 8
    expected = turned(reader.crops(indices, tops, lefts, 31), turns, flips)
    found = there.crops(indices, tops, lefts, turns, flips, 31)
    assert found.dtype == torch.float32 and expected.max() > 40_000
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_square_outside_its_image_is_refused_as_by_the_reader(data):
    there, one = ResidentCrops(data, "cpu"), np.zeros(1, int)
    with pytest.raises(OutOfRangeError, match=r"image 0 is 70 x 50 px, too small for 40 at row 31, column 0"):
        there.crops(one, one + 31, one, one, one, 40)
    with pytest.raises(OutOfRangeError, match="no image 32 among 32"):
        there.crops(one + 32, one, one, one, one, 8)


def test_batches_and_parts_of_them_are_those_of_the_file(data):
    there, file = CropSampler(data, TINY, crops="device"), CropSampler(data, TINY)
    there.place(torch.device("cpu"))
    assert there.resident is not None and "reader" not in vars(there)  # no copy was made beside it
    for step in (0, 5):
        for rows in (slice(None), slice(8, 16)):
            for a, b in zip(there.part(step, rows), file.part(step, rows), strict=True):
                assert torch.equal(a.nan_to_num(-9.0), b.nan_to_num(-9.0))


def test_the_run_is_the_same_from_wherever_crops_come_also_when_resumed(tmp_path, data):
    notes, ends, logs = [], [], []
    for crops in ("device", "file", "hdf5"):
        log = []
        model = pretrain(data, None, TINY, crops=crops, on_log=log.append, on_note=notes.append)
        ends.append(model.state_dict())
        logs.append([{k: v for k, v in entry.items() if k != "per_second"} for entry in log])

    def stop(entry):
        if entry["samples"] == 64:
            raise KeyboardInterrupt

    longer = dataclasses.replace(TINY, log_every=32)
    with pytest.raises(KeyboardInterrupt):
        # The entry of the checkpoint at 64 is told before the checkpoint is written: nothing is kept of this run.
        pretrain(data, None, longer, tmp_path, crops="device", on_log=stop)
    config = dataclasses.replace(longer, checkpoint_every=32)
    with pytest.raises(KeyboardInterrupt):
        pretrain(data, None, config, tmp_path / "b", crops="device", on_log=stop)
    ends.append(pretrain(data, None, config, tmp_path / "b", crops="file").state_dict())
    for other in ends[1:]:
        for name, value in ends[0].items():
            assert torch.equal(value, other[name]), name
    assert logs[0] == logs[1] == logs[2]
    assert "memory of cpu: 0.000295 GB of images" in notes[0]
    assert "the file, mapped into memory: asked for" in notes[1] and len(notes) == 3


def test_the_device_is_chosen_where_images_leave_it_room(data, monkeypatch):
    source, note = choose_source(data, "cpu")
    assert source.storage == "mapped" and "the device is a cpu" in note
    monkeypatch.setattr(resident, "_room", lambda device: 1_000_000)
    source, note = choose_source(data, "cpu")
    assert isinstance(source, ResidentCrops) and "0.001 GB free there beside the 15% kept for the model" in note
    need = int(np.prod(SHAPES, axis=1).sum()) * 2
    monkeypatch.setattr(resident, "_room", lambda device: need - 1)
    source, note = choose_source(data, "cpu")
    assert source.storage == "mapped" and "GB of images for cpu" in note
    with pytest.raises(CimpError, match="do not fit on cpu.*take crops from the file"):
        choose_source(data, "cpu", "device")
    with pytest.raises(OutOfRangeError, match="crops from 'ram': choose one of auto, device, file, hdf5"):
        choose_source(data, "cpu", "ram")


def test_room_is_what_is_free_less_the_margin(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70e9, 80e9))
    assert resident._room(torch.device("cuda")) == pytest.approx(70e9 - 0.15 * 80e9)
    assert resident._room(torch.device("cpu")) is None


def test_the_command_says_where_crops_come_from(tmp_path, data):
    options = ["--profile", "smoke", "--set", "samples=64", "--set", "smallest_crop=32", "--set", "crop_size=48"]
    command = ["pretrain", str(data.path), *options, "--split", "image", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*command, "--crops", "device"])
    assert done.exit_code == 0, done.output
    assert "crops come from the memory of cpu" in " ".join(done.output.split())
    assert "crops" not in json.loads((tmp_path / "run/config.json").read_text())  # of the machine, not of the run
