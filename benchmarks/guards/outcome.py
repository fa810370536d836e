"""What the guards say about a trace, judged again from its records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from cases import BY_ID
from rivals import RULES
from trace_file import Trace, said, to_history

from sft.guards.base import Finding, verdicts
from sft.guards.history import Array, History, Table
from sft.guards.judge import judge, rank
from sft.guards.statistics import paired
from sft.guards.thresholds import FIRST_TOKEN_MASS, MASS_ABOVE_REFERENCE, TRANSFER_RATIO

# The number of each guard that a dose-response curve is drawn of.
DOSE_SIGNAL = {
    "overfitting": "paired_rise",
    "format_collapse": "opener",
    "distribution_mismatch": "coverage",
    "forgetting": "retention",
}


@dataclass(frozen=True)
class Outcome:
    """One run as it is counted.

    `alarms` and `visible` map guards to steps: of the first alarm, and of the first evaluation at
    which the probe's own mean shows the pitfall. `happened` is what the oracle says of the planted
    one; None where it was not asked. `watches` are guards with a primary signal on watch at
    the last evaluation, `watched` at any. `false` are alarms neither expected nor allowed; `backed`
    those of them that the oracle confirms (they count as false all the same). `final` holds the
    verdicts of the last evaluation. `covered` says for each effect whether its 95 % interval holds
    what the oracle measured. `rivals` are the rules of others that fire, and `rescored` the largest
    change of loss when nothing changed. `replays`: the trace gives the verdicts that the run
    gave itself.
    """

    case: str
    kind: str
    seed: int
    error: str
    planted: str
    happened: bool | None
    evals: list[int]
    alarms: dict[str, int]
    watches: list[str]
    watched: list[str]
    final: dict[str, str]
    top: str
    false: list[str]
    backed: list[str]
    missed: list[str]
    visible: dict[str, int]
    statistic: float | None
    covered: dict[str, bool]
    covered_with_noise: dict[str, bool]
    rivals: list[str]
    rescored: float | None
    replays: bool

    def record(self) -> dict[str, Any]:
        """A line of the results."""
        return asdict(self)


def outcome(trace: Trace) -> Outcome:
    """Judge every evaluation of a trace again, and compare with what the case asks for."""
    case, records = BY_ID[trace["case"]], to_history(trace)
    evals = judged(records)
    alarms = first_alarms(evals)
    last = evals[max(evals)]
    fine = {name.partition(".")[0] for name in (*case.expected, *case.allowed)}
    false = [guard for guard in alarms if guard not in fine]
    covered, with_noise = _covered(trace, records)
    return Outcome(
        case=case.id,
        kind=case.kind,
        seed=trace["seed"],
        error=trace["error"],
        planted=case.planted,
        happened=trace["happened"].get(case.planted),
        evals=list(evals),
        alarms=alarms,
        watches=_on_watch(last),
        watched=_on_watch(finding for found in evals.values() for finding in found),
        final={guard: found.verdict for guard, found in verdicts(last).items()},
        top=_top(evals),
        false=false,
        backed=[guard for guard in false if trace["happened"].get(guard)],
        missed=[guard for guard in case.expected if guard not in alarms],
        visible=_first_visible(records),
        statistic=_statistic(case.planted, last),
        covered=covered,
        covered_with_noise=with_noise,
        rivals=[name for name, fires in RULES.items() if fires(records)],
        rescored=trace.get("rescored"),
        replays=said(f for found in evals.values() for f in found) == trace["verdicts"],
    )


def judged(records: History) -> dict[int, list[Finding]]:
    """The findings after each evaluation, by its step."""
    return {step: judge(records.at(step)) for step in records.eval_steps}


def first_alarms(evals: dict[int, list[Finding]]) -> dict[str, int]:
    """The step at which each guard first alarms."""
    found: dict[str, int] = {}
    for step, findings in evals.items():
        for guard, finding in verdicts(findings).items():
            if finding.verdict == "alarm":
                found.setdefault(guard, step)
    return found


def _on_watch(findings: Iterable[Finding]) -> list[str]:
    return sorted({f.guard for f in findings if f.primary and f.verdict == "watch"})


def _top(evals: dict[int, list[Finding]]) -> str:
    """The guard that is named first at the last evaluation with an alarm."""
    for step in sorted(evals, reverse=True):
        if ranked := rank(evals[step]):
            return ranked[0].guard
    return ""


def _statistic(planted: str, findings: list[Finding]) -> float | None:
    signal = DOSE_SIGNAL.get(planted)
    return next((f.statistic for f in findings if f.guard == planted and f.signal == signal), None)


def _first_visible(records: History) -> dict[str, int]:
    """The step of the first evaluation whose means, without any test, show each pitfall."""
    found: dict[str, int] = {}
    for step in records.eval_steps[1:]:
        for guard in visible(records.at(step)):
            found.setdefault(guard, step)
    return found


def visible(records: History) -> list[str]:
    """The oracle's definitions, applied to the means of the probes at the newest evaluation."""
    val, usage, retain = (records.table(name) for name in ("val", "usage", "retain"))
    margin, budget = records.settings.margin, records.settings.forgetting_budget
    on_val, on_usage = _change(val), _change(usage)
    shown = {
        "overfitting": val is not None and _since_best(val) > margin,
        "format_collapse": _collapsed(usage if usage is not None else val),
        "distribution_mismatch": on_usage > margin
        or (on_val < -margin and on_usage > TRANSFER_RATIO * on_val),
        "forgetting": _change(retain) > budget,
    }
    return [guard for guard, is_shown in shown.items() if is_shown]


