"""``cimp retrieve``: the recorded settings that an image looks most like."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer


def retrieve(
    file: Annotated[Path, typer.Argument(help="Micrograph: .emd .dm3 .dm4 .emi .ser .mrc .ndata .h5 .tif .hspy .zip")],
    against: Annotated[Path, typer.Option(help="Data set (HDF5) whose settings are the candidates.")],
    top: Annotated[int, typer.Option(help="How many to show.")] = 5,
    weights: Annotated[str, typer.Option(help="Shipped name or file.")] = "cimp-twin-s",
    crops: Annotated[int, typer.Option(help="Crops averaged: 1, 4, 16; 0 for the whole image at once.")] = 4,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Rank the distinct settings of a data set by how well they fit each image of a file."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from ..dataset import open_dataset
    from ..microscope.worker import KillableReader
    from ..retrieval import rank_metadata
    from ..weights import load

    data = open_dataset(against)
    first = np.unique(data.groups, return_index=True)[1]
    candidates = [data.acquisition(i) for i in first]
    model = load(weights)
    with KillableReader() as reader:
        shots = reader.read(file)
    answers = []
    for number, shot in enumerate(shots):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said below
            ranked = rank_metadata(model, shot, candidates, crops=crops or None).head(top)
        # Candidates are numbered among the distinct settings; show where each stands in the data set.
        ranked["image"] = data.indices[first[ranked["candidate"]]]
        masked = shot.intensity != "velox16"
        answers.append({
            "image": number,
            "absolute_intensity": not masked,
            "missing": dict(shot.acquisition.missing),
            "candidates": len(candidates),
            "ranked": ranked.astype(object).where(ranked.notna(), None).to_dict(orient="records"),
        })  # fmt: skip
        if json_:
            continue
        table = Table(title=f"{file.name}, image {number}: {len(candidates)} distinct settings of {against.name}")
        for name in ("rank", "image", "cosine", "what differs"):
            table.add_column(name)
        for rank, row in enumerate(ranked.itertuples(), 1):
            table.add_row(str(rank), str(row.image), f"{row.cosine:.3f}", row.differs)
        Console().print(table)
        if masked:
            print("The intensity scale is not Velox 16 bit: ranked without absolute intensity.")
    if json_:
        json.dump(answers, sys.stdout)
        print()
