"""What test_losses_fused.py runs with Triton's interpreter: the kernels beside the tiles of torch in float64.

Prints the largest difference of each result, as a share of its largest number.
"""

import json

import torch
import torch.nn.functional as F

from cimp_core.losses import contrastive, fused, tiles


def relative(found, expected):
    return float((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def case(count, width, dim, scale, bias, seed):
    """Every result of the three functions, for `count` rows and `width` columns, in tiles of 16."""
    generator = torch.Generator().manual_seed(seed)
    # Sixteenths: their products are exact in single precision in any order, in which processors differ. A hot scale
    # makes of the last digit of a product the fourth of a weight, and that is no matter of the kernels.
    unit = (F.normalize(torch.randn(n, dim, generator=generator), dim=1) for n in (count, width))
    rows, columns = (torch.round(16 * x) / 16 for x in unit)
    groups = [torch.randint(2**40, 2**40 + 9, (n,), generator=generator) for n in (count, width)]
    weights = [torch.rand(n, generator=generator) for n in (count, width)]
    numbers = [torch.tensor(x) for x in (scale, bias)]
    wide = [x.double() for x in (rows, columns, *weights, *numbers)]
    exact = tiles.log_sums(wide[0], wide[1], wide[4], 5)
    found = dict(zip(("over_columns", "over_rows"), zip(fused.log_sums(rows, columns, numbers[0], 16), exact)))
    names = ("of rows", "of columns", "of scale")
    mine = fused.log_sums_gradients(rows, columns, numbers[0], *(x.float() for x in exact), *weights, 16)
    expected = tiles.log_sums_gradients(wide[0], wide[1], wide[4], *(x.float().double() for x in exact), *wide[2:4], 5)
    found |= dict(zip(names, zip(mine, expected)))
    names = ("pair_sum", *(f"pair_sum {name}" for name in names), "pair_sum of bias")
    mine = fused.pair_sum(rows, columns, *groups, *numbers, 16)
    found |= dict(zip(names, zip(mine, tiles.pair_sum(wide[0], wide[1], *groups, *wide[4:], 5))))
    found["pair_sum alone"] = (fused.pair_sum(rows, columns, *groups, *numbers, 16, False)[0], mine[0].double())
    return {name: relative(*pair) for name, pair in found.items()}


def through_autograd():
    """Loss and gradients by the kernels and by the plain form."""
    results = []
    for kernels in (fused, None):
        contrastive.kernels_for = lambda *_, kernels=kernels: kernels
        generator = torch.Generator().manual_seed(0)
        a, b = (F.normalize(torch.randn(70, 24, generator=generator), dim=1).requires_grad_() for _ in range(2))
        scale, bias = (torch.tensor(x, requires_grad=True) for x in (12.0, -3.0))
        group = torch.arange(70) % 23
        nce = contrastive.info_nce(a, b, group, scale)
        (2 * nce + 3 * contrastive.sigmoid_loss(a, b, group, scale, bias)).backward()
        results.append([nce.detach(), a.grad, b.grad, scale.grad, bias.grad])
    return [relative(x, y.double()) for x, y in zip(*results)]


def main():
    shapes = [(40, 23, 5, 10.0, -4.0), (16, 48, 33, 2.0**-10, 0.0), (37, 70, 16, 1e3, -10.0), (1, 3, 2, 3e4, 5.0)]
    cases = {str(shape): case(*shape, seed) for seed, shape in enumerate(shapes)}
    print(json.dumps({"cases": cases, "autograd": through_autograd()}))


if __name__ == "__main__":
    main()
