"""The image model of `cimp_core.structures` against the twin's own images of crystals, and against multislice.

    python bench/structures_model.py                 # about 2 minutes of one CPU core
    python bench/structures_model.py --fit           # fit `projection.HOLD` anew: about 5 minutes

The twin's images follow channelling by a table for each crystal and direction; a library cannot. Of the twin's
crystals, in alphabetical order, every other one was fitted to, and only at 24 mrad and from 60 mrad. The others, the
other angles and the stored multislice results were not. Printed are, over crystals and directions: the correlation of
images without their means; contrast (standard deviation over mean) and mean, library over twin.
"""

import argparse

import numpy as np
from scipy.optimize import least_squares

from cimp_core.simulate import agreement
from cimp_core.simulate.lattice_image import unit_cell_image
from cimp_core.simulate.optics import Optics
from cimp_core.simulate.structures import CRYSTALS, ZONE_AXES, zone_axis_cell
from cimp_core.structures import Projection, Structure, pattern, projection

THICKNESS = np.array([20.0, 50.0, 100.0, 200.0, 400.0])  # [angstrom]
OUTER = 0.2  # [rad]
BULK = sorted(name for name, crystal in CRYSTALS.items() if not crystal.layered)
FITTED, OTHERS = BULK[::2], BULK[1::2]


def projected_cell(crystal, zone):
    """The twin's own cell as a projection, so that both images lie alike."""
    cell = zone_axis_cell(crystal, zone)
    edges, turn = np.diag(cell.size), np.eye(3, dtype=int)[None]
    sites, layers = cell.positions / cell.size, CRYSTALS[crystal].layered
    one = Structure(
        crystal, crystal, crystal, 1, "P1", edges, edges, cell.elements, sites, cell.debye_waller, turn, "", layers
    )
    return Projection(one, (0, 0, 1), edges[:2, :2], cell.positions[:, :2], float(cell.size[2]))


def orders(view, shape, *settings):
    """Fourier coefficients of a pattern in the layout of `unit_cell_image`."""
    made = pattern(view, *settings)
    found = np.zeros(shape, complex)
    middle = np.array(shape) // 2
    index = np.rint(made.frequencies @ view.lattice.T).astype(int)
    inside = (np.abs(index) <= middle).all(1)
    for sign, value in ((1, made.coefficients), (-1, made.coefficients.conj())):
        found[tuple((middle + sign * index[inside]).T)] = value[inside]
    found[tuple(middle)] = made.mean
    return found


def twin(crystal, zone, convergence, inner):
    optics = Optics(convergence_angle=convergence, source_size=70e-12)
    return optics, inner, unit_cell_image(crystal, zone, optics, inner, OUTER, THICKNESS)


def scores(crystal, zone, optics, inner, truth):
    """(thicknesses, 3): correlation, contrast, mean."""
    view, found = projected_cell(crystal, zone), []
    for thickness, whole in zip(THICKNESS, truth, strict=True):
        guess, middle = orders(view, whole.shape, optics, inner, OUTER, thickness), tuple(np.array(whole.shape) // 2)
        means = guess[middle].real, whole[middle].real
        a, b = guess.copy(), whole.copy()
        a[middle] = b[middle] = 0
        power = np.linalg.norm(a), np.linalg.norm(b)
        correlation = np.vdot(a, b).real / (power[0] * power[1])
        found.append((correlation, power[0] / means[0] / (power[1] / means[1]), means[0] / means[1]))
    return np.array(found)


def everything(names, convergence, inner):
    zones = [(name, zone) for name in names for zone in ZONE_AXES[CRYSTALS[name].family]]
    return [(*which, *twin(*which, convergence, inner)) for which in zones]


def say(title, made):
    table = np.array([scores(*one) for one in made])
    print(f"{title}: {len(made)} images at each thickness")
    print("thickness [nm]     " + "".join(f"{t / 10:8.0f}" for t in THICKNESS))
    for name, k, q in (("correlation, mean", 0, None), ("correlation, least", 0, 0)):
        values = table[:, :, k].mean(0) if q is None else table[:, :, k].min(0)
        print(f"{name:19s}" + "".join(f"{v:8.3f}" for v in values))
    for name, k in (("contrast", 1), ("mean", 2)):
        for q in (5, 50, 95):
            print(f"{name}, {q:2d} % {'':7s}" + "".join(f"{v:8.2f}" for v in np.percentile(table[:, :, k], q, 0)))


def fit():
    made = everything(FITTED, 24e-3, 60e-3)

    def misfit(x):
        projection.HOLD = tuple(np.exp(x))
        table = np.array([scores(*one) for one in made])
        parts = 3 * np.sqrt(np.maximum(1 - table[..., 0], 0)), np.log(table[..., 1]), 0.5 * np.log(table[..., 2])
        return np.concatenate([part.ravel() for part in parts])

    best = least_squares(misfit, np.log(projection.HOLD), diff_step=0.05, max_nfev=12)
    print("HOLD =", ", ".join(f"{v:.3g}" for v in np.exp(best.x)))
    projection.HOLD = tuple(np.exp(best.x))


def multislice():
    print("stored multislice: correlation of the worst image, contrast of library over multislice, least and most")
    for name in agreement.REFERENCES:
        reference = agreement.load_reference(name)
        view, found = projected_cell(reference.crystal, reference.zone), []
        for (convergence, inner), images in reference.images.items():
            settings = Optics(convergence_angle=convergence), inner, agreement.OUTER
            for thickness, image in zip(reference.thickness * 1e10, images, strict=True):
                whole = orders(view, tuple(n - 1 + n % 2 for n in image.shape), *settings, thickness)
                guess = agreement.sample(whole[None], image.shape)[0]
                contrast = (guess.std() / guess.mean()) / (image.std() / image.mean())
                found.append((np.corrcoef(guess.ravel(), image.ravel())[0, 1], contrast))
        found = np.array(found)
        print(f"{name:12s} {found[:, 0].min():.3f}  {found[:, 1].min():.2f} {found[:, 1].max():.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true")
    if parser.parse_args().fit:
        fit()
    say("crystals that were fitted to, 24 mrad from 60 mrad", everything(FITTED, 24e-3, 60e-3))
    say("other crystals, 24 mrad from 60 mrad", everything(OTHERS, 24e-3, 60e-3))
    say("other crystals, 20 mrad from 40 mrad", everything(OTHERS, 20e-3, 40e-3))
    say("other crystals, 30 mrad from 90 mrad", everything(OTHERS, 30e-3, 90e-3))
    multislice()
