"""The kernels for graphics cards, run on a processor by Triton's interpreter, against the tiles of torch in float64."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import fused_kernels
import pytest
import torch

from cimp_core.losses import contrastive, tiles

# Triton is built for Linux on these processors; there the interpreter must be there.
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="Triton has no build for this machine"
)


@pytest.fixture(scope="module")
def found():
    """Relative differences, from another process: the interpreter replaces parts of Triton where it is turned on."""
    done = subprocess.run(
        [sys.executable, fused_kernels.__file__],
        capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_kernels_agree_with_the_tiles(found):
    """Sums, and gradients of both sides, scale and bias; rows and tiles ragged; hot and cold."""
    assert len(found["cases"]) == 4
    for shape, differences in found["cases"].items():
        scale = ast.literal_eval(shape)[3]
        assert len(differences) == 11
        for name, difference in differences.items():
            assert difference <= 3e-7 * max(1.0, scale / 5), (shape, name)


def test_losses_by_the_kernels_are_the_plain_ones(found):
    assert len(found["autograd"]) == 5 and max(found["autograd"]) <= 2e-6


def test_the_form_is_chosen_by_size_and_device():
    small, large = torch.zeros(1024, 8), torch.zeros(1025, 8)
    assert contrastive.kernels_for(small, small, None) is None
    assert contrastive.kernels_for(large, large, None) is tiles
    assert contrastive.kernels_for(large, large, 1025) is None and contrastive.kernels_for(large, large, 1024) is tiles
    code = Path(contrastive.__file__).with_name("fused.py").read_text(encoding="utf-8")
    assert "triton" not in sys.modules or "TRITON_INTERPRET" not in os.environ, (
        "the interpreter is for one process only"
    )
    assert "atomic" not in code  # a result is the same every time
