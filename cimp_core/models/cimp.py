"""CIMP: an image tower and a metadata tower whose unit embeddings agree for what belongs together.

``Cimp.forward`` is what training calls; `Cimp.embed_images` and `Cimp.embed_metadata` are what everybody
else calls: they take raw images and settings in SI units and give NumPy arrays of unit rows.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import OutOfRangeError
from ..metadata import PARAMETERS, Acquisition, Normalizer
from .config import config_from_dict
from .encoders import FEATURES, ImageEncoder, MetadataEncoder, Prepared

if TYPE_CHECKING:
    from ..microscope import Micrograph

__all__ = ["Cimp", "CimpConfig", "CimpOutput", "PreparedCrops", "pieces_of"]

LOSSES = ("info_nce", "sigmoid")

MAX_SCALE = 100.0
"""Clamp of the learnable inverse temperature, as CLIP's."""

PIXELS = 2**22
"""Most pixels embedded at a time; some 200 bytes of memory each."""


@dataclass(frozen=True)
class CimpConfig:
    """What fixes a model's shape and its view of the data; stored with its weights."""

    width: int = 0  # channels of the first ResNet stage; 64 is a ResNet-18; 0 leaves the convolutions out
    dim: int = 128  # length of an embedding
    hidden: int = 256  # units of the metadata network's layers
    absolute: bool = True  # look at the absolute intensity where it is known
    statistics: bool = True  # feed statistics of the image to the head
    spectrum: int = 16  # channels of the network on the power spectrum; 0 leaves it out
    dropout: float = 0.0  # share dropped in the image head while training
    crop_size: int = 256  # edge of the largest crops trained on [pixels]
    tile: int = 128  # edge of the tiles that the convolutions see [pixels]
    loss: str = "info_nce"  # or "sigmoid", which has a learnable bias
    log_indices: tuple[int, ...] = (0, 1, 3, 6)  # parameters normalised after a logarithm
    mean: tuple[float, ...] = (0.0,) * len(PARAMETERS)  # of the (log) parameters
    std: tuple[float, ...] = (1.0,) * len(PARAMETERS)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CimpConfig:
        """Inverse of `dataclasses.asdict`; an unknown or a missing name raises `SchemaError`."""
        return config_from_dict(cls, values)

    @property
    def normalizer(self) -> Normalizer:
        """The normalisation of the data set trained on."""
        return Normalizer(self.log_indices, np.array(self.mean), np.array(self.std))

    def with_normalizer(self, normalizer: Normalizer) -> CimpConfig:
        """Copy that normalises parameters by `normalizer`."""
        return dataclasses.replace(
            self,
            log_indices=tuple(int(i) for i in normalizer.log_indices),
            mean=tuple(float(v) for v in normalizer.mean),
            std=tuple(float(v) for v in normalizer.std),
        )


class CimpOutput(NamedTuple):
    """Unit rows of both towers (B, d), the inverse temperature, and the bias of the sigmoid loss."""

    image: Tensor
    metadata: Tensor
    scale: Tensor
    bias: Tensor | None


