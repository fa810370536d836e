"""How answers look: those the model writes (`samples.jsonl`) and those it learns from.

Evidence for the guard `format_collapse`. Openers are those of `sft.texts.openers`: a single word is
shared by a fifth of ordinary answers, an opener by 2-4 % (docs/guards.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.evaluations import Signal, grade
from sft.guards.history import History
from sft.guards.statistics import mcnemar, wilson
from sft.texts.near_duplicates import words
from sft.texts.openers import compression_ratio, distinct_pairs, opener, runs_of, top_opener

GENERATION = Signal("format_collapse", "generation", "share", thresholds.OPENER_SHARE_ALARM)
OPENERS = Signal("format_collapse", "openers", "share", thresholds.OPENER_SHARE_ALARM)
_LOOP_WORDS = 4


def in_a_loop(text: str) -> bool:
    """Whether the same four words stand in `text` three times or more."""
    runs = Counter(runs_of(words(text), _LOOP_WORDS))
    return max(runs.values(), default=0) >= thresholds.REPEATS_IN_LOOP


# ------------------------------------------------------------------ samples


@dataclass(frozen=True, slots=True)
class Samples:
    """Completions of the same prompts, now and by the base model, and the responses there are."""

    now: list[str]
    base: list[str]
    responses: list[str]
    num_stopped: tuple[int, int]  # of both models, those that ended by themselves


def samples_of(history: History) -> Samples | None:
    """The newest completions of prompts that the base model completed too; None if none."""
    for probe in ("usage", "val", "usage_drift"):
        by_step: dict[int, list[Mapping[str, Any]]] = {}
        for sample in history.samples:
            if sample["probe"] == probe:
                by_step.setdefault(int(sample["step"]), []).append(sample)
        base = {sample["id"]: sample for sample in by_step.get(0, ())}
        now = [sample for sample in by_step[max(by_step)] if sample["id"] in base] if base else []
        if now and len(by_step) > 1:
            pairs = now, [base[sample["id"]] for sample in now]
            texts = [[str(sample["answer"]) for sample in side] for side in pairs]
            stopped = [sum(sample["stop_reason"] == "stop" for sample in side) for side in pairs]
            responses = [str(sample["reference"]) for sample in now if sample.get("reference")]
            return Samples(texts[0], texts[1], responses, (stopped[0], stopped[1]))
    return None


def most_open_with(history: History) -> str:
    """A sentence that quotes the shared opener; empty when none is shared by half of them."""
    samples = samples_of(history)
    if samples is None:
        return ""
    shared, count = top_opener(samples.now)
    n = len(samples.now)
    return f' {count} of {n} sampled answers open with "{shared}".' if 2 * count >= n else ""


def sampled_openers(history: History) -> Finding:
    """Signal `generation`: are sampled answers alike, more than the base model's and references?"""
    samples = samples_of(history)
    if samples is None:
        why = "no answers were sampled before and after training (`eval.samples`)"
        return GENERATION.not_measured(history, why)
    shared, count = top_opener(samples.now)
    n, responses = len(samples.now), samples.responses
    interval = wilson(count, n)
    references = f", that of the references {top_opener(responses)[1]} of {len(responses)}"
    message = (
        f'{count} of {n} sampled answers open with "{shared}"; the most frequent opener of the '
        f"base model has {top_opener(samples.base)[1]}{references if responses else ''}. "
        + _style(samples)
    )
    verdict = _sampled_verdict(samples, shared, interval[0])
    return GENERATION(history, verdict, message, statistic=count / n, interval=interval, n=n)


def _sampled_verdict(samples: Samples, shared: str, low: float) -> Verdict:
    now, base, responses = samples.now, samples.base, samples.responses
    new = _more(*([opener(text) == shared for text in texts] for texts in (now, base)))
    more_loops = _more(*([in_a_loop(text) for text in texts] for texts in (now, base)))
    common = wilson(top_opener(responses)[1], len(responses))[1] if responses else 0.0
    alarm = (
        low > max(common, thresholds.OPENER_SHARE_ALARM)
        and new < thresholds.WRITTEN_P
        and bool(responses)
    )
    shares_opener = (
        low > max(common, thresholds.OPENER_SHARE_WATCH) and new < thresholds.WATCH_LEVEL
    )
    return grade(len(now), alarm=alarm, watch=shares_opener or more_loops < thresholds.WATCH_LEVEL)


def _more(now: Sequence[bool], base: Sequence[bool]) -> float:
    """Exact p that something became more frequent; 1 where it did not."""
    gained = sum(a and not b for a, b in zip(now, base, strict=True))
    lost = sum(b and not a for a, b in zip(now, base, strict=True))
    return mcnemar(lost, gained) if gained > lost else 1.0


def _style(samples: Samples) -> str:
    """Further figures, now against the base model."""
    now, base = samples.now, samples.base
    figures = [
        ("distinct word pairs", _compared(distinct_pairs, now, base)),
        ("compression", _compared(compression_ratio, now, base)),
        ("words", f"{_mean_words(now):.0f} ({_mean_words(base):.0f})"),
        ("ended by themselves", "{} ({})".format(*samples.num_stopped)),
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


# ------------------------------------------------------------------ training answers


def preflight_openers(history: History) -> Finding:
    """Signal `openers`: the share of training answers that open with the same three words."""
    answers = history.preflight.get("answers")
    if not answers or not answers.get("n"):
        return OPENERS.not_measured(history, "the training answers were not examined")
    n, k = int(answers["n"]), int(answers["opener_count"])
    interval = wilson(k, n)
    verdict, note = _preflight_verdict(answers.get("reference"), interval[0], n)
    message = f'{k} of {n} training answers ({k / n:.0%}) open with "{answers["opener"]}"{note}.'
    return OPENERS(history, verdict, message, statistic=k / n, interval=interval, n=n)


def _preflight_verdict(
    reference: Mapping[str, Any] | None, low: float, n: int
) -> tuple[Verdict, str]:
    verdict = grade(n, watch=low >= thresholds.OPENER_SHARE_WATCH)
    if verdict != "watch":
        return verdict, ""
    if not reference or not reference.get("n"):
        return verdict, "; whether it should be so, `--usage FILE` with answers would tell"
    k, of = int(reference["opener_count"]), int(reference["n"])
    note = f"; {k / of:.0%} of the usage answers open with one opener"
    more = low > wilson(k, of)[1]
    return grade(alarm=more and low >= thresholds.OPENER_SHARE_ALARM, watch=more), note
