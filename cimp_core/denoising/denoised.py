"""`denoise`: an image or a series as it is expected at a higher dose, whatever the method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutOfRangeError
from ..metadata import PARAMETERS, Acquisition
from .checks import check_factor, check_shape, check_training_range
from .exposure import exposure
from .job import Job, fit, usable
from .methods import describe, learnt_from_twin, resolve, uses_settings
from .result import NODE, Denoised, like
from .series import denoise_series
from .tiles import BLEND, TILE, denoise_frame, read_rows

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

    from ..microscope import Micrograph

__all__ = ["NODE", "Denoised", "denoise"]

SETTINGS = ("check", "trust", "ignore")

_SAMPLE = 512  # px; of a larger frame, this much of its middle tells the noise and the settings


def denoise(
    shot: Micrograph | Signal2D | np.ndarray,
    dose_factor: float = 16,
    *,
    method: str | Callable = "auto",
    settings: str = "check",
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
    tile: int = TILE,
    keep_dtype: bool = True,
    anyway: bool = False,
) -> Denoised:
    """The image as it is expected at a higher dose, at the recorded intensity scale.

    Parameters
    ----------
    shot : Micrograph, Signal2D or array
        An image (h, w) or a series (frames, h, w), lazy or not, of at least 32 x 32 pixels. Of a signal or an array no
        setting is known; ``cimp.Micrograph.from_signal`` uses what a signal knows.
    dose_factor : float
        Factor above 1, at most 1024, on dwell time x beam current.
    method : str or callable
        "auto" (the one that won on evidence: "direct"), "direct", "style", "noise2void", "gaussian", "tv", "nlm",
        "wavelet", "wiener", or a callable as `cimp_core.denoising.methods` describes.
    settings : {"check", "trust", "ignore"}
        Whether the recorded settings are compared with the picture, and those that disagree left out; believed as they
        are; or not used.
    seed : int
        For methods that draw random numbers. Same input, same seed, same result, but of a method that trains for a
        given time.
    progress : callable, optional
        Called as ``progress(done, total)``, by rows of tiles of an image, by frames of a series.
    tile : int
        Largest side of a tile [px], without its margins; at least 64.
    keep_dtype : bool
        Give the dtype of the input, rounded and clipped if it is an integer; else float32.
    anyway : bool
        Denoise, with a warning, what is refused because of what it is: an image of another detector than HAADF by a
        method trained on HAADF, or one that has been denoised before.

    Returns
    -------
    Denoised
        In memory, also where the input is lazy.

    Raises
    ------
    OutOfRangeError
        The data are no image or series, too small, complex, in colour, constant, or have pixels that are not finite;
        the factor, the method or the mode of settings is none; or see `anyway`.

    Warns
    -----
    UserWarning
        Settings are missing, or disagree with the picture; the dose, judged from the noise, or the pixel size lies
        outside of what a trained method has seen; pixels are clipped; rounding would cost detail. Each is in
        ``provenance["warnings"]`` too.

    Notes
    -----
    Memory, beside the input (if that is not lazy) and the result: one row of tiles of the frame in float32, three
    times, and what the method needs for one tile. A lazy frame is read by rows where its chunks allow it, else whole.
    A method that adapts to the frame (Noise2Void) sees the whole frame in float32. A series needs about twelve frames
    in float32 whatever its length; see `cimp_core.denoising.series`.
    """
    if settings not in SETTINGS:
        raise OutOfRangeError(f"settings={settings!r}: it must be one of {', '.join(SETTINGS)}")
    factor = check_factor(dose_factor)
    job = Job(
        **_take(shot), factor=factor, method=resolve(method, seed), tile=tile, keep_dtype=keep_dtype, anyway=anyway
    )
    _check_signal(job)
    record = _record(job, seed)
    used = _judge(job, settings, record)
    out = np.empty(job.signal.data.shape, job.dtype)
    deviation = _run(job, used, out, record, progress)
    record["warnings"] = list(job.warned)
    record["notes"] = job.notes
    image = like(job.signal, out, record, "")
    uncertainty = None if deviation is None else like(job.signal, deviation, record, "standard deviation of ")
    return Denoised(image, uncertainty, record)


def _take(shot: Any) -> dict[str, Any]:
    """Fields of a job from whatever was given."""
    from hyperspy.signals import Signal2D

    if hasattr(shot, "acquisition") and hasattr(shot, "image"):
        facts = {"path": shot.path, "instrument": shot.instrument, "absolute": shot.intensity == "velox16"}
        return {"signal": shot.image, "acquisition": shot.acquisition, "name": shot.path or "the image", **facts}
    facts = {"name": "the image", "path": None, "instrument": None, "absolute": False}
    if hasattr(shot, "axes_manager"):
        signal, what = shot, "given as a signal"
        facts["notes"] = [f"{what}: its settings were not looked up; Micrograph.from_signal does"]
    else:
        data = shot if hasattr(shot, "compute") else np.asarray(shot)
        check_shape(data.shape, "the array")  # before HyperSpy makes a signal of any shape
        signal, what = Signal2D(data), "given as an array"
        signal = signal.as_lazy() if hasattr(data, "compute") else signal
        facts["notes"] = [f"{what}: no settings, no calibration"]
    return {"signal": signal, "acquisition": Acquisition(missing=dict.fromkeys(PARAMETERS, what)), **facts}


def _check_signal(job: Job) -> None:
    """Raise, or warn, of what can be told without looking at the pixels."""
    from ..microscope.hspy import image_fault

    if job.signal.data.dtype.kind != "c":
        check_shape(tuple(job.signal.data.shape), job.name)
    fault = image_fault(job.signal)
    if fault:
        raise OutOfRangeError(f"{job.name}: {fault}; only the counts of an image can be denoised")
    before = job.signal.metadata.get_item(NODE, None)
    if before is not None:
        text = f"{job.name}: this image is virtual already ({before.get_item('method', 'denoised')})"
        if not job.anyway:
            raise OutOfRangeError(f"{text}: denoise the recording itself, with a larger dose factor, or anyway=True")
        job.warned.add(f"{text}; denoised twice, its noise is not what a method expects")


def _record(job: Job, seed: int) -> dict[str, Any]:
    from .. import __version__

    return {
        "program": f"cimp_core {__version__}",
        **describe(job.method),
        "dose_factor": job.factor,
        "input": job.path,
        "dtype": str(job.dtype),
        "seed": int(seed),
        "tile": {"side": int(job.tile), "margin": int(job.method.margin), "blend": BLEND},
    }


def _sample(frames: Any) -> np.ndarray | None:
    """The first frame with a picture in it, or the middle of it if it is large, as float32; ``None`` if none has."""
    for frame in frames:
        cut = tuple(slice(max(0, n - _SAMPLE) // 2, max(0, n - _SAMPLE) // 2 + _SAMPLE) for n in frame.shape)
        sample = np.asarray(frame[cut]).astype(np.float32)
        if np.isfinite(sample).all() and np.ptp(sample) > 0:
            return sample
    return None


def _judge(job: Job, settings: str, record: dict[str, Any]) -> Acquisition:
    """Settings to use; the record gets them, why others are not, and what the noise says."""
    sample = _sample(job.frames)
    if sample is not None:
        seen = exposure(sample)
        record["noise"] = dict(seen._asdict())
        if learnt_from_twin(job.method):
            check_training_range(job.name, job.acquisition, seen, job.instrument, job.anyway, job.warned)
    given = {n: v for n in PARAMETERS if (v := getattr(job.acquisition, n)) is not None}
    told: dict[str, Any] = {"mode": settings, "verdict": "not asked", "missing": dict(job.acquisition.missing)}
    used = job.acquisition
    if settings == "ignore":
        used = Acquisition(missing=dict.fromkeys(PARAMETERS, "ignored as asked"))
    elif not uses_settings(job.method):
        told["verdict"] = "not asked: the method uses no settings"
    elif settings == "check" and given and sample is not None:
        from .trust import check

        trust = check(sample, job.acquisition, absolute=job.absolute, model=getattr(job.method, "encoder", None))
        used, told["verdict"], told["cosine"] = trust.acquisition, str(trust.verdict), trust.cosine
        told["audit"] = list(trust.reasons)
    told["used"] = {n: v for n in PARAMETERS if (v := getattr(used, n)) is not None}
    told["ignored"] = {n: used.missing[n] for n in given if n not in told["used"]}
    record["settings"] = told
    if settings != "ignore" and uses_settings(job.method):
        _say_settings(job, told)
    return used


def _say_settings(job: Job, told: dict[str, Any]) -> None:
    if told["ignored"]:
        names = ", ".join(told["ignored"])
        job.warned.add(f"{job.name}: the settings disagree with the picture; denoised without {names}")
    if told["missing"]:
        names = ", ".join(told["missing"]) if len(told["missing"]) < len(PARAMETERS) else "all seven settings"
        job.warned.add(f"{job.name}: {names} not known")


def _run(job: Job, used: Acquisition, out: np.ndarray, record: dict, progress: Callable | None) -> np.ndarray | None:
    """Fill `out`; return the deviation, if the method gives one."""
    if job.signal.data.ndim == 3 and len(job.signal.data) > 1:
        return denoise_series(job, used, out, record, progress)
    frames = job.frames
    rows = read_rows(frames[0])
    if not usable(job, rows, job.name):
        raise OutOfRangeError(f"{job.name}: every pixel has the same value: there is nothing to denoise")
    target = out if out.ndim == 2 else out[0]
    method = fit(job.method, rows, target.shape)
    deviation = denoise_frame(rows, method, used, job.factor, target, tile=job.tile, progress=progress)
    return deviation if deviation is None or out.ndim == 2 else deviation[None]
