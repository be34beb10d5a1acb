"""Velox-like files for tests, and a way to change what they say."""

import json

import h5py
import numpy as np

from cimp_core.metadata import Acquisition
from cimp_core.microscope import read

SETTINGS = Acquisition(2e-11, 1e-5, 0.025, 5e-11, 30.0, -1.0, 0.06)
IMAGE = np.random.default_rng(0).integers(2**16, size=(20, 30)).astype(np.uint16)


def edit(path, change) -> None:
    """Apply `change` to the metadata tree of every image of a Velox-like file."""
    with h5py.File(path, "r+") as file:
        for group in file["Data/Image"].values():
            tree = json.loads(group["Metadata"][:, 0].tobytes().rstrip(b"\0"))
            change(tree)
            text = np.frombuffer(json.dumps(tree).encode(), np.uint8)
            group["Metadata"][...] = 0
            group["Metadata"][: len(text), :] = text[:, None]


def edited(path, change):
    edit(path, change)
    (shot,) = read(path)
    return shot
