"""A small blind study by hand: its key, and result files of raters who answer by a rule."""

import hashlib
import itertools
import json

RULES = {
    "min_catch_correct": 0.75,
    "max_side_share": 0.9,
    "min_repeat_agreement": None,
    "min_median_seconds": 0.5,
    "min_complete": 0.8,
}


def digest(config):
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_key(methods=("raw", "direct"), images=12, raters=6, repeats=3, catch=2, exclude=RULES):
    """Every rater sees every image with one pair of methods, sides and pairs in turn, then repeats and catch trials."""
    config = {
        "title": "Two ways",
        "question": "Which is better?",
        "methods": dict.fromkeys(methods, "x"),
        "exclude": exclude,
    }
    names, pairs = [f"im{k:02d}" for k in range(images)], list(itertools.combinations(methods, 2))
    assignments = []
    for r in range(raters):
        trials = []
        for k, image in enumerate(names):
            pair = pairs[(r + k) % len(pairs)]
            left, right = pair if (r + k // len(pairs)) % 2 else pair[::-1]
            about = {"id": f"{r:02x}{k:04x}", "kind": "trial", "image": image, "left": left, "right": right}
            trials.append(about | {"repeats": None, "correct": None})
        for k, first in enumerate(trials[:repeats]):
            sides = {"left": first["right"], "right": first["left"], "repeats": first["id"]}
            trials.append(first | {"id": f"{r:02x}a{k:03x}", "kind": "repeat"} | sides)
        for k in range(catch):
            sides = ("catch:better", "catch:worse")[:: 1 if k % 2 else -1]
            about = {"id": f"{r:02x}c{k:03x}", "kind": "catch", "image": names[k], "left": sides[0], "right": sides[1]}
            trials.append(about | {"repeats": None, "correct": "left" if k % 2 else "right"})
        assignments.append({"code": "BCDFGHJKLMNPQRSTVWXZ"[r] * 5, "trials": trials})
    return {
        "format": 1,
        "study": "5eed",
        "config": config,
        "digest": digest(config),
        "page": "f00d",
        "methods": list(methods),
        "images": names,
        "assignments": assignments,
    }


def answer(key, number, choose, rater=None, seconds=2.0):
    """The result file of one rater; `choose(trial)` says "left" or "right", or ``None`` for no answer."""
    given = key["assignments"][number]
    answers = []
    for k, trial in enumerate(given["trials"]):
        if (choice := choose(trial)) is not None:
            answers.append(
                {"trial": trial["id"], "choice": choice, "seconds": seconds + 0.01 * k + number, "changes": 0}
            )
    return {
        "format": 1,
        "study": key["study"],
        "rater": rater or f"{0xABC000 + number:x}",
        "code": given["code"],
        "page": key["page"],
        "answers": answers,
        "started": f"2030-01-01T00:00:{number:02d}Z",
        "exported": f"2030-01-01T01:00:{number:02d}Z",
        "complete": len(answers) == len(given["trials"]),
    }


def prefer(*order, except_on=()):
    """Chooses the method that comes first in the order, on some images the other; of a catch trial the better."""

    def choose(trial):
        if trial["kind"] == "catch":
            return trial["correct"]
        left_wins = order.index(trial["left"]) < order.index(trial["right"])
        return "left" if left_wins != (trial["image"] in except_on) else "right"

    return choose


def put(folder, key, *files):
    """Write the key and the result files, each a dict or bytes."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "key.json").write_text(json.dumps(key), encoding="utf-8")
    for k, held in enumerate(files):
        content = held if isinstance(held, bytes) else json.dumps(held).encode()
        (folder / "results" / f"study_{k:02d}.json").write_bytes(content)
    return folder
