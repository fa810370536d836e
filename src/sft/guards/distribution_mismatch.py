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

from sft.guards.base import Finding, Verdict
from sft.guards.evaluations import (
    UNIT,
    alarm_level,
    bounded,
    figures,
    finite,
    interval_of,
    newest,
    no_change_yet,
    not_measured,
    rise_from_base,
)
from sft.guards.history import History, Table
from sft.guards.statistics import Paired, clopper_pearson, holm, paired
from sft.guards.thresholds import (
    CLASSIFIER_AUC_WATCH,
    CLASSIFIER_P,
    MIN_EXAMPLES,
    TRANSFER_RATIO,
    UNCOVERED_ALARM,
    UNCOVERED_LEVEL,
    UNCOVERED_P,
    UNCOVERED_WATCH,
    WATCH_LEVEL,
)
from sft.guards.transfer_ratio import Judgement, TransferRatio, judge_transfer
from sft.texts.numbers import figure, signed

GUARD = "distribution_mismatch"
HOW = "give prompts as they come in real use, best with reference answers: `--usage FILE`"
REMEDY = (
    "add training rows like the usage prompts (a few dozen help), show rows that resemble them "
    "more often (`data.usage_weighting`), and choose the checkpoint by usage"
)
_FEWEST_IN_SLICE = 5  # below, no p of a sign-flip test survives a correction
_BLIND = 0.5  # coverage that could only see a share above this says nothing
_POWER = 0.8

_unmeasured = partial(not_measured, GUARD)


def distribution_mismatch(history: History) -> list[Finding]:
    """Primary `coverage`, `transfer`, `harm`; evidence `classifier`, `slices`, `facts`."""
    step = newest(history)
    usage = history.preflight.get("usage")
    judgement = judge_transfer(history)
    harm = _harm(history, step)
    findings = [
        _coverage(usage, judgement, harm.verdict == "alarm", step),
        _transfer(history, judgement, step),
        harm,
    ]
    if usage:
        findings += [_classifier(usage, step), _facts(usage, step)]
        findings += _slices(history, usage, step)
    return findings


# ------------------------------------------------------------------ coverage


def _coverage(
    usage: Mapping[str, Any] | None, judgement: Judgement, harmed: bool, step: int
) -> Finding:
    if not usage or not usage.get("p_values"):
        return _unmeasured("coverage", step, HOW, primary=True)
    p_values = usage["p_values"]
    n, k = len(p_values), sum(p <= UNCOVERED_LEVEL for p in p_values.values())
    p = float(stats.binomtest(k, n, UNCOVERED_LEVEL, alternative="greater").pvalue)
    mde = _smallest_share(n)
    verdict, note = _coverage_verdict(k / n, p, n, mde)
    if verdict == "alarm":
        verdict, note = _confirmed(judgement, harmed, step)
    message = (
        f"{k} of {n} usage prompts ({k / n:.0%}) are unlike anything in the training data; "
        f"{UNCOVERED_LEVEL:.0%} are expected by chance (p = {p:.2g}){_named(usage)}.{note}"
    )
    return Finding(
        GUARD,
        "coverage",
        verdict,
        step,
        message,
        statistic=k / n,
        threshold=UNCOVERED_ALARM,
        interval=clopper_pearson(k, n),
        mde=mde,
        n=n,
        unit="share",
        remedy=REMEDY if verdict in ("watch", "alarm") else "",
    )


def _coverage_verdict(share: float, p: float, n: int, mde: float) -> tuple[Verdict, str]:
    """What the data alone say."""
    if n < MIN_EXAMPLES:
        return "insufficient", f" {n} prompts are too few to judge; give {MIN_EXAMPLES} or more."
    if share >= UNCOVERED_ALARM and p < UNCOVERED_P:
        return "alarm", ""
    if share >= UNCOVERED_WATCH and p < WATCH_LEVEL:
        return "watch", ""
    if mde > _BLIND:
        return "insufficient", f" So few prompts can only detect a share above {mde:.0%}."
    return "pass", ""


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
    tails = stats.binom.sf(counts - 1, n, UNCOVERED_LEVEL)
    alarms = counts[(tails < UNCOVERED_P) & (counts >= UNCOVERED_ALARM * n)]
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


def _transfer(history: History, judgement: Judgement, step: int) -> Finding:
    now = judgement.now
    if judgement.outcome == "not judgeable":
        return _unmeasured("transfer", step, _no_answers(history), primary=True)
    if now is None:
        return _unmeasured("transfer", step, judgement.why, primary=True)
    verdict = _transfer_verdict(judgement, now)
    pending = judgement.outcome == "pending"
    message = (
        f"Since the base model, loss changed by {signed(now.usage.mean)} {UNIT} on `usage` and by "
        f"{signed(now.val.mean)} on `val`: "
    )
    if pending:
        message += f"no ratio can be judged, because {judgement.why}."
    else:
        low, high = (f"{end:.0%}" if abs(end) < 100 else "unbounded" for end in now.interval)
        message += f"usage gets {now.ratio:.0%} of the improvement (95 % interval {low} to {high})."
    if verdict == "alarm":
        message += " The run gets better at its training data, but not at what it is meant for."
    return Finding(
        GUARD,
        "transfer",
        verdict,
        step,
        message,
        statistic=None if pending else now.ratio,
        threshold=TRANSFER_RATIO,
        interval=None if pending else bounded(now.interval),
        mde=None if pending else finite(now.mde),
        n=min(now.usage.n, now.val.n),
        unit="ratio",
        remedy=REMEDY if verdict in ("watch", "alarm") else "",
    )


