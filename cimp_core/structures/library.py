"""A simulated library: crystals, each along its zone axes and at some thicknesses, as a stated microscope sees them.

An entry is the Fourier series of an image without end (`Pattern`), so that any pixel size, turn, shift and distortion
of it costs milliseconds, and no image is stored. Entries of one structure are made together; with a folder each
structure's are kept there under a digest of all that went into them, so that a library grows and goes on where it was
stopped.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutOfRangeError
from ..metadata import Acquisition
from ..work_folder import WorkFolder, digest
from .crystals import Structure, zone_axes
from .library_settings import Settings, settings_of
from .projection import IMAGE_MODEL, Pattern, pattern, project
from .sources import find_structures

if TYPE_CHECKING:
    import pandas as pd

    from ..microscope import Micrograph

__all__ = ["Entry", "Library", "document", "library", "simulate"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A structure along a zone axis at a thickness [m], with its pattern (angstrom)."""

    structure: Structure
    zone: tuple[int, int, int]
    thickness: float
    pattern: Pattern

    def describe(self) -> str:
        """In one line."""
        s, zone = self.structure, "".join(map(str, self.zone))
        return f"{s.name} ({s.formula}, {s.space_group_symbol}), [{zone}], {self.thickness * 1e9:.3g} nm"


@dataclass(frozen=True, eq=False)
class Library:
    """Entries in a fixed order; made by `library`, read by `cimp_core.structures.open_library`.

    Attributes
    ----------
    structures : tuple of Structure
    settings : Settings
    owner : (n,) int32 array
        Which structure each entry is of.
    zones : (n, 3) int16 array
    thickness : (n,) float64 array
        [m]
    means : (n,) float32 array
        Collected fractions.
    offsets : (n + 1,) int64 array
        Entry i has coefficients ``offsets[i]`` to ``offsets[i + 1]``.
    frequencies : (m, 2) float32 array
        [1/angstrom]
    coefficients : (m,) complex64 array
    """

    structures: tuple[Structure, ...]
    settings: Settings
    owner: np.ndarray
    zones: np.ndarray
    thickness: np.ndarray
    means: np.ndarray
    offsets: np.ndarray
    frequencies: np.ndarray
    coefficients: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, i: int) -> Entry:
        i = range(len(self))[i]
        part = slice(self.offsets[i], self.offsets[i + 1])
        one = Pattern(float(self.means[i]), self.frequencies[part], self.coefficients[part])
        zone = tuple(int(k) for k in self.zones[i])
        return Entry(self.structures[self.owner[i]], zone, float(self.thickness[i]), one)

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<Library of {len(self)} entries: {len(self.structures)} structures, version {self.version[:12]}>"

    @cached_property
    def version(self) -> str:
        """Digest of the structures, the settings, the entries and the image model."""
        settings = {k: v for k, v in asdict(self.settings).items() if k != "assumed"}
        entries = [self.owner.tolist(), self.zones.tolist(), self.thickness.tolist()]
        return digest(IMAGE_MODEL, settings, [document(s) for s in self.structures], entries)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A line an entry: structure, formula, prototype, space_group, zone, thickness [m]."""
        import pandas as pd

        owners = [self.structures[i] for i in self.owner]
        return pd.DataFrame(
            {
                "structure": [s.name for s in owners],
                "formula": [s.formula for s in owners],
                "prototype": [s.prototype for s in owners],
                "space_group": [s.space_group for s in owners],
                "zone": [tuple(z) for z in self.zones.tolist()],
                "thickness": self.thickness,
            }
        )

    def subset(self, which: Sequence[int] | np.ndarray) -> Library:
        """Library of the entries that a list of numbers, or a mask, picks; structures without entries are left out."""
        which = np.asarray(which)
        which = np.flatnonzero(which) if which.dtype == bool else which.astype(np.int64)
        kept, owner = np.unique(self.owner[which], return_inverse=True)
        counts = np.diff(self.offsets)[which]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.offsets[which] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Library(
            tuple(self.structures[i] for i in kept),
            self.settings,
            owner.astype(np.int32),
            self.zones[which],
            self.thickness[which],
            self.means[which],
            offsets,
            self.frequencies[places],
            self.coefficients[places],
        )


def library(
    sources: Any = "prototypes",
    *,
    zones: int | Sequence[tuple[int, int, int]] = 1,
    acquisition: Acquisition | Micrograph | None = None,
    voltage: float | None = None,
    thickness: float | Sequence[float] = 20e-9,
    outer_collection_angle: float | None = None,
    source_size: float | None = None,
    folder: str | os.PathLike | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Library:
    """Simulate crystals along their zone axes.

    Parameters
    ----------
    sources : one or many
        "prototypes" (pymatgen's AFLOW set), "crystals" (the twin's), names of either, CIF files, folders or patterns of
        them, a formula ("SrHfO3") or elements ("Sr-Ti-O") that prototypes are decorated with, pymatgen structures.
    zones : int, or zone axes
        Highest index; or the directions [uvw] themselves, for every structure.
    acquisition : Acquisition or Micrograph, optional
        The shot's own convergence and inner collection angle are used, of a micrograph also its voltage and outer
        angle. What is not known is assumed, and ``library.settings.assumed`` says so.
    voltage : float, optional
        [V]
    thickness : float or several
        [m]
    outer_collection_angle : float, optional
        [rad]
    source_size : float, optional
        Diameter (FWHM) of the source's image in the specimen [m].
    folder : path, optional
        Where each structure's entries are kept as soon as they are made. The same call goes on where it was stopped,
        and another one makes only what is not there.
    workers : int
        Structures made at a time.
    scheduler : str, optional
        Address of a dask scheduler whose workers make them instead.
    progress : function, optional
        Called as ``progress(done, total)``, in structures.

    Raises
    ------
    OutOfRangeError
        A source is unknown, a zone axis is none, or settings are impossible.
    UnreadableFileError
        A CIF file cannot be read.
    """
    settings = settings_of(acquisition, zones, thickness, voltage, outer_collection_angle, source_size)
    structures = find_structures(sources)
    parts = _made(structures, settings, folder, workers, scheduler, progress)
    return _joined(structures, settings, parts)


def document(structure: Structure) -> dict:
    """A structure as JSON holds it."""
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(structure).items()}


def simulate(structure: Structure, settings: Settings) -> tuple[dict, list[np.ndarray]]:
    """All entries of one structure: zones, thicknesses, means and sizes; frequencies and coefficients."""
    if isinstance(settings.zones, int):
        zones = zone_axes(structure, settings.zones, both_sides=True)
    else:
        zones = [(0, 0, 1)] if structure.layers else list(settings.zones)
    record: dict[str, list] = {"zones": [], "thickness": [], "means": [], "sizes": []}
    frequencies, coefficients = [], []
    for zone in zones:
        projection = project(structure, zone)
        thicknesses = settings.thickness
        if structure.layers:
            thicknesses = (structure.layers * projection.period * 1e-10,)
        for thickness in thicknesses:
            angles = settings.inner_collection_angle, settings.outer_collection_angle
            one = pattern(projection, settings.optics, *angles, thickness * 1e10)
            record["zones"].append(list(zone))
            record["thickness"].append(thickness)
            record["means"].append(one.mean)
            record["sizes"].append(len(one.coefficients))
            frequencies.append(one.frequencies)
            coefficients.append(one.coefficients)
    return record, [np.concatenate(frequencies), np.concatenate(coefficients)]


def _made(
    structures: list[Structure],
    settings: Settings,
    folder: Any,
    workers: int,
    scheduler: str | None,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[dict, list[np.ndarray]]]:
    """`simulate` of every structure, from the folder where it is there."""
    from ..jobs import cluster, in_turn

    said = {k: v for k, v in asdict(settings).items() if k != "assumed"}
    keys = [digest(IMAGE_MODEL, document(s), said) for s in structures]
    kept = None if folder is None else WorkFolder(Path(folder))
    found: dict[int, tuple[dict, list[np.ndarray]]] = {}
    report = progress or (lambda done, total: None)

    def arrived(i: int, result: tuple[dict, list[np.ndarray]]) -> None:
        found[i] = result
        if kept is not None:
            kept.write(keys[i], *result)
        report(len(found), len(structures))

    if kept is not None:
        kept.lock()
    try:
        for i, key in enumerate(keys if kept is not None else ()):
            there = kept.read(key)
            if there is not None:
                found[i] = there, [np.array(kept.array(key, k)) for k in range(2)]
        report(len(found), len(structures))
        todo = [i for i in range(len(structures)) if i not in found]
        if scheduler is None and workers <= 1:
            for i in todo:
                arrived(i, simulate(structures[i], settings))
        elif todo:
            token = uuid.uuid4().hex
            with cluster(scheduler, workers, lambda: None) as client:
                for i, result in in_turn(
                    client, todo, lambda i, key: client.submit(simulate, structures[i], settings, key=key), token
                ):
                    if result == "killed":
                        raise OutOfRangeError(f"{structures[i].name}: its simulation ended the workers: too large?")
                    arrived(i, result)
    finally:
        if kept is not None:
            kept.unlock()
    return [found[i] for i in range(len(structures))]


def _joined(structures: Iterable[Structure], settings: Settings, parts: list[tuple[dict, list]]) -> Library:
    records = [record for record, _ in parts]
    sizes = np.concatenate([r["sizes"] for r in records]).astype(np.int64)
    return Library(
        tuple(structures),
        settings,
        np.repeat(np.arange(len(parts), dtype=np.int32), [len(r["sizes"]) for r in records]),
        np.concatenate([r["zones"] for r in records]).astype(np.int16),
        np.concatenate([r["thickness"] for r in records]),
        np.concatenate([r["means"] for r in records]).astype(np.float32),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([arrays[0] for _, arrays in parts]).astype(np.float32).reshape(-1, 2),
        np.concatenate([arrays[1] for _, arrays in parts]).astype(np.complex64),
    )
