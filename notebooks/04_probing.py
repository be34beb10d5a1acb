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
# # Probing: what the embedding knows

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/04_probing.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/04_probing.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | to read single settings from a frozen embedding; what a probe proves and what it does not; to compare it with simpler and with stronger ways of reading; when a lattice tells the pixel size |
# | **You need** | [pre-training](02_pretraining); linear regression |
# | **It takes** | about two minutes on two cores, 2 GB of memory |

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # what Colab brings along stays as it is
    import subprocess

    package = "cimp-core @ git+https://github.com/@REPOSITORY@"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", package], check=True
    )

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import cimp_core as cimp
from cimp_core import figures, figures_probing, interactive
from cimp_core.metadata import PARAMETERS

figures.use_style()
pd.set_option("display.max_colwidth", None)

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke": a small twin, "book", or "full": nothing from a file
data = "twin"  # "twin", or the path of a data set in the published layout
weights = "cimp-twin-s"  # a shipped name, or a weights file of your own
seed = 0

# %% [markdown]
# ## The idea
#
# Retrieval asks for all seven settings at once, and a model may answer by recognising a lab's habits. A *probe* asks for
# one at a time. The image encoder is frozen; from its embedding $z$ of the training images a regression learns one setting
# $y$, and is tested on images of sessions that neither the encoder nor the regression has seen. The plain probe is linear:
#
# $$
# \hat y = w\cdot z + b, \qquad w = \arg\min_w \sum_i (y_i - b - w\cdot z_i)^2 + \alpha n\,|w|^2 ,
# $$
#
# ridge regression, with $z$ standardised and the penalty $\alpha$ chosen on the validation part. A linear map can
# hardly find what the embedding does not hold in plain sight; that is the point of it. The score is
# $R^2 = 1 - \sum(y-\hat y)^2 / \sum(y-\bar y)^2$ of the normalised (mostly logarithmic) setting: one if every value is
# right, zero for a guess that is always the mean, below zero for worse.
#
# ## Data
#
# The twin's images, split by session as for the training of the weights. Another data set can be given by its path.

# %%
images, size = {"smoke": (240, 96), "book": (7330, 256), "full": (7330, 256)}[
    profile
]
dataset = (
    cimp.twin(images=images, size=size, seed=0)
    if data == "twin"
    else cimp.open_dataset(data)
)
parts = train, val, test = dataset.split("session", seed=0)
if min(len(val), len(test)) < 4:
    few = f"{len(val)} validation and {len(test)} test images"
    raise cimp.OutOfRangeError(f"{data}: {few} tell nothing; take more sessions")
version = dataset.attributes.get("twin_version")
for name, part in zip(("train", "val", "test"), parts, strict=True):
    sessions = len(np.unique(part.sessions))
    print(f"{name:5s} {len(part):5d} images, {sessions:4d} sessions")

# %% [markdown]
# ## Embeddings
#
# Each training and validation image is embedded from its central crop, each test image as the mean of four crops. This is
# the only step that needs the encoder, and the longest of the chapter.

# %%
from cimp_core.study.embedder import embed_parts

model = cimp.load(weights)
z = embed_parts(model, parts)
print(f"{weights}: {sum(map(len, z))} embeddings of {model.config.dim} numbers")

# %% [markdown]
# ## Method: a probe from scratch
#
# Ridge regression has a closed form: with the standardised features as rows of $Z$, solve
# $(Z^\top Z + \alpha n)\,w = Z^\top (y - \bar y)$.

# %%
from cimp_core.probe import fit_ridge

column = int(np.argmax([np.isfinite(c).sum() for c in train.metadata.T]))
y, y_val = (part.metadata[:, column] for part in (train, val))
probe = fit_ridge(z[0], y, z[1], y_val)

known = np.isfinite(y)
rows = ((z[0] - probe.center) / probe.spread)[known]
penalty = probe.alpha * known.sum() * np.eye(rows.shape[1])
centred = y[known] - y[known].mean()
by_hand = np.linalg.solve(rows.T @ rows + penalty, rows.T @ centred)
apart = np.abs(by_hand - probe.weights).max()
print(f"{PARAMETERS[column]}: alpha {probe.alpha:g}, weights agree to {apart:.0e}")

