"""What the benches share, how growth is fitted, how they are run, and the page that is made of what they find."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "bench"), str(ROOT / "book")]
import exponents  # noqa: E402
import report  # noqa: E402
import run_all  # noqa: E402

import performance_page  # noqa: E402

COLUMNS = {"way": "{way}", "time [s]": "{seconds:.2f}", "note": "{note}"}


def result(**changes):
    rows = [{"way": "ours", "seconds": 0.125}, {"way": "a | b", "seconds": None, "note": "absent"}]
    goals = [report.goal("twice as fast", 1.5, at_least=2.0, why="the disk is slow")]
    return report.header("x", "a claim") | {"columns": COLUMNS, "rows": rows, "goals": goals} | changes


def test_candidates_are_timed_in_turn_and_compared_round_by_round(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setitem(report.CLOCKS, "wall", lambda: clock[0])

    def candidate(name, times):
        def call():
            clock[0] += times[len([n for n in order if n == name])]
            order.append(name)

        return call

    # the first of each is the warm-up; the machine is half as fast in the last round
    rows = report.interleaved({"a": candidate("a", [9, 2, 2, 4]), "b": candidate("b", [9, 1, 1.6, 2])}, rounds=3)
    assert order == ["a", "b"] * 4
    assert [row["median_s"] for row in rows] == pytest.approx([2, 1.6]) and rows[1]["min_s"] == pytest.approx(1)
    assert rows[0]["ratio"] == 1 and rows[1]["ratio"] == pytest.approx(2)
    assert (rows[1]["ratio_low"], rows[1]["ratio_high"]) == pytest.approx((1.25, 2))


def test_a_table_leaves_out_what_a_row_lacks():
    lines = report.table(result()["rows"], COLUMNS).splitlines()
    assert lines == ["| way | time [s] | note |", "|---|---|---|", "| ours | 0.12 |  |", "| a \\| b |  | absent |"]


@pytest.mark.parametrize(
    ("measured", "bounds", "met"),
    [(1.0, {"at_least": 1.0}, True), (0.99, {"at_least": 1.0}, False), (1.2, {"at_most": 1.1}, False)]
    + [(1.0, {"at_least": 0.5, "at_most": 1.1}, True), (None, {"at_least": 1.0}, None)],
)
def test_a_goal_is_met_missed_or_open(measured, bounds, met):
    assert report.goal("x", measured, **bounds)["met"] is met


def test_what_is_written_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "x.json"
    head = report.header("x", "a claim", ["no-such-package"])
    reached = report.goal("x", np.float64(1.0), at_least=np.float32(2.0))
    report.write(path, head, [{"way": "ours", "seconds": np.float32(1.0)}], COLUMNS, [reached])
    found = json.loads(path.read_text())
    assert found["rows"] == [{"way": "ours", "seconds": 1.0}] and found["goals"][0]["met"] is False
    assert found["versions"]["no-such-package"] is None and found["machine"]["cores"] >= 1
    with pytest.raises(ValueError, match="JSON"):
        report.write(path, head, [{"seconds": float("nan")}])
    assert json.loads(path.read_text()) == found and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_growth_is_found_beside_a_fixed_cost(power):
    more = np.array([8, 16, 32, 64]) - 1
    noise = np.random.default_rng(0).normal(1, 0.02, 4)
    p, low, high = exponents.growth(more, 0.01 * more**power * noise, 0.001, 0.01)
    assert low < power < high and abs(p - power) < 0.05 and high - low < 0.4


def test_what_does_not_grow_and_what_cannot_be_fitted_get_no_exponent():
    more = np.array([10, 20, 40, 80])
    assert exponents.growth(more, np.array([0.01, 0.02, 0.0, 0.04]), 0.1, 0.25) == "does not grow"
    assert "too few" in exponents.growth(more, np.array([0.0, 0.01, 0.2, 0.9]), 0.1, 0.25)


@pytest.fixture
def benches(tmp_path, monkeypatch):
    """A folder of benches: one works, one fails, one takes too long."""
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "OUT", tmp_path / "out")
    monkeypatch.setattr(run_all, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(run_all, "BUDGETS", {"good": 30, "bad": 30, "slow": 1, "absent": 30})
    (tmp_path / "bench").mkdir()
    good = f"import sys; open(sys.argv[3], 'w').write({json.dumps(result())!r})"
    scripts = {"good": good, "bad": "raise SystemExit('no such thing')", "slow": "import time; time.sleep(60)"}
    for name, text in scripts.items():
        (tmp_path / "bench" / f"{name}.py").write_text(text)
    return tmp_path


def run_benches(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run_all.py", *arguments])
    run_all.main()


def test_a_bench_that_fails_is_named_and_the_others_are_run(benches, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_benches(monkeypatch, "--only", "bad", "slow", "good", "absent")
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "no such thing" in said and "took more than 1 s" in said and "MISSED: twice as fast" in said
    assert [path.name for path in (benches / "out").iterdir()] == ["good.json"]
    written = (benches / "out" / "good.json").stat().st_mtime_ns
    run_benches(monkeypatch, "--only", "good", "absent")  # an absent peer or bench is no failure
    assert "| good | kept |" in capsys.readouterr().out
    assert (benches / "out" / "good.json").stat().st_mtime_ns == written


def test_the_page_says_what_was_measured_and_what_was_not(tmp_path):
    (tmp_path / "build_speed.json").write_text(json.dumps(result()))
    rows = [{"step": "embed", "what": "images", "p": 1.04, "size_0": 8, "size_1": 16, "seconds_0": 1, "seconds_1": 2}]
    growth = result(rows=rows, columns={"step": "{step}"}, goals=[report.goal("linear", 1.04, at_most=1.1)])
    (tmp_path / "cost_growth.json").write_text(json.dumps(growth))
    rows = [{"case": "each", "processes": n, "samples_per_s": 100.0 * n**0.5} for n in (1, 2)]
    (tmp_path / "scaling.json").write_text(json.dumps(result(rows=rows, columns={"n": "{processes}"})))
    page = performance_page.performance_page(performance_page.read_benches(tmp_path), tmp_path)
    part = {text.splitlines()[0]: text for text in page.split("## ")}
    built = part["From a folder of files to a data set"]
    assert (
        "| ours | 0.12 |  |" in built
        and "| twice as fast | at least 2 | 1.5 | **missed** | the disk is slow |" in built
    )
    head = result()
    assert head["machine"]["processor"] in built and f"Commit {head['commit'] or 'unknown'}" in built
    assert f"torch {head['versions']['torch']}" in built
    grown = part["Cost as it grows"]
    assert "embed against images p = 1.04" in grown and "| linear | at most 1.1 | 1.04 | met |  |" in grown
    assert (tmp_path / performance_page.PICTURE).read_bytes()[:4] == b"\x89PNG"
    assert "stays: 100 with 1; batch of a process stays: 141 with 2." in part["Pre-training on several processes"]
    assert (tmp_path / "performance_scaling.png").read_bytes()[:4] == b"\x89PNG"
    assert part["Search"].strip().endswith("Not measured: `make bench`")
    assert "Not measured: `make bench-gpu`" in part["Pre-training, on a graphics card"]


@pytest.mark.parametrize(("text", "message"), [("{", "no JSON"), ('{"claim": "x"}', "lacks commit")])
def test_a_broken_file_ends_the_build_with_its_name(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SystemExit, match=rf"x\.json: {message}"):
        performance_page.read_benches(tmp_path)


def test_what_is_committed_can_be_shown(tmp_path):
    benches = performance_page.read_benches(ROOT / "book" / "performance")
    page = performance_page.performance_page(benches, tmp_path)
    assert set(benches) <= set(performance_page.BENCHES) and page.count("## ") == len(performance_page.BENCHES)
    for name in run_all.BUDGETS:
        assert name in performance_page.BENCHES
    for name in run_all.ON_CARD:
        assert f"{name}_gpu" in performance_page.BENCHES
