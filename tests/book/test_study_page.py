"""The page of a study in a real browser: played to the end by keys, mouse and fingers, and nothing is lost."""

import json
from random import Random

import pytest
from study_files import METHODS
from study_player import GUARD, pair, shown, type_code

REFUSING = (
    """Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"""
)
FULL = """{ let left = 4; const set = Storage.prototype.setItem; Storage.prototype.setItem = function (...given) {
    if (this === localStorage && !left--) { left = 0; throw new DOMException('full', 'QuotaExceededError'); }
    set.apply(this, given); }; }"""


def exported(page, button="#save-end"):
    with page.expect_download() as download:
        page.click(button)
    assert download.value.suggested_filename.startswith("study_")
    return json.loads(download.value.path().read_text(encoding="utf-8"))


def choose(page, side, way):
    """Choose by one of the ways."""
    if way == "arrow":
        page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight"}[side])
    elif way == "letter":
        page.keyboard.press({"left": "a", "right": "B"}[side])
    elif way == "mouse":
        page.click(f"#choose-{side}")
    else:
        page.tap(f"#choose-{side}")


def test_forty_pairs_are_played_and_nothing_is_lost(enter, study_page):
    """With a reload, a closed tab, and one answer taken back; what is seen is what the key says."""
    address, key = study_page
    trials, random = key["assignments"][0]["trials"], Random(0)
    page, made, looked = enter(has_touch=True), [], 0
    assert len(trials) == 40
    for number, trial in enumerate(trials, 1):
        pair(page, number)
        if number % 5 == 0 and trial["kind"] != "catch":
            for side in ("left", "right"):
                image, method = shown(page, side)
                assert (key["images"][image], METHODS[method]) == (trial["image"], trial[side])
            looked += 1
        side = random.choice(("left", "right"))
        if number == 13:
            choose(page, "left" if side == "right" else "right", "arrow")
            pair(page, 14)
            page.keyboard.press("z")
            pair(page, 13)
        choose(page, side, ("arrow", "mouse", "touch", "letter")[number % 4])
        made.append({"trial": trial["id"], "choice": side})
        if number == 20:
            pair(page, 21)
            page.reload()
        if number == 30:
            pair(page, 31)
            context = page.context
            page.close()
            page = context.new_page()
            page.goto(address)
            page.get_by_role("button", name="Continue").click()
    assert looked >= 5
    page.wait_for_selector("#end:not([hidden])")
    result = exported(page)
    fields = ["format", "study", "rater", "code", "page", "answers", "started", "exported", "complete"]
    assert list(result) == fields
    assert (result["format"], result["study"], result["page"]) == (1, key["study"], key["page"])
    assert result["complete"] is True and result["code"] == key["assignments"][0]["code"]
    assert [{name: a[name] for name in ("trial", "choice")} for a in result["answers"]] == made
    assert [a["changes"] for a in result["answers"]] == [int(number == 13) for number in range(1, 41)]
    assert all(a["seconds"] >= 0.3 for a in result["answers"])
    assert len(result["rater"]) == 16 and result["started"].endswith("Z") and result["started"] < result["exported"]
    page.reload()  # and even now all is there
    page.wait_for_selector("#end:not([hidden])")
    assert exported(page)["answers"] == result["answers"]


def test_one_press_is_one_answer(enter):
    page = enter()
    pair(page, 1)
    page.keyboard.down("ArrowLeft")
    for _ in range(3):
        page.wait_for_timeout(GUARD)
        page.keyboard.down("ArrowLeft")  # as a key repeats that is held
    page.keyboard.up("ArrowLeft")
    pair(page, 2)
    page.dblclick("#choose-right")
    pair(page, 3)
    page.focus("#choose-left")
    page.keyboard.down("Enter")
    for _ in range(3):
        page.wait_for_timeout(GUARD)
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    pair(page, 4)


