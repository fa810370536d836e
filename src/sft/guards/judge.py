"""All guards over one history: their findings, the verdict of each guard, and what to tell first.

To add a guard, write a module with a function of its name and enter it in `GUARDS`
(docs/extending.md). A user's own are handed to `judge` besides.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from sft.guards.attribution import attribute, causes
from sft.guards.base import SEVERITY, Finding, weight
from sft.guards.distribution_mismatch import distribution_mismatch
from sft.guards.evaluations import Signal
from sft.guards.forgetting import forgetting
from sft.guards.format_collapse import format_collapse
from sft.guards.health import health
from sft.guards.history import History
from sft.guards.overfitting import overfitting

Guard = Callable[[History], list[Finding]]

GUARDS: dict[str, Guard] = {
    "overfitting": overfitting,
    "format_collapse": format_collapse,
    "distribution_mismatch": distribution_mismatch,
    "forgetting": forgetting,
    "health": health,
}
FAILED = "failed"  # the signal of a user's guard that raised an error
# Between alarms of which none explains another: what voids the others' figures comes first.
PRIORITY = ("health", "overfitting", "format_collapse", "distribution_mismatch", "forgetting")


def judge(history: History, own: Mapping[str, Guard] = MappingProxyType({})) -> list[Finding]:
    """What every guard says after the newest evaluation, with overlapping signals attributed.

    `own` are guards of the user's, by name. One that fails is not measured: see `FAILED`.
    """
    findings = [finding for guard in GUARDS.values() for finding in guard(history)]
    findings += [finding for name in own for finding in _judge_own(name, own[name], history)]
    return attribute(findings, history)


def _judge_own(name: str, guard: Guard, history: History) -> list[Finding]:
    """The findings of a guard that we did not write; a mistake in it must not end a training."""
    try:
        findings = list(guard(history))
        for finding in findings:
            if not isinstance(finding, Finding) or finding.verdict not in SEVERITY:
                raise TypeError(f"expected sft.guards.base.Finding, found {finding!r:.80}")
        if not any(finding.primary for finding in findings):
            raise ValueError("expected at least one finding with primary=True, found none")
        return [replace(finding, guard=name) for finding in findings]
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if frame.filename == __file__ else f"{frame.filename}:{frame.lineno}: "
        why = f"the guard failed: {where}{type(error).__name__}: {error}"
        return [Signal(name, FAILED, primary=True).not_measured(history, why)]


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """The primary alarms, causes before what they explain; a guard's own, the gravest first."""
    alarms = [f for f in findings if f.primary and f.verdict == "alarm"]
    left = sorted({f.guard for f in alarms}, key=_priority)
    order: list[str] = []
    while left:
        # Causes are of this list, so a circle of causes cannot hold it up.
        known = causes(findings)
        guard = min(left, key=lambda name: (len(known.get(name, set()) & {*left}), _priority(name)))
        order.append(guard)
        left.remove(guard)
    return sorted(alarms, key=lambda f: (order.index(f.guard), *(-w for w in weight(f))))


def _priority(guard: str) -> tuple[int, str]:
    return (PRIORITY.index(guard) if guard in PRIORITY else len(PRIORITY), guard)
