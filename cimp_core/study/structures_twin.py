"""Does matching name the material of the twin's own images: noise, drift, particles, edges, defects and all?

    python -m cimp_core.study.structures_twin TWIN.h5 [--out book/results.json]

Of the twin, images are drawn whose pixels are of 6 to 35 pm, one a session. Asked is with an error of the pixel size of
2 %, as one grain; the library has its default settings, not those of each image. Right is a first candidate that has
the material's formula and is more probable than "none of these". In many images no lattice is to be seen, for want of
dose or because the crystal is thick or tilted: the truth behind each says which (`lattice_seen`). Of these, and of
amorphous carbon, counted is how often "none of these" is said.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..dataset import Dataset, open_dataset
from ..digital_twin import reacquire
from ..errors import CimpError
from ..metrics import mean_interval
from ..results import update_results
from ..simulate.structures import CRYSTALS
from ..structures import Library, library, match
from .rows import print_rows, row

__all__ = ["answers", "asked", "lattice_seen", "material_table"]

SEED, ERROR, PIXELS = 5, 0.02, (6e-12, 35e-12)
LIBRARIES = {"crystals": ["crystals"], "prototypes": ["crystals", "prototypes"]}
RING = 0.18, 1.0
"""Spatial frequencies in which a lattice is looked for [1/angstrom]."""
NONE = "none of these"


def asked(data: Dataset, count: int, seed: int = SEED) -> list[int]:
    """Images to ask with: one a session, of resolved pixels, in random order."""
    chosen: dict[str, int] = {}
    for i in np.random.default_rng(seed).permutation(len(data)).tolist():
        size = data.acquisition(i).pixel_size
        if size is not None and PIXELS[0] < size < PIXELS[1]:
            chosen.setdefault(data.sessions[i], i)
    return list(chosen.values())[:count]


def answers(data: Dataset, known: Library, images: Sequence[int]) -> pd.DataFrame:
    """What is found in images of a data set: image, material, found, zone, probability, none.

    `found` is a formula, "none of these", or why there is no answer; `none` the probability of none of these.
    """
    lines = []
    for i in images:
        line = {"image": i, "material": None if data.materials is None else data.materials[i]}
        size = data.acquisition(i).pixel_size
        try:
            one = match(data.image(i), known, k=1, grains=1, pixel_size_error=ERROR, pixel_size=size)
        except CimpError as error:
            lines.append(line | {"found": str(error)})
            continue
        line |= {"found": NONE, "none": one.grains[0].none, "probability": one.grains[0].none}
        if one.best is not None:
            entry = one.best.entry
            line |= {"found": entry.structure.formula, "zone": entry.zone, "probability": one.best.probability}
        lines.append(line)
    return pd.DataFrame(lines, columns=["image", "material", "found", "zone", "probability", "none"])


def lattice_seen(data: Dataset, i: int) -> bool:
    """Whether, by the twin's truth, a spectral peak of the specimen stands out of the noise of the recording.

    It has at least 50 times the power of the noise there, and 1,000 times that of the specimen in between.
    """
    settings = data.acquisition(i)
    expected = reacquire(data, i, settings, noise=False)
    window = np.outer(*(np.hanning(n) for n in expected.shape))
    size = settings.pixel_size * 1e10
    g = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, size) for n in expected.shape), indexing="ij"))
    ring = (g > RING[0]) & (g < RING[1])
    parts = expected - expected.mean(), data.image(i) - expected
    specimen, noise = (np.abs(np.fft.fft2(window * part))[ring] ** 2 for part in parts)
    return bool(specimen.max() > max(50 * noise.mean(), 1000 * np.median(specimen)))


def material_table(data: Dataset, known: Library, images: Sequence[int]) -> pd.DataFrame:
    """`answers` of a twin with what is right: also `seen`, `right`."""
    table = answers(data, known, images)
    formulas = {s.name: s.formula for s in known.structures}
    table["seen"] = [m in CRYSTALS and lattice_seen(data, i) for i, m in zip(images, table.material, strict=True)]
    table["right"] = [formulas.get(m) == f for m, f in zip(table.material, table.found, strict=True)]
    return table


def main() -> None:
    """See the module."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("twin", type=Path)
    options.add_argument("--count", type=int, default=60)
    options.add_argument("--lines", type=Path, help="file of what became of each image (JSON lines)")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    data, rows = open_dataset(given.twin), []
    common = {"split": None, "profile": "full", "seeds": [SEED], "twin_version": data.attributes.get("twin_version")}
    common["command"] = "python -m cimp_core.study.structures_twin TWIN.h5"
    for name, sources in LIBRARIES.items():
        table = material_table(data, library(sources), asked(data, given.count))
        if given.lines:
            with given.lines.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"library": name, **line}) + "\n" for line in table.to_dict("records"))
        crystal = table.material.isin(list(CRYSTALS))
        parts = {"right.lattice_seen": (table.seen, table.right)}
        said_none = table.found == NONE
        parts |= {
            "none.lattice_seen": (table.seen, said_none),
            "none.lattice_unseen": (crystal & ~table.seen, said_none),
        }
        parts["none.amorphous_carbon"] = (~crystal, said_none)
        for part, (of, values) in parts.items():
            values = values[of].to_numpy(float)
            if len(values):
                low, high = mean_interval(table.material[of].to_numpy(str), values)
                rows.append(row(f"structures.twin.{name}.{part}", float(values.mean()), low, high, common, len(values)))
        print_rows(rows)
    if given.out:
        update_results(given.out, rows)


if __name__ == "__main__":
    main()
