"""Which crystal of a library does a micrograph show, along which axis, or is it none of them?

    library -> nearest by description -> rolled polar maps -> laid on the peaks -> fitted by pixel -> probabilities

Where the pixel size is known well enough, entries that are nearest by the learnt embedding are laid and fitted as well.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutOfRangeError
from . import fit as fits
from . import polar
from .answers import Candidate, Grain, Match
from .index import FIELDS, Index, clear_map, strong
from .polar import Overlap, PolarMap
from .probability import probabilities
from .query import Query, prepare
from .regions import find_grains

if TYPE_CHECKING:
    from .library import Library

__all__ = [
    "Candidate",
    "Grain",
    "Match",
    "candidates",
    "index_of",
    "keep",
    "keep_rows",
    "match",
]

SHORTLIST, SECOND, LAID, REFINED = 60, 12, 20, 12
"""Entries that are compared by rolled maps; that the embedding adds; of the first, laid on the peaks; of all of these,
fitted by pixel."""
PIXEL_ERROR = 0.05


def match(
    shot: Any,
    library: Library,
    k: int = 5,
    region: tuple[slice, slice] | None = None,
    grains: str | int = "auto",
    pixel_size_error: float = PIXEL_ERROR,
    pixel_size: float | None = None,
) -> Match:
    """Find a micrograph's structure in a library.

    Parameters
    ----------
    shot : Micrograph or (rows, columns) array
        A series of frames is averaged.
    library : Library
        See `cimp_core.structures.library`.
    k : int
        Candidates that are returned for each grain.
    region : (slice, slice), optional
        Rows and columns to look at.
    grains : "auto" or int
        How many lattices to look for at most; "auto" looks for up to 4, and 1 takes the whole image as one.
    pixel_size_error : float
        Relative standard deviation of the pixel size; 0 to 0.1. Up to 0.01 the learnt embedding is asked as well.
    pixel_size : float, optional
        [m]; instead of the shot's own.

    Raises
    ------
    OutOfRangeError
        The pixel size is unknown; the image is saturated, constant, too small, or has values that are not finite; a
        region or another argument is impossible.
    """
    image, size = _image(shot, pixel_size)
    if not 0 <= pixel_size_error <= 0.1:
        raise OutOfRangeError(f"pixel_size_error {pixel_size_error:g}: from 0 to 0.1 can be tolerated")
    if k < 1 or not (grains == "auto" or (isinstance(grains, int) and grains >= 1)):
        raise OutOfRangeError(f"k={k!r}, grains={grains!r}: k and grains are at least 1, grains may be 'auto'")
    if region is not None:
        image = image[region]
        if image.ndim != 2 or min(image.shape) < 16:
            raise OutOfRangeError(f"the region has shape {image.shape}; two axes of at least 16 pixels are needed")
    notes = _judge(image)
    found = []
    for part in find_grains(image, size, 4 if grains == "auto" else grains):
        ranked, none, query = candidates(image[part.window], size, library, pixel_size_error)
        found.append(Grain(part, tuple(ranked[:k]), none, query))
    return Match(tuple(found), tuple(notes))


def _image(shot: Any, pixel_size: float | None) -> tuple[np.ndarray, float]:
    """Pixels (rows, columns) and their size [angstrom]."""
    if hasattr(shot, "acquisition"):
        data = shot.image.data
        data = np.asarray(data.compute() if hasattr(data, "compute") else data, float)
        size = pixel_size or shot.acquisition.pixel_size
    else:
        data, size = np.asarray(shot, float), pixel_size
    if data.ndim == 3:
        data = data.mean(0)
    if data.ndim != 2:
        raise OutOfRangeError(f"an image of shape {data.shape}: one image, or a series of frames, is needed")
    if size is None:
        raise OutOfRangeError("the pixel size is unknown, and spacings tell crystals apart: pass pixel_size=... [m]")
    if not (math.isfinite(size) and size > 0):
        raise OutOfRangeError(f"pixel size {size!r} m: a positive number is needed")
    return data, float(size) * 1e10


def _judge(image: np.ndarray) -> list[str]:
    """Refuse what cannot be matched; notes on what can, with care."""
    if not np.isfinite(image).all():
        raise OutOfRangeError("the image has values that are not finite; crop them away or fill them")
    if np.ptp(image) == 0:
        raise OutOfRangeError("the image is constant: there is nothing to match")
    top = float((image == image.max()).mean())
    if top > 0.2:
        raise OutOfRangeError(f"{top:.0%} of the pixels have the highest value: the image is saturated")
    return [f"{top:.1%} of the pixels have the highest value: the brightest columns are cut off"] if top > 0.01 else []


def candidates(
    image: np.ndarray, pixel_size: float, library: Library, error: float = PIXEL_ERROR, without: Sequence[int] = ()
) -> tuple[list[Candidate], float, Query]:
    """Fitted entries of a library with probabilities, best first, the probability of none, and the prepared image.

    Parameters
    ----------
    pixel_size : float
        [angstrom]
    error : float
        Relative standard deviation of the pixel size.
    without : sequence of int
        Entries that are passed over.
    """
    query = prepare(image, pixel_size)
    mapped = polar.of_image(image, pixel_size)
    near, alike = rolled(mapped, library, error, without), likenesses(image, pixel_size, library, error)
    also = second_look(mapped, library, error, alike, without)
    refined = fitted(query, near, library, error, also, alike)
    chances, none = probabilities(query, refined, error)
    ranked = [replace(c, probability=float(p)) for c, p in zip(refined, chances, strict=True)]
    return sorted(ranked, key=lambda c: -c.probability), none, query


def likenesses(image: np.ndarray, pixel_size: float, library: Library, error: float) -> np.ndarray | None:
    """Cosines (n,) of an image's learnt embedding with those of the entries.

    None where the pixel size is known too badly for it.
    """
    from . import embedded  # brings torch, which not every match needs

    if error > embedded.LARGEST_ERROR:
        return None
    if library not in _EMBEDDED:
        keep_rows(library, embedded.rows_of([entry.pattern for entry in library]))
    return embedded.likenesses(_EMBEDDED[library], image, pixel_size, error)


def second_look(
    mapped: PolarMap, library: Library, error: float, alike: np.ndarray | None, without: Sequence[int] = ()
) -> list[tuple[int, list[Overlap]]]:
    """The entries of the largest `likenesses`, best first, each with its best rotations."""
    if alike is None:
        return []
    skipped = set(without)
    chosen = [n for n in np.argsort(-alike, kind="stable")[: SECOND + len(skipped)].tolist() if n not in skipped]
    places = dict(turned(mapped, library, error, chosen[:SECOND]))
    return [(number, places[number]) for number in chosen if number in places]


def rolled(
    mapped: PolarMap, library: Library, error: float, without: Sequence[int] = ()
) -> list[tuple[int, list[Overlap]]]:
    """Entries whose polar maps lie best on an image's, best first, each with its best rotations."""
    skipped = set(without)
    near = index_of(library, mapped.field).nearest(mapped, SHORTLIST + len(skipped), 1.5 * error).tolist()
    return turned(mapped, library, error, [number for number in near if number not in skipped])


