"""When to end a run: validation loss has stopped falling, or rises."""

from __future__ import annotations

import math
from collections.abc import Sequence


def reason_to_stop(
    looks: Sequence[tuple[int, float]], *, margin: float, patience: int, name: str = "val_loss"
) -> str | None:
    """A sentence when the run should end, else None.

    `looks` are `(step, loss)` in order, the one at step 0 included. The run ends when none
    of the last `patience` looks is better, by more than `margin`, than the best before them.
    A loss that is not a number is worse than any other.
    """
    if len(looks) <= patience:
        return None
    looks = [(step, math.inf if math.isnan(loss) else loss) for step, loss in looks]
    before, recent = looks[:-patience], looks[-patience:]
    step, best = min(before, key=lambda look: look[1])
    if min(loss for _, loss in recent) < best - margin:
        return None
    if all(loss > best + margin for _, loss in recent):
        return (
            f"{name} rose: {recent[-1][1]:.4f} now, {best:.4f} at step {step}, and above it by "
            f"more than {margin:g} in {patience} looks in a row"
        )
    return (
        f"{name} is on a plateau: no look of the last {patience} is better than the "
        f"{best:.4f} of step {step} by more than {margin:g}"
    )


def best_look(
    looks: Sequence[tuple[int, float]], over_budget: Sequence[int] = ()
) -> tuple[int, float] | None:
    """The trained look (step above 0) with the lowest loss; the earliest of equals.

    Looks in `over_budget` forgot more than is allowed: they count only where all did.
    """
    trained = [look for look in looks if look[0] > 0 and not math.isnan(look[1])]
    allowed = [look for look in trained if look[0] not in over_budget]
    return min(allowed or trained, key=lambda look: look[1], default=None)
