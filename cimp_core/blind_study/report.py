"""What `analysis` found, written down for people: a report in Markdown, and the lines of a short table."""

from __future__ import annotations

from .exclusion import RULES

__all__ = ["METHOD", "markdown", "pair_lines"]

METHOD = (
    "The interval shown first is for other raters and other images of the same kind: a t interval on the scale of "
    "log-odds, whose variance is the sum of the cluster-robust variances over raters and over images, with "
    "Satterthwaite's degrees of freedom. It was chosen beforehand, by simulated studies: with as few as 5 raters and "
    "20 images it held the true share about as often as it should or more often; intervals that treat trials as "
    "independent did not."
)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return "not known" if value is None else f"{100 * value:.{digits}f} %"


def span(low: float | None, high: float | None) -> str:
    """An interval of shares as percentages."""
    return "none" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def _p(value: float | None) -> str:
    return "not known" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _number(value: float | None, digits: int = 2) -> str:
    return "not known" if value is None else f"{value:.{digits}f}"


def pair_lines(result: dict) -> list[tuple[str, str, str, str, str]]:
    """For each pair: what is compared, counts, share, the interval of the summary, and its p."""
    return [
        (
            f"{pair['a']} over {pair['b']}",
            f"{pair['count']} of {pair['trials']}",
            percent(pair["share"]),
            span(pair["two_way"]["low"], pair["two_way"]["high"]),
            _p(pair["two_way"]["p"]),
        )
        for pair in result["pairs"]
    ]


def markdown(found: dict) -> str:
    """The report on what `cimp_core.blind_study.analysis.analyse` returned."""
    simulated = found["simulated"]
    lines = [f"# {'SIMULATED: ' if simulated else ''}{found['title'] or 'Blind study'}", ""]
    if simulated:
        lines += [f"**{found['notice']}**", ""]
    if found["question"]:
        lines += [f"Question: {found['question']}", ""]
    result = found["result"]
    who = "simulated raters" if simulated else "raters"
    lines += [
        f"{result['raters']} {who}, {result['images']} images, {result['trials']} trials (study {found['study']}).",
        "",
    ]
    lines += (
        _preference(result) + _exclusion(found) + _strengths(result) + _quality(result, found["raters"]) + _files(found)
    )
    return "\n".join(lines).rstrip() + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(cells)} |"
        for cells in (head, ["---"] * len(head), *([str(c).replace("|", "/") for c in r] for r in rows))
    ] + [""]


def _preference(result: dict) -> list[str]:
    lines = ["## Preference", "", METHOD, ""]
    lines += _table(
        ["", "trials", "share", "95 % interval", "p, share of one half"], [list(r) for r in pair_lines(result)]
    )
    for pair in result["pairs"]:
        if reason := pair["two_way"]["reason"]:
            lines += [f"{pair['a']} over {pair['b']}: no interval; {reason}.", ""]
    lines += ["Other ways to the same interval:", ""]
    rows = []
    for pair in result["pairs"]:
        drawn, mixed, alone = pair["bootstrap"], pair["mixed"], pair["independent"]
        rows.append([
            f"{pair['a']} over {pair['b']}",
            "none" if drawn is None else span(drawn["low"], drawn["high"]),
            "none" if mixed is None else f"{span(mixed['low'], mixed['high'])} ({percent(mixed['share'])})",
            span(*(alone["wilson"] or (None, None))),
            span(*(alone["exact"] or (None, None))),
            _p(alone["p_exact"]),
        ])  # fmt: skip
    head = ["", "bootstrap over raters and images", "mixed model (its share)"]
    lines += _table([*head, "Wilson *", "exact *", "exact p *"], rows)
    lines += [
        "\\* as if every trial were by another rater on another image: too narrow, p too small, wherever raters or "
        "images differ. The mixed model is logistic with random intercepts of raters and images; its share is averaged "
        "over their population, not that of a typical rater and image.",
        "",
    ]
    rows = [
        [f"{p['a']} over {p['b']}", _number(p["mixed"]["rater_sd"]), _number(p["mixed"]["image_sd"])]
        for p in result["pairs"]
        if p["mixed"]
    ]
    return lines + _table(["", "sd between raters [log-odds]", "sd between images [log-odds]"], rows) if rows else lines


