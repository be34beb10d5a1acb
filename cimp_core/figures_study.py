"""Figures of the studies: how well a setting can be known, against what is let vary around it."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .figures import OKABE_ITO
from .metadata import LABELS, PARAMETERS
from .study.cascade import STEPS

__all__ = ["STEP_LABELS", "bound_pivot", "cascade_plot"]

STEP_LABELS = {
    "alone": "it alone",
    "source": "+ source size",
    "place": "+ place",
    "specimen": "+ specimen",
    "focus": "+ focus, scan",
    "dose": "+ dwell time, current",
    "detector": "+ gain, offset",
    "angles": "+ both angles",
    "magnification": "+ pixel size",
    "material": "+ material",
    "instrument": "+ instrument: the lab",
}
"""What a reader sees of each step of `cimp_core.study.cascade.STEPS`."""


def cascade_plot(table: pd.DataFrame, told: pd.DataFrame | None = None) -> mpl.figure.Figure:
    """R2 of each setting at each step of the cascade, with intervals: one line a setting.

    Parameters
    ----------
    table : DataFrame
        Columns ``parameter``, ``step``, ``value``, ``low``, ``high``.
    told : DataFrame, optional
        The same where the other six settings are given beside the image: dashed, open marks, no intervals.
    """
    steps = [step for step in STEPS if step in set(table["step"])]
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    parameters = [name for name in PARAMETERS if name in set(table["parameter"])]
    for j, name in enumerate(parameters):
        part = table[table["parameter"] == name].set_index("step").reindex(steps)
        value, low, high = (part[column].to_numpy(float) for column in ("value", "low", "high"))
        x = np.arange(len(steps)) + 0.09 * (j - (len(parameters) - 1) / 2)
        reach = np.vstack([value - low, high - value]).clip(min=0)
        style = {"color": OKABE_ITO[j], "marker": "oDs^v"[j % 5], "ms": 5}
        axes.errorbar(x, value, yerr=reach, capsize=3, label=LABELS[PARAMETERS.index(name)], **style)
        if told is not None:
            given = told[told["parameter"] == name].set_index("step")["value"].reindex(steps)
            axes.plot(x, given.to_numpy(float), ls="--", mfc="white", **style)
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set_xticks(range(len(steps)), [STEP_LABELS[step] for step in steps], rotation=40, ha="right")
    axes.set_ylabel("R² of the normalised setting")
    axes.set_ylim(max(-1.0, axes.get_ylim()[0]), 1.05)
    axes.legend(loc="lower left")
    return figure


def bound_pivot(bounds: pd.DataFrame, conditions: tuple[str, ...]) -> pd.DataFrame:
    """Bounds of `cimp_core.study.identifiability.table_of` as a table: a row a setting, a column a condition."""
    kept = bounds[bounds["step"].isin(conditions)]
    wide = kept.pivot(index="parameter", columns="step", values="value")
    return wide.reindex(index=[n for n in PARAMETERS if n in wide.index], columns=list(conditions))
