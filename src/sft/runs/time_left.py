"""How long a run will still take, from its last steps and from all of its evaluations."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sft.runs.files import Record, number, whole
from sft.runs.state import step_seconds

NUM_STEPS = 20
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """Seconds until the last evaluation; `low` and `high` if all steps were fast, or slow."""

    seconds: float
    low: float
    high: float


def time_left(
    steps: Sequence[Record], evals: Sequence[Record], num_steps: int | None, every: int | None
) -> TimeLeft | None:
    """The time left of a run of `num_steps`, evaluated after `every` steps and after the last.

    `steps` are the newest records of steps, `evals` all those of evaluations. The median of the
    last 20 steps, and their 10 % and 90 % quantiles, times the steps left; and the mean time of an
    evaluation times those left. None before three steps, or where no step says how long it took.
    """
    recent = step_seconds(steps[-NUM_STEPS - 1 :])
    step = whole(steps[-1].get("step")) if steps else None
    if len(steps) < _FEWEST or not recent or step is None or num_steps is None:
        return None
    times = [t for evaluation in evals if (t := number(evaluation.get("eval_seconds"))) is not None]
    evaluated = {whole(evaluation.get("step")) for evaluation in evals}
    left = evals_left(step, num_steps, every, step in evaluated)
    aside = left * statistics.fmean(times) if times else 0.0
    ends = statistics.quantiles(recent, n=10, method="inclusive") if len(recent) > 1 else recent
    middle, low, high = statistics.median(recent), ends[0], ends[-1]
    seconds, least, most = (max(0, num_steps - step) * each + aside for each in (middle, low, high))
    return TimeLeft(seconds, least, most)


def evals_left(step: int, num_steps: int, every: int | None, evaluated: bool) -> int:
    """Evaluations to come after `step`; that of the step itself counts until it was `evaluated`."""
    every = every or num_steps
    first = step + 1 if evaluated or step == 0 else step
    due = num_steps // every - (first - 1) // every
    extra = num_steps % every != 0 and first <= num_steps
    return max(0, due) + extra
