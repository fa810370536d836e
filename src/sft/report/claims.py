"""Is the model better than its base, by how much, on what, and at what cost? With its sources.

Every comparison is paired: each row with itself, loss per token after minus before, every row
counting once (`sft.guards.statistics.paired`, as `sft compare` does between two runs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sft.guards.history import usable_rows
from sft.guards.statistics import minimum_detectable_effect, paired
from sft.runs.compare import FEWEST, LEVEL
from sft.runs.files import Record, items, number, objects, section
from sft.runs.run_records import PROBES, RunRecords
from sft.texts.numbers import interval_text, p_text, points, signed

NAMES = {
    "val": "validation rows",
    "usage": "rows of your own use",
    "test": "test rows, which decided nothing",
    "retain": "texts of what the base model knew",
}
SHORT = {"val": "validation rows", "usage": "usage rows", "test": "test rows", "retain": "texts"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure comes from: a file of the run folder, and rows or fields in it."""

    file: str
    where: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure of the report, with all that is needed to doubt it.

    `value` is a change in `unit`, from `before` to `after`, of which `interval` covers the true
    value in 95 of 100 cases. `p` is the chance, one-sided, of so large a change towards `verdict`
    if there were none. `mde` is the change that would have been called one four times in
    five; None where none ever would, or where nothing was tested.
    """

    id: str
    name: str
    text: str
    value: float | None
    unit: str
    verdict: str
    n: int
    interval: tuple[float, float] | None = None
    p: float | None = None
    mde: float | None = None
    before: float | None = None
    after: float | None = None
    budget: float | None = None
    sources: tuple[Source, ...] = ()


_Pair = tuple[Mapping[str, Any], Mapping[str, Any]]


def paired_claims(records: RunRecords) -> list[Claim]:
    """Loss and accuracy on each held-out probe, and the loss on `retain`, base against compared."""
    step = records.compared
    if step is None:
        return []
    claims: list[Claim] = []
    for probe in PROBES:
        if rows := _pairs(records, probe, step):
            claims += [_loss_claim(probe, rows, step), _accuracy_claim(probe, rows, step)]
    if rows := _pairs(records, "retain", step):
        budget = number(records.setting("guards.forgetting_budget"))
        claims.append(_retain_claim(rows, step, budget))
    return claims


def _pairs(records: RunRecords, probe: str, step: int) -> list[_Pair]:
    """The records of each row at the base and at `step`; rows that are usable in both only."""
    by_step = usable_rows(records.scores, probe)
    before, after = by_step.get(0, {}), by_step.get(step, {})
    return [
        (before[name], after[name])
        for name in before
        if name in after and before[name]["tokens"] == after[name]["tokens"]
    ]


def _loss_claim(probe: str, rows: Sequence[_Pair], step: int) -> Claim:
    claim, changes = _measured(f"{probe}_loss", f"{SHORT[probe]}: loss", rows, "nll", step)
    verdict, p = judged(changes)
    text = (
        f"{NAMES[probe]}: loss {signed(claim.value)} nats per token against the base model "
        f"(95 % interval {interval_text(claim.interval)}; {p_text(p)}; {len(rows):,} rows, each "
        "compared with itself)"
    )
    return replace(claim, text=text, verdict=verdict, p=p)


def _accuracy_claim(probe: str, rows: Sequence[_Pair], step: int) -> Claim:
    name = f"{SHORT[probe]}: right tokens ranked first"
    claim, changes = _measured(f"{probe}_accuracy", name, rows, "correct", step)
    verdict, p = judged(changes, lower_is_better=False)
    text = (
        f"{NAMES[probe]}: share of the right tokens that are ranked first {points(claim.value)} "
        f"(95 % interval {interval_text(claim.interval, points)}; {p_text(p)})"
    )
    verdict = verdict if changes else "not measured"
    return replace(claim, text=text, unit="share of tokens", verdict=verdict, p=p)


def _retain_claim(rows: Sequence[_Pair], step: int, budget: float | None) -> Claim:
    """Against the forgetting budget: `within`, `over`, or not to be told."""
    claim, changes = _measured("retain_loss", "what the base model knew: loss", rows, "nll", step)
    test = paired(changes, budget or 0.0)
    low, high = test.interval
    if len(changes) < FEWEST:
        verdict = "too few rows to tell"
    elif budget is None:
        verdict = "no budget"
    elif low > budget:
        verdict = "over the budget"
    elif high <= budget:
        verdict = "within the budget"
    else:
        verdict = "cannot be told from the budget"
    text = (
        f"what the base model knew: loss {signed(claim.value)} nats per token on {len(rows):,} "
        f"texts (95 % interval {interval_text(claim.interval)}; budget "
        f"{'none' if budget is None else f'{budget:g}'})"
    )
    sources = (*claim.sources, Source("config.yaml", "guards.forgetting_budget"))
    return replace(claim, text=text, verdict=verdict, p=test.p, budget=budget, sources=sources)


def _measured(
    known_as: str, name: str, rows: Sequence[_Pair], column: str, step: int
) -> tuple[Claim, list[float]]:
    """What `column` per token is before and after, not judged yet; and each row's change.

    Rows without the column are left out.
    """
    usable = [pair for pair in rows if all(number(row.get(column)) is not None for row in pair)]
    before, after = ([pair[i][column] / pair[i]["tokens"] for pair in usable] for i in (0, 1))
    changes = [b - a for a, b in zip(before, after, strict=True)]
    test = paired(changes)
    mde = minimum_detectable_effect(test.sd, test.n, LEVEL) if test.n >= FEWEST else math.inf
    where = f'probe "{known_as.rpartition("_")[0]}", steps 0 and {step}: {column} / tokens by id'
    claim = Claim(
        id=known_as,
        name=name,
        text="",
        value=test.mean if changes else None,
        unit="nats per token",
        verdict="",
        n=len(changes),
        interval=test.interval if all(map(math.isfinite, test.interval)) else None,
        mde=mde if math.isfinite(mde) else None,
        before=sum(before) / len(before) if before else None,
        after=sum(after) / len(after) if after else None,
        sources=(Source("scores.jsonl", where),),
    )
    return claim, changes


def judged(changes: Sequence[float], lower_is_better: bool = True) -> tuple[str, float]:
    """The verdict on paired differences, and the p that belongs to it."""
    rise, fall = paired(changes).p, paired([-value for value in changes]).p
    better, worse = (fall, rise) if lower_is_better else (rise, fall)
    if len(changes) < FEWEST:
        return "too few rows to tell", min(rise, fall)
    if better < LEVEL:
        return "better", better
    if worse < LEVEL:
        return "worse", worse
    return "no difference seen", min(rise, fall)


# ---------------------------------------------------------------- what others measured


def perplexities(records: RunRecords) -> list[Claim]:
    """Perplexity of each held-out probe before and after, token-weighted, as the evaluations have
    it.
    """
    step, base = records.compared, records.evals.get(0, {})
    if step is None:
        return []
    after = {**records.evals.get(step, {}), **(records.tested if records.finished else {})}
    if records.blended is not None:
        after |= section(records.summary, "best")
    claims = []
    for probe in PROBES:
        name = f"{probe}_perplexity"
        was, now = number(base.get(name)), number(after.get(name))
        if was is not None and now is not None:
            where = Source("metrics.jsonl", f"{name}, evaluations at steps 0 and {step}")
            claims.append(
                Claim(
                    id=name,
                    name=f"{SHORT[probe]}: perplexity",
                    text=f"{NAMES[probe]}: perplexity {was:.4g} before, {now:.4g} after",
                    value=now - was,
                    unit="choices",
                    verdict="not tested",
                    n=0,
                    before=was,
                    after=now,
                    sources=(where,),
                )
            )
    return claims


def blend_claims(records: RunRecords) -> list[Claim]:
    """What `guards.blend: auto` measured of the weights it handed back (mean, standard error)."""
    alpha = records.blended
    if alpha is None:
        return []
    points_there = [p for p in objects(records.blend, "points") if number(p.get("alpha")) == alpha]
    claims = [
        _blend_claim(name, section(point, name), alpha)
        for point in points_there
        for name in ("task", "retain")
    ]
    return [claim for claim in claims if claim]


def _blend_claim(name: str, change: Record, alpha: float) -> Claim | None:
    mean, se, n = (number(change.get(key)) for key in ("mean", "se", "n"))
    if mean is None:
        return None
    span = None if se is None else (mean - 1.96 * se, mean + 1.96 * se)
    what = "the task" if name == "task" else "what the base model knew"
    return Claim(
        id=f"blend_{name}",
        name=f"after blending, {what}: loss",
        text=(
            f"after blending ({alpha:g} of the way from the base model), {what}: loss "
            f"{signed(mean)} nats per token (95 % interval {interval_text(span)})"
        ),
        value=mean,
        unit="nats per token",
        verdict="measured when the blend was chosen",
        n=int(n or 0),
        interval=span,
        sources=(Source("blend.json", f"points, alpha {alpha:g}: {name}"),),
    )


def evaluation_claims(records: RunRecords) -> dict[str, list[Claim]]:
    """The measures of each `eval-*.json`, by file: base, tuned, change."""
    return {
        file: [
            _measure_claim(file, str(name), both)
            for name, both in section(evaluation, "measures").items()
            if isinstance(both, dict)
        ]
        for file, evaluation in records.evaluations.items()
    }


def _measure_claim(file: str, name: str, both: Record) -> Claim:
    base, tuned = section(both, "base"), section(both, "tuned")
    unit = str(tuned.get("unit") or base.get("unit") or "")
    spans = _span(base), _span(tuned)
    return Claim(
        id=f"{file.removesuffix('.json')}.{name}",
        name=name.replace("_", " "),
        text=f"{name.replace('_', ' ')} on {file}",
        value=number(both.get("change")),
        unit=unit,
        verdict=_apart(*spans),
        n=int(number(tuned.get("n")) or 0),
        interval=spans[1],
        before=number(base.get("value")),
        after=number(tuned.get("value")),
        sources=(Source(file, f"measures.{name}"),),
    )


def _span(measure: Record) -> tuple[float, float] | None:
    ends = [number(end) for end in items(measure, "interval")]
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    return ends[0], ends[1]


def _apart(base: tuple[float, float] | None, tuned: tuple[float, float] | None) -> str:
    """Two intervals of shares that do not touch differ for sure; those that do may yet differ."""
    if base is None or tuned is None:
        return "not tested"
    if tuned[0] > base[1]:
        return "better"
    return "worse" if tuned[1] < base[0] else "no difference seen"
