"""The contrastive losses against plain double loops, closed forms and numerical gradients."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_processes import Largest

from cimp_core.losses import (
    contrastive,
    gather,
    gathered_info_nce,
    gathered_sigmoid_loss,
    info_nce,
    sigmoid_loss,
    tiles,
)
from cimp_core.losses.contrastive import info_nce_rows, sigmoid_rows


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
    """Were the tiles not computed again, all B x B logits would be kept however small the tile."""

    def kept(count, tile):
        a, b = rows(count, 8, 1, torch.float32).requires_grad_(), rows(count, 8, 2, torch.float32).requires_grad_()
        scale = torch.tensor(10.0, requires_grad=True)
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if name == "info_nce":
                loss = info_nce(a, b, torch.arange(count), scale, tile)
            else:
                loss = sigmoid_loss(a, b, torch.arange(count), scale, torch.tensor(-5.0), tile)
        numbers = sum(storages.values()) / 4  # of float32
        del loss  # alive until here, so that no address is used twice
        return numbers

    plain, tiled = ([kept(count, tile) for count in (256, 512, 1024)] for tile in (1024, 16))
    for count, full, part in zip((256, 512, 1024), plain, tiled, strict=True):
        assert full >= count * count and part <= 100 * count
    assert tiled[2] / tiled[0] <= 4.1 < 15 < plain[2] / plain[0]


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_tiles_bound_what_the_process_takes_forward_and_backward():
    """What is freed must also be used again: less in all than one B x B matrix of float32, 144 MiB."""
    code = """