# %% tags=["remove-cell"]
assert apart < 1e-4 * max(1e-3, np.abs(probe.weights).max())

# %% [markdown]
# ## All seven
#
# - **r2**: as above, from the image alone.
# - **others_r2**: from the other six settings, without any image. Settings are correlated, because people have habits; what
#   the habits give away is no achievement of a network.
# - **partial_r2**: of what the six leave unexplained, the share that the image explains. Gain, current and dwell time all
#   change how bright and how noisy an image is, so one of them is often plain once the others are given.
# - **median_error**: median of |predicted / true − 1|.
#
# All with 95 % intervals, whole sessions resampled. `nan`: the setting is missing or never changes.

# %%
from cimp_core.probe import nearest, predict, probe_table

linear = predict(z, parts)
table = probe_table(linear, test)
names = ["r2", "others_r2", "partial_r2", "median_error"]
figures.with_intervals(table, names, digits=2)

# %% tags=["remove-cell"]
assert list(table.index) == list(PARAMETERS)
scored = table.dropna(subset=["r2", "r2_low", "r2_high"])
assert (scored["r2_low"] <= scored["r2"]).all()
assert (scored["r2"] <= scored["r2_high"]).all()
assert len(scored) == 7 or data != "twin" or profile == "smoke"

# %% [markdown]
# ## Beside other ways of reading
#
# A score means little alone. Against what needs *no training* of an encoder:
#
# - **random encoder**: the linear probe on the same network with random weights;
# - **statistics**: the linear probe on some ninety hand-made numbers of the image;
# - **control**: gradient boosting on these statistics, which may bend as it likes.
#
# Against another reading of the *same embedding*: **nearest five**, the mean setting of the five training images with the
# largest cosine. It needs no fit at all, and was used in the work that preceded the paper.
#
# Against *one layer earlier*: **hidden layer**, the linear probe on the 512 numbers that the embedding is projected from.
# The projection keeps what tells one image's settings from another's; the layer before it holds a little more of each.
#
# Against the same network with *another purpose*: **supervised**, the same encoder trained to predict the seven settings
# and nothing else, on 100,000 crops of the training part above. It shows what such a network reads when it is told what
# to read.
#
# The two readings of this embedding are computed here. What takes longer is measured on the whole twin by
# `cimp_core.study` and kept in `book/results.json`: *committed*, over several trainings where anything is trained. On a
# small data set, and at the profile `full`, the statistics are measured here.

# %%
from cimp_core.results import read_results

committed = {
    r["name"]: r
    for r in read_results("../book/results.json")
    if version and r["twin_version"] == version and r["profile"] == "full"
}
print(f"{len(committed)} committed results for twin version {version}")


def recorded(kind, score, quantities):
    """Committed scores of one kind of probe, as rows of a table."""
    keys = ("value", "low", "high")
    found = [(q, committed.get(f"{kind}.{score}.{q}")) for q in quantities]
    rows = [[q, *(r[k] for k in keys)] for q, r in found if r]
    return pd.DataFrame(rows, columns=["quantity", *keys]).astype(
        dict.fromkeys(keys, float)
    )


# %%
from cimp_core.study.statistics import dataset_statistics

live = {"linear probe": table, "nearest five": None}
live["nearest five"] = probe_table(predict(z, parts, nearest), test)
if len(dataset) <= 1000 or profile == "full":
    numbers = [dataset_statistics(part) for part in parts]
    live["statistics"] = probe_table(predict(numbers, parts), test)
kinds = {
    "probe.features": "hidden layer",
    "probe.untrained": "random encoder",
    "probe.statistics": "statistics",
    "control.probe": "control",
    "probe.supervised": "supervised",
}
live_kinds = ", ".join(live)
print(f"measured here: {live_kinds}")


# %%
def as_rows(found, score):
    """One score of a table of probes, as rows to compare."""
    columns = {f"{score}{end}": k for end, k in zip(("", "_low", "_high"), ends)}
    return found[list(columns)].rename(columns=columns).rename_axis("quantity")


