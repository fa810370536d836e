"""Is the model better than its base, by how much, on what, and at what cost? With its sources.

Every comparison is paired: each row with itself, loss per token after minus before, every row
counting once (`sft.guards.statistics.paired`, as `sft compare` does between two runs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft.guards.history import usable_rows
from sft.guards.statistics import Paired, minimum_detectable_effect, paired
from sft.runs.compare import FEWEST, LEVEL
from sft.runs.files import number
from sft.runs.run_records import PROBES, Record, RunRecords, items, objects, part
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

    def record(self) -> dict[str, Any]:
        """For `report.json`."""
        return asdict(self)


def paired_claims(records: RunRecords) -> list[Claim]:
    """Loss and accuracy on each held-out probe, and the loss on `retain`, base against compared."""
    step = records.compared
    if step is None:
        return []
    found: list[Claim] = []
    for probe in PROBES:
        rows = _pairs(records, probe, step)
        if rows:
            found += [_loss_claim(probe, rows, step), _accuracy_claim(probe, rows, step)]
    retained = _pairs(records, "retain", step)
    if retained:
        budget = number(records.setting("guards.forgetting_budget"))
        found.append(_retain_claim(retained, step, budget))
    return found


_Pair = tuple[Mapping[str, Any], Mapping[str, Any]]


def _pairs(records: RunRecords, probe: str, step: int) -> list[_Pair]:
    """The records of each row at the base and at `step`; rows that are usable in both only."""
    by_step = usable_rows(records.scores, probe)
    before, after = by_step.get(0, {}), by_step.get(step, {})
    return [
        (before[name], after[name])
        for name in before
        if name in after and before[name]["tokens"] == after[name]["tokens"]
    ]


def _per_token(rows: Sequence[_Pair], column: str) -> tuple[list[float], list[float]]:
    """`column` per token of each row, before and after; rows without it are left out."""
    kept = [pair for pair in rows if all(number(row.get(column)) is not None for row in pair)]
    before, after = (
        [pair[side][column] / pair[side]["tokens"] for pair in kept] for side in (0, 1)
    )
    return before, after


def judged(delta: Sequence[float], lower_is_better: bool = True) -> tuple[str, float, Paired]:
    """The verdict on paired differences, the p that belongs to it, and the test of a rise."""
    up, down = paired(delta), paired([-value for value in delta])
    better, worse = (down, up) if lower_is_better else (up, down)
    if len(delta) < FEWEST:
        return "too few rows to tell", min(up.p, down.p), up
    if better.p < LEVEL:
        return "better", better.p, up
    if worse.p < LEVEL:
        return "worse", worse.p, up
    return "no difference seen", min(up.p, down.p), up


def _least(test: Paired) -> float | None:
    least = minimum_detectable_effect(test.sd, test.n, LEVEL) if test.n >= FEWEST else math.inf
    return least if math.isfinite(least) else None


def _interval(test: Paired) -> tuple[float, float] | None:
    return test.interval if all(map(math.isfinite, test.interval)) else None


def _scores_source(probe: str, step: int, column: str) -> Source:
    return Source("scores.jsonl", f'probe "{probe}", steps 0 and {step}: {column} / tokens by id')


def _loss_claim(probe: str, rows: Sequence[_Pair], step: int) -> Claim:
    before, after = _per_token(rows, "nll")
    delta = [b - a for a, b in zip(before, after, strict=True)]
    verdict, p, test = judged(delta)
    text = (
        f"{NAMES[probe]}: loss {signed(test.mean)} nats per token against the base model "
        f"(95 % interval {interval_text(_interval(test))}; {p_text(p)}; {len(rows):,} rows, each "
        "compared with itself)"
    )
    return Claim(
        id=f"{probe}_loss",
        name=f"{SHORT[probe]}: loss",
        text=text,
        value=test.mean,
        unit="nats per token",
        verdict=verdict,
        n=len(rows),
        interval=_interval(test),
        p=p,
        mde=_least(test),
        before=_mean(before),
        after=_mean(after),
        sources=(_scores_source(probe, step, "nll"),),
    )


def _accuracy_claim(probe: str, rows: Sequence[_Pair], step: int) -> Claim:
    before, after = _per_token(rows, "correct")
    delta = [b - a for a, b in zip(before, after, strict=True)]
    verdict, p, test = judged(delta, lower_is_better=False)
    text = (
        f"{NAMES[probe]}: share of the right tokens that are ranked first {points(test.mean)} "
        f"(95 % interval {interval_text(_interval(test), points)}; {p_text(p)})"
    )
    return Claim(
        id=f"{probe}_accuracy",
        name=f"{SHORT[probe]}: right tokens ranked first",
        text=text,
        value=test.mean if delta else None,
        unit="share of tokens",
        verdict=verdict if delta else "not measured",
        n=len(delta),
        interval=_interval(test),
        p=p,
        mde=_least(test),
        before=_mean(before),
        after=_mean(after),
        sources=(_scores_source(probe, step, "correct"),),
    )


def _retain_claim(rows: Sequence[_Pair], step: int, budget: float | None) -> Claim:
    """Against the forgetting budget: `within`, `over`, or not to be told."""
    before, after = _per_token(rows, "nll")
    delta = [b - a for a, b in zip(before, after, strict=True)]
    test = paired(delta, budget or 0.0)
    low, high = test.interval
    if len(delta) < FEWEST:
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
        f"what the base model knew: loss {signed(test.mean)} nats per token on {len(rows):,} "
        f"texts (95 % interval {interval_text(_interval(test))}; budget "
        f"{'none' if budget is None else f'{budget:g}'})"
    )
    return Claim(
        id="retain_loss",
        name="what the base model knew: loss",
        text=text,
        value=test.mean,
        unit="nats per token",
        verdict=verdict,
        n=len(rows),
        interval=_interval(test),
        p=test.p,
        mde=_least(test),
        before=_mean(before),
        after=_mean(after),
        budget=budget,
        sources=(
            _scores_source("retain", step, "nll"),
            Source("config.yaml", "guards.forgetting_budget"),
        ),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


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
        after |= part(records.summary, "best")
    found = []
    for probe in PROBES:
        name = f"{probe}_perplexity"
        was, now = number(base.get(name)), number(after.get(name))
        if was is not None and now is not None:
            found.append(
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
                    sources=(
                        Source("metrics.jsonl", f"{name}, evaluations at steps 0 and {step}"),
                    ),
                )
            )
    return found


def blend_claims(records: RunRecords) -> list[Claim]:
    """What `guards.blend: auto` measured of the weights it handed back (mean, standard error)."""
    alpha = records.blended
    found = []
    for point in objects(records.blend, "points") if alpha is not None else []:
        if number(point.get("alpha")) != alpha:
            continue
        for name in ("task", "retain"):
            claim = _blend_claim(name, part(point, name), float(alpha or 0.0))
            found += [claim] if claim else []
    return found


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
            for name, both in part(found, "measures").items()
            if isinstance(both, dict)
        ]
        for file, found in records.evaluations.items()
    }


def _measure_claim(file: str, name: str, both: Record) -> Claim:
    base, tuned = part(both, "base"), part(both, "tuned")
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
