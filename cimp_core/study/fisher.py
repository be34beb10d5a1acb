"""How well settings could be known from one image of a known scene: the Cramer-Rao bound of the simulator.

A pixel is a compound Poisson sum (electrons times pulse heights) plus read noise, so all its cumulants are known in
closed form. The information counted here is what mean and variance of the pixels carry: with d the derivatives of the
two and C the covariance of (x, (x - mean)^2), F = sum over pixels of d' C^-1 d. It is all the information there is for
pure Poisson counts and for Gaussian noise of known size, and a lower limit of it in between. After-glow is switched
off, so that pixels are independent; in the scene's dwell time it would move a few per cent of the light.

Derivatives are central differences, `STEPS` to either side; positive quantities are stepped in their logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.constants import elementary_charge

from ..metadata import PARAMETERS
from ..simulate import scattering
from ..simulate.detector import SAMPLING_TIME, Detector
from ..simulate.instruments import INSTRUMENTS, VOLTAGE, WAVELENGTH
from ..simulate.lab import draw_session
from ..simulate.optics import Optics, source_size
from ..simulate.pieces import Grain
from ..simulate.specimen import MATERIALS, Specimen, expectation
from ..simulate.structures import CRYSTALS, zone_axis_cell

__all__ = ["BASE", "CONFOUNDED", "bound", "bound_table", "derivatives", "information", "moments", "plain_specimen"]

INSTRUMENT = INSTRUMENTS[0]
"""Instrument of the fixed scene."""
MATERIAL = "Ge"

BASE: Mapping[str, float] = {
    "pixel_size": 6.3e-12 * 2**1.5,  # m
    "dwell_time": 2e-6,  # s
    "convergence_angle": INSTRUMENT.apertures[1],  # rad, below every inner angle of the lab
    "beam_current": 60e-12,  # A
    "detector_gain": 23.0,  # so low that the lab's largest current does not clip
    "detector_offset": INSTRUMENT.offsets[2],
    "inner_collection_angle": INSTRUMENT.camera_constant / 0.073,  # rad
    "thickness": 120.0,  # angstrom, of the crystal
    "carbon": 10.0,  # angstrom, of the amorphous layer
    "amplitude": 1.0,  # factor on what the specimen scatters: composition, thermal vibration
    "x": 0.7,  # angstrom, place of the lattice
    "y": 0.3,
    "rotation": 0.2,  # rad
    "defocus": 1.0,  # in units of the depth of focus, wavelength over angle^2, from Scherzer's
    "astigmatism_a": 0.1,  # the same unit, along the axes
    "astigmatism_b": 0.0,  # along the diagonals
    "brightness": INSTRUMENT.brightness,  # A m^-2 sr^-1
    "slope": INSTRUMENT.detector.slope,  # counts per pA
    "black_level": INSTRUMENT.detector.black_level,  # counts
    "dark_current": INSTRUMENT.detector.dark_current,  # A
    "read_noise": INSTRUMENT.detector.read_noise,  # counts in 1 us
    "pulse_height_spread": INSTRUMENT.detector.pulse_height_spread,
}
"""The fixed scene: seven settings, then what else an image depends on."""

STEPS = dict.fromkeys(("detector_gain", "detector_offset"), 0.01)
STEPS |= {"x": 0.02, "y": 0.02, "rotation": 2e-4, "defocus": 0.02, "black_level": 10.0}
STEPS |= {"astigmatism_a": 0.02, "astigmatism_b": 0.02}
LOG_STEP = 0.01
"""Relative step of everything that `STEPS` does not name. The probe's edge is sampled to 2 or 3 % in angle, so a much
smaller step would differentiate the sampling."""

DETECTOR = ("slope", "black_level", "dark_current", "read_noise", "pulse_height_spread")
CALIBRATION = ("brightness", *DETECTOR)
"""What has to be measured of an instrument before its images can say all settings."""

CONFOUNDED: Mapping[str, tuple[str, ...]] = {
    "gain": ("detector_gain",),
    "dwell_time": ("dwell_time",),
    "gain_and_dwell_time": ("detector_gain", "dwell_time"),
    "gain_and_dwell_time_and_calibration": ("detector_gain", "dwell_time", *CALIBRATION),
    "brightness": ("brightness",),
    "specimen": ("amplitude",),
    "specimen_and_brightness": ("amplitude", "brightness"),
}
"""What may be unknown beside the beam current, all else being known."""


def plain_specimen(scene: Mapping[str, float], size: int, seed: int = 0) -> Specimen:
    """A single crystal on its zone axis under a thin amorphous layer; `seed` draws relief and speckle."""
    rng, width = np.random.default_rng(seed), BASE["pixel_size"] * 1e10 * size
    relief, speckle = _plane_waves(rng, 12, 4 / width), _plane_waves(rng, 160, 2.4)
    grain = Grain((MATERIAL, "110"), (scene["x"], scene["y"], scene["rotation"]), (0.0, 0.0), scene["thickness"])
    nothing, flat = np.zeros((0, 3)), (0.0, 0.0)
    return Specimen(MATERIAL, "crystal", (grain,), scene["carbon"], flat, None, relief, speckle, nothing)


def _plane_waves(rng: np.random.Generator, count: int, edge: float) -> np.ndarray:
    """Spatial frequencies up to `edge` [1/angstrom] with phases, as `draw_specimen` draws them: (count, 3)."""
    k, azimuth, phase = rng.random((3, count)) * np.array([[edge], [2 * math.pi], [2 * math.pi]])
    return np.stack([k * np.cos(azimuth), k * np.sin(azimuth), phase], 1)


def scene_optics(scene: Mapping[str, float]) -> Optics:
    """Probe of a scene; the source size follows current, angle and brightness."""
    angle, instrument = scene["convergence_angle"], INSTRUMENT
    # Errors are in units of the base scene's depth of focus, so that the angle's derivative leaves the focus alone.
    depth = WAVELENGTH / BASE["convergence_angle"] ** 2
    a, b = scene["astigmatism_a"] * depth, scene["astigmatism_b"] * depth
    return Optics(
        voltage=VOLTAGE,
        convergence_angle=angle,
        source_size=source_size(scene["beam_current"], angle, scene["brightness"]),
        defocus=math.sqrt(instrument.spherical_aberration * WAVELENGTH) + (scene["defocus"] - 1) * depth,
        spherical_aberration=instrument.spherical_aberration,
        astigmatism=math.hypot(a, b),
        astigmatism_angle=math.atan2(b, a) / 2,
        focal_spread=instrument.focal_spread,
    )


@lru_cache(maxsize=128)
def _fraction(optics: Optics, inner: float, pixel_size: float, size: int, place: tuple[float, ...]) -> np.ndarray:
    specimen = plain_specimen(dict(zip(("x", "y", "rotation", "thickness", "carbon"), place, strict=True)), size)
    return expectation(specimen, optics, inner, INSTRUMENT.outer_angle(inner), pixel_size, size)


def moments(scene: Mapping[str, float], size: int = 256) -> np.ndarray:
    """Mean, variance, third and fourth cumulant of the counts of every pixel: (4, size * size)."""
    place = tuple(scene[name] for name in ("x", "y", "rotation", "thickness", "carbon"))
    inner = scene["inner_collection_angle"]
    fraction = scene["amplitude"] * _fraction(scene_optics(scene), inner, scene["pixel_size"], size, place).ravel()
    return pixel_cumulants(fraction, scene, scene_detector(scene))


def scene_detector(scene: Mapping[str, float]) -> Detector:
    """The instrument's detector with the scene's calibration, without after-glow."""
    return replace(INSTRUMENT.detector, decay_time=0.0, **{name: scene[name] for name in DETECTOR})


def pixel_cumulants(fraction: np.ndarray, scene: Mapping[str, float], detector: Detector) -> np.ndarray:
    """The first four cumulants of what `cimp_core.simulate.detector.record` draws, before rounding: (4, n).

    Of a compound Poisson sum the n-th cumulant is the number of electrons times the n-th moment of a pulse height,
    here gamma distributed with mean 1 and standard deviation s.
    """
    per_ampere = scene["dwell_time"] / elementary_charge
    electrons = (fraction * scene["beam_current"] + detector.dark_current) * per_ampere
    counts = detector.slope_at(scene["detector_gain"]) * 1e12 / per_ampere  # of one electron
    s2 = detector.pulse_height_spread**2
    heights = np.cumprod([1, 1 + s2, 1 + 2 * s2, 1 + 3 * s2])
    out = np.array([h * counts ** (n + 1) * electrons for n, h in enumerate(heights)])
    out[0] += detector.black_at(scene["detector_offset"])
    out[1] += detector.read_noise**2 * SAMPLING_TIME / scene["dwell_time"]
    return out


def _moved(scene: Mapping[str, float], name: str, steps: float) -> dict[str, float]:
    value = scene[name] + steps * STEPS[name] if name in STEPS else scene[name] * math.exp(steps * LOG_STEP)
    return {**scene, name: value}


def derivatives(
    function: Callable[[Mapping[str, float]], np.ndarray], scene: Mapping[str, float], names: Sequence[str]
) -> np.ndarray:
    """Central differences of the first two rows of `function`: (p, 2, n), logarithmic where `STEPS` has no name."""
    out = []
    for name in names:
        ahead, behind = function(_moved(scene, name, 1))[:2], function(_moved(scene, name, -1))[:2]
        out.append((ahead - behind) / (2 * STEPS.get(name, LOG_STEP)))
    return np.array(out)


def information(cumulants: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Fisher information (p, p) that mean and variance of independent pixels carry.

    Parameters
    ----------
    cumulants : (4, n) array
    slopes : (p, 2, n) array
        Derivatives of mean and variance by the parameters.
    """
    _, variance, third, fourth = cumulants
    # The covariance of x and (x - mean)^2 is [[k2, k3], [k3, k4 + 2 k2^2]]: whiten by its Cholesky factor.
    first = slopes[:, 0] / np.sqrt(variance)
    second = (slopes[:, 1] - slopes[:, 0] * third / variance) / np.sqrt(fourth + 2 * variance**2 - third**2 / variance)
    return first @ first.T + second @ second.T


