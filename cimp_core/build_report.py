"""What became of every file of a build: a table, as CSV and as one HTML page that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .inputs import NO_MICROSCOPE_FILE
from .metadata import PARAMETERS, UNITS

if TYPE_CHECKING:
    from .build import Image

__all__ = ["BuildReport", "make_table", "write_reports"]

MOST_LINES = 5000  # of the page's table of files; a browser is slow with more
_SCALES = {"m": (1e12, "pm"), "s": (1e6, "µs"), "rad": (1e3, "mrad"), "A": (1e12, "pA"), "": (1.0, "")}
_PRIVATE = "This report tells which file is behind each anonymised name. Keep it private; give away the data set alone."


@dataclass(frozen=True)
class BuildReport:
    """Outcome of `build_dataset`.

    Attributes
    ----------
    table : DataFrame
        A line an image, or a file without one: ``file``, ``image`` (its number in the file), ``status`` ("taken",
        "left out" or "duplicate"), ``reason``, ``row`` (first of its rows in the data set), ``rows`` (how many),
        ``name`` (in the data set), the seven parameters in SI, ``missing`` (why which are), ``intensity``, ``notes``.
    path, csv, html : Path
        The data set and the two forms of the report.
    """

    table: pd.DataFrame
    path: Path
    csv: Path
    html: Path

    def __repr__(self) -> str:
        counts = self.table["status"].value_counts()
        said = ", ".join(f"{counts.get(status, 0)} {words}" for status, words in _STATUS.items())
        return f"<BuildReport {self.path}: {self.table['rows'].sum()} rows of {said}; reasons in {self.html}>"


_STATUS = {"taken": "images taken", "duplicate": "duplicates", "left out": "left out"}


def make_table(images: Sequence[Image]) -> pd.DataFrame:
    """The table of `BuildReport`."""
    lines = []
    for image in images:
        record = image.record or {"values": [None] * len(PARAMETERS), "missing": {}, "intensity": "", "notes": []}
        line = {"file": image.file, "image": image.number, "status": image.status, "reason": image.reason}
        line |= {"row": image.row, "rows": record["shape"][0] if image.row is not None else 0, "name": image.name}
        line |= dict(zip(PARAMETERS, record["values"], strict=True))
        line["missing"] = "; ".join(f"{name}: {reason}" for name, reason in record["missing"].items())
        lines.append(line | {"intensity": record["intensity"], "notes": "; ".join(record["notes"])})
    kinds = dict.fromkeys(PARAMETERS, float) | {"image": "Int64", "row": "Int64"}
    return pd.DataFrame(lines).astype(kinds)


def write_reports(table: pd.DataFrame, paths: Mapping[str, Path], name: str, about: Mapping[str, Any]) -> None:
    """Write the report at ``paths["csv"]`` and ``paths["html"]``.

    Parameters
    ----------
    table : DataFrame
        See `BuildReport`.
    paths : mapping
        Where to write.
    name : str
        The data set's.
    about : mapping
        The build's settings; where "anonymised" is true the page asks to be kept private.
    """
    table.to_csv(paths["csv"], index=False, lineterminator="\n", encoding="utf-8")
    paths["html"].write_text(_page(table, name, about), encoding="utf-8", newline="\n")


def _page(table: pd.DataFrame, name: str, about: Mapping[str, Any]) -> str:
    taken = table[table["status"] == "taken"]
    counts = table["status"].value_counts()
    summary = [("rows in the data set", int(taken["rows"].sum()))]
    summary += [(words, int(counts.get(status, 0))) for status, words in _STATUS.items()]
    summary += [("of these no microscope files", int((table["reason"] == NO_MICROSCOPE_FILE).sum()))]
    summary += [("sessions", taken["file"].map(os.path.dirname).nunique())]
    summary += [(key.replace("_", " "), value) for key, value in about.items()]
    others = table[table["status"] != "taken"]
    # One line for all duplicates, else a reason a file would be a line each.
    why = others["reason"].where(others["status"] != "duplicate", "pixel for pixel another image")
    # What a file holds instead stands in the table of files.
    why = why.map(lambda reason: reason.partition(". It holds ")[0])
    reasons = [
        (reason, int(count)) for reason, count in sorted(why.value_counts().items(), key=lambda x: (-x[1], x[0]))
    ]
    columns = ["file", "image", "status", "reason", "row", "name", *PARAMETERS, "missing", "notes"]
    heads = [_with_unit(c) if c in UNITS else c for c in columns]
    first = pd.concat([others, taken]).head(MOST_LINES)
    lines = [[_cell(c, v) for c, v in zip(columns, row, strict=True)] for row in first[columns].itertuples(index=False)]
    rest = f" The first {len(lines)} of {len(table)}; the CSV beside has all." if len(lines) < len(table) else ""
    body = [
        f"<h1>Build report of {escape(name)}</h1>",
        f'<p role="note"><strong>{_PRIVATE}</strong></p>' if about.get("anonymised") else "",
        _table("Summary", ("what", "value"), summary),
        _table("Why images and files are not in the data set", ("reason", "how many"), reasons),
        _table("Settings of the images taken", ("setting", *_RANGE), [_range(taken, n) for n in PARAMETERS]),
        _table(f"Files, those left out first.{rest}", heads, lines),
    ]
    return _HEAD.format(title=escape(f"Build report of {name}")) + "\n".join(filter(None, body)) + "\n</main></html>\n"


_RANGE = ("known", "missing", "least", "first quarter", "median", "third quarter", "most", "distribution")


def _range(taken: pd.DataFrame, name: str) -> list[object]:
    """A line on one parameter: how often known, its quartiles, and a histogram in eight blocks."""
    known = taken[name].dropna().to_numpy(float)
    head = [_with_unit(name), len(known), len(taken) - len(known)]
    if not len(known):
        return [*head, *["-"] * 6]
    quartiles = [_cell(name, q) for q in np.quantile(known, (0, 0.25, 0.5, 0.75, 1))]
    heights = np.histogram(np.log(known) if known.min() > 0 else known, bins=16)[0]
    bars = "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(8 * h / heights.max()))] for h in heights)
    return [*head, *quartiles, f"|{bars}|" + (" (log)" if known.min() > 0 else "")]


def _with_unit(name: str) -> str:
    unit = _SCALES[UNITS[name]][1]
    return name.replace("_", " ") + (f" [{unit}]" if unit else "")


def _cell(column: str, value: Any) -> str:
    if value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value * _SCALES[UNITS[column]][0]:.4g}" if column in UNITS else str(value)


def _table(caption: str, heads: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table with a caption and headers; nothing where there are no lines."""
    if not lines:
        return ""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    rows = [
        f'<tr><th scope="row">{escape(str(first))}</th>' + "".join(f"<td>{escape(str(c))}</td>" for c in rest) + "</tr>"
        for first, *rest in lines
    ]
    inner = f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>\n" + "\n".join(rows)
    # A wide table scrolls by itself; with the keyboard too.
    return f'<div role="region" tabindex="0" aria-label="{escape(caption)}"><table>{inner}\n</tbody></table></div>'


_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem; color: CanvasText; background: Canvas; }}
div {{ overflow-x: auto; margin: 1.5rem 0; }}
table {{ border-collapse: collapse; font-size: 0.9rem; }}
caption {{ text-align: left; font-weight: bold; padding: 0.3rem 0; }}
th, td {{ border: 1px solid GrayText; padding: 0.2rem 0.6rem; text-align: left; vertical-align: top; }}
th[scope=row] {{ font-weight: normal; }}
</style></head>
<body><main>
"""
