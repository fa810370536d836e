"""What the rows promise before training: distinct rows, repeats, leaks and power.

Part of the guard `overfitting`; judged from `preflight["rows"]`, which curate/ measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.evaluations import UNIT, finite, newest, not_measured
from sft.guards.history import History
from sft.guards.statistics import corrected_level, examples_needed, minimum_detectable_effect

GUARD = "overfitting"
_SIGNALS = ("effective_size", "repeats", "leak", "power")
_NO_VAL = "there are no validation rows"
# Paired sd of val loss once a run has moved, in nats per token (measured, docs/guards.md). A run
# measures its own; this one serves before there is an evaluation.
TYPICAL_SD = 0.13

_evidence = partial(Finding, GUARD, primary=False)


def data_size(history: History) -> list[Finding]:
    """`effective_size`, `repeats`, `leak` and `power`; only a leak is primary, and only if found.

    A leak makes the validation curve blind, so it alarms whatever the curve says. The others
    say what is likely, not what happened: they stay evidence.
    """
    rows, step = history.preflight.get("rows"), newest(history)
    if not rows:
        why = "the rows were not examined before training"
        return [not_measured(GUARD, signal, step, why) for signal in _SIGNALS]
    return [judge(history, rows, step) for judge in (_effective_size, _repeats, _leak, _power)]


def leaks(history: History) -> int:
    """How many pairs of a validation and a training row are near-duplicates; 0 if not measured."""
    return int((history.preflight.get("rows") or {}).get("num_leaks") or 0)


def leaked_rows(history: History) -> set[str]:
    """Ids of the validation rows that are known to be in training too."""
    return {pair["val"] for pair in (history.preflight.get("rows") or {}).get("leaks") or ()}


def _effective_size(_: History, rows: Mapping[str, Any], step: int) -> Finding:
    share = rows["effective"] / max(rows["train"], 1)
    verdict: Verdict = "watch" if share < thresholds.EFFECTIVE_SHARE_WATCH else "pass"
    if share < thresholds.EFFECTIVE_SHARE_ALARM:
        verdict = "alarm"
    return _evidence(
        "effective_size",
        verdict,
        step,
        f"{rows['train']} training rows are worth {rows['effective']:.0f} distinct ones",
        statistic=share,
        threshold=thresholds.EFFECTIVE_SHARE_WATCH,
        n=int(rows["train"]),
        unit="distinct share of rows",
        remedy="" if verdict == "pass" else "--set data.deduplicate=true",
    )


def _repeats(_: History, rows: Mapping[str, Any], step: int) -> Finding:
    repeats = float(rows["repeats"])
    few = rows["effective"] < thresholds.SMALL_DATA
    verdict: Verdict = "watch" if repeats > thresholds.REPEATS_WATCH else "pass"
    if repeats > thresholds.REPEATS_ALARM and few:
        verdict = "alarm"
    return _evidence(
        "repeats",
        verdict,
        step,
        f"The plan visits each distinct row {repeats:.1f} times; up to "
        f"{thresholds.REPEATS_WATCH:g} times is usually harmless",
        statistic=repeats,
        threshold=thresholds.REPEATS_WATCH,
        n=int(rows["train"]),
        unit="visits per distinct row",
        remedy="" if verdict == "pass" else "--set optim.epochs=1, or add rows",
    )


def _leak(history: History, rows: Mapping[str, Any], step: int) -> Finding:
    num_leaks, val = leaks(history), int(rows["val"])
    if not val:
        return not_measured(GUARD, "leak", step, _NO_VAL)
    message = f"None of {val} validation rows is in training too"
    if num_leaks:
        pairs = [f"{pair['val']} = {pair['train']}" for pair in rows.get("leaks") or ()]
        message = (
            f"{num_leaks} of {val} validation rows are in training too ({', '.join(pairs[:3])}): "
            "validation loss rewards learning by heart"
        )
    return Finding(
        GUARD,
        "leak",
        "alarm" if num_leaks else "pass",
        step,
        message,
        statistic=float(num_leaks),
        threshold=0.0,
        n=val,
        unit="rows",
        remedy="Take their near-copies out of training: --set data.deduplicate=true"
        if num_leaks
        else "",
        primary=bool(num_leaks),
        acts=not num_leaks,
    )


def _power(history: History, rows: Mapping[str, Any], step: int) -> Finding:
    val, settings = int(rows["val"]), history.settings
    if not val:
        return not_measured(GUARD, "power", step, _NO_VAL)
    level = corrected_level(settings.alpha, settings.num_evals, thresholds.NUM_ALARMS)
    mde = minimum_detectable_effect(TYPICAL_SD, val, level)
    enough = mde <= thresholds.LARGEST_USEFUL_MDE
    needed = examples_needed(TYPICAL_SD, thresholds.LARGEST_USEFUL_MDE, level)
    return _evidence(
        "power",
        "pass" if enough else "insufficient",
        step,
        f"{val} validation rows can typically detect a rise of {mde:.2f} {UNIT} above the margin"
        if enough
        else f"{val} validation rows are few: about {needed} are needed to detect a rise of "
        f"{thresholds.LARGEST_USEFUL_MDE:g} {UNIT}",
        statistic=finite(mde),
        threshold=thresholds.LARGEST_USEFUL_MDE,
        n=val,
        unit=UNIT,
        remedy="" if enough else f"Hold {needed} rows back (data.val_fraction or data.val)",
    )
