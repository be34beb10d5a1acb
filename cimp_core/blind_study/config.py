"""What a blind study is to be: one YAML file, checked before anything is read or made."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import SchemaError
from ..settings_file import read_mapping

__all__ = ["CatchTrials", "Display", "Exclude", "StudyConfig", "config_digest", "read_config"]

INSTRUCTIONS = (
    "You will see two pictures of the same area, A and B. Choose the one that answers the question better. "
    "There is no right or wrong choice; where you see no difference, choose the one you would rather work with.\n\n"
    "Contrast and zoom, below the pictures, act on both alike. Take the time you need, and take breaks: what you have "
    "answered is kept."
)
_RESERVED = "catch:"  # how the key names the two pictures of a catch trial

Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    # Strict, for YAML has surprises: `raters: yes` must not become 1.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CatchTrials(_Model):
    """Pairs whose answer is beyond doubt; each side is the name of a method, a folder or a pattern."""

    better: Text
    worse: Text


class Display(_Model):
    """Percentiles of each picture alone that become black and white."""

    low: Annotated[float, Field(ge=0, lt=50)] = 0.1
    high: Annotated[float, Field(gt=50, le=100)] = 99.9


class Exclude(_Model):
    """Rules, fixed beforehand, by which a rater is left out of the analysis; ``None`` is no rule."""

    min_catch_correct: Share | None = 0.75  # share of catch trials
    max_side_share: Annotated[float, Field(ge=0.5, le=1)] | None = 0.9  # share of the side chosen more often
    min_repeat_agreement: Share | None = None  # share of repeats with the same picture chosen
    min_median_seconds: Annotated[float, Field(ge=0)] | None = 0.5  # [s]
    min_complete: Share | None = 0.8  # share of trials answered


class StudyConfig(_Model):
    """A study. Paths are folders or patterns, relative to the file the study is described in."""

    title: Text
    question: Text = "Which picture shows the specimen better?"
    instructions: Text = INSTRUCTIONS
    seed: Annotated[int, Field(ge=0)]
    methods: Annotated[dict[Text, Text], Field(min_length=2)]  # name: pictures; they belong together by file stem
    reference: Text | None = None  # pictures beside both sides, never judged
    raters: Annotated[int, Field(ge=1, le=1000)]  # assignments made
    trials: Annotated[int, Field(ge=1, le=2000)]  # a rater, without repeats and catch trials
    repeats: Annotated[int, Field(ge=0)] = 0  # a rater: earlier trials again, sides swapped
    catch: Annotated[int, Field(ge=0)] = 0  # a rater
    catch_trials: CatchTrials | None = None  # None: a method's picture against the same, blurred and noised
    display: Display = Display()
    crop: Annotated[int, Field(ge=16)] | None = None  # side of the square kept from the middle [px]
    exclude: Exclude = Exclude()

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if self.repeats > self.trials:
            raise ValueError(f"repeats ({self.repeats}) are of earlier trials, of which there are {self.trials}")
        if self.catch > self.trials:
            raise ValueError(f"catch trials ({self.catch}) outnumber the trials ({self.trials})")
        if taken := [name for name in self.methods if name.startswith(_RESERVED)]:
            raise ValueError(f"method {taken[0]!r}: names do not begin with '{_RESERVED}', which the key uses itself")
        if self.catch_trials and self.catch_trials.better == self.catch_trials.worse:
            raise ValueError("catch_trials: better and worse are the same pictures")
        return self

    def without_folders(self) -> dict[str, Any]:
        """The settings with every path reduced to its last part: what the key holds and the digest is of."""
        settings = self.model_dump()
        settings["methods"] = {name: Path(path).name for name, path in self.methods.items()}
        if self.reference:
            settings["reference"] = Path(self.reference).name
        if self.catch_trials:
            settings["catch_trials"] = {side: Path(path).name for side, path in self.catch_trials}
        return settings


def config_digest(settings: dict[str, Any]) -> str:
    """SHA-256 of the settings as `StudyConfig.without_folders` gives them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_config(path: str | Path) -> StudyConfig:
    """Read and check a study's description.

    Raises
    ------
    UnreadableFileError
        The file is missing or is no YAML.
    SchemaError
        Settings are unknown, missing or out of range; each is named.
    """
    settings = read_mapping(path, "title: My study")
    try:
        return StudyConfig.model_validate(settings)
    except ValidationError as error:
        raise SchemaError(f"{path}: " + "; ".join(map(_fault, error.errors()))) from None


def _fault(error: Any) -> str:
    """One fault of a description in one line, without the library's own words where ours say what to do."""
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        known = {"display": Display, "exclude": Exclude, "catch_trials": CatchTrials}.get(error["loc"][0], StudyConfig)
        near = difflib.get_close_matches(str(error["loc"][-1]), known.model_fields, n=1)
        return f"{place} is no setting" + (f"; is {near[0]} meant?" if near else f" ({', '.join(known.model_fields)})")
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "too_short":
        return f"{place}: at least two are needed to compare"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}, not {error['input']!r}"
