"""Who sees which pair when, and on which side: balanced, and drawn by a seed.

Balance that holds exactly, whatever the numbers:

- over all assignments every image is shown with every pair of methods equally often, up to one time;
- no rater sees an image with a pair twice, but for repeats; a rater's pairs of methods are equally frequent, up to one;
- sides are even, up to one, for every rater and pair of methods, for every image and pair of methods over the raters,
  and for every pair of methods over the whole study; those of catch trials for every rater and over the study.

Order is random, then improved until images do not follow themselves and repeats lie far enough from their first
showing, or until nothing more is gained: with few images or trials not all of it can be had.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from ..errors import OutOfRangeError

__all__ = ["BETTER", "REPEAT_DISTANCE", "WORSE", "Assignment", "CatchItem", "Trial", "make_design"]

BETTER, WORSE = "catch:better", "catch:worse"
"""Names of a catch trial's pictures."""

REPEAT_DISTANCE = 5
"""Least number of places between a trial and its repeat, where there is room."""

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # without vowels no words, without I and O nothing that looks like a number
_TRIES = 1000  # swaps without a gain after which the order of an assignment is taken for as good as it gets


@dataclass(frozen=True)
class Trial:
    """One pair on the screen."""

    id: str
    kind: Literal["trial", "repeat", "catch"]
    image: str
    left: str  # a method, or BETTER or WORSE
    right: str
    repeats: str | None = None  # id of the first showing
    correct: Literal["left", "right"] | None = None  # of a catch trial
    source: str | None = None  # of a catch trial that is made here: the method whose picture it is made of


@dataclass(frozen=True)
class CatchItem:
    """One pair whose answer is known: an image, and the method it is of where the worse picture is made from it."""

    image: str
    source: str | None = None


@dataclass(frozen=True)
class Assignment:
    """What one rater sees, in order."""

    code: str
    trials: tuple[Trial, ...]


def make_design(
    images: Sequence[str],
    methods: Sequence[str],
    *,
    raters: int,
    trials: int,
    repeats: int = 0,
    catch: int = 0,
    catch_items: Sequence[CatchItem] | None = None,
    random: Random,
) -> tuple[Assignment, ...]:
    """Assignments for all raters.

    Parameters
    ----------
    images, methods : sequences of str
    raters, trials, repeats, catch : int
        Assignments, and for each its trials, how many of these come again, and its catch trials.
    catch_items : sequence of CatchItem, optional
        Images of the catch trials; by default `images`, made from each method in turn.
    random : random.Random
        Everything is drawn from it.

    Raises
    ------
    OutOfRangeError
        There are fewer different trials than a rater is to see.
    """
    images, methods = random.sample(list(images), len(images)), random.sample(list(methods), len(methods))
    pairs = list(itertools.combinations(methods, 2))
    if trials > (most := len(images) * len(pairs)):
        raise OutOfRangeError(
            f"{len(images)} images and {len(pairs)} pair{'s' * (len(pairs) > 1)} of methods give {most} different "
            f"trials, fewer than the {trials} of a rater: add images, or lower trials to {most}"
        )
    if catch_items is None:
        catch_items = [CatchItem(image, method) for image, method in zip(images, itertools.cycle(methods))]
    else:
        catch_items = random.sample(list(catch_items), len(catch_items))
    if catch > len(catch_items):
        raise OutOfRangeError(
            f"{len(catch_items)} images for catch trials, fewer than the {catch} of a rater: add some, or lower catch"
        )
    ring = _ring(images, pairs)
    shown = [[ring[k % len(ring)] for k in range(r * trials, (r + 1) * trials)] for r in range(raters)]
    sides = _sides(shown, random)
    common = max(1.0, raters * trials * 2 / (len(images) * len(methods)))  # uses of one picture
    # As many different catch pairs as makes their pictures about as frequent as the others.
    pool = catch_items[: max(catch, round(raters * catch / common))]
    names = _Names(random)
    made = []
    for r in range(raters):
        firsts = [Trial(names.id(), "trial", cell[0], *side) for cell, side in zip(shown[r], sides[r], strict=True)]
        again = [
            Trial(names.id(), "repeat", t.image, t.right, t.left, repeats=t.id)
            for t in _spread_over_pairs(firsts, random)[:repeats]
        ]
        known = [pool[k % len(pool)] for k in range(r * catch, (r + 1) * catch)]
        extra = r % 2 if catch % 2 else 0  # the odd one is left with one rater and right with the next
        lefts = random.sample([(k + extra) % 2 == 0 for k in range(catch)], catch)
        checks = [_catch(names.id(), item, left) for item, left in zip(known, lefts, strict=True)]
        made.append(Assignment(names.code(), tuple(_order(firsts, again, checks, random))))
    return tuple(random.sample(made, len(made)))


