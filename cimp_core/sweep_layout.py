"""What an HDF5 file of unstated layout holds: which entries are images, and which numbers are their settings.

Meaning is taken from names, labels and units only, never from the size of a number.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import h5py
import numpy as np

from .metadata import LABELS, PARAMETERS, UNITS, Normalizer

__all__ = [
    "SCALES",
    "SWEPT",
    "Found",
    "Item",
    "Refused",
    "listing",
    "parameter_of",
    "places",
    "settings",
    "survey",
    "swept",
]

SWEPT = ("dwell_time", "detector_gain", "detector_offset")
"""Parameters that a sweep may be of."""

_LEAST = 8  # [px]: a smaller 2-D array is a table
_WORDS = {
    "pixel_size": ("pixel_size", "pixelsize"),
    "dwell_time": ("dwell",),
    "convergence_angle": ("convergence",),
    "beam_current": ("current",),
    "detector_gain": ("gain", "contrast"),
    "detector_offset": ("offset", "brightness"),
    "inner_collection_angle": ("inner", "collection"),
}
SCALES = {
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
    "m": {"m": 1.0, "um": 1e-6, "µm": 1e-6, "nm": 1e-9, "pm": 1e-12},
    "rad": {"rad": 1.0, "mrad": 1e-3},
    "A": {"a": 1.0, "na": 1e-9, "pa": 1e-12},
}


class Item(NamedTuple):
    """One data set or group of the file; groups have no shape."""

    name: str
    shape: tuple[int, ...] | None
    dtype: np.dtype | None
    attributes: dict


class Found(NamedTuple):
    """Numbers for some of the seven parameters, one an image, and where they come from."""

    columns: dict[str, np.ndarray]
    source: str


class Refused(Exception):
    """Why the file is not taken as a sweep."""


def survey(file: h5py.File) -> list[Item]:
    """Every data set and group, with its attributes; the file itself first."""
    items = [Item("/", None, None, dict(file.attrs))]

    def add(name, item):
        whole = isinstance(item, h5py.Dataset)
        items.append(Item(name, item.shape if whole else None, item.dtype if whole else None, dict(item.attrs)))

    file.visititems(add)
    return items


def listing(items: list[Item], most: int = 40) -> str:
    """What the file holds, a line an entry."""
    lines = []
    for item in items:
        what = "group" if item.shape is None else f"{item.shape} {item.dtype}"
        marks = ", ".join(f"{k} = {np.array2string(np.asarray(v), threshold=9)}" for k, v in item.attributes.items())
        lines.append(f"  {item.name}: {what}" + (f" [{marks}]" if marks else ""))
    return "\n".join(lines[:most] + [f"  and {len(lines) - most} more"] * (len(lines) > most))


def places(items: list[Item]) -> list[tuple[str, int | None]]:
    """Where the images are, in order: the name of a data set each, or a stack and the row."""
    numeric = [item for item in items if item.shape and item.dtype.kind in "uif" and min(item.shape[-2:]) >= _LEAST]
    flat = [item.name for item in numeric if len(item.shape) == 2]
    stacks = [item for item in numeric if len(item.shape) == 3 and item.shape[0] > 1]
    if len(stacks) == 1 and not flat:
        return [(stacks[0].name, row) for row in range(stacks[0].shape[0])]
    parents = {name.rpartition("/")[0] for name in flat}
    if len(parents) > 1:  # a group an image: the same name in groups side by side
        alike = len(parents) == len(flat) and len({name.rpartition("/")[2] for name in flat}) == 1
        parents = {parent.rpartition("/")[0] for parent in parents} if alike else parents
    if stacks or len(parents) != 1 or len(flat) < 2:
        return []
    pieces = {name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)] for name in flat}
    return [(name, None) for name in sorted(flat, key=pieces.get)]


def settings(file: h5py.File, items: list[Item], images: list, named: str | None, unit: str | None) -> Found:
    """Numbers for the settings of `images`, from a table, else from arrays, else from attributes.

    Parameters
    ----------
    named : str or None
        Parameter that an array called "values" is of.
    unit : str or None
        Unit of dwell times of which the file does not tell it.

    Raises
    ------
    Refused
        Nothing in the file has a meaning, or something has two.
    """
    found = _table(file, items, len(images)) or _arrays(file, items, len(images), named, unit)
    found = found or _attributes(items, images, unit)
    if found is None:
        raise Refused(
            "no values with a meaning: expected metadata_raw (n, 7), or metadata with its statistics, or an array or "
            "attributes named for the setting, the dwell time with its unit"
        )
    return found


def _table(file: h5py.File, items: list[Item], count: int) -> Found | None:
    """The seven columns, SI: as they are where the name says raw, else restored by the file's own statistics."""
    tables = {item.name.rpartition("/")[2].lower(): item for item in items if item.shape == (count, len(PARAMETERS))}
    raw = [item for name, item in tables.items() if "raw" in name]
    if len(raw) == 1:
        table, values, how = raw[0], file[raw[0].name][()].astype(float), "as it is, its name says raw"
    elif "metadata" in tables and all(name in file for name in ("stats_mean", "stats_std", "log_indices")):
        logs = tuple(int(i) for i in file["log_indices"][()])
        normalizer = Normalizer(logs, file["stats_mean"][()].astype(float), file["stats_std"][()].astype(float))
        table = tables["metadata"]
        values, how = normalizer.restore(file[table.name][()]), "restored by the statistics of the file"
    elif tables:
        raise Refused(f"{', '.join(tables)}: nothing tells whether these numbers are normalised; expected metadata_raw")
    else:
        return None
    labels = items[0].attributes.get("metadata_labels", table.attributes.get("metadata_labels"))
    order = "columns as labelled"
    if labels is None:
        names, order = list(LABELS), "columns in the order of the published data set, without labels"
    else:
        names = [label.decode() if isinstance(label, bytes) else str(label) for label in np.ravel(labels)]
    if sorted(names) != sorted(LABELS):
        raise Refused(f"metadata_labels are {names}, expected the seven {list(LABELS)}")
    columns = {PARAMETERS[LABELS.index(name)]: values[:, i] for i, name in enumerate(names)}
    columns = {name: columns[name] for name in PARAMETERS}
    return Found(columns, f"{table.name}, {how}; {order}")


