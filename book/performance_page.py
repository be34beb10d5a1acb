"""The tables and the picture of the page "Performance", made from book/performance/*.json when the book is built."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from cimp_core.figures import use_style

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
from report import table

__all__ = ["BENCHES", "performance_page", "read_benches"]

BENCHES = {
    "reading_speed": ("Reading training crops", "make bench"),
    "build_speed": ("From a folder of files to a data set", "make bench"),
    "twin_speed": ("Making the twin", "make bench"),
    "loss_speed": ("The loss of large batches", "make bench"),
    "training_speed": ("Pre-training", "make bench"),
    "scaling": ("Pre-training on several processes", "make bench"),
    "denoise_speed": ("Denoising", "make bench"),
    "search_speed": ("Search", "make bench"),
    "search_speed_large": (
        "Search among a million",
        "python bench/search_speed.py --rows 1000000 --json book/performance/search_speed_large.json",
    ),
    "structures_search": (
        "Which structure, among a hundred thousand patterns",
        "python bench/structures_search.py --json book/performance/structures_search.json",
    ),
    "cost_growth": ("Cost as it grows", "make bench"),
    "denoise_speed_gpu": ("Denoising, on a graphics card", "make bench-gpu"),
    "loss_speed_gpu": ("The loss of large batches, on a graphics card", "make bench-gpu"),
    "training_speed_gpu": ("Pre-training, on a graphics card", "make bench-gpu"),
    "scaling_gpu": ("Pre-training on several graphics cards", "make bench-gpu"),
}
"""Name of the file, heading, and the command that measures it."""
PICTURE = "performance_growth.png"
PANELS = {"images": "images", "pixels": "edge [px]", "batch": "batch"}


def read_benches(folder: Path) -> dict[str, dict]:
    """What was measured, by name of the file; one that cannot be read ends the build with its name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            bench = json.loads(path.read_text(encoding="utf-8"))
            missing = {"claim", "machine", "versions", "commit", "rows", "goals"} - set(bench)
        except ValueError as error:
            raise SystemExit(f"{path}: no JSON ({error}); remove it and measure anew: make bench") from None
        if missing:
            raise SystemExit(f"{path}: lacks {', '.join(sorted(missing))}; remove it and measure anew: make bench")
        found[path.stem] = bench
    return found


def performance_page(benches: Mapping[str, Mapping], folder: Path) -> str:
    """Markdown of all benches, those not measured included; the picture is drawn into `folder`."""
    known = BENCHES | {name: (name, "make bench") for name in benches if name not in BENCHES}
    text = [summary(benches, known)]
    for name, (heading, command) in known.items():
        text += [f"## {heading}", ""]
        if name not in benches:
            text += [f"Not measured: `{command}`", ""]
            continue
        bench = benches[name]
        text += [bench["claim"], "", table(bench["rows"], bench.get("columns")), ""]
        if name == "cost_growth":
            text += [f"![{draw_growth(bench['rows'], folder / PICTURE)}]({PICTURE})", ""]
        if name.startswith("scaling"):
            picture = f"performance_{name}.png"
            text += [f"![{draw_scaling(bench['rows'], folder / picture)}]({picture})", ""]
        text += [goals(bench["goals"]), "", f"{where(bench)} To measure anew: `{command}`", ""]
    return "\n".join(text)


def summary(benches: Mapping[str, Mapping], known: Mapping) -> str:
    rows = []
    for name, (heading, command) in known.items():
        met = [goal["met"] for goal in benches[name]["goals"]] if name in benches else []
        row = {"bench": heading, "met": met.count(True), "missed": met.count(False), "open": met.count(None)}
        rows.append(row if name in benches else {"bench": heading, "command": command})
    columns = {"bench": "{bench}", "goals met": "{met}", "missed": "{missed}", "not measured": "{open}"}
    return table(rows, columns | {" ": "not measured: `{command}`"}) + "\n"


