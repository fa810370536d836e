"""What the run was trained on: the account of the rows, their lengths, how the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.report.samples import shortened
from sft.runs.account import STATUSES, TRAINED_ON, account_lines
from sft.runs.files import Record, items, number, objects, section, whole
from sft.runs.run_records import RunRecords

MOST_PLACES = 12  # places named of one reason
MOST_REASONS = 50
MOST_PROMPTS = 60  # usage prompts that training does not cover
NUM_VIEWS = 3
MOST_VIEW = 3_000  # characters of one row as tokens
KINDS = ("trained", "partly", "masked")
_QUANTILES = ("shortest", "median", "95 %", "longest")


def data_section(records: RunRecords) -> dict[str, Any]:
    """Everything about the rows that the run folder knows; parts not recorded are None."""
    return {
        "rows": _rows(records.account),
        "sources": _sources(records),
        "lengths": _lengths(section(records.examples, "lengths")),
        "views": _views(records),
        "usage": _usage(records.preflight),
        "repeats": _repeats(section(records.preflight, "rows")),
        "notes": [str(note) for note in items(records.account, "notes")][:MOST_REASONS],
    }


def _rows(account: Record) -> dict[str, Any] | None:
    """How many rows became what, and why."""
    if not account:
        return None
    lines = account_lines(account, MOST_PLACES)
    return {
        "total": whole(account.get("num_rows")) or 0,
        "used": sum(line.count for line in lines if line.status in TRAINED_ON),
        "lines": [
            {
                "status": line.status if line.status in STATUSES else "other",
                "name": STATUSES.get(line.status, line.status),
                "reason": line.reason,
                "count": line.count,
                "places": list(line.places),
            }
            for line in lines[:MOST_REASONS]
        ],
        "more": max(0, len(lines) - MOST_REASONS),
        "source": {"file": "account.json", "where": "rows, by status and reason"},
    }


def _sources(records: RunRecords) -> list[dict[str, Any]]:
    """The share of each source, where there are several."""
    return [
        {
            "name": str(source.get("source", "")),
            "examples": whole(source.get("examples")),
            "tokens": whole(source.get("tokens")),
            "share": number(source.get("share")),
            "epochs": number(source.get("epochs")),
        }
        for source in objects(records.account, "sources")
    ]


def _lengths(lengths: Record) -> dict[str, Any] | None:
    """The histogram; None where it was not recorded, or is of another shape."""
    edges = [number(edge) for edge in items(lengths, "edges")]
    histogram: dict[str, Any] = {"edges": edges}
    for name in ("all", "trained"):
        counts = [whole(count) for count in items(lengths, f"{name}_counts")]
        quantiles = [whole(value) for value in items(lengths, f"{name}_quantiles")]
        if len(counts) != len(edges) - 1 or len(quantiles) != len(_QUANTILES):
            return None
        if None in counts or None in quantiles:
            return None
        histogram[name] = {
            "counts": counts,
            "quantiles": dict(zip(_QUANTILES, quantiles, strict=True)),
        }
    if not edges or None in edges:
        return None
    for name in ("num_tokens", "num_trained", "max_seq_len"):
        histogram[name] = whole(lengths.get(name)) or 0
    return {**histogram, "source": {"file": "examples.json", "where": "lengths"}}


def _views(records: RunRecords) -> list[dict[str, Any]]:
    """Three rows as the model sees them: the shortest, a middling and the longest recorded."""
    every = [view for view in objects(records.examples, "views") if items(view, "pieces")]
    every.sort(key=lambda view: whole(view.get("tokens")) or 0)
    middle = {0, len(every) // 2, len(every) - 1} if every else set()
    return [_view(every[i]) for i in sorted(middle)][:NUM_VIEWS]


def _view(view: Record) -> dict[str, Any]:
    pieces, left = [], MOST_VIEW
    for piece in items(view, "pieces"):
        if not isinstance(piece, list) or len(piece) != 3 or left <= 0:
            continue
        text, kind, special = str(piece[0]), str(piece[1]), bool(piece[2])
        kind = kind if kind in KINDS else "masked"
        pieces.append({"text": text[:left], "kind": kind, "special": special})
        left -= len(text)
    return {
        "id": str(view.get("id", "")),
        "part": "validation" if view.get("part") == "val" else "training",
        "tokens": whole(view.get("tokens")),
        "trained": whole(view.get("trained")),
        "pieces": pieces,
        "cut": left < 0 or bool(view.get("cut")),
    }


def _usage(preflight: Record) -> dict[str, Any] | None:
    """Usage prompts that are unlike every training prompt, in their groups."""
    usage = section(preflight, "usage")
    if not usage:
        return None
    texts = {str(row.get("id")): str(row.get("text", "")) for row in objects(usage, "uncovered")}
    groups = []
    room = MOST_PROMPTS
    for group in objects(usage, "groups"):
        ids = [str(name) for name in items(group, "ids") if str(name) in texts]
        listed = ids[:room]
        room -= len(listed)
        groups.append(
            {
                "label": str(group.get("label", "")),
                "count": len(ids),
                "rows": [{"id": name, "text": shortened(texts[name], 400)} for name in listed],
            }
        )
    differs = [fact for fact in objects(usage, "facts") if fact.get("differs")]
    return {
        "n": whole(usage.get("n")) or 0,
        "uncovered": len(texts),
        "groups": groups,
        "differs": [
            {"name": str(f.get("name", "")), "message": str(f.get("message", ""))} for f in differs
        ],
        "auc": number(section(usage, "classifier").get("auc")),
        "source": {"file": "preflight.json", "where": "usage"},
    }


def _repeats(rows: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far the training rows are distinct, and whether validation rows are among them."""
    if not rows:
        return None
    return {
        "train": whole(rows.get("train")),
        "effective": number(rows.get("effective")),
        "repeats": number(rows.get("repeats")),
        "leaks": whole(rows.get("num_leaks")),
        "source": {"file": "preflight.json", "where": "rows"},
    }
