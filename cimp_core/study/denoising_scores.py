"""All that is measured of one restored image, as one line of a table."""

from __future__ import annotations

import zlib

import numpy as np

from ..metrics_denoising import affine_error, coverage, dose_gain, frc, frc_resolution, psnr, region_bias, ssim
from ..metrics_structure import Columns, column_score, false_spot, fringe_kept, power_left, true_columns
from ..simulate.detector import electrons
from .denoising_cases import LADDER, Case
from .probe_rows import BELOW

__all__ = ["COLUMNS", "scores"]

COLUMNS = (
    "method",
    "key",
    "kind",
    "image",
    "session",
    "material",
    "electrons",
    "dwell_time",  # s
    "decay_time",  # s, of the detector
    "pixel_size",  # m
    "factor",
    "error",  # counts^2, after an affine match
    "raw_error",
    "gain",  # dose-equivalent
    "beyond",  # whether the gain was clipped, and where
    "psnr",  # dB
    "ssim",
    "resolution",  # cycles/pixel at which the ring correlation with the truth falls below 0.5 for the last time
    "columns",  # true ones
    "precision",
    "recall",
    "f1",
    "column_error",  # m
    "fringe",  # amplitude kept of faint fringes
    "fringes",
    "spot",  # contrast of the strongest spot, where nothing is there to be seen
    "left",  # variance left of the noise, where nothing is there to be seen
    "bias",  # median relative error of mean intensities of regions
    "bias_largest",
    "bias_within",  # share of regions within 1 %
    "regions",
    "cover68",
    "cover95",
    "seconds",
)
"""Of a table of scores; what is not known or does not apply is empty."""


def scores(case: Case, image: np.ndarray, deviation: np.ndarray | None, truth: np.ndarray, factor: float) -> dict:
    """Every measure of a restored `image` (h, w) of a case; `truth` is that at `factor`."""
    settings, detector = case.acquisition, case.shot.detector
    line = {name: getattr(case, name) for name in ("key", "kind", "image", "session", "material", "electrons")}
    line |= {"dwell_time": settings.dwell_time, "decay_time": detector.decay_time, "pixel_size": settings.pixel_size}
    line["factor"] = factor
    if deviation is not None:
        line |= {f"cover{round(100 * p)}": coverage(image, deviation, truth, p) for p in (0.68, 0.95)}
    if case.kind in ("vacuum", "even"):
        line |= {"spot": false_spot(image, truth, case.frame), "left": power_left(image, truth, case.frame)}
    else:
        line |= _against_truth(case, image, truth, factor)
    line |= _regions(case, image, truth)
    return {name: _short(value) for name, value in line.items()}


def _against_truth(case: Case, image: np.ndarray, truth: np.ndarray, factor: float) -> dict:
    error, ladder = affine_error(image, truth), case.raw_errors[factor]
    gain = dose_gain(error, ladder, LADDER)
    line = {"error": error, "raw_error": ladder[0], "gain": gain.factor, "beyond": gain.beyond}
    line |= {
        "psnr": psnr(image, truth),
        "ssim": ssim(image, truth),
        "resolution": frc_resolution(*frc(image, truth), last=True),
    }
    line["fringe"], line["fringes"] = fringe_kept(image, truth, case.frame)
    pixel_size = case.acquisition.pixel_size
    columns = _columns(case, truth) if pixel_size < BELOW else None
    if columns is not None:
        found = column_score(image, truth, columns)
        line |= {"columns": found.count, "precision": found.precision, "recall": found.recall, "f1": found.f1}
        line["column_error"] = found.error * pixel_size
    return line


def _regions(case: Case, image: np.ndarray, truth: np.ndarray) -> dict:
    detector = case.shot.detector
    number = electrons(case.fraction, case.acquisition, detector)
    black = detector.black_at(case.acquisition.detector_offset)
    bias = region_bias(image, truth, black, number, spread=detector.pulse_height_spread)
    found = {"bias": bias.median, "bias_largest": bias.largest, "bias_within": bias.within}
    return found | {"regions": bias.regions}


_found: dict[tuple[str, int], Columns | None] = {}


def _columns(case: Case, truth: np.ndarray) -> Columns | None:
    """Columns of the truth, found once for all doses of a scan: only the scale of the counts differs."""
    scale, key = float(truth.std()), (case.scan, zlib.crc32(case.fraction.tobytes()))
    if key not in _found:
        if len(_found) > 64:
            _found.clear()
        columns = true_columns(truth)
        _found[key] = None if columns is None else columns._replace(contrast=columns.contrast / scale)
    columns = _found[key]
    return None if columns is None else columns._replace(contrast=columns.contrast * scale)


def _short(value: object) -> object:
    """Numbers as text of six digits, nan as nothing."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value
