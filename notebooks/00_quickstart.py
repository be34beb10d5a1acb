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
# # Quickstart: a micrograph in, its settings and relatives out

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/00_quickstart.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/00_quickstart.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | to read a micrograph with its seven acquisition settings; to see what is missing and why; to embed it; to find the images and the settings that fit it |
# | **You need** | nothing. To use your own file, give its path as `file`; to compare it with your own data set, `data` |
# | **It takes** | less than a minute on two cores, 1 GB of memory |

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # what Colab brings along stays as it is
    import subprocess

    package = "cimp-core @ git+https://github.com/@REPOSITORY@"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", package], check=True
    )

# %%
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display

import cimp_core as cimp
from cimp_core import figures
from cimp_core.metadata import LABELS, PARAMETERS

figures.use_style()
pd.set_option("display.max_colwidth", None)

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke", "book" or "full": how many images to compare with
file = "twin"  # path of a micrograph, or "twin": one that the twin writes
data = "twin"  # compare with the "twin", or with a data set: its path
seed = 0

# %% [markdown]
# ## The idea
#
# Two encoders were trained together. One looks at an image, the other at a list of seven settings; each answers with a
# row of numbers of length one, its *embedding*. Training pulled the two embeddings of one recording together and pushed
# all others apart. So the cosine between an image and a list of settings says how well they fit, and the cosine between
# two images says how alike they were *taken*, whatever is in them.

# %%
images, size = {"smoke": (60, 96), "book": (400, 256), "full": (7330, 256)}[profile]
if data == "twin":
    library = cimp.twin(images=images, size=size, seed=seed)
