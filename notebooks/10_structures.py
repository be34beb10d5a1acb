# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which structure is this?

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/10_structures.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/10_structures.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | to simulate a library of crystals along their zone axes; to find in it the crystal that a micrograph shows, with the axis, the angle, what is left unexplained, and an honest "none of these"; what such an answer is worth at which dose |
# | **You need** | [how HAADF-STEM works](../book/how_haadf_works); what a zone axis and a Fourier series are |
# | **It takes** | about a minute and a half on two cores, 1.5 GB of memory |

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # what Colab brings along stays as it is
    import subprocess

    package = "cimp-core[structures] @ git+https://github.com/@REPOSITORY@"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", package], check=True
    )

# %%
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import cimp_core as cimp
from cimp_core import figures, figures_matching, figures_structures
from cimp_core import structures as st
from cimp_core.results import read_results

figures.use_style()

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke": tiny, "book", or "full": more directions, more images
data = "twin"  # "twin", or the path of a data set in the published layout
sources = "prototypes"  # what is looked for: see the table below; a CIF file, say
seed = 0

# %% [markdown]
# ## The idea
#
# A crystal seen along a zone axis is a wallpaper of bright columns. Three things tell one wallpaper from another: the two
# periods and the angle between them, in **absolute** lengths, which is why the pixel size matters; where in the cell the
# columns are; and how bright each is, which goes with its atoms.
#
# None of that depends on where the microscope looked or how the specimen was turned. So the search goes in steps, from cheap to
# dear:
#
# 1. The **power spectrum** does not know the place. On a polar grid, with a logarithmic axis of absolute $|g|$, a turn of the
#    specimen is a shift along one axis, and a wrong pixel size is a small shift along the other.
# 2. What does not change under either is a short **description**, of which a hundred thousand are compared in a moment. Where the
#    pixel size is known to a per cent, candidates come from a **learnt embedding** as well, which compares single reflections.
# 3. The best candidates are turned into place by circular correlation, and **fitted to the pixels**: angle, scale, shift and
#    distortion of the scan are free; columns and their brightness are not.
# 4. What the best fit explains, how far it is ahead, and how odd a pixel size it needs become **probabilities**, one of which
#    is that of "none of these". They were calibrated on simulated images, some of them of crystals left out of the library.
#
# The weights of the last step and the embedding are learnt; more of the second below.
#
# ## A library
#
# | `sources` | what is simulated |
# |---|---|
# | `"prototypes"` | the AFLOW library of prototype structures (Mehl 2017), as pymatgen has it |
# | `"crystals"`, `"SrTiO3"` | the crystals of the twin, or one of them |
# | `"phases/*.cif"` | your own CIF files |
# | `"SrHfO3"`, `"Sr-Hf-O"` | prototypes decorated with these elements, their lengths a guess |
#
# Each structure is looked at along all directions up to an index, once for each set that symmetry makes equal. An image is kept as
# its Fourier series, which any angle, pixel size and field of view can be drawn from.

# %%
chosen, zones = {
    "smoke": ("crystals", 1),
    "book": (sources, 1),
    "full": (sources, 2),
}[profile]
names = ["crystals"] if chosen == "crystals" else [chosen, "crystals"]
library = st.library(names, zones=zones)
table = library.table
print(library)
print(
    f"{table.space_group.nunique()} space groups, {table.formula.nunique()} formulas"
)
for name, text in library.settings.assumed.items():
    print(f"assumed: {name.replace('_', ' ')} {text}")

# %% [markdown]
# Had a micrograph been given (`acquisition=shot`), its own angles and voltage would have been used. Some entries:

# %% mystnb={"image": {"alt": "Eight simulated patterns of columns: strontium titanate, silicon and rutile along several zone axes, each with its own periods and angles."}}
shown = ["SrTiO3", "Si", "TiO2"]
entries = [e for name in shown for e in library if e.structure.name == name]
fig = figures_matching.gallery(entries[:8])
plt.show()

# %% [markdown]
# ## A query
#
# Strontium titanate along [110] from the twin's own simulator, which follows how the crystal guides the probe from column to
# column. The library does not: it holds a part of the probe at each column and lets the rest spread, at a thousandth of the
# cost. So the query is not a picture that the library could draw. It is turned, shifted, and has few electrons.

# %%
from cimp_core.study.structures_cases import channelled

rng = np.random.default_rng(seed)
crystal, pixel = "SrTiO3", 20e-12
truth = channelled(crystal, "110", library, thickness=250.0)
view = st.View(pixel * 1e10, 224, 256, angle=np.radians(37), shift=(1.1, 2.3))
query = st.recorded(st.collected(truth, view), electrons=20, rng=rng)
found = st.match(query, library, pixel_size=pixel)
print(found)

