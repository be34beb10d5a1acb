"""Real repeats: what a method makes of a low-dose frame, against a frame of the same area at a higher dose.

There is no truth, and single atoms jump under the beam, so pixels are not compared. What two frames share is: their
cross spectrum, in bands of frequency, has no contribution of noise, since that of the two frames is independent.

- ``frc``: Fourier ring correlation with the other frame. A linear filter hardly changes it, a better estimate does.
  ``frc_over_raw`` is what is won over the raw frame.
- ``kept``: amplitude of what both frames show, over that of the raw frame. 1 keeps it, 0 smooths it away.
- ``noise``: amplitude of what the other frame does not show, over that of the raw frame.
- ``level``: mean of the thin, middle and thick part of the support, over that of the raw frame, after dark level.
- ``texture``: as ``noise``, all frequencies above 1 / nm together, in the part of the support that is the thinnest.

Frames are brought together by cross-correlation, blind to shapes larger than a few nanometres; the other frame is
shifted, never the method's picture. Intervals are over blocks of the area.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import OutOfRangeError, UnreadableFileError
from ..metadata import Acquisition
from ..metrics import bootstrap_interval
from ..results import update_results
from .rows import print_rows, row

__all__ = ["BANDS", "PAIRS", "Repeat", "compare_repeat", "gaussian_nearest", "open_repeats", "registered", "shift_of"]

BANDS = ((0.4, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0))
"""Bands [1/nm]: shape of the support, its texture, spacing and image of single atoms, and beyond what is resolved."""

PAIRS = (("047", "048"), ("047", "051"), ("025", "027"))
"""Numbers of the HPAI-BSC frames: the lower dose first, of 1/3.7, 1/3.7 and about 1/2 of the other."""

BLOCK = 96
SUPPORT = 5e-10  # the support's thickness is seen at this resolution [m]


@dataclass(frozen=True)
class Repeat:
    """Two frames (h, w) of one area, the lower dose first; the second is shifted onto the first, both are cut."""

    name: str
    low: np.ndarray
    high: np.ndarray
    pixel_size: float  # m
    shift: tuple[float, float]  # of the second frame, down and right [pixels]


def shift_of(first: np.ndarray, second: np.ndarray, fine: float = 3.0, coarse: float = 30.0) -> tuple[float, float]:
    """How far `second` has to be shifted, down and right, to lie on `first` [pixels, to a tenth].

    Structures between `fine` and `coarse` pixels decide, under a window: the frame's edge and anything that stays at
    one place of the frame, such as streaks, would else win over a weak repeat.
    """
    step, total = _seen_shift(first, second, fine, coarse), (0, 0)
    for _ in range(2):  # again on what both frames show: what only one of them shows draws the first answer aside
        total = tuple(t + round(s) for t, s in zip(total, step))
        ours, theirs = _overlap(total, first.shape)
        if min(s.stop - s.start for s in ours) < 64:
            raise OutOfRangeError(f"shifted by {total} pixels, the frames share too little")
        rest = _seen_shift(first[ours], second[theirs], fine, coarse)
        step = rest
    return float(total[0] + rest[0]), float(total[1] + rest[1])


def _seen_shift(first: np.ndarray, second: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    from skimage.registration import phase_cross_correlation

    window = np.hanning(first.shape[0])[:, None] * np.hanning(first.shape[1])
    seen = []
    for frame in (first, second):
        band = ndimage.gaussian_filter(frame.astype(float), fine) - ndimage.gaussian_filter(frame.astype(float), coarse)
        seen.append((band - band.mean()) * window)
    return phase_cross_correlation(*seen, normalization=None, upsample_factor=10)[0]


def _overlap(whole: Sequence[int], shape: tuple[int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What both frames show when the second is shifted by whole pixels, in the first and in the second."""
    ours = tuple(slice(max(0, w), n + min(0, w)) for w, n in zip(whole, shape))
    return ours, tuple(slice(max(0, -w), n + min(0, -w)) for w, n in zip(whole, shape))


def registered(name: str, low: np.ndarray, high: np.ndarray, pixel_size: float) -> Repeat:
    """Both frames cut to what they share, the second shifted by whole pixels and, in Fourier space, the rest.

    Raises
    ------
    OutOfRangeError
        Frames of different size, or they share less than two blocks a side.
    """
    if low.shape != high.shape:
        raise OutOfRangeError(f"{name}: frames of {low.shape} and {high.shape} pixels; repeats have one size")
    shift = shift_of(low, high)
    whole = [round(s) for s in shift]
    ours, theirs = _overlap(whole, low.shape)
    if min(s.stop - s.start for s in ours) < 2 * BLOCK:
        raise OutOfRangeError(f"{name}: shifted by {shift} pixels, the frames share too little")
    rest = [s - w for s, w in zip(shift, whole)]
    moved = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(high[theirs].astype(float)), rest)).real
    return Repeat(name, low[ours].astype(np.float32), moved.astype(np.float32), pixel_size, shift)


