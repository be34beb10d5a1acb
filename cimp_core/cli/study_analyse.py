"""``cimp study analyse``, ``plan`` and ``observe``: what a study found, how large it must be, and a trial run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CimpError, SchemaError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Folder = Annotated[Path, typer.Argument(help="Folder that 'cimp study make' wrote, with key.json and results/.")]


def analyse(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option(help="Folder for analysis.json and analysis.md; else the study's.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Draws of each bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstraps.")] = 0,
    force: Annotated[bool, typer.Option(help="Overwrite an earlier analysis.")] = False,
    json_: Json = False,
) -> None:
    """Analyse the result files of a blind study; files that cannot be used are named and left out."""
    from ..blind_study.analysis import analyse as analyse_study
    from ..blind_study.report import markdown

    out = out or folder
    paths = out / "analysis.json", out / "analysis.md"
    if not force and (there := [path for path in paths if path.exists()]):
        raise CimpError(f"{there[0]} exists; choose another folder with --out, or --force to overwrite it")
    found = analyse_study(folder, draws=draws, seed=seed)
    text = json.dumps(found, ensure_ascii=False, allow_nan=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, (text + "\n", markdown(found)), strict=True):
            _write(path, content)
    except OSError as error:
        raise CimpError(f"{out}: cannot be written to ({error})") from error
    if json_:
        print(text)
        return
    _print(found)
    print(f"{paths[1]}: everything in words; {paths[0].name}: as numbers")


def plan(
    share: Annotated[float, typer.Option(help="Expected share of trials won by the better method.")] = 0.7,
    half_width: Annotated[float, typer.Option(help="Half of the 95 % interval that is wanted.")] = 0.05,
    raters: Annotated[list[int] | None, typer.Option(help="Numbers of raters to try; again for each.")] = None,
    trials: Annotated[list[int] | None, typer.Option(help="Trials of one rater to try; again for each.")] = None,
    images: Annotated[int | None, typer.Option(help="Different images; else as many as trials of a rater.")] = None,
    rater_sd: Annotated[float, typer.Option(help="Assumed sd between raters [log-odds].")] = 0.5,
    image_sd: Annotated[float, typer.Option(help="Assumed sd between images [log-odds].")] = 0.8,
    studies: Annotated[int, typer.Option(help="Simulated studies for each line.")] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json_: Json = False,
) -> None:
    """How many raters and trials a half-width takes, by simulated studies of one pair of methods."""
    from ..blind_study import power

    options = {"images": images, "rater_sd": rater_sd, "image_sd": image_sd, "studies": studies, "seed": seed}
    table = power.plan(share, half_width, raters=raters or power.RATERS, trials=trials or power.TRIALS, **options)
    alone = power.independent_trials(share, half_width)
    rows = table.to_dict(orient="records")
    if json_:
        asked = {
            "share": share,
            "half_width": half_width,
            "rater_sd": rater_sd,
            "image_sd": image_sd,
            "studies": studies,
        }
        print(json.dumps(asked | {"independent_trials": alone, "lines": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        box=None, pad_edge=False, title=f"share {100 * share:g} %, half-width wanted {100 * half_width:g} points"
    )
    for name in ("raters", "images", "trials of each", "half-width [points]", "reached", "excludes 50 %", "enough"):
        shown.add_column(name, justify="right")
    for r in rows:
        numbers = f"{100 * r['half_width']:.1f}", f"{100 * r['reached']:.0f} %", f"{100 * r['excludes_half']:.0f} %"
        shown.add_row(str(r["raters"]), str(r["images"]), str(r["trials"]), *numbers, "yes" if r["enough"] else "no")
    Console(highlight=False).print(shown)
    print(
        f"Assumed sd between raters {rater_sd:g}, between images {image_sd:g} log-odds; "
        f"{studies} simulated studies a line."
    )
    print(f"Were every trial by another rater on another image, {alone} trials would do; no study is like that.")
    enough = [r for r in rows if r["enough"]]
    if enough:
        best = min(enough, key=lambda r: r["raters"] * r["trials"])
        print(f"Least work: {best['raters']} raters with {best['trials']} trials each on {best['images']} images.")
    else:
        print("No line is enough: more raters and more images are needed, or a wider interval.")


def observe(
    folder: Folder,
    raters: Annotated[int, typer.Option(help="How many of the study's assignments are answered.")],
    utilities: Annotated[
        Path | None, typer.Option(help="JSON: {method: {image: number}} or {method: number}; larger is better.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The study's settings, .yml: where its pictures are.")] = None,
    truth: Annotated[str | None, typer.Option(help="Folder or pattern of true pictures; with --config.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated raters.")] = 0,
    force: Annotated[bool, typer.Option(help="Replace simulated raters that are there.")] = False,
    json_: Json = False,
) -> None:
    """Let a SIMULATED observer, a computer model, answer a study, to try out its analysis. It stands for no person."""
    from ..blind_study.analysis import NOTICE
    from ..blind_study.observer import write_observed

    if (utilities is None) == (truth is None) or (truth is None) != (config is None):
        raise CimpError("name either --utilities FILE, or --truth FOLDER together with --config FILE")
    table = _read_utilities(utilities) if utilities else _from_truth(config, truth)
    paths = write_observed(folder, table, raters, seed, force=force)
    if json_:
        print(json.dumps({"simulated": True, "notice": NOTICE, "files": [str(path) for path in paths]}))
        return
    print(NOTICE)
    print(f"{paths[0].parent}: {len(paths)} result files of simulated raters")


def _read_utilities(path: Path) -> Any:
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableFileError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(table, dict):
        raise SchemaError(f"{path}: expected {{method: {{image: number}}}}")
    return table


def _from_truth(config: Path, truth: str) -> Mapping:
    from ..blind_study.config import read_config
    from ..blind_study.observer import truth_utilities
    from ..blind_study.pictures import find_pictures, read_picture

    root, settings = config.absolute().parent, read_config(config)
    true = {image: read_picture(path) for image, path in find_pictures(truth, Path.cwd(), "truth").items()}
    methods = {name: find_pictures(pattern, root, name) for name, pattern in settings.methods.items()}
    pictures = {name: {image: read_picture(path) for image, path in found.items()} for name, found in methods.items()}
    return truth_utilities(pictures, true)


def _write(path: Path, text: str) -> None:
    """Write beside `path`, then in its place."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _print(found: dict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..blind_study.report import pair_lines, percent, span

    result = found["result"]
    for entry in found["files"]["left_out"]:
        print(f"cimp: left out {entry['file']}: {entry['reason']}", file=sys.stderr)
    if found["simulated"]:
        print(found["notice"])
    kind = "simulated raters" if found["simulated"] else "raters"
    title = f"{result['raters']} {kind}, {result['images']} images, {result['trials']} trials"
    table = Table(box=None, pad_edge=False, title=escape(title))
    for name in ("preferred", "trials", "share", "95 %, other raters and images", "p"):
        table.add_column(name)
    for line in pair_lines(result):
        table.add_row(*map(escape, line))
    Console(highlight=False).print(table)
    for pair in result["pairs"]:
        if pair["independent"]["wilson"]:
            alone = span(*pair["independent"]["wilson"])
            print(f"{pair['a']} over {pair['b']}, were trials independent (they are not): {alone}")
    if result["bradley_terry"]:
        print(_ranking(result["bradley_terry"]))
    side, repeats = result["side"], result["repeats"]
    print(
        f"left side {percent(side['share'])}; repeats agree {percent(repeats['share'])}; "
        f"catch trials right {percent(result['catch']['share'])}"
    )
    out = sorted({entry["rater"] for entry in found["excluded"]})
    if out:
        print(f"excluded by the rules fixed beforehand: {', '.join(out)}; with them:")
        for line in pair_lines(found["without_exclusion"]):
            print("  " + ", ".join(line[:4]))


def _ranking(found: dict) -> str:
    if found["statement"]:
        return f"Bradley-Terry: {found['statement']}"
    best = sorted(found["strengths"], key=lambda one: -one["worth"])
    return "Bradley-Terry worth: " + ", ".join(f"{one['method']} {one['worth']:.2f}" for one in best)
