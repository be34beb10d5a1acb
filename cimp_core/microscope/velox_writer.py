"""Write a Velox-like .emd: what HyperSpy needs to read an image and its seven parameters back.

For tests and for the book's first chapter; Velox itself is not expected to open these files.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CimpError, OutOfRangeError
from ..metadata import Acquisition

__all__ = ["write_velox"]

_METADATA_BYTES = 60000  # Velox pads every frame's metadata to this


def write_velox(
    path: str | os.PathLike,
    image: np.ndarray,
    acquisition: Acquisition,
    *,
    camera_length: float | None = None,
    outer_collection_angle: float | None = None,
    voltage: float = 300e3,
    detector: str = "HAADF",
    microscope: str = "CIMP twin",
    date: str | datetime = "2025-01-01T00:00:00+00:00",
    force: bool = False,
) -> Path:
    """Write one image or series as a Velox-like .emd file, file version 9.

    Parameters
    ----------
    path : path-like
        File to write; it should end in .emd.
    image : (h, w) or (frames, h, w) uint16 array
        Recorded counts.
    acquisition : Acquisition
        Settings; a parameter that is missing is left out of the file.
    camera_length : float, optional
        Camera length [m].
    outer_collection_angle : float, optional
        Outer angle of the detector [rad]; written as 0.2 rad where only the inner one is known.
    voltage : float
        Acceleration voltage [V].
    detector, microscope : str
        Names to write.
    date : str or datetime
        Start of the acquisition; ISO 8601 as text, UTC unless it has a time zone.
    force : bool
        Overwrite an existing file.

    Returns
    -------
    Path
        The file written. The same arguments give the same bytes.

    Raises
    ------
    OutOfRangeError
        The image is not uint16 with 2 or 3 dimensions, or is a series without dwell time, or the detector's angles
        are in the wrong order.
    CimpError
        The file exists and `force` is not set.
    """
    import h5py

    path, image = Path(path), np.asarray(image)
    if image.dtype != np.uint16 or image.ndim not in (2, 3) or image.size == 0:
        raise OutOfRangeError(
            f"a Velox image is uint16, (h, w) or (frames, h, w); this is {image.dtype}, {image.shape}"
        )
    if image.ndim == 3 and acquisition.dwell_time is None:
        raise OutOfRangeError("a series needs the dwell time of its frames")
    inner, outer = acquisition.inner_collection_angle, outer_collection_angle
    if inner is not None and (outer := outer or 0.2) <= inner:
        raise OutOfRangeError(f"the detector's outer angle {outer} rad must be above its inner angle {inner} rad")
    if path.exists() and not force:
        raise CimpError(f"{path} exists: pass force=True to overwrite it, or choose another name")

    tree = _tree(acquisition, image.shape[-2:], voltage, camera_length, outer, detector, microscope, _seconds(date))
    frames = np.moveaxis(image.reshape(-1, *image.shape[-2:]), 0, -1)  # Velox keeps frames last
    text = json.dumps(tree, indent=4).encode()
    padded = np.zeros((_METADATA_BYTES, frames.shape[-1]), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)[:, None]
    name = hashlib.md5(text + frames.tobytes(), usedforsecurity=False).hexdigest()

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(part, "w") as file:
            _put_json(file, "Version", {"version": "9", "format": "Velox"})
            group = file.create_group(f"Data/Image/{name}")
            group.create_dataset("Data", data=frames, chunks=(*image.shape[-2:], 1))
            group.create_dataset("Metadata", data=padded, chunks=(_METADATA_BYTES, 1), compression="gzip")
            group.create_dataset("FrameLookupTable", data=np.arange(frames.shape[-1], dtype=np.uint32))
            source = {"dataPath": f"/Data/Image/{name}", "detector": detector, "outputs": ""}
            _put_json(file, f"Operations/StemInputOperation/{name}", source)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _tree(
    acquisition: Acquisition,
    shape: tuple[int, int],
    voltage: float,
    camera_length: float | None,
    outer: float | None,
    detector: str,
    microscope: str,
    seconds: int,
) -> dict[str, Any]:
    """The image's metadata in Velox's layout: texts in SI."""
    a = acquisition
    size = {"width": str(shape[1]), "height": str(shape[0])}
    width = _texts(width=a.pixel_size, height=a.pixel_size)
    angles = _texts(begin=a.inner_collection_angle, end=outer) if a.inner_collection_angle is not None else {}
    return {
        "Core": {"MetadataDefinitionVersion": "7.9", "MetadataSchemaVersion": "v1/2013/07", "guid": "0" * 32},
        "Instrument": {"Manufacturer": "", "InstrumentClass": microscope},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": str(seconds)}, "SourceType": "XFEG"},
        "Optics": _texts(
            AccelerationVoltage=voltage,
            BeamConvergence=a.convergence_angle,
            LastMeasuredScreenCurrent=a.beam_current,
            ScreenCurrent=0.0,
            CameraLength=camera_length,
        ),
        # A frame takes longer than its pixels: the beam flies back after every line.
        "Scan": {"ScanSize": size}
        | (_texts(DwellTime=a.dwell_time, FrameTime=1.2 * a.dwell_time * shape[0] * shape[1]) if a.dwell_time else {}),
        "Detectors": {
            "Detector-0": {"DetectorName": "BF-S", "DetectorType": "ScanningDetector", "Inserted": "false"},
            "Detector-1": {
                "DetectorName": detector,
                "DetectorType": "ScanningDetector",
                "Inserted": "true",
                "Enabled": "true",
            }
            | _texts(Gain=a.detector_gain, Offset=a.detector_offset)
            | ({"CollectionAngleRange": angles} if angles else {}),
        },
        "BinaryResult": {
            "DetectorIndex": "1",
            "Detector": detector,
            "PixelUnitX": "m" if width else "",
            "PixelUnitY": "m" if width else "",
        }
        | ({"PixelSize": width} if width else {})
        | {"Offset": {"x": "0", "y": "0"}, "Encoding": ""},
        "Sample": "",
        "CustomProperties": "",
    }


def _texts(**values: float | None) -> dict[str, str]:
    return {name: repr(float(value)) for name, value in values.items() if value is not None}


def _put_json(file: Any, name: str, content: dict) -> None:
    import h5py

    file.create_dataset(name, data=[json.dumps(content, indent=4)], dtype=h5py.string_dtype())


def _seconds(date: str | datetime) -> int:
    when = datetime.fromisoformat(date) if isinstance(date, str) else date
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
