"""How time and memory grow with the number of images, their pixels, the batch and the processes, step by step.

    python bench/cost_growth.py [--steps simulate retrieve] [--quick] [--clock cpu] [--json FILE]

Each size runs in a process of its own, forked from one that has loaded the libraries, so that its peak memory is its
own. The least size of each step is measured too: its time is the fixed cost a. What is fitted is what comes on top,
t - a = b (n - n0)^p with n0 the least size: p is the slope of the logarithms by least squares, with the 95 % interval
of Student's t. Sizes that add less than a tenth of the fixed cost are left out of the fit; where the largest adds less
than a quarter there is none: the step does not grow. Pixels are counted, not edges, so that p = 1 is linear in each.
The peak memory of the same sizes is fitted in the same way, where it grows by 50 MB and 10 %.
Processes are not fitted: they share the cores that there are. The steps themselves are in bench/cost_cases.py.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence

import cost_cases
import numpy as np
from exponents import growth, written
from report import goal, header, parser, table, write

SLACK = 1.1
"""Exponent up to which growth is called linear: caches that overflow cost some."""
KNOWN = 0.5
"""Half the interval of an exponent, above which it is named as vague."""
LIMIT = 240  # [s]; the longest time for one size
COLUMNS = {
    "step": "{step}",
    "grows": "{what}",
    "sizes": "{sizes} {unit}",
    "seconds": "{times}",
    "fixed [s]": "{fixed_s:.3g}",
    "exponent of time (95 %)": "{exponent}",
    "peak memory [MB]": "{memories}",
    "exponent of memory (95 %)": "{memory_exponent}",
}


def in_own_process(context, step: str, what: str, size: int, threads: int, clock: str) -> dict | None:
    """What `cost_cases.measure` gives, or None where the process failed or took too long."""
    reads, writes = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(writes, step, what, size, threads, clock))
    process.start()
    writes.close()
    try:
        found = reads.recv() if reads.poll(LIMIT) else f"took more than {LIMIT} s"
    except EOFError:
        found = "ended without an answer"
    if isinstance(found, str):
        print(f"{step}, {what}, {size}: {found}", file=sys.stderr, flush=True)
        process.kill()
    process.join()
    return None if isinstance(found, str) else found


def send(pipe, *arguments) -> None:
    try:
        pipe.send(cost_cases.measure(*arguments))
    except Exception as error:  # told where it is shown; the other cases go on
        pipe.send(f"{type(error).__name__}: {error}")


def row_of(step: str, what: str, case: cost_cases.Growth, found: Sequence[dict], least: dict) -> dict:
    """One row: the sizes with what was measured, the exponents, and how they are written."""
    sizes, times = np.array(case.sizes), np.array([f["seconds"] for f in found])
    memory, fixed = np.array([f["peak_MB"] for f in found]), least["seconds"]
    count, n0 = (sizes**2, case.least**2) if what == "pixels" else (sizes, case.least)
    row = {"step": step, "what": what, "unit": case.unit, "sizes": listed(sizes, ",d"), "times": listed(times, ".3g")}
    row |= {"fixed_s": fixed, "memories": listed(memory, ".0f"), "least": case.least}
    row |= {f"size_{k}": int(n) for k, n in enumerate(sizes)} | {f"seconds_{k}": float(t) for k, t in enumerate(times)}
    if what == "processes":
        return row | {"fixed_s": None, "exponent": "", "p": None, "memory_exponent": "", "memory_p": None}
    base = least["peak_MB"]
    time = growth(count - n0, times - fixed, 0.1 * fixed, 0.25 * fixed)
    space = growth(count - n0, memory - base, 10.0, max(50.0, 0.1 * base))
    row |= {"exponent": written(time), "memory_exponent": written(space)}
    for name, fit in (("", time), ("memory_", space)):
        row |= {f"{name}p": None, f"{name}p_low": None, f"{name}p_high": None}
        if not isinstance(fit, str):
            row |= dict(zip((f"{name}p", f"{name}p_low", f"{name}p_high"), fit, strict=True))
    return row


def listed(values: np.ndarray, form: str) -> str:
    return ", ".join(format(v, form) for v in values.tolist())


def goals_of(rows: list[dict]) -> list[dict]:
    """For time and memory and each thing that grows: the worst step is no worse than linear; vague ones are named."""
    made = []
    for key, name in (("p", "time"), ("memory_p", "peak memory")):
        for what in ("images", "pixels", "batch"):
            fitted = [row for row in rows if row["what"] == what and row[key] is not None]
            worst = max(fitted, key=lambda row: row[key], default=None)
            why = []
            if worst is not None:
                ends = f"{worst[f'{key}_low']:.2f} to {worst[f'{key}_high']:.2f}"
                why.append(f"the largest is that of {worst['step']}, {ends}")
            if vague := [row["step"] for row in fitted if row[f"{key}_high"] - row[f"{key}_low"] > 2 * KNOWN]:
                why.append(f"not known to {KNOWN}: {', '.join(vague)}")
            text = f"{name} grows at most linearly with {what}: the largest exponent of a step"
            made.append(goal(text, None if worst is None else worst[key], at_most=SLACK, why="; ".join(why)))
    return made


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--steps", nargs="+", choices=sorted({step for step, _ in cost_cases.CASES}))
    options = arguments.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # for the process that children are forked from
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cost_cases"])
    rows, failed = [], False
    for (step, what), case in cost_cases.CASES.items():
        if options.steps and step not in options.steps or options.quick and what == "processes":
            continue
        found = [
            in_own_process(context, step, what, size, options.threads, options.clock)
            for size in (case.least, *case.sizes)
        ]
        if None in found:
            failed = True
            continue
        rows.append(row_of(step, what, case, found[1:], found[0]))
        print(table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    goals = goals_of(rows)
    print("\n" + table(rows, COLUMNS) + "\n\n" + table(goals))
    claim = "No step costs more than in proportion to the number of images, to their pixels or to the batch."
    settings = {"clock": options.clock, "threads": options.threads, "quick": options.quick}
    if failed:
        sys.exit("some sizes could not be measured; nothing is written")
    write(options.json, header("cost_growth", claim, settings=settings), rows, COLUMNS, goals)


if __name__ == "__main__":
    main()
