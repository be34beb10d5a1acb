"""How fast training crops are read: `cimp_core.crops` beside HDF5 read item by item in workers of a torch DataLoader.

``python bench/reading_speed.py [--folder FOLDER] [--out FILE.json]``, more with ``--help``. The peer is the plain way:
a map-style torch data set whose ``__getitem__`` reads one crop with h5py, the file opened once a worker, batches of 256
put together by the DataLoader. Both read crops at random places of random images, in one run. "Warm": the file lies in
memory. "Cold": its pages were dropped before each repeat (posix_fadvise; `mincore` counts that none is left), so the
disk is measured too. Writes and removes data sets of the stated size in the folder.
"""

import argparse
import contextlib
import ctypes
import gc
import io
import json
import mmap
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from cimp_core.crops import open_crops
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.schema import image_key

BATCH = 256
LAYOUTS = {
    "contiguous": {},
    "chunks 128": {"chunks": (128, 128)},
    "chunks 256": {"chunks": (256, 256)},
    "gzip 256": {"chunks": (256, 256), "compression": "gzip", "shuffle": True},
    "lzf 256": {"chunks": (256, 256), "compression": "lzf", "shuffle": True},
}


class Peer(torch.utils.data.Dataset):
    """One crop an item, straight from the file."""

    def __init__(self, path: Path, places: np.ndarray, size: int) -> None:
        self.path, self.places, self.size, self.file = path, places.tolist(), size, None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, k: int) -> np.ndarray:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        i, top, left = self.places[k]
        return self.file[image_key(i)][top : top + self.size, left : left + self.size]


def make(path: Path, count: int, edge: int, options: dict) -> None:
    """Counts with shot noise on lattice fringes: they compress about as micrographs do."""
    rng = np.random.default_rng(0)
    x = np.arange(edge)
    raw = np.array([20e-12, 2e-6, 0.02, 5e-11, 35.0, -1.2, 0.06]) * rng.uniform(0.5, 1.5, (count, 7))
    noise = rng.poisson(60, (edge, 2 * edge)).astype(np.uint16)

    def image():
        shift = rng.integers(edge)
        return noise[:, shift : shift + edge] * 40 + (500 * (1 + np.sin(x / rng.uniform(1, 4)))).astype(np.uint16)

    write_dataset(path, (image() for _ in range(count)), raw, [f"{i}/a.emd" for i in range(count)])
    if options:
        with h5py.File(path) as plain, h5py.File(f"{path}.part", "w") as file:
            for name in plain:
                if name != "full_res":
                    plain.copy(name, file)
            file.attrs.update(plain.attrs)
            for i in range(count):
                file.create_dataset(image_key(i), data=plain[image_key(i)][()], **options)
        os.replace(f"{path}.part", path)


def resident(path: Path) -> float:
    """Share of a file's pages that lie in memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        found = (ctypes.c_ubyte * -(-len(pages) // mmap.PAGESIZE))()
        start = np.frombuffer(pages, np.uint8).ctypes.data
        if ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(pages)), found):
            raise OSError(ctypes.get_errno(), "mincore")
        return float((np.frombuffer(found, np.uint8) & 1).mean())


def drop(path: Path) -> float:
    """Forget the file's pages; what share of them stays."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return resident(path)


def load(path: Path) -> None:
    with open(path, "rb") as file:
        while file.read(2**24):
            pass


class Order:
    """Batches that the next pass over the loader takes, so that its workers live on from pass to pass."""

    def __init__(self) -> None:
        self.rows = np.zeros((0, BATCH), np.int64)

    def __iter__(self):
        return iter(self.rows.tolist())

    def __len__(self) -> int:
        return len(self.rows)


def peer_speeds(path: Path, table: np.ndarray, size: int, workers: int, plan: dict, rng) -> dict[str, list[float]]:
    """Crops a second of each repeat; the workers were started, and the file opened, by a pass that is not counted."""
    order = Order()
    keep = {"persistent_workers": True} if workers else {}
    loader = torch.utils.data.DataLoader(Peer(path, table, size), batch_sampler=order, num_workers=workers, **keep)

    def once(batches: int) -> float:
        order.rows = rng.integers(len(table), size=(batches, BATCH))
        start = time.perf_counter()
        for _ in loader:
            pass
        return batches * BATCH / (time.perf_counter() - start)

    once(max(2, workers))
    return repeats(once, plan, [path])


