"""Training of the translator that renders an image as if taken with other settings.

A batch is images with their settings, settings that are wanted, and real images of such settings. The generator makes
the image under the wanted settings; a critic tells made images from real ones, each beside its settings; the two take
turns. From a laboratory's own images it learns unpaired, as in the CIMP paper. Of a twin, areas can be recorded again
(`prepare_pairs`): these are then the real images, and what was made is compared with them, too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import CHECKPOINT, LOG, restore_checkpoint, save_checkpoint, write_text
from .dataset import Dataset
from .models import Cimp
from .processes import start
from .renderer import Renderer, StyleRoute
from .style_batches import PAIRS, PROFILES, StyleBatch, StyleConfig, StyleSampler
from .style_pairs import Pairs, prepare_pairs
from .style_players import FULL_SCALE, Players, StyleValidation, Told, limited
from .training import (
    average_weights,
    decay_groups,
    for_this_device,
    is_due,
    learning_rate,
    require_finite,
)

__all__ = [
    "PAIRS",
    "PROFILES",
    "Pairs",
    "Renderer",
    "StyleBatch",
    "StyleConfig",
    "StyleRoute",
    "StyleSampler",
    "StyleValidation",
    "prepare_pairs",
    "train_style",
]


class _Both:
    """Two optimisers as one, for a checkpoint."""

    def __init__(self, *optimizers: Any) -> None:
        self.optimizers = optimizers

    def state_dict(self) -> dict:
        return {str(i): optimizer.state_dict() for i, optimizer in enumerate(self.optimizers)}

    def load_state_dict(self, state: dict) -> None:
        for i, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state[str(i)])


class _Loop:
    """State of a run between its steps."""

    def __init__(self, players: Players, config: StyleConfig, out: str | Path | None) -> None:
        self.players, self.config, self.folder = players, config, None if out is None else Path(out)
        self.fabric = start(config.precision, 1)
        self.fabric.seed_everything(config.seed, verbose=False)
        self.both = nn.ModuleDict({"translator": players.translator, "critic": players.critic})
        rates = (config.peak_rate, config.critic_rate)
        groups = [decay_groups(model, config.weight_decay) for model in self.both.values()]
        made = [torch.optim.AdamW(g, lr=r, betas=(0.5, 0.99)) for g, r in zip(groups, rates, strict=True)]
        self.rates = [rate / config.peak_rate for rate in rates]
        pairs = [self.fabric.setup(m, o) for m, o in zip(list(self.both.values()), made, strict=True)]
        (players.translator, self.generator), (players.critic, self.critic) = pairs
        players.conditioner.to(self.fabric.device)
        self.mean = copy.deepcopy(self.both["translator"]).eval() if config.ema_half_life else None
        self.log: list[dict[str, float]] = []
        self.first, self.sums, self.counted, self.since = 0, {}, 0, time.perf_counter()

    def begin(self, resume: bool) -> None:
        """Go on from the checkpoint of the folder, if there is one."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "config.json", json.dumps(dataclasses.asdict(self.config), indent=1) + "\n")
        if resume and (self.folder / CHECKPOINT).exists():
            optimizers = _Both(self.generator, self.critic)
            self.first, self.log = restore_checkpoint(self.folder, self.both, self.mean, optimizers, self.config)
        write_text(self.folder / LOG, "".join(json.dumps(entry) + "\n" for entry in self.log))

    def step(self, step: int, batch: StyleBatch) -> None:
        """One step of the critic, then one of the generator."""
        config, players = self.config, self.players
        batch = StyleBatch(*(self.fabric.to_device(t) for t in batch))
        told = Told(*(players.conditioner(s) for s in (batch.source, batch.target, batch.real_settings)))
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        noise = self.fabric.to_device(torch.randn((2, *batch.image.shape), generator=generator))
        self.rate = learning_rate(config, step)
        # As a recording would be clipped.
        seen = players.translator(batch.image, told.source, told.target, noise[0]).clamp(0, FULL_SCALE)
        if seen.requires_grad:
            seen.register_hook(limited)
        scalars = {}
        if config.adversarial:
            scalars |= self.critic_step(step, players.critic_loss(seen, batch, told))
        scalars |= self.generator_step(step, seen, batch, told, noise)
        if self.mean is not None:
            average_weights(self.mean, self.both["translator"], config, step)
        for name, value in scalars.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.counted += 1

    def critic_step(self, step: int, loss: Tensor) -> dict[str, float]:
        norm = self._apply(1, step, loss)
        return {"critic": loss.item(), "critic_gradient": norm}

    def generator_step(self, step: int, seen: Tensor, batch: StyleBatch, told: Told, noise: Tensor) -> dict[str, float]:
        self.both["critic"].requires_grad_(False)
        terms = self.players.generator_terms(seen, batch, told, noise)
        loss = sum(getattr(self.config, name) * term for name, term in terms.items())
        norm = self._apply(0, step, loss)
        self.both["critic"].requires_grad_(True)
        return {"loss": loss.item(), "gradient": norm, **{name: term.item() for name, term in terms.items()}}

    def _apply(self, which: int, step: int, loss: Tensor) -> float:
        """Step of one of the two, the generator first; returns the norm of its gradient."""
        optimizer = (self.generator, self.critic)[which]
        model = (self.players.translator, self.players.critic)[which]
        for group in optimizer.param_groups:
            group["lr"] = self.rate * self.rates[which]
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(model, optimizer, max_norm=self.config.clip, error_if_nonfinite=False).item()
        require_finite({"loss": loss.item(), "gradient": norm}, step, self.rate, self.folder)
        optimizer.step()
        return norm

    def note(self, step: int, done: bool, validate: Callable | None, on_log: Callable | None) -> None:
        """Log and checkpoint when they are due."""
        config, seen = self.config, (step + 1) * self.config.batch_size
        if done or any(is_due(seen, n, config) for n in (config.log_every, config.checkpoint_every)):
            speed = self.counted * config.batch_size / (time.perf_counter() - self.since)
            means = {k: v / self.counted for k, v in self.sums.items()}
            entry = {"samples": seen, **means, "rate": self.rate, "per_second": speed}
            if validate is not None and (is_due(seen, config.validate_every, config) or seen >= config.samples):
                entry |= validate(self.result())
            self.log.append(entry)
            if self.folder is not None:
                with open(self.folder / LOG, "a") as file:
                    file.write(json.dumps(entry) + "\n")
            if on_log is not None:
                on_log(entry)
            self.sums, self.counted, self.since = {}, 0, time.perf_counter()
        if self.folder is not None and (done or is_due(seen, config.checkpoint_every, config)):
            optimizers = _Both(self.generator, self.critic)
            save_checkpoint(self.folder, self.both, self.mean, optimizers, config, step + 1, self.log)

    def result(self) -> Renderer:
        """The generator as it is now, or the mean of its weights, on the processor."""
        model = copy.deepcopy(self.both["translator"] if self.mean is None else self.mean).cpu()
        return Renderer(model, copy.deepcopy(self.players.conditioner.encoder).cpu())


