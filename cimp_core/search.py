"""The nearest of many embeddings by cosine: exact, or approximate through FAISS, behind one interface.

Exact search takes the rows block by block. A product in float32 finds what may be among the k best, within a bound on
its rounding error; the cosines of those few are then computed in float64, and decide. The answer is therefore that of
float64 over all rows, and depends neither on the size of the blocks nor on the library of matrix products; of equal
cosines the lowest row comes first. Memory beyond the rows is bounded. Time measured: ``bench/search_speed.py``.

Approximate search (FAISS [1]_, the extra ``cimp-core[faiss]``) looks at a part of the rows: in the nearest of many
lists ("ivf"), or along a graph of neighbours ("hnsw" [2]_). It may miss some, which is its recall.

.. [1] Douze et al., "The Faiss library", arXiv:2401.08281 (2024).
.. [2] Malkov and Yashunin, IEEE Trans. Pattern Anal. Mach. Intell. 42, 824 (2020).
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .errors import CimpError, OutOfRangeError

__all__ = ["EXACT_UP_TO", "KINDS", "Approximation", "Index", "load_faiss"]

KINDS = ("auto", "exact", "ivf", "hnsw")
EXACT_UP_TO = 1_000_000
"""Rows up to which "auto" searches exactly."""
BLOCK_BYTES = 16 * 2**20  # of scores, and of rows as float32 where they are stored in half
QUERIES = 256  # at once
SAMPLE = 4096  # columns of the first block that tell what is worth rescoring
PAIRS = 2**14  # rows rescored at once in float64
UNIT = 1e-3  # rows whose length is as near to 1 as this are kept as they are; float16 rounds by less
HALF_UNIT = 2.0**-24  # relative rounding error of one float32 operation


@dataclasses.dataclass(frozen=True)
class Approximation:
    """Settings of the approximate kinds; more of `probes` or `breadth` finds more and takes longer."""

    lists: int | None = None  # ivf: parts of the space; None for the square root of the number of rows
    probes: int = 32  # ivf: lists looked through for a query
    links: int = 16  # hnsw: neighbours a row is linked to, twice as many on the lowest level
    breadth_built: int = 80  # hnsw: candidates kept while a row is linked (efConstruction)
    breadth: int = 128  # hnsw: candidates kept while a query is answered (efSearch)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            least = {"seed": 0, "links": 2}.get(name, 1)
            if value is not None and value < least:
                raise OutOfRangeError(f"{name} must be at least {least}, got {value}")


class Index:
    """Rows that can be searched by cosine.

    Parameters
    ----------
    rows : (n, d) array
        Embeddings, float16 or float32 (others are converted to float32). Unit rows of an exact index are not copied,
        so that they may be a memory map; do not change them afterwards. Others are scaled to length 1 in a copy. The
        cosine is that of the rows as they are stored.
    kind : str
        "exact", "ivf", "hnsw", or "auto": exact up to `EXACT_UP_TO` rows, beyond that "ivf" where FAISS is installed.
        `reason` says which was taken and why.
    half : bool
        Store the rows of an exact index as float16: half the memory, cosines off by some 1e-4.
    approximation : Approximation
        Settings of "ivf" and "hnsw".
    about : mapping
        What the rows are (model, data), as plain JSON values; saved with them.
    columns : mapping of (n, ...) arrays
        What belongs to each row (file, settings); saved with them. Numbers or texts, no objects.

    Attributes
    ----------
    kind, reason : str
    store : (n, d) array, or the index of FAISS
    dim : int
    nbytes : int
        Memory of the index [bytes], without `columns`.

    Raises
    ------
    OutOfRangeError
        No rows, not a matrix, or a row that is zero or not finite; an unknown kind.
    CimpError
        FAISS is asked for and absent.

    Notes
    -----
    Equal input gives an equal index, but for "hnsw" built on several threads, where the order of work decides links.
    """

    def __init__(
        self,
        rows: np.ndarray,
        kind: str = "auto",
        *,
        half: bool = False,
        approximation: Approximation | None = None,
        about: Mapping[str, Any] | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise OutOfRangeError(f"no kind of index {kind!r}: one of {', '.join(KINDS)}")
        rows = _matrix(rows, "rows")
        if not len(rows):
            raise OutOfRangeError("no rows to search: give at least one embedding")
        self.kind, self.reason = _choose(kind, len(rows))
        if half and self.kind != "exact":
            raise OutOfRangeError(f"half is for an exact index, not {self.kind!r}")
        self.approximation = approximation or Approximation()
        self.about = dict(about or {})
        self.columns = {name: _column(name, column, len(rows)) for name, column in (columns or {}).items()}
        stray = _stray(rows, "rows")
        if self.kind == "exact":
            if stray > UNIT:
                rows = np.concatenate([_unit(rows[block]) for block in _blocks(len(rows), 16 * rows.shape[1])])
            self._hold(rows.astype(np.float16) if half else rows)
        else:
            self._hold(_build(rows, self.kind, self.approximation))

    @classmethod
    def restored(
        cls, kind: str, store: Any, *, approximation: Approximation, about: Mapping, columns: Mapping[str, np.ndarray]
    ) -> Index:
        """The index whose `store` was saved: see `cimp_core.search_files`."""
        self = object.__new__(cls)
        self.kind, self.reason, self.approximation = kind, "as saved", approximation
        self.about, self.columns = dict(about), dict(columns)
        self._hold(store)
        return self

    def _hold(self, store: Any) -> None:
        self.store = store
        if self.kind == "exact":
            self._count, self.dim = store.shape
            self._stray = _stray(store, "rows")
        else:
            self._count, self.dim = store.ntotal, store.d

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Index {self.kind}: {len(self)} rows of {self.dim}, {self.nbytes / 1e6:.1f} MB>"

    @property
    def nbytes(self) -> int:
        """Memory of the index [bytes]: the rows, and for FAISS its lists or links as well."""
        if self.kind == "exact":
            return self.store.nbytes
        rows = 4 * len(self) * self.dim
        if self.kind == "ivf":  # a number for each row, and the centre of each list
            return rows + 8 * len(self) + 4 * self.store.nlist * self.dim
        graph = self.store.hnsw
        return rows + 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        among: np.ndarray | None = None,
        probes: int | None = None,
        breadth: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `k` rows nearest to each query, best first; of equal cosines the lowest row.

        Parameters
        ----------
        queries : (q, d) or (d,) array
            Of any length but zero.
        k : int
            With fewer than `k` rows (or fewer in `among`), all of them.
        among : (n,) bool array, optional
            Rows that may be answers; for all queries alike.
        probes, breadth : int, optional
            In place of those in `approximation`, for this call.

        Returns
        -------
        indices : (q, k) int array
            Row numbers; -1 where an approximate search found no more.
        cosines : (q, k) float32 array
            ``nan`` where the index is -1.

        Raises
        ------
        OutOfRangeError
            Another dimension than the rows', a query that is zero or not finite, `k` below 1, or a mask that is not
            one bool a row or leaves nothing.
        """
        queries = _matrix(np.atleast_2d(queries), "queries").astype(np.float32, copy=False)
        if queries.shape[1] != self.dim:
            raise OutOfRangeError(f"queries of {queries.shape[1]} numbers, rows of {self.dim}: not of the same model")
        if k < 1:
            raise OutOfRangeError(f"k must be at least 1, got {k}")
        _stray(queries, "queries")
        if among is not None:
            among = np.asarray(among)
            if among.shape != (len(self),) or among.dtype != bool or not among.any():
                raise OutOfRangeError(f"among must be {len(self)} bools, at least one of them true")
        k = min(k, len(self) if among is None else int(among.sum()))
        if self.kind == "exact":
            parts = np.array_split(queries, max(1, -(-len(queries) // QUERIES)))
            found = [_exact(self.store, self._stray, part, k, among) for part in parts]
            return np.concatenate([i for i, _ in found]), np.concatenate([c for _, c in found]).astype(np.float32)
        settings = dataclasses.replace(
            self.approximation,
            probes=self.approximation.probes if probes is None else probes,
            breadth=self.approximation.breadth if breadth is None else breadth,
        )
        return _approximate(self.store, self.kind, _unit(queries), k, among, settings)


def _matrix(values: np.ndarray, name: str) -> np.ndarray:
    """(n, d) of float16 or float32, C-contiguous; no copy where it is so already."""
    values = np.asanyarray(values)
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "fiu":
        raise OutOfRangeError(f"{name} must be an (n, d) array of numbers, got {values.shape} of {values.dtype}")
    return np.ascontiguousarray(values, values.dtype if values.dtype in (np.float16, np.float32) else np.float32)


def _column(name: str, column: np.ndarray, count: int) -> np.ndarray:
    column = np.asarray(column)
    if column.dtype.kind not in "biufU" or column.shape[:1] != (count,):
        raise OutOfRangeError(f"column {name!r} must hold numbers or texts, one entry for each of {count} rows")
    return column


def _blocks(count: int, bytes_each: int) -> Iterator[slice]:
    """Slices of `count` rows that need `bytes_each` of memory a row, in order."""
    size = max(1, BLOCK_BYTES // max(1, bytes_each))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _stray(rows: np.ndarray, name: str) -> float:
    """Largest distance of a row's length from 1; every row is checked.

    Raises
    ------
    OutOfRangeError
        A row is zero or not finite: it has no direction.
    """
    stray, bad = 0.0, []
    for block in _blocks(len(rows), 8 * rows.shape[1]):
        part = rows[block].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", part, part))
        good = np.isfinite(lengths) & (lengths > 0)
        bad += (block.start + np.flatnonzero(~good)).tolist()
        if good.any():
            stray = max(stray, float(np.abs(lengths[good] - 1).max()))
    if bad:
        raise OutOfRangeError(f"{len(bad)} of {len(rows)} {name} are zero or not finite, the first number {bad[0]}")
    return stray


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; the division is in float64, so that no length over- or underflows."""
    wide = rows.astype(np.float64)
    return (wide / np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]).astype(np.float32)


def _choose(kind: str, count: int) -> tuple[str, str]:
    """Kind and the reason for it."""
    if kind != "auto":
        return kind, "asked for"
    if count <= EXACT_UP_TO:
        return "exact", f"{count} rows, and up to {EXACT_UP_TO} are searched exactly"
    if importlib.util.find_spec("faiss") is None:
        missing = "FAISS is not installed (pip install cimp-core[faiss])"
        return "exact", f"{count} rows, more than {EXACT_UP_TO}, but {missing}"
    return "ivf", f"{count} rows, more than {EXACT_UP_TO}"


def _exact(
    rows: np.ndarray, stray: float, queries: np.ndarray, k: int, among: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and float64 cosines (q, k) of the best rows."""
    wide = queries.astype(np.float64)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    unit, margin = wide.astype(np.float32), 1.01 * (rows.shape[1] + 8) * HALF_UNIT + stray
    best = np.full((len(queries), k), -np.inf)
    where = np.full((len(queries), k), len(rows))
    half = rows.dtype != np.float32
    for block in _blocks(len(rows), 4 * len(queries) + (4 * rows.shape[1] if half else 0)):
        part = rows[block].astype(np.float32, copy=False)
        scores = unit @ part.T
        if among is not None:
            scores[:, ~among[block]] = -np.inf
        query, column = _candidates(scores, best[:, -1], k, margin)
        cosines = _rescore(rows, wide, query, block.start + column)
        best, where = _merge(best, where, query, block.start + column, cosines)
    return where, best


def _candidates(scores: np.ndarray, floor: np.ndarray, k: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (query, column) that may be among the k best, given the cosine `floor` of the k-th so far (-inf for none).

    A score is at most `margin` away from the cosine, so that nothing within it may be dropped.
    """
    hit = scores >= np.maximum(floor - margin, -2)[:, None]  # what is masked is -inf
    if np.count_nonzero(hit) > 8 * k * len(scores) and k < scores.shape[1]:
        # So many that some of them say more: k cosines are at least the k-th best score of these, less the margin.
        some = scores[:, :: max(1, scores.shape[1] // max(SAMPLE, 4 * k))]
        kth = np.partition(some, -k, axis=1)[:, -k]
        hit = scores >= np.maximum(np.maximum(floor, kth - margin) - margin, -2)[:, None]
    return np.nonzero(hit)


def _rescore(rows: np.ndarray, queries: np.ndarray, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Cosines of pairs in float64: one order of summation for every pair, so that equal rows have equal cosines."""
    cosines = np.empty(len(query))
    for start in range(0, len(query), PAIRS):
        some = slice(start, start + PAIRS)
        wide = rows[row[some]].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        cosines[some] = np.einsum("ij,ij->i", wide, queries[query[some]]) / lengths
    return cosines


def _merge(
    best: np.ndarray, where: np.ndarray, query: np.ndarray, row: np.ndarray, cosines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of what was found before and of new pairs, in order of cosine and then of row."""
    count, k = best.shape
    owners = np.concatenate([np.repeat(np.arange(count), k), query])
    values, indices = np.concatenate([best.ravel(), cosines]), np.concatenate([where.ravel(), row])
    order = np.lexsort((indices, -values, owners))
    first = np.searchsorted(owners[order], np.arange(count))
    kept = order[first[:, None] + np.arange(k)]
    return values[kept], indices[kept]


def load_faiss() -> Any:
    """The module, loaded when first needed.

    Raises
    ------
    CimpError
        It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise CimpError(
            "approximate search needs FAISS: pip install cimp-core[faiss], or choose the kind exact"
        ) from error
    return faiss


def _build(rows: np.ndarray, kind: str, settings: Approximation) -> Any:
    """A trained and filled FAISS index; rows go in block by block."""
    faiss = load_faiss()
    count, dim = rows.shape
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, settings.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = settings.breadth_built
    else:
        lists = min(settings.lists or round(count**0.5), count)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.spherical = settings.seed, True
        index.cp.min_points_per_centroid = 1  # few rows are a user's choice, and no reason for a warning
        sample = np.random.default_rng(settings.seed).choice(count, min(count, 128 * lists), replace=False)
        index.train(_unit(rows[np.sort(sample)]))
    for block in _blocks(count, 12 * dim):
        index.add(_unit(rows[block]))
    return index


def _approximate(
    index: Any, kind: str, queries: np.ndarray, k: int, among: np.ndarray | None, settings: Approximation
) -> tuple[np.ndarray, np.ndarray]:
    faiss = load_faiss()
    chosen = {}
    if among is not None:
        bits = np.packbits(among, bitorder="little")
        chosen["sel"] = faiss.IDSelectorBitmap(bits)
    if kind == "ivf":
        options = faiss.SearchParametersIVF(nprobe=min(settings.probes, index.nlist), **chosen)
    else:
        options = faiss.SearchParametersHNSW(efSearch=max(settings.breadth, k), **chosen)
    cosines, indices = index.search(queries, k, params=options)
    cosines = np.where(indices < 0, np.nan, cosines).astype(np.float32)
    order = np.lexsort((indices, -cosines), axis=1)  # nan, where nothing was found, stays last
    return np.take_along_axis(indices, order, 1), np.take_along_axis(cosines, order, 1)
