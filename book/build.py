"""Build the book: execute the chapters with papermill, then render what they gave.

Three steps, each in its own function: the chapters listed in _toc.yml are executed (working directory notebooks/) into
a staging folder, the pages are made self-contained (plotly and MathJax lie beside them, no page asks the network), and
jupyter-book renders the staged folder with its own execution off and every warning an error.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from html import escape
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import nbformat
import papermill
import yaml
from rich.console import Console
from rich.table import Table

from cimp_core.results import read_results
from make_notebooks import fill_in_repository
from performance_page import performance_page, read_benches
from results_table import PICTURES, results_table

ROOT = Path(__file__).resolve().parents[1]
KERNEL = "python3"
PLOTLY = "application/vnd.plotly.v1+json"
console = Console(width=120)


def chapters() -> list[Path]:
    """The notebooks that _toc.yml lists, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [ROOT / f"{name}.ipynb" for name in names if name.startswith("notebooks/")]


def execute(notebook: Path, target: Path, parameters: dict) -> None:
    """Execute one chapter; a parameter that it does not declare is an error, which papermill only mentions."""
    unknown = set(parameters) - set(papermill.inspect_notebook(str(notebook)))
    if unknown:
        raise SystemExit(f"{notebook.name}: no such parameter: {', '.join(sorted(unknown))}; see its parameters cell")
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(notebook),
        str(target),
        parameters=parameters,
        kernel_name=KERNEL,
        cwd=str(notebook.parent),
        progress_bar=False,
        extra_arguments=["--log-level=ERROR"],  # the kernel warns that it talks over TCP, on this machine only
    )


def self_contained(path: Path) -> None:
    """Prepare an executed chapter for its page: plotly draws from the local script, papermill's own cell is hidden."""
    notebook = nbformat.read(path, as_version=4)
    figures = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]
        for output in cell.get("outputs", []):
            if PLOTLY in output.get("data", {}):
                html = plotly_html(output["data"][PLOTLY], f"plotly-{path.stem}-{figures}", first=figures == 0)
                output["data"] = nbformat.from_dict({"text/html": html})
                figures += 1
    nbformat.write(notebook, path)


def plotly_html(bundle: dict, name: str, first: bool) -> str:
    """A plotly figure as HTML, drawn by ``pages.js``; the first of a page also loads plotly's script.

    ``layout.meta.alt`` is what a screen reader says. Plotly's own menus and sliders answer to a pointer only, so each
    becomes a ``<select>`` or an ``<input type="range">`` above the figure, labelled by its ``name``.
    """
    script = '<script src="../vendor/plotly.min.js"></script>\n' if first else ""
    layout = bundle.get("layout", {})
    menus = []
    for menu in layout.get("updatemenus", []):
        options = "".join(
            f"<option{' selected' * (i == menu.get('active', 0))}>{escape(button['label'])}</option>"
            for i, button in enumerate(menu["buttons"])
        )
        label = escape(menu.get("name") or "show")
        menus.append(f'<label>{label} <select data-of="{name}" autocomplete="off">{options}</select></label>')
    for slider in layout.get("sliders", []):
        active, last = slider.get("active", 0), len(slider["steps"]) - 1
        label, first_value = escape(slider.get("name") or "step"), escape(slider["steps"][active]["label"])
        menus.append(
            f'<label>{label} <input type="range" data-of="{name}" min="0" max="{last}" value="{active}" '
            f'autocomplete="off" aria-valuetext="{first_value}"> <output>{first_value}</output></label>'
        )
    alt = escape(layout.get("meta", {}).get("alt", ""))
    # A width is the most that a figure takes; it follows a narrower page.
    widest = f"max-width: {layout.pop('width')}px; " if layout.get("width") else ""
    style = f"width: 100%; {widest}height: {layout.get('height', 450)}px"
    facts = json.dumps({key: bundle.get(key, {}) for key in ("data", "layout", "config")}).replace("</", "<\\/")
    return (
        f'{script}<div class="chart-menus">{"".join(menus)}</div>\n'
        # not role "img": that would hide the buttons that plotly draws inside
        f'<div id="{name}" class="chart" role="figure" aria-label="{alt}" style="{style}"></div>\n'
        f'<script type="application/json" data-chart="{name}">{facts}</script>'
    )


