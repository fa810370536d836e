"""The lines of a run's pictures: thinned, smoothed, and with what happened along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.report.conclusion import checkpoints
from sft.runs.files import number, whole
from sft.runs.metrics import METRICS, panels
from sft.runs.run_records import RunRecords
from sft.runs.series import Points, Series
from sft.texts.numbers import figure

MOST_MARKS = 12
WIDTH = 400  # at most twice as many points of a line

# metric of a step: (its title, the metrics of evaluations that are drawn with it)
LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("Loss, nats per token", ("val_loss", "usage_loss", "train_probe_loss")),
    "perplexity": ("Perplexity", ("val_perplexity", "usage_perplexity")),
    "accuracy": ("Accuracy: right tokens ranked first", ("val_accuracy", "usage_accuracy")),
    "learning_rate": ("Learning rate", ()),
    "grad_norm": ("Gradient norm before clipping", ()),
    "tokens_per_second": ("Tokens per second", ()),
}
MARKS = ("checkpoint", "resumed", "interrupted", "failed", "stopped")


def curve_facts(records: RunRecords) -> dict[str, Any]:
    """The points that are drawn, and what they show in words, by metric."""
    series = Series(records.run.metrics)
    series.update()
    # The weight of what came before: a tenth of a short run, fifty steps of a long one.
    weight = min(max(0.0, 1 - 10 / max(records.steps, 1)), 0.98)
    all_marks = marks(records)
    return {
        "smoothing": weight,
        "marks": all_marks,
        "marks_words": marks_words(all_marks),
        "lines": {
            name: _curve(series, name, title, evals, weight)
            for name, (title, evals) in lines().items()
            if records.run.metrics.is_file()
        },
        "clip": number(records.setting("optim.max_grad_norm")),
        "source": {"file": "metrics.jsonl", "where": "records of steps and of evaluations"},
    }


def _curve(
    series: Series, name: str, title: str, evals: Sequence[str], weight: float
) -> dict[str, Any]:
    """One picture: the line of a metric of steps, and of metrics of evaluations."""
    line = series.points(name, width=WIDTH, smooth=weight if METRICS[name].smooth else 0.0)
    if name == "perplexity":  # of the mean loss, as everywhere: a mean of powers is its peaks
        loss = series.points("loss", width=WIDTH, smooth=weight)
        line.smooth_x, line.smooth_y = loss.smooth_x, np.exp(loss.smooth_y)
    measured = {name: series.points(name, of="evaluations") for name in evals}
    measured = {name: points for name, points in measured.items() if len(points.y)}
    texts = [_ends(title, line)]
    texts += [_ends(name.replace("_", " "), points) for name, points in measured.items()]
    return {
        "title": title,
        "words": ". ".join(text for text in texts if text) + ".",  # for those who do not see it
        "drawn": bool(len(line.y) or measured),
        **line.record(),
        "evaluations": {name: points.record() for name, points in measured.items()},
    }


def lines() -> dict[str, tuple[str, tuple[str, ...]]]:
    """`LINES`, and the charts of further metrics of steps that are declared with one."""
    further = {
        name: (metrics[0].title.capitalize(), tuple(metric.name for metric in metrics[1:]))
        for name, metrics in panels().items()
        if name not in LINES and metrics[0].of == "step" and metrics[0].report
    }
    return LINES | further


def marks(records: RunRecords) -> list[dict[str, Any]]:
    """Where something happened: its kind and step, each once."""
    rows = [
        (str(event.get("kind")), step, "")
        for event in records.events
        if event.get("kind") in MARKS and (step := whole(event.get("step"))) is not None
    ]
    if not any(kind == "checkpoint" for kind, *_ in rows):
        rows += [("checkpoint", step, "") for step in checkpoints(records)]
    rows += _first_verdicts(records)
    if records.chosen is not None:
        rows.append(("chosen", records.chosen, ""))
    return [{"kind": kind, "step": step, "guard": guard} for kind, step, guard in sorted(set(rows))]


def _first_verdicts(records: RunRecords) -> list[tuple[str, int, str]]:
    """Each guard's first watch and first alarm: a mark at every evaluation would hide the line."""
    first: dict[tuple[str, str], int] = {}
    for finding in records.findings:
        verdict, step = str(finding.get("verdict")), whole(finding.get("step"))
        if verdict in ("watch", "alarm") and finding.get("primary") and step is not None:
            first.setdefault((str(finding.get("guard")), verdict), step)
    return [(verdict, step, guard.replace("_", " ")) for (guard, verdict), step in first.items()]


def marks_words(marks: Sequence[Mapping[str, Any]]) -> list[str]:
    """`First alarm: forgetting at step 4`, one text for each kind."""
    places_of: dict[str, list[str]] = {}
    for mark in marks:
        guard = f"{mark['guard']} at " if mark["guard"] else ""
        places_of.setdefault(mark["kind"], []).append(f"{guard}step {mark['step']:,}")
    names = {"watch": "first watch", "alarm": "first alarm", "checkpoint": "checkpoints"}
    return [
        f"{names.get(kind, kind).capitalize()}: {', '.join(places[:MOST_MARKS])}"
        + (f" and {len(places) - MOST_MARKS} more" if len(places) > MOST_MARKS else "")
        for kind, places in places_of.items()
    ]


def _ends(name: str, points: Points) -> str:
    """`Loss from 2.554 at step 1 to 0.832 at step 24, between 0.8 and 6.2`."""
    steps, values = points.step.tolist(), points.y.tolist()
    if not values:
        return ""
    text = (
        f"{name} from {figure(values[0])} at step {steps[0]:,.0f} to {figure(values[-1])} at step "
        f"{steps[-1]:,.0f}"
    )
    between = f", between {figure(min(values))} and {figure(max(values))}"
    return text + between if len(values) > 2 else text
