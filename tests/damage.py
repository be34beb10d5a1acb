"""Damaged copies of a file: cut off, overwritten, or with single bytes changed."""

from collections.abc import Iterator

import numpy as np


def damaged_copies(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` (description, bytes) pairs; the same arguments give the same copies.

    One in five is cut off. Of the others a third has changes anywhere, a third in the first or last 4 KiB, where
    formats keep their structure, and a third within text, where they keep their metadata.
    """
    rng = np.random.default_rng(seed)
    original = np.frombuffer(data, np.uint8)
    text = np.flatnonzero((original >= 32) & (original < 127))
    for number in range(count):
        if number % 5 == 0:
            # Cuts at every scale: near the start, in the middle, just before the end.
            keep = int(rng.choice([rng.uniform(), rng.uniform() ** 4, 1 - rng.uniform() ** 4]) * len(data))
            yield f"cut to {keep} bytes", data[:keep]
            continue
        if number % 3 == 0:
            where = rng.integers(len(data), size=64)
        elif number % 3 == 1:
            near = rng.integers(min(4096, len(data)), size=64)
            where = np.where(rng.random(64) < 0.7, near, len(data) - 1 - near)
        else:
            where = rng.choice(text, size=64)
        where = where[: int(2 ** rng.uniform(0, 6))]
        copy = original.copy()
        if rng.random() < 0.2:  # a whole word of extreme value: sizes and offsets become absurd
            where = (where[:2, None] + np.arange(4)).ravel() % len(data)
            copy[where] = rng.choice([0, 0x7F, 0x80, 0xFF])
        else:
            copy[where] = rng.integers(256, size=len(where))
        yield f"{len(where)} bytes changed, first at {int(where[0])}", copy.tobytes()
