"""`sft check --html`: the report as one HTML file that needs no network and no server.

Everything in a report may hold text of the data, and data are hostile until proven otherwise:
`report.document` escapes all text and makes the policy, rows go into a JSON block that no parser
can be led out of, and the page's script writes `textContent` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sft.check.report import CheckReport, RowView
from sft.curate.finding import SEVERITIES, SEVERITY_NAMES, DataFinding, verdict
from sft.disk import write_text
from sft.errors import ConfigError
from sft.report.document import asset, document, one_script
from sft.report.pictures import beyond_axis, lengths_pictures
from sft.runs.account import STATUSES, AccountLine
from sft.texts.safe import all_visible, as_json, visible

# What is embedded at most, so that the page stays below 5 MB.
MAX_VIEWS, MAX_VIEW_BYTES = 500, 3_500_000
MAX_ROWS = 200  # places listed of one finding
MAX_ITEMS = 100  # topics, groups, suspicious rows, notes
NUM_PLACES = 3  # of a topic
MAX_TEXT = 2_000  # characters of a message or a quoted prompt

TRAINED = ("used", "changed", "truncated")
MODULES = ("dom", "prose", "pieces")  # of the page of sft watch, in the order of their imports
SECTIONS = ("Findings", "Account", "Lengths", "Template", "Estimate", "Rows", "Diversity", "Usage",
            "Suspicious", "Notes")  # fmt: skip


def write_page(report: CheckReport, path: Path) -> None:
    """Write `report` as one self-contained HTML file, whole or not at all.

    Raises:
        ConfigError: `path` is a folder, or in none.
        DiskError: it cannot be written.
    """
    if path.is_dir():
        raise ConfigError(f"--html {path}: is a folder; give the name of a file, such as page.html")
    if not path.parent.is_dir():
        raise ConfigError(f"--html {path}: there is no folder {path.parent}")
    write_text(path, render_page(report))


def render_page(report: CheckReport) -> str:
    """The page as HTML text. The same report gives the same text."""
    embedded, data = _embedded(report)
    known = {*embedded, *(row.rpartition("#")[0] for row in embedded)}
    lengths = _lengths(report)
    values = {
        "report": all_visible(_plain(report)),
        "data": Markup(data),
        "head": _headline(report),
        "findings": [_finding(finding, known) for finding in report.findings],
        "account": _account(report.account, known),
        "topics": _topics(report.topics, known),
        "lengths_picture": lengths_pictures(lengths) if lengths else None,
        "beyond": lengths is not None and beyond_axis(lengths),
        "usage": all_visible(_usage(report.usage)),
        "num_embedded": len(embedded),
        "num_left_out": len(report.views) - len(embedded),
        "embedded": known,
        "max_items": MAX_ITEMS,
        "max_views": MAX_VIEWS,
    }
    modules = [asset("sft.dashboard", f"static/{name}.js") for name in MODULES]
    script = one_script([*modules, asset("sft.check", "page.js")])
    sections = [(name.lower(), name) for name in SECTIONS]
    return document("sft.check", values, sections=sections, max_text=MAX_TEXT, script=script)


def _plain(report: CheckReport) -> dict[str, Any]:
    """What the template shows as it is; rows and findings are prepared apart."""
    names = ("title", "num_rows", "facts", "estimate", "diversity", "suspicious", "notes")
    return {
        **{name: getattr(report, name) for name in (*names, "checks")},
        "lengths": asdict(report.lengths) if report.lengths else None,
    }


def _headline(report: CheckReport) -> dict[str, Any]:
    def total(statuses: Sequence[str]) -> int:
        return sum(line.count for line in report.account if line.status in statuses)

    counts = {s: sum(f.severity == s for f in report.findings) for s in SEVERITIES}
    worst = next((s for s, n in counts.items() if n), "none")
    # What can be absent; rows that are not suspicious are absent too.
    parts = {
        "lengths": report.lengths,
        "template": report.facts,
        "estimate": report.estimate,
        "diversity": report.diversity,
        "usage coverage": report.usage,
    }
    return {
        "worst": worst,
        "verdict": {
            "error": "Mend this before you train",
            "warning": "Look at this before you train",
            "info": "Nothing stands in the way",
            "none": "Nothing wrong was found",
        }[worst],
        "counted": verdict(report.findings),
        "unmeasured": [name for name, part in parts.items() if not part],
        "counts": [(SEVERITY_NAMES[s], s, n) for s, n in counts.items()],
        "trained": total(TRAINED),
        "val": total(["val"]),
        "lost": total(["dropped", "bad"]),
    }


def _finding(finding: DataFinding, known: set[str]) -> dict[str, Any]:
    listed = min(len(finding.rows), MAX_ROWS)
    return {
        "check": visible(finding.check).replace("_", " "),
        "severity": finding.severity,
        "name": SEVERITY_NAMES[finding.severity],
        "count": finding.count,
        "message": visible(finding.message),
        "fix": visible(finding.fix),
        "sources": _by_source(finding.rows[:MAX_ROWS], known),
        "listed": listed,
        "more": max(finding.count, len(finding.rows)) - listed,
    }


def _by_source(rows: Sequence[str], known: set[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Places by their file, so that a long list of lines can be read."""
    sources: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        source, _, line = row.rpartition(":")
        place = {"line": visible(line), "id": visible(row), "known": visible(row) in known}
        sources.setdefault(visible(source), []).append(place)
    return list(sources.items())


