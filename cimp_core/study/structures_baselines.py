"""How alike two micrographs are without anything learnt: the methods that a learnt embedding has to beat.

Each function gives the scores (q, n) of q queries, which are among the n images, with all of them.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from ..metrics_denoising import ssim

__all__ = [
    "fft_magnitude",
    "line_spectrum",
    "pixel_correlation",
    "polar_fft",
    "radial_profile",
    "structural_similarity",
]

NOISE = 4.0
"""Power over that of the noise which is taken off a map."""

LINE_WIDTHS = 0.003, 0.35
"""Standard deviations in log |g| and in log amplitude, by which reflections of one crystal differ from view to view;
chosen on the validation prototypes."""


def _amplitudes(values: np.ndarray, power: float) -> np.ndarray:
    """Of maps (n, rings, sectors) of log(1 + power over noise): what is above the noise, to a power."""
    return np.maximum(np.expm1(values.astype(np.float32)) - NOISE, 0) ** power


def radial_profile(values: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosine of the strongest amplitude at each |g|, from maps (n, rings, sectors) of `spectrum_map`."""
    profiles = _unit(np.concatenate([_amplitudes(part.max(2), 0.5) for part in _chunks(values)]))
    return profiles[query] @ profiles.T


def polar_fft(values: np.ndarray, query: np.ndarray, power: float = 0.5) -> np.ndarray:
    """Largest cosine of maps (n, rings, sectors) over all rotations, as seen and mirrored, by circular correlation."""
    sectors = values.shape[2]

    def transformed(maps: np.ndarray) -> np.ndarray:
        maps = _amplitudes(maps, power)
        norm = np.linalg.norm(maps, axis=(1, 2), keepdims=True)
        return fft.rfft(maps / np.maximum(norm, 1e-12), axis=2, workers=1).astype(np.complex64)

    mine = transformed(values[query])
    scores = np.empty((len(query), len(values)), np.float32)
    for start, part in zip(range(0, len(values), 256), _chunks(values), strict=True):
        theirs = transformed(part)
        # As many matrix products as there are angular frequencies.
        for sign in (0, 1):
            product = np.einsum("qrf,nrf->qnf", mine, theirs if sign else theirs.conj(), optimize=True)
            best = fft.irfft(product, sectors, axis=2, workers=1).max(2)
            part_of = scores[:, start : start + len(part)]
            part_of[...] = np.maximum(part_of, best) if sign else best
    return scores


def line_spectrum(lines: np.ndarray, query: np.ndarray, waves: int = 512, seed: int = 0) -> np.ndarray:
    """Cosine of the densities of reflections in the plane of log |g| and log amplitude over the mean.

    The density has a Gaussian of `LINE_WIDTHS` at each reflection of ``lattice_lines`` (n, m, 6), at one for several
    of one |g| and amplitude, less the mean density of all images. It is compared by random Fourier features: `waves` of
    them, a sine and a cosine each.
    """
    drawn = np.random.default_rng(seed).normal(size=(2, waves)) / (2 * np.pi * np.array(LINE_WIDTHS)[:, None])
    found = np.zeros((len(lines), 2 * waves), np.float32)
    for i, image in enumerate(lines):
        plane = image[np.isfinite(image[:, :2]).all(1), :2]
        near = (np.abs(plane[:, None] - plane) < np.array(LINE_WIDTHS)).all(2)
        plane = plane[~np.tril(near, -1).any(1)]  # a weaker one so near a stronger one is the same line
        phase = 2 * np.pi * plane @ drawn
        found[i] = np.concatenate([np.cos(phase).sum(0), np.sin(phase).sum(0)])
    found = _unit(found)
    found = _unit(found - found.mean(0))
    return found[query] @ found.T


def pixel_correlation(images: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Correlation coefficient of (n, rows, columns) images, pixel by pixel."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat = _unit(flat - flat.mean(1, keepdims=True))
    return flat[query] @ flat.T


def fft_magnitude(images: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosine of the magnitudes of the Fourier transforms of (n, rows, columns) images less their means."""
    flat = [
        np.abs(fft.rfft2(part - part.mean((1, 2), keepdims=True), workers=1)).astype(np.float32).reshape(len(part), -1)
        for part in _chunks(images)
    ]
    unit = _unit(np.concatenate(flat))
    return unit[query] @ unit.T


def structural_similarity(images: np.ndarray, query: np.ndarray) -> np.ndarray:
    """SSIM of (n, rows, columns) images of unit mean (Wang et al., IEEE Trans. Image Process. 13, 600 (2004))."""
    level = images / np.maximum(images.mean((1, 2), keepdims=True), 1e-12)
    reach = float(np.percentile(level, 99.5))
    return np.array([[ssim(other, level[q], reach) for other in level] for q in query])


def _chunks(values: np.ndarray) -> list[np.ndarray]:
    return [values[i : i + 256] for i in range(0, len(values), 256)]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
