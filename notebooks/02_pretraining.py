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
# # Pre-training

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/02_pretraining.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/02_pretraining.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | the contrastive loss in ten lines, and what several images with the same settings do to it; what the model is shown of an image, and what is hidden from it; which augmentations keep a pair true; to train a small model and to read its curves; what each part of the method contributes |
# | **You need** | [the data and the twin](01_data_and_twin); a little linear algebra |
# | **It takes** | three to four minutes on two cores, 2 GB of memory |

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
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize, softplus

import cimp_core as cimp
from cimp_core import figures, figures_training
from cimp_core.losses import info_nce, sigmoid_loss
from cimp_core.metadata import PARAMETERS
from cimp_core.pretrain import PROFILES, CropSampler, pretrain

figures.use_style()

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke", "book": a short run, or "full": hours without a GPU
data = "twin"  # "twin", or the path of a data set in the published layout
samples = None  # crops to train on; None: as many as the profile has
lr = None  # peak learning rate; None: that of the profile
seed = 0

# %% [markdown]
# ## The idea
#
# Take a batch of $B$ images and their settings. An image encoder gives unit rows $x_i$, a settings encoder unit rows
# $m_j$. Every image is asked which of the $B$ settings is its own, and the other way round: a classification with $B$
# classes, whose logits are the cosines $x_i \cdot m_j$ times a learnt scale $s$ (one over the *temperature*). The
# cross-entropy of that question is the InfoNCE loss,
#
# $$
# L = -\frac{1}{B}\sum_i \frac{1}{|P_i|}\sum_{j \in P_i} \log \frac{e^{s\,x_i\cdot m_j}}{\sum_k e^{s\,x_i\cdot m_k}}
# $$
#
# averaged with the same in the other direction. $P_i$ holds all $j$ with the *same* settings as $i$, itself included. No
# label is needed but the settings, which the microscope wrote down; everything else in the batch serves as the wrong
# answers.


# %%
def loss_by_hand(image, metadata, group, scale):
    positive = (group[:, None] == group[None, :]).float()
    logits = scale * image @ metadata.T
    rows = -(logits.log_softmax(1) * positive).sum(1) / positive.sum(1)
    columns = -(logits.log_softmax(0) * positive).sum(0) / positive.sum(0)
    return (rows.mean() + columns.mean()) / 2


rng = torch.Generator().manual_seed(seed)
x, m = (normalize(torch.randn(6, 4, generator=rng), dim=1) for _ in range(2))
group = torch.tensor([0, 1, 1, 2, 3, 3])
pair = loss_by_hand(x, m, group, 10.0), info_nce(x, m, group, 10.0)
print("by hand {:.6f}, package {:.6f}".format(*pair))

# %% [markdown]
# The *sigmoid* loss asks another question: of each of the $B^2$ pairs by itself, whether it belongs together. With
# $y_{ij} = 1$ for pairs of one group and $-1$ for all others, it is the sum of $\log(1 + e^{-y_{ij}(s\,x_i\cdot m_j + b)})$,
# divided by $B$. The bias $b$ is learnt; it starts where it says how rare a pair that belongs together is.


# %%
def sigmoid_by_hand(image, metadata, group, scale, bias):
    y = 2.0 * (group[:, None] == group[None, :]) - 1
    return softplus(-y * (scale * image @ metadata.T + bias)).sum() / len(image)


pairs = (
    pair,
    (
        sigmoid_by_hand(x, m, group, 10.0, -2.0),
        sigmoid_loss(x, m, group, 10.0, -2.0),
    ),
)
print("by hand {:.6f}, package {:.6f}".format(*pairs[1]))

# %% tags=["remove-cell"]
for by_hand, package in pairs:
    assert torch.allclose(by_hand, package, atol=1e-5)

# %% [markdown]
# ## Images with the same settings
#
# People take a second image without touching anything. Then two images of a batch have the same settings, and a settings
# encoder gives both the same row: no answer can be more than one half right. What does a loss make of that? Below are no
# networks, only free rows, one for each image and one for each distinct list of settings, moved downhill. Once all pairs
# of one group count as positives, once only each image and its own copy.


