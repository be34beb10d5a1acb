"""Does a pattern explain an image? Its lattice is laid on the peaks, then pattern and image are compared by pixel.

The scan may turn, stretch and shear the pattern (a 2 x 2 matrix), the probe may be somewhat wider or narrower than the
library's, contrast and offset are free; columns and their ratios are not. For white noise the sum of squares that
`refine` makes least is the likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from . import polar
from .polar import Overlap
from .projection import Pattern, reduced
from .query import Products, Query, power_at, prepare, terms, waves
from .views import View, collected, rotation

__all__ = ["Fit", "alike", "lay", "model", "refine"]

BEND = 0.02
"""Standard deviation of the elements of the distortion of a scan, before the image is asked."""
STEPS = 5
STEP = 0.15
"""Of the places that are tried for a pattern's origin [angstrom], where its cell is not too large for that."""


@dataclass(frozen=True, eq=False)
class Fit:
    """How a pattern lies in an image.

    The image at r shows the pattern at p with g . p = (matrix g) . r - g . shift, for all g of the pattern.

    Attributes
    ----------
    matrix : (2, 2) float array
        From the pattern's spatial frequencies to those of the image.
    shift : (2,) float array
        In the pattern's frame [angstrom].
    turned : bool
        The pattern is seen after half a turn, as its conjugate coefficients say.
    contrast, offset : float
        In units of the query's image.
    envelope : (3,) float array
        Of g = (u, v) in the pattern's frame, coefficients are multiplied by exp(-envelope . (u^2, 2 u v, v^2)): a wider
        probe than the library's is positive, a tilted crystal is so in one direction [angstrom^2].
    explained : float
        Share of the image's variance above its noise that the fitted pattern explains; can exceed 1 by noise.
    lattice : float
        The same for the pattern's lattice with free coefficients.
    found : float
        Likeness of the moduli of the pattern's coefficients to those of the image, strong and weak alike.
    """

    matrix: np.ndarray
    shift: np.ndarray
    turned: bool
    contrast: float
    offset: float
    envelope: np.ndarray
    explained: float
    lattice: float
    found: float

    @property
    def mirrored(self) -> bool:
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def scale(self) -> float:
        """Lengths in the image over lengths in the pattern, by the stated pixel size."""
        return 1 / math.sqrt(abs(float(np.linalg.det(self.matrix))))

    @property
    def angle(self) -> float:
        """Rotation of the pattern, after mirroring, in the image, 0 to 2 pi [rad]."""
        turn, _ = _polar_parts(self.matrix)
        return (math.atan2(turn[1, 0], turn[0, 0]) + math.pi * self.turned) % (2 * math.pi)

    @property
    def bend(self) -> float:
        """Largest element of what is left of the matrix when rotation and scale are taken off."""
        _, stretch = _polar_parts(self.matrix)
        return float(np.abs(stretch / (np.trace(stretch) / 2) - np.eye(2)).max())


