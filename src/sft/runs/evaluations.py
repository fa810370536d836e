"""The evaluations of a run, kept up to date as its records grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sft.runs.files import Record
from sft.runs.jsonl import Follower
from sft.runs.run_dir import RunDir
from sft.runs.state import tail

OBJECTIVES = ("usage_loss", "val_loss")  # the first that was measured chooses the step


def is_eval(record: Mapping[str, Any]) -> bool:
    """Whether a line of `metrics.jsonl` is an evaluation; those of old have no `eval_seconds`."""
    return "loss" not in record and ("eval_seconds" in record or "epoch" in record)


class _Evaluations(Follower):
    """The records of evaluations; what is scored after the end joins that of its step."""

    def take(self, record: Record) -> None:
        """Keep an evaluation; join what only has scores to the evaluation at its step."""
        if is_eval(record):
            self.records.append(record)
            return
        for place, evaluation in enumerate(self.records):
            if evaluation.get("step") == record.get("step"):
                self.records[place] = {**evaluation, **record}

    def clear(self) -> None:
        """Begin anew."""
        self.records: list[Record] = []


@lru_cache(256)
def _follower(path: Path) -> _Evaluations:
    # Records of steps, which are nearly all of the file, are not even parsed.
    return _Evaluations(path, keep=lambda line: b'"loss":' not in line)


def evals_of(run: RunDir) -> list[Record]:
    """All evaluations of a run so far; quick when nothing changed."""
    return evals_and_offset(run)[0]


def evals_and_offset(run: RunDir) -> tuple[list[Record], int]:
    """All evaluations, and the bytes of `metrics.jsonl` they were read from."""
    follower = _follower(run.metrics)
    with follower.lock:
        follower.update()
        return list(follower.records), follower.offset


def last_step(run: RunDir) -> Record:
    """The newest record of a step; empty when there is none."""
    return next((r for r in reversed(tail(run.metrics)) if "loss" in r), {})


def objective_of(evals: Sequence[Record]) -> str | None:
    """The metric that the step is chosen by; None where none was measured."""
    return next((name for name in OBJECTIVES if any(name in record for record in evals)), None)
