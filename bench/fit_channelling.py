"""Fit the two constants of the image model to the stored multislice results, all structures together.

    python bench/fit_channelling.py         # about three minutes of one core; prints a table, changes nothing

The figure of merit is the worst of the acceptance criteria over all structures, each divided by its limit.
"""

import itertools

import numpy as np

from cimp_core.simulate import agreement, channelling, lattice_image


def merits(name):
    """Correlation, fraction, columns and background of one structure over their limits; 1 is just passed."""
    reference = agreement.load_reference(name)
    found = agreement.compare(reference, lambda *key: agreement.model_image(reference, *key))
    return (
        (1 - found["correlation"].min()) / 0.02,
        np.abs(found["fraction"] - 1).max() / 0.15,
        np.abs(found["columns"] - 1).max(initial=0) / 0.10,
        np.abs(found["background"]).max() / 0.05,
    )


if __name__ == "__main__":
    print("guided delocalisation worst | " + " | ".join(agreement.REFERENCES))
    for guided, delocalisation in itertools.product((0.4, 0.5, 0.6, 0.7), (0.210, 0.230, 0.238, 0.242, 0.246, 0.260)):
        if guided != channelling.GUIDED:
            channelling.guide.cache_clear()
        channelling.GUIDED, lattice_image.DELOCALISATION = guided, delocalisation
        lattice_image._sections.cache_clear()
        rows = [merits(name) for name in agreement.REFERENCES]
        columns = " | ".join(" ".join(f"{m:4.2f}" for m in row) for row in rows)
        print(f"{guided:6.2f} {delocalisation:14.3f} {max(map(max, rows)):5.2f} | {columns}", flush=True)
