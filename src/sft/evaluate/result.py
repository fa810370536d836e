"""The result of an evaluation, and how it looks in the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sft.evaluate.tasks import Measure
from sft.probes.generate import StopReason
from sft.texts.safe import printable

NUM_SAMPLES, MAX_SHOWN = 3, 300


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of both models; `change` is tuned minus base."""

    base: Measure
    tuned: Measure
    change: float | None


@dataclass(frozen=True, slots=True)
class CompletionText:
    """What a model wrote, and whether it ended by itself (`stop`) or was cut (`length`)."""

    text: str
    stop_reason: StopReason


@dataclass(frozen=True, slots=True)
class RowCompletions:
    """One row: what was sent, special tokens included, both completions, and the reference."""

    id: str
    prompt: str
    base: CompletionText
    tuned: CompletionText
    reference: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Before and after; also `eval-<data>.json` in the run folder."""

    run: str
    data: list[str]
    files: dict[str, str]  # sha256
    base_model: str
    tuned_model: str
    task: str
    how: str  # what the task compares, in words
    notes: list[str]
    num_rows: int
    max_new_tokens: int
    measures: dict[str, Compared]
    rows: list[RowCompletions]


def render(evaluation: Evaluation) -> RenderableType:
    """A table of both models, the notes, and three rows with both completions."""
    parts: list[RenderableType] = [_measures(evaluation)]
    parts.append(_line(f"{evaluation.task}: {evaluation.how}"))
    parts += [_line(f"note: {note}", style="yellow") for note in evaluation.notes]
    parts += [_sample(row) for row in evaluation.rows[:NUM_SAMPLES]]
    return Group(*parts)


def _measures(evaluation: Evaluation) -> Table:
    table = Table(
        title=Text(f"{', '.join(evaluation.data)}: {evaluation.num_rows:,} rows"),
        title_justify="left",
        caption="in parentheses: 95 % interval of a share of rows",
        caption_justify="left",
    )
    table.add_column("metric")
    for name in ("base", "tuned", "change"):
        table.add_column(name, justify="right")
    for name, both in evaluation.measures.items():
        table.add_row(
            _line(name),
            _value(both.base),
            _value(both.tuned),
            _change(both.change, both.base.unit),
        )
    return table


def _value(measure: Measure) -> str:
    if measure.value is None:
        return "not finite"
    if measure.unit != "share":
        return f"{measure.value:.4g}"
    if measure.interval is None:
        return f"{measure.value:.1%}"
    low, high = measure.interval
    return f"{measure.value:.1%} ({low:.0%} to {high:.0%})"


def _change(change: float | None, unit: str) -> str:
    if change is None:
        return ""
    return f"{100 * change:+.1f} points" if unit == "share" else f"{change:+.4g}"


def _sample(row: RowCompletions) -> Table:
    table = Table(title=_line(row.id), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("prompt", _line(_tail(row.prompt)))
    table.add_row("base", _completion(row.base))
    table.add_row("tuned", _completion(row.tuned))
    table.add_row("reference", _line(_head(row.reference)))
    return table


def _completion(completion: CompletionText) -> Text:
    text = _line(_head(completion.text))
    if completion.stop_reason == "length":
        text.append(" (cut: it did not stop)", style="yellow")
    return text


def _head(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + " ..."


def _tail(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else "... " + text[-MAX_SHOWN:]


def _line(text: str, style: str = "") -> Text:
    """Text from data or models: no markup, no control characters, nothing unprintable."""
    return Text(printable(text.encode("utf-8", "replace").decode()).strip(), style=style)
