"""Does matching name the material of the twin's own images: noise, drift, particles, edges, defects and all?

    python -m cimp_core.study.structures_twin TWIN.h5 [--results book/results.json]

Of the twin, images are drawn whose pixels are of 6 to 35 pm, one a session. Asked is with an error of the pixel size of
2 %, as one grain. Right is a first candidate that has the material's formula and is more probable than "none of these".
Of amorphous carbon "none of these" is right. The library has its default settings, not those of each image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ..dataset import Dataset, open_dataset
from ..errors import CimpError
from ..metrics import mean_interval
from ..results import update_results
from ..simulate.structures import CRYSTALS
from ..structures import Library, library, match
from .rows import print_rows, row

__all__ = ["asked", "judged"]

SEED, ERROR, PIXELS = 5, 0.02, (6e-12, 35e-12)
LIBRARIES = {"crystals": ["crystals"], "prototypes": ["crystals", "prototypes"]}


def asked(data: Dataset, count: int) -> list[int]:
    """Images to ask with: one a session, of resolved pixels, in random order."""
    chosen: dict[str, int] = {}
    for i in np.random.default_rng(SEED).permutation(len(data)).tolist():
        size = data.acquisition(i).pixel_size
        if size is not None and PIXELS[0] < size < PIXELS[1]:
            chosen.setdefault(data.sessions[i], i)
    return list(chosen.values())[:count]


def judged(data: Dataset, i: int, known: Library) -> dict:
    """What was found in an image, and whether it is right."""
    material, size = str(data.materials[i]), data.acquisition(i).pixel_size
    line = {"image": i, "material": material, "pixel_size": size}
    try:
        found = match(data.image(i), known, k=1, grains=1, pixel_size_error=ERROR, pixel_size=size)
    except CimpError as error:
        return line | {"found": None, "said": str(error), "right": False}
    best = found.best
    name = None if best is None else best.entry.structure.formula
    wanted = _formula(material, known)
    return line | {"found": name, "none": found.grains[0].none, "right": name == wanted}


def _formula(material: str, known: Library) -> str | None:
    formulas = {s.name: s.formula for s in known.structures}
    return formulas[material] if material in CRYSTALS else None


def main() -> None:
    """See the module."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("twin", type=Path)
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--lines", type=Path, help="file of what became of each image (JSON lines)")
    options.add_argument("--results", type=Path)
    given = options.parse_args()
    data, rows = open_dataset(given.twin), []
    images = asked(data, given.count)
    for name, sources in LIBRARIES.items():
        known = library(sources)
        lines = [judged(data, i, known) for i in images]
        if given.lines:
            with given.lines.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"library": name, **line}) + "\n" for line in lines)
        parts = {"bulk": [x for x in lines if x["material"] in CRYSTALS and not CRYSTALS[x["material"]].layered]}
        parts["sheets"] = [x for x in lines if x["material"] in CRYSTALS and CRYSTALS[x["material"]].layered]
        parts["amorphous_carbon"] = [x for x in lines if x["material"] not in CRYSTALS]
        for part, of in parts.items():
            if of:
                rows.append(_row(f"structures.twin.{name}.{part}", of, data))
        print_rows(rows)
    if given.results:
        update_results(given.results, rows)


def _row(name: str, lines: list[dict], data: Dataset) -> dict:
    """The share of right answers, with an interval over materials."""
    right = np.array([line["right"] for line in lines], float)
    low, high = mean_interval(np.array([line["material"] for line in lines]), right)
    common = {"split": None, "profile": "full", "seeds": [SEED], "twin_version": data.attributes.get("twin_version")}
    common["command"] = "python -m cimp_core.study.structures_twin TWIN.h5"
    return row(name, float(right.mean()), low, high, common, len(lines))


if __name__ == "__main__":
    main()
