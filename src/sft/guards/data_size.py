"""What the rows promise before training: distinct rows, repeats, leaks and power.

Part of the guard `overfitting`; judged from `preflight["rows"]`, which curate/ measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.history import History
from sft.guards.statistics import corrected_level, examples_needed, minimum_detectable_effect

_SIGNALS = ("effective_size", "repeats", "leak", "power")
# Paired sd of val loss once a run has moved, in nats per token (measured, docs/guards.md). A run
# measures its own; this one serves before there is an evaluation.
TYPICAL_SD = 0.13


def data_size(history: History) -> list[Finding]:
    """`effective_size`, `repeats`, `leak` and `power`; only a leak is primary, and only if found.

    A leak makes the validation curve blind, so it alarms whatever the curve says. The others
    say what is likely, not what happened: they stay evidence.
    """
    rows = history.preflight.get("rows")
    if not rows:
        text = "The rows were not examined before training: not measured."
        return [_finding(history, signal, "not_measured", text) for signal in _SIGNALS]
    return [judge(history, rows) for judge in (_effective_size, _repeats, _leak, _power)]


def leaks(history: History) -> int:
    """How many pairs of a validation and a training row are near-duplicates; 0 if not measured."""
    return int((history.preflight.get("rows") or {}).get("num_leaks") or 0)


def leaked_rows(history: History) -> set[str]:
    """Ids of the validation rows that are known to be in training too."""
    return {pair["val"] for pair in (history.preflight.get("rows") or {}).get("leaks") or ()}


def _finding(history: History, signal: str, verdict: Verdict, message: str) -> Finding:
    step = history.eval_steps[-1] if history.eval_steps else history.step
    return Finding("overfitting", signal, verdict, step, message, primary=False)


def _effective_size(history: History, rows: Mapping[str, Any]) -> Finding:
    share = rows["effective"] / max(rows["train"], 1)
    verdict: Verdict = "pass"
    if share < thresholds.EFFECTIVE_SHARE_WATCH:
        verdict = "watch"
    if share < thresholds.EFFECTIVE_SHARE_ALARM:
        verdict = "alarm"
    message = f"{rows['train']} training rows count as {rows['effective']:.0f} distinct ones"
    finding = _finding(history, "effective_size", verdict, message)
    return replace(
        finding,
        statistic=share,
        threshold=thresholds.EFFECTIVE_SHARE_WATCH,
        n=int(rows["train"]),
        unit="distinct share of rows",
        remedy="" if verdict == "pass" else "--set data.deduplicate=true",
    )


def _repeats(history: History, rows: Mapping[str, Any]) -> Finding:
    repeats = float(rows["repeats"])
    few = rows["effective"] < thresholds.SMALL_DATA
    verdict: Verdict = "watch" if repeats > thresholds.REPEATS_WATCH else "pass"
    if repeats > thresholds.REPEATS_ALARM and few:
        verdict = "alarm"
    message = (
        f"the plan visits each distinct row {repeats:.1f} times; up to "
        f"{thresholds.REPEATS_WATCH:g} is usually harmless"
    )
    finding = _finding(history, "repeats", verdict, message)
    return replace(
        finding,
        statistic=repeats,
        threshold=thresholds.REPEATS_WATCH,
        n=int(rows["train"]),
        unit="visits per distinct row",
        remedy="" if verdict == "pass" else "--set optim.epochs=1, or add rows",
    )


def _leak(history: History, rows: Mapping[str, Any]) -> Finding:
    found, val = leaks(history), int(rows["val"])
    if not val:
        return _finding(history, "leak", "not_measured", "There are no validation rows.")
    if not found:
        finding = _finding(history, "leak", "pass", f"None of {val} val rows is in training too")
        return replace(finding, statistic=0.0, threshold=0.0, n=val, unit="rows")
    pairs = [f"{pair['val']} = {pair['train']}" for pair in rows.get("leaks") or ()]
    message = (
        f"{found} of {val} validation rows are in training too ({', '.join(pairs[:3])}): "
        "validation loss rewards learning by heart"
    )
    return replace(
        _finding(history, "leak", "alarm", message),
        statistic=float(found),
        threshold=0.0,
        n=val,
        unit="rows",
        remedy="Take their near-copies out of training: --set data.deduplicate=true",
        primary=True,
        acts=False,
    )


def _power(history: History, rows: Mapping[str, Any]) -> Finding:
    val, settings = int(rows["val"]), history.settings
    if not val:
        return _finding(history, "power", "not_measured", "There are no validation rows.")
    level = corrected_level(settings.alpha, settings.num_evals, thresholds.NUM_ALARMS)
    mde = minimum_detectable_effect(TYPICAL_SD, val, level)
    enough = mde <= thresholds.LARGEST_USEFUL_MDE
    needed = examples_needed(TYPICAL_SD, thresholds.LARGEST_USEFUL_MDE, level)
    message = (
        f"{val} validation rows will typically show a rise of {mde:.2f} nats per token above the "
        "margin"
    )
    if not enough:
        message = f"{val} validation rows are few: about {needed} would show a rise of 0.1"
    finding = _finding(history, "power", "pass" if enough else "insufficient", message)
    return replace(
        finding,
        statistic=mde if mde < float("inf") else None,
        threshold=thresholds.LARGEST_USEFUL_MDE,
        n=val,
        unit="nats per token",
        remedy="" if enough else f"Hold {needed} rows back (data.val_fraction or data.val)",
    )
