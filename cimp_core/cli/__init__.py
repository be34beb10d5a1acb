"""The ``cimp`` command. Heavy libraries load inside the commands, so that ``cimp --help`` answers at once."""

import sys

import typer

from ..errors import CimpError
from . import (
    advise,
    audit,
    dataset,
    denoise,
    embed,
    index,
    info,
    pretrain,
    retrieve,
    simulate,
    structures,
    study,
    sweep,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Align HAADF-STEM images with the acquisition parameters they were taken with.",
)
app.command()(info.info)
app.add_typer(dataset.app, name="dataset", help="Build, check and describe data sets.")
app.command()(simulate.simulate)
app.command()(pretrain.pretrain)
app.command()(embed.embed)
app.command()(index.index)
app.command()(retrieve.retrieve)
app.command()(denoise.denoise)
app.command()(audit.audit)
app.command()(advise.advise)
app.command(cls=sweep.Pairs)(sweep.sweep)
app.add_typer(structures.app, name="structures", help="Which crystal is this? Libraries of crystals, and matches.")
app.add_typer(study.app, name="study", help="Blind studies: made, played by raters, analysed.")


def main() -> None:
    """Run the command line; bad input ends in one line on standard error and exit status 1."""
    try:
        app()
    except CimpError as error:
        print(f"cimp: {error}", file=sys.stderr)
        sys.exit(1)
