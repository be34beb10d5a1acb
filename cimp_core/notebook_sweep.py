"""A notebook run with every combination of given parameters, side by side here or on a cluster, into one table.

Each run has a folder named by its parameters, which appears whole when the run has ended; with ``run.json`` in it that
is the manifest: what is done is not done again unless the notebook or the parameters changed.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import CimpError, OutOfRangeError, UnreadableFileError
from .jobs import cluster, in_turn
from .notebook_run import RESULTS
from .work_folder import WorkFolder, digest

__all__ = ["Run", "parse_grid", "read_parameters", "run_sweep"]

_RANGE = re.compile(r"([+-]?\d+)\.\.([+-]?\d+)")
_OWN = ("run", "state", "seconds", "error")  # columns that are neither a parameter nor a result


@dataclass(frozen=True)
class Run:
    """One run: its parameters, what became of it ("done", "failed" or "not run"), and its rows of results."""

    name: str  # of its folder
    parameters: dict[str, Any]
    state: str
    seconds: float | None  # of the last attempt
    error: str | None
    rows: list[dict[str, Any]]


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and values of a notebook's parameters cell; a value that is no literal is taken as None.

    Raises
    ------
    UnreadableFileError
        `notebook` is not a notebook.
    CimpError
        It has no cell tagged "parameters".
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        source = "".join(tagged[0]["source"]) if tagged else None
    except OSError as error:
        raise UnreadableFileError(f"{notebook}: cannot be opened ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableFileError(f"{notebook}: not a Jupyter notebook (.ipynb)") from error
    if source is None:
        raise CimpError(f"{notebook}: has no cell tagged 'parameters'; tag the one whose values a sweep may replace")
    found: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
            if isinstance(target, ast.Name) and getattr(statement, "value", None) is not None:
                found[target.id] = _literal(statement.value)  # type: ignore[attr-defined]
    except SyntaxError as error:
        raise UnreadableFileError(f"{notebook}: its parameters cell is not Python ({error.msg})") from error
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def parse_grid(given: Sequence[tuple[str, str]], known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the values, the last parameter varying fastest.

    Parameters
    ----------
    given : sequence of (name, values)
        Values are separated by commas; ``0..4`` stands for 0, 1, 2, 3, 4. They are of the type that the parameter has
        in the notebook; where that is None, numbers, True, False and None are such, everything else is text.
    known : mapping
        The notebook's parameters, as `read_parameters` gives them.

    Raises
    ------
    OutOfRangeError
        No such parameter, one named twice, no value, a value twice, or one of another type.
    """
    values: dict[str, list] = {}
    for name, text in given:
        if name not in known or name == RESULTS:
            there = ", ".join(k for k in known if k != RESULTS) or "none"
            raise OutOfRangeError(f"no parameter {name!r}; the notebook has: {there}")
        if name in _OWN:
            raise OutOfRangeError(f"{name!r} is a column of the table; give the notebook's parameter another name")
        if name in values:
            raise OutOfRangeError(f"parameter {name!r} is given twice; separate its values by commas")
        values[name] = [v for part in text.split(",") for v in _values(name, part.strip(), known[name])]
        if len({(type(v), v) for v in values[name]}) < len(values[name]):
            raise OutOfRangeError(f"{name}: {text!r} names a value twice")
    if not values:
        raise OutOfRangeError("nothing to vary: name a parameter and its values, such as -p seed 0..4")
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


def _values(name: str, text: str, default: Any) -> list:
    if not text:
        raise OutOfRangeError(f"{name}: a value is empty; separate values by one comma, such as 1e-3,3e-4")
    if isinstance(default, str):
        return [text]
    if not isinstance(default, bool | int | float | None):
        raise OutOfRangeError(
            f"{name}: its value in the notebook is a {type(default).__name__}, which cannot be varied"
        )
    if not isinstance(default, bool) and (found := _RANGE.fullmatch(text)):
        first, last = int(found[1]), int(found[2])
        if last < first:
            raise OutOfRangeError(f"{name}: {text} is an empty range; the first number must not be above the last")
        return [float(i) if isinstance(default, float) else i for i in range(first, last + 1)]
    return [_value(name, text, default)]