def open_repeats(shared: str | Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> list[Repeat]:
    """The repeats among the shared real files, read where they are. Raises `UnreadableFileError` if one is absent."""
    from ..microscope import read

    folder, repeats = Path(shared) / "data" / "HPAI-BSC+AtomDetection_ACSTEM" / "data" / "tif_data", []
    for pair in pairs:
        files = [next(folder.glob(f"{number}_*.tif"), None) for number in pair]
        if None in files:
            raise UnreadableFileError(
                f"{folder}: no frame {' or '.join(pair)}; set --shared to the folder of real files"
            )
        shots = [read(file)[0] for file in files]
        low, high = (np.asarray(shot.image.data) for shot in shots)
        size = shots[0].acquisition.pixel_size
        repeats.append(registered(f"hpai_{pair[0]}_{pair[1]}", low, high, size))
    return repeats


def gaussian_nearest(repeat: Repeat) -> Callable:
    """The Gaussian whose picture is nearest to the other frame after one affine match: as if it knew the truth."""

    def apply(sigma: float) -> np.ndarray:
        return ndimage.gaussian_filter(repeat.low.astype(float), sigma)

    widths = [2 ** (k / 2 - 1) for k in range(11)]
    best = max(widths, key=lambda sigma: np.corrcoef(apply(sigma).ravel(), repeat.high.ravel())[0, 1])
    return lambda frame, acquisition, factor: (apply(best), None)


def _spectra(picture: np.ndarray, repeat: Repeat) -> np.ndarray:
    """Sums over each block and band, (blocks, bands, 3): |picture|^2, |other|^2, real part of the cross spectrum."""
    height, width = picture.shape
    window = np.hanning(BLOCK)[:, None] * np.hanning(BLOCK)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(BLOCK, repeat.pixel_size * 1e9)] * 2))
    bands = [(frequency >= low) & (frequency < high) for low, high in BANDS]
    sums = []
    for top in range(0, height - BLOCK + 1, BLOCK // 2):
        for left in range(0, width - BLOCK + 1, BLOCK // 2):
            part = np.s_[top : top + BLOCK, left : left + BLOCK]
            ours, theirs = (np.fft.fft2((p[part] - p[part].mean()) * window) for p in (picture, repeat.high))
            powers = np.abs(ours) ** 2, np.abs(theirs) ** 2, (ours * theirs.conj()).real
            sums.append([[power[band].sum() for power in powers] for band in bands])
    return np.array(sums)


def _clusters(shape: tuple[int, int]) -> np.ndarray:
    """Blocks overlap by half; those that do so belong to one cluster of three by three."""
    rows, columns = ((n - BLOCK) // (BLOCK // 2) + 1 for n in shape)
    return (np.arange(rows)[:, None] // 3 * 100 + np.arange(columns) // 3).ravel()


def _frc(ours: np.ndarray) -> float:
    picture, other, cross = ours.sum(0)
    return float(cross / np.sqrt(picture * other)) if picture > 0 else float("nan")  # of a flat picture


def _kept(ours: np.ndarray, raw: np.ndarray) -> float:
    """Cross spectrum over that of the raw frame; unknown where the frames share nothing."""
    shared = raw.sum(0)
    known = shared[2] > 0.05 * np.sqrt(shared[0] * shared[1])
    return float(ours[:, 2].sum() / shared[2]) if known else float("nan")


def _noise(ours: np.ndarray, raw: np.ndarray) -> float:
    """What the other frame does not show: power without the part coherent with it, over the raw frame's."""
    left = [np.clip(s[0] - s[2] ** 2 / s[1], 0, None) for s in (ours.sum(0), raw.sum(0))]
    return float(np.sqrt(left[0] / left[1]))


def _support(repeat: Repeat) -> list[np.ndarray]:
    """Masks of the thin, the middle and the thick third of the support, as the other frame shows it."""
    smooth = ndimage.gaussian_filter(repeat.high.astype(float), SUPPORT / repeat.pixel_size)
    first, second = np.quantile(smooth, [1 / 3, 2 / 3])
    return [smooth <= first, (smooth > first) & (smooth <= second), smooth > second]


def compare_repeat(repeat: Repeat, picture: np.ndarray, prefix: str, common: Mapping) -> list[dict]:
    """Rows of one method's picture (h, w) of ``repeat.low``, named ``real.{repeat}.{method}...`` by `prefix`.

    Raises
    ------
    OutOfRangeError
        The picture is not of the frame's size.
    """
    if picture.shape != repeat.low.shape:
        raise OutOfRangeError(f"{repeat.name}: a picture of {picture.shape} for a frame of {repeat.low.shape} pixels")
    ours, raw = _spectra(picture, repeat), _spectra(repeat.low, repeat)
    clusters, rows = _clusters(picture.shape), []
    for k, (low, high) in enumerate(BANDS):
        ending = f"{low:g}_{high:g}_per_nm".replace(".", "p")
        for name, score, columns in (
            ("frc", _frc, (ours[:, k],)),
            ("frc_over_raw", lambda a, b: _frc(a) - _frc(b), (ours[:, k], raw[:, k])),
            ("kept", _kept, (ours[:, k], raw[:, k])),
            ("noise", _noise, (ours[:, k], raw[:, k])),
        ):
            numbers = _with_interval(score, clusters, *columns)
            rows.append(row(f"{prefix}.{name}.{ending}", *numbers, common))
    return rows + _support_rows(repeat, picture, prefix, common)


def _support_rows(repeat: Repeat, picture: np.ndarray, prefix: str, common: Mapping) -> list[dict]:
    dark = float(repeat.low.min())  # the files' dark level: a sum that grows with the dwell time
    blocks = np.add.outer(np.arange(picture.shape[0]) // BLOCK * 100, np.arange(picture.shape[1]) // BLOCK)
    rows = []
    for name, mask in zip(("thin", "middle", "thick"), _support(repeat), strict=True):
        where = blocks[mask]
        sums = np.stack([np.bincount(where, (p[mask] - dark)) for p in (picture, repeat.low)], 1)
        sums = sums[np.unique(where)]
        rows.append(row(f"{prefix}.level.{name}", *_with_interval(_ratio, np.arange(len(sums)), sums), common))
    thin, fine = _support(repeat)[0], 1e-9 / repeat.pixel_size / 5
    rough = [p - ndimage.gaussian_filter(p.astype(float), fine) for p in (picture, repeat.low)]
    values = np.stack([np.bincount(blocks[thin], r[thin] ** 2) for r in rough], 1)[np.unique(blocks[thin])]
    spread = _with_interval(lambda s: _ratio(s) ** 0.5, np.arange(len(values)), values)
    return [*rows, row(f"{prefix}.texture.thin", *spread, common)]


def _ratio(sums: np.ndarray) -> float:
    return float(sums[:, 0].sum() / sums[:, 1].sum())


def _with_interval(score: Callable[..., float], clusters: np.ndarray, *columns: np.ndarray) -> tuple[float, ...]:
    """The score and its interval over clusters; no interval of what is not known."""
    value = score(*columns)
    if np.isnan(value):
        return value, value, value
    return value, *bootstrap_interval(score, clusters, *columns, draws=400)


def _methods(names: Sequence[str], repeat: Repeat, seconds: float, weights: str) -> dict[str, Callable]:
    """The methods by name, made for one repeat."""
    made: dict[str, Callable] = {}
    for name in names:
        if name == "raw":
            made[name] = lambda frame, acquisition, factor: (frame, None)
        elif name == "gaussian":
            made[name] = gaussian_nearest(repeat)
        elif name == "noise2void":
            from ..denoising.noise2void import Noise2Void

            made[name] = Noise2Void(seconds)
        elif name == "direct":
            from ..denoising.direct import Direct

            made[name] = Direct(weights)
        else:
            raise OutOfRangeError(f"no method {name!r}; there are raw, gaussian, noise2void, direct")
    return made


def main() -> None:
    """``python -m cimp_core.study.real_repeats --shared FOLDER --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Judge denoisers by real frames of one area at two doses.")
    parser.add_argument("--shared", type=Path, required=True, help="folder of real files, with data/ in it")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--methods", nargs="*", default=["raw", "gaussian", "noise2void", "direct"])
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of Noise2Void on each frame")
    parser.add_argument("--weights", default="cimp-dose-s", help="of the direct network")
    parser.add_argument("--factor", type=float, default=4.0, help="dose factor asked of the methods")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    command = "python -m cimp_core.study.real_repeats --shared ../shared"
    common = {"split": "real repeats", "profile": arguments.profile, "seeds": [0], "command": command}
    common["twin_version"] = "not of the twin"
    rows = []
    for repeat in open_repeats(arguments.shared):
        print(f"{repeat.name}: shifted by {repeat.shift[0]:.1f}, {repeat.shift[1]:.1f} pixels, {repeat.low.shape}")
        settings = Acquisition(pixel_size=repeat.pixel_size)
        for name, method in _methods(arguments.methods, repeat, arguments.seconds, arguments.weights).items():
            picture = method(repeat.low, settings, arguments.factor)[0]
            rows += compare_repeat(repeat, picture, f"real.{repeat.name}.{name}", common)
    update_results(arguments.out, [made for made in rows if _published(made)])
    print_rows(rows)


def _published(made: Mapping) -> bool:
    """Whether a row goes to the results: of a method, of what it keeps and wins where the frames share something."""
    *_, method, measure, where = made["name"].split(".")
    shared = where in ("0p4_1_per_nm", "1_2_per_nm") and measure in ("frc_over_raw", "kept")
    return method != "raw" and made["value"] is not None and (shared or measure == "level")


if __name__ == "__main__":
    main()