ends = ("value", "low", "high")
several = [
    as_rows(found, "r2").reset_index().assign(series=kind)
    for kind, found in live.items()
]
for kind, label in kinds.items():
    if label not in live:
        rows = recorded(kind, "r2", PARAMETERS)
        several.append(rows.assign(series=f"{label} (committed)"))
compared = pd.concat([t for t in several if len(t)])

# %% mystnb={"image": {"alt": "Seven panels, one a setting. In each, R squared with its 95 % interval for the linear probe and the nearest five of the frozen embedding and, where recorded, for a random encoder, image statistics, the control and a supervised network."}}
fig = figures_probing.probe_panels(compared)
plt.show()

# %% tags=["remove-cell"]
if profile == "book" and data == "twin":
    assert {"linear probe", "nearest five", "control (committed)"} <= set(
        compared["series"]
    )
    known_r2 = committed.get("probe.r2.dwell_time")
    if known_r2 and known_r2["seeds"] == [0] and weights == "cimp-twin-s":
        assert abs(known_r2["value"] - table.r2["dwell_time"]) < 0.03

# %% [markdown]
# ## In a microscopist's words
#
# An $R^2$ sounds better than it is: a setting such as the dwell time spans orders of magnitude, and explaining most of the
# variance of its logarithm still leaves a factor. The median relative error says it plainly. The example is the median
# setting of the test part.

# %%
words = figures_probing.error_table(table["median_error"], test.metadata_raw)
words

# %% [markdown]
# ## Reading the lattice
#
# Pixel sizes run from picometres to nanometres. Much of that is easy: particles and interfaces look unlike columns of
# atoms. *Within* atomic resolution, say below 40 pm, the ruler is the lattice: its spacing in pixels, if one knows the
# spacing in picometres. Neighbouring columns of most crystals are 0.1 to 0.4 nm apart, so even an exact measurement of the
# spots leaves a factor, unless the material is recognised too. The $R^2$ below is over these images alone: the
# variance is only that within the range, and whoever knows no more than that atoms are resolved is at zero or below. This
# is harder than the $R^2$ over all.

# %% mystnb={"image": {"alt": "Pixel size read by the linear probe against the true one on logarithmic axes: all test images, and enlarged those below 40 picometres. A dashed line marks agreement."}}
from cimp_core.probe import in_si
from cimp_core.study.probe_rows import BELOW, below_rows, within_rows

pixel_size, read = in_si(
    test.normalizer, 0, test.metadata[:, 0], linear.image[:, 0]
)
fig = figures_probing.lattice_scatter(pixel_size, read, BELOW)
plt.show()

# %% [markdown]
# A spot in the power spectrum says that there is a lattice. Pixel size $p$ and the radius $f$ of the spot, in cycles a
# pixel, give a lattice spacing $p / f$; read the other way round, a known spacing gives the pixel size. Where no spot
# stands out, there is nothing to read: in pure noise the strongest is less than ten times what surrounds it. Below, the
# test image in this range with the sharpest spot and the one with the dullest.

# %%
from cimp_core.study.lattice import CONTRAST, strongest_spot

resolved = np.flatnonzero(test.metadata_raw[:, 0] < BELOW)
resolved = [i for i in resolved if test.image(i).std() > 0]  # none is blank
spots = [strongest_spot(test.image(i)) for i in resolved]
contrast = np.array([c for _, c in spots])
chosen = [contrast.argmax(), contrast.argmin()] if len(resolved) > 1 else []
print(f"a spot stands out in {(contrast > CONTRAST).sum()} of {len(spots)}")
for k in chosen:
    p, q = pixel_size[resolved[k]] * 1e12, read[resolved[k]] * 1e12
    found = f"contrast {contrast[k]:.0f}, spacing {p / spots[k][0]:.0f} pm"
    print(f"true {p:.1f} pm, read {q:.1f} pm; strongest spot: {found}")

