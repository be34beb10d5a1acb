"""The page that raters open: one file with everything in it, and nothing that tells the methods apart.

The page holds the pictures, each once, under names drawn at random and sorted by them, as base64 of plain 8-bit values:
pictures of one shape have one length. Every showing of a picture has a name of its own, used once in the whole page, so
that a catch trial's picture, shown seldom, or a repeat does not stand out in the lists of trials. Which names are the
same picture is written in a table sorted by these names; who follows it, or compares bytes, learns how often a picture
is shown, which by the design does not depend on the method. (With `catch_trials` of one's own it can: the pictures of a
method that serves there are shown more often.)

What is left is what the pictures show. A reader of the page's text can compute from that whatever the eye sees, and
more: how noisy a picture is, or of how few grey levels. No page can hide what it displays.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from importlib import resources
from random import Random
from typing import Any

import numpy as np

from .config import StudyConfig
from .design import Assignment

__all__ = ["build_page"]

Shown = tuple[Hashable, Hashable, Hashable | None]
"""Pictures of one trial: left, right and the reference."""


def build_page(
    config: StudyConfig,
    study: str,
    assignments: Sequence[Assignment],
    shown: Mapping[str, Shown],
    pictures: Mapping[Hashable, np.ndarray],
    random: Random,
) -> tuple[str, str]:
    """Text of the page, and the digest of its lists of trials.

    Parameters
    ----------
    config : StudyConfig
    study : str
        Name of the study, hexadecimal.
    assignments : sequence of Assignment
    shown : mapping of str to (left, right, reference)
        By the id of a trial, the keys of its pictures.
    pictures : mapping of key to (h, w) uint8
    random : random.Random
        Names of pictures are drawn from it.
    """
    names = _names(len(pictures) + 3 * len(shown), random)
    called = dict(zip(pictures, names))
    free = iter(names[len(pictures) :])
    uses: dict[str, str] = {}

    def use(key: Hashable | None) -> str | None:
        if key is None:
            return None
        name = next(free)
        uses[name] = called[key]
        return name

    lists = {a.code: [[t.id, *map(use, shown[t.id])] for t in a.trials] for a in assignments}
    lists = {code: lists[code] for code in sorted(lists)}
    uses = dict(sorted(uses.items()))
    digest = hashlib.sha256(_json({"lists": lists, "uses": uses}).encode()).hexdigest()
    shapes = {called[key]: list(grey.shape) for key, grey in pictures.items()}
    data = {"study": study, "page": digest, "lists": lists, "uses": uses, "shapes": dict(sorted(shapes.items()))}
    blobs = {called[key]: base64.b64encode(np.ascontiguousarray(grey)).decode() for key, grey in pictures.items()}
    return _fill(config, data, blobs), digest


def _fill(config: StudyConfig, data: dict[str, Any], blobs: dict[str, str]) -> str:
    """The parts of the page put together."""
    folder = resources.files(__package__)
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = "".join((folder / name).read_text(encoding="utf-8") for name in ("view.js", "keep.js", "page.js"))
    # Only this style and this script may act, and nothing may be fetched from anywhere.
    policy = f"default-src 'none'; base-uri 'none'; style-src {_source(style)}; script-src {_source(script)}"
    paragraphs = [part for part in re.split(r"\n\s*\n", config.instructions.strip()) if part.strip()]
    parts = {
        "policy": policy,
        "style": style,
        "script": script,
        "title": html.escape(config.title),
        "question": html.escape(config.question),
        "instructions": "\n".join(f"<p>{html.escape(part.strip())}</p>" for part in paragraphs),
        "data": _json(data).replace("<", "\\u003c"),
        "pictures": "\n".join(
            f'<script type="text/plain" id="p{name}">{blobs[name]}</script>' for name in sorted(blobs)
        ),
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)


def _names(count: int, random: Random) -> list[str]:
    """Different names of twelve hexadecimal digits, in no order."""
    names: dict[str, None] = {}
    while len(names) < count:
        names[f"{random.getrandbits(48):012x}"] = None
    return list(names)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
