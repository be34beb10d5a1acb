"""The pages for those who read on a phone, in the dark, by keyboard or by ear; the rules are axe's and WCAG 2.2's."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from test_pages import CHAPTERS, INTERACTIVE, NAMES

EVERY = [*NAMES, "search", "genindex"]
# In light mode all of axe's rules run; these are the ones that the other mode, or another width, can change.
RULES_ON_COLOUR = ["color-contrast", "link-in-text-block"]
RULES_ON_WIDTH = ["scrollable-region-focusable", "button-name", "link-name", "nested-interactive", "aria-hidden-focus"]
SMALLEST_TEXT = 14  # CSS pixels
SMALLEST_TARGET = 24  # CSS pixels, WCAG 2.2, 2.5.8
READABLE = 4.5  # ratio of luminances, WCAG 2.2, 1.4.3

# Text that is drawn smaller than asked: [size, text]. Exponents and indices are smaller by nature, and a figure is
# a picture with a description of its own.
SMALL_TEXT = """smallest => {
    const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const box = walk.currentNode.parentElement, style = getComputedStyle(box), text = walk.currentNode.data.trim();
        if (!text || box.closest('script, style, noscript, template, sub, sup, mjx-container, .chart')) continue;
        if (!box.checkVisibility({visibilityProperty: true}) || box.offsetWidth < 2) continue;
        if (parseFloat(style.fontSize) < smallest) found.push([style.fontSize, text.slice(0, 40)]);
    }
    return found;
}"""
# Controls of the bar, the menus and the contents; links inside a sentence are excepted by the standard.
SMALL_TARGETS = """smallest => [...document.querySelectorAll(
        '.bd-header-article button, .bd-header-article a, .bd-header-article label, article select')]
    .filter(e => e.checkVisibility({visibilityProperty: true}) && e.offsetWidth > 1)
    .map(e => [e.title || e.className, e.getBoundingClientRect().width, e.getBoundingClientRect().height])
    .filter(([_, width, height]) => Math.min(width, height) < smallest)"""
CONTRAST = """selector => {
    const shine = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = box => {
        for (; box; box = box.parentElement) {
            const colour = getComputedStyle(box).backgroundColor;
            if (!/, 0\\)$|transparent/.test(colour)) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    return [...document.querySelectorAll(selector)].map(e => {
        const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
        const [low, high] = [shine(ink), shine(ground(e))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    });
}"""


def faults(page, only: list[str] | None = None) -> list[str]:
    """What axe calls serious or critical, one line each; of the rules `only`, where they are named."""
    options = {"resultTypes": ["violations"], "preload": False}  # preload would fetch style sheets a second time
    if only:
        options["runOnly"] = only
    # inside a chart is a drawing, which is described as a whole; its menus are outside
    context = {"include": [["body"]], "exclude": [[".chart svg"]]}
    found = Axe().run(page, context=context, options=options).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}): {node['target']} {node['failureSummary']}"
        for fault in found
        for node in fault["nodes"]
        if fault["impact"] in ("serious", "critical")
    ]


@pytest.fixture
def theme():
    """Function that puts a page into light or dark mode; in the end it is light again."""
    seen = []

    def put(page, mode):
        page.evaluate("mode => { document.documentElement.dataset.theme = mode }", mode)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seen.append(page)

    yield put
    for page in seen:
        page.evaluate("() => { document.documentElement.dataset.theme = 'light' }")


@pytest.mark.parametrize("name", EVERY)
def test_no_serious_fault_of_accessibility(visit, name):
    assert faults(visit(f"{name}.html").page) == []


@pytest.mark.parametrize("name", EVERY)
def test_no_serious_fault_in_the_dark(visit, theme, name):
    page = visit(f"{name}.html").page
    theme(page, "dark")
    assert faults(page, only=RULES_ON_COLOUR) == []


@pytest.mark.parametrize("name", EVERY)
def test_a_phone_shows_the_whole_width(phone, name):
    seen = phone(f"{name}.html")
    assert seen.errors == []
    assert seen.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert seen.page.evaluate(SMALL_TEXT, SMALLEST_TEXT) == []
    assert seen.page.evaluate(SMALL_TARGETS, SMALLEST_TARGET) == []


@pytest.mark.parametrize("name", EVERY)
def test_no_serious_fault_on_a_phone(phone, name):
    assert faults(phone(f"{name}.html").page, only=RULES_ON_WIDTH) == []


def test_a_phone_reaches_the_other_pages(phone):
    page = phone(f"{CHAPTERS[0]}.html").page
    link = page.locator(".bd-sidebar-primary a.reference", has_text="Install")
    assert not link.is_visible() or link.bounding_box()["x"] < 0
    page.locator(".primary-toggle").first.click()
    link.click()
    page.wait_for_url("**/install.html")


@pytest.mark.parametrize("name", CHAPTERS)
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_charts_are_as_wide_as_their_place(visit, phone, name, width):
    page = (visit if width == "desktop" else phone)(f"{name}.html").page
    wide = page.eval_on_selector_all(
        "article .chart", "all => all.map(d => [d.clientWidth, d.querySelector('svg.main-svg').width.baseVal.value])"
    )
    assert [sizes for sizes in wide if abs(sizes[0] - sizes[1]) > 1] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_needs_no_scroll_bar_on_a_desktop(visit, name):
    longest = visit(f"{name}.html").page.eval_on_selector_all(
        "article .cell_input pre",
        "all => all.filter(p => p.scrollWidth > p.clientWidth).map(p => p.innerText.split('\\n'))",
    )
    assert [max(lines, key=len) for lines in longest] == []


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_charts_tables_and_text_are_legible(visit, theme, name, mode):
    page = visit(f"{name}.html").page
    theme(page, mode)
    for part in ("article p", "article table td", "article .chart svg text", "article .cell_output pre"):
        if page.locator(part).count():
            assert min(page.evaluate(CONTRAST, part)) >= READABLE, part
    assert page.evaluate(CONTRAST, "article p")


def test_every_menu_of_a_chart_is_a_labelled_select_that_keys_move(visit):
    selects = 0
    for name in CHAPTERS:
        page = visit(f"{name}.html").page
        assert page.locator(".chart .updatemenu-container").count() == 0, "plotly's own menus answer to no key"
        found = page.locator("article label select").count()
        assert found or name not in INTERACTIVE, name
        selects += found
    assert selects >= 4  # both axes of the explorer of settings, the query, the colour of the map
    page = visit("notebooks/01_data_and_twin.html").page
    title = page.locator(".chart .xtitle").first
    before = title.text_content()
    page.get_by_label("horizontal axis").focus()
    page.keyboard.press("Home")
    page.wait_for_function("old => document.querySelector('.chart .xtitle').textContent !== old", arg=before)
    assert title.text_content().startswith("pixel size")


def test_the_retrieval_explorer_answers_to_keys(visit):
    page = visit("notebooks/03_retrieval.html").page
    chart = page.locator(".chart:has(image)").first
    before = chart.locator("image").first.get_attribute("href"), chart.locator(".ytick").all_text_contents()
    page.get_by_label("query").focus()
    page.keyboard.press("End")
    page.wait_for_function(
        "old => document.querySelector('.chart image').getAttribute('href') !== old", arg=before[0], timeout=20_000
    )
    assert chart.locator("image").first.get_attribute("href").startswith("data:image/")
    assert chart.locator(".ytick").all_text_contents() != before[1]


def test_the_keyboard_starts_with_a_link_to_the_text_and_shows_where_it_is(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/book/install.html")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.getAttribute('href')") == "#main-content"
    assert page.locator("#main-content").count() == 1
    for _ in range(6):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.boxShadow }"
        )
        assert style != "nonenone"
    page.close()


def test_wide_tables_are_named_and_reached_by_keys(phone):
    boxes = phone("book/results.html").page.eval_on_selector_all(
        ".pst-scrollable-table-container", "all => all.map(b => [b.tabIndex, b.getAttribute('aria-label')])"
    )
    assert boxes and all(place == 0 and label.startswith("table: ") for place, label in boxes)


@pytest.mark.parametrize("name", CHAPTERS)
def test_tables_have_headers(visit, name):
    bare = visit(f"{name}.html").page.eval_on_selector_all(
        "article table.dataframe", "all => all.filter(t => !t.querySelector('th')).length"
    )
    assert bare == 0
