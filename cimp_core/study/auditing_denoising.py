"""Does the audit take the harm out of wrong settings? ``python -m cimp_core.study.auditing_denoising TWIN``.

The shipped denoiser on recordings of held-out materials, told settings of another session's image: believed, or checked
as `cimp_core.denoise` does. Its error, in each case, over that of the same denoiser told nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..dataset import open_dataset
from ..denoising.__main__ import held_out_parts
from ..results import update_results
from .denoising import evaluate, methods
from .denoising_cases import make_cases
from .denoising_rows import dose_name, median_interval
from .rows import print_rows, row

__all__ = ["DOSES", "harm_rows"]

DOSES = (4.0, 16.0)
"""Detected electrons at the bright pixel."""

TOLD = {"wrong": ("direct", "wrong"), "wrong_checked": ("direct_checked", "wrong"), "right": ("direct", "")}
"""Method and variant by the name in a row; all are set against ``direct`` told nothing."""


def harm_rows(tables: Mapping[str, pd.DataFrame], common: Mapping) -> list[dict]:
    """Median over images of error over that of the denoiser told nothing, with an interval over sessions.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Scores by the name in `TOLD`, and ``missing``; indexed by case.
    """
    nothing, out = tables["missing"], []
    for dose in DOSES:
        keys = nothing.index[nothing["electrons"] == dose]
        sessions = nothing.loc[keys, "session"].to_numpy()
        for name in TOLD:
            ratio = (tables[name].loc[keys, "error"] / nothing.loc[keys, "error"]).to_numpy()
            value, (low, high) = float(np.median(ratio)), median_interval(sessions, ratio)
            label = f"audit.denoise_error_over_told_nothing.{name}.{dose_name(dose)}"
            out.append(row(label, value, min(low, value), max(high, value), common))
    return out


def main() -> None:
    """See the head of this page."""
    parser = argparse.ArgumentParser(description="Error of the denoiser told wrong settings, checked and not.")
    parser.add_argument("dataset", type=Path, help="a twin")
    parser.add_argument("--work", type=Path, required=True, help="folder of recordings and tables; a run goes on in it")
    parser.add_argument("--out", type=Path, required=True, help="results file; rows of the same name are replaced")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--profile", default="full")
    arguments = parser.parse_args()
    test = held_out_parts(open_dataset(arguments.dataset))[2]
    cases = make_cases(test, arguments.work / "cases", images=arguments.images).of(kinds=["dose"], doses=DOSES)
    tables = {}
    for name, (method, variant) in {**TOLD, "missing": ("direct", "missing")}.items():
        made = methods([method])[method]
        path = evaluate(made, cases, arguments.work / "tables", name=method, variant=variant)
        tables[name] = pd.read_csv(path).set_index("key")
    common = {"split": "material", "profile": arguments.profile, "seeds": [0], "twin_version": cases.twin_version}
    command = "python -m cimp_core.study.auditing_denoising TWIN --work FOLDER"
    rows = harm_rows(tables, common | {"command": command})
    update_results(arguments.out, rows)
    print_rows(rows)


if __name__ == "__main__":
    main()
