"""How long denoising takes: our network against careamics' Noise2Void inference and BM3D, in one run; or on a GPU.

    python -m venv other && other/bin/pip install -e . careamics==0.3.5 bm3d==4.0.3
    other/bin/python bench/denoise_speed.py --threads 2 [--sizes 512 2048] [--quick] [--json FILE]
    python bench/denoise_speed.py --device cuda          # frames a second at 512^2, 1024^2, 2048^2: our networks alone

A second environment, as neither is a dependency; without it, its rows say so. Median of the runs after one of warm-up;
each from counts in memory to counts in memory, as its package offers it: what is done to a frame takes its time
whatever it shows. careamics with its
default network (32 channels, depth 2), whole frames where they fit 1024^2 and else its tiles. Without the shipped
weights, ours are those of an untrained network of the same shape.

Measured with careamics 0.3.5 and bm3d 4.0.3, two cores that other programs used too, at lower priority; 512^2 and
2048^2, times that of the direct network (0.33 s and 9.2 s): our Noise2Void 1.4 and 0.95, careamics 1.9 and 1.8, BM3D 25
and 13.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from report import goal, header, parser, table, write

from cimp_core.denoising.direct import DEFAULT_WEIGHTS, Direct
from cimp_core.denoising.noise2void import Noise2Void, Noise2VoidConfig
from cimp_core.errors import CimpError
from cimp_core.metadata import Acquisition
from cimp_core.models.denoiser import DoseNet, DoseNetConfig

SETTINGS = Acquisition(2e-11, 2e-6, 0.021, 5e-11, 33.0, -1.2, 0.06)


def frame(size: int) -> np.ndarray:
    """A lattice under Poisson noise, some 10 electrons a pixel, (size, size) float32 counts."""
    y, x = np.mgrid[:size, :size]
    electrons = 10 + 6 * np.cos(2 * np.pi * x / 9) * np.cos(2 * np.pi * y / 11)
    return (8000 + 400 * np.random.default_rng(0).poisson(electrons)).astype(np.float32)


def ours(device: str):
    """The direct network; untrained where the weights are not shipped."""
    try:
        method = Direct(device=device)
        print(f"direct: weights {DEFAULT_WEIGHTS}")
    except CimpError:
        method = Direct(DoseNet(DoseNetConfig()), device=device)
        print("direct: an untrained network, as no weights are shipped")
    return lambda counts: method(counts, SETTINGS, 16.0)


def our_noise2void():
    """A Noise2Void of careamics' size, trained for one step: that changes no time."""
    method = Noise2Void(steps=1, config=Noise2VoidConfig(width=32, depth=2)).fit_pool([frame(128)])
    return lambda counts: method(counts)


def careamics_noise2void():
    """careamics' own prediction, after one step of training."""
    from careamics import CAREamist
    from careamics.config.factories import create_n2v_config

    folder = tempfile.mkdtemp()
    config = create_n2v_config("speed", "array", "YX", [64, 64], 8, num_epochs=1, num_steps=1)
    careamist = CAREamist(config, work_dir=Path(folder), enable_progress_bar=False)
    careamist.train(train_data=frame(256))

    def run(counts):
        tiles = {} if max(counts.shape) <= 1024 else {"tile_size": (512, 512), "tile_overlap": (48, 48)}
        return careamist.predict(pred_data=counts, num_workers=0, **tiles)

    return run


def bm3d():
    """BM3D with a known deviation of white noise."""
    from bm3d import bm3d

    return lambda counts: bm3d(counts.astype(float), 1300.0)


def seconds(call, counts: np.ndarray, repeats: int, device: str) -> float:
    """Median time of a call after one of warm-up; none for what takes minutes."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call(counts)
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if times[-1] > 60:
            return times[-1]
    return statistics.median(times[1:])


COLUMNS = {
    "method": "{method}",
    "image": "{size}^2",
    "time [s]": "{seconds:.4g}",
    "frames/s": "{per_second:.3g}",
    "over the time of direct": "{over_direct:.2f}",
    "": "{note}",
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--sizes", type=int, nargs="*")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--methods", nargs="*", default=["direct", "noise2void", "careamics", "bm3d"])
    options = arguments.parse_args()
    on_card = options.device != "cpu"
    torch.set_num_threads(options.threads)
    sizes = options.sizes or ([512, 1024, 2048] if on_card else [512] if options.quick else [512, 2048])
    makers = {"direct": lambda: ours(options.device), "noise2void": our_noise2void}
    makers |= {"careamics": careamics_noise2void, "bm3d": bm3d}
    rows: list[dict] = []
    for name in ["direct"] if on_card else options.methods:
        try:
            call = makers[name]()
        except ImportError as error:
            rows.append({"method": name, "note": f"not measured: {error}"})
            continue
        for size in sizes:
            taken = seconds(call, frame(size), options.repeats, options.device)
            row = {"method": name, "size": size, "seconds": taken, "per_second": 1 / taken, "note": ""}
            direct = [other["seconds"] for other in rows if other["method"] == "direct" and other["size"] == size]
            rows.append(row | {"over_direct": taken / direct[0] if direct else None if name != "direct" else 1.0})
    print("\n" + table(rows, COLUMNS) + "\n")
    beside = [row["over_direct"] for row in rows if row["method"] == "careamics" and "seconds" in row]
    goals = (
        []
        if on_card
        else [
            goal(
                "careamics' Noise2Void over our direct network, time: the least of the sizes",
                min(beside, default=None),
                at_least=1.0,
                why="" if beside else "careamics is not installed here: see the head of bench/denoise_speed.py",
            )
        ]
    )
    print(table(goals))
    claim = "Denoising a frame takes our network no longer than careamics' Noise2Void or BM3D."
    settings = {"device": options.device, "threads": options.threads, "quick": options.quick}
    write(options.json, header("denoise_speed", claim, ["careamics", "bm3d"], settings), rows, COLUMNS, goals)


if __name__ == "__main__":
    main()
