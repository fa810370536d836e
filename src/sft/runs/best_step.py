"""The step whose weights a run hands back, told by the run's own rule while it is still going."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from sft.config import Config
from sft.config.guard_section import actions
from sft.errors import SFTError
from sft.guards.base import Finding
from sft.guards.early_stopping import StepRule
from sft.runs.evaluations import last_step, objective_of
from sft.runs.files import Record, identity, number, section, whole
from sft.runs.jsonl import Follower
from sft.runs.run_dir import RunDir
from sft.runs.state import summary_of


@dataclass(frozen=True, slots=True)
class BestStep:
    """The step whose weights are handed back, or would be if the run ended now.

    `record` is its evaluation (empty where there was none at it), `chosen_by` the metric whose
    lowest value chose it among `num_evals`; empty where it is the last step whatever it scored.
    """

    step: int | None = None
    record: Record = field(default_factory=dict)
    chosen_by: str = ""
    num_evals: int = 0

    @property
    def probe(self) -> str:
        """The rows that chose the step: `val`, `usage`, or nothing."""
        return self.chosen_by.removesuffix("_loss")


def rule_of(config: Config | Record) -> StepRule:
    """The rule of a run with this config, resolved or as its `config.yaml` has it."""
    values = config.model_dump(mode="json") if isinstance(config, Config) else config
    guards = section(values, "guards")
    blended = guards.get("blend", "off") != "off"
    return StepRule(
        choose=str(section(values, "checkpoint").get("choose", "best")),
        # With `blend: auto` the budget is kept by blending, not by choosing an earlier evaluation.
        budget=None if blended else number(guards.get("forgetting_budget")),
        actions=actions(guards),
    )


def best_step(run: RunDir, evals: Sequence[Record]) -> BestStep:
    """The best step of a run that is going on, stopped or finished; `evals` are its evaluations."""
    by_rule = _by_rule(run, evals)
    summary = summary_of(run)
    chosen = whole(summary.get("best_step"))
    if chosen is None:
        return by_rule
    # What was handed back is a fact. Its own figures may be those of a blend with the base model.
    best = section(summary, "best")
    chosen_by = by_rule.chosen_by if evals else objective_of([best]) or ""
    record = {**_eval_at(evals, chosen), **best}
    return BestStep(chosen, record, chosen_by, by_rule.num_evals)


def _by_rule(run: RunDir, evals: Sequence[Record]) -> BestStep:
    """From config, evaluations and findings, as training does it."""
    try:
        rule = rule_of(section(identity(run), "config"))
    except SFTError:
        rule = StepRule()
    follower = _follower(run.findings)
    with follower.lock:
        follower.update()
        findings = dict(follower.by_step)
    requests = [request for step in findings.values() for request in rule.requests(step)]
    restore_best = any(action == "restore_best" for _, action in requests)
    name = objective_of(evals) or ""
    scored = [
        (step, loss)
        for record in evals
        if (step := whole(record.get("step"))) is not None
        and (loss := number(record.get(name))) is not None
    ]
    keep_last = bool(requests) and not restore_best
    if rule.takes_last(restore_best=restore_best, keep_last=keep_last):
        last = whole(last_step(run).get("step"))
        return BestStep(last, _eval_at(evals, last))
    over_budget = [step for step, of_step in findings.items() if rule.over_budget(of_step)]
    step = rule.best_step(scored, over_budget, restore_best=restore_best)
    if step is None:  # nothing to choose by yet
        return BestStep()
    trained = sum((whole(record.get("step")) or 0) > 0 for record in evals)
    return BestStep(step, _eval_at(evals, step), name, trained)


def _eval_at(evals: Sequence[Record], step: int | None) -> Record:
    return next((record for record in reversed(evals) if record.get("step") == step), {})


class _Findings(Follower):
    """The findings of each evaluation that can decide over weights, by its step."""

    def take(self, record: Record) -> None:
        """Keep what is a finding, primary, and of a guard: others decide nothing."""
        step = whole(record.get("step"))
        if step is None or not record.get("primary", True):
            return
        try:
            finding = Finding.from_record(record)
        except (TypeError, ValueError, KeyError):
            return
        if number(finding.statistic) is None and finding.statistic is not None:
            return
        self.by_step.setdefault(step, []).append(finding)

    def clear(self) -> None:
        """Begin anew."""
        self.by_step: dict[int, list[Finding]] = {}


@lru_cache(256)
def _follower(path: Path) -> _Findings:
    return _Findings(path)
