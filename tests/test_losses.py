"""The contrastive losses against plain double loops, closed forms and numerical gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cimp_core.losses import info_nce, sigmoid_loss


def rows(count, dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator, dtype=dtype), dim=1)


GROUPS = {
    "one each": [0, 1, 2, 3, 4, 5, 6],
    "pairs and one alone": [3, 3, 9, 9, 5, 5, -1],
    "uneven": [0, 0, 0, 0, 1, 1, 2**40],
}


def loop_info_nce(image, metadata, group, scale):
    """The definition, one pair at a time."""
    total, n = 0.0, len(group)
    for a, b in ((image, metadata), (metadata, image)):
        for i in range(n):
            logits = [scale * sum(p * q for p, q in zip(a[i], b[j], strict=True)) for j in range(n)]
            normaliser = math.log(sum(math.exp(x) for x in logits))
            positives = [normaliser - logits[j] for j in range(n) if group[j] == group[i]]
            total += sum(positives) / len(positives) / n / 2
    return total


def loop_sigmoid(image, metadata, group, scale, bias):
    total, n = 0.0, len(group)
    for i in range(n):
        for j in range(n):
            sign = 1 if group[i] == group[j] else -1
            logit = scale * float(np.dot(image[i], metadata[j])) + bias
            total += math.log1p(math.exp(-sign * logit)) / n
    return total


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("tile", [None, 1, 3, 100])
def test_both_losses_equal_their_definition(group, tile):
    a, b, ids = rows(7, 5, 1), rows(7, 5, 2), torch.tensor(group)
    x, y = a.tolist(), b.tolist()
    assert info_nce(a, b, ids, 9.0, tile).item() == pytest.approx(loop_info_nce(x, y, group, 9.0), rel=1e-12)
    assert sigmoid_loss(a, b, ids, 9.0, -2.0, tile).item() == pytest.approx(
        loop_sigmoid(x, y, group, 9.0, -2.0), rel=1e-12
    )


def test_identical_embeddings_give_log_of_the_batch():
    same = rows(1, 8).expand(32, 8)
    for group in (torch.arange(32), torch.arange(32) // 4, torch.zeros(32, dtype=torch.int64)):
        assert info_nce(same, same, group, 20.0).item() == pytest.approx(math.log(32), rel=1e-12)


@pytest.mark.parametrize("positives", [1, 4])
def test_perfect_embeddings_give_log_of_the_positives(positives):
    group = torch.arange(16) // positives
    perfect = torch.eye(16, dtype=torch.float64)[group]
    assert info_nce(perfect, perfect, group, 100.0).item() == pytest.approx(math.log(positives), abs=1e-12)


def test_sigmoid_closed_form_of_orthogonal_rows():
    eye = torch.eye(8, dtype=torch.float64)
    expected = math.log1p(math.exp(-(10 - 4))) + 7 * math.log1p(math.exp(-4))
    assert sigmoid_loss(eye, eye, torch.arange(8), 10.0, -4.0).item() == pytest.approx(expected, rel=1e-12)


def test_order_of_the_batch_and_exchange_of_the_towers_do_not_matter():
    a, b, group = rows(12, 6, 1), rows(12, 6, 2), torch.arange(12) // 3
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    value = info_nce(a, b, group, 14.3)
    torch.testing.assert_close(info_nce(a[order], b[order], group[order], 14.3), value)
    torch.testing.assert_close(info_nce(b, a, group, 14.3), value)
    torch.testing.assert_close(
        sigmoid_loss(a[order], b[order], group[order], 9.0, -3.0), sigmoid_loss(a, b, group, 9.0, -3.0)
    )
    # It does matter which rows belong together.
    assert abs(info_nce(a, b, group.roll(1), 14.3) - value) > 1e-3


@pytest.mark.parametrize("tile", [None, 2])
def test_gradients_of_towers_scale_and_bias(tile):
    a, b, group = rows(5, 3, 1).requires_grad_(), rows(5, 3, 2).requires_grad_(), torch.tensor([0, 0, 1, 2, 2])
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: info_nce(x[0], x[1], group, x[2], tile), (a, b, scale))
    assert torch.autograd.gradcheck(lambda *x: sigmoid_loss(x[0], x[1], group, x[2], x[3], tile), (a, b, scale, bias))


@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_tiles_bound_the_memory_kept_for_the_backward_pass(name):
    """Without checkpointing each tile, all B x B logits would be kept however small the tile."""
    count, kept = 256, {}
    for tile in (None, 16):
        a, b = rows(count, 8, 1, torch.float32).requires_grad_(), rows(count, 8, 2, torch.float32)
        storages = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=storages: note(t, s), lambda t: t):
            if name == "info_nce":
                loss = info_nce(a, b, torch.arange(count), 10.0, tile)
            else:
                loss = sigmoid_loss(a, b, torch.arange(count), 10.0, -5.0, tile)
        kept[tile] = sum(storages.values())
        del loss  # alive until here, so that no address is used twice
    assert kept[None] >= count * count
    assert kept[16] <= count * count / 4


def note(tensor, storages):
    storages[tensor.data_ptr()] = tensor.numel()
    return tensor


def test_large_logits_and_half_precision_stay_finite():
    a = rows(6, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = info_nce(a, -a, torch.arange(6), 1e4)
    assert value.dtype == torch.float32 and torch.isfinite(value)


def test_wrong_shapes_and_float_groups_are_refused():
    a = rows(4, 3)
    with pytest.raises(ValueError, match="must both be"):
        info_nce(a, a[:3], torch.arange(4), 1.0)
    with pytest.raises(ValueError, match="integer ids"):
        info_nce(a, a, torch.arange(4.0), 1.0)
