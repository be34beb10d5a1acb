"""Recordings to judge denoisers by, with what every method is compared with: made once, kept in a folder.

Images are of materials that no network has seen in training, one a session as far as there are enough. Kinds:

- ``dose``: the main table, at nine doses from 0.5 to 500 electrons at the bright pixel, dwell time 1 us or more;
- ``short``: other dwell times of 0.1 to 1 us, where after-glow makes streaks and rows are displaced;
- ``vacuum`` and ``even``: the same settings without specimen, and with an even one: nothing is there to be seen.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..dataset import Dataset
from ..denoising.pairs import low_dose, virtual_truth
from ..digital_twin import scan_of
from ..errors import OutOfRangeError, SchemaError
from ..metadata import Acquisition
from ..metrics_denoising import affine_error
from ..simulate.detector import record
from ..simulate.instruments import Shot

__all__ = ["DOSES", "FACTORS", "LADDER", "Case", "Cases", "chosen_images", "make_cases"]

DOSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 250.0, 500.0)
"""Detected electrons at the bright pixel of the main table."""
SHORT_DOSES = (1.0, 4.0, 16.0, 64.0)
FLAT_DOSES = (1.0, 4.0, 16.0, 64.0)
LADDER = tuple(2.0**k for k in range(11))
"""Factors of the dose at which raw recordings are made to compare with."""
FACTORS = (4.0, 16.0, 64.0)
"""Dose factors for which there is a truth."""


@dataclass(frozen=True)
class Case:
    """One recording and all that is known of it."""

    key: str
    kind: str
    image: int  # of the data set
    session: str
    material: str
    electrons: float
    shot: Shot
    fraction: np.ndarray  # (h, w) float32
    acquisition: Acquisition
    frame: np.ndarray  # (h, w) float32 counts
    raw_errors: dict[float, np.ndarray]  # dose factor -> errors of raw recordings at `LADDER`

    def truth(self, factor: float) -> np.ndarray:
        """Expected counts (h, w) at `factor` times the dwell time."""
        return virtual_truth(self.shot, self.fraction, self.acquisition, factor)

    @property
    def scan(self) -> str:
        """Cases of one scan share the beam's positions and the dwell time."""
        return f"{self.kind}_{self.image}"


class Cases:
    """The cases of a folder, each loaded when it is asked for.

    Parameters
    ----------
    folder : path
        Of `make_cases`.
    keys : sequence of str, optional
        Some of them, in this order.
    """

    def __init__(self, folder: str | os.PathLike, keys: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        index = self.folder / "cases.json"
        if not index.exists():
            raise SchemaError(f"{self.folder}: no cases, or not complete; call make_cases")
        self._about = json.loads(index.read_text())
        self.keys = list(self._about["cases"]) if keys is None else list(keys)
        self._scans: dict[str, tuple[np.ndarray, Shot]] = {}  # one: cases of a scan follow one another

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Case]:
        return map(self.load, self.keys)

    @property
    def twin_version(self) -> str | None:
        """Version of the twin that they were made from."""
        return self._about["twin_version"]

    def about(self, key: str) -> dict:
        """``kind``, ``image``, ``session``, ``material``, ``electrons`` of a case, without loading it."""
        return self._about["cases"][key]

    def of(self, *, kinds: Sequence[str] = (), doses: Sequence[float] = (), images: int | None = None) -> Cases:
        """Those of some kinds, of some doses, of the first `images` images of each kind."""
        kept, seen = [], {}
        for key in self.keys:
            about = self.about(key)
            if (kinds and about["kind"] not in kinds) or (doses and about["electrons"] not in doses):
                continue
            first = seen.setdefault(about["kind"], {})
            first.setdefault(about["image"], len(first))
            if images is None or first[about["image"]] < images:
                kept.append(key)
        return Cases(self.folder, kept)

    def load(self, key: str) -> Case:
        """One case; the scan that it shares with other doses is kept until another one is asked for."""
        about = self.about(key)
        scan = f"{about['kind']}_{about['image']}"
        if scan not in self._scans:
            self._scans.clear()
            with np.load(self.folder / f"{scan}.npz") as file:
                self._scans[scan] = file["fraction"], Shot.from_dict(json.loads(str(file["shot"])))
        fraction, shot = self._scans[scan]
        with np.load(self.folder / f"{key}.npz") as file:
            settings = Acquisition.from_vector(file["acquisition"])
            errors = dict(zip(FACTORS, file["raw_errors"], strict=True))
            frame = file["frame"].astype(np.float32)
        facts = {name: about[name] for name in ("kind", "image", "session", "material", "electrons")}
        return Case(key, **facts, shot=shot, fraction=fraction, acquisition=settings, frame=frame, raw_errors=errors)


