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
# # The data and the twin

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/01_data_and_twin.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/01_data_and_twin.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | what is in the data file; how the seven settings are distributed; what each of them does to an image, by taking the same area again; how the simulation compares with multislice; why a fair test holds out whole sessions; how a drive of your own becomes a data set |
# | **You need** | [how HAADF-STEM makes an image](../book/how_haadf_works.md) |
# | **It takes** | two to three minutes on two cores the first time, while the twin is made; seconds after that |

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # what Colab brings along stays as it is
    import subprocess

    package = "cimp-core @ git+https://github.com/@REPOSITORY@"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", package], check=True
    )

# %%
import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import cimp_core as cimp
from cimp_core import figures, interactive
from cimp_core.metadata import LABELS, PARAMETERS

figures.use_style()
pd.set_option("display.max_colwidth", None)

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke", "book" or "full": the size of the twin
data = "twin"  # "twin", or the path of a data set in the published layout
drive = "made"  # "made", or your own files: a folder, or a pattern with **
out = "mine.h5"  # the data set to make of your own files
seed = 0

# %% [markdown]
# ## The idea
#
# The published data set ([arXiv 2604.24909](https://arxiv.org/abs/2604.24909)) holds 7,330 HAADF-STEM images from one Titan microscope, each with seven
# acquisition parameters. The **twin** holds as many simulated ones in the same layout. A simulation cannot replace the
# real thing, but it can do what no microscope can: keep the truth behind the noise, and take the very same area again
# with one setting changed. This chapter uses that to look at the settings one by one.

# %%
images, size = {"smoke": (60, 96), "book": (7330, 256), "full": (7330, 256)}[
    profile
]
dataset = (
    cimp.twin(images=images, size=size, seed=seed)
    if data == "twin"
    else cimp.open_dataset(data)
)
version = dataset.attributes.get("twin_version")
print(dataset, "| twin version:", version or "none, this is no twin")

# %% [markdown]
# ## The file
#
# One HDF5 file: an image a data set, and arrays with one row an image. `metadata_raw` is in SI units; `metadata` is what
# a network sees, z-scores, some of them after a logarithm. Which columns take the logarithm stands in `log_indices` and
# is read from there.


# %%
def described(name, item):
    """One line of the table: an array, or a group with its first member."""
    if isinstance(item, h5py.Dataset):
        return name, " x ".join(map(str, item.shape)), str(item.dtype)
    first = next(iter(item))
    return f"{name}/{first} ...", f"{len(item)} data sets", str(item[first].dtype)


content = dataset.file
rows = [described(name, item) for name, item in content.items()]
rows += [(f"attribute {k}", str(v)[:60], "") for k, v in content.attrs.items()]
pd.DataFrame(rows, columns=["name", "shape or value", "type"]).set_index("name")

# %% [markdown]
# `cimp dataset check FILE` names every fault of such a file. So does this:

# %%
from cimp_core.dataset import check_dataset

faults = check_dataset(dataset.path)
print("\n".join(faults) or "no fault")

# %% tags=["remove-cell"]
assert data != "twin" or faults == []
assert dataset.metadata_raw.shape == (len(dataset), len(PARAMETERS))
again = dataset.normalizer.normalize(dataset.metadata_raw)
assert np.allclose(again, dataset.metadata, atol=1e-4, equal_nan=True)

# %% [markdown]
# ## How the settings are distributed
#
# The paper's Fig. 2 shows these seven histograms for the real microscope. The twin's lab has four instruments at 300 kV
# and habits: a few apertures and camera lengths, favourite dwell times, a detector offset that is turned only when needed,
# and a gain that follows whatever the brightness of the image demands. Where values are missing, the panel says how many.

# %% mystnb={"image": {"alt": "Seven histograms: pixel size, dwell time, convergence angle, beam current, gain, offset and inner collection angle of all images. Convergence angle, dwell time and offset take few discrete values; beam current and pixel size spread over two decades or more."}}
fig = figures.metadata_distributions(dataset.metadata_raw)

# %% [markdown]
# Any setting against any other, from two menus. Try gain against current, or inner angle against convergence angle: what
# people never do leaves an empty corner.

# %% mystnb={"image": {"alt": "Interactive scatter of two acquisition parameters of every image, chosen from two menus, coloured by dwell time."}}
interactive.metadata_explorer(dataset.metadata_raw, seed=seed)