else:  # evenly spread over the data set, and no image too small to embed
    library = cimp.open_dataset(data)
    every = max(1, len(library) // images)
    spread = range(0, len(library), every)[:images]
    library = library.view([i for i in spread if min(library.shape(i)) >= 32])
sessions = len(np.unique(library.sessions))
source = "the twin" if data == "twin" else Path(data).name
print(f"to compare with: {len(library)} images of {source}, {sessions} sessions")

# %% [markdown]
# ## A file
#
# Without a file of yours, the twin records one: an image from a session that is not in the library, written in the
# layout that Velox uses. From here on it is a file like any other.

# %%
own_file = file != "twin"
if not own_file:
    from cimp_core.microscope.velox_writer import write_velox

    visit = cimp.twin(images=30, size=size, seed=seed + 1)
    area = figures.example_area(visit.metadata_raw)
    truth = json.loads(visit.file["twin/settings"][area])
    file = Path(tempfile.mkdtemp()) / "frame.emd"
    write_velox(
        file,
        visit.image(area),
        visit.acquisition(area),
        voltage=300e3,
        camera_length=truth["camera_length"],
        outer_collection_angle=truth["outer_collection_angle"],
        microscope=f"twin, {truth['instrument']}",
        date="2026-01-01T12:00:00",
    )

# %% [markdown]
# `read` gives every HAADF-STEM image of the file. The image itself is a HyperSpy signal.

# %%
shots = cimp.read(file)
shot = shots[0]
for note in shot.notes:
    print("note:", note)
for other in shot.skipped:
    print("skipped:", other)

# %%
height, width = shot.image.data.shape[-2:]
frames = np.asarray(shot.image.data).reshape(-1, height, width)
print(
    f"{len(frames)} frame(s) of {height} x {width} pixels, scale: {shot.intensity}"
)

# %% [markdown]
# ## Its settings
#
# Values in everyday units. What the file does not say, or says with a value that cannot be true, is missing, with the
# reason. Nothing is filled in.

# %%
figures.settings_table(shot.acquisition)

# %%
facts = {k: v for k, v in vars(shot.instrument).items() if v is not None}
units = {"voltage": "V", "camera_length": "m", "outer_collection_angle": "rad"}
for name in units.keys() & facts.keys():
    facts[name] = figures.quantity(facts[name], units[name])
pd.Series(facts, name="instrument", dtype=object).to_frame()

# %% mystnb={"image": {"alt": "The micrograph that was read, with a scale bar."}}
pixel_size, name = shot.acquisition.pixel_size, Path(file).name
fig = figures.show_micrographs(frames[:1], [pixel_size], [name], panel=3.6)

# %% [markdown]
# ## Its embedding
#
# The weights learnt on the twin, that is on simulated micrographs. What they say about a real file is a hypothesis. If
# the intensity scale is not that of Velox, the absolute grey level is masked, and gain and offset cannot be judged.
# Images below 32 pixels a side are too small to embed.

# %%
model = cimp.load("cimp-twin-s")
embeddable = min(height, width) >= 32
if embeddable:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        z = model.embed_images([shot])[0]
    print(f"embedding: {z.size} numbers, length {np.linalg.norm(z):.3f}")
    print("\n".join("note: " + str(w.message).split(": ")[-1] for w in said))
else:
    print("too few pixels to embed: the settings above are all there is")

# %% [markdown]
# ## Images taken alike
#
# The library's images, by the cosine between their embedding and the file's. Look for the same *way of looking*, the
# noise, the fineness of detail, the streaks, rather than for the same specimen.

# %% mystnb={"image": {"alt": "The micrograph beside the four images of the library that were taken most alike, each with its cosine and a scale bar."}}
from cimp_core.retrieval import embed_dataset

if embeddable:
    cosine = embed_dataset(model, library, crops=1) @ z
    nearest = np.argsort(-cosine, kind="stable")[:4]
    titles = [f"library {i}\ncosine {cosine[i]:.2f}" for i in nearest]
    fig = figures.show_micrographs(
        [frames[0], *(library.image(i) for i in nearest)],
        [pixel_size, *library.metadata_raw[nearest, 0]],
        [name, *titles],
        columns=5,
        panel=2.0,
    )

# %%
if embeddable:
    shown = [shot.acquisition, *(library.acquisition(i) for i in nearest)]
    columns = [figures.settings_table(a)["value"] for a in shown]
    keys = [name, *(f"library {i}" for i in nearest)]
    display(pd.concat(columns, axis=1, keys=keys))

# %% [markdown]
# ## Settings that fit
#
# Now across: the image against lists of settings, without looking at the library's images. The candidates are all
# distinct settings of the library and, if the file is complete, its own, placed last. `differs` compares what is known.

# %%
distinct = np.unique(library.groups, return_index=True)[1]
candidates = [library.acquisition(i) for i in distinct]
complete = not shot.acquisition.missing
if complete:
    candidates.append(shot.acquisition)
if embeddable:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once above
        ranking = cimp.rank_metadata(model, shot, candidates)
    display(ranking[["candidate", "cosine", "differs"]].head())

# %% [markdown]
# ### What the file does not say
#
# For each missing setting, the range of the ten settings that fit best. A narrow range means that the candidates agree.
# It is not a measurement.

# %%
if embeddable and not complete:
    best = figures.in_display_units(ranking[list(PARAMETERS)].head(10).to_numpy())
    quantiles = np.nanpercentile(best, (10, 50, 90), axis=0).T
    table = pd.DataFrame(quantiles, figures.AXIS_LABELS, ["10 %", "median", "90 %"])
    lacking = [name in shot.acquisition.missing for name in PARAMETERS]
    display(table[lacking].map("{:.3g}".format))
else:
    print("nothing is missing" if complete else "no embedding, no ranking")

# %% tags=["remove-cell"]
assert list(figures.settings_table(shot.acquisition).index) == list(LABELS)
if embeddable:
    assert abs(np.linalg.norm(z) - 1) < 1e-5 and np.isfinite(cosine).all()
    assert (
        len(ranking) == len(candidates)
        and ranking["cosine"].is_monotonic_decreasing
    )
if not own_file:
    assert complete and shot.intensity == "velox16"

# %% [markdown]
# ## What to notice
#
# - The settings come from the file, the ranking from the pixels. Where the two disagree, one of them is worth a second
#   look: a recalibrated pixel size, a current measured on another day, or a model that does not know your microscope.
# - The first of a ranking is always somebody. Read the cosine, and how far the next ones are behind.
# - Neighbours share the way of looking, not the specimen. That is what the encoder was trained for.
#
# ## Exercises
#
# 1. Withhold the dwell time (`override={"dwell_time": None}`) when reading. Does the table of missing settings find it?
# 2. Give the embedding only a quarter of the image (`model.embed_images([frames[0][:128, :128]])`). How much does it move?
#
# <details><summary>Solutions</summary>
#
# 1. `shot = cimp.read(file, override={"dwell_time": None})[0]`, then run the cells from "Its embedding" on. The reason
#    says "withheld by the user". The image is the same, so the library's settings keep their order; the file's own, no
#    longer complete, are not among them. The range of the ten best may or may not contain the true value.
# 2. `model.embed_images([frames[0][:128, :128].copy()])[0] @ z` gives the cosine between both. It stays near one if the
#    part shows what the whole shows; in the corner of an image that is half vacuum it does not.
#
# </details>
#
# ## Summary

# %%
known = len(PARAMETERS) - len(shot.acquisition.missing)
print(f"{name}: {known} of 7 settings known, intensity scale {shot.intensity}")
if embeddable:
    print(f"nearest image of the library: cosine {cosine[nearest[0]]:.2f}")
    print(f"best settings: cosine {ranking['cosine'][0]:.2f}")
if embeddable and complete:
    place = int(np.flatnonzero(ranking["candidate"] == len(candidates) - 1)[0]) + 1
    print(f"the file's own settings come in place {place} of {len(candidates)}")
version = library.attributes.get("twin_version")
kind = f"twin version {version}" if version else f"data set {source}"
print(f"profile {profile}, {kind}, weights cimp-twin-s")

# %% [markdown]
# That is one image, an anecdote. How often the first answer is right, over hundreds of held-out
# sessions and with intervals, is among the [results](../book/results.md).
#
# ## References
#
# The method is that of [arXiv 2604.24909](https://arxiv.org/abs/2604.24909); vendor files are read by
# [HyperSpy](https://hyperspy.org) and [RosettaSciIO](https://hyperspy.org/rosettasciio). All
# [references](../book/references.md).
