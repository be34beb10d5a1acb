"""The pictures of a study: found by file stem, read from several formats, and made alike but for what they show.

Raters must not be told methods apart by anything but what they see. So every picture becomes 8-bit grey by percentiles
of its own, whatever its type, scale or offset was, and is kept as plain bytes, as many for every picture of one shape:
a compressed format would be smaller for a smoother picture.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from ..errors import OutOfRangeError, SchemaError, UnreadableFileError

__all__ = ["SMALLEST", "SUFFIXES", "check_stems", "find_pictures", "load_picture", "read_picture", "spoil"]

SMALLEST = 16
"""Least side of a picture [px]."""

_ALSO = "_uncertainty"  # `cimp denoise` writes this beside its images


def find_pictures(pattern: str, root: Path, name: str) -> dict[str, Path]:
    """Files of a folder or pattern by stem, in natural order; files of other formats are passed over.

    Parameters
    ----------
    pattern : str
        Folder or glob, relative to `root`.
    root : Path
    name : str
        Whose pictures these are, for messages.
    """
    folder = root / pattern
    listed = folder.iterdir() if folder.is_dir() else map(Path, glob.glob(str(root / pattern), recursive=True))
    files = sorted(p for p in listed if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise UnreadableFileError(
            f"{name}: no pictures at {folder} ({kinds}); name a folder or a pattern such as 'a/*.tif'"
        )
    stems: dict[str, Path] = {}
    for path in files:
        if path.stem in stems:
            raise SchemaError(f"{name}: {stems[path.stem]} and {path} are two pictures of one name; keep one")
        stems[path.stem] = path
    kept = [s for s in stems if not (s.endswith(_ALSO) and s.removesuffix(_ALSO) in stems)]
    return {stem: stems[stem] for stem in sorted(kept, key=_natural)}


def check_stems(found: Mapping[str, Iterable[str]]) -> None:
    """Refuse methods that lack images which others have; which lacks what is said.

    Raises
    ------
    SchemaError
    """
    every = set().union(*found.values())
    lacking = {name: sorted(every.difference(stems), key=_natural) for name, stems in found.items()}
    parts = [f"{name} lacks {_some(stems)}" for name, stems in lacking.items() if stems]
    if parts:
        raise SchemaError(
            f"images of methods belong together by the names of their files, and {'; '.join(parts)}: "
            "add or rename files, or leave these images out everywhere"
        )


def load_picture(path: Path, low: float, high: float, crop: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a picture, keep its middle, and scale it to 8 bit.

    Parameters
    ----------
    path : Path
    low, high : float
        Percentiles of the values kept that become black and white [%].
    crop : int, optional
        Longest side that is kept [px].

    Returns
    -------
    grey : (h, w) uint8
    shape : (int, int)
        Rows and columns of the file.

    Raises
    ------
    UnreadableFileError
        The file is no single grey picture.
    OutOfRangeError
        Values are not finite, or all alike.
    """
    values = read_picture(path)
    shape = values.shape
    if crop:
        top, left = (max(0, (side - crop) // 2) for side in shape)
        values = values[top : top + crop, left : left + crop]
    if min(values.shape) < SMALLEST:
        raise OutOfRangeError(
            f"{path}: {shape[0]} x {shape[1]} pixels are too few to be judged; {SMALLEST} are the least"
        )
    values = values.astype(np.float64)
    if bad := int(np.sum(~np.isfinite(values))):
        raise OutOfRangeError(f"{path}: {bad} values are not finite; repair the picture or leave its image out")
    black, white = np.percentile(values, (low, high))
    if not white > black:
        raise OutOfRangeError(
            f"{path}: its percentiles {low:g} and {high:g} are both {black:g}, so there is nothing to see; "
            "leave the image out, or widen 'display'"
        )
    return _grey(values, black, white), shape


def spoil(grey: np.ndarray, key: str) -> np.ndarray:
    """The same picture beyond doubt worse: blurred until only its coarsest forms are left, then covered with noise.

    Parameters
    ----------
    grey : (h, w) uint8
    key : str
        What the noise is drawn by.
    """
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(grey.astype(np.float64), max(3.0, min(grey.shape) / 24))
    seed = list(hashlib.sha256(key.encode()).digest())
    noisy = blurred + np.random.default_rng(seed).normal(0, 60, grey.shape)
    return _grey(noisy, *np.percentile(noisy, (0.1, 99.9)))


def _grey(values: np.ndarray, black: float, white: float) -> np.ndarray:
    # Halved first, for the difference of two values of the largest floating-point type can be infinite.
    shares = (values / 2 - black / 2) / (white / 2 - black / 2)
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def read_picture(path: Path) -> np.ndarray:
    """Values of a picture file, (h, w).

    Raises
    ------
    UnreadableFileError
        The file cannot be read, or holds anything but one grey picture.
    """
    try:
        values = np.asarray(SUFFIXES[path.suffix.lower()](path))
    except KeyError:
        raise UnreadableFileError(f"{path}: pictures are read from {', '.join(SUFFIXES)}") from None
    except UnreadableFileError:
        raise
    except Exception as error:  # what a damaged file raises is up to its reader
        raise UnreadableFileError(f"{path}: cannot be read ({type(error).__name__}: {_line(error)})") from error
    if values.ndim == 3 and values.shape[-1] in (3, 4) and np.all(values[..., :3] == values[..., :1]):
        values = values[..., 0]  # grey, stored as a colour
    values = values.squeeze() if values.ndim > 2 else values
    if values.ndim != 2 or not values.size:
        shape = " x ".join(map(str, values.shape)) or "a single value"
        raise UnreadableFileError(f"{path}: {shape} is not one grey picture; save one picture a file, in grey")
    if values.dtype.kind not in "buif":
        raise UnreadableFileError(f"{path}: holds values of type {values.dtype}, not real numbers")
    return values


def _tif(path: Path) -> np.ndarray:
    import tifffile

    return tifffile.imread(path)


def _png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB") if image.mode == "P" else image)


def _npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _hspy(path: Path) -> np.ndarray:
    import hyperspy.api as hs

    signal = hs.load(path)
    if isinstance(signal, list):
        raise UnreadableFileError(f"{path}: holds {len(signal)} signals; save one picture a file")
    return signal.data


SUFFIXES: dict[str, Callable[[Path], np.ndarray]] = {
    ".tif": _tif,
    ".tiff": _tif,
    ".png": _png,
    ".npy": _npy,
    ".hspy": _hspy,
}
"""Formats, and how each is read."""


def _natural(stem: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts im2 before im10."""
    parts = re.split(r"([0-9]+)", stem)
    return [(int(part), "") if k % 2 else (0, part) for k, part in enumerate(parts)], stem


def _some(stems: list[str]) -> str:
    return ", ".join(stems[:5]) + (f" and {len(stems) - 5} more" if len(stems) > 5 else "")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
