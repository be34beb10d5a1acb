"""Files that follow the schema, whoever wrote them, are read; of others, every fault is named."""

import contextlib
import json

import h5py
import numpy as np
import pytest
from dataset_samples import PLAIN, paths, pictures, table
from typer.testing import CliRunner

from cimp_core.cli.dataset import app
from cimp_core.dataset import check_dataset, open_dataset, write_dataset
from cimp_core.errors import SchemaError, UnreadableFileError
from cimp_core.metadata import LABELS


@pytest.fixture
def made(tmp_path):
    return write_dataset(tmp_path / "set.h5", pictures(), table(), paths(), materials=["gold", "silicon", "iron"] * 4)


def faulty(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return check_dataset(path)


def replace(name, change):
    def apply(file):
        value = change(file[name][()])
        del file[name]
        file[name] = value

    return apply


FAULTS = {
    "no metadata": (lambda f: f.__delitem__("metadata"), "metadata: absent or damaged, expected (12, 7) float32"),
    "wrong shape": (replace("metadata", lambda v: v[:, :6]), "metadata: shape (12, 6), expected (12, 7)"),
    "wrong statistics": (replace("stats_mean", lambda v: v[:4]), "stats_mean: shape (4,), expected (7)"),
    "wrong type": (replace("metadata_raw", lambda v: np.ones((12, 7), int)), "metadata_raw: type int64"),
    "short column": (replace("frame_indices", lambda v: v[:3]), "frame_indices: shape (3,), expected (12)"),
    "paths are numbers": (replace("filepaths", lambda v: np.arange(12)), "filepaths: type int64, expected string"),
    "labels reordered": (
        lambda f: f.attrs.__setitem__("metadata_labels", list(LABELS[::-1])),
        "attribute metadata_labels: ['inner collection angle'",
    ),
    "attribute lost": (lambda f: f.attrs.__delitem__("dose_threshold"), "attribute dose_threshold: absent"),
    "wrong count": (lambda f: f.attrs.__setitem__("num_samples", 13), "attribute num_samples: 13, but the file has 12"),
    "image lost": (lambda f: f.__delitem__("full_res/000007"), "full_res: 1 of 12 images absent: 000007"),
    "image too many": (lambda f: f.__setitem__("full_res/x", np.ones((2, 2))), "full_res: 1 without a row"),
    "image type": (replace("full_res/000002", lambda v: v.astype(float)), "full_res/000002: float64 of shape"),
    "image shape": (replace("full_res/000002", lambda v: v[None]), "full_res/000002: uint16 of shape (1, 22, 24)"),
    "nan statistics": (replace("stats_mean", lambda v: v * np.nan), "stats_mean of 'pixel size': nan"),
    "zero spread": (replace("stats_std", lambda v: v * 0), "stats_std of 'gain': 0.0, expected a finite number above"),
    "another transform": (
        replace("log_indices", lambda v: np.array([0, 1, 3, 4], np.int32)),
        "metadata of 'inner collection angle': not (metadata_raw - mean) / std",
    ),
    "log index": (replace("log_indices", lambda v: np.array([0, 1, 3, 9])), "log_indices: [0, 1, 3, 9]"),
    "one row off": (replace("metadata", lambda v: np.roll(v, 1, 0)), "metadata of 'dwell time': not (ln(metadata_raw)"),
    "mask": (replace("missing", lambda v: ~v), "missing: does not mark exactly the nan of metadata_raw in 12 of 12"),
    "frame": (replace("frame_indices", lambda v: v + 5), "frame_indices: not from 0 to total_frames - 1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_check_names_the_fault(made, name):
    change, message = FAULTS[name]
    found = faulty(made, change)
    assert any(fault.startswith(message) for fault in found), found


def test_constant_column(tmp_path):
    raw = table()
    raw[:, 4] = 33
    path = write_dataset(tmp_path / "set.h5", pictures(), raw, paths())
    assert check_dataset(path) == [] and np.all(open_dataset(path).metadata[:, 4] == 0)
    found = faulty(path, replace("stats_std", lambda v: np.where(np.arange(7) == 4, 0, v).astype(np.float32)))
    assert found == [
        "stats_std of 'gain': 0.0, expected a finite number above zero "
        "(the column is constant at 33; its std must then be 1)"
    ]


def test_value_at_zero_is_named_but_does_not_close_the_file(tmp_path):
    raw = table()
    raw[6, 2] = 0
    path = write_dataset(tmp_path / "set.h5", pictures(), raw, paths())
    assert check_dataset(path) == [
        "metadata_raw of 'convergence angle': 0 rad is no setting, use nan, in 1 of 12 images: 6"
    ]
    acquisition = open_dataset(path).acquisition(6)
    assert acquisition.convergence_angle is None and "above zero" in acquisition.missing["convergence_angle"]


def test_opening_reports_every_fault_at_once(made):
    with h5py.File(made, "r+") as file:
        del file["stats_std"], file["full_res/000001"]
    with pytest.raises(SchemaError, match=r"2 fault\(s\)") as error:
        open_dataset(made)
    assert "stats_std: absent or damaged" in str(error.value) and "000001" in str(error.value)


def test_damaged_files_end_in_a_named_fault(made, tmp_path):
    whole = made.read_bytes()
    damaged = tmp_path / "damaged.h5"
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        assert check_dataset(damaged)
        with pytest.raises(UnreadableFileError, match="not a complete HDF5 file"):
            open_dataset(damaged)
    for name in ("full_res/000003", "full_res", "metadata_raw", "filepaths"):
        with h5py.File(made) as file:
            start = h5py.h5o.get_info(file[name].id).addr  # where the object's header lies
        damaged.write_bytes(whole[:start] + bytes(16) + whole[start + 16 :])
        found = check_dataset(damaged)
        assert any(fault.startswith(f"{name}: ") and "damaged" in fault for fault in found), found
        with contextlib.suppress(SchemaError):
            open_dataset(damaged)
    with pytest.raises(UnreadableFileError, match="no such file"):
        open_dataset(tmp_path / "none.h5")


def test_command_line_checks_and_describes(made, tmp_path):
    runner = CliRunner()
    good = runner.invoke(app, ["check", str(made)])
    assert good.exit_code == 0 and "follows the schema" in good.stdout
    told = json.loads(runner.invoke(app, ["info", str(made), "--json"]).stdout)
    assert told["images"] == 12 and told["sessions"] == 3 and told["materials"] == 3
    assert told["image_sizes"]["20 x 24"] == 1 and told["distinct_settings"] == 10
    assert told["parameters"]["beam_current"]["missing"] == 2
    assert told["parameters"]["pixel_size"]["most"] == pytest.approx(table()[:, 0].max())
    assert "beam current" in runner.invoke(app, ["info", str(made)]).stdout
    with h5py.File(made, "r+") as file:
        del file["stats_mean"], file["full_res/000003"]
    bad = runner.invoke(app, ["check", str(made)])
    assert bad.exit_code == 1 and "stats_mean" in bad.stdout and "000003" in bad.stdout
    assert isinstance(runner.invoke(app, ["info", str(made)]).exception, SchemaError)
    assert runner.invoke(app, ["check", str(tmp_path / "none.h5")]).exit_code == 1


@pytest.mark.parametrize("text", [h5py.string_dtype(), "S32"])
def test_a_file_in_the_published_layout_that_this_package_did_not_write(tmp_path, text):
    rng, logs = np.random.default_rng(5), [0, 1, 2, 3]
    raw = (np.array(PLAIN) * rng.uniform(0.5, 2, (9, 7))).astype(np.float32)
    columns = raw.astype(float)
    columns[:, logs] = np.log(columns[:, logs])
    mean, std = columns.mean(axis=0).astype(np.float32), columns.std(axis=0).astype(np.float32)
    path = tmp_path / "CMMP.h5"
    with h5py.File(path, "w") as file:
        for i in range(9):
            side = 64 if i % 2 else 32
            image = rng.integers(0, 65536, (side, side), dtype=np.uint16)
            file.create_dataset(f"full_res/{i:06d}", data=image, chunks=(16, 16), compression="gzip")
        file["metadata_raw"], file["stats_mean"], file["stats_std"] = raw, mean, std
        file["metadata"] = ((columns - mean) / std).astype(np.float32)
        file["log_indices"] = np.array(logs, np.int32)
        names = [f"a/{i // 3}.emd" for i in range(9)]
        file.create_dataset("filepaths", data=np.array(names, dtype=text))
        file["frame_indices"] = np.arange(9, dtype=np.int32) % 3
        file["total_frames"] = np.full(9, 3, np.int32)
        file.attrs.update({"dose_threshold": 10.0, "num_samples": 9, "num_source_files": 3})
        file.attrs["metadata_labels"] = np.array(LABELS, dtype=text)
    assert check_dataset(path) == []
    data = open_dataset(path)
    assert data.normalizer.log_indices == (0, 1, 2, 3) and data.materials is None
    assert data.filepaths[3] == "a/1.emd" and data.attributes["dose_threshold"] == 10
    np.testing.assert_allclose(data.normalizer.normalize(data.metadata_raw), data.metadata, atol=1e-4)
    assert [data.shape(i) for i in (0, 1)] == [(32, 32), (64, 64)] and data.total_frames.tolist() == [3] * 9
    np.testing.assert_array_equal(np.sort(data.crops([0], 32, rng), None), np.sort(data.image(0), None))
