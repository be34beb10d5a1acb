"""The lab: which settings people use, instrument by instrument and session by session.

Everything is at 300 kV. A session is one sitting at one instrument with one material: the aperture, the camera
length and the spot size rarely change, the magnification often does, the current is the one last measured, and
the operator turns gain and offset so that the live image looks right. Identical settings do recur (a frame is
repeated), as does the same area with other settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.constants import elementary_charge

from ..metadata import Acquisition
from .detector import FULL_SCALE, Detector
from .instruments import INSTRUMENTS, VOLTAGE, WAVELENGTH, Instrument, Shot
from .optics import Optics, source_size

__all__ = ["Session", "draw_acquisition", "draw_session", "set_detector"]

CAMERA_LENGTHS = (0.060, 0.073, 0.091, 0.115, 0.145, 0.185, 0.230, 0.300)  # m
_CAMERA_POPULARITY = np.array([2, 3, 6, 5, 4, 2, 2, 1.5])
DWELL_TIMES = np.array([0.2, 0.25, 0.3, 0.5, 0.6, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20]) * 1e-6  # s
_DWELL_POPULARITY = np.array([1, 2, 1, 4, 1, 6, 2, 6, 3, 4, 4, 2, 3, 3, 1, 1, 1.5])
CURRENT_RANGE = (10e-12, 1.1e-9)  # A
GAIN_RANGE = (23.0, 50.0)
FINEST_PIXEL = 6.3e-12  # m; magnification goes in steps of sqrt(2) from here
_STEPS = 18


@dataclass(frozen=True)
class Session:
    """Habits of one sitting; `draw_acquisition` varies them from image to image."""

    instrument: Instrument
    material: str
    images: int
    convergence_angle: float  # rad
    camera_length: float  # m
    beam_current: float  # A, as last measured
    dwell_times: tuple[float, ...]  # s, the favourites
    magnification_step: int
    format_factor: float  # pixel size of the scan format over that of a power of two
    offset: float
    signal_level: float  # part of the full scale that the operator likes the bright parts to reach
    astigmatism: float  # in units of the wavelength over the squared convergence angle, as left by the tuning
    astigmatism_angle: float  # rad
    drift_speed: float  # m/s
    detector: Detector


def _choose(rng: np.random.Generator, values, weights=None):
    weights = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return values[rng.choice(len(values), p=weights)]


def _choose_current(rng: np.random.Generator, instrument: Instrument, angle: float) -> float:
    """Current of a spot size: each step halves it, and an aperture passes current as its angle squared."""
    steps = np.arange(-5, 10)
    currents = 80e-12 * (instrument.brightness / 2e13) * (angle / 20e-3) ** 2 * 2.0**steps
    inside = (currents > CURRENT_RANGE[0] * 1.2) & (currents < CURRENT_RANGE[1] / 1.2)
    # Most work is done at some 60 pA: less is noisy, more blurs the probe and harms the specimen.
    liking = np.exp(-0.5 * (np.log(currents / 60e-12) / 1.1) ** 2)
    return _choose(rng, currents, liking * inside) * math.exp(0.05 * rng.standard_normal())


def _choose_camera(rng: np.random.Generator, instrument: Instrument, angle: float) -> float:
    """Camera length [m] at which the detector's inner edge lies well outside the direct beam."""
    inner = instrument.camera_constant / np.array(CAMERA_LENGTHS)
    return _choose(rng, CAMERA_LENGTHS, _CAMERA_POPULARITY * (inner > 1.2 * angle))


def draw_session(rng: np.random.Generator, materials: tuple[str, ...]) -> Session:
    """A sitting: instrument, material and habits. Sessions have 6.8 images on average, at least 2."""
    instrument = _choose(rng, INSTRUMENTS, [i.share for i in INSTRUMENTS])
    angle = _choose(rng, instrument.apertures, np.linspace(1, 2, len(instrument.apertures)))
    favourites = rng.choice(DWELL_TIMES, rng.integers(1, 4), False, _DWELL_POPULARITY / _DWELL_POPULARITY.sum())
    # Two thirds of the sessions are after the lattice, the others after particles and overviews.
    step = rng.integers(1, 7) if rng.random() < 0.65 else rng.integers(6, _STEPS)
    own = instrument.detector
    return Session(
        instrument=instrument,
        material=_choose(rng, materials),
        images=1 + int(rng.geometric(1 / 5.8)),
        convergence_angle=angle,
        camera_length=_choose_camera(rng, instrument, angle),
        beam_current=_choose_current(rng, instrument, angle),
        dwell_times=tuple(favourites.tolist()),
        magnification_step=int(step),
        format_factor=_choose(rng, (1.0, 4 / 3), (4, 1)),
        offset=_choose(rng, instrument.offsets),
        signal_level=min(0.55 * math.exp(0.4 * rng.standard_normal()), 0.9),
        astigmatism=abs(0.2 * rng.standard_normal()),
        astigmatism_angle=rng.uniform(0, math.pi),
        drift_speed=8e-12 * math.exp(0.8 * rng.standard_normal()),
        # A photomultiplier ages and warms up: the scale is not the same every day.
        detector=replace(
            own,
            slope=own.slope * math.exp(0.06 * rng.standard_normal()),
            black_level=own.black_level + 150 * rng.standard_normal(),
        ),
    )


