"""What an audit says of one image: of each setting, of each check of the picture, and in all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .measuring import Measured

__all__ = ["CheckAudit", "ImageAudit", "SettingAudit"]


@dataclass(frozen=True)
class SettingAudit:
    """One setting of one image; values in SI, residuals in the spreads that are predicted.

    Parameters
    ----------
    recorded : float or None
    verdict : {"agrees", "disagrees", "cannot tell", "missing"}
    why : str
        In words.
    residual, residual_given : float or None
        (recorded - predicted) / spread, in the units of the Normalizer: from the picture alone, and from the picture
        with the other recorded settings.
    p : float or None
        Of the larger of the two, calibrated for this setting alone.
    p_family : float or None
        The same, calibrated for the largest score of an image: comparable with the level.
    predicted : tuple of float or None
        What the picture alone says: value, and a calibrated 95 % interval.
    likely : tuple of float or None
        The same from the picture and the other settings that are believed.
    """

    recorded: float | None
    verdict: str
    why: str = ""
    residual: float | None = None
    residual_given: float | None = None
    p: float | None = None
    p_family: float | None = None
    predicted: tuple[float, float, float] | None = None
    likely: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class CheckAudit:
    """One check of the picture itself: "agrees" (nothing found), "disagrees" or "cannot tell"."""

    verdict: str
    why: str = ""
    p: float | None = None


@dataclass(frozen=True)
class ImageAudit:
    """One image.

    Parameters
    ----------
    verdict : {"disagrees", "agrees", "cannot tell"}
        "agrees" where at least one setting can be told, and neither a setting nor a check objects. Clipping is a fact
        that is named among the reasons; it does not make a verdict, for settings may well be right.
    p : float or None
        Of the largest of all scores.
    reasons : tuple of str
        Why it disagrees, or why nothing can be told.
    settings : dict of str to SettingAudit
    checks : dict of str to CheckAudit
        ``clipped``, ``levels`` (values of the histogram that do not occur), ``resampled``, ``contrast``, ``like``
        (the pictures that it was calibrated on), ``duplicate``.
    doubted : tuple of str
        Settings that should not be used: those that disagree, and those of which one must be wrong.
    """

    verdict: str
    p: float | None
    reasons: tuple[str, ...]
    settings: dict[str, SettingAudit]
    checks: dict[str, CheckAudit]
    doubted: tuple[str, ...] = ()
    file: str = ""
    number: int | None = None
    title: str = ""
    notes: tuple[str, ...] = ()
    measured: Measured | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The file, and which of its images."""
        return f"{self.file or 'image'}, image {self.number}" if self.number else self.file or "image"

    def objecting(self, check: str, why: str) -> ImageAudit:
        """Copy in which a further check disagrees."""
        checks = self.checks | {check: CheckAudit("disagrees", why)}
        reasons = (*self.reasons, why) if self.verdict == "disagrees" else (why,)
        return replace(self, verdict="disagrees", reasons=reasons, checks=checks)
