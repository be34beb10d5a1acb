"""Search among embeddings: time, recall@10 and memory of the exact and the approximate kinds against plain peers.

    python bench/search_speed.py [--rows 100000 1000000] [--ways exact ivf] [--threads 2] [--clock cpu] [--json FILE]

With the extra ``cimp-core[faiss]``; without it the exact ways only. The rows are unit vectors of 128 numbers in
overlapping clusters, as embeddings of images under like settings are: 1,000 centres of random direction; a row is a
centre plus Gaussian noise as long as the centre in 32 directions of that centre and a fifth as long in all 128, scaled
to length 1. Queries are drawn in the same way and are no rows. Recall@10: share of the ten found that are as near as
the true ten, in float64 over all rows. Peers in the same run: a plain product with all rows and argpartition (NumPy),
and FAISS's IndexFlatIP. Times are medians of repeats after a warm-up; a ratio is the plain product's time over this
one's. Beside the index: what a batch of queries needs, by arithmetic. On a machine with other work, ``--threads 1
--clock cpu`` counts processor time instead, for building too.

The tables are on the page "Performance" of the book. What took longest there: "hnsw" with a million rows is built in
some seven minutes of one processor (100,000 rows: a quarter of a minute) and needs a breadth of 256 for a recall of
0.96, where 16 was enough for as much of 100,000 rows. "ivf" has 1,000 lists with a million rows, as many as there are
clusters, which flatters it; with 100,000 rows it has 316.
"""

import importlib.util
import statistics

import numpy as np
from report import CLOCKS, goal, header, parser, table, write
from threadpoolctl import threadpool_limits

from cimp_core.search import Approximation, Index
from cimp_core.search_exact import BLOCK_BYTES

DIM, CENTRES, INNER, K, BATCH = 128, 1000, 32, 10, 100
PROBES, BREADTHS = (1, 4, 16, 64), (16, 64, 256)
WAYS = ("flat", "exact", "half", "ivf", "hnsw")
COLUMNS = {
    "rows": "{rows:,}",
    "way": "{way}",
    "recall@10": "{recall:.3f}",
    "one query [ms] (ratio)": "{one_ms:.2f} ({one_ratio:.1f})",
    "100 queries [ms] (ratio)": "{batch_ms:.1f} ({batch_ratio:.1f})",
    "index [MB]": "{index_MB:.0f}",
    "beside it [MB]": "{beside_MB:.0f}",
    "build [s]": "{build_s:.1f}",
}


def embeddings(count: int, seed: int) -> np.ndarray:
    """Clustered unit rows (count, 128); the clusters are the same for every seed."""
    world = np.random.default_rng(0)
    centres = world.standard_normal((CENTRES, DIM), np.float32) / DIM**0.5
    spread = world.standard_normal((CENTRES, INNER, DIM), np.float32) / (INNER * DIM) ** 0.5
    rng = np.random.default_rng((1, seed))
    cluster = rng.integers(CENTRES, size=count)
    rows = rng.standard_normal((count, DIM), np.float32) * np.float32(0.2 / DIM**0.5)
    for number in range(CENTRES):
        mine = np.flatnonzero(cluster == number)
        rows[mine] += centres[number] + rng.standard_normal((len(mine), INNER), np.float32) @ spread[number]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The peer: one product with all rows, its ten largest."""
    scores = queries @ rows.T
    top = np.argpartition(scores, -K, axis=1)[:, -K:]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1), 1)


def truth(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The ten largest cosines of each query in float64, (q, 10)."""
    best = np.full((len(queries), K), -np.inf)
    for start in range(0, len(rows), 50_000):
        scores = queries.astype(np.float64) @ rows[start : start + 50_000].T.astype(np.float64)
        best = np.partition(np.concatenate([best, scores], 1), -K, axis=1)[:, -K:]
    return -np.sort(-best, axis=1)


def recall(rows: np.ndarray, queries: np.ndarray, found: np.ndarray, best: np.ndarray) -> float:
    """Share of answers whose cosine is that of a true answer, so that a tie at the tenth place is no miss."""
    cosines = np.einsum("qkd,qd->qk", rows[found].astype(np.float64), queries.astype(np.float64))
    return float(((cosines >= best[:, -1:] - 1e-12) & (found >= 0)).mean())


def seconds(call, queries: np.ndarray, repeats: int, clock: str) -> float:
    """Median time of ``call(queries)`` after one of warm-up."""
    call(queries)
    times = []
    for _ in range(repeats):
        start = CLOCKS[clock]()
        call(queries)
        times.append(CLOCKS[clock]() - start)
    return statistics.median(times)


