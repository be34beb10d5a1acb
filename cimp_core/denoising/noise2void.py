"""Noise2Void: a network that learns from the noisy pictures alone, by predicting pixels that it cannot see.

Krull, Buchholz and Jug, CVPR 2019, arXiv:1811.10980. It assumes that the noise of a pixel tells nothing of the noise of
its neighbours. After-glow of the scintillator breaks that along a row; ``blind="row"`` hides more of the row then
(structN2V). It predicts what the recording shows on average, after-glow included, at the same settings: the dose factor
and the metadata mean nothing to it. `bench/noise2void_check.py` compares it with careamics.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint import write_text
from ..errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError
from ..metadata import Acquisition
from ..models.unet import UNet
from ..training import TrainConfig, fit
from .blind_spots import blind_spots

__all__ = ["Noise2Void", "Noise2VoidConfig"]

_FORMAT = "cimp-noise2void-1"
_TILE = 512  # edge of the parts in which a large frame passes the network [pixels]


@dataclass(frozen=True)
class Noise2VoidConfig(TrainConfig):
    """Settings of the network, of the blind spots, and of the training loop."""

    samples: int = 0  # length of the run [patches]; 0: as many as the time allows
    batch_size: int = 8
    peak_rate: float = 2e-3
    warmup: int = 160
    weight_decay: float = 0.0
    log_every: int = 4_000
    validate_every: int = 10**9
    checkpoint_every: int = 4_000
    width: int = 16  # channels of the first level; with 32 a step takes four times as long, which a minute has not
    depth: int = 2  # times that the picture is halved
    norm: bool = True  # batch normalisation
    top_skip: bool = True  # False: the network of N2V2
    patch: int = 64  # edge of the patches [pixels]
    share: float = 0.04  # part of the pixels that is predicted; at equal steps better than 0.01
    radius: int = 5  # neighbours that may stand in for a pixel
    replace: str = "uniform"  # or "median", as in N2V2
    blind: str = "pixel"  # or "row"
    reach: int = 4  # pixels hidden on both sides in the row, with blind="row"
    turns: bool = True  # patches are turned by quarters, unless a row is hidden; they are mirrored in any case


class Noise2Void:
    """Trained on a frame, a series or a pool of frames; then ``method(frame, acquisition, factor)``.

    Called untrained, it trains on the frame it is given, each frame anew.

    Parameters
    ----------
    seconds : float
        Training time on this machine. The number of steps is measured from it once, so another run has a few more or
        less; with `steps` it is the same everywhere.
    steps : int, optional
        Training steps, instead of the time.
    config : Noise2VoidConfig
        ``samples`` is filled in from the above.
    seed : int
        Of the network's first weights and of the patches.
    folder : path, optional
        Keeps checkpoint and log; an interrupted training goes on from there.
    """

    name = "noise2void"

    def __init__(
        self,
        seconds: float = 60.0,
        *,
        steps: int | None = None,
        config: Noise2VoidConfig | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        if seconds <= 0 or (steps is not None and steps < 1):
            raise OutOfRangeError(f"seconds={seconds}, steps={steps}: training takes more than 0 s and at least 1 step")
        self.config = dataclasses.replace(config or Noise2VoidConfig(), seed=seed)
        self.seconds, self.steps, self.folder = seconds, steps, None if folder is None else Path(folder)
        self.network: UNet | None = None
        self.level: tuple[float, float] | None = None  # mean and standard deviation that frames are brought to
        self.log: list[dict[str, float]] = []

    @property
    def margin(self) -> int:
        """Context that a tile needs [pixels]."""
        return _network(self.config).margin if self.network is None else self.network.margin

    def fit(self, frames: Sequence[np.ndarray] | np.ndarray, *, on_step: Callable[[int], None] | None = None):
        """Train on a frame (h, w) or on frames of one series (n, h, w); all are seen at one intensity scale.

        Returns the method itself, which keeps that scale: tiles of a frame join without a step.
        """
        frames = [np.asarray(f) for f in ([frames] if np.ndim(frames[0]) == 1 else frames)]
        mean = float(np.mean([f.mean(dtype=float) for f in frames]))
        deviation = float(np.sqrt(np.mean([np.square(f - mean, dtype=float).mean() for f in frames]))) or 1.0
        self._train(frames, [(mean, deviation)] * len(frames), on_step)
        self.level = (mean, deviation)
        return self

    def fit_pool(
        self,
        images: Sequence[np.ndarray],
        seconds: float | None = None,
        seed: int | None = None,
        *,
        on_step: Callable[[int], None] | None = None,
    ):
        """Train one network on frames of different scales and sizes, each brought to mean 0 and deviation 1.

        Returns the method itself; it then measures the scale of every frame it is called with (see `for_frame`).
        """
        if seconds is not None:
            self.seconds = seconds
        if seed is not None:
            self.config = dataclasses.replace(self.config, seed=seed)
        frames = [np.asarray(f) for f in images]
        self._train(frames, [_level(f) for f in frames], on_step)
        self.level = None
        return self

    def for_frame(self, frame: np.ndarray) -> Noise2Void:
        """The method for tiles of one frame: trained on it if this one is untrained, else at its intensity scale."""
        other = copy.copy(self)
        if self.network is None:
            return other.fit(frame)
        if self.level is None:
            other.level = _level(frame)
        return other

    def __call__(self, frame: np.ndarray, acquisition: Acquisition | None = None, factor: float = 1.0):
        """Expectation of a (h, w) frame, (h, w) float32 counts, and ``None`` for its deviation, which it cannot tell.

        `acquisition` and `factor` are there for the sake of the common interface.
        """
        frame = np.asarray(frame)
        if self.network is None or self.level is None:
            return self.for_frame(frame)(frame, acquisition, factor)
        mean, deviation = self.level
        x = torch.from_numpy(((frame - np.float64(mean)) / deviation).astype(np.float32))
        out = _in_parts(self.network, x, self.margin).numpy().astype(np.float64)
        return (out * deviation + mean).astype(np.float32), None

    def _train(self, frames: list[np.ndarray], levels: list[tuple[float, float]], on_step) -> None:
        smallest = min((min(f.shape) for f in frames), default=0)
        if smallest < 32 or any(f.ndim != 2 for f in frames):
            raise OutOfRangeError(f"{len(frames)} frames, smallest edge {smallest}: frames of at least 32 x 32 pixels")
        config = dataclasses.replace(self.config, patch=min(self.config.patch, smallest // 8 * 8))
        batches = _Batches(frames, levels, config)
        network = _network(config)
        steps = self._steps(network, batches, config)
        config = dataclasses.replace(config, samples=steps * config.batch_size)
        self.log = fit(network, batches, _loss, config, self.folder, on_step=on_step)
        self.network, self.config, self.steps = network.cpu().eval(), config, steps

    def _steps(self, network: UNet, batches: _Batches, config: Noise2VoidConfig) -> int:
        """Steps of the run; kept in the folder, since a resumed run must not measure them again."""
        if self.steps is not None:
            return self.steps
        if config.samples:
            return config.steps
        kept = None if self.folder is None else self.folder / "steps.json"
        if kept is not None and kept.exists():
            return int(json.loads(kept.read_text()))
        steps = max(1, round(self.seconds / _seconds_a_step(network, batches, config)))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_text(kept, json.dumps(steps))
        return steps

    def save(self, path: str | Path) -> None:
        """Write the trained network as safetensors."""
        if self.network is None:
            raise CimpError("nothing to save: this Noise2Void is not trained; call fit or fit_pool first")
        about = {"format": _FORMAT, "config": dataclasses.asdict(self.config), "level": self.level}
        tensors = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        save_file(tensors, str(path), {"cimp": json.dumps(about, sort_keys=True)})

    @classmethod
    def trained(cls, path: str | Path) -> Noise2Void:
        """What `save` wrote. Raises `UnreadableFileError` or `SchemaError`."""
        about, tensors = _read(Path(path))
        config = Noise2VoidConfig(**about["config"])
        method = cls(config=config, steps=max(1, config.steps), seed=config.seed)
        method.network = _network(config).to(memory_format=torch.channels_last).eval()
        method.network.load_state_dict(tensors)
        method.level = None if about["level"] is None else tuple(about["level"])
        return method


class _Batches:
    """Patches with blind spots, a pure function of the step: masked, original, targets, each (B, 1, p, p)."""

    def __init__(self, frames: list[np.ndarray], levels: list[tuple[float, float]], config: Noise2VoidConfig) -> None:
        self.frames, self.levels, self.config = frames, levels, config
        areas = np.array([f.size for f in frames], float)
        self.chances = areas / areas.sum()

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        rng = np.random.default_rng((config.seed, 11, step))
        which = rng.choice(len(self.frames), config.batch_size, p=self.chances)
        patches = np.stack([self._patch(i, rng) for i in which])
        options = {name: getattr(config, name) for name in ("share", "radius", "replace", "blind", "reach")}
        masked, targets = blind_spots(patches, rng, **options)
        return tuple(torch.from_numpy(a[:, None]) for a in (masked, patches, targets))

    def _patch(self, i: int, rng: np.random.Generator) -> np.ndarray:
        frame, (mean, deviation), edge = self.frames[i], self.levels[i], self.config.patch
        top, left = (int(rng.integers(side - edge + 1)) for side in frame.shape)
        patch = ((frame[top : top + edge, left : left + edge] - mean) / deviation).astype(np.float32)
        turns, flip = rng.integers(4), rng.integers(2)
        if not self.config.turns or self.config.blind == "row":
            turns = turns // 2 * 2  # rows stay rows
        return np.rot90(patch[:, ::-1] if flip else patch, turns).copy()


def _loss(model: UNet, masked: Tensor, original: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean square error at the hidden pixels only."""
    error = (model(masked).float() - original).square()
    return (error * targets).sum() / targets.sum().clamp_min(1), {}