def _ring(images: list[str], pairs: list[tuple[str, str]]) -> list[tuple[str, tuple[str, str]]]:
    """Every image with every pair, in a ring of which any stretch has all pairs, and images, about equally often."""
    count = len(images)
    # Each pair of methods begins at another image, all evenly apart, so that a stretch has few images more than once.
    starts = [k * count // len(pairs) for k in range(len(pairs))]
    return [(images[(turn + start) % count], pair) for turn in range(count) for start, pair in zip(starts, pairs)]


def _sides(shown: list[list[tuple[str, tuple[str, str]]]], random: Random) -> list[list[tuple[str, str]]]:
    """Left and right method of every trial.

    A trial is an edge between its rater and its image, in the graph of one pair of methods. Where every node has an
    even number of edges, a walk along all of them that alternates between the two sides divides them evenly at every
    node, for the walk goes to and fro between raters and images. Nodes with an odd number get one edge to a dummy.
    """
    graphs = defaultdict(list)
    for r, cells in enumerate(shown):
        for t, (image, pair) in enumerate(cells):
            graphs[pair].append((("rater", r), ("image", image), (r, t)))
    sides = [[pair for _, pair in cells] for cells in shown]
    for (first, second), edges in graphs.items():
        for label, swapped in _alternate(random.sample(edges, len(edges)), random):
            if label is not None:
                sides[label[0]][label[1]] = (second, first) if swapped else (first, second)
    return sides


def _alternate(edges: list[tuple], random: Random) -> list[tuple[tuple[int, int] | None, bool]]:
    """Labels of a bipartite graph's edges, each with True or False, evenly at every node up to one."""
    degree = Counter(node for edge in edges for node in edge[:2])
    dummies = {"rater": ("image", None), "image": ("rater", None)}  # a dummy stands opposite to those it serves
    added = [(node, dummies[node[0]], None) for node, count in degree.items() if count % 2]
    if sum(node[0] == "rater" for node, *_ in added) % 2:
        added.append((*dummies.values(), None))
    links = defaultdict(list)
    for number, (a, b, _) in enumerate(edges := edges + added):
        links[a].append((number, b))
        links[b].append((number, a))
    used, result = set(), []
    for start in list(links):
        path, walk = [(start, None)], []  # Hierholzer's walk: on as far as it goes, then back to where it branches
        while path:
            node, came_by = path[-1]
            while links[node] and links[node][-1][0] in used:
                links[node].pop()
            if links[node]:
                number, other = links[node].pop()
                used.add(number)
                path.append((other, number))
            else:
                path.pop()
                if came_by is not None:
                    walk.append(came_by)
        turn = random.random() < 0.5
        result += [(edges[number][2], (k % 2 == 0) == turn) for k, number in enumerate(walk)]
    return result


def _spread_over_pairs(trials: list[Trial], random: Random) -> list[Trial]:
    """Trials at random, but one of each pair of methods before a second of any."""
    seen, rank = Counter(), {}
    for trial in random.sample(trials, len(trials)):
        pair = frozenset((trial.left, trial.right))
        rank[trial] = (seen[pair], random.random())
        seen[pair] += 1
    return sorted(trials, key=rank.__getitem__)


def _catch(id_: str, item: CatchItem, left: bool) -> Trial:
    trial = Trial(id_, "catch", item.image, BETTER, WORSE, correct="left", source=item.source)
    return trial if left else replace(trial, left=WORSE, right=BETTER, correct="right")


def _order(firsts: list[Trial], again: list[Trial], checks: list[Trial], random: Random) -> list[Trial]:
    """All trials of a rater: catch trials spread, repeats far from their first showing, images not next to themselves.

    Swaps two trials at random, of which one is at fault, and keeps what is no worse.
    """
    places = _spread_places(len(firsts) + len(again) + len(checks), len(checks), random)
    order: list[Trial] = random.sample(firsts, len(firsts))
    for trial in again:
        first = next(k for k, t in enumerate(order) if t.id == trial.repeats)
        order.insert(random.randint(min(first + REPEAT_DISTANCE, len(order)), len(order)), trial)
    for place, trial in zip(places, random.sample(checks, len(checks)), strict=True):
        order.insert(place, trial)
    others = sorted(set(range(len(order))) - set(places))
    faults, idle = _faults(order), 0
    while faults and idle < _TRIES:
        idle += 1
        a = random.choice(sorted(faults.elements()))
        b = random.choice(places if a in places else others)
        order[a], order[b] = order[b], order[a]
        now = _faults(order)
        if now.total() > faults.total():
            order[a], order[b] = order[b], order[a]
            continue
        idle = idle if now.total() == faults.total() else 0
        faults = now
    return order


def _spread_places(total: int, count: int, random: Random) -> list[int]:
    """One place in the middle half of each of `count` equal parts."""
    places = []
    for k in range(count):
        start, stop = k * total // count, (k + 1) * total // count
        quarter = (stop - start) // 4
        places.append(random.randrange(start + quarter, stop - quarter))
    return places


def _faults(order: list[Trial]) -> Counter[int]:
    """Places at fault, with weights: the same image next to itself, a repeat too near or even before its first."""
    found: Counter[int] = Counter()
    where = {trial.id: k for k, trial in enumerate(order)}
    for k, trial in enumerate(order):
        if k and trial.image == order[k - 1].image:
            found[k] += 1
            found[k - 1] += 1
        if trial.repeats is not None and (distance := k - where[trial.repeats]) < REPEAT_DISTANCE:
            short = (REPEAT_DISTANCE - distance) ** 2  # squared: several a little too near rather than one far too near
            found[k] += short
            found[where[trial.repeats]] += short
    return found


class _Names:
    """Ids and codes, each given once."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._given: set[str] = set()
        self._codes: list[str] = []

    def id(self) -> str:
        """Twelve hexadecimal digits."""
        while (made := f"{self._random.getrandbits(48):012x}") in self._given:
            pass
        self._given.add(made)
        return made

    def code(self) -> str:
        """Five letters that differ from every other code in two places, so that one slip opens no other assignment."""
        while True:
            made = "".join(self._random.choices(_LETTERS, k=5))
            if all(sum(a != b for a, b in zip(made, other, strict=True)) > 1 for other in self._codes):
                self._codes.append(made)
                return made
