"""Examples behind the verdicts: rows, answers and prompts, from nothing but the records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.guards.completions import in_a_loop
from sft.guards.history import row_loss, usable_rows
from sft.guards.statistics import robust_z
from sft.runs.best_step import best_step
from sft.runs.evaluations import evals_of
from sft.runs.files import Record, items, json_object, number, objects, readable, section, whole
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.runs.series import series_of
from sft.texts.openers import opener

MOST = 8  # examples of one kind
_MAX_TEXT = 2_000
_FEWEST_STEPS = 12

Group = dict[str, Any]  # {"title", "items": [{"id", "text", "figure"}]}
Losses = dict[int, dict[str, float]]  # of one probe, by step and row, in nats per token


def evidence(run: RunDir) -> dict[str, list[Group]]:
    """By guard, groups of examples; a guard without any is left out."""
    scores, texts = list(each_record(run.scores)), _texts(run)
    val = _losses(scores, "val")
    preflight = readable(json_object, run.preflight)
    samples = list(each_record(run.samples))
    by_guard = {
        "overfitting": [
            *_risen(val, texts, "val", _since_best(run, val)),
            *_leaks(preflight),
        ],
        "format_collapse": _openers(samples),
        "distribution_mismatch": [
            *_uncovered(preflight),
            *_risen(_losses(scores, "usage"), texts, "usage"),
        ],
        "forgetting": _risen(_losses(scores, "retain"), texts, "retain"),
        "health": _spikes(run),
    }
    return {
        guard: [group for group in groups if group["items"]]
        for guard, groups in by_guard.items()
        if any(group["items"] for group in groups)
    }


def _item(name: str, text: str, figure: str) -> dict[str, str]:
    return {"id": name, "text": text[:_MAX_TEXT], "figure": figure}


# ------------------------------------------------------------------ rows that got worse


def _losses(scores: Sequence[Record], probe: str) -> Losses:
    return {
        step: {name: row_loss(row) or 0.0 for name, row in rows.items()}
        for step, rows in sorted(usable_rows(scores, probe).items())
    }


def _texts(run: RunDir) -> dict[str, str]:
    """What is known of rows by id: the prompt that was answered, or the example as it was shown."""
    texts: dict[str, str] = {}
    for view in objects(readable(json_object, run.examples), "views"):
        pieces = items(view, "pieces")
        if pieces:
            texts[str(view.get("id"))] = "".join(
                str(piece[0]) for piece in pieces if isinstance(piece, list) and piece
            )
    for record in each_record(run.samples):
        texts[str(record.get("id"))] = str(record.get("prompt") or "")
    return texts


def _since_best(run: RunDir, losses: Losses) -> int | None:
    """The best step of the run, where there are newer evaluations; None: compare with the base."""
    best = best_step(run, evals_of(run)).step
    return best if best in losses and best != max(losses) else None


def _risen(
    losses: Losses, texts: Mapping[str, str], probe: str, since: int | None = None
) -> list[Group]:
    """The rows of `probe` whose loss rose most since the evaluation `since` (None: the first)."""
    if len(losses) < 2:
        return []
    before, now = min(losses) if since is None else since, max(losses)
    earlier, later = losses[before], losses[now]
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
    leaked = [
        _item(str(pair.get("val")), f"like {pair.get('train')}", "")
        for pair in objects(rows, "leaks")
    ]
    doubled = [
        _item(str(pair[1]), f"like {pair[0]}", "")
        for pair in items(rows, "duplicates")
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
    rows = [
        _item(
            str(row.get("id")),
            str(row.get("text") or ""),
            f"p = {number(row.get('p')) or 0.0:.3g}; group: {row.get('group')}",
        )
        for row in objects(section(preflight, "usage"), "uncovered")
    ]
    return [{"title": "usage prompts unlike any training row", "items": rows[: 3 * MOST]}]


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
