"""An advice in a few lines that can be read beside a microscope."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.constants import angstrom

if TYPE_CHECKING:
    from ..metadata import Acquisition
    from .advice import Advice
    from .outcome import Outcome
    from .predict import Interval, Quality

__all__ = ["advice_text", "outcome_text", "quality_text", "settings_text"]

_SHOWN = (
    ("dwell_time", "dwell time {:.3g} µs", 1e6),
    ("beam_current", "current {:.3g} pA", 1e12),
    ("detector_gain", "gain {:.2f}", 1.0),
    ("detector_offset", "offset {:.2f}", 1.0),
)


def settings_text(settings: Acquisition, before: Acquisition | None = None) -> str:
    """The four settings that are advised, with what they were before where they change."""
    said = []
    for name, form, unit in _SHOWN:
        value, old = getattr(settings, name), None if before is None else getattr(before, name)
        if value is None:
            continue
        text = form.format(value * unit)
        said.append(text if old is None or old == value else f"{text} (was {old * unit:.4g})")
    return ", ".join(said)


def quality_text(quality: Quality) -> str:
    """Predicted quality with intervals."""

    def interval(found: Interval, unit: float, form: str) -> str:
        return f"{found.value * unit:{form}} [{found.low * unit:{form}}, {found.high * unit:{form}}]"

    said = [f"snr {interval(quality.snr, 1, '.2f')}"]
    if quality.column_precision is not None:
        said.append(f"column precision {interval(quality.column_precision, 1e12, '.2f')} pm")
    if quality.clipped is not None:
        said.append(f"clipped {interval(quality.clipped, 100, '.2f')} %")
    return ", ".join(said)


def advice_text(advice: Advice) -> str:
    """All of it."""
    if advice.reached:
        head = f"{advice.goal}: reached with"
    else:
        head = f"{advice.goal}: no allowed settings surely reach it; the nearest are"
    dose = "dose not known (needs beam current and pixel size)"
    if advice.dose is not None:
        dose = f"dose {advice.dose * angstrom**2:.4g} e/Å²"
    lines = [
        f"{head} {settings_text(advice.settings, advice.known.settings)}",
        f"{dose}, {advice.dose_factor:.3g} times that of the frame given",
        f"predicted, 90 % intervals: {quality_text(advice.quality)}",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in advice.notes)])


def outcome_text(outcome: Outcome) -> str:
    """How a loop ended."""
    dose = "dose not known" if outcome.dose is None else f"{outcome.dose * angstrom**2:.4g} e/Å²"
    lines = [f"{outcome.state}: {outcome.reason}", f"{outcome.frames} frames together, {dose} in all"]
    if outcome.quality is not None:
        lines.append(f"together, 90 % intervals: {quality_text(outcome.quality)}")
    return "\n".join(lines)
