"""The lab's instruments, and everything that one image is taken with: a shot.

All instruments work at 300 kV. They are invented, each within what is published for its kind of source, corrector,
scintillator and scan.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from ..errors import OutOfRangeError
from ..metadata import Acquisition
from .detector import Detector
from .optics import Optics, source_size, wavelength
from .scan import Scan

__all__ = ["INSTRUMENTS", "VOLTAGE", "WAVELENGTH", "Instrument", "Shot"]

VOLTAGE = 300e3
WAVELENGTH = wavelength(VOLTAGE)


@dataclass(frozen=True)
class Instrument:
    """One microscope.

    Parameters
    ----------
    brightness : float
        Of the electron source at 300 kV [A m^-2 sr^-1].
    spherical_aberration, focal_spread : float
        [m]
    apertures : tuple of float
        Convergence semi-angle that each condenser aperture gives [rad].
    camera_constant : float
        Inner collection angle times camera length [rad m].
    outer_limit : float
        Largest angle that the column lets pass [rad]; the detector's own outer edge is at 5 times its inner.
    pixel_calibration : float
        Factor between nominal and calibrated pixel size.
    offsets : tuple of float
        Detector offsets in use.
    share : float
        Part of all sessions.
    """

    name: str
    brightness: float
    spherical_aberration: float
    focal_spread: float
    apertures: tuple[float, ...]
    camera_constant: float
    outer_limit: float
    pixel_calibration: float
    offsets: tuple[float, ...]
    detector: Detector
    scan: Scan
    share: float

    def outer_angle(self, inner_angle: float) -> float:
        """Outer collection angle [rad] that goes with an inner one."""
        return max(min(5 * inner_angle, self.outer_limit), 1.15 * inner_angle)


# Brightness: cold and Schottky emitters at 300 kV lie between 2e12 and 4e13. The decay times span what scintillators
# and amplifiers are known for (30 ns to 1 us); pulse-height spreads 0.3 to 0.8; fly-back about 1 ms.
INSTRUMENTS = (
    Instrument(
        "Ada", 2.0e13, 2e-6, 4.5e-9, (9.8e-3, 17.6e-3, 21.4e-3, 24.5e-3), 6.0e-3, 0.200, 1.000,
        (-1.85, -1.53, -1.23, -0.90, -0.45),
        Detector(4200, 0.205, 13900, 6800, 6e-14, 0.45, 45e-9, 45),
        Scan(4e-12, 4e-3, 2e-12, 1.04e-3, 0.004, 40e-6), 0.40,
    ),
    Instrument(
        "Lise", 4.0e12, 5e-6, 5.5e-9, (5.1e-3, 10.3e-3, 15.0e-3, 19.8e-3), 5.6e-3, 0.147, 1.060,
        (-1.75, -1.40, -1.10, -0.60, 0.0),
        Detector(2600, 0.165, 11500, 5300, 1.1e-13, 0.75, 320e-9, 80),
        Scan(11e-12, 9e-3, 6e-12, 1.22e-3, 0.008, 70e-6), 0.25,
    ),
    Instrument(
        "Chien", 3.2e13, 1e-6, 4.0e-9, (15.8e-3, 20.0e-3, 25.1e-3, 30.0e-3), 6.4e-3, 0.200, 0.955,
        (-1.80, -1.65, -1.50, -1.35, -0.75),
        Detector(6100, 0.230, 17200, 9000, 4e-14, 0.35, 110e-9, 30),
        Scan(3e-12, 3e-3, 1.5e-12, 0.85e-3, 0.003, 25e-6), 0.20,
    ),
    Instrument(
        "Vera", 1.6e13, 1.2e-3, 6.5e-9, (5.0e-3, 7.0e-3, 9.2e-3, 10.5e-3), 6.9e-3, 0.175, 1.025,
        (-1.85, -1.60, -1.25, -0.85, -0.25),
        Detector(3300, 0.185, 12300, 5900, 8e-14, 0.60, 850e-9, 60),
        Scan(8e-12, 6e-3, 4e-12, 1.10e-3, 0.006, 55e-6), 0.15,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """All that the expectation and the recording of one image depend on, but for the specimen.

    `area` counts the areas visited in the session and `frame` the recordings of that area.
    """

    acquisition: Acquisition
    optics: Optics
    camera_length: float  # m
    outer_collection_angle: float  # rad
    detector: Detector
    scan: Scan
    instrument: Instrument
    area: int = 0
    frame: int = 0

    def at(self, acquisition: Acquisition, readout: str | None = None) -> Shot:
        """The same area and the same tuning at other settings, all of them given.

        The source size follows from current, angle and brightness, the camera length and the outer angle from
        the inner angle.

        Raises
        ------
        OutOfRangeError
            A setting is missing, the pixel size differs, or the hole of the detector lets the direct beam in.
        """
        if acquisition.missing:
            raise OutOfRangeError(f"cannot record without {', '.join(acquisition.missing)}: give all seven settings")
        old = self.acquisition
        if acquisition.pixel_size != old.pixel_size:
            raise OutOfRangeError(
                f"pixel size {acquisition.pixel_size:g} m differs from {old.pixel_size:g} m: that is another field of "
                "view, whose specimen lies outside this image or was never resolved by it; choose another image"
            )
        angle, inner = acquisition.convergence_angle, acquisition.inner_collection_angle
        if inner <= angle:
            raise OutOfRangeError(
                f"inner collection angle {inner * 1e3:.1f} mrad is not above the convergence angle {angle * 1e3:.1f} "
                "mrad: the direct beam would reach the detector, which is bright field, not HAADF"
            )
        size = source_size(acquisition.beam_current, angle, self.instrument.brightness)
        same_angle = inner == old.inner_collection_angle
        return replace(
            self,
            acquisition=acquisition,
            optics=replace(self.optics, convergence_angle=angle, source_size=size),
            camera_length=self.camera_length if same_angle else self.instrument.camera_constant / inner,
            outer_collection_angle=self.instrument.outer_angle(inner),
            detector=self.detector if readout is None else replace(self.detector, readout=readout),
        )

    def to_dict(self) -> dict:
        """Plain numbers and names, as stored beside the image; see `from_dict`."""
        scan, detector = asdict(self.scan), asdict(self.detector)
        return {
            "instrument": self.instrument.name,
            "acquisition": self.acquisition.vector().tolist(),
            "optics": asdict(self.optics),
            "camera_length": self.camera_length,
            "outer_collection_angle": self.outer_collection_angle,
            "detector": detector,
            "scan": scan,
            "area": self.area,
            "frame": self.frame,
        }

    @classmethod
    def from_dict(cls, stored: dict) -> Shot:
        """Inverse of `to_dict`, also after a passage through JSON."""
        instrument = next(i for i in INSTRUMENTS if i.name == stored["instrument"])
        scan = {**stored["scan"], "drift": tuple(stored["scan"]["drift"])}
        return cls(
            Acquisition.from_vector(stored["acquisition"]),
            Optics(**stored["optics"]),
            stored["camera_length"],
            stored["outer_collection_angle"],
            Detector(**stored["detector"]),
            Scan(**scan),
            instrument,
            stored["area"],
            stored["frame"],
        )
