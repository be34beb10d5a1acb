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
def html() -> Path:
    """Folder of the built pages; those that CIMP_BOOK_HTML names are looked at as they are."""
    if given := os.environ.get("CIMP_BOOK_HTML"):
        return Path(given).resolve()
    command = [sys.executable, str(ROOT / "book" / "build.py"), "--profile", "smoke"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"the book does not build:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}", pytrace=False)
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


@pytest.fixture(scope="session")
def visit(browser, address):
    """Function that opens a page of the book, once each, and waits until scripts, plots and maths are done."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})

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


def _note_foreign(result: Visit, url: str, host: str) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != host:
        result.foreign.append(url)
