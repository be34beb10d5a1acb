"""From a study's description to its page and its key.

Everything random is drawn by the seed together with the bytes of all picture files, so that the same study comes out of
the same input, while a rater who has this program and guesses the seed cannot draw the sides again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ..errors import CimpError, OutOfRangeError, SchemaError
from .config import StudyConfig, config_digest, read_config
from .design import BETTER, WORSE, CatchItem, Trial, make_design
from .page import Shown, build_page
from .pictures import SMALLEST, check_stems, find_pictures, load_picture, spoil

__all__ = ["KEY", "PAGE", "RESULTS", "Study", "check_free", "make_study", "write_study"]

PAGE, KEY, RESULTS = "study.html", "key.json", "results"
"""Names in the folder of a study: what raters get, what they never get, and where their result files go."""

LARGE, TOO_LARGE = 50e6, 200e6  # size of the page from which it warns, and refuses [bytes]
_REFERENCE = "reference"

Files = dict[tuple[str, str], Path]
"""Picture files by (role, image); a role is the name of a method, BETTER, WORSE or the reference."""


@dataclass(frozen=True)
class Study:
    """A finished study, not yet written."""

    page: str
    key: dict[str, Any]
    warnings: tuple[str, ...]


def make_study(path: str | Path) -> Study:
    """The study that a file describes.

    Parameters
    ----------
    path : str or Path
        See `config.StudyConfig`; folders in it are relative to it.

    Raises
    ------
    CimpError
        Says what is wrong, and with which file.
    """
    config, root = read_config(path), Path(path).absolute().parent
    files, images, items = _find(config, root)
    settings = config.without_folders()
    digest = config_digest(settings)
    secret = hashlib.sha256(digest.encode())
    for role, image in sorted(files):
        held = hashlib.sha256(files[role, image].read_bytes()).hexdigest()
        secret.update(json.dumps([role, image, held]).encode())
    seed = secret.hexdigest()
    assignments = make_design(
        images,
        list(config.methods),
        raters=config.raters,
        trials=config.trials,
        repeats=config.repeats,
        catch=config.catch,
        catch_items=items,
        random=Random(f"design {seed}"),
    )
    shown = {trial.id: _shown(trial, config) for a in assignments for trial in a.trials}
    pictures, warnings = _load(config, files, shown, seed)
    study = hashlib.sha256(f"study {seed}".encode()).hexdigest()[:16]
    page, lists = build_page(config, study, assignments, shown, pictures, Random(f"page {seed}"))
    key = {
        "format": 1,
        "study": study,
        "config": settings,
        "digest": digest,
        "page": lists,
        "methods": list(config.methods),
        "images": images,
        "assignments": [{"code": a.code, "trials": [_entry(t) for t in a.trials]} for a in assignments],
    }
    warnings += _named(config, images)
    if len(page) > LARGE:
        warnings.append(f"the page has {len(page) / 1e6:.0f} MB, slow to open on a tablet; {_smaller(len(pictures))}")
    return Study(page, key, tuple(warnings))


def check_free(out: Path, force: bool = False) -> None:
    """Refuse a folder that holds a study, unless `force` is true."""
    if out.exists() and not out.is_dir():
        raise CimpError(f"{out}: a study is several files; name a folder")
    there = [path for path in (out / PAGE, out / KEY) if path.exists()]
    if there and not force:
        raise CimpError(f"{there[0]} exists; choose another folder, or --force to overwrite it")


def write_study(study: Study, out: Path, force: bool = False) -> None:
    """Write the page, the key and an empty folder for results.

    Raises
    ------
    CimpError
        A file exists and `force` is false, results of another study lie there, or the folder cannot be written to.
    """
    check_free(out, force)
    kept = list((out / RESULTS).glob("*.json"))
    if kept and _study_of(out / KEY) != study.key["study"]:
        raise CimpError(
            f"{out / RESULTS} holds {len(kept)} result files of another study, worth nothing without its key: "
            "choose another folder"
        )
    try:
        (out / RESULTS).mkdir(parents=True, exist_ok=True)
        _write(out / KEY, json.dumps(study.key, indent=1, ensure_ascii=False) + "\n")
        _write(out / PAGE, study.page)
    except OSError as error:
        raise CimpError(f"{out}: cannot be written ({error.strerror or error})") from error


def _find(config: StudyConfig, root: Path) -> tuple[Files, list[str], list[CatchItem] | None]:
    """All picture files, the images to be judged, and the images of catch trials where they are not made here."""
    methods = {name: find_pictures(pattern, root, name) for name, pattern in config.methods.items()}
    check_stems(methods)
    images = list(next(iter(methods.values())))
    files = {(name, image): path for name, found in methods.items() for image, path in found.items()}
    places = {}
    for (name, _), path in files.items():
        if (other := places.setdefault(path.resolve(), name)) != name:
            raise SchemaError(f"{path} belongs to both {other} and {name}; a picture cannot be compared with itself")
    wanted, items = set(images), None
    if config.catch and config.catch_trials:
        sides = {}
        for role, pattern in ((BETTER, config.catch_trials.better), (WORSE, config.catch_trials.worse)):
            sides[role] = methods.get(pattern) or find_pictures(pattern, root, role)
            files |= {(role, image): path for image, path in sides[role].items()}
        both = [image for image in sides[BETTER] if image in sides[WORSE]]
        items = [CatchItem(image) for image in both]
        wanted |= set(both)
    if config.reference:
        found = find_pictures(config.reference, root, _REFERENCE)
        check_stems({"the study": wanted, _REFERENCE: found.keys() & wanted})
        files |= {(_REFERENCE, image): found[image] for image in wanted}
    return files, images, items


def _shown(trial: Trial, config: StudyConfig) -> Shown:
    """Keys of a trial's pictures: (role, image), with the method as a third part where a picture is made here."""

    def key(role: str) -> tuple[str, ...]:
        if trial.kind != "catch":
            return role, trial.image
        if trial.source is not None:  # the better one is the method's own, which the page then holds once
            return (trial.source, trial.image) if role == BETTER else (WORSE, trial.image, trial.source)
        named = getattr(config.catch_trials, "better" if role == BETTER else "worse")
        return (named if named in config.methods else role), trial.image

    reference = (_REFERENCE, trial.image) if config.reference else None
    return key(trial.left), key(trial.right), reference


