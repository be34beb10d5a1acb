"""The verdict on one image: what disagrees, what agrees, and what the picture cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metadata import PARAMETERS, UNITS, Acquisition
from ..models.settings_reader import CHECKS, SettingsReader
from ..retrieval import with_unit
from .blame import Case
from .calibration import Calibration, Calibrations, p_value, setting_scores
from .evidence import ABSOLUTE_ONLY, conditional, picture_scores, predict_settings
from .measuring import SMALLEST, TEXTURE, Measured
from .verdict import CheckAudit, ImageAudit, SettingAudit

__all__ = ["CLIPPED", "LEVEL", "TELLS", "judge"]

LEVEL = 0.01
"""Rate of false alarms over all settings and checks of an image together."""

CLIPPED = 0.002
"""Share of the pixels piled up at one end of the range from which on an image is called clipped."""

EMPTY = 0.8
"""Share of the values that a smooth histogram would have, but that do not occur, from which on counts are rescaled."""

MOST = 2
"""More settings than these are not named one by one: all of them together are then not those of the picture."""

TELLS = 0.5
"""A picture tells a setting where 95 % of the recorded values lie within this part of the laboratory's own range."""

_N = len(PARAMETERS)


def judge(
    measured: Measured, acquisition: Acquisition, net: SettingsReader, calibrations: Calibrations, level: float = LEVEL
) -> ImageAudit:
    """Compare one image with its recorded settings.

    Parameters
    ----------
    level : float
        Rate of false alarms of an image, over its settings and the checks ``resampled`` and ``contrast`` together.
    """
    facts = {"clipped": _clipped(measured), "levels": _levels(measured)}
    key = calibrations.key(measured.side, measured.absolute)
    nothing = _why_nothing(measured, key, calibrations, level)
    if nothing:
        return _untold(acquisition, nothing, facts)
    part, scale = calibrations.parts[key], calibrations.scales[key]
    normalizer = net.config.normalizer
    told = predict_settings(net, measured.features[None])
    values = normalizer.normalize(acquisition.vector())
    logits, distance = picture_scores(net, measured.statistics[None])
    if part.unlike(float(distance[0])):
        return _untold(
            acquisition, f"the picture is unlike those of all {part.sessions} sessions of the calibration",
            facts | {"like": CheckAudit("cannot tell", "unlike the pictures of the calibration")},
        )  # fmt: skip
    used = np.array([measured.absolute or name not in ABSOLUTE_ONLY for name in PARAMETERS])
    case = Case(told, values, used & np.isfinite(values), logits[0], scale, part.threshold(level))
    scores = case.scores()
    blamed, ambiguous = case.blame()
    strangers = [int(j) for j in np.flatnonzero(case.known)] if len(blamed) > MOST else []
    if strangers:  # leaving out one after the other, the last ones go for no fault of theirs
        blamed = [j for j in blamed if scores[j] >= case.threshold]
    own = setting_scores(scores[None])[0]
    p_own = [float(p_value(own[j], part.of_settings[:, j])) for j in range(_N)]
    settings = {}
    for j, name in enumerate(PARAMETERS):
        seen = _Seen(j, acquisition, case, part, net, blamed, strangers or ambiguous, bool(strangers))
        settings[name] = seen.audit(p_own[j], float(p_value(own[j], part.overall)), measured.absolute)
    checks = facts | _checks(scores, part, level) | {"like": CheckAudit("agrees")}
    p = float(p_value(np.nanmax(scores), part.overall))
    reasons = _reasons(settings, checks, strangers or ambiguous)
    tellable = any(s.verdict == "agrees" for s in settings.values())
    verdict = "disagrees" if reasons else "agrees" if tellable else "cannot tell"
    if verdict == "cannot tell":
        reasons = ("no setting that is recorded can be told from this picture",)
    reasons += (checks["clipped"].why,) if checks["clipped"].why else ()
    doubted = tuple(PARAMETERS[j] for j in sorted({*blamed, *ambiguous, *strangers}))
    return ImageAudit(verdict, p, reasons, settings, checks, doubted)