# %%
figures_matching.ranked(found)

# %% mystnb={"image": {"alt": "The noisy query; the fitted pattern of the first candidate and its residual, which is noise; the second candidate and its residual."}}
fig = figures_matching.match_pictures(found)
plt.show()

# %% tags=["remove-cell"]
best = found.grains[0].candidates[0].entry.structure
assert best.space_group == 221, found

# %% [markdown]
# *Scale error* is how far lengths in the image are from those in the library. Perovskites differ by little else: what the
# microscope's calibration is worth, is said by `pixel_size_error`.

# %%
for error in (0.05, 0.005):
    one = st.match(query, library, pixel_size=pixel, pixel_size_error=error, k=3)
    print(f"pixel size known to {error:.1%}: {one}")

# %% [markdown]
# ## None of these
#
# The same image and a library without the crystal. With 5 % of freedom a stretched relative does about as well, and its scale
# error says so; with the pixel size known well, it no longer fits.

# %%
without = library.subset(library.table.formula != best.formula)
for error in (0.05, 0.005):
    one = st.match(query, without, pixel_size=pixel, pixel_size_error=error)
    first = one.grains[0].candidates[0]
    print(
        f"pixel size known to {error:.1%}: {first.entry.describe()}, scale error "
        f"{first.fit.scale - 1:+.1%}; none of these {one.grains[0].none:.0%}"
    )

# %% [markdown]
# A glass, and an empty field, are none of these as well:

# %%
from cimp_core.study.structures_cases import EASY, no_crystal

for kind in ("amorphous", "noise", "vacuum"):
    plain = no_crystal(kind, np.random.default_rng(seed), EASY)
    one = st.match(plain.image, library, pixel_size=plain.pixel_size * 1e-10)
    print(f"{kind}: none of these {one.grains[0].none:.0%}")

# %% [markdown]
# What cannot be matched at all is an error that says what to do:

# %%
broken = {
    "pixel size unknown": (query, None),
    "saturated": (np.minimum(query, np.median(query)), pixel),
    "constant": (np.ones((64, 64)), pixel),
}
for name, (image, size) in broken.items():
    try:
        st.match(image, library, pixel_size=size)
    except cimp.CimpError as error:
        print(f"{name}: {error}")

# %% [markdown]
# ## Several grains
#
# Two halves of one image, silicon along [110] and along [001]. Tiles whose spectra agree without being turned are one grain, and
# each grain is matched for itself.

# %%
halves = [channelled("Si", zone, library, 150.0) for zone in ("110", "001")]
views = [st.View(0.25, 320, 320, angle=angle) for angle in (0.3, 1.0)]
left, right = (st.collected(p, v) for p, v in zip(halves, views))
boundary = left.copy()
boundary[:, 160:] = right[:, 160:] * left.mean() / right.mean()
boundary = st.recorded(boundary, 60, rng)
grains = st.match(boundary, library, pixel_size=25e-12, pixel_size_error=0.02)
print(grains)

# %% mystnb={"image": {"alt": "An image of two crystals side by side, each framed and labelled with structure, zone axis and angle."}}
fig = figures_matching.grains_map(boundary, grains)
plt.show()

# %% [markdown]
# ## Images of a data set
#
# Images as a microscope gives them, with drift, scan noise, particles and edges, and the settings of each. Those are taken
# whose pixel size can show columns. The twin's materials are known, and are compared.

# %%
from cimp_core.study.structures_twin import answers, asked, material_table

count = {"smoke": 3, "book": 12, "full": 60}[profile]
size = {"smoke": (240, 96)}.get(profile, (7330, 256))
dataset = cimp.twin(*size, seed=0) if data == "twin" else cimp.open_dataset(data)
version = dataset.attributes.get("twin_version")
images = asked(dataset, count, seed)
table_of = answers if version is None else material_table
table = table_of(dataset, library, images)
print(f"{len(images)} images of as many sessions, with pixels of 6 to 35 pm")
table.drop(columns=["image", "none"]).round(2)

# %% [markdown]
# *Seen* says whether, by the twin's truth, a lattice stands out of the noise; where it does not, "none of these" is the answer to
# hope for.

# %% [markdown]
# ## Your own crystals
#
# A CIF file of your own, a formula, or the elements that the specimen can hold. Partly occupied sites are refused: an image
# needs whole atoms. Here the whole way on the command line, with a file that holds the boundary above:

# %%
from hyperspy.signals import Signal2D
from pymatgen.core import Lattice, Structure

folder = tempfile.TemporaryDirectory()
root = Path(folder.name)
halite = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
halite.to(str(root / "halite.cif"))
axes = [{"name": n, "size": 320, "scale": 0.025, "units": "nm"} for n in "yx"]
Signal2D(boundary, axes=axes).save(root / "frame.hspy")


