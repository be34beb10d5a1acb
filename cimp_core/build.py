"""From files of a microscope to a data set: every HAADF-STEM image that can be read, and why the others cannot."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from . import __version__
from .build_images import SERIES, digest_pixels, take
from .build_report import BuildReport, make_table, write_reports
from .dataset_writer import write_dataset
from .errors import CimpError, OutOfRangeError
from .inputs import READ_WITH_EMI, Inputs, list_inputs
from .jobs import FileJob, Limits
from .microscope.record import Evidence, accept
from .microscope.tia import NUMBERED

__all__ = ["BuildReport", "build_dataset"]


@dataclass
class Image:
    """One image of one file, or a file that gave none (`number` is then None), on its way to the table."""

    file: str
    status: str  # "taken", "left out" or "duplicate"
    reason: str = ""
    number: int | None = None
    name: str = ""  # in the data set
    row: int | None = None  # first of its rows in the data set
    record: Mapping[str, Any] | None = None  # as `take` gives it
    pixels: Callable[[], np.ndarray] | None = None  # gives (rows, h, w), mapped from the disk


def build_dataset(
    patterns: str | os.PathLike | Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    series: str = "frames",
    min_dose: float = 0.0,
    anonymise: bool = False,
    override: Mapping[str, float | None] | None = None,
    detector: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    timeout: float | None = None,
    memory: int | None = 4 * 2**30,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Make a data set, in the published schema, of all HAADF-STEM images among many files.

    Rows come in the order of path, image and frame: the same drive gives the same bytes, however many workers. Pixels
    stay uint16 where they are; smaller integers become uint16 where that is exact, everything else float32. An image
    that is there twice, pixel for pixel, is taken once: the copy with more known settings. While it runs, results are
    kept in ``<out>.work``, as large as the data set; after an interruption the same call goes on from there.

    Parameters
    ----------
    patterns : one or many
        Globs such as ``"drive/**/*"``, folders (with all that is in them) or files.
    out : path
        The .h5 to write; beside it come ``.report.csv`` and ``.report.html``.
    series : {"frames", "mean", "first"}
        What becomes of a series: a row a frame; one row, the mean, as float32; its first frame. The mean of frames of
        a detector that averages over the dwell time is what frames x dwell time would have given; that is then its
        dwell time.
    min_dose : float
        Leave out images known to have had fewer electrons per pixel (current x dwell time / e).
    anonymise : bool
        Write names such as ``session_0001/000001.emd``. Only the report beside then tells which file is which.
    override, detector
        As for `cimp_core.read`, for every file.
    scheduler : str, optional
        Address of a dask scheduler; its workers must see the same files at the same paths.
    workers : int, optional
        Files read at a time on this machine; one a processor by default.
    timeout : float, optional
        Longest time for one file [s]; by default 30 s and 1 s for every 5 MB.
    memory : int or None
        Largest memory of one reader process [bytes].
    force : bool
        Replace `out` and its reports.
    progress : function, optional
        Called as ``progress(done, total)`` after each file.

    Returns
    -------
    BuildReport
        What became of every file.

    Raises
    ------
    CimpError
        `out` exists, another build of it runs, a pattern matches nothing, no image could be taken, or no room is left.
    OutOfRangeError
        An option is impossible.
    """
    out = Path(out)
    _check_options(out, series, min_dose, override)
    reports = {kind: out.with_name(f"{out.stem}.report.{kind}") for kind in ("csv", "html")}
    work = out.with_name(f"{out.name}.work")
    _refuse_existing(out, reports, work, force)
    inputs = list_inputs(patterns, own=[out, *reports.values(), work])
    options = {"series": series, "override": dict(override or {}), "detector": detector}
    with FileJob(work, take, inputs.sources, options, Limits(timeout, memory)) as job:
        _refuse_existing(out, reports, work, force)  # another build may have ended since
        job.run(workers, scheduler, progress)
        images = _images(job, inputs)
        _leave_out_duplicates(images)
        _leave_out_faint(images, min_dose)
        taken = _place(images, anonymise)
        table = make_table(images)
        about = {"series": series, "min_dose": min_dose, "anonymised": anonymise, "version": __version__}
        drafts = {kind: work / f"report.{kind}" for kind in reports}
        write_reports(table, drafts, out.name, about)
        if not taken:
            _publish(drafts, reports)
            raise CimpError(f"{out}: no image could be taken; {reports['html']} says why of each file")
        unfinished = work / "dataset.h5"
        _write(unfinished, taken, min_dose, {"series": series, "cimp_version": __version__})
        _publish(drafts, reports)
        os.replace(unfinished, out)
        job.remove()
    return BuildReport(table, out, reports["csv"], reports["html"])


