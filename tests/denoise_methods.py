"""Methods for tests of what is around the methods: small, exact, and with a record of what they were given."""

import numpy as np
from scipy.ndimage import gaussian_filter

from cimp_core.metadata import Acquisition


class Blur:
    """Gaussian of width `sigma` with a finite margin, so that tiles and the whole frame give the same numbers."""

    name = "blur"
    encoder = None  # the comparison of settings and picture is replaced in tests

    def __init__(self, sigma=1.5, deviation=True):
        self.sigma, self.margin, self.deviation = sigma, int(4 * sigma + 0.5), deviation
        self.calls = []

    def __call__(self, frame, acquisition, factor):
        assert frame.dtype == np.float32 and min(frame.shape) >= 32 and isinstance(acquisition, Acquisition)
        self.calls.append((frame.shape, acquisition, factor))
        image = gaussian_filter(frame, self.sigma, truncate=4.0, mode="reflect")
        return image, np.full_like(image, 3.0) if self.deviation else None


class Adapted(Blur):
    """A method that has to see the frame first."""

    def for_frame(self, frame):
        self.seen = frame.shape
        made = Blur(self.sigma)
        made.calls = self.calls
        return made