def bound(fisher: np.ndarray, target: int, free: Sequence[int] = (), prior: np.ndarray | None = None) -> float:
    """Smallest standard deviation of an unbiased estimate of parameter `target`.

    Parameters
    ----------
    fisher : (p, p) array
    free : sequence of int
        Parameters that have to be estimated too; all others are known.
    prior : (p,) array, optional
        Standard deviation to which each of `free` is known beforehand; ``inf`` for not at all. With it this is the
        Bayesian (van Trees) bound in those. The target has no prior.

    Returns
    -------
    float
        ``inf`` where another parameter has the same effect on the image: only a combination can be known.
    """
    free = [i for i in free if i != target]
    scale = 1 / np.sqrt(np.diag(fisher))
    scaled = fisher * scale[:, None] * scale
    left = 1.0
    if free:
        among, cross = scaled[np.ix_(free, free)].copy(), scaled[target, free]
        if prior is not None:
            among[np.diag_indices(len(free))] += (scale[free] / prior[free]) ** 2
        # Schur complement: what of the target's effect the others cannot imitate.
        left -= cross @ np.linalg.pinv(among, rcond=1e-11, hermitian=True) @ cross
    return float(scale[target] / math.sqrt(left)) if left > 1e-8 else math.inf


@lru_cache(maxsize=4)
def lab_priors(draws: int = 400, seed: int = 0) -> dict[str, float]:
    """How much the lab varies what is no setting: standard deviations, of logarithms where `STEPS` has no name."""
    rng = np.random.default_rng(seed)
    sessions = [draw_session(rng, MATERIALS) for _ in range(draws)]
    powers = []
    for name in CRYSTALS:
        cell = zone_axis_cell(name, "001")
        density: dict = {}
        for key in zip(cell.elements, cell.debye_waller.tolist(), strict=True):
            density[key] = density.get(key, 0.0) + BASE["thickness"] / float(np.prod(cell.size))
        angles = (BASE["inner_collection_angle"], INSTRUMENT.outer_limit, BASE["convergence_angle"])
        powers.append(float(scattering.plural_fraction(density, *angles, VOLTAGE)))
    return {
        "thickness": 0.6,  # as `draw_specimen` draws it, and the carbon's 12 of 10 angstrom
        "carbon": 1.2,
        "amplitude": float(np.std(np.log(powers))),
        "defocus": 0.4,  # as the lab's operators leave it
        "astigmatism_a": 0.2,
        "astigmatism_b": 0.2,
        "brightness": float(np.std([math.log(s.instrument.brightness) for s in sessions])),
        **{n: float(np.std([_stepped(n, getattr(s.detector, n)) for s in sessions])) for n in DETECTOR},
    }


