"""``cimp dataset fetch``: a data set from a server to the disk, whole and checked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def fetch(
    url: Annotated[str, typer.Argument(help="hf://buckets/ORG/NAME/FILE.h5 or https://...")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    sha256: Annotated[str | None, typer.Option(help="Checksum that the file must have.")] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Fetch a file; run it again after an interruption and it goes on where it stopped. Prints the checksum."""
    import hashlib

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from ..remote import KNOWN_SHA256, download

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=json_ or not sys.stderr.isatty()) as bar:
        task = bar.add_task("fetching", total=None)
        download(
            url,
            out,
            sha256,
            force=force,
            progress=lambda done, size: bar.update(task, completed=done, total=size),
        )
    with open(out, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    summary = {"url": url, "out": str(out), "bytes": out.stat().st_size, "sha256": digest}
    known = sha256 or url in KNOWN_SHA256
    summary["compared"] = "with the checksum expected" if known else "with nothing: no checksum is known"
    print(json.dumps(summary) if json_ else "\n".join(f"{name}: {value}" for name, value in summary.items()))
