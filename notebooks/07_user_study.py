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
# # A blind study: which picture do people prefer?

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/07_user_study.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/07_user_study.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | to make a blind comparison that raters play in a browser; to read its result with an interval that allows for other raters and other images; to plan how large it has to be |
# | **You need** | [denoising](06_denoising) for the methods that are compared; binomial intervals |
# | **It takes** | about two minutes on two cores, 1.5 GB of memory |

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # what Colab brings along stays as it is
    import subprocess

    package = "cimp-core @ git+https://github.com/@REPOSITORY@"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", package], check=True
    )

# %%
import html
import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML

import cimp_core as cimp
from cimp_core import figures, figures_blind
from cimp_core.results import read_results

figures.use_style()

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke": tiny, "book", or "full": more raters and images
data = "twin"  # "twin", or the path of a data set in the published layout
electrons = 8.0  # at the bright pixel of the recordings that are compared
seed = 0

# %% [markdown]
# ## The idea
#
# Two pictures of the same area lie side by side. A rater chooses the one that shows the specimen better, without knowing
# which method made which. The share of trials that a method wins is its **preference**. The paper rests its denoiser on
# such a study: microscopists preferred it to Noise2Void in 70.2 % of trials. It gives no number of raters, images or trials
# and no interval.
#
# A share alone says little. Raters differ and images differ, so 400 answers of five people are not 400 independent
# ones: the question is what *other* raters would say of *other* images. And people press the left key more often than the
# right, get tired, or answer without looking. A study has to be made so that all this can be seen.
#
# ## What 70.2 % may stand for
#
# Not every number of trials allows it: 70.2 % of 50 trials would be 35.1 answers. These are the smallest numbers of which some
# whole number of answers rounds to 70.2 %, with the 95 % intervals that they would carry, were all trials independent:

# %%
from cimp_core.blind_study.power import compatible_counts

counts = compatible_counts(0.702, most=1000)
head = counts.head(8).set_index("trials")
head[["count", "share", "wilson_low", "wilson_high", "p_exact"]].round(4)

# %% mystnb={"image": {"alt": "Wilson intervals of 95 % for every number of trials up to 1000 that allows a share of 70.2 %: they narrow from 25 points at 47 trials to 6 at 1000."}}
fig = figures_blind.compatible(counts)
plt.show()

# %% [markdown]
# Whether 70.2 % is a strong result cannot be told from the figure alone. And even these intervals assume what no study has:
# every trial by another rater on another image. What raters and images do to the interval comes below.
#
# ## Pictures
#
# Recordings of materials that no network here was trained on, at one low dose, and three methods of
# [the last chapter](06_denoising). A real data set given by its path has no truth: its own images are restored then.

# %%
from cimp_core.study.blind_example import example_pictures

images, crop, raters, trials = {
    "smoke": (6, 96, 4, 6),
    "book": (16, 160, 12, 24),
    "full": (48, 256, 30, 48),
}[profile]
dataset = (
    cimp.twin(*{"smoke": (240, 96)}.get(profile, (7330, 256)), seed=0)
    if data == "twin"
    else cimp.open_dataset(data)
)
version = dataset.attributes.get("twin_version")
folder = tempfile.TemporaryDirectory()
root = Path(folder.name)
made = example_pictures(dataset, root, images, electrons, crop, seed=seed)
print(f"{images} images, each by {', '.join(made.methods)}")
if made.truth is None:
    print("no truth in this data set: the simulated observers below like all alike")

# %% [markdown]
# ## The study, written down beforehand
#
# One file says all: what is compared, how many raters and trials, and by which rules a rater will be left out. The rules
# are fixed now, before anyone has answered; the key keeps a digest of them, and an analysis under changed rules is refused.
#
# - **repeats** show an earlier pair again with sides swapped: does a rater agree with himself?
# - **catch** trials have a right answer: a picture against the same one, badly spoilt. Who fails these did not look.

# %%
config = root / "study.yml"
config.write_text(f"""\
title: Low-dose HAADF images
question: Which picture shows the specimen better?
seed: {seed}
methods:
{chr(10).join(f"  {name}: {name}" for name in made.methods)}
raters: {raters}
trials: {trials}
repeats: {max(2, trials // 6)}
catch: {max(2, trials // 6)}
exclude:
  min_catch_correct: 0.75
  max_side_share: 0.9
  min_median_seconds: 0.5
""")


