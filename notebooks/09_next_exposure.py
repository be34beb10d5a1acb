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
# # The next exposure: as little dose as the goal needs

# %% [markdown] tags=["remove-cell"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/@REPOSITORY@/blob/main/notebooks/09_next_exposure.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/@REPOSITORY@/main?urlpath=lab/tree/notebooks/09_next_exposure.ipynb)

# %% [markdown]
# | | |
# |---|---|
# | **You will learn** | to read signal, noise and after-glow from one quick frame; to predict what a longer one will be worth, with an interval; to let a loop of a few frames stop as soon as a goal is reached |
# | **You need** | [data and twin](01_data_and_twin); Poisson noise; what a standard error is |
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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import cimp_core as cimp
from cimp_core import figures, figures_advising
from cimp_core.advising import Goal, Limits, Range, estimate, parse_goal, predict
from cimp_core.results import read_results

figures.use_style()

# %% tags=["parameters"] nbmake={"mock": {"profile": "smoke"}}
profile = "book"  # "smoke": tiny, "book", or "full": more areas
data = "twin"  # "twin", or the path of a data set in the published layout
goal = "snr 5"  # or "column precision 3 pm"
quick = 0.5  # dwell time of the quick frame of the twin [µs]
seed = 0

# %% [markdown]
# ## The idea
#
# How long should the next frame be exposed? Too short, and it shows nothing; too long, and the specimen is harmed for
# nothing, or has drifted away. People guess, look, and guess again. A quick frame of little dose already tells most of what is
# needed: how strong the picture is, how strong the noise, and how both depend on the settings is physics.
#
# A goal has to be a number. Two are understood:
#
# - **snr 5**: the standard deviation of the *expected* picture over the root mean square noise of a pixel. Its square is the
#   signal-to-noise ratio of Frank and Al-Ali (1975): two frames of this snr correlate by $s^2/(1+s^2)$. It is a global
#   number; a single feature of contrast $C$ standard deviations has $C$ times as much.
# - **column precision 3 pm**: the standard error, along each axis, of the places of atomic columns fitted by Gaussians.
#
# Both follow dose in the same way: $s^2$ and $1/\sigma^2$ grow in proportion to it, and those of several frames add up.
#
# ## A quick frame
#
# The area is one of materials on which nothing here was chosen or calibrated. The microscope is simulated: it exposes the area as
# often as it is asked to, while the specimen drifts. Of a data set without truth the image itself is the quick frame.

# %%
from cimp_core.advising.simulated import SimulatedMicroscope
from cimp_core.study.denoising_cases import chosen_images
from cimp_core.study.restyling import chosen_images as contrasted

images, size, areas = {
    "smoke": (240, 96, 3),
    "book": (7330, 256, 8),
    "full": (7330, 256, 60),
}[profile]
dataset = (
    cimp.twin(images=images, size=size, seed=0)
    if data == "twin"
    else cimp.open_dataset(data)
)
version = dataset.attributes.get("twin_version")
twin = version is not None
by = "material" if twin else "session"
test = dataset.split(by, val=0.1, test=0.25, seed=0)[2]
print(f"{len(test)} images held out, by {by}")
if not twin:
    print("no truth in this data set: what compares with it is passed over")


# %%
def first_frame(i):
    """The quick frame of an area, its settings, and its microscope, if any."""
    if not twin:
        return test.image(i), test.acquisition(i), None
    microscope = SimulatedMicroscope(test, i, seed=seed)
    settings = microscope.settings.replace(dwell_time=quick * 1e-6)
    return microscope.expose(settings), settings, microscope


candidates = (chosen_images if twin else contrasted)(test, areas, seed)
usable = []
for i in candidates:
    frame, settings, microscope = first_frame(i)
    try:
        on_scale = frame.dtype == np.uint16
        known = estimate(frame, settings, on_scale=on_scale)
    except cimp.CimpError as error:  # blank, clipped, filtered ...
        print(f"image {i}: {error}")
        continue
    if settings.dwell_time is not None:
        usable.append((frame, settings, microscope, known))
# The first one with columns, if there is one.
usable.sort(key=lambda one: one[3].columns is None)
if not usable:
    raise SystemExit("none of these images can be the quick frame")
frame, settings, microscope, known = usable[0]

# %% mystnb={"image": {"alt": "The quick frame: a micrograph of few electrons, grainy, with a scale bar."}}
fig = figures.show_micrographs([frame], [settings.pixel_size], ["quick frame"])
plt.show()

