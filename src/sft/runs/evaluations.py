"""The evaluations of a run, kept up to date as its records grow."""

from __future__ import annotations

from collections.abc import Sequence

from sft.runs.files import Kept, Record
from sft.runs.jsonl import Follower
from sft.runs.run_dir import RunDir
from sft.runs.state import tail

OBJECTIVES = ("usage_loss", "val_loss")  # the first that was measured chooses the step


def is_eval(record: Record) -> bool:
    """Whether a line of `metrics.jsonl` is an evaluation; those of old have no `eval_seconds`."""
    return "loss" not in record and ("eval_seconds" in record or "epoch" in record)


class _Evaluations(Follower):
    """The records of evaluations; what is scored after the end joins that of its step."""

    def __init__(self, run: RunDir) -> None:
        # Records of steps, which are nearly all of the file, are not even parsed.
        super().__init__(run.metrics, keep=lambda line: b'"loss":' not in line)
        self._evals: list[Record] = []

    def evals(self) -> tuple[list[Record], int]:
        """All evaluations so far, and the bytes of the file that they were read from."""
        with self.lock:
            self.update()
            return list(self._evals), self.offset

    def take(self, record: Record) -> None:
        """Keep an evaluation; join what only has scores to the evaluation at its step."""
        if is_eval(record):
            self._evals.append(record)
            return
        for place, evaluation in enumerate(self._evals):
            if evaluation.get("step") == record.get("step"):
                self._evals[place] = {**evaluation, **record}

    def clear(self) -> None:
        """Begin anew."""
        self._evals.clear()


_FOLLOWERS = Kept(256)


def evals_of(run: RunDir) -> list[Record]:
    """All evaluations of a run so far; quick when nothing changed."""
    return evals_and_offset(run)[0]


def evals_and_offset(run: RunDir) -> tuple[list[Record], int]:
    """All evaluations, and the bytes of `metrics.jsonl` they were read from."""
    follower: _Evaluations = _FOLLOWERS.get(run.path, lambda: _Evaluations(run))
    return follower.evals()


def last_step(run: RunDir) -> Record:
    """The newest record of a step; empty when there is none."""
    return next((r for r in reversed(tail(run.metrics)) if "loss" in r), {})


def objective_of(evals: Sequence[Record]) -> str | None:
    """The metric that the step is chosen by; None where none was measured."""
    return next((name for name in OBJECTIVES if any(name in record for record in evals)), None)
