"""The model card that is written beside a weights file: what the model is, learnt from, and must not be used for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from .models import Cimp

__all__ = ["TEXTS", "Texts", "card"]


class Texts(NamedTuple):
    """What a card says of a kind of model."""

    what: str
    scores: str  # what scores are of
    use: str
    misuse: str  # a list in Markdown


TEXTS = {
    "cimp": Texts(
        """CIMP: a network that reads HAADF-STEM images by {reads}, and a small network for their seven
acquisition parameters, trained so that the embeddings of an image and of its settings agree.""",
        "on simulated images of held-out sessions",
        "Teaching, tests, and a starting point for training on a laboratory's own images.",
        """- To decide about an experiment or a specimen, or as evidence of how a published image was taken.
- To certify the calibration or the settings of an instrument, or to replace recorded metadata.
- On anything but HAADF-STEM images; on images below 32 x 32 pixels.
- With absolute intensity on images that are not Velox 16-bit: there the absolute channel is masked, and the
  gain and offset can hardly be told.""",
    ),
    "style": Texts(
        """A translator: it renders a HAADF-STEM image as if it had been taken with other settings (dwell time,
convergence angle, current, gain, offset, inner collection angle), which it is told as CIMP embeddings.""",
        "on simulated images of materials that it was not trained on",
        "Teaching, tests, and a first idea of what other settings would give.",
        """- As a measurement: what the settings of the original did not record cannot be rendered, only invented.
- To decide about an experiment or a specimen, or in a publication in place of an image.
- To change the pixel size: another field of view holds another specimen.
- On anything but HAADF-STEM images on the Velox 16-bit scale.""",
    ),
    "dose": Texts(
        """A denoiser: it gives the picture that a longer exposure of the same area is expected to show, with the
deviation of its error, from a HAADF-STEM recording and, where they are known, its settings as a CIMP embedding.""",
        "on simulated images of materials that it was not trained on",
        "Low-dose HAADF-STEM images from 0.3 to 1,000 detected electrons at the bright pixel, at any intensity scale.",
        """- As evidence of a single atom, vacancy or faint fringe that the recording itself does not support: look at
  the deviation that comes with the picture.
- On bright-field, annular bright-field or TEM images; on images that were filtered, rescaled or denoised before.
- For counting electrons: the noise of the picture is not that of a recording.""",
    ),
    "settings": Texts(
        """A reader of settings, behind `cimp audit`: from the hidden layer of a CIMP image encoder it gives what the
seven acquisition parameters are likely to have been, as one Gaussian; two small outputs tell a resampled image and a
bright field from a recording of an annular detector.""",
        "on simulated images of other sessions",
        "Comparing recorded settings with the picture, with the p-values of a calibration, and asking a person.",
        """- To correct metadata without a person who looks: it says what disagrees, not what is true.
- Without a calibration on the microscope's own images, for a statement on that microscope.
- On anything but HAADF-STEM images; on images below 64 x 64 pixels.
- Its spreads without a calibration: by themselves they are no probabilities.""",
    ),
    "structures": Texts(
        """An embedding of HAADF-STEM images of crystals, by which images of one crystal, taken along any zone axis, are
near one another. It reads the lattice reflections that an image shows: how far out, how strong,
how sure, how exactly placed, and what stands in its row.""",
        "on simulated images of prototypes that it was not trained on",
        "Looking for the crystals that are most like a micrograph's, before candidates are fitted one by one.",
        """- As an identification: near rows are candidates. Crystals of one prototype with alike spacings look alike.
- Without a pixel size, or with one that is wrong by more than `length_error` says: lengths count to a per mille.
- On anything but HAADF-STEM images of a single crystal along a zone axis; on pixels coarser than 0.3 angstrom.
- With contrast where the black level of the detector is not known: leave it out there, as is the default.""",
    ),
}
"""By the kind of the model."""


def card(
    kind: str,
    path: Path,
    model: nn.Module,
    record: Mapping[str, Any],
    digest: str,
    half: tuple[str, ...],
    size: int,
) -> str:
    """Model card in Markdown."""
    texts, count = TEXTS[kind], sum(p.numel() for p in model.parameters())
    stored = {(): "float32", ("",): "float16 (norms float32)"}.get(half, f"float32, {' and '.join(half)}* as float16")
    rows = "\n".join(f"| {k} | `{json.dumps(v)}` |" for k, v in sorted(record.items()))
    own = isinstance(model, Cimp)
    what = texts.what.format(reads=_reads(model)) if own else texts.what
    temperature = f";\n  inverse temperature {model.scale:.1f}" if own else ""
    return f"""# {path.stem}

{what}

- {count:,} parameters, stored in {size / 1e6:.1f} MB as {stored}{temperature}
- sha256 `{digest}`
- licence GPL-3.0-or-later

## It learnt from simulation
Every training image comes from a physics-based simulation, not from a microscope. Scores below are scores
{texts.scores}, at 300 kV, on invented instruments. How well it carries over to
a given instrument is not known until it is measured there.

## What it is for
{texts.use}

## What it must not be used for
{texts.misuse}

## How it was trained
| | |
|---|---|
{rows}
"""


def _reads(model: Cimp) -> str:
    """What the image tower looks at, in words."""
    config = model.config
    ways = [f"a ResNet-18 with {config.width} channels in its first stage"] if config.width else []
    ways += ["statistics"] if config.statistics else []
    ways += ["their power spectrum on a log-polar grid"] if config.spectrum else []
    return " and ".join(ways)
