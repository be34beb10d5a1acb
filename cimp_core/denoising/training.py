"""Training of `DoseNet` on recordings of the twin at any dose, with the truth behind them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoint import write_text
from ..models import Cimp
from ..models.denoiser import DoseNet, DoseNetConfig
from ..simulate.detector import FULL_SCALE
from ..simulate.lab import DWELL_TIMES
from ..training import TrainConfig, fit
from .pairs import Scans, low_dose, virtual_truth

__all__ = ["PROFILES", "DenoiseConfig", "DoseSampler", "dose_loss", "train_direct"]

UNMEASURED = 1e-4
"""Part of the recording's error below which a smaller error is not rewarded."""


@dataclass(frozen=True)
class DenoiseConfig(TrainConfig):
    """Settings of a training of `DoseNet`: its shape, the recordings it sees, and the loop's own settings."""

    width: int = 32  # channels at half resolution
    deep: int = 48  # channels at a quarter and an eighth
    blocks: int = 1  # residual blocks at each resolution, each way
    conditioned: bool = True  # steered by the embedding of the settings
    crop_size: int = 128  # edge of a crop [pixels]
    least: float = 0.3  # detected electrons at the bright pixel, from here
    most: float = 1000.0  # to here, evenly in the logarithm
    hide: float = 0.3  # share of crops whose settings are all hidden
    hide_one: float = 0.1  # share of single settings hidden in the others
    wrong: float = 0.1  # share of crops that are told the settings of another one


PROFILES = {
    "smoke": DenoiseConfig(
        samples=64, batch_size=8, warmup=16, width=8, deep=8, crop_size=64, precision="32-true", log_every=32,
        validate_every=64, checkpoint_every=64,
    ),
    "book": DenoiseConfig(
        samples=1_024, batch_size=16, warmup=128, width=16, deep=32, log_every=128, validate_every=1_024,
        checkpoint_every=1_024,
    ),
    "full": DenoiseConfig(
        samples=19_200, batch_size=16, warmup=640, peak_rate=2e-3, weight_decay=1e-3, ema_half_life=1_200,
        log_every=320, validate_every=3_200, checkpoint_every=1_600,
    ),
}  # fmt: skip
"""The same method at three lengths: a test (seconds), a chapter (minutes), the shipped weights."""


