"""pyproject.toml (ranges), constraints.txt (versions), environment.yml (conda, Binder) and README say the same."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
RANGES = [Requirement(line) for line in sum(EXTRAS.values(), PROJECT["dependencies"])]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONDA_NAMES = {"pytorch-cpu": "torch"}  # conda's names where they differ
CUDA = ("cuda-", "nvidia-")  # what torch's other build brings along; the pins do without
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "rosettasciio": "rsciio",
    "pillow": "PIL",
    "faiss-cpu": "faiss",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
}
USED_BY_OTHERS = {"sparse", "tifffile", "rosettasciio"}  # RosettaSciIO and HyperSpy import these for some formats


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", RANGES, ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_no_pin_brings_cuda():
    assert [name for name in pins() if name.startswith(CUDA)] == []


def test_the_pins_are_the_whole_tree():
    """What is installed here for the package, followed through every requirement, is pinned."""
    from importlib.metadata import PackageNotFoundError, distribution

    pinned, missing, seen = pins(), set(), set()
    waiting = [(requirement.name, requirement.extras) for requirement in RANGES]
    while waiting:
        name, extras = waiting.pop()
        if canonicalize_name(name).startswith(CUDA):
            continue
        if (canonicalize_name(name), frozenset(extras)) in seen:
            continue
        seen.add((canonicalize_name(name), frozenset(extras)))
        if canonicalize_name(name) not in pinned:
            missing.add(name)
        try:
            needs = map(Requirement, distribution(name).requires or [])
        except PackageNotFoundError:
            continue  # an extra that is not installed here
        for need in needs:
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((need.name, need.extras))
    assert missing == set()


def test_this_environment_has_the_pinned_versions():
    from importlib.metadata import version

    needed = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["test"]]]
    needed = [need for need in needed if need.marker is None or need.marker.evaluate()]
    installed = {canonicalize_name(need.name): version(need.name).split("+")[0] for need in needed}
    assert installed == {name: pins()[name] for name in installed}


def test_conda_agrees():
    entries = CONDA["dependencies"]
    python = next(entry for entry in entries if isinstance(entry, str) and entry.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python=") + ".0")
    ranges = {canonicalize_name(need.name): need.specifier for need in RANGES}
    for entry in entries:
        if isinstance(entry, str) and entry != "pip" and not entry.startswith("python="):
            need = Requirement(entry)
            name = CONDA_NAMES.get(need.name, need.name)
            assert need.specifier == ranges[name], entry
            assert need.specifier.contains(pins()[name]), entry
    assert any(isinstance(entry, str) and entry.startswith("pytorch-cpu") for entry in entries)
    (by_pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    for entry in by_pip:
        assert set(re.findall(r"\w+", entry.partition("[")[2])) <= set(EXTRAS), entry


def test_every_dependency_is_imported_and_nothing_else():
    """The core dependencies are what cimp_core imports: no more, no less."""
    imported = set()
    for path in (ROOT / "cimp_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    declared = {need.name: IMPORT_NAMES.get(need.name, need.name.replace("-", "_")) for need in RANGES}
    core = {declared[Requirement(line).name] for line in PROJECT["dependencies"]}
    # imported where asked for, else an error
    optional = {declared[Requirement(line).name] for line in [*EXTRAS["faiss"], *EXTRAS["structures"]]}
    foreign = {name for name in imported if name not in sys.stdlib_module_names and name != "cimp_core"}
    allowed = core | {IMPORT_NAMES.get(need, need) for need in USED_BY_OTHERS}
    # imported inside functions that draw in a notebook, or run one: `cimp sweep` says what to install
    only_for_the_book = {"IPython", "papermill", "jupyter_client"}
    with_cuda = {"triton"}  # comes with torch's build for CUDA; looked for where there is a graphics card only
    assert foreign - allowed - only_for_the_book - with_cuda == optional
    assert core - imported - {IMPORT_NAMES.get(need, need) for need in USED_BY_OTHERS} == set()


def test_every_data_file_is_packaged():
    suffixes = {Path(pattern).suffix for pattern in PYPROJECT["tool"]["setuptools"]["package-data"]["cimp_core"]}
    written = [path for path in (ROOT / "cimp_core").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix for path in written} - {".py"} <= suffixes


def test_the_address_of_the_repository_is_the_same_everywhere():
    url = PROJECT["urls"]["Repository"]
    for name in ("README.md", "CITATION.cff", "CONTRIBUTING.md"):
        found = re.findall(r"https://github\.com/[\w.-]+/cimp\b", (ROOT / name).read_text(encoding="utf-8"))
        assert set(found) <= {url}, name
    assert yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"] == "@REPOSITORY_URL@"


def test_the_version_is_the_same_everywhere():
    import cimp_core

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cimp_core.__version__ == PROJECT["version"] == str(citation["version"])
    assert f"[{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["license"] == PROJECT["license"] == "GPL-3.0-or-later"


def test_continuous_integration_runs_readmes_own_command():
    commands = re.findall(r"^(make \w+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert "make test" in commands and "make book" in commands
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()[-1]
    assert last == "exec make test"


def test_the_command_answers():
    program = Path(sys.executable).with_name("cimp")
    done = subprocess.run([str(program), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("info", "dataset", "simulate", "pretrain", "embed", "retrieve"):
        assert command in done.stdout
