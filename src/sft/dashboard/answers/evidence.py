"""Examples behind the verdicts: rows, answers and prompts, from nothing but the records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sft.errors import SFTError
from sft.guards.answers import in_a_loop
from sft.guards.statistics import robust_z
from sft.runs.files import Record, all_records, json_object, number, section, whole
from sft.runs.run_dir import RunDir
from sft.runs.series import series_of
from sft.texts.openers import opener

MOST = 8  # examples of one kind
_MAX_TEXT = 2_000
_FEWEST_STEPS = 12

Group = dict[str, Any]  # {"title", "items": [{"id", "text", "figure"}]}


@dataclass(frozen=True, slots=True)
class _Scores:
    """Loss per token of one probe by step and row."""

    probe: str
    by_step: dict[int, dict[str, float]]

    @property
    def steps(self) -> list[int]:
        return sorted(self.by_step)

    def best(self) -> int | None:
        """The trained evaluation with the lowest mean loss over rows."""
        trained = [step for step in self.steps if step > 0 and self.by_step[step]]
        return min(trained, key=self._mean, default=None)

    def _mean(self, step: int) -> float:
        return float(np.mean(list(self.by_step[step].values())))


def evidence(run: RunDir) -> dict[str, list[Group]]:
    """By guard, groups of examples; a guard without any is left out."""
    scores, texts = _scores(run), _texts(run)
    try:
        preflight = json_object(run.preflight)
    except SFTError:
        preflight = {}
    samples = list(all_records(run.samples))
    found = {
        "overfitting": [*_overfitting(scores, texts), *_leaks(preflight)],
        "format_collapse": _openers(samples),
        "distribution_mismatch": [*_uncovered(preflight), *_risen(scores, texts, "usage", None)],
        "forgetting": _risen(scores, texts, "retain", None),
        "health": _spikes(run),
    }
    kept = {guard: [group for group in groups if group["items"]] for guard, groups in found.items()}
    return {guard: groups for guard, groups in kept.items() if groups}


def _item(name: str, text: str, figure: str) -> dict[str, str]:
    return {"id": name, "text": text[:_MAX_TEXT], "figure": figure}


# ------------------------------------------------------------------ rows that got worse


def _scores(run: RunDir) -> dict[str, _Scores]:
    found: dict[str, _Scores] = {}
    for record in all_records(run.scores):
        nll, tokens = number(record.get("nll")), number(record.get("tokens"))
        step, probe = whole(record.get("step")), str(record.get("probe"))
        if step is None or nll is None or not tokens:
            continue
        table = found.setdefault(probe, _Scores(probe, {}))
        table.by_step.setdefault(step, {})[str(record.get("id"))] = nll / tokens
    return found


def _texts(run: RunDir) -> dict[str, str]:
    """What is known of rows by id: the prompt that was answered, or the example as it was shown."""
    texts: dict[str, str] = {}
    try:
        views = json_object(run.examples).get("views")
    except SFTError:
        views = []
    for view in views if isinstance(views, list) else []:
        pieces = view.get("pieces") if isinstance(view, dict) else None
        if isinstance(pieces, list):
            words = [str(piece[0]) for piece in pieces if isinstance(piece, list) and piece]
            texts[str(view.get("id"))] = "".join(words)
    for record in all_records(run.samples):
        texts[str(record.get("id"))] = str(record.get("prompt") or "")
    return texts


def _overfitting(scores: dict[str, _Scores], texts: dict[str, str]) -> list[Group]:
    table = scores.get("val")
    best = table.best() if table else None
    since_best = table is not None and best is not None and best != table.steps[-1]
    return _risen(scores, texts, "val", best if since_best else None)


def _risen(
    scores: dict[str, _Scores], texts: dict[str, str], probe: str, since: int | None
) -> list[Group]:
    """The rows of `probe` whose loss rose most since the evaluation `since` (None: the first
    one).
    """
    table = scores.get(probe)
    if table is None or len(table.steps) < 2:
        return []
    before, now = table.steps[0] if since is None else since, table.steps[-1]
    earlier, later = table.by_step[before], table.by_step[now]
    change = {name: later[name] - earlier[name] for name in later if name in earlier}
    order = sorted(change, key=lambda name: -change[name])
    worse = [name for name in order if change[name] > 0][:MOST]
    what = "the base model" if before == 0 else f"step {before}"
    title = f"rows of {probe} whose loss rose most, step {now} against {what}"
    items = [
        _item(
            name,
            texts.get(name, ""),
            f"{change[name]:+.3f} nats per token ({earlier[name]:.3f} to {later[name]:.3f})",
        )
        for name in worse
    ]
    return [{"title": title, "items": items}]


def _leaks(preflight: Record) -> list[Group]:
    rows = section(preflight, "rows")
    leaks, pairs = rows.get("leaks"), rows.get("duplicates")
    leaked = [
        _item(str(pair.get("val")), f"like {pair.get('train')}", "")
        for pair in (leaks if isinstance(leaks, list) else [])
        if isinstance(pair, dict)
    ]
    doubled = [
        _item(str(pair[1]), f"like {pair[0]}", "")
        for pair in (pairs if isinstance(pairs, list) else [])
        if isinstance(pair, list) and len(pair) == 2
    ]
    return [
        {"title": "validation rows that are also in the training rows", "items": leaked[:MOST]},
        {"title": "training rows that are copies of others", "items": doubled[:MOST]},
    ]


# ------------------------------------------------------------------ answers and prompts


def _openers(samples: Sequence[Record]) -> list[Group]:
    """How answers begin now, how the base model's did, and those that go round in circles."""
    steps = sorted({step for s in samples if (step := whole(s.get("step"))) is not None})
    if not steps:
        return []
    last = [s for s in samples if whole(s.get("step")) == steps[-1]]
    groups = [_opened(last, "answer", f"how answers open after step {steps[-1]}")]
    if steps[0] == 0 and len(steps) > 1:
        base = [s for s in samples if whole(s.get("step")) == 0]
        groups.append(_opened(base, "answer", "how the base model's answers open"))
    groups.append(_opened(last, "reference", "how the reference answers open"))
    loops = [
        _item(str(s.get("id")), str(s.get("answer")), "the same four words three times or more")
        for s in last
        if in_a_loop(str(s.get("answer") or ""))
    ]
    groups.append({"title": f"answers that repeat themselves, step {steps[-1]}", "items": loops})
    return groups


