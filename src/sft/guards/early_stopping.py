"""When to end a run: validation loss has stopped falling, or rises."""

from __future__ import annotations

import math
from collections.abc import Sequence


def reason_to_stop(
    evals: Sequence[tuple[int, float]], *, margin: float, patience: int, name: str = "val_loss"
) -> str | None:
    """A sentence when the run should end, else None.

    `evaluations` are `(step, loss)` in order, the one at step 0 included. The run ends when none
    of the last `patience` evaluations is better, by more than `margin`, than the best before them.
    A loss that is not a number is worse than any other.
    """
    if len(evals) <= patience:
        return None
    evals = [(step, math.inf if math.isnan(loss) else loss) for step, loss in evals]
    before, recent = evals[:-patience], evals[-patience:]
    step, best = min(before, key=lambda evaluation: evaluation[1])
    if min(loss for _, loss in recent) < best - margin:
        return None
    if all(loss > best + margin for _, loss in recent):
        return (
            f"{name} rose: {recent[-1][1]:.4f} now, {best:.4f} at step {step}, and above it by "
            f"more than {margin:g} in {patience} evaluations in a row"
        )
    return (
        f"{name} is on a plateau: no evaluation of the last {patience} is better than the "
        f"{best:.4f} of step {step} by more than {margin:g}"
    )


def best_eval(
    evals: Sequence[tuple[int, float]], over_budget: Sequence[int] = ()
) -> tuple[int, float] | None:
    """The trained evaluation (step above 0) with the lowest loss; the earliest of equals.

    Evaluations in `over_budget` forgot more than is allowed: they count only where all did.
    """
    trained = [
        evaluation for evaluation in evals if evaluation[0] > 0 and not math.isnan(evaluation[1])
    ]
    allowed = [evaluation for evaluation in trained if evaluation[0] not in over_budget]
    return min(allowed or trained, key=lambda evaluation: evaluation[1], default=None)
