"""Approximate search through FAISS [1]_, the extra ``cimp-core[faiss]``.

It looks at a part of the rows: in the nearest of many lists ("ivf"), or along a graph of neighbours ("hnsw" [2]_).

.. [1] Douze et al., "The Faiss library", arXiv:2401.08281 (2024).
.. [2] Malkov and Yashunin, IEEE Trans. Pattern Anal. Mach. Intell. 42, 824 (2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import CimpError
from .search_exact import blocks, unit_rows

if TYPE_CHECKING:
    from .search import Approximation

__all__ = ["approximate", "build", "load_faiss"]


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


def build(rows: np.ndarray, kind: str, settings: Approximation) -> Any:
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
        index.train(unit_rows(rows[np.sort(sample)]))
    for block in blocks(count, 12 * dim):
        index.add(unit_rows(rows[block]))
    return index


def approximate(
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