def _polar_parts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and symmetric stretch; a mirroring y -> -y before both is left out."""
    flip = np.diag([1.0, math.copysign(1.0, np.linalg.det(matrix))])
    u, s, v = np.linalg.svd(matrix @ flip)
    return u @ v, u @ np.diag(s) @ u.T


def lay(query: Query, pattern: Pattern, start: Overlap, error: float = 0.05) -> list[Fit]:
    """Lay a pattern on the peaks of an image from where the polar maps overlap; both half turns.

    The scale starts within three standard deviations of `error`, that of the pixel size.
    """
    g, c = terms(query, pattern)
    if len(g) < 2:
        return []
    size = np.hypot(*g.T)
    weight = np.sqrt(np.abs(c))
    flip = np.diag([1.0, -1.0 if start.mirrored else 1.0])
    angles = start.angle + np.deg2rad(np.linspace(-1.6, 1.6, 9))
    reach = 3 * error + 0.005
    ends = np.clip(start.scale * np.array([0.97, 1.03]), 1 - reach, 1 + reach)
    scales = np.linspace(*ends, max(3, math.ceil((ends[1] - ends[0]) / 0.007)))
    turns = np.stack([rotation(a) @ flip for a in angles])
    tried = scales[:, None, None, None] * np.einsum("aij,mj->ami", turns, g)
    score = (power_at(query, tried) ** 0.25 * weight).sum(-1)
    s, a = np.unravel_index(int(score.argmax()), score.shape)
    matrix = scales[s] * turns[a]
    for width in (0.7, 0.5, 0.5):
        matrix = _pulled(query, g, size, matrix, width)
    sums = Products.of(query, g @ matrix.T)
    return [_scored(query, g, c, matrix, shift, turned, sums) for shift, turned in _placed(g, c, sums.seen)]


def _pulled(query: Query, g: np.ndarray, size: np.ndarray, matrix: np.ndarray, width: float) -> np.ndarray:
    """The matrix after each of its peaks has moved to the centre of the power around it."""
    x, y = query.axes
    step = width / np.array([np.ptp(x), np.ptp(y)])
    box = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 2, indexing="ij"), -1).reshape(-1, 2) * step
    at = g @ matrix.T
    power = power_at(query, at[:, None] + box)
    total = power.sum(1)
    moved = np.einsum("mk,ki->mi", power, box) / np.maximum(total, 1e-12)[:, None]
    weight = total**0.5
    if weight.sum() <= 0:
        return matrix
    # Least squares for the change of the matrix; distortions, unlike turns and scales, have to be paid for.
    ease = weight.sum() * (1e-3 * float((size**2 * weight).sum() / weight.sum()))
    left = np.einsum("m,mi,mj->ij", weight, g, g) + ease * 0.02 * np.eye(2)
    right = np.einsum("m,mi,mj->ij", weight, moved, g)
    new = matrix + right @ np.linalg.inv(left)
    return new if 0.8 < abs(np.linalg.det(new) / np.linalg.det(matrix)) < 1.25 else matrix


def _placed(g: np.ndarray, c: np.ndarray, seen: np.ndarray) -> list[tuple[np.ndarray, bool]]:
    """Where in its cell the pattern lies best, as it is and after half a turn."""
    # The shifts that matter fill the cell that the strongest frequencies span; a grid in both of its directions.
    cell = np.linalg.inv(_basis(g))
    whole = np.rint(g @ cell).astype(int)
    # Its steps must be short against the waves, or what follows settles beside the place.
    n = np.clip(np.ceil(np.hypot(*cell) / STEP).astype(int), 48, 256)
    found = []
    for turned in (False, True):
        product = seen * (c if turned else c.conj())
        grid = np.zeros(n, complex)
        np.add.at(grid, tuple((whole % n).T), product)
        # sum over g of F c* exp(2 pi i g . t) is largest where the pattern's origin is t
        overlap = np.fft.ifft2(grid).real
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        found.append((cell @ (np.array([i, j]) / n), turned))
    return found


def _basis(g: np.ndarray) -> np.ndarray:
    """(2, 2) rows: the shortest basis of the lattice that frequencies generate, strong and weak alike."""
    first = g[np.hypot(*g.T).argmin()]
    off = g[np.abs(_across(g, first)) > 0.1 * np.hypot(*first)]
    if not len(off):
        return np.stack([first, [-first[1], first[0]]])
    basis = reduced(np.stack([first, off[np.hypot(*off.T).argmin()]]))
    while (left := np.abs(_remainder(g, basis)).max(1) > 0.1).any():
        rest = g[left.argmax()]
        # Euclid's algorithm in the plane: of three vectors, the longest is what the two others leave of it.
        while np.abs(part := _remainder(rest, basis)).max() > 0.1:
            short, middle, long = sorted((*basis, part @ basis), key=lambda v: np.hypot(*v))
            if abs(_across(middle, short)) < 0.05 * np.hypot(*short):
                middle, long = long, middle
            basis, rest = reduced(np.stack([short, middle])), long
    return basis


def _across(g: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Distance of frequencies (..., 2) from the line along a direction."""
    return g @ np.array([-direction[1], direction[0]]) / np.hypot(*direction)


