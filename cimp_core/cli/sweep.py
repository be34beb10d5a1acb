"""``cimp sweep``: a notebook run with every combination of parameters."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import OutOfRangeError

if TYPE_CHECKING:
    from ..notebook_sweep import Run


class Pairs(TyperCommand):
    """Takes ``-p NAME VALUES``, as papermill does, as ``-p NAME=VALUES``: typer has no lists of pairs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the pairs, then go on as always."""
        joined, rest = [], iter(args)
        for word in rest:
            joined.append(word)
            if word == "-p" and (name := next(rest, None)) is not None:
                value = None if "=" in name else next(rest, None)
                joined.append(name if value is None else f"{name}={value}")
        return super().parse_args(ctx, joined)


def sweep(
    notebook: Annotated[Path, typer.Argument(help="Notebook with a cell tagged 'parameters', .ipynb.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and for table.csv, table.json.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME VALUES", help="Such as: -p lr 1e-3,3e-4 -p seed 0..4"),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Runs at a time; one for two processors by default.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler whose workers share this file system.")
    ] = None,
    retries: Annotated[int, typer.Option(help="How often a run that fails is tried again.")] = 0,
    timeout: Annotated[float | None, typer.Option(help="Longest time for one run, in s.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run copies of a notebook and collect what they found; stopped by anything, the same command goes on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..notebook_sweep import run_sweep

    given = []
    for text in parameters or []:
        name, equals, values = text.partition("=")
        if not equals:
            raise OutOfRangeError(f"-p {text}: its values are missing; write -p {text} 1,2,3")
        given.append((name, values))
    columns = TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=json_ or not sys.stderr.isatty()) as bar:
            task = bar.add_task("", total=None)
            runs = run_sweep(
                notebook,
                given,
                out,
                workers=workers,
                scheduler=scheduler,
                retries=retries,
                timeout=timeout,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt as error:
        print(f"cimp: {error or 'stopped'}", file=sys.stderr)
        raise typer.Exit(130) from None
    (_print_json if json_ else _print)(out, runs)
    if any(run.state != "done" for run in runs):
        raise typer.Exit(1)


def _print_json(out: Path, runs: list[Run]) -> None:
    counts = {state: sum(run.state == state for run in runs) for state in ("done", "failed")}
    listed = [vars(run) | {"rows": len(run.rows)} for run in runs]
    print(json.dumps({"out": str(out), **counts, "table": str(out / "table.csv"), "runs": listed}, ensure_ascii=False))


def _print(out: Path, runs: list[Run]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in (*runs[0].parameters, "", "seconds", "results"):
        table.add_column(escape(column), overflow="fold")
    for run in runs:
        seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
        what = run.error or f"{len(run.rows)} rows"
        table.add_row(*(escape(str(v)) for v in run.parameters.values()), run.state, seconds, escape(what))
    Console(highlight=False).print(table)
    done = sum(run.state == "done" for run in runs)
    print(f"{done} of {len(runs)} runs done; {out / 'table.csv'}")
