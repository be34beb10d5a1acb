"""Frames of known truth for tests of advice: a square lattice of Gaussian columns, recorded by the twin's detector."""

from dataclasses import replace

import numpy as np

from cimp_core.metadata import Acquisition
from cimp_core.simulate.detector import Detector, expected_counts, record

SETTINGS = Acquisition(2e-11, 1e-6, 0.021, 60e-12, 32.0, -1.2, 0.06)
DETECTOR = Detector(4000.0, 0.18, 12000.0, 6500.0, 0.0, 0.5, 0.0, 10.0)


def lattice(size=192, spacing=12.0, width=2.4, height=0.08, floor=0.02):
    """Fraction of the electrons at each position, (size, size)."""
    y, x = np.mgrid[:size, :size].astype(float)
    out = np.full((size, size), floor)
    for a in np.arange(spacing / 2, size, spacing):
        for b in np.arange(spacing / 2 + 0.3, size, spacing):
            out += height * np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * width**2))
    return out


class Bench:
    """A microscope in a few lines: exposes `fraction`, or what `changes` puts in its place for a frame."""

    def __init__(self, fraction=None, detector=DETECTOR, changes=None, seed=0):
        self.fraction = lattice() if fraction is None else fraction
        self.detector, self.changes, self.rng = detector, changes or {}, np.random.default_rng(seed)
        self.asked = []

    def expose(self, settings):
        self.asked.append(settings)
        fraction = self.changes.get(len(self.asked), self.fraction)
        return record(fraction, settings, self.detector, self.rng)

    def expected(self, settings):
        return expected_counts(self.fraction, settings, self.detector)


def glowing(decay_time):
    return replace(DETECTOR, decay_time=decay_time)