# %% [markdown]
# ## What it tells
#
# Noise of one row does not know of the next, so its spectrum depends on the frequency along the row alone. The highest
# frequencies *down the columns* hold noise and little else, and the median over them is not moved by the spots of a lattice.
# Along the row that noise falls off, for the light of an electron decays over several pixels: the form of the fall tells
# the decay time. What the whole spectrum has beyond the noise is the picture. Where there is more noise there is more light: that tells
# the black level.

# %%
told = {
    "snr of this frame": f"{known.snr:.2f}",
    "noise of a pixel [counts]": f"{known.noise.variance**0.5:.0f}",
    "decay time of the light [ns]": f"{known.decay_time * 1e9:.0f}",
    "mean, black level [counts]": f"{known.mean:.0f}, {known.black:.0f}",
    "clipped": f"{sum(known.clipped):.2%}",
    "columns": "none" if known.columns is None else known.columns.count,
}
if twin:
    from cimp_core.advising.simulated import obtained_snr
    from cimp_core.digital_twin import shot_of

    shot = shot_of(test, microscope.index)
    noise = np.std(frame - microscope.expected[0])
    truth = [
        f"{obtained_snr(frame, microscope.expected[0]):.2f}",
        f"{noise:.0f}",
        f"{shot.detector.decay_time * 1e9:.0f}",
        f"{microscope.expected[0].mean():.0f}, "
        f"{shot.detector.black_at(settings.detector_offset):.0f}",
        f"{np.mean((frame == 0) | (frame == 65535)):.2%}",
        "",
    ]
told = pd.DataFrame({"estimated": told})
told.assign(truth=truth) if twin else told

# %% tags=["remove-cell"]
assert known.noise.variance > 0
if twin:
    assert abs(known.noise.variance**0.5 / noise - 1) < 0.15

# %% [markdown]
# ## What a longer frame would be worth
#
# Twice the dwell time is half the variance of the noise. A longer one also suffers less from after-glow, which blurs fine detail
# along the row and hides noise at once. All that was estimated is known within an error, and is drawn within it a few
# hundred times: hence the intervals (90 %). Dots are recordings of the same area.

# %%
times = np.geomspace(settings.dwell_time, 100e-6, 40)
curve = figures_advising.quality_table(known, times)
points = []
for time in settings.dwell_time * np.array([4, 16, 64]) if twin else ():
    longer = settings.replace(dwell_time=time)
    repeat = SimulatedMicroscope(test, microscope.index, drift=0.0, seed=seed + 1)
    made = repeat.expose(longer)
    points.append(
        {
            "dose": repeat.dose * 1e-20,
            "snr": repeat.obtained(Goal("snr", 1.0)),
            "column_precision": repeat.obtained(Goal("column precision", 1e-12)),
            "clipped": np.mean((made == 0) | (made == 65535)),
        }
    )
recorded = pd.DataFrame(points).astype(float) if points else None

# %% mystnb={"image": {"alt": "Predicted snr, column precision where columns are seen, and clipped share against the dose on logarithmic axes, each with its 90 % interval; dots are what recordings of the same area have."}}
fig = figures_advising.quality_curves(curve, recorded)
plt.show()

# %% [markdown]
# Move the goal: the point is the least dose for which even the worse end of the interval is good enough.

# %% mystnb={"image": {"alt": "Interactive: predicted quality against dose with its interval; a slider sets the goal, and a point marks the least dose that surely reaches it."}}
wanted = parse_goal(goal)
steps = [Goal(wanted.quantity, wanted.value * f) for f in np.geomspace(0.25, 4, 17)]
chart = None
if predict(known, settings).of(wanted) is not None:
    chart = figures_advising.dose_explorer(curve, steps)
chart

# %% [markdown]
# ## The advice
#
# `cimp.advise(shot, goal)` does all of this at once. The instrument's limits are a small file of lists and ranges; `None` is
# what is kept, or free. Gain and offset are turned only if the frame would clip, or leave most of the scale unused.

# %%
limits = Limits(
    dwell_time=Range(low=0.1e-6, high=100e-6),
    detector_gain=Range(low=23, high=50, step=0.05),
)
advice = cimp.advise(frame, wanted, limits=limits, acquisition=settings)
print(advice)

