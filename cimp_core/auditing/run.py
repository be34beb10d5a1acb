"""Audit of images in memory, of a data set, or of a drive: does what is recorded agree with the pictures?"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import Dataset, open_dataset
from ..errors import OutOfRangeError
from ..inputs import READ_WITH_EMI, Inputs, list_inputs
from ..jobs import FileJob, Limits
from ..metadata import PARAMETERS, Acquisition
from .calibration import Calibrations, sessions_needed
from .duplicates import find_duplicates
from .judging import LEVEL, judge
from .lab import calibrate as calibrate_on
from .lab import shipped
from .measuring import Measured, measure
from .report import AuditReport
from .verdict import ImageAudit

if TYPE_CHECKING:
    from ..microscope import Micrograph
    from ..microscope.worker import KillableReader

__all__ = ["audit", "look_at_file"]


def audit(
    shots: Any,
    *,
    calibrate: Dataset | str | os.PathLike | Calibrations | None = None,
    level: float = LEVEL,
    override: Mapping[str, float | None] | None = None,
    detector: str | None = None,
    work: str | os.PathLike | None = None,
    own: Sequence[str | os.PathLike] = (),
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    memory: int | None = 4 * 2**30,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Compare the recorded settings of images with the pictures, and look for pictures that are not as recorded.

    Every recorded value gets a residual, a p-value, calibrated on one image each of many sessions, and a verdict:
    "agrees", "disagrees", or "cannot tell" where the picture does not say enough. An image whose settings are right
    is called "disagrees" with a probability of at most `level`, over its settings and the checks on resampling and
    contrast together, as long as it is of the kind that the calibration is of. The shipped calibration is of simulated
    images: without `calibrate` this does not hold for a real microscope.

    Parameters
    ----------
    shots : path, pattern, Micrograph, Dataset, or a list of paths or of Micrograph
        What `cimp.read` gives, a data set or a view of one, or files, folders and patterns.
    calibrate : Dataset, path or Calibrations, optional
        A data set of one's own, of which one image a session is taken; see `cimp_core.auditing.calibrate`.
    level : float
        Rate of false alarms that is asked for.
    override, detector
        As for `cimp_core.read`, for every file.
    work : path, optional
        Folder for what is measured of files: with it a stopped run goes on where it was, and another run with the
        same files need not read them again. It is kept.
    own : paths, optional
        Files and folders that are never input, such as that of the report.
    workers, scheduler, timeout, memory, progress
        For files; as for `cimp_core.build_dataset`.

    Returns
    -------
    AuditReport
        A list of `ImageAudit`, and of files that could not be read with the reason. ``write`` makes its pages.

    Raises
    ------
    OutOfRangeError
        `level` is not between 0 and 1, or `shots` is nothing that can be audited.
    CimpError
        A pattern matches nothing, the calibration cannot be read, or another audit is at work in `work`.
    """
    if not 0 < level < 1:
        raise OutOfRangeError(f"level is {level}: it must lie between 0 and 1, such as 0.01")
    calibrations = _calibrations(calibrate)
    failed: dict[str, str] = {}
    shots = _data_set(shots)
    if _are_paths(shots):
        options = {"override": dict(override or {}), "detector": detector}
        limits = Limits(timeout, memory)
        with _work_folder(work) as folder:
            inputs = list_inputs(shots, [*map(Path, own), folder])
            found, failed = _of_files(inputs, folder, options, limits, workers, scheduler, progress)
    else:
        found = list(_of_memory(shots, progress))
    net, _ = shipped()
    audits = []
    for measured, about in found:
        settings = Acquisition.from_vector(
            [np.nan if v is None else v for v in about["values"]], about["missing"] or None
        )
        made = judge(measured, settings, net, calibrations, level)
        named = {"file": about["file"], "number": about["number"], "title": about["title"]}
        audits.append(_named(made, measured, tuple(about["notes"]), **named))
    return AuditReport(_with_duplicates(audits), failed, _about(calibrations, level))


def look_at_file(reader: KillableReader, path: str, options: Mapping[str, Any]) -> tuple[dict, list[np.ndarray]]:
    """Measure the HAADF-STEM images of one file; a task of `cimp_core.jobs`."""
    facts = reader.read(path, options["override"], options["detector"], first_frames)
    records, arrays = [], []
    for about, frame in facts:
        if isinstance(frame, str):
            records.append({"about": about, "measured": None, "why": frame})
            continue
        values, own = measure(frame, absolute=about["intensity"] == "velox16").to_parts()
        records.append({"about": about, "measured": values, "first": len(arrays), "count": len(own)})
        arrays += own
    return {"images": records}, arrays


def first_frames(shots: Sequence[Micrograph]) -> list[tuple[dict, np.ndarray | str]]:
    """What is recorded of each image, and its first frame, or why it has none; runs where the file is read."""
    return [(facts_of(shot), _first_frame(shot)) for shot in shots]


def _first_frame(shot: Micrograph) -> np.ndarray | str:
    data = shot.image.data
    if data.ndim not in (2, 3) or 0 in data.shape or data.dtype.kind not in "biuf":
        return f"shape {data.shape}, {data.dtype}: not an image of real numbers"
    return np.asarray(data if data.ndim == 2 else data[0])


def facts_of(shot: Micrograph) -> dict[str, Any]:
    """What the audit needs of a micrograph beside its pixels."""
    frames = 1 if shot.image.data.ndim == 2 else len(shot.image.data)
    notes = list(shot.notes) + ([f"the first of {frames} frames"] if frames > 1 else [])
    return {
        "file": str(shot.path or ""),
        "title": str(shot.image.metadata.General.title),
        "values": [getattr(shot.acquisition, name) for name in PARAMETERS],
        "missing": dict(shot.acquisition.missing),
        "intensity": shot.intensity,
        "notes": notes,
    }


