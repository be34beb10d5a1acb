"""``cimp structures``: libraries of crystals, and which of them a micrograph shows."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CimpError, OutOfRangeError
from .info import parse_settings

if TYPE_CHECKING:
    from ..structures import Library

app = typer.Typer(no_args_is_help=True)


def _settings(image: Path | None, set_: list[str] | None):
    """A micrograph's settings, or those given by hand."""
    override = parse_settings(set_ or [])
    if image is None:
        from ..metadata import Acquisition

        return Acquisition(**override)
    from ..microscope import read

    return read(image, override=override)[0]


@app.command()
def library(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="prototypes, crystals, names of either, CIF files, folders, a formula (SrHfO3) or elements (Sr-Ti-O)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Result (HDF5).")],
    zones: Annotated[int, typer.Option(help="Highest index of a zone axis.")] = 1,
    thickness: Annotated[list[float], typer.Option(help="Thickness [m]; several times for several.")] = [20e-9],  # noqa: B006
    image: Annotated[Path | None, typer.Option(help="Micrograph whose own angles and voltage are used.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting in SI: convergence_angle=21e-3.")
    ] = None,
    voltage: Annotated[float | None, typer.Option(help="Acceleration voltage [V].")] = None,
    outer: Annotated[float | None, typer.Option(help="Outer collection angle [rad].")] = None,
    source_size: Annotated[float | None, typer.Option(help="Diameter (FWHM) of the source's image [m].")] = None,
    workers: Annotated[int, typer.Option(help="Structures made at a time.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler whose workers make them.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite the result.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Simulate crystals along their zone axes; stopped by anything, the same command goes on where it was."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from ..structures import library as make
    from ..structures import save_library

    if out.exists() and not force:
        raise CimpError(f"{out} exists: --force to overwrite it")
    work = out.with_name(f"{out.name}.work")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), disable=json_ or not sys.stderr.isatty()) as bar:
        task = bar.add_task("structures", total=None)
        made = make(
            sources,
            zones=zones,
            acquisition=_settings(image, set_),
            voltage=voltage,
            thickness=thickness,
            outer_collection_angle=outer,
            source_size=source_size,
            folder=work,
            workers=workers,
            scheduler=scheduler,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    save_library(made, out, force=force)
    shutil.rmtree(work, ignore_errors=True)
    _say(made, out, json_)


@app.command()
def show(
    library: Annotated[Path, typer.Argument(help="Library (cimp structures library).")],
    structure: Annotated[str | None, typer.Option(help="Only structures whose name or formula has this in it.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """What a library holds, and what it was made for."""
    from ..structures import open_library

    made = open_library(library)
    if structure is None:
        _say(made, library, json_)
        return
    chosen = [e for e in made if structure in e.structure.name or structure in e.structure.formula]
    if not chosen:
        raise OutOfRangeError(f"{library}: no structure has {structure!r} in its name or formula")
    lines = [entry.describe() for entry in chosen]
    print(json.dumps(lines) if json_ else "\n".join(lines))


@app.command()
def match(
    file: Annotated[Path, typer.Argument(help="Micrograph.")],
    library: Annotated[Path, typer.Option(help="Library (cimp structures library).")],
    k: Annotated[int, typer.Option("-k", help="Candidates of each grain.")] = 5,
    pixel_size_error: Annotated[float, typer.Option(help="Relative error of the pixel size, 0 to 0.1.")] = 0.05,
    region: Annotated[
        str | None, typer.Option(metavar="ROWS,COLUMNS", help="Part to look at, in pixels: 0:512,256:768.")
    ] = None,
    grains: Annotated[int | None, typer.Option(help="Grains to look for at most; 1: all is one grain.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting in SI: pixel_size=12e-12.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Which crystals of a library a micrograph shows, with the probability that it is none of them."""
    from ..structures import match as find
    from ..structures import open_library

    known = open_library(library)
    found = find(
        _settings(file, set_), known, k, _region(region), "auto" if grains is None else grains, pixel_size_error
    )
    if json_:
        lines = found.table.astype(object).where(found.table.notna(), None).to_dict("records")
        print(json.dumps({"file": str(file), "candidates": lines, "notes": found.notes}))
        return
    columns = ["grain", "structure", "space_group", "zone", "angle", "scale_error", "explained", "probability"]
    table = found.table.assign(zone=[_zone(z) for z in found.table.zone])[columns]
    table["space_group"] = ["" if n != n else int(n) for n in table.space_group]
    print(table.to_string(index=False, na_rep="", float_format=lambda v: f"{v:.3f}"))
    print(*found.notes, sep="\n", end="\n" if found.notes else "")


def _zone(zone: object) -> str:
    return f"[{''.join(map(str, zone))}]" if isinstance(zone, tuple) else ""


def _region(text: str | None) -> tuple[slice, slice] | None:
    if text is None:
        return None
    try:
        rows, columns = ([int(n) for n in part.split(":")] for part in text.split(","))
        (top, bottom), (left, right) = rows, columns
    except ValueError:
        raise OutOfRangeError(f"--region {text!r}: rows and columns are needed, such as 0:512,256:768") from None
    return slice(top, bottom), slice(left, right)


def _say(made: Library, path: Path, json_: bool) -> None:
    settings = made.settings
    groups = len({s.space_group for s in made.structures})
    if json_:
        summary = {"library": str(path), "entries": len(made), "structures": len(made.structures)}
        summary |= {"space_groups": groups, "version": made.version, "voltage": settings.voltage}
        for name in ("convergence_angle", "inner_collection_angle", "outer_collection_angle", "source_size"):
            summary[name] = getattr(settings, name)
        summary |= {"thickness": settings.thickness, "assumed": settings.assumed}
        print(json.dumps(summary))
        return
    print(f"{path}: {len(made)} entries, {len(made.structures)} structures, {groups} space groups, {made.version[:12]}")
    print(
        f"{settings.voltage / 1e3:g} kV, probe {settings.convergence_angle * 1e3:g} mrad, detector "
        f"{settings.inner_collection_angle * 1e3:g} to {settings.outer_collection_angle * 1e3:g} mrad, source "
        f"{settings.source_size * 1e12:g} pm, thickness {', '.join(f'{t * 1e9:g}' for t in settings.thickness)} nm"
    )
    for name, text in settings.assumed.items():
        print(f"assumed: {name.replace('_', ' ')} {text}")
