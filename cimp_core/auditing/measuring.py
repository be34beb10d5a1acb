"""What the audit keeps of a picture: some 8 KB, from which everything else follows, so that pixels are read once.

Of a frame series the first frame is looked at. A large image is looked at in four crops of 256 pixels at its corners,
as the encoder sees it; clipping and the digest are of all pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch

from ..build_images import digest_pixels
from ..errors import OutOfRangeError
from ..models.cimp import pieces_of
from ..models.encoders import prepare
from ..weights import load

__all__ = ["CROP", "SMALLEST", "TEXTURE", "Measured", "look", "measure"]

CROP = 256
"""Edge of the crops [px]."""

SMALLEST = 64
"""Least side of an image [px]; of a smaller one nothing is told."""

FINGERPRINT = 1024
"""Points at which the noise is kept, to know the same recording again."""

THUMBNAIL = 96
"""Longest side of the small picture for the report [px]."""

TEXTURE = ("levels", "equal_along", "equal_across", "period_along", "period_across", "diagonal")
"""Statistics of pixels that a recording and a resampled image differ in; see `_texture`."""


@dataclass(frozen=True)
class Measured:
    """One image as the audit sees it; arrays and plain values only, so that it can be stored.

    Parameters
    ----------
    shape : tuple of int
        Height and width [px].
    absolute : bool
        Whether the intensities are on Velox's 16-bit scale.
    flat : bool
        Every pixel has the same value, or some are not finite: there is nothing to look at.
    features : (512,) float32 array
        Hidden layer of the encoder.
    statistics : (n,) float32 array
        Of the picture, unchanged by gain and offset, then `TEXTURE`.
    clipped_low, clipped_high : float
        Shares of the pixels piled up at the least and at the greatest value.
    digest : str
        Of the pixels of the first frame; the same for the same numbers in another type.
    fingerprint : (FINGERPRINT,) float16 array
        Noise at points spread over the image, of mean 0 and length 1.
    thumbnail : (h, w) uint8 array
    """

    shape: tuple[int, int]
    absolute: bool
    flat: bool
    features: np.ndarray
    statistics: np.ndarray
    clipped_low: float
    clipped_high: float
    digest: str
    fingerprint: np.ndarray
    thumbnail: np.ndarray

    @property
    def side(self) -> int:
        """Shorter side [px]."""
        return min(self.shape)

    def to_parts(self) -> tuple[dict, list[np.ndarray]]:
        """What JSON can hold, and the arrays."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = [values.pop(name) for name in _ARRAYS]
        return values | {"shape": list(self.shape)}, arrays

    @classmethod
    def from_parts(cls, values: dict, arrays: list[np.ndarray]) -> Measured:
        """Inverse of `to_parts`."""
        return cls(**values | {"shape": tuple(values["shape"])}, **dict(zip(_ARRAYS, arrays, strict=True)))


_ARRAYS = ("features", "statistics", "fingerprint", "thumbnail")


@lru_cache(maxsize=4)
def _encoder(name: str):
    return load(name)


def measure(image: np.ndarray, *, absolute: bool, encoder: str = "cimp-twin-s") -> Measured:
    """Look at one image, (h, w), or at the first frame of a series, (frames, h, w).

    Raises
    ------
    OutOfRangeError
        No image of real numbers with at least 2 pixels a side.
    """
    data = np.asarray(image)
    if data.ndim not in (2, 3) or 0 in data.shape or min(data.shape[-2:]) < 2 or data.dtype.kind not in "biuf":
        raise OutOfRangeError(f"shape {data.shape}, {data.dtype}: give an image (h, w) or frames (n, h, w), of numbers")
    frame = data if data.ndim == 2 else data[0]
    frame = frame.astype(frame.dtype.newbyteorder("="), copy=False)
    finite = bool(np.isfinite(frame).all())
    flat = not finite or bool(frame.min() == frame.max())
    features, statistics = np.zeros(0, np.float32), np.zeros(0, np.float32)
    low = high = 0.0
    fingerprint = np.zeros(FINGERPRINT, np.float16)
    if not flat:
        low, high = _piled_up(frame)
        fingerprint = _fingerprint(frame)
        if min(frame.shape) >= SMALLEST:
            features, statistics = _of_crops(frame, absolute, encoder)
    return Measured(
        tuple(frame.shape), bool(absolute), flat, features, statistics, low, high,
        digest_pixels(_canonical(frame)), fingerprint, _thumbnail(frame, finite),
    )  # fmt: skip


def _of_crops(frame: np.ndarray, absolute: bool, encoder: str) -> tuple[np.ndarray, np.ndarray]:
    pieces, _, _ = pieces_of(frame, 0, absolute, CROP, 4)
    (features,), statistics = look(pieces, (absolute,), encoder)
    return features.mean(0), statistics.mean(0)


@torch.no_grad()
def look(
    pieces: Sequence[np.ndarray], known: Sequence[bool], encoder: str = "cimp-twin-s"
) -> tuple[list[np.ndarray], np.ndarray]:
    """Features (n, 512) of n crops, for each of `known` (whether the intensity scale is shown); statistics (n, m)."""
    model, texture = _encoder(encoder), np.array([_texture(piece) for piece in pieces])
    prepared = prepare(torch.from_numpy(np.stack(pieces).astype(np.float32)))
    shown = (torch.full((len(pieces),), one) for one in known)
    features = [model.image_encoder.features(prepared.size[:, None, None], one, prepared).numpy() for one in shown]
    return features, np.concatenate([prepared.relative.numpy(), texture], 1).astype(np.float32)


