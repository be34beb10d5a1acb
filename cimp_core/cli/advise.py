"""``cimp advise``: the settings of least dose for the next frame."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CimpError
from .info import parse_settings


def advise(
    file: Annotated[Path, typer.Argument(help="Quick frame: .emd .dm3 .dm4 .emi .ser .mrc .ndata .h5 .tif .hspy .zip")],
    goal: Annotated[str, typer.Option(help='"snr 10" or "column precision 5 pm".')],
    max_dose: Annotated[str | None, typer.Option(help='Of the next frame, such as "500 e/A2".')] = None,
    instrument: Annotated[Path | None, typer.Option(help="Allowed settings, a YAML file.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A value in SI that the file lacks, e.g. beam_current=50e-12."
        ),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Read the images of this detector, not of HAADF.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, values in SI.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest time for reading the file [s].")] = 60.0,
) -> None:
    """Advise dwell time, current, gain and offset of the next frame of the same area, for each image of a file.

    The exit status is 1 where an image allows no advice, and 0 also where no allowed settings reach the goal: then the
    text says so, and "reached" is false in the JSON.
    """
    from ..advising.advice import advise as apply
    from ..advising.goal import parse_dose, parse_goal
    from ..advising.limits import Limits, read_limits
    from ..microscope.worker import KillableReader

    wanted, dose, override = parse_goal(goal), parse_dose(max_dose), parse_settings(set_ or [])
    limits = Limits() if instrument is None else read_limits(instrument)
    with KillableReader(timeout) as reader:
        shots = reader.read(file, override, detector)
    told, failed = [], 0
    for number, shot in enumerate(shots):
        name = file.name if len(shots) == 1 else f"{file.name} [{number + 1} of {len(shots)}]"
        try:
            advice = apply(shot, wanted, max_dose=dose, limits=limits)
        except CimpError as error:
            failed += 1
            print(f"cimp: {name}: {error}", file=sys.stderr)
            told.append({"path": str(file), "image": number, "error": str(error)})
            continue
        told.append({"path": str(file), "image": number, **advice.to_dict()})
        if not json_:
            print(f"{name}\n{advice}\n")
    if json_:
        print(json.dumps(told, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)
