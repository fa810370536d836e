"""What a run folder says: its settings, rows, samples and events, as the page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sft.dashboard.page_data.query import between
from sft.runs.account import account_lines
from sft.runs.files import (
    Cache,
    Record,
    identity,
    items,
    json_object,
    readable,
    section,
    whole,
)
from sft.runs.index import Events, events_of
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.runs.settings import rerun_command, resume_command, settings_of
from sft.texts.openers import opener

MOST_ROWS = 200  # ids listed of one reason
MOST_REASONS = 200
_DATA, _SAMPLES = Cache(16), Cache(16)


def config(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """Every setting with its source and, where it was `auto`, why; and how to run it again."""
    problems: list[str] = []
    saved = readable(identity, run, problems)
    # Another trainer does the training, or nothing says how it was done.
    ours = section(saved, "template").get("source") != "the trainer's tokenizer"
    known = ours and bool(section(saved, "config"))
    events = events_of(run)
    with events.lock:
        first = events.starts[0] if events.starts else None
    names = ("command", "folder", "host", "pid", "time")
    return {
        "rows": [asdict(setting) for setting in settings_of(saved)],
        "rerun": rerun_command(run) if known else None,
        "resume": resume_command(run) if known else None,
        "started": None if first is None else {name: first.get(name) for name in names},
        "versions": section(saved, "versions"),
        "fingerprint": section(saved, "fingerprint"),
        "template": section(saved, "template"),
        "num_steps": saved.get("num_steps"),
        "problems": problems,
    }


def data(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """The account of rows by status and reason, and what was measured on them before training."""
    paths = [run.account, run.examples, run.preflight]

    def read() -> dict[str, Any]:
        problems: list[str] = []
        account, examples, preflight = (readable(json_object, path, problems) for path in paths)
        return {
            "account": _account(account) if account else None,
            "lengths": examples.get("lengths"),
            "views": items(examples, "views"),
            "usage": section(preflight, "usage") or None,
            "preflight": preflight,
            "problems": problems,
        }

    return _DATA.get(run.path, paths, read)


def _account(account: Record) -> dict[str, Any]:
    lines = account_lines(account, MOST_ROWS, places_of_all=True)
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
        "notes": items(account, "notes"),
        "files": section(account, "files"),
        "sources": account.get("sources") or [],
    }


def samples(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """The prompts in the order they were asked, each with its answers by step."""
    return _SAMPLES.get(run.path, [run.samples], lambda: _by_prompt(run))


def _by_prompt(run: RunDir) -> dict[str, Any]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    steps: set[int] = set()
    for record in each_record(run.samples):
        step = whole(record.get("step"))
        if step is None:
            continue
        steps.add(step)
        probe, name = str(record.get("probe", "")), str(record.get("id", ""))
        row = rows.setdefault(
            (probe, name),
            {
                "id": name,
                "probe": probe,
                "prompt": str(record.get("prompt") or ""),
                "reference": record.get("reference"),
                "answers": [],
            },
        )
        text = str(record.get("answer") or "")
        row["answers"].append(
            {
                "step": step,
                "answer": text,
                "stop_reason": record.get("stop_reason"),
                "tokens": whole(record.get("tokens")),
                "opener": opener(text),
            }
        )
    for row in rows.values():
        row["answers"].sort(key=lambda answer: answer["step"])
    return {"steps": sorted(steps), "rows": list(rows.values())}


def events(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """The newest `limit` events, the newest last, and how many there are.

    Raises:
        ConfigError: `limit` is no number.
    """
    limit = int(between(query, "limit", 2000, 1, Events.most))
    recorded = events_of(run)
    with recorded.lock:
        return {"events": recorded.records[-limit:], "total": recorded.total}
