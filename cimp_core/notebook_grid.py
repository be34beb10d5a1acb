"""The parameters of a notebook, and every combination of values that are given for them."""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import CimpError, OutOfRangeError, UnreadableFileError
from .notebook_run import RESULTS

__all__ = ["parse_grid", "read_parameters"]

_RANGE = re.compile(r"([+-]?\d+)\.\.([+-]?\d+)")
_OWN = ("run", "state", "seconds", "error")  # columns that are neither a parameter nor a result


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and values of a notebook's parameters cell; a value that is no literal is taken as None.

    Raises
    ------
    UnreadableFileError
        `notebook` is not a notebook.
    CimpError
        It has no cell tagged "parameters".
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        source = "".join(tagged[0]["source"]) if tagged else None
    except OSError as error:
        raise UnreadableFileError(f"{notebook}: cannot be opened ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableFileError(f"{notebook}: not a Jupyter notebook (.ipynb)") from error
    if source is None:
        raise CimpError(f"{notebook}: has no cell tagged 'parameters'; tag the one whose values a sweep may replace")
    found: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
            if isinstance(target, ast.Name) and getattr(statement, "value", None) is not None:
                found[target.id] = _literal(statement.value)  # type: ignore[attr-defined]
    except SyntaxError as error:
        raise UnreadableFileError(f"{notebook}: its parameters cell is not Python ({error.msg})") from error
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def parse_grid(given: Sequence[tuple[str, str]], known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the values, the last parameter varying fastest.

    Parameters
    ----------
    given : sequence of (name, values)
        Values are separated by commas; ``0..4`` stands for 0, 1, 2, 3, 4. They are of the type that the parameter has
        in the notebook; where that is None, numbers, True, False and None are such, everything else is text.
    known : mapping
        The notebook's parameters, as `read_parameters` gives them.

    Raises
    ------
    OutOfRangeError
        No such parameter, one named twice, no value, a value twice, or one of another type.
    """
    values: dict[str, list] = {}
    for name, text in given:
        if name not in known or name == RESULTS:
            there = ", ".join(k for k in known if k != RESULTS) or "none"
            raise OutOfRangeError(f"no parameter {name!r}; the notebook has: {there}")
        if name in _OWN:
            raise OutOfRangeError(f"{name!r} is a column of the table; give the notebook's parameter another name")
        if name in values:
            raise OutOfRangeError(f"parameter {name!r} is given twice; separate its values by commas")
        values[name] = [v for part in text.split(",") for v in _values(name, part.strip(), known[name])]
        if len({(type(v), v) for v in values[name]}) < len(values[name]):
            raise OutOfRangeError(f"{name}: {text!r} names a value twice")
    if not values:
        raise OutOfRangeError("nothing to vary: name a parameter and its values, such as -p seed 0..4")
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


def _values(name: str, text: str, default: Any) -> list:
    if not text:
        raise OutOfRangeError(f"{name}: a value is empty; separate values by one comma, such as 1e-3,3e-4")
    if isinstance(default, str):
        return [text]
    if not isinstance(default, bool | int | float | None):
        raise OutOfRangeError(
            f"{name}: its value in the notebook is a {type(default).__name__}, which cannot be varied"
        )
    if not isinstance(default, bool) and (found := _RANGE.fullmatch(text)):
        first, last = int(found[1]), int(found[2])
        if last < first:
            raise OutOfRangeError(f"{name}: {text} is an empty range; the first number must not be above the last")
        return [float(i) if isinstance(default, float) else i for i in range(first, last + 1)]
    return [_value(name, text, default)]


def _value(name: str, text: str, default: Any) -> Any:
    word = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if isinstance(default, bool):
        if isinstance(word, bool):
            return word
        raise OutOfRangeError(f"{name}: {text!r} is neither True nor False")
    if default is None and not isinstance(word, str):
        return word
    for kind in (int, float):
        if isinstance(default, int) and kind is float or isinstance(default, float) and kind is int:
            continue
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    if default is None:
        return text
    raise OutOfRangeError(f"{name}: {text!r} is no {'whole ' * isinstance(default, int)}number")
