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
    own = _own(records)
    return own if own["rows"] else _evaluated(records)


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
    at = min(later, key=lambda step: abs(step - (wanted or step)), default=-1)
    base, trained = by_step.get(0, {}), by_step.get(at, {})
    rows = [_row(sample, base.get(key), sample, "answer") for key, sample in trained.items()]
    return {
        "rows": rows[:MOST],
        "left_out": max(0, len(rows) - MOST),
        "step": at if trained else None,
        "exact": bool(trained) and at == wanted,
        "source": {"file": "samples.jsonl", "where": f"steps 0 and {at}"},
    }


def _evaluated(records: RunRecords) -> dict[str, Any]:
    """From the first `eval-*.json` that has rows, evenly spaced."""
    for file, evaluation in records.evaluations.items():
        every = objects(evaluation, "rows")
        spread = every[:: max(1, -(-len(every) // MOST))][:MOST]
        if spread:
            return {
                "rows": [
                    _row({**row, "probe": "evaluation"}, *_sides(row), "text") for row in spread
                ],
                "left_out": len(every) - len(spread),
                "step": records.chosen,
                "exact": True,
                "source": {"file": file, "where": "rows"},
            }
    return {"rows": [], "left_out": 0, "step": None, "exact": False, "source": None}


def _sides(row: Record) -> tuple[Record, Record]:
    return section(row, "base"), section(row, "tuned")


def _row(row: Record, base: Record | None, trained: Record, name: str) -> dict[str, Any]:
    """A prompt, its reference, and both answers, which their records have as `name`."""
    return {
        "id": str(row.get("id", "")),
        "probe": str(row.get("probe", "")),
        "prompt": shortened(row.get("prompt"), from_end=True),
        "reference": shortened(row.get("reference")),
        "base": _answer(base, name) if base is not None else None,
        "trained": _answer(trained, name),
    }


def _answer(sample: Record, name: str) -> dict[str, Any]:
    stop = str(sample.get("stop_reason", ""))
    return {
        "text": shortened(sample.get(name)),
        "stop": STOPS.get(stop, stop or "stop not recorded"),
        "cut": stop == "length",
        "tokens": whole(sample.get("tokens")),
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
