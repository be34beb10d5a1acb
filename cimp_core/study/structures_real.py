"""Which structures does matching see in images that others took or simulated? Each, right or wrong.

    python -m cimp_core.study.structures_real SHARED [--out book/results.json]

SHARED is the folder of real files. The library is every bundled prototype and the twin's crystals along axes up to
index 1; the simulated antimony of atomagined is looked for along axes up to 2 among the twin's crystals and simple
cubic antimony. All is asked with an error of the pixel size of 5 %. An answer is right if the first candidate of a
grain has the formula and an equal zone axis and is more probable than "none of these"; where no entry is what the image
shows, if "none of these" is the most probable answer of every grain. The table is kept in
cimp_core/data/structures_real.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import read
from ..errors import CimpError
from ..results import update_results
from ..structures import matching
from ..structures.crystals import Structure, from_pymatgen
from ..structures.library import Library, library
from .structures_cases import equal_zones

TABLE = Path(__file__).resolve().parents[1] / "data" / "structures_real.json"
ATOMAGINED, INGRAINED = "MaterialEyes+atomagined", "MaterialEyes+ingrained"


@dataclass(frozen=True)
class Real:
    """A file, what it shows as its authors say, and a pixel size [m] where the file has none."""

    file: str
    formula: str | None
    zone: tuple[int, int, int] | None
    what: str
    pixel_size: float | None = None
    simulated: bool = False


def files() -> list[Real]:
    """The list; formula None: nothing that the library has."""
    nc = "ercius+openNCEM/ncempy/data"
    found = [
        Real(f"{nc}/16_STOimage.emi", "SrTiO3", (0, 0, 1), "SrTiO3 at 80 kV"),
        Real(f"{nc}/Acquisition_18.emd", "SrTiO3", (0, 0, 1), "SrTiO3 at 200 kV"),
        Real(
            "AliBaghizadeh+Analysis-of-atomic-displacement-in-STEM-images/images/BTO_crystal_1.dm4",
            "BaTiO3",
            (0, 0, 1),
            "BaTiO3, mean of a stack",
        ),
        Real(f"{INGRAINED}/CdTe_110_CdTe_110_tilt/HAADF149.dm3", "CdTe", (1, 1, 0), "CdTe boundary"),
        Real(f"{INGRAINED}/Si_01-1_Si_0-11_tilt/HAADF85.dm3", "Si", None, "Si boundary; its authors say [110]"),
        Real("xinhuolin+AtomSegNet/test_img/03_afterimage_8nm_crp.png", "Si", (1, 1, 0), "Si dumbbells, no pixel size"),
        Real("xinhuolin+AtomSegNet/test_img/Grain_boundry_gold_512px.png", "Au", None, "gold, no pixel size"),
        Real(f"{nc}/STEM HAADF Diffraction Micro.emd", None, None, "beam off, detector noise"),
    ]
    for number in ("025", "047", "091"):
        name = f"HPAI-BSC+AtomDetection_ACSTEM/data/tif_data/{number}_HAADF_15nm_Sample_PtNC_21Oct20.tif"
        found.append(Real(name, None, None, "Pt atoms on amorphous carbon"))
    for name, zone in (("052227.000001", (0, 0, 1)), ("052227.000101", (0, 1, 1)), ("052227.000102", (0, 1, 2))):
        found.append(Real(f"{ATOMAGINED}/general/h5/{name}.h5", "Sb", zone, "cubic Sb, atomagined", 26e-10 / 256, True))
    for name, zone in (("052227.010101", (1, 1, 1)), ("052227.010202", (1, 2, 2))):
        path = f"{ATOMAGINED}/retrieval/choices/h5/{name}.h5"
        found.append(Real(path, "Sb", zone, "cubic Sb, atomagined", 26e-10 / 256, True))
    for name in ("020790.000001", "020790.000102", "020790.000201", "391225.010101"):
        what = ("LuNiSn2" if name.startswith("020790") else "K2Mo4O13") + ", atomagined; not in the library"
        found.append(Real(f"{ATOMAGINED}/general/h5/{name}.h5", None, None, what, 26e-10 / 256, True))
    for name, formula, zone in (
        ("BCC_Fe_100", "Fe", (0, 0, 1)),
        ("BCC_Fe_110", "Fe", (1, 1, 0)),
        ("FCC_Cu_100", "Cu", (0, 0, 1)),
        ("FCC_Cu_110", "Cu", (1, 1, 0)),
        ("FCC_Cu_111", "Cu", (1, 1, 1)),
        ("HCP_Ti_0001", "Ti", (0, 0, 1)),
    ):
        path = f"AndreasLeitherer+ai4stem/reference/{name}.npy"
        found.append(Real(path, formula, zone, "ai4stem, simulated by convolution", 0.12e-10, True))
    return found


def opened(path: Path, pixel_size: float | None) -> tuple[object, float | None]:
    """A shot or an image, and its pixel size where the shot does not say."""
    if path.suffix == ".npy":
        return np.load(path), pixel_size
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path) as file:
            return np.array(file["haadf/stem00-blbk1"]), pixel_size
    if path.suffix == ".png":
        from PIL import Image

        return np.array(Image.open(path).convert("F")), pixel_size
    return read(path)[0], pixel_size


def antimony() -> Structure:
    """Simple cubic, of the edge that atomagined's file has."""
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as PymatgenStructure

    return from_pymatgen(PymatgenStructure(Lattice.cubic(2.986), ["Sb"], [[0, 0, 0]]), "Sb cubic", "atomagined")


