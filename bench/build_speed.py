"""How fast files of a microscope become a data set, beside the loop that one would write.

    python bench/build_speed.py [--files 1000] [--size 512] [--quick] [--json FILE]

The peer reads every file with `hyperspy.api.load` in this process, one after the other, and writes the pixels and a few
of the settings with h5py; a damaged file would end it or hang it. Both run here, in one go, on the same Velox files.
"""

import statistics
import tempfile
import time
from pathlib import Path

import h5py
import hyperspy.api as hs
import numpy as np
from report import goal, header, parser, table, write

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


COLUMNS = {
    "way": "{way}",
    "time [s]": "{seconds:.1f}",
    "files/s": "{per_second:.1f}",
    "times as fast as the loop": "{ratio:.2f} ({ratio_low:.2f} to {ratio_high:.2f})",
}


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, help="1000 by default, with --quick 300")
    arguments.add_argument("--size", type=int, default=512)
    arguments.add_argument("--rounds", type=int, default=2)
    options = arguments.parse_args()
    files, size = options.files or (300 if options.quick else 1000), options.size
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "drive").mkdir()
        make(folder / "drive", files, size)
        hs.load(str(next(folder.rglob("*.emd"))), file_format="EMD")  # its first use loads much
        times = {"plain loop, one process": []} | {f"build_dataset, workers {n}": [] for n in (1, 2)}
        for _ in range(options.rounds):  # in turn, so that what else the machine does meets all alike
            for workers, own in enumerate(times.values()):
                out = folder / f"{workers}.h5"
                if workers:
                    seconds = timed(cimp.build_dataset, folder / "drive", out, workers=workers, force=True)
                else:
                    seconds = timed(peer, folder / "drive", out)
                own.append(seconds)
    loop, rows = next(iter(times.values())), []
    for way, own in times.items():
        ratios = [a / b for a, b in zip(loop, own, strict=True)]
        row = {"way": way, "seconds": statistics.median(own), "per_second": files / statistics.median(own)}
        row |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        rows.append(row)
    print(f"{files} Velox files of {size} x {size} px, the reader's start included")
    why = (
        "a reader's start is in it, and pixels are written twice: to the work folder, from which a stopped run goes on"
    )
    goals = [goal("build_dataset with two workers over the plain loop, speed", rows[2]["ratio"], at_least=1.0, why=why)]
    print(table(rows, COLUMNS) + "\n\n" + table(goals))
    claim = (
        "A folder of microscope files becomes a data set no slower than by a plain loop in one process, although every "
        "file is read in a process that may die, checked, and resumable."
    )
    head = header(
        "build_speed", claim, ["hyperspy", "rosettasciio"], {"files": files, "size": size, "rounds": options.rounds}
    )
    write(options.json, head, rows, COLUMNS, goals)


if __name__ == "__main__":
    main()