def ways(rows: np.ndarray, clock: str, only: list[str]):
    """Name, search, memory [bytes], working memory of a batch [bytes] or None, and time to build [s] of each way."""
    yield "plain product", lambda q: plain(rows, q), rows.nbytes, 4 * BATCH * len(rows) * 3, 0.0
    if importlib.util.find_spec("faiss") is None:
        print("FAISS is not installed: its exact index, ivf and hnsw are left out")
        only = [way for way in only if way in ("exact", "half")]
    if "flat" in only:
        import faiss

        start = CLOCKS[clock]()
        flat = faiss.IndexFlatIP(DIM)
        flat.add(rows)
        yield "faiss IndexFlatIP", lambda q, flat=flat: flat.search(q, K)[1], rows.nbytes, None, CLOCKS[clock]() - start
        del flat
    for way, name, half in (("exact", "exact", False), ("half", "exact, float16", True)):
        if way not in only:
            continue
        start = CLOCKS[clock]()
        index = Index(rows, "exact", half=half)
        built = CLOCKS[clock]() - start
        yield name, lambda q, index=index: index.search(q, K)[0], index.nbytes, 2 * BLOCK_BYTES, built
    for kind, option, values in (("ivf", "probes", PROBES), ("hnsw", "breadth", BREADTHS)):
        if kind not in only:
            continue
        start = CLOCKS[clock]()
        index = Index(rows, kind, approximation=Approximation())
        built = CLOCKS[clock]() - start
        for value in values:
            call = lambda q, index=index, option=option, value=value: index.search(q, K, **{option: value})[0]  # noqa: E731
            yield f"{kind}, {option} {value}", call, index.nbytes, None, built


def measure(count: int, repeats: int, clock: str, only: list[str]) -> list[dict]:
    """One row a way; the plain product is always there, as what the others are compared with."""
    rows, queries = embeddings(count, 1), embeddings(BATCH, 2)
    best, results = truth(rows, queries), []
    for name, call, memory, working, built in ways(rows, clock, only):
        row = {"rows": count, "way": name, "recall": recall(rows, queries, call(queries), best)}
        row |= {"one_ms": 1e3 * seconds(call, queries[:1], 5 * repeats, clock)}
        row |= {"batch_ms": 1e3 * seconds(call, queries, repeats, clock), "index_MB": memory / 1e6}
        row |= {"beside_MB": None if working is None else working / 1e6, "build_s": built}
        results.append(row)
        peer = results[0]
        row |= {f"{what}_ratio": peer[f"{what}_ms"] / row[f"{what}_ms"] for what in ("one", "batch")}
        print(table([row], COLUMNS).splitlines()[-1], flush=True)
    return results


def goals_of(results: list[dict]) -> list[dict]:
    """Of the largest number of rows: exact beside FAISS's exact index, and what is gained by an approximate one."""
    most = max(row["rows"] for row in results)
    found = {row["way"]: row for row in results if row["rows"] == most}
    beside = None
    if {"exact", "faiss IndexFlatIP"} <= set(found):
        beside = found["faiss IndexFlatIP"]["batch_ms"] / found["exact"]["batch_ms"]
    good = [row["one_ratio"] for way, row in found.items() if way.startswith(("ivf", "hnsw")) and row["recall"] >= 0.95]
    return [
        goal(f"{most:,} rows, 100 queries: time of FAISS's exact index over that of ours", beside, at_least=1.0),
        goal(
            f"{most:,} rows, one query: the plain product over the fastest approximate way with recall@10 of 0.95",
            max(good, default=None),
            at_least=10.0,
        ),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, nargs="+", help="by default 100000, without --quick 1000000 as well")
    arguments.add_argument("--repeats", type=int)
    arguments.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = arguments.parse_args()
    counts = options.rows or ([100_000] if options.quick else [100_000, 1_000_000])
    repeats = options.repeats or (3 if options.quick else 5)
    head = header(
        "search_speed",
        "The nearest of many embeddings are found exactly as fast as by plain means in bounded memory, and by an "
        "approximate index much faster at a known recall.",
        ["faiss-cpu"],
        {"clock": options.clock, "threads": options.threads, "quick": options.quick},
    )
    print(table([], COLUMNS))
    if head["versions"]["faiss-cpu"]:
        import faiss

        faiss.omp_set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        results = [row for count in counts for row in measure(count, repeats, options.clock, options.ways)]
    goals = goals_of(results)
    print("\n" + table(goals))
    write(options.json, head, results, COLUMNS, goals)


if __name__ == "__main__":
    main()