def test_only_the_last_answer_can_be_taken_back(enter):
    page = enter()
    for number in (1, 2, 3):
        pair(page, number)
        page.keyboard.press("ArrowLeft")
    pair(page, 4)
    page.click("#undo")
    pair(page, 3)
    assert page.is_disabled("#undo")
    page.keyboard.press("z")
    pair(page, 3)


def test_time_counts_only_while_the_page_is_seen(enter, study_page):
    """By a clock that the test turns."""
    page = enter(code=None)
    page.clock.install(time=0)
    page.clock.pause_at(1_000_000)
    page.reload()
    type_code(page, study_page[1]["assignments"][0]["code"])
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"

    def next_pair():
        page.clock.run_for(200)  # some frames, of which two draw the pair
        page.wait_for_function("() => !document.querySelector('.drawing')")

    next_pair()
    page.keyboard.press("ArrowLeft")  # too early to be meant for this pair
    page.click("#choose-right")
    assert page.inner_text("#count") == "1 of 40"
    page.clock.run_for(4_000)
    page.evaluate(hide, True)
    page.clock.run_for(600_000)
    page.evaluate(hide, False)
    page.clock.run_for(3_000)
    page.keyboard.press("ArrowLeft")
    next_pair()
    page.clock.run_for(2_000)
    page.reload()
    next_pair()
    page.clock.run_for(5_000)
    page.keyboard.press("ArrowLeft")
    page.click("#save")
    first, second = json.loads(page.input_value("#text"))["answers"]
    assert first["seconds"] == pytest.approx(7.2, abs=0.1)
    assert second["seconds"] == pytest.approx(7.4, abs=0.1)  # shown twice, before and after the reload


def test_another_tab_takes_over_and_gives_back(enter, study_page):
    address, key = study_page
    one = enter()
    pair(one, 1)
    one.keyboard.press("ArrowLeft")
    pair(one, 2)
    two = one.context.new_page()
    two.goto(address)
    two.get_by_role("button", name="Continue").click()
    pair(two, 2)
    two.keyboard.press("ArrowRight")
    pair(two, 3)
    one.bring_to_front()
    one.wait_for_selector("#elsewhere[open]")
    one.keyboard.press("ArrowLeft")
    one.keyboard.press("Escape")
    one.click("#here")
    pair(one, 3)
    one.click("#save")
    answers = json.loads(one.input_value("#text"))["answers"]
    assert [a["choice"] for a in answers] == ["left", "right"]
    one.click("#results >> text=Back")
    one.click("#help")
    one.click("#leave")  # another rater at the same browser begins anew, and the first loses nothing
    type_code(one, key["assignments"][1]["code"])
    pair(one, 1)
    one.click("#help")
    one.click("#leave")
    type_code(one, key["assignments"][0]["code"])
    pair(one, 3)


def test_a_wrong_code_is_told(enter):
    page = enter(code=None)
    type_code(page, "qqqqq")
    assert page.get_by_role("alert").filter(has_text="There is no code QQQQQ").is_visible()
    type_code(page, "constructor")
    assert page.is_visible("#start") and "CONSTRUCTOR" in page.inner_text("#wrong")
    assert page.evaluate("document.activeElement.id") == "code"


@pytest.mark.parametrize("script", [REFUSING, FULL], ids=["refused", "full"])
def test_a_browser_that_keeps_nothing_is_told_and_asks_before_leaving(enter, study_page, script):
    page = enter(script=script)
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    for number in (1, 2, 3):
        pair(page, number)
        page.keyboard.press("ArrowLeft")
    pair(page, 4)
    assert "keeps nothing" in page.inner_text("#unkept")
    page.close(run_before_unload=True)
    page.wait_for_timeout(300)
    assert asked == ["beforeunload"] and not page.is_closed()
    page.click("#help")
    page.click("#leave")
    type_code(page, study_page[1]["assignments"][0]["code"])
    pair(page, 4)  # the page itself has kept them
    page.click("#save")
    assert len(exported(page, "#file")["answers"]) == 3
    with page.expect_event("close"):
        page.close(run_before_unload=True)
    assert asked == ["beforeunload"]
