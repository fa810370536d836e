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

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.completions import most_open_with, preflight_openers, sampled_openers
from sft.guards.evaluations import Signal, bounded, compared, grade, interval_of, lasts, mean
from sft.guards.history import History, Table
from sft.guards.statistics import Paired, clopper_pearson, paired, ratio_interval
from sft.texts.numbers import figure, signed

NEVER = "no probe recorded what answers begin with; a run with `guards.enabled: true` does"
REMEDY = (
    "take the shared opener out of the training answers (--set data.openers=strip), or mix in "
    "answers of other forms, and train again under another --run"
)


OPENER = Signal("format_collapse", "opener", "probability", remedy=REMEDY, primary=True)
SHALLOW_KL = Signal("format_collapse", "shallow_kl", "ratio", thresholds.SHALLOW_KL_WATCH)
SURFACE = Signal("format_collapse", "surface_share", "share", thresholds.SURFACE_SHARE)


def format_collapse(history: History) -> list[Finding]:
    """Primary `opener`; evidence `shallow_kl`, `surface_share`, `generation` and `openers`."""
    probe = opener_probe(history)
    table = compared(history.table(probe), NEVER)
    return [
        _opener(history, probe, table),
        _shallow_kl(history, table),
        _surface_share(history),
        sampled_openers(history),
        preflight_openers(history),
    ]


def opener_probe(history: History) -> str:
    """The probe that openers are judged on: `usage` if it has references, else `val`; or ''."""
    num_scored = {
        probe: int(np.isfinite(table.column("first_mass")[-1]).sum())
        for probe in ("usage", "val")
        if (table := history.table(probe)) is not None and table.steps
    }
    enough = [probe for probe, n in num_scored.items() if n >= thresholds.MIN_EXAMPLES]
    return next(iter(enough), max(num_scored, key=num_scored.__getitem__, default=""))


# ------------------------------------------------------------------ opener


@dataclass(frozen=True, slots=True)
class Opening:
    """How the answers of one probe open at one evaluation.

    `mass` is the mean probability of the likeliest first token, `info` the mutual information of
    prompt and first token in nats, `base_info` that of the base model. `share` of the reference
    answers open with their own most frequent first token, and `required` is the mass that is too
    much next to the 95 % upper bound of that. `same`: that is the model's token too.
    """

    mass: Paired
    info: float
    base_info: float
    share: float
    required: float
    same: bool

    @property
    def blind(self) -> bool:
        """The prompt hardly tells any more which opener comes."""
        return self.info <= (1 - thresholds.INFORMATION_LOST) * self.base_info

    @property
    def collapsed(self) -> bool:
        """One opener prevails whatever is asked, and the references do not open like this."""
        return self.blind and self.mass.mean >= self.required


def opening(table: Table, evaluation: int) -> Opening:
    """The openings at row `evaluation` of `table`, whose first row is the base model."""
    mass, labels = table.column("first_mass")[evaluation], table.column("first_label")[evaluation]
    labels = labels[np.isfinite(labels) & np.isfinite(mass)]
    token, most = next(iter(Counter(labels.tolist()).most_common(1)), (math.nan, 0))
    same = token == mean(table.column("first_token")[evaluation])
    share, bound = most / max(len(labels), 1), clopper_pearson(most, len(labels))[1]
    base, now = (mean(table.column("first_info")[row]) for row in (0, evaluation))
    required = max(thresholds.FIRST_TOKEN_MASS, bound + thresholds.MASS_ABOVE_REFERENCE)
    return Opening(paired(mass, required), now, base, share, required, same)


def _opener(history: History, probe: str, table: Table | str) -> Finding:
    if isinstance(table, str):
        return OPENER.not_measured(history, table)
    last = len(table.steps) - 1
    now = opening(table, last)
    if not now.mass.n:
        return OPENER.not_measured(history, NEVER)
    before = last > 1 and opening(table, last - 1).collapsed
    verdict, judgement = _opener_verdict(now, before, probe)
    example = most_open_with(history) if verdict in ("watch", "alarm") else ""
    message = (
        f"{judgement} The likeliest first token of answers to `{probe}` prompts has probability "
        f"{now.mass.mean:.2f}; {now.share:.0%} of the references share a first token. Prompt and "
        f"first token share {now.info:.2f} nats of information ({now.base_info:.2f} in the base "
        f"model).{example}"
    )
    ends = bounded(now.mass.interval)
    interval = ends and (max(ends[0], 0.0), min(ends[1], 1.0))
    threshold = min(now.required, 1.0)
    return OPENER(history, verdict, message, now.mass, interval=interval, threshold=threshold)


def _opener_verdict(now: Opening, before: bool, probe: str) -> tuple[Verdict, str]:
    if now.mass.n < thresholds.MIN_EXAMPLES or math.isnan(now.info) or math.isnan(now.base_info):
        return "insufficient", f"{now.mass.n} prompts are too few to judge."
    if lasts(now.collapsed, before, now.mass.t):
        return "alarm", "Answers open alike whatever is asked."
    if now.collapsed:
        return "watch", "Answers open alike whatever is asked, for the first time."
    dominant = now.mass.mean >= thresholds.FIRST_TOKEN_MASS
    if dominant and now.share >= thresholds.FIRST_TOKEN_MASS:
        return _alike_verdict(now, probe)
    if dominant and now.blind:
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


def _shallow_kl(history: History, table: Table | str) -> Finding:
    result = None if isinstance(table, str) else shallow_ratio(table)
    if isinstance(table, str) or result is None:
        why = "no divergence from the base model was recorded"
        return SHALLOW_KL.not_measured(history, why)
    ratio, *interval = result
    n = int(np.isfinite(table.column("kl_next")[-1]).sum())
    first = mean(table.column("kl_first")[-1])
    verdict = grade(
        n, watch=ratio > thresholds.SHALLOW_KL_WATCH and not first < thresholds.SHALLOW_KL_LEAST
    )
    message = (
        f"The first answer token moved {ratio:.1f} times as far from the base model as the next "
        f"four (KL {figure(first)} nats)."
    )
    return SHALLOW_KL(history, verdict, message, statistic=ratio, interval=tuple(interval), n=n)


def _surface_share(history: History) -> Finding:
    val = compared(history.table("val"), "")
    if isinstance(val, str) or not np.isfinite(val.column("surface_nll")).any():
        why = "it takes `val` scored with its boilerplate tokens, before and after training"
        return SURFACE.not_measured(history, why)
    last = len(val.steps) - 1
    share, content = _surface_at(val, last)
    learned = paired(val.loss[last] - val.loss[0]).interval[1] < 0 and math.isfinite(share)
    fails = learned and _empty(share, content)
    before = last > 1 and _empty(*_surface_at(val, last - 1))
    verdict = grade(content.n, alarm=fails and before, watch=fails, blind=not learned)
    message = (
        f"{share:.0%} of what was learned on `val` lies in boilerplate tokens; the loss of "
        f"the content tokens changed by {signed(content.mean)} nats ({interval_of(content)})."
    )
    if verdict == "insufficient":
        message = "val_loss has not improved enough to say where."
    return SURFACE(history, verdict, message, statistic=share if learned else None, n=content.n)


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
    return share > thresholds.SURFACE_SHARE and content.interval[1] >= 0