def add_vendor(folder: Path) -> None:
    """Copy plotly and MathJax from the installed packages, so that the pages work without a network."""
    folder.mkdir(parents=True)
    plotly = Path(find_spec("plotly").origin).parent / "package_data" / "plotly.min.js"
    shutil.copy(plotly, folder)
    mathjax = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax")
    for part in ("tex-mml-chtml.js", "output/chtml", "input/tex/extensions"):
        copy = shutil.copytree if (Path(mathjax) / part).is_dir() else shutil.copy
        (folder / "mathjax" / part).parent.mkdir(parents=True, exist_ok=True)
        copy(Path(mathjax) / part, folder / "mathjax" / part)


def stage(folder: Path) -> None:
    """Lay out the sources of the pages afresh: configuration, prose, scripts; the chapters follow when executed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    not_pages = shutil.ignore_patterns("*.py", "get_chromium.sh", "pages.*", "__pycache__", "performance")
    shutil.copytree(ROOT / "book", folder / "book", ignore=not_pages)
    for name in ("pages.css", "pages.js"):  # every page loads what lies in _static
        (folder / "_static").mkdir(exist_ok=True)
        shutil.copy(ROOT / "book" / name, folder / "_static")
    rows = read_results(ROOT / "book" / "results.json")
    for name, about_pictures in (("results_table", False), ("results_pictures_table", True)):
        table = results_table(row for row in rows if (row["name"].split(".")[0] in PICTURES) == about_pictures)
        (folder / "book" / f"{name}.md").write_text(table, encoding="utf-8")
    tables = performance_page(read_benches(ROOT / "book" / "performance"), folder / "book")
    (folder / "book" / "performance_tables.md").write_text(tables, encoding="utf-8")
    for page in [folder / "_config.yml", *folder.glob("book/*.md")]:
        page.write_text(fill_in_repository(page.read_text(encoding="utf-8")), encoding="utf-8")
    add_vendor(folder / "extra" / "vendor")


def render(folder: Path, output: Path) -> None:
    """Run jupyter-book on the staged folder; any warning fails, after all of them were shown."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(folder), "--path-output", str(output), "--all"]
    command += ["-n", "-W", "--keep-going"]
    log = folder / "build.log"
    with log.open("w", encoding="utf-8") as stream:
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    if code:
        lines = log.read_text(encoding="utf-8").splitlines()
        faults = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-30:]
        print("\n".join(faults), file=sys.stderr)
        raise SystemExit(f"the book does not build without a warning; all of its output: {log}")


def build(profile: str, output: Path | None = None) -> Path:
    """Execute every chapter and render the book.

    Parameters
    ----------
    profile : str
        "smoke" (seconds, for the tests), "book" (what is published) or "full".
    output : Path, optional
        Folder that receives ``_build/html``; the project's root for "book", the staging folder otherwise.

    Returns
    -------
    Path
        The first page of the book.
    """
    folder = ROOT / "_stage" / profile
    output = output or (ROOT if profile == "book" else folder)
    ready = Path(sys.prefix) / ".ready"
    steps = [("environment (when it was set up)", float(ready.read_text()))] if ready.exists() else []

    def step(name, action, *arguments):
        console.print(f"[bold]{name}[/] ...")
        start = time.perf_counter()
        action(*arguments)
        steps.append((name, time.perf_counter() - start))

    step("stage prose and scripts", stage, folder)
    for chapter in chapters():
        target = folder / "notebooks" / chapter.name
        step(f"execute {chapter.relative_to(ROOT)}", execute, chapter, target, parameters_for(profile))
        self_contained(target)
    step("render the pages", render, folder, output)

    table = Table("step", "seconds", title=f'the book at profile "{profile}"')
    table.columns[1].justify = "right"
    for name, seconds in steps:
        table.add_row(name, f"{seconds:.1f}")
    table.add_section()
    table.add_row("in all", f"{sum(seconds for _, seconds in steps):.1f}")
    console.print(table)
    index = output / "_build" / "html" / "index.html"
    console.print(f"the book is at {index}", soft_wrap=True)
    return index


def parameters_for(profile: str) -> dict:
    """Nothing for "book", which is what every chapter's own parameters cell says."""
    return {} if profile == "book" else {"profile": profile}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=("smoke", "book", "full"), default="book")
    try:
        build(parser.parse_args().profile)
    except papermill.PapermillExecutionError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
