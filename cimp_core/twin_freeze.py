"""Freezing the twin: the digest that is its version, and what a test on another machine can compare.

``python -m cimp_core.twin_freeze`` makes the 100 reference images and rewrites ``twin_version.py``. Whoever changes
the physics or the lab runs it, and makes every result again.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from . import twin_version
from .digital_twin import reference_images

__all__ = ["SMALL", "freeze", "small_reference", "twin_digest"]

SMALL = (10, 64)
"""Number and side [px] of the small reference images, quick enough for every test run."""


def twin_digest(images: int = 100, size: int = 256) -> str:
    """SHA-256 of the reference images and their settings, 12 hexadecimal digits.

    The same on one machine. A processor or a library whose sine differs in the last bit can draw other electrons from
    the same expectation; compare `small_reference` there.
    """
    digest = sha256()
    for pixels, _, settings in reference_images(images, size):
        digest.update(pixels.tobytes())
        digest.update(np.array(settings).tobytes())
    return digest.hexdigest()[:12]


def small_reference() -> list[list[float]]:
    """Mean and standard deviation of the expected counts of each of the small reference images."""
    expected = [expectation for _, expectation, _ in reference_images(*SMALL)]
    return [[round(float(image.mean()), 3), round(float(image.std()), 3)] for image in expected]


def freeze() -> str:
    """Write the digest of the reference images into ``twin_version.py`` and return it."""
    version, small = twin_digest(), twin_digest(*SMALL)
    rows = "".join(f"    ({mean}, {deviation}),\n" for mean, deviation in small_reference())
    Path(twin_version.__file__).write_text(
        '"""Version of the twin: written by ``python -m cimp_core.twin_freeze``, never by hand."""\n\n'
        f'TWIN_VERSION = "{version}"\n'
        f'SMALL_DIGEST = "{small}"\n'
        f"SMALL_REFERENCE = (\n{rows})\n",
        encoding="utf-8",
    )
    return version


if __name__ == "__main__":
    print(f"{twin_version.TWIN_VERSION} -> {freeze()}")