# %% [markdown]
# The same from the command line:
#
# ```bash
# cimp advise quick.emd --goal "snr 5" --max-dose "500 e/A2" --instrument titan.yml
# cimp advise quick.dm4 --goal "column precision 3 pm" --set beam_current=50e-12 --json
# ```
#
# with `titan.yml` such as
#
# ```yaml
# dwell_time: {from: 0.5e-6, to: 40e-6}      # s
# beam_current: [50e-12, 100e-12]            # A
# detector_gain: {from: 23, to: 50, step: 0.05}
# detector_offset: [-1.85, -1.5, -1.2, -0.9]
# max_dose: 500 e/A2
# brightness: 2.0e13   # A / m2 / sr: more current needs a larger source image, which blurs
# ```
#
# Where a file lacks the beam current, the dose is told relative to the frame given. Where counts are not on Velox's 16-bit
# scale, gain and offset are left alone, and the answer says so.
#
# ## Does it hold?
#
# Areas of materials held out, each recorded quickly and then 4 and 16 times as long, with another gain. Nine of ten
# intervals should hold what was obtained.

# %% mystnb={"image": {"alt": "Obtained against predicted snr, column precision and clipped share of the areas tried in this chapter, with 90 % intervals; the diagonal is right."}}
from cimp_core.study.advising import prediction_table

if twin:
    predicted = prediction_table(test, areas, seed=seed)
    fig = figures_advising.predicted_against_obtained(predicted)
    plt.show()

# %% [markdown]
# The committed results, of more areas: `coverage` is the share of intervals that held, `error` the typical relative
# error (of the clipped share the mean difference).

# %%
committed = {
    row["name"].removeprefix("advise."): row
    for row in read_results("../book/results.json")
    if row["name"].startswith("advise.") and row["twin_version"] == version
}


def shown(*beginnings):
    """Committed rows whose names begin so."""
    names = [n for n in committed if n.startswith(beginnings)]
    keys = ["value", "low", "high", "pool"]
    rows = [[committed[n][key] for key in keys] for n in names]
    return pd.DataFrame(rows, index=names, columns=keys)


shown("coverage", "error").round(3) if committed else None

# %% [markdown]
# ## A few frames instead of one
#
# Frames add up. The loop exposes quickly, estimates, and asks for a frame that brings all of them together to the goal; then it
# estimates again, from all frames registered and added. It stops as soon as the worse end of the interval is good enough.
# The loop is an iterator: settings come out, frames go in.

# %%
from cimp_core.advising import exposures

outcome, doses, qualities, obtained = None, [], [], []
if twin:
    microscope = SimulatedMicroscope(test, microscope.index, seed=seed)
    loop = exposures(wanted, limits, start=settings)
    for ask in loop:
        loop.give(microscope.expose(ask))
        if loop.combined is not None:
            got = microscope.obtained(wanted, loop.combined.how, loop.numbers)
            doses.append(loop.dose)
            qualities.append(predict(loop.known, loop.known.settings))
            obtained.append(np.nan if got is None else got)
    outcome = loop.outcome
    print(outcome)

# %% mystnb={"image": {"alt": "Quality of all frames so far against the dose so far, with the loop's intervals and what was obtained; a dotted line is the goal."}}
if doses:
    fig = figures_advising.loop_steps(doses, qualities, wanted, obtained)
    plt.show()

# %% tags=["remove-cell"]
if twin:
    assert outcome is not None and len(microscope.frames) <= 9

# %% [markdown]
# ### Against an oracle, and against habit
#
# The **oracle** knows the truth and takes one frame with just the dose that is needed. The **fixed schedule** is what a lab
# without advice would do: one frame, the same for all (the same dwell time, the same dose per area or the same electrons per
# pixel, whichever spends least), long enough to succeed as often as the loop does; it was chosen on training materials.
# With drift between frames; areas whose goal needs less than four quick frames are left out.

# %%
from cimp_core.study.advising_loop import GOALS, loop_table

count = {"smoke": 1, "book": 4, "full": 40}[profile]
if twin:
    live = loop_table(test, count, goals={"snr": GOALS["snr"]}, seed=seed + 1)
    if len(live):
        live["over oracle"] = live["loop"] / live["oracle"]
        columns = ["material", "frames", "state", "over oracle", "success"]
        print(live[columns].round(2).to_string(index=False))

# %% [markdown]
# The committed results: `dose_over` are medians of the ratio over areas, `total_over` ratios of the doses of all areas together,
# failures included; `success` is the share of areas whose goal was reached in truth. The pool is the number of areas: few of
# the materials held out show columns that need so much dose, so the rows of columns say little.

