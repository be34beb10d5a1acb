"""What matching answers: candidates of each grain, their probabilities, and that of none of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OutOfRangeError
from . import fit as fits
from .fit import Fit
from .query import Query
from .regions import Region

if TYPE_CHECKING:
    import pandas as pd

    from .library import Entry

__all__ = ["NONE", "Candidate", "Grain", "Match"]

NONE = "none of these"


@dataclass(frozen=True, eq=False)
class Candidate:
    """An entry of the library in its best place in the image; `probability` that it is the one.

    `overlap` is the correlation of polar maps, `likeness` the cosine of learnt embeddings; None where the pixel size is
    known too badly for these.
    """

    number: int
    entry: Entry
    overlap: float
    fit: Fit
    likeness: float | None = None
    probability: float = math.nan


@dataclass(frozen=True, eq=False)
class Grain:
    """A part of the image that shows one lattice.

    Attributes
    ----------
    region : Region
    candidates : tuple of Candidate
        The most probable first.
    none : float
        Probability that it is no entry of the library.
    query : Query
    """

    region: Region
    candidates: tuple[Candidate, ...]
    none: float
    query: Query

    def residual(self, rank: int = 0) -> np.ndarray:
        """Image less fitted pattern, in standard deviations of the image's noise; binned and cropped as `query` is."""
        if not self.candidates:
            raise OutOfRangeError("no candidate was fitted, so there is no residual")
        one = self.candidates[rank]
        sigma = math.sqrt(max(self.query.noise, 1e-4))
        return (self.query.image - fits.model(self.query, one.entry.pattern, one.fit)) / sigma


@dataclass(frozen=True, eq=False)
class Match:
    """What `match` found.

    Attributes
    ----------
    grains : tuple of Grain
        The largest first.
    notes : tuple of str
        What to know about it.
    """

    grains: tuple[Grain, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Candidate | None:
        """Of the largest grain; None where "none of these" is more probable than the candidate."""
        grain = self.grains[0]
        first = grain.candidates[0] if grain.candidates else None
        return first if first is not None and first.probability >= grain.none else None

    @property
    def table(self) -> pd.DataFrame:
        """A line a candidate and one for "none of these", grain by grain.

        grain, rank, structure, formula, space_group, zone, thickness [m], angle [deg], scale_error, mirrored,
        explained, probability.
        """
        import pandas as pd

        lines = []
        for number, grain in enumerate(self.grains):
            for rank, one in enumerate(grain.candidates):
                s = one.entry.structure
                line = {"grain": number, "rank": rank + 1, "structure": s.name, "formula": s.formula}
                line |= {"space_group": s.space_group, "zone": one.entry.zone, "thickness": one.entry.thickness}
                line |= {"angle": math.degrees(one.fit.angle), "scale_error": one.fit.scale - 1}
                line |= {"mirrored": one.fit.mirrored, "explained": one.fit.explained}
                lines.append(line | {"probability": one.probability})
            lines.append({"grain": number, "structure": NONE, "probability": grain.none})
        return pd.DataFrame(lines)

    def __repr__(self) -> str:
        lines = []
        for number, grain in enumerate(self.grains):
            first = grain.candidates[0] if grain.candidates else None
            if first is None or first.probability < grain.none:
                said = f"{NONE} ({grain.none:.0%})"
            else:
                said = f"{first.entry.describe()} at {math.degrees(first.fit.angle):.1f} deg ({first.probability:.0%})"
            lines.append(f"grain {number} ({grain.region.share:.0%}): {said}")
        return "<Match\n  " + "\n  ".join(lines) + ">"
