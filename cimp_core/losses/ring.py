"""The contrastive losses of a spread batch with nothing gathered: the settings go round the processes.

In each of as many turns as there are processes, a process compares its images with the settings that are with it, adds
to what it keeps of its images and to what travels with the settings, and passes these on. After the last turn they are
home. The backward pass is one more round, on which the gradient of the settings travels along. A process holds its own
b rows and those of one other, so that memory grows with b d and not with the whole batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import tiles
from .contrastive import group_sums, kernels_for

__all__ = ["ring_log_sums", "ring_pair_sum"]


def ring_log_sums(
    image: Tensor, metadata: Tensor, group: Tensor, scale: Tensor, counts: list[int], tile: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `info_nce` needs of the logits of all processes, for the b rows of this one.

    Parameters
    ----------
    image, metadata : (b, d) tensors
        Of one type, float32 or float64.
    group : (b,) int64 tensor
        Ids.
    scale : scalar tensor
        Inverse temperature.
    counts : list of int
        Number of rows in each process.
    tile : int or None
        As of `info_nce`.

    Returns
    -------
    tuple of (b,), (b,), (b, d) and (b,) tensors
        Log-sum-exp of each image with all settings, and of each settings with all images; sum and number of the
        settings in the group of each image.
    """
    return _LogSums.apply(counts, tile, image, metadata, group, scale)


def ring_pair_sum(
    image: Tensor, metadata: Tensor, group: Tensor, scale: Tensor, bias: Tensor, counts: list[int], tile: int | None
) -> Tensor:
    """Sum of the sigmoid loss over the pairs of the images of this process and all settings; parameters as there."""
    return _PairSum.apply(counts, tile, image, metadata, group, scale, bias)


class _LogSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, counts: list[int], tile: int | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        image, metadata, group, scale = tensors
        over_settings = image.new_full((len(image),), -math.inf)
        sums, numbers = torch.zeros_like(image), image.new_zeros(len(image))
        travelling = [metadata, group, over_settings.clone()]
        for turn in range(len(counts)):
            settings, ids, over_images = travelling
            rows, columns = _kernels(image, settings, tile).log_sums(image, settings, scale, tile)
            over_settings = torch.logaddexp(over_settings, rows)
            positives, number = group_sums(settings, ids, group)
            sums += positives
            numbers += number
            travelling = _pass_on([settings, ids, torch.logaddexp(over_images, columns)], counts, turn)
        ctx.counts, ctx.tile = counts, tile
        ctx.save_for_backward(*tensors, over_settings, travelling[2])
        ctx.mark_non_differentiable(numbers)
        return over_settings, travelling[2], sums, numbers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        image, metadata, group, scale, over_settings, over_images = ctx.saved_tensors
        row_weights, column_weights, sum_weights, _ = weights
        image_gradient, scale_gradient = torch.zeros_like(image), torch.zeros_like(scale)
        travelling = [metadata, group, over_images, column_weights, torch.zeros_like(metadata)]
        for turn in range(len(ctx.counts)):
            settings, ids, sums, theirs, gradient = travelling
            of_image, of_settings, of_scale = _kernels(image, settings, ctx.tile).log_sums_gradients(
                image, settings, scale, over_settings, sums, row_weights, theirs, ctx.tile
            )
            image_gradient += of_image
            scale_gradient += of_scale
            gradient = gradient + of_settings + group_sums(sum_weights, group, ids)[0]
            travelling = _pass_on([settings, ids, sums, theirs, gradient], ctx.counts, turn)
        return None, None, image_gradient, travelling[-1], None, scale_gradient


class _PairSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, counts: list[int], tile: int | None, *tensors: Tensor) -> Tensor:
        image, metadata, group, *numbers = tensors
        total, travelling = image.new_zeros(()), [metadata, group]
        for turn in range(len(counts)):
            settings, ids = travelling
            total += _kernels(image, settings, tile).pair_sum(image, settings, group, ids, *numbers, tile, False)[0]
            travelling = _pass_on(travelling, counts, turn)
        ctx.counts, ctx.tile = counts, tile
        ctx.save_for_backward(*tensors)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        image, metadata, group, *numbers = ctx.saved_tensors
        own = [torch.zeros_like(x) for x in (image, *numbers)]
        travelling = [metadata, group, torch.zeros_like(metadata)]
        for turn in range(len(ctx.counts)):
            settings, ids, gradient = travelling
            _, of_image, of_settings, *of_numbers = _kernels(image, settings, ctx.tile).pair_sum(
                image, settings, group, ids, *numbers, ctx.tile
            )
            for total, part in zip(own, (of_image, *of_numbers), strict=True):
                total += weight * part
            travelling = _pass_on([settings, ids, gradient + weight * of_settings], ctx.counts, turn)
        return None, None, own[0], travelling[-1], None, *own[1:]


def _kernels(image: Tensor, settings: Tensor, tile: int | None):
    return kernels_for(image, settings, tile) or tiles


def _pass_on(tensors: list[Tensor], counts: list[int], turn: int) -> list[Tensor]:
    """Give these to the next process and take those of the one before, which hold another number of rows."""
    rank, processes = dist.get_rank(), len(counts)
    length = counts[(rank - turn - 1) % processes]
    taken = [x.new_empty(length, *x.shape[1:]) for x in tensors]
    for mine, theirs in zip(tensors, taken, strict=True):
        both = [
            dist.P2POp(dist.isend, mine.contiguous(), (rank + 1) % processes),
            dist.P2POp(dist.irecv, theirs, (rank - 1) % processes),
        ]
        for request in dist.batch_isend_irecv(both):
            request.wait()
    return taken
