"""The methods by name, and what is said of one in a record of how a picture was made.

A method is a callable ``method(frame, acquisition, factor) -> (image, deviation or None)``: (h, w) float32 counts in
and out, with attributes ``name`` and ``margin`` (pixels of context beyond a tile). It may have ``for_frame(frame)``,
which gives the method that fits this frame: one that trains itself on it, or measures its noise once for all tiles.
Attributes ``learnt`` (from the twin) and ``uses_settings`` are true or false; ``weights`` and ``sha256`` are recorded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..errors import OutOfRangeError

__all__ = ["NAMES", "describe", "fitted", "learnt_from_twin", "resolve", "uses_settings"]

DEFAULT = "direct"
"""What "auto" stands for: the method that wins on evidence."""

_HOME = {
    "direct": ("cimp_core.denoising.direct", "Direct"),
    "style": ("cimp_core.style", "StyleRoute"),
    "noise2void": ("cimp_core.denoising.noise2void", "Noise2Void"),
    "gaussian": ("cimp_core.denoising.classical", "Gaussian"),
    "tv": ("cimp_core.denoising.classical", "TotalVariation"),
    "nlm": ("cimp_core.denoising.classical", "NonLocalMeans"),
    "wavelet": ("cimp_core.denoising.classical", "Wavelet"),
    "wiener": ("cimp_core.denoising.classical", "Wiener"),
}

NAMES = ("auto", *_HOME)
"""Names of the methods that come with the package."""

_LEARNT = ("direct", "style")
_BLIND = ("noise2void", "gaussian", "total_variation", "non_local_means", "wavelet", "wiener")


def resolve(method: str | Callable, seed: int) -> Callable:
    """The method of a name, or the callable itself.

    Raises
    ------
    OutOfRangeError
        The name is unknown, or the callable has no ``margin``.
    """
    if not isinstance(method, str):
        if not callable(method) or not isinstance(getattr(method, "margin", None), int):
            raise OutOfRangeError(
                f"{method!r} is no method: it must be callable as method(frame, acquisition, factor) and have an "
                f"attribute margin, the pixels of context it needs; or give a name: {', '.join(NAMES)}"
            )
        return method
    name = DEFAULT if method == "auto" else method
    if name not in _HOME:
        raise OutOfRangeError(f"no method {method!r}; there are {', '.join(NAMES)}")
    home, attribute = _HOME[name]
    made = getattr(import_module(home), attribute)
    return made(seed=seed) if "seed" in inspect.signature(made).parameters else made()


def fitted(method: Callable, frame: Any) -> Callable:
    """The method as it is used for all tiles of `frame`, (h, w) float32; see the module's text."""
    return method.for_frame(frame) if hasattr(method, "for_frame") else method


def learnt_from_twin(method: Callable) -> bool:
    """Whether a method was trained on the twin, so that it holds only for images of the kind it has seen."""
    return bool(getattr(method, "learnt", getattr(method, "name", "").split(":")[0] in _LEARNT))


def uses_settings(method: Callable) -> bool:
    """Whether a method asks for the settings; one that is not known here is taken to."""
    return bool(getattr(method, "uses_settings", getattr(method, "name", "").split(":")[0] not in _BLIND))


def describe(method: Callable) -> dict[str, Any]:
    """Name, weights and their checksum; ``None`` where the method has none."""
    weights = getattr(method, "weights", None)
    return {
        "method": str(getattr(method, "name", getattr(method, "__name__", type(method).__name__))),
        "weights": None if weights is None else str(weights),
        "sha256": getattr(method, "sha256", None),
    }
