"""An attack on the page: everything in it but the pictures' content is tried as a way to tell methods apart."""

import base64
import itertools
import json
import re
from collections import Counter
from datetime import date

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2, chi2_contingency, chisquare
from study_files import page_data, save, write_config

from cimp_core.blind_study.make import make_study

NOISY, SMOOTH, OFFSET, EIGHT = METHODS = ("noisyrecording", "smoothfilter", "shiftedcounts", "eightbitexport")
STEMS = [f"specimen{k}kryptonite" for k in range(8)]
SIDE = 32
STUDIES = 40
NOT_BY_CHANCE = 1e-4  # of ten tests, so one in a thousand for all; with fixed seeds the same every time


def write_different(folder, plain: bool) -> None:
    """Methods as different as they come; `plain` files differ by their values only, and are read faster."""
    rng = np.random.default_rng(0)
    for stem in STEMS:
        truth = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2)
        clean = 30 + 300 * (truth - truth.min())
        noisy = rng.poisson(clean)
        made = {
            NOISY: (noisy.astype("u2"), ".tif"),
            SMOOTH: (gaussian_filter(noisy.astype(float), 2), ".npy"),
            OFFSET: ((gaussian_filter(noisy.astype(float), 1) * 1e-3 + 1e4).astype("f4"), ".hspy"),
            EIGHT: (np.clip(noisy + rng.integers(0, 9, noisy.shape), 0, 255).astype("u1"), ".png"),
        }
        for name, (values, suffix) in made.items():
            save(folder / name / f"{stem}{'.npy' if plain else suffix}", values)
        save(folder / "truthfolder" / f"{stem}.npy", clean)


