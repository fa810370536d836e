"""The evaluations of a run, kept up to date as its records grow; records of steps are passed
over.
"""

from __future__ import annotations

from collections.abc import Sequence

from sft.runs.files import Following, Kept, Record, number, section, whole
from sft.runs.run_dir import RunDir
from sft.runs.state import summary_of, tail

OBJECTIVES = ("usage_loss", "val_loss")  # the first that was measured chooses the step


def is_eval(record: Record) -> bool:
    """Whether a record of `metrics.jsonl` is of an evaluation; runs of old have no
    `eval_seconds`.
    """
    return "loss" not in record and ("eval_seconds" in record or "epoch" in record)


class Measured(Following):
    """The records of evaluations, in order; what is scored after the end is added to that of its
    step.
    """

    def __init__(self, run: RunDir) -> None:
        super().__init__(run.metrics, keep=_not_of_a_step)
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


_HELD = Kept(256)


def _not_of_a_step(line: bytes) -> bool:
    return b'"loss":' not in line


def evals_of(run: RunDir) -> list[Record]:
    """All evaluations of a run so far; quick when nothing changed."""
    return evals_and_offset(run)[0]


def evals_and_offset(run: RunDir) -> tuple[list[Record], int]:
    """All evaluations, and the bytes of `metrics.jsonl` they were read from."""
    return _HELD.get(run.path, lambda: Measured(run)).evals()


def last_step(run: RunDir) -> Record:
    """The newest record of a step; empty when there is none."""
    return next((r for r in reversed(tail(run.metrics)) if "loss" in r), {})


def objective_of(evals: Sequence[Record]) -> str | None:
    """The metric that the step is chosen by; None where none was measured."""
    return next(
        (name for name in OBJECTIVES if any(name in evaluation for evaluation in evals)), None
    )


def best_of(run: RunDir, evals: Sequence[Record]) -> tuple[int | None, Record]:
    """The step whose weights are handed back, and its evaluation; before the end the best
    evaluation so far.
    """
    summary = summary_of(run)
    chosen = whole(summary.get("best_step"))
    if chosen is not None:
        known = next((evaluation for evaluation in evals if evaluation.get("step") == chosen), {})
        return chosen, {**known, **section(summary, "best")}
    name = objective_of(evals)
    scored = [
        (loss, evaluation)
        for evaluation in evals
        if name
        and (whole(evaluation.get("step")) or 0) > 0
        and (loss := number(evaluation.get(name))) is not None
    ]
    if not scored:
        return None, {}
    best = min(scored, key=lambda pair: pair[0])[1]
    return whole(best.get("step")), best
