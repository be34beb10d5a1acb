"""The page of a study on a laptop, on a tablet and on a phone, by wheel, fingers and keys, in light and in dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from study_player import LAPTOP, LYING, PHONE, UPRIGHT, pair, type_code

# Middle of the mark that is at one place in all pictures, in CSS pixels from the middle of the canvas; and all bytes.
SEEN = """name => {
    const canvas = document.getElementById(`picture-${name}`), {width, height} = canvas;
    const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    let sum = 0, x = 0, y = 0, bytes = 0;
    for (let i = 0; i < data.length; i += 4) {
        bytes = (bytes * 31 + data[i] + data[i + 3]) % 4294967291;
        if (data[i] < 245 || i / 4 / width < height * 0.6) continue;
        sum++; x += i / 4 % width; y += Math.floor(i / 4 / width);
    }
    const ratio = canvas.clientWidth / width;
    return {bytes, x: (x / sum - width / 2) * ratio, y: (y / sum - height / 2) * ratio, area: sum * ratio ** 2};
}"""


def test_contrast_and_zoom_act_on_all_pictures_alike(enter):
    page = enter()
    pair(page, 1)
    page.keyboard.press("r")
    names = ("left", "reference", "right")

    def look():
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return [page.evaluate(SEEN, name) for name in names]

    def together(now):
        for field in ("x", "y"):
            assert max(one[field] for one in now) - min(one[field] for one in now) < 1.5
        assert max(one["area"] for one in now) < 1.1 * min(one["area"] for one in now)

    def differ(one, other):
        return all(a["bytes"] != b["bytes"] for a, b in zip(one, other, strict=True))

    first = look()
    together(first)
    box = page.locator("#picture-right").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] + first[2]["x"], middle[1] + first[2]["y"])
    page.mouse.wheel(0, -250)
    wheeled = look()
    assert differ(first, wheeled)
    together(wheeled)
    assert wheeled[2]["x"] == pytest.approx(first[2]["x"], abs=2)  # what lies under the pointer stays there
    assert wheeled[0]["area"] > 2 * first[0]["area"]
    page.mouse.down()
    page.mouse.move(middle[0] + first[2]["x"] - 30, middle[1] + first[2]["y"] + 20, steps=3)
    page.mouse.up()
    dragged = look()
    together(dragged)
    assert dragged[0]["x"] == pytest.approx(wheeled[0]["x"] - 30, abs=2)
    assert dragged[0]["y"] == pytest.approx(wheeled[0]["y"] + 20, abs=2)
    page.keyboard.press("Shift+ArrowLeft")
    assert look()[1]["x"] > dragged[1]["x"]
    page.keyboard.press("0")
    assert look() == first
    for name, keys in (("Black", "PageUp"), ("White", "PageDown"), ("Gamma", "ArrowRight")):
        before = look()
        page.get_by_label(name).focus()
        page.keyboard.press(keys)
        assert differ(before, look())
    pair(page, 1)  # the arrow moved the slider, and chose nothing
    page.click("#reset")
    assert look() == first
    page.click("#zoom-in")
    assert differ(first, look())


@pytest.mark.parametrize("size", [UPRIGHT, LYING, PHONE, LAPTOP], ids=["upright", "lying", "phone", "laptop"])
def test_everything_fits_and_is_large_enough_to_touch(enter, size):
    page = enter(size=size, has_touch=True, is_mobile=size is not LAPTOP)
    pair(page, 1)
    for _ in range(2):  # without and with the reference
        assert page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
            size["width"],
            size["height"],
        ]
        boxes = [page.locator(f"#picture-{side}").bounding_box() for side in ("left", "right")]
        above = boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
        beside = boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        assert (above, beside) == ((True, False) if size["width"] < size["height"] else (False, True))
        for length in ("width", "height"):
            assert boxes[0][length] == pytest.approx(boxes[1][length], abs=0.5)
        assert min(boxes[0]["width"], boxes[0]["height"]) >= 150
        for button in page.locator("#play button:visible").all():
            box = button.bounding_box()
            assert min(box["width"], box["height"]) >= 40
            assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
            assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"]
        page.tap("#reference")
    page.tap("#choose-right")
    pair(page, 2)


def test_two_fingers_zoom_and_one_moves(enter):
    page = enter(size=UPRIGHT, has_touch=True, is_mobile=True)
    pair(page, 1)
    session = page.context.new_cdp_session(page)
    box = page.locator("#picture-left").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind, *points):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    before = [page.evaluate(SEEN, side)["bytes"] for side in ("left", "right")]
    touch("touchStart", (x - 40, y), (x + 40, y))
    for step in range(1, 5):
        touch("touchMove", (x - 40 - 20 * step, y), (x + 40 + 20 * step, y))
    touch("touchEnd")
    assert page.inner_text("#zoom") == "300 %"
    pinched = [page.evaluate(SEEN, side)["bytes"] for side in ("left", "right")]
    touch("touchStart", (x, y))
    touch("touchMove", (x - 20, y))
    touch("touchMove", (x - 60, y))
    touch("touchEnd")
    moved = [page.evaluate(SEEN, side)["bytes"] for side in ("left", "right")]
    assert all(len({a, b, c}) == 3 for a, b, c in zip(before, pinched, moved, strict=True))


@pytest.mark.parametrize(("scheme", "size"), [("light", LAPTOP), ("dark", PHONE)], ids=["laptop", "phone"])
def test_no_fault_of_accessibility(enter, study_page, scheme, size):
    page = enter(code=None, size=size, color_scheme=scheme)

    def faults():
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]

    type_code(page, "qqqqq")
    assert faults() == []
    type_code(page, study_page[1]["assignments"][0]["code"])
    pair(page, 1)
    page.click("#reference")
    if size is PHONE:
        page.click("#more")
    assert faults() == []
    for opened in ("#help", "#save"):
        page.click(opened)
        assert faults() == []
        page.keyboard.press("Escape")
    reached = set()  # wherever the keyboard is, it is seen
    for _ in range(9):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "() => { const on = document.activeElement; return [on.id, getComputedStyle(on).outlineStyle]; }"
        )
        if name:  # not the window's own
            assert outline == "solid", name
            reached.add(name)
    assert reached >= {"choose-left", "choose-right", "zoom-in", "reset", "reference"}
