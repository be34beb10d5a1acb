"""How fast the twin is made, where the time goes, and whether memory stays flat.

    python bench/twin_speed.py [--images 7330] [--size 256] [--quick] [--json FILE]

The peer is the same chain as it is usually written: one process, `scipy.ndimage.map_coordinates` for the fly-back, the
after-glow as a loop over columns, double precision throughout. Both run here, in one go, on the same images.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from report import goal, header, parser, table, write
from scipy.ndimage import map_coordinates

from cimp_core import digital_twin
from cimp_core.simulate import detector as detecting
from cimp_core.simulate import scan as scanning
from cimp_core.simulate.specimen import draw_specimen, expectation

TARGET = 7330, 120.0  # images, seconds on two processors


def make(images, size, workers):
    """Seconds, processor seconds and peak memory [MB] of the largest process, in a process of its own."""
    code = (
        "import json, resource, sys, time; from cimp_core.digital_twin import make_twin\n"
        "path, images, size, workers = sys.argv[1], *map(int, sys.argv[2:])\n"
        "start = time.perf_counter(); make_twin(path, images, size, 0, workers); wall = time.perf_counter() - start\n"
        "use = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print(json.dumps([wall, sum(u.ru_utime + u.ru_stime for u in use), max(u.ru_maxrss for u in use) / 1024]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-c", code, str(Path(folder) / "twin.h5"), str(images), str(size), str(workers)]
        return json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)


def textbook_lag(fraction, scan, dwell_time):
    """`scan.lag` by spline interpolation at every position."""
    rows, columns = fraction.shape
    y, x = np.mgrid[:rows, :columns].astype(float)
    x += scan.lag * columns * np.exp(-dwell_time * np.arange(columns) / scan.lag_time)
    return np.maximum(map_coordinates(fraction, [y, x], mode="nearest"), 0)


def textbook_record(fraction, acquisition, detector, rng):
    """`detector.record` with the after-glow as a recursion over columns."""
    expected = detecting.electrons(fraction, acquisition, detector)
    light = rng.poisson(expected).astype(float)
    spread = detector.pulse_height_spread
    light = rng.gamma(light / spread**2) * spread**2
    f = detecting.spill(detector.decay_time, acquisition.dwell_time)
    r = np.exp(-acquisition.dwell_time / detector.decay_time)
    out, glow = np.empty_like(light), f * expected[:, 0]
    for column in range(light.shape[1]):
        out[:, column] = (1 - f) * light[:, column] + (1 - r) * glow
        glow = r * glow + f * light[:, column]
    counts = detecting._counts(out, acquisition, detector) + rng.normal(0, detector.read_noise, out.shape)
    return np.clip(np.round(counts), 0, 65535).astype(np.uint16)


def stages(images, size):
    """Milliseconds an image of each stage, and of the peer's, by processor time."""
    spent = dict.fromkeys(
        ("settings", "specimen and its image", "fly-back", "detector", "peer fly-back", "peer detector"), 0.0
    )

    def timed(name, function, *arguments):
        start = time.process_time()
        result = function(*arguments)
        spent[name] += (time.process_time() - start) * 1e3 / images
        return result

    def area(k, shot, material, rng):
        settings = shot.acquisition
        specimen = draw_specimen(rng, settings.pixel_size, size, material)
        rows = scanning.row_displacements(shot.scan, settings.dwell_time, size, size, rng)
        angles = settings.inner_collection_angle, shot.outer_collection_angle
        return expectation(specimen, shot.optics, *angles, settings.pixel_size, size, rows)

    for k in range(images):
        session, rng = digital_twin.open_session(0, k)
        shot = timed("settings", digital_twin.draw_acquisition, session, rng)
        fraction = timed("specimen and its image", area, k, shot, session.material, rng)
        shot = timed("settings", digital_twin.set_detector, shot, session, fraction, rng)
        scanned = timed("fly-back", scanning.lag, fraction, shot.scan, shot.acquisition.dwell_time)
        timed("detector", detecting.record, scanned, shot.acquisition, shot.detector, rng)
        scanned = timed("peer fly-back", textbook_lag, fraction, shot.scan, shot.acquisition.dwell_time)
        timed("peer detector", textbook_record, scanned, shot.acquisition, shot.detector, rng)
    return spent


STAGES = {"stage": "{name}", "ms an image": "{ms:.2f}"}
RUNS = {
    "images": "{images:,}",
    "workers": "{workers}",
    "wall [s]": "{wall_s:.1f}",
    "processor [s]": "{cpu_s:.1f}",
    "processor [ms an image]": "{cpu_ms:.1f}",
    "images/s": "{per_second:.1f}",
    "peak [MB]": "{peak_MB:.0f}",
}


def row(count, workers, wall, cpu, memory):
    found = {"images": count, "workers": workers, "wall_s": wall, "cpu_s": cpu, "cpu_ms": 1e3 * cpu / count}
    return found | {"per_second": count / wall, "peak_MB": memory}


def tables_share(rows):
    """What the tables of crystals, which each worker makes once, cost, told by two runs of different length."""
    short, whole = rows[1], rows[-1]
    each = (whole["cpu_s"] - short["cpu_s"]) / (whole["images"] - short["images"])
    tables = max(whole["cpu_s"] - each * whole["images"], 0.0) / 2
    speed = TARGET[0] / (tables + each * TARGET[0] / 2)
    return (
        f"{tables:.0f} s of each processor go into tables of crystals, whatever the number of images, "
        f"{1e3 * each:.0f} ms into an image: {speed:.0f} a second for all {TARGET[0]}"
    )


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, help="7330 by default, with --quick a quarter of them")
    arguments.add_argument("--size", type=int, default=256)
    options = arguments.parse_args()
    size, images = options.size, options.images or TARGET[0] // (4 if options.quick else 1)

    spent = stages(min(images, 100), size)
    rows = [row(n, w, *make(n, size, w)) for n, w in ((images // 8, 1), (images // 8, 2), (images, 2))]
    chain, peer = spent["fly-back"] + spent["detector"], spent["peer fly-back"] + spent["peer detector"]
    print(f"{size} x {size} px; stages on one thread, processor time")
    print(table([{"name": name, "ms": ms} for name, ms in spent.items()], STAGES) + "\n\n" + table(rows, RUNS) + "\n")
    busy = rows[-1]["wall_s"] > 1.1 * rows[-1]["cpu_s"] / 2
    why = "the processors did other work too: less than 90 % of them was had" if busy else tables_share(rows)
    goals = [
        goal(
            f"images of {size} px a second on two processors ({TARGET[0]} in {TARGET[1]:.0f} s)",
            rows[-1]["per_second"],
            at_least=TARGET[0] / TARGET[1],
            why=why,
        ),
        goal("peer's time for fly-back and detector over ours", peer / chain, at_least=1.0),
        goal("memory added by eight times the images [MB]", rows[-1]["peak_MB"] - rows[1]["peak_MB"], at_most=50.0),
    ]
    print(table(goals))
    claim = "The whole twin is made in two minutes on two processors, in memory that does not grow with it."
    head = header("twin_speed", claim, settings={"quick": options.quick, "size": size})
    write(options.json, head, rows, RUNS, goals)


if __name__ == "__main__":
    main()