def _data_set(shots: Any) -> Any:
    """A path that names one file of the data set's schema as a `Dataset`; anything else as it is."""
    import h5py

    one = shots[0] if isinstance(shots, list) and len(shots) == 1 else shots
    if not isinstance(one, (str, os.PathLike)) or Path(one).suffix not in (".h5", ".hdf5") or not Path(one).is_file():
        return shots
    try:
        with h5py.File(one) as file:
            ours = "metadata_raw" in file
    except OSError:
        return shots  # the readers of microscope files say what is wrong with it
    return open_dataset(one) if ours else shots


def _are_paths(shots: Any) -> bool:
    if isinstance(shots, (str, os.PathLike)):
        return True
    return isinstance(shots, Sequence) and len(shots) > 0 and all(isinstance(s, (str, os.PathLike)) for s in shots)


def _of_files(
    inputs: Inputs,
    folder: Path,
    options: dict,
    limits: Limits,
    workers: int | None,
    scheduler: str | None,
    progress: Any,
) -> tuple[list[tuple[Measured, dict]], dict[str, str]]:
    """What was measured of every file, in the order of their names, and why others gave nothing."""
    found = []
    failed = {name: why for name, why in inputs.refused.items() if why != READ_WITH_EMI}
    with FileJob(folder, look_at_file, inputs.sources, options, limits) as job:
        job.run(workers, scheduler, progress)
        for result in job.results():
            name = result.source.name
            if result.failed is not None:
                failed[name] = " ".join(result.failed.split())
                continue
            for number, record in enumerate(result.record["images"]):
                if record["measured"] is None:
                    failed[f"{name}, image {number}"] = record["why"]
                    continue
                places = range(record["first"], record["first"] + record["count"])
                measured = Measured.from_parts(record["measured"], [np.array(result.array(k)) for k in places])
                found.append((measured, record["about"] | {"file": name, "number": number}))
    return found, dict(sorted(failed.items()))


def _of_memory(shots: Any, progress: Callable[[int, int], None] | None) -> Iterator[tuple[Measured, dict]]:
    if isinstance(shots, Dataset):
        for i in range(len(shots)):
            about = {"file": shots.filepaths[i], "number": int(shots.frame_indices[i]), "title": "", "notes": []}
            settings = shots.acquisition(i)
            about |= {"values": [getattr(settings, n) for n in PARAMETERS], "missing": dict(settings.missing)}
            yield measure(shots.image(i), absolute=shots.on_scale(i)), about
            if progress is not None:
                progress(i + 1, len(shots))
        return
    shots = list(shots) if isinstance(shots, Sequence) else [shots]
    for i, shot in enumerate(shots):
        if not (hasattr(shot, "acquisition") and hasattr(shot, "image")):
            raise OutOfRangeError(
                f"{type(shot).__name__} has no recorded settings to audit: give paths, a data set, what cimp.read "
                "gives, or cimp.Micrograph.from_signal(signal, override={...})"
            )
        frame = _first_frame(shot)
        if isinstance(frame, str):
            raise OutOfRangeError(f"{shot.path or 'image'}: {frame}")
        about = facts_of(shot) | {"number": i}
        yield measure(frame, absolute=shot.intensity == "velox16"), about
        if progress is not None:
            progress(i + 1, len(shots))


def _calibrations(given: Any) -> Calibrations:
    if given is None:
        return shipped()[1]
    return given if isinstance(given, Calibrations) else calibrate_on(given)


@contextlib.contextmanager
def _work_folder(work: str | os.PathLike | None) -> Iterator[Path]:
    if work is not None:
        yield Path(work)
        return
    with tempfile.TemporaryDirectory(prefix="cimp-audit-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "work"


def _named(made: ImageAudit, measured: Measured, notes: tuple[str, ...], **named: Any) -> ImageAudit:
    return replace(made, measured=measured, notes=notes, **named)


def _with_duplicates(audits: list[ImageAudit]) -> list[ImageAudit]:
    for found in find_duplicates([a.measured for a in audits]):
        first, this = audits[found.first], audits[found.index]
        how = "pixel for pixel" if found.exact else f"the same noise, correlation {found.correlation:.3f},"
        recorded = [n for n in PARAMETERS if this.settings[n].recorded != first.settings[n].recorded]
        differs = f", with another {', '.join(n.replace('_', ' ') for n in recorded)}" if recorded else ""
        audits[found.index] = this.objecting("duplicate", f"{how} as {first.label}{differs}")
    return audits


def _about(calibrations: Calibrations, level: float) -> dict[str, Any]:
    """What a reader of the report has to know of the calibration."""
    about = dict(calibrations.about)
    sessions = {key: part.sessions for key, part in calibrations.parts.items()}
    few = {key: n for key, n in sessions.items() if n < sessions_needed(level)}
    warnings = []
    if calibrations.of_twin:
        warnings.append(
            "Calibrated on simulated images. On images of a real microscope neither the p-values nor the rate of false "
            "alarms hold; calibrate on your own with --calibrate DATASET (one image of each of its sessions is used)."
        )
    for (side, absolute), n in sorted(few.items()):
        kind = "on" if absolute else "not on"
        warnings.append(
            f"{n} sessions with images of {side} pixels or more {kind} the 16-bit scale: no p-value below "
            f"{1 / (n + 1):.2g} is possible, so nothing is called 'disagrees' at {level:g}; {sessions_needed(level)} "
            "sessions are needed."
        )
    counts = {f"{side} px, {'16-bit scale' if a else 'other scale'}": n for (side, a), n in sorted(sessions.items())}
    return {"level": level, "calibration": about, "sessions": counts, "warnings": warnings}
