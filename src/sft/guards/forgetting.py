"""Has the model become worse at what the base model could do, while it learns the task?

Held-out loss on the task cannot answer that: it may fall while everything else is lost, and
stopping early by it does not help (Kalajdzievski 2024, arXiv 2401.05605). The `retain` probe is
text that the task never touches. On text sampled from the base model the rise of its loss is an
unbiased estimate of the divergence KL(base || now), the quantity that forgetting follows
(arXiv 2509.04259, 2607.04364).
"""

from __future__ import annotations

from sft.guards.base import Finding
from sft.guards.evaluations import (
    Rise,
    alarm_level,
    bounded,
    known,
    newest,
    no_change_yet,
    rise_from_base,
    span,
)
from sft.guards.history import History, Table
from sft.guards.statistics import examples_needed, paired
from sft.guards.thresholds import FORGETTING_WATCH_SHARE, LARGEST_USEFUL_MDE, MIN_EXAMPLES

GUARD = "forgetting"
NEVER = "no `retain` probe was scored; a run with `guards.enabled: true` has one"
REMEDY = (
    "blend the weights with those of the base model (`sft blend RUN`: no training), lower the "
    "learning rate, replay other data (`data.replay`), or hold on to the base model "
    "(`optim.retain_kl`)"
)


def forgetting(history: History) -> list[Finding]:
    """Signals `retention` (primary; loss on `retain` against the budget) and `drift` (KL)."""
    table, step = history.table("retain"), newest(history)
    if table is None or (why := no_change_yet(table, NEVER)):
        why = NEVER if table is None else why
        return [Finding(GUARD, "retention", "not_measured", step, f"Not measured: {why}.")]
    return [_retention(history, table, step), _drift(history, table, step)]


def _retention(history: History, table: Table, step: int) -> Finding:
    budget = history.settings.forgetting_budget
    level = alarm_level(history)
    rise = rise_from_base(table.loss, budget, FORGETTING_WATCH_SHARE * budget, level)
    now, verdict = rise.now, rise.verdict
    return Finding(
        GUARD,
        "retention",
        verdict,
        step,
        _retention_message(history, rise),
        statistic=now.mean,
        threshold=budget,
        interval=bounded(now.interval),
        mde=known(now.mde),
        n=now.n,
        unit="nats/token",
        remedy=REMEDY if verdict in ("watch", "alarm") else "",
    )


def _retention_message(history: History, rise: Rise) -> str:
    now, budget = rise.now, history.settings.forgetting_budget
    measured = f"{now.mean:+.3f} nats per token from the base model"
    if rise.verdict == "insufficient":
        return f"Loss on `retain` moved by {measured}: {_why_insufficient(rise, budget)}."
    measured += f" ({span(now.interval)}; budget {budget:g})"
    if rise.verdict == "pass":
        return (
            f"Loss on `retain` moved by {measured}; a rise of {budget + now.mde:.3f} would have "
            "been found four times in five."
        )
    if rise.verdict == "watch":
        state = "above" if now.mean > budget else "near"
        return f"Loss on `retain` rises: {measured}; {state} the budget, not yet for sure."
    return f"The model forgets: loss on `retain` rose by {measured}{_task(history)}."


def _why_insufficient(rise: Rise, budget: float) -> str:
    now = rise.now
    if now.n < MIN_EXAMPLES:
        return f"{now.n} examples are too few to judge, {MIN_EXAMPLES} are the least"
    needed = examples_needed(now.sd, LARGEST_USEFUL_MDE, rise.level)
    return (
        f"with {now.n} examples only a rise of {budget + now.mde:.2f} or more would be found; "
        f"use about {needed}"
        if known(now.mde) is not None
        else f"{now.n} examples can never reach the level asked for; use about {needed}"
    )


def _task(history: History) -> str:
    """What held-out loss on the task says meanwhile, which is why nobody notices."""
    val = history.table("val")
    if val is None or no_change_yet(val, ""):
        return ""
    change = paired(val.loss[-1] - val.loss[0])
    if change.interval[1] < 0:
        return f", while loss on `val` improved by {-change.mean:.3f} and shows nothing of it"
    if change.interval[0] > 0:
        return f"; loss on `val` rose by {change.mean:.3f} as well"
    return ""


def _drift(history: History, table: Table, step: int) -> Finding:
    """Mean KL(base || now) per token on `retain`: less noise than the loss of the same texts."""
    budget = history.settings.forgetting_budget
    divergence = table.column("kl")[-1] / table.column("tokens")[-1]
    found = paired(divergence, budget, alarm_level(history))
    if found.n == 0:
        message = "Not measured: no divergence from the base model was recorded."
        return Finding(GUARD, "drift", "not_measured", step, message, primary=False)
    few = found.n < MIN_EXAMPLES
    drifted = found.interval[0] > budget
    message = f"KL(base || now) on `retain` is {found.mean:.3f} nats per token"
    message += f" ({span(found.interval)}; budget {budget:g})." if not few else "; too few texts."
    return Finding(
        GUARD,
        "drift",
        "insufficient" if few else "watch" if drifted else "pass",
        step,
        message,
        statistic=found.mean,
        threshold=budget,
        interval=bounded(found.interval),
        mde=known(found.mde),
        n=found.n,
        unit="nats/token",
        primary=False,
    )