def run(line):
    """A command as it would be typed in that folder."""
    print("$ cimp", line)
    done = subprocess.run(
        [sys.executable, "-m", "cimp_core.cli", *shlex.split(line)],
        cwd=root,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    print(done.stdout + done.stderr)


run("structures library halite.cif Si Ge GaAs --out mine.h5 --zones 2")
run("structures match frame.hspy --library mine.h5 -k 2 --pixel-size-error 0.02")

# %% tags=["remove-cell"]
assert (root / "mine.h5").exists() and len(st.open_library(root / "mine.h5")) > 10
folder.cleanup()

# %% [markdown]
# ## How often is it right?
#
# The committed measurements, on simulated images in any turn and place. The library held every prototype and the twin's
# crystals; an answer is right if structure and zone axis are. *Polar maps alone* is the training-free baseline: the entry with the
# largest circular correlation. All answers were asked for with the stated error of the pixel size.

# %% mystnb={"image": {"alt": "Share of right first answers against dose, error of the pixel size, tilt, and thickness, for the match and for polar maps alone, with intervals."}}
rows = [
    row
    for row in read_results("../book/results.json")
    if row["name"].startswith("structures.")
]
fig = figures_matching.accuracy_curves(rows)
plt.show()

# %%
figures_matching.score_table(rows, "structures.match.top1.")

# %% [markdown]
# *channelled*: crystals of the twin, imaged by its own simulator. *hard*: distorted scans, another contrast, a wider probe.
# And how well the probability of "none of these" tells images of crystals left out of the library from those of crystals that
# are in it, as AUROC:

# %%
figures_matching.score_table(rows, "structures.match.none_auroc.")

# %% [markdown]
# On whole images of the twin, as above, sixty of them, with the twin's crystals alone in the library and with all prototypes
# beside them:

# %%
figures_matching.score_table(rows, "structures.twin.")

# %% [markdown]
# ### Real images
#
# Micrographs that others published, and simulations by other programs. Each is listed, right or wrong: *right* if every grain is,
# the answer is that of the largest. Scale is how far the pixel size would have to be off.

# %%
figures_matching.real_table(
    Path(cimp.__file__).parent / "data" / "structures_real.json"
)

# %% [markdown]
# ## What a network learns
#
# The steps above were built by hand. The thesis that this chapter follows (Jiang 2022, chapter 5, "STEM2SIM") trains a
# network instead: images of one crystal are pulled together, whichever zone axis they show, and others are pushed apart
# ([contrastive loss](02_pretraining) with many positives for each query). Its test asks with an image of a crystal of a prototype that
# the network never saw: which of 16,128 images are the other 23 of the same crystal? Two of these show the same view with
# other noise, 21 another zone axis, and the score, average precision (AP), mixes the two. Here they are apart. The images
# here are turned in the plane, its were not; its crystals are of the ICSD, ours are prototypes decorated with other elements. The
# numbers of the thesis are quoted, not compared.
#
# Two networks learnt here. *ResNet* is the thesis's, a quarter as wide, on the power spectrum instead of pixels; in each cell it saw a
# quarter of a million images, some 28 times each that there is, in minutes on one processor, not for a day on a graphics card: its
# rows show how the cells compare, not what such a network can do. *Reflections* sees
# the set of an image's lattice reflections: how far from the origin each lies, how strong it is, and what stands at twice, three
# times and half its distance. Two zone axes of a crystal share one row of reflections, and little else, so its length has to tell:
# all reflections of an image lie on one lattice, whose two periods are fitted to all of its pixels at once, to about two parts in ten
# thousand where a peak of the spectrum is known to two in a thousand. Each cell
# was trained for itself and judged on the validation prototypes (the *head* is what the contrast is taken of: the embedding itself, or a
# small network on top, which is then left off):

# %%
from cimp_core.study.structures_ap import thesis_table

cells = thesis_table(rows)
here, there = cells["mean AP, ResNet here"], cells["mean AP, thesis (other data)"]
alike = here.corr(there, method="spearman")
print(f"rank correlation of the ResNet's cells with the thesis's: {alike:.2f}")
cells.round(3)

# %% [markdown]
# What the thesis found holds here: with the embedding itself, contrast beats classes and both together beat either; a network on
# top of it, which helps elsewhere, does harm. Reflections leave so little to learn that nothing of it shows in them.

# %% [markdown]
# The shipped embedding of reflections, on the test prototypes, which nothing was chosen on: some 650 crystals, 24 images each. Most of it is
# built in: *untrained*, before a weight was learnt, it does nearly as well. What limits it is noise, as long as lengths tell crystals
# apart, and then physics: where columns guide the probe, the same reflection is not as strong along one axis as along another.

# %%
figures_structures.precision_table(rows)

# %% [markdown]
# And on one crystal of each prototype, recorded as images, so that methods that compare images can be asked, too. The lines below the
# methods say what the embedding suffers from.

# %%
figures_structures.precision_table(rows, "structures.ap.small")

# %% mystnb={"image": {"alt": "Bars of mean average precision of each method: images of the same view, of other views, and both. Reflections lead; pixels, their Fourier magnitudes and SSIM are near zero."}}
fig = figures_structures.plot_precisions(rows)
plt.show()

# %% [markdown]
# What it learnt, seen on this page's library: each point is the embedding of one entry, and t-SNE (van der Maaten and Hinton 2008)
# keeps neighbours neighbours. Where axes of one crystal lie together, the network has found what they share: spacings, and how
# unlike the atoms are.

# %%
from cimp_core.structures import embedded, embedding

several = library.owner < {"smoke": 27, "book": 60, "full": 264}[profile]
some = library.subset(several)
model = embedding.load()
z = embedded.embed_patterns(model, [e.pattern for e in some])
formulas, prototypes = some.table.formula, some.table.prototype
zones = [figures_matching.zone_name(zone) for zone in some.table.zone]
figures_structures.structure_map(
    figures_structures.tsne(z, seed),
    formulas,
    prototypes,
    some.table.space_group,
    zones,
)

# %% [markdown]
# ## What to notice
#
# - **Probabilities are conditional on the library and on what they were calibrated with**: simulated images of one crystal each.
#   On whole images of the twin, with after-glow, edges, other thicknesses and often no lattice to be seen, "none of these" is said
#   of many crystals that are in the library. That is the safer mistake, and it is one.
# - **A projection is not a structure.** Light columns beside heavy ones are hardly seen; crystals that share their heavy atoms
#   look alike, and along some axes different structures are the same picture. Look along another axis.
# - **Scale is a fact only as good as the pixel size.** Aluminium, silver and gold are the same wallpaper within 1 %.
# - **The library is a choice.** "None of these" speaks of the library, not of nature. Lengths of decorated prototypes are
#   within several percent at best.
# - **Tilt is not in the library.** From about a degree on, columns smear along one direction, and the answer changes, or is "none
#   of these" (third panel above).
# - **The embedding trusts lengths.** Say how well the pixel size is known (`pixel_size_error`): above 1 % it is not asked, and below,
#   a pixel size that is further off than stated misleads it.
# - **The library does not channel.** It is fitted to images that do, of half of the twin's crystals; thick specimens of heavy atoms are
#   where it is worst (`bench/structures_model.py`, `bench/structures_abtem.py`).
# - The view from below is the mirror image of that from above. Where symmetry does not make them equal, the library has both.
#
# ## Exercises
#
# 1. From how many electrons on is the query above found? And among the prototypes alone, without the twin's crystals?
# 2. Tilt the crystal: `st.pattern(..., tilt=(20e-3, 0))` smears the columns. At which angle does the answer change?
# 3. Make a library from a formula, `st.library("SrHfO3")`, and look what the match with the query says.
#
# ```{dropdown} Solutions
# 1. A loop over `electrons` in `st.recorded`; without the crystal itself, "none of these" should win as soon as the lattice is seen.
# 2. The smear is the tilt times the thickness: once it is about half the distance of columns, they are gone along that direction.
# 3. The lengths are guessed, so a scale error of some percent is no reason to reject: the cubic one fits, and the probability tells
#    that strontium titanate is not distinguished from it by its lattice.
# ```
#
# ## Summary

# %%
values = {row["name"].removeprefix("structures."): row for row in rows}


def said(name):
    """Value and interval of a committed row."""
    row = values.get(name)
    if row is None:
        return "not measured"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


facts = {
    "library": f"{len(library)} entries, {len(library.structures)} structures",
    "first answer right, moderate dose": said("match.top1.moderate"),
    "the same, polar maps alone": said("match.polar_top1.moderate"),
    "AUROC of none of these": said("match.none_auroc.left_out"),
    "mean AP, unseen prototypes": said("ap.embedding.all"),
    "the same, same view": said("ap.embedding.same_view"),
    "the same, other views": said("ap.embedding.other_view"),
    "query of this page": repr(found).split(": ")[-1].rstrip(">"),
    "profile, seed": f"{profile}, {seed}",
    "twin version": version or "none",
}
pd.Series(facts, name="structures", dtype=object).to_frame()

# %% [markdown]
# All of these are results of simulated images but for the table of real ones.
#
# ## References
#
# Jiang (2022) for the thesis, Mehl et al. (2017) for the prototypes, Ong et al. (2013) for pymatgen, Togo et al. (2024) for
# spglib, Pennycook and Jesson (1991) on incoherent imaging, Khosla et al. (2020) on many positives: [references](../book/references.md).