def _opened(samples: Sequence[Record], column: str, title: str) -> Group:
    texts = [str(s[column]) for s in samples if s.get(column)]
    counts = Counter(opener(text) for text in texts).most_common(MOST)
    return {
        "title": title,
        "items": [_item("", words, f"{count} of {len(texts)}") for words, count in counts],
    }


def _uncovered(preflight: Record) -> list[Group]:
    usage = section(preflight, "usage")
    rows = usage.get("uncovered")
    items = [
        _item(
            str(row.get("id")),
            str(row.get("text") or ""),
            f"p = {number(row.get('p')) or 0.0:.3g}; group: {row.get('group')}",
        )
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    ]
    return [{"title": "usage prompts unlike any training row", "items": items[: 3 * MOST]}]


# ------------------------------------------------------------------ steps


def _spikes(run: RunDir) -> list[Group]:
    """The steps whose gradient stands out most, in robust standard deviations."""
    series = series_of(run)
    with series.lock:
        step, norm, loss = (series.steps.column(name) for name in ("step", "grad_norm", "loss"))
    if np.isfinite(norm).sum() < _FEWEST_STEPS:
        return []
    z = robust_z(norm)
    order = np.argsort(-np.where(np.isfinite(z), z, -math.inf), kind="stable")[:3]
    items = [
        _item(
            f"step {step[i]:.0f}",
            f"loss {loss[i]:.4g}",
            f"gradient norm {norm[i]:.3g}, {z[i]:.1f} robust standard deviations above the median",
        )
        for i in order.tolist()
        if math.isfinite(z[i]) and z[i] > 0
    ]
    return [{"title": "steps with the largest gradient", "items": items}]
