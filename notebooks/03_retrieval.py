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
# # Retrieval: which settings was it taken with?

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/03_retrieval.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/03_retrieval.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | to measure retrieval with a stated pool and intervals; what a Top-1 depends on; to read a wrong answer; what a random split hides; to ask for the settings of your own files |
# | **You need** | [pre-training](02_pretraining) |
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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import cimp_core as cimp
from cimp_core import explorer, figures, figures_retrieval
from cimp_core.metadata import LABELS, PARAMETERS

figures.use_style()

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke", "book": shipped weights, or "full": trained here
data = "twin"  # "twin", or the path of a data set in the published layout
samples = None  # crops to train on; None: as many as the profile has
drive = "made"  # "made", or a folder of your own Velox files
seed = 0

# %% [markdown]
# ## The idea
#
# *Which of these settings was this image taken with?* The image and every candidate are embedded, and the candidate with
# the highest cosine is the answer. Top-$k$ is the share of images whose own settings are among the first $k$. It says
# something only together with the question that was asked:
#
# - **The pool.** Among ten candidates the truth is easier to find than among a thousand. A pool here holds a fixed number
#   of *distinct* settings; images with the same settings ask about the same candidate. Whole sessions are drawn until the
#   pool is full, and this is repeated.
# - **The rivals.** Much is set once a session, so candidates of the image's own session are the hard ones. A second
#   measurement leaves the *wrong* ones of them out.
# - **Ties.** A wrong candidate with the same cosine counts as if it came first. A model that answers the same for
#   everything is then last, not first.
# - **The split.** No session is in both training and test.

# %% [markdown]
# ## Data and model
#
# The same split and the same weights as in the chapter before. Without shipped weights a small model is trained.

# %%
from cimp_core.pretrain import PROFILES, pretrain

images, size = {"smoke": (240, 96), "book": (7330, 256), "full": (7330, 256)}[
    profile
]
dataset = (
    cimp.twin(images=images, size=size, seed=0)
    if data == "twin"
    else cimp.open_dataset(data)
)
config = replace(PROFILES[profile], seed=seed, views=0)
config = replace(config, samples=samples or config.samples)
edges = np.array([min(dataset.shape(i)) for i in range(len(dataset))])
least = config.smallest_crop
large = np.flatnonzero(edges >= least)
if len(large) < len(dataset):
    dropped = f"{len(dataset) - len(large)} of {len(dataset)} images"
    print(f"{dropped} left out: smaller than a crop, {least} pixels")
usable = dataset.view(large)
train, val, test = usable.split("session", seed=0)
if min(len(val), len(test)) < 4:
    few = f"{len(val)} validation and {len(test)} test images"
    raise cimp.OutOfRangeError(f"{data}: {few} tell nothing; take more sessions")
version = dataset.attributes.get("twin_version")

# %%
shipped = "cimp-twin-s" if profile == "book" else None
model = cimp.load(shipped) if shipped else pretrain(train, None, config)
label = f"weights {shipped}" if shipped else f"{config.samples} crops, trained here"
sessions, distinct = len(np.unique(test.sessions)), len(np.unique(test.groups))
print(f"{label}; twin version {version}")
print(
    f"test: {len(test)} images, {sessions} sessions, {distinct} distinct settings"
)

# %%
from cimp_core.retrieval import embed_dataset

four = embed_dataset(model, test, crops=4), model.embed_metadata(test.metadata_raw)
cosine = four[0] @ four[1].T
same = test.groups[:, None] == test.groups[None, :]

# %% [markdown]
# ## The gap
#
# Before any ranking: is an image closer to its own settings than to others'? The gap is measured image by image, so it
# has an interval over sessions.

# %% mystnb={"image": {"alt": "Two histograms of cosines between image and settings: for pairs that belong together and for pairs that do not. The first lies at higher cosines."}}
from cimp_core.metrics import cosine_gaps, mean_interval

fig = figures_retrieval.cosine_histogram(cosine[same], cosine[~same])
gaps = cosine_gaps(*four, test.groups)
low, high = mean_interval(test.sessions, gaps)
print(f"matched minus mismatched: {gaps.mean():.3f} [{low:.3f}, {high:.3f}]")

