"""Is the training data like what the model will be used on, and if not, does that hurt?

`coverage` asks before training: how many usage prompts have no neighbour in the training data, by
conformal rank. `transfer` and `harm` ask while training, on usage prompts with reference answers.
A difference that a classifier can see is not an alarm (two general instruction sets are told apart
easily), only one that costs something is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.evaluations import (
    UNIT,
    Signal,
    alarm_level,
    compared,
    finite,
    grade,
    interval_of,
    rise_from_base,
)
from sft.guards.history import History, Table
from sft.guards.statistics import Paired, clopper_pearson, holm, paired
from sft.guards.transfer_ratio import Judgement, judge_transfer
from sft.texts.numbers import figure, signed

HOW = "give prompts as they come in real use, best with reference answers: `--usage FILE`"
REMEDY = (
    "add training rows like the usage prompts (a few dozen help), show rows that resemble them "
    "more often (`data.usage_weighting`), and choose the checkpoint by usage"
)
_FEWEST_IN_SLICE = 5  # below, no p of a sign-flip test survives a correction
_BLIND = 0.5  # coverage that could only see a share above this says nothing
_POWER = 0.8

_primary = partial(Signal, "distribution_mismatch", remedy=REMEDY, primary=True)
_evidence = partial(Signal, "distribution_mismatch")
COVERAGE = _primary("coverage", "share", thresholds.UNCOVERED_ALARM)
TRANSFER = _primary("transfer", "ratio", thresholds.TRANSFER_RATIO)
HARM = _primary("harm", UNIT)
CLASSIFIER = _evidence("classifier", "AUC", thresholds.CLASSIFIER_AUC_WATCH)
FACTS = _evidence("facts", "facts", 1.0)
SLICES = _evidence("slices", UNIT, 0.0)


def distribution_mismatch(history: History) -> list[Finding]:
    """Primary `coverage`, `transfer`, `harm`; evidence `classifier`, `slices`, `facts`."""
    usage = history.preflight.get("usage")
    judgement = judge_transfer(history)
    harm = _harm(history)
    coverage = _coverage(history, usage or {}, judgement, harm.verdict == "alarm")
    findings = [coverage, _transfer(history, judgement), harm]
    if usage:
        findings += [_classifier(history, usage), _facts(history, usage)]
        findings += _slices(history, usage.get("slices") or {})
    return findings


# ------------------------------------------------------------------ coverage


def _coverage(
    history: History, usage: Mapping[str, Any], judgement: Judgement, harmed: bool
) -> Finding:
    p_values = usage.get("p_values")
    if not p_values:
        return COVERAGE.not_measured(history, HOW)
    n, k = len(p_values), sum(p <= thresholds.UNCOVERED_LEVEL for p in p_values.values())
    p = float(stats.binomtest(k, n, thresholds.UNCOVERED_LEVEL, alternative="greater").pvalue)
    share, mde = k / n, _smallest_share(n)
    verdict, note = _coverage_verdict(share, p, n, mde)
    if verdict == "alarm":
        verdict, note = _confirmed(judgement, harmed, history.newest)
    message = (
        f"{k} of {n} usage prompts ({share:.0%}) are unlike anything in the training data; "
        f"{thresholds.UNCOVERED_LEVEL:.0%} are expected by chance (p = {p:.2g})"
        f"{_named(usage)}.{note}"
    )
    interval = clopper_pearson(k, n)
    return COVERAGE(history, verdict, message, statistic=share, interval=interval, mde=mde, n=n)


def _coverage_verdict(share: float, p: float, n: int, mde: float) -> tuple[Verdict, str]:
    """What the data alone say."""
    verdict = grade(
        n,
        alarm=share >= thresholds.UNCOVERED_ALARM and p < thresholds.UNCOVERED_P,
        watch=share >= thresholds.UNCOVERED_WATCH and p < thresholds.WATCH_LEVEL,
        blind=mde > _BLIND,
    )
    if verdict != "insufficient":
        return verdict, ""
    if n < thresholds.MIN_EXAMPLES:
        return (
            verdict,
            f" {n} prompts are too few to judge; give {thresholds.MIN_EXAMPLES} or more.",
        )
    return verdict, f" So few prompts can only detect a share above {mde:.0%}."


def _confirmed(judgement: Judgement, harmed: bool, step: int) -> tuple[Verdict, str]:
    """Whether uncovered prompts cost anything, as far as training has shown."""
    if step == 0:
        return "watch", " Whether that hurts will show in training."
    if harmed:
        return "alarm", " Their loss rises."
    if judgement.outcome == "not judgeable":
        return "alarm", " Without reference answers it cannot be judged how much that costs."
    if judgement.outcome == "fails":
        return "alarm", " And usage does not profit from what is learned."
    if judgement.outcome == "profits":
        return "watch", " Still usage profits from what is learned, so the training data do fit."
    return "watch", " Whether that hurts is not decided yet."


def _smallest_share(n: int) -> float:
    """The smallest true share of uncovered prompts that alarms four times in five."""
    counts = np.arange(n + 1)
    tails = stats.binom.sf(counts - 1, n, thresholds.UNCOVERED_LEVEL)
    alarms = counts[(tails < thresholds.UNCOVERED_P) & (counts >= thresholds.UNCOVERED_ALARM * n)]
    if not len(alarms):
        return 1.0
    shares = np.linspace(0, 1, 201)
    detected = shares[stats.binom.sf(alarms[0] - 1, n, shares) >= _POWER]
    return float(detected[0])


def _named(usage: Mapping[str, Any]) -> str:
    """The groups that the uncovered prompts fall in, largest first."""
    groups = Counter(
        {str(group["label"]): len(group["ids"]) for group in usage.get("groups") or ()}
    )
    if not groups:
        texts = [str(prompt["text"]) for prompt in (usage.get("uncovered") or ())[:2]]
        return "".join(f'; for example "{_short(text)}"' for text in texts)
    return "; most of them: " + ", ".join(f"{name} ({n})" for name, n in groups.most_common(3))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------ transfer, harm


def _transfer(history: History, judgement: Judgement) -> Finding:
    now = judgement.now
    if now is None:
        not_judgeable = judgement.outcome == "not judgeable"
        why = _no_answers(history) if not_judgeable else judgement.why
        return TRANSFER.not_measured(history, why)
    n = min(now.usage.n, now.val.n)
    message = (
        f"Since the base model, loss changed by {signed(now.usage.mean)} {UNIT} on `usage` and by "
        f"{signed(now.val.mean)} on `val`: "
    )
    if judgement.outcome == "pending":
        message += f"no ratio can be judged, because {judgement.why}."
        return TRANSFER(history, "insufficient", message, n=n)
    low, high = (f"{end:.0%}" if abs(end) < 100 else "unbounded" for end in now.interval)
    message += f"usage gets {now.ratio:.0%} of the improvement (95 % interval {low} to {high})."
    if judgement.alarm:
        message += " The run gets better at its training data, but not at what it is meant for."
    verdict = grade(alarm=judgement.alarm, watch=now.lags, blind=judgement.outcome != "profits")
    ratio: dict[str, Any] = {"statistic": now.ratio, "interval": now.interval, "mde": now.mde}
    return TRANSFER(history, verdict, message, **ratio, n=n)


def _no_answers(history: History) -> str:
    """Why transfer cannot be judged; with prompts alone, what can be said instead."""
    drift = history.table("usage_drift")
    if drift is None:
        return HOW
    text = (
        "the usage prompts have no reference answers, so whether the model gets better at them "
        "cannot be judged, only how far it drifts from the base model"
    )
    if not isinstance(compared(drift, ""), str):
        change = paired(drift.loss[-1] - drift.loss[0])
        text += f" (loss on the base model's own answers: {signed(change.mean)} {UNIT})"
    return text + "; add answers to `--usage FILE`"


def _harm(history: History) -> Finding:
    if history.table("usage") is None:
        return HARM.not_measured(history, _no_answers(history))
    table = compared(history.table("usage"), HOW)
    if isinstance(table, str):
        return HARM.not_measured(history, table)
    margin = history.settings.margin
    verdict, now = rise_from_base(table.loss, margin, margin / 2, alarm_level(history))
    message = f"Loss on `usage` changed by {signed(now.mean)} {UNIT} from the base model"
    message += f" ({interval_of(now)}; margin {margin:g})." if now.n > 1 else "."
    if verdict == "alarm":
        message += " Training makes the model worse where it will be used."
    if verdict in ("insufficient", "pass"):
        mde = finite(now.mde)
        message += (
            f" {now.n} prompts can detect a rise of {figure(margin + mde)}."
            if mde is not None
            else f" {now.n} prompts are too few to judge."
        )
    return HARM(history, verdict, message, now, threshold=margin)


# ------------------------------------------------------------------ evidence


def _classifier(history: History, usage: Mapping[str, Any]) -> Finding:
    result = usage.get("classifier")
    if not result:
        return CLASSIFIER.not_measured(history, "too few prompts for a classifier")
    area, p = float(result["auc"]), float(result["p"])
    verdict = grade(watch=area >= thresholds.CLASSIFIER_AUC_WATCH and p < thresholds.CLASSIFIER_P)
    words = ", ".join(str(word) for word in (result.get("words") or ())[:8])
    message = (
        f"A classifier tells usage prompts from training prompts with AUC {area:.2f} (0.5 is "
        f"guessing; p = {p:.2g})"
    )
    message += f"; words of usage: {words}." if verdict == "watch" and words else "."
    return CLASSIFIER(history, verdict, message, statistic=area, n=int(usage.get("n", 0)))


def _facts(history: History, usage: Mapping[str, Any]) -> Finding:
    facts = usage.get("facts") or ()
    if not facts:
        return FACTS.not_measured(history, "no facts about the prompts")
    differing = [str(fact["message"]) for fact in facts if fact["differs"]]
    names = ", ".join(str(fact["name"]) for fact in facts)
    message = " ".join(differing) or f"Usage and training prompts agree in {names}."
    verdict = grade(watch=bool(differing))
    return FACTS(history, verdict, message, statistic=len(differing), n=len(facts))


def _slices(history: History, labels: Mapping[str, Any]) -> list[Finding]:
    """The usage slice that lost most; Holm's correction over slices (Holm 1979)."""
    table = compared(history.table("usage"), "")
    if isinstance(table, str) or not labels:
        return []
    tests = _by_slice(table, labels)
    if not tests:
        why = f"no slice of usage has {_FEWEST_IN_SLICE} prompts"
        return [SLICES.not_measured(history, why)]
    adjusted = holm([test.p for _, test in tests])
    p, (name, test) = min(zip(adjusted, tests, strict=True), key=lambda s: (s[0], -s[1][1].mean))
    verdict = grade(watch=p < thresholds.WATCH_LEVEL)
    message = f"None of {len(tests)} usage slices surely got worse."
    if verdict == "watch":
        message = (
            f'Usage slice "{name}" got worse: {signed(test.mean)} {UNIT} ({test.n} prompts, '
            f"p = {p:.2g} corrected for {len(tests)} slices)."
        )
    return [SLICES(history, verdict, message, test)]


def _by_slice(table: Table, labels: Mapping[str, Any]) -> list[tuple[str, Paired]]:
    change = table.loss[-1] - table.loss[0]
    members: dict[str, list[int]] = {}
    for i, name in enumerate(table.ids):
        if name in labels and np.isfinite(change[i]):
            members.setdefault(str(labels[name]), []).append(i)
    return [
        (name, paired(change[rows]))
        for name, rows in sorted(members.items())
        if len(rows) >= _FEWEST_IN_SLICE
    ]
