"""What test_losses_spread.py runs in each of several processes: ``python loss_processes.py FOLDER PROCESSES RANK``."""

import itertools
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cimp_core.losses import gathered_info_nce, gathered_sigmoid_loss

SHARES = {2: (7, 4), 3: (2, 8, 1)}
# Groups of one row, of rows of one process only, and of rows of all. The last row is alone.
GROUP = torch.tensor([0, 0, 5, 3, 3, 5, 0, 8, 2**40, 0, 9])
WEIGHTS = (1.0, -0.5, 2.0)  # of the loss of each process: no two are alike
SCALES = (7.0, 2e3)  # the second goes the way of the tiles that takes maxima off


def problem():
    """Unit rows of both towers, float64, for the batch of all."""
    generator = torch.Generator().manual_seed(3)
    return [F.normalize(torch.randn(len(GROUP), 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)]


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor made while it is on."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.numel())
        return made


def spread(name, scale, tile, ring, rows, rank):
    """Value and gradients in this process."""
    image, metadata = (x[rows].clone().requires_grad_() for x in problem())
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (scale, -2.0))
    if name == "info_nce":
        loss = gathered_info_nce(image, metadata, GROUP[rows], scale, tile, ring) + 0 * bias
    else:
        loss = gathered_sigmoid_loss(image, metadata, GROUP[rows], scale, bias, tile, ring)
    (WEIGHTS[rank] * loss).backward()
    return [loss.detach(), image.grad, metadata.grad, scale.grad, bias.grad]


def largest(ring, rows_each):
    """Numbers in the largest tensor of a loss and its gradients, with `rows_each` rows in every process."""
    found = []
    for loss in (
        lambda a, b, g: gathered_info_nce(a, b, g, 5.0, 16, ring),
        lambda a, b, g: gathered_sigmoid_loss(a, b, g, 5.0, -1.0, 16, ring),
    ):
        a, b = (F.normalize(torch.randn(rows_each, 32), dim=1).requires_grad_() for _ in range(2))
        with Largest() as made:
            loss(a, b, torch.arange(rows_each)).backward()
        found.append(made.numbers)
    return found


def main(folder, processes, rank):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    start = sum(SHARES[processes][:rank])
    rows = slice(start, start + SHARES[processes][rank])
    found = {
        case: spread(*case, rows, rank)
        for case in itertools.product(("info_nce", "sigmoid"), SCALES, (None, 3), (False, True))
    }
    found["largest"] = {ring: largest(ring, 60) for ring in (False, True)}
    try:
        gathered_info_nce(torch.zeros(2, 3 + rank), torch.zeros(2, 3 + rank), torch.arange(2), 1.0, ring=True)
    except ValueError as error:
        found["misfit"] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]), int(sys.argv[3]))