# %% [markdown]
# ## What the images look like
#
# Eight of them, from eight sessions. The bar is a true length, from the pixel size of each.

# %% mystnb={"image": {"alt": "Eight micrographs of different specimens at different magnifications, from lattices of atomic columns to particles on a support, each with a scale bar."}}
first_of_session = np.unique(dataset.sessions, return_index=True)[1]
chosen = first_of_session[:8]
labels = dataset.materials or [""] * len(dataset)
fig = figures.show_micrographs(
    [dataset.image(i) for i in chosen],
    dataset.metadata_raw[chosen, 0],
    [labels[i] for i in chosen],
)

# %% [markdown]
# ## The same area again
#
# `reacquire` takes an area of the twin at other settings, with noise or without. Here is one with atomic columns; its
# settings are the base from which the next sections change one at a time. A real file holds no truth to record again, so
# with a data set of your own the areas are still the twin's.

# %%
from cimp_core.twin_version import TWIN_VERSION

if version == TWIN_VERSION:
    twin = dataset
else:
    twin = cimp.twin(images=60, size=size, seed=seed)
    print("no truth in this data set: the areas below are a twin's")
area = figures.example_area(twin.metadata_raw)
base = twin.acquisition(area)
print(twin.materials[area])
figures.settings_table(base)


# %%
def take(noise=False, **changes):
    """The chosen area with some settings changed."""
    return cimp.reacquire(twin, area, base.replace(**changes), noise=noise)


def show(images, titles, **options):
    return figures.show_micrographs(
        images, [base.pixel_size] * len(images), titles, **options
    )


# %% [markdown]
# ### Dwell time: electrons per pixel
#
# The readout averages over the dwell time, so a longer dwell does not brighten the image. It only collects more electrons
# a pixel, $N = It/e$, and the noise falls as $1/\sqrt N$.

# %% mystnb={"image": {"alt": "The same area at four dwell times: grainy and streaked at the shortest, smooth at the longest."}}
dwell = np.array([0.25e-6, 1e-6, 4e-6, 16e-6])
electrons = base.beam_current * dwell / 1.602176634e-19
noisy = [take(noise=True, dwell_time=t) for t in dwell]
titles = [f"{t * 1e6:g} µs\n{n:.0f} electrons" for t, n in zip(dwell, electrons)]
fig = show(noisy, titles)

# %% [markdown]
# The noise-free expectation is known, so the noise is the difference, and nothing has to be estimated. The scintillator
# goes on glowing for a while: of one pixel's light the part $f = (\tau/t)(1 - e^{-t/\tau})$ is counted in the next ones.
# That leaves streaks, and it averages noise along the fast scan direction. With the decay time $\tau$ that the twin keeps
# for this image, the second line allows for it.

# %% mystnb={"image": {"alt": "Noise against electrons per pixel, both logarithmic. At long dwell times the points follow the line of slope minus one half; at short ones they fall below it, as the line that allows for the after-glow does."}}
import json

from cimp_core.simulate.detector import spill

noise = np.array(
    [(image - take(dwell_time=t)).std() for image, t in zip(noisy, dwell)]
)
tau = json.loads(twin.file["twin/settings"][area])["detector"]["decay_time"]
f, r = np.array([spill(tau, t) for t in dwell]), np.exp(-dwell / tau)
averaged = np.sqrt((1 - f) ** 2 + f**2 * (1 - r) / (1 + r))
shot_noise = noise[-1] / averaged[-1] * np.sqrt(electrons[-1] / electrons)
fig, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
ax.loglog(electrons, noise, "o", label="recorded minus expected")
ax.loglog(electrons, shot_noise, "-", label=r"shot noise, slope $-1/2$")
glow = f"with an after-glow of {tau * 1e9:.0f} ns"
ax.loglog(electrons, shot_noise * averaged, "--", label=glow)
ax.set(xlabel="electrons per pixel", ylabel="noise [counts]")
ax.legend()
plt.show()

# %% [markdown]
# ### Convergence angle: the probe
#
# A larger aperture makes a finer probe, as long as the aberrations allow: diffraction limits it to $0.61\,\lambda/\alpha$.