def described(folder, **settings):
    return write_config(
        folder,
        methods={name: name for name in METHODS},
        **{"reference": "truthfolder", "raters": 8, "trials": 12, "repeats": 3, "catch": 3, **settings},
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Text of one page, its folder, and its key."""
    folder = tmp_path_factory.mktemp("differentfolder")
    write_different(folder, plain=False)
    study = make_study(described(folder))
    return study.page, folder, study.key


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """What can be read of the pages of many seeds, and whose each picture and each showing truly is."""
    folder = tmp_path_factory.mktemp("many")
    write_different(folder, plain=True)
    made = []
    for seed in range(STUDIES):
        study = make_study(described(folder, seed=seed))
        data, whose, shown = page_data(study.page), {}, []
        for assignment in study.key["assignments"]:
            rows = data["lists"][assignment["code"]]
            for row, trial in zip(rows, assignment["trials"], strict=True):
                shown.append((row, trial))
                whose[data["uses"][row[3]]] = "reference"
                for use, side in zip(row[1:3], ("left", "right"), strict=True):
                    if trial[side] != "catch:better":  # that is a method's picture, which one the key does not say
                        whose[data["uses"][use]] = trial[side]
        made.append((data, whose, shown))
    return made


def hidden_forms(text: str):
    """Bytes by which a text could stand in a page."""
    raw = text.encode()
    yield raw
    yield raw[::-1]
    yield raw.hex().encode()
    yield "".join(f"\\u{ord(c):04x}" for c in text).encode()
    yield "".join(f"&#{ord(c)};" for c in text).encode()
    for shift in range(3):  # the part of the base64 that does not depend on what stands before and after
        whole = base64.b64encode(b"\0" * shift + raw)
        yield whole[4 if shift else 0 : len(whole) // 4 * 4 - 4]


def test_no_name_of_a_method_file_or_folder_is_in_the_page(one):
    page, folder, key = one
    text, lower = page.encode(), page.lower().encode()
    for secret in (*METHODS, *STEMS, "truthfolder", folder.name, str(folder.parent), "catch:", "specimen"):
        assert secret in json.dumps(key) or secret not in (*METHODS, *STEMS)
        for form in hidden_forms(secret):
            assert form not in text and form.lower() not in lower or len(form) < 6, (secret, form)
    for kind in ("tif", "npy", "hspy", "png"):
        assert not re.search(rf"\.{kind}\b", page)


def test_there_is_no_date_no_comment_and_no_compressed_picture(one):
    page, *_ = one
    outside = re.sub(r'<script type="text/plain".*?</script>', "", page)
    outside = re.sub(r'"[0-9a-f]{12,}"', '""', outside)  # a drawn name holds any four digits by chance
    assert "<!--" not in page and str(date.today().year) not in outside
    assert not re.search(r"\b(19|20)\d\d-\d\d|\d\d:\d\d", outside)
    heads = {base64.b64decode(text[:16])[:4] for text in page_data(page)["text"].values()}
    assert not heads & {b"\x89PNG", b"II*\0", b"MM\0*", b"\xff\xd8\xff\xe0", b"\x93NUM", b"\x89HDF"}


def test_all_pictures_have_one_length_and_one_range(one):
    data = page_data(one[0])
    assert len({len(text) for text in data["text"].values()}) == 1
    assert {(int(p.min()), int(p.max()), p.size) for p in data["pictures"].values()} == {(0, 255, SIDE**2)}


def test_names_say_nothing_and_are_each_used_once(one):
    page, *_ = one
    data = page_data(page)
    uses = [use for rows in data["lists"].values() for row in rows for use in row[1:]]
    assert len(set(uses)) == len(uses) == len(data["uses"])
    ids = [row[0] for rows in data["lists"].values() for row in rows]
    for name in (*uses, *ids, *data["order"]):
        assert re.fullmatch("[0-9a-f]{12}", name)
    assert data["order"] == sorted(data["order"]) and list(data["uses"]) == sorted(data["uses"])
    assert list(data["lists"]) == sorted(data["lists"])
    rows = [row for rows in data["lists"].values() for row in rows]
    assert {len(row) for row in rows} == {4}  # catch trials and repeats look like all others
    assert set(data) - {"order", "text", "pictures"} == {"study", "page", "lists", "uses", "shapes"}


def independent(pairs) -> float:
    """Chance of a table as uneven as this, if the two had nothing to do with each other."""
    rows, columns = (sorted({pair[k] for pair in pairs}) for k in (0, 1))
    counts = Counter(pairs)
    return chi2_contingency([[counts[row, column] for column in columns] for row in rows]).pvalue


def test_place_and_name_of_a_picture_do_not_depend_on_the_method(many):
    places, names, uses = [], [], []
    for data, whose, _ in many:
        for k, name in enumerate(data["order"]):
            places.append((whose.get(name, "unseen"), 6 * k // len(data["order"])))
            names.append((whose.get(name, "unseen"), int(name[0], 16) // 2))
        for k, (_, name) in enumerate(data["uses"].items()):
            uses.append((whose.get(name, "unseen"), 6 * k // len(data["uses"])))
    assert {row for row, _ in places} >= {*METHODS, "reference", "catch:worse"}
    for pairs in (places, names, uses):
        assert independent(pairs) > NOT_BY_CHANCE


def fair(throws) -> float:
    """Chance of coins as uneven as these; a throw is (coin, heads)."""
    count, heads = Counter(coin for coin, _ in throws), Counter(coin for coin, up in throws if up)
    return chi2.sf(sum((2 * heads[coin] - n) ** 2 / n for coin, n in count.items()), len(count))


def test_side_and_order_of_names_do_not_depend_on_the_method(many):
    sides, firsts, order, digits = [], [], [], []
    for _, _, shown in many:
        for place, (row, trial) in enumerate(shown):
            pair = tuple(sorted((trial["left"], trial["right"])))
            left = trial["left"] == pair[0]
            order.append((pair, left == (row[1] < row[2])))
            digits.append((trial["kind"], int(row[0][0], 16) // 2))
            if trial["kind"] == "trial":
                sides.append((pair, left))
            if place == 0:
                firsts.append((trial["kind"], left))
    assert min(fair(sides), fair(firsts), fair(order), independent(digits)) > NOT_BY_CHANCE


def test_how_often_a_picture_is_shown_does_not_depend_on_the_method(many):
    """Not even to one who follows the table of names: no method, nor what is made for catch trials, is shown more often
    by picture than the others.
    """
    totals, per_picture = Counter(), {}
    for data, whose, _ in many:
        for name, count in Counter(data["uses"].values()).items():
            role = whose.get(name, "unseen")
            totals[role] += count
            per_picture.setdefault(role, []).append(count)
    assert chisquare([totals[name] for name in METHODS]).pvalue > NOT_BY_CHANCE
    means = {role: np.mean(counts) for role, counts in per_picture.items()}
    usual = [means[name] for name in METHODS]
    assert max(usual) / min(usual) < 1.05
    assert min(map(min, (per_picture[n] for n in METHODS))) <= min(per_picture["catch:worse"])
    assert max(per_picture["catch:worse"]) <= max(map(max, (per_picture[n] for n in METHODS)))


def test_a_seed_seen_elsewhere_does_not_repeat_its_sides(many):
    """The lefts of two studies agree as often as two coins do."""
    lefts = [[trial["left"] < trial["right"] for _, trial in shown] for *_, shown in many]
    agree = [np.mean(np.equal(a, b)) for a, b in itertools.pairwise(lefts)]
    assert abs(np.mean(agree) - 0.5) < 0.03
