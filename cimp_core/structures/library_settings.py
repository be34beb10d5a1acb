"""What a library is made for: voltage, angles, source, thickness and zone axes, given or assumed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..errors import OutOfRangeError
from ..simulate.optics import Optics

__all__ = ["Settings", "settings_of"]

CONVERGENCE, INNER, OUTER, VOLTAGE = 24e-3, 60e-3, 0.2, 300e3
"""Where the shot does not say: probe's semi-angle, collection range [rad], voltage [V]."""

SOURCE = 70e-12
"""Diameter (FWHM) of the source's image [m]: it follows from the brightness of the gun, which no file tells."""


@dataclass(frozen=True)
class Settings:
    """What a library is made for, SI units.

    Parameters
    ----------
    voltage : float
        [V]
    convergence_angle, inner_collection_angle, outer_collection_angle : float
        [rad]
    source_size : float
        Diameter (FWHM) of the source's image in the specimen [m].
    thickness : tuple of float
        [m]; a free-standing sheet has its own.
    zones : int or tuple of (int, int, int)
        Highest index of a zone axis, or the zone axes themselves, in the axes of the conventional cell.
    assumed : dict of str to str
        Of the above those that nobody gave, each with what was assumed.

    Raises
    ------
    OutOfRangeError
        A value is not above zero, or the detector would see the direct beam.
    """

    voltage: float = VOLTAGE
    convergence_angle: float = CONVERGENCE
    inner_collection_angle: float = INNER
    outer_collection_angle: float = OUTER
    source_size: float = SOURCE
    thickness: tuple[float, ...] = (20e-9,)
    zones: int | tuple[tuple[int, int, int], ...] = 1
    assumed: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.thickness or not all(1e-10 <= t <= 1e-6 for t in self.thickness):
            raise OutOfRangeError(f"thickness {self.thickness} m: from 1e-10 to 1e-6 m can be simulated")
        if not self.convergence_angle < self.inner_collection_angle < self.outer_collection_angle:
            raise OutOfRangeError(
                f"collection from {self.inner_collection_angle:g} to {self.outer_collection_angle:g} rad with a probe "
                f"of {self.convergence_angle:g} rad is no dark field: inner must be above the probe's angle and below "
                "outer"
            )

    @property
    def optics(self) -> Optics:
        """In focus, without aberrations."""
        return Optics(self.voltage, self.convergence_angle, self.source_size)


def settings_of(acquisition: Any, zones: Any, thickness: Any, voltage: Any, outer: Any, source: Any) -> Settings:
    """What the shot and the caller say, and defaults for the rest."""
    shot = getattr(acquisition, "instrument", None)
    recorded = getattr(acquisition, "acquisition", acquisition)
    given = {
        "voltage": voltage or getattr(shot, "voltage", None),
        "convergence_angle": getattr(recorded, "convergence_angle", None),
        "inner_collection_angle": getattr(recorded, "inner_collection_angle", None),
        "outer_collection_angle": outer or getattr(shot, "outer_collection_angle", None),
        "source_size": source,
    }
    known = {name: float(value) for name, value in given.items() if value is not None}
    inner = known.get("inner_collection_angle", INNER)
    if "outer_collection_angle" not in known and inner >= OUTER:
        known["outer_collection_angle"] = 2 * inner
    defaults = {f.name: f.default for f in fields(Settings)}
    assumed = {}
    for name in given:
        if given[name] is None:
            value, unit = known.get(name, defaults[name]), {"voltage": "V", "source_size": "m"}.get(name, "rad")
            assumed[name] = f"{value:g} {unit}: not recorded"
    if not isinstance(zones, int):
        zones = tuple(tuple(int(i) for i in zone) for zone in zones)
    thickness = tuple(float(t) for t in np.atleast_1d(thickness))
    return Settings(**known, thickness=thickness, zones=zones, assumed=assumed)