# %% mystnb={"image": {"alt": "The same area, noise-free, at four convergence angles: columns blurred at the smallest angle and sharp at larger ones."}}
angles = np.array([8e-3, 13e-3, 18e-3, 23e-3])
high_angle = {"inner_collection_angle": max(base.inner_collection_angle, 50e-3)}
sharp = [take(convergence_angle=a, **high_angle) for a in angles]
fig = show(sharp, [f"{a * 1e3:g} mrad" for a in angles])

# %% [markdown]
# ### Beam current: dose, and a wider source
#
# The brightness of the gun ties current to the size of the source image, $I = B\pi^2\alpha^2 d^2/4$. So current is not
# merely dose: a strong beam blurs.

# %% mystnb={"image": {"alt": "The same area, noise-free, at three beam currents: finest at the lowest, blurred at the highest."}}
currents = np.array([20e-12, 150e-12, 1e-9])
blurred = [take(beam_current=i, **high_angle) for i in currents]
fig = show(blurred, [f"{i * 1e12:g} pA" for i in currents])

# %% [markdown]
# The transfer function says how much of each spatial frequency a probe lets through. The aperture sets the end at
# $2\alpha/\lambda$ (dots); the source pulls the curve down before that.

# %% mystnb={"image": {"alt": "Two plots of transfer against spatial frequency. Left, four convergence angles: each curve falls from one to zero at its own cut-off, farther out for larger angles. Right, three currents at one angle: the larger the current, the faster the fall."}}
from cimp_core.simulate.instruments import INSTRUMENTS
from cimp_core.simulate.optics import Optics, source_size, transfer, wavelength

k = np.linspace(0, 2.5e10, 300)
widest = angles[-1]
sources = [source_size(i, widest, INSTRUMENTS[0].brightness) for i in currents]
fig, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.2), layout="constrained", sharey=True
)
for a, colour in zip(angles, figures.OKABE_ITO):
    curve = transfer(Optics(convergence_angle=a), k, 0).real
    left.plot(k * 1e-10, curve, color=colour, label=f"{a * 1e3:g} mrad")
    left.plot(2 * a / wavelength(300e3) * 1e-10, 0, "o", color=colour)
for i, d in zip(currents, sources):
    curve = transfer(Optics(convergence_angle=widest, source_size=d), k, 0).real
    right.plot(k * 1e-10, curve, label=f"{i * 1e12:g} pA, source {d * 1e12:.0f} pm")
axis = "spatial frequency [1/Å]"
left.set(xlabel=axis, ylabel="transfer", title="no source, no aberrations")
right.set(xlabel=axis, title=f"{widest * 1e3:g} mrad, with the source")
left.legend()
right.legend()
plt.show()

# %% [markdown]
# ### Inner collection angle: Z-contrast
#
# The farther out the detector starts, the fewer electrons it collects, and the more steeply their number rises with the
# atomic number. The exponent between neighbours of the table below stays under Rutherford's 2, which holds for a bare
# nucleus.

# %% mystnb={"image": {"alt": "Left, collected cross section of carbon, silicon, strontium and gold atoms, falling with the inner angle. Right, the exponent of the atomic number, rising with the inner angle towards 2."}}
from cimp_core.simulate.scattering import annulus, atom

elements = {"C": 6, "Si": 14, "Sr": 38, "Au": 79}
inner_angles = np.linspace(25e-3, 140e-3, 24)
number = np.array(list(elements.values()))
density = [np.abs(atom(e, 0.5, 300e3).amplitude) ** 2 for e in elements]
rings = [annulus(b, 0.2, 300e3) for b in inner_angles]
section = np.array([[ring @ d for ring in rings] for d in density])
exponent = np.polyfit(np.log(number), np.log(section), 1)[0]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for e, line in zip(elements, section):
    left.semilogy(inner_angles * 1e3, line / section[0, 0], label=e)
right.plot(inner_angles * 1e3, exponent, color="black")
right.axhline(2, ls="--", lw=1, color="grey")
left.set(xlabel="inner angle [mrad]", ylabel="cross section, relative")
right.set(xlabel="inner angle [mrad]", ylabel="exponent of Z", ylim=(1, 2.1))
left.legend()
plt.show()

# %% [markdown]
# ### Gain and offset: the electronics
#
# Counts are an affine function of what is expected without amplification, until they reach an end of the 16-bit scale.
# Each line below is one setting, each point a pixel. What is expected above the dotted line is cut off there when it is
# recorded.