# %% mystnb={"image": {"alt": "Two micrographs below 40 picometres a pixel above their power spectra, a circle through the strongest spot of each: one with a sharp lattice, one without."}}
if chosen:
    titles = [f"image {resolved[k]} of the test part" for k in chosen]
    fig = figures_probing.spectrum_figure(
        [test.image(resolved[k]) for k in chosen],
        [pixel_size[resolved[k]] for k in chosen],
        titles,
    )
    plt.show()

# %%
here = dict.fromkeys(("split", "profile", "seeds", "twin_version", "command"))
lattice = np.zeros(len(test), dtype=bool)
lattice[np.array(resolved, dtype=int)[contrast > CONTRAST]] = True
choices = {"": np.ones(len(test), dtype=bool), ", spot": lattice}
fine = {}
for which, use in choices.items():
    rows = below_rows(
        "probe", [linear.image[use, 0]], test.view(np.flatnonzero(use)), here
    )
    fine[f"linear probe{which}"] = rows[0]
fine["linear probe, told"] = within_rows("probe", [z], parts, here)[0]

# %%
readings = {"probe": "linear probe", "probe.knn": "nearest five"} | kinds
for word, note in (("below", ""), ("within", ", told")):
    for kind, label in readings.items():
        name = f"{kind}.r2.pixel_size_{word}_40pm"
        if name in committed:
            fine[f"{label}{note} (committed)"] = committed[name]
below = pd.DataFrame({k: [r[e] for e in ends] for k, r in fine.items()}, index=ends)
below.T.astype(float).round(2)

# %% [markdown]
# *Told* is another probe of the same embedding, fitted on training images below 40 pm only. The probe of all images has to
# find out first that atoms are resolved; an image that it takes for an overview costs it dearly here,
# since the range is so narrow. The probe that is told has only the lattice left to read, and the width of the columns.
#
# *Spot* is the probe of all images on those test images alone whose spectrum has a spot of contrast above ten. How good
# could it be? Suppose that every image with a spot is read without error, and that every other one is given the mean of the
# training images without a spot, as least squares would. Most of those are not at atomic resolution at all, so the guess
# is far off. Then suppose that somebody says which images are below 40 pm, and the guess is the mean of these. The last row
# is the reading of a student with a ruler: the mean spacing of the training images times the spot's radius, for images
# that have a spot. None of this is a strict bound, since the width of a column or of a particle says something, too; but
# it shows what a lattice alone can give.

# %%
bounds = {
    "spots read, others guessed": "ceiling.r2.pixel_size_below_40pm.spots",
    "same, range given": "ceiling.r2.pixel_size_below_40pm.spots_in_range",
    "mean spacing, spots only": "lattice.r2.mean_spacing",
}
limits = {k: committed[name] for k, name in bounds.items() if name in committed}
columns = {k: [limits[k][e] for e in ends] for k in limits}
pd.DataFrame(columns, index=ends).T.astype(float).round(2)

# %% [markdown]
# Where the table is empty, nothing was recorded for this data set.

# %% [markdown]
# ## The endpoints
#
# These were named, with their targets, before the weights were trained. One came later, when it was seen what
# `r2.pixel_size_below_40pm` asks: `r2.pixel_size_within_40pm` is the same of the probe that is told. Model, control and
# oracle answer the same test images in the same pools of 450 settings, so ratios and differences are paired. A target
# counts as met if the *lower* end of the 95 % interval, over sessions and over trainings, reaches it. `top1` is the share
# of images whose own settings come first; the oracle of `top1_over_ceiling` knows every setting up to 0.05 standard
# deviations (`sd010`, `sd020`: 0.1 and 0.2). The $R^2$ are those of the hidden layer, which was chosen on the validation
# part after a first look at the embedding's own on the test part; these stand below as `embedding`.

# %%
from cimp_core.study.endpoints import endpoint_table

aims = endpoint_table(list(committed.values()))
print(f"{len(aims)} committed endpoints for this data set")
aims.round(3) if len(aims) else None

