"""``cimp embed``: embeddings of the images in files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CimpError, OutOfRangeError

if TYPE_CHECKING:
    from ..inputs import Source


def embed(
    files: Annotated[list[str], typer.Argument(help="Files, folders or patterns such as 'drive/**/*.emd'.")],
    out: Annotated[Path, typer.Option(help="Result: .npz or .csv.")],
    weights: Annotated[str, typer.Option(help="Shipped name or file.")] = "cimp-twin-s",
    crops: Annotated[int, typer.Option(help="Crops averaged an image: 1, 4, 16; 0 for the whole image at once.")] = 4,
    workers: Annotated[int | None, typer.Option(help="Files read at a time; one a processor by default.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler whose workers share this file system.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Longest time for one file, in s; by default 30 s + 1 s for every 5 MB.")
    ] = None,
    memory: Annotated[float, typer.Option(help="Largest memory of one reader [GiB]; 0 for no limit.")] = 4.0,
    force: Annotated[bool, typer.Option(help="Overwrite the result.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Embed every HAADF-STEM image of the files, and its settings; stopped by anything, the same command goes on."""
    if out.suffix not in (".npz", ".csv"):
        raise OutOfRangeError(f"{out}: the result is written as .npz or .csv")
    if out.exists() and not force:
        raise CimpError(f"{out} exists: --force to overwrite it")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..embedding import embed_files
    from ..weights import load

    model = load(weights)
    work = out.absolute().with_name(f"{out.name}.work")
    sources, given, failed = _inputs(files, [out, work])
    columns = TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=json_ or not sys.stderr.isatty()) as bar:
            task = bar.add_task("", total=None)
            done = embed_files(
                sources,
                work,
                weights=weights,
                crops=crops or None,
                timeout=timeout,
                memory=int(memory * 2**30) or None,
                workers=workers,
                scheduler=scheduler,
                progress=lambda n, total: bar.update(task, completed=n, total=total),
            )
    except KeyboardInterrupt as error:
        print(f"cimp: {error or 'stopped'}", file=sys.stderr)
        raise typer.Exit(130) from None
    failed |= {given[path]: f"{given[path]}: {why}" for path, why in done.failed.items()}
    names = [given[path] + (f"#{i}" if n > 1 else "") for path, i, n in done.sources]
    if not names:
        shutil.rmtree(work, ignore_errors=True)
        raise CimpError("no image could be embedded:\n" + "\n".join(failed.values()))
    _write(out, names, done.images, model.embed_metadata(done.settings), done.settings)
    shutil.rmtree(work, ignore_errors=True)  # its results are in `out`
    masked = [name for name, known in zip(names, done.absolute, strict=True) if not known]
    if json_:
        summary = {"out": str(out), "images": len(names), "without_absolute_intensity": masked, "failed": failed}
        json.dump(summary, sys.stdout)
        print()
    else:
        print(f"{out}: {len(names)} images, {done.images.shape[1]} numbers each")
        if masked:
            print(f"{len(masked)} embedded without absolute intensity (not Velox 16 bit): {', '.join(masked)}")
        for reason in failed.values():
            print(f"left out: {reason}")
    if failed:
        raise typer.Exit(1)


def _inputs(patterns: list[str], own: list[Path]) -> tuple[list[Source], dict[str, str], dict[str, str]]:
    """Files to read, the name of each in the result, and why others are none: a file that is named stays so."""
    from ..inputs import list_inputs

    found: dict[str, Source] = {}
    given, failed = {}, {}
    for pattern in patterns:
        try:
            listed = list_inputs(pattern, own=own)
        except CimpError as error:
            failed[pattern] = str(error)
            continue
        alone = os.path.isfile(pattern)
        for source in listed.sources:
            found.setdefault(source.path, source)
            given.setdefault(source.path, pattern if alone else source.path)
        if alone and listed.refused:
            failed[pattern] = f"{pattern}: {', '.join(listed.refused.values())}"
    return list(found.values()), given, failed


def _write(out: Path, names: list[str], images, metadata, raw) -> None:
    import numpy as np
    import pandas as pd

    from ..metadata import PARAMETERS

    temporary = out.with_name(f".{out.name}.{os.getpid()}{out.suffix}")
    if out.suffix == ".npz":
        np.savez(
            temporary, files=np.array(names), image=images, metadata=metadata, raw=raw, parameters=np.array(PARAMETERS)
        )
    else:
        table = pd.DataFrame(raw, columns=list(PARAMETERS))
        table.insert(0, "file", names)
        embedding = pd.DataFrame(images, columns=[f"image_{i}" for i in range(images.shape[1])])
        pd.concat([table, embedding], axis=1).to_csv(temporary, index=False)
    os.replace(temporary, out)
