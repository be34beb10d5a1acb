"""What a reader sees: every page of the built book is opened in a real browser, with no network but this machine."""

import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
NAMES = [TOC["root"], *(entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
CHAPTERS = [name for name in NAMES if name.startswith("notebooks/")]
# A chapter that draws with plotly takes its figures from here.
INTERACTIVE = [name for name in CHAPTERS if "interactive." in (ROOT / f"{name}.py").read_text(encoding="utf-8")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
LARGEST = 6e6  # bytes of one page


@pytest.mark.parametrize("name", [*NAMES, "search", "genindex"])
def test_page_loads_without_error_and_without_network(visit, name):
    seen = visit(f"{name}.html")
    assert seen.status == 200
    assert seen.errors == []
    assert seen.failed == []
    assert seen.foreign == []
    assert seen.page.locator("h1").count() >= 1
    assert seen.page.title().strip()


@pytest.mark.parametrize("name", NAMES)
def test_every_image_is_drawn_and_described(visit, name):
    images = visit(f"{name}.html").page.eval_on_selector_all(
        "article img", "all => all.map(i => [i.src.slice(-60), i.naturalWidth, (i.alt || '').trim()])"
    )
    assert [image for image in images if image[1] == 0] == []
    # without a text of its own, an image is described by the name of its file
    assert [image for image in images if not image[2] or image[2].endswith((".png", ".svg"))] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_chapter_has_a_figure(visit, name):
    assert visit(f"{name}.html").page.locator("article .cell_output img, article .js-plotly-plot").count() >= 1


def test_every_plotly_chart_is_drawn_and_described(visit):
    charts = 0
    for name in CHAPTERS:
        page = visit(f"{name}.html").page
        facts = page.eval_on_selector_all(
            "article div[id^=plotly-]",
            "all => all.map(d => [d.id, d.querySelectorAll('svg.main-svg').length, d.offsetHeight,"
            " (d.getAttribute('aria-label') || '').trim()])",
        )
        assert [fact for fact in facts if fact[1] == 0 or fact[2] < 100 or not fact[3]] == []
        assert facts or name not in INTERACTIVE, name
        charts += len(facts)
    assert len(INTERACTIVE) >= 1 and charts >= max(3, len(INTERACTIVE))


def test_maths_is_typeset(visit):
    formulas = 0
    for name in NAMES:
        page = visit(f"{name}.html").page
        written = page.locator("article .math").count()
        assert page.locator("article .math mjx-container").count() >= written, name
        assert page.locator("article mjx-merror").count() == 0, name
        formulas += written
    assert formulas >= 5


@pytest.mark.parametrize("term", ["dwell", "convergence"])
def test_search_finds(visit, term):
    page = visit(f"search.html?q={term}").page
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert page.locator("#search-results li a").count() >= 2


def test_search_finds_nothing_for_nonsense(visit):
    page = visit("search.html?q=qqxyzzy").page
    page.wait_for_function("() => /did not match|no results/i.test(document.body.innerText)", timeout=20_000)
    assert page.locator("#search-results li a").count() == 0


@pytest.mark.parametrize("name", CHAPTERS)
def test_colab_and_binder_links_point_at_files_that_exist(visit, name):
    """The theme's buttons; the badges of the notebook itself are in test_workflows."""
    links = visit(f"{name}.html").page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    colab = {link for link in links if "colab.research.google.com" in link}
    binder = {unquote(link) for link in links if "mybinder.org" in link}
    assert colab == {f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/{name}.ipynb"}
    assert binder == {f"https://mybinder.org/v2/gh/{REPOSITORY}/main?urlpath=lab/tree/{name}.ipynb"}
    assert (ROOT / f"{name}.ipynb").is_file()


def test_no_page_is_too_large(html):
    sizes = {path.relative_to(html).as_posix(): path.stat().st_size for path in html.rglob("*.html")}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


class Links(HTMLParser):
    """Collects the targets and the anchors of one page."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note what this element points at and what it is called."""
        found = dict(attrs)
        self.targets.update(found[key] for key in ("href", "src") if found.get(key))
        self.anchors.update(found[key] for key in ("id", "name") if found.get(key))


def test_every_link_inside_the_book_leads_somewhere(html):
    pages = {
        path: Links(path.read_text(encoding="utf-8")) for path in html.rglob("*.html") if "_static" not in path.parts
    }
    broken = []
    for path, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or target.startswith("#") and len(target) == 1:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not goal.exists() or (parts.fragment and goal in pages and parts.fragment not in pages[goal].anchors):
                broken.append(f"{path.relative_to(html)}: {target}")
    assert broken == []
