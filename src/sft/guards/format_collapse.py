"""Has the model learned how answers look, and lost what they depend on?

Improvement that concentrates on surface tokens which do not depend on the prompt shows first where
an answer begins: one opener takes nearly all the probability, and the prompt no longer tells which
opener comes. A task whose every answer is meant to open with `{` looks the same, so the
opener is held against the reference answers. Decoding shifts mostly in such tokens (arXiv
2312.01552), and format specialisation comes early in fine-tuning (arXiv 2211.00635).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from sft.guards.base import Finding, Verdict
from sft.guards.completions import most_open_with, preflight_openers, sampled_openers
from sft.guards.evaluations import (
    bounded,
    figures,
    finite,
    interval_of,
    lasts,
    mean,
    newest,
    no_change_yet,
    not_measured,
)
from sft.guards.history import History, Table
from sft.guards.statistics import Paired, clopper_pearson, paired, ratio_interval
from sft.guards.thresholds import (
    FIRST_TOKEN_MASS,
    INFORMATION_LOST,
    MASS_ABOVE_REFERENCE,
    MIN_EXAMPLES,
    SHALLOW_KL_LEAST,
    SHALLOW_KL_WATCH,
    SURFACE_SHARE,
)
from sft.texts.numbers import figure, signed

GUARD = "format_collapse"
NEVER = "no probe recorded what answers begin with; a run with `guards.enabled: true` does"
REMEDY = (
    "take the shared opener out of the training answers (--set data.openers=strip), or mix in "
    "answers of other forms, and train again under another --run"
)


def format_collapse(history: History) -> list[Finding]:
    """Primary `opener`; evidence `shallow_kl`, `surface_share`, `generation` and `openers`."""
    step = newest(history)
    probe = opener_probe(history)
    table = history.table(probe) if probe else None
    why = NEVER if table is None else no_change_yet(table, NEVER)
    if table is None or why:
        opener = not_measured(GUARD, "opener", step, why or NEVER, primary=True)
        return [opener, *_evidence(history, None, step)]
    return [_opener(history, probe, table, step), *_evidence(history, table, step)]


def _evidence(history: History, table: Table | None, step: int) -> list[Finding]:
    return [
        _shallow_kl(table, step),
        _surface_share(history.table("val"), step),
        sampled_openers(history, step),
        preflight_openers(history, step),
    ]


def opener_probe(history: History) -> str:
    """The probe that openers are judged on: `usage` if it has references, else `val`; or ''."""
    num_scored = {
        probe: int(np.isfinite(table.column("first_mass")[-1]).sum())
        for probe in ("usage", "val")
        if (table := history.table(probe)) is not None and table.steps
    }
    enough = [probe for probe, n in num_scored.items() if n >= MIN_EXAMPLES]
    return next(iter(enough), max(num_scored, key=num_scored.__getitem__, default=""))


# ------------------------------------------------------------------ opener


@dataclass(frozen=True, slots=True)
class Opening:
    """How the answers of one probe open at one evaluation.

    `mass` is the mean probability of the likeliest first token, `info` the mutual information of
    prompt and first token in nats, `base_info` that of the base model. `share` of the reference
    answers open with their own most frequent first token; `bound` is its 95 % upper bound, and
    `required` the mass that is too much next to it. `same`: that is the model's token too.
    """

    mass: Paired
    info: float
    base_info: float
    share: float
    bound: float
    required: float
    same: bool

    @property
    def dominant(self) -> bool:
        """One opener has most of the probability."""
        return self.mass.mean >= FIRST_TOKEN_MASS

    @property
    def blind(self) -> bool:
        """The prompt hardly tells any more which opener comes."""
        return self.info <= (1 - INFORMATION_LOST) * self.base_info

    @property
    def collapsed(self) -> bool:
        """Both, and the references do not open like this."""
        return self.dominant and self.blind and self.mass.mean >= self.required

    @property
    def alike(self) -> bool:
        """The references themselves mostly open with one token."""
        return self.share >= FIRST_TOKEN_MASS


def opening(table: Table, evaluation: int) -> Opening:
    """The openings at row `evaluation` of `table`, whose first row is the base model."""
    mass, labels = table.column("first_mass")[evaluation], table.column("first_label")[evaluation]
    labels = labels[np.isfinite(labels) & np.isfinite(mass)]
    token, most = next(iter(Counter(labels.tolist()).most_common(1)), (math.nan, 0))
    same = token == mean(table.column("first_token")[evaluation])
    share, bound = most / max(len(labels), 1), clopper_pearson(most, len(labels))[1]
    base, now = (mean(table.column("first_info")[row]) for row in (0, evaluation))
    required = max(FIRST_TOKEN_MASS, bound + MASS_ABOVE_REFERENCE)
    return Opening(paired(mass, required), now, base, share, bound, required, same)


def _opener(history: History, probe: str, table: Table, step: int) -> Finding:
    last = len(table.steps) - 1
    now = opening(table, last)
    if not now.mass.n:
        return not_measured(GUARD, "opener", step, NEVER, primary=True)
    before = last > 1 and opening(table, last - 1).collapsed
    verdict, judgement = _opener_verdict(now, before, probe)
    notable = verdict in ("watch", "alarm")
    low, high = now.mass.interval
    values = figures(now.mass)
    values["interval"] = values["interval"] and (max(low, 0.0), min(high, 1.0))
    return Finding(
        GUARD,
        "opener",
        verdict,
        step,
        f"{judgement} The likeliest first token of answers to `{probe}` prompts has probability "
        f"{now.mass.mean:.2f}; {now.share:.0%} of the references share a first token. Prompt and "
        f"first token share {now.info:.2f} nats of information ({now.base_info:.2f} in the base "
        f"model).{most_open_with(history) if notable else ''}",
        threshold=min(now.required, 1.0),
        unit="probability",
        remedy=REMEDY if notable else "",
        **values,
    )


def _opener_verdict(now: Opening, before: bool, probe: str) -> tuple[Verdict, str]:
    if now.mass.n < MIN_EXAMPLES or math.isnan(now.info) or math.isnan(now.base_info):
        return "insufficient", f"{now.mass.n} prompts are too few to judge."
    if lasts(now.collapsed, before, now.mass.t):
        return "alarm", "Answers open alike whatever is asked."
    if now.collapsed:
        return "watch", "Answers open alike whatever is asked, for the first time."
    if now.dominant and now.alike:
        return _alike_verdict(now, probe)
    if now.dominant and now.blind:
        return "watch", "Answers open alike; the references are too few to say that theirs do not."
    if now.mass.mean >= now.required:
        return "watch", "One opener prevails, though it still depends on the prompt."
    if now.required > 1.0:
        return "insufficient", "References open too much alike to see a collapse on top."
    return "pass", "Answers open as differently as the references do."


def _alike_verdict(now: Opening, probe: str) -> tuple[Verdict, str]:
    if now.blind and not now.same:
        return "watch", "Answers open alike, and the references too, but with another token."
    if probe == "usage":
        return "pass", "Answers open alike, as the reference answers for usage do."
    if not now.blind:
        return "pass", "Answers open alike, as the references do."
    return "watch", (
        "Answers open alike whatever is asked. The references themselves open alike: this is what "
        "the data teaches; give `--usage FILE` to judge it."
    )


# ------------------------------------------------------------------ evidence


def shallow_ratio(table: Table) -> tuple[float, float, float] | None:
    """Mean KL(base || now) at answer position 1 over that at positions 2 to 5, and its interval.

    None where it was not recorded at the newest evaluation.
    """
    first, following = table.column("kl_first")[-1], table.column("kl_next")[-1]
    if not (np.isfinite(first).any() and np.isfinite(following).any()):
        return None
    return ratio_interval(first, following)


def _shallow_kl(table: Table | None, step: int) -> Finding:
    result = shallow_ratio(table) if table is not None else None
    if table is None or result is None:
        return not_measured(
            GUARD, "shallow_kl", step, "no divergence from the base model was recorded"
        )
    ratio, low, high = result
    n = int(np.isfinite(table.column("kl_next")[-1]).sum())
    first = mean(table.column("kl_first")[-1])
    verdict: Verdict = "watch" if ratio > SHALLOW_KL_WATCH else "pass"
    if n < MIN_EXAMPLES:
        verdict = "insufficient"
    elif first < SHALLOW_KL_LEAST:
        verdict = "pass"
    return Finding(
        GUARD,
        "shallow_kl",
        verdict,
        step,
        f"The first answer token moved {ratio:.1f} times as far from the base model as the next "
        f"four (KL {figure(first)} nats).",
        statistic=ratio,
        threshold=SHALLOW_KL_WATCH,
        interval=bounded((low, high)),
        n=n,
        unit="ratio",
        primary=False,
    )


def _surface_share(val: Table | None, step: int) -> Finding:
    if val is None or no_change_yet(val, "") or not np.isfinite(val.column("surface_nll")).any():
        why = "it takes `val` scored with its boilerplate tokens, before and after training"
        return not_measured(GUARD, "surface_share", step, why)
    last = len(val.steps) - 1
    share, content = _surface_at(val, last)
    learned = paired(val.loss[last] - val.loss[0]).interval[1] < 0 and math.isfinite(share)
    fails = learned and _empty(share, content)
    before = last > 1 and _empty(*_surface_at(val, last - 1))
    verdict: Verdict = "pass"
    if content.n < MIN_EXAMPLES or not learned:
        verdict = "insufficient"
    elif fails:
        verdict = "alarm" if before else "watch"
    return Finding(
        GUARD,
        "surface_share",
        verdict,
        step,
        "val_loss has not improved enough to say where."
        if verdict == "insufficient"
        else f"{share:.0%} of what was learned on `val` lies in boilerplate tokens; the loss of "
        f"the content tokens changed by {signed(content.mean)} nats ({interval_of(content)}).",
        statistic=finite(share) if learned else None,
        threshold=SURFACE_SHARE,
        n=content.n,
        unit="share",
        primary=False,
    )


def _surface_at(val: Table, evaluation: int) -> tuple[float, Paired]:
    """Share of the whole fall of nll that is boilerplate's; change of loss on the other tokens."""
    nll, surface = val.column("nll"), val.column("surface_nll")
    counts = val.column("tokens") - val.column("surface_tokens")
    both = np.isfinite(surface[0]) & np.isfinite(surface[evaluation])
    fall = (nll[0] - nll[evaluation])[both].sum()
    share = float((surface[0] - surface[evaluation])[both].sum() / fall) if fall > 0 else math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        content = (nll - surface) / np.where(counts > 0, counts, math.nan)
    return share, paired(content[evaluation] - content[0])


def _empty(share: float, content: Paired) -> bool:
    """Most of it is surface, and the content did not surely improve."""
    return share > SURFACE_SHARE and content.interval[1] >= 0
