"""How training scales with processes: samples a second of 1, 2 and 4, and what their talking takes.

``python bench/scaling.py [--processes 1 2 4] [--device cuda] [--json FILE]``. Each number of processes is started by
torchrun, as a training is; on graphics cards one a card. Two cases: the batch of the whole stays (each process has
less to do), or that of a process stays (the whole grows). Batches lie in memory.

efficiency      samples/s over those of one process, divided by the number of processes
communication   1 - time of a step in which every process trains alone on its share / time of a step, both in turn in
                the same processes: gradients, the loss of the whole batch, batch norms, and waiting for the slowest

On a processor every process has one thread, so that two processes are two cores; more processes than cores share them,
and then cores / processes is the best efficiency there can be.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from report import goal, header, parser, table, write

from cimp_core.losses import info_nce
from cimp_core.models import Cimp, CimpConfig
from cimp_core.pretrain import PretrainConfig, _loss
from cimp_core.processes import start
from cimp_core.training import for_this_device
from cimp_core.training_steps import Steps, decay_groups

SIZES = {
    "cpu": {"width": 16, "crop": 96, "whole": 64, "each": 32, "steps": 2, "windows": 4},
    "cuda": {"width": 64, "crop": 128, "whole": 1024, "each": 512, "steps": 20, "windows": 6},
}


def random_batch(count: int, crop: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    intensity = 20_000 + 2_000 * torch.randn(count, crop, crop)
    rest = torch.randn(count, 7), torch.ones(count, dtype=torch.bool), torch.arange(count) // 2
    return tuple(t.to(device) for t in (intensity, *rest))


def windows(fabric, model: Cimp, batch: tuple, config, sizes: dict) -> tuple[list[float], list[float]]:
    """Seconds a step together, and alone, window by window."""
    alone = Cimp(model.config).to(fabric.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(decay_groups(alone, 0.05), lr=1e-4, fused=True)
    run, times = Steps(fabric, model, config, None), ([], [])

    def together() -> None:
        run.step(0, 1e-4, _loss, batch)

    def by_itself() -> None:
        with fabric.autocast():
            output = alone(*batch[:3])
            loss = info_nce(output.image, output.metadata, batch[3], output.scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(alone.parameters(), 1.0)
        optimizer.step()

    for number in range(sizes["windows"] + 1):
        for step, kept in zip((together, by_itself), times, strict=True):
            fabric.barrier()
            since = time.perf_counter()
            for _ in range(sizes["steps"]):
                step()
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                kept.append((time.perf_counter() - since) / sizes["steps"])
    run.look()
    return times


def worker(path: Path, device: str) -> None:
    """In each process: both cases, the first one writes what it found."""
    sizes = SIZES[device]
    if device == "cpu":
        torch.set_num_threads(1)
    config = for_this_device(PretrainConfig())
    fabric, found = start(config.precision), []
    for case in ("whole", "each"):
        count = sizes[case] // fabric.world_size if case == "whole" else sizes[case]
        config = replace(config, batch_size=count * fabric.world_size)
        torch.manual_seed(0)
        model = Cimp(CimpConfig(width=sizes["width"], tile=sizes["crop"]))
        batch = random_batch(count, sizes["crop"], fabric.device)
        together, alone = (statistics.median(kept) for kept in windows(fabric, model, batch, config, sizes))
        # The slowest process is what a step takes.
        slowest = torch.tensor([together, alone], device=fabric.device, dtype=torch.float32)
        if fabric.world_size > 1:
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
        together, alone = slowest.tolist()
        row = {"processes": fabric.world_size, "case": case, "batch": config.batch_size, "step_s": together}
        row |= {"samples_per_s": config.batch_size / together, "communication": max(0.0, 1 - alone / together)}
        found.append(row | {"precision": config.precision})
    if fabric.global_rank == 0:
        path.write_text(json.dumps(found))


def measure(processes: int, device: str) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if device == "cpu" else {})
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        subprocess.run([*command, __file__, "--worker", str(path), "--device", device], check=True, env=environment)
        return json.loads(path.read_text())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--worker", type=Path, help="of this script's own use")
    options = options.parse_args()
    if options.worker:
        return worker(options.worker, options.device)
    there = torch.cuda.device_count() if options.device == "cuda" else os.cpu_count() or 1
    shared = options.device == "cpu" and not options.quick  # more processes than processors say little, and take long
    counts = options.processes if shared else [n for n in options.processes if n <= there]
    rows = []
    for _ in range(1 if options.quick else 2):
        rows += [row for count in counts for row in measure(count, options.device)]
    best: dict[tuple, dict] = {}  # of two starts the faster one: what else the machine does only takes time
    for row in rows:
        kept = best.setdefault((row["case"], row["processes"]), row)
        if row["samples_per_s"] > kept["samples_per_s"]:
            best[row["case"], row["processes"]] = row
    found = [best[key] for key in sorted(best, reverse=True)][::-1]
    for row in found:
        one = best[row["case"], counts[0]]
        row["efficiency"] = row["samples_per_s"] * counts[0] / (one["samples_per_s"] * row["processes"])
        row["possible"] = min(1.0, there / row["processes"])
    columns = {"batch that stays": "{case}", "processes": "{processes}", "batch": "{batch}"}
    columns |= {"samples/s": "{samples_per_s:.0f}", "efficiency": "{efficiency:.0%}", "possible": "{possible:.0%}"}
    columns |= {"communication": "{communication:.0%}"}
    largest = max(n for n in counts if n <= there)
    row = best["each", largest]
    why = f"{row['communication']:.0%} of a step is talk between processes, waiting, and norms over both of them"
    text = f"efficiency of {largest} processes at the same batch a process"
    goals = [goal(text, row["efficiency"], at_least=0.9, why=why)]
    settings = {**SIZES[options.device], "device": options.device, "processors": there}
    claim = "Training scales with the number of processes."
    print(settings, table(found, columns), *goals, sep="\n")
    write(options.json, header("scaling", claim, ["lightning-fabric"], settings), found, columns, goals)


if __name__ == "__main__":
    main()
