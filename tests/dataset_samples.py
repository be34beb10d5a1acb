"""A small table with missing and equal rows, and images of different sizes, for the tests of data sets."""

import numpy as np

PLAIN = [2e-11, 1e-6, 0.02, 5e-11, 33.0, -0.5, 0.05]


def table(count=12, seed=0):
    rng = np.random.default_rng(seed)
    raw = np.array(PLAIN) * rng.uniform(0.5, 2.0, (12, 7))
    raw[3] = raw[1]
    raw[4, 3] = np.nan
    raw[5] = raw[4]
    return raw.astype(np.float32)[:count]


def pictures(count=12, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(count):
        yield rng.integers(0, 65536, (20 + i, 24), dtype=np.uint16)


def paths(count=12):
    return [f"day {i // 4}/file {i // 2}.emd" for i in range(count)]