def asked(one: Real, shared: Path, known: Library, name: str) -> dict:
    """A line of the table, for a library of this `name`."""
    line = {"file": one.file, "what": one.what, "library": name, "simulated": one.simulated, "truth": one.formula}
    line |= {"truth_zone": list(one.zone) if one.zone else None}
    try:
        shot, size = opened(shared / "data" / one.file, one.pixel_size)
        found = matching.match(shot, known, k=3, pixel_size_error=0.05, pixel_size=size)
    except CimpError as error:
        return line | {"answer": "refused", "why": str(error), "right": None}
    grains = []
    for grain in found.grains:
        answer = {"share": round(grain.region.share, 3), "none": round(grain.none, 4), "candidates": []}
        for c in grain.candidates:
            s = c.entry.structure
            answer["candidates"].append(
                {
                    "structure": s.name,
                    "formula": s.formula,
                    "zone": list(c.entry.zone),
                    "angle": round(float(np.degrees(c.fit.angle)), 2),
                    "scale": round(c.fit.scale, 4),
                    "explained": round(c.fit.explained, 4),
                    "probability": round(c.probability, 4),
                    "true": s.formula == one.formula and (one.zone is None or equal_zones(s, one.zone, c.entry.zone)),
                }
            )
        best = answer["candidates"][0] if answer["candidates"] else None
        said_none = best is None or best["probability"] < grain.none
        answer["right"] = said_none if one.formula is None else (not said_none and best["true"])
        grains.append(answer)
    return line | {"answer": "matched", "grains": grains, "right": all(g["right"] for g in grains)}


def table(shared: Path) -> list[dict]:
    """All lines; what a microscope took of a crystal of the twin is looked for among these alone, too."""
    wide, few = library(["prototypes", "crystals"], zones=1), library("crystals", zones=1)
    deep, lines = library(["crystals", antimony()], zones=2), []
    for one in files():
        if one.formula == "Sb":
            lines.append(asked(one, shared, deep, "crystals and antimony"))
            continue
        lines.append(asked(one, shared, wide, "prototypes and crystals"))
        if one.formula and not one.simulated and lines[-1]["right"] is not None:
            lines.append(asked(one, shared, few, "crystals"))
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shared", type=Path)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    lines = table(given.shared)
    TABLE.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    for line in lines:
        print(line["right"], line["file"].rsplit("/", 1)[-1], line["truth"], line.get("why", ""))
        for grain in line.get("grains", ()):
            for c in grain["candidates"][:2]:
                print(
                    "     ",
                    grain["share"],
                    c["formula"],
                    c["zone"],
                    c["scale"],
                    c["explained"],
                    c["probability"],
                    grain["none"],
                )
    if given.out:
        made = []
        kinds = {
            "simulated_elsewhere": (True, None),
            "microscope": (False, None),
            "microscope_few": (False, "crystals"),
        }
        for name, (part, few) in kinds.items():
            mine = [line for line in lines if line["simulated"] is part and line["right"] is not None]
            judged = [line["right"] for line in mine if (line["library"] == "crystals") is (few is not None)]
            share = round(float(np.mean(judged)), 6)
            made.append({"name": f"structures.real.right.{name}", "value": share, "low": None, "high": None})
            made[-1] |= {"unit": "", "split": "real" if not part else "simulated elsewhere", "pool": len(judged)}
            made[-1] |= {"profile": "full", "seeds": [], "twin_version": None}
            made[-1] |= {"command": "python -m cimp_core.study.structures_real SHARED"}
        update_results(given.out, made)


if __name__ == "__main__":
    main()
