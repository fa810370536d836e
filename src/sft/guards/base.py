"""What a guard says: `Finding`, its verdicts, and the settings that guards know.

A guard is a pure function from a `History` to findings: no torch, no files. To add one, see
docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["pass", "watch", "alarm", "insufficient", "not_measured"]

# From what needs no action to what needs it most.
SEVERITY: dict[Verdict, int] = {
    "pass": 0,
    "not_measured": 1,
    "insufficient": 2,
    "watch": 3,
    "alarm": 4,
}
# A shape for each, for who does not see colours.
GLYPHS: Mapping[str, str] = {
    "pass": "✓",
    "watch": "▲",
    "alarm": "■",
    "insufficient": "◐",
    "not_measured": "○",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One signal of one guard after one evaluation; a line of `findings.jsonl`.

    `statistic` is compared with `threshold`, both in `unit`; `interval` is a 95 % confidence
    interval of the statistic, from `n` independent examples; `mde` is the minimum detectable
    effect in the same unit: the smallest true effect that would be detected four times in five.
    `primary` signals decide the guard's verdict, the others are evidence; one that does not `act`
    is a fact of the data, which stopping the run would not change. `explains` names
    further signals (`guard.signal`) that the same cause accounts for.
    """

    guard: str
    signal: str
    verdict: Verdict
    step: int
    message: str
    statistic: float | None = None
    threshold: float | None = None
    interval: tuple[float, float] | None = None
    mde: float | None = None
    n: int = 0
    unit: str = ""
    remedy: str = ""
    primary: bool = True
    acts: bool = True
    explains: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The line of `findings.jsonl`, equal to itself once written and read again."""
        interval = None if self.interval is None else list(self.interval)
        return {**asdict(self), "interval": interval, "explains": list(self.explains)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Finding:
        """The finding that `record` returned the line of.

        Raises:
            TypeError, ValueError: the line is not one that a guard wrote.
        """
        values = {name: record[name] for name in cls.__slots__ if name in record}
        if values.get("verdict") not in SEVERITY:
            raise ValueError(f"not a verdict: {values.get('verdict')!r:.60}")
        if values.get("interval") is not None:
            low, high = values["interval"]
            values["interval"] = (low, high)
        values["explains"] = tuple(values.get("explains", ()))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What the user chose and what the run plans; see the config section `guards`.

    `margin` (nats per token) is the smallest rise of held-out loss that matters, and
    `forgetting_budget` the largest rise on `retain` that is accepted. `alpha` is the chance of
    a false alarm that the whole run may take, over all of its `num_evals` evaluations and all
    guards.
    """

    alpha: float = 0.05
    margin: float = 0.02
    forgetting_budget: float = 0.05
    num_evals: int = 6
    num_steps: int = 1
    warmup_steps: int = 0
    learning_rate: float = 0.0


def verdicts(findings: Sequence[Finding]) -> dict[str, Finding]:
    """For each guard the finding that stands for it: the worst primary one.

    Between equals the one furthest beyond its threshold, then the first.
    """
    chosen: dict[str, Finding] = {}
    for finding in findings:
        best = chosen.get(finding.guard)
        if finding.primary and (best is None or weight(finding) > weight(best)):
            chosen[finding.guard] = finding
    return chosen


def weight(finding: Finding) -> tuple[int, float]:
    """How bad: the verdict, then how many times the threshold."""
    value, threshold = finding.statistic, finding.threshold
    times = value / threshold if value is not None and threshold else 0.0
    return SEVERITY[finding.verdict], times


def describe(finding: Finding) -> str:
    """One finding as a sentence with its remedy."""
    text = f"{finding.guard.replace('_', ' ')}: {finding.verdict}: {finding.message}"
    return f"{text}\n  -> {finding.remedy}" if finding.remedy else text
