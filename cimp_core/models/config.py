"""Configs of models from the plain values that a weights file holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import SchemaError

__all__ = ["config_from_dict"]


def config_from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    """Inverse of `dataclasses.asdict` for a frozen config; an unknown or a missing name raises `SchemaError`."""
    names = {f.name for f in dataclasses.fields(cls)}
    if set(values) != names:
        raise SchemaError(f"model config does not fit this version: differs in {sorted(names ^ set(values))}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
