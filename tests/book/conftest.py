"""The book built at profile "smoke", served on this machine, and looked at in the system's Chromium."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from filelock import FileLock
from study_files import write_config, write_pictures
from study_player import LAPTOP, type_code

from cimp_core.blind_study.make import make_study, write_study

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 844}
# The theme's own: thebe is off, but its settings are still written into the page; and a script for MathJax 2.
KNOWN_ERRORS = ("THEBE_JS_URL", "reading 'Queue'")


@dataclass
class Visit:
    """What one page did when it was opened."""

    page: object
    status: int
    errors: list[str] = field(default_factory=list)  # console errors and uncaught exceptions
    failed: list[str] = field(default_factory=list)  # addresses that gave nothing or 4xx
    foreign: list[str] = field(default_factory=list)  # addresses on another machine


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="session")
def html(tmp_path_factory) -> Path:
    """Folder of the built pages; those that CIMP_BOOK_HTML names are looked at as they are."""
    if given := os.environ.get("CIMP_BOOK_HTML"):
        return Path(given).resolve()
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent  # one folder for all workers, of which only the first builds
    built = run / "book.built"
    with FileLock(run / "book.lock"):
        if not built.exists():
            command = [sys.executable, str(ROOT / "book" / "build.py"), "--profile", "smoke"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                output = f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
                pytest.fail(f"the book does not build:\n{output}", pytrace=False)
            built.touch()
    return ROOT / "_stage" / "smoke" / "_build" / "html"


@pytest.fixture(scope="session")
def address(html):
    """Address under which this machine serves the pages."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None:
        pytest.fail("no Chromium found: install the package `chromium` (or Google Chrome) and run again", pytrace=False)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, headless=True, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


def _visits(browser, address, size: dict):
    context = browser.new_context(viewport=size, reduced_motion="reduce", color_scheme="light")

    @functools.cache
    def open_page(name: str) -> Visit:
        page = context.new_page()
        result = Visit(page, 0)
        host = urlsplit(address).netloc
        page.on("console", lambda message: result.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: result.errors.append(str(error)))
        page.on("requestfailed", lambda request: result.failed.append(request.url))
        page.on("response", lambda answer: result.failed.append(answer.url) if answer.status >= 400 else None)
        page.on("request", lambda request: _note_foreign(result, request.url, host))
        answer = page.goto(f"{address}/{name}", wait_until="load", timeout=60_000)
        result.status = answer.status
        page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.wait_for_load_state("networkidle", timeout=60_000)
        result.errors = [error for error in result.errors if not any(known in error for known in KNOWN_ERRORS)]
        return result

    yield open_page
    context.close()


@pytest.fixture(scope="session")
def visit(browser, address):
    """Function that opens a page of the book, once each, and waits until scripts, plots and maths are done."""
    yield from _visits(browser, address, DESKTOP)


@pytest.fixture(scope="session")
def phone(browser, address):
    """The same on a screen of a phone's width."""
    yield from _visits(browser, address, PHONE)


def _note_foreign(result: Visit, url: str, host: str) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != host:
        result.foreign.append(url)


@pytest.fixture(scope="session")
def study_page(tmp_path_factory):
    """Address of a page with 40 pairs for each of two raters, and its key."""
    folder = tmp_path_factory.mktemp("study")
    write_pictures(folder, images=12)
    made = make_study(write_config(folder, trials=33, repeats=4, catch=3, reference="sharp", title="Lattices", seed=3))
    write_study(made, folder / "out")
    return (folder / "out" / "study.html").as_uri(), made.key


@pytest.fixture
def enter(browser, study_page):
    """Function that opens the page as a rater would, in a browser that has not seen it, and without a fault."""
    contexts, faults = [], []

    def watch(page):
        # A canvas warns where its pixels are read often, which only tests do.
        wrong = lambda m: m.type in ("error", "warning") and "willReadFrequently" not in m.text  # noqa: E731
        page.on("console", lambda m: faults.append(m.text) if wrong(m) else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: faults.append(r.url) if not r.url.startswith(("file:", "blob:")) else None)

    def open_it(code=0, size=LAPTOP, script=None, **options):
        context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
        context.set_default_timeout(10_000)
        context.on("page", watch)
        contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        page.goto(study_page[0])
        if code is not None:
            type_code(page, study_page[1]["assignments"][code]["code"])
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert faults == []
