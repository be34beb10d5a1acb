"""Contrastive losses, forward and backward: time and memory against the plain form, open_clip's and the products alone.

    python bench/loss_speed.py [--full] [--sizes 512 4096] [--dims 128] [--device cuda] [--json FILE]

By turns in one run, at each size: "products", the three without which there is no gradient (3 x 2 B^2 d operations), in
tiles that stay in the cache, which is the floor; "plain", the definition in torch, all B x B logits at once; "ours";
"ours, 4 alike", on a batch in which four rows share each group; and, where open_clip imports, its ClipLoss and
SigLipLoss, which know one positive a row. All but one have batches without duplicates. Embeddings are random unit rows,
the scale is 1 / 0.07. Memory is what a call takes at most beyond what was there before. What would take more than
`--memory` is left out, and without ``--full`` also what would take long; the table says so.

Measured with rows of 128 numbers on 2 cores with five times as much other work as they can do, by ``--full --threads 1
--clock cpu``: processor time of one thread [ms], which the other work stretches and scatters by half, as the second
row of 4,096 shows, where "ours" is less than its own products; 3 rounds, one from 16,384 on. Memory in MB.

| loss | B | products | plain | open_clip | ours | plain / ours | ours / products | memory of plain | memory of ours |
|---|---|---|---|---|---|---|---|---|---|
| info_nce | 512 | 5 | 15 | 15 | 14 | 1.1 | 2.5 | 10 | 11 |
| info_nce | 2,048 | 70 | 277 | 205 | 122 | 2.3 | 1.8 | 109 | 11 |
| info_nce | 4,096 | 210 | 1,178 | 1,144 | 455 | 2.6 | 2.2 | 424 | 16 |
| info_nce | 8,192 | 1,246 | 7,187 | 4,895 | 2,295 | 3.1 | 1.8 | 1,618 | 40 |
| info_nce | 16,384 | 4,173 | 35,391 | 20,607 | 8,496 | 4.2 | 2.0 | 6,454 | 54 |
| info_nce | 32,768 | 15,030 | - | - | 25,987 | - | 1.7 | - | 155 |
| sigmoid | 512 | 4 | 8 | 8 | 9 | 0.9 | 1.9 | 10 | 12 |
| sigmoid | 2,048 | 62 | 168 | 140 | 137 | 1.2 | 2.2 | 136 | 9 |
| sigmoid | 4,096 | 334 | 1,095 | 1,038 | 314 | 3.5 | 0.9 | 287 | 14 |
| sigmoid | 8,192 | 891 | 4,174 | 4,568 | 1,534 | 2.7 | 1.7 | 1,078 | 28 |
| sigmoid | 32,768 | 16,042 | - | - | 31,908 | - | 2.0 | - | 124 |

So memory grows with B. The goal of a third of the plain form's time at 32,768 is not measured: the plain form would
take 26 GiB there. At 16,384 InfoNCE meets it; at 8,192 the sigmoid loss misses it. The goal of 1.5 times the products
is missed: InfoNCE makes the logits twice, four products for three, and the exponentials come on top. Nothing was
measured on a graphics card.
"""

import ctypes
import itertools
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from report import goal, header, interleaved, parser, table, write
from torch import Tensor

from cimp_core.losses import info_nce, sigmoid_loss

CLAIM = "Contrastive losses with several positives need memory for B d numbers, and less time than the plain form."
SCALE, BIAS = 1 / 0.07, -10.0
SIZES, DIMS = (512, 1024, 2048, 4096, 8192, 16_384, 32_768), (128, 512)
GUESS = {"plain": 120e-9, "ours": 30e-9, "open_clip": 60e-9, "products": 14e-9}
"""Seconds of one core a pair of rows of 128 numbers, and twice that of 512: only to choose what fits."""
COPIES = {"plain": 6.5, "open_clip": 5.5}  # B x B arrays that are alive at most, likewise
COLUMNS = {
    "loss": "{loss}", "d": "{d}", "B": "{B:,}", "way": "{name}", "forward + backward [ms]": "{median_ms:,.1f}",
    "times as fast as plain": "{over_plain:.1f}", "time over the products'": "{over_products:.2f}",
    "memory [MB]": "{memory_MB:,.0f}", "left out": "{left_out}",
}  # fmt: skip


