"""A study made from a description and folders: settings, page and key, and the command."""

import json
import re

import numpy as np
import pytest
import yaml
from study_files import METHODS, SIDE, marks, page_data, picture, refuses, save, write_config, write_pictures
from typer.testing import CliRunner

from cimp_core.blind_study import make
from cimp_core.blind_study.config import StudyConfig, config_digest, read_config
from cimp_core.blind_study.make import make_study, write_study
from cimp_core.cli import app
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path)
    return tmp_path


# ---- settings


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rater": 3}, "rater is no setting; is raters meant"),
        ({"seed": None}, "seed is missing"),
        ({"raters": True}, "raters: input should be a valid integer, not True"),
        ({"raters": 0}, "raters: input should be greater than or equal to 1, not 0"),
        ({"methods": {"raw": "raw"}}, "methods: at least two are needed to compare"),
        ({"exclude": {"min_catch": 0.5}}, "exclude.min_catch is no setting; is min_catch_correct meant"),
        ({"exclude": {"max_side_share": 0.2}}, "exclude.max_side_share: input should be greater"),
        ({"repeats": 7}, r"repeats \(7\) are of earlier trials, of which there are 6"),
        ({"catch": 7}, r"catch trials \(7\) outnumber the trials \(6\)"),
        ({"methods": {"catch:better": "raw", "raw": "raw"}}, "names do not begin with 'catch:'"),
        ({"catch_trials": {"better": "raw", "worse": "raw"}}, "better and worse are the same pictures"),
        ({"methods": {1: "raw", "b": "raw"}}, "methods.1: input should be a valid string, not 1"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(folder, wrong, says):
    refuses(SchemaError, rf"study\.yml: .*{says}", write_config(folder, **wrong))


def test_every_fault_is_told_at_once(folder):
    refuses(SchemaError, "seed is missing; rater is no setting", write_config(folder, seed=None, rater=3))


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("title: [", UnreadableFileError, r"not YAML in line 1"),
        ("seed: 1\nseed: 2", UnreadableFileError, r"not YAML in line 2 \('seed' stands there twice\)"),
        ("- a", SchemaError, "holds no settings"),
        ("", SchemaError, "holds no settings"),
        ("title: !!python/object/apply:os.getcwd []", UnreadableFileError, "not YAML"),
    ],
)
def test_what_is_no_description_is_told(tmp_path, text, error, says):
    (tmp_path / "study.yml").write_text(text, encoding="utf-8")
    refuses(error, says, tmp_path / "study.yml")
    refuses(UnreadableFileError, "other.yml: cannot be read", tmp_path / "other.yml")


def test_defaults_are_the_rules_that_are_told():
    given = {"title": "t", "seed": 0, "methods": {"a": "x", "b": "y"}, "raters": 1, "trials": 1}
    config = StudyConfig.model_validate(given)
    assert config.exclude.model_dump() == {
        "min_catch_correct": 0.75,
        "max_side_share": 0.9,
        "min_repeat_agreement": None,
        "min_median_seconds": 0.5,
        "min_complete": 0.8,
    }
    assert (config.display.low, config.display.high, config.crop, config.reference) == (0.1, 99.9, None, None)


# ---- the study


def test_the_page_shows_what_the_key_says(folder):
    study = make_study(
        write_config(folder, reference="sharp", methods={"raw": "raw", "smooth": "smooth"}, repeats=2, catch=2)
    )
    data = page_data(study.page)
    key = study.key
    assert set(data["lists"]) == {a["code"] for a in key["assignments"]}
    for assignment in key["assignments"]:
        shown = data["lists"][assignment["code"]]
        assert [row[0] for row in shown] == [t["id"] for t in assignment["trials"]]
        for (_, left, right, reference), trial in zip(shown, assignment["trials"], strict=True):
            assert set(trial) == {"id", "kind", "image", "left", "right", "repeats", "correct"}
            image = key["images"].index(trial["image"])
            seen = {side: data["pictures"][data["uses"][use]] for side, use in (("left", left), ("right", right))}
            assert marks(data["pictures"][data["uses"][reference]]) == (image, 2)
            for side, grey in seen.items():
                if trial[side] != "catch:worse":
                    assert marks(grey)[0] == image
                if trial["kind"] != "catch":
                    assert METHODS[marks(grey)[1]] == trial[side]
                else:
                    assert (trial[side] == "catch:better") == (trial["correct"] == side)


def test_the_key_is_as_agreed_and_holds_no_folder(folder):
    path = write_config(folder, methods={"raw": str(folder / "raw" / "*.tif"), "smooth": "./smooth"}, crop=48)
    key = make_study(path).key
    assert set(key) == {"format", "study", "config", "digest", "page", "methods", "images", "assignments"}
    assert key["format"] == 1 and re.fullmatch("[0-9a-f]{16}", key["study"]) and key["methods"] == ["raw", "smooth"]
    assert key["config"]["methods"] == {"raw": "*.tif", "smooth": "smooth"}
    assert str(folder) not in json.dumps(key)
    assert key["digest"] == config_digest(key["config"])
    assert StudyConfig.model_validate(key["config"]).crop == 48


def test_the_same_input_gives_the_same_bytes_wherever_it_lies(tmp_path):
    made = []
    for name in ("one", "two/deeper"):
        write_pictures(tmp_path / name)
        write_study(make_study(write_config(tmp_path / name, catch=2, repeats=1)), tmp_path / name / "out")
        made.append([(tmp_path / name / "out" / file).read_bytes() for file in (make.PAGE, make.KEY)])
    assert made[0] == made[1]
    other = make_study(write_config(tmp_path / "one", catch=2, repeats=1, seed=2))
    assert other.page.encode() != made[0][0] and other.key["study"] != json.loads(made[0][1])["study"]