# %%
ours = ("dose_over", "total_over", "success", "frames")
shown(*ours).round(3) if committed else None

# %% [markdown]
# ### When something goes wrong
#
# A microscope's script must not hang. Whatever happens, the loop ends, and says how: bad or late frames are asked for again three
# times, refused settings are replaced by others, a blank frame or another area after good ones means that the specimen
# is lost.

# %%
ends = {}
for name, frames in {
    "blank after a good one": [frame, np.full_like(frame, 7)],
    "always broken": [np.full(frame.shape, np.nan)] * 9,
    "refused": [None] * 9,
}.items():
    more = Goal("snr", max(1.5 * known.snr, 0.5))
    loop = exposures(more, limits, start=settings)
    for _, one in zip(loop, frames):
        loop.refuse("not now") if one is None else loop.give(one)
    ends[name] = "" if loop.outcome is None else str(loop.outcome.state)
pd.Series(ends, name="ends as").to_frame()

# %% tags=["remove-cell"]
assert ends["always broken"] == "bad frames" and ends["refused"] == "refused"

# %% [markdown]
# ## Your own microscope
#
# Whatever exposes a frame can be driven: Velox's or DigitalMicrograph's scripting, Nion Swift, or a person. Only one line is
# the microscope's.
#
# ```python
# from cimp_core.advising import exposures
#
# loop = exposures("column precision 5 pm", "titan.yml", start=settings)
# for ask in loop:
#     try:
#         frame = microscope.acquire(ask.dwell_time, ask.detector_gain)   # yours
#     except microscope.Refused as error:
#         loop.refuse(str(error))
#         continue
#     loop.give(frame)             # or loop.give(frame, what_it_was_really_taken_with)
# print(loop.outcome)
# ```
#
# ## What it cannot know
#
# - How much dose the specimen bears. Give `max_dose`; in a loop it is that of all frames together.
# - How fast it drifts. Drift blurs a long frame and distorts it, which no number here contains; `max_frame_time` bounds it.
# - Whether focus, astigmatism and tilt are good. What is predicted is what *this* probe will show.
# - What a unit of gain or offset is worth at your instrument. Typical values are used with a wide error; measured ones
#   (`gain_exponent`, `black_per_offset`) narrow it.
# - What is finer than its pixels: structure that changes from pixel to pixel looks like noise.
# - Your microscope. The spread of its predictions was measured on simulated ones.
#
# ## What to notice
#
# - A frame in which the eye sees hardly anything predicts a longer one to within several percent.
# - Snr and column precision need different doses: a sharp lattice is located well in a noisy picture.
# - The fixed schedule pays for the hardest area on every other one. That is where the dose goes.
# - The loop spends more than the oracle mostly because it wants to be *sure* to have reached the goal.
#
# ## Exercises
#
# 1. Make the quick frame four times as long. How do the intervals of a frame of 20 µs change, and the dose of the loop?
# 2. At which snr do two recordings of an area correlate by 0.5?
# 3. Allow the dwell times 1, 10 and 100 µs only. What does the loop spend now?
#
# ```{dropdown} Solutions
# 1. `quick = 2.0`. The interval narrows by less than half, as part of it is the spread that predictions have anyway.
# 2. At 1, from $s^2/(1+s^2) = 1/2$.
# 3. `Limits(dwell_time=[1e-6, 1e-5, 1e-4])`. It takes several frames of the shorter times, where one of a time between would do.
# ```
#
# ## Summary

# %%
facts = {
    "goal": str(wanted),
    "advised dwell time": f"{advice.settings.dwell_time * 1e6:.3g} µs",
    "reached by one frame": advice.reached,
    "loop": "no truth, no loop" if outcome is None else str(outcome.state),
    "profile, seed": f"{profile}, {seed}",
    "twin version": version or "none",
}
for name in ("dose_over_oracle.snr", "dose_over_fixed.snr"):
    if name in committed:
        row = committed[name]
        numbers = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        facts[f"{name}, committed"] = numbers
pd.Series(facts, name="twin results" if twin else str(data)).to_frame()

# %% [markdown]
# These are twin results: simulated microscopes, simulated specimens.
#
# ## References
#
# CIMP: [arXiv 2604.24909](https://arxiv.org/abs/2604.24909). Frank and Al-Ali (1975) on the signal-to-noise ratio of two recordings;
# Bobroff (1986) and den Dekker and others (2005) on how well a position can be fitted: [references](../book/references.md).