def _value(name: str, text: str, default: Any) -> Any:
    word = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if isinstance(default, bool):
        if isinstance(word, bool):
            return word
        raise OutOfRangeError(f"{name}: {text!r} is neither True nor False")
    if default is None and not isinstance(word, str):
        return word
    for kind in (int, float):
        if isinstance(default, int) and kind is float or isinstance(default, float) and kind is int:
            continue
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    if default is None:
        return text
    raise OutOfRangeError(f"{name}: {text!r} is no {'whole ' * isinstance(default, int)}number")


def run_sweep(
    notebook: str | os.PathLike,
    given: Sequence[tuple[str, str]],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Run]:
    """Run a notebook with every combination of parameters and collect what the runs found.

    The notebook runs in the folder it lies in, as by hand. ``out/NAME/`` holds of each run the executed notebook,
    ``log.txt`` and ``run.json``; ``out/table.csv`` and ``out/table.json`` hold a row for each row of results, with
    the parameters. Called again, it does what is not done: new combinations, those that failed, and all if the
    notebook changed.

    Parameters
    ----------
    notebook : path
        An .ipynb with a cell tagged "parameters". If that has ``results``, it is given the path of a JSON file to
        write; otherwise the last table that the notebook shows is what it found.
    given : sequence of (name, values)
        See `parse_grid`.
    out : path
        Folder of the sweep.
    workers : int, optional
        Runs at a time on this machine; one for every two processors by default.
    scheduler : str, optional
        Address of a dask scheduler; its workers must see `notebook` and `out` at the same paths.
    retries : int
        How often a run that fails is tried again.
    timeout : float, optional
        Longest time for one run [s].
    progress : function, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    list of Run
        In the order of the grid.

    Raises
    ------
    CimpError
        papermill or the kernel is missing, the notebook cannot be used, `out` is in use, or no scheduler answers.
    OutOfRangeError
        An option or a value is impossible.
    KeyboardInterrupt
        Stopped by hand; what is done stays done.
    """
    notebook, out = Path(notebook).absolute(), Path(out).absolute()
    known = read_parameters(notebook)
    grid = parse_grid(given, known)
    if workers is not None and (workers < 1 or scheduler):
        raise OutOfRangeError("workers must be at least 1, and is not for a scheduler, which has its own workers")
    if retries < 0 or (timeout is not None and not timeout > 0):
        raise OutOfRangeError(f"retries is {retries}, timeout {timeout}: they must be at least 0, and above 0 s")
    kernel = _check_installed(notebook)
    if out.is_dir() and any(out.iterdir()) and not (out / "owner.json").exists():
        raise CimpError(f"{out}: holds other files, not a sweep; choose another folder")
    folder = WorkFolder(out)
    folder.lock()
    try:
        job = _Job.new(notebook, out, kernel, RESULTS in known, retries, timeout)
        names = [_name(notebook.name, parameters) for parameters in grid]
        how = (workers, scheduler, progress or (lambda done, total: None))
        _run_all(job, list(zip(names, grid)), *how)
        runs = [_read(job, name, parameters) for name, parameters in zip(names, grid)]
        _write_tables(out, notebook, runs)
        return runs
    finally:
        folder.unlock()


@dataclass(frozen=True)
class _Job:
    """What all runs have in common; it travels to the workers."""

    notebook: str  # the copy that all runs execute
    digest: str
    cwd: str
    out: str
    kernel: str
    hands_over: bool
    retries: int
    timeout: float | None
    threads: int | None = None  # of a run; as the worker has it by default

    @classmethod
    def new(cls, notebook: Path, out: Path, kernel: str, hands_over: bool, retries: int, timeout: float | None) -> _Job:
        """Copy the notebook, so that all runs execute the same, and clear away what killed runs left."""
        for left in out.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)
        text = notebook.read_bytes()
        copy = out / notebook.name
        copy.write_bytes(text)
        stamp = hashlib.sha256(text).hexdigest()
        return cls(str(copy), stamp, str(notebook.parent), str(out), kernel, hands_over, retries, timeout)