# %% mystnb={"image": {"alt": "Expected counts at four settings of gain and offset against the counts at the base setting: four straight lines, steeper with gain and shifted with offset."}}
g, o = base.detector_gain, base.detector_offset
settings = [(g, o), (g + 2, o), (g - 4, o), (g, o + 0.2)]
base_counts = take()
fig, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
fits = []
for (gain, offset), colour in zip(settings, figures.OKABE_ITO):
    counts = take(detector_gain=gain, detector_offset=offset)
    fits.append(np.polyfit(base_counts.ravel(), counts.ravel(), 1, full=True))
    some = base_counts[::8, ::8].ravel(), counts[::8, ::8].ravel()
    label = f"gain {gain:.1f}, offset {offset:.2f}"
    ax.plot(*some, ".", ms=3, color=colour, label=label)
ax.axhline(2**16 - 1, ls=":", color="grey", label="end of the 16-bit scale")
ax.set(xlabel="counts at the base setting", ylabel="expected counts")
ax.legend(markerscale=3)
plt.show()

# %% tags=["remove-cell"]
assert np.allclose(noise, shot_noise * averaged, rtol=0.1), (
    noise / shot_noise / averaged
)
assert all(np.diff(exponent) > 0) and 1 < exponent[0] < exponent[-1] < 2
worst = max((r[0] for _, r, *_ in fits if len(r)), default=0)
assert worst < 1e-6 * base_counts.size
detail = [np.diff(image, axis=1).std() / image.std() for image in blurred]
assert detail[0] > detail[-1], detail

# %% [markdown]
# ## Against multislice
#
# The twin has to make thousands of images in minutes, so it does not propagate electrons through every slice. How far is
# it from a calculation that does? abTEM ([Madsen and Susi, 2021](https://doi.org/10.12688/openreseurope.13015.1)) computed
# several crystals with frozen phonons, at two convergence angles, three inner angles and three thicknesses; the results
# are stored in the package and remade by `python bench/abtem_reference.py`. For each crystal one affine map, shared by
# all its images, is allowed: the detector's black level and gain. Two constants of the twin's model, the same for all
# crystals, were fitted to these very results (`bench/fit_channelling.py`): read the table as how well the model can
# follow multislice, not as a prediction.

# %%
from functools import partial

from cimp_core.simulate.agreement import (
    REFERENCES,
    compare,
    load_reference,
    model_image,
)
from cimp_core.simulate.structures import zone_axis_cell

references = {name: load_reference(name) for name in REFERENCES}
agreement = {n: compare(r, partial(model_image, r)) for n, r in references.items()}

# %% mystnb={"image": {"alt": "Six images of SrTiO3 along 001 in two rows. Top, multislice at three thicknesses; bottom, the model of the twin at the same thicknesses. Strontium and titanium columns stand out alike in both."}}
name, key = REFERENCES[0], (20e-3, 60e-3)
r, fit = references[name], agreement[name]
rows = [r.images[key], fit["scale"] * model_image(r, *key) + fit["offset"]]
tiled = [np.tile(image, (3, 3)) for row in rows for image in row]
step = zone_axis_cell(r.crystal, r.zone).size[0] * 1e-10 / r.images[key].shape[1]
depth = [f"{t * 1e9:.1f} nm" for t in r.thickness]
titles = [f"{kind}, {t}" for kind in ("multislice", "model") for t in depth]
fig = figures.show_micrographs(tiled, [step] * len(tiled), titles, columns=3)

# %% [markdown]
# Lowest and highest value over all images of a crystal: correlation; ratio of the mean collected fractions; ratio of the
# intensity ratios of two kinds of columns, at their centres; difference of background over peak. Column centres are
# averaged over more phonon configurations than the images.

# %%
columns = ("correlation", "fraction", "columns", "background")


def span(values):
    return f"{min(values):.3f} to {max(values):.3f}" if len(values) else ""


ranges = {n: [span(a[c]) for c in columns] for n, a in agreement.items()}
pd.DataFrame.from_dict(ranges, orient="index", columns=columns)

# %% tags=["remove-cell"]
for a in agreement.values():
    assert a["correlation"].min() > 0.98
    assert abs(a["fraction"] - 1).max() < 0.15
    assert abs(a["columns"] - 1).max(initial=0) < 0.1
    assert abs(a["background"]).max() < 0.05

