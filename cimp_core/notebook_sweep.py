"""A notebook run with every combination of given parameters, side by side here or on a cluster, into one table.

Each run has a folder named by its parameters, which appears whole when the run has ended; with ``run.json`` in it that
is the manifest: what is done is not done again unless the notebook or the parameters changed.
"""

from __future__ import annotations

import csv
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import CimpError, OutOfRangeError
from .job_cluster import cluster, in_turn
from .notebook_attempts import Job, Run, draft_of, failure, publish, read_run, run_one, stop_all
from .notebook_grid import parse_grid, read_parameters
from .notebook_run import RESULTS
from .work_folder import WorkFolder, digest

__all__ = ["Run", "parse_grid", "read_parameters", "run_sweep"]


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
        job = Job.new(notebook, out, kernel, RESULTS in known, retries, timeout)
        names = [_name(notebook.name, parameters) for parameters in grid]
        how = (workers, scheduler, progress or (lambda done, total: None))
        _run_all(job, list(zip(names, grid)), *how)
        runs = [read_run(job, name, parameters) for name, parameters in zip(names, grid)]
        _write_tables(out, notebook, runs)
        return runs
    finally:
        folder.unlock()


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


def _run_all(
    job: Job,
    wanted: list[tuple[str, dict[str, Any]]],
    workers: int | None,
    scheduler: str | None,
    report: Callable[[int, int], None],
) -> None:
    """Do what is not done."""
    todo = [i for i, (name, parameters) in enumerate(wanted) if read_run(job, name, parameters).state != "done"]
    done, total, cores = len(wanted) - len(todo), len(wanted), os.cpu_count() or 1
    report(done, total)
    if not todo:
        return
    side_by_side = min(workers or max(1, cores // 2), len(todo))
    if scheduler is None:
        job = Job(**(vars(job) | {"threads": max(1, cores // side_by_side)}))
    token = uuid.uuid4().hex
    try:
        with cluster(scheduler, side_by_side, partial(stop_all, token)) as client:

            def submit(i: int, key: str) -> Any:
                return client.submit(run_one, job, *wanted[i], token, key=key, pure=False)

            for i, state in in_turn(client, todo, submit, token):
                name, parameters = wanted[i]
                if state == "killed":
                    publish(job, name, parameters, draft_of(job, name), failure("it ended the workers that ran it"))
                elif read_run(job, name, parameters).state == "not run":
                    raise CimpError(f"{job.out}: a worker's run is not here; all of them must share this file system")
                done += 1
                report(done, total)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: {done} of {total} runs have ended and are kept in {job.out}; the same command goes on"
        ) from None


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