def _change(table: Table | None) -> float:
    return 0.0 if table is None else float(np.nanmean(table.loss[-1] - table.loss[0]))


def _since_best(table: Table) -> float:
    means = np.nanmean(table.loss, axis=1)
    return float(means[-1] - means[:-1].min())


def _collapsed(table: Table | None) -> bool:
    if table is None:
        return False
    labels = table.column("first_label")[0]
    _, counts = np.unique(labels[np.isfinite(labels)], return_counts=True)
    share = counts.max() / counts.sum() if len(counts) else 0.0
    mass = float(np.nanmean(table.column("first_mass")[-1]))
    return mass >= max(FIRST_TOKEN_MASS, share + MASS_ABOVE_REFERENCE)


def _covered(trace: Trace, records: History) -> tuple[dict[str, bool], dict[str, bool]]:
    """Does the interval of each effect hold the oracle's, which has an error of its own?"""
    plain, with_noise = {}, {}
    for name, change in _effects(trace, records).items():
        found = paired(change)
        # Where usage is like validation, the oracle has one set of rows for both.
        true = trace["oracle"].get(name) or trace["oracle"].get("val")
        if found.n < 2 or true is None:
            continue
        half = (found.interval[1] - found.interval[0]) / 2
        away = abs(found.mean - true["change"])
        plain[name] = away <= half
        with_noise[name] = away <= (half**2 + (1.96 * true["se"]) ** 2) ** 0.5
    return plain, with_noise


def _effects(trace: Trace, records: History) -> dict[str, Array]:
    """Changes from the base model on probes whose rows are of the oracle's kind."""
    effects: dict[str, Array] = {}
    val, usage, retain = (records.table(name) for name in ("val", "usage", "retain"))
    if val is not None and trace["case"] != "P1b":  # half of its validation was trained on
        effects["val"] = val.loss[-1] - val.loss[0]
    if usage is not None:
        effects["usage"] = usage.loss[-1] - usage.loss[0]
    if retain is not None:
        own = [i for i, name in enumerate(retain.ids) if not name.startswith("self")]
        effects["texts"] = (retain.loss[-1] - retain.loss[0])[own]
    return effects