# %% [markdown]
# Both endpoints of the pixel size below 40 pm ask for the lattice, and half of these images show none. Compare the first
# with *same, range given* above and the second with *spots read, others guessed*: no reader of spots alone comes as far.
#
# The shipped weights were trained on ten times as many simulated sessions as the control: simulation costs only time. Two
# comparisons say what comes of that. First the same questions, put to weights that saw only the sessions the control saw,
# and a fifth of the crops (one training). Then to the shipped weights again, against a control that learns, beside its own
# images, from two images of each of the sessions that it lacked. It then reads gain, offset and dwell time as well as the
# network does: what the network gained there, it gained from the sessions. The lead in retrieval and in the pixel size stays.

# %%
aside = {"equal_data": "same sessions", "more_data": "control with more"}
tables = {}
for prefix, label in aside.items():
    rows = [
        made | {"name": made["name"].replace(prefix, "endpoint", 1)}
        for name, made in committed.items()
        if name.startswith(f"{prefix}.")
    ]
    if rows:
        tables[label] = endpoint_table(rows)[list(ends)]
pd.concat(tables, axis=1).round(2) if tables else None

# %% [markdown]
# ### Why gain and dwell time stop where they do
#
# Noise tells counts per electron, which is gain *over* dwell time; after-glow tells the dwell time, if the detector's decay
# is known; the dark level and its noise tell the rest. Suppose a reader took these traits of the detector from each image
# without fault, and learnt the settings from them as the control does: *exact*. *Measured* gives it the errors of counting
# in one image as if each pixel were the best one, and *no vacuum* takes away what only a dark region shows.
#
# *As read* asks what the image itself shows: the slope of its noise against the signal and the level at which that line
# meets zero, each with the Cramér-Rao error of this very image; the correlation along a row; and the level below which 1 %
# of the picture lie. The line has a single intercept, $v = k(s - b) + r$, so it cannot tell the black level $b$ from the
# read noise $r$: without vacuum the offset shows only as far as the instrument is recognised. This is what the control's
# learner makes of such readings from the control's sessions, so it is a mark to compare with and not a strict bound: a
# model that has seen more sessions may know better which readings go with which settings.

# %%
first, traits = "ceiling.detector.r2.", {}
for name, made in committed.items():
    if name.startswith(first):
        setting, case = name.removeprefix(first).split(".")
        traits.setdefault(case, {})[setting] = made["value"]
readers = {
    "control": "control.probe.r2.",
    "embedding": "probe.r2.",
    "hidden layer": "probe.features.r2.",
}
for label, source in readers.items():
    for setting in traits.get("exact", {}):
        if source + setting in committed:
            value = committed[source + setting]["value"]
            traits.setdefault(label, {})[setting] = value
order = ["exact", "measured", "no_vacuum", "as_read", *readers]
pd.DataFrame(traits).reindex(columns=order).round(2)

# %% [markdown]
# ## What can be known at all
#
# A score of a model on the lab's data says what is found, not what is there. Convergence angle, inner collection angle and
# current are three that every reader here finds hard. Is that the model, the number of images, or physics? Two
# experiments tell, both on simulated recordings.
#
# **In principle.** Take one known scene: a germanium crystal along [110], of known thickness, focus and detector, imaged
# once. The Cramér-Rao bound says how well *any* unbiased method could know a setting from it. The noise of a pixel is a
# sum over a Poisson number of electrons of random pulse heights, plus read noise, so mean and variance are known in
# closed form, and the information in the two is $F_{ab} = \sum_i d_{ia}^\top C_i^{-1} d_{ib}$, summed over pixels, with
# $d_{ia}$ the derivatives of mean and variance by parameter $a$ and $C_i$ the covariance of what estimates them. If further
# parameters have to be estimated too, the bound is that of the Schur complement: what of a setting's effect on the image
# the others cannot imitate.
#
# The columns below: *known*, all else is known; *marginal*, the other six settings, the specimen (thickness, place,
# scattering power) and the focus are estimated too, while detector and source are calibrated; *uncalibrated*, these are
# unknown as well; *lab*, all of that is unknown, but within what the lab does. The unit is the lab's own standard
# deviation of the normalised setting: at 1 the image says no more than the lab's habits.

# %%
from cimp_core import figures_study
from cimp_core.study.fisher import bound_table

