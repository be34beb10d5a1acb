"""Images as if taken with other settings: which part is arithmetic, which the translator's, and what was said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .analytic import AnalyticModel, analytic
from .errors import OutOfRangeError
from .metadata import PARAMETERS, UNITS, Acquisition
from .renderer import SMALLEST, Renderer

if TYPE_CHECKING:
    from .microscope import Micrograph

__all__ = ["ROUTES", "Rerendered", "rerender"]

ROUTES = {
    "dwell_time": ("analytic", "analytic"),
    "convergence_angle": ("generator", "generator"),
    "beam_current": ("analytic", "generator"),
    "detector_gain": ("analytic", "analytic"),
    "detector_offset": ("analytic", "analytic"),
    "inner_collection_angle": ("generator", "generator"),
}
"""Which route a parameter takes when it is lowered, and when it is raised.

The one with the least sum of ranks in histogram, noise and spectrum, distances from a recording, on the validation
materials of the twin (``python -m cimp_core.study.restyling TWIN --part val``).
"""

ARITHMETIC = ("dwell_time", "beam_current", "detector_gain", "detector_offset")


@dataclass(frozen=True)
class Rerendered:
    """What `rerender` gives.

    Attributes
    ----------
    image : (..., h, w) float32 array
        Counts on the 16-bit scale, clipped to it, not rounded.
    acquisition : Acquisition
        The settings that it is rendered for.
    route : dict of str to str
        "analytic", "generator" or "unchanged" for each parameter that was changed; the last where neither came nearer
        to the truth than the image as it is.
    notes : tuple of str
        What to know of this result.
    """

    image: np.ndarray
    acquisition: Acquisition
    route: dict[str, str]
    notes: tuple[str, ...] = field(default=())


def rerender(
    image: np.ndarray | Micrograph,
    acquisition: Acquisition | None = None,
    *,
    route: str | None = None,
    renderer: Renderer | None = None,
    model: AnalyticModel | None = None,
    seed: int = 0,
    **changes: float,
) -> Rerendered:
    """Render an image as if it had been taken with some settings changed.

    Gain, offset, dwell time and a lower current are arithmetic (`cimp_core.analytic`), a higher current and other
    angles are the translator's: for each change the route that came closest to the truth on simulated materials that
    none had seen (`ROUTES`). More dose does not remove noise here; `cimp.denoise` is for that. No route knows what
    the image does not show: a result is an idea of the other image, not a measurement.

    Parameters
    ----------
    image : (h, w) or (frames, h, w) array, or Micrograph
        Counts on the Velox 16-bit scale, which is a mean over the dwell time.
    acquisition : Acquisition, optional
        What it was taken with; a micrograph's own by default.
    route : {"analytic", "generator"}, optional
        Take this route for all changes.
    renderer : Renderer, optional
        Another trained translator than the shipped one.
    model : AnalyticModel, optional
        Slope and black level of the instrument; by default those of the embedded twin's.
    seed : int
        Of the noise that a lower dose needs.
    **changes : float
        New values, SI: any of dwell_time, convergence_angle, beam_current, detector_gain, detector_offset,
        inner_collection_angle.

    Returns
    -------
    Rerendered

    Raises
    ------
    OutOfRangeError
        Another pixel size, an unknown name, a value that is not physical, a change of a setting whose present value is
        not known, an image that is not on the 16-bit scale, or one that is too small.
    """
    data, source = _counts(image, acquisition)
    target = _target(source, changes)
    taken = _routes(source, target, route)
    notes = _notes(source, target, taken)
    middle = source.replace(**{n: getattr(target, n) for n, way in taken.items() if way == "generator"})
    if "generator" in taken.values() and renderer is None:
        renderer = Renderer()
    frames = []
    for k, frame in enumerate(data.reshape(-1, *data.shape[-2:])):
        made = np.asarray(frame, np.float32)
        if "generator" in taken.values():
            made = renderer(made, source, middle, seed=seed + k)
        if "analytic" in taken.values():
            made = analytic(made, middle, target, model=model, seed=seed + k)
        frames.append(made)
    return Rerendered(np.stack(frames).reshape(data.shape), target, taken, tuple(notes))


def _counts(image: Any, acquisition: Acquisition | None) -> tuple[np.ndarray, Acquisition]:
    """Pixel values and settings, both of a kind that can be used."""
    if hasattr(image, "acquisition"):
        if image.intensity != "velox16":
            raise OutOfRangeError(
                f"{image.path or 'image'}: intensities are {image.intensity!r}, not Velox 16-bit counts: gain and "
                "offset mean nothing on another scale; choose an image as the microscope recorded it"
            )
        acquisition = image.acquisition if acquisition is None else acquisition
        image = image.image.data
    if acquisition is None:
        raise OutOfRangeError("acquisition is missing: say what the image was taken with, unknown values as None")
    data = np.asarray(image)
    if data.ndim not in (2, 3) or min(data.shape[-2:]) < SMALLEST or data.dtype.kind not in "uif":
        raise OutOfRangeError(
            f"image of shape {data.shape}, {data.dtype}: give counts (h, w) or (frames, h, w), {SMALLEST} px or more"
        )
    if not np.isfinite(data).all() or data.min() < 0 or data.max() > 65535:
        raise OutOfRangeError("values lie outside 0..65535 or are not finite: give counts on the Velox 16-bit scale")
    return data, acquisition


def _target(source: Acquisition, changes: dict[str, float]) -> Acquisition:
    """The settings asked for; the reasons why some cannot be."""
    if "pixel_size" in changes and changes["pixel_size"] != source.pixel_size:
        raise OutOfRangeError(
            "pixel_size cannot be changed: another field of view holds another specimen, which lies outside this image "
            "or was never resolved by it; take, or choose, another image"
        )
    changes = {n: v for n, v in changes.items() if n != "pixel_size"}
    if none := [n for n, v in changes.items() if v is None]:
        raise OutOfRangeError(f"{', '.join(none)} is None: give a value to render for")
    target = source.replace(**changes)
    if unknown := [n for n in changes if getattr(source, n) is None]:
        raise OutOfRangeError(
            f"{', '.join(unknown)} of the image is not known ({source.missing[unknown[0]]}): how far to change it "
            "cannot be told; give what it was taken with in `acquisition`"
        )
    inner, angle = target.inner_collection_angle, target.convergence_angle
    if inner is not None and angle is not None and inner <= angle:
        raise OutOfRangeError(
            f"inner collection angle {inner * 1e3:.1f} mrad is not above the convergence angle {angle * 1e3:.1f} mrad: "
            "the direct beam would reach the detector, which is bright field, not HAADF"
        )
    return target


def _routes(source: Acquisition, target: Acquisition, route: str | None) -> dict[str, str]:
    """Route of each parameter that changes."""
    if route not in (None, "analytic", "generator"):
        raise OutOfRangeError(f"route is {route!r}: give analytic or generator, or None for the better one of each")
    taken = {}
    for name in PARAMETERS[1:]:
        before, after = getattr(source, name), getattr(target, name)
        if before is not None and after != before:
            taken[name] = ROUTES[name][after > before] if route is None else route
    if route == "analytic" and (others := [n for n in taken if n not in ARITHMETIC]):
        raise OutOfRangeError(f"{', '.join(others)}: changes the optics, which no arithmetic on counts can do")
    needed = [n for n in ARITHMETIC if "analytic" in taken.values() and getattr(source, n) is None]
    if any(n.startswith("detector") for n in needed):
        taken = dict.fromkeys(taken, "generator") if route is None else taken
    return taken


def _notes(source: Acquisition, target: Acquisition, taken: dict[str, str]) -> list[str]:
    notes = []
    generated = [n for n, way in taken.items() if way == "generator"]
    if generated:
        notes.append(
            f"{', '.join(generated)}: rendered by a network trained on simulated images, detail may be invented"
        )
    if generated and source.missing:
        notes.append(f"not known and masked: {', '.join(source.missing)}")
    lower = [
        n
        for n in ("dwell_time", "beam_current")
        if taken.get(n) == "analytic" and getattr(target, n) < getattr(source, n)
    ]
    if lower:
        what = " and ".join(f"{n} {getattr(source, n):.3g} -> {getattr(target, n):.3g} {UNITS[n]}" for n in lower)
        notes.append(f"{what}: electrons drawn at random, counts per electron taken from the noise of the image itself")
    higher = [n for n in ("dwell_time", "beam_current") if n in taken and getattr(target, n) > getattr(source, n)]
    if any(taken[n] == "analytic" for n in higher):
        notes.append(f"{', '.join(higher)} raised: the noise stays that of the image; cimp.denoise estimates it away")
    if left := [n for n, way in taken.items() if way == "unchanged"]:
        notes.append(f"{', '.join(left)}: the image is left as it is; no route came nearer to the truth than that")
    if taken.get("detector_gain") == "analytic":
        notes.append("the slope of the counts with the gain is that of the model, not of this instrument")
    return notes
