"""How fast training crops are read: `cimp_core.crops` beside HDF5 read item by item in workers of a torch DataLoader.

``python bench/reading_speed.py [--folder FOLDER] [--quick] [--json FILE]``, more with ``--help``.

The peer is the plain way: a map-style torch data set whose ``__getitem__`` reads one crop with h5py, the file opened
once a worker, batches of 256 put together by the DataLoader. Both read crops at random places of random images, in one
run. "Warm": the file lies in memory. "Cold": its pages were dropped before each repeat (posix_fadvise; `mincore` counts
that none is left), so the disk is measured too, where the file system can forget pages. Writes and removes data sets of
the stated size in the folder.
"""

import contextlib
import ctypes
import gc
import io
import mmap
import os
import shutil
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from report import goal, header, parser, table, write

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
            print(f"{left:.0%} of the pages stayed in memory: cold speeds cannot be measured here")
            return {"warm": speeds["warm"]}
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
        places = np.column_stack(
            [rng.integers(images, size=2**15), rng.integers(edge - size + 1, size=(2**15, 2))]
        ).astype(np.int64)
        plan = {"repeats": count, "warm": 2 if packed else 8, "cold": 2}
        found = {f"h5py_{workers}": peer_speeds(path, places, size, workers, plan, rng) for workers in (0, 1, 2)}
        found["ours"] = our_speeds(data, places, size, {**plan, "warm": 32}, files, rng)
        for state in ("warm", "cold"):
            if any(state not in speeds for speeds in found.values()):
                continue
            row = {"edge": edge, "crop": size, "layout": layout, "storage": storage, "state": state}
            row |= {"open_s": opening, "file_MiB": path.stat().st_size / 2**20}
            for name, speeds in found.items():
                own = speeds[state]
                row |= {name: float(np.median(own)), f"{name}_low": min(own), f"{name}_high": max(own)}
            row["ratio"] = row["ours"] / max(row[f"h5py_{workers}"] for workers in (0, 1, 2))
            rows.append(row)
            print(table([row], COLUMNS).splitlines()[-1], flush=True)
    data.close()
    shutil.rmtree(folder / "cache", ignore_errors=True)
    path.unlink()
    return rows


COLUMNS = {
    "image": "{edge}",
    "crop": "{crop}",
    "file": "{layout}, {storage}",
    "state": "{state}",
    "h5py, 0 workers": "{h5py_0:,.0f}",
    "1 worker": "{h5py_1:,.0f}",
    "2 workers": "{h5py_2:,.0f}",
    "cimp_core.crops": "{ours:,.0f} ({ours_low:,.0f} to {ours_high:,.0f})",
    "over best h5py": "{ratio:.1f}",
    "opening [s]": "{open_s:.2g}",
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, help="where the data sets are made: the disk that is measured")
    arguments.add_argument("--gib", type=float, help="raw images of a data set [GiB]")
    arguments.add_argument("--repeats", type=int)
    arguments.add_argument("--edges", type=int, nargs="+")
    arguments.add_argument("--sizes", type=int, nargs="+")
    arguments.add_argument("--layouts", nargs="+", choices=LAYOUTS)
    options = arguments.parse_args()
    short = options.quick
    edges, sizes = (
        options.edges or ([1024] if short else [1024, 2048]),
        options.sizes or ([128] if short else [128, 224]),
    )
    layouts = options.layouts or (["contiguous", "chunks 256", "gzip 256"] if short else list(LAYOUTS))
    repeats, gib = options.repeats or (3 if short else 5), options.gib or (0.25 if short else 0.5)
    print("crops/s, medians, ours with the lowest and the highest; opening with the copy where one is made")
    print(table([], COLUMNS))
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["CIMP_CACHE"] = str(Path(folder) / "cache")
        for edge in edges:
            for layout in layouts:
                rows += measure(Path(folder), edge, layout, sizes, gib, repeats)
    worst = {
        state: min((row["ratio"] for row in rows if row["state"] == state), default=None) for state in ("warm", "cold")
    }
    goals = [
        goal(f"crops a second over the best of h5py, {state}: the least of the layouts", value, at_least=1.0)
        for state, value in worst.items()
    ]
    print("\n" + table(goals))
    claim = "Training crops are read faster than by h5py in workers of a torch DataLoader, whatever the file's layout."
    head = header("reading_speed", claim, settings={"quick": short, "repeats": repeats, "gib": gib})
    write(options.json, head, rows, COLUMNS, goals)


if __name__ == "__main__":
    main()