lab = cimp.twin(images=240, size=96, seed=0) if data != "twin" else dataset
side = 64 if profile == "smoke" else 256  # a smaller image knows less
knowable = bound_table(lab.normalizer.std, side)
knowable = knowable.rename(columns={"condition": "step", "sd": "value"})
columns = ("known", "marginal", "uncalibrated", "lab")
figures_study.bound_pivot(knowable, columns).style.format("{:.2g}")

# %% [markdown]
# With everything else known, one image fixes every setting to a small part of its range: nothing is lost in the
# recording. What costs is what else must be found from the same image.
#
# - The **convergence angle** sets an edge: the image has no spatial frequency beyond $2\alpha/\lambda$. Nothing else
#   moves that edge; defocus, astigmatism and source size damp what lies within it. So it survives.
# - The **inner angle** sets none. It scales the image, a little differently for a column and for the ground between, and
#   thickness and scattering power do nearly the same, even on this one known crystal. In this scene one of them has to be
#   known. That is no proof for every specimen: two crystals side by side, or one at two thicknesses, may tell more.
# - The **current** acts only through other things, and there are two ways to it. By the counts: the mean tells
#   slope × current × what the specimen scatters, noise over mean tells slope over dwell time; so the specimen has to be known,
#   and of gain and dwell time one. By the blur: the brightness $B$ ties the current to the size of the source image $d$,
#   $I = B\pi^2\alpha^2 d^2/4$. The next table frees what these need. With both ways closed (`inf`) another current gives
#   *the same image*, and no number of electrons helps.

# %%
ways = knowable[knowable["step"].str.startswith("free_")].set_index("step")["value"]
ways.index = ways.index.str.removeprefix("free_").str.replace("_", " ")
ways = ways.rename("sd of the current").rename_axis("not known").sort_values()
ways.to_frame().style.format("{:.2g}")

# %% tags=["remove-cell"]
wide = knowable.set_index(["parameter", "step"])["value"]
assert (wide.loc[list(PARAMETERS), "known"] < 0.1).all()
edge, scaled = "convergence_angle", "inner_collection_angle"
assert wide[edge, "marginal"] < wide[scaled, "marginal"] / 5
for closed in ("specimen and brightness", "gain and dwell time and calibration"):
    assert np.isinf(ways[closed])
assert np.isfinite(ways.drop(ways.index[-2:])).all()

# %% [markdown]
# **By learning.** The bound asks for one scene that is known in advance. A model has to learn from other images. So the
# same question by regression: in a first small data set one setting varies over the lab's range and everything else is
# fixed, then one more of what varies in the lab is set free at each step, until the last step is the lab of the twin.
# Image number $i$ has the same value of the setting at each step, so the steps compare. Gradient boosting on the
# control's statistics reads the setting from the image (lines), and from the image together with the other six
# settings (dashed). The control is one reader among many: each point says *at least this much*. The late steps do two
# things at once: they let more vary, and they bring the lab's habits, by which one setting goes with another and gives it
# away. Where a line rises again at a late step, these are the likely reason.

# %% mystnb={"image": {"alt": "R squared of convergence angle, inner collection angle and beam current at each step from varying alone to the full variation of the lab, with 95 % intervals; dashed where the other six settings are given too."}}
from cimp_core.study.identifiability import table_of
from cimp_core.twin_version import TWIN_VERSION

ours = [
    r
    for r in read_results("../book/results.json")
    if (r["twin_version"], r["profile"]) == (TWIN_VERSION, "full")
]
steps = table_of(ours, "r2")
if len(steps):
    fig = figures_study.cascade_plot(steps, table_of(ours, "told"))
    plt.show()

# %%
wide = steps.astype({"value": float})
wide = wide.pivot(index="parameter", columns="step", values="value")
wide = wide.reindex(columns=[s for s in figures_study.STEP_LABELS if s in wide])
for name, line in wide.iterrows():
    worst = figures_study.STEP_LABELS[line.diff().idxmin()].removeprefix("+ ")
    ends_of = f"{line.iloc[0]:.2f} alone, {line.iloc[-1]:.2f} in the lab"
    print(f"{name}: {ends_of}; most lost with {worst}")