import resource, torch
from cimp_core.losses import info_nce, sigmoid_loss
a, b = (torch.nn.functional.normalize(torch.randn(6144, 8), dim=1).requires_grad_() for _ in range(2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
info_nce(a, b, torch.arange(6144), 10.0, 256).backward()
sigmoid_loss(a, b, torch.arange(6144), 10.0, -5.0, 256).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 144 * 1024


@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_tiles_change_neither_value_nor_gradients(name):
    found = []
    for tile in (None, 1, 5, 16, 40):
        a, b = rows(40, 6, 1).requires_grad_(), rows(40, 6, 2).requires_grad_()
        scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (8.0, -3.0))
        group = torch.arange(40) % 7
        if name == "info_nce":
            loss = info_nce(a, b, group, scale, tile) + 0 * bias
        else:
            loss = sigmoid_loss(a, b, group, scale, bias, tile)
        loss.backward()
        found.append([loss.detach(), a.grad, b.grad, scale.grad, bias.grad])
    for tiled in found[1:]:
        for x, y in zip(tiled, found[0], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="tile is 0"):
        info_nce(a, b, group, 1.0, 0)


def test_parts_of_the_rows_add_up_to_all_with_groups_of_their_own():
    a, b, group = rows(9, 4, 1), rows(9, 4, 2), torch.tensor([0, 1, 1, 2, 0, 0, 3, 2, 1])
    parts = [slice(0, 2), slice(2, 7), slice(7, 9)]
    nce = sum(
        info_nce_rows(a[r], b, group[r], group, 6.0) + info_nce_rows(b[r], a, group[r], group, 6.0) for r in parts
    )
    sigmoid = sum(sigmoid_rows(a[r], b, group[r], group, 6.0, -1.0) for r in parts)
    torch.testing.assert_close(nce / 18, info_nce(a, b, group, 6.0), rtol=1e-13, atol=0)
    torch.testing.assert_close(sigmoid / 9, sigmoid_loss(a, b, group, 6.0, -1.0), rtol=1e-13, atol=0)


def test_one_process_gathers_itself():
    a, b, group = rows(6, 4, 1), rows(6, 4, 2), torch.arange(6) // 2
    assert gather(a) is a
    assert torch.equal(gathered_info_nce(a, b, group, 5.0, 2), info_nce(a, b, group, 5.0, 2))
    assert torch.equal(gathered_sigmoid_loss(a, b, group, 5.0, -1.0), sigmoid_loss(a, b, group, 5.0, -1.0))


def test_limits_of_the_temperature():
    """Hot: every pair alike. Cold: each row pays the gap to its best column, so nothing where that is its own."""
    a, b, group = rows(12, 5, 1), rows(12, 5, 2), torch.arange(12) // 2
    assert info_nce(a, b, group, 0.0).item() == pytest.approx(math.log(12), rel=1e-12)
    pairs = 12 * 2 * math.log1p(math.exp(1.5)) + 12 * 10 * math.log1p(math.exp(-1.5))  # positives and negatives
    assert sigmoid_loss(a, b, group, 0.0, -1.5).item() == pytest.approx(pairs / 12, rel=1e-12)
    assert info_nce(a, a, torch.arange(12), 1e4).item() == pytest.approx(0.0, abs=1e-12)
    cosine = a @ b.T
    gap = (cosine.max(1).values - cosine.diag()).mean() + (cosine.max(0).values - cosine.diag()).mean()
    assert info_nce(a, b, torch.arange(12), 1e6).item() / 1e6 == pytest.approx(gap.item() / 2, rel=1e-5)


def test_closed_forms_of_one_group_and_of_identical_rows():
    """With one group every pair is a positive: the loss is what is lost to differences among them."""
    a, b, one = rows(10, 4, 1), rows(10, 4, 2), torch.zeros(10, dtype=torch.int64)
    logits = 3.0 * (a @ b.T)
    expected = (logits.logsumexp(1).mean() + logits.logsumexp(0).mean()) / 2 - logits.mean()
    assert info_nce(a, b, one, 3.0).item() == pytest.approx(expected.item(), rel=1e-12)
    same = rows(1, 4).expand(10, 4)
    assert sigmoid_loss(same, same, one, 3.0, -1.0).item() == pytest.approx(10 * math.log1p(math.exp(-2)), rel=1e-12)
    assert sigmoid_loss(same, same, torch.arange(10), 3.0, -1.0).item() == pytest.approx(
        math.log1p(math.exp(-2)) + 9 * math.log1p(math.exp(2)), rel=1e-12
    )


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


def loop_gradients(image, metadata, group, scale):
    """Gradients of the definition by hand, one pair at a time: of both towers and of the scale."""
    n, cosine = len(group), image @ metadata.T
    d_image, d_metadata, d_scale = np.zeros_like(image), np.zeros_like(metadata), 0.0
    members = [sum(g == h for h in group) for g in group]
    for i in range(n):
        for j in range(n):
            over_columns = 1 / sum(math.exp(min(scale * (cosine[i, k] - cosine[i, j]), 700)) for k in range(n))
            over_rows = 1 / sum(math.exp(min(scale * (cosine[k, j] - cosine[i, j]), 700)) for k in range(n))
            slope = (over_columns + over_rows - 2 * (group[i] == group[j]) / members[i]) / (2 * n)
            d_image[i] += slope * scale * metadata[j]
            d_metadata[j] += slope * scale * image[i]
            d_scale += slope * cosine[i, j]
    return d_image, d_metadata, d_scale


@pytest.mark.parametrize("scale", [1e-3, 9.0, 1e3, 1e5])
@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS.keys())
def test_value_and_gradients_at_any_temperature_by_the_definition(group, scale):
    """Sharp softmaxes go another way through the tiles than flat ones; no tile divides the seven rows but one."""
    a, b = rows(7, 5, 1), rows(7, 5, 2)
    expected = loop_gradients(a.numpy(), b.numpy(), group, scale)
    cosine, ids = a @ b.T, torch.tensor(group)
    same = (ids[:, None] == ids).double()
    value = (
        (scale * cosine).logsumexp(1) + (scale * cosine).logsumexp(0) - 2 * scale * (cosine * same).sum(1) / same.sum(1)
    )
    for dtype, tile in itertools.product((torch.float64, torch.float32), (None, 1, 3)):
        x, y = (t.clone().to(dtype).requires_grad_() for t in (a, b))
        s = torch.tensor(scale, dtype=dtype, requires_grad=True)
        loss = info_nce(x, y, ids, s, tile)
        loss.backward()
        # a rounded logit is wrong by its size times that of a digit
        close = max(1.0, scale) * torch.finfo(dtype).eps * 20
        assert loss.item() == pytest.approx(value.mean().item() / 2, abs=close, rel=close)
        for found, right in zip((x.grad, y.grad, s.grad), expected, strict=True):
            right = torch.as_tensor(right)
            assert (found - right).abs().max() <= close * right.abs().max() + close * min(scale, 1.0), (dtype, tile)


