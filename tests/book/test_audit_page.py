"""The report of the audit in a real browser: it sorts, filters, fetches nothing, and runs no name as code."""

import pytest

import cimp_core as cimp

HOSTILE = "session_0000/<img src=x onerror=document.title='hit'>{{rows}}.emd"


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    data = cimp.twin(60, 96, 0)
    view = data.view(range(0, 60, 4))
    view.filepaths[3] = HOSTILE
    wrong = view.metadata_raw.copy()
    wrong[::3, 1] *= 1000
    view.metadata_raw = wrong
    file = cimp.audit(view).write(tmp_path_factory.mktemp("report"))
    page = browser.new_page()
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.append(request.url) if request.url.startswith("http") else None)
    page.goto(file.as_uri())
    yield page
    page.close()


def verdicts(page):
    return page.locator("#images tbody tr:visible").evaluate_all("rows => rows.map(row => row.dataset.verdict)")


def column(page, number):
    cells = page.locator(f"#images tbody tr td:nth-child({number})")
    return [float(value) for value in cells.evaluate_all("cells => cells.map(cell => cell.dataset.sort)")]


def test_it_opens_with_what_disagrees_first_and_all_thumbnails(page):
    found = verdicts(page)
    assert (
        len(found) == 15
        and found[0] == "disagrees"
        and found == sorted(found, key=["disagrees", "cannot-tell", "agrees"].index)
    )
    assert page.locator("#images img").evaluate_all("images => images.every(i => i.naturalWidth > 0)")
    assert page.title() == "Audit of recorded settings" and not page.problems
    assert page.get_by_text("<img src=x onerror=document.title='hit'>{{rows}}.emd").count() == 1


def test_it_sorts_by_a_column_both_ways(page):
    head = page.locator("#images thead th").nth(2)
    head.locator("button").click()
    rising = column(page, 3)
    assert rising == sorted(rising) and len(set(rising)) > 3 and head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert column(page, 3) == sorted(rising, reverse=True) and head.get_attribute("aria-sort") == "descending"


def test_a_verdict_can_be_hidden_and_shown(page):
    before = verdicts(page)
    box = page.locator("input[data-verdict=disagrees]")
    box.uncheck()
    assert verdicts(page) == [v for v in before if v != "disagrees"] and len(verdicts(page)) < len(before)
    box.check()
    assert verdicts(page) == before
