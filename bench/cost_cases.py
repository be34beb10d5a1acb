"""The steps that `bench/cost_growth.py` measures: each a function from a size to a call that does the work.

A maker ``maker(folder, size)`` prepares the input outside of the clock and gives the call. `CASES` says what the size
counts, which sizes are measured, and the least size, whose time is the fixed cost.
"""

import contextlib
import io
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hyperspy.api  # noqa: F401  its first use loads much, which belongs to no case
import numpy as np
import torch

import cimp_core as cimp
from cimp_core.auditing.duplicates import find_duplicates
from cimp_core.auditing.measuring import FINGERPRINT, Measured
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.denoising.direct import Direct
from cimp_core.digital_twin import write_sessions
from cimp_core.metadata import Acquisition
from cimp_core.microscope.velox_writer import write_velox
from cimp_core.pretrain import PretrainConfig, pretrain
from cimp_core.search import Index

SETTINGS = Acquisition(2e-11, 2e-6, 0.021, 5e-11, 33.0, -1.2, 0.06)
ENOUGH = 1.0  # [s]; calls that took less are repeated


def measure(step: str, what: str, size: int, threads: int, clock: str) -> dict:
    """Seconds of a size, the least of some repeats, and the peak memory [MB]; to be called in a process of its own.

    The peak is that of the largest process: this one, or one that it started.
    """
    torch.set_num_threads(threads)
    growth = CASES[step, what]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        first, second = Path(folder, "first"), Path(folder, "second")
        if step != "build":  # which starts its readers anew in every call, so that no call is the first
            first.mkdir()
            growth.maker(first, growth.warm or growth.least)()
        second.mkdir()
        return {"seconds": timed(growth.maker(second, size), clock, what in ("pixels", "batch")), "peak_MB": peak()}


def timed(call: Callable[[], object], clock: str, anew: bool) -> float:
    """The least time of one to three calls [s]; by the processor's clock that of children is in it.

    With `anew` there are at least two: the first call of a size may build tables that the others find again.
    """
    times: list[float] = []
    while not times or (len(times) < 2 and anew) or (len(times) < 3 and sum(times) < ENOUGH):
        start = now(clock)
        call()
        times.append(now(clock) - start)
    return min(times)


def now(clock: str) -> float:
    if clock == "wall":
        return time.perf_counter()
    use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in use)


