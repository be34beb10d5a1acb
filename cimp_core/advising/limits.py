"""What an instrument allows: a small YAML file of lists and ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import OutOfRangeError, SchemaError
from ..metadata import Acquisition
from ..settings_file import read_mapping
from .goal import parse_dose

__all__ = ["Limits", "Range", "read_limits"]


def _number(value: Any) -> Any:
    """Refuse yes and no, which YAML makes of words; 5e-7 without a point is text to YAML, and a number to people."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Range(_Model):
    """From one value to another, in steps if there is one."""

    low: Number = Field(alias="from")
    high: Number = Field(alias="to")
    step: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"from {self.low:g} to {self.high:g}: the first must not be above the second")
        return self


class Limits(_Model):
    """Allowed settings; each a list of values or a range. SI units.

    Attributes
    ----------
    dwell_time : list or Range
        [s]
    beam_current : list or Range or None
        [A]; ``None``: that of the frame is kept. Another current than the frame's is predicted only if `brightness` is
        known, for it changes the size of the source image and so the resolution.
    detector_gain, detector_offset : list or Range or None
        ``None``: whatever is needed, in steps of 0.05 and 0.01.
    max_dose : float or None
        Of one frame [e/m^2]; text such as "500 e/A2" is understood.
    max_frame_time : float or None
        Time with the beam on [s], for drift.
    brightness : float or None
        Of the source [A m^-2 sr^-1].
    gain_exponent, black_per_offset : float or None
        Growth of the logarithm of the counts per unit of gain, and counts per unit of offset, where they have been
        measured; `cimp_core.analytic.fit_analytic` finds them from images. By default typical ones, with a spread.
    """

    dwell_time: list[Positive] | Range = Range(low=1e-7, high=1e-4)
    beam_current: list[Positive] | Range | None = None
    detector_gain: list[Number] | Range | None = None
    detector_offset: list[Number] | Range | None = None
    max_dose: Annotated[Positive | None, BeforeValidator(parse_dose)] = None
    max_frame_time: Positive | None = None
    brightness: Positive | None = None
    gain_exponent: Positive | None = None
    black_per_offset: Positive | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Limits:
        for name in ("dwell_time", "beam_current", "detector_gain", "detector_offset"):
            values = getattr(self, name)
            if isinstance(values, list) and not values:
                raise ValueError(f"{name} is an empty list: name at least one value")
            if name in ("dwell_time", "beam_current") and isinstance(values, Range) and values.low <= 0:
                raise ValueError(f"{name} from {values.low:g}: it must be above zero")
        return self

    def allows(self, settings: Acquisition) -> list[str]:
        """Names of the settings that lie outside; those not known are passed over."""
        outside = []
        for name in ("dwell_time", "beam_current", "detector_gain", "detector_offset"):
            value, allowed = getattr(settings, name), getattr(self, name)
            if value is not None and allowed is not None and not _among(value, allowed):
                outside.append(name)
        return outside


def _among(value: float, allowed: list[float] | Range) -> bool:
    if isinstance(allowed, Range):
        slack = 1e-6 * max(abs(allowed.low), abs(allowed.high))
        return allowed.low - slack <= value <= allowed.high + slack
    return bool(np.isclose(value, allowed, rtol=1e-3, atol=1e-15).any())


def read_limits(path: str | Path) -> Limits:
    """Read and check a file of limits.

    Raises
    ------
    UnreadableFileError
        The file is missing or is no YAML.
    SchemaError
        Settings are unknown or out of range; each is named.
    """
    settings = read_mapping(path, "dwell_time: {from: 0.5e-6, to: 40e-6}")
    try:
        return Limits.model_validate(settings)
    except (ValidationError, OutOfRangeError) as error:
        found = error.errors() if isinstance(error, ValidationError) else []
        faults = dict.fromkeys(_fault(fault) for fault in found) or {str(error): None}
        raise SchemaError(f"{path}: " + "; ".join(faults)) from None


def _fault(error: Any) -> str:
    place = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        return f"{place} is no setting ({', '.join(Limits.model_fields)})"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}".removeprefix(": ")
    return f"{place}: give a list of values, or from and to" if len(error["loc"]) > 1 else f"{place}: {error['msg']}"
