"""``cimp info``: what files say about how their HAADF-STEM images were taken."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CimpError, OutOfRangeError
from ..metadata import PARAMETERS, UNITS
from ..microscope.record import Evidence, accept

if TYPE_CHECKING:
    from ..microscope import Micrograph

__all__ = ["human", "info", "parse_settings"]


def info(
    files: Annotated[list[Path], typer.Argument(help=".emd .dm3 .dm4 .emi .ser .mrc .ndata .h5 .tif .hspy .zip")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A value in SI that the files lack, e.g. beam_current=50e-12."
        ),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Read the images of this detector, not of HAADF.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, values in SI.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest time for one file [s].")] = 10.0,
) -> None:
    """Show the seven acquisition parameters of every HAADF-STEM image of the files, and what is missing and why."""
    from ..microscope.worker import KillableReader

    try:
        override = parse_settings(set_ or [])
    except CimpError as error:
        print(f"cimp: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    found, failed = [], 0
    with KillableReader(timeout) as reader:
        for file in files:
            try:
                shots = reader.read(file, override, detector)
            except CimpError as error:
                failed += 1
                print(f"cimp: {error}", file=sys.stderr)
                found.append({"path": str(file), "error": type(error).__name__, "message": str(error)})
                continue
            for number, shot in enumerate(shots):
                found.append(_record(file, number, shot))
                if not json_:
                    _show(file, number, len(shots), shot)
    if json_:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


def parse_settings(settings: list[str]) -> dict[str, float]:
    """``["beam_current=50e-12", ...]`` as a dict of values in SI.

    Raises
    ------
    OutOfRangeError
        A setting is not NAME=VALUE with one of the seven names and a possible value.
    """
    override = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if name not in PARAMETERS:
            raise OutOfRangeError(f"--set {setting}: the name must be one of {', '.join(PARAMETERS)}")
        try:
            override[name] = float(text)
        except ValueError:
            raise OutOfRangeError(
                f"--set {setting}: {text!r} is not a number; values are in SI, 50 pA is 50e-12"
            ) from None
    accept(Evidence("other"), override)  # raises now, not once a file, where a value is impossible
    return override


def human(value: float | None, unit: str) -> str:
    """A value in SI with a prefix a microscopist would use: 2.5e-11 m is "25 pm", 0.025 rad is "25 mrad"."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0 or not unit:
        return f"{value:.4g} {unit}".strip()
    # Angles are said in mrad and voltages in kV whatever their size.
    power = {"rad": -3, "V": 3}.get(unit)
    if power is None:
        power = min(max(3 * math.floor(math.log10(abs(value) * (1 + 1e-9)) / 3), -15), 0)
    prefix = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k"}[power]
    return f"{value * 10.0**-power:.4g} {prefix}{unit}"


def _record(file: Path, number: int, shot: Micrograph) -> dict[str, Any]:
    """Everything `cimp info` knows of one image, for JSON: not a number becomes null."""
    acquisition, instrument = shot.acquisition, shot.instrument

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "path": str(file),
        "member": _member(shot),
        "image": number,
        "title": str(shot.image.metadata.General.title),
        "shape": list(shot.image.data.shape),
        "intensity": shot.intensity,
        "readout": shot.readout,
        "acquisition": {n: getattr(acquisition, n) for n in PARAMETERS},
        "missing": dict(acquisition.missing),
        "provenance": shot.provenance,
        "raw": {n: {"value": plain(r.value), "unit": r.unit, "key": r.key} for n, r in shot.raw.items()},
        "instrument": dict(vars(instrument)),
        "notes": shot.notes,
        "skipped": [str(s) for s in shot.skipped],
    }


def _member(shot: Micrograph) -> str | None:
    """Name within the zip that the image came from."""
    return (shot.path or "").partition("!/")[2] or None


def _show(file: Path, number: int, count: int, shot: Micrograph) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    instrument, console = shot.instrument, Console(highlight=False)
    shape = " x ".join(map(str, shot.image.data.shape))
    which = f" {_member(shot) or ''}".rstrip() + (f" [{number + 1} of {count}]" if count > 1 else "")
    table = Table(
        title=escape(f"{file.name}{which}"), title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for column in ("parameter", "value", "in the file", "comes from, or why it is missing"):
        table.add_column(column, overflow="fold")
    for name in PARAMETERS:
        raw, value = shot.raw.get(name), getattr(shot.acquisition, name)
        source = shot.acquisition.missing.get(name) or ("given by hand" if shot.provenance[name] == "user" else raw.key)
        cells = (name.replace("_", " "), human(value, UNITS[name]), human(raw.value, raw.unit) if raw else "-", source)
        table.add_row(*map(escape, cells))
    console.print(table)
    facts = [
        f"{shape} {shot.image.data.dtype}, {shot.intensity}"
        + (f" ({shot.readout} over the dwell)" if shot.readout else ""),
        f"detector {instrument.detector or 'not named'}",
        instrument.microscope,
        human(instrument.voltage, "V") if instrument.voltage else None,
        f"camera length {human(instrument.camera_length, 'm')}" if instrument.camera_length else None,
        f"outer angle {human(instrument.outer_collection_angle, 'rad')}" if instrument.outer_collection_angle else None,
        instrument.date,
    ]
    console.print(escape(" | ".join(filter(None, facts))))
    for note in shot.notes:
        console.print(escape(f"note: {note}"))
    if shot.skipped and number == 0:
        console.print(escape("skipped: " + "; ".join(map(str, shot.skipped))))
    console.print()
