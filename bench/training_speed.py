"""How fast training runs when it reads its crops, and beside the plain loop of the forerunner, in one run.

``python bench/training_speed.py [--device cuda] [--json FILE]``. All train the same network, a ResNet-18 of 224-pixel
crops and a small network of the settings, on the same file, batch and crop, in turn, window by window:

ready        ours, with batches that lie in memory: nothing is read, cut or turned
file         ours, crops from the file, mapped into memory
device       ours, all images on the device
forerunner   the plain way, written anew for this comparison: a data set that reads one crop an item with h5py, in
             workers of a torch DataLoader, the one channel repeated to three, float32, AdamW, the sigmoid loss with
             positives from distances between settings, and the loss asked for at every step

What ours does otherwise, and the ratio contains: one channel, channels last in memory, bfloat16 where the device
computes with it, ids of groups for positives, the fused AdamW, clipping of the gradient, no wait for the device at each
step. Model FLOP of a step are counted by torch.utils.flop_counter; the peak beside them is measured, of matrices and of
a convolution. On a graphics card, `idle` is the share of the time in which no kernel ran (torch.profiler). With
``--clock cpu``, for a machine that has other work, what the forerunner's readers do is not counted.
"""

import contextlib
import os
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from report import CLOCKS, goal, header, interleaved, parser, table, write
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cimp_core.crop_sampler import CropSampler
from cimp_core.dataset import open_dataset, write_dataset
from cimp_core.losses import gathered_sigmoid_loss
from cimp_core.prefetch import batches_ahead
from cimp_core.pretrain import PretrainConfig
from cimp_core.processes import start
from cimp_core.schema import image_key
from cimp_core.training import for_this_device
from cimp_core.training_steps import Steps

