"""Embeddings of the same images by several models: what the models have in common is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dataset import Dataset
from ..models import Cimp
from ..models.cimp import PreparedCrops
from ..retrieval import embed_dataset, prepare_dataset

__all__ = ["Embedder", "embed_parts"]


class Embedder:
    """`cimp_core.retrieval.embed_dataset` that keeps statistics and spectra, some 5 KB a crop, for the next model."""

    def __init__(self) -> None:
        self._kept: dict[tuple, PreparedCrops] = {}

    def __call__(
        self, model: Cimp, data: Dataset, *, crops: int | None = 4, size: int | None = None, features: bool = False
    ) -> np.ndarray:
        """Rows (n, d) of all images of a data set; arguments as of `embed_dataset`."""
        if model.config.width or not len(data):  # sees pixels, or nothing
            return embed_dataset(model, data, crops=crops, size=size, features=features)
        size = size or model.config.crop_size
        key = str(data.path), data.indices.tobytes(), crops, size
        if key not in self._kept:
            self._kept[key] = prepare_dataset(data, crops=crops, size=size)
        return model.embed_prepared(self._kept[key], features=features)


def embed_parts(
    model: Cimp, parts: Sequence[Dataset], *, features: bool = False, embed: Embedder | None = None
) -> list[np.ndarray]:
    """Embeddings (n, d) of the training and validation images (one crop) and of the test images (four).

    One crop is enough to fit a probe on thousands of images.

    Parameters
    ----------
    features : bool
        Give the layer that they are projected from instead.
    embed : Embedder, optional
        Shared between models and layers.
    """
    embed = embed or Embedder()
    return [embed(model, part, crops=n, features=features) for part, n in zip(parts, (1, 1, 4), strict=True)]
