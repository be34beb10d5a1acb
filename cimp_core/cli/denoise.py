"""``cimp denoise``: the images of files as they are expected at a higher dose."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CimpError, OutOfRangeError
from .info import parse_settings

if TYPE_CHECKING:
    from ..denoising.many import Outcome
    from ..inputs import Source


class Format(StrEnum):
    """How images are written."""

    HSPY = "hspy"
    TIF = "tif"


class Settings(StrEnum):
    """What is done with the settings that files hold."""

    CHECK = "check"
    TRUST = "trust"
    IGNORE = "ignore"


def denoise(
    files: Annotated[list[str], typer.Argument(help="Files, folders or patterns such as 'drive/**/*.emd'.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    dose_factor: Annotated[float, typer.Option(help="Dwell time x current that is asked for, over the recorded.")] = 16,
    format_: Annotated[
        Format, typer.Option("--format", help="HyperSpy's, or TIFF with scale for ImageJ.")
    ] = Format.HSPY,
    method: Annotated[
        str, typer.Option(help="auto, direct, style, noise2void, gaussian, tv, nlm, wavelet or wiener.")
    ] = "auto",
    settings: Annotated[Settings, typer.Option(help="Compare the recorded settings with the picture, or not.")] = (
        Settings.CHECK
    ),
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A value in SI that the files lack, e.g. beam_current=50e-12."
        ),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Read the images of this detector, not of HAADF.")] = None,
    float_: Annotated[bool, typer.Option("--float", help="Write float32 also where counts are whole numbers.")] = False,
    anyway: Annotated[
        bool, typer.Option(help="Denoise what is refused: another detector, an image already denoised.")
    ] = (False),
    seed: Annotated[int, typer.Option(help="For methods that draw random numbers.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(help="Longest time to read one file [s]; by default 30 s + 1 s for every 5 MB.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Files at a time; one by default, on all processors.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler whose workers share this file system.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Overwrite, and do again what is done.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Denoise every HAADF-STEM image of many files; a file that fails is named, stopped runs go on where they were."""
    from ..denoising.checks import check_factor
    from ..denoising.many import Outcome, denoise_files
    from ..denoising.methods import resolve
    from ..inputs import NO_MICROSCOPE_FILE, READ_WITH_EMI

    override = parse_settings(set_ or [])
    if out.exists() and not out.is_dir():
        raise OutOfRangeError(f"{out}: the results are several files; name a folder")
    check_factor(dose_factor)
    resolve(method, seed)  # an unknown name is refused here, not once a file
    options = {"factor": dose_factor, "method": method, "settings": settings.value, "seed": seed, "anyway": anyway}
    options |= {"keep_dtype": not float_, "format": format_.value, "override": override, "detector": detector}
    work = out.absolute().with_name(f"{out.absolute().name}.work")
    sources, refused, failed = _inputs(files, [out, work])
    outcomes = [Outcome(name, "failed", [], [], reason) for name, reason in failed.items()]
    for name, why in refused.items():
        if name in files:  # asked for by name
            outcomes.append(Outcome(name, "failed", [], [], why))
        elif why not in (NO_MICROSCOPE_FILE, READ_WITH_EMI):
            outcomes.append(Outcome(name, "left out", [], [], why))
    try:
        with _bar(len(sources), show=not json_ and sys.stderr.isatty()) as advance:
            outcomes += denoise_files(
                sources,
                out,
                work,
                options,
                force=force,
                timeout=timeout,
                workers=workers,
                scheduler=scheduler,
                progress=lambda done, _: advance(done),
            )
    except KeyboardInterrupt:
        print("cimp: stopped; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None
    (_print_json if json_ else _print)(out, outcomes)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _inputs(patterns: list[str], own: list[Path]) -> tuple[list[Source], dict[str, str], dict[str, str]]:
    """Files to read, files that are none with the reason, and patterns that name nothing."""
    from ..inputs import list_inputs

    found, refused, failed = {}, {}, {}
    for pattern in patterns:
        try:
            listed = list_inputs(pattern, own=own)
        except CimpError as error:
            failed[pattern] = str(error).removeprefix(f"{pattern}: ")
            continue
        found |= {source.path: source for source in listed.sources}
        alone = len(listed.refused) == 1 and not listed.sources and os.path.isfile(pattern)
        refused |= {pattern if alone else name: why for name, why in listed.refused.items()}
    return list(found.values()), refused, failed


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[float], object]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("denoising"),
        BarColumn(),
        TextColumn("{task.completed:.1f}/{task.total:.0f} files"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _print_json(out: Path, outcomes: list[Outcome]) -> None:
    counts = {s: sum(o.status == s for o in outcomes) for s in ("denoised", "kept", "left out", "failed")}
    counts = {name.replace(" ", "_"): n for name, n in counts.items()}
    print(json.dumps({"out": str(out), **counts, "files": [o._asdict() for o in outcomes]}, ensure_ascii=False))


def _print(out: Path, outcomes: list[Outcome]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("file", "", "written, or why not"):
        table.add_column(column, overflow="fold")
    for o in outcomes:
        what = ", ".join(Path(name).relative_to(out).as_posix() for name in o.outputs) or o.reason
        table.add_row(escape(os.path.basename(o.file)), o.status, escape(what))
        for text in o.warnings:
            table.add_row("", "", escape(f"warning: {text.removeprefix(f'{o.file}: ')}"))
    Console(highlight=False).print(table)
    done, there = (sum(o.status == s for o in outcomes) for s in ("denoised", "kept"))
    print(f"{out}: {done} files denoised" + (f", {there} were there already" if there else ""))
