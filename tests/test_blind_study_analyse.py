"""Result files are read whole or named and left out, rules are fixed beforehand, and what is simulated says so."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from blind_study_files import RULES, answer, digest, make_key, prefer, put
from typer.testing import CliRunner

from cimp_core.blind_study.analysis import NOTICE, analyse
from cimp_core.blind_study.observer import Observer, observe, truth_utilities, write_observed
from cimp_core.blind_study.report import markdown
from cimp_core.blind_study.results import load_key, load_results
from cimp_core.cli import study_analyse
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError

LIKES = prefer("direct", "raw", except_on=("im03", "im07"))


@pytest.fixture
def key():
    return make_key()


@pytest.fixture
def good(key):
    return [answer(key, k, LIKES) for k in range(6)]


@pytest.fixture(scope="module")
def app():
    made = typer.Typer()
    for command in (study_analyse.analyse, study_analyse.plan, study_analyse.observe):
        made.command()(command)
    return made


def changed(held, **new):
    return copy.deepcopy(held) | new


def with_answer(held, number, **new):
    held = copy.deepcopy(held)
    held["answers"][number] |= new
    return held


def damaged(key, good):
    """Files that cannot be used, and a word of the reason each must be given."""
    first, last = good[0], good[5]
    whole = json.dumps(last).encode()
    twice = changed(last, answers=[*last["answers"], last["answers"][0] | {"choice": "left"}])
    return {
        "cut off": (whole[: len(whole) // 2], "JSON"),
        "empty": (b"", "JSON"),
        "no text": (b"\xff\xfe\x00", "JSON"),
        "deep": (b"[" * 200_000, "JSON"),
        "a list": (b"[]", "answers"),
        "no answers": (changed(last, answers=[]), "no answers"),
        "answers no list": (changed(last, answers={}), "answers"),
        "future": (changed(last, format=2), "format"),
        "another study": (changed(last, study="beef"), "another study"),
        "another page": (changed(last, page="beef"), "digest"),
        "no rater": (changed(last, rater=""), "rater"),
        "unknown code": (changed(last, code="AAAAA"), "code"),
        "code of another": (changed(last, code=first["code"]), "trial"),
        "unknown trial": (with_answer(last, 3, trial="ffff"), "answer 4"),
        "twice": (twice, "second"),
        "impossible choice": (with_answer(last, 2, choice="both"), "neither"),
        "choice a list": (with_answer(last, 2, choice=["left"]), "neither"),
        "negative time": (with_answer(last, 2, seconds=-1), "took"),
        "no number": (json.dumps(with_answer(last, 2, seconds=float("nan"))).encode(), "took"),
        "text for time": (with_answer(last, 2, seconds="2"), "took"),
        "an answer no answer": (changed(last, answers=["left"]), "answer 1"),
        "copy": (changed(first, rater="0ther"), "copy of study_00.json"),
        "code again": (with_answer(changed(first, rater="0ther"), 0, seconds=9.0), "one code is for one rater"),
    }


def test_every_bad_file_is_named_with_its_reason_and_the_rest_goes_on(tmp_path, key, good):
    cases = damaged(key, good)
    folder = put(tmp_path, key, *good[:5], *(held for held, _ in cases.values()))
    found = load_results(folder)
    reasons = {entry["file"]: entry["reason"] for entry in found.left_out}
    assert len(reasons) == len(cases)
    for k, (name, (_, word)) in enumerate(cases.items(), start=5):
        assert word in reasons[f"study_{k:02d}.json"], name
    assert list(found.raters["file"]) == [f"study_{k:02d}.json" for k in range(5)]
    assert len(found.table) == 5 * 17


def test_a_folder_named_like_a_file_is_left_out(tmp_path, key, good):
    folder = put(tmp_path, key, *good)
    (folder / "results" / "x.json").mkdir()
    assert [entry["file"] for entry in load_results(folder).left_out] == ["x.json"]


def test_of_one_rater_the_last_state_counts_and_contradictions_do_not(tmp_path, key, good):
    early = changed(good[0], answers=good[0]["answers"][:9], complete=False)
    found = load_results(put(tmp_path / "a", key, good[0], early, *good[1:]))
    assert [(e["file"], "earlier state of study_00.json" in e["reason"]) for e in found.left_out] == [
        ("study_01.json", True)
    ]
    other = "left" if good[0]["answers"][0]["choice"] == "right" else "right"
    found = load_results(put(tmp_path / "b", key, good[0], with_answer(good[0], 0, choice=other), *good[1:]))
    assert [e["file"] for e in found.left_out] == ["study_00.json", "study_01.json"]
    assert all("nobody can tell" in e["reason"] for e in found.left_out)


def test_what_cannot_be_analysed_is_refused_in_one_line(tmp_path, key, good):
    with pytest.raises(UnreadableFileError, match="no such file"):
        load_key(tmp_path)
    with pytest.raises(UnreadableFileError, match="no result files"):
        load_results(put(tmp_path / "a", key))
    with pytest.raises(SchemaError, match=r"none of 1 files can be used \(study_00.json: damaged"):
        load_results(put(tmp_path / "b", key, b"{"))
    (tmp_path / "key.json").write_text("{")
    with pytest.raises(UnreadableFileError, match="not readable as JSON"):
        load_key(tmp_path)
    put(tmp_path / "c", {name: part for name, part in key.items() if name != "assignments"})
    with pytest.raises(SchemaError, match="assignments"):
        load_key(tmp_path / "c")
    twice = copy.deepcopy(key)
    twice["assignments"][1]["code"] = twice["assignments"][0]["code"]
    with pytest.raises(SchemaError, match="occurs twice"):
        load_key(put(tmp_path / "d", twice))


def test_rules_changed_afterwards_are_refused(tmp_path, key, good):
    key["config"]["exclude"] = RULES | {"min_catch_correct": 0.1}
    with pytest.raises(SchemaError, match="changed after the study was made"):
        analyse(put(tmp_path / "a", key, *good))
    key["digest"] = digest(key["config"])
    assert analyse(put(tmp_path / "b", key, *good), draws=100)["excluded"] == []


def spoiled(key):
    """One rater for each rule, who breaks only that, and how."""

    def wrong_catch(trial):
        return {"left": "right", "right": "left"}[trial["correct"]] if trial["kind"] == "catch" else LIKES(trial)

    def always_left(trial):
        return trial["correct"] or "left"

    def fickle(trial):  # the same side again, so never the same method
        if trial["kind"] == "repeat":
            return {"left": "right", "right": "left"}[LIKES(trial)]
        return LIKES(trial)

    def gives_up(trial):
        return LIKES(trial) if trial["image"] < "im08" else None

    return {
        "min_catch_correct": answer(key, 6, wrong_catch),
        "max_side_share": answer(key, 7, always_left),
        "min_repeat_agreement": answer(key, 8, fickle),
        "min_median_seconds": answer(key, 9, LIKES, seconds=-8.8),  # the helper adds 9 s
        "min_complete": answer(key, 10, gives_up),
    }


def test_each_rule_excludes_who_breaks_it_and_none_excludes_nobody(tmp_path):
    limits = RULES | {"min_repeat_agreement": 0.6}
    for rules in (limits, dict.fromkeys(RULES)):
        key = make_key(raters=11, exclude=rules)
        files = [answer(key, k, LIKES) for k in range(6)]
        bad = spoiled(key)
        found = analyse(put(tmp_path / str(rules["max_side_share"]), key, *files, *bad.values()), draws=100)
        broken = {(entry["rule"], entry["rater"], entry["limit"]) for entry in found["excluded"]}
        expected = {(rule, held["rater"], limits[rule]) for rule, held in bad.items()}
        # who always presses one side agrees with himself never
        expected.add(("min_repeat_agreement", bad["max_side_share"]["rater"], 0.6))
        expected = expected if rules is limits else set()
        assert broken == expected and len(found["excluded"]) == len(expected)
        assert found["result"]["raters"] == (6 if expected else 11)
        if expected:
            assert found["without_exclusion"]["raters"] == 11
            assert found["without_exclusion"]["trials"] > found["result"]["trials"] == 72
            text = markdown(found)
            assert "nobody excluded" in text and all(held["rater"] in text for held in bad.values())
        else:
            assert found["without_exclusion"] is None and "No rater was excluded" in markdown(found)


def test_counts_go_to_the_method_and_not_to_the_side(tmp_path, key, good):
    found = analyse(put(tmp_path, key, *good), draws=200)
    (pair,) = found["result"]["pairs"]
    assert (pair["a"], pair["b"], pair["count"], pair["trials"]) == ("raw", "direct", 12, 72)
    assert found["result"]["side"]["share"] == pytest.approx(0.5, abs=0.1)
    assert found["result"]["repeats"]["share"] == 1 and found["result"]["catch"]["count"] == 12
    assert found["result"]["bradley_terry"] is None
    assert pair["alpha"]["value"] == pytest.approx(1)  # all raters agree on every image
    two, alone = pair["two_way"], pair["independent"]["wilson"]
    assert two["low"] < alone[0] and two["high"] > alone[1]  # images differ, and that is seen
    json.dumps(found, allow_nan=False)


def test_three_methods_are_ranked_and_one_that_always_wins_is_said(tmp_path):
    methods = ("raw", "direct", "blur")
    key = make_key(methods=methods, images=24)
    mixed = [
        answer(key, k, prefer(*order))
        for k, order in enumerate([("direct", "raw", "blur")] * 4 + [methods, methods[::-1]])
    ]
    found = analyse(put(tmp_path / "a", key, *mixed), draws=200)
    assert len(found["result"]["pairs"]) == 3
    worth = {one["method"]: one["worth"] for one in found["result"]["bradley_terry"]["strengths"]}
    assert worth["direct"] > worth["raw"] == 1 > worth["blur"]
    always = [answer(key, k, prefer("direct", *(("raw", "blur") if k % 2 else ("blur", "raw")))) for k in range(6)]
    found = analyse(put(tmp_path / "b", key, *always), draws=200)
    strengths = found["result"]["bradley_terry"]
    assert strengths["strengths"] is None
    assert "direct won all 96 trials against raw and blur" in strengths["statement"]
    assert "Direct won all" not in markdown(found) and "direct won all 96 trials" in markdown(found)


def test_one_rater_or_none_gives_counts_and_says_why_there_is_no_interval(tmp_path, key, good):
    alone = analyse(put(tmp_path / "a", key, good[0]), draws=100)
    (pair,) = alone["result"]["pairs"]
    assert pair["share"] == pytest.approx(1 / 6) and pair["mixed"] is None and pair["bootstrap"] is None
    assert pair["two_way"]["low"] is None and "one rater tells nothing" in markdown(alone)
    assert pair["alpha"]["reason"] == "no image was judged by two raters"
    careless = [answer(key, k, LIKES, seconds=-6.5) for k in range(6, 0, -1) if k < 6]
    careless = [
        changed(held, answers=[a | {"seconds": 0.1 + 0.01 * k} for a in held["answers"]])
        for k, held in enumerate(careless)
    ]
    none = analyse(put(tmp_path / "b", key, *careless), draws=100)
    assert none["result"]["raters"] == 0 and none["without_exclusion"]["raters"] == 5
    assert none["result"]["pairs"][0]["share"] is None and "not known" in markdown(none)
    json.dumps([alone, none], allow_nan=False)


def utilities(better=3.0):
    return {"raw": 0.0, "direct": {f"im{k:02d}": better for k in range(12)}}


def test_simulated_is_said_in_every_output_and_never_mixed(tmp_path, key, good, app):
    put(tmp_path / "s", key)
    paths = write_observed(tmp_path / "s", utilities(), 6, seed=1)
    held = json.loads(paths[0].read_text())
    assert held["rater"].startswith("simulated-") and "model" in held["simulated"]["rule"]
    found = analyse(tmp_path / "s", draws=100)
    assert found["simulated"] and found["notice"] == NOTICE and NOTICE in markdown(found)
    run = CliRunner()
    for extra in ([], ["--json", "--force"]):
        done = run.invoke(app, ["analyse", str(tmp_path / "s"), "--draws", "100", *extra])
        assert done.exit_code == 0 and NOTICE in done.output
    for name in ("analysis.md", "analysis.json"):
        assert NOTICE in (tmp_path / "s" / name).read_text()
    put(tmp_path / "s", key, good[5])
    with pytest.raises(SchemaError, match="simulated raters among real ones"):
        analyse(tmp_path / "s")
    with pytest.raises(CimpError, match="real rater"):
        write_observed(tmp_path / "s", utilities(), 6, seed=1, force=True)
    found = analyse(put(tmp_path / "r", key, *good), draws=100)
    assert not found["simulated"] and "SIMULATED" not in json.dumps(found) + markdown(found)


def test_the_observer_follows_its_rule(key):
    many = make_key(images=100, raters=20, repeats=0, catch=10)
    plain = Observer(rater_sd=0, image_sd=0, side_sd=0, lapse=0)

    def chosen(observer, better):
        table = {"raw": 0.0, "direct": better}
        files = observe(many, table, 20, 3, observer)
        by_id = {t["id"]: t for given in many["assignments"] for t in given["trials"]}
        picked = [(by_id[a["trial"]], a["choice"]) for held in files for a in held["answers"]]
        trials = [t[choice] == "direct" for t, choice in picked if t["kind"] == "trial"]
        catch = [t["correct"] == choice for t, choice in picked if t["kind"] == "catch"]
        return np.mean(trials), np.mean(catch), np.reshape(trials, (20, -1)).mean(axis=1).std()

    share, catch, spread = chosen(plain, 3.0)
    assert share == pytest.approx(1 / (1 + np.exp(-0.35 * 3)), abs=0.03) and catch == pytest.approx(0.982, abs=0.03)
    assert chosen(plain, 0.0)[0] == pytest.approx(0.5, abs=0.03) and chosen(plain, -3.0)[0] < 0.3
    assert chosen(Observer(rater_sd=2, image_sd=0), 3.0)[2] > 2 * spread
    assert chosen(Observer(lapse=1.0), 3.0)[1] == pytest.approx(0.5, abs=0.1)
    assert observe(key, utilities(), 3, 5) == observe(key, utilities(), 3, 5) != observe(key, utilities(), 3, 6)


def test_the_observer_refuses_what_it_cannot_know(key):
    with pytest.raises(OutOfRangeError, match="7 raters, but the study has 6 assignments"):
        observe(key, utilities(), 7, 0)
    with pytest.raises(SchemaError, match="lack 'direct' of image 'im00'"):
        observe(key, {"raw": 0.0, "direct": {}}, 2, 0)
    with pytest.raises(SchemaError, match="lack 'raw'"):
        observe(key, {"direct": 1.0}, 2, 0)
    with pytest.raises(SchemaError, match="not all finite"):
        observe(key, {"raw": 0.0, "direct": float("nan")}, 2, 0)


def test_utilities_from_the_truth_do_not_see_scale_or_offset():
    rng = np.random.default_rng(0)
    truth = {"a": rng.random((32, 32))}
    noise = rng.normal(size=(32, 32)) * truth["a"].std()
    pictures = {
        "near": {"a": truth["a"] + 0.1 * noise},
        "far": {"a": truth["a"] + noise},
        "flat": {"a": np.ones((32, 32))},
    }
    found = {name: held["a"] for name, held in truth_utilities(pictures, truth).items()}
    assert (
        found["near"] == pytest.approx(20, abs=1) and found["far"] == pytest.approx(3, abs=0.5) and found["flat"] == 0
    )
    scaled = {"near": {"a": 7 * pictures["near"]["a"] - 3}, "itself": truth}
    again = truth_utilities(scaled, truth)
    assert again["near"]["a"] == pytest.approx(found["near"]) and again["itself"]["a"] == pytest.approx(60)
    with pytest.raises(SchemaError, match="'b' has no truth"):
        truth_utilities({"near": {"b": truth["a"]}}, truth)
    with pytest.raises(SchemaError, match="pixels"):
        truth_utilities({"near": {"a": np.ones((3, 3))}}, truth)


def test_the_commands(tmp_path, key, good, app):
    folder, run = put(tmp_path, key, *good, b"{"), CliRunner()
    done = run.invoke(app, ["analyse", str(folder), "--draws", "100"])
    assert done.exit_code == 0 and "raw over direct" in done.output and "16.7 %" in done.output
    assert "left out study_06.json: damaged" in done.output
    again = run.invoke(app, ["analyse", str(folder)])
    assert isinstance(again.exception, CimpError) and "--force" in str(again.exception)
    done = run.invoke(app, ["analyse", str(folder), "--draws", "100", "--out", str(tmp_path / "new"), "--json"])
    assert json.loads(done.stdout) == json.loads((tmp_path / "new" / "analysis.json").read_text())
    assert "study_06.json: damaged" in (tmp_path / "new" / "analysis.md").read_text()
    done = run.invoke(app, ["plan", "--raters", "5", "--trials", "20", "--studies", "50"])
    assert done.exit_code == 0 and "No line is enough" in done.output and "323 trials would do" in done.output
    put(tmp_path / "o", key)
    (tmp_path / "u.json").write_text(json.dumps(utilities()))
    done = run.invoke(app, ["observe", str(tmp_path / "o"), "--raters", "4", "--utilities", str(tmp_path / "u.json")])
    assert done.exit_code == 0 and NOTICE in done.output and len(list((tmp_path / "o" / "results").glob("*.json"))) == 4
    done = run.invoke(app, ["observe", str(tmp_path / "o"), "--raters", "4"])
    assert isinstance(done.exception, CimpError) and "--utilities" in str(done.exception)


def test_the_package_and_its_help_stay_light():
    heavy = "{'statsmodels', 'krippendorff', 'scipy', 'pandas'}"
    code = f"import sys, cimp_core.cli, cimp_core.cli.study_analyse; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