def _network(config: Noise2VoidConfig) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return UNet(config.width, config.depth, norm=config.norm, top_skip=config.top_skip)


def _level(frame: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; that of a flat frame is taken as 1."""
    return float(frame.mean(dtype=float)), float(frame.std(dtype=float)) or 1.0


def _seconds_a_step(network: UNet, batches: _Batches, config: Noise2VoidConfig, steps: int = 6) -> float:
    """Time of a training step, measured on a copy after two steps of warm-up."""
    trial = dataclasses.replace(config, samples=(steps + 2) * config.batch_size, log_every=10**9)
    times: list[float] = []
    fit(copy.deepcopy(network), batches, _loss, trial, on_step=lambda _: times.append(time.perf_counter()))
    return float(np.median(np.diff(times[1:])))


@torch.inference_mode()
def _in_parts(network: UNet, x: Tensor, margin: int, tile: int = _TILE) -> Tensor:
    """``network(x)`` of a (h, w) picture in tiles, each with a margin: the same result, bounded memory."""
    out = torch.empty_like(x)
    height, width = x.shape
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            # Tiles begin at multiples of the pooling, or another grid of pixels would be pooled.
            y, x0 = max(0, top - margin), max(0, left - margin)
            bottom, right = min(height, top + tile + margin), min(width, left + tile + margin)
            part = network(x[None, None, y:bottom, x0:right])[0, 0, top - y :, left - x0 :]
            out[top : top + tile, left : left + tile] = part[: height - top, : width - left][:tile, :tile]
    return out


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("cimp", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise UnreadableFileError(f"{path}: not a readable weights file ({error})") from error
    if about.get("format") != _FORMAT:
        raise SchemaError(f"{path}: not a Noise2Void of this program; train and save it again")
    return about, tensors
