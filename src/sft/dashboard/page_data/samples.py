"""What the model answers to the same prompts, before, in the middle of and after training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.runs.files import Cache, Record, whole
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.texts.openers import opener

_HELD = Cache(16)


def samples(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """The prompts in the order they were asked, each with its answers by step."""
    found: dict[str, Any] = _HELD.get(run.path, [run.samples], lambda: _grouped(run))
    return found


def _grouped(run: RunDir) -> dict[str, Any]:
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
        row["answers"].append(_answer(record, step))
    for row in rows.values():
        row["answers"].sort(key=lambda answer: answer["step"])
    return {"steps": sorted(steps), "rows": list(rows.values())}


def _answer(record: Record, step: int) -> dict[str, Any]:
    text = str(record.get("answer") or "")
    return {
        "step": step,
        "answer": text,
        "stop_reason": record.get("stop_reason"),
        "tokens": whole(record.get("tokens")),
        "opener": opener(text),
    }
