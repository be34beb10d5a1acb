"""Training on several processes, one a device, such that it is the training on one.

Each process takes its share of every batch. Whatever couples the samples of a batch is then computed over all
processes: the gradient (averaged by DistributedDataParallel), a loss that compares samples (`losses.gathered`), and,
here, the statistics of batch norms. Dropout draws for the whole batch in every process, so that one state of the
generator serves all and a sample loses the same units wherever it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import lightning_fabric as lf
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric.utilities import rank_zero_only
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .errors import OutOfRangeError

__all__ = ["couple", "is_first", "share_of_batch", "start", "uncouple"]


def start(
    precision: str, devices: int | None = None, num_nodes: int | None = None, strategy: str = "auto"
) -> lf.Fabric:
    """Fabric on the devices asked for; where ``torchrun`` started this process, by default on those it was told."""
    by_torchrun = dist.is_available() and dist.is_torchelastic_launched()
    if by_torchrun:
        _join_after_restart()
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if by_torchrun else 1
    nodes = int(os.environ["WORLD_SIZE"]) // local if by_torchrun else 1
    fabric = lf.Fabric(
        accelerator="auto",
        devices=local if devices is None else devices,
        num_nodes=nodes if num_nodes is None else num_nodes,
        strategy=strategy,
        precision=precision,
    )
    fabric.launch()
    return fabric


def _join_after_restart() -> None:
    """Meet the other processes where those that died have left nothing.

    torchrun keeps its store when it starts the processes again, and in it the addresses of the dead: whoever comes
    first reads those and waits in vain (seen with torch 2.13 and gloo). So these processes meet under another prefix.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or os.environ["WORLD_SIZE"] == "1" or dist.is_initialized():
        return
    store, rank, processes = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"restart {restarts}", store)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes)


def is_first() -> bool:
    """Whether this process is the one that writes files and talks; true where there is only one."""
    return rank_zero_only.rank == 0


def share_of_batch(batch_size: int, rank: int, processes: int) -> slice:
    """Rows of a batch that a process takes."""
    if batch_size % processes:
        raise OutOfRangeError(
            f"batch_size {batch_size} does not divide into equal shares for {processes} processes; "
            f"choose a multiple of {processes}, such as {-(-batch_size // processes) * processes}"
        )
    share = batch_size // processes
    return slice(rank * share, (rank + 1) * share)


def couple(model: nn.Module, fabric: lf.Fabric) -> None:
    """Let batch norms and dropouts inside `model` act on the batch of all processes; parameters and names stay."""
    # Torch's own for batch norms works on graphics cards only.
    batch_norm = _BatchNorm if fabric.device.type == "cpu" else nn.SyncBatchNorm
    for parent, name, child in _children(model):
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            ours: nn.Module = batch_norm(child.num_features, child.eps, child.momentum, child.affine)
        elif isinstance(child, nn.Dropout):
            ours = _Dropout(child.p)
            ours.rank, ours.processes = fabric.global_rank, fabric.world_size
        else:
            continue
        # The very tables of the original, so that it moves and learns along and can take its place again.
        ours._parameters, ours._buffers, ours.training = child._parameters, child._buffers, child.training
        ours.__dict__["original"] = child
        setattr(parent, name, ours)


def uncouple(model: nn.Module) -> None:
    """Undo `couple`."""
    for parent, name, child in _children(model):
        if "original" in child.__dict__:
            setattr(parent, name, child.__dict__["original"].train(child.training))


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            yield parent, name, child


def _of_all(mine: Tensor) -> Tensor:
    """(processes, ...): the same small tensor of every process. To add them up, gloo's own sum takes twice as long."""
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.stack(parts)


class _NormalisedOverAll(torch.autograd.Function):
    """Batch norm by statistics of all processes: torch's own kernels, and one message each way.

    Gradients of weight and bias are this process's terms: DistributedDataParallel puts them together.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Where there are running statistics, this kernel computes in their type, and not in that of a bfloat16 `x`.
        unused = x.new_zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        mine = torch.batch_norm_update_stats(x, unused, unused.clone(), 0.0)
        mine = torch.cat([*mine, unused.new_tensor([x.numel() // x.shape[1]])])
        means, variances, counts = _of_all(mine).split([len(unused), len(unused), 1], 1)
        count = counts.sum()
        share = counts / count
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        if dy.stride() != x.stride():
            # The kernel for two layouts at once is slow, and adds up bfloat16 in bfloat16.
            dy = torch.empty_like(x).copy_(dy)
        asked = ctx.needs_input_grad
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, None, None, False, ctx.eps, [asked[0], True, True]
        )
        if asked[0]:
            # That was as if the statistics did not depend on `x`; what their doing so adds is linear in `x`.
            total = _of_all(torch.stack([dweight, dbias])).sum(0)
            slope, offset = total * (variance + ctx.eps).rsqrt() / -count * (1 if weight is None else weight)
            dx += F.batch_norm(x, mean, variance, slope, offset, eps=ctx.eps)
        return dx, dweight if asked[1] else None, dbias if asked[2] else None, None


class _BatchNorm(nn.BatchNorm1d):
    """What `torch.nn.SyncBatchNorm` does, on a CPU."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _NormalisedOverAll.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return y


class _Dropout(nn.Dropout):
    """Draws for all samples of the batch, then takes those of this process."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = F.dropout(x.new_ones(self.processes * len(x), *x.shape[1:]), self.p)
        return x * mask[self.rank * len(x) : (self.rank + 1) * len(x)]
