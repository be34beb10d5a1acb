"""A training whose second process dies, as if by kill -9: ``torchrun --nproc-per-node 2 dying_worker.py FOLDER STEP``.

It dies once, when it is asked for the batch of that step; ``FOLDER/died`` says that it did.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from two_processes import CONFIG, problem

from cimp_core.training import fit

QUICK = dataclasses.replace(CONFIG, precision="32-true")


def train(folder, dies_at=None, seed=0):
    model, batches, loss = problem(seed)
    model.float()

    def part(step):
        if step == dies_at and dist.get_rank() == 1 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return tuple(t.float() for t in batches(step))

    fit(model, part, loss, QUICK, folder)
    return model


def main(folder, dies_at):
    # A process that was started again begins from other weights: all must come from the checkpoint.
    restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    model = train(folder, dies_at, seed=int((folder / "died").exists()))
    if dist.get_rank() == 0:
        torch.save(model.state_dict(), folder / "end.pt")
        (folder / "restarts.json").write_text(json.dumps(restarts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