def turned(mapped: PolarMap, library: Library, error: float, numbers: Sequence[int]) -> list[tuple[int, list[Overlap]]]:
    """Some entries, each with the rotations at which its polar map lies best on an image's; best first."""
    clear, found = replace(mapped, values=strong(mapped.values)), []
    for number in numbers:
        one = clear_map(library[number].pattern, mapped.field)
        places = polar.overlaps(clear, one, 1.5 * error, mirror=False)
        found += [(number, places)] if places else []
    return sorted(found, key=lambda f: -f[1][0].score)


def fitted(
    query: Query,
    found: Sequence[tuple[int, list[Overlap]]],
    library: Library,
    error: float,
    also: Sequence[tuple[int, list[Overlap]]] = (),
    alike: np.ndarray | None = None,
) -> list[Candidate]:
    """The best of those found, and all of `also`, laid on the image's peaks, and the best of these fitted by pixel."""
    laid = []
    for number, places in dict([*found[:LAID], *also]).items():
        entry = library[number]
        likely = [place for place in places if place.score > places[0].score - 0.1]
        tried = [one for place in likely for one in fits.lay(query, entry.pattern, place, error)]
        if tried:
            best = max(tried, key=lambda f: f.explained)
            likeness = None if alike is None else float(alike[number])
            laid.append(Candidate(number, entry, places[0].score, best, likeness))
    # The likeliest by what they explain as they lie, and by their maps alone: a fit may still move what lies badly.
    orders = [sorted(laid, key=lambda c: -c.fit.explained), sorted(laid, key=lambda c: -c.overlap)]
    if also:  # so may one of which tilt has left little more than a row
        second = [number for number, _ in also]
        orders.append(sorted(laid, key=lambda c: second.index(c.number) if c.number in second else len(second)))
    chosen = {c.number: c for some in zip(*orders, strict=True) for c in some}
    best = list(chosen.values())[:REFINED]
    return [replace(c, fit=fits.refine(query, c.entry.pattern, c.fit, error=max(error, 1e-3))) for c in best]


_INDICES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_EMBEDDED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def index_of(library: Library, field: float) -> Index:
    """Of the field of view nearest to an image's [angstrom], kept as long as the library is."""
    nearest = min(FIELDS, key=lambda f: abs(math.log(f / field)))
    if nearest not in _INDICES.setdefault(library, {}):
        keep(library, Index([entry.pattern for entry in library], nearest))
    return _INDICES[library][nearest]


def keep(library: Library, index: Index) -> None:
    """Use an index that was made before; its rows are those of the library."""
    if len(index) != len(library):
        raise OutOfRangeError(f"an index of {len(index)} rows is not that of a library of {len(library)} entries")
    _INDICES.setdefault(library, {})[index.field] = index


def keep_rows(library: Library, rows: np.ndarray) -> None:
    """Use embeddings that were made before, as of `embedded.rows_of`."""
    if len(rows) != len(library):
        raise OutOfRangeError(f"{len(rows)} embeddings are not those of a library of {len(library)} entries")
    _EMBEDDED[library] = rows