def _check_installed(notebook: Path) -> str:
    """Name of the notebook's kernel; an error now, rather than one a run."""
    missing = [name for name in ("papermill", "ipykernel") if find_spec(name) is None]
    if missing:
        raise CimpError(f"{' and '.join(missing)} not installed: pip install 'cimp-core[book]'")
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    about = json.loads(notebook.read_text(encoding="utf-8")).get("metadata", {})
    kernel = about.get("kernelspec", {}).get("name", "python3")
    try:
        KernelSpecManager().get_kernel_spec(kernel)
    except NoSuchKernel:
        raise CimpError(f"{notebook}: its kernel {kernel!r} is not installed; choose another one in Jupyter") from None
    return kernel


def _name(notebook: str, parameters: Mapping[str, Any]) -> str:
    """Folder of a run: what can be read, and a digest that tells apart what cannot."""
    text = "_".join(f"{key}={value}" for key, value in parameters.items())
    return f"{re.sub(r'[^A-Za-z0-9.=+_-]+', '-', text)[:80]}_{digest(notebook, parameters)[:8]}"


def _read(job: _Job, name: str, parameters: dict[str, Any]) -> Run:
    """What is known of a run; that of another notebook or of other parameters counts for nothing."""
    try:
        record = json.loads((Path(job.out) / name / "run.json").read_text(encoding="utf-8"))
        same = record["notebook"] == job.digest and record["parameters"] == parameters
        if same:
            return Run(name, parameters, record["state"], record["seconds"], record["error"], record["rows"])
    except (OSError, ValueError, KeyError):
        pass
    return Run(name, parameters, "not run", None, None, [])