def _stepped(name: str, value: float) -> float:
    return value if name in STEPS else math.log(value)


@lru_cache(maxsize=2)
def scene_information(size: int = 256) -> np.ndarray:
    """Fisher information of all parameters of the base scene, in the order of `BASE`: (p, p)."""

    def image(scene: Mapping[str, float]) -> np.ndarray:
        return moments(scene, size)

    return information(image(BASE), derivatives(image, BASE, list(BASE)))


def bound_table(spread: np.ndarray, size: int = 256) -> pd.DataFrame:
    """Bounds of the seven settings in the fixed scene, in units of the lab's spread of the normalised setting.

    Parameters
    ----------
    spread : (7,) array
        Standard deviations of the lab's settings as `cimp_core.metadata.Normalizer` has them: of the logarithm of
        pixel size, dwell time, current and inner angle.
    size : int
        Side of the image [px].

    Returns
    -------
    DataFrame
        Columns ``parameter``, ``condition``, ``sd``. Conditions: ``known`` (all else is known), ``marginal`` (the other
        six, the specimen and the optics are estimated, the instrument's brightness and detector are calibrated),
        ``uncalibrated`` (these too are unknown), ``lab`` (all are unknown within what the lab does), and for the
        current ``free_...`` with what is free.
    """
    names = list(BASE)
    fisher = scene_information(size)
    unit = np.array(spread, float)
    unit[PARAMETERS.index("convergence_angle")] /= BASE["convergence_angle"]  # not logarithmic in the data set
    known_to = {**dict(zip(PARAMETERS, unit, strict=True)), **lab_priors()}
    prior = np.array([known_to.get(name, math.inf) for name in names])
    calibrated = [i for i, name in enumerate(names) if name not in CALIBRATION]
    rows = []
    for j, name in enumerate(PARAMETERS):
        rows.append((name, "known", bound(fisher, j) / unit[j]))
        rows.append((name, "marginal", bound(fisher, j, calibrated) / unit[j]))
        rows.append((name, "uncalibrated", bound(fisher, j, range(len(names))) / unit[j]))
        rows.append((name, "lab", bound(fisher, j, range(len(names)), prior) / unit[j]))
    j = PARAMETERS.index("beam_current")
    for condition, free in CONFOUNDED.items():
        sd = bound(fisher, j, [names.index(n) for n in free]) / unit[j]
        rows.append(("beam_current", f"free_{condition}", sd))
    return pd.DataFrame(rows, columns=["parameter", "condition", "sd"])
