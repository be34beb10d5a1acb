"""Rows for the results file from the dictionaries that the studies make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["print_rows", "retrieval_rows", "row"]


def row(name: str, value: float, low: float, high: float, common: Mapping, pool: int | None = None) -> dict:
    """One row; `common` holds split, profile, seeds, twin_version and command. ``nan`` becomes ``None``."""
    numbers = {"value": value, "low": low, "high": high}
    numbers = {key: None if math.isnan(number) else round(float(number), 6) for key, number in numbers.items()}
    return {"name": name, **numbers, "unit": "", "pool": pool, **common}


def retrieval_rows(name: str, found: Mapping, exclude_same_session: bool, common: Mapping) -> list[dict]:
    """One row for each k of what `cimp_core.metrics.pool_topk` returned; ``{k}`` in `name` becomes ``top1`` ..."""
    ending = ".other_sessions" if exclude_same_session else ""
    return [
        row(name.format(k=key) + ending, score["value"], score["low"], score["high"], common, found["pool"])
        for key, score in found.items()
        if key.startswith("top")
    ]


def print_rows(rows: Sequence[Mapping]) -> None:
    """Name, value and interval of each row; ``nan`` where a number is not known."""
    width = max((len(made["name"]) for made in rows), default=0)
    for made in rows:
        value, low, high = (float("nan") if made[key] is None else made[key] for key in ("value", "low", "high"))
        print(f"{made['name']:{width}s} {value:.3f} [{low:.3f}, {high:.3f}]")