class Cimp(nn.Module):
    """Two towers and a learnable scale: the inverse temperature, at most 100.

    It starts at 14.3 as CLIP's; for the sigmoid loss at 10, with a bias of -10 (Zhai et al., arXiv:2303.15343).
    """

    def __init__(self, config: CimpConfig) -> None:
        super().__init__()
        self.config = config
        if config.loss not in LOSSES:
            raise OutOfRangeError(f"unknown loss {config.loss!r}; there are {', '.join(LOSSES)}")
        self.image_encoder = ImageEncoder(
            config.width, config.dim, config.tile, absolute=config.absolute, statistics=config.statistics,
            spectrum=config.spectrum, dropout=config.dropout,
        )  # fmt: skip
        self.metadata_encoder = MetadataEncoder(config.dim, config.hidden)
        sigmoid = config.loss == "sigmoid"
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0 if sigmoid else 1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(-10.0)) if sigmoid else None

    def forward(
        self,
        intensity: Tensor,
        metadata: Tensor,
        absolute: Tensor | None = None,
        prepared: Prepared | None = None,
    ) -> CimpOutput:
        """Embed (B, H, W) intensities and (B, 7) normalised parameters (``nan`` where missing).

        `absolute` (B,) bool is False where the intensity scale is unknown or to be hidden; `prepared` as in
        `ImageEncoder.forward`.
        """
        scale = self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()
        image = self.image_encoder(intensity, absolute, prepared)
        return CimpOutput(image, self.metadata_encoder(metadata), scale, self.bias)

    @property
    def scale(self) -> float:
        """Inverse temperature."""
        return min(MAX_SCALE, math.exp(float(self.log_scale.detach())))

    @torch.no_grad()
    def embed_images(
        self,
        images: np.ndarray | Sequence[np.ndarray] | Sequence[Micrograph],
        *,
        crops: int | None = 4,
        size: int | None = None,
        absolute: bool | Sequence[bool] | None = None,
        features: bool = False,
        batch: int = 64,
    ) -> np.ndarray:
        """Unit rows (n, d) float32 of `n` images, or the features (n, 512) that they are projected from.

        Parameters
        ----------
        images : (n, h, w) array, or a list of (h, w) arrays or of `Micrograph`
            At least 32 pixels a side. A frame series counts as one image: its frames are averaged in
            the embedding.
        crops : int or None
            Square number of evenly spread crops whose embeddings are averaged; an image no larger than a crop is
            taken whole. None embeds every image whole, in one pass.
        size : int, optional
            Edge of a crop [pixels]; by default the largest trained on.
        absolute : bool or sequence of bool, optional
            Whether arrays are on the recorded 16-bit scale; by default they are if they are uint16.
            A `Micrograph` says so itself. Elsewhere the absolute channel is masked, with a warning unless
            the caller said it of each image.
        features : bool
            Give the last hidden layer instead, not normalised. It knows somewhat more of each single parameter than
            the embedding, which keeps what tells settings apart: what probes are for.
        batch : int
            Crops embedded at a time; fewer, but one, where they are so large that memory would grow without bound.
        """
        frames, known, owner = [], [], []
        for i, image in enumerate(images):
            each = absolute if absolute is None or isinstance(absolute, bool) else bool(absolute[i])
            pieces, on_scale, name = pieces_of(image, i, each, size or self.config.crop_size, crops)
            if not on_scale and (absolute is None or isinstance(absolute, bool)):
                warnings.warn(f"{name}: embedded without its absolute intensity", stacklevel=2)
            frames += pieces
            known += [on_scale] * len(pieces)
            owner += [i] * len(pieces)
        rows = np.empty((len(frames), FEATURES if features else self.config.dim), np.float32)
        encode = self.image_encoder.features if features else self.image_encoder
        shapes = np.array([f.shape for f in frames]).reshape(-1, 2)
        with _inference(self):
            # Equal shapes go through together; a list may mix sizes.
            for shape in np.unique(shapes, axis=0):
                same = np.flatnonzero((shapes == shape).all(1))
                at_once = max(1, min(batch, PIXELS // int(shape.prod())))
                for part in np.split(same, range(at_once, len(same), at_once)):
                    x = torch.from_numpy(np.stack([frames[j] for j in part]).astype(np.float32)).to(self.device)
                    on_scale = torch.tensor([known[j] for j in part], device=self.device)
                    rows[part] = encode(x, on_scale).float().cpu().numpy()
        return _mean_rows(rows, np.array(owner, int), len(images), unit=not features)

    @torch.no_grad()
    def embed_prepared(self, crops: PreparedCrops, *, features: bool = False, batch: int = 256) -> np.ndarray:
        """As `embed_images`, from what `PreparedCrops` keeps: without the cost of statistics and spectra.

        Raises
        ------
        OutOfRangeError
            The model has convolutions, which see pixels.
        """
        if self.config.width:
            raise OutOfRangeError(f"a model of width {self.config.width} sees pixels, which are not kept; embed images")
        encode = self.image_encoder.features if features else self.image_encoder
        rows = []
        with _inference(self):
            for start in range(0, len(crops.owner), batch):
                part = Prepared(*(values[start : start + batch].to(self.device) for values in crops.rows))
                known = torch.from_numpy(crops.known[start : start + batch]).to(self.device)
                rows.append(encode(part.size[:, None, None], known, part).float().cpu().numpy())
        return _mean_rows(np.concatenate(rows), crops.owner, crops.images, unit=not features)

    @torch.no_grad()
    def embed_metadata(self, acquisitions: Sequence[Acquisition] | np.ndarray) -> np.ndarray:
        """Unit rows (n, d) float32 of settings: a list of `Acquisition` or (n, 7) values in SI units.

        A missing parameter (``None`` or ``nan``) is masked.
        """
        if isinstance(acquisitions, np.ndarray):
            raw = np.asarray(acquisitions, dtype=float)
        else:
            raw = np.array([a.vector() for a in acquisitions]).reshape(-1, len(PARAMETERS))
        if raw.ndim != 2 or raw.shape[1] != len(PARAMETERS):
            raise OutOfRangeError(f"metadata must be (n, {len(PARAMETERS)}), in SI units, got {raw.shape}")
        normalized = torch.from_numpy(self.config.normalizer.normalize(raw).astype(np.float32))
        with _inference(self):
            return self.metadata_encoder(normalized.to(self.device)).cpu().numpy()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.log_scale.device


class _inference:
    """Evaluation mode for a while: batch norms use their stored statistics, then training mode comes back."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.was_training = self.model.training
        self.model.eval()

    def __exit__(self, *exc: object) -> None:
        self.model.train(self.was_training)


class PreparedCrops(NamedTuple):
    """`Prepared` of all crops of some images, on the processor; made by `cimp_core.retrieval.prepare_dataset`."""

    rows: Prepared
    owner: np.ndarray  # (crops,) the image of each
    known: np.ndarray  # (crops,) whether its intensity scale is known
    images: int


def pieces_of(
    image: np.ndarray | Micrograph, index: int, absolute: bool | None, size: int, crops: int | None
) -> tuple[list[np.ndarray], bool, str]:
    """Crops of all frames of an image, whether they are on the 16-bit scale, and a name for messages."""
    data, on_scale, name = _intensity(image, index, absolute)
    frames = data.reshape(-1, *data.shape[-2:])
    return [piece for frame in frames for piece in _cut(frame, size, crops, name)], on_scale, name


def _mean_rows(rows: np.ndarray, owner: np.ndarray, images: int, unit: bool) -> np.ndarray:
    """Mean of the rows of each image, (images, d) float32; of unit length if `unit`."""
    total = np.zeros((images, rows.shape[1]), np.float32)
    np.add.at(total, owner, rows)
    if unit:
        return total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)
    return total / np.bincount(owner, minlength=images)[:, None].astype(np.float32)


def _intensity(image: np.ndarray | Micrograph, index: int, absolute: bool | None) -> tuple[np.ndarray, bool, str]:
    """Pixel values (..., h, w), whether they are on the 16-bit scale, and a name for messages."""
    if hasattr(image, "acquisition"):
        return np.asarray(image.image.data), image.intensity == "velox16", str(image.path or f"image {index}")
    data = np.asarray(image)
    return data, data.dtype == np.uint16 if absolute is None else absolute, f"image {index}"


def _cut(frame: np.ndarray, size: int, crops: int | None, name: str) -> list[np.ndarray]:
    """The whole frame, or `crops` evenly spread square crops of it."""
    h, w = frame.shape
    if min(h, w) < 32:
        raise OutOfRangeError(f"{name}: {h} x {w} pixels is too small to embed; give at least 32 x 32")
    if not np.isfinite(frame).all():
        raise OutOfRangeError(f"{name}: holds values that are not finite; mask or replace them first")
    if crops is None or max(h, w) <= size:
        return [frame]
    side = math.isqrt(crops)
    if crops < 1 or side * side != crops:
        raise OutOfRangeError(f"crops is {crops}: give a square number (1, 4, 9, 16 ...) or None for the whole image")
    tall, wide = min(h, size), min(w, size)
    # One crop is the central one; more are spread from edge to edge.
    share = [0.5] if side == 1 else np.linspace(0, 1, side)
    tops, lefts = ([round(s * (n - m)) for s in share] for n, m in ((h, tall), (w, wide)))
    return [frame[t : t + tall, x : x + wide] for t in tops for x in lefts]