# %%
def settle(ids, given, sigmoid, steps=400):
    """Losses on the way down; `ids` says which settings are equal, `given` is told."""
    rng = torch.Generator().manual_seed(seed)
    free = [torch.randn(n, 16, generator=rng) for n in (len(ids), ids.max() + 1)]
    free += [torch.tensor(1.0), torch.tensor(-2.0)]  # logarithm of scale, bias
    x, m, scale, bias = (t.requires_grad_() for t in free)
    optimizer, losses = torch.optim.Adam(free, lr=0.05), []
    for _ in range(steps):
        pair = normalize(x, dim=1), normalize(m, dim=1)[ids], given, scale.exp()
        loss = sigmoid_loss(*pair, bias) if sigmoid else info_nce(*pair)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% [markdown]
# The lowest values can be computed. For InfoNCE it is the mean of $\log |P_i|$, however the pairs are labelled. For the
# sigmoid loss it is zero, unless the same pair of rows is asked to be alike once and unlike $K - 1$ times: then the best
# answer is a probability of $1/K$, and the loss keeps the entropy $H(1/K)$ for each of these pairs.

# %% mystnb={"image": {"alt": "Two plots of a loss against optimisation steps. Left, InfoNCE: with and without the other positives the curves are the same line and end at the same dashed minimum above zero. Right, the sigmoid loss: with all positives it falls to zero, without them it stays at a dashed line far above."}}
ids = torch.tensor([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6])
own = torch.arange(len(ids))
count = np.bincount(ids)
chance = 1 / count
entropy = -chance * np.log(chance) - (1 - chance) * np.log1p(-chance * (count > 1))
runs = {}
for sigmoid in (False, True):
    lowest = (count @ np.log(count), count @ np.log(count))
    lowest = (0.0, count**2 @ entropy) if sigmoid else lowest
    for given, low, name in zip((ids, own), lowest, ("all", "only its own")):
        label = f"{name} {'(sigmoid)' if sigmoid else '(InfoNCE)'}"
        runs[label] = settle(ids, given, sigmoid), low / len(ids)
fig = figures_training.settling_plot(runs, ["InfoNCE", "sigmoid"])

# %% tags=["remove-cell"]
(right, low), (wrong, _), (good, zero), (bad, floor) = runs.values()
assert np.allclose(right, wrong, atol=1e-3) and low <= right[-1] < low + 0.1
assert zero == 0 and good[-1] < 0.1 and floor <= bad[-1] < floor + 0.1

# %% [markdown]
# InfoNCE does not care: equal rows share the blame equally, and both ways of counting have the same value and gradient.
# The sigmoid loss does: told that a pair is false which it was told is true, it settles for a compromise. InfoNCE comes
# to care too as soon as parts of the settings are hidden at random (below), since the rows of a group then differ. So
# both losses here are told the groups, as integers that the data set made once from the exact values.
#
# What remains at the minimum is nothing that can be learnt. Curves therefore show the *excess* over the mean of
# $\log |P_i|$.
#
# ## Memory
#
# The logits of a batch are a $B \times B$ matrix, and the backward pass wants more of that size. In *tiles*, one square of
# it at a time is made, and made again for the backward pass; with large batches the losses do so by themselves. On many
# devices each compares its own rows with the settings of all, gathered with their group ids (`gathered_info_nce`). Neither
# changes the value or the gradients.

# %%
from cimp_core.losses.contrastive import info_nce_rows


def kept(loss, rows, *rest):
    """Memory kept for the backward pass [MiB]."""
    sizes = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = loss(rows.requires_grad_(), *rest)
    return sum(sizes.values()) / 2**20 if value.requires_grad else 0.0


