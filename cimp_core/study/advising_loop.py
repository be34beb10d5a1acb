"""Dose that a loop of a few frames spends to reach a goal, against an oracle's and a fixed schedule's, with drift.

The oracle knows the truth: it takes one frame, with the least dwell time whose recording reaches the goal. The fixed
schedule takes one frame too, the same for every area: of three schedules (dwell time; dose per area; incident electrons
per pixel) the one that spends least on training materials when it succeeds as often as the loop does there. Areas whose
goal the oracle reaches at less than four times the quick frame's dwell time, or not at all, are left out: there is
nothing to advise.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd

from ..advising.goal import Goal, parse_goal
from ..advising.limits import Limits, Range
from ..advising.loop import exposures
from ..advising.predict import dose_of
from ..advising.simulated import SimulatedMicroscope
from ..dataset import Dataset, open_dataset
from ..errors import OutOfRangeError
from ..metrics import bootstrap_interval, mean_interval
from ..results import update_results
from .advising import FINE
from .denoising_cases import chosen_images
from .rows import print_rows, row

__all__ = ["GOALS", "LIMITS", "QUICK", "fixed_schedule", "loop_rows", "loop_table"]

GOALS = {"snr": parse_goal("snr 4"), "columns": parse_goal("column precision 1 pm")}
QUICK = 0.5e-6
"""Dwell time of the first frame [s]."""

COLUMN_SHARE = 0.25
"""Of the areas asked for, so many are looked at for columns: each takes longer."""

LIMITS = Limits(dwell_time=Range(low=1e-7, high=2e-4))
_STEP = 1.03  # of the oracle's dwell times
_FACTOR = 4.0

SCHEDULES = ("dwell_time", "dose", "electrons")
"""What a fixed schedule keeps the same: seconds, electrons per area, or electrons per pixel."""


def loop_table(
    data: Dataset, images: int, *, goals: dict[str, Goal] | None = None, seed: int = 0, drift: float = 1.0
) -> pd.DataFrame:
    """What a loop and the oracle spend, a line for each area and goal.

    Parameters
    ----------
    data : Dataset
        Part of a twin.
    images : int
        Areas that are looked at, from as many sessions as possible; for columns, `COLUMN_SHARE` of this number, of
        those with pixels fine enough.

    Returns
    -------
    DataFrame
        Columns ``goal``, ``image``, ``session``, ``material``, ``current``, ``pixel_size``, ``oracle_time`` [s],
        ``oracle`` and ``loop``, doses [e/m^2], ``frames``, ``state``, ``obtained``, ``success``.
    """
    lines = []
    for name, goal in (goals or GOALS).items():
        part, count = data, images
        if goal.quantity == "column precision":
            part = data.view(np.flatnonzero(data.metadata_raw[:, 0] < FINE))
            count = round(COLUMN_SHARE * images)
        for i in chosen_images(part, count, seed):
            time = oracle_time(part, i, goal, seed)
            if time is None or time < _FACTOR * QUICK:
                continue
            own = part.acquisition(i)
            lines.append({
                "goal": name, "image": int(part.indices[i]), "session": int(part.sessions[i]),
                "material": part.materials[i], "current": own.beam_current, "pixel_size": own.pixel_size,
                "oracle_time": time, "oracle": dose_of(own.replace(dwell_time=time)),
                **run_loop(part, i, goal, seed=seed, drift=drift),
            })  # fmt: skip
    return pd.DataFrame(lines)


def run_loop(data: Dataset, index: int, goal: Goal, *, seed: int = 0, drift: float = 1.0) -> dict:
    """One loop with the simulated microscope: what it spent and what it got."""
    microscope = SimulatedMicroscope(data, index, drift=drift, seed=seed)
    try:
        loop = exposures(goal, LIMITS, start=microscope.settings.replace(dwell_time=QUICK))
        for settings in loop:
            loop.give(microscope.expose(settings))
    except OutOfRangeError as error:
        return {"loop": microscope.dose, "frames": 0, "state": str(error), "obtained": math.nan, "success": False}
    obtained = None if loop.combined is None else microscope.obtained(goal, loop.combined.how, loop.numbers)
    obtained = math.nan if obtained is None else obtained
    reached = math.isfinite(obtained) and goal.reached_by(obtained)
    state, frames = str(loop.outcome.state), len(microscope.frames)
    return {"loop": microscope.dose, "frames": frames, "state": state, "obtained": obtained, "success": reached}


def oracle_time(data: Dataset, index: int, goal: Goal, seed: int = 0) -> float | None:
    """Least dwell time [s] of one frame that reaches the goal; ``None`` where none within the limits does."""
    times = LIMITS.dwell_time
    count = math.ceil(math.log(times.high / times.low) / math.log(_STEP))
    grid = np.geomspace(times.low, times.high, count + 1)
    microscope = SimulatedMicroscope(data, index, drift=0.0, seed=seed + 1)
    own = microscope.settings

    def reaches(number: int) -> bool:
        for kept in (microscope.frames, microscope.expected, microscope.scans):
            kept.clear()  # so that scan and noise are drawn alike each time
        microscope.expose(own.replace(dwell_time=float(grid[number])))
        obtained = microscope.obtained(goal)
        return obtained is not None and goal.reached_by(obtained)

    if not reaches(count):
        return None
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return float(grid[high])


def fixed_schedule(table: pd.DataFrame) -> tuple[str, float]:
    """Name and amount of the schedule that spends least on a table while it succeeds as often as the loop there."""
    share = table["success"].mean()
    best = None
    for name in SCHEDULES:
        one = amounts(table, name)
        needed = float(np.quantile(one, share, method="higher"))
        spent = float(np.sum(_spent(table, name, needed)))
        if best is None or spent < best[0]:
            best = spent, name, needed
    return best[1], best[2]


def amounts(table: pd.DataFrame, name: str) -> np.ndarray:
    """Amount of a schedule that the oracle's frame is, of each area."""
    time, current, pixel = (table[key].to_numpy() for key in ("oracle_time", "current", "pixel_size"))
    return {"dwell_time": time, "dose": time * current / pixel**2, "electrons": time * current}[name]


