"""Do the recorded settings agree with the picture? Asked before a denoiser is steered by them.

Two are asked. The audit (`cimp_core.auditing`) compares each value with the picture, and names what is wrong; it sees
one wrong value best. What it leaves is compared as a whole, by the cosine of its embedding with that of the image,
which sees settings of another image best. On 120 recordings of 0.5 to 500 electrons of the audit's validation
sessions, the two doubt 0.96 of all settings of another session's image (the cosine alone 0.95), 0.99 of dwell times in
the wrong unit (0.96), 0.65 of offsets wrong by 0.6 (0.58), 0.56 of gains wrong by 7 (0.51), 0.53 of pixel sizes wrong
by 10 (0.39), and of those that are right no more than the cosine alone (0.02).

The embedding of an image and that of its own settings have a cosine of about 0.5; 19 in 20 of those with settings of
another session's image lie below 0.36, as one matching pair in fifty does (300 recordings of 0.5 to 500 electrons of
the twin's validation materials; without the intensity scale, three quarters lie below 0.32). Below the limit settings
are not believed: first it is tried which single one, left out, makes the others agree; else none is used. A wrong
value of what an image hardly tells, such as the current, passes unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..auditing.judging import judge
from ..auditing.lab import shipped
from ..auditing.measuring import measure
from ..metadata import PARAMETERS, Acquisition
from ..models import Cimp
from ..weights import load

__all__ = ["LIMIT", "LIMIT_RELATIVE", "Trust", "check"]

LEVEL = 0.005
"""Rate of false alarms asked of the audit; at 0.01 it doubts 0.04 of right settings at doses below a laboratory's."""

LIMIT = 0.36
"""Cosine below which settings are not believed, for images on the recorded 16-bit scale."""

LIMIT_RELATIVE = 0.32
"""The same where the intensity scale is not known."""


@dataclass(frozen=True)
class Trust:
    """What may be believed of an image's settings.

    Parameters
    ----------
    acquisition : Acquisition
        The settings to use; those not believed are None, each with its reason.
    verdict : {"agree", "disagree", "missing"}
        "missing" where there is nothing to compare: fewer than two settings.
    cosine : float or None
        Of the embeddings of the image and of all its settings.
    doubted : tuple of str
        Settings that are not used.
    reasons : tuple of str
        What the audit says against them, or why it cannot tell.
    """

    acquisition: Acquisition
    verdict: str
    cosine: float | None
    doubted: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.verdict == "missing":
            return "no settings to compare with the picture"
        if self.verdict == "agree":
            return f"the settings agree with the picture (cosine {self.cosine:.2f})"
        return f"the settings disagree with the picture (cosine {self.cosine:.2f}); not used: {', '.join(self.doubted)}"


def check(frame: np.ndarray, acquisition: Acquisition, *, absolute: bool, model: Cimp | None = None) -> Trust:
    """Compare an image (h, w), at least 32 pixels a side, with its settings.

    Parameters
    ----------
    absolute : bool
        Whether the intensities are on the recorded 16-bit scale.
    model : Cimp, optional
        Both towers are asked; by default those of the shipped weights.
    """
    given = [name for name in PARAMETERS if getattr(acquisition, name) is not None]
    if len(given) < 2:
        return Trust(acquisition, "missing", None)
    audited = judge(measure(frame, absolute=absolute), acquisition, *shipped(), level=LEVEL)
    model = load("cimp-twin-s") if model is None else model
    image = model.embed_images([frame], absolute=[absolute])[0]

    def cosine(settings: Acquisition) -> float:
        return float(image @ model.embed_metadata([settings])[0])

    limit = LIMIT if absolute else LIMIT_RELATIVE
    whole = cosine(acquisition)
    doubted, reasons = audited.doubted, () if audited.verdict == "agrees" else audited.reasons
    left = [name for name in given if name not in doubted]
    rest = acquisition.replace(**dict.fromkeys(doubted)) if doubted else acquisition
    if len(left) > 1 and (cosine(rest) if doubted else whole) < limit:
        without = {name: cosine(rest.replace(**{name: None})) for name in left} if len(left) > 2 else {}
        best = max(without, key=without.get, default=None)
        doubted += (best,) if best is not None and without[best] >= limit else tuple(left)
    if not doubted:
        return Trust(acquisition, "agree", whole, (), reasons)
    doubted = tuple(name for name in PARAMETERS if name in doubted)
    kept = {name: getattr(acquisition, name) for name in given if name not in doubted}
    why = {**acquisition.missing, **dict.fromkeys(doubted, "disagrees with the picture")}
    return Trust(Acquisition(**kept, missing=why), "disagree", whole, doubted, reasons)