def our_speeds(data, table: np.ndarray, size: int, plan: dict, files: list[Path], rng) -> dict[str, list[float]]:
    """The same of `cimp_core.crops` in one process; mapped pages cannot be dropped, so a cold repeat has a new map."""
    reader = [open_crops(data)]

    def once(batches: int) -> float:
        drawn = table[rng.integers(len(table), size=(batches, BATCH))]
        start = time.perf_counter()
        for batch in drawn:
            torch.from_numpy(reader[0].crops(*batch.T, size))
        return batches * BATCH / (time.perf_counter() - start)

    def anew() -> None:
        reader[0] = None
        gc.collect()
        reader[0] = open_crops(data)

    once(2)
    return repeats(once, plan, files, anew)


def repeats(once, plan: dict, files: list[Path], anew=lambda: None) -> dict[str, list[float]]:
    speeds = {"warm": [], "cold": []}
    for _ in range(plan["repeats"]):
        for file in files:
            load(file)
        speeds["warm"].append(once(plan["warm"]))
    for _ in range(plan["repeats"]):
        anew()
        left = max(drop(file) for file in files)
        if left > 0.01:
            raise RuntimeError(f"{left:.0%} of the pages stayed in memory: cold speeds cannot be measured here")
        speeds["cold"].append(once(plan["cold"]))
    return speeds


def measure(folder: Path, edge: int, layout: str, sizes: list[int], gib: float, count: int) -> list[dict]:
    path, rng, rows = folder / "data.h5", np.random.default_rng(1), []
    images = max(8, int(gib * 2**30 / (2 * edge**2)))
    make(path, images, edge, LAYOUTS[layout])
    data = open_dataset(path)
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        storage = open_crops(data).storage
    opening = time.perf_counter() - start
    files = [path] if storage == "mapped" else list((folder / "cache").glob("*.raw"))
    packed = "compression" in LAYOUTS[layout]
    for size in sizes:
        table = np.column_stack(
            [rng.integers(images, size=2**15), rng.integers(edge - size + 1, size=(2**15, 2))]
        ).astype(np.int64)
        row = {"edge": edge, "crop": size, "layout": layout, "storage": storage, "open_s": opening}
        row["file_MiB"] = path.stat().st_size / 2**20
        plan = {"repeats": count, "warm": 2 if packed else 8, "cold": 2}
        for workers in (0, 1, 2):
            row[f"h5py_{workers}"] = peer_speeds(path, table, size, workers, plan, rng)
        row["ours"] = our_speeds(data, table, size, {**plan, "warm": 32}, files, rng)
        for state in ("warm", "cold"):
            best = max(np.median(row[f"h5py_{workers}"][state]) for workers in (0, 1, 2))
            row[f"ratio_{state}"] = float(np.median(row["ours"][state]) / best)
        rows.append(row)
    data.close()
    shutil.rmtree(folder / "cache", ignore_errors=True)
    path.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="write all repeats as JSON")
    parser.add_argument("--folder", type=Path, help="where the data sets are made: the disk that is measured")
    parser.add_argument("--gib", type=float, default=0.5, help="raw images of a data set [GiB]")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--edges", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    arguments = parser.parse_args()
    machine = f"{os.cpu_count()} cores, h5py {h5py.__version__}, torch {torch.__version__}, {platform.system()}"
    print(f"{machine}; crops/s, median of {arguments.repeats} (lowest to highest)")
    names = ("h5py_0", "h5py_1", "h5py_2", "ours")
    print("| image | crop | file | state | h5py, 0 workers | 1 worker | 2 workers | cimp_core.crops | over best h5py |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        os.environ["CIMP_CACHE"] = str(Path(folder) / "cache")
        for edge in arguments.edges:
            for layout in arguments.layouts:
                found = measure(Path(folder), edge, layout, arguments.sizes, arguments.gib, arguments.repeats)
                rows += found
                for row in found:
                    for state in ("warm", "cold"):
                        cells = [row[name][state] for name in names]
                        text = " | ".join(f"{np.median(v):,.0f} ({min(v):,.0f} to {max(v):,.0f})" for v in cells)
                        what = f"| {edge} | {row['crop']} | {layout}, {row['storage']} | {state} | {text}"
                        print(f"{what} | {row[f'ratio_{state}']:.1f} |", flush=True)
    print("Opening, with the copy where one is made [s]: ", end="")
    print(", ".join(f"{r['edge']} {r['layout']} {r['open_s']:.2g}" for r in rows if r["crop"] == arguments.sizes[0]))
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
