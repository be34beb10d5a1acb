"""Remake the multislice results that the twin's physics is tested against.

    python bench/abtem_reference.py                 # about 30 minutes of one CPU core; needs abtem==1.0.11
    python bench/abtem_reference.py SrTiO3-001      # one structure

Frozen-phonon multislice at 300 kV with the cells, Debye-Waller factors and Lobato potentials of
`cimp_core.simulate`. Scan positions fill the projected unit cell at or below the Nyquist step lambda / (4 alpha);
of each set of symmetry-equivalent positions one is computed. Radial bins of 10 mrad are kept, so that any
collection range in whole bins can be compared. The potential's slices are summed in Fourier space at exact positions:
abTEM's own builder shares each atom out over grid points, which at this sampling costs an atom between the points a
fifth of its scattering at 90 mrad. Every finished configuration is kept in the work folder and not redone.
"""

import argparse
import itertools
import math
import os
from pathlib import Path

import numpy as np

from cimp_core.simulate.structures import zone_axis_cell

TARGET = Path(__file__).resolve().parents[1] / "cimp_core" / "simulate" / "multislice.npz"
VOLTAGE, WAVELENGTH = 300e3, 0.0196875  # [V], [angstrom]
CONVERGENCE = (20.0, 30.0)  # [mrad]
THICKNESS = (20.0, 50.0, 100.0)  # [angstrom], rounded to whole repeats
BIN, OUTER = 10.0, 160.0  # [mrad]
LATERAL = 7.5  # smallest edge of the supercell [angstrom]: the cone of 30 mrad is 6 wide at 100

# Antialiasing stops 0.04 angstrom at 164 mrad. The phase of a gold atom is so steep that 0.04 would add a sixth to what
# it scatters beyond 90 mrad; against 0.02 the lighter ones are right to 3 %.
SAMPLING = {"Au-001": 0.025, "SrTiO3-001": 0.04, "Si-110": 0.04, "GaAs-110": 0.04}  # [angstrom]

# Crystal, zone, phonon configurations, and generators of the plane symmetry on fractions x, y of the cell.
_SQUARE = (lambda x, y: (-x, y), lambda x, y: (y, x))
_DUMBBELL = (lambda x, y: (-x, y), lambda x, y: (x + 0.5, y + 0.5))
STRUCTURES = {
    "SrTiO3-001": ("SrTiO3", "001", 12, _SQUARE),
    "Au-001": ("Au", "001", 10, (*_SQUARE, lambda x, y: (x + 0.5, y))),
    "Si-110": ("Si", "110", 10, (*_DUMBBELL, lambda x, y: (x, 0.25 - y))),
    "GaAs-110": ("GaAs", "110", 10, _DUMBBELL),
}


def scan_grid(size, convergence, symmetry):
    """Scan of the whole cell: (shape, fractional positions of the representatives, index (nx, ny) into them)."""
    step = WAVELENGTH / (4e-3 * convergence)
    shape = tuple(even * math.ceil(edge / step / even) for even, edge in zip((2, 4), size, strict=False))
    if np.isclose(size[0], size[1]):
        shape = (max(shape),) * 2
    index = np.full(shape, -1)
    representatives = []
    for start in itertools.product(*map(range, shape)):
        if index[start] >= 0:
            continue
        representatives.append(np.array(start) / shape)
        orbit = [start]
        while orbit:
            point = orbit.pop()
            if index[point] >= 0:
                continue
            index[point] = len(representatives) - 1
            fraction = np.array(point) / shape
            orbit += [tuple(np.rint(np.array(image(*fraction)) * shape).astype(int) % shape) for image in symmetry]
    return shape, np.array(representatives), index


def exact_slices(atoms, layer, sampling):
    """Projected potential (slices, nx, ny) of displaced atoms [V angstrom], each in the slice of its rest position."""
    from abtem.parametrizations import LobatoParametrization

    edges = atoms.cell.lengths()[:2]
    shape = [math.ceil(edge / sampling) for edge in edges]
    kx, ky = (np.fft.fftfreq(n, edge / n) for n, edge in zip(shape, edges, strict=True))
    k2 = (kx[:, None] ** 2 + ky**2).astype("f4")
    array, table = np.zeros((layer.max() + 1, *shape), "f4"), LobatoParametrization()
    factors = {e: table.projected_scattering_factor(e)(k2) for e in set(atoms.symbols)}
    for i, (element, factor) in itertools.product(range(len(array)), factors.items()):
        x, y = atoms.positions[(layer == i) & (atoms.symbols == element), :2].T
        waves = np.exp(-2j * np.pi * np.outer(kx, x)) @ np.exp(-2j * np.pi * np.outer(y, ky))
        array[i] += np.fft.ifft2(waves * factor).real * (math.prod(shape) / math.prod(edges))
    return array


