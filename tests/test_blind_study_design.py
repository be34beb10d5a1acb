"""Who sees what where: every promise of balance, for any numbers of images, methods, raters and trials."""

import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimp_core.blind_study.design import BETTER, REPEAT_DISTANCE, WORSE, CatchItem, make_design
from cimp_core.errors import OutOfRangeError


@st.composite
def designs(draw):
    """A design, its images, methods and numbers."""
    images = [f"im{k}" for k in range(draw(st.integers(1, 12)))]
    methods = [f"m{k}" for k in range(draw(st.integers(2, 5)))]
    pairs = len(methods) * (len(methods) - 1) // 2
    trials = draw(st.integers(1, min(30, len(images) * pairs)))
    numbers = {
        "raters": draw(st.integers(1, 9)),
        "trials": trials,
        "repeats": draw(st.integers(0, trials)),
        "catch": draw(st.integers(0, min(trials, len(images)))),
    }
    made = make_design(images, methods, **numbers, random=Random(draw(st.integers(0, 10**6))))
    return made, images, methods, numbers


def of_kind(assignment, kind):
    return [trial for trial in assignment.trials if trial.kind == kind]


def pair(trial):
    return tuple(sorted((trial.left, trial.right)))


def even(counts) -> bool:
    return max(counts) - min(counts) <= 1


def sides_even(trials) -> bool:
    """Of trials with one pair of methods: is each as often on the left as on the right, up to one?"""
    return abs(sum(1 if trial.left < trial.right else -1 for trial in trials)) <= 1


@settings(max_examples=80, deadline=None)
@given(designs())
def test_images_and_pairs_are_equally_frequent(made):
    assignments, images, methods, numbers = made
    cells = Counter({(i, p): 0 for i in images for p in itertools.combinations(methods, 2)})
    for assignment in assignments:
        own = [(t.image, pair(t)) for t in of_kind(assignment, "trial")]
        assert len(set(own)) == len(own) == numbers["trials"]
        pairs = Counter(dict.fromkeys(itertools.combinations(methods, 2), 0))
        pairs.update(p for _, p in own)
        assert even(pairs.values())
        cells.update(own)
    assert even(cells.values())


@settings(max_examples=80, deadline=None)
@given(designs())
def test_sides_are_even_for_raters_images_and_pairs(made):
    assignments, *_ = made
    for by in (lambda a, t: (a.code, pair(t)), lambda a, t: (t.image, pair(t)), lambda a, t: pair(t)):
        groups = {}
        for assignment in assignments:
            for trial in of_kind(assignment, "trial"):
                groups.setdefault(by(assignment, trial), []).append(trial)
        assert all(map(sides_even, groups.values()))


@settings(max_examples=80, deadline=None)
@given(designs())
def test_repeats_are_earlier_trials_with_sides_swapped(made):
    assignments, _, methods, numbers = made
    for assignment in assignments:
        place = {t.id: k for k, t in enumerate(assignment.trials)}
        first = {t.id: t for t in of_kind(assignment, "trial")}
        again = of_kind(assignment, "repeat")
        assert len({t.repeats for t in again}) == len(again) == numbers["repeats"]
        for trial in again:
            origin = first[trial.repeats]
            assert (trial.image, trial.left, trial.right) == (origin.image, origin.right, origin.left)
            assert place[trial.id] > place[origin.id]
        had = Counter(pair(t) for t in first.values())
        got = Counter(pair(t) for t in again)
        # One of each pair before a second of any: a pair has fewer than another only if it has no trial left.
        assert all(got[p] >= max(got.values()) - 1 or got[p] == had[p] for p in had) if again else True


