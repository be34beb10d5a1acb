"""What every bench shares: where it ran, a clock, candidates timed in turn, and one form of JSON and of table.

    from report import goal, header, interleaved, parser, table, write  # a script in bench/ finds this file

    options = parser(__doc__).parse_args()  # --json FILE --quick --clock wall|cpu --threads N --device cpu
    found = interleaved({"plain": plain, "ours": ours}, rounds=5, clock=options.clock)
    goals = [goal("ours takes at most the time of the plain way", found[1]["ratio"], at_least=1.0)]
    print(table(found, columns))
    write(options.json, header("loss_speed", "what is claimed, in a sentence"), found, columns, goals)

A file of JSON is ``{bench, claim, machine, versions, commit, settings, columns, rows, goals}``; the rows are flat
objects. The page "Performance" of the book is made of these files, see book/performance_page.py.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds by the wall, or of processor time of this process with its threads (not its children)."""
PACKAGES = ("numpy", "scipy", "torch", "h5py")
ROOT = Path(__file__).resolve().parents[1]


def parser(doc: str) -> argparse.ArgumentParser:
    """The arguments that all benches share; add your own."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="write the result here as well")
    made.add_argument("--quick", action="store_true", help="fewer sizes and repeats: what `make bench` runs")
    made.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: on a machine with other work")
    made.add_argument("--threads", type=int, default=os.cpu_count())
    made.add_argument("--device", default="cpu")
    return made


def header(bench: str, claim: str, packages: Sequence[str] = (), settings: Mapping | None = None) -> dict:
    """Name, claim, machine, versions (of `packages` too; None for an absent one), commit, and settings to be shown."""
    return {
        "bench": bench,
        "claim": claim,
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: found(name) for name in (*PACKAGES, *packages)},
        "commit": commit(),
        "settings": dict(settings or {}),
    }


def machine() -> dict:
    """Processor, cores, threads of torch, memory [GiB] and graphics card (None without one)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_GiB": round(memory, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """The processor's name, as Linux tells it; elsewhere its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def found(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that is checked out, with a "+" where followed files of the code differ; None outside a repository."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "bench", "cimp_core"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.stdout.strip() + "+" * (same.returncode != 0)


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    clock: str = "wall",
    wait: Callable[[], object] = lambda: None,
) -> list[dict]:
    """Candidates in turn, round by round, after one of warm-up, so that what else the machine does meets all alike.

    `wait` is called before each clock is read: ``torch.cuda.synchronize`` on a graphics card. A row each: name,
    median_s, min_s, and ratio: time of the first candidate over this one's in the same round, its median over the
    rounds, with ratio_low and ratio_high, the lowest and highest. Above 1 is faster than the first.
    """
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, call in candidates.items():
            wait()
            start = now()
            call()
            wait()
            if number:
                times[name].append(now() - start)
    first, rows = next(iter(times.values())), []
    for name, own in times.items():
        ratios = [a / b for a, b in zip(first, own, strict=True)]
        row = {"name": name, "median_s": statistics.median(own), "min_s": min(own)}
        row |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        rows.append(row)
    return rows


def goal(
    what: str, measured: float | None, *, at_least: float | None = None, at_most: float | None = None, why: str = ""
) -> dict:
    """A goal and what was found: met, missed (say `why`, as far as known), or not measured (`measured` None)."""
    met = None
    if measured is not None:
        low, high = -math.inf if at_least is None else at_least, math.inf if at_most is None else at_most
        measured = float(measured)  # NumPy's numbers are not JSON's
        met = low <= measured <= high
    return {"goal": what, "at_least": at_least, "at_most": at_most, "measured": measured, "met": met, "why": why}


def table(rows: Sequence[Mapping], columns: Mapping[str, str] | None = None) -> str:
    """Rows as Markdown; `columns` is heading to format, ``{"one query [ms]": "{one_ms:.2f} ({ratio:.1f})"}``.

    A cell is empty where the row lacks what the format names. Without `columns`, all keys as they come.
    """
    columns = columns or {key: "{" + key + "}" for row in rows for key in row}
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(cell(row, form) for form in columns.values()) + " |" for row in rows])


def cell(row: Mapping, form: str) -> str:
    try:
        return form.format_map({key: value for key, value in row.items() if value is not None}).replace("|", "\\|")
    except KeyError:
        return ""


def write(
    path: Path | str | None,
    head: Mapping,
    rows: Sequence[Mapping],
    columns: Mapping[str, str] | None = None,
    goals: Sequence[Mapping] = (),
) -> None:
    """Write the JSON, all or nothing; a `path` of None writes none. `columns` are those that the page shows."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**head, "columns": columns, "rows": list(rows), "goals": list(goals)}
    # What JSON does not know are NumPy's scalars.
    text = json.dumps(whole, indent=1, allow_nan=False, default=lambda value: value.item())
    part = path.with_name(f"{path.name}.part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)
