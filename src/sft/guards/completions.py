"""How answers look: those the model writes (`samples.jsonl`) and those it learns from.

Evidence for the guard `format_collapse`. Openers are those of `sft.texts.openers`: a single word is
shared by a fifth of ordinary answers, an opener by 2-4 % (docs/guards.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sft.guards.base import Finding, Verdict
from sft.guards.evaluations import not_measured
from sft.guards.history import History
from sft.guards.statistics import mcnemar, wilson
from sft.guards.thresholds import (
    MIN_EXAMPLES,
    OPENER_SHARE_ALARM,
    OPENER_SHARE_WATCH,
    REPEATS_IN_LOOP,
    WATCH_LEVEL,
    WRITTEN_P,
)
from sft.texts.near_duplicates import words
from sft.texts.openers import compression_ratio, distinct_pairs, opener, runs_of, top_opener

GUARD = "format_collapse"
_LOOP_WORDS = 4


def in_a_loop(text: str) -> bool:
    """Whether the same four words stand in `text` three times or more."""
    runs = Counter(runs_of(words(text), _LOOP_WORDS))
    return max(runs.values(), default=0) >= REPEATS_IN_LOOP


# ------------------------------------------------------------------ samples


@dataclass(frozen=True, slots=True)
class Samples:
    """Completions of the same prompts, now and by the base model, with the responses (or none)."""

    now: list[Mapping[str, Any]]
    base: list[Mapping[str, Any]]

    @property
    def completions(self) -> list[str]:
        """What the model writes now."""
        return [str(sample["answer"]) for sample in self.now]

    @property
    def base_completions(self) -> list[str]:
        """What the base model wrote."""
        return [str(sample["answer"]) for sample in self.base]

    @property
    def responses(self) -> list[str]:
        """The reference answers that exist."""
        return [str(sample["reference"]) for sample in self.now if sample.get("reference")]


def samples_of(history: History) -> Samples | None:
    """The newest completions of prompts that the base model completed too; None if none."""
    for probe in ("usage", "val", "usage_drift"):
        mine = [sample for sample in history.samples if sample["probe"] == probe]
        steps = {int(sample["step"]) for sample in mine}
        if 0 not in steps or len(steps) < 2:
            continue
        base = {sample["id"]: sample for sample in mine if sample["step"] == 0}
        now = [s for s in mine if s["step"] == max(steps) and s["id"] in base]
        if now:
            return Samples(now, [base[sample["id"]] for sample in now])
    return None


def most_open_with(history: History) -> str:
    """A sentence that quotes the shared opener; empty when none is shared by half of them."""
    samples = samples_of(history)
    if samples is None:
        return ""
    shared, count = top_opener(samples.completions)
    n = len(samples.now)
    return f' {count} of {n} sampled answers open with "{shared}".' if 2 * count >= n else ""


def sampled_openers(history: History, step: int) -> Finding:
    """Signal `generation`: are sampled answers alike, more than the base model's and references?"""
    samples = samples_of(history)
    if samples is None:
        why = "no answers were sampled before and after training (`eval.samples`)"
        return not_measured(GUARD, "generation", step, why)
    shared, count = top_opener(samples.completions)
    n = len(samples.now)
    low, high = wilson(count, n)
    verdict = _sampled_verdict(samples, shared, low)
    return Finding(
        GUARD,
        "generation",
        verdict,
        step,
        f'{count} of {n} sampled answers open with "{shared}"; the most frequent opener of the '
        f"base model has {top_opener(samples.base_completions)[1]}{_of_responses(samples)}. "
        + _style(samples),
        statistic=count / n,
        threshold=OPENER_SHARE_ALARM,
        interval=(low, high),
        n=n,
        unit="share",
        primary=False,
    )