def _spent(table: pd.DataFrame, name: str, amount: float) -> np.ndarray:
    """Dose of each area [e/m^2] under a schedule."""
    return table["oracle"].to_numpy() * amount / amounts(table, name)


def loop_rows(table: pd.DataFrame, train: pd.DataFrame, common: dict, seed: int = 0) -> list[dict]:
    """Rows of the loop against the oracle and the fixed schedule, for each goal.

    ``advise.dose_over_oracle.GOAL``: median over areas of the loop's dose over the oracle's;
    ``advise.dose_over_fixed.``: over that of the schedule, which was chosen on `train`.
    ``advise.total_over_oracle.``, ``advise.total_over_fixed.``: of the sums over all areas.
    ``advise.success.GOAL``: share of areas whose goal was reached in truth, by the loop;
    ``advise.success_fixed.``. ``advise.frames.``: mean number of frames. All areas count, those that failed too.
    """
    rows = []
    for name, part in table.groupby("goal"):
        schedule, amount = fixed_schedule(train[train["goal"] == name])
        fixed = _spent(part, schedule, amount)
        sessions = part["session"].to_numpy()
        loop, oracle = part["loop"].to_numpy(), part["oracle"].to_numpy()
        reached = (amounts(part, schedule) <= amount).astype(float)
        pool = len(part)
        for other, dose in (("oracle", oracle), ("fixed", fixed)):
            ratio = loop / dose
            interval = bootstrap_interval(np.median, sessions, ratio, seed=seed)
            rows.append(row(f"advise.dose_over_{other}.{name}", np.median(ratio), *interval, common, pool))
            interval = bootstrap_interval(lambda a, b: a.sum() / b.sum(), sessions, loop, dose, seed=seed)
            rows.append(row(f"advise.total_over_{other}.{name}", loop.sum() / dose.sum(), *interval, common, pool))
        for title, values in (
            ("success", part["success"].to_numpy(float)),
            ("success_fixed", reached),
            ("frames", part["frames"].to_numpy(float)),
        ):
            interval = mean_interval(sessions, values, seed=seed)
            rows.append(row(f"advise.{title}.{name}", values.mean(), *interval, common, pool))
    return rows


def main() -> None:
    """``python -m cimp_core.study.advising_loop TWIN --out FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure what a loop of a few frames spends to reach a goal.")
    parser.add_argument("dataset", type=Path, help="a twin")
    parser.add_argument("--images", type=int, default=100, help="areas looked at, of test and of training materials")
    parser.add_argument("--out", type=Path, help="results file; rows of the same name are replaced")
    parser.add_argument("--work", type=Path, help="folder for the tables; what is there is not made again")
    parser.add_argument("--part", choices=("train", "test"), action="append", help="make the table of these only")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    data = open_dataset(arguments.dataset)
    train, _, test = data.split("material", val=0.1, test=0.25, seed=0)
    tables = {}
    for name, part in (("train", train), ("test", test)):
        if arguments.part and name not in arguments.part:
            continue
        file = None if arguments.work is None else arguments.work / f"loop_{name}_{arguments.images}.csv"
        if file is not None and file.exists():
            tables[name] = pd.read_csv(file)
            continue
        tables[name] = loop_table(part, arguments.images)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            tables[name].to_csv(file, index=False)
    if arguments.part:
        return
    common = {"split": "material", "profile": arguments.profile, "seeds": [0]}
    common |= {"twin_version": data.attributes.get("twin_version")}
    common |= {"command": "python -m cimp_core.study.advising_loop TWIN"}
    rows = loop_rows(tables["test"], tables["train"], common)
    if arguments.out:
        update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
