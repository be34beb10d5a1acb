"""Images with other settings that a rendering is asked for; of a twin, with the truth of it, the area under these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..dataset import Dataset
from ..digital_twin import scan_of
from ..metadata import PARAMETERS, Acquisition, Normalizer
from ..simulate.detector import FULL_SCALE, Detector, expected_counts, record

__all__ = ["CHANGED", "SIGMAS", "Case", "cases_of", "has_truth", "joint", "single", "truth_of"]

CHANGED = PARAMETERS[1:]
"""The six that can be changed."""

SIGMAS = (-3, -1, 0, 1, 3)

KEPT = 32
"""Scans that are kept, of 0.3 MB each at 256 x 256."""

_OUTSIDE_BEAM = 1.05
"""Least inner collection angle over the convergence angle."""


class Case(NamedTuple):
    """One image, what is asked of it, and the truth, if there is one."""

    index: int  # in the view
    change: str  # "dwell_time+3", ..., or "joint"
    frame: np.ndarray  # (h, w) uint16, what there is
    source: Acquisition
    target: Acquisition
    expected: (
        np.ndarray | None
    )  # (h, w) float64 counts, clipped to 16 bits: the mean of all recordings under the target
    recording: np.ndarray | None  # (h, w) uint16: one of them


def has_truth(data: Dataset) -> bool:
    """Whether an area of the data set can be recorded again: only that of a twin can."""
    return "twin_version" in data.attributes


def single(vector: np.ndarray, normalizer: Normalizer, smallest_angle: float) -> dict[str, np.ndarray]:
    """Settings with one parameter at `SIGMAS` of its distribution, by name, without the one nearest to the original.

    A convergence angle is kept inside the detector's hole, and an inner angle outside the beam: the other of the two
    does not move. What is not known of the image is left out: it cannot be changed.
    """
    angle, inner = PARAMETERS.index("convergence_angle"), PARAMETERS.index("inner_collection_angle")
    own, found = normalizer.normalize(vector[None])[0], {}
    for name in CHANGED:
        j = PARAMETERS.index(name)
        if np.isnan(own[j]):
            continue
        nearest = SIGMAS[int(np.argmin(np.abs(np.array(SIGMAS) - own[j])))]
        for sigma in SIGMAS:
            if sigma == nearest:
                continue
            normalized = own.copy()
            normalized[j] = sigma
            wanted = normalizer.restore(normalized)
            wanted[[k for k in range(len(PARAMETERS)) if k != j]] = np.delete(vector, j)
            if j == angle:
                wanted[j] = np.fmin(max(wanted[j], smallest_angle), vector[inner] / _OUTSIDE_BEAM)
            elif j == inner:
                wanted[j] = np.fmax(wanted[j], vector[angle] * _OUTSIDE_BEAM)
            found[f"{name}{sigma:+d}"] = wanted
    return found


def joint(vector: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Settings of another image, all six at once, drawn among the (n, 7) `others` nearest in pixel size.

    What is not known of either image stays as it is.
    """
    distance = np.abs(np.log(others[:, 0] / vector[0]))
    nearest = np.argsort(distance, kind="stable")[:64]
    wanted = np.concatenate([vector[:1], others[rng.choice(nearest), 1:]])
    wanted = np.where(np.isnan(vector) | np.isnan(wanted), vector, wanted)
    angles = [PARAMETERS.index("convergence_angle"), PARAMETERS.index("inner_collection_angle")]
    if wanted[angles[1]] <= wanted[angles[0]]:  # one of them was not known: no pair that anybody used
        wanted[angles] = vector[angles]
    return wanted


def truth_of(data: Dataset, index: int, target: Acquisition, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Expectation, clipped to 16 bits, and a recording of the area of an image under other settings.

    The beam is at the positions of the image itself, whatever the dwell time: jitter and drift are no settings.
    """
    detector, fraction = _scan(data, index, target)
    expected = expected_counts(fraction, target, detector)
    rng = np.random.default_rng((seed, 11, int(data.indices[index])))
    return np.clip(expected, 0, FULL_SCALE), record(fraction, target, detector, rng)


_scans: dict[tuple, tuple[Detector, np.ndarray]] = {}


def _scan(data: Dataset, index: int, target: Acquisition) -> tuple[Detector, np.ndarray]:
    """Detector, and the fraction of the electrons that reached it at the dwell time of the image.

    Gain, offset and dwell time are no matter of the optics: the last scans are kept, as cases of one image share them.
    """
    own = data.acquisition(index)
    optics = (target.convergence_angle, target.beam_current, target.inner_collection_angle)
    key = (str(data.path), int(data.indices[index]), own, optics)
    if key not in _scans:
        shot, fraction = scan_of(data, index, target.replace(dwell_time=own.dwell_time))
        while len(_scans) >= KEPT:
            del _scans[next(iter(_scans))]
        _scans[key] = shot.detector, fraction
    return _scans[key]


def cases_of(
    data: Dataset,
    indices: Sequence[int],
    train: Dataset,
    *,
    joints: int = 4,
    draws: int | None = None,
    seed: int = 0,
    only: str | None = None,
) -> Iterator[Case]:
    """The cases of some images of a view: every parameter alone, and `joints` changes of all six.

    Parameters
    ----------
    data : Dataset
        A view, of materials or sessions that are not in `train`. Without a truth (`has_truth`), the cases have none.
    train : Dataset
        Whose distribution of settings the steps are in units of, and whose settings the joint changes come from.
    joints : int
        Joint changes of each image.
    draws : int, optional
        So many steps of each parameter, drawn; all four by default.
    only : str, optional
        Changes that begin so.
    """
    raw, normalizer = np.asarray(train.metadata_raw, float), Normalizer.fit(train.metadata_raw)
    angles = raw[:, PARAMETERS.index("convergence_angle")]
    smallest_angle = float(np.min(angles, where=np.isfinite(angles), initial=np.inf))
    # A setting that never changes has no distribution to take steps in.
    fixed = {n for n, column in zip(PARAMETERS, raw.T, strict=True) if len(np.unique(column[np.isfinite(column)])) < 2}
    for i in indices:
        source, frame = data.acquisition(i), data.image(i)
        rng = np.random.default_rng((seed, 12, int(data.indices[i])))
        steps = single(source.vector(), normalizer, smallest_angle).items()
        alone = [(change, vector) for change, vector in steps if change[:-2] not in fixed]
        count = len(SIGMAS) - 1
        kept = [np.sort(rng.permutation(count)[:draws]) + k * count for k in range(len(alone) // count)]
        wanted = [alone[k] for part in kept for k in part]
        wanted += [("joint", joint(source.vector(), raw, rng)) for _ in range(joints)]
        for change, vector in wanted:
            if only is None or change.startswith(only):
                target = Acquisition.from_vector(vector)
                truth = truth_of(data, i, target, seed) if has_truth(data) else (None, None)
                yield Case(i, change, frame, source, target, *truth)