def _exclusion(found: dict) -> list[str]:
    lines = ["## Exclusion", "", "Rules, fixed with the settings before anybody answered:", ""]
    for rule, (_, way, what) in RULES.items():
        limit = found["rules"].get(rule)
        lines.append(f"- {what}: " + ("no rule" if limit is None else f"at {way} {limit:g}"))
    lines.append("")
    if not found["excluded"]:
        return [*lines, "No rater was excluded.", ""]
    rows = [[e["rater"], RULES[e["rule"]][2], f"{e['limit']:g}", f"{e['value']:.3g}"] for e in found["excluded"]]
    lines += _table(["excluded", "rule", "limit", "value"], rows)
    lines += ["With them, for comparison:", ""]
    everybody = [list(r) for r in pair_lines(found["without_exclusion"])]
    return lines + _table(["nobody excluded", "trials", "share", "95 % interval", "p"], everybody)


def _strengths(result: dict) -> list[str]:
    found = result["bradley_terry"]
    if found is None:
        return []
    lines = ["## Strengths (Bradley and Terry)", ""]
    if found["statement"]:
        return [*lines, f"{found['statement'][0].upper()}{found['statement'][1:]}.", ""]
    rows = []
    for one in found["strengths"]:
        limits = (
            "reference"
            if one["log_worth"] == 0 and one["low"] is None
            else f"{_number(one['low'])} to {_number(one['high'])}"
        )
        drawn = "" if one["bootstrap"] is None else " to ".join(f"{end:.2f}" for end in one["bootstrap"])
        rows.append([one["method"], f"{one['worth']:.2f}", _number(one["log_worth"]), limits, drawn])
    return lines + _table(["method", "worth", "log worth", "95 % interval", "bootstrap"], rows)


def _quality(result: dict, raters: list[dict]) -> list[str]:
    side, repeats, catch = result["side"], result["repeats"], result["catch"]
    lines = ["## Raters", ""]
    lines.append(f"- Left side chosen: {_share(side)}, p = {_p(side['p'])}.")
    if side["model"]:
        model = side["model"]
        lines.append(
            f"- Side in the model of strengths: log-odds {_number(model['log_odds'])} for the left side "
            f"({_number(model['low'])} to {_number(model['high'])})."
        )
    agreed = {
        "count": repeats["count"],
        "trials": repeats["repeats"],
        **{k: repeats[k] for k in ("share", "low", "high")},
    }
    lines.append(
        f"- Repeats, sides swapped, with the same picture chosen: {_share(agreed)}; "
        f"Cohen's kappa {_number(repeats['kappa'])}."
    )
    lines.append(f"- Catch trials answered right: {_share(catch)}.")
    for pair in result["pairs"]:
        alpha = pair["alpha"]
        value = (
            alpha["reason"]
            or f"{_number(alpha['value'])} "
            f"({_number(alpha['low'])} to {_number(alpha['high'])}, these raters, other images)"
        )
        lines.append(f"- Agreement on {pair['a']} or {pair['b']}, Krippendorff's alpha: {value}.")
    rows = [
        [
            r["rater"] + (" (excluded)" if r["excluded"] else ""),
            r["answered"],
            percent(r["complete"], 0),
            percent(r["catch_correct"], 0),
            percent(r["left_share"], 0),
            percent(r["repeat_agreement"], 0),
            f"{r['median_seconds']:.1f} s",
        ]
        for r in raters
    ]
    head = ["rater", "answers", "complete", "catch right", "left side", "repeats agree", "median time"]
    return [*lines, "", *_table(head, rows)]


def _share(found: dict) -> str:
    if not found["trials"]:
        return "none shown"
    return f"{found['count']} of {found['trials']}, {percent(found['share'])} ({span(found['low'], found['high'])})"


def _files(found: dict) -> list[str]:
    files = found["files"]
    lines = ["## Files", "", f"{files['read']} result files were used."]
    if files["left_out"]:
        lines += ["Left out:", ""]
        lines += [f"- {entry['file']}: {entry['reason']}" for entry in files["left_out"]]
    return [*lines, ""]
