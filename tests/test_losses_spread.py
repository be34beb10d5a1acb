"""Losses of a batch spread over two and three processes, gathered and in a ring, against one plain double loop."""

import itertools
import subprocess
import sys

import loss_processes
import pytest
import torch
from loss_processes import GROUP, SCALES, SHARES, WEIGHTS


@pytest.fixture(scope="module", params=sorted(SHARES))
def found(request, tmp_path_factory):
    """What each process found."""
    folder = tmp_path_factory.mktemp("spread")
    command = [sys.executable, loss_processes.__file__, folder, request.param]
    started = [
        subprocess.Popen([*map(str, command), str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(request.param)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


def whole(name, scale, shares):
    """Values of the parts and gradients of their weighted sum, by the definition, pair by pair."""
    image, metadata = (x.requires_grad_() for x in loss_processes.problem())
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (scale, -2.0))
    n, parts = len(GROUP), []
    positive = [[j for j in range(n) if GROUP[j] == GROUP[i]] for i in range(n)]
    for mine in torch.arange(n).split(list(shares)):
        total = 0 * bias
        for i in mine.tolist():
            logits = scale * (metadata @ image[i])
            if name == "sigmoid":
                sign = torch.tensor([1.0 if j in positive[i] else -1.0 for j in range(n)], dtype=torch.float64)
                total = total - torch.nn.functional.logsigmoid(sign * (logits + bias)).sum() / n
            else:
                # Both directions, of this image and of these settings; the positives are counted with the images.
                columns = scale * (image @ metadata[i])
                both = logits.logsumexp(0) + columns.logsumexp(0)
                total = total + (both - 2 * logits[positive[i]].mean()) / (2 * n)
        parts.append(total * len(shares))
    sum(w * part for w, part in zip(WEIGHTS, parts)).backward()
    rows = [[x.detach()] for x in parts]
    for x in (image.grad, metadata.grad):
        for row, part in zip(rows, x.split(list(shares)), strict=True):
            row.append(part)
    return rows, [scale.grad, bias.grad]


@pytest.mark.parametrize("name, scale", itertools.product(("info_nce", "sigmoid"), SCALES))
def test_every_process_has_its_part_and_the_gradient_of_its_rows(found, name, scale):
    expected, of_numbers = whole(name, scale, SHARES[len(found)])
    for tile, ring in itertools.product((None, 3), (False, True)):
        results = [process[name, scale, tile, ring] for process in found]
        for process, reference in zip(results, expected, strict=True):
            for x, y in zip(process, reference):
                torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12 * max(1, scale), msg=f"{tile} {ring}")
        for number, reference in zip((-2, -1), of_numbers, strict=True):
            total = sum(process[number] for process in results)
            torch.testing.assert_close(total, reference, rtol=1e-10, atol=1e-12, msg=f"{tile} {ring} {number}")


def test_a_ring_holds_no_tensor_of_the_whole_batch(found):
    """60 rows of 32 numbers in each process: gathered, there is an array of all; in the ring of two processes."""
    for process in found:
        assert min(process["largest"][False]) >= len(found) * 60 * 32
        assert max(process["largest"][True]) <= 2 * 60 * 32


def test_rows_that_do_not_fit_are_refused_in_every_process(found):
    assert len({process["misfit"] for process in found}) == 1
    assert "rows of [3, 4" in found[0]["misfit"]
