"""The workflows of GitHub: valid, harmless, and naming only what exists; the weekly report and the badges with them."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github" / "workflows"
ACTION = ROOT / ".github" / "actions" / "setup" / "action.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
FILES = sorted(FOLDER.glob("*.yml"))
FLOWS = {path.stem: yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader) for path in FILES}
BIN = Path(sys.executable).parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))

every = pytest.mark.parametrize("name", FLOWS)


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def steps(flow) -> list[dict]:
    return [step for job in flow["jobs"].values() for step in job["steps"]]


def snippets() -> list[str]:
    everywhere = [*FLOWS.values(), {"jobs": {"setup": yaml.safe_load(ACTION.read_text(encoding="utf-8"))["runs"]}}]
    return [step["run"] for flow in everywhere for step in steps(flow) if "run" in step]


def test_schema():
    for schema, files in (("github-workflows", FILES), ("github-actions", [ACTION])):
        done = run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_unsafe():
    """No injection from names of branches or titles, no credentials left behind, no action that can change unseen."""
    done = run(
        BIN / "zizmor", "--offline", "--persona", "pedantic", "--config", ROOT / ".github/zizmor.yml", FOLDER, ACTION
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every
def test_permissions_and_time_are_bounded(name):
    flow = FLOWS[name]
    assert flow["permissions"] in ({}, "{}", {"contents": "read"}), "more than reading has to stand at its job"
    assert "pull_request_target" not in flow["on"] and "workflow_run" not in flow["on"]
    assert "concurrency" in flow
    writing = {
        key for job in flow["jobs"].values() for key, value in job.get("permissions", {}).items() if value == "write"
    }
    assert writing == {"test": set(), "publish": {"pages", "id-token"}, "weekly": {"issues"}}[name]
    for job in flow["jobs"].values():
        assert 1 <= int(job["timeout-minutes"]) <= 360
    uses = [step["uses"] for step in steps(flow) if "uses" in step]
    assert all(re.fullmatch(r"(actions/[\w-]+@[0-9a-f]{40}|\./\.github/actions/setup)", use) for use in uses), uses


@every
def test_no_checkout_leaves_the_token_behind(name):
    checkouts = [step["with"] for step in steps(FLOWS[name]) if "checkout@" in step.get("uses", "")]
    assert checkouts and all(given["persist-credentials"] == "false" for given in checkouts)


def test_one_action_has_one_version():
    text = "".join(path.read_text(encoding="utf-8") for path in [*FILES, ACTION])
    used = set(re.findall(r"uses: (actions/\S+@\S+ # v\S+)", text))
    assert len({use.split("@")[0] for use in used}) == len(used) >= 6


def test_every_command_names_what_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    made, named = set(), set()
    for text in snippets():
        made |= set(re.findall(r"\bmake ([a-z]+)", text))
        named |= set(re.findall(r"(?<![\w/$])((?:\.ci|\.github|book|tests)/?[\w./]*)", text))
    assert made == {"setup", "book", "results"} and made <= targets
    assert {".ci/run", ".github/report_weekly.sh", "book/build.py", "book/compare_results.py", "tests/book"} <= named
    assert [path for path in named if not (ROOT / path).exists()] == []
    scripts = [path for path in named if path.endswith((".sh", "/run"))]
    assert [path for path in scripts if not os.access(ROOT / path, os.X_OK)] == []
    used = {step["uses"] for flow in FLOWS.values() for step in steps(flow) if step.get("uses", "").startswith("./")}
    assert all((ROOT / use / "action.yml").is_file() for use in used)


def test_shell_snippets_are_bash():
    texts = [*snippets(), *(path.read_text(encoding="utf-8") for path in (ROOT / ".github").glob("*.sh"))]
    for text in texts:
        assert "${{" not in text, f"what GitHub fills in belongs in env, quoted: {text}"
        done = run("bash", "-n", input=text)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
    for name, flow in FLOWS.items():
        assert flow["defaults"]["run"]["shell"] == "bash", f"{name}: without pipefail a failure in a pipe is not seen"


def test_versions_of_python_are_those_of_the_package():
    declared = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    jobs = FLOWS["test"]["jobs"]
    full = {step["with"]["python"] for step in jobs["everything"]["steps"] if "python" in step.get("with", {})}
    assert full | set(jobs["unit"]["strategy"]["matrix"]["python"]) == declared
    others = {
        step["with"]["python"]
        for name in ("publish", "weekly")
        for step in steps(FLOWS[name])
        if "python" in step.get("with", {})
    }
    assert others <= declared


def test_when_they_run():
    on = FLOWS["test"]["on"]
    assert "pull_request" in on and on["push"] == {"branches": ["main"]}
    assert FLOWS["publish"]["on"]["push"] == {"branches": ["main"]} and set(FLOWS["publish"]["on"]) <= {
        "push",
        "workflow_dispatch",
    }
    for name in ("publish", "weekly"):
        first, *_ = FLOWS[name]["jobs"].values()
        assert first["if"] == "github.ref == 'refs/heads/main'"
    (entry,) = FLOWS["weekly"]["on"]["schedule"]
    minute, hour, day, month, weekday = entry["cron"].split()
    assert 0 <= int(minute) < 60 and 0 <= int(hour) < 24 and day == month == "*" and 0 <= int(weekday) < 7


def test_the_twin_is_kept_by_its_version():
    (cache,) = [
        s for s in yaml.safe_load(ACTION.read_text(encoding="utf-8"))["runs"]["steps"] if "cache@" in s.get("uses", "")
    ]
    assert cache["with"]["path"] == "${{ env.CIMP_CACHE }}" and all(
        "CIMP_CACHE" in flow["env"] for flow in FLOWS.values()
    )
    (hashed,) = re.findall(r"hashFiles\('(.*?)'\)", cache["with"]["key"])
    assert (ROOT / hashed).is_file() and hashed.endswith("twin_version.py")


@pytest.mark.parametrize("value, allowed", [(None, False), ("absent", True), ("yes", False)])
def test_only_the_missing_real_files_may_be_skipped(tmp_path, value, allowed):
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "tests/conftest.py"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    body = "import pytest\ndef test_a(shared): pass\ndef test_b(): pytest.skip('no time')\ndef test_c(): pass\n"
    (tmp_path / "tests" / "test_skips.py").write_text(body, encoding="utf-8")
    variables = {key: word for key, word in os.environ.items() if key != "CIMP_REAL_FILES"}
    variables |= {"CI": "true", "CIMP_SHARED": str(tmp_path / "none")}
    variables |= {"CIMP_REAL_FILES": value} if value else {}
    done = run(sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "tests", cwd=tmp_path, env=variables)
    assert "1 failed, 1 passed" in done.stdout and "FAILED tests/test_skips.py::test_b" in done.stdout, done.stdout
    assert ("1 skipped" in done.stdout and "no real files" in done.stdout) == allowed
    assert ("1 error" in done.stdout) == (not allowed)
    assert FLOWS["test"]["env"]["CIMP_REAL_FILES"] == "absent"
    assert "CIMP_REAL_FILES" not in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "result, number, expected",
    [
        ("failure", "", ["label create weekly-run", "issue create"]),
        ("cancelled", "", ["label create weekly-run", "issue create"]),
        ("failure", "7", ["issue comment 7"]),
        ("success", "7", ["issue close 7"]),
        ("success", "", []),
    ],
)
def test_the_weekly_report_keeps_one_issue(tmp_path, result, number, expected):
    program = tmp_path / "gh"  # answers the question for open issues, and notes what it is told to do
    program.write_text(
        f'#!/bin/bash\nif [ "$2" = list ]; then echo "{number}"; else echo "$*" >> "{tmp_path}/said"; fi\n'
    )
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run(ROOT / ".github" / "report_weekly.sh", result, "https://example.org/run/1", env=environment)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text().splitlines() if (tmp_path / "said").exists() else []
    assert [" ".join(line.split()[: len(want.split())]) for line, want in zip(said, expected, strict=True)] == expected
    assert all("https://example.org/run/1" in line for line in said if line.startswith("issue"))


def test_numbers_are_compared_with_the_committed_ones(tmp_path):
    committed = ROOT / "book" / "results.json"
    rows = json.loads(committed.read_text(encoding="utf-8"))
    (place,) = [i for i, row in enumerate(rows) if row["name"] == "probe.r2.dwell_time"]
    width = rows[place]["high"] - rows[place]["low"]

    def compare(change):
        changed = [dict(row) for row in rows]
        change(changed)
        (tmp_path / "new.json").write_text(json.dumps(changed), encoding="utf-8")
        done = run(sys.executable, ROOT / "book" / "compare_results.py", committed, tmp_path / "new.json")
        return done.returncode, done.stdout + done.stderr

    assert compare(lambda new: None)[0] == 0
    assert compare(lambda new: new[place].update(value=new[place]["value"] + 0.05 * width))[0] == 0
    code, text = compare(lambda new: new[place].update(value=new[place]["value"] - 0.2 * width))
    assert code == 1 and "probe.r2.dwell_time (full): was" in text
    code, text = compare(lambda new: new.pop(place))
    assert code == 1 and "probe.r2.dwell_time (full): not made again" in text
    code, text = compare(lambda new: new[place].update(twin_version="other"))
    assert code == 1 and "twin_version" in text
    done = run(sys.executable, ROOT / "book" / "compare_results.py", committed, tmp_path / "none.json")
    assert done.returncode == 1 and "no such results file" in done.stderr


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_badges_open_this_chapter(path):
    cells = nbformat.read(path, as_version=4).cells
    links = set(re.findall(r"\]\((https://(?:colab|mybinder)[^)]*)\)", "".join(c.source for c in cells)))
    badges = {link for link in links if not link.endswith(".svg")}
    assert badges == {
        f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{path.name}",
        f"https://mybinder.org/v2/gh/{REPOSITORY}/main?urlpath=lab/tree/notebooks/{path.name}",
    }


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_install_cell_leaves_colabs_packages_alone(path):
    source = next(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    extras = "[structures]" if path.stem == "10_structures" else ""  # what the chapter needs beyond the package itself
    assert f"cimp-core{extras} @ git+https://github.com/{REPOSITORY}" in texts
    assert not {"--upgrade", "-U", "--force-reinstall", "-c", "-r"} & set(texts)
    assert [text for text in texts if re.search(r"torch|numpy|==", str(text))] == []
    assert isinstance(ast.parse(source).body[-1], ast.If), "it installs in Colab only"
    exact = [line for line in PROJECT["dependencies"] if "==" in line or re.match(r"(torch|numpy)\b.*<", line)]
    assert exact == [], "the package itself must accept Colab's versions"


def test_binder_reads_environment_yml():
    """repo2docker takes a folder binder/ or .binder/ before anything at the root, and no requirements.txt beside it."""
    assert (ROOT / "environment.yml").is_file()
    hiding = ["binder", ".binder", "requirements.txt", "runtime.txt", "Dockerfile", "apt.txt", "postBuild"]
    assert [name for name in hiding if (ROOT / name).exists()] == []