def test_the_seed_alone_does_not_give_the_sides_away(folder):
    """Who guesses the seed but lacks the files draws other sides."""

    def sides():
        return [t["left"] for a in make_study(write_config(folder)).key["assignments"] for t in a["trials"]]

    before = sides()
    save(folder / "raw" / "im00.tif", picture(0, 0) + np.uint8(1))
    assert sides() != before


@pytest.mark.parametrize(
    "catch_trials", [{"better": "smooth", "worse": "bad"}, {"better": "good/*.npy", "worse": "raw"}]
)
def test_catch_trials_of_ones_own(folder, catch_trials):
    for k in range(3):
        save(folder / "bad" / f"im0{k}.npy", picture(15, 6))
        save(folder / "good" / f"im0{k}.npy", picture(14, 5))
    study = make_study(write_config(folder, catch=3, catch_trials=catch_trials))
    data, expected = page_data(study.page), {"smooth": 1, "bad": 6, "good/*.npy": 5, "raw": 0}
    for assignment in study.key["assignments"]:
        for row, trial in zip(data["lists"][assignment["code"]], assignment["trials"], strict=True):
            if trial["kind"] == "catch":
                seen = dict(zip(("left", "right"), (marks(data["pictures"][data["uses"][u]])[1] for u in row[1:3])))
                right = "right" if trial["correct"] == "left" else "left"
                assert seen == {
                    trial["correct"]: expected[catch_trials["better"]],
                    right: expected[catch_trials["worse"]],
                }
    few = write_config(folder, catch=4, catch_trials=catch_trials)
    refuses(OutOfRangeError, "3 images for catch trials, fewer than the 4", few)


def test_a_page_that_is_large_is_told_and_one_too_large_refused(folder, monkeypatch):
    path = write_config(folder, trials=18)
    assert make_study(path).warnings == ()
    monkeypatch.setattr(make, "LARGE", 90e3)
    (warning,) = make_study(path).warnings
    side = int(re.search(r"the page has 0 MB, slow to open .* 'crop: (\d+)'", warning)[1])
    assert make_study(write_config(folder, trials=18, crop=side)).page.count("text/plain") == 18
    assert side < SIDE and 18 * side**2 * 4 / 3 <= 90e3
    monkeypatch.setattr(make, "TOO_LARGE", 95e3)
    write_config(folder, trials=18)
    refuses(OutOfRangeError, rf"the page would have 0 MB, too much to open; 'crop: {side}'", path)


def test_what_would_unblind_raters_is_told(folder):
    for k in range(6):
        save(folder / "ref" / f"im{k:02d}.npy", (picture(k, 1) * 100 + 1000).astype("u2") * 0.5)
        save(folder / "sharp" / f"im{k:02d}.tif", picture(k, 0).astype("u1") * 0.5)
    told = make_study(write_config(folder, reference="ref", title="Smooth or not", trials=18)).warnings
    assert "smooth is the same as the reference, so raters can recognise it" in told
    assert "im03: raw and sharp are the same picture" in told
    assert "title, question or instructions say 'smooth', a name that raters should not see" in told
    assert make_study(write_config(folder, methods={"raw": "raw", "smooth": "smooth"})).warnings == ()


# ---- the command


def run(*arguments):
    return CliRunner().invoke(app, ["study", "make", *map(str, arguments)])


def test_the_command_writes_page_key_and_a_folder_for_results(folder):
    path, out = write_config(folder, title="Smooth ones"), folder / "out"
    done = run(path, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == ["key.json", "results", "study.html"]
    summary, key = json.loads(done.stdout), json.loads((out / "key.json").read_text(encoding="utf-8"))
    assert summary["codes"] == [a["code"] for a in key["assignments"]] and summary["trials_per_rater"] == 6
    assert summary["warnings"] and "cimp: warning: " in done.stderr
    told = run(path, "--out", out, "--force").stdout
    assert all(code in told for code in summary["codes"])


def test_nothing_is_overwritten_and_no_key_of_results_lost(folder):
    path, out = write_config(folder), folder / "out"
    assert run(path, "--out", out).exit_code == 0
    before = (out / "key.json").read_bytes()
    assert "--force to overwrite" in str(run(path, "--out", out).exception)
    (out / "results" / "study_1.json").write_text("{}", encoding="utf-8")
    assert run(path, "--out", out, "--force").exit_code == 0  # the very same study
    write_config(folder, seed=2)
    refused = run(path, "--out", out, "--force").exception
    assert isinstance(refused, CimpError) and "1 result files of another study" in str(refused)
    assert (out / "key.json").read_bytes() == before
    assert isinstance(run(path, "--out", path).exception, CimpError)


def test_nothing_is_written_of_a_study_that_cannot_be_made(folder):
    (folder / "raw" / "im05.tif").write_bytes(b"damaged")
    assert isinstance(run(write_config(folder, trials=18), "--out", folder / "out").exception, UnreadableFileError)
    assert not (folder / "out").exists()


def test_the_example_of_the_settings_is_read(tmp_path):
    path = tmp_path / "study.yml"
    path.write_text(
        yaml.safe_dump({"title": "t", "seed": 1, "methods": {"a": "a", "b": "b"}, "raters": 1, "trials": 2})
    )
    assert read_config(path).question == "Which picture shows the specimen better?"
