"""Options and fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz", type=int, default=100, metavar="N", help="damaged copies of each real file (default 100)"
    )


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Ctrl-C as in a terminal: a run in the background ignores it, and its children would, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real microscope files; tests that need one of them skip where it is absent."""
    root = Path(__file__).resolve().parents[1]
    folder = (root / os.environ.get("CIMP_SHARED", "../shared")).resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"no real files: {folder}/data is absent; set CIMP_SHARED")
    return folder


@pytest.fixture(scope="session")
def renderer():
    """An untrained one: it gives back the image, with a little noise where other settings are asked for."""
    import torch

    from cimp_core.models import Cimp, CimpConfig, Translator, TranslatorConfig
    from cimp_core.renderer import Renderer

    torch.manual_seed(0)
    encoder = Cimp(CimpConfig(dim=16, hidden=32, spectrum=8)).eval()
    translator = Translator(TranslatorConfig(condition=16, channels=8, blocks=1, hidden=16, encoder=""))
    return Renderer(translator, encoder)
