"""When to end a run, and which of its weights it hands back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sft.guards.base import Finding, verdicts


def reason_to_stop(
    evals: Sequence[tuple[int, float]], *, margin: float, patience: int, name: str = "val_loss"
) -> str | None:
    """A sentence when the run should end, else None.

    `evaluations` are `(step, loss)` in order, the one at step 0 included. The run ends when none
    of the last `patience` evaluations is better, by more than `margin`, than the best before them.
    A loss that is not a number is worse than any other.
    """
    if len(evals) <= patience:
        return None
    evals = [(step, math.inf if math.isnan(loss) else loss) for step, loss in evals]
    before, recent = evals[:-patience], evals[-patience:]
    step, best = min(before, key=lambda evaluation: evaluation[1])
    if min(loss for _, loss in recent) < best - margin:
        return None
    if all(loss > best + margin for _, loss in recent):
        return (
            f"{name} rose: {recent[-1][1]:.4f} now, {best:.4f} at step {step}, and above it by "
            f"more than {margin:g} in {patience} evaluations in a row"
        )
    return (
        f"{name} is on a plateau: no evaluation of the last {patience} is better than the "
        f"{best:.4f} of step {step} by more than {margin:g}"
    )


def best_eval(
    evals: Sequence[tuple[int, float]], over_budget: Sequence[int] = ()
) -> tuple[int, float] | None:
    """The trained evaluation (step above 0) with the lowest loss; the earliest of equals.

    Evaluations in `over_budget` forgot more than is allowed: they count only where all did.
    """
    trained = [
        evaluation for evaluation in evals if evaluation[0] > 0 and not math.isnan(evaluation[1])
    ]
    allowed = [evaluation for evaluation in trained if evaluation[0] not in over_budget]
    return min(allowed or trained, key=lambda evaluation: evaluation[1], default=None)


@dataclass(frozen=True, slots=True)
class StepRule:
    """The settings that decide whose weights a run hands back.

    `choose` is `checkpoint.choose`, `budget` the forgetting budget that an evaluation must keep
    (None where `guards.blend` keeps it instead), `actions` what each guard may do.
    """

    choose: str = "best"
    budget: float | None = None
    actions: Mapping[str, str] = field(default_factory=dict)

    def over_budget(self, findings: Sequence[Finding]) -> bool:
        """Did the evaluation with these findings forget more than is allowed?"""
        return self.budget is not None and any(
            finding.statistic > self.budget
            for finding in findings
            if finding.guard == "forgetting" and finding.primary and finding.statistic is not None
        )

    def requests(self, findings: Sequence[Finding]) -> list[tuple[Finding, str]]:
        """The alarms of an evaluation that end a run, each with its action."""
        acting = verdicts([finding for finding in findings if finding.acts])
        return [
            (finding, action)
            for guard, finding in acting.items()
            if finding.verdict == "alarm"
            and finding.step > 0
            and (action := self.actions.get(guard, "warn")) in ("stop", "restore_best")
        ]

    def takes_last(self, *, restore_best: bool = False, keep_last: bool = False) -> bool:
        """Are the weights after the last step handed back, whatever they score?"""
        return keep_last or (self.choose == "last" and not restore_best)

    def best_step(
        self,
        evals: Sequence[tuple[int, float]],
        over_budget: Sequence[int] = (),
        *,
        restore_best: bool = False,
        keep_last: bool = False,
    ) -> int | None:
        """The evaluation whose weights are handed back; None: the weights after the last step.

        `evals` are `(step, loss)`; `restore_best` and `keep_last` are what guards asked for.
        """
        if self.takes_last(restore_best=restore_best, keep_last=keep_last):
            return None
        best = best_eval(evals, over_budget)
        return best[0] if best else None
