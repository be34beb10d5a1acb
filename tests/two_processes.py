"""What test_processes.py runs in each of two processes: ``torchrun --nproc-per-node 2 two_processes.py FOLDER``."""

import dataclasses
import math
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from cimp_core.errors import CimpError, OutOfRangeError
from cimp_core.losses import gather, gathered_info_nce, gathered_sigmoid_loss, info_nce, sigmoid_loss
from cimp_core.processes import _BatchNorm
from cimp_core.training import TrainConfig, fit

GROUP = torch.tensor([0, 1, 2, 2, 7, 0, 7, 2])  # 0, 2 and 7 have rows in both processes
SHARES = (slice(0, 5), slice(5, 8))
CONFIG = TrainConfig(
    samples=320, batch_size=16, peak_rate=1e-2, warmup=64, precision="64-true", log_every=64, validate_every=160,
    checkpoint_every=96, ema_half_life=100,
)  # fmt: skip


class Towers(nn.Module):
    """Two towers, a scale and a bias, in float64."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.metadata = nn.Linear(6, 4).double(), nn.Linear(3, 4).double()
        self.scale = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))

    def forward(self, x, y):
        return F.normalize(self.image(x), dim=1), F.normalize(self.metadata(y), dim=1), self.scale + 0, self.bias + 0


def two_steps(name, tile, rows, gathered):
    """Losses and gradients of two optimiser steps on `rows` of one batch."""
    x = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    towers = Towers()
    model = nn.parallel.DistributedDataParallel(towers) if gathered else towers
    optimizer = torch.optim.AdamW(towers.parameters(), lr=0.05)
    found = []
    for _ in range(2):
        image, metadata, scale, bias = model(x[rows], y[rows])
        if name == "info_nce":
            # The bias takes part, or DistributedDataParallel would wait for its gradient.
            loss = (gathered_info_nce if gathered else info_nce)(image, metadata, GROUP[rows], scale, tile) + 0 * bias
        else:
            loss = (gathered_sigmoid_loss if gathered else sigmoid_loss)(
                image, metadata, GROUP[rows], scale, bias, tile
            )
        optimizer.zero_grad()
        loss.backward()
        value = loss.detach().clone()
        if gathered:
            dist.all_reduce(value)
            value /= dist.get_world_size()
        found.append({"loss": value, **{k: p.grad.clone() for k, p in towers.named_parameters()}})
        optimizer.step()
    return found


NORMS = [
    (shape, layout, affine)
    for shape, layout in [
        ((8, 6), torch.contiguous_format),
        ((8, 6, 4, 3), torch.contiguous_format),
        ((8, 6, 4, 3), torch.channels_last),
    ]
    for affine in (True, False)
]


def normalised(shape, layout, affine, rows, kind=None):
    """One step through a batch norm on `rows` of a batch: what comes out, all gradients, and running statistics.

    The gradient that comes in is contiguous whatever the layout; the two shares differ much in their statistics.
    """
    draw = torch.Generator().manual_seed(3)
    x, dy = torch.randn(2, *shape, generator=draw, dtype=torch.float64)
    x = (x + torch.linspace(-3, 9, len(x)).view(-1, *[1] * (x.ndim - 1))).to(memory_format=layout)
    norm = (kind or (nn.BatchNorm1d if x.ndim == 2 else nn.BatchNorm2d))(shape[1], momentum=0.3, affine=affine).double()
    for number, parameter in enumerate(norm.parameters()):
        nn.init.normal_(parameter, number, generator=draw)
    x = x[rows].requires_grad_()
    y = norm(x)
    y.backward(dy[rows])
    found = {"y": y.detach(), "x": x.grad, **norm.state_dict()}
    return found | {f"{name} gradient": p.grad for name, p in norm.named_parameters()}


def problem(seed=0, poisoned=None):
    """Images to a number, with batch norms of both kinds and dropout; rows 8 to 15 of a poisoned step hold a nan.

    No layer before a norm has a bias: its gradient is zero but for rounding, which AdamW blows up to full steps.
    """
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8, bias=False),
        nn.BatchNorm1d(8, affine=False), nn.Dropout(0.3), nn.Linear(8, 1),
    )  # fmt: skip

    def batches(step):
        x = torch.randn(16, 1, 6, 6, generator=torch.Generator().manual_seed(1000 + step), dtype=torch.float64)
        y = x.mean((2, 3)) * 3 + torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None] ** 3
        if step == poisoned:
            x[12] = math.nan
        return x * torch.linspace(1, 3, 16)[:, None, None, None], y

    def loss(m, x, y):
        error = m(x) - y
        return error.square().mean(), {"absolute": error.detach().abs().mean()}

    return model, batches, loss


def run(folder, stop=None, seed=0, **other):
    """A training with validation; weights and statistics, log, and how often this process was called back."""
    model, batches, loss = problem(seed, other.pop("poisoned", None))
    calls = []
    config = dataclasses.replace(CONFIG, **other)

    def total(m):
        return {"val": sum(p.sum().item() for p in m.parameters())}

    log = fit(
        model, batches, loss, config, folder, validate=total, stop=stop, on_log=calls.append, on_step=calls.append
    )
    log = [{k: v for k, v in entry.items() if k != "per_second"} for entry in log]
    return {"state": model.state_dict(), "log": log, "calls": len(calls), "kinds": [type(m).__name__ for m in model]}


def message(error, call):
    try:
        call()
    except error as found:
        return str(found)
    return "no error"


def main(folder):
    found = {"whole": run(folder / "whole")}
    rank = dist.get_rank()
    run(folder / "parts", stop=6)
    found["resumed"] = run(folder / "parts", seed=99)
    found["nan"] = message(CimpError, lambda: run(folder / "nan", poisoned=7))
    found["uneven"] = message(OutOfRangeError, lambda: run(None, batch_size=15))
    found["kinds"] = message(ValueError, lambda: gather(torch.zeros(2, 3 + rank)))
    found["empty"] = message(ValueError, lambda: gather(torch.zeros(2 * rank, 3)))
    run(folder / "begun", stop=6)
    for name in ("info_nce", "sigmoid"):
        for tile in (None, 2):
            found[name, tile] = two_steps(name, tile, SHARES[rank], gathered=True)
    found["norms"] = [normalised(*case, SHARES[rank], _BatchNorm) for case in NORMS]
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
