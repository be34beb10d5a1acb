"""A notebook swept over parameters: every run once, whatever dies meanwhile, and one table of what they found."""

import csv
import json
import os
import signal
import threading
import time

import nbformat
import pytest
from typer.testing import CliRunner

from cimp_core import notebook_sweep
from cimp_core.cli import app
from cimp_core.errors import CimpError, OutOfRangeError
from cimp_core.notebook_run import last_table
from cimp_core.notebook_sweep import parse_grid, read_parameters, run_sweep

KNOWN = {"lr": 0.1, "seed": 0, "name": "x", "flag": False, "other": None, "sizes": [1, 2], "results": None}


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook beside a file `log` to which each run adds a line as it ends."""

    def write(*sources, parameters="lr = 0.1\nseed = 0", tags=("parameters",)):
        cells = [nbformat.v4.new_code_cell(text) for text in (parameters, *sources)]
        cells[0].metadata["tags"] = list(tags)
        made = nbformat.v4.new_notebook(cells=cells)
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, tmp_path / "a.ipynb")
        return tmp_path / "a.ipynb"

    return write


def table(out):
    with open(out / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "name, text, values",
    [
        ("lr", "1e-3,3e-4", [1e-3, 3e-4]),
        ("lr", "1..3", [1.0, 2.0, 3.0]),
        ("seed", "0..4", [0, 1, 2, 3, 4]),
        ("seed", "-1..1, 7", [-1, 0, 1, 7]),
        ("name", "twin,0..4", ["twin", "0..4"]),
        ("flag", "True,false", [True, False]),
        ("other", "None,3,0.5,True,a b", [None, 3, 0.5, True, "a b"]),
    ],
)
def test_values_have_the_type_of_the_parameter(name, text, values):
    found = [run[name] for run in parse_grid([(name, text)], KNOWN)]
    assert found == values and list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    "given, why",
    [
        ([("lrr", "1")], "no parameter 'lrr'; the notebook has: lr, seed"),
        ([("results", "a.json")], "no parameter 'results'"),
        ([("lr", "")], "a value is empty"),
        ([("lr", "1,,2")], "a value is empty"),
        ([("seed", "4..0")], "empty range"),
        ([("seed", "1"), ("seed", "2")], "given twice"),
        ([("seed", "0..2,1")], "names a value twice"),
        ([("seed", "0.5")], "no whole number"),
        ([("lr", "fast")], "no number"),
        ([("lr", "nan")], "no number"),
        ([("flag", "1")], "neither True nor False"),
        ([("sizes", "1")], "a list, which cannot be varied"),
        ([], "nothing to vary"),
    ],
)
def test_what_cannot_be_swept_is_refused(given, why):
    with pytest.raises(OutOfRangeError, match=why):
        parse_grid(given, KNOWN)


def test_every_combination_the_last_varying_fastest():
    grid = parse_grid([("lr", "1,2"), ("seed", "0..1")], KNOWN)
    assert [tuple(run.values()) for run in grid] == [(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)]
    names = {notebook_sweep._name("a.ipynb", run) for run in grid}
    odd = [{"name": "../a b"}, {"name": "..//a b"}, {"name": "x" * 300}, {"name": "x" * 301}]
    names |= {notebook_sweep._name("a.ipynb", run) for run in odd}
    assert len(names) == 8 and all(len(n) < 100 and "/" not in n and " " not in n for n in names)


def test_a_file_that_cannot_be_swept_is_one_error_before_anything_runs(notebook, tmp_path, monkeypatch):
    out, given = tmp_path / "out", [("seed", "0")]
    with pytest.raises(CimpError, match="no cell tagged 'parameters'"):
        run_sweep(notebook(tags=()), given, out)
    (tmp_path / "b.ipynb").write_text("# %%")
    for name, why in (("b.ipynb", "not a Jupyter notebook"), ("c.ipynb", "cannot be opened")):
        with pytest.raises(CimpError, match=why):
            run_sweep(tmp_path / name, given, out)
    made = notebook()
    assert read_parameters(made) == {"lr": 0.1, "seed": 0}
    with pytest.raises(CimpError, match="holds other files"):
        run_sweep(made, given, tmp_path)
    changed = json.loads(made.read_text())
    changed["metadata"]["kernelspec"]["name"] = "no-such"
    (tmp_path / "k.ipynb").write_text(json.dumps(changed))
    with pytest.raises(CimpError, match="kernel 'no-such' is not installed"):
        run_sweep(tmp_path / "k.ipynb", given, out)
    monkeypatch.setattr(notebook_sweep, "find_spec", lambda name: None)
    with pytest.raises(CimpError, match="papermill and ipykernel not installed: pip install"):
        run_sweep(made, given, out)
    assert not out.exists()


def test_one_clear_line_on_the_command_line(notebook, tmp_path):
    result = CliRunner().invoke(app, ["sweep", str(notebook()), "-p", "x", "1,2", "--out", str(tmp_path / "out")])
    assert result.exit_code and "no parameter 'x'" in str(result.exception)


def test_the_last_table_by_its_labels():
    pd = pytest.importorskip("pandas")

    def shown(*frames):
        outputs = [{"data": {"text/html": frame._repr_html_()}} for frame in frames]
        return last_table(nbformat.from_dict({"cells": [{"outputs": outputs}, {"outputs": []}]}))

    one = pd.Series({"Top-1": 0.25, "said": "5 of 8"}, name="v").to_frame()
    two = pd.DataFrame({"a": [1, 2], "b": [0.5, "<x>"]}, index=pd.Index(["p", "q"], name="kind"))
    assert shown(two, one) == [{"name": "Top-1", "value": 0.25}, {"name": "said", "value": "5 of 8"}]
    assert [tuple(row.values()) for row in shown(two)] == [("p, a", 1), ("p, b", 0.5), ("q, a", 2), ("q, b", "<x>")]
    assert last_table(nbformat.v4.new_notebook()) == []


def test_four_runs_one_of_which_fails_and_a_second_time_only_that(notebook, tmp_path):
    made = notebook(
        "open('log', 'a').write(f'{lr} {seed}\\n')",
        "if (lr, seed) == (2.0, 1) and not __import__('os').path.exists('mended'):\n    raise ValueError('no good')",
        "import json\njson.dump([{'name': 'n', 'value': lr + seed, 'seed': 9}] * 2, open(results, 'w'))",
        parameters="lr = 0.1\nseed = 0\nresults = None",
    )
    out, given = tmp_path / "out", ["-p", "lr", "1,2", "-p", "seed", "0..1"]
    command = ["sweep", str(made), *given, "--out", str(out), "--workers", "2"]
    result = CliRunner().invoke(app, [*command, "--retries", "1", "--json"])
    assert result.exit_code == 1
    assert {k: json.loads(result.stdout)[k] for k in ("done", "failed")} == {"done": 3, "failed": 1}
    lines = sorted((tmp_path / "log").read_text().splitlines())
    assert lines == ["1.0 0", "1.0 1", "2.0 0", "2.0 1", "2.0 1"]
    rows = table(out)
    assert [(r["lr"], r["seed"], r["state"], r["value"]) for r in rows[:2]] == [("1.0", "0", "done", "1.0")] * 2
    assert len(rows) == 7 and rows[0]["result.seed"] == "9" and float(rows[0]["seconds"]) > 0
    assert (rows[-1]["state"], rows[-1]["error"], rows[-1]["value"]) == ("failed", "ValueError: no good", "")
    (tmp_path / "mended").touch()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert len((tmp_path / "log").read_text().splitlines()) == 6  # the three that were done are left alone
    assert len(table(out)) == 8 and json.loads((out / "table.json").read_text())["rows"][-1]["value"] == 3.0
    before = (out / "table.csv").read_bytes()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (out / "table.csv").read_bytes() == before and not list(out.glob(".*.part"))
    assert all({p.name for p in f.iterdir()} >= {"a.ipynb", "log.txt", "run.json"} for f in out.glob("lr=*"))


def test_a_killed_worker_loses_nothing_and_a_dead_kernel_costs_one_run(notebook, tmp_path):
    from distributed import LocalCluster

    made = notebook(
        "import os, time\nopen(f'begun{seed}', 'a').write('x')",
        "if seed == 2: os._exit(3)",
        "time.sleep(2)\nopen('log', 'a').write(f'{seed}\\n')",
    )
    how = {"n_workers": 1, "threads_per_worker": 3, "processes": True, "dashboard_address": None}
    with LocalCluster(host="127.0.0.1", **how) as cluster:
        (worker,) = cluster.scheduler_info["workers"]
        pids = [w.process.pid for w in cluster.workers.values()]

        def kill():
            while not all((tmp_path / f"begun{k}").exists() for k in (0, 1)):
                time.sleep(0.02)
            os.kill(pids[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        runs = run_sweep(made, [("seed", "0..2")], tmp_path / "out", scheduler=cluster.scheduler_address)
        thread.join()
    assert [run.state for run in runs] == ["done", "done", "failed"] and "died" in runs[2].error.lower()
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1"]  # the kernels of the killed worker ended too
    assert (tmp_path / "begun0").read_text() == "xx"