big = normalize(torch.randn(2048, 64, generator=rng), dim=1)
each, scale = torch.arange(len(big)), torch.tensor(10.0)
part = len(big) // 4
memory = {
    "whole": kept(info_nce, big, big, each, scale, len(big)),
    "in tiles of 128 x 128": kept(info_nce, big, big, each, scale, 128),
    "one direction, whole": kept(
        info_nce_rows, big, big, each, each, scale, len(big)
    ),
    "one direction, one of four devices": kept(
        info_nce_rows, big[:part].detach(), big, each[:part], each, scale, len(big)
    ),
}
pd.Series(memory, name=f"MiB for a batch of {len(big)}").round(1).to_frame()

# %% tags=["remove-cell"]
whole, tiles, rows, share = memory.values()
assert tiles < whole / 10 and share < rows / 3

# %% [markdown]
# ## Data
#
# Split by session: no sitting at the microscope is in two parts. The test part is not looked at in this chapter.

# %%
images, size = {"smoke": (240, 96), "book": (7330, 256), "full": (7330, 256)}[
    profile
]
dataset = (
    cimp.twin(images=images, size=size, seed=0)
    if data == "twin"
    else cimp.open_dataset(data)
)
config = replace(PROFILES[profile], seed=seed, views=0)
edges = np.array([min(dataset.shape(i)) for i in range(len(dataset))])
least = config.smallest_crop
large = np.flatnonzero(edges >= least)
if len(large) < len(dataset):
    dropped = f"{len(dataset) - len(large)} of {len(dataset)} images"
    print(f"{dropped} left out: smaller than a crop, {least} pixels")
dataset = dataset.view(large)
train, val, test = dataset.split("session", seed=0)
if min(len(val), len(test)) < 4:
    few = f"{len(val)} validation and {len(test)} test images"
    raise cimp.OutOfRangeError(f"{data}: {few} tell nothing; take more sessions")
version = dataset.attributes.get("twin_version")

# %%
for name, part in (("train", train), ("val", val), ("test", test)):
    sessions = len(np.unique(part.sessions))
    print(f"{name:5s} {len(part):5d} images, {sessions:4d} sessions")
_, group, times = np.unique(train.groups, return_inverse=True, return_counts=True)
shared = np.mean(times[group] > 1)
print(f"{shared:.0%} of the training images share their settings with another")

# %% [markdown]
# ## What the model sees
#
# The image encoder can read an image in three ways: by its pixels, by statistics of the whole, and by its power spectrum.
#
# *Pixels.* A ResNet of variable width looks at square tiles of the image, as two channels. *Normalised*, every image has
# mean 0 and standard deviation 1: structure and noise can be seen, whatever the detector's gain and offset were. On the
# *absolute* scale it is seen how bright the image is and how much of the 16-bit range it fills: gain and offset are there
# and almost nowhere else. Where a file is not on that scale, all that is absolute is hidden and a flag says so. A width of
# zero leaves this network out; what it adds is measured below, and here is what each profile has:

# %%
shape = ("width", "statistics", "spectrum", "smallest_crop", "crop_size", "tile")
used = {name: [getattr(c, key) for key in shape] for name, c in PROFILES.items()}
meaning = ("ResNet channels", "statistics", "spectrum channels")
sizes = ("smallest crop [px]", "largest crop [px]", "tile [px]")
pd.DataFrame(used, index=[*meaning, *sizes])

# %% mystnb={"image": {"alt": "Three crops, above normalised to the same contrast, below on the absolute 16-bit scale, where some are dark and some are bright."}}
gain = PARAMETERS.index("detector_gain")
order = np.argsort(train.metadata_raw[:, gain])
chosen = [figures.example_area(train.metadata_raw), order[0], order[-1]]
crops = [train.image(i)[: config.crop_size, : config.crop_size] for i in chosen]
names = ["an example", "lowest gain", "highest gain"]
fig = figures_training.model_inputs(crops, names)

# %% [markdown]
# *Statistics.* A convolutional network could learn to count electrons from the noise, but a line of code can too. So the
# encoder is given numbers that do not depend on where things are: levels, how neighbours correlate, and how the noise
# grows with the signal. The last is a straight line if the noise is that of counting: its slope is the counts an electron
# makes, and where it meets zero is the black level. Some such numbers, as the [control](../book/results.md) has them:

# %%
from cimp_core.study.statistics import NAMES, image_statistics

shown = {
    "mean": "mean",
    "std": "spread",
    "residual_over_std": "noise over spread",
    "variance_slope": "slope of noise variance against level (asinh)",
    "peak_radius": "strongest spatial frequency [1/pixel]",
}
values = np.array([image_statistics(crop) for crop in crops])
columns = [NAMES.index(name) for name in shown]
pd.DataFrame(values[:, columns].T, list(shown.values()), names).round(3)

# %% [markdown]
# The last of the three is the power spectrum on a *log-polar* grid: the logarithm of the radius against the angle. A lattice is a
# few spots there. With a finer pixel the same lattice has lower frequencies in cycles a pixel, and as the radius is
# logarithmic the whole pattern *shifts* down by the same amount, whatever the lattice; a turned specimen shifts it
# sideways. To read the pixel size from a known lattice is then to read a position. A small convolutional network reads the
# grid, on which a lattice looks alike at any magnification. The grid is the same for an image of any size. Below, an image
# and its pixels averaged two by two, as if it had been recorded with pixels twice as large:

# %% mystnb={"image": {"alt": "Two power spectra on a log-polar grid and their means over the angle: with pixels twice as large the same pattern lies higher by a constant step of log radius."}}
from torch.nn.functional import avg_pool2d

from cimp_core.models import log_polar_spectrum

whole = torch.from_numpy(train.image(chosen[0]).astype(np.float32))
coarse = avg_pool2d(whole[None], 2)[0]
fine = whole[: coarse.shape[0], : coarse.shape[1]]
spectra = log_polar_spectrum(torch.stack([fine, coarse])).numpy()
titles = ["as recorded", "pixels twice as large"]
fig = figures_training.spectrum_plot(list(spectra), titles)

# %% [markdown]
# ## What is hidden
#
# Files lack things. A training batch therefore lacks some too: parameters are missing at random (`nan`), and of some
# crops the absolute intensity is hidden. The edge of the crops is drawn anew for each batch, so that the model meets images
# of many sizes. Statistics and spectrum have nothing to learn but cost more than the networks that read them; for a long
# run they can be computed once, for a few crops of each image (the setting `views`, `cimp_core.views`).

# %%
several = train.view(range(min(len(train), config.batch_size)))
sampler = CropSampler(several, config)
batch, metadata, absolute, group = sampler(0)
print(f"crops {tuple(batch.shape)}, settings {tuple(metadata.shape)}")
known = np.isfinite(several.metadata[sampler.order(0, len(batch))])
hidden = metadata.isnan().numpy()[known].mean()
print(f"hidden: {hidden:.1%} of the settings, absolute intensity of", end=" ")
print(f"{(~absolute).float().mean():.1%} of the crops")
pd.DataFrame(metadata[:4].numpy(), columns=list(PARAMETERS)).round(2)

# %% [markdown]
# ## Which augmentations are true
#
# Photographs are zoomed, blurred and brightened in training, since a cat stays a cat. Here the settings are the label. A
# zoom contradicts the pixel size, a blur the convergence angle, noise the dose, contrast the gain. A flip changes none
# of them. And a quarter turn? None of the seven settings says which way the beam moved, but the image does: the detector's
# after-glow smears along the fast scan axis, so the noise of neighbours correlates along a row and not along a column, the
# more so the shorter the dwell time. Rows also jitter against one another, columns do not. A turned image is one that this
# microscope cannot take, and a mark of the dwell time lies where none should be. The noise is seen here in second
# differences, whose neighbours correlate even if pixels do not; so only the difference of the two axes counts.

# %% mystnb={"image": {"alt": "How much more the noise of neighbouring pixels correlates along a row than along a column, against dwell time, one point an image: much at short dwell times, nothing at long ones."}}
some = np.random.default_rng(seed).permutation(len(train))[:120]
table = np.array([image_statistics(train.image(i)[:256, :256]) for i in some])
row, column = (
    table[:, NAMES.index(f"residual_correlation_{axis}_1")]
    for axis in ("horizontal", "vertical")
)
dwell = train.metadata_raw[some, PARAMETERS.index("dwell_time")]
fig = figures_training.scan_axes_plot(dwell, row - column)

