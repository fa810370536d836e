"""All guards over one history: their findings, the verdict of each guard, and what to tell first.

To add a guard, write a module with a function of its name and enter it in `GUARDS`
(docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sft.guards.attribution import attribute, causes
from sft.guards.base import Finding, weight
from sft.guards.distribution_mismatch import distribution_mismatch
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
# Between alarms of which none explains another: what voids the others' figures comes first.
PRIORITY = ("health", "overfitting", "format_collapse", "distribution_mismatch", "forgetting")


def judge(history: History) -> list[Finding]:
    """What every guard says after the newest evaluation, with overlapping signals attributed."""
    findings = [finding for guard in GUARDS.values() for finding in guard(history)]
    return attribute(findings, history)


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