@dataclass
class _Seen:
    """Setting j of a case."""

    j: int
    acquisition: Acquisition
    case: Case
    part: Calibration
    net: SettingsReader
    blamed: Sequence[int]
    ambiguous: Sequence[int]
    strangers: bool = False  # whether all of them together, not one of them, must be wrong

    def audit(self, p: float, p_family: float, absolute: bool) -> SettingAudit:
        name = PARAMETERS[self.j]
        recorded = getattr(self.acquisition, name)
        if name in ABSOLUTE_ONLY and not absolute:
            verdict = "missing" if recorded is None else "cannot tell"
            return SettingAudit(recorded, verdict, "the scale of the intensities is not known")
        mean, covariance = self.case.told.mean[0], self.case.told.covariance[0]
        widths = self.part.half_widths * self.case.scale
        half = widths[self.j] * math.sqrt(covariance[self.j, self.j])
        predicted = self._interval(mean[self.j], half)
        trusted = [k for k in np.flatnonzero(self.case.known) if k not in self.blamed and k not in self.ambiguous]
        centre, spread = conditional(mean, covariance, self.case.values, self.j, trusted)
        likely = self._interval(centre, widths[_N + self.j] * spread)
        if recorded is None:
            return SettingAudit(None, "missing", self.acquisition.missing[name], predicted=predicted, likely=likely)
        alone, given = (float(r[self.j]) for r in self.case.residuals())
        tells = half <= TELLS * 1.96
        verdict, why = self._verdict(tells, predicted, likely)
        known = [None if math.isnan(v) else v for v in (alone, given, p, p_family)]
        return SettingAudit(recorded, verdict, why, *known, predicted, likely)

    def _verdict(self, tells: bool, predicted: tuple | None, likely: tuple | None) -> tuple[str, str]:
        name = PARAMETERS[self.j]
        if self.j in self.blamed:
            shown = likely or predicted
            says = (
                f"{with_unit(shown[1], UNITS[name])} to {with_unit(shown[2], UNITS[name])}"
                if shown
                else "another value"
            )
            return "disagrees", f"recorded {with_unit(getattr(self.acquisition, name), UNITS[name])}, likely {says}"
        if self.strangers:
            return "cannot tell", "the settings together are not those of this picture"
        if self.j in self.ambiguous:
            others = " or ".join(PARAMETERS[k].replace("_", " ") for k in self.ambiguous)
            return "cannot tell", f"one of {others} must be wrong"
        if not tells:
            return "cannot tell", "the picture leaves too wide a range"
        return "agrees", ""

    def _interval(self, centre: float, half: float) -> tuple[float, float, float] | None:
        if not math.isfinite(half):
            return None
        vectors = np.zeros((3, _N))
        # A wide range runs out of what floating point can hold in the logarithm; far outside any laboratory.
        vectors[:, self.j] = np.clip([centre, centre - half, centre + half], -50, 50)
        return tuple(float(v) for v in self.net.config.normalizer.restore(vectors)[:, self.j])


def _clipped(measured: Measured) -> CheckAudit:
    if measured.flat:
        return CheckAudit("cannot tell")
    ends = {"darkest": measured.clipped_low, "brightest": measured.clipped_high}
    found = ", ".join(f"{s:.2%} of the pixels stand at the {end} value" for end, s in ends.items() if s >= CLIPPED)
    return CheckAudit("disagrees", f"clipped: {found}") if found else CheckAudit("agrees")


def _levels(measured: Measured) -> CheckAudit:
    """A fact, as clipping is: it needs no calibration, and says so of any picture."""
    if not measured.statistics.size:
        return CheckAudit("cannot tell")
    empty = -math.expm1(min(float(measured.statistics[TEXTURE.index("levels") - len(TEXTURE)]), 0.0))
    if empty < EMPTY:
        return CheckAudit("agrees")
    return CheckAudit("disagrees", f"rescaled: {empty:.1%} of the values that the histogram should have do not occur")


def _checks(scores: np.ndarray, part: Calibration, level: float) -> dict[str, CheckAudit]:
    words = {
        "resampled": "the noise is that of a resampled or rescaled image",
        "contrast": "the contrast is that of a bright field, not of HAADF",
    }
    out = {}
    for k, name in enumerate(CHECKS, 2 * _N):
        p = float(p_value(scores[k], part.scores[:, k]))
        objects = scores[k] >= part.threshold(level)
        out[name] = CheckAudit("disagrees", words[name], p) if objects else CheckAudit("agrees", "", p)
    return out


def _reasons(settings: dict, checks: dict, ambiguous: Sequence[int]) -> tuple[str, ...]:
    found = [f"{n.replace('_', ' ')}: {s.why}" for n, s in settings.items() if s.verdict == "disagrees"]
    unsure = [settings[PARAMETERS[j]].why for j in ambiguous if settings[PARAMETERS[j]].verdict == "cannot tell"]
    if unsure:
        found.append(unsure[0])
    return (*found, *(checks[name].why for name in ("levels", *CHECKS) if checks[name].verdict == "disagrees"))


def _why_nothing(measured: Measured, key: tuple | None, calibrations: Calibrations, level: float) -> str:
    """Why a picture cannot be judged at all; empty where it can."""
    if measured.flat:
        return "there is no picture: every pixel has the same value, or some are not finite"
    if key is None:
        return f"smaller than {SMALLEST} pixels"
    if key not in calibrations.parts:
        scale = "with" if key[1] else "without"
        return f"the calibration holds no images of {key[0]} pixels or more {scale} a known intensity scale"
    part = calibrations.parts[key]
    if part.smallest_p > level:
        return f"{part.sessions} sessions are too few: no p-value below {part.smallest_p:.2g} is possible"
    return ""


def _untold(acquisition: Acquisition, why: str, checks: dict[str, CheckAudit]) -> ImageAudit:
    settings = {}
    for name in PARAMETERS:
        recorded = getattr(acquisition, name)
        verdict = "missing" if recorded is None else "cannot tell"
        settings[name] = SettingAudit(recorded, verdict, acquisition.missing[name] if recorded is None else why)
    checks = {n: checks.get(n, CheckAudit("cannot tell", why)) for n in ("clipped", "levels", *CHECKS, "like")}
    facts = [checks[name].why for name in ("levels", "clipped") if checks[name].verdict == "disagrees"]
    verdict = "disagrees" if checks["levels"].verdict == "disagrees" else "cannot tell"
    return ImageAudit(verdict, None, (*facts, why), settings, checks)