def chosen_images(data: Dataset, images: int, seed: int = 0, contrast: float = 0.02) -> list[int]:
    """Positions in `data` of images with something to see, from as many sessions as possible, in random order.

    Parameters
    ----------
    contrast : float
        Standard deviation over mean that the fraction reaching the detector must have; what is left out has its own
        kind of cases.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(61,)))
    order = rng.permutation(len(data))
    place, count = np.zeros(len(data), int), {}
    for i in order:  # first one of each session, then the second ones
        session = data.sessions[i]
        place[i] = count[session] = count.get(session, -1) + 1
    chosen = []
    for i in order[np.argsort(place[order], kind="stable")]:
        if len(chosen) == images:
            break
        fraction = scan_of(data, int(i))[1]
        if fraction.std() > contrast * fraction.mean():
            chosen.append(int(i))
    if len(chosen) < images:
        raise OutOfRangeError(
            f"{len(chosen)} images with something to see, {images} wanted: hold out more, ask for less"
        )
    return chosen


def make_cases(
    data: Dataset,
    folder: str | os.PathLike,
    *,
    images: int = 48,
    short: int = 32,
    flat: int = 12,
    doses: Sequence[float] = DOSES,
    seed: int = 0,
) -> Cases:
    """Recordings, truths and the errors of raw recordings at higher dose, for the held-out part of a twin.

    What the folder has already is not made again, so a run that was stopped goes on.

    Parameters
    ----------
    data : Dataset
        Test part of a twin.
    folder : path
        Made if absent. About 0.4 MB a case of 256 x 256 pixels.
    images, short, flat : int
        Images of the main table, of short dwell times, and of each kind without structure.
    doses : sequence of float
        Of the main table.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"images": images, "short": short, "flat": flat, "doses": list(doses), "seed": seed}
    stamp |= {"twin_version": data.attributes.get("twin_version"), "sources": [int(i) for i in data.indices]}
    index = folder / "cases.json"
    if index.exists():
        found = json.loads(index.read_text())
        if {name: found.get(name) for name in stamp} != stamp:
            raise SchemaError(f"{folder}: holds the cases of another choice; name another folder, or remove it")
        return Cases(folder)
    order = chosen_images(data, max(images, short, flat), seed)
    about = {}
    for kind, number, levels in (
        ("dose", images, doses),
        ("short", short, SHORT_DOSES),
        ("vacuum", flat, FLAT_DOSES),
        ("even", flat, FLAT_DOSES),
    ):
        for i in order[:number]:
            about |= _of_image(data, folder, kind, i, levels, seed)
    _write(index, json.dumps(stamp | {"cases": about}).encode())
    return Cases(folder)


def _of_image(data: Dataset, folder: Path, kind: str, i: int, levels: Sequence[float], seed: int) -> dict:
    """All doses of one image of one kind, written; what `Cases.about` tells of each."""
    source = int(data.indices[i])
    facts = {"kind": kind, "image": source, "session": str(data.sessions[i]), "material": str(data.materials[i])}
    keys = {f"{kind}_{source}_{level:g}": level for level in levels}
    files = [folder / f"{key}.npz" for key in keys]
    scan = folder / f"{kind}_{source}.npz"
    if not all(file.exists() for file in [scan, *files]):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(62, len(kind), source)))
        own = data.acquisition(i)
        dwell_time = max(own.dwell_time, 1e-6) if kind != "short" else float(10 ** rng.uniform(-7, -6))
        shot, fraction = scan_of(data, i, own.replace(dwell_time=dwell_time))
        shot = replace(shot, detector=replace(shot.detector, readout="mean"))
        level = {"vacuum": 0.0, "even": float(fraction.mean())}.get(kind)
        seen = fraction if level is None else np.full_like(fraction, level)
        _save(scan, fraction=seen, shot=json.dumps(shot.to_dict()))
        for file, electrons in zip(files, keys.values(), strict=True):
            settings, counts = low_dose(shot, fraction, electrons, dwell_time, rng)
            if level is not None:
                counts = record(seen, settings, shot.detector, rng)
            errors = _ladder(shot, seen, settings, counts, rng) if level is None else np.zeros((len(FACTORS), 11))
            _save(file, frame=counts, acquisition=settings.vector(), raw_errors=errors)
    return {key: facts | {"electrons": float(electrons)} for key, electrons in keys.items()}


def _ladder(
    shot: Shot, fraction: np.ndarray, settings: Acquisition, counts: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Errors (factors, ladder) of raw recordings with longer dwell times; the first is the case's own recording."""
    truths = [virtual_truth(shot, fraction, settings, factor) for factor in FACTORS]
    errors = []
    for k in LADDER:
        longer = settings.replace(dwell_time=k * settings.dwell_time)
        raw = counts if k == 1 else record(fraction, longer, shot.detector, rng)
        errors.append([affine_error(raw, truth) for truth in truths])
    return np.array(errors).T


def _save(path: Path, **arrays: np.ndarray | str) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Readers, and a run that goes on, see a complete file or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
