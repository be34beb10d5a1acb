"""What an image is to be good enough for, as a microscopist says it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from scipy.constants import angstrom

from ..errors import OutOfRangeError

__all__ = ["EXAMPLES", "Goal", "parse_dose", "parse_goal"]

EXAMPLES = '"snr 10", "column precision 5 pm"'

_LENGTHS = {"pm": 1e-12, "a": angstrom, "å": angstrom, "nm": 1e-9, "m": 1.0}
_NUMBER = r"([0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)"
_AREAS = {"a2": angstrom**2, "å2": angstrom**2, "a^2": angstrom**2, "å^2": angstrom**2, "å²": angstrom**2}
_AREAS |= {"a²": angstrom**2, "nm2": 1e-18, "nm^2": 1e-18, "nm²": 1e-18}


@dataclass(frozen=True)
class Goal:
    """A quality and how much of it.

    Parameters
    ----------
    quantity : {"snr", "column precision"}
        ``snr``: standard deviation of the expected picture over the root mean square noise of a pixel. It is the square
        root of the signal-to-noise ratio of Frank and Al-Ali (1975), and the correlation of two such frames is
        snr^2 / (1 + snr^2). ``column precision``: standard error, per axis, of the places of atomic columns fitted
        by Gaussians.
    value : float
        At least this snr, or at most this error [m].

    Raises
    ------
    OutOfRangeError
        Another quantity, or a value that is not above zero.
    """

    quantity: str
    value: float

    def __post_init__(self) -> None:
        if self.quantity not in ("snr", "column precision"):
            raise OutOfRangeError(f"goal {self.quantity!r}: there are {EXAMPLES}")
        if not (math.isfinite(self.value) and self.value > 0):
            raise OutOfRangeError(f"goal {self.quantity} {self.value:g}: the value must be above zero")

    @property
    def power(self) -> float:
        """What adds up over frames in proportion to their dose: snr^2, or 1 / error^2 [1/m^2]."""
        return self.value**2 if self.quantity == "snr" else self.value**-2

    def power_of(self, value: float) -> float:
        """The same of an obtained snr or error."""
        return value**2 if self.quantity == "snr" else value**-2

    def reached_by(self, value: float) -> bool:
        """Whether an obtained snr or error [m] is good enough."""
        return value >= self.value if self.quantity == "snr" else value <= self.value

    def __str__(self) -> str:
        return self.text(self.value)

    def text(self, value: float) -> str:
        """A value of this quantity as one says it."""
        return f"snr {value:.3g}" if self.quantity == "snr" else f"column precision {value * 1e12:.3g} pm"


def parse_goal(text: str | Goal) -> Goal:
    """``"snr 10"`` or ``"column precision 5 pm"`` as a `Goal`.

    Raises
    ------
    OutOfRangeError
        The text is no goal; the message has examples.
    """
    if isinstance(text, Goal):
        return text
    said = " ".join(str(text).lower().replace("=", " ").split())
    if found := re.fullmatch(rf"snr {_NUMBER}", said):
        return Goal("snr", float(found[1]))
    if found := re.fullmatch(rf"column precision {_NUMBER} ?(pm|a|å|nm|m)", said):
        return Goal("column precision", float(found[1]) * _LENGTHS[found[2]])
    raise OutOfRangeError(f"goal {text!r} is not understood; say, for example, {EXAMPLES}")


def parse_dose(text: str | float | None) -> float | None:
    """``"500 e/A2"`` in electrons per square metre; a number is in e/m^2 already.

    Raises
    ------
    OutOfRangeError
        The text is no dose.
    """
    if text is None or isinstance(text, int | float):
        dose = text
    else:
        found = re.fullmatch(rf"{_NUMBER} ?e ?-?/ ?(\S+)", " ".join(text.lower().split()))
        if not found or found[2] not in _AREAS:
            raise OutOfRangeError(f'dose {text!r} is not understood; say, for example, "500 e/A2" or "5e4 e/nm2"')
        dose = float(found[1]) / _AREAS[found[2]]
    if dose is not None and not (math.isfinite(dose) and dose > 0):
        raise OutOfRangeError(f"dose {text!r}: it must be above zero")
    return dose
