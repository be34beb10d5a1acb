"""Average precision of rankings in which a query has several right answers of several sorts."""

from __future__ import annotations

import numpy as np

__all__ = ["average_precision", "structure_precisions", "wrong_ahead"]


def wrong_ahead(scores: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """How many wrong entries are ranked before each right one; of equal scores the wrong one comes first.

    Parameters
    ----------
    scores : (n,) array
        Of one query with each entry; larger is nearer.
    right : (p,) int array
        Indices of the right entries.
    wrong : (n,) bool array

    Returns
    -------
    (p,) int array
    """
    ordered = np.sort(scores[wrong])
    return len(ordered) - np.searchsorted(ordered, scores[right], side="left")


def average_precision(ahead: np.ndarray) -> float:
    """Mean over the right entries of the precision at their ranks, from the wrong ones `ahead` (p,) of each.

    Entries that are neither right nor wrong take no rank. ``nan`` if nothing is right.
    """
    ahead = np.sort(np.asarray(ahead))
    found = np.arange(1, len(ahead) + 1)
    return float(np.mean(found / (found + ahead))) if len(ahead) else float("nan")


def structure_precisions(
    scores: np.ndarray, query: np.ndarray, structure: np.ndarray, view: np.ndarray, prototype: np.ndarray
) -> dict[str, np.ndarray]:
    """Average precision of each of q queries, which are among the n entries and are no answer to themselves.

    Parameters
    ----------
    scores : (q, n) array
    query : (q,) int array
        Entry that each row is of.
    structure, view, prototype : (n,) int arrays
        Of each entry; a view, one of a structure's zone axes, is known by a number that no other structure's has.

    Returns
    -------
    dict of (q,) arrays
        ``all``: every other image of the structure is right. ``same_view``: those of the same view are, ``other_view``:
        those of other views are; the others of the structure then take no rank. ``other_prototypes``: as ``all``, but
        other structures of the query's prototype take no rank.
    """
    found = {name: np.full(len(query), np.nan) for name in ("all", "same_view", "other_view", "other_prototypes")}
    for i, q in enumerate(query):
        mine = structure == structure[q]
        right = np.flatnonzero(mine)
        right = right[right != q]
        ahead = wrong_ahead(scores[i], right, ~mine)
        same = view[right] == view[q]
        alike = wrong_ahead(scores[i], right, ~mine & (prototype == prototype[q]))
        found["all"][i] = average_precision(ahead)
        found["same_view"][i] = average_precision(ahead[same])
        found["other_view"][i] = average_precision(ahead[~same])
        found["other_prototypes"][i] = average_precision(ahead - alike)
    return found