def train_style(
    train: Dataset,
    config: StyleConfig,
    out: str | Path | None = None,
    *,
    encoder: Cimp | str | None = None,
    pairs: Pairs | None = None,
    validate: Callable[[Renderer], dict[str, float]] | None = None,
    resume: bool = True,
    stop: int | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> Renderer:
    """Train a translator on `train`, on one device; checkpoint, log and settings go into the folder `out`.

    In every step the critic learns first, from images that the generator made, then the generator, with the critic
    held. A run that was stopped and goes on ends at the same weights, bit for bit on a processor.

    Parameters
    ----------
    train : Dataset
    config : StyleConfig
    out : path, optional
        Folder for ``checkpoint.pt``, ``log.jsonl`` and ``config.json``.
    encoder : Cimp or str, optional
        The frozen encoder; by default the weights ``config.encoder``.
    pairs : Pairs, optional
        Images of `train` recorded again, which batches are drawn from; the term ``truth`` needs them.
    validate : callable, optional
        Scalars to log every ``config.validate_every`` samples and at the end.
    resume, stop, on_log : optional
        As of `training.fit`.

    Returns
    -------
    Renderer
        With the mean of the generator's weights, where ``config.ema_half_life`` asks for one.

    Raises
    ------
    CimpError
        A loss or a gradient is no longer finite.
    SchemaError
        The checkpoint in `out` belongs to a run with other settings.
    """
    config = for_this_device(config)
    torch.manual_seed(config.seed)
    players = Players.new(config, config.encoder if encoder is None else encoder, pairs is not None)
    loop = _Loop(players, config, out)
    loop.begin(resume)
    batches = StyleSampler(train, config, players.conditioner.encoder.config.normalizer, pairs=pairs)
    last = config.steps if stop is None else min(stop, config.steps)
    for step in range(loop.first, last):
        loop.step(step, batches(step))
        loop.note(step, step + 1 == last, validate, on_log)
    return loop.result()


def main() -> None:
    """``python -m cimp_core.style TWIN --out FOLDER``: train on the training materials, keep weights, card and log."""
    import argparse

    from .dataset import open_dataset
    from .weights import load, save

    parser = argparse.ArgumentParser(description="Train a translator of settings; stopped, it goes on.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="full")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = open_dataset(arguments.dataset)
    train, val, _ = data.split("material", val=0.1, test=0.25, seed=0)
    config = dataclasses.replace(PROFILES[arguments.profile], seed=arguments.seed)
    count = PAIRS[arguments.profile]
    pairs = prepare_pairs(train, arguments.out / "pairs", count)
    again = prepare_pairs(val, arguments.out / "pairs_val", max(16, count // 40))
    log: list[dict] = []
    check = StyleValidation(val, config, load(config.encoder), pairs=again)
    renderer = train_style(train, config, arguments.out, pairs=pairs, validate=check, on_log=log.append)
    scores = log[-1] if log else json.loads((arguments.out / LOG).read_text().splitlines()[-1])
    record = {
        "command": f"python -m cimp_core.style TWIN --profile {arguments.profile} --seed {arguments.seed}",
        "data": f"twin {data.attributes.get('twin_version')}, training materials of split material, val 0.1, test 0.25",
        "pairs": f"{count} areas of them recorded again under settings drawn at random",
        "settings": dataclasses.asdict(config),
        "scores": {k: round(v, 4) for k, v in scores.items() if k.startswith("val_") or k == "samples"},
    }
    digest = save(renderer.translator, arguments.out / "weights.safetensors", record, half=("",), force=True)
    print(f"{arguments.out / 'weights.safetensors'}: sha256 {digest}")


if __name__ == "__main__":
    main()