CROP = 224
SIZES = {"cpu": {"batch": 8, "steps": 2, "images": 48, "edge": 1024}, "cuda": {"batch": 512, "steps": 30}}
SIZES["cuda"] |= {"images": 512, "edge": 2048}


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.shortcut = nn.Identity()
        if stride > 1 or before != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Towers(nn.Module):
    """ResNet-18 (He et al., arXiv:1512.03385) to 128 numbers, settings to 128, a temperature and a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        stem = nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        widths = [64, 64, 128, 256, 512]
        blocks = [
            block
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
            for block in (Block(a, b, 1 if i == 0 else 2), Block(b, b, 1))
        ]
        self.image = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 128))
        self.settings = nn.Sequential(
            nn.Linear(7, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 128)
        )
        self.log_scale, self.bias = nn.Parameter(torch.tensor(20.0).log()), nn.Parameter(torch.tensor(-6.24))

    def forward(self, crops, settings):
        x = (crops / 65536)[:, None].expand(-1, self.channels, -1, -1)
        image, settings = self.image(x).float(), self.settings(settings).float()
        return F.normalize(image, dim=1), F.normalize(settings, dim=1), self.log_scale.exp(), self.bias + 0


class Items(torch.utils.data.Dataset):
    """One random crop an item, straight from the file."""

    def __init__(self, path: Path, settings: np.ndarray, length: int) -> None:
        self.path, self.settings, self.length, self.file = path, settings, length, None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, k: int):
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        i = int(torch.randint(len(self.settings), ()))
        image = self.file[image_key(i)]
        top, left = (int(torch.randint(edge - CROP + 1, ())) for edge in image.shape)
        crop = image[top : top + CROP, left : left + CROP].astype(np.float32)
        crop = np.rot90(crop[:, ::-1] if torch.rand(()) < 0.5 else crop, int(torch.randint(4, ())))
        return torch.from_numpy(crop.copy()), self.settings[i]


class Forerunner:
    """Its loop; a call is so many steps."""

    def __init__(self, data, sizes: dict, device: str) -> None:
        self.steps, self.device = sizes["steps"], torch.device(device)
        settings = torch.from_numpy(data.metadata.astype(np.float32))
        items = Items(Path(data.path), settings, 10**6 * sizes["batch"])
        workers = min(8, os.cpu_count() or 1)
        self.loader = iter(
            torch.utils.data.DataLoader(items, sizes["batch"], num_workers=workers, pin_memory=device == "cuda")
        )
        self.model = Towers(3).to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 10**6)

    def __call__(self) -> None:
        for _ in range(self.steps):
            crops, settings = (t.to(self.device, non_blocking=True) for t in next(self.loader))
            image, vectors, scale, bias = self.model(crops, settings)
            same = torch.cdist(settings, settings) < 1e-6
            loss = F.softplus(-(2.0 * same - 1) * (scale * image @ vectors.T + bias)).sum() / len(crops)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.shown = loss.item()


class Ours:
    """The steps of `cimp_core.training.fit`, at any place where crops come from; a call is so many steps."""

    def __init__(self, stack: contextlib.ExitStack, data, sizes: dict, fabric, config, source: str) -> None:
        sampler = CropSampler(data, config, crops="device" if source == "device" else "file")
        sampler.place(fabric.device)
        make = lambda step: sampler.part(step, slice(None))  # noqa: E731
        if source == "ready":
            kept = [make(step) for step in range(4)]
            make = lambda step: kept[step % 4]  # noqa: E731
        self.count, self.run, self.config = sizes["steps"], Steps(fabric, Towers(1), config, None), config
        steps = range(10**6)
        self.batches = stack.enter_context(batches_ahead(make, steps, fabric.device, config.precision))

    def __call__(self) -> None:
        for step, batch in islice(self.batches, self.count):
            self.run.step(step, self.config.peak_rate, loss_of, batch)
        self.run.averages()  # waits for the device, as an entry of the log does


def loss_of(model, crops, settings, absolute, group):
    image, vectors, scale, bias = model(crops, torch.nan_to_num(settings))
    return gathered_sigmoid_loss(image, vectors, group, scale, bias, even=True), {}


def made_of_noise(folder: str, images: int, edge: int):
    """A data set of noise: what the images show does not change the speed."""
    rng = np.random.default_rng(0)
    raw = np.array([20e-12, 2e-6, 0.02, 5e-11, 35.0, -1.2, 0.06]) * rng.uniform(0.5, 1.5, (images, 7))
    pixels = (rng.integers(0, 65535, (edge, edge), dtype=np.uint16) for _ in range(images))
    return open_dataset(write_dataset(Path(folder) / "noise.h5", pixels, raw, [f"{i}/a.emd" for i in range(images)]))


def flops_an_image(channels: int, device: str) -> float:
    """Of a step forward and backward; a multiplication and an addition are two."""
    model, batch = Towers(channels).to(device).train(), 4
    counter = FlopCounterMode(display=False)
    with counter:
        image, vectors, scale, bias = model(
            torch.rand(batch, CROP, CROP, device=device), torch.rand(batch, 7).to(device)
        )
        (image.sum() * scale + vectors.sum() + bias).backward()
    return counter.get_total_flops() / batch


def peak(device: str, dtype: torch.dtype, kind: str, clock: str) -> float:
    """FLOP a second of a large product of matrices, or of a 3x3 convolution of 128 channels; the best of five."""
    size, batch = (8192, 128) if device == "cuda" else (1024, 4)
    best, now = 0.0, CLOCKS[clock]
    with torch.inference_mode():
        x = torch.rand(size, size, device=device, dtype=dtype)
        image = torch.rand(batch, 128, 56, 56, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        kernel = torch.rand(128, 128, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        for _ in range(6):
            done = -now()
            for _ in range(10):
                _ = x @ x if kind == "matmul" else F.conv2d(image, kernel, padding=1)
            if device == "cuda":
                torch.cuda.synchronize()
            done += now()
            work = 2 * size**3 if kind == "matmul" else 2 * batch * 56 * 56 * 128 * 128 * 9
            best = max(best, 10 * work / done)
    return best


def idle(call) -> float:
    """Share of the time of a call in which no kernel ran on the graphics card."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
    spans = [(e.time_range.start, e.time_range.end) for e in profiled.events() if e.device_type.name == "CUDA"]
    return 1 - covered(spans) / (max(end for _, end in spans) - min(start for start, _ in spans))


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start_, end in sorted(spans):
        total += max(0.0, end - max(start_, reached))
        reached = max(reached, end)
    return total


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    device, sizes = options.device, SIZES[options.device]
    config = for_this_device(PretrainConfig(batch_size=sizes["batch"], crop_size=CROP, smallest_crop=CROP, turns=True))
    config = replace(config, peak_rate=1e-4, weight_decay=0.01, mask_metadata=0.0)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        data, fabric = made_of_noise(folder, sizes["images"], sizes["edge"]), start(config.precision)
        calls = {name: Ours(stack, data, sizes, fabric, config, name) for name in ("ready", "file", "device")}
        calls["forerunner"] = Forerunner(data, sizes, device)
        found = interleaved(calls, options.rounds, options.clock, wait)
        for row in found if device == "cuda" else []:
            row["idle"] = idle(calls[row["name"]])
        calls.pop("forerunner").loader = None
    dtype = torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32
    peaks = {kind: peak(device, dtype, kind, options.clock) for kind in ("matmul", "conv")}
    for row in found:
        row["samples_per_s"] = sizes["batch"] * sizes["steps"] / row["median_s"]
        row["model_flop_per_s"] = row["samples_per_s"] * flops_an_image(3 if row["name"] == "forerunner" else 1, device)
        row |= {f"share_of_{kind}": row["model_flop_per_s"] / best for kind, best in peaks.items()}
    by_name = {row["name"]: row for row in found}
    plain = by_name["forerunner"]["median_s"]
    for row in found:
        row["over_forerunner"] = plain / row["median_s"]
    faster = 3.0 if device == "cuda" else 2.0
    file, theirs = by_name["file"], by_name["forerunner"]
    spread = f"{file['ratio_low']:.3f} to {file['ratio_high']:.3f} from round to round"
    network = (
        "the network is the same and takes nearly all of the time: both reach "
        f"{file['share_of_conv']:.0%} and {theirs['share_of_conv']:.0%} of what a convolution does here"
    )
    goals = [
        goal("from the file within 5 % of batches that lie in memory", file["ratio"], at_least=0.95, why=spread),
        goal("times the forerunner's loop", file["over_forerunner"], at_least=faster, why=network),
    ]
    if device == "cuda":
        goals.append(goal("share of the time in which the card idles", by_name["device"]["idle"], at_most=0.05))
    columns = {"": "{name}", "samples/s": "{samples_per_s:.1f}", "over ready": "{ratio:.3f}"}
    columns |= {"lowest to highest": "{ratio_low:.3f} to {ratio_high:.3f}", "over forerunner": "{over_forerunner:.2f}"}
    columns |= {"TFLOP/s": "{tera:.3f}", "of matmul": "{share_of_matmul:.0%}", "of conv": "{share_of_conv:.0%}"}
    columns |= {"idle": "{idle:.1%}"} if device == "cuda" else {}
    for row in found:
        row["tera"] = row["model_flop_per_s"] / 1e12
    settings = {**sizes, "crop": CROP, "precision": config.precision, "clock": options.clock, "rounds": options.rounds}
    settings |= {f"peak_{kind}_tera": best / 1e12 for kind, best in peaks.items()}
    claim = "Training does not wait for its crops, and runs several times as fast as the plain loop."
    print(settings, table(found, columns), *goals, sep="\n")
    write(options.json, header("training_speed", claim, ["lightning-fabric"], settings), found, columns, goals)


if __name__ == "__main__":
    main()
