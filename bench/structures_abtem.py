"""The image model of `cimp_core.structures` against new multislice of prototypes that nothing of it was fitted to.

    python bench/structures_abtem.py                 # about 25 minutes of one CPU core; needs abtem==1.0.11

Frozen phonons at 300 kV with the exact slices of `abtem_reference`, along [001], of an area of at least 10 angstrom.
Printed are the correlation of the images without their means, and contrast (standard deviation over mean) and mean of
the model over multislice. Measured so far: pyrite (FeS2) alone, correlation 0.985 and 0.981 at 4.9 and 9.8 nm, contrast
1.20 and 1.37, mean 0.92 and 0.89.
"""

import argparse
import itertools
import math

import ase
import numpy as np
from abtem_reference import exact_slices

from cimp_core import structures as st
from cimp_core.simulate.optics import Optics

PROTOTYPES = ("AB2_cP12_205_a_c", "A3B_cP8_223_c_a", "AB_tP4_129_a_c")  # pyrite, Cr3Si, PbO
CONVERGENCE, INNER, OUTER = 24e-3, 60e-3, 100e-3  # [rad]
THICKNESS, STEP, SAMPLING, LATERAL = (50.0, 100.0), 0.3, 0.05, 10.0  # [angstrom]


def conventional_cell(structure):
    """Elements and positions (n, 3) of the conventional cell, and its edges: [angstrom]."""
    edges = np.linalg.norm(structure.conventional, axis=1)
    shifts = np.array(list(itertools.product(range(-2, 3), repeat=3)))
    found = {}
    for element, site in zip(structure.elements, structure.sites, strict=True):
        fractions = (site + shifts) @ structure.lattice @ np.linalg.inv(structure.conventional)
        for fraction in np.round(fractions, 6) % 1:
            found[element, *np.round(fraction, 4).tolist()] = fraction
    return [key[0] for key in found], np.array(list(found.values())) * edges, edges


def multislice(elements, positions, edges, b, configurations):
    """Collected fraction (thicknesses, nx, ny) over the cell, mean of phonon configurations."""
    import abtem

    abtem.config.set({"fft": "fftw", "fftw.threads": 1, "diagnostics.progress_bar": False, "dask.lazy": False})
    layers = [round(t / edges[2]) for t in THICKNESS]
    lateral = [math.ceil(LATERAL / edge) for edge in edges[:2]]
    atoms = ase.Atoms(elements, positions, cell=edges, pbc=True) * (*lateral, layers[-1])
    per_repeat = math.ceil(edges[2] / 1.5)
    thin = edges[2] / per_repeat
    rest = np.minimum(np.floor(atoms.positions[:, 2] / thin + 1e-6).astype(int), layers[-1] * per_repeat - 1)
    shape = [math.ceil(edge / STEP) for edge in edges[:2]]
    places = np.stack(
        np.meshgrid(*(np.arange(n) / n * e for n, e in zip(shape, edges, strict=False)), indexing="ij"), -1
    )
    total = 0.0
    for seed in range(configurations):
        moved = abtem.FrozenPhonons(atoms, 1, sigmas=math.sqrt(b / (8 * math.pi**2)), seed=seed).randomize(atoms)
        extent = tuple(n * edge for n, edge in zip(lateral, edges, strict=False))
        planes = tuple(n * per_repeat - 1 for n in layers)
        slices = exact_slices(moved, rest, SAMPLING)
        potential = abtem.PotentialArray(slices, slice_thickness=thin, extent=extent, exit_planes=planes)
        probe = abtem.Probe(energy=300e3, semiangle_cutoff=CONVERGENCE * 1e3)
        detector = abtem.AnnularDetector(inner=INNER * 1e3, outer=OUTER * 1e3)
        scan = abtem.CustomScan(places.reshape(-1, 2))
        total = total + np.asarray(probe.scan(potential, scan=scan, detectors=detector, lazy=False).array)
    return (total / configurations).reshape(len(layers), *shape), np.array(layers) * edges[2]


def model(structure, elements, positions, edges, thickness, shape):
    """The same from a library's pattern, on the same points."""
    axes, factors = np.diag(edges), np.full(len(elements), structure.debye_waller[0])
    one = st.Structure(
        *("cell", "cell", "cell", 1, "P1", axes, axes, tuple(elements), positions / edges, factors),
        *(np.eye(3, dtype=int)[None], ""),
    )
    view = st.Projection(one, (0, 0, 1), axes[:2, :2], positions[:, :2], float(edges[2]))
    made = st.pattern(view, Optics(convergence_angle=CONVERGENCE), INNER, OUTER, thickness)
    grids = [np.arange(n) / n * e for n, e in zip(shape, edges, strict=False)]
    waves = [np.exp(2j * np.pi * np.outer(made.frequencies[:, i].astype(float), p)) for i, p in enumerate(grids)]
    return made.mean + 2 * np.einsum("m,mx,my->xy", made.coefficients.astype(complex), *waves).real


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=4)
    arguments = parser.parse_args()
    print(f"{'prototype':20s}{'formula':10s}{'nm':>6s}{'correlation':>13s}{'contrast':>10s}{'mean':>7s}")
    for label in PROTOTYPES:
        (structure,) = st.find_structures(label)
        elements, positions, edges = conventional_cell(structure)
        images, thicknesses = multislice(
            elements, positions, edges, float(structure.debye_waller[0]), arguments.configurations
        )
        for image, thickness in zip(images, thicknesses, strict=True):
            guess = model(structure, elements, positions, edges, thickness, image.shape)
            correlation = np.corrcoef(guess.ravel(), image.ravel())[0, 1]
            contrast = guess.std() / guess.mean() / (image.std() / image.mean())
            print(
                f"{label:20s}{structure.formula:10s}{thickness / 10:6.1f}{correlation:13.3f}{contrast:10.2f}"
                f"{guess.mean() / image.mean():7.2f}",
                flush=True,
            )
