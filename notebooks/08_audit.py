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
# # Audit: do the recorded settings agree with the pictures?

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/08_audit.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/08_audit.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | to find images of a drive whose recorded settings, or whose pixels, are not what they claim; what a calibrated p-value promises, and to whom; what a picture cannot tell |
# | **You need** | [probing](04_probing); what a p-value is |
# | **It takes** | about a minute on two cores, 1.5 GB of memory |

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
from cimp_core import figures, figures_auditing
from cimp_core.auditing.calibration import one_image_each
from cimp_core.auditing.example import write_faulty_drive
from cimp_core.results import read_results

figures.use_style()

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke": tiny, "book", or "full": more images
data = "twin"  # "twin", or the path of a data set in the published layout
seed = 0

# %% [markdown]
# ## The idea
#
# Metadata go wrong quietly: a magnification that was never calibrated, a current measured last week, a dwell time in the
# wrong unit, a file that carries the settings of the one before. Where the picture knows better, it can object.
#
# A small network reads the frozen features of [the encoder](02_pretraining) and gives what the seven settings are likely to
# have been, all together: a Gaussian $N(\mu, \Sigma)$ in the normalised (logarithmic) units. With the recorded values $x$,
# two residuals follow for each setting, in predicted spreads:
#
# - **alone**, $(x_j - \mu_j) / \sqrt{\Sigma_{jj}}$: the recorded value against the picture;
# - **given the others**, the same when the other six recorded values are told too. Twice the current at half the gain looks much
#   alike, so a wrong gain shows best once the current is known. But then one wrong value disturbs all: blame goes to the
#   setting without which the others agree.
#
# Predicted spreads are not probabilities. What makes them so is **split conformal calibration**: residuals of one image
# each of $n$ sessions that nothing was fitted to are kept, and the p-value of a new image is its rank among them,
#
# $$p = \frac{1 + \#\{\text{calibration scores at least as high}\}}{n + 1}.$$
#
# If the new image is of the same kind and its settings are right, $p \le 0.01$ happens once in a hundred times, however good
# or bad the network is. A bad network only finds less. The verdict on an image uses its largest score, calibrated as
# one number, so that 1 % is the rate for all seven settings and the checks together.
#
# ## A drive with faults
#
# Velox files of one image each of sessions that the encoder never saw, a third of them spoilt on purpose.

# %%
images, checked, share = {
    "smoke": (12, 12, 0.6),
    "book": (30, 100, 0.12),
    "full": (60, 130, 0.12),
}[profile]
if data == "twin":
    dataset = cimp.twin(*{"smoke": (240, 96)}.get(profile, (7330, 256)), seed=0)
else:
    dataset = cimp.open_dataset(data)
version = dataset.attributes.get("twin_version")
try:
    held_out = dataset.split("session", test=share, seed=0)[2]
except cimp.CimpError as error:
    print(f"all images are used: {error}")
    held_out = dataset
folder = tempfile.TemporaryDirectory()
root = Path(folder.name)
planted = write_faulty_drive(root / "drive", held_out, images)
print(f"{len(planted)} files with a fault: {planted}")


# %%
def run(line):
    """A command as it would be typed, beside the drive."""
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


run("audit drive --out report --workers 1")

# %% [markdown]
# Beside the table there are `audit.csv`, `audit.json` and one page with everything in it, which sorts by any column and can be
# sent by mail. Here it is:

# %% tags=["hide-input"]
page = (root / "report" / "index.html").read_text(encoding="utf-8")
HTML(
    '<div><iframe title="The report of the audit" loading="lazy" '
    'style="width:100%;height:40rem;border:1px solid gray" '
    f'srcdoc="{html.escape(page)}"></iframe></div>'
)

# %% [markdown]
# The same from Python, where each image has its verdict, its settings and its checks:

# %%
report = cimp.audit(str(root / "drive"), workers=1)
found = {image.file: image for image in report if image.verdict == "disagrees"}
lines = [
    {"file": file, "planted": planted.get(file, ""), "what it says": text}
    for file in sorted({*planted, *found})
    for text in ["; ".join(found[file].reasons) if file in found else "-"]
]
pd.DataFrame(lines).set_index("file")

# %% mystnb={"image": {"alt": "Residuals of every recorded setting given the picture and the other settings: those of files as recorded lie within three spreads or so, those with a fault often far outside."}}
fig = figures_auditing.residuals(report, planted)
plt.show()

# %% [markdown]
# ## Are the false alarms those that were asked for?
#
# The committed measurement: one image each of sessions that neither the encoder, nor the network, nor the
# calibration has seen. Beside it, images of this page's data as they are: few, so that their line wavers.

# %%
rows = [
    row
    for row in read_results("../book/results.json")
    if row["name"].startswith("audit.")
]
chosen = one_image_each(held_out.sessions, seed)[:checked]
plain = cimp.audit(held_out.view(chosen))
p = np.array([1.0 if image.p is None else image.p for image in plain])
levels = np.linspace(0.01, 0.25, 25)
obtained = np.array([np.mean(p <= level) for level in levels])
print(f"{len(p)} images of as many sessions; {plain.counts}")

# %% mystnb={"image": {"alt": "False alarms obtained against those asked for: the measured shares lie on the diagonal within their intervals."}}
fig = figures_auditing.calibration(rows, (levels, obtained))
plt.show()

