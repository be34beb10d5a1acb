"""Images of a twin with the same area under other settings: what a rendering is asked for, and the truth of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..dataset import Dataset
from ..digital_twin import scan_of
from ..metadata import PARAMETERS, Acquisition, Normalizer
from ..simulate.detector import FULL_SCALE, expected_counts, record

__all__ = ["CHANGED", "SIGMAS", "Case", "cases_of", "joint", "single", "truth_of"]

CHANGED = PARAMETERS[1:]
"""The six that can be changed."""

SIGMAS = (-3, -1, 0, 1, 3)

_OUTSIDE_BEAM = 1.05
"""Least inner collection angle over the convergence angle."""


class Case(NamedTuple):
    """One image, what is asked of it, and the truth."""

    index: int  # in the view
    change: str  # "dwell_time+3", ..., or "joint"
    frame: np.ndarray  # (h, w) uint16, what there is
    source: Acquisition
    target: Acquisition
    expected: np.ndarray  # (h, w) float64 counts, clipped to 16 bits: the mean of all recordings under the target
    recording: np.ndarray  # (h, w) uint16: one of them


def single(vector: np.ndarray, normalizer: Normalizer, smallest_angle: float) -> dict[str, np.ndarray]:
    """Settings with one parameter at `SIGMAS` of its distribution, by name, without the one nearest to the original.

    A convergence angle is kept inside the detector's hole, and an inner angle outside the beam: the other of the two
    does not move.
    """
    angle, inner = PARAMETERS.index("convergence_angle"), PARAMETERS.index("inner_collection_angle")
    own, found = normalizer.normalize(vector[None])[0], {}
    for name in CHANGED:
        j = PARAMETERS.index(name)
        nearest = SIGMAS[int(np.argmin(np.abs(np.array(SIGMAS) - own[j])))]
        for sigma in SIGMAS:
            if sigma == nearest:
                continue
            normalized = own.copy()
            normalized[j] = sigma
            wanted = normalizer.restore(normalized)
            wanted[[k for k in range(len(PARAMETERS)) if k != j]] = np.delete(vector, j)
            if j == angle:
                wanted[j] = np.clip(wanted[j], smallest_angle, vector[inner] / _OUTSIDE_BEAM)
            elif j == inner:
                wanted[j] = max(wanted[j], vector[angle] * _OUTSIDE_BEAM)
            found[f"{name}{sigma:+d}"] = wanted
    return found


def joint(vector: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Settings of another image, all six at once, drawn among the (n, 7) `others` nearest in pixel size."""
    distance = np.abs(np.log(others[:, 0] / vector[0]))
    nearest = np.argsort(distance, kind="stable")[:64]
    return np.concatenate([vector[:1], others[rng.choice(nearest), 1:]])


def truth_of(data: Dataset, index: int, target: Acquisition, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Expectation, clipped to 16 bits, and a recording of the area of an image under other settings.

    The beam is at the positions of the image itself, whatever the dwell time: jitter and drift are no settings.
    """
    own = data.acquisition(index)
    shot, fraction = scan_of(data, index, target.replace(dwell_time=own.dwell_time))
    expected = expected_counts(fraction, target, shot.detector)
    rng = np.random.default_rng((seed, 11, int(data.indices[index])))
    return np.clip(expected, 0, FULL_SCALE), record(fraction, target, shot.detector, rng)


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
        A view of a twin, of materials that are not in `train`.
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
    smallest_angle = float(np.nanmin(raw[:, PARAMETERS.index("convergence_angle")]))
    for i in indices:
        source, frame = data.acquisition(i), data.image(i)
        rng = np.random.default_rng((seed, 12, int(data.indices[i])))
        alone = list(single(source.vector(), normalizer, smallest_angle).items())
        count = len(SIGMAS) - 1
        kept = [np.sort(rng.permutation(count)[:draws]) + k * count for k in range(len(CHANGED))]
        wanted = [alone[k] for k in np.concatenate(kept)]
        wanted += [("joint", joint(source.vector(), raw, rng)) for _ in range(joints)]
        for change, vector in wanted:
            if only is None or change.startswith(only):
                target = Acquisition.from_vector(vector)
                yield Case(i, change, frame, source, target, *truth_of(data, i, target, seed))
