"""One cause raises several alarms; which is the cause is read off sizes that were measured.

A collapsed opener costs the loss of every answer that should open otherwise. Learning four rows by
heart damages everything else. A learning rate that is too high damages usage along with the rest.
Each rule compares, in nats, what the cause can account for with what was seen. What has been
explained away is lowered to `watch`: it stays in the record, but its guard does not claim it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sft.guards.base import Finding
from sft.guards.evaluations import mean
from sft.guards.format_collapse import opener_probe, shallow_ratio
from sft.guards.history import History
from sft.guards.thresholds import EXPLAINED_SHARE, SHALLOW_KL_WATCH

OPENER = "format_collapse.opener"
RISE = "overfitting.paired_rise"
RETENTION = "forgetting.retention"
HARM = "distribution_mismatch.harm"
TRANSFER = "distribution_mismatch.transfer"


@dataclass(frozen=True, slots=True)
class Link:
    """`cause` accounts for `effect`, because `why`; `lowers`: the effect is no alarm of its own."""

    cause: str
    effect: str
    why: str
    lowers: bool


Rule = Callable[[Mapping[str, Finding], History], list[Link]]


def name_of(finding: Finding) -> str:
    """`guard.signal`, as in `Finding.explains`."""
    return f"{finding.guard}.{finding.signal}"


def attribute(findings: Sequence[Finding], history: History) -> list[Finding]:
    """The findings, each cause with what it explains, each effect lowered where it is no more."""
    alarms = {name_of(f): f for f in findings if f.primary and f.verdict == "alarm"}
    links: dict[str, Link] = {}  # by effect: only the first cause that accounts for it counts
    for link in (link for rule in RULES for link in rule(alarms, history)):
        links.setdefault(link.effect, link)
    return [_attributed(finding, list(links.values())) for finding in findings]


def causes(findings: Sequence[Finding]) -> dict[str, set[str]]:
    """For each guard the other guards whose alarms explain a signal of it."""
    by_guard: dict[str, set[str]] = {}
    for finding in findings:
        for effect in finding.explains:
            guard = effect.partition(".")[0]
            if guard != finding.guard:
                by_guard.setdefault(guard, set()).add(finding.guard)
    return by_guard


def _attributed(finding: Finding, links: Sequence[Link]) -> Finding:
    name = name_of(finding)
    if not finding.primary:
        return finding
    explains = [link for link in links if link.cause == name]
    explained = [link for link in links if link.effect == name]
    message = finding.message
    if explains:
        effects = "; ".join(f"{link.effect} ({link.why})" for link in explains)
        message = f"{message.rstrip('.')}. It also explains {effects}."
    for link in explained:
        message = f"{message.rstrip('.')}. Explained by {link.cause}: {link.why}."
    lowered = any(link.lowers for link in explained) and finding.verdict == "alarm"
    return replace(
        finding,
        message=message,
        verdict="watch" if lowered else finding.verdict,
        explains=(*finding.explains, *(link.effect for link in explains)),
    )


# ------------------------------------------------------------------ what was measured


def _size(alarms: Mapping[str, Finding], name: str) -> float:
    """The rise that an alarm reports, in nats per token; NaN when it does not alarm."""
    finding = alarms.get(name)
    return math.nan if finding is None or finding.statistic is None else finding.statistic


def opener_cost(history: History, probe: str) -> float:
    """What the collapsed opener adds to the nll of one answer of `probe`, in nats; NaN if unknown.

    KL(base || now) at the first answer token is what that token costs more where answers open as
    the base model's would. References that open as the model now does cost nothing.
    """
    judged = history.table(opener_probe(history))
    table = history.table(probe)
    if judged is None or table is None:
        return math.nan
    cost, token = mean(judged.column("kl_first")[-1]), mean(judged.column("first_token")[-1])
    labels = table.column("first_label")[-1]
    labels = labels[np.isfinite(labels)]
    return cost * float((labels != token).mean()) if len(labels) else cost


def _paid_by_opener(history: History, probe: str, rise: float) -> str:
    """Why the opener accounts for a `rise` per token on `probe`; empty when it does not."""
    table = history.table(probe)
    cost = opener_cost(history, probe)
    if table is None or math.isnan(cost) or math.isnan(rise):
        return ""
    whole = rise * mean(table.column("tokens")[-1])
    if cost < EXPLAINED_SHARE * whole or cost <= 0:
        return ""
    if whole <= 0:
        return f"the opener alone costs {cost:.1f} nats per answer, without it loss would fall more"
    return f"the opener alone costs {cost:.1f} nats per answer, the whole rise is {whole:.1f}"


def _ratio(history: History) -> float | None:
    """How much further the first answer token moved than the next; None if not recorded."""
    table = history.table(opener_probe(history))
    ratio = shallow_ratio(table) if table is not None else None
    return None if ratio is None else ratio[0]


# ------------------------------------------------------------------ rules


def by_opener(alarms: Mapping[str, Finding], history: History) -> list[Link]:
    """A collapsed opener explains a rise that is no larger than what that one token costs.

    Not one on `retain`, whose texts do not begin where an answer does.
    """
    if OPENER not in alarms:
        return []
    links = []
    for effect, probe in ((RISE, "val"), (HARM, "usage")):
        if why := _paid_by_opener(history, probe, _size(alarms, effect)):
            links.append(Link(OPENER, effect, why, lowers=True))
    table = history.table("usage")
    if TRANSFER in alarms and table is not None and (_ratio(history) or 0) > SHALLOW_KL_WATCH:
        change = mean(table.loss[-1] - table.loss[0])
        if why := _paid_by_opener(history, "usage", change):
            links.append(Link(OPENER, TRANSFER, why, lowers=True))
    return links


def by_overfitting(alarms: Mapping[str, Finding], history: History) -> list[Link]:
    """Rows learned by heart explain damage elsewhere that is of the size of the rise on `val`.

    Forgetting stays an alarm: it is measured directly, and true whatever caused it.
    """
    rise = _size(alarms, RISE)
    links = []
    for effect, lowers in ((HARM, True), (RETENTION, False)):
        size = _size(alarms, effect)
        if rise >= EXPLAINED_SHARE * size:
            why = f"loss on val rose by {rise:.2f} nats while training loss fell, here {size:.2f}"
            links.append(Link(RISE, effect, why, lowers))
    return links


def by_forgetting(alarms: Mapping[str, Finding], history: History) -> list[Link]:
    """Damage to everything explains that usage gets worse too; it outweighs a small rise on val."""
    lost = _size(alarms, RETENTION)
    usage = _size(alarms, HARM)
    links = []
    if lost >= EXPLAINED_SHARE * usage:
        why = f"loss on retain rose by {lost:.2f} nats, on usage by {usage:.2f}"
        links += [
            Link(RETENTION, effect, why, lowers=True)
            for effect in (HARM, TRANSFER)
            if effect in alarms
        ]
    rise = _size(alarms, RISE)
    if RETENTION in alarms and RISE in alarms and not rise >= EXPLAINED_SHARE * lost:
        why = f"loss on retain rose by {lost:.2f} nats, on val only by {rise:.2f}"
        links.append(Link(RETENTION, RISE, why, lowers=False))
    ratio = _ratio(history) if RETENTION in alarms and OPENER in alarms else None
    if ratio is not None and ratio <= SHALLOW_KL_WATCH:
        why = f"the first token moved only {ratio:.1f} times as far as the next"
        links.append(Link(RETENTION, OPENER, why, lowers=False))
    return links


RULES: tuple[Rule, ...] = (by_opener, by_overfitting, by_forgetting)
