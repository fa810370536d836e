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
    UNIT,
    Signal,
    alarm_level,
    compared,
    finite,
    grade,
    interval_of,
    rise_from_base,
)
from sft.guards.history import History, Table
from sft.guards.statistics import Paired, examples_needed, paired
from sft.guards.thresholds import FORGETTING_WATCH_SHARE, LARGEST_USEFUL_MDE, MIN_EXAMPLES
from sft.texts.numbers import figure, signed

NEVER = "no `retain` probe was scored; a run with `guards.enabled: true` has one"
REMEDY = (
    "blend the weights with those of the base model (`sft blend RUN`: no training), lower the "
    "learning rate, replay other data (`data.replay`), or hold on to the base model "
    "(`optim.retain_kl`)"
)


RETENTION = Signal("forgetting", "retention", UNIT, remedy=REMEDY, primary=True)
DRIFT = Signal("forgetting", "drift", UNIT)


def forgetting(history: History) -> list[Finding]:
    """Signals `retention` (primary; loss on `retain` against the budget) and `drift` (KL)."""
    table = compared(history.table("retain"), NEVER)
    if isinstance(table, str):
        return [RETENTION.not_measured(history, table)]
    budget, level = history.settings.forgetting_budget, alarm_level(history)
    verdict, now = rise_from_base(table.loss, budget, FORGETTING_WATCH_SHARE * budget, level)
    change = f"by {signed(now.mean)} {UNIT} from the base model"
    figures = f"({interval_of(now)}; budget {budget:g})"
    if verdict == "insufficient":
        message = f"Loss on `retain` changed {change}: {_why_insufficient(now, budget, level)}."
    elif verdict == "pass":
        message = (
            f"Loss on `retain` changed {change} {figures}; a rise of {figure(budget + now.mde)} "
            "would be detected four times in five."
        )
    elif verdict == "watch":
        where = "above" if now.mean > budget else "close to"
        rose = f"Loss on `retain` rose {change} {figures}"
        message = f"{rose}; {where} the budget, but not yet for certain."
    else:
        message = f"The model forgets: loss on `retain` rose {change} {figures}{_task(history)}."
    retention = RETENTION(history, verdict, message, now, threshold=budget)
    return [retention, _drift(history, table)]


def _why_insufficient(now: Paired, budget: float, level: float) -> str:
    if now.n < MIN_EXAMPLES:
        return f"{now.n} examples are too few to judge; at least {MIN_EXAMPLES} are needed"
    needed = examples_needed(now.sd, LARGEST_USEFUL_MDE, level)
    if finite(now.mde) is None:
        return f"{now.n} examples can never reach the required level; use about {needed}"
    return (
        f"with {now.n} examples only a rise of {budget + now.mde:.2f} or more would be detected; "
        f"use about {needed}"
    )


def _task(history: History) -> str:
    """What held-out loss on the task says meanwhile, which is why nobody notices."""
    val = compared(history.table("val"), "")
    if isinstance(val, str):
        return ""
    change = paired(val.loss[-1] - val.loss[0])
    if change.interval[1] < 0:
        return f", while val_loss improved by {figure(-change.mean)} and shows nothing of it"
    if change.interval[0] > 0:
        return f"; val_loss rose by {figure(change.mean)} as well"
    return ""


def _drift(history: History, table: Table) -> Finding:
    """Mean KL(base || now) per token on `retain`: less noise than the loss of the same texts."""
    budget = history.settings.forgetting_budget
    divergence = table.column("kl")[-1] / table.column("tokens")[-1]
    test = paired(divergence, budget, alarm_level(history))
    if test.n == 0:
        return DRIFT.not_measured(history, "no divergence from the base model was recorded")
    verdict = grade(test.n, watch=test.interval[0] > budget)
    message = f"KL(base || now) on `retain` is {figure(test.mean)} {UNIT}"
    few = verdict == "insufficient"
    message += "; too few texts." if few else f" ({interval_of(test)}; budget {budget:g})."
    return DRIFT(history, verdict, message, test, threshold=budget)
