"""``cimp audit``: do the settings that files record agree with their pictures?"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .info import parse_settings

if TYPE_CHECKING:
    from ..auditing import AuditReport


def audit(
    files: Annotated[list[str], typer.Argument(help="Files, folders, patterns such as 'drive/**/*', or a data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the report: index.html, audit.csv, audit.json.")],
    calibrate: Annotated[
        Path | None, typer.Option(help="Data set of your own microscope (cimp dataset build) to calibrate on.")
    ] = None,
    level: Annotated[float, typer.Option(help="False alarms asked for, an image.")] = 0.01,
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
    force: Annotated[bool, typer.Option(help="Replace an existing report.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Compare recorded settings with the pictures; stopped by anything, the same command goes on where it was."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..auditing import audit as apply
    from ..auditing.lab import calibrate as calibrate_on
    from ..auditing.report import check_folder

    override = parse_settings(set_ or [])
    check_folder(out, force)
    work = out.with_name(f"{out.name}.work")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=json_ or not sys.stderr.isatty()) as bar:
            own = None
            if calibrate is not None:
                first = bar.add_task("calibrating", total=None)
                own = calibrate_on(calibrate, progress=lambda done, n: bar.update(first, completed=done, total=n))
            task = bar.add_task("measuring", total=None)
            report = apply(
                files,
                calibrate=own,
                level=level,
                override=override,
                detector=detector,
                work=work,
                own=[out],
                workers=workers,
                scheduler=scheduler,
                timeout=timeout,
                memory=int(memory * 2**30) or None,
                progress=lambda done, n: bar.update(task, completed=done, total=n),
            )
    except KeyboardInterrupt as error:
        print(f"cimp: {error or 'stopped'}", file=sys.stderr)
        raise typer.Exit(130) from None
    page = report.write(out, force=force)
    shutil.rmtree(work, ignore_errors=True)  # its results are in the report
    if json_:
        print(json.dumps({"out": str(out), **report.to_json()}, ensure_ascii=False))
    else:
        _print(report, page)


def _print(report: AuditReport, page: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("image", "verdict", "p", "why"):
        table.add_column(column, overflow="fold")
    objecting = [image for image in report if image.verdict == "disagrees"]
    for image in objecting[:20]:
        p = "" if image.p is None else f"{image.p:.2g}"
        table.add_row(escape(image.label), image.verdict, p, escape("; ".join(image.reasons)))
    if objecting:
        Console(highlight=False).print(table)
    if len(objecting) > 20:
        print(f"and {len(objecting) - 20} more")
    for text in report.about["warnings"]:
        print(f"warning: {text}")
    said = ", ".join(f"{n} {verdict}" for verdict, n in report.counts.items())
    print(f"{len(report)} images: {said}; {len(report.failed)} files gave none; {page}")
