"""What the terminal says at the end of a run: figures, what to watch, guards, and what to type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sft.guards.base import Finding
from sft.report.guards_table import lines
from sft.report.guards_table import table as guards_table
from sft.runs.events import VERDICT_LEVELS
from sft.runs.metrics import METRICS
from sft.terminal.console import Console, duration, sparkline
from sft.texts.safe import printable

_BY_SOURCE = "val_loss_by_source"
# The shape and style of each status; the shape is for who does not see the colour.
_STATUS = {
    "good": ("✓", "green"),
    "neutral": ("·", ""),
    "warning": ("▲", "yellow"),
    "unknown": ("○", "dim"),
}


def show_ending(summary: Mapping[str, Any], losses: Sequence[float], show: Console) -> None:
    """Print what a finished run amounts to; `summary` is its `summary.json`.

    `losses` are those of all its steps. All of it fits 40 columns.
    """
    show.speak()
    if summary["headline"]:
        show.note(summary["headline"], level="warning")
    took = summary["last"].get("seconds")
    time = f" in {duration(took)}" if took is not None else ""
    show.table(_trained(summary, f"{summary['steps']:,} steps{time}  {sparkline(losses)}"))
    after = {**summary["best"], **summary["test"]}
    if any(after.get(name) is not None for name in _names("evaluation")):
        show.table(_held_out(summary, after))
    _show_evidence(summary, show)
    if "val_loss" not in summary["best"]:
        show.note("validation: not measured", level="warning")
    elif summary["base"] and summary["best"]["val_loss"] >= summary["base"]["val_loss"]:
        show.note(
            "val_loss never fell below the base model's: this training made it worse", level="error"
        )
    if summary["stopped"]:
        show.note(f"ended early: {summary['stopped']}", level="warning")
    show.note(f"model: {summary['model_dir']}")
    differs = summary["verified"].startswith("DIFFERENT")
    show.note(
        f"  step {summary['best_step']}; {summary['verified']}",
        level="error" if differs else "info",
    )
    run = shlex.quote(summary["run_dir"])
    show.note(f"next:\n  sft chat {run}\n  sft eval {run} --data FILE\n  sft watch {run}")


def _names(of: str) -> list[str]:
    """The metrics of steps or of evaluations that have a row."""
    return [metric.name for metric in METRICS.values() if metric.ending and metric.of == of]


def _trained(summary: Mapping[str, Any], title: str) -> Table:
    """The first and the last record of a step."""
    table = _figures(title, "first step", "last step")
    first, last = summary["first"], summary["last"]
    for name in _names("step"):
        table.add_row(name, _figure(first.get(name)), _figure(last.get(name)))
    return table


def _held_out(summary: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """The base model and the chosen step, on rows that were not trained on."""
    base = summary["base"]
    table = _figures("held-out rows", "base model", f"step {summary['best_step']:,}")
    for name in _names("evaluation"):
        if after.get(name) is not None:
            table.add_row(name, _figure(base.get(name)), _figure(after[name]))
    for source, loss in (after.get(_BY_SOURCE) or {}).items():
        before = (base.get(_BY_SOURCE) or {}).get(source)
        if isinstance(loss, float) and isinstance(before, float):
            table.add_row(Text(printable(f"val_loss, {source}")), _figure(before), _figure(loss))
    return table


def _figures(title: str, before: str, after: str) -> Table:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", min_width=14)
    for name in (before, after):
        table.add_column(name, justify="right", no_wrap=True, min_width=10)
    return table


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _show_evidence(summary: Mapping[str, Any], show: Console) -> None:
    """What to watch, the verdict of each guard, and what to do about alarms."""
    if summary["indicators"]:
        show.table(_indicators(summary["indicators"]))
    if not summary["guards"]:
        show.note("guards: off, nothing was measured", level="warning")
        return
    findings = [Finding.from_record(record) for record in summary["guards"]]
    show.table(guards_table(findings, width=show.width, praise=not summary["headline"]))
    for text, verdict in lines(findings):
        show.note(text, level=VERDICT_LEVELS.get(verdict, "info"))
    if summary["eval_share"] is not None:
        show.note(f"measuring took {summary['eval_share']:.1%} of the training time")


def _indicators(indicators: Sequence[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.title, table.title_justify = Text("\nwhat to watch"), "left"
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for indicator in indicators:
        glyph, style = _STATUS[indicator["status"]]
        text = Text(printable(indicator["message"]))
        if indicator["evidence"]:
            text.append(f"\n{printable(indicator['evidence'])}", style="dim")
        table.add_row(Text(f" {glyph}", style=style), text)
    return table
