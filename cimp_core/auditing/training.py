"""Training of the network behind the audit, on features that were computed before: minutes on one processor."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..metadata import Normalizer
from ..models.settings_reader import CHECKS, SettingsReader, SettingsReaderConfig, negative_log_likelihood
from .measuring import TEXTURE
from .samples import Samples

__all__ = ["TrainConfig", "train_checks", "train_settings"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training."""

    epochs: int = 30  # over all images at all sides, with and without their intensity scale
    check_epochs: int = 60
    batch_size: int = 512
    peak_rate: float = 2e-3
    weight_decay: float = 0.05
    freedom: float = 6.0  # degrees of freedom of the Student distribution
    noise: float = 0.1  # spread added to the features, in their own spreads
    hidden: int = 256
    dropout: float = 0.3
    seed: int = 0


def train_settings(
    train: Sequence[Samples],
    val: Sequence[Samples],
    normalizer: Normalizer,
    config: TrainConfig,
    on_log: Callable[[dict], object] = lambda entry: None,
) -> SettingsReader:
    """Fit the Gaussian of the settings; of the epochs the one with the least loss on validation is kept.

    Parameters
    ----------
    train, val : sequence of Samples
        One for each side of the images.
    normalizer : Normalizer
        In whose units settings are predicted.
    """
    torch.manual_seed(config.seed)
    texture = len(TEXTURE)
    net = SettingsReader(
        SettingsReaderConfig(
            relative=train[0].statistics.shape[1] - texture, texture=texture, hidden=config.hidden,
            dropout=config.dropout, log_indices=tuple(int(i) for i in normalizer.log_indices),
            mean=tuple(map(float, normalizer.mean)), std=tuple(map(float, normalizer.std)),
        )
    )  # fmt: skip
    x, y = _rows(train, normalizer)
    xv, yv = _rows(val, normalizer)
    spread = x.std(0)
    steps = config.epochs * (len(x) // config.batch_size)
    optimiser = torch.optim.AdamW(net.settings.parameters(), config.peak_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.peak_rate, total_steps=steps, pct_start=0.1)
    best, kept = float("inf"), None
    for epoch in range(config.epochs):
        net.train()
        order, total = torch.randperm(len(x)), 0.0
        for batch in order[: len(x) // config.batch_size * config.batch_size].split(config.batch_size):
            shown = x[batch] + config.noise * spread * torch.randn_like(x[batch])
            loss = negative_log_likelihood(*net(shown), y[batch], config.freedom).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.settings.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        net.eval()
        with torch.no_grad():
            held_out = float(negative_log_likelihood(*net(xv), yv, config.freedom).mean())
        on_log({"part": "settings", "epoch": epoch + 1, "loss": total / len(x), "val_loss": held_out})
        if held_out < best:
            best, kept = held_out, copy.deepcopy(net.state_dict())
    net.load_state_dict(kept)
    return net.eval()


def train_checks(
    net: SettingsReader,
    good: np.ndarray,
    spoiled: Mapping[str, np.ndarray],
    config: TrainConfig,
    on_log: Callable[[dict], object] = lambda entry: None,
) -> None:
    """Fit the checks of the picture, and what is common among pictures, in place.

    Parameters
    ----------
    good : (n, m) array
        Statistics of recordings.
    spoiled : mapping of str to (k, m) array
        By the check that has to object.
    """
    torch.manual_seed(config.seed)
    x, targets, weights = [good], [np.zeros((len(good), len(CHECKS)))], [np.ones((len(good), len(CHECKS)))]
    for number, name in enumerate(CHECKS):
        own = np.zeros((len(spoiled[name]), len(CHECKS)))
        own[:, number] = 1.0
        x.append(spoiled[name])
        targets.append(own)
        # Each check tells its own from recordings; of the other's it need not say anything.
        weights.append(own * len(good) / max(len(own), 1))
    x, y, w = (torch.tensor(np.concatenate(v), dtype=torch.float32) for v in (x, targets, weights))
    steps = config.check_epochs * (len(x) // config.batch_size)
    optimiser = torch.optim.AdamW(net.checks.parameters(), config.peak_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.peak_rate, total_steps=steps, pct_start=0.1)
    net.check_norm.train()
    net.check_norm.momentum = None  # plain means over recordings
    net.check_norm.reset_running_stats()
    with torch.no_grad():
        net.check_norm(torch.tensor(good, dtype=torch.float32))
    net.check_norm.eval()
    for epoch in range(config.check_epochs):
        total = 0.0
        for batch in torch.randperm(len(x))[: len(x) // config.batch_size * config.batch_size].split(config.batch_size):
            loss = F.binary_cross_entropy_with_logits(net.check(x[batch]), y[batch], w[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        if epoch % 10 == 9:
            on_log({"part": "checks", "epoch": epoch + 1, "loss": total / len(x)})
    _set_common(net, torch.tensor(good, dtype=torch.float32))


@torch.no_grad()
def _set_common(net: SettingsReader, good: Tensor, least: float = 0.1) -> None:
    """Axes on which recordings have unit spread; directions without any are taken to have `least` of the others'."""
    scaled = net.check_norm(good).clamp(-8, 8)
    net.common_mean.copy_(scaled.mean(0))
    values, vectors = torch.linalg.eigh(torch.cov(scaled.T))
    net.common_axes.copy_(vectors / (values.clamp_min(0) + least**2).sqrt())


def _rows(samples: Sequence[Samples], normalizer: Normalizer) -> tuple[Tensor, Tensor]:
    """Features with and without intensity scale, one below the other, and normalised settings."""
    x = np.concatenate([v for s in samples for v in (s.absolute, s.relative)])
    y = np.concatenate([normalizer.normalize(s.settings) for s in samples for _ in range(2)])
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def settings_of(config: TrainConfig) -> dict:
    """As the record of a weights file keeps them."""
    return dataclasses.asdict(config)
