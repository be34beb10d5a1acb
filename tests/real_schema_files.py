"""Small files as the published data set is: two sizes of image, names with a drive letter, no labels, no truth.

Written with h5py alone, from the published description, so that a change of the package's own writer is noticed.
"""

import h5py
import numpy as np

LABELS = ["pixel size", "dwell time", "convergence angle", "beam current", "gain", "offset", "inner collection angle"]
LOGS = [0, 1, 3]
SESSIONS, IMAGES = 12, 8  # a session


def settings(sessions=SESSIONS, seed=0):
    """Settings in SI, (n, 7): a session keeps its optics, its images differ in pixel size, dwell time and gain."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(sessions):
        current, inner = rng.uniform(20e-12, 400e-12), rng.choice([42e-3, 58e-3, 90e-3])
        for _ in range(IMAGES):
            dwell, gain = rng.choice([0.5e-6, 1e-6, 2e-6, 5e-6]), rng.uniform(25, 45)
            rows.append([rng.uniform(8e-12, 200e-12), dwell, 0.0214, current, gain, rng.uniform(-0.5, 0), inner])
    return np.array(rows, dtype=np.float32)


def picture(row, edge, seed):
    """Counts with the noise of the row's dose, on its offset."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:edge, :edge] * 2 * np.pi * row[0] / 4e-10
    electrons = row[3] * row[1] / 1.6e-19
    counts = rng.poisson((1.2 + np.cos(x) * np.cos(y)) * 0.05 * electrons) / electrons
    return np.clip(4e3 * row[4] * counts + 3e4 * (row[5] + 0.6), 0, 65535).astype(np.uint16)


def write_real(path, *, raw=None, names=None, edges=(256, 128), without=(), constant=2):
    """Write a data set; `constant` is the column that never changes, `without` names what to leave out."""
    raw = settings() if raw is None else raw
    count = len(raw)
    columns = raw.astype(float)
    columns[:, LOGS] = np.log(columns[:, LOGS])
    known = np.ma.masked_invalid(columns)
    mean, std = known.mean(axis=0).filled(0.0), known.std(axis=0).filled(1.0)
    std[constant] = 1.0  # as the published statistics have it for a column without spread
    if names is None:
        names = [f"D:\\Titan\\2024-{i // IMAGES:02d}\\HAADF {i:04d}.emd" for i in range(count)]
    table = {
        "metadata": ((columns - mean.astype(np.float32)) / std.astype(np.float32)).astype(np.float32),
        "metadata_raw": raw,
        "stats_mean": mean.astype(np.float32),
        "stats_std": std.astype(np.float32),
        "log_indices": np.array(LOGS, dtype=np.int32),
        "filepaths": np.array(names, dtype=h5py.string_dtype()),
        "frame_indices": np.zeros(count, dtype=np.int32),
        "total_frames": np.ones(count, dtype=np.int32),
    }
    with h5py.File(path, "w") as file:
        for i, row in enumerate(np.nan_to_num(raw, nan=1e-6)):
            file[f"full_res/{i:06d}"] = picture(row, edges[i % len(edges)], i)
        for name in table.keys() - set(without):
            file[name] = table[name]
        file.attrs.update({"dose_threshold": 10.0, "num_samples": count, "num_source_files": len(set(names))})
        file.attrs["metadata_labels"] = np.array(LABELS, dtype=h5py.string_dtype())
    return path
