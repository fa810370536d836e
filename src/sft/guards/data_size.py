"""What the rows promise before training: distinct rows, repeats, leaks and power.

Part of the guard `overfitting`; judged from `preflight["rows"]`, which curate/ measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.guards import thresholds
from sft.guards.base import Finding
from sft.guards.evaluations import UNIT, Signal, grade
from sft.guards.history import History
from sft.guards.statistics import corrected_level, examples_needed, minimum_detectable_effect

EFFECTIVE_SIZE = Signal(
    "overfitting",
    "effective_size",
    "distinct share of rows",
    thresholds.EFFECTIVE_SHARE_WATCH,
    remedy="--set data.deduplicate=true",
)
REPEATS = Signal(
    "overfitting",
    "repeats",
    "visits per distinct row",
    thresholds.REPEATS_WATCH,
    remedy="--set optim.epochs=1, or add rows",
)
LEAK = Signal(
    "overfitting",
    "leak",
    "rows",
    0.0,
    remedy="Take their near-copies out of training: --set data.deduplicate=true",
)
POWER = Signal("overfitting", "power", UNIT, thresholds.LARGEST_USEFUL_MDE)
_NO_VAL = "there are no validation rows"
# Paired sd of val loss once a run has moved, in nats per token (measured, docs/guards.md). A run
# measures its own; this one serves before there is an evaluation.
TYPICAL_SD = 0.13


def data_size(history: History) -> list[Finding]:
    """`effective_size`, `repeats`, `leak` and `power`; only a leak is primary, and only if there.

    A leak makes the validation curve blind, so it alarms whatever the curve says. The others
    say what is likely, not what happened: they stay evidence.
    """
    rows = history.preflight.get("rows")
    if not rows:
        why = "the rows were not examined before training"
        signals = (EFFECTIVE_SIZE, REPEATS, LEAK, POWER)
        return [signal.not_measured(history, why) for signal in signals]
    return [judge(history, rows) for judge in (_effective_size, _repeats, _leak, _power)]


def leaks(history: History) -> int:
    """How many pairs of a validation and a training row are near-duplicates; 0 if not measured."""
    return int((history.preflight.get("rows") or {}).get("num_leaks") or 0)


def leaked_rows(history: History) -> set[str]:
    """Ids of the validation rows that are known to be in training too."""
    return {pair["val"] for pair in (history.preflight.get("rows") or {}).get("leaks") or ()}


def _effective_size(history: History, rows: Mapping[str, Any]) -> Finding:
    n = int(rows["train"])
    share = rows["effective"] / max(n, 1)
    verdict = grade(
        alarm=share < thresholds.EFFECTIVE_SHARE_ALARM,
        watch=share < thresholds.EFFECTIVE_SHARE_WATCH,
    )
    message = f"{n} training rows are worth {rows['effective']:.0f} distinct ones"
    return EFFECTIVE_SIZE(history, verdict, message, statistic=share, n=n)


def _repeats(history: History, rows: Mapping[str, Any]) -> Finding:
    repeats, few = float(rows["repeats"]), rows["effective"] < thresholds.SMALL_DATA
    verdict = grade(
        alarm=repeats > thresholds.REPEATS_ALARM and few, watch=repeats > thresholds.REPEATS_WATCH
    )
    message = (
        f"The plan visits each distinct row {repeats:.1f} times; up to "
        f"{thresholds.REPEATS_WATCH:g} times is usually harmless"
    )
    return REPEATS(history, verdict, message, statistic=repeats, n=int(rows["train"]))


def _leak(history: History, rows: Mapping[str, Any]) -> Finding:
    num_leaks, n = leaks(history), int(rows["val"])
    if not n:
        return LEAK.not_measured(history, _NO_VAL)
    if not num_leaks:
        message = f"None of {n} validation rows is in training too"
        return LEAK(history, "pass", message, statistic=0.0, n=n)
    pairs = [f"{pair['val']} = {pair['train']}" for pair in rows.get("leaks") or ()]
    message = (
        f"{num_leaks} of {n} validation rows are in training too ({', '.join(pairs[:3])}): "
        "validation loss rewards learning by heart"
    )
    return LEAK(history, "alarm", message, statistic=num_leaks, n=n, primary=True, acts=False)


def _power(history: History, rows: Mapping[str, Any]) -> Finding:
    n, settings = int(rows["val"]), history.settings
    if not n:
        return POWER.not_measured(history, _NO_VAL)
    level = corrected_level(settings.alpha, settings.num_evals, thresholds.NUM_ALARMS)
    mde = minimum_detectable_effect(TYPICAL_SD, n, level)
    if mde <= thresholds.LARGEST_USEFUL_MDE:
        effect = f"a rise of {mde:.2f} {UNIT} above the margin"
        message = f"{n} validation rows can typically detect {effect}"
        return POWER(history, "pass", message, statistic=mde, n=n)
    needed = examples_needed(TYPICAL_SD, thresholds.LARGEST_USEFUL_MDE, level)
    message = (
        f"{n} validation rows are few: about {needed} are needed to detect a rise of "
        f"{thresholds.LARGEST_USEFUL_MDE:g} {UNIT}"
    )
    remedy = f"Hold {needed} rows back (data.val_fraction or data.val)"
    return POWER(history, "insufficient", message, statistic=mde, n=n, remedy=remedy)