# %% [markdown]
# ## Sessions, and why the split matters
#
# People sit down at a microscope, choose an aperture and a camera length, and take a handful of images. Within such a
# session much stays as it is: the bars show how much of each setting's spread is left.

# %% mystnb={"image": {"alt": "Bars: spread within a session relative to the overall spread, for each of the seven settings."}}
table = pd.DataFrame(dataset.metadata, columns=LABELS)
residual = table - table.groupby(dataset.sessions).transform("mean")
within = residual.std() / table.std()
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.barh(LABELS, within, color=figures.OKABE_ITO[0])
ax.invert_yaxis()
ax.set(xlabel="spread within a session / overall spread", xlim=(0, 1))
plt.show()

# %% [markdown]
# So if images are drawn at random, nearly every test image has a sibling in training, of the same specimen, on the same
# day. A network can then answer by recognising the session. Holding out whole sessions forbids that; holding out
# materials asks for even more. A split that the data do not allow is named with the reason.

# %%
kinds = ["image", "session"] + (["material"] if dataset.materials else [])
splits = {}
for kind in kinds:
    try:
        train, val, test = dataset.split(kind, seed=seed)
    except cimp.OutOfRangeError as error:
        print("not possible:", error)
        continue
    splits[kind] = {
        "train": len(train),
        "val": len(val),
        "test": len(test),
        "test sessions": len(np.unique(test.sessions)),
        "siblings in training": np.isin(test.sessions, train.sessions).mean(),
        "settings in training": np.isin(test.groups, train.groups).mean(),
    }
siblings = {kind: found["siblings in training"] for kind, found in splits.items()}
pd.DataFrame.from_dict(splits, orient="index").round(3)

# %% tags=["remove-cell"]
assert siblings.get("session", 0) == 0
for found in splits.values():
    assert found["train"] + found["val"] + found["test"] == len(dataset)

# %% [markdown]
# *Settings in training* counts test images whose complete vector of seven settings also occurs in training. Those are not
# wrong answers waiting to happen, but pairs to treat as equal: retrieval counts identical settings as one candidate.
#
# ## Your drive
#
# A lab's images lie in folders, in several formats, with much between them that is of no use. With `drive = "made"` the
# chapter writes such a drive from the twin: Velox files in a folder a session, and a folder with a series, a HyperSpy and
# a TIFF file, a copy, a bright-field image, a file that is cut off, and a text. With a folder or a pattern of yours,
# `drive = "/data/titan/**/*"`, everything below is about your files.

# %%
import tempfile
from pathlib import Path

from cimp_core.example_drive import write_example_drive

made = drive == "made"
if made:
    place = Path(tempfile.mkdtemp())
    drive, out = write_example_drive(place / "drive", twin), place / "mine.h5"

# %% [markdown]
# One call reads every file, each in a process that may hang or crash without harm, and writes one data set in the
# layout above. Pixels are kept as they are. Nothing is overwritten, and a run that was stopped goes on where it was.

# %%
report = cimp.build_dataset(drive, out)
table = report.table
print(f"{table['rows'].sum()} rows in the data set")
table["status"].value_counts().rename_axis(None).to_frame("images or files")

# %% [markdown]
# The same on the command line, which shows a progress bar and has options for series, faint images, anonymous names and
# clusters (`cimp dataset build --help`):
#
# ```bash
# cimp dataset build "/data/titan/**/*" --out mine.h5
# ```
#
# What was not taken, and why: the first twenty. All of it stands in `mine.report.csv` and, to read in a browser, `mine.report.html`.

# %%
others = table[table["status"] != "taken"].set_index("file")
others[["status", "reason"]].head(20)

# %% [markdown]
# What the others lack, by kind of file. A setting that a file does not hold stays missing; nothing is guessed. What you
# know, you can give for all files, `override={"convergence_angle": 21e-3}`.

# %%
taken = table[table["status"] == "taken"]
kind = taken["file"].str.rsplit(".", n=1).str[-1].rename("file type")
lacks = taken[list(PARAMETERS)].isna().groupby(kind).sum().set_axis(LABELS, axis=1)
lacks.insert(0, "images", kind.value_counts())
lacks

