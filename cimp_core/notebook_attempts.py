"""One run of a notebook in a process of its own, tried again where it fails; its folder appears when it has ended."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CimpError

__all__ = ["Job", "Run", "draft_of", "failure", "publish", "read_run", "run_one", "stop_all"]


@dataclass(frozen=True)
class Run:
    """One run: its parameters, what became of it ("done", "failed" or "not run"), and its rows of results."""

    name: str  # of its folder
    parameters: dict[str, Any]
    state: str
    seconds: float | None  # of the last attempt
    error: str | None
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
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
    def new(cls, notebook: Path, out: Path, kernel: str, hands_over: bool, retries: int, timeout: float | None) -> Job:
        """Copy the notebook, so that all runs execute the same, and clear away what killed runs left."""
        for left in out.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)
        text = notebook.read_bytes()
        copy = out / notebook.name
        copy.write_bytes(text)
        stamp = hashlib.sha256(text).hexdigest()
        return cls(str(copy), stamp, str(notebook.parent), str(out), kernel, hands_over, retries, timeout)


def read_run(job: Job, name: str, parameters: dict[str, Any]) -> Run:
    """What is known of a run; that of another notebook or of other parameters counts for nothing."""
    try:
        record = json.loads((Path(job.out) / name / "run.json").read_text(encoding="utf-8"))
        same = record["notebook"] == job.digest and record["parameters"] == parameters
        if same:
            return Run(name, parameters, record["state"], record["seconds"], record["error"], record["rows"])
    except (OSError, ValueError, KeyError):
        pass
    return Run(name, parameters, "not run", None, None, [])


_children: dict[str, set[subprocess.Popen]] = {}  # of this process, by sweep
_guard = threading.Lock()
_stopped: set[str] = set()


def run_one(job: Job, name: str, parameters: dict[str, Any], token: str) -> str:
    """Do one run, in a thread of a dask worker."""
    if read_run(job, name, parameters).state == "done":
        return "done"  # by a worker that died before it could say so
    if not Path(job.notebook).is_file():
        raise CimpError(f"{job.notebook}: a worker does not see this file; all of them must share this file system")
    for attempt in range(job.retries + 1):
        draft, start = draft_of(job, name), time.perf_counter()
        record = _attempt(job, draft, parameters, token)
        if token in _stopped:
            shutil.rmtree(draft, ignore_errors=True)
            return "stopped"
        if record["state"] == "done" or attempt == job.retries:
            break
        shutil.rmtree(draft, ignore_errors=True)
    seconds = round(time.perf_counter() - start, 2)
    publish(job, name, parameters, draft, record | {"attempts": attempt + 1, "seconds": seconds})
    return record["state"]


def _attempt(job: Job, draft: Path, parameters: dict[str, Any], token: str) -> dict[str, Any]:
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
                return failure("stopped")
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
            _children.setdefault(token, set()).add(child)
        try:
            code = child.wait(job.timeout)
        except subprocess.TimeoutExpired:
            return failure(f"took longer than {job.timeout:g} s and was stopped")
        finally:
            child.kill()
            child.wait()
            child.stdin.close()  # type: ignore[union-attr]
            _children[token].discard(child)
    try:
        return json.loads((draft / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return failure(f"its process ended (exit code {code}); see log.txt")


def failure(why: str) -> dict[str, Any]:
    return {"state": "failed", "error": why, "rows": []}


def draft_of(job: Job, name: str) -> Path:
    """A folder for an attempt; what a killed one still writes goes to its own."""
    draft = Path(job.out) / f".{name}.{uuid.uuid4().hex}.part"
    draft.mkdir()
    return draft


def publish(job: Job, name: str, parameters: dict, draft: Path, record: dict[str, Any]) -> None:
    """Give the folder of a run that ended its name."""
    about = {"state": record["state"], "parameters": parameters, "notebook": job.digest}
    about |= {key: record.get(key) for key in ("seconds", "attempts", "error", "rows")}
    for name_ in ("job.json", "record.json"):
        (draft / name_).unlink(missing_ok=True)
    (draft / "run.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    final = Path(job.out) / name
    if final.exists():
        os.replace(final, old := draft_of(job, name) / "old")
        shutil.rmtree(old.parent, ignore_errors=True)
    os.replace(draft, final)


def stop_all(token: str) -> None:
    """End the runs of a sweep, in whichever process it is called."""
    with _guard:
        _stopped.add(token)
        children = list(_children.get(token, ()))
    for child in children:
        child.kill()
