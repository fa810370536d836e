"""What a run was trained on: what became of each row, lengths, examples, and the usage prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.errors import SFTError
from sft.runs.account import account_lines
from sft.runs.files import Cache, Record, json_object, section, whole
from sft.runs.run_dir import RunDir

MOST_ROWS = 200  # ids listed of one reason
MOST_REASONS = 200
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
    notes, lines = account.get("notes"), account_lines(account, MOST_ROWS, places_of_all=True)
    return {
        "num_rows": whole(account.get("num_rows")),
        "counts": section(account, "counts"),
        "reasons": [
            {
                "status": line.status,
                "reason": line.reason,
                "count": line.count,
                "rows": list(line.places),
            }
            for line in lines[:MOST_REASONS]
        ],
        "notes": notes if isinstance(notes, list) else [],
        "files": section(account, "files"),
        "sources": account.get("sources") or [],
    }