def peak() -> float:
    """Largest memory so far [MB], of this process or of a child that has ended."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def noise(edge: int, seed: int = 0) -> np.ndarray:
    """Counts (edge, edge) uint16; what an image shows changes no time."""
    return (8000 + 400 * np.random.default_rng(seed).poisson(10, (edge, edge))).astype(np.uint16)


def data_set(folder: Path, count: int, edge: int) -> Path:
    raw = SETTINGS.vector() * np.random.default_rng(0).uniform(0.5, 1.5, (count, 7))
    base = noise(edge)
    images = (np.roll(base, i) for i in range(count))
    return write_dataset(folder / "data.h5", images, raw, [f"{i // 20}/{i}.emd" for i in range(count)])


def simulate(folder: Path, images: int, edge: int, workers: int = 1) -> Callable:
    """One image a session: images of one session are alike in cost, so that whole sessions would make a bent line."""
    out, lengths = folder / "twin.h5", [1] * images
    return lambda: write_sessions(out, images, lambda: lengths, edge, 0, workers, True, None)


def build(folder: Path, files: int, edge: int, workers: int = 1) -> Callable:
    base = noise(edge)
    for i in range(files):
        write_velox(folder / f"{i}.emd", np.roll(base, i), SETTINGS.replace(dwell_time=1e-6 * (1 + i % 9)))
    return lambda: cimp.build_dataset(folder / "*.emd", folder / "data.h5", workers=workers, force=True)


def train(folder: Path, images: int, crop: int, batch: int) -> Callable:
    """Opening the data set and four steps of pre-training."""
    path = data_set(folder, images, max(crop, 64))
    config = PretrainConfig(
        samples=4 * batch, batch_size=batch, crop_size=crop, smallest_crop=crop, precision="32-true"
    )
    return lambda: pretrain(open_dataset(path), None, config)


def embed(images: int, edge: int, batch: int = 64) -> Callable:
    """Whole images, of which one is held in memory: the list names it again and again."""
    model, frame = cimp.load("cimp-twin-s"), noise(edge)
    return lambda: model.embed_images([frame] * images, crops=None, batch=batch)


def denoise(frames: int, edge: int) -> Callable:
    method = Direct(device="cpu")
    stack = np.stack([noise(edge, i) for i in range(frames)])
    return lambda: cimp.denoise(stack[0] if frames == 1 else stack, method=method, settings="ignore")


def retrieve(rows: int, queries: int) -> Callable:
    rng = np.random.default_rng(0)
    index = Index(rng.standard_normal((rows, 128), np.float32), "exact")
    asked = rng.standard_normal((queries, 128), np.float32)
    return lambda: index.search(asked, 10)


def audit(folder: Path, images: int, edge: int) -> Callable:
    data = open_dataset(data_set(folder, images, edge))
    return lambda: cimp.audit(data)


def duplicates(images: int) -> Callable:
    """The search for the same recording twice, of what an audit has measured."""
    marks = np.random.default_rng(0).standard_normal((images, FINGERPRINT), np.float32)
    marks = (marks / np.linalg.norm(marks, axis=1, keepdims=True)).astype(np.float16)
    none = np.zeros(0, np.float32)
    measured = [Measured((64, 64), True, False, none, none, 0.0, 0.0, str(i), m, none) for i, m in enumerate(marks)]
    return lambda: find_duplicates(measured)


class Growth(NamedTuple):
    """What is measured of a step: unit of the size, sizes, the least one, and one that is run before the clock."""

    unit: str
    sizes: tuple[int, ...]
    least: int
    maker: Callable[[Path, int], Callable]
    warm: int | None = None


CASES = {
    # Each crystal that comes for the first time has its tables made, which belongs to no number of images.
    ("simulate", "images"): Growth("images of 64 px", (8, 16, 32, 64), 1, lambda f, n: simulate(f, n, 64), warm=64),
    ("simulate", "pixels"): Growth("edge of 4 images", (128, 256, 512, 1024), 32, lambda f, n: simulate(f, 4, n)),
    ("simulate", "processes"): Growth("for 32 images", (1, 2, 4, 8), 1, lambda f, n: simulate(f, 32, 64, n)),
    ("build", "images"): Growth("files of 128 px", (50, 100, 200, 400), 1, lambda f, n: build(f, n, 128)),
    ("build", "pixels"): Growth("edge of 16 files", (512, 1024, 2048, 4096), 64, lambda f, n: build(f, 16, n)),
    ("build", "processes"): Growth("for 50 files", (1, 2, 4, 8), 1, lambda f, n: build(f, 50, 128, n)),
    ("pre-train", "images"): Growth("in the data set", (500, 1000, 2000, 4000), 50, lambda f, n: train(f, n, 64, 32)),
    ("pre-train", "pixels"): Growth("edge of 128 crops", (64, 128, 192, 256), 32, lambda f, n: train(f, 64, n, 128)),
    ("pre-train", "batch"): Growth("crops of 128 px", (32, 64, 128, 256), 4, lambda f, n: train(f, 64, 128, n)),
    # From one whole batch on; smaller ones stay in the processor's caches.
    ("embed", "images"): Growth("images of 256 px", (128, 192, 256, 512), 64, lambda f, n: embed(n, 256)),
    ("embed", "pixels"): Growth("edge of 4 images", (256, 512, 1024, 2048), 128, lambda f, n: embed(4, n)),
    ("embed", "batch"): Growth("of 64 images of 128 px", (8, 16, 32, 64), 1, lambda f, n: embed(64, 128, n)),
    # From 16 frames on a frame has all its neighbours, to which it is aligned.
    ("denoise", "images"): Growth("frames of 128 px", (24, 32, 48, 80), 16, lambda f, n: denoise(n, 128)),
    ("denoise", "pixels"): Growth("edge of an image", (128, 256, 512, 1024), 32, lambda f, n: denoise(1, n)),
    ("retrieve", "images"): Growth(
        "rows, 100 queries", (25_000, 50_000, 100_000, 200_000, 400_000), 100, lambda f, n: retrieve(n, 100)
    ),
    ("retrieve", "batch"): Growth("queries, 50,000 rows", (64, 128, 256, 512), 1, lambda f, n: retrieve(50_000, n)),
    ("audit", "images"): Growth("images of 128 px", (8, 16, 32, 64), 1, lambda f, n: audit(f, n, 128)),
    ("audit", "pixels"): Growth("edge of 4 images", (128, 256, 512, 1024), 64, lambda f, n: audit(f, 4, n)),
    ("duplicates", "images"): Growth("images measured", (4000, 8000, 16_000, 32_000), 100, lambda f, n: duplicates(n)),
}
"""By step and by what grows. "pixels" are squared edges."""
