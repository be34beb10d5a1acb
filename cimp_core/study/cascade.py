"""The lab's variation, let in one kind at a time: recordings with some things as in the lab and the rest fixed.

Image number i is drawn as the lab would take it. `take` records it with what is free as drawn and all else as in the
base scene of `cimp_core.study.fisher`, so the same setting comes back at every step and only its surroundings differ.
With everything free it is the first image of a session of the twin's lab.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..metadata import PARAMETERS, Acquisition
from ..simulate.detector import Detector, record
from ..simulate.instruments import WAVELENGTH, Instrument, Shot
from ..simulate.lab import Session, draw_acquisition, draw_session, set_detector
from ..simulate.optics import Optics, source_size
from ..simulate.scan import Scan, lag, row_displacements
from ..simulate.specimen import MATERIALS, draw_specimen, expectation
from .fisher import BASE, INSTRUMENT, MATERIAL, plain_specimen, scene_optics

__all__ = ["STEPS", "TARGETS", "LabImage", "freed", "take"]

TARGETS = ("convergence_angle", "inner_collection_angle", "beam_current")

STEPS: Mapping[str, tuple[str, ...]] = {
    "alone": (),
    "source": ("source",),  # the source image follows current and angle, as brightness demands
    "place": ("place",),  # another place of the same crystal: lattice origin and rotation, relief, speckle
    "specimen": ("specimen",),  # another specimen of the same material: thickness, tilt, edges, defects, particles
    "focus": ("focus",),  # defocus, astigmatism, drift and the scan's disturbances
    "dose": ("dwell_time", "beam_current"),
    "detector": ("detector",),  # gain and offset as the operator turns them, ageing of the amplifier
    "angles": ("convergence_angle", "inner_collection_angle"),
    "magnification": ("pixel_size",),
    "material": ("material",),
    "instrument": ("instrument",),  # all that is left: brightness, corrector, detector and scan of four microscopes
}
"""What each step lets vary beside the steps before it."""

_KEY = 23  # of the random streams, apart from those of other studies


@dataclass(frozen=True)
class LabImage:
    """One image as the lab would take it: session, shot with gain and offset still to be set, and its number."""

    session: Session
    shot: Shot
    number: int
    seed: int

    def rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_KEY, self.number, stream)))

    @classmethod
    def draw(cls, number: int, seed: int) -> LabImage:
        """The first image of a session of its own."""
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_KEY, number, 0)))
        session = draw_session(rng, MATERIALS)
        return cls(session, draw_acquisition(session, rng), number, seed)


def _optics(lab: LabImage, free: frozenset, settings: Acquisition) -> Optics:
    """Probe at `settings`; what is not free is as in the base scene."""
    instrument = lab.shot.instrument if "instrument" in free else INSTRUMENT
    base, own, angle = scene_optics(BASE), lab.shot.optics, settings.convergence_angle
    size = base.source_size
    if "source" in free:
        size = source_size(settings.beam_current, angle, instrument.brightness)
    if "instrument" in free:
        return replace(own, convergence_angle=angle, source_size=size)
    if "focus" not in free:
        return replace(base, convergence_angle=angle, source_size=size)
    # What the operator leaves is in proportion to the depth of focus; carry it over from the shot's instrument.
    depth = (lab.shot.acquisition.convergence_angle / angle) ** 2
    best = _scherzer(own)
    return replace(
        base,
        convergence_angle=angle,
        source_size=size,
        defocus=_scherzer(base) + (own.defocus - best) * depth,
        astigmatism=own.astigmatism * depth,
        astigmatism_angle=own.astigmatism_angle,
    )


def _scherzer(optics: Optics) -> float:
    return (optics.spherical_aberration * WAVELENGTH) ** 0.5


@lru_cache(maxsize=64)
def _fraction(
    lab: LabImage, free: frozenset, optics: Optics, settings: tuple[float, float, float, float], scan: Scan, size: int
) -> np.ndarray:
    """Fraction of the electrons that reaches the detector; `settings` are pixel size, dwell time, inner and outer."""
    pixel_size, dwell_time, inner, outer = settings
    if "specimen" in free:
        material = lab.session.material if "material" in free else MATERIAL
        specimen = draw_specimen(lab.rng(1), pixel_size, size, material)
    else:
        x, y, turn = lab.rng(1).uniform((-5, -5, 0), (5, 5, 2 * np.pi)) if "place" in free else (0.0, 0.0, 0.0)
        moved = {**BASE, "x": BASE["x"] + x, "y": BASE["y"] + y, "rotation": BASE["rotation"] + turn}
        specimen = plain_specimen(moved, size, lab.number + 1 if "place" in free else 0)
    rows = row_displacements(scan, dwell_time, size, size, lab.rng(2))
    fraction = expectation(specimen, optics, inner, outer, pixel_size, size, rows)
    return lag(fraction, scan, dwell_time)


def take(lab: LabImage, free: frozenset, size: int) -> tuple[np.ndarray, Acquisition]:
    """Record image `lab` with what is in `free` as in the lab and all else as in the base scene.

    Parameters
    ----------
    free : frozenset of str
        Names of settings and of the kinds of variation in `STEPS`.
    size : int
        Side of the image [px].

    Returns
    -------
    (size, size) uint16 array
    Acquisition
        The settings it was recorded with.
    """
    own = lab.shot.acquisition
    settings = Acquisition(**{n: getattr(own, n) if n in free else BASE[n] for n in PARAMETERS})
    instrument = lab.shot.instrument if "instrument" in free else INSTRUMENT
    scan, dwell_time = Scan(), BASE["dwell_time"]
    if "focus" in free:
        scan, dwell_time = replace(instrument.scan, drift=lab.shot.scan.drift), settings.dwell_time
    inner = settings.inner_collection_angle
    # An undisturbed scan does not depend on the dwell time, and the same fraction serves several steps.
    seen = (settings.pixel_size, dwell_time, inner, instrument.outer_angle(inner))
    where = frozenset({"place", "specimen", "material"} & free)
    fraction = _fraction(lab, where, _optics(lab, free, settings), seen, scan, size)
    detector = instrument.detector
    if "detector" in free:
        settings, detector = _adjusted(lab, settings, instrument, fraction)
    return record(fraction, settings, detector, lab.rng(4)), settings


def _adjusted(
    lab: LabImage, settings: Acquisition, instrument: Instrument, fraction: np.ndarray
) -> tuple[Acquisition, Detector]:
    """Gain and offset as the operator leaves them, on a detector that has aged as the session's."""
    own, factory, aged = instrument.detector, lab.shot.instrument.detector, lab.session.detector
    detector = replace(
        own,
        slope=own.slope * aged.slope / factory.slope,
        black_level=own.black_level + aged.black_level - factory.black_level,
    )
    # Offsets are a habit of the instrument: take the one at the same place in its list.
    offset = instrument.offsets[lab.shot.instrument.offsets.index(lab.session.offset)]
    settings = settings.replace(detector_gain=33.0, detector_offset=offset)
    shot = replace(lab.shot, acquisition=settings, detector=detector, instrument=instrument)
    return set_detector(shot, lab.session, fraction, lab.rng(3)).acquisition, detector


def freed(target: str) -> Iterator[tuple[str, frozenset]]:
    """Each step's name, and all that varies in it when `target` is asked for."""
    free = {target}
    for step, more in STEPS.items():
        free |= set(more)
        yield step, frozenset(free)