# %% tags=["remove-cell"]
assert len(report) == len({i.file for i in report})
assert not rows or {"audit.false_alarms.verdict"} <= {row["name"] for row in rows}
if version is not None and profile != "smoke":
    assert np.mean(p <= 0.01) < 0.1

# %% [markdown]
# ## Which faults are found?
#
# Kinds and sizes of the faults were fixed before the test sessions were looked at. *AUROC* is the chance that an image with
# the fault scores higher than one without, in what should object. *Found* is the share that gets the verdict
# "disagrees" (of clipping: is called clipped) at 1 % false alarms; *named rightly*, that of all in which the right settings,
# and no others, are put in doubt.

# %%
figures_auditing.fault_table(rows)

# %% [markdown]
# What is read well from a picture is audited well: dwell time from the noise, gain and offset from levels and
# noise, the pixel size where a lattice serves as ruler. An error of 10 % in the pixel size is less than two common lattices
# differ by, and a picture does not say what the specimen is. A stale current changes the dose, which dwell time,
# thickness and gain change too. Settings of the image before, in one session, mostly differ in a few values only.
#
# ## What a picture cannot tell

# %% mystnb={"image": {"alt": "Share of images in which each setting agrees, cannot be told, is missing or disagrees: gain and offset can mostly be told, inner collection angle and current hardly ever."}}
fig = figures_auditing.told(plain)
plt.show()

# %% [markdown]
# "Cannot tell" is not "fine". It is said where the interval that holds 95 % of the recorded values is wider than half the
# range of the laboratory: no lattice, vacuum, too few electrons, or a setting that leaves no trace. It is also said of
# everything in a picture that lies further off than all pictures of the calibration, of images below 64 pixels, and of gain,
# offset and current where the counts are on no known scale.
#
# ## On your own microscope
#
# The shipped calibration is of **simulated** images: on a real microscope its promise does not hold, and the report says
# so. What makes it hold is one image each of as many sessions of your own as you have, whose settings you believe:
#
#     cimp dataset build "drive/**/*" --out mine.h5
#     cimp audit new_drive --out report --calibrate mine.h5
#
# With $n$ sessions no p-value can be below $1/(n + 1)$: for 1 % it takes 99. With fewer, it says that too:

# %%
few = cimp.auditing.calibrate(held_out.view(chosen[:10]))
short = cimp.audit(held_out.view(chosen[:2]), calibrate=few)
print(*short.about["warnings"], sep="\n")

# %% tags=["remove-cell"]
assert any("sessions are needed" in text for text in short.about["warnings"])
assert not short.counts["disagrees"] or short[0].checks["levels"].why

# %% [markdown]
# ## What to notice
#
# - An alarm is a question to a person, not an answer. Of 1,000 sound images ten raise one.
# - A p-value speaks for images like those it was calibrated on. Another microscope, another detector, another kind of
#   specimen is another calibration.
# - What is wrong in the calibration images makes the audit blind to the like.
# - Duplicates are found by their noise: another recording of the same area, however alike, is none.
# - [Denoising](06_denoising) asks the audit before it uses recorded settings. What wrong ones cost is in the summary.
#
# ## Exercises
#
# 1. Audit the drive at `--level 0.05`. How many more alarms, and how many of them are right?
# 2. Change the pixel size of one file by 10 %. From which factor on is it found?
# 3. Why is the largest score of an image calibrated, and not each p-value compared with 0.01?
#
# ```{dropdown} Solutions
# 1. `cimp.audit(..., level=0.05)`: about one in twenty sound images more, and faults that were just missed.
# 2. Where the interval that the audit prints for the pixel size ends; without a lattice it may never be.
# 3. Seven settings and two checks, each wrong once in a hundred times, raise an alarm in up to nine of a hundred images.
# ```
#
# ## Summary

# %%
values = {row["name"]: row for row in rows}


def said(name):
    """Value and interval of a committed row."""
    row = values.get(name)
    if row is None:
        return "not measured"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


# %%
facts = {
    "false alarms at 1 %": said("audit.false_alarms.verdict"),
    "AUROC, pixel size 2 x, lattice": said("audit.auroc.pixel_size_2x.lattice"),
    "AUROC, wrong gain": said("audit.auroc.wrong_gain"),
    "AUROC, wrong offset": said("audit.auroc.wrong_offset"),
    "AUROC, saturated": said("audit.auroc.saturated"),
    "denoiser's error told wrong settings, 4 electrons": said(
        "audit.denoise_error_over_told_nothing.wrong.4e"
    ),
    "the same, checked": said(
        "audit.denoise_error_over_told_nothing.wrong_checked.4e"
    ),
    "faults found": f"{len(set(found) & set(planted))} of {len(planted)}",
    "sound files of this drive called wrong": len(set(found) - set(planted)),
    "profile, seed": f"{profile}, {seed}",
    "twin version": version or "none",
}
folder.cleanup()
pd.Series(facts, name="audit", dtype=object).to_frame()

# %% [markdown]
# All of these are twin results: simulated images, invented instruments. The denoiser's error is over that of the same
# denoiser told nothing.
#
# ## References
#
# Vovk, Gammerman and Shafer (2005) on conformal prediction, Westfall and Young (1993) on the maximum of many tests, Popescu
# and Farid (2005) on traces of resampling: [references](../book/references.md).