def draw_acquisition(session: Session, rng: np.random.Generator, previous: Shot | None = None) -> Shot:
    """The next image of a session, given the one before. Gain and offset are only turned by `set_detector`."""
    if previous is not None and rng.random() < 0.05:
        return replace(previous, frame=previous.frame + 1)
    dwell_times = session.dwell_times if rng.random() < 0.85 else DWELL_TIMES
    dwell_time = float(_choose(rng, dwell_times))
    if previous is not None and rng.random() < 0.12:
        acquisition = _as_stored(previous.acquisition.replace(dwell_time=dwell_time))
        return replace(previous, acquisition=acquisition, frame=previous.frame + 1)

    instrument = session.instrument
    angle, current, camera = session.convergence_angle, session.beam_current, session.camera_length
    gain, offset = 33.0, session.offset
    if previous is not None:
        last = previous.acquisition
        angle, current, camera = last.convergence_angle, last.beam_current, previous.camera_length
        gain, offset = last.detector_gain, last.detector_offset
        if rng.random() < 0.02:
            angle = float(_choose(rng, instrument.apertures))
            current, camera = _choose_current(rng, instrument, angle), _choose_camera(rng, instrument, angle)
        elif rng.random() < 0.03:
            current = _choose_current(rng, instrument, angle)
        elif rng.random() < 0.25:
            current *= math.exp(0.03 * rng.standard_normal())
        if rng.random() < 0.04:
            camera = _choose_camera(rng, instrument, angle)
    step = session.magnification_step + (0 if rng.random() < 0.4 else rng.integers(-3, 4))
    step = min(max(step, 0), _STEPS - (session.format_factor > 1))
    pixel_size = FINEST_PIXEL * session.format_factor * instrument.pixel_calibration * 2 ** (step / 2)
    inner = instrument.camera_constant / camera
    acquisition = _as_stored(Acquisition(pixel_size, dwell_time, angle, current, gain, offset, inner))
    return Shot(
        acquisition=acquisition,
        optics=_draw_optics(session, acquisition, rng),
        camera_length=camera,
        outer_collection_angle=instrument.outer_angle(acquisition.inner_collection_angle),
        detector=session.detector,
        scan=_draw_scan(session, rng),
        instrument=instrument,
        area=0 if previous is None else previous.area + 1,
    )


def _as_stored(acquisition: Acquisition) -> Acquisition:
    """The settings as a data set can hold them, in single precision, so that they are the same when read back."""
    return Acquisition.from_vector(acquisition.vector().astype(np.float32))


def _draw_optics(session: Session, acquisition: Acquisition, rng: np.random.Generator) -> Optics:
    """What the operator's focusing leaves: errors in proportion to the depth of focus, seldom a bad miss."""
    instrument, angle = session.instrument, acquisition.convergence_angle
    depth = WAVELENGTH / angle**2
    # Against spherical aberration that is not corrected, Scherzer's defocus gives the smallest probe.
    best = math.sqrt(instrument.spherical_aberration * WAVELENGTH)
    miss = rng.standard_normal() * (0.4 if rng.random() < 0.9 else 2.0)
    return Optics(
        voltage=VOLTAGE,
        convergence_angle=angle,
        source_size=source_size(acquisition.beam_current, angle, instrument.brightness),
        defocus=best + miss * depth,
        spherical_aberration=instrument.spherical_aberration,
        astigmatism=session.astigmatism * depth,
        astigmatism_angle=session.astigmatism_angle,
        focal_spread=instrument.focal_spread,
    )


def _draw_scan(session: Session, rng: np.random.Generator):
    direction, speed = rng.uniform(0, 2 * math.pi), session.drift_speed * math.exp(0.4 * rng.standard_normal())
    return replace(session.instrument.scan, drift=(speed * math.sin(direction), speed * math.cos(direction)))


def set_detector(shot: Shot, session: Session, fraction: np.ndarray, rng: np.random.Generator) -> Shot:
    """Gain and offset as the operator leaves them after a look at the live image.

    Nothing is touched on most images. A first image is adjusted; later ones mostly when they clip or are too
    dim to see, which is not always noticed.

    Parameters
    ----------
    fraction : (rows, columns) array
        Part of the incident electrons that reaches the detector.
    """
    if shot.frame > 0 and rng.random() < 0.6:
        return shot
    acquisition, detector = shot.acquisition, shot.detector
    gain, offset = acquisition.detector_gain, acquisition.detector_offset
    # What glares in a live image is the bright specimen with its shot noise on top.
    bright = float(np.quantile(fraction[::4, ::4], 0.995)) * acquisition.beam_current * 1e12  # pA
    electron = elementary_charge / acquisition.dwell_time * 1e12  # pA for one electron in the dwell time
    bright += 2 * math.sqrt(bright * electron * (1 + detector.pulse_height_spread**2))
    level = bright * detector.slope_at(gain) / FULL_SCALE
    care = 0.85 if level > 0.85 else 0.7 if level < 0.08 else 0.07
    if shot.area == shot.frame == 0 or rng.random() < care:
        wanted = session.signal_level * math.exp(0.25 * rng.standard_normal())
        gain = detector.gain_for(wanted * FULL_SCALE / max(bright, 1e-3))
        gain = round(20 * min(max(gain, GAIN_RANGE[0]), GAIN_RANGE[1])) / 20
    dark = detector.slope_at(gain) * detector.dark_current * 1e12
    black = (detector.black_at(offset) + dark) / FULL_SCALE
    if rng.random() < (0.03 if 0.0 < black < 0.2 else 0.8):
        blacks = [detector.black_at(choice) + dark for choice in shot.instrument.offsets]
        offset = shot.instrument.offsets[int(np.argmin(np.abs(np.array(blacks) - 0.06 * FULL_SCALE)))]
    return replace(shot, acquisition=_as_stored(acquisition.replace(detector_gain=gain, detector_offset=offset)))
