"""How well the quality of a frame is predicted from a quick one, on materials that no choice was made on.

Each area is recorded quickly, and again with 4 and with 16 times the dwell time and another gain. What is predicted
from the quick frame is held against what the longer ones have, by the truth.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from ..advising.estimate import estimate
from ..advising.goal import Goal
from ..advising.limits import Limits
from ..advising.predict import LEVEL, Calibration, Interval, predict
from ..advising.simulated import SimulatedMicroscope, obtained_snr
from ..dataset import Dataset, open_dataset
from ..errors import OutOfRangeError
from ..metrics import mean_interval
from ..results import update_results
from ..simulate.detector import FULL_SCALE
from .denoising_cases import chosen_images
from .denoising_rows import median_interval
from .rows import print_rows, row

__all__ = ["FINE", "LONGER", "fit_calibration", "prediction_rows", "prediction_table"]

LONGER = (1.0, 4.0, 16.0)
"""Dwell times over that of the quick frame; 1 is the quick frame itself."""

FINE = 40e-12
"""Pixels within which a lattice is not aliased [m]; columns are looked for in these."""

_PRECISION = Goal("column precision", 1e-12)
_NORMAL = 1.645  # 90 % of normal numbers lie within so many standard deviations
_CLIPPED = 0.01  # a frame that loses more than this of its pixels has no snr to compare


def prediction_table(
    data: Dataset, images: int, *, seed: int = 0, calibration: Calibration | None = None
) -> pd.DataFrame:
    """Predicted and obtained quality, a line for each area and dwell time.

    Parameters
    ----------
    data : Dataset
        Part of a twin.
    images : int
        Areas, from as many sessions as possible.
    calibration : Calibration, optional
        By default the shipped one.

    Returns
    -------
    DataFrame
        Columns ``image``, ``session``, ``material``, ``longer``, ``quick_snr``, ``clipped`` and, for ``snr`` and
        ``columns``, ``..._obtained``, ``..._value``, ``..._low``, ``..._high``; the same of ``clip``. ``nan`` where
        there is none. Areas of which the quick frame shows nothing are left out.
    """
    lines = []
    for i in chosen_images(data, images, seed):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(72, int(data.indices[i]))))
        microscope = SimulatedMicroscope(data, i, drift=0.0, seed=seed)
        fine = microscope.settings.pixel_size < FINE
        own = microscope.settings.replace(dwell_time=float(10 ** rng.uniform(-6.5, -5.8)))
        for longer in LONGER:
            turned = own.detector_gain + (0.0 if longer == 1 else float(rng.choice([-2.0, 0.0, 2.0])))
            settings = own.replace(dwell_time=own.dwell_time * longer, detector_gain=turned)
            frame, expected = microscope.expose(settings), microscope.expected[-1]
            if longer == 1:
                try:
                    known = estimate(frame, own)
                except OutOfRangeError:
                    break
                if not known.seen:
                    break
            quality = predict(known, settings, Limits(), calibration)
            clipped = float(np.mean((frame == 0) | (frame == FULL_SCALE)))
            whole = clipped < _CLIPPED
            columns = microscope.obtained(_PRECISION) if whole and fine else None
            columns = math.nan if columns is None else columns
            lines.append({
                "image": int(data.indices[i]), "session": int(data.sessions[i]), "material": data.materials[i],
                "longer": longer, "quick_snr": known.snr, "clipped": clipped,
                "snr_obtained": obtained_snr(frame, expected) if whole else math.nan, **_cells("snr", quality.snr),
                "columns_obtained": columns, **_cells("columns", quality.column_precision),
                "clip_obtained": clipped, **_cells("clip", quality.clipped),
            })  # fmt: skip
    return pd.DataFrame(lines)


def _cells(name: str, found: Interval | None) -> dict[str, float]:
    found = found or Interval(math.nan, math.nan, math.nan)
    return {f"{name}_{key}": value for key, value in found._asdict().items()}


def fit_calibration(table: pd.DataFrame) -> Calibration:
    """What predictions lack: bias and spread with which nine of ten intervals hold.

    Parameters
    ----------
    table : DataFrame
        Of `prediction_table`, made with a calibration without spread or bias.
    """
    found = {}
    for name in ("snr", "columns"):
        for part, ending in ((table[table["longer"] == 1], "_now"), (table[table["longer"] > 1], "")):
            known = part.dropna(subset=[f"{name}_obtained", f"{name}_value"])
            error = np.log(known[f"{name}_obtained"] / known[f"{name}_value"]).to_numpy()
            own = np.log(known[f"{name}_high"] / known[f"{name}_low"]).to_numpy() / (2 * _NORMAL)
            bias = float(np.median(error))
            for spread in np.arange(0.005, 1.0, 0.0025):
                if np.mean(np.abs(error - bias) <= _NORMAL * np.hypot(own, spread)) >= LEVEL:
                    break
            found |= {f"{name}{ending}": round(float(spread), 4), f"{name}{ending}_bias": round(bias, 4)}
    return Calibration(**found, images=table["image"].nunique())


def prediction_rows(table: pd.DataFrame, common: dict, seed: int = 0) -> list[dict]:
    """``advise.coverage.NAME``: share of the intervals that hold what was obtained, 0.9 if they are right.

    ``advise.error.NAME``: median of the relative error, of the clipped fraction the mean absolute one. Of frames 4 and
    16 times as long as the quick one.
    """
    table, rows = table[table["longer"] > 1], []
    for name, title in (("snr", "snr"), ("columns", "column_precision"), ("clip", "clipped")):
        known = table.dropna(subset=[f"{name}_obtained", f"{name}_value"])
        got, value = known[f"{name}_obtained"].to_numpy(), known[f"{name}_value"].to_numpy()
        # A share of pixels cannot be told to better than one in a thousand pixels.
        slack = 1e-3 if name == "clip" else 0.0
        low, high = known[f"{name}_low"].to_numpy() - slack, known[f"{name}_high"].to_numpy() + slack
        sessions, inside = known["session"].to_numpy(), ((got >= low) & (got <= high)).astype(float)
        rows.append(row(f"advise.coverage.{title}", inside.mean(), *mean_interval(sessions, inside, seed=seed), common))
        error = np.abs(got - value) if name == "clip" else np.abs(value / got - 1)
        made = (
            (error.mean(), *mean_interval(sessions, error, seed=seed))
            if name == "clip"
            else (np.median(error), *median_interval(sessions, error, seed=seed))
        )
        rows.append(row(f"advise.error.{title}", *made, common))
        areas = known["image"].nunique()
        rows[-1]["pool"] = rows[-2]["pool"] = int(areas)
    return rows


def main() -> None:
    """``python -m cimp_core.study.advising TWIN --out FILE.json``, or ``--calibrate FILE.json``."""
    parser = argparse.ArgumentParser(description="Measure how well the quality of a frame is predicted.")
    parser.add_argument("dataset", type=Path, help="a twin")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--out", type=Path, help="results file; rows of the same name are replaced")
    parser.add_argument("--table", type=Path, help="also write what was predicted and obtained, CSV")
    parser.add_argument("--calibrate", type=Path, help="fit the spread on training and validation materials instead")
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    data = open_dataset(arguments.dataset)
    train, val, test = data.split("material", val=0.1, test=0.25, seed=0)
    if arguments.calibrate:
        bare = Calibration(snr=0.0, columns=0.0, snr_now=0.0, columns_now=0.0)
        parts = [
            prediction_table(p, n, calibration=bare)
            for p, n in ((train, arguments.images), (val, arguments.images // 4))
        ]
        made = fit_calibration(pd.concat(parts))
        arguments.calibrate.write_text(json.dumps(dataclasses.asdict(made), indent=1) + "\n")
        print(made)
        return
    table = prediction_table(test, arguments.images)
    common = {"split": "material", "profile": arguments.profile, "seeds": [0]}
    common |= {
        "twin_version": data.attributes.get("twin_version"),
        "command": "python -m cimp_core.study.advising TWIN",
    }
    rows = prediction_rows(table, common)
    if arguments.table:
        table.to_csv(arguments.table, index=False, float_format="%.5g")
    if arguments.out:
        update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
