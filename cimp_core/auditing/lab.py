"""Calibration of the audit: that of the twin, which is shipped, or of a laboratory's own data set."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..dataset import Dataset, open_dataset
from ..errors import CimpError
from ..models.settings_reader import SettingsReader
from ..weights import FOLDER, load
from .calibration import Calibration, Calibrations, load_calibrations, one_image_each
from .evidence import predict_settings
from .measuring import Measured, measure
from .scoring import raw_scores_of

__all__ = ["WEIGHTS", "calibrate", "shipped"]

WEIGHTS = "cimp-audit-s"


@lru_cache(maxsize=1)
def shipped() -> tuple[SettingsReader, Calibrations]:
    """The network and the twin's calibration that come with the package."""
    return load(WEIGHTS, kind="settings"), load_calibrations(FOLDER / f"{WEIGHTS}.calibration.safetensors")


def calibrate(
    data: Dataset | str | os.PathLike, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Calibrations:
    """Calibrate on a data set of one's own: one image of each session, drawn at random.

    Its settings are taken to be right: what is wrong in it makes the audit blind to the like.

    Parameters
    ----------
    data : Dataset or path
        Of the published schema, as `cimp dataset build` writes it; a session is the folder of a file.
    progress : function, optional
        Called as ``progress(done, total)``.

    Raises
    ------
    CimpError
        No image of it can be looked at.
    """
    data = data if isinstance(data, Dataset) else open_dataset(data)
    net, of_twin = shipped()
    rows = one_image_each(data.sessions, seed)
    groups: dict[tuple[int, bool], list[tuple[Measured, np.ndarray]]] = defaultdict(list)
    for done, i in enumerate(rows, 1):
        measured = measure(data.image(int(i)), absolute=data.on_scale(int(i)))
        key = of_twin.key(measured.side, measured.absolute)
        if not measured.flat and key is not None:
            groups[key].append((measured, data.acquisition(int(i)).vector()))
        if progress is not None:
            progress(done, len(rows))
    if not groups:
        raise CimpError(f"{data.path}: all images are flat or too small to calibrate on; name another data set")
    parts = {key: _calibration(net, pairs, key, of_twin.scales[key]) for key, pairs in groups.items()}
    about = {"source": Path(str(data.path)).name, "sessions": sum(p.sessions for p in parts.values()), "seed": seed}
    return Calibrations(parts, {key: of_twin.scales[key] for key in parts}, about)


def _calibration(net: SettingsReader, pairs: list, key: tuple[int, bool], scale: np.ndarray) -> Calibration:
    told = predict_settings(net, np.array([m.features for m, _ in pairs]))
    values = net.config.normalizer.normalize(np.array([v for _, v in pairs]))
    raw, distance = raw_scores_of(net, told, values, np.array([m.statistics for m, _ in pairs]), key[1])
    return Calibration(raw / scale, distance)
