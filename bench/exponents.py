"""Exponents of growth, by least squares on logarithms; see bench/cost_growth.py for what they are of."""

import numpy as np
from scipy import stats


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float] | None:
    """Exponent of y ~ x^p with its 95 % interval; None with fewer than three points."""
    if len(x) < 3:
        return None
    line = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    return float(line.slope), float(line.slope - half), float(line.slope + half)


def growth(more: np.ndarray, added: np.ndarray, noise: float, enough: float) -> tuple | str:
    """Exponent of what more images, pixels or batch add; words where they add less than `enough`, or no line is seen.

    What is not above `noise` is left out of the fit.
    """
    if added[-1] < enough:
        return "does not grow"
    seen = added > noise
    return slope(more[seen].astype(float), added[seen]) or "too few sizes above the fixed part"


def written(fit: tuple | str) -> str:
    return fit if isinstance(fit, str) else f"{fit[0]:.2f} ({fit[1]:.2f} to {fit[2]:.2f})"