@settings(max_examples=80, deadline=None)
@given(designs())
def test_catch_trials_are_spread_and_their_sides_even(made):
    assignments, _, methods, numbers = made
    count, total = numbers["catch"], Counter(left=0, right=0)
    for assignment in assignments:
        checks = of_kind(assignment, "catch")
        sides = Counter(t.correct for t in checks)
        total += sides
        assert len(checks) == len({(t.image, t.source) for t in checks}) == count
        assert abs(sides["left"] - sides["right"]) <= 1
        for trial in checks:
            assert (trial.left if trial.correct == "left" else trial.right) == BETTER
            assert {trial.left, trial.right} == {BETTER, WORSE} and trial.source in methods
        length = len(assignment.trials)
        places = [k for k, t in enumerate(assignment.trials) if t.kind == "catch"]
        assert all(k * length // count <= place < (k + 1) * length // count for k, place in enumerate(places))
    assert abs(total["left"] - total["right"]) <= 1


@settings(max_examples=50, deadline=None)
@given(designs())
def test_ids_tell_nothing_and_a_slip_in_a_code_opens_nothing(made):
    assignments, images, methods, _ = made
    ids = [t.id for a in assignments for t in a.trials]
    assert len(set(ids)) == len(ids) and all(len(i) == 12 and int(i, 16) >= 0 for i in ids)
    codes = [a.code for a in assignments]
    for one, other in itertools.combinations(codes, 2):
        assert sum(a != b for a, b in zip(one, other, strict=True)) >= 2
    assert all(len(code) == 5 and code.isalpha() and code.isupper() for code in codes)


def test_codes_stay_apart_where_there_are_many():
    """Drawn without a look at the others, some five of 600 codes would lie one letter from another."""
    codes = [a.code for a in make_design(["a"], ["x", "y"], raters=600, trials=1, random=Random(0))]
    patterns = Counter(code[:k] + "." + code[k + 1 :] for code in codes for k in range(5))
    assert max(patterns.values()) == 1


def neighbours(assignment) -> int:
    return sum(a.image == b.image for a, b in itertools.pairwise(assignment.trials))


@pytest.mark.parametrize(
    ("images", "methods", "trials", "repeats", "catch"),
    [(20, 2, 20, 4, 4), (10, 4, 33, 5, 3), (5, 3, 15, 5, 5), (4, 3, 12, 3, 1), (24, 5, 40, 8, 6), (100, 2, 60, 10, 6)],
)
def test_images_do_not_follow_themselves_and_repeats_are_far(images, methods, trials, repeats, catch):
    names = [f"im{k}" for k in range(images)], [f"m{k}" for k in range(methods)]
    for seed in range(15):
        made = make_design(*names, raters=4, trials=trials, repeats=repeats, catch=catch, random=Random(seed))
        for assignment in made:
            place = {t.id: k for k, t in enumerate(assignment.trials)}
            assert neighbours(assignment) == 0
            seen = Counter(dict.fromkeys(names[0], 0))
            seen.update(t.image for t in of_kind(assignment, "trial"))
            assert max(seen.values()) - min(seen.values()) <= 2
            assert all(
                place[t.id] - place[t.repeats] >= REPEAT_DISTANCE for t in assignment.trials if t.repeats is not None
            )


def test_where_there_is_no_room_it_comes_as_near_as_it_can():
    made = make_design(["a", "b", "c"], ["x", "y"], raters=30, trials=3, repeats=3, random=Random(0))
    for assignment in made:
        place = {t.id: k for k, t in enumerate(assignment.trials)}
        apart = [place[t.id] - place[t.repeats] for t in assignment.trials if t.repeats]
        assert sorted(apart) == [3, 3, 3] and neighbours(assignment) == 0
    (alone,) = make_design(["a"], ["x", "y", "z"], raters=1, trials=3, random=Random(0))
    assert neighbours(alone) == 2  # there is no other image


def test_the_same_seed_gives_the_same_design_and_another_another():
    def made(seed):
        names = ["a", "b", "c", "d"], ["x", "y", "z"]
        return make_design(*names, raters=3, trials=9, repeats=3, catch=2, random=Random(seed))

    assert made(5) == made(5)
    assert made(5) != made(6)


def test_pictures_of_catch_trials_are_about_as_frequent_as_others():
    """Ten raters show 20 images and 2 methods ten times each; so four catch pairs, shown ten times each."""
    images = [f"im{k}" for k in range(20)]
    for items in (None, [CatchItem(name) for name in images]):
        made = make_design(images, ["x", "y"], raters=10, trials=20, catch=4, catch_items=items, random=Random(0))
        worse = Counter((t.image, t.source) for a in made for t in of_kind(a, "catch"))
        assert list(worse.values()) == [10] * 4
        if items is None:
            assert Counter(source for _, source in worse) == {"x": 2, "y": 2}


def test_too_few_images_are_told_with_what_to_do():
    with pytest.raises(
        OutOfRangeError, match=r"2 images and 1 pair of methods give 2 different trials.* lower trials to 2"
    ):
        make_design(["a", "b"], ["x", "y"], raters=1, trials=3, random=Random(0))
    with pytest.raises(OutOfRangeError, match="1 images for catch trials, fewer than the 2"):
        make_design(["a", "b"], ["x", "y"], raters=1, trials=2, catch=2, catch_items=[CatchItem("a")], random=Random(0))
