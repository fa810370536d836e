"""What a run was trained on: what became of each row, lengths, examples, and the usage prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sft.errors import SFTError
from sft.runs.files import Cache, Record, json_object, section, whole
from sft.runs.run_dir import RunDir

MOST_ROWS = 200  # ids listed of one reason
_MOST_REASONS = 200
_NUMBER = re.compile(r"\d[\d,.]*")
_HELD = Cache(16)


def data(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """The account of rows by status and reason, and what was measured on them before training."""
    paths = [run.account, run.examples, run.preflight]
    found: dict[str, Any] = _HELD.get(run.path, paths, lambda: _read(run))
    return found


def _read(run: RunDir) -> dict[str, Any]:
    problems: list[str] = []
    account, examples, preflight = (
        _object(path, problems) for path in (run.account, run.examples, run.preflight)
    )
    usage = preflight.get("usage")
    views = examples.get("views")
    return {
        "account": _account(account) if account else None,
        "lengths": examples.get("lengths"),
        "views": views if isinstance(views, list) else [],
        "usage": usage if isinstance(usage, dict) else None,
        "preflight": preflight,
        "problems": problems,
    }


def _object(path: Any, problems: list[str]) -> Record:
    try:
        return json_object(path)
    except SFTError as error:
        problems.append(str(error))
        return {}


def _account(account: Record) -> dict[str, Any]:
    rows, notes = account.get("rows"), account.get("notes")
    return {
        "num_rows": whole(account.get("num_rows")),
        "counts": section(account, "counts"),
        "reasons": _reasons(rows if isinstance(rows, list) else []),
        "notes": notes if isinstance(notes, list) else [],
        "files": section(account, "files"),
        "sources": account.get("sources") or [],
    }


def _reasons(rows: list[Any]) -> list[dict[str, Any]]:
    """Rows by status and reason, the most frequent first.

    Reasons that differ in numbers alone are one, with `#` for each number.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if not isinstance(row, dict):
            continue
        status, reason = str(row.get("status", "")), str(row.get("reason") or "")
        kind = _NUMBER.sub("#", reason)
        if (status, kind) not in found and len(found) >= _MOST_REASONS:
            kind = reason = "other reasons"
        group = found.setdefault(
            (status, kind), {"status": status, "reason": reason, "count": 0, "rows": []}
        )
        group["count"] += 1
        if group["reason"] != reason:
            group["reason"] = kind
        if len(group["rows"]) < MOST_ROWS:
            group["rows"].append(str(row.get("row", "")))
    return sorted(found.values(), key=lambda group: -int(group["count"]))
