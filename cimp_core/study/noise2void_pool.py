"""Noise2Void at its best: trained on the very recordings that it is judged by, for a stated time.

It needs no truth, so it may learn from the test recordings themselves, which no other network here may. The recordings
are divided into groups of like dose, each with a network of its own and an equal part of the time; or into one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from ..checkpoint import write_text
from ..denoising.noise2void import Noise2Void, Noise2VoidConfig
from ..errors import OutOfRangeError, SchemaError
from ..metadata import Acquisition

__all__ = ["GROUPS", "PooledNoise2Void", "train_pools"]

GROUPS = ((0.5, 1.0, 2.0), (4.0, 8.0, 16.0), (64.0, 250.0, 500.0))
"""Doses [electrons at the bright pixel] that share a network."""


class PooledNoise2Void:
    """The networks of `train_pools` as one method: each recording goes to the network that it was trained on."""

    name = "noise2void"

    def __init__(self, folder: str | Path) -> None:
        index = Path(folder) / "pools.json"
        if not index.exists():
            raise SchemaError(f"{folder}: no trained pools, or not complete; call train_pools")
        self.about = json.loads(index.read_text())
        files = sorted({entry["file"] for entry in self.about["groups"]})
        networks = {file: Noise2Void.trained(Path(folder) / file) for file in files}
        self.margin = max(network.margin for network in networks.values())
        self._of = {key: networks[g["file"]] for g in self.about["groups"] for key in g["recordings"]}

    def for_frame(self, frame: np.ndarray) -> Noise2Void:
        """The network of a recording, at its intensity scale. Raises `OutOfRangeError` if it was in no pool."""
        key = _key(frame)
        if key not in self._of:
            raise OutOfRangeError("this recording was in no pool: Noise2Void learns from what it is to denoise")
        return self._of[key].for_frame(frame)

    def __call__(self, frame: np.ndarray, acquisition: Acquisition | None = None, factor: float = 1.0):
        """See `cimp_core.denoising.noise2void.Noise2Void`."""
        return self.for_frame(frame)(frame, acquisition, factor)


def train_pools(
    recordings: Iterable[tuple[float, np.ndarray]],
    folder: str | Path,
    seconds: float,
    *,
    groups: Sequence[Sequence[float]] = GROUPS,
    steps: int | None = None,
    config: Noise2VoidConfig | None = None,
    seed: int = 0,
) -> PooledNoise2Void:
    """Train a network for each group of doses; what is done already in `folder` is not done again.

    Parameters
    ----------
    recordings : iterable of (electrons, (h, w) array)
        Dose at the bright pixel, and the counts.
    folder : path
        Gets the networks (``.safetensors``), their checkpoints and ``pools.json``.
    seconds : float
        Training time in all; each group has its part by the number of its recordings.
    groups : sequence of sequences of float
        Recordings of other doses are left out; an empty sequence is one group of all doses.
    steps : int, optional
        Steps of each group, instead of the time.

    Raises
    ------
    OutOfRangeError
        There is no recording of any group.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recordings = [(float(electrons), np.asarray(frame)) for electrons, frame in recordings]
    groups = [tuple(group) for group in groups] or [tuple(sorted({electrons for electrons, _ in recordings}))]
    pools = [(g, [frame for electrons, frame in recordings if electrons in g]) for g in groups]
    pools = [(group, frames) for group, frames in pools if frames]
    if not pools:
        raise OutOfRangeError(f"{len(recordings)} recordings, none of the doses {groups}")
    total, about = sum(len(frames) for _, frames in pools), []
    for k, (group, frames) in enumerate(pools):
        file = f"pool{k}.safetensors"
        share = seconds * len(frames) / total
        start = time.perf_counter()
        method = Noise2Void(share, steps=steps, config=config, seed=seed, folder=folder / f"pool{k}").fit_pool(frames)
        method.save(folder / file)
        entry = {"file": file, "doses": group, "recordings": [_key(frame) for frame in frames], "steps": method.steps}
        about.append(entry | {"seconds": round(share, 1), "wall": round(time.perf_counter() - start, 1)})
    content = {"seconds": seconds, "threads": torch.get_num_threads(), "seed": seed, "groups": about}
    write_text(folder / "pools.json", json.dumps(content))
    return PooledNoise2Void(folder)


def _key(frame: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame, np.float32).tobytes()).hexdigest()[:16]


def main() -> None:
    """``python -m cimp_core.study.noise2void_pool CASES --seconds S --out FOLDER``."""
    from .denoising_cases import Cases

    parser = argparse.ArgumentParser(description="Train Noise2Void on the recordings that it is judged by.")
    parser.add_argument("cases", type=Path, help="folder of cimp_core.study.denoising_cases")
    parser.add_argument("--out", type=Path, required=True, help="folder for the networks")
    parser.add_argument("--seconds", type=float, required=True, help="training time in all")
    parser.add_argument("--threads", type=int, help="processor threads; by default those of torch")
    parser.add_argument("--kinds", nargs="*", default=["dose"], help="kinds of cases in the pool")
    parser.add_argument("--one", action="store_true", help="one network for all doses instead of one for each group")
    parser.add_argument("--width", type=int, default=Noise2VoidConfig.width)
    parser.add_argument("--blind", default="pixel", choices=["pixel", "row"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = Noise2VoidConfig(width=arguments.width, blind=arguments.blind)
    cases = Cases(arguments.cases).of(kinds=arguments.kinds)
    made = train_pools(
        ((case.electrons, case.frame) for case in cases), arguments.out, arguments.seconds,
        groups=() if arguments.one else GROUPS, config=config, seed=arguments.seed,
    )  # fmt: skip
    for group in made.about["groups"]:
        print(f"{group['file']}: {len(group['recordings'])} recordings, {group['steps']} steps, {group['wall']:.0f} s")


if __name__ == "__main__":
    main()