def plain_info_nce(image: Tensor, metadata: Tensor, group: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The definition, both directions from one array of logits."""
    logits = scale * image @ metadata.T
    target = (group[:, None] == group).to(logits.dtype)
    target = target / target.sum(1, keepdim=True)
    return -(target * (logits.log_softmax(1) + logits.log_softmax(0))).sum() / (2 * len(logits))


def plain_sigmoid(image: Tensor, metadata: Tensor, group: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    sign = 2.0 * (group[:, None] == group) - 1.0
    return -F.logsigmoid(sign * (scale * image @ metadata.T + bias)).sum() / len(image)


def peers() -> dict[str, Callable[..., Tensor]]:
    """open_clip's losses where it can be imported; next to a torch without CUDA, torchvision must be told a name."""
    try:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:
        pass  # it is there
    try:
        from open_clip.loss import ClipLoss, SigLipLoss
    except ImportError as error:
        print(f"open_clip is left out: {error}")
        return {}
    clip, siglip = ClipLoss(), SigLipLoss()
    return {
        "info_nce": lambda image, metadata, group, scale, bias: clip(image, metadata, scale),
        "sigmoid": lambda image, metadata, group, scale, bias: siglip(image, metadata, scale, bias),
    }


def products(image: Tensor, metadata: Tensor, share: float) -> None:
    """The logits of the first rows with all, and what gradients of both sides are made with, tile by tile."""
    edge = 512 if image.device.type == "cpu" else 4096
    gradients = torch.zeros_like(image), torch.zeros_like(metadata)
    tiles = [x.split(edge) for x in (image, metadata, *gradients)]
    most = max(1, round(share * len(tiles[0])))
    space = image.new_empty(edge, edge)
    for (a, of_a), (b, of_b) in itertools.product(list(zip(tiles[0], tiles[2]))[:most], list(zip(tiles[1], tiles[3]))):
        logits = torch.mm(a, b.T, out=space[: len(a), : len(b)])
        of_a.addmm_(logits, b)
        of_b.addmm_(logits.T, a)


class Memory:
    """What the first call of a function takes at most [bytes]; the later ones are called as they are."""

    def __init__(self, call: Callable[[], None], device: str) -> None:
        self.call, self.device, self.peak = call, device, None

    def __call__(self) -> None:
        if self.peak is not None:
            return self.call()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.call()
            self.peak = torch.cuda.max_memory_allocated() - before
        elif sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # or what lies about from before would not be counted
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the highest so far is now the present
            before = resident("VmRSS")
            self.call()
            self.peak = resident("VmHWM") - before
        else:
            self.call()
            self.peak = float("nan")


def resident(name: str, file: str = "/proc/self/status") -> int:
    """A line of the kernel's account of memory [bytes]."""
    with open(file) as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def batch(size: int, dim: int, device: str) -> list[Tensor]:
    """Unit rows of both towers, scale and bias, all of which want gradients."""
    generator = torch.Generator().manual_seed(0)
    rows = [F.normalize(torch.randn(size, dim, generator=generator), dim=1) for _ in range(2)]
    return [x.to(device).requires_grad_() for x in (*rows, torch.tensor(SCALE), torch.tensor(BIAS))]


def step(loss: Callable[..., Tensor], tensors: list[Tensor], group: Tensor) -> None:
    image, metadata, scale, bias = tensors
    for x in tensors:
        x.grad = None
    loss(image, metadata, group, scale, bias).backward()


def measure(name: str, size: int, dim: int, others: dict, options) -> list[dict]:
    """One row a way, and one for each that was left out."""
    tensors = batch(size, dim, options.device)
    image, metadata = (x.detach() for x in tensors[:2])
    group = torch.arange(size, device=options.device)
    share = min(1.0, 2**26 / size**2)  # of the products: their rate does not change any more
    ours = {"info_nce": lambda i, m, g, s, b: info_nce(i, m, g, s), "sigmoid": sigmoid_loss}[name]
    plain = {"info_nce": plain_info_nce, "sigmoid": plain_sigmoid}[name]
    ways = {
        "products": lambda: products(image, metadata, share),
        "plain": lambda: step(plain, tensors, group),
        "ours": lambda: step(ours, tensors, group),
        "ours, 4 alike": lambda: step(ours, tensors, group // 4),
    }
    if name in others:
        ways["open_clip"] = lambda: step(others[name], tensors, group)
    left_out, seconds = {}, {}
    for way in list(ways):
        kind = way.split(",")[0]
        seconds[way] = GUESS[kind] * size**2 * max(1, dim / 256) * (share if way == "products" else 1)
        need = COPIES.get(kind, 0) * 4 * size**2
        if need > options.memory * 2**30:
            left_out[way] = f"may take {need / 2**30:.0f} GiB"
        elif size > 8192 and way == "ours, 4 alike":
            left_out[way] = "measured at smaller B"
    total = sum(seconds[way] for way in ways if way not in left_out)
    budget = options.budget * (128 / dim if options.quick else 1)
    rows = [{"name": way, "left_out": why} for way, why in left_out.items()]
    rounds = max(1, min(options.rounds, int(budget / max(total, 1e-9)) - 1))
    if not options.full and 2 * total > budget:
        rows = [{"name": "all", "left_out": f"about {2 * total:.0f} s: --full"}]
    else:
        calls = {way: Memory(call, options.device) for way, call in ways.items() if way not in left_out}
        wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
        found = {row["name"]: row for row in interleaved(calls, rounds, options.clock, wait)}
        floor = found["products"]["median_s"] / share
        for way, row in found.items():
            time = floor if way == "products" else row["median_s"]
            # Ratios are medians of those within a round, when other work of the machine met both alike.
            made = {"name": way, "median_ms": 1e3 * time, "over_products": share / row["ratio"], "rounds": rounds}
            if way == "products":
                made["over_products"] = 1.0
            if "plain" in found and way != "products":
                made["over_plain"] = row["ratio"] / found["plain"]["ratio"]
            if way != "products" and calls[way].peak == calls[way].peak:
                made["memory_MB"] = calls[way].peak / 1e6
            rows.append(made)
    order = [*ways, "all"]
    return [{"loss": name, "d": dim, "B": size} | row for row in sorted(rows, key=lambda r: order.index(r["name"]))]


def floor_of_bytes(device: str) -> float:
    """Seconds a number, of reading 4 bytes and writing 4: a loss must read both towers and write their gradients."""
    a, b = torch.empty(2, 2**25, device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return interleaved({"copy": lambda: b.copy_(a)}, 5, "wall", wait)[0]["median_s"] / len(a)


def goals(rows: list[dict]) -> list[dict]:
    """What was aimed at, at the largest size at which it was measured."""

    def largest(name: str, way: str, key: str) -> tuple[float | None, str]:
        found = [r for r in rows if r["loss"] == name and r["name"] == way and r["d"] == 128 and key in r]
        row = max(found, key=lambda r: r["B"], default=None)
        return (None, "") if row is None else (row[key], f"at B = {row['B']:,}")

    made = []
    for name in ("info_nce", "sigmoid"):
        value, where = largest(name, "ours", "over_plain")
        why = f"{where}; the more rows, the further ahead, until the plain form's logits do not fit"
        made.append(goal(f"{name}: a third of the plain form's time, d = 128", value, at_least=3.0, why=why))
        value, where = largest(name, "ours", "over_products")
        why = f"{where}; the logits are made twice, which is a fourth product, and their exponentials come on top"
        made.append(goal(f"{name}: 1.5 times the products' time, d = 128", value, at_most=1.5, why=why))
    return made


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    made.add_argument("--dims", type=int, nargs="+", default=list(DIMS))
    made.add_argument("--full", action="store_true", help="every size, however long it takes")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--memory", type=float, help="GiB that one way may take; by default half of what is free")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory is None:
        free = torch.cuda.mem_get_info()[0] if options.device == "cuda" else resident("MemAvailable", "/proc/meminfo")
        options.memory = free / 2 / 2**30
    options.budget = (32 if options.quick else 8) * (100 if options.device == "cuda" else 1)
    options.rounds = min(options.rounds, 2) if options.quick else options.rounds
    others, rows = peers(), []
    settings = {"device": options.device, "clock": options.clock, "memory_GiB": round(options.memory, 1)}
    per_number = floor_of_bytes(options.device)
    settings["bytes_floor_ms_at_B_32768_d_128"] = round(1e3 * per_number * 2 * 32_768 * 128, 2)
    print(", ".join(f"{key} {value}" for key, value in settings.items()), flush=True)
    for name in ("info_nce", "sigmoid"):
        measure(name, 1536, options.dims[0], others, options)  # first calls take memory that later ones use again
    for dim, size, name in itertools.product(options.dims, options.sizes, ("info_nce", "sigmoid")):
        rows += (new := measure(name, size, dim, others, options))
        print(table(new, COLUMNS).split("\n", 0 if len(new) == len(rows) else 2)[-1], flush=True)
    write(
        options.json, header("loss_speed", CLAIM, ("triton", "open_clip_torch"), settings), rows, COLUMNS, goals(rows)
    )


if __name__ == "__main__":
    main()
