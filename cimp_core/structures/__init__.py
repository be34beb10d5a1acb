"""Which crystal is this? Simulated libraries of crystals, and the search for the one that a micrograph shows."""

from .crystals import Structure, from_cif, from_pymatgen, prototypes, zone_axes
from .library import Entry, Library, library
from .library_files import open_library, save_library
from .library_settings import Settings
from .matching import Candidate, Grain, Match, match
from .projection import Pattern, Projection, pattern, project
from .sources import decorate, find_structures
from .views import View, collected, recorded

__all__ = [
    "Candidate",
    "Entry",
    "Grain",
    "Library",
    "Match",
    "Pattern",
    "Projection",
    "Settings",
    "Structure",
    "View",
    "collected",
    "decorate",
    "find_structures",
    "from_cif",
    "from_pymatgen",
    "library",
    "match",
    "open_library",
    "pattern",
    "project",
    "prototypes",
    "recorded",
    "save_library",
    "zone_axes",
]