def _sampled_verdict(samples: Samples, shared: str, low: float) -> Verdict:
    if len(samples.now) < MIN_EXAMPLES:
        return "insufficient"
    now, base = samples.completions, samples.base_completions
    new = _more(*([opener(text) == shared for text in texts] for texts in (now, base)))
    responses = samples.responses
    common = wilson(top_opener(responses)[1], len(responses))[1] if responses else 0.0
    if low > max(common, OPENER_SHARE_ALARM) and new < WRITTEN_P and responses:
        return "alarm"
    if low > max(common, OPENER_SHARE_WATCH) and new < WATCH_LEVEL:
        return "watch"
    more_loops = _more([in_a_loop(text) for text in now], [in_a_loop(text) for text in base])
    return "watch" if more_loops < WATCH_LEVEL else "pass"


def _more(now: Sequence[bool], base: Sequence[bool]) -> float:
    """Exact p that something became more frequent; 1 where it did not."""
    gained = sum(a and not b for a, b in zip(now, base, strict=True))
    lost = sum(b and not a for a, b in zip(now, base, strict=True))
    return mcnemar(lost, gained) if gained > lost else 1.0


def _of_responses(samples: Samples) -> str:
    texts = samples.responses
    return f", that of the references {top_opener(texts)[1]} of {len(texts)}" if texts else ""


def _style(samples: Samples) -> str:
    """Further figures, now against the base model."""
    now, base = samples.completions, samples.base_completions
    figures = [
        ("distinct word pairs", _compared(distinct_pairs, now, base)),
        ("compression", _compared(compression_ratio, now, base)),
        ("words", f"{_mean_words(now):.0f} ({_mean_words(base):.0f})"),
        ("ended by themselves", f"{_stopped(samples.now)} ({_stopped(samples.base)})"),
        ("in a loop", f"{sum(map(in_a_loop, now))} ({sum(map(in_a_loop, base))})"),
    ]
    return "Now (base model): " + ", ".join(f"{name} {value}" for name, value in figures) + "."


def _compared(
    figure: Callable[[Sequence[str]], float | None], now: Sequence[str], base: Sequence[str]
) -> str:
    """`0.81 (0.95)`; 1 for texts of which there is nothing to tell."""
    first, second = (1.0 if (value := figure(texts)) is None else value for texts in (now, base))
    return f"{first:.2f} ({second:.2f})"


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(words(text)) for text in texts) / len(texts)


def _stopped(samples: Sequence[Mapping[str, Any]]) -> int:
    return sum(sample["stop_reason"] == "stop" for sample in samples)


# ------------------------------------------------------------------ training answers


def preflight_openers(history: History, step: int) -> Finding:
    """Signal `openers`: the share of training answers that open with the same three words."""
    answers = history.preflight.get("answers")
    if not answers or not answers.get("n"):
        return not_measured(GUARD, "openers", step, "the training answers were not examined")
    n, k = int(answers["n"]), int(answers["opener_count"])
    low, high = wilson(k, n)
    verdict, note = _preflight_verdict(answers.get("reference"), low, n)
    return Finding(
        GUARD,
        "openers",
        verdict,
        step,
        f'{k} of {n} training answers ({k / n:.0%}) open with "{answers["opener"]}"{note}.',
        statistic=k / n,
        threshold=OPENER_SHARE_ALARM,
        interval=(low, high),
        n=n,
        unit="share",
        primary=False,
    )


def _preflight_verdict(
    reference: Mapping[str, Any] | None, low: float, n: int
) -> tuple[Verdict, str]:
    if n < MIN_EXAMPLES:
        return "insufficient", ""
    if low < OPENER_SHARE_WATCH:
        return "pass", ""
    if not reference or not reference.get("n"):
        return "watch", "; whether it should be so, `--usage FILE` with answers would tell"
    share = int(reference["opener_count"]) / int(reference["n"])
    common = wilson(int(reference["opener_count"]), int(reference["n"]))[1]
    note = f"; {share:.0%} of the usage answers open with one opener"
    if common >= low:
        return "pass", note
    return ("alarm" if low >= OPENER_SHARE_ALARM else "watch"), note