# %%
def run(line):
    """A command as it would be typed, in the folder of the study."""
    print("$ cimp", line)
    done = subprocess.run(
        [sys.executable, "-m", "cimp_core.cli", *shlex.split(line)],
        cwd=root,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    print(done.stdout + done.stderr)
    done.check_returncode()


run("study make study.yml --out study")

# %% [markdown]
# `study.html` is all that raters need: one file, no server, no network. It goes by mail or on a stick, with one code for
# each rater. Sides, order and which images a rater gets are drawn and balanced by the seed. Pictures are stored as plain
# grey values under random names: neither a name nor a size nor an order on the page tells the methods apart. The answers are
# kept in the browser, and survive a closed tab; at the end a result file is saved, which holds choices and times and no name.
#
# Play it here. Any of the codes above will do; contrast and zoom act on both pictures.

# %% tags=["hide-input"]
page = (root / "study" / "study.html").read_text(encoding="utf-8")
HTML(
    '<div><iframe title="The study, ready to play" loading="lazy" '
    'style="width:100%;height:44rem;border:1px solid gray" '
    f'srcdoc="{html.escape(page)}"></iframe></div>'
)

# %% [markdown]
# ## Raters, simulated
#
# Nobody has sat down for this chapter. What follows are answers of a **simulated observer**, a computer model: it likes a
# picture the more, the better it agrees with the truth, differs from rater to rater and from image to image, leans to a
# side, and now and then presses a key without looking. All of these numbers are assumptions. It shows that the
# study can be analysed; it says nothing about people. In a real study, the raters' files are put into `study/results`.

# %%
if made.truth:
    how = f"--config study.yml --truth {made.truth}"
else:
    alike = json.dumps(dict.fromkeys(made.methods, 0.0))
    (root / "alike.json").write_text(alike)
    how = "--utilities alike.json"
run(f"study observe study --raters {raters} --seed {seed} {how}")

# %%
run("study analyse study")

# %% [markdown]
# The interval that is printed first allows for other raters *and* other images (a two-way cluster-robust variance, with as
# many degrees of freedom as there are fewer raters or images). Beside it lies what a naive reader would compute:

# %% mystnb={"image": {"alt": "Share of trials in which one method was preferred to another, for each pair of methods: the interval that allows for other raters and images, and the narrower one that takes trials for independent."}}
found = json.loads((root / "study" / "analysis.json").read_text())
fig = figures_blind.shares(found["result"]["pairs"])
plt.show()

# %% [markdown]
# With more than two methods the Bradley-Terry model puts them on one scale: the log-odds of A being preferred to B is the
# difference of their strengths. The first method is the zero.

# %%
strengths = found["result"]["bradley_terry"]
if strengths["statement"]:
    print(strengths["statement"])
pd.DataFrame(strengths["strengths"] or []).round(2)

# %%
result = found["result"]
alphas = [pair["alpha"]["value"] for pair in result["pairs"]]
known = [alpha for alpha in alphas if alpha is not None]
pd.Series(
    {
        "left side chosen": result["side"]["share"],
        "repeats answered alike": result["repeats"]["share"],
        "catch trials right": result["catch"]["share"],
        "Krippendorff's alpha, mean of pairs": np.mean(known) if known else None,
        "raters left out by the rules": len(found["excluded"]),
    },
    name="simulated raters",
    dtype=object,
).to_frame()

# %% tags=["remove-cell"]
assert found["simulated"] and found["notice"].startswith("SIMULATED")
assert result["raters"] + len({e["rater"] for e in found["excluded"]}) == raters

# %% [markdown]
# ## Do the intervals hold?
#
# An interval of 95 % should contain the truth in 95 of 100 studies. That can be tried: simulate thousands of studies from
# populations whose true preference is known, and count. The committed results, with differences between raters and images
# of a usual size (an assumption: standard deviations of 0.5 and 0.8 in log-odds):

# %%
rows = [
    row
    for row in read_results("../book/results.json")
    if row["name"].startswith("blind.coverage.")
]
figures_blind.coverage_table(rows)

# %% [markdown]
# Intervals that take trials for independent hold the truth much too seldom, the more so the larger the study. That is
# why the two-way interval is the headline.
#
# ## How large must it be?
#
# A half-width of five points around a share of 70 % would take a few hundred independent trials. With people and images that
# differ it takes more raters and more images; more trials of the same few do not help for long.

# %%
few = "--raters 5 --raters 20 --raters 60 --trials 20 --trials 100"
studies = 50 if profile == "smoke" else 400
run(f"study plan --share 0.702 --half-width 0.05 {few} --studies {studies}")

# %% [markdown]
# ## What to notice
#
# - Write the rules down first. Whoever leaves out raters after a look can get any result.
# - Look at the catch trials and repeats before the preference: a rater who disagrees with himself says nothing about methods.
# - The interval is set by the smaller of the two numbers, of raters and of images.
# - Preference is not truth. A smooth picture may please and lack the atom that mattered; the
#   [measurements against the truth](06_denoising) come first.
#
# ## Exercises
#
# 1. Make a study of your own pictures: two folders with files of the same names. What does `cimp study make` say if one is missing?
# 2. The observers above like agreement with the truth. Give them utilities by hand (`--utilities`) that are equal for all
#    methods. How often does a pair come out as significant?
# 3. Which number of trials makes the Wilson interval of 70.2 % exclude two thirds?
#
# <details><summary>Solutions</summary>
#
# 1. It names the method and the images that it lacks, and makes nothing.
# 2. In about one of twenty; with three pairs in about one study of seven, if nobody corrects for it.
# 3. `counts[counts.wilson_low > 2 / 3].head(1)`.
#
# </details>
#
# ## Summary

# %%
facts = {
    f"{pair['a']} over {pair['b']}": f"{pair['share']:.2f}"
    + f" [{pair['two_way']['low']:.2f}, {pair['two_way']['high']:.2f}]"
    if pair["two_way"]["low"] is not None
    else f"{pair['share']}"
    for pair in result["pairs"]
}
facts |= {
    "smallest study that allows 70.2 %": f"{counts['trials'].iloc[0]} trials",
    "raters, images, trials": ", ".join(
        str(result[name]) for name in ("raters", "images", "trials")
    ),
    "profile, seed": f"{profile}, {seed}",
    "twin version": version or "none",
}
folder.cleanup()
pd.Series(facts, name="simulated observers").to_frame()

# %% [markdown]
# The paper's 70.2 % are of real microscopists on real micrographs; the numbers in the table are of a model observer on
# simulated ones and are not comparable with it.
#
# ## References
#
# CIMP: [arXiv 2604.24909](https://arxiv.org/abs/2604.24909). Wilson (1927), Clopper and Pearson (1934), Bradley and Terry (1952),
# Cameron, Gelbach and Miller (2011) on two-way clusters, Krippendorff (2011): [references](../book/references.md).
