"""``cimp retrieve``: the recorded settings that an image looks most like."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SchemaError

MANY = 10_000  # settings, above which an index is searched instead of ranking every one


def retrieve(
    file: Annotated[Path, typer.Argument(help="Micrograph: .emd .dm3 .dm4 .emi .ser .mrc .ndata .h5 .tif .hspy .zip")],
    against: Annotated[Path, typer.Option(help="Data set (HDF5), or a folder of `cimp index`.")],
    top: Annotated[int, typer.Option(help="How many to show.")] = 5,
    weights: Annotated[str, typer.Option(help="Shipped name or file.")] = "cimp-twin-s",
    crops: Annotated[int, typer.Option(help="Crops averaged: 1, 4, 16; 0 for the whole image at once.")] = 4,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Rank the distinct settings of a data set, or what an index holds, by how well they fit each image of a file."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from ..dataset import open_dataset
    from ..microscope.worker import KillableReader
    from ..retrieval import index_dataset, nearest, rank_metadata
    from ..search_files import load_index
    from ..weights import load, locate, sha256

    model, index = load(weights), None
    if against.is_dir():
        index = load_index(against, weights=sha256(locate(weights)))
    else:
        data = open_dataset(against)
        first = np.unique(data.groups, return_index=True)[1]
        if len(first) > MANY:
            index = index_dataset(model, data)
        else:
            candidates, images = [data.acquisition(i) for i in first], data.indices[first]
    if index is not None:
        if absent := {"raw", "image"} - set(index.columns):
            raise SchemaError(f"{against}: an index without the columns {sorted(absent)}; make it by cimp index")
        images = index.columns["image"]
    what = "images" if index is not None and index.about.get("of") == "images" else "distinct settings"
    with KillableReader() as reader:
        shots = reader.read(file)
    answers = []
    for number, shot in enumerate(shots):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said below
            if index is None:
                ranked = rank_metadata(model, shot, candidates, crops=crops or None).head(top)
            else:
                ranked = nearest(model, shot, index, top, crops=crops or None)
        # Candidates are numbered among the distinct settings; show where each stands in the data set.
        ranked["image"] = images[ranked["candidate"]]
        masked = shot.intensity != "velox16"
        answers.append({
            "image": number,
            "absolute_intensity": not masked,
            "missing": dict(shot.acquisition.missing),
            "candidates": len(images),
            "ranked": ranked.astype(object).where(ranked.notna(), None).to_dict(orient="records"),
        })  # fmt: skip
        if index is not None:
            search = {"kind": index.kind, "reason": index.reason, "memory_bytes": index.nbytes}
            answers[-1]["search"] = {**search, "of": what}
        if json_:
            continue
        table = Table(title=f"{file.name}, image {number}: {len(images)} {what} of {against.name}")
        for name in ("rank", "image", "cosine", "what differs"):
            table.add_column(name)
        for rank, row in enumerate(ranked.itertuples(), 1):
            table.add_row(str(rank), str(row.image), f"{row.cosine:.3f}", row.differs)
        Console().print(table)
        if index is not None:
            print(f"{index.kind} search ({index.reason}), {index.nbytes / 1e6:.1f} MB of embeddings")
        if masked:
            print("The intensity scale is not Velox 16 bit: ranked without absolute intensity.")
    if json_:
        json.dump(answers, sys.stdout)
        print()