def _arrays(file: h5py.File, items: list[Item], count: int, named: str | None, unit: str | None) -> Found | None:
    """One-dimensional arrays named for a setting, or one called values where the file's name tells of what."""
    columns, sources = {}, []
    for item in items:
        if item.shape != (count,) or item.dtype.kind not in "uif":
            continue
        name = item.name.rpartition("/")[2]
        own = parameter_of(name) or (named if "value" in name.lower() else None)
        scale = own and _scale(own, [item.attributes.get(k) for k in ("unit", "units")], name, unit)
        if scale is not None:
            if own in columns:
                raise Refused(f"two arrays for the {own}: {sources[-1]}, {item.name}")
            columns[own] = file[item.name][()] * scale
            sources.append(item.name)
    return Found(columns, f"{', '.join(sources)}") if columns else None


def _attributes(items: list[Item], places: list[tuple[str, int | None]], unit: str | None) -> Found | None:
    """Attributes named for a setting, of each image or of the group that holds it alone."""
    own = {item.name: item.attributes for item in items}
    marks = [{**own.get(name.rpartition("/")[0], {}), **own[name]} for name, row in places if row is None]
    columns, sources = {}, []
    for key in sorted(set.intersection(*map(set, marks)) if marks else ()):
        parameter, values = parameter_of(key), [mark[key] for mark in marks]
        if parameter is None or any(np.size(v) != 1 or np.asarray(v).dtype.kind not in "uif" for v in values):
            continue
        said = [marks[0].get(f"{key}_{word}") for word in ("unit", "units")]
        scale = _scale(parameter, said, key, unit)
        if scale is not None:
            if parameter in columns:
                raise Refused(f"two attributes for the {parameter}: {sources[-1]}, {key}")
            columns[parameter] = np.array([float(np.ravel(v)[0]) for v in values]) * scale
            sources.append(key)
    return Found(columns, f"attributes {', '.join(sources)} of the images") if columns else None


def parameter_of(text: str) -> str | None:
    """The one parameter that a name speaks of."""
    text = text.lower().replace(" ", "_")
    found = [name for name, words in _WORDS.items() if any(word in text for word in words)]
    return found[0] if len(found) == 1 else None


def _scale(parameter: str, said: list, name: str, given: str | None) -> float | None:
    """Factor to SI, from an attribute, the end of the name, or the caller; ``None`` where nothing tells."""
    scales = SCALES.get(UNITS[parameter])
    if scales is None:
        return 1.0
    words = [w.decode() if isinstance(w, bytes) else str(w) for w in said if w is not None]
    words += [
        re.split(r"[\s_\[\]()]+", name.strip(" ])"))[-1],
        *([given] if given and parameter == "dwell_time" else []),
    ]
    return next((scales[word.lower()] for word in words if word.lower() in scales), None)


def swept(found: Found, named: str | None) -> str:
    """The swept parameter: the one that varies; where several do, the one that the name says."""
    for name, column in found.columns.items():
        wrong = ~np.isfinite(column) | ((column <= 0) & (name != "detector_offset"))
        if name in SWEPT and wrong.any() and (name == named or np.ptp(column[np.isfinite(column)]) > 0):
            raise Refused(
                f"{name} is {column[wrong][0]:g} in image {np.flatnonzero(wrong)[0]}: no setting ({found.source})"
            )
    varying = [name for name, c in found.columns.items() if not np.allclose(c, c[0], rtol=1e-6, atol=0, equal_nan=True)]
    swept = varying if len(varying) == 1 else [name for name in varying if name == named]
    if len(swept) != 1 or swept[0] not in SWEPT:
        raise Refused(f"{', '.join(varying) or 'nothing'} varies; expected one of {', '.join(SWEPT)} ({found.source})")
    if named in SWEPT and swept[0] != named:
        raise Refused(f"{swept[0]} varies, but the name says {named} ({found.source})")
    return swept[0]