def goals(found: Sequence[Mapping]) -> str:
    """Each goal with what was found, and the reason where it is missed or was not measured."""
    if not found:
        return "No goal was set."
    rows = []
    for goal in found:
        bounds = {"at least": goal["at_least"], "at most": goal["at_most"]}
        row = {"goal": goal["goal"], "asked": " and ".join(f"{k} {v:.3g}" for k, v in bounds.items() if v is not None)}
        row["found"] = None if goal["measured"] is None else f"{goal['measured']:.3g}"
        row["met"] = {True: "met", False: "**missed**", None: "not measured"}[goal["met"]]
        rows.append(row | {"why": (goal["why"] or "the reason is not known") if goal["met"] is False else goal["why"]})
    return table(rows, {"goal": "{goal}", "asked": "{asked}", "found": "{found}", " ": "{met}", "reason": "{why}"})


def where(bench: Mapping) -> str:
    """Machine, versions, settings and commit in one sentence each."""
    machine, versions = bench["machine"], bench["versions"]
    card = machine["gpu"] or "no graphics card"
    place = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    parts = [f"Measured on {place}, {machine['memory_GiB']} GiB of memory, {card}."]
    parts.append(", ".join(f"{name} {found or 'not installed'}" for name, found in versions.items()) + ".")
    if bench.get("settings"):
        parts.append("Settings: " + ", ".join(f"{name} {value}" for name, value in bench["settings"].items()) + ".")
    parts.append(f"Commit {bench['commit'] or 'unknown'}.")
    return " ".join(parts)


def draw_growth(rows: Sequence[Mapping], path: Path) -> str:
    """Time against size on logarithmic axes, a panel for each thing that grows; gives the picture's text."""
    use_style()
    shown = {what: [row for row in rows if row["what"] == what] for what in PANELS}
    shown = {what: own for what, own in shown.items() if own}
    figure, axes = plt.subplots(1, max(1, len(shown)), figsize=(4 * max(1, len(shown)), 4.6), squeeze=False)
    told = []
    for axis, (what, own) in zip(axes[0], shown.items()):
        for row, marker in zip(own, "osD^vPX*" * len(own)):
            numbers = [k for k in range(len(row)) if f"size_{k}" in row]
            sizes, seconds = [row[f"size_{k}"] for k in numbers], [row[f"seconds_{k}"] for k in numbers]
            power = "does not grow" if row["p"] is None else f"p = {row['p']:.2f}"
            axis.loglog(sizes, seconds, marker=marker, markersize=4, label=f"{row['step']}, {power}")
            told.append(f"{row['step']} against {what} {power}")
        axis.set(xlabel=PANELS[what], ylabel="time [s]")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return "Time of each step against what grows, on logarithmic axes, with exponents p: " + "; ".join(told) + "."


def draw_scaling(rows: Sequence[Mapping], path: Path) -> str:
    """Samples a second against processes, beside what one process does times their number; gives the picture's text."""
    use_style()
    figure, axis = plt.subplots(figsize=(5.2, 3.6))
    told, cases = [], {"each": "batch of a process stays", "whole": "batch of the whole stays"}
    for (case, label), marker in zip(cases.items(), "os"):
        own = sorted((row for row in rows if row["case"] == case), key=lambda row: row["processes"])
        if own:
            counts, rates = zip(*((row["processes"], row["samples_per_s"]) for row in own))
            (line,) = axis.plot(counts, rates, marker=marker, label=label)
            axis.plot(counts, [rates[0] * n / counts[0] for n in counts], ":", color=line.get_color())
            told += [f"{label}: {row['samples_per_s']:.0f} with {row['processes']}" for row in own]
    axis.set(xlabel="processes", ylabel="samples a second")
    axis.set_xticks(sorted({row["processes"] for row in rows}))
    axis.legend(title="dotted: in proportion", fontsize=8)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return "Samples a second against the number of processes. " + "; ".join(told) + "."