print(f"{len(steps)} committed steps of twin version {TWIN_VERSION}")

# %% [markdown]
# ## A map of the embedding
#
# The test images, laid out by t-SNE so that neighbours in the embedding stay neighbours. Choose a setting to colour by,
# and point at an image to see it. The axes have no meaning, and distances between far groups have none either.

# %%
from sklearn.manifold import TSNE

shown = test.view(range(min(len(test), 600)))
tsne = TSNE(perplexity=min(30, len(shown) / 4), init="pca", random_state=seed)
layout = tsne.fit_transform(z[2][: len(shown)])
pictures = interactive.thumbnails(shown.image(i) for i in range(len(shown)))

# %% mystnb={"image": {"alt": "Interactive map of the test images' embeddings; a menu chooses the setting that colours the points, and the micrograph under the pointer is shown."}}
chart = interactive.embedding_map(layout, shown.metadata_raw, pictures)
interactive.show_embedding_map(chart)

# %% [markdown]
# ## What to notice
#
# - Compare each score with the other six settings' and with the control's before you believe that a network was needed.
#   Where the control is level with the probe, hand-made statistics are enough.
# - The partial $R^2$ may be far above the $R^2$ (the image settles what the other settings leave open) or far below it (the
#   image only repeats what they say).
# - A probe shows what is *in* the embedding, not what the network uses, nor what an image could tell at most. The supervised
#   network bounds the second from below.
# - In the map, some settings colour whole regions and others are scattered. The scattered ones are those that a probe
#   cannot read either.
#
# ## Exercises
#
# 1. Probe with a permuted target: shuffle the training settings. What $R^2$ do you expect, and why not exactly zero?
# 2. How many labelled images does a probe need? Fit it on 50, 200, 1000 of the training images.
# 3. Give the probe embedding and statistics together. Does either hold something that the other lacks?
#
# <details><summary>Solutions</summary>
#
# 1. With `rng = np.random.default_rng(seed)`: `fit_ridge(z[0], rng.permutation(y), z[1], y_val)`, then `.predict(z[2])`. At or
#    just below zero: a large penalty wins and leaves the mean of the training part, which is not quite that of the test part.
# 2. `few = rng.permutation(len(train))[:n]`, then `predict([z[0][few], *z[1:]], [train.view(few), val, test])`. Compare with
#    as many images from few sessions (`np.flatnonzero(train.sessions < k)`): what is set once a session needs many
#    *sessions*, not many images.
# 3. `joint = [np.concatenate(pair, 1) for pair in zip(z, numbers)]` with the statistics measured (at the profile `smoke`, or
#    `full`), then `probe_table(predict(joint, parts), test)`. Label such a row as what it is: two sets of features.
#
# </details>
#
# ## Summary

# %%
r2_text = figures.with_intervals(table, ["r2"], digits=2)["r2"]
below_text, told_text = (
    "{:.2f} [{:.2f}, {:.2f}]".format(*below[name].astype(float))
    for name in ("linear probe", "linear probe, told")
)
met = f"{(aims['met'] == 'yes').sum()} of {(aims['met'] != '').sum()}"
met = met if len(aims) else "none committed"
facts = {
    **{f"R² of {name}": text for name, text in r2_text.items()},
    "R² of pixel_size below 40 pm": below_text,
    "the same, told the range": told_text,
    "endpoints met (committed)": met,
    "split": f"session, {len(np.unique(test.sessions))} held out",
    "weights": weights,
    "profile, seed": f"{profile}, {seed}",
    "twin version": version or "none",
}
pd.Series(facts, name="twin results" if version else str(data)).to_frame()

# %% [markdown]
# The paper reports that all seven settings can be read from its embedding of real micrographs; these numbers are those of
# simulated ones.
#
# ## References
#
# CIMP: [arXiv 2604.24909](https://arxiv.org/abs/2604.24909). Linear probes: [arXiv 1610.01644](https://arxiv.org/abs/1610.01644).
# What a probe does not show: [arXiv 2102.12452](https://arxiv.org/abs/2102.12452). Others:
# [references](../book/references.md).
