"""CIMP: align HAADF-STEM images with the seven acquisition parameters they were taken with.

``import cimp_core as cimp`` is light: torch and HyperSpy load with the first function that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import CimpError, NotHAADFError, OutOfRangeError, SchemaError, UnreadableFileError
from .metadata import PARAMETERS, Acquisition, Normalizer

if TYPE_CHECKING:
    from . import structures
    from .advising import Advice, advise
    from .auditing import AuditReport, audit
    from .build import BuildReport, build_dataset
    from .dataset import Dataset, open_dataset
    from .denoising import Denoised, denoise
    from .digital_twin import reacquire, twin
    from .microscope import Micrograph, read
    from .rerendering import Rerendered, rerender
    from .retrieval import rank_metadata
    from .weights import load

__version__ = "0.1.0"

_HOME = {
    "read": ".microscope",
    "Micrograph": ".microscope",
    "Dataset": ".dataset",
    "open_dataset": ".dataset",
    "build_dataset": ".build",
    "BuildReport": ".build",
    "twin": ".digital_twin",
    "reacquire": ".digital_twin",
    "load": ".weights",
    "rank_metadata": ".retrieval",
    "denoise": ".denoising",
    "Denoised": ".denoising",
    "audit": ".auditing",
    "AuditReport": ".auditing",
    "advise": ".advising",
    "Advice": ".advising",
    "rerender": ".rerendering",
    "Rerendered": ".rerendering",
}

__all__ = [
    "PARAMETERS",
    "Acquisition",
    "Advice",
    "AuditReport",
    "BuildReport",
    "CimpError",
    "Dataset",
    "Denoised",
    "Micrograph",
    "Normalizer",
    "NotHAADFError",
    "OutOfRangeError",
    "Rerendered",
    "SchemaError",
    "UnreadableFileError",
    "advise",
    "audit",
    "build_dataset",
    "denoise",
    "load",
    "open_dataset",
    "rank_metadata",
    "reacquire",
    "read",
    "rerender",
    "structures",
    "twin",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    if name == "structures":
        return import_module(".structures", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Stored, so that the look-up happens once. (The modules are called digital_twin, denoising and advising because a
    # submodule named twin or denoise would replace the function of that name as soon as anything imported it.)
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
