"""A simulated observer, to try a study out before anybody sits down. It is a model, and every output says so.

What it does: every picture has a utility, for example how well it agrees with the truth. The log-odds of choosing the
left picture are `sensitivity` times the difference of utilities, plus what this rater and this image add to each
method, plus the rater's liking of a side. Now and then it presses either key without looking. The numbers are stated
assumptions; they were fitted to nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.special import expit

from ..errors import CimpError, OutOfRangeError, SchemaError
from .results import RESULTS, SIMULATED, load_key

__all__ = ["Observer", "observe", "truth_utilities", "write_observed"]

Utilities = Mapping[str, Mapping[str, float] | float]
"""By method and image, or one number for all images of a method."""

_START = datetime(2000, 1, 1, tzinfo=UTC)  # not the time of day: the same seed gives the same files


@dataclass(frozen=True)
class Observer:
    """The assumed observer; odds are natural logarithms."""

    sensitivity: float = 0.35  # log-odds for one unit of utility, here one decibel
    rater_sd: float = 0.5  # standard deviation between raters of the log-odds of a pair
    image_sd: float = 0.8  # between images, beyond what utilities say
    side_sd: float = 0.2  # between raters, of the log-odds for the left side
    lapse: float = 0.02  # share of answers given without looking
    catch: float = 4.0  # log-odds of the better picture of a catch trial
    seconds: float = 3.5  # median time of an answer [s]


def truth_utilities(pictures: Mapping[str, Mapping[str, np.ndarray]], truth: Mapping[str, np.ndarray]) -> dict:
    """How well pictures agree with the truth, whatever their black level and contrast: -10 log10(1 - r^2) [dB].

    With r the correlation of a picture with the truth, that is the signal over the error that is left once the picture
    is scaled to fit best. Above 60 dB it is 60.

    Parameters
    ----------
    pictures : dict of dicts of (h, w) arrays
        By method and image.
    truth : dict of (h, w) arrays
        By image.

    Raises
    ------
    SchemaError
        An image has no truth, or one of another size.
    """
    found: dict[str, dict[str, float]] = {}
    for method, images in pictures.items():
        found[method] = {}
        for image, picture in images.items():
            if image not in truth:
                raise SchemaError(f"image {image!r} has no truth; its file must have the same stem")
            if np.shape(truth[image]) != np.shape(picture):
                raise SchemaError(
                    f"image {image!r}: {method} has {np.shape(picture)} pixels, the truth {np.shape(truth[image])}"
                )
            values = [np.ravel(np.asarray(part, float)) for part in (picture, truth[image])]
            constant = min(np.ptp(part) for part in values) == 0
            r = 0.0 if constant else float(np.corrcoef(*values)[0, 1])
            found[method][image] = float(-10 * np.log10(max(1 - r * r, 1e-6)))
    return found


def observe(key: Mapping, utilities: Utilities, raters: int, seed: int, observer: Observer | None = None) -> list[dict]:
    """Result files of simulated raters, one for each of the first assignments.

    Parameters
    ----------
    key : dict
        Of the study.
    utilities : dict
        See `Utilities`; the larger, the better.
    raters, seed : int
    observer : Observer, optional

    Raises
    ------
    OutOfRangeError
        More raters than assignments.
    SchemaError
        A utility is missing or no number.
    """
    observer = observer or Observer()
    if not 1 <= raters <= len(key["assignments"]):
        raise OutOfRangeError(
            f"{raters} raters, but the study has {len(key['assignments'])} assignments; one is for one rater"
        )
    table = _table(key, utilities)
    of_images, *of_raters = np.random.SeedSequence(seed).spawn(1 + raters)
    half = np.sqrt(0.5)  # so that the difference of two methods has the standard deviation that is stated
    liking = np.random.default_rng(of_images).normal(0, half * observer.image_sd, table.shape)
    return [
        _one(key, given, table * observer.sensitivity + liking, np.random.default_rng(own), observer, half)
        for given, own in zip(key["assignments"], of_raters, strict=False)
    ]


def _table(key: Mapping, utilities: Utilities) -> np.ndarray:
    """Utilities, (methods, images)."""
    rows = []
    for method in key["methods"]:
        of = utilities.get(method)
        given = dict.fromkeys(key["images"], of) if isinstance(of, int | float) else of
        if not isinstance(given, Mapping) or (lacking := [image for image in key["images"] if image not in given]):
            raise SchemaError(
                f"utilities lack {method!r}" + (f" of image {lacking[0]!r}" if isinstance(given, Mapping) else "")
            )
        rows.append([given[image] for image in key["images"]])
    try:
        table = np.array(rows, float)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"utilities are no numbers ({error})") from error
    if not np.isfinite(table).all():
        raise SchemaError("utilities are not all finite")
    return table


def _one(
    key: Mapping, given: Mapping, odds: np.ndarray, rng: np.random.Generator, observer: Observer, half: float
) -> dict:
    """The result file of one simulated rater; `odds` are those of each picture, (methods, images)."""
    rater = f"{SIMULATED}{rng.bytes(6).hex()}"
    methods, images = ({name: k for k, name in enumerate(key[part])} for part in ("methods", "images"))
    own = rng.normal(0, half * observer.rater_sd, len(methods))
    left_bias = rng.normal(0, observer.side_sd)
    answers = []
    for trial in given["trials"]:
        if trial["kind"] == "catch":
            difference = observer.catch * (1 if trial["correct"] == "left" else -1)
        else:
            left, right = (methods[trial[side]] for side in ("left", "right"))
            image = images[trial["image"]]
            difference = odds[left, image] + own[left] - odds[right, image] - own[right]
        chance = 0.5 if rng.random() < observer.lapse else expit(difference + left_bias)
        choice = "left" if rng.random() < chance else "right"
        seconds = round(float(observer.seconds * np.exp(0.5 * rng.standard_normal())), 2)
        answers.append({"trial": trial["id"], "choice": choice, "seconds": seconds, "changes": 0})
    spent = timedelta(seconds=sum(answer["seconds"] for answer in answers))
    times = [f"{(_START + after):%Y-%m-%dT%H:%M:%S}.000Z" for after in (timedelta(), spent)]
    return {
        "format": 1,
        "study": key["study"],
        "rater": rater,
        "code": given["code"],
        "page": key.get("page", ""),
        "simulated": {"rule": " ".join(str(__doc__).split()), **asdict(observer)},
        "answers": answers,
        "started": times[0],
        "exported": times[1],
        "complete": True,
    }


def write_observed(
    folder: str | Path,
    utilities: Utilities,
    raters: int,
    seed: int,
    observer: Observer | None = None,
    force: bool = False,
) -> list[Path]:
    """Simulate raters and put their result files into the study's folder.

    Raises
    ------
    CimpError
        The folder holds results already; or as `observe`. Files of simulated raters are replaced where `force` is set,
        those of real ones never.
    """
    key, results = load_key(folder), Path(folder) / RESULTS
    made = observe(key, utilities, raters, seed, observer)
    there = sorted(results.glob("*.json"))
    real = [path for path in there if not path.name.startswith(f"study_{SIMULATED}")]
    if real:
        raise CimpError(f"{results}: {real[0].name} is of a real rater; simulated ones are never put beside them")
    if there and not force:
        raise CimpError(f"{results} holds {len(there)} result files already; --force replaces them")
    results.mkdir(parents=True, exist_ok=True)
    for path in there:
        path.unlink()
    paths = []
    for held in made:
        paths.append(results / f"study_{held['rater']}.json")
        part = paths[-1].with_suffix(".part")
        part.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        part.replace(paths[-1])
    return paths
