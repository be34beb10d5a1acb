"""Rows of the results file, and the primary endpoints, from the tables of scores that `denoising` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..metrics import mean_interval
from .denoising_cases import DOSES
from .lattice import CONTRAST
from .rows import row

__all__ = [
    "DETAIL",
    "ENDPOINTS",
    "GLOW",
    "across",
    "curve",
    "denoising_rows",
    "dose_name",
    "endpoint_lines",
    "endpoint_table",
    "median_interval",
    "paired",
]

OURS = "direct"
"""The method whose lead the endpoints are about."""

GLOW = 2.0
"""After-glow correlates pixels where the dwell time is below this many decay times of the detector."""

_LOW = (1.0, 2.0, 4.0, 8.0, 16.0)
_PRIMARY = (*_LOW, 64.0)
_SSIM = (1.0, 4.0, 16.0, 64.0)

DETAIL = 16.0
"""The dose at which all that is no gain, PSNR or SSIM gets a row: low enough to tell methods apart."""

UNTOLD = "direct_without_metadata"


def dose_name(electrons: float) -> str:
    """``4e``, ``0_5e``: a dose in the name of a row."""
    return f"{electrons:g}e".replace(".", "_")


def _endpoints() -> dict[str, float]:
    over = "denoise.dose_gain_over"
    targets = {f"{over}.noise2void.{dose_name(d)}": 2.0 for d in _LOW}
    targets[f"{over}.noise2void.64e"] = 1.6
    targets[f"{over}.noise2void.glow"] = 4.0
    targets |= {f"{over}.{UNTOLD}.{dose_name(d)}": 1.15 for d in _PRIMARY}
    targets |= {f"{over}.oracle_gaussian.{dose_name(d)}": 1.15 for d in _PRIMARY}
    targets |= {f"{over}.bm3d.{dose_name(d)}": 1.0 for d in DOSES}
    for variant in ("wrong", "missing"):
        targets |= {f"denoise.{variant}_checked_over.{UNTOLD}.{dose_name(d)}": 0.97 for d in _PRIMARY}
    return targets


ENDPOINTS: Mapping[str, float] = _endpoints()
"""Paired median ratios of dose-equivalent gains, and what the lower end of the 95 % interval has to reach."""

_MEANS = ("f1", "fringe", "bias_within", "cover68", "cover95")
_VARIANTS = ("_wrong", "_missing", "_shifted", "_f4", "_f64")


def denoising_rows(
    table: pd.DataFrame,
    twin_version: str | None,
    *,
    profile: str = "full",
    seed: int = 0,
    command: str = "python -m cimp_core.study.denoising TWIN",
) -> list[dict]:
    """Rows of every method of a table, ready for the results file: what the book shows, and the endpoints.

    ``denoise.dose_gain.METHOD.4e``: median of the dose-equivalent gain at 4 electrons; ``denoise.psnr.`` and, at four
    doses, ``denoise.ssim.``: means. At `DETAIL` electrons, further means, and the medians ``denoise.bias.`` and
    ``denoise.column_error_pm.``. ``denoise.short.NAME``, ``denoise.glow.NAME``: dwell times of 0.1 to 1 us, and
    those of them below `GLOW` decay times. ``denoise.false_spots`` and ``denoise.noise_left``: where nothing is there.
    `ENDPOINTS`: ``denoise.dose_gain_over.OTHER.4e``, median of the ratio of `OURS` to another method, image by image;
    ``denoise.wrong_checked_over.`` and ``denoise.missing_checked_over.``, of `OURS` to `UNTOLD` when it is told another
    image's settings, or none, and believes what agrees with the picture. Intervals are over sessions.

    Parameters
    ----------
    table : DataFrame
        Of `cimp_core.study.denoising.read_tables`.
    twin_version, profile, seed, command
        Written into the rows; `seed` is also that of the intervals.
    """
    common = {"split": "material", "profile": profile, "seeds": [seed], "command": command}
    common["twin_version"] = twin_version
    rows = []
    for name in dict.fromkeys(table["method"]):
        if not name.endswith(_VARIANTS) and "_checked" not in name:  # what these are worth is in the ratios below
            rows += _of_method(name, table[table["method"] == name], common, seed)
    for name in dict.fromkeys(table["method"]):
        rows += _ratios(f"denoise.dose_gain_over.{name}", paired(table, OURS, name), common, seed)
    for variant in ("wrong", "missing"):
        both = paired(table, f"{OURS}_checked_{variant}", UNTOLD)
        rows += _ratios(f"denoise.{variant}_checked_over.{UNTOLD}", both, common, seed)
    return rows


def _of_method(name: str, table: pd.DataFrame, common: Mapping, seed: int) -> list[dict]:
    rows, main, short = [], table[table["kind"] == "dose"], table[table["kind"] == "short"]
    for dose, part in main.groupby("electrons"):
        end = f"{name}.{dose_name(dose)}"
        rows.append(_median("denoise.dose_gain." + end, part, "gain", common, seed))
        rows.append(_mean("denoise.psnr." + end, part, "psnr", common, seed))
        if dose in _SSIM:
            rows.append(_mean("denoise.ssim." + end, part, "ssim", common, seed))
        if dose == DETAIL:
            rows += [_mean(f"denoise.{key}.{end}", part, key, common, seed) for key in _MEANS]
            rows.append(_median("denoise.bias." + end, part, "bias", common, seed))
            apart = part.assign(column_error=1e12 * part["column_error"])
            rows.append(_median("denoise.column_error_pm." + end, apart, "column_error", common, seed))
    for dose, part in short.groupby("electrons"):
        rows.append(_median(f"denoise.short.dose_gain.{name}.{dose_name(dose)}", part, "gain", common, seed))
    rows.append(_median(f"denoise.glow.dose_gain.{name}", _glowing(table), "gain", common, seed))
    for kind in ("vacuum", "even"):
        part = table[table["kind"] == kind]
        false = part.assign(false=(part["spot"] > CONTRAST).astype(float))
        rows.append(_mean(f"denoise.false_spots.{name}.{kind}", false, "false", common, seed))
        rows.append(_median(f"denoise.noise_left.{name}.{kind}", part, "left", common, seed))
    return [made for made in rows if made["value"] is not None]


def _glowing(table: pd.DataFrame) -> pd.DataFrame:
    """Short dwell times at which after-glow correlates pixels, up to 16 electrons."""
    glowing = table["dwell_time"] < GLOW * table["decay_time"]
    return table[(table["kind"] == "short") & glowing & (table["electrons"] <= 16)]


def _mean(name: str, part: pd.DataFrame, key: str, common: Mapping, seed: int) -> dict:
    known = part.dropna(subset=[key])
    if known.empty:
        return row(name, np.nan, np.nan, np.nan, common)
    values = known[key].to_numpy(float)
    return row(name, values.mean(), *mean_interval(known["session"].to_numpy(), values, seed=seed), common)


def _median(name: str, part: pd.DataFrame, key: str, common: Mapping, seed: int) -> dict:
    known = part.dropna(subset=[key])
    if known.empty:
        return row(name, np.nan, np.nan, np.nan, common)
    values = known[key].to_numpy(float)
    return row(name, np.median(values), *median_interval(known["session"].to_numpy(), values, seed=seed), common)


def median_interval(
    clusters: np.ndarray, values: np.ndarray, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """`cimp_core.metrics.bootstrap_interval` of a median, ten times faster: how often a value is drawn is enough."""
    _, which = np.unique(np.asarray(clusters), return_inverse=True)
    count = which.max() + 1 if which.size else 0
    if count < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(np.random.SeedSequence(seed)).integers(count, size=(draws, count))
    times = np.stack([np.bincount(clusters_drawn, minlength=count) for clusters_drawn in drawn])
    order = np.argsort(values, kind="stable")
    up_to = np.cumsum(times[:, which[order]], axis=1)  # so many values of a draw are not above this one
    total = up_to[:, -1:]
    middle = [np.argmax(up_to > half, axis=1) for half in ((total - 1) // 2, total // 2)]  # two of an even number
    medians = np.asarray(values, float)[order][np.stack(middle)].mean(axis=0)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(table: pd.DataFrame, ours: str, other: str) -> pd.DataFrame:
    """Cases that two methods share, with the ``ratio`` of their dose-equivalent gains; other columns are of `ours`.

    A gain that was clipped counts as the limit at which it was clipped.
    """
    left, right = (
        table[(table["method"] == name) & table["kind"].isin(["dose", "short"])].dropna(subset=["gain"])
        for name in (ours, other)
    )
    both = left.merge(right[["key", "gain"]], on="key", suffixes=("", "_other"))
    return both.assign(ratio=both["gain"] / both["gain_other"])


def _ratios(name: str, both: pd.DataFrame, common: Mapping, seed: int) -> list[dict]:
    """The endpoints among the medians of a ratio at each dose."""
    main = both[both["kind"] == "dose"]
    parts = {dose_name(dose): part for dose, part in main.groupby("electrons")}
    parts["glow"] = _glowing(both)
    parts = {f"{name}.{end}": part for end, part in parts.items() if f"{name}.{end}" in ENDPOINTS}
    rows = [_median(full, part, "ratio", common, seed) for full, part in parts.items()]
    return [made for made in rows if made["value"] is not None]


def curve(
    rows: Mapping[str, Mapping], names: Iterable[str], levels: Iterable[float], measure: str = "dose_gain"
) -> pd.DataFrame:
    """One measure of several methods against the dose, as `cimp_core.figures_denoising.gain_curves` takes it.

    `rows` are those of the results file by name. Columns ``method``, ``electrons``, ``value``, ``low``, ``high``.
    """
    levels = list(levels)
    found = [(n, e, rows.get(f"denoise.{measure}.{n}.{dose_name(e)}")) for n in names for e in levels]
    lines = [(n, e, *(row[key] for key in ("value", "low", "high"))) for n, e, row in found if row]
    table = pd.DataFrame(lines, columns=["method", "electrons", "value", "low", "high"])
    return table.astype(dict.fromkeys(("value", "low", "high"), float))


def across(
    rows: Mapping[str, Mapping], names: Iterable[str], measures: Sequence[str], end: str = dose_name(DETAIL)
) -> pd.DataFrame:
    """Several measures of several methods, a line a method, ``nan`` where there is no row; `end` closes the names."""
    lines = {n: [rows.get(f"denoise.{m}.{n}.{end}", {}).get("value") for m in measures] for n in names}
    return pd.DataFrame.from_dict(lines, orient="index", columns=list(measures)).astype(float)


def endpoint_table(rows: Iterable[Mapping]) -> pd.DataFrame:
    """The endpoints with their targets; index ``endpoint``, columns ``value``, ``low``, ``high``, ``target``, ``met``.

    ``met`` is "yes" where the lower end of the interval reaches the target, "no", or "not measured".
    """
    found = {made["name"]: made for made in rows}
    lines = []
    for name, target in ENDPOINTS.items():
        made = found.get(name, {"value": None, "low": None, "high": None})
        numbers = {key: np.nan if made[key] is None else made[key] for key in ("value", "low", "high")}
        met = "not measured" if np.isnan(numbers["low"]) else "yes" if numbers["low"] >= target else "no"
        lines.append({"endpoint": name.removeprefix("denoise."), **numbers, "target": target, "met": met})
    return pd.DataFrame(lines).set_index("endpoint")


def endpoint_lines(rows: Sequence[Mapping]) -> list[str]:
    """One line of text an endpoint that was measured."""
    table = endpoint_table(rows)
    table = table[table["met"] != "not measured"]
    return [
        f"{name}: {line.value:.2f} [{line.low:.2f}, {line.high:.2f}], target {line.target:g}: "
        + ("met" if line.met == "yes" else "not met")
        for name, line in table.iterrows()
    ]
