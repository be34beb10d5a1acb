"""``cimp study``: blind studies in which people compare the pictures of methods: made, tried out, analysed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .study_analyse import analyse, observe, plan

app = typer.Typer(no_args_is_help=True)


@app.command()
def make(
    config: Annotated[Path, typer.Argument(help="Description of the study, .yml.")],
    out: Annotated[Path, typer.Option(help="Folder for study.html, key.json and results/.")],
    force: Annotated[bool, typer.Option(help="Overwrite the study in that folder.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make a blind study: one page for all raters, and the key that stays with you."""
    from ..blind_study.make import KEY, PAGE, RESULTS, check_free, make_study, write_study

    check_free(out, force)
    study = make_study(config)
    write_study(study, out, force)
    for warning in study.warnings:
        print(f"cimp: warning: {warning}", file=sys.stderr)
    key = study.key
    codes = [assignment["code"] for assignment in key["assignments"]]
    size = (out / PAGE).stat().st_size
    each = len(key["assignments"][0]["trials"])
    if json_:
        summary = {"page": str(out / PAGE), "key": str(out / KEY), "results": str(out / RESULTS)}
        summary |= {"study": key["study"], "methods": key["methods"], "images": len(key["images"]), "bytes": size}
        summary |= {"trials_per_rater": each, "codes": codes, "warnings": list(study.warnings)}
        print(json.dumps(summary, ensure_ascii=False))
        return
    print(f"{out / PAGE}: {each} pairs for each of {len(codes)} raters, {size / 1e6:.1f} MB; give raters this file and")
    print(f"  one code each: {' '.join(codes)}")
    print(f"{out / KEY}: which picture was whose; keep it from raters until they are done")
    print(f"{out / RESULTS}: put the result files of raters here")


app.command()(observe)
app.command()(analyse)
app.command()(plan)
