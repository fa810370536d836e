"""A guard of your own in one file: are some validation rows left behind while the mean improves?

    sft train --data rows.jsonl --set "guards.custom=[examples/my_guard.py:left_behind]"

docs/extending.md explains what a guard gets and returns.
"""

from __future__ import annotations

import numpy as np

from sft.guards.base import Finding, Verdict
from sft.guards.history import History
from sft.guards.statistics import clopper_pearson

NAME = "left_behind"
LIMIT = 0.25  # share of the validation rows that may get worse


def left_behind(history: History) -> list[Finding]:
    """Share of `val` rows whose loss rose by more than the margin since the base model."""
    val = history.table("val")
    if val is None or len(val.steps) < 2 or val.steps[0] != 0:
        text = "Not measured: it takes validation rows, scored before and after training."
        return [Finding(NAME, "rows", "not_measured", history.newest, text)]
    now, n, (low, high) = worse(history, -1)
    before = len(val.steps) > 2 and worse(history, -2)[2][0] > LIMIT
    verdict: Verdict = "pass"
    if low > LIMIT:
        verdict = "alarm" if before else "watch"  # twice in a row, or it may be chance
    elif high > LIMIT:
        verdict = "insufficient"  # the interval holds the limit: these rows cannot tell
    return [
        Finding(
            NAME,
            "rows",
            verdict,
            val.steps[-1],
            f"{now:.0%} of {n} validation rows are worse than before training "
            f"(95 % interval {low:.0%} to {high:.0%}; limit {LIMIT:.0%})",
            statistic=now,
            threshold=LIMIT,
            interval=(low, high),
            n=n,
            unit="share",
            remedy="--set optim.epochs=1" if verdict in ("watch", "alarm") else "",
        )
    ]


def worse(history: History, evaluation: int) -> tuple[float, int, tuple[float, float]]:
    """Share of rows that got worse by row `evaluation` of the table, their number, and its
    interval.
    """
    val = history.tables["val"]
    change = val.loss[evaluation] - val.loss[0]  # [num_rows], nats per token
    change = change[np.isfinite(change)]
    k, n = int((change > history.settings.margin).sum()), len(change)
    return k / max(n, 1), n, clopper_pearson(k, n)