class DoseSampler:
    """Batches of crops, a pure function of the step.

    ``sampler(step)`` gives counts (B, s, s), the truth (B, s, s) [counts], settings (B, 128) as embedded by `model`,
    zero where they are hidden, and the factor (B,). `flips` of the specimen, not of the recording: after-glow always
    runs along the row.
    """

    def __init__(self, scans: Scans, model: Cimp, config: DenoiseConfig) -> None:
        self.scans, self.model, self.config = scans, model, config

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        config, n = self.config, self.config.batch_size
        rng = np.random.default_rng((config.seed, 5, step))
        counts, truth, settings, factors = [], [], [], []
        for _ in range(n):
            one = self._draw(rng)
            for kept, value in zip((counts, truth, settings, factors), one, strict=True):
                kept.append(value)
        wrong = rng.random(n) < config.wrong
        vectors = np.array(settings)
        vectors = np.where(wrong[:, None], vectors[rng.permutation(n)], vectors)
        vectors[rng.random(vectors.shape) < config.hide_one] = np.nan
        embedded = torch.from_numpy(self.model.embed_metadata(vectors))
        embedded[torch.from_numpy(rng.random(n) < config.hide)] = 0
        return (
            torch.from_numpy(np.stack(counts)),
            torch.from_numpy(np.stack(truth)),
            embedded,
            torch.tensor(factors, dtype=torch.float32),
        )

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        while True:  # an offset can put black below zero, where a recording shows nothing
            drawn = self._try(rng)
            if 0.2 * drawn[0].size > (drawn[0] == 0).sum() + (drawn[0] == FULL_SCALE).sum():
                return drawn

    def _try(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        config, size = self.config, self.config.crop_size
        shot, fraction = self.scans[int(rng.integers(len(self.scans)))]
        electrons = np.exp(rng.uniform(np.log(config.least), np.log(config.most)))
        dwell_time = float(
            rng.choice(DWELL_TIMES) if rng.random() < 0.5 else np.exp(rng.uniform(*np.log([1e-7, 2e-5])))
        )
        factor = 16.0 if rng.random() < 0.5 else float(2 ** rng.uniform(1, 6))
        level = float(np.clip(0.5 * np.exp(0.5 * rng.standard_normal()), 0.05, 0.9))
        offset = float(rng.choice(shot.instrument.offsets)) if rng.random() < 0.3 else None
        top, left = rng.integers(0, np.array(fraction.shape) - size + 1)
        crop = fraction[top : top + size, left : left + size][:: rng.choice((1, -1)), :: rng.choice((1, -1))]
        # The dose is that of the whole image: a crop beside the particle is as dark as it was.
        share = np.quantile(crop, 0.995) / max(np.quantile(fraction[::2, ::2], 0.995), 1e-9)
        settings, counts = low_dose(
            shot, crop, electrons * max(share, 1e-3), dwell_time, rng, level=level * max(share, 0.05), offset=offset
        )
        truth = virtual_truth(shot, crop, settings, factor)
        return counts.astype(np.float32), truth.astype(np.float32), settings.vector(), factor


def dose_loss(net: DoseNet, counts: Tensor, truth: Tensor, settings: Tensor, factor: Tensor):
    """Mean logarithm of the error over that of the recording, and the likelihood of the predicted variance.

    The first is minus the logarithm of the dose-equivalent gain, so that an image counts the same at any dose. The
    variance is fitted to the error there is, and does not move the picture.
    """
    out = net(counts, settings, factor)
    with torch.autocast(counts.device.type, enabled=False):
        wanted = (truth - out.mean[:, None, None]) / out.spread[:, None, None]
        recorded = (counts - truth).square().mean((1, 2)) / out.spread.square() + 1e-12
        error = (out.image.float() - wanted).square()
        gain = (error.mean((1, 2)) / recorded + UNMEASURED).log()
        variance = out.log_variance.float()
        # Student's t of four degrees of freedom, (1 + e/4v)^(-5/2): a normal one would follow the few that are far off,
        # and one cut off there can sink to a variance of zero and stay.
        beyond = (0.25 * error.detach() + 1e-12).log() - variance
        likelihood = (0.5 * variance + 2.5 * F.softplus(beyond)).mean((1, 2))
        # Measured from the noise, so that it is of order one at any dose.
        likelihood = likelihood - out.noise.log()
    loss = gain.mean() + 0.05 * likelihood.mean()
    return loss, {"log_gain": -gain.mean().detach(), "likelihood": likelihood.mean().detach()}


def train_direct(
    scans: Scans,
    val: Scans | None,
    model: Cimp,
    config: DenoiseConfig,
    out: str | Path | None = None,
    *,
    resume: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> DoseNet:
    """Train a network on `scans`; checkpoint, log and settings go into the folder `out`.

    Parameters
    ----------
    scans, val : Scans
        Of materials that have nothing in common; `val` is only looked at.
    model : Cimp
        Embeds the settings; frozen.
    """
    torch.manual_seed(config.seed)
    names = {f.name for f in dataclasses.fields(DoseNetConfig)} & {f.name for f in dataclasses.fields(config)}
    net = DoseNet(DoseNetConfig(**{name: getattr(config, name) for name in names}))
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_text(Path(out) / "config.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    validate = None if val is None else Validation(val, model, config)
    fit(
        net, DoseSampler(scans, model, config), dose_loss, config, out, validate=validate, resume=resume,
        on_log=on_log, on_step=on_step,
    )  # fmt: skip
    return net.cpu().eval()


class Validation:
    """Mean logarithm of the gain on a fixed set of crops with all settings told, and with none."""

    def __init__(self, val: Scans, model: Cimp, config: DenoiseConfig, batches: int = 6) -> None:
        fixed = dataclasses.replace(config, seed=config.seed + 1_000_003, hide=0.0, hide_one=0.0, wrong=0.0)
        self.batches = [DoseSampler(val, model, fixed)(step) for step in range(batches)]

    @torch.no_grad()
    def __call__(self, net: DoseNet) -> dict[str, float]:
        device = next(net.parameters()).device
        found: dict[str, list[float]] = {"val_log_gain": [], "val_log_gain_untold": []}
        for counts, truth, settings, factor in self.batches:
            for name, told in zip(found, (settings, torch.zeros_like(settings)), strict=True):
                _, scalars = dose_loss(net, *(t.to(device) for t in (counts, truth, told, factor)))
                found[name].append(float(scalars["log_gain"]))
        return {name: float(np.mean(values)) for name, values in found.items()}
