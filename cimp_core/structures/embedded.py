"""The second look in a library: which patterns have the lengths, strengths and rows that an image shows?

The learnt embedding compares single reflections, each at its length: where tilt has wiped out all but one row of them,
or a short exposure all but the strongest, that still tells crystals apart when the whole of the picture does not. It
has to know lengths to a per cent; where they are known less well, it is not asked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from ..models.structure_encoder import StructureEncoder
from .embedding import embed, embed_lines, load
from .lattice_lines import FIELDS, LINES, RANGE, RATIO_FLOOR, ROW
from .lattice_waves import LEAST
from .projection import Pattern

__all__ = ["LARGEST_ERROR", "embed_patterns", "likenesses", "pattern_lines", "rows_of"]

WAVES = 1024
"""Of a row: half of what the model learnt with, evenly spread as well."""
LARGEST_ERROR = 0.01
"""Of the pixel size, relative, beyond which the embedding is not asked."""
CHUNK = 1024
"""Patterns whose lines are held in memory at a time."""
EXACT = 1e-5
"""Relative error of a pattern's lengths."""


def pattern_lines(pattern: Pattern, electrons: float = 10.0, pixels: int = 128**2) -> np.ndarray:
    """`lattice_lines` (64, 7) of a pattern as an image without noise shows it, as many as one of a dose would.

    Parameters
    ----------
    electrons : float
        Mean number at a pixel; pulses spread as of `views.recorded`.
    pixels : int
        Of the image.
    """
    g, amplitude = pattern.frequencies.astype(float), np.abs(pattern.coefficients) / max(pattern.mean, 1e-30)
    size, over = np.hypot(*g.T), amplitude**2 * electrons * pixels / 1.25
    seen = np.flatnonzero((size > RANGE[0]) & (size < RANGE[1]) & (over > LEAST))
    seen = seen[np.argsort(-over[seen], kind="stable")[:LINES]]
    both, sizes = np.concatenate([g, -g]), np.concatenate([amplitude, amplitude])
    ratios = []
    for k in ROW:
        apart = np.abs((k * g[seen])[:, None] - both).max(2)
        there = np.where(apart.min(1, initial=1) < 1e-3, sizes[apart.argmin(1)], 0.0) if len(seen) else np.zeros(0)
        ratios.append(np.log(there / amplitude[seen] + RATIO_FLOOR))
    lines = np.full((LINES, len(FIELDS)), np.nan, np.float32)
    told = [np.log(size[seen]), np.log(amplitude[seen]), np.log(over[seen]), *ratios]
    lines[: len(seen)] = np.stack([*told, np.full(len(seen), math.log(EXACT))], 1)
    return lines


def embed_patterns(
    model: StructureEncoder, patterns: Sequence[Pattern], length_error: float = 0.0, *, contrast: bool = False
) -> np.ndarray:
    """Unit rows (n, dim) float32 of library entries, to be compared with those of `embedding.embed`."""
    lines = np.stack([pattern_lines(pattern) for pattern in patterns])
    return embed_lines(model, lines, length_error, contrast=contrast, batch=64)


@cache
def narrow_model() -> StructureEncoder:
    """The shipped model with `WAVES` of its waves."""
    wide = load()
    n = wide.config.waves
    narrow = StructureEncoder(dataclasses.replace(wide.config, waves=WAVES))
    state = wide.state_dict()
    parts = state["common"].view(2, n)[:, :WAVES]
    state["common"] = parts.reshape(-1) * math.sqrt(n / WAVES)
    narrow.load_state_dict(state)
    return narrow.eval()


def rows_of(patterns: Sequence[Pattern]) -> np.ndarray:
    """Rows (n, 2048) float32 of a library's patterns, 8 kB each."""
    model, rows = narrow_model(), np.empty((len(patterns), 2 * WAVES), np.float32)
    for start in range(0, len(patterns), CHUNK):
        some = [patterns[i] for i in range(start, min(start + CHUNK, len(patterns)))]
        rows[start : start + CHUNK] = embed_patterns(model, some)
    return rows


def likenesses(rows: np.ndarray, image: np.ndarray, pixel_size: float, error: float) -> np.ndarray:
    """Cosines (n,) of an image's embedding with those of patterns.

    Parameters
    ----------
    rows : (n, 2048) array
        As of `rows_of`.
    pixel_size : float
        [angstrom]
    error : float
        Relative standard deviation of it.
    """
    return rows @ embed(narrow_model(), [image], pixel_size, length_error=error)[0]
