"""``cimp dataset check`` and ``cimp dataset info``: is this file a data set, and what is in it; ``build`` makes one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import build, fetch

app = typer.Typer(no_args_is_help=True)
app.command()(build.build)
app.command()(fetch.fetch)

File = Annotated[str, typer.Argument(help="Data set, .h5, or its address, hf:// or https://.")]
_SHOWN = {"m": (1e12, "pm"), "s": (1e6, "µs"), "rad": (1e3, "mrad"), "A": (1e12, "pA"), "": (1.0, "")}

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command()
def check(file: File, json_: Json = False) -> None:
    """Name every fault of a data set; exit status 1 if there is any."""
    from ..dataset import check_dataset
    from ..remote import is_url

    faults = check_dataset(file)
    if json_:
        print(json.dumps({"file": str(file), "faults": faults}))
    elif faults:
        print(f"{file}: {len(faults)} fault(s)", *faults, sep="\n  ")
    else:
        print(f"{file}: follows the schema" + " (images: only the first and the last looked at)" * is_url(file))
    if faults:
        raise typer.Exit(1)


@app.command()
def info(file: File, json_: Json = False) -> None:
    """What a data set holds: images, sessions, materials, and the range of each parameter."""
    import numpy as np

    from ..dataset import open_dataset
    from ..metadata import PARAMETERS, UNITS

    data = open_dataset(file)
    # The sizes lie beside the images: at an address each costs a request, so 20 of them must do.
    looked = range(len(data)) if data.remote is None else np.linspace(0, len(data) - 1, min(20, len(data))).astype(int)
    sides, counts = np.unique([data.shape(i) for i in looked], axis=0, return_counts=True)
    summary = {
        "file": str(file),
        "images": len(data),
        "image_sizes": {f"{h} x {w}": int(n) for (h, w), n in zip(sides, counts, strict=True)},
        "sizes_looked_at": len(looked),
        "source_files": len(set(data.filepaths)),
        "sessions": len(np.unique(data.sessions)),
        "materials": None if data.materials is None else len(set(data.materials)),
        "distinct_settings": len(np.unique(data.groups)),
        "attributes": {k: v for k, v in data.attributes.items() if k != "metadata_labels"},
    }
    if data.remote is not None:
        summary["megabytes_fetched"] = round(data.remote.fetched / 1e6, 1)
    rows = {}
    for i, name in enumerate(PARAMETERS):
        known = data.metadata_raw[~np.isnan(data.metadata_raw[:, i]), i]
        low, middle, high = np.quantile(known, (0, 0.5, 1)).tolist() if known.size else (None, None, None)
        rows[name] = {"unit": UNITS[name], "least": low, "median": middle, "most": high}
        rows[name] |= {"values": len(np.unique(known)), "missing": len(data) - known.size}
        rows[name]["logarithm"] = i in data.normalizer.log_indices
    if json_:
        print(json.dumps({**summary, "parameters": rows}))
        return
    _show(summary, rows)


def _show(summary: dict, rows: dict) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(show_header=False)
    for name, value in summary.items():
        text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else value
        table.add_row(name.replace("_", " "), "not labelled" if text is None else str(text))
    console = Console()
    console.print(table)
    # Narrow, for a number that is cut off for want of room is a wrong one.
    table = Table(
        *(Column(name, no_wrap=True) for name in ("parameter", "least", "median", "most", "values", "lack", "ln")),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name, row in rows.items():
        scale, unit = _SHOWN[row["unit"]]
        numbers = ["-" if row[k] is None else f"{row[k] * scale:.4g}" for k in ("least", "median", "most")]
        rest = str(row["values"]), str(row["missing"]), "ln" if row["logarithm"] else ""
        label = name.replace("_", " ") + (f" [{unit}]" if unit else "")
        table.add_row(Text(label), *numbers, *rest)
    console.print(table)