@pytest.mark.parametrize("scale", [1e-3, 9.0, 1e3, 1e5])
def test_sigmoid_at_any_temperature_by_the_definition(scale):
    a, b, group = rows(7, 5, 1), rows(7, 5, 2), GROUPS["uneven"]
    value, d_image, d_bias = 0.0, np.zeros((7, 5)), 0.0
    for i, j in itertools.product(range(7), range(7)):
        sign = 1 if group[i] == group[j] else -1
        wrong = -sign * (scale * float(a[i] @ b[j]) - 2.0)
        value += max(wrong, 0) + math.log1p(math.exp(-abs(wrong)))
        slope = -sign / (1 + math.exp(-max(min(wrong, 700), -700)))
        d_image[i] += slope * scale * b[j].numpy() / 7
        d_bias += slope / 7
    for dtype, tile in itertools.product((torch.float64, torch.float32), (None, 1, 3)):
        x, y, bias = (t.clone().to(dtype).requires_grad_() for t in (a, b, torch.tensor(-2.0)))
        loss = sigmoid_loss(x, y, torch.tensor(group), scale, bias, tile)
        loss.backward()
        close = max(1.0, scale) * torch.finfo(dtype).eps * 20
        assert loss.item() == pytest.approx(value / 7, rel=20 * torch.finfo(dtype).eps)
        torch.testing.assert_close(x.grad.double(), torch.from_numpy(d_image), rtol=close, atol=close * scale)
        assert bias.grad.item() == pytest.approx(d_bias, rel=close, abs=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("bound", [0.0, 800.0])
def test_both_ways_through_the_tiles_have_the_gradients_of_their_values(bound, monkeypatch):
    """With maxima taken off and without; rows and columns apart, so that ids are on one side only."""
    monkeypatch.setitem(tiles.BOUND, torch.float64, bound)
    a, b = rows(5, 3, 1).requires_grad_(), rows(7, 3, 2).requires_grad_()
    mine, theirs = torch.tensor([4, 4, 0, 1, 2]), torch.tensor([9, 4, 1, 0, 2, 9, 4])  # 9 is no row's
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(-1, 2, 12, dtype=torch.float64)

    def sums(*x):
        found = torch.cat(contrastive.log_sums(*x, 2))
        return found * weights

    assert torch.autograd.gradcheck(sums, (a, b, scale))
    assert torch.autograd.gradcheck(lambda *x: info_nce_rows(x[0], x[1], mine, theirs, x[2], 2), (a, b, scale))
    assert torch.autograd.gradcheck(lambda *x: sigmoid_rows(x[0], x[1], mine, theirs, *x[2:], 2), (a, b, scale, bias))
    exact = [(5.0 * a @ b.T).logsumexp(axis).detach() for axis in (1, 0)]
    for x, y in zip(contrastive.log_sums(a, b, scale, 2), exact, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-14, atol=0)


@pytest.mark.parametrize("tile", [None, 2])
def test_ids_without_a_row_and_rows_that_are_their_only_positive(tile):
    a, b = rows(3, 4, 1), rows(6, 4, 2)
    mine, theirs = [5, 1, 8], [5, 3, 3, 1, 2**50, 8]
    nce = sigmoid = 0.0
    for i, j in itertools.product(range(3), range(6)):
        logit = 6.0 * float(a[i] @ b[j])
        if mine[i] == theirs[j]:
            nce += float((6.0 * b @ a[i]).logsumexp(0)) - logit
        sigmoid += math.log1p(math.exp((logit - 1) * (-1 if mine[i] == theirs[j] else 1)))
    ids = torch.tensor(mine), torch.tensor(theirs)
    assert info_nce_rows(a, b, *ids, 6.0, tile).item() == pytest.approx(nce, rel=1e-12)
    assert sigmoid_rows(a, b, *ids, 6.0, -1.0, tile).item() == pytest.approx(sigmoid, rel=1e-12)


@pytest.mark.parametrize("tile, few", [(None, 1100), (16, 80)])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_no_tensor_grows_faster_than_the_batch(name, tile, few):
    """The largest made in a forward and a backward pass, by what torch is asked to make: no clock, no allocator."""

    def largest(count):
        a, b = (rows(count, 8, seed, torch.float32).requires_grad_() for seed in (1, 2))
        scale = torch.tensor(10.0, requires_grad=True)
        with Largest() as made:
            if name == "info_nce":
                info_nce(a, b, torch.arange(count) // 2, scale, tile).backward()
            else:
                sigmoid_loss(a, b, torch.arange(count) // 2, scale, -5.0, tile).backward()
        return made.numbers

    small, large = largest(few), largest(2 * few)
    held = 2 * (tile**2 if tile else 512 * 256 * torch.get_num_threads())  # two arrays of a tile
    assert large <= 2 * small and large <= max(2 * few * 8, held) < (2 * few) ** 2 / 4


def test_without_gradients_none_is_computed(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "addmm_", None)  # what accumulates them
    a, group = rows(8, 3).requires_grad_(), torch.arange(8)
    with torch.no_grad():
        value = sigmoid_loss(a, a, group, 3.0, -1.0, 3)
    assert not value.requires_grad
    with pytest.raises(TypeError):
        sigmoid_loss(a, a, group, 3.0, -1.0, 3)
