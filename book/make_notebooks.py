"""Make notebooks/NN_name.ipynb from notebooks/NN_name.py (py:percent): no outputs, fixed cell ids, minimal metadata.

The .py is the source and what a reviewer reads; the .ipynb beside it is what Colab and Binder open. The direction is
always the same, so file times never matter. ``--check`` writes nothing and fails if a pair differs. The address of the
repository stands once, in pyproject.toml: ``@REPOSITORY_URL@`` and ``@REPOSITORY@`` (owner/name) are filled in from it.
"""

import argparse
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def fill_in_repository(text: str) -> str:
    """Replace the two tokens by the address that pyproject.toml gives."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = project["urls"]["Repository"]
    return text.replace("@REPOSITORY_URL@", url).replace("@REPOSITORY@", "/".join(url.split("/")[-2:]))


def generate(source: Path) -> str:
    """The text of the .ipynb that belongs to one .py file.

    Parameters
    ----------
    source : Path
        A notebook in py:percent format.

    Returns
    -------
    str
        The notebook as JSON; the same text for the same source, always.
    """
    notebook = jupytext.reads(fill_in_repository(source.read_text(encoding="utf-8")), fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook, version=4) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a pair differs")
    check = parser.parse_args().check
    sources = sorted(NOTEBOOKS.glob("*.py"))
    differing = []
    for source in sources:
        target, text = source.with_suffix(".ipynb"), generate(source)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            differing.append(target.name)
            if not check:
                target.write_text(text, encoding="utf-8")
    verb = "differ, run `make notebooks`:" if check else "written:"
    print(f"{len(sources)} notebooks, {len(differing)} {verb if differing else 'changed'}", *differing)
    sys.exit(bool(check and differing))


if __name__ == "__main__":
    main()
