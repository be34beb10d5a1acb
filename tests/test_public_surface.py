"""The package's front door: light to import, and every public name is what it says."""

import subprocess
import sys

import cimp_core as cimp

HEAVY = ("torch", "hyperspy", "rsciio", "sklearn", "matplotlib", "plotly", "pandas", "faiss", "pymatgen", "spglib")


def modules_after(code: str) -> set[str]:
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listing.stdout.split())


def test_importing_the_package_and_the_command_line_loads_nothing_heavy():
    loaded = modules_after("import cimp_core, cimp_core.cli; cimp_core.structures.library")
    assert not loaded & set(HEAVY)


def test_every_public_name_resolves():
    for name in cimp.__all__:
        assert getattr(cimp, name) is not None


def test_twin_is_the_function_whatever_was_imported_before():
    code = "import cimp_core.digital_twin, cimp_core as cimp; assert callable(cimp.twin)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    assert not hasattr(cimp, "denoize")
