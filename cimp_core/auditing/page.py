"""The report as one HTML page: thumbnails inside it, a table that sorts and filters, and no address of anything."""

from __future__ import annotations

import base64
import io
from html import escape
from importlib import resources

import numpy as np

from ..metadata import PARAMETERS, UNITS
from ..retrieval import with_unit
from .report import AuditReport
from .verdict import ImageAudit, SettingAudit

__all__ = ["page"]

MOST_PICTURES = 2000
"""Images shown with a thumbnail, those that disagree first; a browser is slow with more."""

_WORDS = {"disagrees": "disagree", "cannot tell": "cannot be told", "agrees": "agree"}


def page(report: AuditReport) -> str:
    """Text of the page."""
    order = {"disagrees": 0, "cannot tell": 1, "agrees": 2}
    images = sorted(report.images, key=lambda a: (order[a.verdict], 2.0 if a.p is None else a.p))
    heads = ["image", "verdict", "p", *(name.replace("_", " ") for name in PARAMETERS), "checks"]
    top = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(head)}</button></th>' for head in heads
    )
    rows = "\n".join(_row(image, number < MOST_PICTURES) for number, image in enumerate(images))
    filters = "".join(
        f'<label><input type="checkbox" checked data-verdict="{v.replace(" ", "-")}"> {n} {_WORDS[v]}</label>'
        for v, n in report.counts.items()
    )
    notes = "".join(f"<li>{escape(text)}</li>" for text in report.about.get("warnings", ()))
    parts = {
        "style": _resource("page.css"),
        "script": _resource("page.js"),
        "notes": f'<ul role="note" class="warnings">{notes}</ul>' if notes else "",
        "about": escape(_about(report)),
        "filters": filters,
        "heads": top,
        "rows": rows,
        "failed": _failed(report),
    }
    text = _resource("page.html")
    # One pass: a file name that looks like a placeholder is never filled in.
    pieces = text.split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        out += [parts[name], rest]
    return "".join(out)


def _about(report: AuditReport) -> str:
    about = report.about
    said = f"{len(report)} images. False alarms asked for: {about.get('level', 0):.2g} an image."
    source, sessions = about.get("calibration", {}).get("source"), about.get("sessions", {})
    name = "simulated images (the twin)" if source == "twin" else str(source)
    counts = "; ".join(f"{n} ({kind})" for kind, n in sessions.items())
    return f"{said} Calibrated on {name}, one image each of so many sessions: {counts}."


def _row(image: ImageAudit, with_picture: bool) -> str:
    kind = image.verdict.replace(" ", "-")
    picture = _thumbnail(image) if with_picture else ""
    why = "".join(f"<li>{escape(reason)}</li>" for reason in image.reasons)
    name = escape(image.file) + ("" if not image.number else f", image {image.number}")
    title = f"<br>{escape(image.title)}" if image.title else ""
    cells = [
        f'<th scope="row" data-sort="{escape(image.file)}">{picture}<span>{name}{title}</span></th>',
        f'<td data-sort="{kind}"><strong class="{kind}">{escape(image.verdict)}</strong><ul>{why}</ul></td>',
        f'<td data-sort="{2 if image.p is None else image.p}">{"" if image.p is None else f"{image.p:.2g}"}</td>',
        *(_setting(name, image.settings[name]) for name in PARAMETERS),
        f"<td>{_checks(image)}</td>",
    ]
    return f'<tr data-verdict="{kind}">{"".join(cells)}</tr>'


def _setting(name: str, setting: SettingAudit) -> str:
    kind = setting.verdict.replace(" ", "-")
    recorded = "missing" if setting.recorded is None else with_unit(setting.recorded, UNITS[name])
    lines = [f'<b class="{kind}">{escape(recorded)}</b>']
    if setting.recorded is not None:
        lines.append(escape(setting.verdict))
    if setting.residual is not None:
        given = "" if setting.residual_given is None else f" ({setting.residual_given:+.1f} given the others)"
        lines.append(f"{setting.residual:+.1f} σ{given}" + ("" if setting.p is None else f", p {setting.p:.2g}"))
    if setting.predicted is not None and setting.verdict in ("agrees", "disagrees"):
        shown = (setting.likely or setting.predicted) if setting.verdict == "disagrees" else setting.predicted
        says = "likely" if setting.verdict == "disagrees" else "picture"
        lines.append(f"{says} {with_unit(shown[1], UNITS[name])} to {with_unit(shown[2], UNITS[name])}")
    sort = -1 if setting.p is None else 1 - setting.p
    return f'<td data-sort="{sort}" title="{escape(setting.why)}">{"<br>".join(filter(None, lines))}</td>'


def _checks(image: ImageAudit) -> str:
    lines = []
    for name, check in image.checks.items():
        p = "" if check.p is None else f", p {check.p:.2g}"
        kind = check.verdict.replace(" ", "-")
        said = {"agrees": "nothing found", "disagrees": "objects"}.get(check.verdict, check.verdict)
        lines.append(f'<span class="{kind}" title="{escape(check.why)}">{escape(name)}: {escape(said)}{p}</span>')
    return "<br>".join(lines)


def _thumbnail(image: ImageAudit) -> str:
    if image.measured is None:
        return ""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.measured.thumbnail)).save(file, format="PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    height, width = image.measured.thumbnail.shape
    return f'<img alt="" width="{width}" height="{height}" src="data:image/png;base64,{data}">'


def _failed(report: AuditReport) -> str:
    if not report.failed:
        return ""
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(why)}</td></tr>' for name, why in report.failed.items()
    )
    return (
        f"<h2>{len(report.failed)} files that gave no image</h2>"
        '<div role="region" tabindex="0" aria-label="files without an image"><table><thead><tr>'
        f'<th scope="col">file</th><th scope="col">why</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
