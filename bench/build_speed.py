"""How fast files of a microscope become a data set, beside the loop that one would write.

    python bench/build_speed.py [--files 1000] [--size 512]

The peer reads every file with `hyperspy.api.load` in this process, one after the other, and writes the pixels and a few
of the settings with h5py; a damaged file would end it or hang it. Both run here, in one go, on the same Velox files.
"""

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import hyperspy.api as hs
import numpy as np

import cimp_core as cimp
from cimp_core.metadata import Acquisition
from cimp_core.microscope.velox_writer import write_velox

SETTINGS = Acquisition(2e-11, 1e-5, 0.025, 5e-11, 30.0, -1.0, 0.06)


def make(folder, files, size):
    """Files of noise, each with its own settings."""
    rng = np.random.default_rng(0)
    for i in range(files):
        image = rng.integers(1000, 5000, (size, size)).astype(np.uint16)
        (folder / f"session {i // 20}").mkdir(exist_ok=True)
        write_velox(folder / f"session {i // 20}/{i}.emd", image, SETTINGS.replace(dwell_time=1e-6 * (1 + i % 9)))


def peer(folder, out):
    """The plain loop."""
    with h5py.File(out, "w") as file:
        for i, path in enumerate(sorted(folder.rglob("*.emd"))):
            (signal,) = [hs.load(str(path), file_format="EMD", select_type="images")]
            file[f"full_res/{i:06d}"] = signal.data
            tree = signal.original_metadata
            settings = [float(tree.BinaryResult.PixelSize.width), float(tree.Scan.DwellTime)]
            file[f"settings/{i:06d}"] = [*settings, float(tree.Optics.BeamConvergence)]


def timed(function, *arguments, **options):
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "drive").mkdir()
        make(folder / "drive", arguments.files, arguments.size)
        hs.load(str(next(folder.rglob("*.emd"))), file_format="EMD")  # its first use loads much
        rows = [("plain loop, one process", timed(peer, folder / "drive", folder / "peer.h5"))]
        for workers in (1, 2):
            seconds = timed(cimp.build_dataset, folder / "drive", folder / f"{workers}.h5", workers=workers)
            rows.append((f"build_dataset, {workers} worker{'s' * (workers > 1)}", seconds))
    print(f"{arguments.files} Velox files of {arguments.size} x {arguments.size} px, the reader's start included")
    print(f"{'':<28}{'s':>8}{'files/s':>10}{'of the loop':>13}")
    for name, seconds in rows:
        print(f"{name:<28}{seconds:>8.1f}{arguments.files / seconds:>10.1f}{rows[0][1] / seconds:>13.2f}")


if __name__ == "__main__":
    main()
