"""What a rater does with the page of a study, for tests in a browser."""

import numpy as np
from study_files import SIDE, marks

GUARD = 320  # [ms] after which a pair takes an answer

LAPTOP, UPRIGHT, LYING, PHONE = (
    {"width": width, "height": height} for width, height in ((1366, 768), (768, 1024), (1024, 768), (390, 844))
)

# What a canvas shows of the whole picture, a pixel of the result for each of the picture's.
PICTURE = """([name, side]) => {
    const from = document.getElementById(`picture-${name}`), to = new OffscreenCanvas(side, side);
    const size = Math.min(from.width, from.height), context = to.getContext('2d');
    context.drawImage(from, (from.width - size) / 2, (from.height - size) / 2, size, size, 0, 0, side, side);
    return Array.from(context.getImageData(0, 0, side, side).data.filter((_, i) => i % 4 === 0));
}"""


def type_code(page, code):
    page.get_by_label("Your code").fill(code.lower())
    page.keyboard.press("Enter")


def pair(page, number, of=40):
    """Wait until a pair is shown and takes answers."""
    page.wait_for_function(
        """text => document.getElementById('count').textContent === text
            && !document.getElementById('play').hidden && !document.querySelector('.drawing')""",
        arg=f"{number} of {of}",
    )
    page.wait_for_timeout(GUARD)


def shown(page, name):
    grey = np.array(page.evaluate(PICTURE, [name, SIDE]), float).reshape(SIDE, SIDE)
    return marks(grey)