def _canonical(frame: np.ndarray) -> np.ndarray:
    """The same numbers in the same type, whatever they were saved in."""
    if frame.dtype.kind == "b" or (frame.dtype.kind in "iu" and frame.min() >= 0 and frame.max() <= 65535):
        return frame.astype(np.uint16)
    return frame.astype(np.float32) if frame.dtype.kind == "f" else frame


def _piled_up(frame: np.ndarray) -> tuple[float, float]:
    """Shares of the pixels that stand at the two ends of the range, above what the next value would let expect.

    A histogram that fades out has about as many pixels at its last value as at the one before; a clipped one a pile.
    """
    values, counts = np.unique(frame, return_counts=True)
    if len(values) < 3:
        return 0.0, 0.0
    low, high = counts[0] - 3 * counts[1], counts[-1] - 3 * counts[-2]
    return tuple(float(max(n, 0) / frame.size) if n > 2 else 0.0 for n in (low, high))


def _residual(p: np.ndarray) -> np.ndarray:
    """Second difference along both axes: the noise, mostly."""
    rows = p[:, 2:] - 2 * p[:, 1:-1] + p[:, :-2]
    return rows[2:] - 2 * rows[1:-1] + rows[:-2]


def _texture(piece: np.ndarray) -> np.ndarray:
    """`TEXTURE` of a crop.

    ``levels``: logarithm of distinct values over those expected of a smooth histogram, which is below zero where a
    stretched image has empty ones. ``equal``: logarithm of the share of neighbours that are equal, above what the
    number of values makes likely. ``period``: the strongest rhythm in the noise from row to row and from column to
    column, which interpolation leaves (Popescu and Farid, IEEE Trans. Signal Process. 53, 758, 2005). ``diagonal``:
    correlation of the noise of diagonal neighbours, which after-glow does not make.
    """
    pixels = piece.astype(np.float64)
    residual = _residual(pixels)
    power = np.mean(residual**2) + 1e-12
    chance = np.mean(pixels.flat[::7][:-3] == pixels.flat[::7][3:])
    equal = [np.mean(np.diff(pixels, axis=axis) == 0) - chance for axis in (1, 0)]
    periods = [_rhythm(np.log(np.abs(residual).mean(axis=a) + 1e-9 * np.sqrt(power) + 1e-12)) for a in (0, 1)]
    diagonal = np.mean(residual[1:, 1:] * residual[:-1, :-1]) / power
    return np.array([_level_ratio(piece), *(np.log10(max(e, 0) + 1e-3) for e in equal), *periods, diagonal])


def _level_ratio(piece: np.ndarray) -> float:
    whole = piece.dtype.kind in "iub" or bool((piece == np.rint(piece)).all())
    if not whole:
        return 0.0
    low, high = np.quantile(piece, (0.01, 0.99))
    inside = piece[(piece >= low) & (piece <= high)].astype(np.float64)
    width = max(1.0, np.ceil((high - low + 1) / 32))
    bins = np.bincount(((inside - low) // width).astype(int))
    expected = float(np.sum(width * -np.expm1(-bins / width)))
    return float(np.log(len(np.unique(inside)) / expected)) if expected >= 1 else 0.0


def _rhythm(profile: np.ndarray) -> float:
    """Logarithm of the strongest short period of a profile over the median one."""
    smooth = np.convolve(np.pad(profile, 4, mode="edge"), np.full(9, 1 / 9), "valid")
    power = np.abs(np.fft.rfft((profile - smooth) * np.hanning(len(profile)))) ** 2
    short = power[len(power) // 5 :]
    return float(np.log((short.max() + 1e-30) / (np.median(short) + 1e-12 * short.max() + 1e-30)))


def _fingerprint(frame: np.ndarray) -> np.ndarray:
    """Noise at points on a fixed pattern over the image, of mean 0 and length 1; zeros where there is none."""
    if min(frame.shape) < 8:
        return np.zeros(FINGERPRINT, np.float16)
    residual = _residual(frame.astype(np.float64))
    rng = np.random.default_rng(0)
    rows, columns = (np.floor(rng.random(FINGERPRINT) * n).astype(int) for n in residual.shape)
    points = residual[rows, columns]
    # A few bright edges must not stand for all of the image.
    limit = 4 * np.median(np.abs(points)) + 1e-12
    points = np.clip(points, -limit, limit)
    points = points - points.mean()
    return (points / max(np.linalg.norm(points), 1e-9)).astype(np.float16)


def _thumbnail(frame: np.ndarray, finite: bool) -> np.ndarray:
    """The image in means of blocks, from its 0.5th to its 99.5th percentile in 256 greys."""
    step = max(1, -(-max(frame.shape) // THUMBNAIL))
    height, width = (max(1, n // step) for n in frame.shape)
    cut = frame[: min(height * step, frame.shape[0]), : min(width * step, frame.shape[1])].astype(np.float64)
    cut = cut if finite else np.nan_to_num(cut, nan=0.0, posinf=0.0, neginf=0.0)
    tall, wide = (min(step, n) for n in cut.shape)
    small = cut[: cut.shape[0] // tall * tall, : cut.shape[1] // wide * wide]
    small = small.reshape(cut.shape[0] // tall, tall, cut.shape[1] // wide, wide).mean(axis=(1, 3))
    low, high = np.quantile(small, (0.005, 0.995))
    return np.clip((small - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
