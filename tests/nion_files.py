"""Files as Nion Swift writes them, for tests: .ndata, .h5, and the .tif that it exports for ImageJ."""

import copy
import io
import json
import zipfile

import h5py
import numpy as np
import tifffile

OPTICS = {
    "EHT": 100e3,
    "probe_ha": 0.031,
    "PMTDF_gain": 0.42,
    "PMTBF_gain": 0.37,
    "HAADF_Inner_ha": 0.085,
    "HAADF_Outer_ha": 0.195,
    "SuperFEG.^EmissionCurrent": 1.2e-5,
    "C12.a": 1e-9,
    "fov_nm": 0.6,
}
IMAGE = np.random.default_rng(0).normal(100, 10, (20, 30)).astype(np.float32)
FILES = ("a.ndata", "a.h5", "a.tif")


def calibrations(*units, scale=0.02):
    return [{"offset": -0.3, "scale": scale, "units": unit} for unit in units]


def properties(
    channel="HAADF", shape=IMAGE.shape, units=("nm", "nm"), optics=OPTICS, where="instrument", mark=None, **more
) -> dict:
    """Properties of one scanned image, with the optics below the branch `where` (dots between levels).

    They form a branch ImageScanned of their own, or stand flat with the prefix `mark` ("ImageScanned:", or none).
    """
    metadata = {
        "hardware_source": {
            "hardware_source_id": "superscan",
            "hardware_source_name": "SuperScan",
            "channel_id": "a",
            "channel_name": channel,
            "pixel_time_us": 16.0,
            "line_time_us": 480.0,
            "valid_rows": shape[0],
        },
        "scan": {"scan_id": "0", "scan_device_parameters": {"pixel_time_us": 20.0, "center_nm": [0.0, 0.0]}},
        "instrument": {"high_tension": 99e3, "defocus": 5e-9},
    }
    branch = metadata
    for part in where.split("."):
        branch = branch.setdefault(part, {})
    branch |= {"ImageScanned": dict(optics)} if mark is None else {f"{mark}{k}": v for k, v in optics.items()}
    return copy.deepcopy(
        {
            "version": 13,
            "uuid": "0" * 8,
            "title": "Image 7",
            "created": "2019-08-13T14:09:41.123456",
            "data_shape": list(shape),
            "data_dtype": "float32",
            "is_sequence": len(shape) == 3,
            "collection_dimension_count": 0,
            "datum_dimension_count": 2,
            "intensity_calibration": {"offset": 0.0, "scale": 1.0, "units": ""},
            "dimensional_calibrations": calibrations(*units),
            "metadata": metadata,
            "session_metadata": {"instrument": "UltraSTEM 100", "microscopist": ""},
        }
        | more
    )


def write(path, data=IMAGE, held=None):
    """Write `data` with the properties `held` in the way that the ending of `path` asks for."""
    held = properties(shape=data.shape) if held is None else held
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["data"] = data
            file["data"].attrs["properties"] = json.dumps(held)
    elif path.suffix == ".tif":
        # An export keeps the hardware source alone, under another name, and the calibrations under an older one.
        moved = {k: v for k, v in held.items() if k.endswith(("_count", "_calibration", "is_sequence"))}
        moved["spatial_calibrations"] = held["dimensional_calibrations"]
        moved["properties"] = held["metadata"]["hardware_source"] | held["metadata"]["instrument"]
        moved["timestamp"] = 1565705381.0
        settings = {"unit": "nm", "nion.1": json.dumps(moved)} | ({"axes": "TYX"} if data.ndim == 3 else {})
        tifffile.imwrite(path, data, imagej=True, resolution=(50, 50), metadata=settings)
    else:
        stored = io.BytesIO()
        np.save(stored, data)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (("data.npy", stored.getvalue()), ("metadata.json", json.dumps(held).encode())):
                archive.writestr(zipfile.ZipInfo(name, (2019, 8, 13, 14, 9, 41)), content)
    return path
