"""The nearest of many embeddings by cosine: exact, or approximate through FAISS, behind one interface.

Exact search (`cimp_core.search_exact`) gives what float64 over all rows gives, in bounded memory; approximate search
(`cimp_core.search_faiss`) looks at a part of the rows and may miss some, which is its recall. Time measured:
``bench/search_speed.py``.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import OutOfRangeError
from .search_exact import blocks, exact, stray_of, unit_rows
from .search_faiss import approximate, build, load_faiss

__all__ = ["EXACT_UP_TO", "KINDS", "Approximation", "Index", "load_faiss"]

KINDS = ("auto", "exact", "ivf", "hnsw")
EXACT_UP_TO = 1_000_000
"""Rows up to which "auto" searches exactly."""
QUERIES = 256  # at once
UNIT = 1e-3  # rows whose length is as near to 1 as this are kept as they are; float16 rounds by less


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
        stray = stray_of(rows, "rows")
        if self.kind == "exact":
            if stray > UNIT:
                rows = np.concatenate([unit_rows(rows[block]) for block in blocks(len(rows), 16 * rows.shape[1])])
            self._hold(rows.astype(np.float16) if half else rows)
        else:
            self._hold(build(rows, self.kind, self.approximation))

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
            self._stray = stray_of(store, "rows")
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
        stray_of(queries, "queries")
        if among is not None:
            among = np.asarray(among)
            if among.shape != (len(self),) or among.dtype != bool or not among.any():
                raise OutOfRangeError(f"among must be {len(self)} bools, at least one of them true")
        k = min(k, len(self) if among is None else int(among.sum()))
        if self.kind == "exact":
            parts = np.array_split(queries, max(1, -(-len(queries) // QUERIES)))
            found = [exact(self.store, self._stray, part, k, among) for part in parts]
            return np.concatenate([i for i, _ in found]), np.concatenate([c for _, c in found]).astype(np.float32)
        settings = dataclasses.replace(
            self.approximation,
            probes=self.approximation.probes if probes is None else probes,
            breadth=self.approximation.breadth if breadth is None else breadth,
        )
        return approximate(self.store, self.kind, unit_rows(queries), k, among, settings)


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
