"""What an audit found: a list of images, as a table, CSV, JSON, and one page that needs nothing else."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CimpError
from ..metadata import PARAMETERS
from .verdict import ImageAudit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FILES", "AuditReport"]

FILES = ("index.html", "audit.csv", "audit.json")
"""What `AuditReport.write` makes."""

_PAIRS = ("predicted", "likely")


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Parameters
    ----------
    images : list of ImageAudit
        In the order of the files.
    failed : dict of str to str
        Files that gave no image, with the reason.
    about : dict
        ``level``, ``calibration``, ``sessions`` and ``warnings``: what holds of the p-values, and what does not.
    """

    images: list[ImageAudit]
    failed: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[ImageAudit]:
        return iter(self.images)

    def __getitem__(self, i: int) -> ImageAudit:
        return self.images[i]

    def __repr__(self) -> str:
        said = ", ".join(f"{n} {verdict}" for verdict, n in self.counts.items())
        return f"<AuditReport of {len(self)} images: {said}; {len(self.failed)} files not read>"

    @property
    def counts(self) -> dict[str, int]:
        """Images of each verdict."""
        return {v: sum(a.verdict == v for a in self.images) for v in ("disagrees", "cannot tell", "agrees")}

    @property
    def table(self) -> pd.DataFrame:
        """One line an image, SI units: verdict, p, reasons, and of each setting what `SettingAudit` has."""
        import pandas as pd

        return pd.DataFrame([_line(image) for image in self.images], columns=_columns())

    def to_json(self) -> dict[str, Any]:
        """All of it but the pictures, of what JSON can hold."""
        return {
            **self.about,
            "counts": self.counts,
            "images": [_plain(image) for image in self.images],
            "failed": dict(self.failed),
        }

    def write(self, folder: str | os.PathLike, *, force: bool = False) -> Path:
        """Write `FILES` into a folder, each at once; returns the page.

        Raises
        ------
        CimpError
            One of them exists and `force` is false, or the folder cannot be written to.
        """
        from .page import page

        folder = Path(folder)
        check_folder(folder, force)
        texts = {
            "audit.csv": self.table.to_csv(index=False, lineterminator="\n"),
            "audit.json": json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            "index.html": page(self),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                part = folder / f".{name}.{uuid.uuid4().hex}.part"
                try:
                    part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
                    os.replace(part, folder / name)
                finally:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise CimpError(f"{folder}: cannot be written ({error.strerror or error})") from error
        return folder / "index.html"


def check_folder(folder: Path, force: bool) -> None:
    """Raise where a report would overwrite another, or has no folder to go to."""
    if folder.exists() and not folder.is_dir():
        raise CimpError(f"{folder}: a report is several files; name a folder")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise CimpError(f"{folder / there[0]}: exists already; choose another folder, or replace it with --force")


def _columns() -> list[str]:
    heads = ["file", "image", "title", "verdict", "p", "reasons", "doubted"]
    own = ("recorded", "verdict", "why", "residual", "residual_given", "p", "p_family")
    heads += [f"{n}.{part}" for n in PARAMETERS for part in (*own, *(f"{p}{e}" for p in _PAIRS for e in _ENDS))]
    checks = ("clipped", "levels", "resampled", "contrast", "like", "duplicate")
    return heads + [f"{name}.{part}" for name in checks for part in ("verdict", "p", "why")]


_ENDS = ("", ".low", ".high")


def _line(image: ImageAudit) -> dict[str, Any]:
    line = {"file": image.file, "image": image.number, "title": image.title, "verdict": image.verdict, "p": image.p}
    line |= {"reasons": "; ".join(image.reasons), "doubted": "; ".join(image.doubted)}
    for name, setting in image.settings.items():
        for part, value in asdict(setting).items():
            if part in _PAIRS:
                shown: Sequence = (None,) * 3 if value is None else value
                line |= {f"{name}.{part}{end}": v for end, v in zip(_ENDS, shown, strict=True)}
            else:
                line[f"{name}.{part}"] = value
    for name, check in image.checks.items():
        line |= {f"{name}.{part}": value for part, value in asdict(check).items()}
    return line


def _plain(image: ImageAudit) -> dict[str, Any]:
    out = {"file": image.file, "image": image.number, "title": image.title, "verdict": image.verdict, "p": image.p}
    out |= {"reasons": list(image.reasons), "doubted": list(image.doubted), "notes": list(image.notes)}
    out["settings"] = {name: _finite(asdict(setting)) for name, setting in image.settings.items()}
    out["checks"] = {name: _finite(asdict(check)) for name, check in image.checks.items()}
    return out


def _finite(values: Any) -> Any:
    """The same with ``None`` for numbers that JSON has not."""
    if isinstance(values, dict):
        return {k: _finite(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(v) for v in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