# %%
short = dwell <= np.nanmedian(dwell)
marks = [np.median((row - column)[which]) for which in (short, ~short)]
print(f"row minus column, median: {marks[0]:.3f} at the shorter dwell times,")
print(f"{marks[1]:.3f} at the longer ones")

# %% tags=["remove-cell"]
if data == "twin" and profile != "smoke":
    assert marks[0] > 0.02 > marks[1], marks

# %% [markdown]
# ## A small training run
#
# What the image encoder reads in each way is put together and goes through two layers to the embedding. The settings
# encoder is a small network on the seven z-scores. The optimiser is AdamW with a warm-up and a cosine. At the
# profiles `smoke` and `book` the run is short and shows the mechanism; `full` may take hours without a graphics card. A
# few batches tell beforehand how long, and `samples` makes it shorter.

# %%
samples = samples or config.samples
batch = config.batch_size
on_gpu = torch.cuda.is_available()
config = replace(
    config,
    samples=samples,
    peak_rate=lr or config.peak_rate,
    validate_every=max(1, samples // 4),
    log_every=min(config.log_every, max(batch, samples // 8)),
)
speed = []
trial = replace(config, samples=2 * batch, log_every=batch)
pretrain(train, None, trial, on_log=speed.append)
minutes = samples / speed[-1]["per_second"] / 60
device = "a GPU" if on_gpu else "the CPU"
print(f"{samples} crops, {samples / len(train):.0f} of each image, on {device}:")
print(f"expect about {minutes:.1f} minutes")

# %%
history = []
trained = pretrain(train, val, config, on_log=history.append)
weights = sum(p.numel() for p in trained.parameters())
print(f"{weights / 1e6:.2f} million weights, batches of {config.batch_size}")
print(f"{config.samples} crops of {least} to {config.crop_size} pixels a side")

# %% [markdown]
# The analogue of the paper's Fig. 8: loss and retrieval on the validation part. A validation image is found if its own
# settings are among the first 1, 5 or 10 of all distinct settings of the part. With it the log of the weights that come
# with the package, trained by the same code for longer.

# %% mystnb={"image": {"alt": "Three plots against the number of crops seen. Left, training loss above its minimum, falling. Middle, share of validation images whose own settings are among the first 1, 5 and 10, rising. Right, the inverse temperature, well below its clamp."}}
log = pd.DataFrame(history)
logs = {"this run": log}
shipped = Path(cimp.__file__).parent / "data" / "cimp-twin-s.log.jsonl"
if shipped.exists() and data == "twin" and profile != "smoke":
    lines = shipped.read_text(encoding="utf-8").splitlines()
    logs["cimp-twin-s"] = pd.DataFrame(json.loads(line) for line in lines)
fig = figures_training.training_curves(logs)

# %%
ends = {}
for name, entries in logs.items():
    last = entries.iloc[-1]
    ends[name] = {f"Top-{k}": last[f"val_top{k}"] for k in (1, 5, 10)}
    ends[name]["chance of Top-1"] = 1 / last["val_candidates"]
    ends[name] |= {"excess": last["excess"], "inverse temperature": last["scale"]}
    ends[name]["thousand crops"] = last["samples"] / 1000
pd.DataFrame(ends).map("{:.4g}".format)

# %% tags=["remove-cell"]
assert log["excess"].iloc[-1] < log["excess"].iloc[0] or len(log) == 1
if profile == "book" and data == "twin":
    assert ends["this run"]["Top-1"] > 5 * ends["this run"]["chance of Top-1"]

# %% [markdown]
# Compare the shape with the paper's Fig. 8, not the height: its data are real, and pool and split are others. The excess
# of the last batches is one on training images; what generalises is in the middle. How well the shipped weights retrieve
# on held-out sessions, with intervals, is in the [results](../book/results.md).
#
# ## The scale and its clamp
#
# Cosines reach from -1 to 1. With a scale $s = 1$ even a perfect model could not be sure among $B$ candidates: the lowest
# loss is that of its own cosine at 1 and all others at $-1/(B-1)$. So the scale is learnt, from $1/0.07$ on. It says how
# sure the model is: too high, and wrong answers cost dearly. While the model knows little the scale falls a little, in the
# plot above, and once it tells settings apart the scale grows, for as long as the answers on *training* images get better.
# The clamp is for runs so long that these are all right: without a bound the scale would grow on, and gradients would be
# zero for most pairs and huge for a few. Here is the loss of one set of validation images at several scales.

# %%
from cimp_core.models.cimp import MAX_SCALE
from cimp_core.retrieval import embed_dataset

order = np.random.default_rng(seed).permutation(len(val))
few = val.view(order[: config.batch_size])
ids = torch.from_numpy(few.groups)
rows = (
    embed_dataset(trained, few, crops=1),
    trained.embed_metadata(few.metadata_raw),
)
rows = [torch.from_numpy(r) for r in rows]
scales = np.geomspace(1, MAX_SCALE, 200)
losses = [info_nce(*rows, ids, s).item() for s in scales]
best = scales[int(np.argmin(losses))]

# %%
others = len(few) - 1
named = {"one": 1.0, "start": 1 / 0.07, "learnt in this run": trained.scale}
named |= {"best on these validation images": best, "clamp": MAX_SCALE}
lowest = [np.log1p(others * np.exp(-s * (1 + 1 / others))) for s in named.values()]
at = {"scale": list(named.values()), "lowest loss possible": lowest}
at["loss, validation"] = [info_nce(*rows, ids, s).item() for s in named.values()]
print(f"among {len(few)} validation images, one crop each")
pd.DataFrame(at, index=list(named)).round(3)

# %% [markdown]
# ## What each part contributes
#
# Each part of the method can be left out or exchanged. Every *variant* is trained with the same number of crops, in the
# same order, and scored on the validation part: choosing is done there, and the test part is for the final numbers. The
# rows are in `book/results.json`; at the profile `smoke`, or where there are none yet, two variants are trained here in
# small.

# %%
from tempfile import TemporaryDirectory

from cimp_core.results import read_results
from cimp_core.study.ablation import VARIANTS, study

results = read_results("../book/results.json")
rows = [r for r in results if r["name"].startswith(("ablation.", "curve."))]
if live := profile == "smoke" or not rows:
    keys = ("split", "profile", "seeds", "twin_version", "command")
    common = zip(keys, ("session, validation part", "smoke", [0], version, "here"))
    only = ["reference", "no_masking"]
    with TemporaryDirectory() as work:
        rows = study(
            dataset, work, PROFILES["smoke"], samples=512, seeds=[0], only=only,
            common=dict(common), say=lambda text: None,
        )  # fmt: skip
about = next(r for r in rows if r["name"] == "ablation.top1.reference")
made = "trained here" if live else "committed"
print(f"{made}: twin version {about['twin_version']}, split {about['split']},")
print(f"pool of {about['pool']}, seeds {about['seeds']}; {about['command']}")
base = PROFILES[about["profile"]]
for variant, changed in VARIANTS.items():
    was = (f"{k} {getattr(base, k)} -> {v}" for k, v in changed.items())
    print(f"{variant}: {', '.join(was) or 'as in the profile'}")
figures_training.ablation_table(rows)

# %% mystnb={"image": {"alt": "Change of Top-1, 5 and 10 of each variant against the reference, with 95 % intervals over seeds and sessions and a line at zero."}}
fig = figures_training.ablation_plot(rows)

# %% [markdown]
# The intervals are over seeds and sessions, and those of the figure over differences, seed by seed and image by image. Crops
# of 128 pixels only see fewer pixels for the same number of crops. Retrieval asks for all settings at once; what became of each is
# in the next figure: $R^2$ of the normalised setting, read by a ridge regression from the frozen embedding, its penalty
# chosen within the training part. Coloured is a change whose interval does not contain zero. All intervals are among the
# [results](../book/results.md).

# %% mystnb={"image": {"alt": "Table of R squared: one line a variant, one column a setting; cells are coloured where the change against the reference is distinguishable from zero."}}
fig = figures_training.ablation_map(rows)

# %% [markdown]
# More of what? Retrieval against the number of crops, each point with a schedule of its own, and against the number of
# training sessions at the same number of crops:

# %% mystnb={"image": {"alt": "Retrieval on the validation part against the number of training crops and against the number of training sessions, with 95 % intervals."}}
curves = [r for r in rows if r["name"].startswith("curve.")]
if curves:
    fig = figures_training.budget_plot(curves)
    plt.show()
else:
    print("no curve among the rows")

# %% [markdown]
# ## What to notice
#
# - The loss on training crops goes on falling when validation retrieval hardly rises: the rest is learning the training
#   sessions by heart. Where more sessions help and more crops do not, data are what is lacking.
# - A variant that loses little in retrieval may lose a parameter: look along its line of the last table, not only at Top-1.
# - Settings that leave no mark in the image cannot be aligned with it, whatever the loss; the model can only guess them from
#   those they go with.
#
# ## Exercises
#
# 1. Give `info_nce` the ids `torch.arange(B)` while the settings of a group differ by masking. What would the gradient
#    push apart?
# 2. Train with `replace(config, mask_absolute=1.0)`: the absolute intensity is always hidden. Which settings suffer?
# 3. Add to the batch a brighter copy of each image, with the settings of the original. Which augmentation is that, and what
#    will the model no longer be able to tell?
#
# <details><summary>Solutions</summary>
#
# 1. The settings of the same group, by what is hidden in one and not in the other. The image does not know what was hidden,
#    so it would learn noise; with the groups, the rows of a group are drawn together.
# 2. `pretrain(train, val, replace(config, mask_absolute=1.0), on_log=print)`. Expect the offset to be lost and the gain to
#    suffer: they are in the level of the image and little else. Current and dwell time should suffer less, since noise
#    *relative* to the signal still counts electrons.
# 3. Contrast. Two brightnesses with the same settings mean that the brightness says nothing: the gain is lost, and with it
#    what distinguishes a bright specimen from a high gain.
#
# </details>
#
# ## Summary

# %%
name, last = next(reversed(ends.items()))
seen, scale = last["thousand crops"], last["inverse temperature"]
facts = {
    **{
        f"validation Top-{k}, {name}": f"{last[f'Top-{k}']:.3f}" for k in (1, 5, 10)
    },
    "among distinct settings": round(1 / last["chance of Top-1"]),
    "thousand crops, inverse temperature": f"{seen:.0f}, {scale:.1f}",
    "trained here": f"{samples} crops, {weights / 1e6:.2f} million weights",
    "images that share their settings": f"{shared:.0%} of the training part",
    "variants": len(figures_training.ablation_table(rows)),
    "seeds of the variants": str(about["seeds"]),
    "split": "session, validation part",
    "profile, seed": f"{profile}, {seed}",
    "twin version": version or "none",
}
pd.Series(facts, name="twin results" if version else str(data)).to_frame()

# %% [markdown]
# The paper reports 84.4 % Top-1 on real micrographs, with another split and another pool; these numbers are not
# comparable with it.
#
# Next: [which settings fit an image](03_retrieval).
#
# ## References
#
# CIMP: [arXiv 2604.24909](https://arxiv.org/abs/2604.24909). InfoNCE: [arXiv 1807.03748](https://arxiv.org/abs/1807.03748);
# several positives: [arXiv 2004.11362](https://arxiv.org/abs/2004.11362); the sigmoid loss:
# [arXiv 2303.15343](https://arxiv.org/abs/2303.15343); the learnt scale: [arXiv 2103.00020](https://arxiv.org/abs/2103.00020).
# Others: [references](../book/references.md).