def simulate(name, folder, limit):
    """Collected fraction of each bin at each exit plane, one file a phonon configuration, in `folder`."""
    import abtem
    import ase

    abtem.config.set({"fft": "fftw", "fftw.threads": 1, "diagnostics.progress_bar": False, "dask.lazy": False})
    crystal, zone, configurations, symmetry = STRUCTURES[name]
    configurations = min(configurations, limit)
    cell = zone_axis_cell(crystal, zone)
    layers = [max(1, round(t / cell.size[2])) for t in THICKNESS]
    lateral = [math.ceil(LATERAL / edge) for edge in cell.size[:2]]
    # Half a slice down, so that a displaced layer does not cross the entrance surface.
    atoms = ase.Atoms(cell.elements, cell.positions + [0, 0, cell.size[2] / 4], cell=cell.size, pbc=True)
    atoms = atoms * (*lateral, layers[-1])
    sigma = {e: math.sqrt(b / (8 * math.pi**2)) for e, b in zip(cell.elements, cell.debye_waller, strict=True)}
    scans = {c: scan_grid(cell.size, c, symmetry) for c in CONVERGENCE}
    per_repeat = max(2, len(set(np.round(cell.positions[:, 2], 3))))
    thin, planes = cell.size[2] / per_repeat, tuple(n * per_repeat - 1 for n in layers)
    rest = np.floor(atoms.positions[:, 2] / thin + 1e-6).astype(int)
    extent = tuple(n * edge for n, edge in zip(lateral, cell.size, strict=False))
    for seed in range(configurations):
        path = folder / f"{name}.{seed}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng(seed)
        moved = abtem.FrozenPhonons(atoms, 1, sigmas=sigma, seed=seed + 1).randomize(atoms)
        potential = abtem.PotentialArray(
            exact_slices(moved, rest, SAMPLING[name]), slice_thickness=thin, extent=extent, exit_planes=planes
        )
        result = {"size": cell.size, "thickness": np.array(layers) * cell.size[2], "bin": BIN}
        for convergence, (_, representatives, index) in scans.items():
            # Another unit cell of the supercell each time: more independent displacements in the average.
            shift = [rng.integers(n) for n in lateral]
            scan = abtem.CustomScan((representatives + shift) * cell.size[:2])
            probe = abtem.Probe(energy=VOLTAGE, semiangle_cutoff=convergence)
            detector = abtem.FlexibleAnnularDetector(step_size=BIN, inner=0, outer=OUTER)
            array = np.asarray(probe.scan(potential, scan=scan, detectors=detector, lazy=False).array)
            result[f"fraction_{convergence:.0f}"] = array.reshape(len(layers), len(representatives), -1)
            result[f"index_{convergence:.0f}"] = index.astype("i2")
        np.savez(path.with_suffix(".part.npz"), **result)
        os.replace(path.with_suffix(".part.npz"), path)
        print(path, flush=True)


def merge(folder, target):
    """One compressed file: per structure the mean over the configurations that are done, and its standard error."""
    merged = {}
    for name in STRUCTURES:
        parts = [dict(np.load(path)) for path in sorted(folder.glob(f"{name}.[0-9]*.npz")) if "part" not in path.name]
        if not parts:
            continue
        merged |= {f"{name}/{key}": value for key, value in parts[0].items()}
        merged[f"{name}/configurations"] = len(parts)
        for key in [key for key in parts[0] if key.startswith("fraction")]:
            stack = np.array([part[key] for part in parts], float)
            error = stack.std(0, ddof=1) / len(stack) ** 0.5 if len(stack) > 1 else np.full(stack.shape[1:], np.nan)
            merged[f"{name}/{key}"] = stack.mean(0).astype("f4")
            merged[f"{name}/{key.replace('fraction', 'error')}"] = error.astype("f2")
    temporary = target.with_suffix(".part.npz")
    np.savez_compressed(temporary, **merged)
    os.replace(temporary, target)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", nargs="*", default=list(STRUCTURES), metavar="STRUCTURE")
    parser.add_argument("--configurations", type=int, default=99, help="at most so many phonon configurations")
    parser.add_argument("--work", type=Path, default=Path("multislice_work"), help="folder of finished configurations")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    arguments.work.mkdir(exist_ok=True)
    for number in range(1, 1 + min(arguments.configurations, max(v[2] for v in STRUCTURES.values()))):
        for structure in arguments.structures:  # all get one before any gets the next: stop whenever it is enough
            simulate(structure, arguments.work, number)
    merge(arguments.work, arguments.target)
