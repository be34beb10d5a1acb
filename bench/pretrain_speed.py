"""How fast pre-training runs on this machine: samples a second of the whole loop, and of its parts.

``python bench/pretrain_speed.py [DATA.h5]``; without a data set, random images. Medians of windows after a
warm-up; the loader alone and the model alone stand beside the whole, so that one sees what limits it.
"""

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.models import Cimp, CimpConfig
from cimp_core.pretrain import PROFILES, CropSampler, pretrain

WARMUP, WINDOWS = 1, 5  # windows of two batches


def random_data(folder: str, images: int = 512, size: int = 256):
    """A data set of noise: what the images show does not change the speed."""
    rng = np.random.default_rng(0)
    raw = np.array([20e-12, 2e-6, 0.02, 5e-11, 35.0, -1.2, 0.06]) * rng.uniform(0.5, 1.5, (images, 7))
    pixels = (rng.integers(0, 65535, (size, size)).astype(np.uint16) for _ in range(images))
    return open_dataset(write_dataset(Path(folder) / "noise.h5", pixels, raw, [f"{i}/a.emd" for i in range(images)]))


def windows(call, samples: int) -> float:
    """Median samples a second of repeated calls."""
    speeds = []
    for i in range(WARMUP + WINDOWS):
        start = time.perf_counter()
        call()
        if i >= WARMUP:
            speeds.append(samples / (time.perf_counter() - start))
    return statistics.median(speeds)


def measure(data, width: int, precision: str) -> tuple[float, float, float]:
    """Samples a second of the loop, of the loader alone, and of embedding one crop an image."""
    config = dataclasses.replace(PROFILES["full"], width=width, precision=precision, log_every=512)
    config = dataclasses.replace(config, samples=512 * (WARMUP + WINDOWS))
    speeds: list[float] = []
    pretrain(data, None, config, on_log=lambda entry: speeds.append(entry["per_second"]))
    sampler, steps = CropSampler(data, config), iter(range(1000))
    model = Cimp(CimpConfig(width=width).with_normalizer(data.normalizer)).eval()
    images = [data.image(i) for i in range(64)]
    return (
        statistics.median(speeds[WARMUP:]),
        windows(lambda: sampler(next(steps)), config.batch_size),
        windows(lambda: model.embed_images(images, crops=1), 64),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = open_dataset(sys.argv[1]) if len(sys.argv) > 1 else random_data(folder)
        print(f"{os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
        print("| width | precision | loop | loader alone | embed_images | [samples/s]\n|---|---|---|---|---|---|")
        for width in (16, 32, 64):
            for precision in ("32-true", "bf16-mixed"):
                loop, loader, embed = measure(data, width, precision)
                print(f"| {width} | {precision} | {loop:.0f} | {loader:.0f} | {embed:.0f} | |", flush=True)


if __name__ == "__main__":
    main()