# %% [markdown]
# ## Top-1, 5 and 10
#
# Both directions, with and without wrong candidates of the image's own session, with 95 % intervals over sessions.

# %%
from cimp_core.retrieval import evaluate

pool, draws = {"smoke": (12, 20), "book": (450, 200), "full": (450, 200)}[profile]
if distinct < pool:
    print(
        f"the test part holds {distinct} distinct settings: the pool is all of them"
    )
    pool = distinct
options = {"pool": pool, "draws": draws, "seed": 0, "embeddings": four}
found = {
    "all candidates": evaluate(model, test, **options),
    "no wrong ones of its session": evaluate(
        model, test, exclude_same_session=True, **options
    ),
}
retrieval = pd.concat(found, names=["candidates"])
figures.with_intervals(retrieval, ["top1", "top5", "top10"])

# %%
print(f"{draws} draws of a pool of {pool} distinct settings, {sessions} sessions")
smallest = retrieval["smallest_pool"].min()
if smallest < pool:
    print(
        f"too few other sessions: a pool of the second table holds {smallest} only"
    )
print("by chance:", *(f"top{k} {min(1, k / pool):.3f}" for k in (1, 5, 10)))

# %% tags=["remove-cell"]
assert (retrieval["top1"] <= retrieval["top5"]).all()
assert (retrieval["top5"] <= retrieval["top10"]).all()
if profile == "book" and data == "twin":
    assert retrieval["sessions"].min() >= 100
    assert (retrieval["top1_low"] > 1 / pool).all()

# %% [markdown]
# ### Beside the control and the ceiling
#
# A number alone says little. The *control* answers without a neural network: gradient boosting on some ninety hand-made
# statistics of the image predicts the settings, and the nearest candidate is taken. The *ceiling* is an oracle that knows
# every normalised setting up to a stated error, in standard deviations of that setting: settings come in habits, so some
# lie too close to be told apart by any image. Both are measured on the same split and pools, and kept in
# `book/results.json`.

# %%
from cimp_core.results import read_results

committed = [
    r
    for r in read_results("../book/results.json")
    if version and r["twin_version"] == version
]
known = {r["name"]: r for r in committed if r["pool"] == pool}
series = {
    "control": "control.retrieval.{}.image_to_metadata",
    "oracle, 0.05 sd": "ceiling.retrieval.{}.image_to_metadata.sd005",
    "oracle, 0.2 sd": "ceiling.retrieval.{}.image_to_metadata.sd020",
}
ends = ("", "_low", "_high")
own = retrieval.loc[("all candidates", "image_to_metadata")]
tops = ("top1", "top5", "top10")
table = [(k, "this model", *(own[k + end] for end in ends)) for k in tops]
for name, pattern in series.items():
    rows = {k: known[pattern.format(k)] for k in tops if pattern.format(k) in known}
    table += [(k, name, r["value"], r["low"], r["high"]) for k, r in rows.items()]

# %% mystnb={"image": {"alt": "Top-1, 5 and 10 from image to settings with 95 % intervals: this model, the control, and an oracle at two precisions."}}
columns = ["quantity", "series", "value", "low", "high"]
table = pd.DataFrame(table, columns=columns)
fig = figures.interval_plot(
    table, label=f"share found, pool of {pool}", limits=(0, 1)
)

# %% tags=["remove-cell"]
row = known.get("retrieval.top1.image_to_metadata")
if profile == "book" and row:
    low, high = row["value"] - 0.02, row["value"] + 0.02
    if len(row["seeds"]) > 1:  # these weights are one of several, whose mean it is
        low, high = row["low"], row["high"]
    assert low < own["top1"] < high, (row, own["top1"])

# %% [markdown]
# ## The size of the pool
#
# The same embeddings, asked in ever larger pools. Small pools are drawn from few sessions, so most of their candidates
# are rivals of the image's own session: with these left out, the curve starts higher.