def _images(job: FileJob, inputs: Inputs) -> list[Image]:
    """Every image and every file without one, in the order of their names."""
    images, unread = [], set()
    for result in job.results():
        if result.failed is not None:
            unread.add(os.path.splitext(result.source.name)[0])
            images.append(Image(result.source.name, "left out", " ".join(result.failed.split())))
            continue
        for number, record in enumerate(result.record["images"]):
            image = Image(result.source.name, "taken", number=number, record=record)
            if record["fault"]:
                image.status, image.reason = "left out", record["fault"]
            else:
                image.pixels = partial(result.array, record["array"])
            images.append(image)
    for name, reason in inputs.refused.items():
        if reason == READ_WITH_EMI and NUMBERED.fullmatch(name)[1] in unread:
            reason = "its .emi cannot be read; name this .ser alone as the input, and it is taken without settings"
        images.append(Image(name, "left out", reason))
    return sorted(images, key=lambda image: (image.file, image.number or 0))


def _leave_out_duplicates(images: list[Image]) -> None:
    """Of equal pixels keep the copy with more known settings, and of these the first."""
    best: dict[str, Image] = {}
    taken = [image for image in images if image.status == "taken"]
    for image in sorted(taken, key=lambda image: len(image.record["missing"])):
        first = best.setdefault(image.record["digest"], image)
        if first is not image:
            which = f", image {first.number}" if first.number else ""
            image.status, image.reason = "duplicate", f"duplicate of {first.file}{which}"


def _leave_out_faint(images: list[Image], min_dose: float) -> None:
    for image in images:
        dose = image.record["dose"] if image.status == "taken" else None
        if dose is not None and dose < min_dose:
            image.status, image.reason = "left out", f"{dose:.3g} electrons per pixel, fewer than {min_dose:g}"


def _place(images: list[Image], anonymise: bool) -> list[Image]:
    """Give the images that are taken their names and rows; return them."""
    taken, row = [image for image in images if image.status == "taken"], 0
    sessions: dict[PurePosixPath, int] = {}
    files: dict[str, int] = {}
    for image in taken:
        path = PurePosixPath(image.file)
        session = sessions.setdefault(path.parent, len(sessions) + 1)
        number = files.setdefault(image.file, len(files) + 1)
        hidden = f"session_{session:04d}/{number:06d}{path.suffix.lower()}"
        image.name, image.row = hidden if anonymise else image.file, row
        row += image.record["shape"][0]
    return taken


def _publish(parts: Mapping[str, Path], reports: Mapping[str, Path]) -> None:
    for kind, part in parts.items():
        os.replace(part, reports[kind])


def _write(out: Path, taken: list[Image], min_dose: float, attributes: Mapping[str, object]) -> None:
    """Write the data set, not yet at its place."""
    needed = sum(image.record["bytes"] for image in taken) + 2000 * len(taken)
    if (free := shutil.disk_usage(out.parent).free) < needed:
        raise CimpError(
            f"{out}: needs {needed / 1e9:.3g} GB, free are {free / 1e9:.3g}; make room, then the same command goes on"
        )
    rows = [(image, frame) for image in taken for frame in range(image.record["shape"][0])]
    write_dataset(
        out,
        _pixels(taken),
        np.array([image.record["values"] for image, _ in rows], dtype=float),
        [image.name for image, _ in rows],
        frame_indices=[frame for _, frame in rows],
        total_frames=[1 if attributes["series"] == "mean" else image.record["frames"] for image, _ in rows],
        intensity=[image.record["intensity"] for image, _ in rows],
        dose_threshold=min_dose,
        attributes=attributes,
        force=True,
    )


def _pixels(taken: list[Image]) -> Iterator[np.ndarray]:
    for image in taken:
        pixels = image.pixels()
        if digest_pixels(pixels) != image.record["digest"]:
            raise CimpError(f"{image.file}: its stored pixels are damaged; remove the .work folder and build again")
        yield from pixels


def _check_options(out: Path, series: str, min_dose: float, override: Mapping[str, float | None] | None) -> None:
    if out.suffix not in (".h5", ".hdf5"):
        raise OutOfRangeError(f"{out}: a data set is written as .h5")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise CimpError(f"{out.parent}: no such folder, or you may not write in it")
    if out.is_dir():
        raise CimpError(f"{out}: this is a folder; name the file to write")
    if series not in SERIES:
        raise OutOfRangeError(f"series is {series!r}: choose one of {', '.join(SERIES)}")
    if not (math.isfinite(min_dose) and min_dose >= 0):
        raise OutOfRangeError(f"min_dose is {min_dose}: give a number of electrons per pixel, 0 to take everything")
    accept(Evidence("other"), override)  # raises now, not once a file, where a value is impossible


def _refuse_existing(out: Path, reports: Mapping[str, Path], work: Path, force: bool) -> None:
    if force:
        return
    how = "choose another name, or replace it with force=True (--force)"
    if out.exists():
        left = f"; {work} is left of a build and may be removed" if work.exists() else ""
        raise CimpError(f"{out}: exists already; {how}{left}")
    # A report alone may be the only key to a data set that was moved elsewhere; beside a work folder it is our own.
    for report in reports.values():
        if report.exists() and not work.exists():
            raise CimpError(f"{report}: the report of another build exists already; {how}")
