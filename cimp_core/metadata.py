"""The seven acquisition parameters: names, units, a record of one image's values, and their normalisation.

Everything is SI: metres, seconds, radians, amperes. Gain and offset have no unit; they are the
"contrast" and "brightness" settings of the detector as Velox stores them, not electrons per count.
A value that is absent or not credible is ``None`` (``nan`` in arrays) and carries its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from .errors import OutOfRangeError, SchemaError

__all__ = ["LABELS", "PARAMETERS", "UNITS", "Acquisition", "Normalizer"]

PARAMETERS = (
    "pixel_size",
    "dwell_time",
    "convergence_angle",
    "beam_current",
    "detector_gain",
    "detector_offset",
    "inner_collection_angle",
)
"""Names of the seven parameters, in the order used by every array."""

LABELS = ("pixel size", "dwell time", "convergence angle", "beam current", "gain", "offset", "inner collection angle")
"""The same seven as the published data set labels them, in the same order."""

UNITS = MappingProxyType(dict(zip(PARAMETERS, ("m", "s", "rad", "A", "", "", "rad"), strict=True)))
"""SI unit of each parameter; gain and offset are unitless."""


@dataclass(frozen=True)
class Acquisition:
    """Settings that one image was taken with.

    Parameters
    ----------
    pixel_size : float or None
        Distance between neighbouring scan positions [m].
    dwell_time : float or None
        Time per scan position and frame [s].
    convergence_angle : float or None
        Convergence semi-angle of the probe [rad].
    beam_current : float or None
        Probe current [A].
    detector_gain, detector_offset : float or None
        Detector contrast and brightness, unitless, as Velox gives them.
    inner_collection_angle : float or None
        Inner angle of the annular detector [rad].
    missing : mapping of str to str
        Reason for each parameter that is ``None``. One is written where none is given.

    Raises
    ------
    OutOfRangeError
        A value is not finite, or a quantity that must be positive is not, or `missing` names
        a parameter that is unknown or has a value.
    """

    pixel_size: float | None = None
    dwell_time: float | None = None
    convergence_angle: float | None = None
    beam_current: float | None = None
    detector_gain: float | None = None
    detector_offset: float | None = None
    inner_collection_angle: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            value = getattr(self, name)
            if value is None:
                continue
            value = float(value)
            if not math.isfinite(value):
                raise OutOfRangeError(f"{name} is {value}: give a finite number, or None where it is not known")
            if value <= 0 and name != "detector_offset":
                raise OutOfRangeError(f"{name} is {value:g} {UNITS[name]}: it must be above zero, or None if unknown")
            object.__setattr__(self, name, value)
        for name in self.missing:
            if name not in PARAMETERS:
                raise OutOfRangeError(f"unknown parameter {name!r}; the seven are {', '.join(PARAMETERS)}")
            if getattr(self, name) is not None:
                raise OutOfRangeError(f"{name} has a value and a reason for being missing: {self.missing[name]}")
        reasons = {n: self.missing.get(n, "not given") for n in PARAMETERS if getattr(self, n) is None}
        object.__setattr__(self, "missing", MappingProxyType(reasons))

    def __reduce__(self):
        # A mapping proxy cannot cross to a worker process; the plain arguments can.
        return (type(self), (*(getattr(self, n) for n in PARAMETERS), dict(self.missing)))

    def vector(self) -> np.ndarray:
        """Values as a (7,) float64 array in the order of `PARAMETERS`, ``nan`` where missing."""
        return np.array([math.nan if (v := getattr(self, n)) is None else v for n in PARAMETERS])

    def replace(self, **changes: float | None) -> Acquisition:
        """Copy with some values changed; a parameter set to ``None`` is reported as "not given"."""
        unknown = set(changes) - set(PARAMETERS)
        if unknown:
            raise OutOfRangeError(f"unknown parameter {sorted(unknown)}; the seven are {', '.join(PARAMETERS)}")
        values = {n: changes.get(n, getattr(self, n)) for n in PARAMETERS}
        missing = {n: r for n, r in self.missing.items() if values[n] is None}
        return Acquisition(**values, missing=missing)

    @classmethod
    def from_vector(cls, values: Sequence[float], missing: Mapping[str, str] | None = None) -> Acquisition:
        """Inverse of `vector`: ``nan`` becomes ``None``."""
        values = np.asarray(values, dtype=float)
        if values.shape != (len(PARAMETERS),):
            raise SchemaError(f"expected {len(PARAMETERS)} values in the order of PARAMETERS, got shape {values.shape}")
        given = {n: None if np.isnan(v) else float(v) for n, v in zip(PARAMETERS, values, strict=True)}
        return cls(**given, missing=missing or {})


@dataclass(frozen=True)
class Normalizer:
    """Z-scores of the seven columns, some of them after a natural logarithm, as the published schema stores them.

    Parameters
    ----------
    log_indices : tuple of int
        Columns that are log-transformed before the z-score.
    mean, std : (7,) float64 arrays
        Statistics of the (log-transformed) columns; a constant column has std 1.
    """

    log_indices: tuple[int, ...]
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, raw: np.ndarray, log_indices: Sequence[int] = (0, 1, 3, 6)) -> Normalizer:
        """Statistics of `raw`, (n, 7) in SI units, leaving ``nan`` out.

        Raises
        ------
        OutOfRangeError
            A column that is to be log-transformed holds a value at or below zero.
        """
        identity = cls(tuple(int(i) for i in log_indices), np.zeros(len(PARAMETERS)), np.ones(len(PARAMETERS)))
        columns = identity.normalize(raw)
        mean, std = np.zeros(len(PARAMETERS)), np.ones(len(PARAMETERS))
        for i, column in enumerate(columns.T):
            known = column[~np.isnan(column)]
            if known.size:
                mean[i] = known.mean()
                spread = known.std()
                # Rounding leaves a constant column a spread of about 1e-16 of its value.
                std[i] = spread if spread > 1e-9 * max(1.0, abs(mean[i])) else 1.0
        return cls(identity.log_indices, mean, std)

    def normalize(self, raw: np.ndarray) -> np.ndarray:
        """Normalised copy of `raw`, (..., 7) in SI units -> (..., 7) float64; ``nan`` stays ``nan``."""
        out = np.array(raw, dtype=float)
        for i in self.log_indices:
            column = out[..., i]
            if np.any(column <= 0):
                raise OutOfRangeError(f"{PARAMETERS[i]} is log-transformed but holds {np.nanmin(column):g}")
            out[..., i] = np.log(column)
        return (out - self.mean) / self.std

    def restore(self, normalized: np.ndarray) -> np.ndarray:
        """Inverse of `normalize`: (..., 7) z-scores -> (..., 7) in SI units."""
        out = np.asarray(normalized, dtype=float) * self.std + self.mean
        for i in self.log_indices:
            out[..., i] = np.exp(out[..., i])
        return out