# %% mystnb={"image": {"alt": "Top-1, 5 and 10 from image to settings against the number of candidates, with 95 % intervals: left with all candidates, right without wrong ones of the same session. All fall as the pool grows."}}
pools = [p for p in (4, 8, 16, 32, 64, 128, 256, 450) if p < distinct]
pools = [p for p in pools if p >= distinct // 48] + [distinct]
points = {}
for title, exclude in ((list(found)[0], False), (list(found)[1], True)):
    lines = []
    for p in pools:
        line = evaluate(
            model,
            test,
            exclude_same_session=exclude,
            **{**options, "pool": p, "draws": min(draws, 20)},
        ).loc["image_to_metadata"]
        lines += [(k, p, *(line[k + end] for end in ends)) for k in tops]
    points[title] = pd.DataFrame(lines, columns=figures_retrieval.COLUMNS)
fig = figures_retrieval.curve_plot(
    points, xlabel="distinct settings in the pool", ylabel="share found"
)

# %% [markdown]
# ## What is seen of an image
#
# The model takes an image of any size from 32 pixels: statistics and the spectrum are of the whole, and features of tiles
# are averaged. What does it gain from seeing more? First, only a square in the middle is seen. Then several squares of 128
# pixels are embedded one by one and the mean is taken. The live points are of a few images only, in a pool of all their
# settings; the committed ones are of the whole test part.

# %%
few = test.view(range(min(len(test), 24 if profile == "smoke" else 100)))
settings = model.embed_metadata(few.metadata_raw)
few_pool = len(np.unique(few.groups))
by_name = {r["name"]: r for r in committed}


def points_of(what, place, crops, size):
    """Top-1 of the few images from crops of a size, and the committed point."""
    pair = embed_dataset(model, few, crops=crops, size=size), settings
    line = evaluate(model, few, pool=few_pool, draws=1, embeddings=pair)
    line = line.loc["image_to_metadata"]
    points = [(f"{len(few)} images", place, *(line["top1" + end] for end in ends))]
    if row := by_name.get(f"retrieval.curve.{what}.top1.image_to_metadata"):
        numbers = (row[key] for key in ("value", "low", "high"))
        points.append((f"committed, pool of {row['pool']}", place, *numbers))
    return points


# %% mystnb={"image": {"alt": "Top-1 from image to settings with 95 % intervals against the edge of the square in the middle of an image that alone is seen."}}
smallest = min(min(few.shape(i)) for i in range(len(few)))
edges = [edge for edge in (64, 96, 128, 192, 256) if edge <= smallest]
lines = [p for e in edges for p in points_of(f"size_{e:03d}", e, 1, e)]
size_table = pd.DataFrame(lines, columns=figures_retrieval.COLUMNS)
fig = figures_retrieval.curve_plot(
    {f"pool of {few_pool}": size_table}, xlabel="edge [pixels]", ylabel="Top-1"
)

# %% mystnb={"image": {"alt": "Top-1 from image to settings with 95 % intervals when an image is embedded from one crop of 128 pixels, from four, and whole."}}
places = {"one": ("01", 1), "four": ("04", 4), "whole image": ("whole", None)}
lines = []
for x, (word, crops) in enumerate(places.values()):
    lines += points_of(f"crops_{word}", x, crops, 128)
crop_table = pd.DataFrame(lines, columns=figures_retrieval.COLUMNS)
fig = figures_retrieval.curve_plot(
    {f"pool of {few_pool}": crop_table},
    xlabel="crops averaged",
    ylabel="Top-1",
    logarithmic=False,
    ticks=dict(enumerate(places)),
)

# %% [markdown]
# ## What differs when it is wrong
#
# Is a wrong first answer nearly right? Here every test image chooses among all settings of the test part. A *question*
# is one list of settings in one session, so that an image repeated ten times counts once.

# %% mystnb={"image": {"alt": "Bars for each of the seven settings: the share of wrong first answers that differ from the truth in it, and the share that differ in nothing else."}}
from cimp_core.study.retrieval_curves import (
    first_answers,
    setting_differs,
    wrong_rows,
)

answer = first_answers(cosine, test.groups)
right = test.groups[answer] == test.groups
raw = test.metadata_raw
differs = setting_differs(raw[~right], raw[answer[~right]])
fig = figures_retrieval.difference_plot(differs)

# %%
common = {"split": "session", "profile": profile, "seeds": [seed]}
common |= {"twin_version": version, "command": "this chapter"}
wrong = {r["name"]: r for r in wrong_rows([four], test, common)}
names = {"first answer right": "retrieval.questions.top1"}
for word, text in zip(PARAMETERS, LABELS, strict=True):
    names[f"wrong, differs in {text}"] = f"retrieval.wrong.differs.{word}"
keys = ["value", "low", "high"]
pd.DataFrame({k: [wrong[n][k] for n in names.values()] for k in keys}, list(names))

# %% [markdown]
# ## The explorer
#
# Choose an image. The row *truth* has the settings it was taken with; below are the ten candidates that the model puts
# first, with their cosine, and only what differs from the truth (`=`: the same within 1 %).

# %% mystnb={"image": {"alt": "Retrieval explorer: a menu chooses one of the test images; shown are the image, its settings and the ten candidates that the model finds most alike."}}
chosen = np.unique(np.linspace(0, len(test) - 1, 30).astype(int))
explorer.retrieval_explorer(test, four, chosen)

# %% [markdown]
# ## What a random split hides
#
# Split at random, a test image has siblings in training: the same specimen, the same day, the same habits. Trained alike
# on both kinds of split, the scores differ, but for two reasons at once: the test parts, and so the pools, are others. The
# clean comparison asks *the same* questions twice, with as many training images: once none of their sessions was seen, once
# half of the files of each was.

# %%
rows = {r["name"]: r for r in committed if r["name"].startswith("split.")}
if profile == "smoke":  # in small, to show that it runs
    from cimp_core.study.splits_compared import sibling_rows, split_rows

    budget = replace(config, samples=min(config.samples, 256))
    small = {"pool": 12, "draws": 5, "crops": 1, "profile": "smoke"}
    made = split_rows(usable, budget, kinds=("session", "image"), **small)
    made += sibling_rows(usable, budget, **small)
    rows = {r["name"]: r for r in made}
series = {
    "split by session": "split.session",
    "split by material": "split.material",
    "split by image": "split.image",
    "session never seen": "split.strangers",
    "siblings seen": "split.siblings",
}
top1 = {
    name: rows.get(f"{start}.retrieval.top1.image_to_metadata")
    for name, start in series.items()
}
made = {name: r for name, r in top1.items() if r}
pools_of = sorted({r["pool"] for r in made.values()})
print(f"{len(made)} of {len(series)} results at hand, in pools of {pools_of}")
columns = ["value", "low", "high", "pool"]
compared = {k: [r[k] for r in made.values()] for k in columns}
pd.DataFrame(compared, list(made)).round(3)

# %%
for kind in ("session", "material", "image"):
    row = rows.get(f"split.{kind}.known.settings")
    if row:
        share = f"{row['value']:.0%} of test images have settings seen in training"
        print(f"split by {kind}: {share}")
row = rows.get("split.siblings.gain.top1.image_to_metadata")
if row and row["low"] is not None:
    interval = "[{low:+.3f}, {high:+.3f}]".format(**row)
    print(f"Top-1 gained by seeing siblings: {row['value']:+.3f} {interval}")

# %% [markdown]
# ## More training
#
# How Top-1 grows with the crops trained on, and with the sessions they come from, at the same number of crops. These
# trainings take hours, so the curves are committed results. They are scored on the *validation* part: such curves are for
# choosing, and the test part is not to be chosen on.

# %% mystnb={"image": {"alt": "Top-1 on the validation part with 95 % intervals, left against the number of crops trained on, right against the number of training sessions. Empty where no results are committed."}}
patterns = {
    "crops trained on": r"curve\.crops\.(\d+)\.top1",
    "training sessions": r"curve\.sessions\.(\d+)\.top1",
}
curves = {
    title: figures_retrieval.curve_from_rows(committed, pattern, "validation")
    for title, pattern in patterns.items()
}
print({title: f"{len(curve)} points" for title, curve in curves.items()})
if all(len(curve) for curve in curves.values()):
    fig = figures_retrieval.curve_plot(curves, xlabel="", ylabel="Top-1")

# %% [markdown]
# ## Your own files
#
# `cimp.read` takes a file of any of the supported formats, and candidates may come from the same folder. Where a file lacks
# a setting, it is masked; where its intensity is not on the scale trained on, the absolute level is. With `drive = "made"`
# the chapter writes a small folder of Velox files first, from images of the test part.

# %%
import tempfile

from cimp_core.example_drive import write_example_drive

if drive == "made":
    source = test if data == "twin" else cimp.twin(images=60, size=96, seed=1)
    drive = write_example_drive(
        Path(tempfile.mkdtemp()) / "drive", source, sessions=3, images=4
    )
shots, refused = [], {}
for file in sorted(Path(drive).rglob("*.emd")):
    try:
        shots += cimp.read(file)
    except cimp.CimpError as error:
        refused[file.name] = str(error)[:70]
print(f"{len(shots)} images read; refused: {refused}")

# %% [markdown]
# Against the settings of all of them, what does the first image fit best? (A damaged file can hang a reader: for a whole
# drive, [build a data set](../book/your_data), which reads each file in a process of its own.)

# %%
candidates = [shot.acquisition for shot in shots]
ranked = cimp.rank_metadata(model, shots[0], candidates)
ranked[["candidate", "cosine", "differs"]].head(5)

# %%
first = [cimp.rank_metadata(model, s, candidates)["differs"].iloc[0] for s in shots]
print(f"{first.count('nothing')} of {len(shots)} first answers differ in nothing")

# %% [markdown]
# ## What to notice
#
# - A Top-1 without its pool is no result: it falls as the pool grows, and how steeply depends on how alike the candidates
#   are.
# - The rivals of the same session decide. What is set once a session tells the sessions apart; what remains is what the
#   image itself must tell.
# - A wrong answer is seldom off in one setting alone: compare the two bars of a setting. It is as a rule another session's
#   list of settings, which fits the image nearly as well as a whole and is wrong in most of its entries.
# - A random split flatters twice: its test images come one from a session, so their pools hold few rivals of the same
#   session; and their siblings were in training. How much the second adds is the last number above, for a short
#   training; a longer one has more time to learn a day by heart.
#
# ## Exercises
#
# 1. How much of the score comes from absolute intensity? Embed the test part with it hidden and evaluate again.
# 2. Give every image the same embedding. What is Top-1, and what would it be if ties counted for the model?
# 3. Hide the beam current of all candidates (`nan`). Which direction suffers more?
#
# <details><summary>Solutions</summary>
#
# 1. `shots = [test.image(i) for i in range(len(test))]`, then
#    `hidden = model.embed_images(shots, crops=4, absolute=[False] * len(test))`, and
#    `evaluate(model, test, pool=pool, draws=draws, embeddings=(hidden, four[1]))`. Expect gain and offset to be confused.
# 2. `equal = np.ones_like(four[0])`, then `evaluate(..., embeddings=(equal, equal))` gives zero. Were ties counted for the
#    model, it would be one: always right, without having looked.
# 3. `raw = test.metadata_raw.copy(); raw[:, PARAMETERS.index("beam_current")] = np.nan`, then
#    `model.embed_metadata(raw)` in place of `four[1]`. Settings that differ in the current alone are then one embedding,
#    ties, and lost in both directions.
#
# </details>
#
# ## Summary

# %%
best = figures.with_intervals(retrieval, list(tops))
facts = {
    **best.loc[("all candidates", "image_to_metadata")].to_dict(),
    "pool, draws": f"{pool} distinct settings, {draws}",
    "cosine gap": f"{gaps.mean():.3f} [{low:.3f}, {high:.3f}]",
    "split": f"session, {sessions} held out",
    "model": label,
    "profile, seed": f"{profile}, {seed}",
    "twin version": version or "none",
}
pd.Series(facts, name="twin results" if version else str(data)).to_frame()

# %% [markdown]
# The paper reports 84.4 % Top-1 on real micrographs, with another split and another pool; these numbers are not
# comparable with it.
#
# Next: [what the embedding knows of each setting](04_probing).
#
# ## References
#
# CIMP: [arXiv 2604.24909](https://arxiv.org/abs/2604.24909). Retrieval with images and words:
# [arXiv 2103.00020](https://arxiv.org/abs/2103.00020). Others: [references](../book/references.md).
