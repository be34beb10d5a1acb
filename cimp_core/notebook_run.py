"""One run of a notebook: executed by papermill in a process of its own, and what it found, as rows.

A notebook hands its results over in one of two ways. If its parameters cell has ``results``, it is given the path of a
JSON file to write: a list of objects, or one object. Otherwise the last table that it shows is taken, a row a number.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

__all__ = ["last_table", "read_rows"]

RESULTS = "results"
"""The parameter that, where a notebook has it, names the file for its results."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file; ValueError where it is no list of objects of numbers and texts."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("not a list of objects")
    return rows


def last_table(notebook: Any) -> list[dict[str, Any]]:
    """Rows ``{"name", "value"}`` of the last table among a notebook's outputs; none where it shows no table.

    The name is the label of the row, and of the column where there are several.
    """
    for cell in reversed(notebook.cells):
        for output in reversed(cell.get("outputs", [])):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if 'class="dataframe"' in html:
                return _rows(html)
    return []


def _rows(html: str) -> list[dict[str, Any]]:
    table = _Table()
    table.feed(html)
    columns, rows = table.columns, []
    for labels, values in table.body:
        for column, value in zip(columns[-len(values) :], values):
            name = ", ".join([*labels, column] if len(values) > 1 else labels) or column
            rows.append({"name": name, "value": _number(value)})
    return rows


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class _Table(HTMLParser):
    """Head and body of a table as pandas writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[str] = []
        self.body: list[tuple[list[str], list[str]]] = []
        self._row: tuple[list[str], list[str]] = [], []
        self._cell: list[str] | None = None
        self._in_body = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tbody":
            self._in_body = True
        elif tag == "tr":
            self._row = [], []
        elif tag in ("th", "td"):
            self._cell = []

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td") and self._cell is not None:
            self._row[tag == "td"].append("".join(self._cell).strip())
            self._cell = None
        elif tag == "tr" and self._in_body:
            self.body.append(self._row)
        elif tag == "tr" and not self.columns:  # a second row of the head names the index
            self.columns = self._row[0]


def _execute(folder: Path) -> dict[str, Any]:
    """Do what ``job.json`` in `folder` says; the record of the run."""
    import papermill

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    target, results = folder / job["name"], folder / "results.json"
    given = dict(job["parameters"]) | ({RESULTS: str(results)} if job["hands_over"] else {})
    try:
        made = papermill.execute_notebook(
            job["notebook"],
            str(target),
            parameters=given,
            kernel_name=job["kernel"],
            cwd=job["cwd"],
            progress_bar=False,
            log_output=True,
            extra_arguments=["--log-level=ERROR"],
        )
        rows = read_rows(results) if job["hands_over"] else last_table(made)
    except papermill.PapermillExecutionError as error:
        return {"state": "failed", "error": f"{error.ename}: {error.evalue}".strip(), "rows": []}
    except FileNotFoundError:
        return {"state": "failed", "error": f"it ended without writing {RESULTS}", "rows": []}
    except ValueError as error:
        return {"state": "failed", "error": f"its {RESULTS} cannot be read: {error}", "rows": []}
    except Exception as error:  # the kernel died or did not start; the other runs go on
        return {"state": "failed", "error": f"{type(error).__name__}: {error}", "rows": []}
    return {"state": "done", "error": None, "rows": rows}


def _end_with_caller() -> None:
    """Wait for the caller to end, however it ends; the kernel ends with this process."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too; its caller decides
    threading.Thread(target=_end_with_caller, daemon=True).start()
    folder = Path(sys.argv[1])
    record = _execute(folder)
    (folder / "record.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
