"""The chapters as files: pairs in sync, no outputs, fixed cell ids, one cell of literal parameters, bounded length."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
PROFILES = ("smoke", "book", "full")

chapters = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def code_cells(source: Path) -> list:
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_lines(cell) -> int:
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in cell.source.splitlines())


def test_pairs_are_in_sync():
    done = subprocess.run(
        [sys.executable, str(ROOT / "book" / "make_notebooks.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in SOURCES} == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert len(SOURCES) >= 3


def test_a_change_of_either_side_is_noticed(tmp_path):
    """The check above can fail: a generated chapter differs after one edit of its source."""
    sys.path.insert(0, str(ROOT / "book"))
    try:
        from make_notebooks import generate
    finally:
        sys.path.remove(str(ROOT / "book"))
    copy = tmp_path / "a.py"
    copy.write_text("# %%\n1 + 1\n", encoding="utf-8")
    first = generate(copy)
    assert generate(copy) == first
    copy.write_text("# %%\n1 + 2\n", encoding="utf-8")
    assert generate(copy) != first


@chapters
def test_no_outputs_and_fixed_ids(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == [f"cell-{number:02d}" for number in range(len(notebook.cells))]
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(source))
    assert notebook.metadata.kernelspec.name == "python3"


@chapters
def test_one_cell_of_literal_parameters(source):
    (cell,) = [cell for cell in code_cells(source) if "parameters" in cell.metadata.get("tags", [])]
    values = {}
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    assert values["profile"] == "book"
    assert cell.metadata["nbmake"] == {"mock": {"profile": "smoke"}}, "nbmake would run the chapter at profile book"


@chapters
def test_length(source):
    lengths = [code_lines(cell) for cell in code_cells(source)]
    assert len(lengths) <= 35
    assert sum(lengths) <= 300
    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 25


@chapters
def test_order_of_a_chapter(source):
    """Title first; the install cell before any import of the package; checks are hidden in the book."""
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    cells = code_cells(source)
    assert "google.colab" in cells[0].source and "remove-cell" in cells[0].metadata.get("tags", [])
    assert "torch" not in cells[0].source, "the install cell must leave Colab's torch alone"
    for cell in cells:
        if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source.replace("%pip", "pass #")))):
            assert "remove-cell" in cell.metadata.get("tags", []), cell.source
    text = source.read_text(encoding="utf-8").lower()
    assert "exercise" in text and "summary" in text and "@repository@" in text


@chapters
def test_an_unknown_parameter_fails(source, tmp_path):
    """papermill only mentions it; the book's own executor refuses before anything runs."""
    sys.path.insert(0, str(ROOT / "book"))
    try:
        from build import execute
    finally:
        sys.path.remove(str(ROOT / "book"))
    with pytest.raises(SystemExit, match="no such parameter: profil"):
        execute(source.with_suffix(".ipynb"), tmp_path / "out.ipynb", {"profil": "smoke"})
    assert not (tmp_path / "out.ipynb").exists()
