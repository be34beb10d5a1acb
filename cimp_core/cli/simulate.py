"""``cimp simulate``: a twin of the CIMP data set."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def simulate(
    out: Annotated[Path, typer.Argument(help="Data set to write, .h5.")],
    images: Annotated[int, typer.Option(help="Number of images.")] = 7330,
    size: Annotated[int, typer.Option(help="Side of an image [px].")] = 256,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; one a processor by default.")] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Simulate HAADF-STEM images in sessions, with the truth behind each, in the published HDF5 schema."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..dataset import open_dataset
    from ..digital_twin import make_twin

    start = time.perf_counter()
    columns = TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=json_ or not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=images)
        make_twin(
            out, images, size, seed, workers or os.cpu_count(), force, progress=lambda count: bar.advance(task, count)
        )
    seconds = time.perf_counter() - start
    data = open_dataset(out)
    summary = {
        "out": str(out),
        "images": len(data),
        "sessions": len(set(data.sessions.tolist())),
        "materials": len(set(data.materials)),
        "distinct_settings": len(set(data.groups.tolist())),
        "megabytes": round(out.stat().st_size / 1e6, 1),
        "seconds": round(seconds, 1),
        "twin_version": data.attributes["twin_version"],
    }
    if json_:
        print(json.dumps(summary))
        return
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)
