"""A drive as a lab has it: many files of the twin's images in every format that can be written here, and what should
become of each. A new format is one function of `FORMATS`; one whose suffix cannot be read yet is left out.
"""

import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import tifffile

import cimp_core as cimp
from cimp_core.digital_twin import make_twin
from cimp_core.metadata import PARAMETERS
from cimp_core.microscope.files import SUFFIXES
from cimp_core.microscope.velox_writer import write_velox

SIDE = 32  # of an image [px]


@dataclass
class Written:
    """One file: the rows that should come of it, or a pattern that its reason should match."""

    path: Path
    rows: list[np.ndarray] = field(default_factory=list)
    settings: np.ndarray | None = None  # (7,), nan where the format does not hold the value
    intensity: str = ""
    reason: str = ""


def known(acquisition, *names):
    """Vector of the settings of these names, nan for the others."""
    values = acquisition.vector()
    return np.where([name in names for name in PARAMETERS], values, np.nan)


def velox(path, frames, acquisition):
    write_velox(path, frames if len(frames) > 1 else frames[0], acquisition)
    return list(frames), acquisition.vector(), "velox16"


def zipped(path, frames, acquisition):
    inner = path.with_name(f"{path.stem}.emd")
    made = velox(inner, frames, acquisition)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, inner.name)
    inner.unlink()
    return made


def signal(frames, acquisition):
    from hyperspy.signals import Signal2D

    made = Signal2D(frames if len(frames) > 1 else frames[0])
    for axis in made.axes_manager.signal_axes:
        axis.scale, axis.units = acquisition.pixel_size * 1e9, "nm"
    return made


def hspy(path, frames, acquisition):
    made = signal(frames, acquisition)
    made.metadata.set_item("Acquisition_instrument.TEM.acquisition_mode", "STEM")
    made.metadata.set_item("Acquisition_instrument.TEM.dwell_time", acquisition.dwell_time)
    made.metadata.set_item("Acquisition_instrument.TEM.convergence_angle", acquisition.convergence_angle * 1e3)
    made.metadata.set_item("Acquisition_instrument.TEM.beam_current", acquisition.beam_current * 1e9)
    made.save(path)
    values = known(acquisition, "pixel_size", "dwell_time", "convergence_angle", "beam_current")
    return list(frames), values, "unknown"


def berkeley(path, frames, acquisition):
    signal(frames, acquisition).save(path)
    return list(frames), known(acquisition, "pixel_size"), "unknown"


def tiff(path, frames, acquisition):
    resolution = (1e-9 / acquisition.pixel_size,) * 2
    axes = {"axes": "TYX"} if len(frames) > 1 else {}
    data = frames if len(frames) > 1 else frames[0]
    tifffile.imwrite(path, data, imagej=True, resolution=resolution, metadata={"unit": "nm"} | axes)
    return list(frames), known(acquisition, "pixel_size"), "unknown"


def mrc(path, frames, acquisition):
    with mrcfile.new(path) as file:
        file.set_data(frames[0])
        file.voxel_size = acquisition.pixel_size * 1e10
    return list(frames[:1]), known(acquisition, "pixel_size"), "unknown"


def nion(path, frames, acquisition):
    from nion_files import calibrations, properties, write

    optics = {"probe_ha": acquisition.convergence_angle, "HAADF_Inner_ha": acquisition.inner_collection_angle}
    held = properties(shape=frames[0].shape, optics=optics)
    held["dimensional_calibrations"] = calibrations("nm", "nm", scale=acquisition.pixel_size * 1e9)
    held["metadata"]["hardware_source"]["pixel_time_us"] = acquisition.dwell_time * 1e6
    write(path, frames[0].astype(np.float32), held)
    names = "pixel_size", "dwell_time", "convergence_angle", "inner_collection_angle"
    return [frames[0].astype(np.float32)], known(acquisition, *names), "float"


def tia(path, frames, acquisition):
    from tia_files import write_ser

    write_ser(path, frames, delta=acquisition.pixel_size)
    return list(frames), known(acquisition, "pixel_size"), "unknown"