def _remainder(g: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Coordinates (..., 2) of frequencies less whole numbers."""
    at = g @ np.linalg.inv(basis)
    return at - np.rint(at)


def model(query: Query, pattern: Pattern, fit: Fit) -> np.ndarray:
    """The fitted pattern in the query's image: (rows, columns) float32."""
    g, c = terms(query, pattern)
    amplitude = _amplitudes(g, c, fit)
    return fit.offset + fit.contrast * waves(query, g @ fit.matrix.T, amplitude[None])[0]


def _amplitudes(g: np.ndarray, c: np.ndarray, fit: Fit) -> np.ndarray:
    c = c.conj() if fit.turned else c
    return c * np.exp(-2j * np.pi * (g @ fit.shift) - _squares(g) @ fit.envelope)


def _squares(g: np.ndarray) -> np.ndarray:
    return np.stack([g[:, 0] ** 2, 2 * g[:, 0] * g[:, 1], g[:, 1] ** 2], 1)


def _scored(query: Query, g, c, matrix, shift, turned: bool, sums: Products, envelope=(0.0, 0.0, 0.0)) -> Fit:
    """Contrast and scores of a pattern in its place, from the image's Fourier sums alone."""
    fit = Fit(matrix, np.asarray(shift, float), turned, 1.0, 0.0, np.asarray(envelope, float), 0.0, 0.0, 0.0)
    a, seen = _amplitudes(g, c, fit), sums.seen
    inner = 2 * float((seen * a.conj()).real.sum())
    norm = 2 * float((a.conj() @ sums.gram @ a + a @ sums.opposite @ a).real)
    contrast, signal = max(inner, 0.0) / max(norm, 1e-30), 1 - query.noise
    # Free coefficients: least squares with a little ease where peaks overlap; each also takes a share of noise.
    free = np.linalg.solve(sums.gram + 0.05 * np.eye(len(a)), seen)
    noise = query.noise / query.image.size
    power = 2 * float((seen.conj() @ free).real) - 2 * len(a) * noise
    strong = np.sqrt(np.maximum(np.abs(seen) ** 2 - noise, 0)) ** 0.5
    weak = np.abs(a) ** 0.5
    found = float(strong @ weak / max(np.linalg.norm(strong) * np.linalg.norm(weak), 1e-30))
    explained = contrast * max(inner, 0.0) / signal
    return replace(fit, contrast=contrast, explained=explained, lattice=min(power / signal, 1.5), found=found)


def refine(query: Query, pattern: Pattern, fit: Fit, steps: int = STEPS, error: float = 0.05) -> Fit:
    """Least squares by pixel over matrix, shift, envelope, contrast and offset (Gauss-Newton with priors).

    Parameters
    ----------
    error : float
        Standard deviation of the scale before the image is asked: the error of the pixel size.
    """
    g, c = terms(query, pattern)
    x, y = (axis.astype(np.float32) for axis in query.axes)
    squares = _squares(g)
    image, noise = query.image, max(query.noise, 0.02)
    best, last = fit, math.inf
    damping, current = 1e-3, fit
    # Priors in units of the noise: envelope within 0.5, matrix within a few per cent.
    prior = np.zeros(11)
    prior[2:6], prior[8:] = noise / max(error, BEND) ** 2 * 0.1, noise / 0.5**2
    for _ in range(steps):
        a = current.contrast * _amplitudes(g, c, current)
        at = g @ current.matrix.T
        slopes = waves(query, at, np.stack([a, 2j * np.pi * g[:, 0] * a, 2j * np.pi * g[:, 1] * a, *(-squares.T * a)]))
        residual = image - np.float32(current.offset) - slopes[0]
        cost = float((residual**2).sum())
        if cost < last:
            settled = cost > 0.999 * last
            best, last, damping = current, cost, damping / 4
            if settled:
                break
            j = np.empty((11, *image.shape), np.float32)
            j[0], j[1], j[6], j[7], j[8:] = slopes[0], 1, -slopes[1], -slopes[2], slopes[3:]
            j[2], j[3], j[4], j[5] = x * slopes[1], x * slopes[2], y[:, None] * slopes[1], y[:, None] * slopes[2]
            j = j.reshape(11, -1)
            normal = (j @ j.T).astype(float) + np.diag(prior)
            right = (j @ residual.ravel()).astype(float) - prior * np.array([0] * 8 + [*best.envelope])
        else:
            damping *= 16
        current = _stepped(best, np.linalg.solve(normal + np.diag(damping * np.diag(normal) + 1e-9), right))
    sums = Products.of(query, g @ best.matrix.T)
    scored = _scored(query, g, c, best.matrix, best.shift, best.turned, sums, best.envelope)
    explained = (1 - last / image.size) / (1 - query.noise)
    return replace(scored, contrast=best.contrast, offset=best.offset, explained=explained)


def _stepped(fit: Fit, step: np.ndarray) -> Fit:
    return replace(
        fit,
        contrast=fit.contrast * max(0.2, 1 + step[0]),
        offset=fit.offset + step[1],
        matrix=fit.matrix + step[2:6].reshape(2, 2),
        shift=fit.shift + step[6:8],
        envelope=np.clip(fit.envelope + step[8:], [-0.3, -4.0, -0.3], 8.0),
    )


def alike(first: Pattern, second: Pattern, tolerance: float = 0.005) -> bool:
    """Whether images of two patterns are the same: correlation above 0.995 and lattices within tolerance.

    Parameters
    ----------
    tolerance : float
        Relative, of lengths.
    """
    view = View(0.2, 192, 192)
    image = collected(first, view)
    if np.ptp(image) < 1e-6 * abs(float(image.mean())):
        return False
    query, mapped = prepare(image, view.pixel_size), polar.of_image(image, view.pixel_size)
    starts = polar.overlaps(mapped, polar.of_pattern(second, mapped.field), tolerance, mirror=False)
    for start in starts:
        if start.score < 0.7:
            break
        for laid in sorted(lay(query, second, start, tolerance), key=lambda f: -f.explained)[:1]:
            fit = refine(query, second, laid, error=tolerance)
            near = abs(fit.scale - 1) < tolerance and fit.bend < tolerance and np.abs(fit.envelope).max() < 0.1
            if near and fit.explained * (1 - query.noise) > 0.995**2:
                return True
    return False
