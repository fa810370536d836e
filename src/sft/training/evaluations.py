"""An evaluation: measure the model, let the guards judge, and do what the user wants done about
it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sft.config import Config
from sft.data.mixing import by_source, source_names
from sft.errors import ConfigError, DivergedError
from sft.guards.base import Finding, describe
from sft.guards.early_stopping import reason_to_stop
from sft.guards.judge import FAILED, judge
from sft.probes.evaluator import Evaluation, EvaluationStopped, complete_prompts
from sft.probes.pack import choose
from sft.probes.val_loss import sums_by_source
from sft.runs.best_step import rule_of
from sft.runs.events import VERDICT_LEVELS
from sft.runs.history import history_of, own_guards
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore
from sft.terminal.console import Console
from sft.training.interrupt import StopFlag
from sft.training.parts import Parts
from sft.training.step import StopRequested

# Tokens of a sampled completion: enough for its opening, its form, and whether it repeats itself.
SAMPLE_TOKENS = 24


def may_restore(config: Config) -> bool:
    """Can a guard of this run ask for the best weights?"""
    return config.guards.enabled and "restore_best" in config.guards.actions().values()


class Evaluations:
    """Takes evaluations and keeps their records. `stores` are metrics, scores, samples and
    findings.
    """

    def __init__(
        self,
        parts: Parts,
        run: RunDir,
        stores: Mapping[str, RecordStore],
        show: Console,
        stop: StopFlag,
    ) -> None:
        self._parts = parts
        self._run = run
        self._stores = stores
        self._show = show
        self._stop = stop
        self._announced: set[tuple[str, str]] = set()
        self._actions = parts.config.guards.actions()
        self._own_guards = own_guards(parts.config) if parts.config.guards.enabled else {}

    def run(self, epoch: float) -> None:
        """Measure, record, judge, act. `epoch` is the number of passes over the data so far.

        Raises:
            StopRequested: the user asked to stop; the evaluation is taken again after resuming.
            DivergedError: the weights are broken.
        """
        counters, parts = self._parts.counters, self._parts
        counters.last_eval = counters.step
        names = [probe.name for probe in parts.evaluator.probes if probe.examples]
        if counters.step:
            names = [name for name in names if name != "test"]
        if not names:
            return
        try:
            evaluation = parts.evaluator.evaluate(
                at_base=counters.step == 0,
                progress=self._show.progress,
                probes=names,
                stop_requested=self._stop.requested,
            )
        except EvaluationStopped:
            counters.last_eval = -1
            raise StopRequested from None
        counters.eval_seconds += evaluation.seconds
        self._record(evaluation, epoch)
        sampled = counters.step in (0, self._middle(), parts.num_steps)
        if sampled:
            self._sample()
        if counters.step == 0:
            parts.evaluator.save_base(self._run.base_logits)
        findings = self._judge()
        self._decide(findings)
        if counters.stopped is not None and not sampled:
            # The last evaluation after all. Judged with its samples, as whoever replays it will.
            self._sample()
            findings = self._judge()
        for finding in findings:
            self._stores["findings"].append(finding.record())
            self._announce(finding)
        if counters.stopped is not None:
            self._show.log("stopped", counters.stopped, level="warning", step=counters.step)

    def _middle(self) -> int:
        """The step of the evaluation in the middle of the run."""
        every = int(self._parts.config.eval.every)
        return every * max(1, round(self._parts.num_steps / every / 2))

    def _sample(self) -> None:
        """Complete the fixed prompts and record what came out."""
        parts, step = self._parts, self._parts.counters.step
        wanted = parts.config.eval.samples if parts.config.guards.enabled else 0
        probe = parts.evaluator.sampled_probe
        if not wanted or probe is None:
            return
        self._show.progress("answering")
        started = time.perf_counter()
        samples = complete_prompts(
            parts.model,
            parts.tokenizer,
            choose(probe.examples, wanted, "samples"),
            step=step,
            probe=probe.name,
            stop_ids=parts.stop_ids,
            max_new_tokens=SAMPLE_TOKENS,
        )
        parts.counters.eval_seconds += time.perf_counter() - started
        for sample in samples:
            self._stores["samples"].append(sample)

    def _record(self, evaluation: Evaluation, epoch: float) -> None:
        """Append the evaluation to the records.

        Raises:
            DivergedError: a loss is not finite.
        """
        counters = self._parts.counters
        for probe, scores in evaluation.scores.items():
            for score in scores:
                self._stores["scores"].append(score.record(counters.step, probe))
        metrics = evaluation.metrics()
        sources = self._val_by_source(evaluation)
        record: dict[str, Any] = {
            "step": counters.step,
            "epoch": epoch,
            **metrics,
            **({"val_loss_by_source": sources} if sources else {}),
            "eval_seconds": evaluation.seconds,
        }
        self._stores["metrics"].append(record)
        self._show.evaluate(record)
        objective = self._parts.objective
        if objective is None:
            return
        loss = record[objective]
        if not math.isfinite(loss):
            raise DivergedError(
                f"step {counters.step}: {objective} is {loss}, so these weights are "
                "broken and were not saved. Usual cause: "
                + ("a learning rate that is too high." if counters.step else "a broken model file.")
            )
        counters.evals.append((counters.step, loss))

    def _val_by_source(self, evaluation: Evaluation) -> dict[str, float]:
        """The validation loss of each source; empty where there are not several."""
        data = self._parts.config.data
        names = source_names(data.val or data.train)
        if len(names) < 2 or "val" not in evaluation.scores:
            return {}
        val = next(probe for probe in self._parts.evaluator.probes if probe.name == "val")
        return by_source(names, sums_by_source(evaluation.scores["val"], val.examples))

    def _judge(self) -> list[Finding]:
        """What the guards say of all that is recorded; nothing when they are off."""
        parts = self._parts
        if not parts.config.guards.enabled:
            return []
        findings = judge(history_of(self._run, parts.config, parts.num_steps), self._own_guards)
        broken = [f"{f.guard}: {f.message}" for f in findings if f.signal == FAILED]
        if broken and not parts.counters.step:  # later it is recorded: it must not end a training
            raise ConfigError(f"guards.custom: {'; '.join(broken)}")
        return findings

    def _decide(self, findings: Sequence[Finding]) -> None:
        """Does the run end here, and which weights may it hand back?"""
        parts, counters = self._parts, self._parts.counters
        rule = rule_of(parts.config)
        if rule.over_budget(findings):
            counters.over_budget.append(counters.step)
        for finding, action in rule.requests(findings):
            self._act(finding, action)
        evals = parts.config.eval
        may_stop = evals.early_stopping == "stop" and counters.step < parts.num_steps
        if may_stop and counters.stopped is None:
            counters.stopped = reason_to_stop(
                counters.evals,
                margin=evals.margin,
                patience=evals.patience,
                name=parts.objective or "",
            )

    def _announce(self, finding: Finding) -> None:
        """Show what is new: a verdict is shown once, until it changes."""
        key = (f"{finding.guard}.{finding.signal}", finding.verdict)
        action = self._actions.get(finding.guard, "warn")
        if finding.verdict in ("watch", "alarm") and key not in self._announced and action != "off":
            self._announced.add(key)
            if finding.primary or finding.verdict == "alarm":
                self._show.note(
                    describe(finding),
                    level=VERDICT_LEVELS[finding.verdict],
                    kind=finding.verdict,
                    step=finding.step,
                    guard=finding.guard,
                    signal=finding.signal,
                )

    def _act(self, finding: Finding, action: str) -> None:
        counters = self._parts.counters
        counters.restore_best = counters.restore_best or action == "restore_best"
        counters.keep_last = action == "stop" and not counters.restore_best
        if counters.step < self._parts.num_steps:
            counters.stopped = f"{finding.guard.replace('_', ' ')}: {finding.message}"
