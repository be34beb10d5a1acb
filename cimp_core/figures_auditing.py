"""Figures and tables of the audit: verdicts, residuals, asked and obtained false alarms, faults found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .auditing import AuditReport
from .figures import OKABE_ITO
from .metadata import PARAMETERS
from .study.auditing_faults import FAULTS

__all__ = ["calibration", "fault_table", "residuals", "told"]

VERDICTS = {"agrees": OKABE_ITO[2], "cannot tell": "0.75", "missing": "0.9", "disagrees": OKABE_ITO[3]}
_SHORT = [name.replace("_", " ").removeprefix("detector ") for name in PARAMETERS]


def told(report: AuditReport) -> mpl.figure.Figure:
    """Share of the images with each verdict, setting by setting."""
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    left = np.zeros(len(PARAMETERS))
    for verdict, colour in VERDICTS.items():
        share = [np.mean([image.settings[n].verdict == verdict for image in report]) for n in PARAMETERS]
        axes.barh(_SHORT, share, left=left, color=colour, label=verdict)
        left += share
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the images")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def residuals(report: AuditReport, planted: Mapping[str, str]) -> mpl.figure.Figure:
    """Residuals of every recorded value against the picture, with the other settings; those of spoilt files marked.

    Parameters
    ----------
    planted : mapping of str to str
        By the name of a file, what is wrong with it.
    """
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    rng = np.random.default_rng(0)
    for wrong, colour, label in ((False, OKABE_ITO[0], "as recorded"), (True, OKABE_ITO[3], "with a fault")):
        points = [
            (j + 0.3 * (rng.random() - 0.5), image.settings[name].residual_given)
            for image in report
            if (image.file in planted) is wrong
            for j, name in enumerate(PARAMETERS)
            if image.settings[name].residual_given is not None
        ]
        if points:
            x, y = np.array(points).T
            axes.plot(x, y, ".", ms=6 if wrong else 4, color=colour, label=label, alpha=0.8)
    axes.set_yscale("symlog", linthresh=3)
    axes.set_xticks(range(len(PARAMETERS)), _SHORT, rotation=20)
    axes.axhline(0, color="0.5", lw=0.8)
    axes.set_ylabel("residual, spreads")
    axes.legend(frameon=False)
    return figure


def calibration(rows: Sequence[Mapping], own: tuple[np.ndarray, np.ndarray] | None = None) -> mpl.figure.Figure:
    """False alarms obtained against those asked for, with 95 % intervals over sessions.

    Parameters
    ----------
    rows : sequence of dict
        Of the results file; those named ``audit.false_alarms.asked_N_percent`` are drawn.
    own : two (n,) arrays, optional
        Rates asked for and obtained elsewhere.
    """
    figure, axes = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
    asked = {int(r["name"].split("_")[-2]) / 100: r for r in rows if r["name"].startswith(_ASKED)}
    x = np.array(sorted(asked))
    if x.size:
        y, low, high = (np.array([asked[v][key] for v in x]) for key in ("value", "low", "high"))
        axes.errorbar(x, y, [y - low, high - y], fmt="o", color=OKABE_ITO[0], label="test sessions")
    if own is not None:
        axes.plot(*own, ".-", lw=0.8, color=OKABE_ITO[1], label="images of this page")
    axes.plot([0, 0.25], [0, 0.25], "--", color="0.5", lw=0.8)
    axes.set(xlabel="asked for", ylabel="obtained", xlim=(0, 0.25), ylim=(0, 0.3))
    axes.legend(frameon=False)
    return figure


_ASKED = "audit.false_alarms.asked_"


def fault_table(rows: Sequence[Mapping]) -> pd.DataFrame:
    """Faults in the order of `FAULTS`: images, AUROC and detection with intervals, and the share named rightly."""
    values = {row["name"]: row for row in rows}
    lines = []
    for name, fault in FAULTS.items():
        for ending, addition in (("", ""), (".lattice", ", at lattice resolution")):
            key = f"{name}{ending}"
            if f"audit.auroc.{key}" not in values:
                continue
            line = {"fault": fault.what + addition, "images": int(values[f"audit.images.{key}"]["value"])}
            line["AUROC"] = _with_interval(values[f"audit.auroc.{key}"])
            line["found at 1 %"] = _with_interval(values[f"audit.detection.{key}"])
            line["named rightly"] = f"{values[f'audit.named.{key}']['value']:.2f}"
            lines.append(line)
    for kind, what in (("copy_in_float", "a copy saved as float"), ("copy_in_8_bit", "a copy stretched to 8 bit")):
        if f"audit.auroc.duplicate.{kind}" in values:
            line = {"fault": what, "images": int(values["audit.images.duplicate"]["value"])}
            line["AUROC"] = _with_interval(values[f"audit.auroc.duplicate.{kind}"])
            line["found at 1 %"] = _with_interval(values[f"audit.detection.duplicate.{kind}"])
            lines.append(line | {"named rightly": ""})
    return pd.DataFrame(lines, columns=["fault", "images", "AUROC", "found at 1 %", "named rightly"]).set_index("fault")


def _with_interval(row: Mapping) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