FORMATS = (
    (".emd", velox), (".emd", velox), (".emd", velox), (".emd", velox), (".emd", velox), (".hspy", hspy),
    (".emd", berkeley), (".tif", tiff), (".mrc", mrc), (".zip", zipped), (".ndata", nion), (".h5", nion), (".ser", tia),
)  # fmt: skip


def formats():
    """Those that can be read."""
    return [(suffix, writer) for suffix, writer in FORMATS if suffix in SUFFIXES]


def pictures(folder):
    """Frames and settings without end: overlapping squares of a small twin, all different."""
    file = folder / "twin.h5"
    twin = cimp.open_dataset(file if file.exists() else make_twin(file, 30, 96, 5, workers=1))
    places = [(y, x) for y in range(0, 65, 8) for x in range(0, 65, 8)]
    seen = set()
    for y, x in places:
        for i in range(len(twin)):
            square = np.ascontiguousarray(twin.image(i)[y : y + SIDE, x : x + SIDE])
            if square.tobytes() not in seen:
                seen.add(square.tobytes())
                yield square, twin.acquisition(i)


def make_drive(folder, count):
    """Write about `count` files below ``folder/drive``; return what should become of each, in the order of paths.

    Of 25 files one is cut off, one is not HAADF, one no micrograph, one a series, one a copy, and one a copy that knows
    less in a folder that comes first.
    """
    drive, stream, all_formats = folder / "drive", pictures(folder), formats()
    written = []
    for i in range(count):
        day = drive / f"day {i // 20:02d}"
        day.mkdir(parents=True, exist_ok=True)
        kind, path = i % 25, day / f"{i:04d}"
        if kind == 3:
            path.with_suffix(".txt").write_text("notes")
            written.append(Written(path.with_suffix(".txt"), reason="not a microscope file"))
            continue
        if kind in (7, 9) and i > 25:
            source = next(w for w in reversed(written) if w.rows and w.intensity == "velox16" and len(w.rows) == 1)
            name = source.path.relative_to(drive).as_posix()
            if kind == 7:
                written.append(Written(path.with_suffix(source.path.suffix), reason=f"duplicate of {name}$"))
                shutil.copy(source.path, written[-1].path)
            else:
                first = drive / "a day before" / f"{i:04d}.tif"
                first.parent.mkdir(exist_ok=True)
                tifffile.imwrite(first, source.rows[0])
                written.append(Written(first, reason=f"duplicate of {name}$"))
            continue
        frames, acquisition = next(stream)
        frames = frames[None]
        if kind == 5:
            frames = np.stack([frames[0], *(next(stream)[0] for _ in range(2))])
        suffix, writer = (".emd", velox) if kind in (1, 2, 5) else all_formats[i % len(all_formats)]
        path = path.with_suffix(suffix)
        if kind == 2:
            write_velox(path, frames[0], acquisition, detector="BF-S")
            written.append(Written(path, reason="no signal of this file is a HAADF-STEM image.*BF-S"))
            continue
        written.append(Written(path, *writer(path, frames, acquisition)))
        if kind == 1:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            written[-1] = Written(path, reason="damaged, truncated")
    return sorted(written, key=lambda w: w.path.relative_to(drive).as_posix())


def check_rows(path, written, drive):
    """Compare a data set, row by row, with what was written."""
    data = cimp.open_dataset(path)
    row = 0
    for file in written:
        for frame, pixels in enumerate(file.rows):
            assert data.filepaths[row] == file.path.relative_to(drive).as_posix()
            image = data.image(row)
            assert image.dtype == pixels.dtype and np.array_equal(image, pixels), file.path
            assert (data.frame_indices[row], data.total_frames[row]) == (frame, len(file.rows))
            np.testing.assert_allclose(data.metadata_raw[row], file.settings, rtol=1e-6, err_msg=str(file.path))
            assert data.intensity[row] == file.intensity, file.path
            row += 1
    assert row == len(data)
    with h5py.File(path) as raw:
        assert np.array_equal(raw["missing"][()], np.isnan(raw["metadata_raw"][()]))