def _run_all(
    job: _Job,
    wanted: list[tuple[str, dict[str, Any]]],
    workers: int | None,
    scheduler: str | None,
    report: Callable[[int, int], None],
) -> None:
    """Do what is not done."""
    todo = [i for i, (name, parameters) in enumerate(wanted) if _read(job, name, parameters).state != "done"]
    done, total, cores = len(wanted) - len(todo), len(wanted), os.cpu_count() or 1
    report(done, total)
    if not todo:
        return
    side_by_side = min(workers or max(1, cores // 2), len(todo))
    if scheduler is None:
        job = _Job(**(vars(job) | {"threads": max(1, cores // side_by_side)}))
    token = uuid.uuid4().hex
    try:
        with cluster(scheduler, side_by_side, partial(_close, token)) as client:

            def submit(i: int, key: str) -> Any:
                return client.submit(_run_one, job, *wanted[i], token, key=key, pure=False)

            for i, state in in_turn(client, todo, submit, token):
                name, parameters = wanted[i]
                if state == "killed":
                    _publish(job, name, parameters, _draft(job, name), _failure("it ended the workers that ran it"))
                elif _read(job, name, parameters).state == "not run":
                    raise CimpError(f"{job.out}: a worker's run is not here; all of them must share this file system")
                done += 1
                report(done, total)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: {done} of {total} runs have ended and are kept in {job.out}; the same command goes on"
        ) from None


_children: dict[str, set[subprocess.Popen]] = {}  # of this process, by sweep
_guard = threading.Lock()
_stopped: set[str] = set()


def _run_one(job: _Job, name: str, parameters: dict[str, Any], token: str) -> str:
    """Do one run, in a thread of a dask worker."""
    if _read(job, name, parameters).state == "done":
        return "done"  # by a worker that died before it could say so
    if not Path(job.notebook).is_file():
        raise CimpError(f"{job.notebook}: a worker does not see this file; all of them must share this file system")
    for attempt in range(job.retries + 1):
        draft, start = _draft(job, name), time.perf_counter()
        record = _attempt(job, draft, parameters, token)
        if token in _stopped:
            shutil.rmtree(draft, ignore_errors=True)
            return "stopped"
        if record["state"] == "done" or attempt == job.retries:
            break
        shutil.rmtree(draft, ignore_errors=True)
    seconds = round(time.perf_counter() - start, 2)
    _publish(job, name, parameters, draft, record | {"attempts": attempt + 1, "seconds": seconds})
    return record["state"]


def _attempt(job: _Job, draft: Path, parameters: dict[str, Any], token: str) -> dict[str, Any]:
    """One execution in a process that ends with this one."""
    about = {"notebook": job.notebook, "name": Path(job.notebook).name, "parameters": parameters}
    about |= {"cwd": job.cwd, "kernel": job.kernel, "hands_over": job.hands_over}
    (draft / "job.json").write_text(json.dumps(about), encoding="utf-8")
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if job.threads is not None:
        env.setdefault("OMP_NUM_THREADS", str(job.threads))
    command = [sys.executable, "-m", "cimp_core.notebook_run", str(draft)]
    with open(draft / "log.txt", "wb") as log:
        with _guard:  # none starts once the sweep was stopped
            if token in _stopped:
                return _failure("stopped")
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
            _children.setdefault(token, set()).add(child)
        try:
            code = child.wait(job.timeout)
        except subprocess.TimeoutExpired:
            return _failure(f"took longer than {job.timeout:g} s and was stopped")
        finally:
            child.kill()
            child.wait()
            child.stdin.close()  # type: ignore[union-attr]
            _children[token].discard(child)
    try:
        return json.loads((draft / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _failure(f"its process ended (exit code {code}); see log.txt")


def _failure(why: str) -> dict[str, Any]:
    return {"state": "failed", "error": why, "rows": []}


def _draft(job: _Job, name: str) -> Path:
    """A folder for an attempt; what a killed one still writes goes to its own."""
    draft = Path(job.out) / f".{name}.{uuid.uuid4().hex}.part"
    draft.mkdir()
    return draft


def _publish(job: _Job, name: str, parameters: dict, draft: Path, record: dict[str, Any]) -> None:
    """Give the folder of a run that ended its name."""
    about = {"state": record["state"], "parameters": parameters, "notebook": job.digest}
    about |= {key: record.get(key) for key in ("seconds", "attempts", "error", "rows")}
    for name_ in ("job.json", "record.json"):
        (draft / name_).unlink(missing_ok=True)
    (draft / "run.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    final = Path(job.out) / name
    if final.exists():
        os.replace(final, old := _draft(job, name) / "old")
        shutil.rmtree(old.parent, ignore_errors=True)
    os.replace(draft, final)


def _close(token: str) -> None:
    """End the runs of a sweep, in whichever process it is called."""
    with _guard:
        _stopped.add(token)
        children = list(_children.get(token, ()))
    for child in children:
        child.kill()


def _write_tables(out: Path, notebook: Path, runs: list[Run]) -> None:
    """``table.json`` and ``table.csv``; a run without results has one row too."""
    rows = []
    for run in runs:
        about = {"run": run.name, **run.parameters, "state": run.state, "seconds": run.seconds, "error": run.error}
        for row in run.rows or [{}]:
            rows.append(about | {f"result.{key}" if key in about else key: value for key, value in row.items()})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    document = {"notebook": notebook.name, "columns": columns, "rows": rows}
    parts = {kind: out / f".table.{kind}.part" for kind in ("json", "csv")}
    parts["json"].write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    with open(parts["csv"], "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            cells = (row.get(column) for column in columns)
            writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells])
    for kind, part in parts.items():
        os.replace(part, out / f"table.{kind}")
