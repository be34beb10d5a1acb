"""The results page's tables, made from book/results.json when the book is built."""

from collections.abc import Iterable, Mapping
from itertools import groupby

PICTURES = ("advise", "blind", "denoise", "real", "style")
"""First parts of the names of what is measured on pictures made or advised: they have a page of their own."""


def results_table(rows: Iterable[Mapping]) -> str:
    """Markdown tables of all rows, one for each first part of the dotted names, under a heading each.

    Parameters
    ----------
    rows : iterable of mapping
        What ``cimp_core.results.read_results`` gives.

    Returns
    -------
    str
        One sentence instead, if there are no rows.
    """
    ordered = sorted(rows, key=lambda row: (row["name"], row["profile"]))
    if not ordered:
        return "No result has been recorded yet.\n"
    text = []
    for group, members in groupby(ordered, key=lambda row: row["name"].split(".")[0]):
        text += [
            f"## {group}",
            "",
            "| name | value | split | pool | profile | seeds | twin | command |",
            "|---" * 8 + "|",
        ]
        text += [_line(row) for row in members]
        text.append("")
    return "\n".join(text) + "\n"


def _line(row: Mapping) -> str:
    cells = [
        f"`{row['name']}`",
        _value(row),
        row["split"] or "",
        "" if row["pool"] is None else row["pool"],
        row["profile"],
        ", ".join(map(str, row["seeds"])),
        row["twin_version"] or "",
        f"`{row['command']}`",
    ]
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _value(row: Mapping) -> str:
    """`0.613 [0.58, 0.65] unit`, to as many digits as the number deserves."""
    if row["value"] is None:
        return "not measured"
    interval = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['value']:.3g}{interval} {row['unit']}".rstrip()
