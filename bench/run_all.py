"""Every bench that needs no second environment, one after the other: ``make bench``, or ``make bench-gpu``.

    python bench/run_all.py [--only search_speed cost_growth] [--device cuda]

Each writes book/performance/NAME.json (on a graphics card NAME_gpu.json), of which the page "Performance" is made, and
its output goes to runs/bench/NAME.log. What is there is kept: remove a file to measure anew. A bench has so many
seconds; one that fails or takes longer is named, leaves no file, and makes the exit status 1, and the others go on. A
peer that is not installed is no failure: its row says so.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from report import ROOT, table

OUT, LOGS = ROOT / "book" / "performance", ROOT / "runs" / "bench"
BUDGETS = {
    "reading_speed": 65,
    "build_speed": 65,
    "twin_speed": 165,
    "denoise_speed": 20,
    "search_speed": 30,
    "loss_speed": 60,
    "training_speed": 90,
    "scaling": 115,
    "cost_growth": 290,
}
"""Longest time of each on two cores [s], in --quick mode: a quarter of an hour in all."""
ON_CARD = ("denoise_speed", "loss_speed", "training_speed", "scaling")
"""What has something to say on a graphics card."""


def run(name: str, device: str, factor: float) -> str:
    """Run one bench unless its result is there; what became of it, in words."""
    suffix = "" if device == "cpu" else "_gpu"
    script, out, log = ROOT / "bench" / f"{name}.py", OUT / f"{name}{suffix}.json", LOGS / f"{name}{suffix}.log"
    if out.exists():
        return "kept"
    if not script.exists():
        return "absent"
    call = [sys.executable, str(script), "--quick", "--json", str(out), "--device", device]
    start, limit = time.perf_counter(), factor * BUDGETS[name]
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(call, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # its workers too, also where this program is stopped by hand
            end(process)
    seconds = time.perf_counter() - start
    if code is None:
        out.unlink(missing_ok=True)
        return f"FAILED: took more than {limit:.0f} s; {log.relative_to(ROOT)}"
    if code:
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()] or ["no output"]
        return f"FAILED after {seconds:.0f} s: {lines[-1][:200]}; {log.relative_to(ROOT)}"
    return f"measured in {seconds:.0f} s" if out.exists() else f"FAILED: wrote no {out.relative_to(ROOT)}"


def end(process: subprocess.Popen) -> None:
    """End what is left of a bench: the processes of its session, and those that torchrun gave one of their own."""
    try:
        own = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        own = []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in own:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def show(path: Path) -> None:
    """Print a result as a table, with its goals."""
    found = json.loads(path.read_text(encoding="utf-8"))
    print(f"\n## {found['bench']}: {found['claim']}\n\n" + table(found["rows"], found["columns"]))
    for goal in found["goals"]:
        met = {True: "met", False: "MISSED", None: "not measured"}[goal["met"]]
        print(f"{met}: {goal['goal']}" + (f" ({goal['why']})" if goal["why"] and not goal["met"] else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BUDGETS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on the time that each may take")
    options = parser.parse_args()
    names = options.only or (list(BUDGETS) if options.device == "cpu" else list(ON_CARD))
    for folder in (OUT, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name in names:
        print(f"{name} ...", flush=True)
        outcome = run(name, options.device, options.patience)
        outcomes.append({"bench": name, "outcome": outcome})
        print(f"{name}: {outcome}", flush=True)
    suffix = "" if options.device == "cpu" else "_gpu"
    for name in names:
        path = OUT / f"{name}{suffix}.json"
        if path.exists():
            show(path)
    print("\n" + table(outcomes))
    if any(row["outcome"].startswith("FAILED") for row in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
