"""Answers to the same prompts, by the base model and by the trained one."""

from __future__ import annotations

from typing import Any

from sft.runs.files import Record, objects, section, whole
from sft.runs.run_records import RunRecords

MOST = 12
MOST_TEXT = 1_500  # characters of a prompt or an answer that are shown
STOPS = {
    "stop": "ended by itself",
    "length": "cut: it did not end",
}


def samples(records: RunRecords) -> dict[str, Any]:
    """Pairs of answers: the run's own samples, else those of an evaluation."""
    found = _own(records)
    return found if found["rows"] else _evaluated(records)


def _own(records: RunRecords) -> dict[str, Any]:
    """From `samples.jsonl`: at the base, and at the sampled step nearest to the one compared."""
    by_step: dict[int, dict[tuple[str, str], Record]] = {}
    for sample in records.samples:
        step = whole(sample.get("step"))
        if step is not None:
            key = (str(sample.get("probe")), str(sample.get("id")))
            by_step.setdefault(step, {})[key] = sample
    wanted = records.compared
    later = [step for step in by_step if step > 0]
    rows: list[dict[str, Any]] = []
    at = min(later, key=lambda step: abs(step - (wanted or step)), default=None)
    if at is not None:
        base = by_step.get(0, {})
        rows = [_row(sample, base.get(key)) for key, sample in by_step[at].items()]
    return {
        "rows": rows[:MOST],
        "left_out": max(0, len(rows) - MOST),
        "step": at,
        "exact": at is not None and at == wanted,
        "source": {"file": "samples.jsonl", "where": f"steps 0 and {at}"},
    }


def _row(sample: Record, base: Record | None) -> dict[str, Any]:
    return {
        "id": str(sample.get("id", "")),
        "probe": str(sample.get("probe", "")),
        "prompt": shortened(sample.get("prompt"), from_end=True),
        "reference": shortened(sample.get("reference")),
        "base": _answer(base, "answer") if base is not None else None,
        "trained": _answer(sample, "answer"),
    }


def _answer(sample: Record, name: str) -> dict[str, Any]:
    stop, tokens = str(sample.get("stop_reason", "")), whole(sample.get("tokens"))
    return {
        "text": shortened(sample.get(name)),
        "stop": STOPS.get(stop, stop or "stop not recorded"),
        "cut": stop == "length",
        "tokens": tokens,
    }


def _evaluated(records: RunRecords) -> dict[str, Any]:
    """From the first `eval-*.json` that has rows, evenly spaced."""
    for file, found in records.evaluations.items():
        every = objects(found, "rows")
        spread = every[:: max(1, -(-len(every) // MOST))][:MOST]
        if spread:
            return {
                "rows": [_evaluated_row(row) for row in spread],
                "left_out": len(every) - len(spread),
                "step": records.chosen,
                "exact": True,
                "source": {"file": file, "where": "rows"},
            }
    return {"rows": [], "left_out": 0, "step": None, "exact": False, "source": None}


def _evaluated_row(row: Record) -> dict[str, Any]:
    return {
        "id": str(row.get("id", "")),
        "probe": "evaluation",
        "prompt": shortened(row.get("prompt"), from_end=True),
        "reference": shortened(row.get("reference")),
        "base": _answer(section(row, "base"), "text"),
        "trained": _answer(section(row, "tuned"), "text"),
    }


def shortened(text: Any, most: int = MOST_TEXT, *, from_end: bool = False) -> str:
    """At most `most` characters, and what was left out; of a prompt its end is kept."""
    if text is None:
        return ""
    whole_text = str(text)
    if len(whole_text) <= most:
        return whole_text
    left = f"[{len(whole_text) - most:,} characters left out]"
    return f"{left} {whole_text[-most:]}" if from_end else f"{whole_text[:most]} {left}"