# %% [markdown]
# The result opens like any data set. Its distributions are those of the lab, of the values that are known.

# %% mystnb={"image": {"alt": "Seven histograms of the settings of the data set made from the drive; a note above a panel says how many of its images lack that setting."}}
mine = cimp.open_dataset(report.path)
fig = figures.metadata_distributions(mine.metadata_raw, bins=20)

# %% [markdown]
# A folder is a session. If your drive is sorted otherwise, say by year, sort it first: the split is only as honest as the
# folders are.

# %%
folders = pd.Series([name.rpartition("/")[0] for name in mine.filepaths])
sessions = folders.value_counts(sort=False).to_frame("images")
if len(sessions) >= 3:
    for part, view in zip(
        ("train", "val", "test"), mine.split("session", seed=seed)
    ):
        sessions.loc[folders[view.indices].unique(), "part"] = part
else:
    print("fewer than three folders: no split by session, nothing to train on")
sessions.rename_axis("session")

# %% tags=["remove-cell"]
assert len(mine) == table["rows"].sum() and check_dataset(report.path) == []
if made:
    assert others["status"].tolist() == [
        "left out",
        "duplicate",
        "left out",
        "left out",
    ]
    assert lacks.loc["emd", LABELS[0]] == 0 and (lacks.loc["tif"] > 0).sum() == 7
    assert sessions["part"].notna().all() and sessions["part"].nunique() == 3

# %% [markdown]
# The next chapter trains on it. Both paths are relative to the folder `notebooks/`:
#
# ```bash
# papermill 02_pretraining.ipynb ../runs/mine.ipynb -p data mine.h5 -p profile full
# ```
#
# ## What to notice
#
# - Dose, dwell time and current: the noise tells their product. The dwell time alone leaves streaks, the current alone
#   a wider source. Both are faint.
# - Gain multiplies, offset adds, the specimen does both. An encoder can tell them apart only through noise (which counts
#   electrons) and through what it knows of specimens.
# - Pixel size is in the picture only through known distances. Without a lattice or anything else of known size, a finer
#   pixel and a coarser structure look the same.
#
# ## Exercises
#
# 1. How many electrons a pixel are needed to see the columns of the area above? Vary the dwell time.
# 2. Set the inner collection angle below the convergence angle with `take`. What happens, and why?
# 3. Which two of the seven settings have the highest correlation over all images? Give a reason from the lab.
#
# <details><summary>Solutions</summary>
#
# 1. `show([take(noise=True, dwell_time=t) for t in np.geomspace(5e-8, 5e-6, 4)], [""] * 4)`. Count the electrons that
#    *reach the detector*: the electrons a pixel times the collected fraction, a few per cent for most areas.
# 2. `OutOfRangeError`: the direct beam would hit the detector. That is bright field, and nothing here was made for it.
# 3. `pd.DataFrame(dataset.metadata, columns=LABELS).corr("spearman")`. Look at gain against beam current: with more current
#    the operator turns the gain down to keep the image on the screen. Convergence and inner angle go together too, but
#    weakly: the detector has to stay outside the direct beam. In a small twin a few sessions decide which pairs stand out.
#
# </details>
#
# ## Summary

# %%
steady = within.nsmallest(3).index
worst = min(a["correlation"].min() for a in agreement.values())
facts = {
    "images": len(dataset),
    "sessions": len(np.unique(dataset.sessions)),
    "distinct vectors of settings": len(np.unique(dataset.groups)),
    "vary least within a session": ", ".join(steady),
    "noise / (shot noise and after-glow)": np.round(
        noise / shot_noise / averaged, 2
    ),
    "exponent of Z, over these inner angles": span(exponent),
    "correlation with multislice, lowest": f"{worst:.3f}",
    **{
        f"test images with siblings, split by {k}": f"{v:.0%}"
        for k, v in siblings.items()
    },
    "images made from the drive": f"{len(mine)}, of {len(table)} looked at",
    "profile, seed": f"{profile}, {seed}",
    "twin version": twin.attributes["twin_version"],
}
pd.Series(facts, name="twin results" if version else str(data)).to_frame()

# %% [markdown]
# Next: [pre-training on these pairs](02_pretraining).
#
# ## References
#
# The data set and its seven parameters: [arXiv 2604.24909](https://arxiv.org/abs/2604.24909). Others: [references](../book/references.md).
