"""The published numbers: one JSON file of rows, from which the results page is made and against which runs compare.

A row is one number with everything that is needed to read it: its interval, unit, split, retrieval pool, profile,
seeds, the version of the twin and the command that made it. Name and profile identify a row.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import SchemaError, UnreadableFileError

__all__ = ["FIELDS", "PROFILES", "compare", "read_results", "row_faults", "update_results", "write_results"]

FIELDS = (
    "name",
    "value",
    "low",
    "high",
    "unit",
    "split",
    "pool",
    "profile",
    "seeds",
    "twin_version",
    "command",
)
PROFILES = ("smoke", "book", "full")
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")


def row_faults(row: Mapping) -> list[str]:
    """What is wrong with a row, one line each.

    ``name`` is dotted lower case; ``value`` a finite number, or ``None`` if it could not be measured; ``low`` and
    ``high`` its 95 % interval, or both ``None``; ``unit`` text, empty for pure numbers; ``split`` and ``twin_version``
    text or ``None``; ``pool`` a whole number or ``None``; ``profile`` one of `PROFILES`; ``seeds`` a list of whole
    numbers; ``command`` the text that makes the number again.
    """
    faults = [f"lacks {field}" for field in FIELDS if field not in row]
    faults += [f"has an unknown field {field!r}" for field in row if field not in FIELDS]
    if faults:
        return faults
    if not isinstance(row["name"], str) or not _NAME.fullmatch(row["name"]):
        faults.append(f"name {row['name']!r} is not dotted lower case such as 'probe.r2.dwell_time'")
    for field in ("value", "low", "high"):
        if row[field] is not None and not _finite(row[field]):
            faults.append(f"{field} is {row[field]!r}, not a finite number; write None for what is not known")
    if (row["low"] is None) != (row["high"] is None):
        faults.append("has one end of an interval without the other")
    if not faults and row["low"] is not None and not row["low"] <= row["high"]:
        faults.append(f"interval runs from {row['low']:g} to {row['high']:g}")
    for field in ("unit", "command"):
        if not isinstance(row[field], str):
            faults.append(f"{field} is {row[field]!r}, not text")
    for field in ("split", "twin_version"):
        if row[field] is not None and not isinstance(row[field], str):
            faults.append(f"{field} is {row[field]!r}, neither text nor None")
    if row["pool"] is not None and not _whole(row["pool"]):
        faults.append(f"pool is {row['pool']!r}, neither a whole number nor None")
    if row["profile"] not in PROFILES:
        faults.append(f"profile is {row['profile']!r}, not one of {', '.join(PROFILES)}")
    if not isinstance(row["seeds"], list) or not all(_whole(seed) for seed in row["seeds"]):
        faults.append(f"seeds is {row['seeds']!r}, not a list of whole numbers")
    return faults


def read_results(path: str | os.PathLike) -> list[dict]:
    """Rows of a results file; none if the file does not exist yet.

    Raises
    ------
    UnreadableFileError
        The file is not JSON.
    SchemaError
        A row is faulty, or a name and profile occurs twice.
    """
    path = Path(path)
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFileError(
            f"{path}: not a results file ({error}); restore it, or remove it and remake"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SchemaError(f"{path}: expected a list of rows, each an object with {', '.join(FIELDS)}")
    _check(rows, path)
    return rows


def write_results(path: str | os.PathLike, rows: Iterable[Mapping]) -> Path:
    """Replace the file by `rows`, ordered by name and profile; readers see the old file or the new one."""
    path, rows = Path(path), [{field: row[field] for field in FIELDS if field in row} | dict(row) for row in rows]
    _check(rows, path)
    rows.sort(key=lambda row: (row["name"], PROFILES.index(row["profile"])))
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows) + "\n]\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def update_results(path: str | os.PathLike, rows: Iterable[Mapping]) -> list[dict]:
    """Put `rows` into the file, each in place of the row of the same name and profile; returns all rows."""
    rows = list(rows)
    _check(rows, Path(path))
    merged = {_key(row): row for row in read_results(path)} | {_key(row): dict(row) for row in rows}
    write_results(path, merged.values())
    return read_results(path)


def compare(
    old: Iterable[Mapping], new: Iterable[Mapping], tolerances: Mapping[str, float], default: float = 0.0
) -> list[str]:
    """Differences between two sets of rows, one line each; an empty list means that they agree.

    Parameters
    ----------
    old, new : rows
        Every row of `new` must be in `old`; rows that only `old` has were not made again and are passed over.
    tolerances : mapping of str to float
        Largest absolute difference of the value for names that begin with this; of several, the longest counts.
    default : float
        Tolerance of all other names.
    """
    known, lines = {_key(row): row for row in old}, []
    for row in new:
        label, before = f"{row['name']} ({row['profile']})", known.get(_key(row))
        if before is None:
            lines.append(f"{label}: new, {row['value']}")
            continue
        for field in ("unit", "split", "pool", "twin_version"):
            if before[field] != row[field]:
                lines.append(f"{label}: {field} was {before[field]!r}, is {row[field]!r}")
        fitting = [prefix for prefix in tolerances if row["name"].startswith(prefix)]
        tolerance = tolerances[max(fitting, key=len)] if fitting else default
        a, b = before["value"], row["value"]
        if (a is None) != (b is None) or (a is not None and abs(a - b) > tolerance):
            lines.append(f"{label}: was {a}, is {b}, tolerance {tolerance:g}")
    return lines


def _key(row: Mapping) -> tuple[str, str]:
    return row["name"], row["profile"]


def _check(rows: list, path: Path) -> None:
    faults, seen = [], set()
    for i, row in enumerate(rows):
        found = row_faults(row)
        faults += [f"row {i} ({row.get('name', 'no name')}): {fault}" for fault in found]
        if not found and _key(row) in seen:
            faults.append(f"row {i} ({row['name']}): profile {row['profile']} occurs twice")
        if not found:
            seen.add(_key(row))
    if faults:
        raise SchemaError(f"{path}: {len(faults)} fault(s) in the results:\n  " + "\n  ".join(faults))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
