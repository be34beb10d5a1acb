"""``cimp embed``: embeddings of the images in files."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CimpError, OutOfRangeError


def embed(
    files: Annotated[list[Path], typer.Argument(help=".emd .dm3 .dm4 .emi .ser .mrc .ndata .h5 .tif .hspy .zip")],
    out: Annotated[Path, typer.Option(help="Result: .npz or .csv.")],
    weights: Annotated[str, typer.Option(help="Shipped name or file.")] = "cimp-twin-s",
    crops: Annotated[int, typer.Option(help="Crops averaged an image: 1, 4, 16; 0 for the whole image at once.")] = 4,
    force: Annotated[bool, typer.Option(help="Overwrite the result.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Embed every HAADF-STEM image of the files, and its settings; a file that fails is named and left out."""
    if out.suffix not in (".npz", ".csv"):
        raise OutOfRangeError(f"{out}: the result is written as .npz or .csv")
    if out.exists() and not force:
        raise CimpError(f"{out} exists: --force to overwrite it")
    import numpy as np

    from ..microscope.worker import KillableReader
    from ..weights import load

    model = load(weights)
    shots, names, failed, masked = [], [], {}, []
    with KillableReader() as reader:
        for file in files:
            try:
                found = reader.read(file)
            except CimpError as error:
                failed[str(file)] = str(error)
                continue
            for i, shot in enumerate(found):
                shots.append(shot)
                names.append(f"{file}#{i}" if len(found) > 1 else str(file))
                if shot.intensity != "velox16":
                    masked.append(names[-1])
    if not shots:
        raise CimpError("no image could be embedded:\n" + "\n".join(failed.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said once below, for all files
        images = model.embed_images(shots, crops=crops or None)
    metadata = model.embed_metadata([shot.acquisition for shot in shots])
    raw = np.array([shot.acquisition.vector() for shot in shots])
    _write(out, names, images, metadata, raw)
    if json_:
        summary = {"out": str(out), "images": len(shots), "without_absolute_intensity": masked, "failed": failed}
        json.dump(summary, sys.stdout)
        print()
    else:
        print(f"{out}: {len(shots)} images, {images.shape[1]} numbers each")
        if masked:
            print(f"{len(masked)} embedded without absolute intensity (not Velox 16 bit): {', '.join(masked)}")
        for reason in failed.values():
            print(f"left out: {reason}")
    if failed:
        raise typer.Exit(1)


def _write(out: Path, names: list[str], images, metadata, raw) -> None:
    import numpy as np
    import pandas as pd

    from ..metadata import PARAMETERS

    temporary = out.with_name(f".{out.name}.{os.getpid()}{out.suffix}")
    if out.suffix == ".npz":
        np.savez(
            temporary, files=np.array(names), image=images, metadata=metadata, raw=raw, parameters=np.array(PARAMETERS)
        )
    else:
        table = pd.DataFrame(raw, columns=list(PARAMETERS))
        table.insert(0, "file", names)
        embedding = pd.DataFrame(images, columns=[f"image_{i}" for i in range(images.shape[1])])
        pd.concat([table, embedding], axis=1).to_csv(temporary, index=False)
    os.replace(temporary, out)
