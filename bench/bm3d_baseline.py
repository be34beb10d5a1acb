"""BM3D on the recordings of the denoising study: writes the table ``bm3d.csv`` beside those of the other methods.

    python -m venv other && other/bin/pip install -e . bm3d==4.0.3
    other/bin/python bench/bm3d_baseline.py WORK/cases --tables WORK/tables [--every 2]

A second environment: the package bm3d may be used for non-commercial purposes only, so it is no dependency of this one.
BM3D is given what no user has: the true black level, counts per electron, spread of pulse heights, read noise, and
the spectrum of the after-glow; and the better of two pictures, judged by the truth: with variance stabilisation
(generalised Anscombe transform and the closed form of its unbiased inverse; Mäkitalo and Foi, IEEE TIP 22:91, 2013)
and without.
About 5.5 s of one slow core a picture of 256 x 256, so twice that a recording: ``--every 2`` takes every second image.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.constants import elementary_charge

from cimp_core.simulate.detector import after_glow
from cimp_core.study.denoising import evaluate
from cimp_core.study.denoising_cases import Case, Cases

if not hasattr(np, "trapz"):  # bm4d 4.2.5 calls it for coloured noise; NumPy 2.4 has it under its new name only
    vars(np)["trapz"] = np.trapezoid


class Bm3d:
    """BM3D with the true noise of one case; ``tuned(frame, truth)`` as `cimp_core.study.denoising.evaluate` asks."""

    name, margin = "bm3d", 64

    def __init__(self, case: Case) -> None:
        settings, detector = case.acquisition, case.shot.detector
        readout = 1.0 if detector.readout == "mean" else settings.dwell_time / 1e-6
        electron = detector.slope_at(settings.detector_gain) * elementary_charge / settings.dwell_time * 1e12 * readout
        self.black = readout * detector.black_at(settings.detector_offset)
        # A light pulse counts in several pixels: the variance is less, and coloured along the row.
        pulse = np.zeros((1, case.frame.shape[1]))
        pulse[0, 0] = 1.0
        glow = after_glow(pulse, detector.decay_time, settings.dwell_time)
        self.scale = electron * (1 + detector.pulse_height_spread**2) * float((glow**2).sum())  # counts
        self.read = readout * detector.read_noise * math.sqrt(1e-6 / settings.dwell_time)  # counts
        self.colour = np.abs(np.fft.fft(glow)) ** 2 / float((glow**2).sum())  # (1, w), mean 1

    def spectrum(self, shape: tuple[int, int], shot: float) -> np.ndarray:
        """Noise power (h, w) as BM3D takes it, for a variance `shot` of electrons and that of read noise."""
        return np.broadcast_to(shot * self.colour + self.read**2, shape) * math.prod(shape)

    def plain(self, frame: np.ndarray) -> np.ndarray:
        """Without stabilisation, with the mean variance of the frame's own signal."""
        from bm3d import bm3d

        shot = self.scale * max(float(frame.mean()) - self.black, 0.0)
        return bm3d(frame.astype(float), self.spectrum(frame.shape, shot))

    def stabilised(self, frame: np.ndarray) -> np.ndarray:
        """With stabilisation to variance 1; colour as of the mean signal."""
        from bm3d import bm3d

        sigma2 = (self.read / self.scale) ** 2  # of read noise, in units of the gain
        counts = (frame.astype(float) - self.black) / self.scale
        stable = 2 * np.sqrt(np.clip(counts + 3 / 8 + sigma2, 0, None))
        shot = self.scale * max(float(frame.mean()) - self.black, 0.0)
        power = self.spectrum(frame.shape, shot)
        y = np.clip(bm3d(stable, power / power.mean() * frame.size), 0.5, None)
        root = math.sqrt(1.5)
        inverse = y**2 / 4 + root / (4 * y) - 11 / (8 * y**2) + 5 * root / (8 * y**3) - 1 / 8 - sigma2
        return inverse * self.scale + self.black

    def tuned(self, frame: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The picture that the truth is correlated with the most."""
        made = [self.plain(frame), self.stabilised(frame)]
        return max(made, key=lambda picture: np.corrcoef(picture.ravel(), truth.ravel())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path, help="folder of cimp_core.study.denoising_cases")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the study's tables")
    parser.add_argument("--kinds", nargs="*", default=["dose", "short"])
    parser.add_argument("--every", type=int, default=2, help="take every so many-th image of each kind")
    parser.add_argument("--part", default="0/1", help="this process of so many side by side, with a table each: 1/2")
    arguments = parser.parse_args()
    part, parts = (int(n) for n in arguments.part.split("/"))
    cases = Cases(arguments.cases).of(kinds=arguments.kinds)
    images: dict[str, list[int]] = {}
    for key in cases.keys:
        seen = images.setdefault(cases.about(key)["kind"], [])
        if cases.about(key)["image"] not in seen:
            seen.append(cases.about(key)["image"])
        place = seen.index(cases.about(key)["image"])
        if place % arguments.every or place // arguments.every % parts != part:
            continue
        one = Cases(arguments.cases, [key])
        path = evaluate(Bm3d(one.load(key)), one, arguments.tables, name="bm3d" if parts == 1 else f"bm3d_{part}")
        print(path, key, flush=True)


if __name__ == "__main__":
    main()
