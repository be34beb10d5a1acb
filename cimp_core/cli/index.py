"""``cimp index``: the embeddings of a data set, kept to be searched."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CimpError, OutOfRangeError


def index(
    data: Annotated[Path, typer.Argument(help="Data set (HDF5).")],
    out: Annotated[Path, typer.Option(help="Result: a folder.")],
    of: Annotated[str, typer.Option(help="What is found: settings (each distinct one once) or images.")] = "settings",
    kind: Annotated[str, typer.Option(help="auto, exact, ivf or hnsw; the last two need cimp-core[faiss].")] = "auto",
    half: Annotated[bool, typer.Option(help="Exact rows in half precision: half the memory.")] = False,
    weights: Annotated[str, typer.Option(help="Shipped name or file.")] = "cimp-twin-s",
    crops: Annotated[int, typer.Option(help="Crops averaged an image: 1, 4, 16; 0 for the whole image at once.")] = 4,
    force: Annotated[bool, typer.Option(help="Overwrite the result.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Embed a data set once, and keep what `cimp retrieve --against` then searches."""
    if of not in ("settings", "images"):
        raise OutOfRangeError(f"--of is settings or images, not {of!r}")
    if out.exists() and not force:  # before hours of embedding, not after
        raise CimpError(f"{out} exists: --force to overwrite it")
    from ..dataset import open_dataset
    from ..retrieval import index_dataset
    from ..search_files import save_index
    from ..weights import load, locate, sha256

    model = load(weights)
    about = {"weights": str(weights), "weights_sha256": sha256(locate(weights))}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        made = index_dataset(model, open_dataset(data), of=of, kind=kind, half=half, crops=crops or None, about=about)
    save_index(made, out, force=force)
    notes = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    if json_:
        summary = {"out": str(out), "of": of, "rows": len(made), "kind": made.kind, "reason": made.reason}
        json.dump({**summary, "memory_bytes": made.nbytes, "notes": notes}, sys.stdout)
        print()
        return
    print(f"{out}: {len(made)} {of}, {made.kind} search ({made.reason}), {made.nbytes / 1e6:.1f} MB in memory")
    for note in notes:
        print(note)
