"""What `denoise` gives: a signal like the one it got, and the record of how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

__all__ = ["NODE", "Denoised", "like"]

NODE = "CIMP.denoise"
"""Where the record of a denoised signal stands in its HyperSpy metadata."""


@dataclass(frozen=True, eq=False)
class Denoised:
    """A denoised image or series.

    Parameters
    ----------
    image : hyperspy.signals.Signal2D
        Expected counts at the dose asked for, at the recorded scale; shape, dtype, axes and metadata of the input.
    uncertainty : hyperspy.signals.Signal2D or None
        Standard deviation of `image`, float32 counts; ``None`` where the method gives none.
    provenance : dict
        How it was made, of what JSON can hold: program, method and checksum of its weights, dose factor, settings used
        and ignored and why, noise found, tiles, warnings, seed, input. It is in ``image.metadata.CIMP.denoise`` too.
    """

    image: Signal2D
    uncertainty: Signal2D | None
    provenance: dict[str, Any]


def like(signal: Signal2D, data: np.ndarray, record: dict[str, Any], what: str) -> Signal2D:
    """Signal of `data` with the axes and metadata of another, and the record of what was done."""
    from hyperspy.signals import Signal2D

    axes = [axis.get_axis_dictionary() for axis in signal.axes_manager._axes]
    trees = {n: getattr(signal, n).deepcopy().as_dictionary() for n in ("metadata", "original_metadata")}
    made = Signal2D(data, axes=axes, **trees)
    # A model of the recording's noise, which is gone.
    if made.metadata.has_item("Signal.Noise_properties"):
        del made.metadata.Signal.Noise_properties
    title = str(made.metadata.get_item("General.title", "") or "")
    if what:
        made.metadata.set_item("General.title", f"{what}{title}".strip())
    made.metadata.set_item(NODE, record)
    note = f"{what}virtual dose x {record['dose_factor']:g} by {record['method']}, {record['program']}: not a recording"
    notes = str(made.metadata.get_item("General.notes", "") or "")
    made.metadata.set_item("General.notes", f"{notes}\n{note}".strip())
    return made