def _transfer_verdict(judgement: Judgement, now: TransferRatio) -> Verdict:
    if judgement.outcome == "pending":
        return "insufficient"
    if judgement.alarm:
        return "alarm"
    if judgement.outcome == "profits":
        return "pass"
    return "watch" if now.lags else "insufficient"


def _no_answers(history: History) -> str:
    """Why transfer cannot be judged; with prompts alone, what can be said instead."""
    drift = history.table("usage_drift")
    if drift is None:
        return HOW
    text = (
        "the usage prompts have no reference answers, so whether the model gets better at them "
        "cannot be judged, only how far it drifts from the base model"
    )
    if not no_change_yet(drift, ""):
        change = paired(drift.loss[-1] - drift.loss[0])
        text += f" (loss on the base model's own answers: {signed(change.mean)} {UNIT})"
    return text + "; add answers to `--usage FILE`"


def _harm(history: History, step: int) -> Finding:
    table = history.table("usage")
    if table is None:
        return _unmeasured("harm", step, _no_answers(history), primary=True)
    if why := no_change_yet(table, HOW):
        return _unmeasured("harm", step, why, primary=True)
    margin = history.settings.margin
    rise = rise_from_base(table.loss, margin, margin / 2, alarm_level(history))
    now, verdict = rise.now, rise.verdict
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
    return Finding(
        GUARD,
        "harm",
        verdict,
        step,
        message,
        threshold=margin,
        unit=UNIT,
        remedy=REMEDY if verdict in ("watch", "alarm") else "",
        **figures(now),
    )


# ------------------------------------------------------------------ evidence


def _classifier(usage: Mapping[str, Any], step: int) -> Finding:
    result = usage.get("classifier")
    if not result:
        return _unmeasured("classifier", step, "too few prompts for a classifier")
    area, p = float(result["auc"]), float(result["p"])
    apart = area >= CLASSIFIER_AUC_WATCH and p < CLASSIFIER_P
    words = ", ".join(str(word) for word in (result.get("words") or ())[:8])
    return Finding(
        GUARD,
        "classifier",
        "watch" if apart else "pass",
        step,
        f"A classifier tells usage prompts from training prompts with AUC {area:.2f} (0.5 is "
        f"guessing; p = {p:.2g})" + (f"; words of usage: {words}." if apart and words else "."),
        statistic=area,
        threshold=CLASSIFIER_AUC_WATCH,
        n=int(usage.get("n", 0)),
        unit="AUC",
        primary=False,
    )


def _facts(usage: Mapping[str, Any], step: int) -> Finding:
    facts = usage.get("facts") or ()
    if not facts:
        return _unmeasured("facts", step, "no facts about the prompts")
    differing = [fact for fact in facts if fact["differs"]]
    differences = " ".join(str(fact["message"]) for fact in differing)
    names = ", ".join(str(fact["name"]) for fact in facts)
    return Finding(
        GUARD,
        "facts",
        "watch" if differing else "pass",
        step,
        differences or f"Usage and training prompts agree in {names}.",
        statistic=float(len(differing)),
        threshold=1.0,
        n=len(facts),
        unit="facts",
        primary=False,
    )


def _slices(history: History, usage: Mapping[str, Any], step: int) -> list[Finding]:
    """The usage slice that lost most; Holm's correction over slices (Holm 1979)."""
    table, labels = history.table("usage"), usage.get("slices") or {}
    if table is None or not labels or no_change_yet(table, ""):
        return []
    tests = _by_slice(table, labels)
    if not tests:
        why = f"no slice of usage has {_FEWEST_IN_SLICE} prompts"
        return [_unmeasured("slices", step, why)]
    adjusted = holm([test.p for _, test in tests])
    worst = min(range(len(tests)), key=lambda i: (adjusted[i], -tests[i][1].mean))
    name, test = tests[worst]
    lost = adjusted[worst] < WATCH_LEVEL
    message = (
        f'Usage slice "{name}" got worse: {signed(test.mean)} {UNIT} ({test.n} prompts, '
        f"p = {adjusted[worst]:.2g} corrected for {len(tests)} slices)."
        if lost
        else f"None of {len(tests)} usage slices surely got worse."
    )
    return [
        Finding(
            GUARD,
            "slices",
            "watch" if lost else "pass",
            step,
            message,
            threshold=0.0,
            unit=UNIT,
            primary=False,
            **figures(test),
        )
    ]


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