def _load(
    config: StudyConfig, files: Files, shown: dict[str, Shown], seed: str
) -> tuple[dict[tuple[str, ...], np.ndarray], list[str]]:
    """The pictures that are shown, in a fixed order, and what to warn of."""
    keys = sorted({key for trial in shown.values() for key in trial if key is not None}, key=lambda k: (len(k), *k))
    pictures: dict[tuple[str, ...], np.ndarray] = {}
    first: dict[str, tuple[Path, tuple[int, int]]] = {}
    size = 0
    for key in keys:
        if len(key) == 3:
            pictures[key] = spoil(pictures[key[2], key[1]], f"{seed} {key}")
        else:
            path, image = files[key], key[1]
            pictures[key], shape = load_picture(path, config.display.low, config.display.high, config.crop)
            other, expected = first.setdefault(image, (path, shape))
            if shape != expected:
                raise OutOfRangeError(
                    f"{path} has {shape[0]} x {shape[1]} pixels and {other} {expected[0]} x {expected[1]}: "
                    "pictures of one image must show the same area in the same size"
                )
        size += pictures[key].size * 4 / 3
        if size > TOO_LARGE:
            expect = size / len(pictures) * len(keys) / 1e6
            raise OutOfRangeError(f"the page would have {expect:.0f} MB, too much to open; {_smaller(len(keys))}")
    return pictures, _alike(shown, pictures)


def _alike(shown: dict[str, Shown], pictures: dict[tuple[str, ...], np.ndarray]) -> list[str]:
    """Warnings of pictures that are the same, though their files are not."""
    found = {}
    for left, right, reference in shown.values():
        a, b = sorted((left, right))
        if np.array_equal(pictures[a], pictures[b]):
            found[f"{a[1]}: {a[0]} and {b[0]} are the same picture"] = None
        for side in (a, b):
            if reference is not None and np.array_equal(pictures[side], pictures[reference]):
                found[f"{side[0]} is the same as the reference, so raters can recognise it"] = None
    return sorted(found)


def _named(config: StudyConfig, images: list[str]) -> list[str]:
    """Warnings of texts on the page that name a method or an image."""
    text = " ".join((config.title, config.question, config.instructions))
    names = [n for n in (*config.methods, *images) if len(n) > 2 and re.search(rf"\b{re.escape(n)}\b", text, re.I)]
    return [f"title, question or instructions say {name!r}, a name that raters should not see" for name in names]


def _smaller(count: int) -> str:
    side = int((LARGE * 3 / 4 / count) ** 0.5) // 16 * 16
    return f"'crop: {max(SMALLEST, side)}' in the settings keeps the middle of each picture; or take fewer images"


def _entry(trial: Trial) -> dict[str, Any]:
    return {name: value for name, value in asdict(trial).items() if name != "source"}


def _study_of(key: Path) -> str | None:
    try:
        return json.loads(key.read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, text: str) -> None:
    """Write beside `path`, then in its place; bytes, so that line ends are the same everywhere."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        part.write_bytes(text.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