def _account(lines: Sequence[AccountLine], known: set[str]) -> list[dict[str, Any]]:
    order = {status: i for i, status in enumerate(STATUSES)}
    total = sum(line.count for line in lines)
    return [
        {
            "status": line.status if line.status in STATUSES else "other",
            "name": STATUSES.get(line.status, visible(line.status)),
            "count": line.count,
            "share": line.count / total if total else 0.0,
            "reason": visible(line.reason),
            "sources": _by_source(line.places, known),
            "more": line.count > len(line.places),
        }
        for line in sorted(lines, key=lambda line: order.get(line.status, len(order)))
        if line.count
    ]


def _topics(topics: Sequence[Mapping[str, Any]], known: set[str]) -> list[dict[str, Any]]:
    """`part` is the share next to that of the largest topic, which has the longest bar."""
    most = max((topic["share"] for topic in topics), default=0.0)
    return [
        {
            "name": visible(str(topic["name"])),
            "rows": topic["rows"],
            "share": topic["share"],
            "part": topic["share"] / most if most else 0.0,
            "sources": _by_source(topic.get("examples", ())[:NUM_PLACES], known),
        }
        for topic in topics
    ]


def _lengths(report: CheckReport) -> dict[str, Any] | None:
    """The lengths as `pictures` draws them."""
    lengths = report.lengths
    if lengths is None:
        return None
    names = ("shortest", "median", "95 %", "longest")
    kinds = {
        "all": (lengths.all_counts, lengths.all_quantiles),
        "trained": (lengths.trained_counts, lengths.trained_quantiles),
    }
    parts = {
        kind: {"counts": counts, "quantiles": dict(zip(names, quantiles, strict=True))}
        for kind, (counts, quantiles) in kinds.items()
    }
    return {"edges": lengths.edges, "max_seq_len": lengths.max_seq_len, **parts}


def _usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The usage part of `preflight.json`, with the texts of uncovered prompts in their groups."""
    if usage is None:
        return None
    texts = {row["id"]: row for row in usage["uncovered"]}
    return {
        "n": usage["n"],
        "num_uncovered": len(usage["uncovered"]),
        "groups": [
            {"label": group["label"], "rows": [texts[i] for i in group["ids"] if i in texts]}
            for group in usage["groups"]
        ],
        "classifier": usage.get("classifier"),
        "differs": [fact for fact in usage.get("facts", ()) if fact["differs"]],
        "num_facts": len(usage.get("facts", ())),
    }


# ------------------------------------------------------------------------ rows


def _embedded(report: CheckReport) -> tuple[list[str], str]:
    """Ids of the rows that go into the page, and the JSON block with them.

    Rows are taken in order as long as there is room; one that is too large is left out.
    """
    named: dict[str, list[str]] = {}
    for finding in report.findings:
        for row in dict.fromkeys(finding.rows):
            named.setdefault(row, []).append(finding.check.replace("_", " "))
    rows: list[str] = []
    ids: list[str] = []
    room = MAX_VIEW_BYTES
    for view in report.views:
        text = as_json(all_visible(_row(view, named)))
        size = len(text.encode())
        if len(rows) < MAX_VIEWS and size <= room:
            room -= size
            rows.append(text)
            ids.append(visible(view.id))
    return ids, '{"rows":[' + ",\n".join(rows) + "]}"


def _row(view: RowView, named: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        "id": view.id,
        "tokens": view.num_tokens,
        "trained": view.num_trained,
        "serving": view.serving,
        "named": named.get(view.id, named.get(view.id.rpartition("#")[0], [])),
        "pieces": [[piece.text, piece.kind, int(piece.special)] for piece in view.pieces],
    }
