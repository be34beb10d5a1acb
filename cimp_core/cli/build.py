"""``cimp dataset build``: from a folder of microscope files to a data set."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .info import parse_settings


class Series(StrEnum):
    """What becomes of a series of frames."""

    frames = "frames"
    mean = "mean"
    first = "first"


def build(
    patterns: Annotated[list[str], typer.Argument(help="Files, folders, or patterns in quotes such as 'drive/**/*'.")],
    out: Annotated[Path, typer.Option(help="Data set to write, .h5; its reports come beside it.")],
    series: Annotated[Series, typer.Option(help="Of a series: a row a frame, their mean, or the first.")] = "frames",
    min_dose: Annotated[float, typer.Option(help="Leave out images with fewer electrons per pixel.")] = 0.0,
    anonymise: Annotated[bool, typer.Option(help="Write no names; only the report then tells which is which.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A value in SI for every file, e.g. beam_current=50e-12."),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Take the images of this detector, not of HAADF.")] = None,
    workers: Annotated[int | None, typer.Option(help="Files read at a time; one a processor by default.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler whose workers share this file system.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Longest time for one file [s]; by default 30 s + 1 s for every 5 MB.")
    ] = None,
    memory: Annotated[float, typer.Option(help="Largest memory of one reader [GiB]; 0 for no limit.")] = 4.0,
    force: Annotated[bool, typer.Option(help="Replace an existing data set and its reports.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make a data set of all HAADF-STEM images among many files; stopped by anything, the same command goes on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..build import build_dataset

    override = parse_settings(set_ or [])
    columns = TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=json_ or not sys.stderr.isatty()) as bar:
            task = bar.add_task("", total=None)
            report = build_dataset(
                patterns,
                out,
                series=Series(series).value,
                min_dose=min_dose,
                anonymise=anonymise,
                override=override,
                detector=detector,
                scheduler=scheduler,
                workers=workers,
                timeout=timeout,
                memory=int(memory * 2**30) or None,
                force=force,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt as error:
        print(f"cimp: {error or 'stopped'}", file=sys.stderr)
        raise typer.Exit(130) from None
    table = report.table
    counts = {status: int((table["status"] == status).sum()) for status in ("taken", "duplicate", "left out")}
    if json_:
        named = {
            "out": str(out),
            "rows": int(table["rows"].sum()),
            **{k.replace(" ", "_"): n for k, n in counts.items()},
        }
        print(json.dumps({**named, "csv": str(report.csv), "html": str(report.html)}))
        return
    print(f"{out}: {table['rows'].sum()} rows of {counts['taken']} images")
    print(f"not in it: {counts['duplicate']} duplicates, {counts['left out']} left out; why: {report.html}")
    if anonymise:
        print(f"{report.csv.name} and {report.html.name} hold the key to the names: keep both private")
