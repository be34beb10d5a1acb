"""``python -m cimp_core.auditing --out RUN``: simulates, trains the network behind the audit, and calibrates it.

Three sets of sessions, each of a seed of its own: to train on (a part of it chooses the epoch and the scales), and to
calibrate on. Nothing is fitted to the sessions of the calibration. The encoder was trained on sessions of seed 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from ..dataset import Dataset, open_dataset
from ..metadata import Normalizer
from ..models.settings_reader import CHECKS, SettingsReader
from ..twin_sessions import last_of_sessions, make_sessions
from ..weights import info, load, save
from .calibration import Calibrations, save_calibrations
from .evidence import KINDS
from .samples import SIDES, Samples, read_samples, spoiled_statistics
from .scoring import calibrate_on, raw_scores
from .training import TrainConfig, train_checks, train_settings

SEEDS = {"train": 41, "calibration": 42}
SESSIONS = {"train": 2200, "calibration": 1399}
VALIDATION = 250  # of the training sessions, the last ones
SPOILED = 1100  # training sessions of which one image is spoiled for the checks


def twin_of(folder: Path, part: str, size: int = 256) -> Dataset:
    """The simulated sessions of a part, made where they are absent."""
    path = folder / f"{part}.h5"
    if not path.exists():
        make_sessions(path, SESSIONS[part], size, SEEDS[part])
    return open_dataset(path)


def samples_of(data: Dataset, folder: Path, part: str) -> dict[int, Samples]:
    """At every side; kept beside the twin."""
    return {side: read_samples(data, side, folder / f"{part}_{side}.npz") for side in SIDES}


def part_of(samples: Samples, rows: np.ndarray) -> Samples:
    """Some rows."""
    return Samples(*(values[rows] for values in samples))


def spoiled_of(data: Dataset, folder: Path) -> dict[str, np.ndarray]:
    """Statistics by check, of one image of each of the first sessions."""
    path = folder / "spoiled.npz"
    if not path.exists():
        lasts = last_of_sessions(data).indices[:SPOILED]
        made: dict[str, list] = {name: [] for name in CHECKS}
        for _, name, statistics in spoiled_statistics(data, lasts, SIDES):
            made[name].append(statistics)
        np.savez(path, **{name: np.array(rows) for name, rows in made.items()})
    with np.load(path) as stored:
        return {name: stored[name] for name in CHECKS}


def scales_of(net: SettingsReader, val: dict[int, Samples]) -> dict[tuple[int, bool], np.ndarray]:
    """What 1 in 100 of the validation images exceeds, of each kind of score."""
    scales = {}
    for side, samples in val.items():
        for absolute in (True, False):
            raw, _ = raw_scores(net, samples, absolute, net.config.normalizer)
            high = np.nanquantile(raw, 0.99, axis=0)
            scales[side, absolute] = np.where(np.isfinite(high), np.maximum(high, 1e-3), 1.0)
    return scales


def train(folder: Path, config: TrainConfig) -> tuple[SettingsReader, list[dict], dict[int, Samples]]:
    """The network, the log of its training, and the validation part."""
    data, log = twin_of(folder, "train"), []
    samples = samples_of(data, folder, "train")
    names = np.unique(data.sessions)
    held_out = np.isin(data.sessions, names[-VALIDATION:])
    fitted = {side: part_of(s, ~held_out) for side, s in samples.items()}
    val = {side: part_of(s, held_out) for side, s in samples.items()}
    normalizer = Normalizer.fit(fitted[SIDES[0]].settings, data.normalizer.log_indices)
    net = train_settings(list(fitted.values()), list(val.values()), normalizer, config, log.append)
    good = np.concatenate([s.statistics for s in fitted.values()])
    train_checks(net, good, spoiled_of(data, folder), config, log.append)
    return net, log, val


def main() -> None:
    """See the head of this page."""
    parser = argparse.ArgumentParser(prog="python -m cimp_core.auditing", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; what is there is not made again")
    parser.add_argument("--name", default="cimp-audit-s", help="of the weights")
    arguments = parser.parse_args()
    folder, config = arguments.out, TrainConfig()
    folder.mkdir(parents=True, exist_ok=True)
    net, log, val = train(folder, config)
    calibration = last_of_sessions(twin_of(folder, "calibration"))
    samples = samples_of(calibration, folder, "calibration")
    command, version = "python -m cimp_core.auditing --out RUN", str(calibration.attributes["twin_version"])
    record = {
        "command": command,
        "data": f"{sum(len(s.settings) for s in val.values()) // len(SIDES)} validation images and "
        f"{len(open_dataset(folder / 'train.h5'))} in all, of {SESSIONS['train']} simulated sessions of seed "
        f"{SEEDS['train']}",
        "calibration": f"{len(calibration)} simulated sessions of seed {SEEDS['calibration']}, one image each",
        "encoder": net.config.encoder,
        "twin_version": version,
        "settings": dataclasses.asdict(config),
        "val_loss": min(entry["val_loss"] for entry in log if "val_loss" in entry),
    }
    path = folder / f"{arguments.name}.safetensors"
    print(save(net, path, record, half=("",), force=True))
    net = load(path, kind="settings")  # as it is used: in half precision
    scales = scales_of(net, val)
    parts = calibrate_on(net, samples, scales)
    about = {"source": "twin", "sessions": len(calibration), "twin_version": version, "command": command}
    about |= {"seed": SEEDS["calibration"], "kinds": len(KINDS), "encoder": info(path)["encoder"]}
    save_calibrations(folder / f"{arguments.name}.calibration.safetensors", Calibrations(parts, scales, about))
    lines = "".join(json.dumps(entry) + "\n" for entry in log)
    (folder / f"{arguments.name}.log.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
