"""Small studies for tests: pictures that say by themselves which image and which method they are."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from cimp_core.blind_study.make import make_study

SIDE = 64  # [px]
CELL = 8  # side of a mark [px]
METHODS = ("raw", "smooth", "sharp")


def picture(image: int, method: int, side: int = SIDE) -> np.ndarray:
    """Grey ramp with white marks: one for the method in the first row, one for the image in the next two, and one at a
    place that is the same in all pictures, by which it is seen where a picture lies.
    """
    values = np.tile(np.linspace(20, 120, side), (side, 1))
    values[0, 0] = 0
    for row, column in ((0, method + 1), (1 + image // 8, image % 8), (6, 5)):
        values[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 250
    values[6 * CELL + 4, 5 * CELL + 4] = 255
    return values


def marks(grey: np.ndarray) -> tuple[int, int]:
    """Image and method of a picture, of any size."""
    cell = grey.shape[0] / (SIDE / CELL)
    middles = ((np.arange(8) + 0.5) * cell).astype(int)
    white = grey[np.ix_(middles, middles)] > 225
    (method,) = np.flatnonzero(white[0])
    (image,) = np.flatnonzero(white[1:3])
    return int(image), int(method) - 1


def write_pictures(folder: Path, images: int = 6, methods=METHODS, side: int = SIDE) -> None:
    """``folder/METHOD/imNN.tif``, each method in a type and scale of its own."""
    for m, name in enumerate(methods):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            values = picture(i, m, side) * (1, 100, 0.01)[m % 3] + (0, 1000, -5)[m % 3]
            tifffile.imwrite(folder / name / f"im{i:02d}.tif", values.astype(("u1", "u2", "f4")[m % 3]))


def save(path, values):
    """Write values in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, compression="zlib")
    elif path.suffix == ".png":
        Image.fromarray(values).save(path)
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        import hyperspy.api as hs

        hs.signals.Signal2D(values).save(path, overwrite=True)
    return path


def refuses(error, match, path):
    """The study is refused in one line."""
    with pytest.raises(error, match=match) as caught:
        make_study(path)
    assert "\n" not in str(caught.value)


def write_config(folder: Path, **settings) -> Path:
    """``folder/study.yml`` of the methods that lie in the folder; a setting that is None is left out."""
    names = [name for name in METHODS if (folder / name).is_dir()]
    told = {"title": "Lattices", "seed": 1, "methods": {name: name for name in names}, "raters": 2, "trials": 6}
    told |= {"question": "Which is clearer?", **settings}
    path = folder / "study.yml"
    told = {name: value for name, value in told.items() if value is not None}
    path.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    return path


def page_data(page: str) -> dict:
    """What a page holds, as anybody who opens its text can read it: the lists, and the values of each picture."""
    data = json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', page)[1])
    found = re.findall(r'<script type="text/plain" id="p(\w+)">(.*?)</script>', page)
    data["order"] = [name for name, _ in found]
    data["text"] = dict(found)
    data["pictures"] = {
        name: np.frombuffer(base64.b64decode(text), np.uint8).reshape(data["shapes"][name]) for name, text in found
    }
    return data
