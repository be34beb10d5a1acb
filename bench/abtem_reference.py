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
COLUMN_CONFIGURATIONS = 40
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


class Setup:
    """One structure's supercell, slices and vibrations."""

    def __init__(self, name):
        import ase

        crystal, zone, self.configurations, self.symmetry = STRUCTURES[name]
        self.name, self.cell = name, zone_axis_cell(crystal, zone)
        size = self.cell.size
        self.layers = [max(1, round(t / size[2])) for t in THICKNESS]
        self.lateral = [math.ceil(LATERAL / edge) for edge in size[:2]]
        # Half a slice down, so that a displaced layer does not cross the entrance surface.
        atoms = ase.Atoms(self.cell.elements, self.cell.positions + [0, 0, size[2] / 4], cell=size, pbc=True)
        self.atoms = atoms * (*self.lateral, self.layers[-1])
        vibrations = zip(self.cell.elements, self.cell.debye_waller, strict=True)
        self.sigma = {e: math.sqrt(b / (8 * math.pi**2)) for e, b in vibrations}
        per_repeat = max(2, len(set(np.round(self.cell.positions[:, 2], 3))))
        self.thin, self.planes = size[2] / per_repeat, tuple(n * per_repeat - 1 for n in self.layers)
        self.rest = np.floor(self.atoms.positions[:, 2] / self.thin + 1e-6).astype(int)

    def potential(self, seed):
        """Potential of one phonon configuration."""
        import abtem

        abtem.config.set({"fft": "fftw", "fftw.threads": 1, "diagnostics.progress_bar": False, "dask.lazy": False})
        moved = abtem.FrozenPhonons(self.atoms, 1, sigmas=self.sigma, seed=seed).randomize(self.atoms)
        extent = tuple(n * edge for n, edge in zip(self.lateral, self.cell.size, strict=False))
        slices = exact_slices(moved, self.rest, SAMPLING[self.name])
        return abtem.PotentialArray(slices, slice_thickness=self.thin, extent=extent, exit_planes=self.planes)

    def fractions(self, potential, convergence, places):
        """Collected fraction (thickness, places, bins) at `places` (n, 2), in units of the cell."""
        import abtem

        scan = abtem.CustomScan(places * self.cell.size[:2])
        probe = abtem.Probe(energy=VOLTAGE, semiangle_cutoff=convergence)
        detector = abtem.FlexibleAnnularDetector(step_size=BIN, inner=0, outer=OUTER)
        array = np.asarray(probe.scan(potential, scan=scan, detectors=detector, lazy=False).array)
        return array.reshape(len(self.layers), len(places), -1)

    def columns(self):
        """Places of all columns of the supercell by the elements in them."""
        places = {}
        for element, position in zip(self.cell.elements, self.cell.positions, strict=True):
            places.setdefault(tuple(np.round(position[:2] / self.cell.size[:2], 3)), set()).add(element)
        kinds = {}
        for place, elements in places.items():
            shifts = itertools.product(*map(range, self.lateral))
            kinds.setdefault("".join(sorted(elements)), []).extend(np.add(place, shift) for shift in shifts)
        return {kind: np.array(found) for kind, found in kinds.items()}


def simulate(name, folder, limit):
    """Whole cells: collected fraction of each bin at each exit plane, one file a phonon configuration, in `folder`."""
    setup = Setup(name)
    scans = {c: scan_grid(setup.cell.size, c, setup.symmetry) for c in CONVERGENCE}
    for seed in range(min(setup.configurations, limit)):
        path = folder / f"{name}.{seed}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng(seed)
        potential = setup.potential(seed + 1)
        result = {"size": setup.cell.size, "thickness": np.array(setup.layers) * setup.cell.size[2], "bin": BIN}
        for convergence, (_, representatives, index) in scans.items():
            # Another unit cell of the supercell each time: more independent displacements in the average.
            shift = [rng.integers(n) for n in setup.lateral]
            result[f"fraction_{convergence:.0f}"] = setup.fractions(potential, convergence, representatives + shift)
            result[f"index_{convergence:.0f}"] = index.astype("i2")
        write(path, result)


def simulate_columns(name, folder, limit):
    """The column centres alone, all of the supercell: many configurations, as a ratio of two peaks needs them."""
    setup = Setup(name)
    kinds = setup.columns()
    if len(kinds) == 1:
        return
    for seed in range(min(COLUMN_CONFIGURATIONS, limit)):
        path = folder / f"{name}.columns{seed}.npz"
        if path.exists():
            continue
        potential = setup.potential(1000 + seed)
        result = {
            f"peaks_{convergence:.0f}": np.stack(
                [setup.fractions(potential, convergence, places).mean(1) for places in kinds.values()], 1
            )
            for convergence in CONVERGENCE
        }
        write(path, {**result, "kinds": np.array(list(kinds))})


def write(path, arrays):
    """All or nothing, so that a run can be stopped and resumed."""
    np.savez(path.with_suffix(".part.npz"), **arrays)
    os.replace(path.with_suffix(".part.npz"), path)
    print(path, flush=True)


def mean_and_error(parts, key):
    """Mean over configurations and its standard error."""
    stack = np.array([part[key] for part in parts], float)
    error = stack.std(0, ddof=1) / len(stack) ** 0.5 if len(stack) > 1 else np.full(stack.shape[1:], np.nan)
    return stack.mean(0).astype("f4"), error.astype("f2")


def merge(folder, target):
    """One compressed file: per structure the means over the configurations that are done, and their errors."""
    merged = {}
    for name in STRUCTURES:
        whole, peaks = (
            [dict(np.load(path)) for path in sorted(folder.glob(f"{name}.{what}*.npz")) if "part" not in path.name]
            for what in ("[0-9]", "columns")
        )
        if not whole:
            continue
        merged |= {f"{name}/{key}": value for key, value in whole[0].items()}
        merged[f"{name}/configurations"] = len(whole)
        if peaks:
            merged |= {f"{name}/kinds": peaks[0]["kinds"], f"{name}/column_configurations": len(peaks)}
        for parts, what in ((whole, "fraction"), (peaks, "peaks")):
            for convergence in CONVERGENCE if parts else ():
                key = f"{what}_{convergence:.0f}"
                merged[f"{name}/{key}"], merged[f"{name}/{key}_error"] = mean_and_error(parts, key)
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
    for structure in arguments.structures:
        simulate_columns(structure, arguments.work, arguments.configurations)
    merge(arguments.work, arguments.target)
